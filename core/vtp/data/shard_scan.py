"""What the members of a tar file mean: which belong together, and which are left out and why.

* The key is the name up to its first dot, the extension what follows (WebDataset). Members of one key belong together
  wherever they stand. Where all members of a key have further dots (``vid.v1.mp4``), the last dot counts.
* A key that comes again with the same extensions is another sample, ``key#2``. With others it cannot be told what
  belongs to what: the key is malformed.
* A link has the content of the member that it names.
* A key with texts but no media is malformed, as one whose text or json cannot be read. Other files are foreign.
"""

from __future__ import annotations

import json
import os
import re
import tarfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vtp.data.tar_members import Gap, Member, tar_members
from vtp.errors import DataError
from vtp.media.extensions import IMAGES, MEDIA, SOUNDS, VIDEOS

__all__ = ["NAMED", "Group", "ShardIndex", "scan"]

NAMED = 20  # of what is left out, so many are named; all are counted
_TEXTS = ("txt", "caption", "cap")
_LONGEST_TEXT = 1 << 26  # bytes of a txt or json member; a longer one is no annotation
_KNOWN = frozenset({*_TEXTS, "json", "npy", *(ending[1:] for ending in MEDIA)})
_DEEPEST = 64  # objects and lists within each other in json
_PACKED = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"\x28\xb5\x2f\xfd": "zstd"}
_HALF = re.compile(r"\\u[dD][89a-fA-F]")  # in JSON: one of the two halves of a character

Place = tuple[int, int]


@dataclass(slots=True)
class Group:
    """The members of one sample.

    Attributes:
        key: their common name without extension.
        members: extension -> (where the content begins, its length).
        video, audio: extensions of the picture (``npy``: decoded frames) and of a sound of its own; empty = none.
        text: the content of ``txt``; None without one, and where it is empty.
        record: the content of ``json``, {} without one.
    """

    key: str
    members: dict[str, Place]
    video: str = ""
    audio: str = ""
    text: str | None = None
    record: dict[str, Any] = field(default_factory=dict)


@dataclass(slots=True)
class ShardIndex:
    """What a shard holds.

    Attributes:
        groups: its samples, in the order of their first members.
        malformed: (key, why) of what is left out.
        foreign: how many members belong to no sample; ``foreign_first`` names some.
        unread: extension -> how many members of samples have it and are not read.
        damage: where the file itself is damaged, in words.
    """

    groups: list[Group] = field(default_factory=list)
    malformed: list[tuple[str, str]] = field(default_factory=list)
    foreign: int = 0
    foreign_first: list[str] = field(default_factory=list)
    unread: dict[str, int] = field(default_factory=dict)
    damage: list[str] = field(default_factory=list)


Run = dict[str, Member]  # extension -> member: members of one key that follow each other, no extension twice


def scan(shard: Path) -> ShardIndex:
    """Walk over the headers; only texts and records are read."""
    index = ShardIndex()
    keys: dict[str, list[Run]] = {}
    last, lost, cut = "", False, False
    with open(shard, "rb") as file:
        try:
            for found in tar_members(file.fileno()):
                if isinstance(found, Gap):
                    lost, cut = lost or found.lost, cut or found.cut
                    index.damage += [_readable(found.why)] if len(index.damage) < NAMED else []
                    continue
                key, extension = _split(found.name)
                if not extension:
                    _count_foreign(index, [found])
                    continue
                runs = keys.setdefault(key, [])
                known = extension.rpartition(".")[2] in _KNOWN  # another file does not part what stands around it
                if not runs or (known and key != last) or extension in runs[-1]:
                    runs.append({})
                runs[-1][extension] = found
                last = key if known else last
        except tarfile.ReadError as error:
            raise DataError(_no_tar(shard, error)) from None
        samples = _apart(keys)
        if lost:
            _leave_out_what_lacks_members(index, samples, last if cut else "", file.fileno())
        for key, runs in samples.items():
            _settle(index, key, runs, samples, file.fileno())
    if cut and not index.groups:
        raise DataError(f"{shard} is cut off and holds no whole sample. Copy it again.")
    return index


def _no_tar(shard: Path, error: Exception) -> str:
    with open(shard, "rb") as file:
        begin = file.read(8)
    packed = next((name for mark, name in _PACKED.items() if begin.startswith(mark)), None)
    if packed is not None:
        return f"{shard} is compressed ({packed}), and samples are read in place. Unpack it to a plain tar file."
    return f"{shard} is no tar file ({error or 'it is empty'}). Take it out of dataset.urls."


def _split(name: str) -> tuple[str, str]:
    """Key and extension, in lower case; an empty extension is no member of a sample."""
    folder, _, base = _plain(name).rpartition("/")
    stem, _, extension = base.partition(".")
    if not stem:  # .DS_Store, and ._clip.mp4, which macOS puts beside clip.mp4
        return "", ""
    return f"{folder}/{stem}" if folder else stem, extension.lower()


def _plain(name: str) -> str:
    """Without ``./`` before it, and readable: bytes that are no UTF-8 become ``\\udcff``."""
    while name.startswith("./"):
        name = name[2:].lstrip("/")
    return _readable(name)


def _readable(text: str) -> str:
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()


def _apart(keys: dict[str, list[Run]]) -> dict[str, list[Run]]:
    """The same with names that have more dots divided at the last one: where all members of a key are such, and where
    those with one beginning have media and a text of their own."""
    found: dict[str, list[Run]] = {}
    for key, runs in keys.items():
        dotted = {e for run in runs for e in run if "." in e and not e.startswith("audio.")}
        if not dotted:
            found.setdefault(key, []).extend(runs)
            continue
        parts: dict[str, set[str]] = {}
        for extension in dotted:
            begin, _, end = extension.rpartition(".")
            parts.setdefault(begin, set()).add(end)
        simple = any(e not in dotted for run in runs for e in run)
        own = {
            begin
            for begin, ends in parts.items()
            if not simple or (any(map(_is_media, ends)) and any(e in _TEXTS or e == "json" for e in ends))
        }
        for run in runs:
            divided: dict[str, Run] = {}
            for extension, member in run.items():
                begin, _, end = extension.rpartition(".")
                if extension in dotted and begin in own:
                    divided.setdefault(f"{key}.{begin}", {})[end] = member
                else:
                    divided.setdefault(key, {})[extension] = member
            for name, part in divided.items():
                found.setdefault(name, []).append(part)
    return found


def _leave_out_what_lacks_members(index: ShardIndex, samples: dict[str, list[Run]], last: str, file: int) -> None:
    """Of a damaged shard: what has not all that most of its samples have, and the key that a cut goes through."""

    def has(runs: list[Run]) -> set[str]:
        extensions = {extension for run in runs for extension in run}
        return {"media" if _is_media(e) else e for e in extensions if _is_media(e) or e in (*_TEXTS, "json")}

    counts = Counter(what for runs in samples.values() for what in has(runs))
    usual = {what for what, count in counts.items() if 2 * count > len(samples)}
    for key, runs in list(samples.items()):
        here, why = has(runs), ""
        if last and here and (key == last or key.startswith(f"{last}.")):
            why = "the shard is cut off in it"
        elif here and usual - here:
            why = f"no {', '.join(sorted(usual - here))}: the shard is damaged"
        if why:
            _leave_out(index, key, why, runs, file)
            del samples[key]


def _leave_out(index: ShardIndex, key: str, why: str, runs: list[Run], file: int) -> None:
    """Name a key as often as there are samples in it: members of one name, or samples in its json."""
    packed = 0
    for member in [run["json"] for run in runs if "json" in run]:
        try:
            found = _record(_read(file, "json", (member.offset, member.size)), has_text=True).get("samples")
        except ValueError:
            continue
        packed += len(found) if isinstance(found, list) else 0
    number = max(Counter(extension for run in runs for extension in run).values())
    index.malformed += [(key, why)] * max(number, packed)


def _settle(index: ShardIndex, key: str, runs: list[Run], samples: dict[str, list[Run]], file: int) -> None:
    """Take the samples of one key into the index."""
    joined: list[Run] = []
    for run in runs:  # members of other keys may stand between those of a sample
        if joined and not joined[-1].keys() & run.keys():
            joined[-1] = joined[-1] | run
        else:
            joined.append(run)
    if all(run.keys() == joined[0].keys() for run in joined):
        for number, run in enumerate(joined, start=1):
            _take(index, key if number == 1 else f"{key}#{number}", run, samples, file)
    else:
        counts = Counter(extension for run in runs for extension in run)
        several = ", ".join(f"{count} {extension}" for extension, count in sorted(counts.items()))
        _leave_out(index, key, f"of its members ({several}) it cannot be told which belong together", runs, file)


def _take(index: ShardIndex, key: str, run: Run, samples: dict[str, list[Run]], file: int) -> None:
    video, audio = _media(run)
    texts = [extension for extension in (*_TEXTS, "json") if extension in run]
    if not video and not audio:
        if texts:
            _leave_out(index, key, f"neither video, image nor sound (there are {', '.join(sorted(run))})", [run], file)
        else:
            _count_foreign(index, list(run.values()))
        return
    group = Group(key, {}, video, audio)
    used = {video, audio, *texts[:1], "json", *(("wav",) if video == "npy" else ())} & run.keys()
    try:
        for extension, member in run.items():
            if extension in used:
                group.members[extension] = _place(member, samples)
        if texts and texts[0] != "json":
            group.text = _read(file, texts[0], group.members[texts[0]]).strip() or None
        if "json" in group.members:
            group.record = _record(_read(file, "json", group.members["json"]), group.text is not None)
    except ValueError as error:
        _leave_out(index, key, str(error), [run], file)
        return
    for extension in run.keys() - used:
        index.unread[extension] = index.unread.get(extension, 0) + 1
    index.groups.append(group)


def _is_media(extension: str) -> bool:
    return extension == "npy" or extension.startswith("audio.") or f".{extension}" in MEDIA


def _media(run: Run) -> tuple[str, str]:
    """Extensions of the picture and of the sound: a film before an image, and decoded frames where there is neither,
    because other arrays (features) go by ``npy``, too."""
    films = [e for e in run if f".{e}" in VIDEOS]
    images = [e for e in run if f".{e}" in IMAGES]
    video = (films or images or [e for e in run if e == "npy"] or [""])[0]
    sounds = [e for e in run if e.startswith("audio.")] or [e for e in run if f".{e}" in SOUNDS]
    if video == "npy" and "wav" in sounds:  # the sound of decoded frames
        return video, ""
    return video, (sounds or [""])[0]


def _place(member: Member, samples: dict[str, list[Run]]) -> Place:
    """Where the content of a member lies.

    Raises:
        ValueError: nowhere.
    """
    link = member
    for _ in range(8):
        if not link.link:
            break
        plain = _plain(link.link)
        ways = (_split(link.link), (plain.rpartition(".")[0], plain.rpartition(".")[2].lower()))
        named = [run[extension] for key, extension in ways for run in samples.get(key, ()) if extension in run]
        if not named:
            raise ValueError(f"{_plain(member.name)} is a link to {_plain(link.link)}, which is not in the shard")
        link = named[0]
    if link.link or link.problem:
        raise ValueError(f"{_plain(member.name)} {link.problem or 'is a link to itself'}")
    return link.offset, link.size


def _read(file: int, extension: str, place: Place) -> str:
    """The text of a member.

    Raises:
        ValueError: it is none.
    """
    at, size = place
    if size > _LONGEST_TEXT:
        raise ValueError(f"its {extension} has {size:,} bytes, more than a text may")
    try:
        text = os.pread(file, size, at).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"its {extension} is not UTF-8 at byte {error.start:,}") from None
    if "\0" in text:
        raise ValueError(f"its {extension} holds null characters, as UTF-16 does; UTF-8 is expected")
    return text


def _record(text: str, has_text: bool) -> dict[str, Any]:
    """The object that ``json`` holds; {} where it is no object and the caption stands in ``txt`` anyway.

    Raises:
        ValueError: it is none.
    """
    try:
        record = json.loads(text)
    except RecursionError:
        raise ValueError("its json is nested too deep") from None
    except ValueError as error:
        raise ValueError(f"its json is damaged: {error}") from None
    if text.count("[") + text.count("{") > _DEEPEST and _is_deep(record, _DEEPEST):
        raise ValueError("its json is nested too deep")
    if not isinstance(record, dict):
        if has_text:
            return {}
        raise ValueError("its json is no object")
    if _HALF.search(text):
        try:
            json.dumps(record, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            raise ValueError("its json holds half of a character (a lone surrogate)") from None
    return record


def _is_deep(value: Any, left: int) -> bool:
    if not isinstance(value, (dict, list)):
        return False
    return left == 0 or any(_is_deep(v, left - 1) for v in (value.values() if isinstance(value, dict) else value))


def _count_foreign(index: ShardIndex, members: Sequence[Member]) -> None:
    index.foreign += len(members)
    for member in members[: NAMED - len(index.foreign_first)]:
        index.foreign_first.append(_plain(member.name))
