"""Endings of media files, in lower case with their dot."""

from __future__ import annotations

__all__ = ["IMAGES", "MEDIA", "SOUNDS", "VIDEOS"]


def _endings(names: str) -> frozenset[str]:
    return frozenset(f".{name}" for name in names.split())


VIDEOS = _endings("mp4 avi mkv webm mov mpg mpeg m4v 3gp 3g2 wmv flv ts mts m2ts ogv gif")
SOUNDS = _endings("wav flac mp3 m4a aac ogg opus wma")
IMAGES = _endings("jpg jpeg png bmp webp tif tiff avif heic heif")
MEDIA = VIDEOS | SOUNDS | IMAGES
