"""What stands beside a model about the pictures that it takes, in the words of transformers and timm: written once, for
every encoder.

    {"size": {"shortest_edge": 224}, "crop_size": {...}, "image_mean": [...]}    the middle is cut out
    {"size": {"height": 224, "width": 224}, "do_normalize": false}               the whole is squeezed
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, Literal

from vtp.types import VideoSpec

__all__ = ["as_trained", "largest_square", "triple"]


_RESAMPLING: dict[int, Literal["bilinear", "bicubic"]] = {2: "bilinear", 3: "bicubic"}  # numbers of Pillow


def triple(values: Iterable[Any]) -> tuple[float, float, float]:
    """A mean or standard deviation per colour, red first."""
    r, g, b = (float(v) for v in values)
    return r, g, b


def as_trained(spec: VideoSpec, settings: Mapping[str, Any] | None) -> VideoSpec:
    """``spec`` with mean, standard deviation, shape and scaling of the picture as the settings of a preprocessing say.

    Args:
        spec: frames and size, which the architecture fixes.
        settings: what ``to_dict()`` of an image or video processor of transformers gives; None where a model has none.
    """
    if settings is None:
        return spec
    mean, std = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    if settings.get("do_normalize", True):
        mean = triple(settings.get("image_mean") or spec.mean)
        std = triple(settings.get("image_std") or spec.std)
    size = settings.get("size")
    whole = isinstance(size, Mapping) and bool(size.get("height")) and bool(size.get("width"))
    resized, cropped = settings.get("do_resize", True), settings.get("do_center_crop", False)
    resample: Literal["decoder", "bilinear", "bicubic"] = "decoder"
    if resized and (number := int(settings.get("resample") or 0)) in _RESAMPLING:
        resample = _RESAMPLING[number]
    return replace(spec, mean=mean, std=std, squeeze=bool(whole and resized and not cropped), resample=resample)


def largest_square(settings: Mapping[str, Any], frames: int, step: int) -> int:
    """Side of the largest square frames that settings allow which bound the pixels of a whole clip, and those of a
    frame by the tokens that it may become, as Qwen-VL's do::

        {"size": {"shortest_edge": 4096, "longest_edge": 25165824}, "max_video_tokens": 768}

    Args:
        settings: what ``to_dict()`` of the video processor gives; both bounds are numbers of pixels, not sides.
        frames: T.
        step: pixels per token and axis, of which the side is a multiple.
    """
    tokens = int(settings.get("max_video_tokens") or 768)  # what the models were trained with where nothing is said
    pixels = min(int(settings["size"]["longest_edge"]) // frames, tokens * step**2)
    return max(math.isqrt(pixels) // step, 1) * step
