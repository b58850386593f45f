"""WebDataset shards as a table: which members each sample has and where they lie, and the order in which an epoch
visits them.

A shard is a tar file whose members ``KEY.mp4``, ``KEY.txt``, ``KEY.json`` belong together; video2dataset and
``vtp data pack`` write such files. Its index is made from the headers when the shard is first used, and kept beside it,
or in ``$VTP_CACHE/shards`` where that cannot be written. Reading a sample is then one ``pread``, so ranks and workers
share shards as they share any table: no row twice, no row left out, and a run resumes at any row.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import stat
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from glob import escape, glob
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from vtp.data.shard_scan import NAMED, Group, ShardIndex, scan
from vtp.errors import DataError, RunError
from vtp.storage import cache_root, replacing

__all__ = ["NAMED", "Group", "ShardIndex", "find_shards", "shard_index", "shard_indices", "shard_order"]

log = logging.getLogger("vtp")

VERSION = 2
_COMPRESSED = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")


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
                found += _in_folder(path)
            elif os.path.isfile(path):
                found.append(Path(path))
            elif matches := sorted(glob(path)):
                found += map(Path, matches)
            else:
                raise DataError(f"{path} is neither a tar file nor a folder of them, and no file matches it.")
    for shard in found:
        if shard.suffix != ".tar":
            compressed = shard.suffixes[-2:-1] == [".tar"] or shard.suffix == ".tgz"
            hint = "Unpack it: samples are read in place." if compressed else "Names of shards end in .tar."
            raise DataError(f"{shard} is no plain tar file. {hint}")
    return list(dict.fromkeys(found))


def _in_folder(folder: str) -> list[Path]:
    for pattern in ("*", os.path.join("*", "*")):
        names = sorted(glob(os.path.join(escape(folder), pattern)))
        tars = [Path(name) for name in names if name.endswith(".tar")]
        others = [name for name in names if name.endswith(_COMPRESSED)]
        if tars and others:
            log.warning("%d compressed tar files are not read (first: %s): unpack them", len(others), others[0])
        if tars:
            return tars
        if others:
            raise DataError(
                f"the shards in {folder} are compressed (first: {others[0]}), and samples are read in place. Unpack "
                "them to plain tar files."
            )
    raise DataError(f"there are no tar files in {folder}.")


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


def shard_indices(shards: Sequence[Path], threads: int = 4) -> Iterator[ShardIndex]:
    """:func:`shard_index` of every shard, in order; several are read at a time."""
    with ThreadPoolExecutor(threads) as pool:
        yield from pool.map(shard_index, shards)


def shard_index(shard: Path) -> ShardIndex:
    """The samples of a shard, and what is left out of it.

    Raises:
        DataError: if the file is no tar file, cannot be read, or is cut off before the end of its first sample.
    """
    try:
        status = shard.stat()
        if not stat.S_ISREG(status.st_mode):
            raise DataError(f"{shard} is no file. Take it out of dataset.urls.")
        facts = {"version": VERSION, "bytes": status.st_size, "mtime_ns": status.st_mtime_ns}
        places = _index_files(shard)
        for place in places:
            if (kept := _kept(place, facts)) is not None:
                return kept
        index = scan(shard)
    except OSError as error:
        raise DataError(f"{shard} cannot be read: {error.strerror or error}.") from None
    text = json.dumps({**facts, "shard": os.fsencode(shard.name).decode("utf-8", "replace"), **_pack(index)},
                      ensure_ascii=False)  # fmt: skip
    for place in places:
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            with replacing(place) as file:
                file.write(text.encode())
            break
        except (OSError, RunError):
            continue
    return index


def _index_files(shard: Path) -> list[Path]:
    """Where an index may lie: beside the shard, else in the cache folder."""
    cache = cache_root() / "shards"
    name = hashlib.sha256(str(shard.absolute()).encode("utf-8", "surrogateescape")).hexdigest()[:24]
    return [shard.with_name(f"{shard.stem}.index.json"), cache / f"{name}.index.json"]


def _kept(place: Path, facts: dict[str, int]) -> ShardIndex | None:
    """An index that was written before, if it is about the shard as it is and holds what :func:`_pack` wrote."""
    try:
        kept = json.loads(place.read_bytes())
        if any(kept.get(name) != value for name, value in facts.items()):
            return None
        return _unpack(kept, facts["bytes"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


def _pack(index: ShardIndex) -> dict[str, Any]:
    groups = [[g.key, g.members, g.video, g.audio, g.text, g.record] for g in index.groups]
    return asdict(ShardIndex([], index.malformed, index.foreign, index.foreign_first, index.unread, index.damage)) | {
        "groups": groups
    }


def _unpack(kept: dict[str, Any], length: int) -> ShardIndex:
    """Raises ValueError, TypeError or KeyError for what :func:`_pack` never wrote."""
    groups = []
    for key, members, video, audio, text, record in kept["groups"]:
        places = {extension: (at, size) for extension, (at, size) in members.items()}
        whole = all(type(at) is type(size) is int and 0 <= at <= at + size <= length for at, size in places.values())
        texts = isinstance(key, str) and (text is None or isinstance(text, str)) and isinstance(record, dict)
        if not whole or not texts or not {video, audio} <= {"", *places} or not video + audio:
            raise ValueError(f"no sample: {key}")
        groups.append(Group(key, places, video, audio, text, record))
    malformed = [(key, why) for key, why in kept["malformed"]]
    named = [*(word for pair in malformed for word in pair), *kept["foreign_first"], *kept["unread"], *kept["damage"]]
    counts = [kept["foreign"], *kept["unread"].values()]
    if not all(type(word) is str for word in named) or not all(type(count) is int for count in counts):
        raise ValueError("no index")
    return ShardIndex(groups, malformed, kept["foreign"], kept["foreign_first"], kept["unread"], kept["damage"])


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
