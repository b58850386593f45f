"""What watches training: the protocol, and the built-in watchers (metrics.jsonl, progress, TensorBoard)."""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vtp import distributed
from vtp.storage import append_line, write_text_atomic

if TYPE_CHECKING:
    from vtp.train.trainer import Trainer

__all__ = ["Callback", "MetricsFile", "Progress", "TensorBoard", "describe"]

log = logging.getLogger("vtp.train")


class Callback:
    """Base of watchers: every method does nothing. They are called on every process, in the order of the list.

    Each event names its facts; more facts may be added later, so take the rest as ``**facts``. A callback may read
    the trainer (``trainer.step``, ``trainer.model``) and may draw random numbers only from generators of its own: a
    run with it must stay equal to one without.

    Example::

        class Announce(Callback):
            def on_evaluate(self, trainer, *, step, metrics, **facts):
                print(step, metrics)
    """

    def on_fit_start(self, trainer: Trainer, *, step: int, **facts: Any) -> None:
        """Before the first step; ``step`` is 0 or that of the checkpoint that was resumed."""

    def on_step_start(self, trainer: Trainer, *, step: int, **facts: Any) -> None:
        """Before the batch of update number ``step`` (from 1) is asked for."""

    def on_batch(self, trainer: Trainer, *, step: int, batch: Any, **facts: Any) -> None:
        """The batch is there, on the device."""

    def on_step_end(self, trainer: Trainer, *, step: int, **facts: Any) -> None:
        """After the weights changed. The device may still be computing."""

    def on_log(self, trainer: Trainer, *, step: int, line: Mapping[str, Any], **facts: Any) -> None:
        """Every ``log_every`` steps: the line of metrics.jsonl."""

    def on_save(self, trainer: Trainer, *, step: int, path: Path, **facts: Any) -> None:
        """A checkpoint is complete."""

    def on_evaluate_start(self, trainer: Trainer, *, step: int, **facts: Any) -> None:
        """Before an evaluation."""

    def on_evaluate(
        self, trainer: Trainer, *, step: int, metrics: Mapping[str, float], best: bool, **facts: Any
    ) -> None:
        """After an evaluation; ``best`` tells whether it is the best so far."""

    def on_fit_end(self, trainer: Trainer, *, step: int, error: BaseException | None, **facts: Any) -> None:
        """After the last step, or when training fails with ``error``. Called once for every on_fit_start."""


class MetricsFile(Callback):
    """metrics.jsonl: one line per log step and per evaluation.

    Everything outside of the key ``timing`` is deterministic, so that two runs can be compared with ``==``. When a run
    is continued, lines after its checkpoint are dropped first: each step stands in the file once.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def on_fit_start(self, trainer: Trainer, *, step: int, **facts: Any) -> None:
        if distributed.is_main() and self.path.exists():
            text = self.path.read_text(encoding="utf-8", errors="replace")  # a power cut leaves any bytes at the end
            kept = [line for line in text.splitlines(keepends=True) if _belongs(line, step)]
            write_text_atomic(self.path, "".join(kept))

    def on_log(self, trainer: Trainer, *, step: int, line: Mapping[str, Any], **facts: Any) -> None:
        self._append(line)

    def on_evaluate(
        self, trainer: Trainer, *, step: int, metrics: Mapping[str, float], best: bool, **facts: Any
    ) -> None:
        self._append({"step": step, "evaluation": dict(metrics), "best": best})

    def _append(self, line: Mapping[str, Any]) -> None:
        if distributed.is_main():
            append_line(self.path, json.dumps(line))


def _belongs(line: str, step: int) -> bool:
    """Whether a line is whole and not after ``step``. An evaluation at ``step`` is kept: it is not repeated."""
    try:
        return bool(json.loads(line)["step"] <= step) and line.endswith("\n")
    except (ValueError, KeyError, TypeError, RecursionError):
        return False  # the last line of a killed process


class Progress(Callback):
    """Step, loss, learning rate, clips/s, wait for data: a bar on a terminal, else a line every ``every_s`` seconds."""

    def __init__(self, every_s: float = 10.0, stream: Any = None) -> None:
        self.every_s = every_s
        self.stream = stream or sys.stderr
        self._bar: Any = None
        self._task: Any = None
        self._text = ""
        self._printed = 0.0

    def on_fit_start(self, trainer: Trainer, *, step: int, **facts: Any) -> None:
        self._printed = time.monotonic()
        if not distributed.is_main() or not self.stream.isatty():
            return
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as Bar

        columns = (
            TextColumn("train"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[text]}"),
        )
        self._bar = Bar(*columns, console=Console(file=self.stream), transient=True)
        self._task = self._bar.add_task("train", total=trainer.total_steps, completed=step, text="")
        self._bar.start()

    def on_step_end(self, trainer: Trainer, *, step: int, **facts: Any) -> None:
        if self._bar is not None:
            self._bar.update(self._task, completed=step)

    def on_log(self, trainer: Trainer, *, step: int, line: Mapping[str, Any], **facts: Any) -> None:
        if not distributed.is_main():
            return
        self._text = describe(line)
        if self._bar is not None:
            self._bar.update(self._task, text=self._text)
        elif time.monotonic() - self._printed >= self.every_s or step == trainer.total_steps:
            self._printed = time.monotonic()
            print(f"step {step}/{trainer.total_steps}  {self._text}", file=self.stream, flush=True)

    def on_evaluate(
        self, trainer: Trainer, *, step: int, metrics: Mapping[str, float], best: bool, **facts: Any
    ) -> None:
        if not distributed.is_main():
            return
        shown = "  ".join(f"{name} {value:.4g}" for name, value in metrics.items() if isinstance(value, int | float))
        text = f"step {step}/{trainer.total_steps}  evaluation: {shown}{'  (best so far)' if best else ''}"
        if self._bar is not None:
            self._bar.console.print(text, highlight=False)
        else:
            print(text, file=self.stream, flush=True)

    def on_fit_end(self, trainer: Trainer, *, step: int, error: BaseException | None, **facts: Any) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


def describe(line: Mapping[str, Any]) -> str:
    """A line of metrics.jsonl in words."""
    timing = line["timing"]
    losses = line["losses"]
    parts = f" ({', '.join(f'{name} {value:.4g}' for name, value in losses.items())})" if len(losses) > 1 else ""
    return (
        f"loss {line['loss']:.4g}{parts}  lr {line['lr']:.3g}  {timing['clips_per_s']:.1f} clips/s  "
        f"data wait {100 * timing['data_wait']:.0f} %"
    )


class TensorBoard(Callback):
    """Losses, metrics, learning rate, speed and evaluations as scalars below ``folder``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._writer: Any = None

    def on_fit_start(self, trainer: Trainer, *, step: int, **facts: Any) -> None:
        if distributed.is_main():
            try:
                from torch.utils.tensorboard import SummaryWriter
            except ImportError as error:
                log.warning("train.tensorboard: no TensorBoard files are written (%s)", error)
                return
            # purge_step: what a killed run wrote after its checkpoint is hidden
            self._writer = SummaryWriter(str(self.folder), purge_step=step + 1)

    def on_log(self, trainer: Trainer, *, step: int, line: Mapping[str, Any], **facts: Any) -> None:
        scalars = {"loss/total": line["loss"], "lr": line["lr"]}
        scalars |= {f"loss/{name}": value for name, value in line["losses"].items()}
        scalars |= {f"train/{name}": value for name, value in line["metrics"].items()}
        scalars |= {f"timing/{name}": value for name, value in line["timing"].items()}
        if line["grad_norm"] is not None:
            scalars["grad_norm"] = line["grad_norm"]
        self._write(scalars, step)

    def on_evaluate(
        self, trainer: Trainer, *, step: int, metrics: Mapping[str, float], best: bool, **facts: Any
    ) -> None:
        self._write({f"evaluation/{name}": value for name, value in metrics.items()}, step)

    def _write(self, scalars: Mapping[str, Any], step: int) -> None:
        if self._writer is not None:
            try:
                for name, value in scalars.items():
                    if isinstance(value, int | float):
                        self._writer.add_scalar(name, value, step)
            except OSError as error:  # pictures of numbers that metrics.jsonl holds: no reason to end a run
                log.warning("TensorBoard files cannot be written any more: %s", error)
                self._writer = None

    def on_fit_end(self, trainer: Trainer, *, step: int, error: BaseException | None, **facts: Any) -> None:
        if self._writer is not None:
            with suppress(OSError):  # it must not hide the error that ended the run
                self._writer.close()
            self._writer = None
