from __future__ import annotations

import numpy as np
import pytest

from vtp.eval import figures
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


def test_texts_of_every_script_are_drawn_without_a_word_of_matplotlib(tmp_path, caplog):
    """Warnings are errors in these tests. Nothing may depend on which fonts are installed."""
    strips = [Strip(np.zeros((2, 8, 8, 3), np.uint8), "他在做什么？ $x", "狗\x07", "\u0e43\u0e04\u0e23", False)]
    chart = {"model": {"什么": 90.0, "谁": 10.0, "what $5": 5.0, "$a_b": 1.0}, "prior": {"谁": 50.0}}
    draw_figure(tmp_path / "a.png", chart, strips, title="狗 $1 and $2", note="船")
    plain = {"model": {"a": 90.0, "b": 10.0, "c": 5.0, "d": 1.0}, "prior": {"b": 50.0}}
    draw_figure(tmp_path / "b.png", plain, strips, title="a", note="b")
    blue = [(pixels(tmp_path / name) == (0, 114, 178)).all(-1).sum() for name in ("a.png", "b.png")]
    assert abs(blue[0] - blue[1]) < 0.15 * blue[1]  # every group keeps its bar, whatever its label
    assert sum("no installed font has" in record.message for record in caplog.records) == 2


def test_an_installed_font_is_used_for_what_the_first_one_lacks():
    families, lacking = figures._fonts({"a", "他", "\n"})
    assert families[0] == "DejaVu Sans" and (lacking == {"他"} or len(families) == 2)
    assert (
        figures._without({"他", "在"}, "a 他在 b 他") == "a \u2026 b \u2026" and figures._without(set(), "他") == "他"
    )
