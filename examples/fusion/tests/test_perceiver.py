import torch
from vtp_perceiver.fusion import Perceiver

from vtp.model.build import BuildContext
from vtp.testing import check_fusion
from vtp.types import Tokens


def test_the_contract():
    check_fusion(Perceiver, {"width": 16, "latents": 3, "heads": 2})


def test_a_word_changes_with_the_picture():
    class Wide:
        width = 6

    context = BuildContext(encoders={"video": Wide(), "text": Wide()})
    fusion = Perceiver(context=context, width=16, latents=3, heads=2).eval()
    real = torch.ones(1, 4, dtype=torch.bool)
    text = Tokens(torch.randn(1, 4, 6), real)
    one, two = (fusion({"video": Tokens(torch.randn(1, 4, 6), real), "text": text}) for _ in range(2))
    assert not torch.allclose(one.tokens["text"].x, two.tokens["text"].x)
