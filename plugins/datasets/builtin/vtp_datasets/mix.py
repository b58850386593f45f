"""Several data sets as one: ``dataset=mix dataset.parts={coco: {}, vg: {name: visual_genome}, webvid: {root: DIR}}``.

Nothing is copied or read twice: the table of the mix asks those of its parts. Ids get the name of the part
(``coco/391895``), and clips that of their data set (``coco:COCO_val2014_000000391895.jpg``), by which leaks between
training and test are found whatever a data set is mixed with.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from itertools import chain
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from vtp.catalogue import SPLITS, Samples, check_table
from vtp.components import choose, find, refuse
from vtp.contracts import Dataset, Table, member
from vtp.data.mixture import Mixture
from vtp.data.table import clip_names, media_id, select
from vtp.errors import ConfigError, DataError
from vtp.plugins import host
from vtp.types import Sample

__all__ = ["Mix", "MixTable"]

_PART = re.compile(r"[A-Za-z0-9_.-]+")


class Mix:
    """Several data sets in one run.

    Args:
        parts: name -> the node of a data set; its ``name`` is by default that of the part.
        weights: part -> its share of an epoch, up to a factor.
        temperature: t of shares proportional to n^t, n being the rows of a part: 1 is every row once, 0 equal shares.
        turns: one part after another in an epoch, instead of shuffled.
        batches: ``mixed``, or ``part`` = all rows of a batch are of one part.
        train, val, test: parts whose split of this name is that of the mix; None = all for training, and for validation
            and testing all that have one.
    """

    name = "mix"
    media_namespace = ""  # the clips carry their own

    def __init__(
        self,
        *,
        parts: dict[str, dict[str, Any] | None] | None = None,
        weights: dict[str, float] | None = None,
        temperature: float | None = None,
        turns: bool = False,
        batches: Literal["mixed", "part"] = "mixed",
        train: list[str] | None = None,
        val: list[str] | None = None,
        test: list[str] | None = None,
    ) -> None:
        if not parts:
            raise ConfigError(
                "dataset=mix needs dataset.parts={NAME: {OPTIONS}, ...}, for example dataset.parts={coco: {root: DIR}, "
                "vg: {name: visual_genome}}."
            )
        self._chosen = {"train": train, "val": val, "test": test}
        self._how: dict[str, Any] = {"temperature": temperature, "turns": turns, "batches": batches}
        self._weights = weights
        refuse(list(self._wrong(list(parts))), "the mix")
        self.parts = _built(parts)
        self._tables: dict[tuple[str, str], MixTable] = {}

    @staticmethod
    def nested(options: Mapping[str, Any]) -> Iterator[tuple[str, str, Any, Sequence[str]]]:
        """The parts, for the check before anything is built."""
        parts = options.get("parts")
        for name, node in (parts if isinstance(parts, Mapping) else {}).items():
            yield f"parts.{name}", "dataset", _node(name, node), ()

    def _wrong(self, parts: Sequence[str]) -> Iterator[str]:
        known = ", ".join(parts)
        for name in parts:
            if not _PART.fullmatch(name):
                yield f"dataset.parts: {name!r} must be a name of letters, digits, _, . and -: it stands in every id."
        for split, chosen in self._chosen.items():
            for name in chosen or ():
                if name not in parts:
                    yield f"dataset.{split}: there is no part {name!r}; the parts are {known}."
        if self._weights is not None:
            used = self._chosen["train"] or parts
            if set(self._weights) != set(used) or not all(0 < w < float("inf") for w in self._weights.values()):
                yield f"dataset.weights={self._weights} must give each of {', '.join(used)} a number above 0."
        t = self._how["temperature"]
        if t is not None and not 0 <= t <= 1:
            yield f"dataset.temperature={t} must be between 0 (equal shares) and 1 (every row once)."
        if t is not None and self._weights is not None:
            yield "dataset.temperature and dataset.weights both say how often a part comes: give one of them."

    @cached_property
    def kinds(self) -> tuple[str, ...]:
        """Those that every part has."""
        offered = [member(part, Dataset, "kinds") for part in self.parts.values()]
        return tuple(kind for kind in offered[0] if all(kind in one for one in offered))

    def splits(self, kind: str) -> tuple[str, ...]:
        """Those that a chosen part has by definition."""
        check_table(self.name, self.kinds, kind)
        return tuple(split for split in SPLITS if self._with(kind, split))

    def samples(self, kind: str, split: str) -> Sequence[Sample]:
        """The tables of the parts as one.

        Raises:
            ConfigError: a part has no such kind.
            DataError: files of a part are missing; or a part that was named for this split, or any for training, has
                no row.
        """
        check_table(self.name, self.kinds, kind, split)
        if (kind, split) not in self._tables:
            named = split == "train" or self._chosen[split] is not None
            tables: dict[str, Sequence[Sample]] = {}
            for name in self._with(kind, split):
                try:
                    tables[name] = self.parts[name].samples(kind, split)
                except DataError as error:
                    if named:
                        raise DataError(_of_part(str(error), name)) from error
            empty = [name for name in self._chosen[split] or self.parts if not len(tables.get(name, ()))]
            if named and empty:
                raise DataError(
                    f"{', '.join(empty)}: no rows for the {split} split of the mix. Set dataset.{split}=[...] to the "
                    "parts that have some."
                )
            spaces = {name: member(self.parts[name], Dataset, "media_namespace") for name in tables}
            how = self._how if split == "train" else {}
            weights = self._weights if split == "train" else None
            self._tables[kind, split] = MixTable(Mixture(tables, weights, **how), spaces)
        return self._tables[kind, split]

    def origin(self) -> dict[str, Any]:
        """What each part says, with its namespace; all files once more in one list; and how they are mixed."""
        origins = {
            name: {
                **member(part, Dataset, "origin")(),
                "dataset": member(part, Dataset, "name"),
                "namespace": member(part, Dataset, "media_namespace"),
            }
            for name, part in self.parts.items()
        }
        files = [file for origin in origins.values() for file in origin.get("files", ())]
        splits = {split: chosen for split, chosen in self._chosen.items() if chosen is not None}
        return {"files": files, "parts": origins, "weights": self._weights, **self._how, "splits": splits}

    def _with(self, kind: str, split: str) -> list[str]:
        """Parts that the split is made of."""
        chosen = self._chosen[split]
        if chosen is not None:
            return chosen
        return [name for name, part in self.parts.items() if split in member(part, Dataset, "splits")(kind)]


class MixTable(Samples):
    """Tables one after another, without a copy of them.

    Args:
        mixture: the tables and how they are mixed; empty ones are left out.
        spaces: part -> namespace of its clips.
    """

    def __init__(self, mixture: Mixture, spaces: Mapping[str, str]) -> None:
        tables = {name: table for name, table in mixture.tables.items() if len(table)}
        self.mixture = Mixture(tables, mixture.weights, mixture.temperature, mixture.turns, mixture.batches)
        self.spaces = spaces
        self._tables = tuple(tables.values())
        self._starts: tuple[int, ...] = tuple(self.mixture.bounds.tolist())

    def __len__(self) -> int:
        return self._starts[-1]

    def sample_at(self, position: int) -> Sample:
        part = self.mixture.part_of(position)
        return self._named(self.mixture.names[part], self._tables[part][position - self._starts[part]])

    def __iter__(self) -> Iterator[Sample]:
        for name, table in self.mixture.tables.items():
            yield from (self._named(name, sample) for sample in table)

    def _named(self, part: str, sample: Sample) -> Sample:
        space = self.spaces[part]
        clip = media_id(sample)
        extra = dict(sample.extra)
        extra["video_id"], extra["part"] = f"{space}:{clip}" if space else clip, part
        return Sample(f"{part}/{sample.id}", sample.video, sample.audio, sample.texts, sample.labels, extra)

    def select(self, rows: npt.NDArray[Any]) -> Sequence[Sample]:
        """Some rows: a view, where those of a part stay together in the order of the parts, else a list."""
        rows = np.asarray(rows)
        parts = np.searchsorted(self.mixture.bounds, rows, side="right") - 1
        if (np.diff(parts) < 0).any():
            return [self[int(row)] for row in rows]
        tables = {
            name: select(table, rows[parts == i] - self._starts[i])
            for i, (name, table) in enumerate(self.mixture.tables.items())
        }
        cut = self.mixture
        return MixTable(Mixture(tables, cut.weights, cut.temperature, cut.turns, cut.batches), self.spaces)

    def video_ids(self) -> Iterator[str]:
        """``namespace:clip`` of every row, without making samples."""
        for name, table in self.mixture.tables.items():
            space = self.spaces[name]
            yield from (f"{space}:{clip}" if space else clip for clip in clip_names(table))

    def all_texts(self) -> Iterator[str]:
        """Every text of every row, without making samples."""
        return chain.from_iterable(member(table, Table, "all_texts")() for table in self._tables)

    @property
    def media_numbers(self) -> Any:
        """As of the parts, if all of them know."""
        bulk = [member(table, Table, "media_numbers") for table in self._tables]
        return self._media_numbers if bulk and all(bulk) else None

    def _media_numbers(self) -> npt.NDArray[np.int64]:
        numbers = [np.asarray(member(table, Table, "media_numbers")(), np.int64) for table in self._tables]
        return np.concatenate([start + part for start, part in zip(self._starts, numbers, strict=False)])


def _node(part: str, node: Any) -> Any:
    """The node of a part with the name of its data set."""
    return {"name": part, **node} if isinstance(node, Mapping) else {"name": part} if node is None else node


def _built(parts: Mapping[str, Any]) -> dict[str, Any]:
    """The data sets.

    Raises:
        ConfigError: with everything that is wrong with all of them.
    """
    problems: list[str] = []
    found: dict[str, Any] = {}
    for name, node in parts.items():
        where = f"dataset.parts.{name}"
        options = _node(name, node)
        own: list[str] = []
        choice = choose(where, options, find(host().registry, "dataset"), own, kind="dataset")
        if choice is not None and choice.target is Mix:
            own.append(f"{where}: a mix cannot be a part of a mix; name its parts here.")
        elif choice is not None and not own:
            found[name] = choice.build(own)
        problems += [_of_part(problem, name) for problem in own]
    refuse(problems, "the parts of the mix")
    return found


def _of_part(message: str, part: str) -> str:
    """A message of a data set that stands alone, with its keys where they are in the mix."""
    return re.sub(r"\bdataset\.(?!parts\.)(?=[a-z_]+\b)", f"dataset.parts.{part}.", message)
