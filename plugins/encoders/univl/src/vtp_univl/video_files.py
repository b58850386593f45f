"""``vtp antmmf-videos SOURCE OUT``: the videos of an LMDB, or of folders of key frames, as files that any reader knows.

LMDB        key = name of a video in utf-8, value = the bytes of its file. They are copied.
key frames  SOURCE/<video>/<anything><number>.jpg (or .png), in the order of the numbers. The pictures go into a .mov as
            they are, not encoded anew, at a fixed number of frames per second.

What is in OUT already stays, so that an interrupted copy goes on where it was.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from fractions import Fraction
from importlib import import_module
from pathlib import Path, PurePosixPath
from typing import Annotated, Any

from vtp.cli.arguments import key_values
from vtp.components import check_options, refuse
from vtp.errors import ConfigError, DataError
from vtp.progress import bar
from vtp.ranges import Range

__all__ = ["CODECS", "copy_videos", "main", "place_of"]

USAGE = """vtp antmmf-videos: videos of an LMDB, or of folders of key frames, as files.

usage: vtp antmmf-videos SOURCE OUT [OPTION=VALUE ...]

  SOURCE   videos.lmdb (a folder or a file), or a folder with one folder of .jpg or .png per video
  OUT      a folder, for dataset.videos=OUT; what is in it already stays

  fps=1    key frames per second of the videos that are made of them
"""
CODECS = {".jpg": "mjpeg", ".jpeg": "mjpeg", ".png": "png"}
_NUMBER = re.compile(r"(\d+)$")
# place and value of the bytes by which formats are told; others are taken for .mp4, readers look at the content anyway
_MAGIC = (
    (4, b"ftyp", ".mp4"),
    (0, b"\x1aE\xdf\xa3", ".mkv"),
    (8, b"AVI ", ".avi"),
    (0, b"\xff\xd8", ".jpg"),
    (0, b"\x89PNG", ".png"),
    (0, b"FLV", ".flv"),
    (0, b"\x00\x00\x01\xba", ".mpg"),
)
Rate = Annotated[float, Range(above=0, most=1000)]


def main(arguments: list[str]) -> int:
    """Copy, and say what was made."""
    if not arguments or arguments[0] in ("-h", "--help"):
        print(USAGE)
        return 0
    paths = [argument for argument in arguments if "=" not in argument]
    if len(paths) != 2 or not all(path.strip() and not path.startswith("-") for path in paths):
        raise ConfigError(f"expected SOURCE OUT, got {' '.join(arguments)}. `vtp antmmf-videos --help` explains.")
    options = key_values([argument for argument in arguments if "=" in argument])
    problems: list[str] = []
    check_options("", "antmmf-videos", copy_videos, options, problems, given=("source", "out"))
    refuse(problems)
    made, there, wrong = copy_videos(Path(paths[0]).expanduser(), Path(paths[1]).expanduser(), **options)
    print(f"{made:,} video{'s' * (made != 1)} in {paths[1]}" + (f", {there:,} were there already" if there else ""))
    for line in wrong[:20]:
        print(f"  left out: {line}")
    if len(wrong) > 20:
        print(f"  and {len(wrong) - 20:,} more")
    return 0


def copy_videos(source: Path, out: Path, *, fps: Rate = 1.0) -> tuple[int, int, list[str]]:
    """Files in ``out`` for all videos of ``source``.

    Returns:
        How many were made, how many were there, and a line for each that was left out.

    Raises:
        DataError: the source is not there, or holds no videos in either form.
    """
    if not source.exists():
        raise DataError(f"{source}: no such file or folder. Give an .lmdb, or a folder of folders of key frames.")
    made, there, wrong = 0, 0, []
    for name, content in _lmdb(source) if _is_lmdb(source) else _folders(source):
        try:
            target = out / _safe(name)
            if any(target.parent.glob(f"{_escaped(target.name)}.*")) or (target.suffix and target.exists()):
                there += 1
                continue
            target.parent.mkdir(parents=True, exist_ok=True)
            _write(target, content, fps)
            made += 1
        except ValueError as error:
            wrong.append(f"{name}: {error}")
    if not made + there:
        told = f" ({wrong[0]})" if wrong else ""
        raise DataError(f"{source}: no videos found{told}. Expected an .lmdb, or <video>/<number>.jpg.")
    return made, there, wrong


def _is_lmdb(source: Path) -> bool:
    return source.suffix == ".lmdb" or (source / "data.mdb").is_file()


def _lmdb(source: Path) -> Iterator[tuple[str, bytes]]:
    try:
        lmdb: Any = import_module("lmdb")
    except ImportError:
        raise ConfigError(
            "vtp antmmf-videos: reading an LMDB needs the package lmdb. Get it with: pip install lmdb"
        ) from None
    try:
        opened = lmdb.open(str(source), subdir=source.is_dir(), readonly=True, lock=False, readahead=False)
    except lmdb.Error as error:
        raise DataError(f"{source}: no readable LMDB ({error}).") from None
    with opened as environment, environment.begin() as transaction:
        total = transaction.stat()["entries"]
        with bar("videos") as tell:
            for done, (key, value) in enumerate(transaction.cursor(), start=1):
                yield bytes(key).decode("utf-8", "replace"), bytes(value)
                tell(done, total)


def _folders(source: Path) -> Iterator[tuple[str, Sequence[Path]]]:
    """Name and pictures of each folder, in their order."""
    if not source.is_dir():
        raise DataError(f"{source} is no .lmdb and no folder of folders of key frames.")
    folders = sorted(entry for entry in source.iterdir() if entry.is_dir())
    with bar("videos") as tell:
        for done, folder in enumerate(folders, start=1):
            frames = [file for file in folder.iterdir() if file.suffix.lower() in CODECS]
            yield folder.name, sorted(frames, key=lambda file: (place_of(file), file.name))
            tell(done, len(folders))


def place_of(file: Path) -> int:
    """The number that a name ends in; -1 without one, refused later."""
    found = _NUMBER.search(file.stem)
    return int(found[1]) if found else -1


def _safe(name: str) -> Path:
    """The name as a path below a folder.

    Raises:
        ValueError: it would lie elsewhere.
    """
    path = PurePosixPath(name)
    if not name.strip() or path.is_absolute() or ".." in path.parts or "\0" in name:
        raise ValueError("its key is no name of a file")
    return Path(path)


def _escaped(name: str) -> str:
    return re.sub(r"([*?\[])", r"[\1]", name)


def _write(target: Path, content: bytes | Sequence[Path], fps: float) -> None:
    """Whole or not at all: under another name first."""
    if isinstance(content, bytes):
        ending = "" if target.suffix else next((e for at, m, e in _MAGIC if content[at : at + len(m)] == m), ".mp4")
        final = target.with_name(target.name + ending)
    else:
        final = target.with_name(target.name + ".mov")
    partial = final.with_name(f".{final.name}.{os.getpid()}")
    try:
        if isinstance(content, bytes):
            partial.write_bytes(content)
        else:
            _join(content, partial, fps)
        partial.replace(final)
    finally:
        partial.unlink(missing_ok=True)


def _join(frames: Sequence[Path], out: Path, fps: float) -> None:
    """Pictures one after another in a .mov.

    Raises:
        ValueError: there are none, they are of different kinds, or one has no number or is damaged.
    """
    import av
    from PIL import Image, UnidentifiedImageError

    codecs = {CODECS[file.suffix.lower()] for file in frames}
    if len(codecs) != 1:
        raise ValueError("it has both .jpg and .png" if codecs else "it has no .jpg or .png")
    if unnumbered := [file.name for file in frames if place_of(file) < 0]:
        raise ValueError(f"{unnumbered[0]} has no number at its end, which would say its place")
    sizes = set()
    for file in frames:
        try:
            with Image.open(file) as picture:
                sizes.add(picture.size)
        except (UnidentifiedImageError, OSError) as error:
            raise ValueError(f"{file.name} is damaged: {error}") from None
    if len(sizes) != 1:
        raise ValueError(f"its pictures have {len(sizes)} sizes")
    (width, height) = sizes.pop()
    rate = Fraction(fps).limit_denominator(1000)
    with av.open(str(out), "w", format="mov") as container:
        stream: Any = container.add_mux_stream(codecs.pop(), rate=rate, width=width, height=height)
        stream.time_base = 1 / rate
        for place, file in enumerate(frames):
            packet = av.Packet(file.read_bytes())
            packet.stream, packet.time_base, packet.is_keyframe = stream, 1 / rate, True
            packet.pts = packet.dts = place
            packet.duration = 1
            container.mux(packet)
