"""The four objectives: missing modalities, edges where the released code hangs or divides by zero, use in other
models."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from simvtp_models import ALL, build, dual_spec, random_batch, recipe, spec, take_step
from torch.nn.functional import cross_entropy

from vtp.data import Pipeline, collate
from vtp.errors import ConfigError
from vtp.model.build import BuildContext, build_model, lookup_in
from vtp.model.context import ForwardContext
from vtp.plugins import host
from vtp.types import Clip, MediaRef, Sample


class Noise:
    """A decoder without files."""

    def read(self, ref, wanted):
        noise = np.random.default_rng(ord(ref.path))
        return Clip(noise.integers(0, 256, (4, 32, 32, 3), dtype=np.uint8), np.arange(4.0))


def without(batch, modality, rows):
    batch.present[modality] = batch.present[modality].clone()
    batch.present[modality][rows] = False
    if modality == "text":
        batch.inputs["text"]["attention_mask"] = batch.inputs["text"]["attention_mask"].clone()
        batch.inputs["text"]["attention_mask"][rows] = False
    return batch


@pytest.mark.parametrize("released", [False, True])
def test_count_is_the_weight_and_every_parameter_has_a_gradient(released, vocab):
    model = build(spec(vocab, released=released)).eval()
    batch = random_batch(4)
    ctx = ForwardContext(model, batch)
    counts = {name: model.objectives[name].count(ctx) for name in ALL}
    out = take_step(model, batch)
    for name in ALL:
        assert out[name].weight == counts[name] > 0
    assert [name for name, p in model.named_parameters() if p.grad is None] == []


def test_a_missing_modality_takes_no_part(vocab):
    """Rows without a clip or a text change no loss of the others: compared with a batch that lacks them."""
    model = build(spec(vocab)).eval()
    batch = without(without(random_batch(6), "video", [1]), "text", [4])
    out = take_step(model, batch)
    assert [int(out[name].weight) for name in ("mvm", "vtc", "vtm")] == [5, 4, 8]
    garbled = without(without(random_batch(6), "video", [1]), "text", [4])
    garbled.inputs["video"]["frames"][1] = 255
    garbled.inputs["text"]["token_ids"][4] = 77
    again = take_step(model, garbled)
    for name in ALL:
        assert torch.isfinite(out[name].loss)
        torch.testing.assert_close(out[name].loss, again[name].loss)


@pytest.mark.parametrize("modality", ["video", "text"])
def test_a_batch_without_a_modality_gives_zero_and_gradients(modality, vocab):
    model = build(spec(vocab)).eval()
    batch = random_batch(3)
    del batch.inputs[modality], batch.present[modality]
    out = take_step(model, batch)
    for name in ALL:
        if modality in model.objectives[name].needs:
            assert out[name].loss == 0 and out[name].weight == 0
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize("released", [False, True])
def test_a_single_row_takes_no_part_in_vtm(released, vocab):
    """The released code never returns."""
    out = take_step(build(spec(vocab, released=released)), random_batch(1))
    assert out["vtm"].weight == 0 and out["vtm"].loss == 0
    assert all(torch.isfinite(o.loss) for o in out.values())


@pytest.mark.parametrize("released", [False, True])
def test_no_selected_word_takes_no_part(released, vocab):
    """The released code ends with 0 / 0."""
    given = spec(vocab, released=released, objectives={"mlm": {}}) | {"masks": {"text": {"probability": 0.0}}}
    out = take_step(build(given), random_batch(3))["mlm"]
    assert out.loss == 0 and out.weight == 0


def test_nothing_hidden_takes_no_part(vocab):
    model = build(spec(vocab, objectives={"mvm": {}}) | {"masks": {"video": {"ratio": 0.01}}})
    out = take_step(model, random_batch(2))["mvm"]
    assert out.loss == 0 and out.weight == 0 == model.objectives["mvm"].count(ForwardContext(model, random_batch(2)))
    assert all(p.grad is not None for p in model.parameters())


def test_vtc_leaves_duplicates_out(vocab):
    model = build(dual_spec(vocab)).eval()
    samples = [
        Sample(f"row {row}", MediaRef(clip), texts=(text,), extra={"video_id": clip})
        for row, (clip, text) in enumerate(zip("abcb", ("w3 w7", "w4", "w3 w7", "w9 w9 w2"), strict=True))
    ]
    pipeline = Pipeline(model.specs(), train=False, reader=Noise())
    batch = collate([pipeline(sample, 0, row) for row, sample in enumerate(samples)], model.specs())
    ctx = ForwardContext(model, batch)
    text, video = ctx.pooled("text"), ctx.pooled("video")
    sim = torch.nn.functional.normalize(text) @ torch.nn.functional.normalize(video).T / 0.05
    for i, j in ((0, 2), (2, 0), (1, 3), (3, 1)):
        sim[i, j] = -torch.inf
    want = cross_entropy(sim, torch.arange(4)) + cross_entropy(sim.T, torch.arange(4))
    torch.testing.assert_close(take_step(model, batch)["vtc"].loss, want)


def test_evaluation_looks_at_clean_inputs(vocab):
    model = build(spec(vocab, released=True)).eval()
    ctx = ForwardContext(model, random_batch(3))
    found = model.objectives["vtc"].embeddings(ctx)
    for modality in ("video", "text"):
        want = torch.nn.functional.normalize(ctx.pooled(modality), dim=1)
        torch.testing.assert_close(found[f"{modality}_embedding"], want)
    logits = model.objectives["vtm"].match_logits(ctx, {"video": torch.tensor([0, 0]), "text": torch.tensor([1, 2])})
    assert logits.shape == (2, 2)


@pytest.mark.parametrize("fusion", [None, {"name": "concat", "preset": "tiny"}])
def test_the_choices_work_in_other_models(fusion):
    """Built-in encoders, with their own fusion and without one."""
    chosen = {"mvm": {"decoder_heads": 2}, "mlm": {"tokens": "fused" if fusion else "text"}, "vtc": {}}
    if fusion:
        chosen["vtm"] = {}
    video = {"name": "tiny", "frames": 4, "size": 32, "patch": 16}
    encoders = {"video": video, "text": {"name": "tiny"}, "fusion": fusion}
    context = BuildContext(texts=lambda: [" ".join(f"w{i}" for i in range(115))])
    model = build_model({"encoders": encoders, **recipe(False, chosen)}, lookup_in(host().registry), context)
    out = take_step(model, random_batch(4))
    assert set(out) == set(chosen) and all(torch.isfinite(o.loss) and o.weight > 0 for o in out.values())
    assert [name for name, p in model.named_parameters() if p.grad is None] == []


def test_shared_encoder_takes_other_encoders(vocab):
    """A fusion encoder of another width than the built-in encoders gets a projection for each."""
    model_spec = {
        "encoders": {
            "video": {"name": "tiny", "frames": 4, "size": 32, "width": 64},
            "text": {"name": "simvtp", "width": 96, "tokenizer": str(vocab), "positions": 64, "max_length": 64},
            "fusion": {"name": "simvtp", "width": 96, "depth": 1, "heads": 4},
        },
        **recipe(False, {"vtc": {}}),
    }
    model = build(model_spec)
    assert set(model.encoders["fusion"].proj) == {"video"}
    assert torch.isfinite(take_step(model, random_batch(3))["vtc"].loss)


def test_towers_of_different_width_are_refused(vocab):
    other = dual_spec(vocab)
    other["encoders"]["text"]["width"] = 48
    with pytest.raises(ConfigError, match="must have one width"):
        build(other)


def test_pre_training_lowers_the_losses(vocab):
    """Twenty steps on one batch: every term falls, so gradients point the right way through masks and heads."""
    model = build(spec(vocab, objectives={name: {} for name in ALL}))
    batch = random_batch(4)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    seen = []
    for _ in range(20):
        out = take_step(model, batch)
        seen.append({name: o.loss.item() for name, o in out.items()})
        optimizer.step()
    for name in ("mvm", "mlm", "vtc"):
        assert seen[-1][name] < seen[0][name] * 0.97, name
