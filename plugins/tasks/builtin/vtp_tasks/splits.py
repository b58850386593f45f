"""The tables of one kind of a data set, which split a checkpoint is chosen by, and what tasks say of both."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

from vtp.data.table import clip_names
from vtp.errors import DataError, SampleTypeError
from vtp.eval.protocol import Protocol
from vtp.eval.task import carve_validation, resolve_selection
from vtp.types import Sample

__all__ = ["FromSplits", "Splits"]


class Splits:
    """Training, validation and test samples.

    The data set's own validation split is used where there is one. Where there is none and ``selection`` is ``val``,
    clips are held out of the training samples; without asking, nothing is taken away from training and the last
    checkpoint counts.

    Args:
        dataset: offers ``samples(kind, split)``.
        kind: ``qa`` or ``retrieval``.
        selection: as in the configuration, None = ``val`` if the data set has a validation split, else ``last``.
        val_share: share of the training clips to hold out; None = never.
        seed: of the choice of held-out clips.
    """

    def __init__(self, dataset: Any, kind: str, selection: str | None, val_share: float | None, seed: int) -> None:
        self.dataset = dataset
        self.kind = kind
        self.val_share = val_share
        self.seed = seed
        self._wanted = selection

    @cached_property
    def selection(self) -> str:
        """The rule in force, one of :data:`vtp.eval.task.SELECTION_RULES`."""
        has_own = self._wanted in (None, "val") and self._has_own_validation
        return resolve_selection(self._wanted, has_own or (self._wanted == "val" and self.val_share is not None))

    @property
    def held_out(self) -> Sequence[Sample]:
        """Validation samples taken out of training; empty where the data set has its own, or none are needed."""
        return self._carved[1]

    @property
    def has_train(self) -> bool:
        """Whether the training annotations are there; evaluating a checkpoint does not need them."""
        try:
            return bool(self["train"])
        except SampleTypeError:
            raise
        except DataError:
            return False

    def __getitem__(self, split: str) -> Sequence[Sample]:
        """Samples of ``train``, ``val`` or ``test``."""
        if split == "train":
            return self._carved[0]
        if split == "val" and not self._has_own_validation:
            return self.held_out
        found: Sequence[Sample] = self.dataset.samples(self.kind, split)
        return found

    @cached_property
    def _has_own_validation(self) -> bool:
        try:
            return bool(self.dataset.samples(self.kind, "val"))
        except SampleTypeError:
            raise
        except DataError:
            return False  # absent files; if everything is absent, the training split says so

    @cached_property
    def _carved(self) -> tuple[Sequence[Sample], Sequence[Sample]]:
        train: Sequence[Sample] = self.dataset.samples(self.kind, "train")
        if self.selection != "val" or self._has_own_validation or self.val_share is None:
            return train, ()
        left, held_out = carve_validation(train, self.val_share, self.seed)
        if not left or not held_out:
            raise DataError(
                f"{self.dataset.name}: data.val_share={self.val_share} of {len(train):,} training samples leaves "
                f"{len(left):,} for training and {len(held_out):,} for validation; clips are never split. Use "
                "task.selection=last."
            )
        return left, held_out


class FromSplits:
    """What a task says of its training and of the choice of a checkpoint, whose items are those of :class:`Splits`.

    Attributes:
        splits: its tables.
        protocol: its benchmark.
    """

    splits: Splits
    protocol: Protocol

    def train_samples(self) -> Sequence[Sample]:
        """What is trained on: the training split, less what is held out."""
        return self.splits["train"]

    def known_list(self) -> str | None:
        """Name of the known training list that the training clips are exactly, or None."""
        return self.protocol.train_list(clip_names(self.splits["train"]))

    @property
    def selection(self) -> str:
        """The rule by which a checkpoint is chosen, see :attr:`Splits.selection`."""
        return self.splits.selection
