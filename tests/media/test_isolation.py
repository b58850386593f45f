"""Whatever a decoder does to its process, the reader answers in time and goes on."""

from __future__ import annotations

import gc
import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vtp.errors import ConfigError, PluginError
from vtp.media import MediaError, MediaReader, Wanted, backends
from vtp.media.sampling import uniform
from vtp.types import Clip, MediaRef

HERE = Path(__file__).parent


@pytest.fixture
def hostile(monkeypatch: pytest.MonkeyPatch) -> Iterator[MediaReader]:
    monkeypatch.syspath_prepend(str(HERE))
    monkeypatch.setitem(backends.BACKENDS, "hostile", "hostile_decoders:Hostile")
    reader = MediaReader("hostile", timeout_s=2.0, memory_mb=512)
    yield reader
    reader.close()


def child_of(clip: Clip) -> int:
    assert clip.frames is not None
    return int.from_bytes(clip.frames.reshape(-1)[:4].tobytes(), "little")


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


def gone(pid: int, within_s: float = 5.0) -> bool:
    end = time.monotonic() + within_s
    while alive(pid) and time.monotonic() < end:
        time.sleep(0.02)
    return not alive(pid)


@pytest.mark.parametrize(
    "what, kind, reason",
    [
        ("hang", "timeout", "longer than media.timeout_s=2"),
        ("spin", "timeout", "longer than media.timeout_s=2"),
        ("abort", "crash", "SIGABRT"),
        ("exit", "crash", "exit code 7"),
        ("kill", "memory", "killed from outside"),
    ],
)
def test_a_decoder_that_dies_or_hangs_is_replaced(hostile: MediaReader, what: str, kind: str, reason: str) -> None:
    first = child_of(hostile.read(MediaRef("fine")))
    started = time.monotonic()
    with pytest.raises(MediaError, match=reason) as caught:
        hostile.read(MediaRef(what))
    assert (caught.value.kind, caught.value.backend) == (kind, "hostile")
    assert time.monotonic() - started < 10
    assert gone(first)
    second = child_of(hostile.read(MediaRef("fine")))
    assert second not in (first, os.getpid())


@pytest.mark.parametrize(
    "what, kind, reason",
    [
        ("memory", "memory", "more memory"),
        ("raise", "invalid", "UnicodeDecodeError"),
        ("refuse", "no_video", "no video"),
    ],
)
def test_a_decoder_that_reports_its_failure_is_kept(hostile: MediaReader, what: str, kind: str, reason: str) -> None:
    first = child_of(hostile.read(MediaRef("fine")))
    with pytest.raises(MediaError, match=reason) as caught:
        hostile.read(MediaRef(what))
    assert (caught.value.kind, caught.value.backend) == (kind, "hostile")
    assert child_of(hostile.read(MediaRef("fine"))) == first


def test_frames_and_sound_of_any_size_come_through(hostile: MediaReader) -> None:
    hostile.timeout_s = 30
    for _ in range(2):
        clip = hostile.read(MediaRef("big"))
        assert clip.frames.shape == (100, 512, 512, 3) and (clip.frames == 7).all() and clip.waveform is None
        clip = hostile.read(MediaRef("fine"))
        np.testing.assert_array_equal(clip.waveform, np.arange(5, dtype=np.float32)[None])
        assert hostile._child is not None and os.fstat(hostile._child.memory).st_size < 1000  # given back
        assert clip.frames.flags.writeable and clip.timestamps.tolist() == [0.0]


@pytest.mark.data
def test_a_mistake_in_a_sampler_is_not_hidden(shared_data: Path) -> None:
    reader = MediaReader()
    ref = MediaRef(str(shared_data / "videos/decoder/h265_video.mp4"))
    with pytest.raises(ZeroDivisionError):
        reader.read(ref, Wanted(times=lambda info: 1 / 0))
    assert reader.read(ref, Wanted(times=partial(uniform, frames=2))).frames.shape == (2, 128, 128, 3)
    reader.close()


@pytest.mark.data
def test_reading_in_the_child_gives_what_reading_here_gives(shared_data: Path) -> None:
    reader, here = MediaReader(), MediaReader(isolate=False)
    for name in ("msrvtt/video9770.mp4", "decoder/var_fps_video.mp4"):
        ref = MediaRef(str(shared_data / "videos" / name), 0.5, 3.0)
        there = reader.read(ref, Wanted(times=partial(uniform, frames=5), size=48, sample_rate=16000))
        local = here.read(ref, Wanted(times=partial(uniform, frames=5), size=48, sample_rate=16000))
        np.testing.assert_array_equal(there.frames, local.frames)
        np.testing.assert_array_equal(there.timestamps, local.timestamps)
        assert there.missing == local.missing and there.sample_rate == local.sample_rate
        if local.waveform is not None:
            np.testing.assert_array_equal(there.waveform, local.waveform)
        assert repr(reader.probe(ref)) == repr(here.probe(ref))
    reader.close()


def test_a_fifo_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.mp4")
    reader = MediaReader(timeout_s=20)
    started = time.monotonic()
    for path, reason in (
        (tmp_path / "pipe.mp4", "pipe, socket or device"),
        (Path("/dev/zero"), "pipe, socket or device"),
    ):
        with pytest.raises(MediaError, match=reason):
            reader.read(MediaRef(str(path)))
    assert time.monotonic() - started < 15
    reader.close()


def test_a_file_without_permission_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "secret.mp4"
    path.write_bytes(b"x")
    monkeypatch.setattr("vtp.media.source.os.access", lambda path, mode: False)  # root may read everything
    with pytest.raises(MediaError, match="no permission") as caught:
        MediaReader(isolate=False).read(MediaRef(str(path)))
    assert caught.value.kind == "permission"


def test_a_backend_without_its_library_is_not_the_files_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(HERE))
    monkeypatch.setitem(backends.BACKENDS, "broken", "hostile_decoders:Broken")
    for isolate in (True, False):
        with pytest.raises(PluginError, match=r"hostile_decoders:Broken cannot be used: ImportError: libnothing"):
            MediaReader("broken", isolate=isolate).read(MediaRef("x"))


def test_wrong_options_are_told_at_once() -> None:
    with pytest.raises(ConfigError, match=r"media.backend=ffmpegg: .*auto, pyav, torchcodec, decord"):
        MediaReader("ffmpegg")
    with pytest.raises(ConfigError, match="timeout_s=0"):
        MediaReader(timeout_s=0)


def test_a_reader_travels_without_its_child(hostile: MediaReader) -> None:
    pid = child_of(hostile.read(MediaRef("fine")))
    copy = pickle.loads(pickle.dumps(hostile))
    assert child_of(copy.read(MediaRef("fine"))) != pid
    assert child_of(hostile.read(MediaRef("fine"))) == pid
    other = child_of(copy.read(MediaRef("fine")))
    del copy
    gc.collect()
    assert gone(other)


def _read_in_fork(reader: MediaReader, pids: multiprocessing.SimpleQueue[int]) -> None:
    pids.put(child_of(reader.read(MediaRef("fine"))))


def test_a_forked_process_starts_its_own_child_and_takes_it_along(hostile: MediaReader) -> None:
    mine = child_of(hostile.read(MediaRef("fine")))
    context = multiprocessing.get_context("fork")
    pids: multiprocessing.SimpleQueue[int] = context.SimpleQueue()
    process = context.Process(target=_read_in_fork, args=(hostile, pids))
    process.start()
    theirs = pids.get()
    process.join(10)
    assert process.exitcode == 0 and theirs != mine
    assert gone(theirs)
    assert child_of(hostile.read(MediaRef("fine"))) == mine


def test_a_child_that_is_just_starting_leaves_signals_to_its_owner(
    hostile: MediaReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Signalled(subprocess.Popen[bytes]):
        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **options)
            for number in (signal.SIGTERM, signal.SIGINT):
                self.send_signal(number)

    monkeypatch.setattr(subprocess, "Popen", Signalled)
    assert child_of(hostile.read(MediaRef("fine"))) != os.getpid()


OWNER = """
import sys, time
sys.path.insert(0, sys.argv[1])
from vtp.media import MediaReader, backends
from vtp.types import MediaRef
backends.BACKENDS["hostile"] = "hostile_decoders:Hostile"
reader = MediaReader("hostile", timeout_s=600)
clip = reader.read(MediaRef("fine"))
print(int.from_bytes(clip.frames.reshape(-1)[:4].tobytes(), "little"), flush=True)
if sys.argv[2] == "spin":
    reader.read(MediaRef("spin"))
"""


@pytest.mark.parametrize("busy", ["idle", "spin"])
def test_a_child_does_not_outlive_its_owner(busy: str) -> None:
    """Also when the owner is killed without notice while the child runs an endless loop."""
    owner = subprocess.Popen([sys.executable, "-c", OWNER, str(HERE), busy], stdout=subprocess.PIPE, text=True)
    assert owner.stdout is not None
    pid = int(owner.stdout.readline())
    if busy == "spin":
        time.sleep(0.3)
        assert alive(pid)
        owner.send_signal(signal.SIGKILL)
    assert owner.wait(20) == (-signal.SIGKILL if busy == "spin" else 0)
    owner.stdout.close()
    assert gone(pid)


@pytest.mark.data
@pytest.mark.slow
def test_500_opens_do_not_grow_memory(shared_data: Path) -> None:
    ref = MediaRef(str(shared_data / "videos/msrvtt/video9770.mp4"))
    reader = MediaReader()

    def resident() -> float:
        assert reader._child is not None
        pids = (os.getpid(), reader._child.process.pid)
        return sum(int(Path(f"/proc/{pid}/statm").read_text().split()[1]) for pid in pids) * 4096 / 2**20

    def read() -> None:
        reader.read(ref, Wanted(times=partial(uniform, frames=2), size=64, sample_rate=16000))

    for _ in range(50):
        read()
    before, descriptors = resident(), len(os.listdir("/proc/self/fd"))
    for _ in range(500):
        read()
    assert resident() - before < 20
    assert len(os.listdir("/proc/self/fd")) == descriptors
    reader.close()
