from __future__ import annotations

import io
import sys

import pytest

from vtp import progress


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def clock(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def test_lines_come_now_and_then_and_the_last_one_always(clock, capsys):
    say = progress.line(every_s=10)
    for second in range(1, 26):
        clock[0] = 100.0 + second
        say(f"{second} s", second == 25)
    assert capsys.readouterr().err == "10 s\n20 s\n25 s\n"
    every = progress.line()
    every("one", False)
    every("two", True)
    assert capsys.readouterr().err == "one\ntwo\n"


def test_on_a_terminal_one_line_changes(clock, monkeypatch):
    monkeypatch.setattr(sys, "stderr", Terminal())
    say = progress.line(every_s=10)
    for tenth in range(1, 6):
        clock[0] = 100.0 + tenth / 8
        say(f"{tenth}", tenth == 5)
    assert sys.stderr.getvalue() == "\r2\r4\r5\n"


def test_a_bar_is_for_terminals(monkeypatch, capsys):
    for shown, stderr in ((True, io.StringIO()), (False, Terminal()), (True, Terminal())):
        monkeypatch.setattr(sys, "stderr", stderr)
        with progress.bar("clips of today", shown) as show:
            show(3, 40)
        told = stderr.getvalue()
        assert ("clips of today" in told and "3/40" in told) if shown and stderr.isatty() else told == ""
