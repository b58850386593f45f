"""The frames are those that the ffmpeg program gives with ``-fps_mode passthrough``, for the kinds of file that other
readers get wrong. The files are made here, by ffmpeg, from a real clip."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from vtp.errors import PluginError
from vtp.media import MediaError, backends, read_clip
from vtp.types import MediaRef

pytestmark = pytest.mark.data

SOURCE = "msrvtt/video9770.mp4"  # h264 with B-frames, 320x240, 30 frames per second
X264 = ["-c:v", "libx264", "-preset", "ultrafast", "-g", "20"]
# name of the file -> ffmpeg options before the input, options after it. -an: the sound has its own tests.
CASES = {
    "edit_list.mp4": (["-ss", "8.5"], ["-c", "copy"]),  # not a key frame: hidden frames before the start
    "variable_rate.mp4": (["-t", "4"], ["-vf", "select='not(mod(n,5))+not(mod(n,7))'", "-fps_mode", "vfr", *X264]),
    "variable_rate.mkv": (["-t", "4"], ["-vf", "select='lt(n,20)+not(mod(n,9))'", "-fps_mode", "vfr", *X264]),
    "stream.ts": (["-t", "4"], ["-c", "copy"]),
    "cut_stream.ts": (["-ss", "4", "-t", "3"], ["-c", "copy"]),
    "av1.mkv": (["-t", "1"], ["-c:v", "libsvtav1", "-preset", "12", "-g", "15"]),
    "hevc_10_bit.mp4": (["-t", "1"], ["-c:v", "libx265", "-preset", "ultrafast", "-pix_fmt", "yuv420p10le", "-g", "9"]),
    "animation.gif": (["-t", "2"], ["-vf", "fps=10,scale=160:120"]),
}
DEEP = ("10_bit",)  # what swscale makes of 10 bits differs between its versions


@pytest.fixture(scope="module")
def ffmpeg() -> str:
    """The program: of the package imageio-ffmpeg (a test extra), or the system's."""
    try:
        from imageio_ffmpeg import get_ffmpeg_exe

        return str(get_ffmpeg_exe())
    except (ImportError, RuntimeError):
        found = shutil.which("ffmpeg")
        if found is None:
            pytest.skip("neither imageio-ffmpeg nor an ffmpeg program is installed")
        return found


@pytest.fixture(scope="module")
def made(ffmpeg: str, shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The files of ``CASES``, and one whose rotation is a flag."""
    folder = tmp_path_factory.mktemp("made")
    source = str(shared_data / "videos" / SOURCE)
    files = {}
    for name, (before, after) in CASES.items():
        files[name] = folder / name
        run(ffmpeg, [*before, "-i", source, "-an", *after, str(files[name])])
    files["rotated.mp4"] = folder / "rotated.mp4"
    turned = ["-display_rotation", "90", "-t", "2", "-i", source, "-an", "-c", "copy"]
    run(ffmpeg, [*turned, str(files["rotated.mp4"])])
    return files


def run(ffmpeg: str, arguments: list[str]) -> bytes:
    done = subprocess.run([ffmpeg, "-y", "-v", "error", "-threads", "1", *arguments], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


def oracle(ffmpeg: str, path: Path) -> tuple[np.ndarray, np.ndarray]:
    """What ffmpeg shows: frames, and their times in seconds from the first one."""
    command = [ffmpeg, "-v", "info", "-threads", "1", "-i", str(path), "-fps_mode", "passthrough"]
    said = subprocess.run([*command, "-vf", "showinfo", "-f", "null", "-"], capture_output=True, check=True)
    shown = re.findall(r"pts_time:\s*(-?[\d.]+).*? s:(\d+)x(\d+)", said.stderr.decode(errors="replace"))
    width, height = int(shown[0][1]), int(shown[0][2])
    raw = run(ffmpeg, ["-i", str(path), "-fps_mode", "passthrough", "-f", "rawvideo", "-pix_fmt", "rgb24", "-"])
    frames = np.frombuffer(raw, np.uint8).reshape(-1, height, width, 3)
    times = np.array([float(time) for time, *_ in shown])
    assert len(times) == len(frames) > 1
    return frames, times - times[0]


@pytest.mark.parametrize("backend", ["pyav", "torchcodec", "decord"])
@pytest.mark.parametrize("name", [*CASES, "rotated.mp4"])
def test_frames_are_those_of_the_ffmpeg_program(ffmpeg: str, made: dict[str, Path], name: str, backend: str) -> None:
    try:
        backends.load_backend(backends.find_backend(backend))
    except PluginError as error:
        pytest.skip(str(error))
    frames, times = oracle(ffmpeg, made[name])
    try:
        clip = read_clip(MediaRef(str(made[name])), backend=backend)
    except MediaError as error:
        # The others may refuse a file, and say why; they may not show other frames.
        assert backend != "pyav" and error.reason
        pytest.skip(f"refused: {error.reason}")
    assert clip.frames.shape == frames.shape
    np.testing.assert_allclose(clip.timestamps - clip.timestamps[0], times, atol=2e-3)  # Matroska counts milliseconds
    difference = np.abs(clip.frames.astype(np.int16) - frames)
    limit = (4.0, 40) if any(part in name for part in DEEP) else (0.5, 12)
    assert difference.mean(axis=(1, 2, 3)).max() <= limit[0] and difference.max() <= limit[1]
    # a neighbour in the place of any frame would be seen: it differs by more, wherever the picture moves at all
    moved = np.abs(frames[1:].astype(np.int16) - frames[:-1]).mean(axis=(1, 2, 3))
    own = difference.mean(axis=(1, 2, 3))
    moving = np.flatnonzero(moved > limit[0])
    assert len(moving)
    for k in moving:
        assert own[k] < moved[k] and own[k + 1] < moved[k]
