"""Looking at a path before it is opened."""

from __future__ import annotations

import os
import stat

from vtp.media.info import MediaError

__all__ = ["check_source"]


def check_source(path: str) -> None:
    """Refuse what must not even be opened: a FIFO would block for ever, a device may do anything.

    Raises: MediaError that names the cause.
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
