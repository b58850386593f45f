"""Looking at a path before it is opened, and reading bytes of a file that is open."""

from __future__ import annotations

import os
import stat

import numpy as np
import numpy.typing as npt

from vtp.media.info import MediaError

__all__ = ["check_source", "fill"]


def check_source(path: str) -> None:
    """Refuse what must not even be opened: a FIFO would block for ever, a device may do anything.

    Raises:
        MediaError: names the cause.
    """
    try:
        status = os.stat(path)
    except FileNotFoundError:
        raise MediaError("no such file", "missing") from None
    except PermissionError:
        raise MediaError("no permission to reach the file", "permission") from None
    except OSError as error:  # a symlink loop, a name that is too long
        raise MediaError(f"cannot be reached: {error.strerror}", "missing") from None
    except ValueError as error:  # a null byte in the name
        raise MediaError(f"not a valid path: {error}", "missing") from None
    if stat.S_ISDIR(status.st_mode):
        raise MediaError("is a directory", "not_a_file")
    if not stat.S_ISREG(status.st_mode):
        raise MediaError("is not a regular file but a pipe, socket or device", "not_a_file")
    if not os.access(path, os.R_OK):
        raise MediaError("no permission to read the file", "permission")
    if status.st_size == 0:
        raise MediaError("the file is empty", "empty")


def fill(block: npt.NDArray[np.uint8], file: int, offset: int) -> bool:
    """Read ``block`` (S,) from ``offset`` of an open file (its descriptor) on; False if the file ends before."""
    done = 0
    while done < len(block):
        got = os.preadv(file, [block[done:].data], offset + done)
        if got == 0:
            return False
        done += got
    return True
