"""Writing samples into WebDataset tar shards, in video2dataset's layout: ``00000.tar`` with ``KEY.mp4``, ``KEY.txt``
and ``KEY.json``, and ``00000_stats.json`` beside it.

Samples about one file (and, where frames are decoded, one span of it) share a key; ``json`` lists them all. A shard is
written beside its place, flushed and renamed, then its statistics are: a shard without matching statistics is written
again. What goes into which shard depends on the samples alone, so a second call goes on where the first one stopped.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import tarfile
import time
import wave
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from vtp.data.table import media_id
from vtp.errors import ConfigError
from vtp.media.extensions import IMAGES, SOUNDS, VIDEOS
from vtp.media.info import MediaError, VideoInfo
from vtp.media.isolation import MediaReader
from vtp.media.member import fetch, split_member
from vtp.media.request import Wanted
from vtp.media.sampling import uniform
from vtp.prepare import GO_ON
from vtp.prepare.target import Kept, readable
from vtp.prepare.threads import results
from vtp.storage import alone, clean_leftovers, replacing, sha256_of, write_json_atomic
from vtp.types import MediaRef, Sample

__all__ = ["MANIFEST", "Packing", "pack"]

MANIFEST = "manifest.json"
FORMAT = 2
_LARGEST = 1 << 33  # bytes of a member: eleven octal digits hold its size


@dataclass(frozen=True, slots=True)
class Packing:
    """How shards are made.

    Attributes:
        frames: decoded frames per clip, spread evenly; 0 packs the files themselves.
        size: short side of the frames in pixels.
        audio: sample rate of the sound beside decoded frames; 0 = none.
        per_shard: keys in a shard.
        backend: decoder.
    """

    frames: int = 0
    size: int = 256
    audio: int = 16000
    per_shard: int = 1000
    backend: str = "auto"

    def __post_init__(self) -> None:
        if self.frames < 0 or self.size < 16 or self.audio < 0 or self.per_shard < 1:
            raise ConfigError(
                f"--frames {self.frames} --size {self.size} --audio {self.audio} --per-shard {self.per_shard}: frames "
                "and audio must not be negative, size at least 16, per-shard at least 1."
            )
        if self.per_shard > 9999:
            raise ConfigError(f"--per-shard {self.per_shard} must be at most 9999: keys have four digits for it.")


@dataclass(slots=True)
class _Key:
    """One key of a shard: its media and the samples about them."""

    name: str
    video: MediaRef | None
    audio: MediaRef | None
    samples: list[Kept] = field(default_factory=list)


def pack(
    samples: Iterable[Sample | Kept],
    out: Path | str,
    packing: Packing,
    *,
    namespace: str | None = None,
    workers: int = 2,
    timeout_s: float = 120.0,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Write all shards, or those that are not there yet, and ``manifest.json``; returns the manifest.

    Args:
        samples: what is packed; those that come with kinds and splits keep them.
        namespace: of the clips, so that they are the same clips as those of the data set that is packed.
        progress: called with (shards done, shards in all) after each.

    Raises:
        ConfigError: ``out`` holds something else, or another program is at work there.
        RunError: the disk is full; whole shards stay.
    """
    out = Path(out)
    _claim(out)
    with alone(out):
        clean_leftovers(out)
        keys, without_media = _keys(samples, packing)
        shards = [keys[i : i + packing.per_shard] for i in range(0, len(keys), packing.per_shard)]
        done: dict[int, dict[str, Any]] = {}

        def work(reader: MediaReader, number: int) -> tuple[int, dict[str, Any]]:
            return number, _shard(out, number, shards[number], packing, reader)

        def reader() -> MediaReader:
            return MediaReader(packing.backend, timeout_s=timeout_s)

        def name(number: int) -> str:
            return f"one of the samples {shards[number][0].name} to {shards[number][-1].name} (shard {number})"

        with results(work, range(len(shards)), reader, workers, name) as made:
            for number, stats in made:
                done[number] = stats
                if progress is not None:
                    progress(len(done), len(shards))
        _remove_others(out, len(shards))
        manifest = _manifest([done[number] for number in sorted(done)], packing, namespace, without_media)
        write_json_atomic(out / MANIFEST, manifest)
    return manifest


def _claim(out: Path) -> None:
    """Refuse a folder with other people's files: old shards are removed from it."""
    if out.exists():
        ours = out.is_dir() and ((out / MANIFEST).exists() or (out / ".lock").exists() or not any(out.iterdir()))
        if not ours:
            raise ConfigError(f"{out} holds what `vtp data pack` did not write. Give the name of a new folder.")
    out.mkdir(parents=True, exist_ok=True)


def _remove_others(out: Path, shards: int) -> None:
    """Shards of an earlier, longer list of samples."""
    for file in out.iterdir():
        number = file.name[:5]
        if number.isdigit() and int(number) >= shards and file.name[5:] in (".tar", "_stats.json", ".index.json"):
            file.unlink()


def _keys(samples: Iterable[Sample | Kept], packing: Packing) -> tuple[list[_Key], int]:
    """Keys in the order in which their media first appear, and how many samples have no media."""
    keys: dict[Any, _Key] = {}
    without_media = 0
    for item in samples:
        kept = item if isinstance(item, Kept) else Kept(item)
        video, audio = kept.sample.video, kept.sample.audio
        if video is None and audio is None:
            without_media += 1
            continue
        if not packing.frames:  # whole files go in, spans stay with the samples
            video, audio = (None if ref is None else MediaRef(ref.path) for ref in (video, audio))
        identity = (video, audio)
        if identity not in keys:
            shard, place = divmod(len(keys), packing.per_shard)
            keys[identity] = _Key(f"{shard:05d}{place:04d}", video, audio)
        keys[identity].samples.append(kept)
    return list(keys.values()), without_media


def _shard(out: Path, number: int, keys: Sequence[_Key], packing: Packing, reader: MediaReader) -> dict[str, Any]:
    """Statistics of one shard, which is written if it is not there, whole, and about the same media."""
    plan = _plan(keys, packing)
    tar, stats_file = out / f"{number:05d}.tar", out / f"{number:05d}_stats.json"
    kept = _kept(tar, stats_file, plan)
    if kept is not None:
        return kept
    start = time.time()
    failures: list[dict[str, Any]] = []
    counted = {"keys": 0, "samples": 0}
    with (
        replacing(tar, then=GO_ON) as file,
        tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT) as writer,
    ):
        for key in keys:
            try:
                members = (_frame_members if packing.frames else _file_members)(key, packing, reader)
            except MediaError as error:
                path = next(str(ref.path) for ref in (key.video, key.audio) if ref is not None)
                failures.append(
                    {"key": key.name, "path": path, "reason": error.reason, "kind": error.kind,
                     "samples": len(key.samples)}
                )  # fmt: skip
                continue
            for extension, content in members.items():
                _add(writer, f"{key.name}.{extension}", content)
            counted["keys"] += 1
            counted["samples"] += len(key.samples)
    stats = {
        "count": len(keys),
        "successes": counted["keys"],
        "failed_to_download": sum(failure["kind"] == "missing" for failure in failures),
        "failed_to_subsample": sum(failure["kind"] != "missing" for failure in failures),
        "start_time": start,
        "end_time": time.time(),
        "duration": time.time() - start,
        "status_dict": {"success": counted["keys"], **Counter(failure["reason"] for failure in failures)},
        "samples": counted["samples"],
        "bytes": tar.stat().st_size,
        "sha256": sha256_of(tar),
        "plan": plan,
        "failures": failures,
    }
    write_json_atomic(stats_file, stats)
    return stats


def _plan(keys: Sequence[_Key], packing: Packing) -> str:
    """Hash of everything that decides what a shard holds."""
    digest = hashlib.sha256(json.dumps([FORMAT, asdict(replace(packing, per_shard=1))]).encode())
    for key in keys:
        for ref in (key.video, key.audio):
            if ref is not None and isinstance(ref.path, str):
                try:
                    status = os.stat(ref.path)
                    digest.update(f"{ref}{status.st_size} {status.st_mtime_ns}".encode("utf-8", "surrogateescape"))
                except OSError:
                    digest.update(f"{ref} absent".encode("utf-8", "surrogateescape"))
        digest.update(json.dumps([_record(kept) for kept in key.samples], default=str).encode())
    return digest.hexdigest()


def _kept(tar: Path, stats_file: Path, plan: str) -> dict[str, Any] | None:
    """The statistics of a shard that is there, has not changed, and is what would be written."""
    try:
        stats: dict[str, Any] = json.loads(stats_file.read_bytes())
        if stats["plan"] == plan and tar.stat().st_size == stats["bytes"] and sha256_of(tar) == stats["sha256"]:
            return stats
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return None


def _add(writer: tarfile.TarFile, name: str, content: bytes | memoryview) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    writer.addfile(info, io.BytesIO(content))


def _record(kept: Kept) -> dict[str, Any]:
    """A sample without its media, JSON-able."""
    sample = kept.sample
    media = sample.video or sample.audio
    assert media is not None
    span = {side: value for side in ("start", "end") if (value := getattr(media, side)) is not None}
    table = {"kinds": list(kept.kinds), "split": kept.split, "held_out": kept.held_out}
    return {
        "id": sample.id,
        "texts": list(sample.texts),
        **span,
        **({"labels": dict(sample.labels)} if sample.labels else {}),
        "extra": {"video_id": media_id(sample), **sample.extra},
        **{name: value for name, value in table.items() if value},
    }


def _annotation(key: _Key, **more: Any) -> dict[str, bytes]:
    """The ``txt`` and ``json`` members."""
    text = next((text for kept in key.samples for text in kept.sample.texts), "")
    path = next(str(ref.path) for ref in (key.video, key.audio) if ref is not None)
    record = {
        "key": key.name,
        "status": "success",
        "error_message": None,
        "url": path,
        "caption": text,
        "samples": [_record(kept) for kept in key.samples],
        **more,
    }
    # Of extra, what is no JSON value (a path, a date) is kept as its text.
    written = json.dumps(record, ensure_ascii=False, default=str)
    try:
        return {"txt": text.encode(), "json": written.encode()}
    except UnicodeEncodeError:  # half of a character, or the name of a file that is no UTF-8
        record = json.loads(json.dumps(record, default=str), object_pairs_hook=_readable_pairs)
        return {"txt": readable(text).encode(), "json": json.dumps(record, ensure_ascii=False).encode()}


def _readable_pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    def clean(value: Any) -> Any:
        return readable(value) if isinstance(value, str) else [*map(clean, value)] if isinstance(value, list) else value

    return {readable(key): clean(value) for key, value in pairs}


def _file_members(key: _Key, packing: Packing, reader: MediaReader) -> dict[str, bytes]:
    """The files as they are; they must at least open."""
    members: dict[str, bytes] = {}
    for ref in (key.video, key.audio):
        if ref is None or (ref is key.audio and key.video is not None and ref.path == key.video.path):
            continue
        if not isinstance(ref.path, str):
            raise MediaError("is no file but bytes in memory", "not_a_file")
        inside = split_member(ref.path)
        if inside is not None and inside.is_frames:
            raise MediaError("is decoded already: frames of a shard are not packed again", "not_a_file")
        info = reader.probe(ref)
        if ref is key.video and info.video is None:
            raise MediaError("no video stream", "no_video")
        content = fetch(ref).path if inside is not None else _content(ref.path)
        assert isinstance(content, bytes)
        members[_extension(ref.path, sound=ref is not key.video)] = content
    return members | _annotation(key, silent=key.audio is None)


def _content(path: str) -> bytes:
    try:
        if os.stat(path).st_size >= _LARGEST:
            raise MediaError(f"larger than a member of a tar file ({_LARGEST >> 30} GiB)", "too_large")
        return Path(path).read_bytes()
    except OSError as error:
        raise MediaError(f"cannot be read: {error.strerror}", "missing") from None


def _extension(path: str, *, sound: bool) -> str:
    """By which a member is known again as a picture or as a sound, whatever the file is called."""
    ending = os.path.splitext(path)[1].lower()
    if sound:
        return ending[1:] if ending in SOUNDS else f"audio.{ending[1:] or 'mp4'}"
    return ending[1:] if ending in VIDEOS | IMAGES else "mp4"


def _frame_members(key: _Key, packing: Packing, reader: MediaReader) -> dict[str, bytes]:
    """Decoded frames, and the sound."""
    seen: list[VideoInfo] = []

    def times(info: VideoInfo) -> Any:
        seen.append(info)
        return uniform(info, frames=packing.frames)

    rate = packing.audio or None
    together = key.video is not None and (key.audio is None or key.audio == key.video)
    sound = None
    members: dict[str, bytes] = {}
    more: dict[str, Any] = {"missing": {}}
    if key.video is not None:
        heard = rate if together and key.audio is not None else None
        clip = reader.read(key.video, Wanted(times, packing.size, heard))
        if clip.frames is None or clip.timestamps is None:
            raise MediaError(clip.missing.get("video", "no video stream"), "no_video")
        buffer = io.BytesIO()
        np.save(buffer, clip.frames)
        members["npy"] = buffer.getvalue()
        info = seen[-1]
        more["frames"] = {
            "timestamps": clip.timestamps.tolist(),
            "end": info.end,
            "fps": len(clip.frames) / max(info.end - info.start, 1e-9),
            "shape": list(clip.frames.shape),
            "codec": info.codec,
        }
        more["missing"].update(clip.missing)
        sound = clip if heard else None
    if not together and key.audio is not None and rate is not None:
        sound = reader.read(key.audio, Wanted(sample_rate=rate, video=False))
    if sound is not None and sound.waveform is not None:
        scale = max(1.0, float(np.abs(sound.waveform).max(initial=0.0))) / 32767
        buffer = io.BytesIO()
        with wave.open(buffer, "wb") as file:
            file.setparams((1, 2, sound.sample_rate, 0, "NONE", "not compressed"))
            file.writeframes(np.rint(sound.waveform[0] / scale).astype("<i2").tobytes())
        members["wav"] = buffer.getvalue()
        more["sound"] = {"rate": sound.sample_rate, "start": sound.sound_start, "scale": scale}
    return _annotation(key, silent=key.audio is None, **more) | members


def _manifest(
    shards: Sequence[dict[str, Any]], packing: Packing, namespace: str | None, without_media: int
) -> dict[str, Any]:
    from vtp import __version__

    return {
        "format": FORMAT,
        "vtp": __version__,
        **asdict(packing),
        **({} if namespace is None else {"namespace": namespace}),
        "without_media": without_media,
        "keys": sum(stats["successes"] for stats in shards),
        "samples": sum(stats["samples"] for stats in shards),
        "bytes": sum(stats["bytes"] for stats in shards),
        "shards": {
            f"{number:05d}.tar": {name: stats[name] for name in ("successes", "samples", "bytes", "sha256")}
            for number, stats in enumerate(shards)
        },
        "failures": [failure for stats in shards for failure in stats["failures"]],
    }
