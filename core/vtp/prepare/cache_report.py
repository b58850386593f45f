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
        "bytes": stored,
        "bytes_of_originals": original,
        "seconds": round(outcome.seconds, 3),
        "clips_per_s": round(outcome.made / outcome.seconds, 3) if outcome.made else None,
        "reading": _speed(cache, good),
    }


def _speed(cache: ClipCache, sources: Sequence[str], seconds: float = 2.0, frames: int = 16) -> dict[str, Any] | None:
    """Clips per second of processor time, from the originals and from the cache, in turns over a few clips."""
    behind = MediaReader(cache.settings.backend, isolate=False)  # these files were decoded without harm a moment ago
    readers: dict[str, Any] = {"original": behind, "cache": CachedReader(behind, cache)}
    wanted = Wanted(partial(uniform, frames=frames), cache.settings.size)
    spent = dict.fromkeys(readers, 0.0)
    clips = 0
    chosen = evenly(sources, 8)
    start = time.monotonic()
    while chosen and time.monotonic() - start < seconds:
        for source in chosen:
            took = {}
            for name, reader in readers.items():
                begin = time.process_time()
                try:
                    reader.read(MediaRef(source), wanted)
                except MediaError:
                    break  # sound without pictures; and a file that was taken away meanwhile is no reason to fail now
                took[name] = time.process_time() - begin
            if len(took) == len(readers):
                clips += 1
                for name, value in took.items():
                    spent[name] += value
            elif time.monotonic() - start > seconds:
                break
        if not clips:
            return None
    if not clips:
        return None
    rates = {name: round(clips / max(value, 1e-9), 2) for name, value in spent.items()}
    times = round(float(np.divide(rates["cache"], rates["original"])), 2)
    return {"frames": frames, "size": cache.settings.size, "clips_per_core_second": rates, "times_faster": times}
