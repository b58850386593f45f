"""How far something is, told on stderr: on a terminal a bar, or one line that changes; elsewhere nothing, or lines."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

__all__ = ["bar", "line"]


@contextmanager
def bar(label: str, shown: bool = True) -> Iterator[Callable[[int, int], None]]:
    """A bar on a terminal; what this gives is called with (done, total). Nothing elsewhere, or where ``shown`` is
    False."""
    if not (shown and sys.stderr.isatty()):
        yield lambda done, total: None
        return
    from rich import progress
    from rich.console import Console

    times = progress.TimeElapsedColumn(), progress.TimeRemainingColumn()
    columns = (progress.TextColumn("{task.description}"), progress.BarColumn(), progress.MofNCompleteColumn(), *times)
    with progress.Progress(*columns, console=Console(stderr=True), transient=True) as shown_bar:
        task = shown_bar.add_task(label, total=None)
        yield lambda done, total: shown_bar.update(task, completed=done, total=total)


def line(every_s: float = 0.0) -> Callable[[str, bool], None]:
    """A function of (text, whether it is the last): a line at most every ``every_s`` seconds, and the last one; on a
    terminal the same line, five times a second."""
    terminal = sys.stderr.isatty()
    said = time.monotonic() if every_s else float("-inf")

    def show(text: str, last: bool) -> None:
        nonlocal said
        if time.monotonic() - said < (0.2 if terminal else every_s) and not last:
            return
        said = time.monotonic()
        print(f"\r{text}" if terminal else text, end="" if terminal and not last else "\n", file=sys.stderr, flush=True)

    return show
