"""Masked autoencoding of video and of sound: targets, which tokens count, models with and without fusion."""

from __future__ import annotations

import pytest
import torch

from vtp.errors import ConfigError
from vtp.model.build import BuildContext, build_model, lookup_in
from vtp.model.context import ForwardContext
from vtp.plugins import host
from vtp.types import Batch

VIDEO = {"name": "tiny", "frames": 4, "size": 32, "patch": 16}
AUDIO = {"name": "tiny", "seconds": 1.0, "sample_rate": 4000, "bins": 8}


def build(objective, video=VIDEO, audio=AUDIO, fusion=None, ratio=0.5):
    spec = {
        "encoders": {"video": video, "audio": audio, "fusion": fusion},
        "objectives": {"it": {"name": "mvm", "decoder_depth": 1, "decoder_heads": 2} | objective},
        "masks": {"video": {"ratio": ratio}, "audio": {"ratio": ratio}},
    }
    return build_model(spec, lookup_in(host().registry), BuildContext(), seed=3).eval()


def make_batch(rows=4, silent=(), lengths=(4000, 4000, 1500, 2500)):
    generator = torch.Generator().manual_seed(1)
    heard = torch.ones(rows, dtype=torch.bool)
    heard[list(silent)] = False
    return Batch(
        ids=[str(i) for i in range(rows)],
        inputs={
            "video": {"frames": torch.randint(0, 256, (rows, 4, 32, 32, 3), generator=generator, dtype=torch.uint8)},
            "audio": {
                "waveform": torch.randn(rows, 4000, generator=generator) * 0.1 * heard[:, None],
                "lengths": torch.tensor(lengths[:rows]) * heard,
            },
        },
        present={"video": torch.ones(rows, dtype=torch.bool), "audio": heard},
    )


def run(model, batch):
    ctx = ForwardContext(model, batch)
    objective = model.objectives["it"]
    counted = objective.count(ctx)
    objective.plan(ctx)
    out = objective(ctx)
    assert out.weight == counted
    return ctx, objective, out


@pytest.mark.parametrize("normalise", [True, False])
def test_the_target_of_video_is_the_pixels_of_hidden_tubelets(normalise):
    """Patch by patch, from the frames themselves."""
    batch = make_batch()
    ctx, objective, out = run(build({"normalise": normalise}), batch)
    hidden, guess = ctx.inputs("video", ctx.masked("video"))["hidden"], objective.predict(ctx)
    errors = []
    for row in range(4):
        for k, place in enumerate(hidden[row].tolist()):
            t, y, x = place // 4, place % 4 // 2, place % 2
            cube = batch.inputs["video"]["frames"][row, t, 16 * y : 16 * y + 16, 16 * x : 16 * x + 16].double() / 255
            cube = cube.reshape(256, 3)
            if normalise:
                cube = (cube - cube.mean(0)) / (cube.std(0) + 1e-6)
            errors.append((guess[row, k].double() - cube.flatten()).square().mean())
    assert out.loss.item() == pytest.approx(torch.stack(errors).mean().item(), rel=1e-4)
    assert int(out.weight) == 4


@pytest.mark.parametrize("normalise", [True, False])
def test_the_target_of_sound_is_the_spectrogram_behind_hidden_tokens(normalise):
    """Real patches only: row 1 has no sound, rows 2 and 3 end early."""
    batch = make_batch(silent=[1])
    model = build({"modality": "audio", "normalise": normalise})
    ctx, objective, out = run(model, batch)
    values, real = model.encoders["audio"].patches(**batch.inputs["audio"])
    hidden, guess = ctx.inputs("audio", ctx.masked("audio"))["hidden"], objective.predict(ctx)
    errors = []
    for row in (0, 2, 3):
        for k, place in enumerate(hidden[row].tolist()):
            if real[row, place]:
                patch = values[row, place].double()
                if normalise:
                    patch = (patch - patch.mean()) / (patch.std() + 1e-6)
                errors.append((guess[row, k].double() - patch).square().mean())
    assert 0 < len(errors) < hidden.numel() * 3 / 4 and int(out.weight) == len(errors)
    assert out.loss.item() == pytest.approx(torch.stack(errors).mean().item(), rel=1e-4)


def test_padding_and_missing_sound_change_nothing():
    model = build({"modality": "audio"})
    _, _, out = run(model, make_batch(silent=[1]))
    batch = make_batch(silent=[1])
    batch.inputs["audio"]["waveform"][1] = 5.0
    batch.inputs["audio"]["waveform"][2, 1500:] = 5.0
    torch.testing.assert_close(run(model, batch)[2].loss, out.loss)


@pytest.mark.parametrize(("silent", "decoded"), [([], 4), ([1, 3], 2), ([0, 1, 2, 3], 1)])
def test_rows_without_sound_are_not_decoded(silent, decoded):
    model = build({"modality": "audio"})
    rows = []
    model.objectives["it"].decoder.norm.register_forward_hook(lambda _, given, out: rows.append(len(out)))
    run(model, make_batch(silent=silent, lengths=(4000,) * 4))
    assert rows == [decoded]


@pytest.mark.parametrize("modality", ["video", "audio"])
@pytest.mark.parametrize("fusion", [None, {"name": "concat", "preset": "tiny"}])
def test_every_parameter_that_is_used_gets_a_gradient(modality, fusion):
    model = build({"modality": modality, "masked": []}, fusion=fusion)
    ctx, objective, out = run(model, make_batch())
    out.loss.backward()
    parts = [objective, model.encoders[modality]] + ([model.encoders["fusion"]] if fusion else [])
    assert all(p.grad is not None and p.grad.isfinite().all() for part in parts for p in part.parameters())
    assert (
        ctx.tokens(modality, ctx.masked(modality)).x.shape[1]
        < ctx.inputs(modality, ctx.masked(modality))["mask"].shape[1]
    )


@pytest.mark.parametrize("modality", ["video", "audio"])
def test_nothing_hidden_or_nothing_there_is_a_connected_zero(modality):
    nothing_there = make_batch()
    nothing_there.present[modality] = torch.zeros(4, dtype=torch.bool)
    for model, batch in [
        (build({"modality": modality}, ratio=0.01), make_batch()),
        (build({"modality": modality}), nothing_there),
    ]:
        _, objective, out = run(model, batch)
        assert out.loss.item() == 0 and out.weight == 0
        out.loss.backward()
        assert all(p.grad is not None and (p.grad == 0).all() for p in objective.parameters())


@pytest.mark.parametrize("fusion", [None, {"name": "concat", "width": 64, "depth": 1, "heads": 2}])
def test_several_clips_of_one_video_are_filled_in_one_by_one(fusion):
    """2 rows of 2 clips are 4 rows of one clip with the same masks, for an encoder that mixes nothing between clips."""
    model = build({"fuse": []}, video=VIDEO | {"width": 64, "depth": 1, "heads": 2}, fusion=fusion)
    alone = make_batch()
    joined = Batch(
        ids=["0", "1"],
        inputs={"video": {"frames": alone.inputs["video"]["frames"].unflatten(0, (2, 2))}},
        present={"video": torch.ones(2, dtype=torch.bool)},
    )
    ctx, objective, out = run(model, joined)
    made = ctx.inputs("video", ctx.masked("video"))
    assert made["hidden"].shape == (2, 2, 8) and not torch.equal(made["hidden"][:, 0], made["hidden"][:, 1])
    tokens = ctx.tokens("video", ctx.masked("video"))
    assert tokens.grid == (8, 2, 2)
    assert torch.equal(tokens.index.unflatten(1, (2, 8)), made["visible"] + torch.tensor([0, 16])[:, None])

    single = ForwardContext(model, alone)
    masks = {name: made[name].flatten(0, 1) for name in ("mask", "visible", "hidden")}
    name = ctx.masked("video")
    single.view("video", name, lambda inputs: inputs | masks)
    if fusion is None:
        torch.testing.assert_close(objective.predict(ctx), objective.predict(single))
        torch.testing.assert_close(out.loss, objective(single).loss)
    assert objective.predict(ctx).shape == objective.predict(single).shape == (4, 8, 768)
    out.loss.backward()
    assert all(p.grad is not None for p in objective.parameters())


def test_it_learns_to_fill_in():
    """Thirty steps on one batch: the error falls for both modalities."""
    for modality in ("video", "audio"):
        torch.manual_seed(0)
        model = build({"modality": modality, "masked": []}).train()
        optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
        seen = []
        for _ in range(30):
            loss = run(model, make_batch())[2].loss
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            seen.append(loss.item())
        assert seen[-1] < 0.95 * seen[0], modality


def test_an_encoder_without_patches_is_refused(context):
    from vtp_objectives.mvm import MVM

    context.encoders["audio"].grid = (4,)
    with pytest.raises(ConfigError, match="Audio does not say what lies behind its tokens"):
        MVM(context=context, modality="audio")
    with pytest.raises(ConfigError, match="Video has no attribute grid"):
        MVM(context=context)
    del context.encoders["video"]
    with pytest.raises(ConfigError, match="needs an encoder for video"):
        MVM(context=context)
