"""The data set ``shapes``: a folder in MSR-VTT's format that is generated when it is first asked for."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from vtp.errors import ConfigError
from vtp.types import Sample
from vtp_datasets.msrvtt import MSRVTT, Kind, Split
from vtp_datasets.shapes.annotations import SIZES, VERSION, Plan
from vtp_datasets.tables import RelabelledTable

__all__ = ["Shapes", "cache_folder"]


def cache_folder() -> Path:
    """Where generated data sets lie: ``$VTP_CACHE``, by default ``~/.cache/vtp``."""
    return Path(os.environ.get("VTP_CACHE") or "~/.cache/vtp").expanduser()


class Shapes:
    """A small world with pictures and sound, read back by the MSR-VTT reader.

    Questions are of seven types, found in ``extra["question_type"]``: color, shape, motion, count, place, order (in
    time) and sound. What can happen is told in :mod:`vtp_datasets.shapes.world`.

    Args:
        size: ``tiny``, ``small`` or ``medium``: 24, 2,300 or 11,500 clips.
        seed: of everything drawn; equal sizes and seeds give equal data sets.
        root: folder of the data set; None = ``<cache>/shapes/<size>-<seed>-v<version>``.
        workers: rendering processes; None = one per CPU.

    Nothing is generated before the first table is asked for.
    """

    name = "shapes"

    def __init__(
        self, *, size: str = "small", seed: int = 0, root: str | Path | None = None, workers: int | None = None
    ) -> None:
        if size not in SIZES:
            raise ConfigError(f"dataset.size={size!r} must be one of {', '.join(SIZES)}.")
        if seed < 0 or (workers is not None and workers < 1):
            raise ConfigError(
                f"dataset.seed={seed} must not be negative, dataset.workers={workers} at least 1 or null."
            )
        self.plan = Plan(size, seed)
        folder = cache_folder() / "shapes" / f"{size}-{seed}-v{VERSION}" if root is None else Path(root).expanduser()
        self.root = folder.absolute()
        self._workers = workers
        self.media_namespace = f"shapes-{size}-{seed}-v{VERSION}"  # video0 of another world is another clip

    def samples(self, kind: Kind, split: Split) -> Sequence[Sample]:
        """As :meth:`vtp_datasets.msrvtt.MSRVTT.samples`: ``qa``, ``caption`` or ``retrieval``, each with training,
        validation and test split."""
        table = self._reader.samples(kind, split)
        return RelabelledTable(table, self.manifest["categories"]) if kind == "qa" else table

    def origin(self) -> dict[str, Any]:
        """What the run record keeps: the manifest of the folder and what the reader found in it."""
        return {**self._reader.origin(), "manifest": self.manifest}

    @cached_property
    def manifest(self) -> dict[str, Any]:
        """Parameters, counts and hashes of the folder, which is generated if it is not there."""
        from vtp_datasets.shapes.build import ensure

        return ensure(self.root, self.plan, self._workers)

    @cached_property
    def _reader(self) -> MSRVTT:
        _ = self.manifest  # the folder must be there
        return MSRVTT(root=self.root, train_list="full", test="1ka", videos="videos")
