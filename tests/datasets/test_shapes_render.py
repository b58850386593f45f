"""Every answer can be read off the encoded file with simple rules that share no code with the renderer."""

from __future__ import annotations

import av
import numpy as np
import pytest

from vtp.data.keys import keyed_generator
from vtp.media import Wanted, read_clip
from vtp.types import MediaRef
from vtp_datasets.shapes.annotations import VERSION, Blueprint
from vtp_datasets.shapes.render import render_frames, render_sound, write_clip
from vtp_datasets.shapes.world import Scene

COLORS = {
    "red": (225, 35, 35),
    "green": (45, 185, 55),
    "blue": (45, 75, 235),
    "yellow": (245, 215, 40),
    "purple": (165, 55, 205),
}
PLACES = {"sea": (20, 95, 110), "snow": (190, 197, 205), "desert": (186, 148, 104), "night": (22, 22, 34)}
THIRDS = ("beginning", "middle", "end")


def decode(path):
    """frames float (T, H, W, 3), waveform (S,) or None, and the streams' properties."""
    frames, sound = [], []
    with av.open(str(path)) as container:
        streams = {s.type: (s.codec_context.name, s) for s in container.streams}
        rate = streams["audio"][1].rate if "audio" in streams else 0
        fps = float(streams["video"][1].average_rate)
        for packet in container.demux():
            for frame in packet.decode():
                (frames if packet.stream.type == "video" else sound).append(frame)
        keys = [i for i, frame in enumerate(frames) if frame.key_frame]
    pictures = np.stack([f.to_ndarray(format="rgb24") for f in frames]).astype(float)
    waveform = np.concatenate([f.to_ndarray() for f in sound], axis=1) if sound else None
    facts = {"codecs": {k: v[0] for k, v in streams.items()}, "rate": rate, "fps": fps, "keys": keys}
    return (
        pictures,
        None if waveform is None else waveform[0],
        facts | {"channels": 0 if waveform is None else len(waveform)},
    )


def near(frame, color, distance):
    return np.linalg.norm(frame - np.array(color), axis=-1) < distance


def look(frames):
    """What is seen, by colour distances, areas and centres."""
    border = np.concatenate([frames[:, :2].mean((1, 2, 3))[:, None], frames[:, -2:].mean((1, 2, 3))[:, None]], 1).mean(
        1
    )
    light = int(np.argmax(border.reshape(3, -1).mean(1)))
    dark = frames[np.arange(len(frames)) // (len(frames) // 3) != light]
    place = max(PLACES, key=lambda name: sum(near(f, PLACES[name], 40).sum() for f in dark))
    seen = [max(COLORS, key=lambda name: near(f, COLORS[name], 70).sum()) for f in frames[[1, -2]]]
    masks = [near(frames[i], COLORS[seen[i > 9]], 70) for i in (1, 4, 7, 10, 13, 16)]
    centres = [np.argwhere(mask).mean(0) for mask in masks]
    step = centres[-1] - centres[0]  # (dy, dx)
    move = ("up" if step[0] < 0 else "down") if abs(step[0]) > abs(step[1]) else ("left" if step[1] < 0 else "right")
    fills = []
    for mask in masks:
        (top, left), (bottom, right) = np.argwhere(mask).min(0), np.argwhere(mask).max(0) + 1
        fills.append(mask.sum() / ((bottom - top) * (right - left)))
    fill = np.median(fills)  # of the bounding box: star 0.39, triangle 0.50, circle 0.79, square 1, less the face
    shape = "star" if fill < 0.43 else "triangle" if fill < 0.6 else "circle" if fill < 0.84 else "square"
    corners = [np.s_[3:14, 3:14], np.s_[3:14, -14:-3], np.s_[-14:-3, 3:14], np.s_[-14:-3, -14:-3]]
    white = (dark.min(-1) > 218).mean(0) > 0.4
    count = ("zero", "one", "two", "three", "four")[sum(white[corner].sum() > 15 for corner in corners)]
    return {"light": THIRDS[light], "place": place, "colors": tuple(seen), "move": move, "shape": shape, "count": count}


def listen(wave, rate):
    """What is heard, by loudness and spectrum."""
    wave = wave[: 2 * rate]
    thirds = wave[: len(wave) // 3 * 3].reshape(3, -1)
    silent = int(np.argmin((thirds**2).mean(1)))
    frame = rate // 100
    loud = np.sqrt((wave[: len(wave) // frame * frame].reshape(-1, frame) ** 2).mean(1))
    loud = loud > 0.35 * np.percentile(loud, 95)
    pulses = (np.diff(loud.astype(int)) == 1).sum() + loud[0]
    share = loud.mean() / (2 / 3)
    rhythm = "steady" if share > 0.85 else "slow" if pulses <= 6 else "fast"
    sounding = wave[: len(loud) * frame].reshape(-1, frame)[loud].ravel()
    power = np.abs(np.fft.rfft(sounding * np.hanning(len(sounding)))) ** 2
    pitch = np.fft.rfftfreq(len(sounding), 1 / rate)
    centre = (pitch * power).sum() / power.sum()
    spread = np.sqrt(((pitch - centre) ** 2 * power).sum() / power.sum())
    timbre = "hiss" if spread > 1200 else "hum" if centre < 400 else "siren" if centre < 1400 else "whistle"
    return {"sound": timbre, "rhythm": rhythm, "silence": THIRDS[silent]}


def test_every_answer_can_be_seen_or_heard(tiny):
    for name, _, _, scene in tiny.blueprint.all_scenes():
        frames, wave, facts = decode(tiny.root / "videos" / f"{name}.mp4")
        found = look(frames)
        if wave is not None:
            found |= listen(wave, facts["rate"])
        assert found == {k: getattr(scene, k) for k in found}, name
        assert (wave is None) == (scene.sound is None)


@pytest.mark.slow
def test_rules_hold_for_many_more_scenes_without_the_codec():
    for index, scene in enumerate(Blueprint("small", 1).scenes("test")):
        rng = np.random.default_rng(index)
        frames = render_frames(scene, rng).astype(float)
        found, wave = look(frames), render_sound(scene, rng)
        if wave is not None:
            found |= listen(wave, 16_000)
        assert found == {k: getattr(scene, k) for k in found}, index


def test_files_are_what_they_are_said_to_be(tiny):
    silent = 0
    for name, _, _, scene in tiny.blueprint.all_scenes():
        frames, wave, facts = decode(tiny.root / "videos" / f"{name}.mp4")
        assert frames.shape == (18, 64, 64, 3) and facts["fps"] == 9
        assert facts["keys"][0] == 0 and np.diff([*facts["keys"], 18]).max() <= 8
        if scene.sound is None:
            silent += 1
            assert facts["codecs"] == {"video": "h264"}
            continue
        assert facts["codecs"] == {"video": "h264", "audio": "aac"}
        assert facts["rate"] == 16_000 and facts["channels"] == 1 and 32_000 <= len(wave) < 32_000 + 3 * 1024
    assert silent >= 1


def test_sound_keeps_its_place_in_the_file(tiny):
    """A codec delays what it encodes; the file must say by how much, or sound and picture fall apart."""
    checked = 0
    for name, split, index, scene in tiny.blueprint.all_scenes():
        if scene.sound != "hiss":  # waves of the others look alike when shifted by a period
            continue
        rng = keyed_generator("shapes", VERSION, 0, split, "clip", index)
        render_frames(scene, rng)
        drawn = render_sound(scene, rng)
        clip = read_clip(MediaRef(str(tiny.root / "videos" / f"{name}.mp4")), Wanted(size=None, sample_rate=16_000))
        middle = drawn[4000:-4000]
        scores = {s: float(np.dot(middle, clip.waveform[0, 4000 + s :][: len(middle)])) for s in range(-1100, 1101)}
        assert abs(max(scores, key=scores.get)) <= 1
        checked += 1
    assert checked >= 2


@pytest.mark.parametrize("sound", [None, "hiss"])
def test_the_same_scene_gives_the_same_bytes(tmp_path, sound):
    scene = Scene(("red", "blue"), "star", "up", "two", "night", "end", sound, sound and "slow", sound and "middle")
    for name in ("a.mp4", "b.mp4"):
        rng = np.random.default_rng(5)
        write_clip(tmp_path / name, render_frames(scene, rng), render_sound(scene, rng))
    assert (tmp_path / "a.mp4").read_bytes() == (tmp_path / "b.mp4").read_bytes()
