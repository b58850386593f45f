"""Looking at a path before it is opened."""

from __future__ import annotations

import os
import stat

from vtp.media.info import VideoError

__all__ = ["check_source"]


def check_source(path: str) -> None:
    """Refuse what must not even be opened: a FIFO would block for ever, a device may do anything.

    Raises: VideoError that names the cause.
    """
    try:
        status = os.stat(path)
    except FileNotFoundError:
        raise VideoError("no such file", "missing") from None
    except PermissionError:
        raise VideoError("no permission to reach the file", "permission") from None
    except OSError as error:  # a symlink loop, a name that is too long
        raise VideoError(f"cannot be reached: {error.strerror}", "missing") from None
    except ValueError as error:  # a null byte in the name
        raise VideoError(f"not a valid path: {error}", "missing") from None
    if stat.S_ISDIR(status.st_mode):
        raise VideoError("is a directory", "not_a_file")
    if not stat.S_ISREG(status.st_mode):
        raise VideoError("is not a regular file but a pipe, socket or device", "not_a_file")
    if not os.access(path, os.R_OK):
        raise VideoError("no permission to read the file", "permission")
    if status.st_size == 0:
        raise VideoError("the file is empty", "empty")
