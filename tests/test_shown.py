"""What tables and file names of others can do to a terminal: nothing."""

from __future__ import annotations

import io
import logging
import re
from pathlib import Path

import pytest
from rich.console import Console

import vtp
from vtp.cli.main import main
from vtp.eval.report import print_tables
from vtp.eval.task import ReportTable
from vtp.shown import Formatter, one_line, printable

CLEAR = "\x1b[2J\x1b]0;title\x07"


def test_commands_are_spelled_out_and_texts_stay():
    assert printable(f"a{CLEAR}b") == "a\\x1b[2J\\x1b]0;title\\x07b"
    assert printable("\u202egpj.exe\x9b1m\r") == "\\u202egpj.exe\\x9b1m\\r"
    assert printable("\udcff.mp4 \ud800") == "\\udcff.mp4 \\ud800"
    for text in ("two\n\tlines", "ein Hund läuft", "视频里有什么？", "🐶", ""):
        assert printable(text) == text


def test_a_line_stays_one():
    assert one_line(f"new\nline\u2028{CLEAR}\r.mp4") == f"new\\nline\\u2028{printable(CLEAR)}\\r.mp4"
    for text in ("a\ttab", "ein Hund läuft", "🐶", ""):
        assert one_line(text) == text


def test_nothing_that_commands_print_is_printable_alone():
    """What is printed is a line, and names of files in it may hold line breaks: :func:`one_line`."""
    core = Path(vtp.__file__).parent
    files = {*core.rglob("*.py"), *(Path(__file__).parents[1] / "plugins").rglob("src/**/*.py")}
    # logs, errors and the tracebacks of plugins may have several lines
    whole = {core / "shown.py", core / "cli" / "main.py", core / "plugins.py"}
    alone = re.compile(r"\bprintable\(")
    assert [str(file) for file in sorted(files - whole) if alone.search(file.read_text(encoding="utf-8"))] == []


def test_a_mistake_about_a_name_with_line_breaks_is_one_line(tmp_path, capsys):
    given = f"{tmp_path}/new\nline.csv"
    assert main(["data", "check", given]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert one_line(given) in line


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
    (tmp_path / "x.csv").write_text(f'video,caption\n"{CLEAR}\nnew.mp4",a dog\n,\n', encoding="utf-8")
    main(["data", command, "x.csv", *([] if command == "check" else ["out"])])
    said = "".join(capfd.readouterr())
    assert "\x1b" not in said and "\\x1b[2J" in said and "\\nnew.mp4" in said and "\nnew.mp4" not in said
