"""What ``vtp data cache`` and ``vtp data pack`` work on: a folder of media, a table of them, or a data set by name."""

from __future__ import annotations

import csv
import inspect
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from vtp.contracts import Dataset, member
from vtp.errors import ConfigError, DataError
from vtp.registry import did_you_mean
from vtp.types import MediaRef, Sample

__all__ = ["media_paths", "samples_of"]

_VIDEO = "mp4 avi mkv webm mov mpg mpeg m4v 3gp 3g2 wmv flv ts mts m2ts ogv gif"
_SOUND = "wav flac mp3 m4a aac ogg opus wma"
_SUFFIXES = frozenset(f".{name}" for name in f"{_VIDEO} {_SOUND}".split())
_SOUND_SUFFIXES = frozenset(f".{name}" for name in _SOUND.split())
_COLUMNS = {  # field -> names of the column, the first that is there counts
    "video": ("video", "video_path", "path", "file", "filename"),
    "audio": ("audio", "audio_path", "sound"),
    "text": ("caption", "captions", "text", "texts", "sentence", "question"),
    "start": ("start", "start_time"),
    "end": ("end", "end_time"),
}


def samples_of(name: str, options: Mapping[str, Any], *, kinds: Sequence[str] = ()) -> Iterator[Sample]:
    """All samples of a target.

    Args:
        name: of a folder, a table or a data set.
        options: of the data set; ``kind`` and ``split`` restrict its tables.
        kinds: tables of a data set to look at, the first that it has; all of them if empty.

    Raises: ConfigError, DataError.
    """
    path = Path(name).expanduser()
    plain = name.isidentifier()  # a name with options is a data set, also where a folder of that name is about
    if (path.is_dir() or path.is_file()) and not (plain and options):
        if options:
            raise ConfigError(f"{name} is no data set and has no option {next(iter(options))!r}.")
        yield from _folder(path) if path.is_dir() else _table(path)
    elif not plain:
        raise DataError(f"{name} does not exist.")
    else:
        yield from _dataset(name, dict(options), kinds)


def media_paths(samples: Iterator[Sample]) -> list[str]:
    """The distinct files behind samples, in their order."""
    refs = (ref for sample in samples for ref in (sample.video, sample.audio) if ref is not None)
    return list(dict.fromkeys(ref.path for ref in refs if isinstance(ref.path, str) and ".tar!" not in ref.path))


def _folder(folder: Path) -> Iterator[Sample]:
    """Every media file below a folder. A caption may stand beside it, in NAME.txt."""
    found = False
    for file in sorted(folder.rglob("*")):
        if file.suffix.lower() in _SUFFIXES and not file.name.startswith("."):
            found = True
            text = file.with_suffix(".txt")
            texts = (text.read_text(encoding="utf-8").strip(),) if text.is_file() else ()
            media = MediaRef(str(file))
            video = None if file.suffix.lower() in _SOUND_SUFFIXES else media
            yield Sample(file.relative_to(folder).with_suffix("").as_posix(), video, media, texts)
    if not found:
        raise DataError(f"there are no media files in {folder}. Known endings: {', '.join(sorted(_SUFFIXES))}.")


def _table(file: Path) -> Iterator[Sample]:
    with open(file, encoding="utf-8-sig", newline="") as stream:
        if file.suffix in (".jsonl", ".ndjson", ".json"):
            rows: Iterator[Mapping[str, Any]] = _json_rows(file, stream)
        else:
            first = stream.readline()
            stream.seek(0)
            rows = csv.DictReader(stream, delimiter="\t" if "\t" in first else ",")
        for number, row in enumerate(rows):
            sample = _row(file, number, row)
            if sample is not None:
                yield sample


def _json_rows(file: Path, stream: Any) -> Iterator[Mapping[str, Any]]:
    for number, line in enumerate(stream, start=1):
        if line.strip():
            try:
                row = json.loads(line)
            except ValueError as error:
                raise DataError(f"{file}:{number} is not JSON ({error}); expected one object per line.") from None
            if not isinstance(row, dict):
                raise DataError(f'{file}:{number} is not an object; expected lines such as {{"video": "a.mp4"}}.')
            yield row


def _row(file: Path, number: int, row: Mapping[str, Any]) -> Sample | None:
    cells = {field: next((row[n] for n in names if n in row), None) for field, names in _COLUMNS.items()}
    if number == 0 and all(n not in row for n in (*_COLUMNS["video"], *_COLUMNS["audio"])):
        raise DataError(f"{file} has no column `video` or `audio`; its columns are {', '.join(map(str, row))}.")
    start, end = (_seconds(file, number, cells[side]) for side in ("start", "end"))
    video, audio = (
        MediaRef(str(file.parent / str(cells[name])), start, end) if cells[name] else None
        for name in ("video", "audio")
    )
    if video is None and audio is None:
        return None
    texts = cells["text"] or ()
    texts = tuple(map(str, texts)) if isinstance(texts, list | tuple) else (str(texts),)
    return Sample(str(row.get("id") or number), video, audio or video, texts)


def _seconds(file: Path, number: int, cell: Any) -> float | None:
    try:
        return None if cell in (None, "") else float(cell)
    except (TypeError, ValueError):
        raise DataError(f"{file}, row {number + 1}: {cell!r} is no time in seconds.") from None


def _dataset(name: str, options: dict[str, Any], kinds: Sequence[str]) -> Iterator[Sample]:
    from vtp.plugins import host

    wanted = {key: options.pop(key) for key in ("kind", "split") if key in options}
    component = host().registry.get("dataset", name).load()
    parameters = inspect.signature(component).parameters
    if unknown := [key for key in options if key not in parameters]:
        hint = did_you_mean(unknown[0], parameters)
        raise ConfigError(f"dataset {name} has no option {unknown[0]!r}.{hint} Options: {', '.join(parameters)}.")
    dataset = component(**options)
    offered = list(member(dataset, Dataset, "kinds"))
    if "kind" in wanted:
        offered = [wanted["kind"]]
    elif kinds:
        offered = [kind for kind in kinds if kind in offered][:1] or offered[:1]
    reasons = []
    found = False
    for kind in offered:
        splits = member(dataset, Dataset, "splits")(kind)
        for split in (wanted["split"],) if "split" in wanted else splits:
            try:
                table = dataset.samples(kind, split)
            except DataError as error:  # one of its annotation files is not here: the others may be
                reasons.append(error)
                continue
            found = True
            yield from (table[row] for row in range(len(table)))
    if not found and reasons:
        raise reasons[0]
