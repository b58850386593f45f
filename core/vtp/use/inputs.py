"""What people hand to a model, as samples: paths, spans of files, bytes, arrays."""

from __future__ import annotations

import os
from collections.abc import Sequence, Sized
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from vtp.errors import DataError
from vtp.spans import span_name
from vtp.types import MediaRef, Modality, Sample

__all__ = ["Items"]

_VIDEO = "a path, (path, start, end) in seconds, the bytes of a file, or frames as uint8 (T, H, W, 3)"
_AUDIO = "a path, (path, start, end) in seconds, the bytes of a file, or (waveform, sample rate) with floats (S,)"


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
    def of(cls, modality: Modality, given: Sequence[Any], texts: Sequence[str] | None = None) -> Items:
        """The items of one modality.

        Args:
            modality: of ``given``.
            given: a list of paths, spans, bytes or arrays, or of texts.
            texts: of videos, the text that goes with each.

        Raises:
            DataError: it is no list, or one of them is nothing that can be read.
        """
        key = f"{modality}s"
        if isinstance(given, (str, bytes, os.PathLike, np.ndarray)) or not isinstance(given, Sized):
            raise DataError(f"{key}={_short(given)} must be a list, of one with brackets around it: {key}=[...].")
        items = cls()
        for place in range(len(given)):
            items._add(modality, given[place], f"{key}[{place}]", () if texts is None else (texts[place],))
        return items

    def _add(self, modality: Modality, item: Any, name: str, texts: tuple[str, ...]) -> None:
        number = str(len(self.samples))
        if modality == "text":
            if not isinstance(item, str):
                raise DataError(f"{name}={_short(item)} must be a string.")
            self.names.append(name)
            self.samples.append(Sample(number, texts=(item,)))
            return
        try:
            ref = self._ref(modality, item, f"\0{name}")  # no file has a name with a null byte
        except (TypeError, ValueError):
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
        if isinstance(item, (tuple, list)) and len(item) == 3:
            path, start, end = item
            span = (None if side is None else float(side) for side in (start, end))
            return MediaRef(path if isinstance(path, bytes) else os.fsdecode(path), *span)
        if modality == "audio":
            waveform, rate = item
            sound = np.asarray(waveform)
            if sound.dtype.kind != "f" or sound.ndim not in (1, 2) or not sound.size or int(rate) < 1:
                raise TypeError
            self.sounds[memory] = sound.astype(np.float32), int(rate)
            return MediaRef(memory)
        frames = np.asarray(item)
        frames = frames[None] if frames.ndim == 3 else frames
        if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[3] != 3 or 0 in frames.shape:
            raise TypeError
        self.frames[memory] = frames
        return MediaRef(memory)


def _short(value: Any) -> str:
    if isinstance(value, np.ndarray):
        return f"<{value.dtype} {tuple(value.shape)}>"
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
