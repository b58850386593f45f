"""Cuts of a benchmark: smaller sets that circulate under its name, such as the clips with sound alone. A protocol names
them (``cuts``) with the rule that makes them; where the rule can be applied, a run reports the official set and the cut
side by side, and what the difference is made of.

    rule            what is left
    sound           clips with an audio stream, and the texts about them
    readable        clips that could be read: what is left of a set whose clips disappear
    first_caption   one text of each clip, the first; the gallery stays
    without         all but the clips named under ``without``
    none            nobody tells which: the counts are told, and no number

A number on a cut is another number than one on the benchmark. How it differs has two parts: its queries are easier or
harder ones (measured in the full gallery), and its gallery is smaller.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import closing
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from vtp import distributed
from vtp.eval.forms import sha256_lines
from vtp.eval.protocol import Protocol as Benchmark
from vtp.eval.recount import Recount
from vtp.eval.task import TaskResult
from vtp.media import MediaError
from vtp.media.isolation import MediaReader
from vtp.types import Sample
from vtp_tasks.pair_counts import note_ranks
from vtp_tasks.pairs import Similarities

__all__ = ["add_cuts", "cut_lines"]

Array = npt.NDArray[Any]


class Searching(Protocol):
    """What a task of retrieval says of itself."""

    protocol: Benchmark
    what: str
    v2t: Any
    directions: tuple[str, str]


def add_cuts(task: Searching, scored: Similarities, result: TaskResult, *, heard: bool) -> None:
    """Add a row for every cut of the protocol that can be made, and ``protocol.cuts`` to the report; its numbers are
    counted from the predictions, see :func:`cut_lines`.

    Args:
        heard: whether the model was given the sound of the gallery.
    """
    found: dict[str, Any] = {}
    for name, cut in task.protocol.cuts.items():
        record = found[name] = {key: cut.get(key) for key in ("title", "rule", "circulates", "source") if cut.get(key)}
        kept = _kept(cut, scored, heard)
        if isinstance(kept, str):
            record["not_computed"] = kept
            continue
        queries, videos = kept
        record |= _recognised(task.protocol, cut, scored, queries, videos)
        counts = f"{record['counts']['videos']:,} of {len(videos):,} {task.what}"
        counts += f", {queries.sum():,} of {len(queries):,} queries" if queries.sum() < len(queries) else ""
        if queries.all() and videos.all():
            record["not_computed"] = f"it is the whole set here ({counts})"
            continue
        if not queries.any():
            record["not_computed"] = f"nothing of the set is left ({counts})"
            continue
        ranks = dict(zip(task.directions, scored.within(queries, videos, task.v2t), strict=True))
        asking = dict(zip(task.directions, scored.asking(queries, videos), strict=True))
        note_ranks(result.predictions, result.facts, f"cut {name}: {counts}", ranks, asking, cut=name)
        record["told"] = counts
    if found:
        result.protocol["cuts"] = found


def cut_lines(result: TaskResult, counted: Recount) -> list[str]:
    """Write what was counted of cuts into the report: a line for each of them."""
    lines = []
    for name, numbers in counted.cuts.items():
        record = result.protocol["cuts"][name]
        record |= {key: numbers[key] for key in ("metrics", "difference")}
        lines.append(_line(name, record.pop("told"), record, result.metrics))
    return lines


def _kept(cut: Mapping[str, Any], scored: Similarities, heard: bool) -> tuple[Array, Array] | str:
    """bool (Q,) and (G,), the queries and the clips of a cut; or why they cannot be told. ``heard``: whether the model
    was given the sound of the gallery."""
    pairs = scored.pairs
    everything = np.ones(len(pairs.videos), bool)
    rule = cut.get("rule")
    if rule == "first_caption":
        first = np.zeros(len(pairs.query_ids), bool)
        first[np.unique(pairs.video_of, return_index=True)[1]] = True
        return first, everything
    rules: dict[Any, Callable[[], Array]] = {
        "sound": lambda: _with_sound(scored, heard),
        "readable": lambda: ~scored.no_video,
        "without": lambda: np.array([video.id not in cut.get("without", ()) for video in pairs.videos]),
    }
    if rule not in rules:
        return "which clips it holds is not known"
    videos = rules[rule]()
    return videos[pairs.video_of], videos


def _with_sound(scored: Similarities, heard: bool) -> Array:
    """bool (G,): clips with an audio stream, as the model heard them or as their files say; of a file that cannot be
    read, nobody knows, and it is left out."""
    out = np.zeros(len(scored.pairs.videos), bool)
    if heard:
        out[scored.videos.rows] = scored.videos.present["audio"]
        return out
    rank, world = distributed.rank(), distributed.world_size()
    with closing(MediaReader()) as reader:
        mine = {row: _sounds(reader, scored.pairs.videos[row]) for row in scored.videos.rows[rank::world].tolist()}
    for part in distributed.gather_objects(mine):
        for row, sounds in part.items():
            out[row] = sounds
    return out


def _sounds(reader: MediaReader, clip: Sample) -> bool:
    ref = clip.audio or clip.video
    try:
        return ref is not None and reader.probe(ref).audio is not None
    except MediaError:
        return False


def _recognised(
    protocol: Benchmark, cut: Mapping[str, Any], scored: Similarities, queries: Array, videos: Array
) -> dict[str, Any]:
    """Counts and hashes of a cut, and whether the hashes are those that the protocol states."""
    pairs = scored.pairs
    names = [video.id for video in pairs.videos]
    told = [text if pairs.texts[row].texts else "" for text, row in zip(pairs.queries, pairs.text_of, strict=True)]
    samples = [
        Sample(pairs.query_ids[row], texts=(told[row],), extra={"video_id": names[pairs.video_of[row]]})
        for row in np.flatnonzero(queries)
    ]
    lines = protocol.form.lines(samples)
    lines["videos"] = [name for name, kept in zip(names, videos, strict=True) if kept]
    stated = cut.get("sha256") or {}
    hashes = {what: sha256_lines(found) for what, found in lines.items()}
    return {
        "counts": {what: len(found) for what, found in lines.items()},
        "sha256": hashes,
        "verified": bool(stated) and all(hashes.get(what) == value for what, value in stated.items()),
    }


def _line(name: str, counts: str, record: Mapping[str, Any], official: Mapping[str, float]) -> str:
    """What a reader must know: how far the cut is from the official set, and why."""
    found = "; ".join(_told(metric, parts, official) for metric, parts in record["difference"].items())
    seen = ", ".join(f"{count:,}" for count in record.get("circulates", ()))
    known = "hashes verified" if record["verified"] else "unverified: no list is at hand to compare with"
    more = f"; circulates with {seen} clips" if seen else ""
    return f"cut {name} ({record['title']}; {counts}; {known}{more}): {found}"


def _told(metric: str, parts: Mapping[str, float], official: Mapping[str, float]) -> str:
    return (
        f"{metric} {official[metric] + parts['total']:.2f} in place of {official[metric]:.2f}, "
        f"{parts['other_queries']:+.2f} by other queries and {parts['fewer_candidates']:+.2f} by fewer candidates"
    )
