"""What every encoder promises, checked for every encoder that is registered."""

from __future__ import annotations

import pytest
import torch
from encoder_names import NAMES

from vtp.testing import check_encoder, check_fusion
from vtp_encoders.plugin import vtp_register_encoders

LARGE = [("video", "torchvision"), ("video", "qwen3_vl"), ("text", "qwen3_vl")]  # seconds even where they are tiny
SLOW = [
    *LARGE,
    ("video", "timm patch"),
    ("video", "xclip"),
    ("video", "clip"),
    ("video", "videoprism"),
    ("video", "pe_video"),
    ("audio", "wav2vec2 layer"),
    ("video", "vjepa2"),
    ("audio", "timm"),
    ("audio", "clap"),
]
each = pytest.mark.parametrize(
    "slot, name", [pytest.param(*n, marks=pytest.mark.slow) if n in LARGE else n for n in NAMES]
)


def test_every_registered_encoder_is_tested(tiny):
    registered = []
    vtp_register_encoders(lambda name, target, slot: registered.append((slot, name)))
    assert {(slot, name.split()[0]) for slot, name in NAMES} == set(registered) and set(NAMES) == set(tiny)


@pytest.mark.parametrize(
    "slot, name",
    [pytest.param(*n, marks=pytest.mark.slow) if n in SLOW else n for n in NAMES],
)
def test_the_contract_is_kept(tiny, slot, name):
    (check_fusion if slot == "fusion" else check_encoder)(*tiny[slot, name])


@each
def test_nearly_all_parameters_are_trained(build, slot, name):
    parameters = list(build(slot, name).parameters())
    assert sum(p.requires_grad for p in parameters) > 0.9 * len(parameters)


@each
def test_checkpointing_behind_a_frozen_embedding_still_trains_the_layers(build, inputs, slot, name):
    """Reentrant checkpointing gives a layer no gradient when its input needs none."""
    encoder = build(slot, name).train()
    encoder.gradient_checkpointing_enable()
    for n, p in encoder.named_parameters():
        p.requires_grad_(p.requires_grad and encoder.layer_of(n) > 0)
    out = encoder(**getattr(inputs, slot)(encoder, 3))
    real = [out.pooled] if slot == "fusion" else [out.x[out.attention_mask]]
    real += [t.x[t.attention_mask] for t in out.tokens.values()] if slot == "fusion" else []
    torch.stack([x.square().sum() for x in real]).sum().backward()
    assert [n for n, p in encoder.named_parameters() if p.requires_grad and p.grad is None] == []
