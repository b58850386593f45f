"""Run a function of the forward pass over a table of samples, on any number of ranks, and account for every item.

Each rank takes a contiguous share of the table, nothing padded and nothing dropped, so no result is counted twice.
Results are gathered by id and must be exactly the expected ids less the ones reported missing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from vtp import distributed
from vtp.data.table import evenly
from vtp.errors import ConfigError, RunError
from vtp.eval.journal import Journal
from vtp.eval.ledger import Ledger, count_or_share
from vtp.eval.shelf import Shelf
from vtp.progress import bar
from vtp.types import MODALITIES, Batch, Modality, Sample

__all__ = ["Collected", "EvalBatches", "EvalFunction", "Evaluator", "MakeLoader"]

Array = npt.NDArray[Any]
EvalFunction = Callable[[Any], Mapping[str, Tensor]]  # ForwardContext -> tensors with one row per item of the batch
AUTOCAST = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}


class EvalBatches(Protocol):
    """What the evaluator needs of :class:`vtp.data.EvalLoader`: this rank's batches, and after iterating, what could
    not be read and why."""

    misses: Mapping[str, str]

    def __iter__(self) -> Iterator[Batch]: ...


# (table, modalities to leave out[, whether all processes keep to the same batches]) -> loader of this rank
MakeLoader = Callable[..., EvalBatches]


@dataclass(frozen=True, slots=True)
class Collected:
    """Results of all ranks, in the order of the table.

    Attributes:
        table: ids of the whole table, N.
        rows: int64 (M,), which rows of the table were evaluated, ascending.
        arrays: per name the results of those rows, (M, ...); float32 for every floating dtype.
        misses: id -> reason of the other N - M.
        present: per modality bool (M,).
        what: plural noun of the items.
    """

    table: tuple[str, ...]
    rows: Array
    arrays: dict[str, Array]
    misses: dict[str, str]
    present: dict[str, Array] = field(default_factory=dict)
    what: str = "items"

    @property
    def ids(self) -> list[str]:
        """Ids of the evaluated items, in the order of the table."""
        return [self.table[row] for row in self.rows]

    @property
    def ledger(self) -> Ledger:
        present = {modality: int(here.sum()) for modality, here in self.present.items()}
        return Ledger(self.table, self.misses, self.what, present)

    def full(self, name: str, fill: float, shape: tuple[int, ...] = ()) -> Array:
        """Results for the whole table (N, ...), ``fill`` where missing. ``shape`` of one item is used only when every
        item is missing."""
        found = self.arrays.get(name, np.zeros((0, *shape), np.float32))
        out = np.full(
            (len(self.table), *found.shape[1:]), fill, dtype=np.result_type(found.dtype, np.min_scalar_type(fill))
        )
        out[self.rows] = found
        return out

    def without(self, rows: Array, reason: str) -> Collected:
        """The same with the evaluated items of ``rows`` (bool (M,)) reported missing instead, for scores that turned
        out to be no numbers."""
        keep = ~rows
        dropped = {self.table[row] for row in self.rows[rows]}
        misses = {name: self.misses.get(name, reason) for name in self.table if name in self.misses or name in dropped}
        return Collected(
            self.table,
            self.rows[keep],
            {name: values[keep] for name, values in self.arrays.items()},
            misses,
            {modality: here[keep] for modality, here in self.present.items()},
            self.what,
        )


@dataclass(slots=True)
class Evaluator:
    """How an evaluation is run; a task says what is run.

    Attributes:
        model: the composed model (or its DDP or FSDP2 wrapper), called as ``model(batch, run=f)``.
        make_loader: gives this rank's loader for a table; the second argument names modalities that must not be loaded.
            With ``skip=ids`` these rows are left out, and the others stay in the batches where they were.
            With ``whole_batches=True`` a batch holds the same rows on any number of processes. With ``views=N`` videos
            are shown in N windows.
        device: where batches go.
        precision: ``fp32``, ``bf16`` or ``fp16`` autocast. Results are float32; tasks rank in float32.
        limit: evaluate only this many items of a table (1 and above) or this share (below 1); None = all. Stamped in
            the report.
        max_missing: most items that may be missing, see :meth:`vtp.eval.ledger.Ledger.check`.
        progress: show a bar on the main rank when stderr is a terminal.
        scratch: folder for results that are too many for the memory; None = the system's.
        journal: where results are kept as they come, and what an earlier start has scored; None = nowhere.
        facts: what the report should say about the input, such as ``sampling``; frames and size are taken from the
            model.
    """

    model: nn.Module
    make_loader: MakeLoader
    device: torch.device | str = "cpu"
    precision: str = "fp32"
    limit: int | float | None = None
    max_missing: int | float | None = None
    progress: bool = True
    facts: Mapping[str, Any] = field(default_factory=dict)
    scratch: Path | None = None
    journal: Journal | None = None

    def __post_init__(self) -> None:
        if self.precision not in AUTOCAST:
            raise ConfigError(f"precision={self.precision!r} must be one of {', '.join(AUTOCAST)}.")

    @property
    def bare_model(self) -> Any:
        """The model without DDP's wrapper: its forward would synchronise buffers, and ranks have different numbers of
        batches."""
        return self.model.module if isinstance(self.model, nn.parallel.DistributedDataParallel) else self.model

    @property
    def modalities(self) -> tuple[Modality, ...]:
        """Modalities that the model takes in."""
        specs = self.bare_model.specs()
        return tuple(modality for modality in MODALITIES if modality in specs)

    def limited(self, samples: Sequence[Sample]) -> Sequence[Sample]:
        """The table cut to ``limit`` items, see :func:`vtp.data.table.evenly`."""
        if self.limit is None:
            return samples
        count = max(1, count_or_share(self.limit, len(samples), "data.limit_eval"))
        return evenly(samples, count)

    @property
    def shown(self) -> bool:
        """Whether this process shows progress bars."""
        return self.progress and distributed.is_main()

    @property
    def frames(self) -> int | None:
        """How many frames of a clip the model sees; None if it takes no video."""
        frames = getattr(self.bare_model.specs().get("video"), "frames", None)
        return None if frames is None else frames * int(self.facts.get("clips", 1))

    def input_facts(self) -> dict[str, Any]:
        """What the model was shown, for the report: frames, size, sound, text length, and ``facts``."""
        wanted = {"video": ("frames", "size", "stride"), "audio": ("sample_rate", "seconds"), "text": ("max_length",)}
        specs = self.bare_model.specs()
        shown = {m: {key: getattr(specs[m], key, None) for key in keys} for m, keys in wanted.items() if m in specs}
        return {"input": shown, **self.facts}

    def run(
        self,
        samples: Sequence[Sample],
        f: EvalFunction,
        *,
        drop: Sequence[Modality] = (),
        what: str = "items",
        label: str = "",
        strict: bool = True,
        whole_batches: bool = False,
        views: int | None = None,
    ) -> Collected:
        """Compute ``f(ctx)`` for every sample.

        Args:
            samples: the table; ids unique. The same on every rank.
            f: maps a :class:`vtp.model.context.ForwardContext` to tensors of one row per item.
            drop: modalities to withhold from the model.
            what: plural noun for messages.
            label: of the progress bar; default ``what``.
            strict: apply ``max_missing``. False for an ablation, where items that a withheld modality leaves empty are
                a finding and no fault of the files.
            whole_batches: cut the table into the same batches on any number of processes, for an ``f`` that compares
                the rows of a batch.
            views: windows of frames of each video, whose features are averaged; None = as configured (eval_clips).

        Raises:
            RunError: ids repeat, get lost or turn up twice, or ``f`` returns tensors of another number of rows.
            DataError: more items are missing than ``max_missing`` allows.
        """
        table = tuple(sample.id for sample in samples)
        Ledger(table, {}, what)  # unique ids, before any work
        how: dict[str, Any] = {"whole_batches": True} if whole_batches else {}
        if views is not None:
            how["views"] = views
        entry = None if self.journal is None else self.journal.entry(table, what, label, tuple(drop))
        if entry is not None and entry.done:
            how["skip"] = entry.done
        loader = self.make_loader(samples, tuple(drop), **how)
        ids: list[str] = []
        shelf, present = Shelf(self.scratch), Shelf()
        misses: dict[str, str] = {}
        for part in entry.parts if entry is not None and distributed.is_main() else ():
            misses |= part.misses
            if part.ids:
                ids += part.ids
                shelf.add(part.results)
                present.add(part.present)
        total = -(-len(samples) // distributed.world_size())
        with self._inference(), bar(f"evaluate {label or what}", self.shown) as show:
            source = iter(loader)
            try:
                for batch, counts in self._batches(source):
                    results = self._forward(batch, f)
                    if counts:
                        ids += batch.ids
                        there = {modality: here.cpu().numpy() for modality, here in batch.present.items()}
                        shelf.add(results)
                        present.add(there)
                        if entry is not None:
                            entry.add(batch.ids, results, there, loader.misses)
                        show(len(ids), total)
            finally:
                if hasattr(source, "close"):  # a traceback would keep the workers of a loader alive
                    source.close()
                if entry is not None:
                    entry.close()
        if entry is not None:
            entry.add((), {}, {}, loader.misses)
            entry.close()
        misses |= loader.misses
        gathered = distributed.gather_objects((ids, shelf.arrays(), present.arrays(), misses))
        collected = _collect(table, gathered, what)
        if strict:
            collected.ledger.check(self.max_missing)
        return collected

    def _forward(self, batch: Batch, f: EvalFunction) -> dict[str, Array]:
        device = torch.device(self.device)
        dtype = AUTOCAST[self.precision]
        with torch.autocast(device.type, dtype=dtype or torch.bfloat16, enabled=dtype is not None):
            results = self.bare_model(batch.to(device), run=f)
        for name, value in results.items():
            if value.ndim == 0 or len(value) != len(batch):
                raise RunError(
                    f"The evaluation function returned {name!r} of shape {tuple(value.shape)} for a batch of "
                    f"{len(batch)} items."
                )
        return {k: (v.float() if v.is_floating_point() else v).cpu().numpy() for k, v in results.items()}

    @contextmanager
    def _inference(self) -> Iterator[None]:
        """Evaluation mode without gradients. Not ``inference_mode``: a buffer that a module caches in it could never
        be trained through."""
        training = self.bare_model.training
        self.bare_model.eval()
        try:
            with torch.no_grad():
                yield
        finally:
            self.bare_model.train(training)

    def _batches(self, source: Iterator[Batch]) -> Iterator[tuple[Batch, bool]]:
        """This rank's batches, each with True. Where parameters are sharded over ranks (FSDP2) every forward is
        collective, so a rank that has run out repeats a batch, with False, until the last rank is done."""
        if distributed.world_size() == 1 or not _is_sharded(self.bare_model):
            yield from ((batch, True) for batch in source)
            return
        while True:
            batch = next(source, None)
            heads: list[Batch | None] = distributed.gather_objects(batch.rows(0, 1) if batch is not None else None)
            offered = [head for head in heads if head is not None]
            if not offered:
                return
            yield (batch, True) if batch is not None else (offered[0], False)


def _is_sharded(model: nn.Module) -> bool:
    from torch.distributed.fsdp import FSDPModule  # slow to import, and needed by nobody else

    return any(isinstance(module, FSDPModule) for module in model.modules())


def _stack(parts: list[dict[str, Array]]) -> dict[str, Array]:
    if len(parts) == 1:
        return parts[0]  # of one process: no copy, it may lie in a file
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]} if parts else {}


def _collect(
    table: tuple[str, ...],
    gathered: list[tuple[list[str], dict[str, Array], dict[str, Array], dict[str, str]]],
    what: str,
) -> Collected:
    """Put the shares of all ranks into the order of the table and prove that they are the table."""
    position = {name: row for row, name in enumerate(table)}
    ids = [name for share in gathered for name in share[0]]
    misses = {name: reason for share in gathered for name, reason in share[3].items()}
    if len(set(ids)) != len(ids):
        raise RunError(
            f"{len(ids) - len(set(ids)):,} {what} were evaluated more than once; the loader must give every item to "
            "one rank."
        )
    seen = set(ids)
    wrong = {
        "unexpected": [name for name in (*ids, *misses) if name not in position],
        "evaluated and also reported missing": [name for name in ids if name in misses],
        "neither evaluated nor reported missing": [name for name in table if name not in misses and name not in seen],
    }
    for fault, names in wrong.items():
        if names:
            raise RunError(f"{len(names):,} {what} are {fault} (first: {names[0]!r}).")
    filled = [share for share in gathered if share[0]]
    arrays = _stack([share[1] for share in filled])
    present = _stack([share[2] for share in filled])
    rows = np.array([position[name] for name in ids], dtype=np.int64)
    order = slice(None) if (np.diff(rows) > 0).all() else np.argsort(rows)
    in_table_order = {name: misses[name] for name in table if name in misses}
    return Collected(
        table,
        rows[order],
        {k: v[order] for k, v in arrays.items()},
        in_table_order,
        {k: v[order] for k, v in present.items()},
        what,
    )
