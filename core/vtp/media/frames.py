"""What is done to frames and sound that are stored decoded: scaling and resampling."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["resample", "resize"]


def resize(frames: npt.NDArray[np.uint8], shape: tuple[int, int]) -> npt.NDArray[np.uint8]:
    """uint8 (T, H, W, 3) at ``shape`` (height, width), bilinear with antialiasing; the same array if it has it."""
    if frames.shape[1:3] == shape or not len(frames):
        return frames
    import torch
    from torchvision.transforms.v2 import functional

    clip = functional.resize(torch.from_numpy(frames).permute(0, 3, 1, 2), list(shape), antialias=True)
    return np.asarray(clip.permute(0, 2, 3, 1).contiguous().numpy(), np.uint8)


def resample(waveform: npt.NDArray[np.float32], source: int, rate: int) -> npt.NDArray[np.float32]:
    """One channel (S,) of ``source`` Hz at ``rate`` Hz."""
    if rate == source:
        return waveform
    import av

    resampler = av.AudioResampler(format="fltp", layout="mono", rate=rate)
    piece = av.AudioFrame.from_ndarray(waveform[None], format="fltp", layout="mono")
    piece.sample_rate = source
    return np.concatenate([f.to_ndarray()[0] for part in (piece, None) for f in resampler.resample(part)])
