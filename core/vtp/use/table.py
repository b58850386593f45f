"""A table of embedded windows in LanceDB: a folder, or a place in object storage, with two tables.

    windows   file, start, end, modality, vector, key
    files     key, bytes, mtime_ns, windows, bad (JSON: what of it could not be used, and why)

The windows of a file are added first and the file is noted last. A program that is killed in between leaves windows of
files that are not noted: the next one removes them, and embeds these files again. So a table that was interrupted holds
what one holds that was not.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from vtp.errors import ConfigError, DataError, RunError
from vtp.use.places import near
from vtp.use.windows import Source, Window

__all__ = ["Table"]

WINDOWS, FILES, INDEX = "windows", "files", "index"
_ABOUT = b"vtp"  # key of the metadata of the table
_QUERIES = 50  # by which the recall of an index is measured
_FIRST = 10  # recall of the first so many
_RECALL = 0.95
_FILES = pa.schema(
    [
        ("key", pa.string()),
        ("bytes", pa.int64()),
        ("mtime_ns", pa.int64()),
        ("windows", pa.int64()),
        ("bad", pa.string()),
    ]
)


class Table:
    """An open table.

    Attributes:
        about: what it was made with: ``model``, ``fingerprint``, ``objective``, ``window``, ``stride``, ``width``.
    """

    def __init__(self, database: Any, windows: Any, files: Any) -> None:
        self.database = database
        self.windows = windows
        self.files = files
        about = _about(windows)
        if about is None:
            raise DataError(
                f"{database.uri} holds a table `{WINDOWS}` that `vtp embed` did not write. Name another folder."
            )
        self.about = about

    @classmethod
    def open(cls, place: str) -> Table:
        """Open what ``vtp embed`` wrote.

        Raises:
            DataError: there is no such table.
            ConfigError: lancedb is not installed.
        """
        database = _database(place) if _may_be_there(place) else None  # connecting makes the folder
        opened = [] if database is None else [_opened(database, place, name) for name in (WINDOWS, FILES)]
        if not opened or None in opened:
            raise DataError(
                f"{place}: there is no table of embeddings.{near(place)} `vtp embed INPUT {place} --model RUN` makes "
                "one."
            )
        return cls(database, *opened)

    @classmethod
    def make(cls, place: str, about: Mapping[str, Any]) -> Table:
        """Open a table to go on with it, or make it.

        Raises:
            ConfigError: it was made with other settings, or lancedb is not installed.
        """
        database = _database(place)
        if (windows := _opened(database, place, WINDOWS)) is not None:
            there = _about(windows) or {}
            for key, value in about.items():
                if key != "model" and there.get(key) != value:
                    raise ConfigError(
                        f"{place} was made with {key}={there.get(key)}, and now it is {value}: rows of both could not "
                        "be compared. Name a new folder."
                    )
        schema = pa.schema(
            [
                ("key", pa.string()),
                ("file", pa.string()),
                ("start", pa.float64()),
                ("end", pa.float64()),
                ("modality", pa.string()),
                ("vector", pa.list_(pa.float32(), int(about["width"]))),
            ],
            metadata={_ABOUT: json.dumps(dict(about)).encode()},
        )
        with _speaking(database):
            database.create_table(WINDOWS, schema=schema, exist_ok=True)
            database.create_table(FILES, schema=_FILES, exist_ok=True)
            return cls(database, *(database.open_table(name) for name in (WINDOWS, FILES)))

    def __len__(self) -> int:
        with _speaking(self.database):
            return int(self.windows.count_rows())

    def grown(self) -> int:
        """The number of windows, with those that other processes have added by now."""
        with _speaking(self.database):
            self.windows.checkout_latest()
        return len(self)

    def rest(self, wanted: Sequence[Source], again: bool = False) -> list[Source]:
        """Those of ``wanted`` that are not done as they are now. What is there of them is removed.

        Args:
            again: with those of which something could not be used.
        """
        with _speaking(self.database):
            noted = {row["key"]: row for row in _all(self.files, [*_FILES.names])}
            begun = {row["key"] for row in _all(self.windows, ["key"])}
        rest = []
        for source in wanted:
            row = noted.get(source.key)
            same = row is not None and (row["bytes"], row["mtime_ns"]) == (source.bytes, source.mtime_ns)
            if row is None or not same or (again and row["bad"] != "[]"):
                rest.append(source)
        stale = [source.key for source in rest if source.key in noted or source.key in begun]
        for place in range(0, len(stale), 500):
            keys = ", ".join(_quoted(key) for key in stale[place : place + 500])
            with _speaking(self.database):
                self.files.delete(f"key IN ({keys})")  # first: without its note a file is not done
                self.windows.delete(f"key IN ({keys})")
        return rest

    def add(self, rows: Sequence[tuple[Window, Any]], done: Mapping[Source, Sequence[Mapping[str, Any]]]) -> None:
        """Add windows with their vectors, and note that their files are done.

        Args:
            rows: windows and float32 (E,).
            done: source -> what of it could not be used.
        """
        if rows:
            given = [window for window, _ in rows]
            vectors = np.stack([vector for _, vector in rows]).astype(np.float32)
            columns = {
                "key": [window.source.key for window in given],
                "file": [str(window.ref.path) for window in given],
                "start": [window.start for window in given],
                "end": [window.end for window in given],
                "modality": [window.modality for window in given],
                "vector": pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), vectors.shape[1]),
            }
            with _speaking(self.database):
                self.windows.add(pa.table(columns, schema=self.windows.schema))
        counts: dict[str, int] = {}
        for window, _ in rows:
            counts[window.source.key] = counts.get(window.source.key, 0) + 1
        noted = {
            "key": [source.key for source in done],
            "bytes": [source.bytes for source in done],
            "mtime_ns": [source.mtime_ns for source in done],
            "windows": [counts.get(source.key, 0) for source in done],
            "bad": [json.dumps(list(bad)) for bad in done.values()],
        }
        with _speaking(self.database):
            self.files.add(pa.table(noted, schema=_FILES))

    def bad(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """What could not be used: key of the file, and ``start``, ``end``, ``modality`` and ``reason``."""
        for row in _all(self.files, ["key", "bad"]):
            for found in json.loads(row["bad"]):
                yield row["key"], found

    def search(
        self, vector: Any, k: int = 10, modality: str | None = None, exact: bool = False, numbered: bool = False
    ) -> list[dict[str, Any]]:
        """The ``k`` windows that are most alike, best first: ``file``, ``start``, ``end``, ``modality``, ``score``.

        Args:
            vector: float32 (E,).
            modality: only windows of this one.
            exact: compare with all rows, also where there is an index.
            numbered: give ``row`` as well, the number by which :meth:`row` finds it again.
        """
        query = self.windows.search(vector, vector_column_name="vector").distance_type("cosine")
        if modality is not None:
            query = query.where(f"modality = {_quoted(modality)}", prefilter=True)
        index = None if exact else self.index()
        query = query.bypass_vector_index() if index is None else _probing(query, index["probes"])
        columns = ["file", "start", "end", "modality"]
        with _speaking(self.database):
            rows = query.with_row_id(True).select([*columns, "_distance"]).limit(k).to_arrow().to_pylist()
        return [
            {key: row[key] for key in columns}
            | ({"row": row["_rowid"]} if numbered else {})
            | {"score": 1.0 - float(row["_distance"])}
            for row in sorted(rows, key=lambda row: (row["_distance"], row["file"], row["start"], row["modality"]))
        ]

    def row(self, number: int) -> dict[str, Any] | None:
        """The window of a number that :meth:`search` gave, with ``file``, ``start``, ``end``, ``modality`` and the
        ``bytes`` that its file had when it was embedded (None while that is not noted); None where there is none, or no
        longer."""
        columns = ["key", "file", "start", "end", "modality"]
        try:
            found = self.windows.take_row_ids([number]).select(columns).to_list()
        except (OverflowError, RuntimeError, ValueError):  # a number that no row can have
            return None
        if not found:
            return None
        row: dict[str, Any] = found[0]
        noted = self.files.search().where(f"key = {_quoted(row.pop('key'))}").select(["bytes"]).limit(1).to_list()
        return row | {"bytes": noted[0]["bytes"] if noted else None}

    # -- the index -----------------------------------------------------------------------------------------------------

    def index(self) -> dict[str, Any] | None:
        """What is known of the index: ``rows``, ``probes``, ``recall``; None without one."""
        table = _opened(self.database, "the table", INDEX)
        found: list[dict[str, Any]] = [] if table is None else table.search().to_list()
        return found[0] if found else None

    def build_index(self) -> dict[str, Any]:
        """Build an index (IVF, a byte per number, the first candidates compared exactly), and measure its recall: how
        many of the true first ten of vectors of the table itself it finds. Twice as many partitions are looked at until
        that is 0.95."""
        rows = len(self)
        partitions = max(1, round(rows**0.5))
        config = import_module("lancedb.index").IvfSq(distance_type="cosine", num_partitions=partitions)
        self.windows.create_index("vector", config=config, replace=True)
        chosen = np.unique(np.linspace(0, rows - 1, _QUERIES).astype(int))
        queries = [row["vector"] for row in self.windows.take_offsets(chosen.tolist()).select(["vector"]).to_list()]
        probes, recall = max(1, min(partitions, 8)), 0.0
        want = [self._first(query, None) for query in queries]
        while True:
            found = [self._first(query, probes) for query in queries]
            recall = float(np.mean([len(a & b) / max(1, len(a)) for a, b in zip(want, found, strict=True)]))
            if recall >= _RECALL or probes >= partitions:
                break
            probes = min(partitions, 2 * probes)
        about = {"rows": rows, "partitions": partitions, "probes": probes, "recall": recall, "queries": len(queries)}
        self.database.create_table(INDEX, [about], mode="overwrite")
        return about

    def _first(self, vector: Any, probes: int | None) -> set[Any]:
        query = self.windows.search(vector, vector_column_name="vector").distance_type("cosine").with_row_id(True)
        query = query.bypass_vector_index() if probes is None else _probing(query, probes)
        return {row["_rowid"] for row in query.select(["key", "_distance"]).limit(_FIRST).to_list()}


def _probing(query: Any, probes: int) -> Any:
    return query.nprobes(probes).refine_factor(10)


def _database(place: str) -> Any:
    os.environ.setdefault("LANCE_LOG", "error")  # else it tells on stderr that a new table is new
    try:
        lancedb = import_module("lancedb")
    except ImportError as error:
        raise ConfigError(
            f"tables of embeddings need the package lancedb, which cannot be imported ({error}). "
            "Get it with: pip install lancedb"
        ) from error
    try:
        return lancedb.connect(place)
    except OSError as error:
        raise ConfigError(
            f"{place} cannot be a table of embeddings ({error.strerror or error}). Name a folder that can be written."
        ) from error


def _may_be_there(place: str) -> bool:
    return "://" in place or Path(place).expanduser().is_dir()


def _tables(database: Any, place: str) -> set[str]:
    names: set[str] = set()
    token: str | None = None
    while True:
        try:
            page = database.list_tables(page_token=token)
        except (RuntimeError, ValueError, OSError) as error:  # such as names of other files that lance does not take
            reason = " ".join(str(error).split())[:200]
            raise DataError(
                f"{place} cannot be read as a table of embeddings ({reason}). Name another folder."
            ) from error
        names |= {*page.tables}
        token = page.page_token
        if not token:
            return names


def _opened(database: Any, place: str, name: str) -> Any:
    """A table of the database; None where there is none, or its folder alone, which a program leaves that is killed
    before the first version is written."""
    if name not in _tables(database, place):
        return None
    try:
        return database.open_table(name)
    except (RuntimeError, ValueError, OSError) as error:
        if "was not found" in str(error):
            return None
        raise _damaged(database, error) from error


def _about(windows: Any) -> dict[str, Any] | None:
    """What stands in the table about how it was made; None where another program made it."""
    try:
        found = json.loads((windows.schema.metadata or {})[_ABOUT])
    except (KeyError, ValueError):
        return None
    return found if isinstance(found, dict) else None


@contextmanager
def _speaking(database: Any) -> Iterator[None]:
    """What goes wrong within lance is a line."""
    try:
        yield
    except (RuntimeError, ValueError, OSError) as error:
        if "No space left" in str(error):
            raise RunError(
                f"{database.uri}: the disk is full. What is in the table stays. Free some space, and give the same "
                "command again."
            ) from error
        raise _damaged(database, error) from error


def _damaged(database: Any, error: Exception) -> DataError:
    reason = " ".join(str(error).split())[:200]
    return DataError(
        f"{database.uri}: this table of embeddings cannot be used: a file of it is damaged or cannot be written "
        f"({reason}). Remove the folder and embed again, or name another one."
    )


def _all(table: Any, columns: list[str]) -> list[dict[str, Any]]:
    if not table.count_rows():
        return []
    rows: list[dict[str, Any]] = table.search().select(columns).limit(table.count_rows()).to_arrow().to_pylist()
    return rows


def _quoted(text: str) -> str:
    """A text in a condition of SQL."""
    return "'" + text.replace("'", "''") + "'"
