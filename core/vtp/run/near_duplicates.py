"""``data.near_duplicates=report``: test clips that look like training clips, by their pictures."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from vtp import distributed
from vtp.data.table import media_id
from vtp.errors import DataError
from vtp.eval.near import FRAMES, NEAR, fingerprint, pairs_alike
from vtp.media import MediaError, MediaReader
from vtp.media.info import VideoInfo
from vtp.media.request import Wanted
from vtp.prepare.threads import results
from vtp.progress import bar
from vtp.types import MediaRef, Sample

__all__ = ["line", "near_duplicates"]

SHOWN = 200  # pairs in the report
SIZE = (96, 96)  # pixels of the frames that are looked at


def near_duplicates(
    trains: Callable[[], Sequence[Sample]], tests: Sequence[Sample], make: Callable[[], MediaReader], workers: int
) -> dict[str, Any]:
    """Decode a few frames of every clip once and compare them; every process decodes its share.

    Args:
        trains: gives the training samples; a data set without their files is told, and no error.
        tests: the samples that are scored.
        make: a reader of media files.
        workers: threads, each with a reader.

    Returns:
        what report.json holds.
    """
    try:
        train = trains()
    except DataError as error:
        return {"error": f"the training samples cannot be read: {error}", "pairs": []}
    both = [_clips(samples) for samples in (train, tests)]
    marks, unread = _fingerprints({**both[0], **both[1]}, make, workers)
    sides = [{name: marks[name] for name in clips if name in marks} for clips in both]
    pairs = pairs_alike(sides[1], sides[0])
    return {
        "train_clips": len(both[0]),
        "test_clips": len(both[1]),
        "not_compared": unread,
        "similarity_from": NEAR,
        "found": len(pairs),
        "pairs": [{"test": test, "train": same, "similarity": round(value, 4)} for test, same, value in pairs[:SHOWN]],
    }


def line(record: Mapping[str, Any]) -> str:
    """What a reader must know of it; "" where nothing was found."""
    if "error" in record:
        return f"near duplicates: {record['error']}"
    if not record["found"]:
        return ""
    first = record["pairs"][0]
    return (
        f"NEAR DUPLICATES: {record['found']:,} of {record['test_clips']:,} test clips look like training clips (first: "
        f"{first['test']} like {first['train']}, similarity {first['similarity']:.3f})"
    )


def _clips(samples: Iterable[Sample]) -> dict[str, MediaRef]:
    found: dict[str, MediaRef] = {}
    for sample in samples:
        if sample.video is not None:
            found.setdefault(media_id(sample), sample.video)
    return found


def _evenly(info: VideoInfo) -> npt.NDArray[np.int64]:
    return np.linspace(0, info.count - 1, FRAMES).round().astype(np.int64)


def _fingerprints(
    clips: Mapping[str, MediaRef], make: Callable[[], MediaReader], workers: int
) -> tuple[dict[str, Any], int]:
    """Name -> fingerprint, and how many clips have none: not readable, or in one colour."""

    def look(reader: MediaReader, name: str) -> tuple[str, Any]:
        try:
            frames = reader.read(clips[name], Wanted(times=_evenly, size=SIZE)).frames
        except MediaError:
            return name, None
        return name, None if frames is None else fingerprint(frames)

    share = list(clips)[distributed.rank() :: distributed.world_size()]
    found = []
    with (
        bar("near duplicates", distributed.is_main()) as show,
        results(look, share, make, max(1, workers)) as stream,
    ):
        for one in stream:
            found.append(one)
            show(len(found), len(share))
    gathered = dict(one for part in distributed.gather_objects(found) for one in part)
    marks = {name: gathered[name] for name in clips if gathered[name] is not None}
    return marks, len(clips) - len(marks)
