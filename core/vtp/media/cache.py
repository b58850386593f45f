"""Reading clips that ``vtp data cache`` decoded before, in place of their originals.

A cache is a folder with ``cache.json`` (how it was made) and one entry per file, under a name that is a hash of the
file's path. :class:`CachedReader` stands in front of any reader: it answers from the entry if there is one, the source
has the size and date that the entry was made from, and the entry holds enough pixels; else it asks the reader behind.
Samplers see the times of all frames of the original, so they choose the same moments with and without a cache.

Raw frames and JPEGs are read in this process: both are our own files, checked against a checksum before anything looks
at them. Transcodes go through the reader behind, which decodes them where a crash does no harm.
"""

from __future__ import annotations

import contextlib
import json
import logging
import multiprocessing
import os
import zlib
from dataclasses import asdict, dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from vtp.errors import ConfigError, DataError
from vtp.media.cache_file import KINDS, CacheDamage, Entry
from vtp.media.frames import resample, resize
from vtp.media.info import MediaError, MediaInfo, VideoInfo
from vtp.media.request import EVERYTHING, Reader, Size, Wanted, cut, picture_may_lack, target_size
from vtp.types import Clip, MediaRef

__all__ = ["CachedReader", "ClipCache", "Settings", "target"]

log = logging.getLogger("vtp")

SETTINGS = "cache.json"
CONTENT = "content.json"  # the hash of what is stored; gone while entries are made
FORMAT = 1
_REASONS = ("cached", "absent", "changed", "insufficient", "damaged")


@dataclass(frozen=True, slots=True)
class Settings:
    """How the clips of a cache are stored.

    Attributes:
        kind: ``transcode``, ``jpeg`` or ``raw``.
        size: short side in pixels; raw frames and JPEGs have exactly it, a transcode is never enlarged.
        frames: frames per clip, spread evenly, of raw and JPEG; 0 = all of them.
        every: keep every so many frames, of raw and JPEG; 1 = all of them.
        audio: sample rate of the stored sound in Hz; 0 = no sound.
        backend: decoder of the originals.
    """

    kind: str = "jpeg"
    size: int = 256
    frames: int = 0
    every: int = 1
    audio: int = 16000
    backend: str = "auto"

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ConfigError(f"--kind {self.kind} must be one of {', '.join(KINDS)}.")
        if self.size < 16:
            raise ConfigError(f"--size {self.size} must be at least 16 pixels, for example 224 or 256.")
        if self.frames < 0 or self.every < 1 or self.audio < 0:
            raise ConfigError(
                f"--frames {self.frames} and --audio {self.audio} must not be negative, "
                f"--every {self.every} must be at least 1."
            )
        if self.frames and self.every > 1:
            raise ConfigError("--frames and --every exclude each other: both thin out the frames.")
        if self.kind == "transcode" and (self.frames or self.every > 1):
            raise ConfigError("--kind transcode keeps all frames: leave --frames and --every to jpeg and raw.")

    @property
    def text(self) -> str:
        """In words."""
        thin = f", {self.frames} frames a clip" if self.frames else f", every {self.every}. frame" * (self.every > 1)
        return f"{self.kind}, {self.size} pixels{thin}, " + (f"sound at {self.audio} Hz" if self.audio else "no sound")


class ClipCache:
    """A folder of entries.

    Raises:
        DataError: if ``folder`` is not a cache, or one of a later format.
    """

    def __init__(self, folder: Path | str) -> None:
        self.folder = Path(folder)
        try:
            record = json.loads((self.folder / SETTINGS).read_text(encoding="utf-8"))
            version = record.pop("format")
            if version == FORMAT:
                record.pop("vtp", None)
                self.settings = Settings(**record)
        except (FileNotFoundError, NotADirectoryError):
            raise DataError(
                f"data.cache={folder}: there is no {SETTINGS} in it, so it is no cache. "
                f"`vtp data cache TARGET {folder}` makes one."
            ) from None
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(f"{self.folder / SETTINGS} cannot be read ({error}). Make the cache again.") from None
        if version != FORMAT:
            raise DataError(f"{self.folder} is a cache of format {version}; this vtp reads format {FORMAT}.")

    @staticmethod
    def create(folder: Path | str, settings: Settings) -> ClipCache:
        """Open the cache in ``folder``, or begin one.

        Raises:
            ConfigError: if the folder holds something else, or a cache with other settings.
        """
        from vtp import __version__
        from vtp.storage import write_json_atomic

        folder = Path(folder)
        if not (folder / SETTINGS).exists():
            if folder.exists() and (not folder.is_dir() or any(not e.name.startswith(".") for e in folder.iterdir())):
                raise ConfigError(f"{folder} holds something that is no cache. Give the name of a new folder.")
            folder.mkdir(parents=True, exist_ok=True)
            write_json_atomic(folder / SETTINGS, {"format": FORMAT, "vtp": __version__, **asdict(settings)})
        cache = ClipCache(folder)
        if cache.settings != settings:
            raise ConfigError(
                f"{folder} was made with other settings ({cache.settings.text}, backend {cache.settings.backend}) than "
                f"these ({settings.text}, backend {settings.backend}). One cache has one kind: choose another folder."
            )
        return cache

    def path(self, source: str) -> Path:
        """Where the entry of ``source`` lies or would lie."""
        name = blake2b(os.path.abspath(source).encode("utf-8", "surrogateescape"), digest_size=16).hexdigest()
        return self.folder / "clips" / name[:2] / f"{name}.clip"

    def find(self, source: str) -> tuple[Entry | None, str]:
        """The entry of a file, or None with the reason: ``absent`` or ``changed``. Where the original is gone, the
        entry is all there is, and counts.

        Raises:
            CacheDamage: if the entry cannot be trusted.
        """
        try:
            entry = Entry.open(self.path(source))
        except FileNotFoundError:
            return None, "absent"
        try:
            status = os.stat(source)
        except OSError:
            return entry, ""
        made_from = entry.record["source"]
        if (status.st_size, status.st_mtime_ns) != (made_from["bytes"], made_from["mtime_ns"]):
            return None, "changed"
        return entry, ""

    def record(self) -> dict[str, Any]:
        """What a report must say about pictures that are not the originals."""
        return {"folder": str(self.folder), **asdict(self.settings), "hash": self.content_hash()}

    def content_hash(self) -> str | None:
        """Equal for caches that give equal pictures and sounds: two builds of transcodes are not, encoders differ from
        call to call. None where the last build did not end."""
        try:
            return str(json.loads((self.folder / CONTENT).read_text(encoding="utf-8"))["hash"])
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def hash_content(self) -> None:
        """Note the hash of all entries, whatever their order and their names."""
        from vtp.storage import write_json_atomic

        digests = []
        for path in (self.folder / "clips").glob("*/*.clip"):
            with contextlib.suppress(CacheDamage, FileNotFoundError):
                digests.append(Entry.open(path).digest())
        total = blake2b(b"".join(sorted(digests)), digest_size=16).hexdigest()
        write_json_atomic(self.folder / CONTENT, {"hash": total, "clips": len(digests)})


class _Behind(Reader, Protocol):
    """The reader that decodes what is not in the cache."""

    def probe(self, ref: MediaRef) -> MediaInfo: ...

    def close(self) -> None: ...


class CachedReader:
    """Reads from ``cache`` what is in it, and the rest with ``reader``. Safe to inherit by fork; :attr:`counts` are
    those of all processes that share it."""

    def __init__(self, reader: _Behind, cache: ClipCache) -> None:
        self.reader = reader
        self.cache = cache
        self._forget()

    @property
    def counts(self) -> dict[str, int]:
        """Reads so far: ``cached``, and by reason those that went to the original."""
        return dict(zip(_REASONS, self._counts[:], strict=True))

    def line(self) -> str:
        """``data.cache=DIR: 1,990 of 2,000 reads came from the cache; 10 from the originals (10 absent)``."""
        counts = self.counts
        total, cached = sum(counts.values()), counts.pop("cached")
        rest = ", ".join(f"{count:,} {reason}" for reason, count in counts.items() if count)
        tail = f"; {total - cached:,} from the originals ({rest})" if rest else ""
        return f"data.cache={self.cache.folder}: {cached:,} of {total:,} reads came from the cache{tail}"

    def read(self, ref: MediaRef, wanted: Wanted = EVERYTHING) -> Clip:
        """As :func:`vtp.media.read_clip`."""
        if isinstance(ref.path, str):
            try:
                entry, reason = self.cache.find(ref.path)
                if entry is not None:
                    shown = wanted.video and entry.info is not None
                    shape = target(entry, wanted.size) if shown else None
                    if (shown and shape is None) or not _has_sound(entry, wanted.sample_rate):
                        reason = "insufficient"
                    else:
                        clip = self._read(entry, ref, wanted, shape)
                        self._count("cached")
                        return clip
            except CacheDamage as damage:
                reason = "damaged"
                self._say(ref.path, damage)
            self._count(reason)
            if reason == "insufficient":
                return self._original(ref, wanted)
        return self.reader.read(ref, wanted)

    def _original(self, ref: MediaRef, wanted: Wanted) -> Clip:
        try:
            return self.reader.read(ref, wanted)
        except MediaError as error:
            if error.kind != "missing":
                raise
            size = "the stored size" if wanted.size is None else f"size {wanted.size}"
            asked = size if wanted.video else "sound"
            if wanted.video and wanted.sample_rate is not None:
                asked += " with sound"
            raise MediaError(
                f"{error.reason}, and its cached copy ({self.cache.settings.text}) is too small for {asked}", "missing"
            ) from None

    def probe(self, ref: MediaRef) -> MediaInfo:
        """As :func:`vtp.media.probe`, of the original."""
        return self.reader.probe(ref)

    def close(self) -> None:
        """Close the reader behind."""
        self.reader.close()

    def __getstate__(self) -> dict[str, Any]:
        return {"reader": self.reader, "cache": self.cache}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.reader, self.cache = state["reader"], state["cache"]
        self._forget()

    def _forget(self) -> None:
        self._counts = multiprocessing.Array("Q", len(_REASONS))
        self._said: set[str] = set()

    def _count(self, reason: str) -> None:
        with self._counts.get_lock():
            self._counts[_REASONS.index(reason)] += 1

    def _say(self, source: str, damage: CacheDamage) -> None:
        if source not in self._said:
            self._said.add(source)
            log.warning(
                "the cached copy of %s %s; reading the original. `vtp data cache` with --check makes it again.",
                source,
                damage,
            )

    def _read(self, entry: Entry, ref: MediaRef, wanted: Wanted, shape: tuple[int, int] | None) -> Clip:
        clip = Clip()
        if wanted.sample_rate is not None:
            _take_sound(clip, entry, ref, wanted.sample_rate)
        if shape is not None and entry.info is not None:
            with picture_may_lack(clip):
                self._take_frames(clip, entry, entry.info, ref, wanted, shape)
        elif wanted.video:
            clip.missing["video"] = entry.record["missing"].get("video", "no video stream")
        if clip.frames is None and clip.waveform is None:
            kind = "no_video" if wanted.video and wanted.sample_rate is None else "no_audio"
            raise MediaError("; ".join(clip.missing.values()) or "nothing was asked for", kind, "cache")
        return clip

    def _take_frames(
        self, clip: Clip, entry: Entry, info: VideoInfo, ref: MediaRef, wanted: Wanted, shape: tuple[int, int]
    ) -> None:
        part, first = (info, 0) if ref.start is None and ref.end is None else cut(info, ref)
        rows = wanted.positions(part) + first
        if len(entry.places) < info.count:  # thinned out: the stored frame that is nearest in time
            rows = _nearest(info.timestamps[entry.places], info.timestamps[rows])
        if entry.kind == "transcode":
            clip.frames = self._decode(entry, rows, shape)
        else:
            clip.frames = resize(entry.frames(rows), shape)
        clip.timestamps = info.timestamps[entry.places[rows]]

    def _decode(self, entry: Entry, rows: npt.NDArray[np.int64], shape: tuple[int, int]) -> npt.NDArray[np.uint8]:
        path, facts = entry.path.removesuffix(".clip") + ".mp4", entry.record["transcode"]
        try:
            with open(path, "rb", buffering=0) as file:
                if zlib.crc32(file.read()) != facts["crc32"]:
                    raise CacheDamage("has changed: the transcode differs from its checksum")
            clip = self.reader.read(MediaRef(path), Wanted(lambda _: rows, shape))
        except FileNotFoundError:
            raise CacheDamage("has lost its transcode") from None
        except MediaError as error:
            raise CacheDamage(f"cannot be decoded: {error.reason}") from None
        assert clip.frames is not None
        return clip.frames


def target(entry: Entry, size: Size) -> tuple[int, int] | None:
    """(height, width) that the original would give at ``size``; None if the entry has fewer pixels than that."""
    height, width = entry.record["upright"]
    wanted = target_size(height, width, size)
    held: tuple[int, int] = tuple(entry.record["shape"][:2])
    if entry.kind == "transcode":
        if not entry.record["reduced"]:
            return wanted  # it holds all there is
        held = held[0] + 1, held[1] + 1  # its sides were rounded to even numbers
    return wanted if wanted[0] <= held[0] and wanted[1] <= held[1] else None


def _has_sound(entry: Entry, rate: int | None) -> bool:
    """Whether the entry can give the sound at ``rate``, or knows that there is none."""
    if rate is None or "audio" in entry.record["missing"]:
        return True
    sound = entry.record["sound"]
    return sound is not None and bool(rate <= sound["rate"])


def _take_sound(clip: Clip, entry: Entry, ref: MediaRef, rate: int) -> None:
    sound = entry.record["sound"]
    if sound is None:
        clip.missing["audio"] = entry.record["missing"]["audio"]
        return
    start = float("-inf") if ref.start is None else ref.start
    heard = entry.sound(start, float("inf") if ref.end is None else ref.end)
    if not len(heard):
        clip.missing["audio"] = "no sound could be decoded"
        return
    heard = resample(heard, int(sound["rate"]), rate)
    clip.waveform, clip.sample_rate, clip.sound_start = heard[None], rate, max(float(sound["start"]), start)


def _nearest(stored: npt.NDArray[np.float64], wanted: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    """For each of ``wanted`` the number of the stored time that is nearest, the earlier of two equally near ones."""
    after = np.clip(np.searchsorted(stored, wanted), 1, max(len(stored) - 1, 1))
    before = after - 1
    if len(stored) == 1:
        return np.zeros(len(wanted), np.int64)
    return np.asarray(np.where(wanted - stored[before] <= stored[after] - wanted, before, after), np.int64)
