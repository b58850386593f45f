"""What a checkpoint remembers of its training: the stages with their clips, and the configuration."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

__all__ = ["configuration", "continued", "recorded"]

Stage = Mapping[str, Any]


def recorded(checkpoint: Path) -> list[Stage]:
    """The training stages of a checkpoint (its folder, or a file of it), oldest first. Of one that does not say, or not
    in our words, nothing is known: a stage without clips, which can be neither cleared nor accused."""
    checkpoint = checkpoint if checkpoint.is_dir() else checkpoint.parent
    stages = _provenance(checkpoint).get("stages")
    if isinstance(stages, list) and stages and all(isinstance(stage, dict) for stage in stages):
        return [_readable(stage) for stage in stages]
    return [{"stage": checkpoint.name, "media": None}]


def _readable(stage: dict[str, Any]) -> Stage:
    """The stage without what is not in our words."""
    media, files = stage.get("media"), stage.get("files")
    stage = stage if _in_our_words(media) else {**stage, "media": None}
    lists = [files.get(key) for key in ("paths", "contents")] if isinstance(files, dict) else [None]
    good = all(isinstance(one, dict) and _in_our_words(one) for one in lists)
    return stage if good or files is None else {**stage, "files": None}


def _in_our_words(media: Any) -> bool:
    """Names of clips, or their packed hashes."""
    if isinstance(media, dict):
        return all(isinstance(media.get(key), str) for key in ("hash", "data"))
    return media is None or (isinstance(media, list) and all(isinstance(name, str) for name in media))


def configuration(checkpoint: Path) -> dict[str, Any]:
    """What a checkpoint was trained with; empty where it does not say."""
    found = _provenance(checkpoint).get("config")
    return found if isinstance(found, dict) else {}


def _provenance(checkpoint: Path) -> dict[str, Any]:
    try:
        found = json.loads((checkpoint / "provenance.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def continued(checkpoint: Path, now: Stage) -> list[Stage]:
    """The stages of a run that goes on from ``checkpoint`` with the clips of ``now``.

    The last stage of the checkpoint is the same one, unless its clips are others: what has been trained on is never
    forgotten.
    """
    *before, last = recorded(checkpoint)
    return [*before, now] if _same_clips(last, now) else [*before, last, now]


def _same_clips(one: Stage, other: Stage) -> bool:
    return _facts(one) == _facts(other) and one.get("sha256") is not None


def _facts(stage: Stage) -> Sequence[Any]:
    return [stage.get(key) for key in ("sha256", "clips")]
