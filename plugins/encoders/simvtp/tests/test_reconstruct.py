"""`vtp reconstruct`: what is shown where, honest statistics, any length, several clips, the files that it writes."""

from __future__ import annotations

import json

import av
import numpy as np
import pytest
from simvtp_models import build, spec

from vtp.cli.main import main
from vtp.model.weights import save_weights
from vtp_simvtp.reconstruct import OWN_STATISTICS, TRUE_STATISTICS, reconstruct


def clips(k=2, frames=4, size=32):
    return np.random.default_rng(0).integers(0, 256, (k, frames, size, size, 3), dtype=np.uint8)


@pytest.fixture
def model(vocab):
    return build(spec(vocab)).eval()


def test_visible_places_keep_their_pixels(model):
    given = clips()
    made = reconstruct(model, given, "w1 w2 w3 w4")
    assert np.array_equal(made.original, given)
    shown = (made.masked == given).all(axis=-1)
    dark = (made.masked == 0).all(axis=-1)
    assert (shown | dark).all() and 0.7 < dark.mean() < 0.8  # mask_ratio 0.75
    assert np.array_equal(made.filled[shown & ~dark], given[shown & ~dark])
    assert made.statistics == TRUE_STATISTICS


def perfect(model, own):
    """A model that predicts the true normalised pixels: what is shown then depends on the statistics alone."""
    from vtp.model.tubelets import Grid, normalised_pixels, pixels

    mvm = model.objectives["mvm"]

    def predict(ctx):
        made = ctx.inputs("video", ctx.masked("video"))
        grid = Grid.of(made["video"], mvm.grid.shape)
        return normalised_pixels(pixels(made["video"], made["hidden"], grid, mvm.mean, mvm.std)).flatten(2)

    mvm.predict = predict
    return reconstruct(model, clips(), own_statistics=own)


def test_true_statistics_make_a_perfect_prediction_perfect(model):
    made = perfect(model, own=False)
    assert np.abs(made.filled.astype(int) - made.original).max() <= 1


def test_own_statistics_see_nothing_of_hidden_patches(model):
    """Change brightness of hidden places only: with own statistics the picture there stays, with true ones it
    follows."""
    given = clips(1)
    dark = (reconstruct(model, given).masked == 0).all(axis=-1, keepdims=True)
    for own in (True, False):
        changed = np.where(dark, given // 4, given).astype(np.uint8)
        one, two = (reconstruct(model, c, own_statistics=own) for c in (given, changed))
        assert np.array_equal(one.filled, two.filled) == own
        assert one.statistics == (OWN_STATISTICS if own else TRUE_STATISTICS)


def test_a_model_of_plain_pixels_needs_no_statistics(model):
    model.objectives["mvm"].normalise = False
    assert reconstruct(model, clips(1)).statistics == ""


def test_words(model):
    made = reconstruct(model, clips(1), "w1 w2 w3 w4 w5 w6")
    words = made.words[0]
    assert words["original"] == "w1 w2 w3 w4 w5 w6"
    masked, filled = words["masked"].split(), words["filled"].split()
    assert len(masked) == len(filled) == 6 and "[MASK]" in masked
    assert all(m in ("[MASK]", o) for m, o in zip(masked, words["original"].split(), strict=True))
    assert [f for m, f in zip(masked, filled, strict=True) if m != "[MASK]"] == [m for m in masked if m != "[MASK]"]


def write_video(path, frames):
    with av.open(str(path), "w") as container:
        stream = container.add_stream("h264", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        generator = np.random.default_rng(1)
        for _ in range(frames):
            picture = generator.integers(0, 256, (48, 64, 3), dtype=np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())


@pytest.mark.parametrize("length, number", [(3, 1), (50, 2)])
def test_command(length, number, model, tmp_path, capsys):
    save_weights(tmp_path / "model", model)
    write_video(tmp_path / "clip.mp4", length)
    out = tmp_path / "out"
    arguments = ["reconstruct", str(tmp_path / "model"), str(tmp_path / "clip.mp4"), str(out), "--text", "w1 w2 w3 w4"]
    assert main([*arguments, "--clips", str(number), "--device", "cpu", "--mask-ratio", "0.5"]) == 0
    shown = capsys.readouterr().out
    assert TRUE_STATISTICS in shown and "masked" in shown
    assert len(list(out.glob("rec_img*.jpg"))) == len(list(out.glob("mask_img*.jpg"))) == 4 * number
    record = json.loads((out / "words.json").read_text())
    assert record["statistics"] == TRUE_STATISTICS and len(record["clips"]) == number
    with av.open(str(out / "reconstruction.mp4")) as container:
        frames = list(container.decode(video=0))
    assert len(frames) == 4 * number and (frames[0].width, frames[0].height) == (96, 32)
    assert (out / "reconstruction.png").stat().st_size > 0
    assert main([*arguments, "--device", "cpu"]) == 2  # never into a folder that holds something
    assert "is not empty" in capsys.readouterr().err


def test_command_explains_what_is_missing(vocab, tmp_path, capsys):
    save_weights(tmp_path / "model", build(spec(vocab, objectives={"vtc": {}})))
    write_video(tmp_path / "clip.mp4", 3)
    assert main(["reconstruct", str(tmp_path / "model"), str(tmp_path / "clip.mp4"), str(tmp_path / "out")]) == 2
    assert "only a model trained with mvm" in capsys.readouterr().err
    save_weights(tmp_path / "mvm", build(spec(vocab, objectives={"mvm": {}})))
    arguments = [str(tmp_path / "mvm"), str(tmp_path / "clip.mp4"), str(tmp_path / "out"), "--text", "w1"]
    assert main(["reconstruct", *arguments]) == 2
    assert "leave --text out" in capsys.readouterr().err
    arguments = [str(tmp_path / "mvm"), str(tmp_path / "nowhere.mp4"), str(tmp_path / "out")]
    assert main(["reconstruct", *arguments]) == 2
    assert "nowhere.mp4: there is no such video" in capsys.readouterr().err
