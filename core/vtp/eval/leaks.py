"""Has the model been trained on what it is tested on? The clips of every training stage travel with the checkpoint and
are compared with the test set.

Two clips are the same when data set and clip id are (``msrvtt:video7010``). Data sets that share clips share a
``media_namespace``, as MSVD's retrieval and QA sets do; by default it is the name of the data set. Clips of a mix of
data sets keep that of theirs. They are the same too when they are one file, or a copy of it (:mod:`vtp.eval.identity`),
whatever they are called; two names of one published list stay two clips, and a copy among them is a warning.
"""

from __future__ import annotations

import base64
import hashlib
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from vtp.contracts import Dataset, Table, member
from vtp.data.keys import hash64
from vtp.data.table import clip_names
from vtp.errors import ConfigError, DataError
from vtp.eval.forms import sha256_lines
from vtp.eval.identity import ClipFiles, clip_files
from vtp.spans import whole_clip
from vtp.types import Sample

__all__ = ["LeakReport", "check_leaks", "media_names", "train_record"]

NAMED_CLIPS = 200_000  # clips of a stage up to which a checkpoint remembers their names


def media_names(samples: Iterable[Sample], dataset: Any) -> list[str]:
    """``namespace:clip`` of every clip of a table, sorted and unique."""
    return sorted(set(_names([samples], dataset)))


def train_record(
    stage: str,
    samples: Sequence[Sample],
    dataset: Any,
    list_name: str | None = None,
    *,
    selected_on: Sequence[Sample] = (),
) -> dict[str, Any]:
    """What a checkpoint must remember of one training stage; JSON-able. Append it to the records of the stages before.

    The clips are remembered by name. Of more than 200,000 clips only hashes of 8 bytes are kept, sorted and compressed:
    a list of 2.5 million names would be 100 MB in every checkpoint.

    Args:
        stage: what people call it, such as the run's folder or ``train``.
        samples: everything that was trained on.
        dataset: where they come from.
        list_name: name of the known list they are, if any (``train.9k``).
        selected_on: validation samples by which a checkpoint was chosen.
    """
    tables = [samples, selected_on]
    hashes = _hashes(_names(tables, dataset), len(samples) + len(selected_on))
    by_name = len(hashes) <= NAMED_CLIPS
    media = sorted(set(_names(tables, dataset))) if by_name else None
    mixture = member(samples, Table, "mixture")
    return {
        "stage": stage,
        "dataset": member(dataset, Dataset, "name"),
        "list": list_name,
        **({} if mixture is None else {"parts": mixture.record()}),
        "samples": len(samples) + len(selected_on),
        "clips": len(hashes) if media is None else len(media),
        "sha256": hashlib.sha256(hashes.tobytes()).hexdigest() if media is None else sha256_lines(media),
        "media": _packed(hashes) if media is None else media,
        "files": _file_record([(samples, dataset), (selected_on, dataset)]),
    }


def _file_record(tables: Sequence[tuple[Sequence[Sample], Any]]) -> dict[str, Any]:
    """The files of a stage, and the namespace in which names decide."""
    dataset = tables[0][1]
    found = clip_files(tables).values()
    names = None if member(dataset, Dataset, "by_file") else member(dataset, Dataset, "media_namespace")
    return {
        "named_in": names,
        "paths": _packed(_numbers(key for one in found for key in one.paths)),
        "contents": _packed(_numbers(key for one in found for key in one.contents)),
    }


def _numbers(keys: Iterable[int]) -> npt.NDArray[np.uint64]:
    return np.unique(np.fromiter(keys, ">u8"))


def _names(tables: Iterable[Iterable[Sample]], dataset: Any) -> Iterator[str]:
    namespace = member(dataset, Dataset, "media_namespace")
    prefix = f"{namespace}:" if namespace else ""  # without one, the names of the clips carry theirs
    return (f"{prefix}{name}" for table in tables for name in clip_names(table))


def _hashes(names: Iterable[str], count: int = -1) -> npt.NDArray[np.uint64]:
    """Sorted, unique, big-endian hashes of names; spans count as their whole clip."""
    return np.unique(np.fromiter((hash64(whole_clip(name)) for name in names), ">u8", count=count))


def _packed(hashes: npt.NDArray[np.uint64]) -> dict[str, Any]:
    """JSON-able form. First bytes of sorted numbers change slowly, so they are stored together, and shrink."""
    planes = hashes.astype(">u8").view(np.uint8).reshape(-1, 8).T.tobytes()
    return {"hash": "blake2b-8", "count": len(hashes), "data": base64.b64encode(zlib.compress(planes, 6)).decode()}


def _unpacked(record: Mapping[str, Any]) -> npt.NDArray[np.uint64]:
    if record.get("hash") != "blake2b-8":
        raise DataError(
            f"a checkpoint remembers its training clips as {record.get('hash')!r}, which this version of vtp cannot "
            "read (it knows blake2b-8). Use the version that wrote it, or a newer one."
        )
    try:
        planes = np.frombuffer(zlib.decompress(base64.b64decode(record["data"])), np.uint8).reshape(8, -1)
    except (ValueError, zlib.error) as error:  # binascii.Error is a ValueError
        raise DataError(
            f"the list of training clips in provenance.json is damaged ({error}). Copy the checkpoint again."
        ) from error
    return np.ascontiguousarray(planes.T).view(">u8").reshape(-1)


@dataclass(frozen=True, slots=True)
class LeakReport:
    """Overlap between training stages and a test set.

    Attributes:
        tested: number of test clips.
        found: stage -> names of the test clips it contains, in sorted order; only stages with any.
        unknown: stages that did not record their clips (foreign checkpoints), which can be neither cleared nor accused.
        copies: stage -> test clips of a published list that are, byte for byte, training clips under another name.
    """

    tested: int
    found: Mapping[str, tuple[str, ...]]
    unknown: tuple[str, ...] = ()
    copies: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def leaked(self) -> frozenset[str]:
        return frozenset(name for names in self.found.values() for name in names)

    def line(self) -> str:
        """``LEAK: 1,990 of 2,990 test clips were in training (stage retrieval: 1,990, first msrvtt:video7010)``; empty
        without one."""
        if not self.found:
            return ""
        stages = "; ".join(
            f"stage {stage}: {len(names):,}, first {', '.join(names[:3])}" for stage, names in self.found.items()
        )
        return f"LEAK: {len(self.leaked):,} of {self.tested:,} test clips were in training ({stages})"

    def record(self) -> dict[str, Any]:
        """What report.json stores."""
        return {
            "leak": bool(self.found),
            "test_clips": self.tested,
            "leaked_clips": len(self.leaked),
            "stages": {stage: {"clips": len(names), "first": list(names[:20])} for stage, names in self.found.items()},
            "stages_without_a_list": list(self.unknown),
            "copies": {stage: {"clips": len(names), "first": list(names[:20])} for stage, names in self.copies.items()},
        }

    def copies_line(self) -> str:
        """What is said of copies; empty without one."""
        found = [f"stage {stage}: {len(names):,}, first {', '.join(names[:3])}" for stage, names in self.copies.items()]
        text = "test clips are training clips under another name, byte for byte"
        return f"{text} ({'; '.join(found)})" if found else ""


def check_leaks(
    stages: Sequence[Mapping[str, Any]],
    tested: Sequence[str],
    *,
    on_leak: str = "refuse",
    files: Mapping[str, ClipFiles] | None = None,
) -> LeakReport:
    """Compare the clips of all training stages with those of a test set.

    A span of a clip (``a.mp4[1-2.5]``) overlaps the whole clip and every other span of it.

    Args:
        stages: records of :func:`train_record`, oldest first. One without ``media`` is reported as unknown.
        tested: names from :func:`media_names`.
        on_leak: ``refuse`` raises, ``stamp`` returns the finding for the report and the tables.
        files: those of the test clips, from :func:`vtp.eval.identity.clip_files`; None compares names alone.

    Raises:
        ConfigError: another ``on_leak``.
        DataError: there is an overlap and ``on_leak`` is ``refuse``.
    """
    if on_leak not in ("refuse", "stamp"):
        raise ConfigError(f"data.on_leak={on_leak!r} must be refuse or stamp.")
    test: dict[str, list[str]] = {}  # whole clip -> names
    for name in sorted(set(tested)):
        test.setdefault(whole_clip(name), []).append(name)
    found: dict[str, tuple[str, ...]] = {}
    unknown = []
    copies: dict[str, tuple[str, ...]] = {}
    for number, stage in enumerate(stages, start=1):
        label = str(stage.get("stage") or f"number {number}")
        label = label if label not in found and label not in unknown else f"{label} ({number})"
        if stage.get("media") is None:
            unknown.append(label)
            continue
        same, alike = _same_files(stage.get("files"), files or {})
        if overlap := {*_overlap(test, stage["media"]), *same}:
            found[label] = tuple(sorted(overlap))
        if alike := alike - {*found.get(label, ())}:
            copies[label] = tuple(sorted(alike))
    report = LeakReport(sum(map(len, test.values())), found, tuple(unknown), copies)
    if found and on_leak == "refuse":
        raise DataError(
            f"{report.line()}. Such a score would mean nothing. Train on a list without these clips, or set "
            "data.on_leak=stamp: report and tables then carry the word LEAK."
        )
    return report


def _overlap(test: Mapping[str, list[str]], media: Sequence[str] | Mapping[str, Any]) -> list[str]:
    """Names of the test clips (by whole clip) that are among those of a stage, which are names or packed hashes."""
    if isinstance(media, Mapping):
        clips = list(test)
        keys = np.array([hash64(clip) for clip in clips], np.uint64)
        inside = np.isin(keys, _unpacked(media))
        return [name for clip, hit in zip(clips, inside, strict=True) if hit for name in test[clip]]
    return [name for clip in set(map(whole_clip, media)) & test.keys() for name in test[clip]]


def _same_files(stage: Any, files: Mapping[str, ClipFiles]) -> tuple[set[str], set[str]]:
    """Names of the test clips that are files of a stage, and of those that are only copies within one published
    list."""
    if not isinstance(stage, Mapping) or not files:
        return set(), set()
    paths, contents = ({*_unpacked(stage[key]).tolist()} for key in ("paths", "contents"))
    named_in = stage.get("named_in")
    same: set[str] = set()
    alike: set[str] = set()
    for name, known in files.items():
        official = bool(named_in) and name.startswith(f"{named_in}:")
        if known.paths & paths:
            same |= set() if official else {name}
        elif known.contents & contents:
            (alike if official else same).add(name)
    return same, alike
