"""What tables and file names of others can do to a terminal: nothing."""

from __future__ import annotations

import io
import logging

import pytest
from rich.console import Console

from vtp.cli.main import main
from vtp.eval.report import print_tables
from vtp.eval.task import ReportTable
from vtp.shown import Formatter, printable

CLEAR = "\x1b[2J\x1b]0;title\x07"


def test_commands_are_spelled_out_and_texts_stay():
    assert printable(f"a{CLEAR}b") == "a\\x1b[2J\\x1b]0;title\\x07b"
    assert printable("\u202egpj.exe\x9b1m\r") == "\\u202egpj.exe\\x9b1m\\r"
    assert printable("\udcff.mp4 \ud800") == "\\udcff.mp4 \\ud800"
    for text in ("two\n\tlines", "ein Hund läuft", "视频里有什么？", "🐶", ""):
        assert printable(text) == text


def test_logs_and_tables_are_printable():
    record = logging.LogRecord("vtp", logging.INFO, "", 0, "file %s", (CLEAR,), None)
    assert "\x1b" not in Formatter("%(message)s").format(record)
    out = io.StringIO()
    table = ReportTable(f"title {CLEAR}", ("type", f"column{CLEAR}"), ((f"what{CLEAR}", 1.0),), (f"note {CLEAR}",))
    print_tables([table], Console(file=out, width=200))
    assert "\x1b" not in out.getvalue() and out.getvalue().count("\\x1b[2J") == 4


@pytest.mark.parametrize("command", ["check", "cache", "pack"])
def test_names_of_files_are_printable(command, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.csv").write_text(f"video,caption\n{CLEAR}.mp4,a dog\n,\n", encoding="utf-8")
    main(["data", command, "x.csv", *([] if command == "check" else ["out"])])
    said = "".join(capfd.readouterr())
    assert "\x1b" not in said and "\\x1b[2J" in said
