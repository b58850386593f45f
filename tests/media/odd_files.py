"""Makes clips that are valid and unusual, with the number of each picture painted into it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

BITS = 8
RATE = 16000  # of the sound


def painted(number: int, width: int = 64, height: int = 48) -> np.ndarray:
    """A picture with ``number`` as eight vertical stripes, black or white, the highest bit on the left."""
    bits = [255 if number >> (BITS - 1 - bit) & 1 else 0 for bit in range(BITS)]
    row = np.repeat(np.array(bits, np.uint8), width // BITS)
    row = np.pad(row, (0, width - len(row)), mode="edge")
    return np.repeat(np.broadcast_to(row[None, :, None], (height, width, 1)), 3, axis=2).copy()


def numbers(frames: np.ndarray) -> list[int]:
    """The numbers in frames (T, H, W, 3)."""
    width = frames.shape[2] / BITS
    places = [int((bit + 0.5) * width) for bit in range(BITS)]
    bits = frames[:, frames.shape[1] // 2, places, 0] > 127
    return [int("".join("1" if bit else "0" for bit in row), 2) for row in bits]


def tone(seconds: float, start: float = 0.0, loud: float = 0.5, hertz: float = 440.0, rate: int = RATE) -> np.ndarray:
    """A sine (S,) of ``seconds``, as it is heard from ``start`` on."""
    return loud * np.sin(2 * np.pi * hertz * (start + np.arange(round(seconds * rate)) / rate))


def loud_from(waveform: np.ndarray, rate: int, level: float = 0.05) -> float:
    """The second at which 10 ms are first louder than ``level``; infinity if none are."""
    step = rate // 100
    blocks = np.abs(waveform[0, : waveform.shape[1] // step * step]).reshape(-1, step).max(1)
    loud = np.flatnonzero(blocks > level)
    return float(loud[0]) / 100 if len(loud) else float("inf")


def write(
    path: Path,
    pictures: Iterable[np.ndarray] = (),
    *,
    rate: int = 10,
    picture_start: float = 0.0,
    sounds: Iterable[list[tuple[float, np.ndarray]]] = (),
    codec: str = "libx264",
    audio_codec: str = "aac",
    sound_rate: int = RATE,
    sar: Fraction | None = None,
    default_sound: int | None = None,
    shift: float = 0.0,
    container_options: dict[str, str] | None = None,
    **options: str,
) -> Path:
    """A file with one video stream of ``pictures`` and one audio stream for each of ``sounds``.

    Args:
        picture_start: second of the first picture.
        sounds: each a list of (second, waveform (S,)) pieces.
        default_sound: the audio stream that is marked as the default one, the others not.
        shift: seconds added to all times.
        options: of the video codec.
    """
    pictures, tracks = list(pictures), [list(pieces) for pieces in sounds]
    with av.open(str(path), "w", options=container_options or {}) as out:
        video: Any = None
        if pictures:
            defaults = {"g": "12", "preset": "ultrafast", "crf": "10", "bf": "0"} if codec == "libx264" else {}
            video = out.add_stream(codec, rate=rate, options={**defaults, **options})
            video.height, video.width = pictures[0].shape[:2]
            video.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
            video.codec_context.thread_count = 1
            if sar is not None:
                video.codec_context.sample_aspect_ratio = sar
        audio = [out.add_stream(audio_codec, rate=sound_rate, layout="mono") for _ in tracks]
        if default_sound is not None:
            for place, stream in enumerate(audio):
                stream.disposition = av.stream.Disposition.default if place == default_sound else 0
        packets = []
        for place, picture in enumerate(pictures):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = place, Fraction(1, rate)
            packets += video.encode(frame)
        if video is not None:
            packets += video.encode(None)
            for packet in packets:
                _move(packet, picture_start + shift)
        for stream, pieces in zip(audio, tracks, strict=True):
            packets += _encode_sound(stream, pieces, sound_rate, shift)
        packets.sort(key=lambda packet: float((packet.dts or 0) * packet.time_base))
        for packet in packets:
            out.mux(packet)
    return path


def _encode_sound(stream: Any, pieces: list[tuple[float, np.ndarray]], rate: int, shift: float) -> list[Any]:
    """Packets of pieces that may lie apart: encoded in one go, so that the codec is never flushed, and then moved."""
    packets = []
    starts: list[tuple[int, float]] = []  # sample at which a piece begins, and by how many seconds it is moved
    samples = 0
    form = stream.codec_context.format.name if stream.codec_context.format else "fltp"
    for second, waveform in pieces:
        starts.append((samples, second - samples / rate))
        for at in range(0, len(waveform), 1024):
            block = np.ascontiguousarray(waveform[None, at : at + 1024], np.float32)
            if form != "fltp":
                block = (block * 32767).round().astype(np.int16)
            frame = av.AudioFrame.from_ndarray(block, format="fltp" if form == "fltp" else "s16", layout="mono")
            frame.sample_rate, frame.pts, frame.time_base = rate, samples, Fraction(1, rate)
            packets += stream.encode(frame)
            samples += block.shape[1]
    packets += stream.encode(None)
    for packet in packets:
        sample = float(packet.pts * packet.time_base) * rate
        moved = [by for first, by in starts if first <= sample + 1] or [starts[0][1]]
        _move(packet, moved[-1] + shift)
    return packets


def _move(packet: Any, seconds: float) -> None:
    ticks = round(seconds / packet.time_base)
    packet.pts += ticks
    packet.dts += ticks


def joined(target: Path, *parts: Path) -> Path:
    """The bytes of ``parts`` one after the other."""
    target.write_bytes(b"".join(part.read_bytes() for part in parts))
    return target


def remuxed(source: Path, target: Path, edit: Callable[[Any], bool] = lambda packet: True) -> Path:
    """The video packets of ``source`` in another container, without those that ``edit`` refuses."""
    with av.open(str(source)) as inp, av.open(str(target), "w") as out:
        copy = out.add_stream_from_template(inp.streams.video[0])
        for packet in inp.demux(inp.streams.video[0]):
            if packet.dts is not None and edit(packet):
                packet.stream = copy
                out.mux(packet)
    return target


def restarted_flv(target: Path, pictures: list[np.ndarray], restart: int) -> Path:
    """An FLV whose times begin again at 0 at the picture ``restart``: the times in the tags are overwritten."""
    data = bytearray(write(target, pictures, g=str(restart)).read_bytes())
    at, seen = 9 + 4, 0
    while at < len(data):
        kind, size = data[at], int.from_bytes(data[at + 1 : at + 4], "big")
        if kind == 9 and data[at + 12] == 1:  # a picture; 0 is the codec's header, 2 the end
            moment = int.from_bytes(data[at + 4 : at + 7], "big")
            if seen >= restart:
                data[at + 4 : at + 7] = (moment - 100 * restart).to_bytes(3, "big")
            seen += 1
        at += 11 + size + 4
    target.write_bytes(data)
    return target


def _box(kind: str, *content: bytes, version: int | None = None, flags: int = 0) -> bytes:
    body = b"".join(content)
    head = b"" if version is None else bytes([version]) + flags.to_bytes(3, "big")
    return (8 + len(head) + len(body)).to_bytes(4, "big") + kind.encode() + head + body


def _find_box(data: bytes, *kinds: str) -> bytes:
    """The content of a box by the path that leads to it."""
    for depth, kind in enumerate(kinds):
        at = 4 if depth and kinds[depth - 1] == "meta" else 0  # its version and flags
        while data[at + 4 : at + 8] != kind.encode():
            at += int.from_bytes(data[at : at + 4], "big")
        data = data[at + 8 : at + int.from_bytes(data[at : at + 4], "big")]
    return data


def tiled_avif(target: Path, tiles: list[np.ndarray], columns: int) -> Path:
    """One picture made of AVIF tiles of one size, as ``avifenc --grid`` and telephones (in HEIC) write it."""
    import io

    from PIL import Image

    def short(*numbers: int) -> bytes:
        return b"".join(number.to_bytes(2, "big") for number in numbers)

    def long(*numbers: int) -> bytes:
        return b"".join(number.to_bytes(4, "big") for number in numbers)

    payloads, settings = [], b""
    for tile in tiles:
        buffer = io.BytesIO()
        Image.fromarray(tile).save(buffer, "AVIF", quality=90)
        payloads.append(_find_box(buffer.getvalue(), "mdat"))
        settings = _find_box(buffer.getvalue(), "meta", "iprp", "ipco", "av1C")
    height, width = tiles[0].shape[:2]
    rows = len(tiles) // columns
    grid = bytes([0, 0, rows - 1, columns - 1]) + short(columns * width, rows * height)
    contents = [grid, *payloads]

    def meta(first: int) -> bytes:
        places, at = b"", first
        for item, content in enumerate(contents, 1):
            places += short(item, 0, 1) + long(at, len(content))
            at += len(content)
        infos = [
            _box("infe", short(item, 0), b"grid" if item == 1 else b"av01", b"\0", version=2)
            for item in range(1, len(contents) + 1)
        ]
        properties = _box("ispe", long(width, height), version=0) + _box("av1C", settings)
        properties += _box("ispe", long(columns * width, rows * height), version=0)
        owners = short(1) + bytes([1, 3])
        for item in range(2, len(contents) + 1):
            owners += short(item) + bytes([2, 1, 0x82])
        tiles_of = _box("dimg", short(1, len(payloads), *range(2, len(contents) + 1)))
        return _box(
            "meta",
            _box("hdlr", long(0), b"pict", bytes(13), version=0),
            _box("pitm", short(1), version=0),
            _box("iloc", b"\x44\0", short(len(contents)), places, version=0),
            _box("iinf", short(len(contents)), *infos, version=0),
            _box("iref", tiles_of, version=0),
            _box("iprp", _box("ipco", properties), _box("ipma", long(len(contents)), owners, version=0)),
            version=0,
        )

    head = _box("ftyp", b"avif", long(0), b"avifmif1miaf")
    begin = len(head) + len(meta(0)) + 8
    target.write_bytes(head + meta(begin) + _box("mdat", *contents))
    return target
