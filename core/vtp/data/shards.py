"""WebDataset shards as a table: which members each sample has and where they lie, and the order in which an epoch
visits them.

A shard is a tar file whose members ``KEY.mp4``, ``KEY.txt``, ``KEY.json`` stand next to each other; video2dataset and
``vtp data pack`` write such files. Its index is made from the headers when the shard is first used, and kept beside it,
or in ``$VTP_CACHE/shards`` where that cannot be written. Reading a sample is then one ``pread``, so ranks and workers
share shards as they share any table: no row twice, no row left out, and a run resumes at any row.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import tarfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from glob import escape, glob
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from vtp.errors import DataError, RunError
from vtp.storage import cache_root, replacing

__all__ = ["Group", "find_shards", "shard_index", "shard_indices", "shard_order"]

log = logging.getLogger("vtp")

VERSION = 1
_TEXTS = ("txt", "caption", "cap")
_END = 2 * tarfile.BLOCKSIZE  # two empty blocks end a tar file
_LONGEST_TEXT = 1 << 22  # bytes of a txt or json member; a longer one is no annotation


@dataclass(slots=True)
class Group:
    """The members of one sample.

    Attributes:
        key: their common name without extension.
        begin, end: bytes of the tar file that they take up, headers included.
        members: extension -> (where the content begins, its length).
        text: the content of ``txt``.
        record: the content of ``json``, {} without one.
    """

    key: str
    begin: int
    end: int
    members: dict[str, tuple[int, int]] = field(default_factory=dict)
    text: str | None = None
    record: dict[str, Any] = field(default_factory=dict)


def find_shards(urls: str | os.PathLike[str] | Sequence[str | os.PathLike[str]]) -> list[Path]:
    """The tar files that ``urls`` means, sorted: folders (all their tar files, also one level down), files, patterns
    with ``*`` or with braces as in ``{00000..00099}.tar``.

    Raises:
        DataError: if there are none.
    """
    found: list[Path] = []
    for url in [urls] if isinstance(urls, str | os.PathLike) else urls:
        for path in _expand(os.path.expanduser(os.fspath(url))):
            if os.path.isdir(path):
                tars = sorted(glob(os.path.join(escape(path), "*.tar")))
                tars = tars or sorted(glob(os.path.join(escape(path), "*", "*.tar")))
                if not tars:
                    raise DataError(f"there are no tar files in {path}.")
                found += map(Path, tars)
            elif os.path.isfile(path):
                found.append(Path(path))
            elif matches := sorted(glob(path)):
                found += map(Path, matches)
            else:
                raise DataError(f"{path} is neither a tar file nor a folder of them, and no file matches it.")
    return list(dict.fromkeys(found))


def _expand(pattern: str) -> Iterator[str]:
    """``{00..02}`` counts, with its leading zeros; only the first pair of braces of a pattern, then the next."""
    before, brace, rest = pattern.partition("{")
    inside, close, after = rest.partition("}")
    first, dots, last = inside.partition("..")
    if not (brace and close and dots and first.isdigit() and last.isdigit()):
        yield pattern
        return
    for number in range(int(first), int(last) + 1):
        yield from _expand(f"{before}{number:0{len(first)}d}{after}")


def shard_indices(shards: Sequence[Path], threads: int = 4) -> Iterator[list[Group]]:
    """:func:`shard_index` of every shard, in order; several are read at a time."""
    with ThreadPoolExecutor(threads) as pool:
        yield from pool.map(shard_index, shards)


def shard_index(shard: Path) -> list[Group]:
    """The samples of a shard, in order.

    Raises:
        DataError: if the file is no tar file, or not even one sample of it is whole.
    """
    status = shard.stat()
    facts = {"version": VERSION, "bytes": status.st_size, "mtime_ns": status.st_mtime_ns}
    places = _index_files(shard)
    for place in places:
        try:
            kept = json.loads(place.read_bytes())
            if all(kept.get(name) == value for name, value in facts.items()):
                return [_unpack(group) for group in kept["samples"]]
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            continue
    groups = _scan(shard)
    text = json.dumps({**facts, "shard": shard.name, "samples": [_pack(g) for g in groups]}, ensure_ascii=False)
    for place in places:
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            with replacing(place) as file:
                file.write(text.encode(errors="surrogateescape"))
            break
        except (OSError, RunError):
            continue
    return groups


def _index_files(shard: Path) -> list[Path]:
    """Where an index may lie: beside the shard, else in the cache folder."""
    cache = cache_root() / "shards"
    name = hashlib.sha256(str(shard.absolute()).encode("utf-8", "surrogateescape")).hexdigest()[:24]
    return [shard.with_name(f"{shard.stem}.index.json"), cache / f"{name}.index.json"]


def _pack(group: Group) -> list[Any]:
    return [group.key, group.begin, group.end, group.members, group.text, group.record]


def _unpack(values: list[Any]) -> Group:
    key, begin, end, members, text, record = values
    return Group(key, begin, end, {name: (at, length) for name, (at, length) in members.items()}, text, record)


def _scan(shard: Path) -> list[Group]:
    """Walk over the headers; only texts and records are read. Of a shard that was not finished, whole samples count."""
    groups: list[Group] = []
    with open(shard, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        try:
            with tarfile.open(fileobj=file, mode="r:") as tar:
                for info in tar:
                    if info.isfile():
                        _add(groups, info, file.fileno())
        except tarfile.TarError as error:
            if not groups:
                raise DataError(f"{shard} is no tar file ({error}). Take it out of dataset.urls.") from None
        tail = os.pread(file.fileno(), _END, max(0, size - _END))
    if groups and (groups[-1].end + _END > size or tail.strip(b"\0")):
        groups.pop()  # members of it may be missing
        if not groups:
            raise DataError(f"{shard} is cut off and holds no whole sample. Copy it again.")
        log.warning("%s is cut off: the %d samples before the cut are used", shard, len(groups))
    return [group for group in groups if group.members]


def _add(groups: list[Group], info: tarfile.TarInfo, file: int) -> None:
    folder, _, base = info.name.rpartition("/")
    stem, _, extension = base.partition(".")  # WebDataset: everything after the first dot
    key, extension = f"{folder}/{stem}" if folder else stem, extension.lower()
    end = info.offset_data + -(-info.size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE
    if not groups or groups[-1].key != key:
        groups.append(Group(key, info.offset, end))
    group = groups[-1]
    group.end = end
    if extension == "json" and info.size < _LONGEST_TEXT:
        try:
            record = json.loads(os.pread(file, info.size, info.offset_data))
        except ValueError:
            record = {}
        group.record = record if isinstance(record, dict) else {}
    elif extension in _TEXTS and info.size < _LONGEST_TEXT:
        group.text = os.pread(file, info.size, info.offset_data).decode("utf-8", "replace").strip()
    elif extension:
        group.members[extension] = (info.offset_data, info.size)


def shard_order(
    shards: npt.NDArray[np.integer[Any]], buffer: int, generator: np.random.Generator
) -> npt.NDArray[np.int64]:
    """The order in which an epoch visits rows: shards in random order, rows within reach of a shuffle buffer.

    Args:
        shards: for each row the number of its shard, (N,).
        buffer: a row is visited at most so many places before or after its place in the sequence of shards; 0 keeps
            that sequence.
        generator: decides; nothing else does.

    Returns:
        int64 (N,), a permutation of the rows.
    """
    names, numbers = np.unique(np.asarray(shards), return_inverse=True)
    rank = generator.permutation(len(names))
    order = np.argsort(rank[numbers], kind="stable")  # rows of one shard stay in their sequence
    # A row at place p gets a key in [p, p + buffer]; sorted by key, none of those before p can fall behind p + buffer.
    keys = np.arange(len(order)) + generator.random(len(order)) * buffer
    return np.asarray(order[np.argsort(keys, kind="stable")], np.int64)
