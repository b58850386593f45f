"""Parts keep the contract, and the package its promises."""

from __future__ import annotations

import pytest
import torch

import vtp_alpro
from vtp.plugins import discover
from vtp.testing import check_encoder, check_fusion, check_plugin
from vtp_alpro.fusion import ALPROFusion
from vtp_alpro.text import ALPROText
from vtp_alpro.video import TimeSformer

QUIET = {"dropout": 0.0, "attention_dropout": 0.0}
VIDEO = {"width": 16, "depth": 2, "heads": 2, "frames": 3, "size": 32}


def test_the_package_keeps_its_promises():
    found = [plugin for plugin in discover() if plugin.package == "vtp_alpro"]
    assert len(found) == 1 and vtp_alpro.__version__
    check_plugin("vtp_alpro.plugin")


def test_the_text_encoder_keeps_the_contract():
    check_encoder(ALPROText, {"width": 16, "depth": 2, "heads": 2, "tokenizer": "texts", **QUIET})


def test_the_video_encoder_keeps_the_contract():
    check_encoder(TimeSformer, VIDEO)


def test_the_fusion_encoder_keeps_the_contract():
    check_fusion(ALPROFusion, {"width": 16, "depth": 2, "heads": 2, **QUIET})


@torch.no_grad()
def test_frames_see_each_other_only_through_attention_over_time():
    """Without it a token is the mean of what single frames give, in any order; with it, order matters."""
    from vtp.model.build import BuildContext

    encoder = TimeSformer(context=BuildContext(), **VIDEO).eval()
    encoder.time_embed.zero_()
    video = torch.randn(1, 3, 3, 32, 32)
    still = encoder(video).x
    torch.testing.assert_close(still, encoder(video.flip(1)).x, rtol=1e-4, atol=1e-5)
    encoder.time_embed.normal_()
    assert (encoder(video).x - encoder(video.flip(1)).x).abs().max() > 1e-3


def test_sizes_that_do_not_fit_are_refused():
    from vtp.errors import ConfigError
    from vtp.model.build import BuildContext

    with pytest.raises(ConfigError, match="Nearest valid: size=48"):
        TimeSformer(context=BuildContext(), **(VIDEO | {"size": 50}))
    encoder = TimeSformer(context=BuildContext(), **VIDEO)
    with pytest.raises(ConfigError, match="a clip of 5 frames, and its table of times has 3"):
        encoder(torch.zeros(1, 5, 3, 32, 32))
