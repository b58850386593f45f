"""``vtp vat-media CSV STORE... OUT``: clips and sounds of the LMDB stores of simple-multimodal as files, and the csv
that names them, for ``dataset=vat``.

    video@<last 11 characters of the stem>   float32 (frames, 3, size, size), (pixel / 255 - mean) / std
    audio@<stem>                             float32 (channels * S,), the channels one after the other

A record has no header: shape, sample rate and number of channels are those that the stores were made with, and have to
be told. Pixels come back exactly, and are refused where they would not, which is how a wrong mean or size is found. One
key of 11 characters that belongs to several clips belongs to none of them for sure: they are named and left out.

What is in OUT already stays, so that an interrupted copy goes on where it was.
"""

from __future__ import annotations

import csv
import io
import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from importlib import import_module
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal

import numpy as np
import numpy.typing as npt

from vtp.catalogue import AnnotationFile
from vtp.cli.arguments import key_values
from vtp.components import check_options, refuse
from vtp.errors import ConfigError, DataError
from vtp.progress import bar
from vtp.ranges import Count, Range
from vtp.storage import write_text_atomic

__all__ = ["Copied", "copy_media", "main", "pixels", "records"]

USAGE = """vtp vat-media: clips and sounds of the LMDB stores of simple-multimodal as files, and a csv that names them.

usage: vtp vat-media CSV STORE... OUT rate=HZ channels=N [OPTION=VALUE ...]

  CSV      train.csv with the columns audio,text,video that the stores were made from
  STORE    an LMDB, or a folder with many of them, as its processes write
  OUT      a folder: OUT/video, OUT/audio and OUT/<name of the csv>, for dataset=vat dataset.root=OUT
           dataset.text_root=TEXTS; what is in it already stays

  rate=44100      sample rate of the sounds, which the stores do not tell
  channels=2      channels of the sounds, which they do not tell either
  sound=waveform  or image: 224 x 224 samples of one channel at 22,050 Hz, its first generation
  frames=16, size=224, fps=7.5, mean=[...], std=[...]   of the clips; mean and std are those of VideoMAE
"""
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
CLIP, SOUND = "video@", "audio@"
TAIL = 11  # characters of a stem that its key keeps
IMAGE = 224 * 224
IMAGE_RATE = 22050
NEAR = 0.02  # how far from a whole number a pixel may lie: float32 leaves about 1e-4
Rate = Annotated[float, Range(above=0, most=1000)]
Three = list[float] | tuple[float, ...]


@dataclass(slots=True)
class Copied:
    """What was done.

    Attributes:
        made, there: files that were written, and that were there already.
        missing: of the csv, media without a record.
        wrong: a line for everything else that was left out.
    """

    made: int = 0
    there: int = 0
    missing: int = 0
    wrong: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Form:
    """What a record does not tell of itself."""

    rate: int
    channels: int
    sound: str
    frames: int
    size: int
    fps: float
    mean: Sequence[float]
    std: Sequence[float]


def main(arguments: list[str]) -> int:
    """Copy, and say what was made."""
    if not arguments or arguments[0] in ("-h", "--help"):
        print(USAGE)
        return 0
    paths = [argument for argument in arguments if "=" not in argument]
    if len(paths) < 3 or not all(path.strip() and not path.startswith("-") for path in paths):
        raise ConfigError(f"expected CSV STORE... OUT, got {' '.join(arguments)}. `vtp vat-media --help` explains.")
    options = key_values([argument for argument in arguments if "=" in argument])
    problems: list[str] = []
    check_options("", "vat-media", copy_media, options, problems, given=("table", "stores", "out"))
    if options.get("sound") != "image":
        lacking = [name for name in ("rate", "channels") if name not in options]
        problems += [f"{name}= is needed: a store does not tell it. It is that of the sound files." for name in lacking]
    refuse(problems)
    table, *stores, out = (Path(path).expanduser() for path in paths)
    done = copy_media(table, stores, out, **options)
    there = f", {done.there:,} were there already" if done.there else ""
    print(f"{done.made:,} files of clips and sounds in {out}{there}; {done.missing:,} have no record")
    for line in done.wrong[:20]:
        print(f"  left out: {line}")
    if len(done.wrong) > 20:
        print(f"  and {len(done.wrong) - 20:,} more")
    return 0


def copy_media(
    table: Path,
    stores: Sequence[Path],
    out: Path,
    *,
    rate: Annotated[int, Range(least=1000, most=384000)] = IMAGE_RATE,
    channels: Annotated[int, Range(least=1, most=8)] = 1,
    sound: Literal["waveform", "image"] = "waveform",
    frames: Count = 16,
    size: Annotated[int, Range(least=16, most=4096)] = 224,
    fps: Rate = 7.5,
    mean: Three = MEAN,
    std: Three = STD,
    read: Callable[[Path], Iterable[tuple[str, bytes]]] | None = None,
) -> Copied:
    """Files in ``out`` for all media of ``table`` that ``stores`` hold, and the csv that names them.

    Args:
        table: the csv with columns audio,text,video.
        stores: folders or files of LMDBs.
        out: a folder.
        rate, channels, sound, frames, size, fps, mean, std: of the records. 7.5 frames per second are every fourth of
            30.
        read: gives key and value of every record of a store; None = :func:`records`.

    Raises:
        ConfigError: an option that fits nothing, ``out`` is the folder of the csv, or there is no package lmdb.
        DataError: the csv or a store cannot be read, or no store has anything that the csv names.
    """
    if len(mean) != 3 or len(std) != 3 or min(std) <= 0:
        raise ConfigError(f"vat-media: mean={list(mean)} std={list(std)} must be three numbers each, std above 0.")
    if (out / table.name).resolve() == table.resolve():
        raise ConfigError(
            f"vat-media: {out} is the folder of {table}, which would be overwritten. Name another folder."
        )
    form = _Form(IMAGE_RATE, 1, sound, frames, size, fps, mean, std)
    if sound != "image":
        form = _Form(rate, channels, sound, frames, size, fps, mean, std)
    rows = _rows(table)
    done = Copied()
    wanted = _wanted(rows, out, done)
    left = {key: target for key, target in wanted.items() if not target.exists()}
    done.there = len(wanted) - len(left)
    if left:
        for store in stores:
            for key, value in (read or records)(store):
                if (target := left.pop(key, None)) is not None:
                    _write(key, value, target, form, done)
    done.missing = len(left)
    if wanted and not done.made + done.there + len(done.wrong):
        raise DataError(
            f"{', '.join(map(str, stores))}: no record has a key of a row of {table}, such as {next(iter(wanted))}."
        )
    _write_table(out / table.name, rows)
    return done


def pixels(
    value: bytes, *, frames: int, size: int, mean: Sequence[float], std: Sequence[float]
) -> npt.NDArray[np.uint8]:
    """uint8 (frames, size, size, 3), exactly what was normalised.

    Raises:
        ValueError: it is no clip of that shape, or its numbers are no normalised pixels.
    """
    shape = (frames, 3, size, size)
    if len(value) != 4 * int(np.prod(shape)):
        raise ValueError(f"{len(value):,} bytes are no {frames} frames of {size} x {size} in float32")
    found = np.frombuffer(value, "<f4").reshape(shape)
    scale, offset = (np.asarray(three, np.float32)[:, None, None] for three in (std, mean))
    found = (found * scale + offset) * 255
    whole = np.rint(found)
    if not np.isfinite(found).all() or np.abs(found - whole).max() > NEAR or whole.min() < 0 or whole.max() > 255:
        raise ValueError(f"its numbers are no pixels normalised with mean={list(mean)} and std={list(std)}")
    clip: npt.NDArray[np.uint8] = whole.astype(np.uint8).transpose(0, 2, 3, 1)
    return clip


def records(store: Path) -> Iterator[tuple[str, bytes]]:
    """Key and value of every record of an LMDB, or of all LMDBs in a folder, ordered by name.

    Raises:
        ConfigError: the package lmdb is not installed.
        DataError: there is none that can be read.
    """
    try:
        lmdb: Any = import_module("lmdb")
    except ImportError:
        raise ConfigError(
            "vtp vat-media: reading an LMDB needs the package lmdb. Get it with: pip install lmdb"
        ) from None
    places = [store] if store.is_file() else sorted(found.parent for found in store.rglob("data.mdb"))
    if not places:
        raise DataError(f"{store}: no LMDB there. Expected a file, or folders that hold a data.mdb.")
    for place in places:
        try:
            opened = lmdb.open(str(place), subdir=place.is_dir(), readonly=True, lock=False, readahead=False)
        except lmdb.Error as error:
            raise DataError(f"{place}: no readable LMDB ({error}).") from None
        with opened as environment, environment.begin() as transaction:
            total = transaction.stat()["entries"]
            with bar(place.name) as tell:
                for count, (key, value) in enumerate(transaction.cursor(), start=1):
                    yield bytes(key).decode("utf-8", "replace"), bytes(value)
                    tell(count, total)


def _rows(table: Path) -> list[dict[str, str]]:
    if not table.is_file():
        raise DataError(f"{table}: there is no such file. Expected a csv with the columns audio,text,video.")
    rows = [row for _, row in AnnotationFile(table).csv(lambda cells: bool({"audio", "video"} & {*cells}))]
    if not rows or not {"audio", "video"} & rows[0].keys():
        raise DataError(f"{table}: no rows with a column audio or video. Expected audio,text,video.")
    return rows


def _wanted(rows: Sequence[dict[str, str]], out: Path, done: Copied) -> dict[str, Path]:
    """Key -> file that its record becomes. The cells of ``rows`` name these files after that."""
    places: dict[str, dict[str, Path]] = defaultdict(dict)  # key -> what the csv calls it -> file
    for row in rows:
        for column, prefix, ending in (("video", CLIP, ".mp4"), ("audio", SOUND, ".wav")):
            named = row.get(column, "").strip().replace("\\", "/")
            if not named:
                continue
            path = PurePosixPath(named)
            if path.is_absolute() or ".." in path.parts or "\0" in named:
                done.wrong.append(f"{named}: no path below a folder")
                continue
            stem = path.stem if prefix == SOUND else path.stem[-TAIL:]
            row[column] = str(path.with_suffix(ending))
            places[prefix + stem][str(path.with_suffix(""))] = out / column / row[column]
    wanted = {}
    for key, files in places.items():
        if len(files) == 1:
            (wanted[key],) = files.values()
        else:
            done.wrong.append(f"{key}: it may be any of {', '.join(sorted(files))}")
    return wanted


def _write(key: str, value: bytes, target: Path, form: _Form, done: Copied) -> None:
    """Whole or not at all."""
    partial = target.with_name(f".{target.stem}.{os.getpid()}{target.suffix}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        if key.startswith(CLIP):
            clip = pixels(value, frames=form.frames, size=form.size, mean=form.mean, std=form.std)
            _write_clip(partial, clip, form.fps)
        else:
            _write_sound(partial, _sound(value, form), form.rate)
        partial.replace(target)
        done.made += 1
    except ValueError as error:
        done.wrong.append(f"{key}: {error}")
    finally:
        partial.unlink(missing_ok=True)


def _sound(value: bytes, form: _Form) -> npt.NDArray[np.float32]:
    """float32 (channels, S).

    Raises:
        ValueError: it is no sound of that form.
    """
    if not value or len(value) % 4 or (len(value) // 4) % form.channels:
        raise ValueError(f"{len(value):,} bytes are no sound of {form.channels} channels in float32")
    found = np.frombuffer(value, "<f4")
    if not np.isfinite(found).all():
        raise ValueError("it has samples that are no numbers")
    if form.sound == "image":
        if len(found) != IMAGE:
            raise ValueError(f"{len(found):,} samples are no image of 224 x 224")
        found = found * 0.5 + 0.5
    return np.ascontiguousarray(found.reshape(form.channels, -1))


def _write_clip(path: Path, clip: npt.NDArray[np.uint8], fps: float) -> None:
    """Frames as they are: png in a container that every decoder opens."""
    import av

    with av.open(str(path), "w", format="mov") as container:
        stream: Any = container.add_stream("png", rate=Fraction(fps).limit_denominator(1000))
        stream.width, stream.height, stream.pix_fmt = clip.shape[2], clip.shape[1], "rgb24"
        for frame in clip:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, "rgb24")))
        container.mux(stream.encode(None))


def _write_sound(path: Path, sound: npt.NDArray[np.float32], rate: int) -> None:
    """Samples as they are, 32 bits each."""
    import av

    layout = {1: "mono", 2: "stereo"}.get(len(sound), f"{len(sound)}c")
    with av.open(str(path), "w", format="wav") as container:
        stream: Any = container.add_stream("pcm_f32le", rate=rate)
        stream.layout = layout
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(sound.T).reshape(1, -1), format="flt", layout=layout)
        frame.sample_rate = rate
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def _write_table(path: Path, rows: Sequence[Mapping[str, str]]) -> None:
    """All rows of the csv, also those without media, which are misses and not forgotten."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    write_text_atomic(path, text.getvalue())
