"""Picture and page are decoration: what goes wrong with them is a warning of the report."""

from __future__ import annotations

import json
from types import SimpleNamespace

from vtp.run.reporting import Reporting


class Folder:
    def __init__(self, path):
        self.path, self.kept = path, []

    def keep_traceback(self, error):
        self.kept.append(str(error))


class Task:
    def examples(self, evaluator, result):
        raise KeyError("strips")


def reporting(folder, **more):
    told = {"task": "odd", "title": "odd", "tables": (), "chart": {"a": 1.0}, "missing": {}, "warnings": []} | more
    report = Reporting(folder, Task(), "task=odd (mine)", SimpleNamespace(name="clips"), SimpleNamespace(**told))
    report.record = {"warnings": ["there before"]}
    return report


def test_what_goes_wrong_is_a_warning_and_the_report_is_written(tmp_path, monkeypatch):
    folder = Folder(tmp_path)
    report = reporting(folder)
    monkeypatch.setattr("vtp.run.reporting.look_or_error", lambda *given: ValueError("not looked at"))
    report.look(SimpleNamespace(modalities=("video", "text")))
    report.finish(near_duplicates={"clips": 0})
    written = json.loads((tmp_path / "report.json").read_text())
    assert written["warnings"] == [
        "there before",
        "there is no picture: task=odd (mine): KeyError: 'strips'",
        "there is no page: task=odd (mine): ValueError: not looked at",
    ]
    assert written["frames"] is None and written["near_duplicates"] == {"clips": 0}
    assert folder.kept == ["'strips'", "not looked at"]


def test_a_picture_is_titled_by_task_and_data_set_and_says_what_lacks(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr("vtp.eval.figures.draw_figure", lambda *given, **how: drawn.append((given, how)))
    monkeypatch.setattr("vtp.eval.report_page.page", lambda *given: given[2])
    looked = SimpleNamespace(frames={"video": "drawn"}, worst=(), best=(), pictures={})
    monkeypatch.setattr("vtp.run.reporting.look_or_error", lambda *given: looked)
    for number, (title, missing, want) in enumerate(
        [
            ("odd", {}, "odd on clips"),
            ("MSVD @ test", {}, "MSVD @ test"),
            ("odd", {"a": "gone"}, "INCOMPLETE odd on clips"),
        ]
    ):
        report = reporting(Folder(tmp_path), title=title, missing=missing)
        report.look(SimpleNamespace(modalities=("text",)))  # nothing to see: no frames
        report.finish()
        (given, how) = drawn[number]
        assert given[0] == tmp_path / "report.png" and given[2] == () and how == {"title": want, "note": ""}
        assert (tmp_path / "report.html").read_text() == want
        assert json.loads((tmp_path / "report.json").read_text())["frames"] == {"video": "drawn"}
