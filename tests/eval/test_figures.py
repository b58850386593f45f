from __future__ import annotations

import numpy as np
import pytest

from vtp.eval.figures import Strip, draw_figure

CHART = {"model": {"what": 90.0, "who": 80.0}, "prior": {"what": 30.0}, "without audio": {"what": 88.0, "who": 40.0}}


def pixels(path) -> np.ndarray:
    from PIL import Image

    with Image.open(path) as image:
        assert image.format == "PNG"
        return np.asarray(image.convert("RGB"))


def test_the_figure_shows_bars_and_the_given_frames(tmp_path):
    colour = (201, 37, 99)  # of no bar
    frames = np.full((6, 12, 16, 3), colour, np.uint8)
    strips = [Strip(frames, "what costs $5 and $6?", "red", "blue", False), Strip(frames[:1], "who?", None, "a", True)]
    draw_figure(tmp_path / "a.png", CHART, strips, title="qa", note="2 of 2 questions")
    draw_figure(tmp_path / "b.png", CHART)
    with_strips, bars = pixels(tmp_path / "a.png"), pixels(tmp_path / "b.png")
    assert (with_strips == colour).all(-1).sum() > 1000 and not (bars == colour).all(-1).any()
    assert with_strips.shape[0] > bars.shape[0]
    assert (bars == (0, 114, 178)).all(-1).sum() > 1000  # the model's bars


def test_a_figure_that_cannot_be_written_leaves_the_old_one(tmp_path, monkeypatch):
    path = tmp_path / "report.png"
    draw_figure(path, CHART)
    before = path.read_bytes()

    def full_disk(self, file, **options):
        file.write(b"half a pic")
        raise OSError("No space left on device")

    monkeypatch.setattr("matplotlib.figure.Figure.savefig", full_disk)
    with pytest.raises(OSError, match="No space"):
        draw_figure(path, CHART)
    assert path.read_bytes() == before and [p.name for p in tmp_path.iterdir()] == ["report.png"]


def test_an_empty_chart_is_an_empty_figure(tmp_path):
    draw_figure(tmp_path / "a.png", {})
    assert pixels(tmp_path / "a.png").size
