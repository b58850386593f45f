"""Searching a table with the model that it was made with: what ``vtp search`` and pages over tables share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vtp.errors import ConfigError, DataError
from vtp.media.extensions import SOUNDS
from vtp.shown import one_line
from vtp.types import Modality
from vtp.use.inputs import Items
from vtp.use.model import Model
from vtp.use.table import Table

__all__ = ["Search", "clock", "kind_of_file"]


class Search:
    """A table and its model.

    Attributes:
        place: of the table.
        table: that is searched.
        model: that embeds queries.
    """

    def __init__(self, place: str, table: Table, model: Model) -> None:
        """
        Raises:
            ConfigError: the table was made with another model.
        """
        if model.fingerprint != table.about["fingerprint"]:
            raise ConfigError(
                f"{place} was made with another model (fingerprint {table.about['fingerprint'][:16]}, this one has "
                f"{model.fingerprint[:16]}), whose embeddings cannot be compared. Give --model of that one."
            )
        self.place, self.table, self.model = place, table, model

    @property
    def modalities(self) -> tuple[Modality, ...]:
        """What the windows of the table are of."""
        return tuple(self.table.about["modalities"])

    @property
    def takes(self) -> tuple[Modality, ...]:
        """What it can be searched with: what the model compares in the space of the table."""
        compared = self.model.compared()[self.table.about["objective"]]
        return tuple(modality for modality in ("text", *self.modalities) if modality in compared)

    def find(
        self,
        query: Any,
        modality: Modality,
        k: int = 10,
        of: str | None = None,
        *,
        exact: bool = False,
        numbered: bool = False,
        called: str | None = None,
    ) -> list[dict[str, Any]]:
        """The ``k`` windows that are most like a query, as :meth:`Table.search` gives them.

        Args:
            query: a text, or a video or sound as :meth:`Model.encode` takes it.
            modality: what the query is.
            of: only windows of this modality.
            exact, numbered: as :meth:`Table.search` takes them.
            called: what the query is called in messages; None = by itself.

        Raises:
            ConfigError: the table cannot be searched with this modality, or has nothing of ``of``.
            DataError: the query cannot be used.
        """
        if modality not in self.takes:
            raise ConfigError(
                f"this table has embeddings of {' and '.join(self.modalities)}, and cannot be searched with {modality}."
            )
        if of is not None and of not in self.modalities:
            raise ConfigError(f"this table has embeddings of {' and '.join(self.modalities)}, and none of {of}.")
        items = Items.of(modality, [query])
        rows, reasons = self.model.embed(items, modality, self.table.about["objective"])
        if reasons:
            raise DataError(one_line(f"{query if called is None else called} cannot be used: {reasons[0]}."))
        return self.table.search(rows[0].reshape(-1), k, of, exact, numbered)

    def how(self, modality: str, exact: bool = False) -> str:
        """A line that says how it is searched, and what may be missed."""
        index = None if exact else self.table.index()
        if index is None:
            return f"exact: compared with all of {len(self.table):,} windows"
        return (
            f"index: recall@10 {index['recall']:.3f}, measured with {index['queries']:,} of the table's own windows, "
            f"which are unlike {modality} queries; --exact compares with all of {len(self.table):,} windows"
        )


def kind_of_file(name: str, there: Any) -> Modality:
    """What a file that is searched with counts as, by its name and by what the table has windows of."""
    return "audio" if Path(name).suffix.lower() in SOUNDS or "video" not in there else "video"


def clock(seconds: float) -> str:
    """``1:02.5``, minutes and seconds."""
    minutes, rest = divmod(seconds, 60)
    return f"{int(minutes)}:{rest:04.1f}"
