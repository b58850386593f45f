"""Pre-training: the objectives are trained for their own sake, and measured by their losses on a validation part.

There is no score to choose a checkpoint by: the last one counts, or with ``selection: val`` the one with the best
``monitor``. ``zero_shot`` measures another task on the way, with the weights as they are.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any, Literal

import numpy as np

from vtp.components import build
from vtp.contracts import Table, Task, member
from vtp.data.table import select
from vtp.errors import ConfigError, DataError
from vtp.eval.evaluator import Evaluator
from vtp.eval.losses import Losses, objective_losses
from vtp.eval.task import ReportTable, TaskResult, check_scored
from vtp.plugins import host
from vtp.ranges import Seed, Share
from vtp.types import Sample
from vtp_tasks.splits import Splits

__all__ = ["Pretrain"]

ZERO_SHOT = "zero_shot"


class Pretrain:
    """The task ``pretrain``.

    Args:
        dataset: offers ``samples(table, split)`` with texts.
        table: which table of the data set: ``retrieval`` or ``caption``.
        selection: ``last``, or ``val`` = the checkpoint with the best ``monitor``. Without a validation split of the
            data set, ``val`` holds out ``data.val_share`` of the training clips.
        monitor: a metric of the validation part: ``loss`` (the weighted sum), ``loss/<objective>``,
            ``<objective>/<metric>``, or ``zero_shot/<metric>``. Losses are to fall, others to rise.
        zero_shot: the node of another task, with ``name`` and its options, and ``dataset``, the node of its data set
            (by default that of the run); None = no other task.
        val_share: share of the training clips held out for validation, see ``selection``.
        seed: of that choice.
    """

    split = "val"

    def __init__(
        self,
        *,
        dataset: Any,
        table: Literal["retrieval", "caption"] = "retrieval",
        selection: Literal["last", "val"] = "last",
        monitor: str = "loss",
        zero_shot: dict[str, Any] | None = None,
        val_share: Share | None = None,
        seed: Seed = 0,
    ) -> None:
        self.name = "pretrain"
        self.dataset = dataset
        self.kind = table
        self.selection = selection
        falls = monitor == "loss" or monitor.startswith("loss/")
        self.monitor: tuple[str, Literal["max", "min"]] = (monitor, "min" if falls else "max")
        if monitor.startswith(f"{ZERO_SHOT}/") and zero_shot is None:
            raise ConfigError(f"task.monitor={monitor} needs task.zero_shot={{name: retrieval, ...}}.")
        self.splits = Splits(dataset, table, selection, val_share, seed)
        self._asked = zero_shot
        self._seed = seed

    @staticmethod
    def nested(options: Mapping[str, Any]) -> Iterator[tuple[str, str, Any, Sequence[str]]]:
        """The other task and its data set, for the check before anything is built."""
        node = options.get(ZERO_SHOT)
        if isinstance(node, Mapping):
            yield ZERO_SHOT, "task", _without_dataset(node), ("dataset", "seed", "val_share")
            if node.get("dataset") is not None:
                yield f"{ZERO_SHOT}.dataset", "dataset", node["dataset"], ()

    # --- training -------------------------------------------------------------------------------------------------

    def train_samples(self) -> Sequence[Sample]:
        return self.splits["train"]

    def samples(self, split: str) -> Sequence[Sample]:
        """The validation part, for ``val`` and for ``test``."""
        return self.splits["val"]

    @cached_property
    def watched(self) -> str | None:
        """The validation part, if there is one: its losses are told during training."""
        return "val" if len(self.samples("val")) else None

    def further_tests(self) -> Iterable[tuple[Sequence[Sample], Any]]:
        """What the other task is measured on."""
        if self.zero_shot is not None:
            yield self.zero_shot.samples(self._other_split), self.zero_shot.dataset

    def check_split(self, split: str) -> None:
        """Whether there is a validation part, and whether the other task can be scored."""
        self._refuse_without_validation()
        if self.zero_shot is not None:
            check_scored(self.zero_shot, self.zero_shot.dataset, self._other_split)

    def check(self, model: Any) -> None:
        """Whether there is a validation part, and what the other task asks of the model."""
        self._refuse_without_validation()
        if self.zero_shot is not None:
            member(self.zero_shot, Task, "check")(model)

    @cached_property
    def zero_shot(self) -> Any:
        """The other task; None without one."""
        if self._asked is None:
            return None
        node = self._asked.get("dataset")
        dataset = self.dataset if node is None else build("dataset", node, host().registry)
        return build("task", _without_dataset(self._asked), host().registry, dataset=dataset, seed=self._seed)

    @property
    def _other_split(self) -> str:
        split: str = member(self.zero_shot, Task, "split")
        return split

    # --- evaluation -----------------------------------------------------------------------------------------------

    def evaluate(self, evaluator: Evaluator, split: str = "val", *, detail: bool = True) -> TaskResult:
        self._refuse_without_validation()
        table = self.samples(split)
        limited = evaluator.limited(table)
        parts = {name: objective_losses(evaluator, part) for name, part in _parts(limited).items()}
        losses = Losses.together(parts.values())
        result = TaskResult(self.name, split, losses.metrics(), losses.ledger)
        result.facts = {
            "items": dict(losses.items),
            "objective_weights": dict(losses.weights),
            "limit": evaluator.limit,
            "limited": len(limited) < len(table),
            **evaluator.input_facts(),
        }
        if len(parts) > 1:
            result.rows = {f"part {name}": part.metrics() for name, part in parts.items()}
        result.warnings = [f"loss of {name}: no item takes part" for name, count in losses.items.items() if not count]
        if self.selection == "val":
            result.warnings.append("the checkpoint was selected on this validation part")
        if self.zero_shot is not None:
            self._add_zero_shot(evaluator, result, detail)
        if detail:
            result.tables.insert(0, _table(result))
        return result

    def _refuse_without_validation(self) -> None:
        if not len(self.samples("val")):
            raise DataError(
                f"{self.dataset.name}: there is no validation part to measure losses on. Hold out a share of the "
                "training clips with task.selection=val (data.val_share), or train alone with mode=train."
            )

    def _add_zero_shot(self, evaluator: Evaluator, result: TaskResult, detail: bool) -> None:
        """Measure the other task. A part of it is as good as its whole for watching, so ``data.limit_eval`` holds."""
        found: TaskResult = self.zero_shot.evaluate(evaluator, self._other_split, detail=detail)
        result.metrics |= {f"{ZERO_SHOT}/{name}": value for name, value in found.metrics.items()}
        result.bounds |= {f"{ZERO_SHOT}/{name}": span for name, span in found.bounds.items()}
        result.intervals |= {f"{ZERO_SHOT}/{name}": span for name, span in found.intervals.items()}
        result.rows |= {f"zero-shot {found.task}: {label}": row for label, row in found.rows.items()}
        ledgers = {found.ledger.what: found.ledger, **found.ledgers}
        result.ledgers |= {f"zero-shot {label}": ledger for label, ledger in ledgers.items()}
        result.facts[ZERO_SHOT] = {"task": found.task, "split": found.split, "protocol": found.protocol, **found.facts}
        result.predictions += found.predictions
        result.warnings += found.warnings
        result.chart = found.chart
        result.tables += [replace(table, title=f"zero-shot {table.title}") for table in found.tables]

    def predict(self, evaluator: Evaluator, split: str = "val") -> TaskResult:
        """Those of the other task.

        Raises:
            ConfigError: there is none, and objectives predict nothing.
        """
        if self.zero_shot is None:
            raise ConfigError("task=pretrain predicts nothing: choose a task that does, such as task=retrieval.")
        found: TaskResult = self.zero_shot.predict(evaluator, self._other_split)
        return found


def _without_dataset(node: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in node.items() if key != "dataset"}


def _parts(table: Sequence[Sample]) -> dict[str, Sequence[Sample]]:
    """The rows of each part of a mix of data sets, or all of them: rows of two parts are not compared."""
    mixture = member(table, Table, "mixture")
    if mixture is None:
        return {"": table}
    bounds = mixture.bounds.tolist()
    return {name: select(table, np.arange(bounds[i], bounds[i + 1])) for i, name in enumerate(mixture.names)}


def _table(result: TaskResult) -> ReportTable:
    """Losses of all and of each part."""
    columns = [name for name in result.metrics if not name.startswith(f"{ZERO_SHOT}/")]
    rows: list[tuple[str | float | None, ...]] = [("all", *(result.metrics[name] for name in columns))]
    rows += [
        (label.removeprefix("part "), *(row.get(name) for name in columns))
        for label, row in result.rows.items()
        if label.startswith("part ")
    ]
    items = ", ".join(f"{count:,.0f} of {name}" for name, count in result.facts["items"].items())
    notes = (result.ledger.line(), f"items: {items}")
    return ReportTable(f"{result.task}: losses ({result.split})", ("part", *columns), tuple(rows), notes)
