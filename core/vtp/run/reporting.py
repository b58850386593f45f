"""What an evaluation leaves in the folder of its run.

    report = Reporting(folder, task, "task=qa (vtp-core)", dataset, result)
    report.write(seed=0, ...)     report.json and predictions.jsonl
    report.look(evaluator)        the items that picture and page show: the model looks at them once more
    report.finish()               report.png and report.html, and report.json with what went wrong with them

A report without picture and page is a whole one: what goes wrong with them is a warning in it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from vtp.contracts import Task, member
from vtp.eval.looking import look_or_error
from vtp.eval.report import print_result, write_report
from vtp.eval.seal import write_sealed
from vtp.run.folder import RunFolder
from vtp.storage import write_text_atomic

__all__ = ["Reporting"]


class Reporting:
    """The report of one result.

    Args:
        folder: of the run.
        task: that gave the result.
        who: the task, for what went wrong in it.
        dataset: whose items were scored.
        result: what is reported.

    Attributes:
        record: what report.json says; empty on processes that do not write.
    """

    def __init__(self, folder: RunFolder, task: Any, who: str, dataset: Any, result: Any) -> None:
        self.folder, self.task, self.who, self.dataset, self.result = folder, task, who, dataset, result
        self.record: dict[str, Any] = {}
        self._strips: Any = ()
        self._looked: Any = None

    def write(self, **known: Any) -> None:
        """Write report.json and predictions.jsonl.

        Args:
            known: of the run, as :func:`vtp.eval.report.write_report` takes it.
        """
        selection = member(self.task, Task, "selection")
        self.record = write_report(self.folder.path, self.result, selection=selection, **known)

    def look(self, evaluator: Any) -> None:
        """Take frames and items for picture and page, on all processes, with the model in evaluation mode."""
        self._strips = self._frames(evaluator)
        self._looked = look_or_error(evaluator, self.task, self.result)

    def finish(self, **more: Any) -> None:
        """Write report.png and report.html, and report.json again, sealed.

        Args:
            more: entries that report.json has besides.
        """
        looked, record = self._looked, self.record
        record |= more
        record["frames"] = None if isinstance(looked, Exception) else looked.frames
        if self.result.chart and (trouble := self._decorated("picture", self._draw)):
            record["warnings"].append(trouble)
        if trouble := self._decorated("page", self._write_page):
            record["warnings"].append(trouble)
        write_sealed(self.folder.path / "report.json", record)

    def show(self) -> None:
        """Print the tables."""
        print_result(self.result, self.record)

    def _frames(self, evaluator: Any) -> Any:
        """Frames for the picture, or the exception that the task raised instead: decoration must not cost a report."""
        if not self.result.chart or "video" not in evaluator.modalities:
            return ()
        try:
            return member(self.task, Task, "examples")(evaluator, self.result)
        except Exception as error:
            return error

    def _decorated(self, what: str, make: Callable[[], None]) -> str:
        """Write what a report can do without; what went wrong, "" if nothing did."""
        try:
            make()
        except Exception as error:
            self.folder.keep_traceback(error)
            return f"there is no {what}: {self.who}: {type(error).__name__}: {error}"
        return ""

    def _write_page(self) -> None:
        """Write report.html."""
        from vtp.eval.report_page import page

        looked = self._looked
        if isinstance(looked, Exception):
            raise looked
        made = page(self.record, self.result, self._title(), looked.worst, looked.best, looked.pictures)
        write_text_atomic(self.folder.path / "report.html", made)

    def _title(self) -> str:
        """What figure and page call the result."""
        result = self.result
        title = result.title if "@" in result.title else f"{result.task} on {self.dataset.name}"
        return f"INCOMPLETE {title}" if result.missing else title

    def _draw(self) -> None:
        """Draw report.png."""
        from vtp.eval.figures import draw_figure

        if isinstance(self._strips, Exception):
            raise self._strips
        tables = self.result.tables
        note = tables[0].notes[0] if tables and tables[0].notes else ""
        draw_figure(self.folder.path / "report.png", self.result.chart, self._strips, title=self._title(), note=note)
