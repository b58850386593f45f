"""The process in which files are decoded: ``python -m vtp.media.worker CONNECTION MEMORY LIFELINE`` (file descriptors).

It imports av and numpy, no torch. It reads requests from a socket and answers there; frames and sound travel through
anonymous shared memory, which has no name and therefore cannot be left behind. Whatever a file does to it, the parent
can kill it and start another one.
"""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import os
import resource
import signal
import sys
from dataclasses import replace
from functools import partial
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
import numpy.typing as npt

from vtp.contracts import Decoder
from vtp.errors import VtpError
from vtp.machine import ignore_stopping, keep_memory
from vtp.media.backends import load_backend
from vtp.media.info import MediaError, VideoInfo
from vtp.media.member import fetch
from vtp.types import Clip

__all__ = ["main"]

_KEEP_BYTES = 64 << 20  # a larger shared block is given back after the file that needed it


def main() -> None:
    """Serve requests until the parent closes the connection."""
    connection, lifeline = Connection(int(sys.argv[1])), int(sys.argv[3])
    _die_with_parent(lifeline)
    target, memory_mb = connection.recv()
    try:
        decoder = load_backend(target)
        keep_memory()
        _limit_memory(memory_mb)
    except VtpError as error:
        connection.send(("error", error))
        return
    connection.send(("ready", decoder.name))
    with contextlib.suppress(OSError):  # what native libraries print belongs to no one
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    block = _Block(int(sys.argv[2]))
    while True:
        try:
            request = connection.recv()
        except EOFError:
            return
        connection.send(_serve(connection, decoder, block, request))


def _serve(connection: Connection, decoder: Decoder, block: _Block, request: tuple[Any, ...]) -> tuple[str, Any]:
    try:
        if request[0] == "probe":
            return "info", decoder.probe(fetch(request[1]))
        _, ref, wanted, chosen = request
        if chosen:
            wanted = replace(wanted, times=partial(_ask_for_times, connection))
        block.shrink()
        return "clip", block.write(decoder.read(fetch(ref), wanted))
    except MediaError as error:
        error.backend = error.backend or decoder.name
        return "error", error
    except MemoryError:
        return "error", MediaError("needs more memory than a file is allowed to use", "memory", decoder.name)
    except Exception as error:
        return "error", MediaError(f"damaged: {type(error).__name__}: {error}", "invalid", decoder.name)


def _ask_for_times(connection: Connection, info: VideoInfo) -> npt.NDArray[Any]:
    connection.send(("times", info))  # the parent has the sampler, which need not be picklable
    picks: npt.NDArray[Any] = connection.recv()
    return picks


class _Block:
    """The shared memory, seen from this side: grows with the largest clip."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self.map: mmap.mmap | None = None

    def write(self, clip: Clip) -> Clip:
        """Move the arrays of ``clip`` here; what is returned describes them: (shape,) in place of frames and of
        waveform."""
        arrays = [a for a in (clip.frames, clip.waveform) if a is not None]
        need = sum(a.nbytes for a in arrays)
        if need and (self.map is None or len(self.map) < need):
            if self.map is not None:
                self.map.close()
            os.ftruncate(self.descriptor, need)
            self.map = mmap.mmap(self.descriptor, need)
        offset = 0
        for array in arrays:
            assert self.map is not None
            place = np.frombuffer(self.map, array.dtype, array.size, offset)
            place[:] = array.reshape(-1)
            offset += array.nbytes
        described: Any = clip
        described.frames = None if clip.frames is None else clip.frames.shape
        described.waveform = None if clip.waveform is None else clip.waveform.shape
        return clip

    def shrink(self) -> None:
        if self.map is not None and len(self.map) > _KEEP_BYTES:
            self.map.close()
            self.map = None
            os.ftruncate(self.descriptor, 0)


def _die_with_parent(lifeline: int) -> None:
    """The parent holds the other end of this pipe. When it dies, however it dies, the kernel ends us with SIGIO, also
    in the middle of a decoder's endless loop. Signals to the process group are the parent's to handle."""
    ignore_stopping()
    signal.signal(signal.SIGIO, signal.SIG_DFL)
    fcntl.fcntl(lifeline, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(lifeline, fcntl.F_SETFL, fcntl.fcntl(lifeline, fcntl.F_GETFL) | os.O_ASYNC)


def _limit_memory(memory_mb: int) -> None:
    """Let the address space grow by ``memory_mb`` from what the libraries took."""
    try:
        with open("/proc/self/statm") as file:
            used = int(file.read().split()[0]) * resource.getpagesize()
    except OSError:
        return  # no such limit on this system
    resource.setrlimit(resource.RLIMIT_AS, (used + (memory_mb << 20),) * 2)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # thousands of core files would fill the disk


if __name__ == "__main__":
    main()
