"""From the keys of tar shards to rows: what a record may hold, what samples and clips are called, what is left out."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from vtp.catalogue import NONE, SPLITS, Row, Seen, is_empty, plain_text
from vtp.data.shards import NAMED, Group, ShardIndex, shard_indices
from vtp.errors import DataError
from vtp.media.member import frames_path, member_path

__all__ = ["CAPTIONS", "LABELS", "Part", "ShardRows", "short_names"]

CAPTIONS = ("caption", "retrieval")
LABELS = "vtp:labels"  # in extra: labels that no column holds
MOST_PARTS = 128  # a row holds the number of its part in 8 bits

# Kinds of its samples, the split that the data set had, and the split that ``vtp run`` would hold the clip out for
Part = tuple[tuple[str, ...], str | None, str | None]


class ShardRows:
    """One pass over the indices of shards.

    Args:
        shards: the tar files.
        prefixes: of the names of clips, for each shard.
        keys_are_names: a key is the name of a clip, unless it comes again.
    """

    def __init__(self, shards: Sequence[Path], prefixes: Sequence[str], *, keys_are_names: bool) -> None:
        self.shards = shards
        self.prefixes = prefixes
        self.keys_are_names = keys_are_names
        self._records: list[dict[str, Any]] = []
        self._parts: dict[Part, int] = {}
        self._ids: dict[int, Seen] = {}
        self._names = Seen()

    def records(self) -> list[dict[str, Any]]:
        """Of each shard its path, bytes, rows and what is left out; known when all rows have been taken."""
        return self._records

    def rows(self) -> Iterator[Row]:
        labels = short_names([shard.with_suffix("") for shard in self.shards])
        for number, (shard, index) in enumerate(zip(self.shards, shard_indices(self.shards), strict=True)):
            label = labels[shard.with_suffix("")]
            malformed = [f"{key}: {why}" for key, why in index.malformed[:NAMED]]
            left_out, counts = len(index.malformed), Counter[int]()
            for group in index.groups:
                video, audio = _media(number, group)
                packed = _packed(group.record)
                for place, record in enumerate([None] if packed is None else packed):
                    try:
                        if packed is None:
                            row = self._foreign_row(number, label, group, video, audio)
                        else:
                            row = self._packed_row(number, label, group, record, video, audio)
                    except ValueError as error:
                        left_out += 1
                        which = group.key if packed is None else f"{group.key}, sample {place + 1}"
                        malformed += [f"{which}: {error}"] if len(malformed) < NAMED else []
                        continue
                    assert row.split is not None
                    counts[row.split] += 1
                    yield row
            parts = [[self._parts[part], *part, counts[n]] for part, n in self._parts.items() if counts[n]]
            self._records.append(_record(shard, index, sum(counts.values()), left_out, malformed, parts))

    def _foreign_row(self, number: int, label: str, group: Group, video: str, audio: str | None) -> Row:
        """A key as a sample.

        Raises:
            ValueError: its caption is no text.
        """
        texts = _captions(group.record.get("caption") if group.text is None else group.text)
        place = f"{label}/{group.key}"
        clip = self.prefixes[number] + (group.key if self.keys_are_names and self._names.add(group.key) else place)
        part = self._part((CAPTIONS, None, None))
        return Row(place, texts, clip, video, audio, split=part, file=number, place=group.key)

    def _packed_row(self, number: int, label: str, group: Group, record: Any, video: str, audio: str | None) -> Row:
        """One of the samples that a key keeps.

        Raises:
            ValueError: it is malformed.
        """
        place, prefix = f"{label}/{group.key}", self.prefixes[number]
        row = _packed_row(record, group, video, audio)
        row.file, row.split = number, self._part(_part_of(record, row))
        row.video_id = prefix + (row.video_id or place)
        seen = self._ids.setdefault(row.split, Seen())
        name, again = row.id, 1
        while not seen.add(row.id):  # packed from several tables, each with its own ids
            row.id = f"{place}/{name}" if again == 1 else f"{place}/{name}#{again}"
            again += 1
        return row

    def _part(self, part: Part) -> int:
        number = self._parts.setdefault(part, len(self._parts))
        if number >= MOST_PARTS:
            raise DataError(f"the shards keep more than {MOST_PARTS} tables (the last: {part}).")
        return number


def _media(number: int, group: Group) -> tuple[str, str | None]:
    """``Row.video`` and ``Row.audio`` of a key."""
    tar, members, silent = str(number), group.members, group.record.get("silent") is True
    video = audio = NONE
    if group.video == "npy":  # the sound, and the times of frames and sound, are in members beside it
        pieces = [(e, *members[e]) for e in ("npy", "json", "wav") if e in members]
        video = frames_path(tar, pieces, group.key)
    elif group.video:
        video = member_path(tar, *members[group.video], f"{group.key}.{group.video}")
    if group.audio:
        audio = member_path(tar, *members[group.audio], f"{group.key}.{group.audio}")
    return video, None if video and not audio and not silent else audio


def _packed(record: Mapping[str, Any]) -> list[Any] | None:
    """The samples in ``json``; None where somebody else wrote it."""
    samples = record.get("samples")
    ours = isinstance(samples, list) and any(isinstance(sample, dict) and "id" in sample for sample in samples)
    return samples if ours else None


def _captions(caption: Any) -> tuple[str, ...]:
    """The texts of a key of somebody else.

    Raises:
        ValueError: they are none.
    """
    found = [text for text in (caption if isinstance(caption, list) else [caption]) if not is_empty(text)]
    return tuple(plain_text(text, "its caption") for text in found if not (isinstance(text, str) and text.isspace()))


def _packed_row(record: Any, group: Group, video: str, audio: str | None) -> Row:
    """Raises ValueError: the record is not what ``vtp data pack`` writes."""
    if not isinstance(record, dict):
        raise ValueError(f"it is no object but {_shown(record)}")
    name, texts, labels, extra = (record.get(key) for key in ("id", "texts", "labels", "extra"))
    if not (isinstance(name, str) and name) and type(name) is not int:
        raise ValueError(f"its id is {_shown(name)}")
    texts = [] if texts is None else texts
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise ValueError(f"its texts are no list of texts but {_shown(texts)}")
    for what, value in (("labels", labels), ("extra", extra)):
        if value is not None and not isinstance(value, dict):
            raise ValueError(f"its {what} are no object but {_shown(value)}")
    start, end = _seconds(record, "start"), _seconds(record, "end")
    if start is not None and end is not None and end <= start:
        raise ValueError(f"the end {end:g} s is not after the start {start:g} s")
    labels, extra = dict(labels or {}), dict(extra or {})
    extra.pop("source", None)
    clip = extra.pop("video_id", None)
    if clip is not None and not isinstance(clip, str | int | float):
        raise ValueError(f"its video_id is {_shown(clip)}")
    question_type = extra.pop("question_type") if isinstance(extra.get("question_type"), str) else None
    answer = labels.pop("answer") if isinstance(labels.get("answer"), str) else None
    answer_index = labels.pop("answer_index", None)
    if answer_index is not None and not (type(answer_index) is int and 0 <= answer_index < 1 << 31):
        raise ValueError(f"its answer_index is {_shown(answer_index)}")
    if labels:
        extra[LABELS] = labels
    return Row(
        id=str(name),
        texts=texts,
        video_id=None if clip is None else str(clip),
        video=video,
        audio=audio,
        start=start,
        end=end,
        answer=answer,
        answer_index=answer_index,
        question_type=question_type,
        place=group.key,
        extra=extra or None,
    )


def _part_of(record: Mapping[str, Any], row: Row) -> Part:
    """What a packed sample is for.

    Raises:
        ValueError: its record says it in a way that ``vtp data pack`` does not.
    """
    kinds, kept, held_out = record.get("kinds"), record.get("split"), record.get("held_out")
    if kinds is None:  # of an earlier version
        kinds = ["mc"] if row.answer_index is not None else ["qa"] if row.answer is not None else list(CAPTIONS)
    if not isinstance(kinds, list) or not kinds or not all(isinstance(kind, str) and kind for kind in kinds):
        raise ValueError(f"its kinds are {_shown(kinds)}")
    for what, split in (("split", kept), ("held_out", held_out)):
        if split is not None and split not in SPLITS:
            raise ValueError(f"its {what} {_shown(split)} is none of {', '.join(SPLITS)}")
    if "mc" in kinds and row.answer_index is not None and row.answer_index >= len(row.texts):
        raise ValueError(f"its answer_index {row.answer_index} is that of none of its {len(row.texts)} texts")
    return tuple(kinds), kept, held_out


def _seconds(record: Mapping[str, Any], key: str) -> float | None:
    value = record.get(key)
    if value is None:
        return None
    if type(value) not in (int, float) or not 0 <= value < math.inf:
        raise ValueError(f"its {key} {_shown(value)} is no time in seconds")
    return float(value)


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def short_names(paths: Sequence[Path]) -> dict[Path, str]:
    """Each path by its last part; by more of them where that is the end of several."""
    found = {}
    for path in paths:
        parts = path.parts
        names = ("/".join(parts[-count:]) for count in range(1, len(parts) + 1))
        same = [other.parts for other in paths if other != path and other.name == path.name]
        name = next((n for n in names if not any("/".join(other).endswith(f"/{n}") for other in same)), str(path))
        found[path] = name.encode("utf-8", "backslashreplace").decode()
    return found


def _record(
    shard: Path, index: ShardIndex, rows: int, malformed: int, first: Sequence[str], parts: list[list[Any]]
) -> dict[str, Any]:
    """What the run record keeps of a shard."""
    notes: dict[str, str] = {}
    if index.damage:
        notes["damaged"] = "; ".join(index.damage)
    if index.foreign:
        notes["members_of_no_sample"] = f"{index.foreign:,} (first: {', '.join(index.foreign_first[:3])})"
    return {
        "path": str(shard),
        "bytes": shard.stat().st_size,
        "rows": rows,
        "malformed": malformed,
        "malformed_first": list(first),
        "parts": parts,
        **({"not_read": index.unread} if index.unread else {}),
        **notes,
    }
