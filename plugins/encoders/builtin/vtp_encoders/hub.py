"""The Hugging Face hub where it cannot be reached: its libraries look in their caches at once, without waiting."""

from __future__ import annotations

import logging
import socket
from functools import cache
from urllib.parse import urlsplit
from urllib.request import getproxies

__all__ = ["settle"]

logger = logging.getLogger(__name__)


@cache
def settle() -> None:
    """Switch the hub's libraries of this process to their offline mode if the name of the hub's host does not resolve.

    Else each of them asks six times within half a minute, per file, before it looks for a copy that was downloaded
    earlier. Nothing changes behind a proxy, which resolves names itself.
    """
    from huggingface_hub import constants

    host = urlsplit(constants.ENDPOINT).hostname
    if constants.is_offline_mode() or getproxies() or host is None:
        return
    try:
        socket.getaddrinfo(host, 443)
    except OSError:
        logger.info("%s does not answer: models are taken from the copies that were downloaded earlier", host)
        constants.HF_HUB_OFFLINE = True
