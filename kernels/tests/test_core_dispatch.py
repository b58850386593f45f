"""vtp-core finds the kernels: its attention, its tube masking and the transformers models inside its encoders."""

from __future__ import annotations

import pytest
import torch

pytest.importorskip("vtp", reason="vtp-core is not installed")

from vtp.errors import ConfigError
from vtp.model import kernels
from vtp.model import kernels as dispatch
from vtp.model.attention import attention
from vtp_kernels import AttnLayout
from vtp_kernels.dispatch import missing

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _restored(monkeypatch):
    if (reason := missing(CPU)) is not None:
        pytest.skip(reason)
    monkeypatch.setattr(dispatch, "_backends", dict(dispatch._backends))
    monkeypatch.setattr(dispatch, "_selected", "auto")
    monkeypatch.setattr(dispatch, "_looked", False)
    monkeypatch.setattr(kernels, "_last", None)


def inputs(width: int, queries: int = 9, keys: int = 13) -> tuple[list[torch.Tensor], torch.Tensor]:
    shapes = ((3, 2, queries, width), (3, 2, keys, width), (3, 2, keys, width))
    mask = torch.rand(3, keys) < 0.6
    mask[0], mask[1, -1] = False, True  # a row that may look at nothing
    return [torch.randn(shape, requires_grad=True) for shape in shapes], mask


@pytest.mark.parametrize("width", [16, 24, 64])
@pytest.mark.parametrize("masked", [True, False])
def test_attention_of_the_core_equals_that_of_torch(width, masked, relative_error):
    tensors, mask = inputs(width)
    given = mask if masked else None
    results = {}
    for name in ("torch", "triton"):
        kernels.use_kernels(name, CPU)
        out = attention(*tensors, key_mask=given, scale=None)
        weight = torch.linspace(-1, 1, out.numel()).view_as(out)
        results[name] = [out.detach(), *torch.autograd.grad((out * weight).sum(), tensors)]
    for got, want in zip(results["triton"], results["torch"], strict=True):
        assert relative_error(got, want) < 5e-6
    if masked:
        assert (results["triton"][0][0] == 0).all()


def test_all_layers_share_the_layout_of_a_mask(monkeypatch):
    built = []
    real = AttnLayout.from_key_mask
    monkeypatch.setattr(AttnLayout, "from_key_mask", staticmethod(lambda *a, **k: built.append(1) or real(*a, **k)))
    kernels.use_kernels("triton", CPU)
    tensors, mask = inputs(16)
    for _ in range(3):
        before = attention(*tensors, key_mask=mask)
    assert len(built) == 1
    mask[1] = True  # another mask in the same tensor
    after = attention(*tensors, key_mask=mask)
    assert len(built) == 2 and not torch.equal(after[1], before[1])
    attention(tensors[0][:, :, :5], *tensors[1:], key_mask=mask)  # other queries, the same keys
    assert len(built) == 3


def test_auto_leaves_the_cpu_to_torch_and_says_so(caplog):
    caplog.set_level("INFO", logger="vtp")
    assert kernels.use_kernels("auto", CPU).startswith("torch")
    assert "attention and tube masking run on torch" in caplog.text
    tensors, mask = inputs(16)
    assert "triton" in dispatch.backends() and not dispatch._backends["triton"].supports(*tensors, mask)
    assert kernels.operators(CPU) is None


def test_what_cannot_run_is_an_error_with_the_reason(monkeypatch):
    monkeypatch.setattr("vtp_kernels.dispatch.missing", lambda *_: "the tensors are on the CPU")
    with pytest.raises(ConfigError, match="kernels=triton cannot run here: no CUDA device. Use kernels=auto"):
        kernels.use_kernels("triton", CPU)
    assert kernels.use_kernels("auto", CPU) == "torch (no CUDA device)"
    monkeypatch.setattr(kernels, "installed", lambda: None)
    with pytest.raises(ConfigError, match="pip install vtp-kernels"):
        kernels.use_kernels("triton", CPU)
    assert kernels.use_kernels("auto", CPU).startswith("torch (vtp-kernels is not installed")
    monkeypatch.setattr(dispatch, "_looked", False)
    monkeypatch.setattr(dispatch, "_backends", {})
    assert dispatch.backends() == ["auto", "torch"]


def _models():
    from transformers import (
        ASTConfig,
        ASTModel,
        BertConfig,
        BertModel,
        VideoMAEConfig,
        VideoMAEModel,
        ViTConfig,
        ViTModel,
    )

    size = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48}
    ids = torch.randint(5, 50, (3, 11))
    padding = (torch.arange(11) < torch.tensor([11, 4, 1])[:, None]).long()
    picture = torch.randn(2, 3, 32, 32)
    yield BertModel(BertConfig(vocab_size=50, **size)), {"input_ids": ids, "attention_mask": padding}
    yield ViTModel(ViTConfig(image_size=32, patch_size=8, **size)), {"pixel_values": picture}
    video = VideoMAEConfig(image_size=32, patch_size=8, num_frames=4, **size)
    yield VideoMAEModel(video), {"pixel_values": torch.randn(2, 4, 3, 32, 32)}
    sound = ASTConfig(num_mel_bins=32, max_length=32, **size)
    yield ASTModel(sound), {"input_values": torch.randn(2, 32, 32)}


def test_transformers_models_take_the_kernels_by_configuration(relative_error):
    for model, given in _models():
        model.eval()
        whole = torch.nn.ModuleDict({"encoder": model})
        kernels.use_kernels("torch", CPU)
        assert kernels.adopt(whole, CPU) == []
        want = model(**given).last_hidden_state
        kernels.use_kernels("triton", CPU)
        assert kernels.adopt(whole, CPU) == ["encoder"]
        assert model.config._attn_implementation == "vtp_masked"
        got = model(**given).last_hidden_state
        real = given.get("attention_mask", torch.ones(got.shape[:2], dtype=torch.long)).bool()
        assert relative_error(got[real], want[real]) < 5e-6


def test_models_with_attention_of_their_own_keep_it():
    from transformers import T5Config, T5EncoderModel

    model = T5EncoderModel(T5Config(vocab_size=50, d_model=32, d_kv=16, d_ff=48, num_layers=1, num_heads=2))
    before = model.config._attn_implementation
    kernels.use_kernels("triton", CPU)
    assert kernels.adopt(model, CPU) == [] and model.config._attn_implementation == before
