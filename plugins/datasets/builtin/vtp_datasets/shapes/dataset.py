"""The data set ``shapes``: a folder in MSR-VTT's format that is generated when it is first asked for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

from vtp.catalogue import Plan, Row
from vtp.errors import ConfigError
from vtp.ranges import Count, Seed
from vtp.storage import cache_root
from vtp.types import Sample
from vtp_datasets.msrvtt import MSRVTT
from vtp_datasets.shapes.annotations import SIZES, VERSION, Blueprint

__all__ = ["Shapes"]


class Shapes(MSRVTT):
    """A small world with pictures and sound, read back by the MSR-VTT reader.

    Questions are of seven types, found in ``extra["question_type"]``: color, shape, motion, count, place, order (in
    time) and sound. What can happen is told in :mod:`vtp_datasets.shapes.world`. For ``classification`` the class of a
    clip is the shape of its character, and its text is empty.

    Args:
        size: ``tiny``, ``small`` or ``medium``: 24, 2,300 or 11,500 clips.
        seed: of everything drawn; equal sizes and seeds give equal data sets.
        root: folder of the data set; None = ``<cache>/shapes/<size>-<seed>-v<version>``.
        workers: rendering processes; None = one per CPU.

    Nothing is generated before the first table is asked for.
    """

    name = "shapes"
    kinds = ("caption", "retrieval", "qa", "classification")

    def __init__(
        self, *, size: str = "small", seed: Seed = 0, root: str | Path | None = None, workers: Count | None = None
    ) -> None:
        if size not in SIZES:
            raise ConfigError(f"dataset.size={size!r} must be one of {', '.join(SIZES)}.")
        if seed < 0 or (workers is not None and workers < 1):
            raise ConfigError(
                f"dataset.seed={seed} must not be negative, dataset.workers={workers} at least 1 or null."
            )
        self.blueprint = Blueprint(size, seed)
        folder = cache_root() / "shapes" / f"{size}-{seed}-v{VERSION}" if root is None else Path(root).expanduser()
        super().__init__(root=folder.absolute(), train_list="full", test="1ka", videos="videos")
        self._workers = workers
        self.media_namespace = f"shapes-{size}-{seed}-v{VERSION}"  # video0 of another world is another clip

    def samples(self, kind: str, split: str) -> Sequence[Sample]:
        """As of every data set, with training, validation and test split for each kind."""
        _ = self.manifest  # the folder must be there
        return super().samples(kind, split)

    def plan(self, kind: str, split: str) -> Plan | None:
        plan = super().plan("qa" if kind == "classification" else kind, split)
        if plan is None or kind not in ("qa", "classification"):
            return plan
        if kind == "qa":
            return replace(plan, rows=lambda file: self._typed(plan.rows(file)))
        options = {**plan.options, "classes": "shape"}
        return replace(plan, rows=lambda file: self._classes(plan.rows(file)), options=options)

    def _typed(self, rows: Iterable[Row]) -> Iterator[Row]:
        """Questions whose types are the names of their categories."""
        for row in rows:
            assert row.extra is not None
            row.question_type = self.manifest["categories"][row.extra["category"]]
            yield row

    def _classes(self, rows: Iterable[Row]) -> Iterator[Row]:
        """Clips with the answer to the one question about their shape."""
        for row in self._typed(rows):
            if row.question_type == "shape":
                row.texts, row.question_type, row.extra = ("",), None, None
                yield row

    def origin(self) -> dict[str, Any]:
        """With the manifest of the folder."""
        return {**super().origin(), "manifest": self.manifest}

    @cached_property
    def manifest(self) -> dict[str, Any]:
        """Parameters, counts and hashes of the folder, which is generated if it is not there."""
        from vtp_datasets.shapes.build import ensure

        return ensure(self.root, self.blueprint, self._workers)
