"""Pixels, sound and mp4 files of a :class:`vtp_datasets.shapes.world.Scene`.

frames      (T, H, W, 3)  uint8 RGB, T = 18 at 9 frames per second, H = W = 64
waveform    (S,)          float32 in [-1, 1], mono, 16 kHz
"""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import numpy.typing as npt
from av.video.reformatter import VideoReformatter

from vtp_datasets.shapes.world import NUMBERS, THIRDS, Scene

__all__ = ["FPS", "FRAMES", "SAMPLE_RATE", "SIDE", "render_frames", "render_sound", "write_clip"]

FRAMES, FPS, SIDE, SAMPLE_RATE = 18, 9, 64, 16_000
KEYFRAME_EVERY = 8  # a short group of pictures: seeking to a frame decodes few others

RGB = {
    "red": (225, 35, 35),
    "green": (45, 185, 55),
    "blue": (45, 75, 235),
    "yellow": (245, 215, 40),
    "purple": (165, 55, 205),
}
GROUND = {"sea": (20, 95, 110), "snow": (190, 197, 205), "desert": (186, 148, 104), "night": (22, 22, 34)}
STEP = {"left": (0, -1), "right": (0, 1), "up": (-1, 0), "down": (1, 0)}  # (dy, dx); y grows downwards
INK, WHITE = np.full(3, 12, np.float32), np.full(3, 252, np.float32)
REACH = 21  # pixels from its centre within which a character lies
TRAVEL = 10.0  # pixels that a character moves to either side of its middle position

Array = npt.NDArray[np.float32]


def render_frames(scene: Scene, rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    """Draw the picture of ``scene``; sizes, middle positions, textures, brightness and noise come from ``rng``."""
    y, x = np.mgrid[0:SIDE, 0:SIDE].astype(np.float32) + np.float32(0.5)
    still = _ground(scene.place, y, x, rng)
    for dot_y, dot_x in _dots(NUMBERS.index(scene.count) + 1, rng):
        distance = np.hypot(y - dot_y, x - dot_x)
        still = _paint(still, distance - 5, INK)
        still = _paint(still, distance - 4, WHITE)
    still += rng.normal(0, 3, (SIDE, SIDE, 1)).astype(np.float32)
    lit = 0.8 * still + 0.2 * WHITE
    border = np.minimum(np.minimum(y, SIDE - y), np.minimum(x, SIDE - x)) - 2.5
    lit = _paint(lit, border, WHITE)

    canvas = np.empty((FRAMES, SIDE, SIDE, 3), np.float32)
    canvas[:] = still
    canvas[_third(scene.light, FRAMES)] = lit
    radius = rng.uniform(14.0, 17.0)
    middle = SIDE / 2 + rng.uniform(-3.0, 3.0, 2)
    way = middle + np.linspace(-TRAVEL, TRAVEL, FRAMES)[:, None] * np.array(STEP[scene.move])  # (T, 2)
    for half, color in enumerate(scene.colors):
        part = slice(half * FRAMES // 2, (half + 1) * FRAMES // 2)
        _draw_character(canvas[part], way[part].astype(np.float32), np.float32(radius), scene.shape, RGB[color])
    canvas *= np.float32(rng.uniform(0.92, 1.05))
    return np.clip(canvas, 0, 255, out=canvas).astype(np.uint8)


def _third(name: str, length: int) -> slice:
    index = THIRDS.index(name)
    return slice(index * length // 3, (index + 1) * length // 3)


def _paint(canvas: Array, distance: Array, color: Array) -> Array:
    """Cover what is inside (``distance`` < 0, in pixels) with ``color``; the edge is one pixel soft."""
    cover = np.clip(0.5 - distance, 0, 1)[..., None].astype(np.float32)
    return canvas * (1 - cover) + cover * color


def _ground(place: str, y: Array, x: Array, rng: np.random.Generator) -> Array:
    base = np.broadcast_to(np.array(GROUND[place], np.float32), (SIDE, SIDE, 3)).copy()
    phase, slope = rng.uniform(0, 6.28), rng.uniform(-0.2, 0.2)
    if place == "sea":
        base += 14 * np.sin(0.9 * (y + slope * x) + np.sin(0.3 * x + phase))[..., None]
    elif place == "desert":
        base += 14 * np.sin(0.16 * (y + x * (1 + slope)) + phase)[..., None]
    elif place == "snow":
        base -= 25 * (rng.random((SIDE, SIDE, 1)) < 0.03)
    else:
        base += 90 * (rng.random((SIDE, SIDE, 1)) < 0.015)
    return base


def _dots(count: int, rng: np.random.Generator) -> Array:
    corners = np.array([(8, 8), (8, SIDE - 8), (SIDE - 8, 8), (SIDE - 8, SIDE - 8)], np.float32)
    chosen = rng.permutation(4)[:count]
    return corners[chosen] + rng.uniform(-1.0, 1.0, (count, 2)).astype(np.float32)


def _draw_character(frames: Array, way: Array, radius: np.float32, shape: str, color: tuple[int, int, int]) -> None:
    """Paint one character into ``frames`` (t, H, W, 3), in place, centred at ``way`` (t, 2) = (y, x)."""
    corner = np.floor(way).astype(int) - REACH  # of the box, 2 * REACH wide, outside of which nothing is painted
    offset = np.arange(2 * REACH, dtype=np.float32) + np.float32(0.5)
    v = (corner[:, 0, None] + offset - way[:, 0, None])[:, :, None].astype(np.float32)  # (t, box, 1), from the centre
    u = (corner[:, 1, None] + offset - way[:, 1, None])[:, None, :].astype(np.float32)
    distance = _outline(shape, u, v, radius)
    eyes = np.hypot(np.abs(u) - 0.27 * radius, v + 0.05 * radius) - 1.3
    mouth = np.maximum(np.abs(u) - 0.28 * radius, np.abs(v - 0.32 * radius) - 0.6)
    fill = np.maximum(distance, -np.minimum(eyes, mouth))  # the shape without its face
    for frame, (top, left), body, colored in zip(frames, corner, distance, fill, strict=True):
        # Parts of the box may lie outside of the picture.
        inside = np.s_[max(-top, 0) : SIDE - top, max(-left, 0) : SIDE - left]
        box = frame[max(top, 0) : top + 2 * REACH, max(left, 0) : left + 2 * REACH]
        box[:] = _paint(_paint(box, body[inside] - np.float32(1.5), INK), colored[inside], np.array(color, np.float32))


def _outline(shape: str, u: Array, v: Array, radius: np.float32) -> Array:
    """Signed distance in pixels (an estimate near corners): negative inside."""
    distance: Array
    if shape == "circle":
        distance = np.hypot(u, v) - 0.92 * radius
    elif shape == "square":
        distance = np.maximum(np.abs(u), np.abs(v)) - 0.83 * radius
    elif shape == "triangle":
        distance = np.maximum(v - 0.65 * radius, 0.88 * np.abs(u) - 0.47 * v - 0.55 * radius)
    else:
        angle = np.arctan2(u, -v)  # five points, the first upwards
        fold = np.abs((angle + np.pi / 5) % (2 * np.pi / 5) - np.pi / 5)  # 0 at a point, pi/5 between two
        reach = np.hypot(u, v)
        along, across = reach * np.cos(fold), reach * np.sin(fold)
        tip, notch = 1.15 * radius, 0.52 * radius
        edge = np.array((notch * np.cos(np.pi / 5) - tip, notch * np.sin(np.pi / 5)))
        normal = np.array((edge[1], -edge[0])) / np.hypot(*edge)
        distance = (along - tip) * normal[0] + across * normal[1]
    return distance


def render_sound(scene: Scene, rng: np.random.Generator) -> Array | None:
    """The sound of ``scene``, as long as the picture; None for a clip without a sound track."""
    if scene.sound is None or scene.rhythm is None or scene.silence is None:  # one comes with the others
        return None
    samples = FRAMES * SAMPLE_RATE // FPS
    t = np.arange(samples) / SAMPLE_RATE
    phase = rng.uniform(0, 2 * np.pi)
    if scene.sound == "whistle":
        wave = np.sin(2 * np.pi * rng.uniform(1700, 2300) * t + 3 * np.sin(2 * np.pi * 6 * t) + phase)
    elif scene.sound == "hum":
        pitch = rng.uniform(110, 160)
        wave = sum(np.sin(2 * np.pi * k * pitch * t + phase * k) / k for k in (1, 2, 3)) / 1.5
    elif scene.sound == "hiss":
        wave = np.diff(rng.normal(0, 0.35, samples + 1))
    else:
        low, period = rng.uniform(500, 600), 0.8
        glide = low * (1 + np.abs((t / period + phase) % 1 * 2 - 1))  # up and down by an octave
        wave = np.sin(2 * np.pi * np.cumsum(glide) / SAMPLE_RATE)
    wave = wave * _beat(scene.rhythm, t, rng)
    wave[_third(scene.silence, samples)] = 0
    wave = wave * rng.uniform(0.2, 0.5) + rng.normal(0, 0.002, samples)
    heard: Array = np.clip(wave, -1, 1).astype(np.float32)
    return heard


def _beat(rhythm: str, t: npt.NDArray[np.float64], rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """Loudness over time: held, or pulsing with soft edges of about 5 ms."""
    if rhythm == "steady":
        return np.ones_like(t)
    rate = rng.uniform(2.3, 2.9) if rhythm == "slow" else rng.uniform(6.5, 8.0)
    position = (t * rate + rng.uniform(0, 1)) % 1
    loudness: npt.NDArray[np.float64] = np.clip((0.25 - np.abs(position - 0.5)) / rate / 0.005 + 0.5, 0, 1)
    return loudness


def write_clip(path: Path, frames: npt.NDArray[np.uint8], waveform: Array | None) -> None:
    """Encode h264 (yuv420p) and, where there is one, an aac track; the same input gives the same bytes."""
    reformatter = VideoReformatter()  # one for all frames: a new one costs 0.5 ms each time
    with av.open(str(path), "w", format="mp4") as container:
        container.flags |= av.container.Flags.bitexact.value
        video = container.add_stream(
            "libx264", rate=FPS, options={"preset": "veryfast", "crf": "20", "bf": "0", "threads": "1"}
        )
        video.width = video.height = SIDE
        video.pix_fmt = "yuv420p"
        video.gop_size = KEYFRAME_EVERY
        audio = None
        if waveform is not None:
            audio = container.add_stream(
                "aac", rate=SAMPLE_RATE, layout="mono", options={"b": "48000", "aac_coder": "fast"}
            )
        for picture in frames:
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            container.mux(video.encode(reformatter.reformat(frame, format="yuv420p")))
        container.mux(video.encode())
        if audio is not None and waveform is not None:
            sound = av.AudioFrame.from_ndarray(waveform[None], format="fltp", layout="mono")
            sound.sample_rate, sound.pts = SAMPLE_RATE, 0
            container.mux(audio.encode(sound))
            container.mux(audio.encode())
