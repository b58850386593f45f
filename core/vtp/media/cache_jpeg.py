"""JPEG by torchvision, which has libjpeg-turbo inside and lets other threads run meanwhile."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torchvision.io import ImageReadMode, decode_jpeg, encode_jpeg

from vtp.media.cache_file import CacheDamage

__all__ = ["QUALITY", "decode", "encode"]

QUALITY = 90

Bytes = npt.NDArray[np.uint8]


def encode(frame: Bytes) -> bytes:
    """One picture (H, W, 3) as JPEG of :data:`QUALITY` with halved colour resolution."""
    picture = torch.from_numpy(np.ascontiguousarray(frame)).permute(2, 0, 1).contiguous()
    data: bytes = encode_jpeg(picture, QUALITY).numpy().tobytes()
    return data


def decode(pictures: Sequence[Bytes], shape: tuple[int, int]) -> Bytes:
    """Pictures of one ``shape`` (H, W) as uint8 (n, H, W, 3).

    Raises: CacheDamage.
    """
    frames = np.empty((len(pictures), *shape, 3), np.uint8)
    for frame, data in zip(frames, pictures, strict=True):
        try:
            picture = decode_jpeg(torch.from_numpy(data), ImageReadMode.RGB)  # (3, H, W)
        except RuntimeError as error:
            raise CacheDamage(f"holds a frame that is no picture: {error}") from None
        if tuple(picture.shape[1:]) != shape:
            raise CacheDamage(f"holds a frame of {tuple(picture.shape[1:])} pixels instead of {shape}")
        frame[...] = picture.permute(1, 2, 0).numpy()
    return frames
