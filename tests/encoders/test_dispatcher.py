"""Encoders around models of transformers under the attention kernel of vtp give what they give under SDPA."""

from __future__ import annotations

import pytest
import torch

pytest.importorskip("vtp_kernels")

from vtp_kernels import transformers_attention  # noqa: E402  (after the check that it is there)

NAMES = [
    ("text", "transformers"),
    ("video", "videomae"),
    ("video", "vjepa2"),
    ("video", "xclip"),
    ("video", "clip"),
    ("video", "pe_video"),
    ("audio", "ast"),
    ("audio", "vit_mae"),
    ("audio", "wav2vec2"),
    ("audio", "wav2vec2 layer"),
    ("audio", "whisper"),
]


@pytest.mark.parametrize("slot, name", NAMES)
def test_the_dispatcher_changes_nothing(build, inputs, slot, name):
    """Rows of different lengths, one of them without anything, outputs and gradients."""
    found = []
    for choice in ("sdpa", transformers_attention.register("torch")):
        encoder = build(slot, name).eval()
        encoder.model.set_attn_implementation(choice)
        torch.manual_seed(1)
        given = getattr(inputs, slot)(encoder, 3)
        for tensor in given.values():
            tensor[1] = 0
        out = encoder(**given)
        real = out.x[out.attention_mask]
        readout = torch.randn(encoder.width, generator=torch.Generator().manual_seed(0))
        (real @ readout).sin().sum().backward()  # squares behind a layer norm would sum up to a constant
        assert out.x.isfinite().all() and (slot == "video" or not out.attention_mask[1].any())
        found.append((real.detach(), {n: p.grad for n, p in encoder.named_parameters() if p.grad is not None}))
    (want, gradients), (got, others) = found
    torch.testing.assert_close(got, want, rtol=0, atol=1e-5)
    assert gradients.keys() == others.keys()
    scale = max(gradient.abs().max() for gradient in gradients.values())  # the bias of keys has a gradient of 0
    for parameter, gradient in gradients.items():
        close = torch.allclose(others[parameter] / scale, gradient / scale, rtol=0, atol=1e-5)
        assert close and gradient.isfinite().all(), parameter


@pytest.mark.parametrize("name", ["clip", "videoprism"])
def test_scores_with_a_soft_cap_are_left_alone(build, monkeypatch, name):
    """The kernel hands VideoPrism's scores to SDPA, which refuses them."""
    from vtp.model import kernels

    monkeypatch.setattr(kernels, "_selected", "triton")
    monkeypatch.setattr(kernels, "_why_not", lambda device: None)
    took = kernels.adopt(build("video", name), torch.device("cpu"))
    assert bool(took) == (name == "clip")
