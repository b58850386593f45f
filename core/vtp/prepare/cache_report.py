"""The report of ``vtp data cache``: how large a cache is, and how much faster it reads than the originals."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

from vtp.data.table import evenly
from vtp.media.cache import CachedReader, ClipCache
from vtp.media.info import MediaError
from vtp.media.isolation import MediaReader
from vtp.media.request import Wanted
from vtp.media.sampling import uniform
from vtp.prepare.cache import Outcome
from vtp.types import MediaRef

__all__ = ["report"]


def report(cache: ClipCache, sources: Sequence[str], outcome: Outcome) -> dict[str, Any]:
    """Size and speed of the whole cache, JSON-able."""
    good = [source for source in sources if source not in outcome.failed]
    stored = original = 0
    for source in good:
        entry = cache.path(source)
        movie = entry.with_suffix(".mp4")
        stored += entry.stat().st_size + (movie.stat().st_size if movie.exists() else 0)
        original += os.stat(source).st_size
    return {
        "files": len(sources),
        "made": outcome.made,
        "kept": outcome.kept,
        "failed": outcome.failed,
        "hash": cache.content_hash(),
        "bytes": stored,
        "bytes_of_originals": original,
        "seconds": round(outcome.seconds, 3),
        "clips_per_s": round(outcome.made / outcome.seconds, 3) if outcome.made else None,
        "reading": _speed(cache, good),
    }


def _speed(cache: ClipCache, sources: Sequence[str], seconds: float = 2.0, frames: int = 16) -> dict[str, Any] | None:
    """Clips per second of processor time, from the originals and from the cache: the median of at least three rounds
    over a few clips, the readers in turns. The first read of each loads libraries, which is no matter of speed."""
    behind = MediaReader(cache.settings.backend, isolate=False)  # these files were decoded without harm a moment ago
    readers: dict[str, Any] = {"original": behind, "cache": CachedReader(behind, cache)}
    wanted = Wanted(partial(uniform, frames=frames), cache.settings.size)

    def spent(name: str, clips: Sequence[str]) -> float:
        begin = time.process_time()
        for source in clips:
            readers[name].read(MediaRef(source), wanted)
        return time.process_time() - begin

    clips = []
    for source in evenly(sources, 4):
        try:
            for name in readers:
                spent(name, [source])
            clips.append(source)
        except MediaError:
            continue  # sound without pictures; and a file that was taken away meanwhile is no reason to fail now
    if not clips:
        return None
    rounds: dict[str, list[float]] = {name: [] for name in readers}
    start = time.monotonic()
    try:
        while len(rounds["cache"]) < 3 or time.monotonic() - start < seconds:
            for name, times in rounds.items():
                times.append(spent(name, clips))
    except MediaError:
        return None
    rates = {name: round(len(clips) / max(float(np.median(times)), 1e-9), 2) for name, times in rounds.items()}
    faster = round(rates["cache"] / rates["original"], 2)
    return {"frames": frames, "size": cache.settings.size, "clips_per_core_second": rates, "times_faster": faster}
