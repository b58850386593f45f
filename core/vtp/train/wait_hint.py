"""Saying once, while a model trains, that it waits for data and what would help."""

from __future__ import annotations

import logging
import shlex
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from vtp import distributed
from vtp.train.callbacks import Callback

if TYPE_CHECKING:
    from vtp.train.trainer import Trainer

__all__ = ["WaitHint", "advice"]

log = logging.getLogger("vtp")


class WaitHint(Callback):
    """Logs ``advice`` once, when more than ``share`` of the time of at least ``window_s`` seconds went into waiting.

    Args:
        advice: what to do, one line.
        share: of the time, in (0, 1).
        window_s: length of a window; the first one, in which workers start and files are new, does not count.
    """

    def __init__(self, advice: str, share: float = 0.2, window_s: float = 30.0) -> None:
        self.advice = advice
        self.share = share
        self.window_s = window_s
        self._said = self._warm = False
        self._step = 0
        self._waited = self._elapsed = 0.0

    def on_fit_start(self, trainer: Trainer, *, step: int, **facts: Any) -> None:
        self._step = step
        self._start = time.monotonic()

    def on_log(self, trainer: Trainer, *, step: int, line: Mapping[str, Any], **facts: Any) -> None:
        elapsed = line["timing"]["step_ms"] / 1000 * (step - self._step)  # without evaluations and checkpoints
        self._step = step
        if self._said:
            return
        self._elapsed += elapsed
        self._waited += elapsed * line["timing"]["data_wait"]
        if self._elapsed < self.window_s:
            return
        waited = self._waited / self._elapsed
        if self._warm and waited > self.share:
            self._said = True
            if distributed.is_main():
                log.info("%.0f %% of the time is spent waiting for data: %s", 100 * waited, self.advice)
        self._warm = True
        self._waited = self._elapsed = 0.0


def advice(dataset: Mapping[str, Any], size: int | None, cache: str | None, kind: str = "") -> str:
    """What to do about it, with the command.

    Args:
        dataset: the node of the configuration: ``name`` and options.
        size: short side at which frames are read.
        cache: ``data.cache``.
        kind: of that cache.
    """
    if cache is not None:
        better = {"transcode": "jpeg", "jpeg": "raw"}.get(kind)
        if better is None:
            return "the cache is as fast as it gets; raise data.workers if cores are idle."
        return f"data.cache={cache} holds {kind}; --kind {better} is several times faster (vtp data cache --help)."
    name = str(dataset.get("name"))
    options = [f"{key}={value}" for key, value in dataset.items() if key != "name" and value is not None]
    if name == "shards":
        return "shards with decoded frames need no decoding: vtp data pack SRC OUT --frames N --size S."
    if isinstance(parts := dataset.get("parts"), Mapping):
        each = ", ".join(parts)
        return f"a cache helps: vtp data cache, for each of {each} into one folder; then add data.cache=FOLDER."
    words = ["vtp", "data", "cache", name, f"{name}-cache", *options, "--size", str(size or 256)]
    return f"a cache helps: {shlex.join(words)}, then add data.cache={name}-cache."
