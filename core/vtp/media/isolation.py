"""Decoding that can be killed: a process per reader, replaced when a file hangs, crashes or exhausts it.

Native decoders do all three on damaged files, and no exception handler helps. The child is started when it is first
needed, once per process (a DataLoader worker that inherits a reader by fork starts its own), and ends with its owner,
also when that is killed.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import replace
from multiprocessing import util
from multiprocessing.connection import Connection
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from vtp.contracts import Decoder
from vtp.errors import ConfigError, RunError
from vtp.machine import deaf_child
from vtp.media.backends import DEFAULT, find_backend, load_backend
from vtp.media.info import MediaError, MediaInfo
from vtp.media.member import fetch, read_frames, split_member
from vtp.media.request import EVERYTHING, Times, Wanted
from vtp.media.source import fill
from vtp.types import Clip, MediaRef

__all__ = ["MediaReader"]

_START_S = 120.0  # for the interpreter and the libraries of the child; slow network file systems take their time
_Result = TypeVar("_Result")


class MediaReader:
    """Reads clips with one backend, each file within ``timeout_s`` seconds and ``memory_mb`` MiB, whatever is in it.

    Picklable and safe to inherit by fork. One file at a time: threads wait for each other.

    Args:
        backend: a name for :func:`vtp.media.backends.find_backend`.
        timeout_s: a file that takes longer counts as unusable.
        isolate: False decodes in this process: neither limit holds, and a crash of the decoder is ours.
        memory_mb: address space that a file may use on top of the libraries'. No limit where the system has no
            ``/proc``.
    """

    def __init__(
        self, backend: str = "auto", timeout_s: float = 30.0, isolate: bool = True, memory_mb: int = 4096
    ) -> None:
        if timeout_s <= 0 or memory_mb < 64:
            raise ConfigError(
                f"media.timeout_s={timeout_s} must be positive and media.memory_mb={memory_mb} at least 64, "
                "for example media.timeout_s=30 media.memory_mb=4096"
            )
        self.backend = backend
        self.timeout_s = timeout_s
        self.isolate = isolate
        self.memory_mb = memory_mb
        self._target = find_backend(backend)
        self._child: _Child | None = None
        self._forget()

    @property
    def backend_name(self) -> str:
        """What ``auto`` stands for; other names are themselves."""
        return DEFAULT if self.backend == "auto" else self.backend

    def read(self, ref: MediaRef, wanted: Wanted = EVERYTHING) -> Clip:
        """As :func:`vtp.media.read_clip`, within the limits.

        Raises:
            MediaError: also with the kinds ``timeout``, ``crash`` and ``memory``.
            PluginError: if the backend itself does not work.
        """
        member = split_member(ref.path)
        if member is not None and member.is_frames:  # nothing to decode, so nothing to isolate
            return read_frames(member, ref, wanted)
        if not self.isolate:
            return self._in_process().read(fetch(ref), wanted)
        with self._owned():
            answer: Clip = self._ask(("read", ref, replace(wanted, times=None), wanted.times is not None), wanted.times)
            return answer

    def probe(self, ref: MediaRef) -> MediaInfo:
        """As :func:`vtp.media.probe`, within the limits."""
        if not self.isolate:
            return self._in_process().probe(fetch(ref))
        with self._owned():
            answer: MediaInfo = self._ask(("probe", ref), None)
            return answer

    def close(self) -> None:
        """End the child; the next read starts another one. Called at exit and when the reader is collected."""
        if self._child is not None and self._pid == os.getpid():
            self._child.end()
        self._child = None

    def __getstate__(self) -> dict[str, Any]:
        return {
            "backend": self.backend,
            "timeout_s": self.timeout_s,
            "isolate": self.isolate,
            "memory_mb": self.memory_mb,
            "_target": self._target,
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._forget()

    def _forget(self) -> None:
        self._child = None
        self._decoder: Decoder | None = None
        self._pid = os.getpid()
        self._lock = threading.Lock()

    def _in_process(self) -> Decoder:
        if self._decoder is None:
            self._decoder = load_backend(self._target)
        return self._decoder

    def _owned(self) -> threading.Lock:
        """The lock of this process. After a fork the child of our parent is not ours: let go of it without ending
        it."""
        if self._pid != os.getpid():
            if self._child is not None:
                self._child.disown()
            self._forget()
        return self._lock

    def _ask(self, request: tuple[Any, ...], times: Times | None) -> Any:
        if self._child is None or not self._child.alive():
            self.close()
            self._child = _Child(self._target, self.memory_mb, self)
        try:
            return self._child.ask(request, times, time.monotonic() + self.timeout_s)
        except _Broken as broken:
            slow = (f"took longer than media.timeout_s={self.timeout_s:g}", "timeout")
            reason, kind = self._child.post_mortem() if broken.crashed else slow
            backend = self._child.name
            self.close()
            raise MediaError(reason, kind, backend) from None
        except MediaError:
            raise
        except BaseException:  # Ctrl-C, or a mistake in a sampler: an answer may still be under way
            self.close()
            raise


class _Broken(Exception):
    """The child did not answer: it died, or its time is over."""

    def __init__(self, crashed: bool) -> None:
        self.crashed = crashed


class _Child:
    """One decoder process and the three descriptors that we share with it."""

    def __init__(self, target: str, memory_mb: int, owner: object) -> None:
        import socket

        ours, theirs = socket.socketpair()
        self.memory = _anonymous_file()
        self.map: mmap.mmap | None = None
        lifeline, self.lifeline = os.pipe()  # we keep the end that is never written to
        # -P: a Python file in the working folder, which may hold a stranger's data set, is none of ours
        shared = (theirs.fileno(), self.memory, lifeline)
        command = [sys.executable, "-P", "-m", "vtp.media.worker", *map(str, shared)]
        try:
            with deaf_child():
                self.process = subprocess.Popen(
                    command,
                    pass_fds=shared,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.PIPE,
                    env=os.environ | {"PYTHONPATH": os.pathsep.join(p or os.getcwd() for p in sys.path)},
                )
        finally:
            os.close(lifeline)
            theirs.close()
        self.connection = Connection(ours.detach())
        # Runs when the reader is collected, at interpreter exit, and at the exit of a DataLoader worker (which skips
        # atexit).
        self.finalizer = util.Finalize(
            owner, _end, args=(self.process, self.connection, self.memory, self.lifeline), exitpriority=100
        )
        self.name = self._greet(target, memory_mb)

    def _greet(self, target: str, memory_mb: int) -> str:
        try:
            self.connection.send((target, memory_mb))
            if not self.connection.poll(_START_S):
                raise EOFError
            kind, answer = self.connection.recv()
        except (EOFError, OSError):
            self.process.kill()
            assert self.process.stderr is not None
            said = self.process.stderr.read().decode(errors="replace").strip().splitlines()
            self.end()
            raise RunError(
                f"the decoder process does not start: {said[-1] if said else 'it says nothing'}. "
                "media.isolate=false decodes without it, and without protection against files that hang or crash."
            ) from None
        if kind == "error":
            self.end()
            raise answer
        assert self.process.stderr is not None
        self.process.stderr.close()
        name: str = answer
        return name

    def alive(self) -> bool:
        return self.process.poll() is None

    def ask(self, request: tuple[Any, ...], times: Times | None, deadline: float) -> Any:
        """Send a request and wait for its answer, choosing frames in between when the child asks.

        Raises:
            MediaError: as the child reports it.
            _Broken: if it does not answer.
        """
        self._send(request)
        while True:
            kind, answer = self._receive(deadline)
            if kind == "times":
                assert times is not None
                self._send(np.asarray(times(answer)))
            elif kind == "error":
                raise answer
            elif kind == "clip":
                return self._collect(answer)
            else:
                return answer

    def _send(self, message: Any) -> None:
        try:
            self.connection.send(message)
        except OSError:
            raise _Broken(crashed=True) from None

    def _receive(self, deadline: float) -> tuple[str, Any]:
        try:
            if not self.connection.poll(max(deadline - time.monotonic(), 0.0)):
                raise _Broken(crashed=False)
            message: tuple[str, Any] = self.connection.recv()
        except (EOFError, OSError):
            raise _Broken(crashed=True) from None
        return message

    def _collect(self, clip: Clip) -> Clip:
        """Copy the arrays out of the shared memory; ``clip`` holds their shapes."""
        frames, waveform = clip.frames, clip.waveform
        offset = 0
        if frames is not None:
            clip.frames = self._copy(np.uint8, frames, offset)
            offset += clip.frames.nbytes
        if waveform is not None:
            clip.waveform = self._copy(np.float32, waveform, offset)
        return clip

    def _copy(self, dtype: type[np.generic], shape: Any, offset: int) -> npt.NDArray[Any]:
        array: npt.NDArray[Any] = np.empty(shape, dtype)
        if not fill(array.reshape(-1).view(np.uint8), self.memory, offset):
            raise _Broken(crashed=True)
        return array

    def post_mortem(self) -> tuple[str, str]:
        """Why the child is dead: reason and kind."""
        try:
            code = self.process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            return "the decoder process closed its connection", "crash"
        if code == -signal.SIGKILL:
            return "the decoder process was killed from outside (SIGKILL), probably for want of memory", "memory"
        cause = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        return f"the decoder crashed ({cause})", "crash"

    def end(self) -> None:
        """Kill, reap, and give everything back. Safe to call twice."""
        if self.process.stderr is not None:
            self.process.stderr.close()
        self.finalizer()

    def disown(self) -> None:
        """Forget a child that belongs to the process we were forked from."""
        self.finalizer.cancel()
        self.process.returncode = 0  # or its destructor would wait for, and warn about, a process that is not ours
        self.connection.close()
        os.close(self.memory)
        os.close(self.lifeline)


def _end(process: subprocess.Popen[bytes], connection: Connection, memory: int, lifeline: int) -> None:
    process.kill()
    connection.close()
    os.close(memory)
    os.close(lifeline)
    with contextlib.suppress(subprocess.TimeoutExpired):  # it may hang in a read of a dead network disk
        process.wait(timeout=5)
    process.returncode = process.returncode or -signal.SIGKILL


def _anonymous_file() -> int:
    """A descriptor of memory without a name: gone with its last user, and not limited by the size of /dev/shm."""
    if hasattr(os, "memfd_create"):
        return os.memfd_create("vtp-media", os.MFD_CLOEXEC)
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())
