"""What people hand to a model, as samples: paths, spans of files, bytes, arrays."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from vtp.errors import DataError
from vtp.ranges import SampleRate
from vtp.spans import span_name
from vtp.types import MediaRef, Modality, Sample
from vtp.values import fits

__all__ = ["Items", "array_of", "text_of"]

_VIDEO = "a path, (path, start, end) in seconds, the bytes of a file, or frames as uint8 (T, H, W, 3)"
_AUDIO = (
    "a path, (path, start, end) in seconds, the bytes of a file, or (waveform, sample rate) with floats (S,) or "
    "(channels, S) and 1,000 to 384,000 Hz"
)


@dataclass(slots=True)
class Items:
    """A list as samples.

    Attributes:
        samples: their ids are the places in the list.
        names: what each is called in messages, such as ``a.mp4[2-4.5]`` or ``videos[3]``.
        frames, sounds: what is in memory already, by the path of its MediaRef.
    """

    samples: list[Sample] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    frames: dict[str, Any] = field(default_factory=dict)
    sounds: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, modality: Modality, given: Iterable[Any], texts: Sequence[str] | None = None) -> Items:
        """The items of one modality.

        Args:
            modality: of ``given``.
            given: a list of paths, spans, bytes or arrays, or of texts; whatever gives them one by one will do.
            texts: of videos, the text that goes with each.

        Raises:
            DataError: it is no list, or one of them is nothing that can be read.
        """
        key = f"{modality}s"
        # A set has no order, a dict is two lists, and what has more axes than one is an item or a table.
        odd = isinstance(given, (str, bytes, os.PathLike, set, frozenset, Mapping)) or getattr(given, "ndim", 1) != 1
        if odd or not isinstance(given, Iterable):
            raise DataError(f"{key}={_short(given)} must be a list, of one with brackets around it: {key}=[...].")
        items = cls()
        for place, item in enumerate(given):
            items._add(modality, item, f"{key}[{place}]", () if texts is None else (texts[place],))
        return items

    def _add(self, modality: Modality, item: Any, name: str, texts: tuple[str, ...]) -> None:
        number = str(len(self.samples))
        if modality == "text":
            self.names.append(name)
            self.samples.append(Sample(number, texts=(text_of(name, item),)))
            return
        try:
            ref = self._ref(modality, item, f"\0{name}")  # no file has a name with a null byte
        except (TypeError, ValueError, OverflowError):
            expected = _VIDEO if modality == "video" else _AUDIO
            raise DataError(f"{name}={_short(item)} must be {expected}.") from None
        path = ref.path
        known = isinstance(path, str) and not path.startswith("\0")
        self.names.append(span_name(str(path), ref.start, ref.end) if known else name)
        video = ref if modality == "video" else None
        # The sound of a video is that of its file; whether it is read, the model says.
        self.samples.append(Sample(number, video, ref, texts, {}, {"video_id": self.names[-1]}))

    def _ref(self, modality: Modality, item: Any, memory: str) -> MediaRef:
        if isinstance(item, MediaRef):
            return item
        if isinstance(item, bytes):
            return MediaRef(item)
        if isinstance(item, (str, os.PathLike)):
            return MediaRef(os.fsdecode(item))
        if isinstance(item, (tuple, list)) and len(item) == 3 and isinstance(item[0], (str, bytes, os.PathLike)):
            path, *sides = item
            span = [None if side is None else float(side) for side in sides]
            if any(math.isnan(side) for side in span if side is not None):
                raise ValueError
            return MediaRef(path if isinstance(path, bytes) else os.fsdecode(path), *span)
        if modality == "audio":
            waveform, rate = item
            sound = array_of(waveform)
            # (S, channels), as soundfile gives it, would be a sound of a few samples with thousands of channels.
            wrong = (
                sound.dtype.kind != "f" or sound.ndim not in (1, 2) or not sound.size or len(sound) > sound.shape[-1]
            )
            if wrong or not fits(int(rate), SampleRate) or int(rate) != rate:
                raise TypeError
            self.sounds[memory] = sound.astype(np.float32), int(rate)
            return MediaRef(memory)
        frames = array_of(item)
        frames = frames[None] if frames.ndim == 3 else frames
        if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[3] != 3 or 0 in frames.shape:
            raise TypeError
        self.frames[memory] = frames
        return MediaRef(memory)


def text_of(name: str, given: Any) -> str:
    """A text that tokenizers take.

    Raises:
        DataError: it is none.
    """
    if not isinstance(given, str):
        raise DataError(f"{name}={_short(given)} must be a string.")
    try:
        given.encode()
    except UnicodeEncodeError as error:
        half = given[error.start].encode("unicode_escape").decode()
        raise DataError(f"{name} has half a character in it, {half}, which no UTF-8 has. Decode it again.") from None
    return given


def array_of(values: Any) -> npt.NDArray[Any]:
    """An array; of a tensor its values, wherever it lies and whatever made it."""
    if isinstance(values, torch.Tensor):
        values = values.detach().cpu()
        values = values.float() if values.dtype == torch.bfloat16 else values  # which NumPy does not have
    return np.asarray(values)


def _short(value: Any) -> str:
    """On one line, whatever it is."""
    if isinstance(value, (np.ndarray, torch.Tensor)):
        return f"<{value.dtype} {tuple(value.shape)}>"
    if isinstance(value, (list, tuple)) and any(isinstance(one, (np.ndarray, torch.Tensor)) for one in value):
        more = ", ..." if len(value) > 3 else ""
        return f"({', '.join(map(_short, value[:3]))}{more})"
    text = " ".join(repr(value).split())
    return text if len(text) <= 60 else f"{text[:57]}..."
