"""Decoding of video and sound, frame sampling, transforms. Importing it imports neither torch nor av."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vtp.media.backends import probe as probe
    from vtp.media.backends import read_clip as read_clip
    from vtp.media.info import AudioInfo as AudioInfo
    from vtp.media.info import MediaError as MediaError
    from vtp.media.info import MediaInfo as MediaInfo
    from vtp.media.info import VideoInfo as VideoInfo
    from vtp.media.isolation import MediaReader as MediaReader
    from vtp.media.request import Wanted as Wanted

_LAZY = {
    "AudioInfo": "vtp.media.info",
    "MediaError": "vtp.media.info",
    "MediaInfo": "vtp.media.info",
    "MediaReader": "vtp.media.isolation",
    "VideoInfo": "vtp.media.info",
    "Wanted": "vtp.media.request",
    "probe": "vtp.media.backends",
    "read_clip": "vtp.media.backends",
}

__all__ = ["AudioInfo", "MediaError", "MediaInfo", "MediaReader", "VideoInfo", "Wanted", "probe", "read_clip"]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'vtp.media' has no attribute {name!r}")
