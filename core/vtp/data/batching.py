"""From decoded examples to one batch: padding, and which rows have which modality."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import get_worker_info

from vtp.contracts import Read
from vtp.data.fields import collate_field
from vtp.errors import DataError
from vtp.types import IGNORE, AudioSpec, Batch, Modality, TextSpec, VideoSpec

__all__ = ["Example", "collate"]

_scratch: list[Tensor] = []  # of this worker


@dataclass(slots=True)
class Example:
    """One sample after decoding, sampling, augmentation and tokenising; what a worker hands to :func:`collate`.

    Attributes:
        id: of the sample.
        frames: uint8 (T, H, W, 3), or (V, T, H, W, 3) with V views; None where the sample has no picture.
        waveform: float32 (S,), at most ``AudioSpec.samples`` long; None where it has no sound.
        token_ids: of the chosen text, without padding; None where it has no text.
        labels: name -> number, or list of numbers, as long in every example.
        extra: what is carried along as Python objects: the clip, the chosen text, what objectives and the task read.
        fields: what becomes a tensor of ``batch.fields``, as the sample has it.
        missing: modality -> reason, for what the sample names but the file does not have.
        media: equal for examples whose frames and waveform are the same, None where nothing is known. Neighbours in a
            batch with equal ``media`` are stored, and encoded, once.
    """

    id: str
    frames: npt.NDArray[np.uint8] | None = None
    waveform: npt.NDArray[np.float32] | None = None
    token_ids: Sequence[int] | None = None
    labels: Mapping[str, Any] = field(default_factory=dict)
    extra: Mapping[str, Any] = field(default_factory=dict)
    missing: Mapping[str, str] = field(default_factory=dict)
    media: Hashable = None
    fields: Mapping[str, Any] = field(default_factory=dict)


def collate(
    examples: Sequence[Example],
    specs: Mapping[Modality, VideoSpec | AudioSpec | TextSpec],
    views: int = 1,
    fields: Mapping[str, Read] | None = None,
) -> Batch:
    """Stack examples. Every modality of ``specs`` is in the batch, also when no row has it, so that shapes do not
    depend on luck; ``views`` clips per row, where there are several. ``fields`` are those of examples that become
    tensors.

    Texts are padded to the longest of the batch, sound to ``AudioSpec.samples``. Rows that lack a modality hold zeros
    (``pad_id`` for text) and have ``present`` False; encoders turn that into all-False token masks.
    """
    batch = Batch(ids=[example.id for example in examples], inputs={}, present={})
    media_rows = _media_rows(examples)
    clips = [examples[media_rows.index(row)] for row in range(media_rows[-1] + 1)]
    if len(clips) < len(examples):
        batch.media_rows = media_rows
    for modality, spec in specs.items():
        if isinstance(spec, TextSpec):
            batch.inputs[modality], present = _text(examples, spec)
        else:
            inputs, present = _video(clips, spec, views) if isinstance(spec, VideoSpec) else _audio(clips, spec)
            batch.inputs[modality], present = inputs, [present[row] for row in media_rows]
        batch.present[modality] = torch.tensor(present, dtype=torch.bool)
    for name in sorted({name for example in examples for name in example.labels}):
        batch.labels[name] = _labels(name, examples)
    for name in sorted({name for example in examples for name in example.extra}):
        batch.extra[name] = [example.extra.get(name) for example in examples]
    if any(example.missing for example in examples):
        batch.extra["missing"] = [dict(example.missing) for example in examples]
    for name, read in (fields or {}).items():
        batch.fields |= collate_field(name, read, [example.fields.get(name) for example in examples], batch.ids)
    return batch


def _media_rows(examples: Sequence[Example]) -> list[int]:
    """Which stored clip each example uses: neighbours about the same media share one."""
    rows = [0]
    for before, example in pairwise(examples):
        same = example.media is not None and example.media == before.media
        rows.append(rows[-1] + (not same))
    return rows


def _video(examples: Sequence[Example], spec: VideoSpec, views: int) -> tuple[dict[str, Tensor], list[bool]]:
    none = (*((views,) if views > 1 else ()), spec.frames, spec.size, spec.size, 3)
    shape = next((e.frames.shape for e in examples if e.frames is not None), none)
    frames = _empty(len(examples), *shape)
    for row, example in zip(frames.numpy(), examples, strict=True):
        row[...] = 0 if example.frames is None else example.frames  # frames may be a view: this is their only copy
    return {"frames": frames}, [example.frames is not None for example in examples]


def _empty(*shape: int) -> Tensor:
    """uint8, uninitialised. A loader's worker sends a batch away before it makes the next, so it uses the same memory
    again: fresh pages would cost as much as filling them."""
    if get_worker_info() is None:
        return torch.empty(shape, dtype=torch.uint8)
    size = math.prod(shape)
    if len(_scratch) != 1 or len(_scratch[0]) < size:
        _scratch[:] = [torch.empty(size, dtype=torch.uint8)]
    return _scratch[0][:size].view(shape)


def _audio(examples: Sequence[Example], spec: AudioSpec) -> tuple[dict[str, Tensor], list[bool]]:
    waveform = torch.zeros(len(examples), spec.samples)
    lengths = torch.zeros(len(examples), dtype=torch.int64)
    for row, example in enumerate(examples):
        if example.waveform is not None:
            sound = torch.from_numpy(np.ascontiguousarray(example.waveform[: spec.samples]))
            waveform[row, : len(sound)] = sound
            lengths[row] = len(sound)
    return {"waveform": waveform, "lengths": lengths}, [example.waveform is not None for example in examples]


def _text(examples: Sequence[Example], spec: TextSpec) -> tuple[dict[str, Tensor], list[bool]]:
    longest = max((len(e.token_ids) for e in examples if e.token_ids is not None), default=1)
    token_ids = np.full((len(examples), max(longest, 1)), spec.pad_id, np.int64)
    attention_mask = np.zeros(token_ids.shape, np.bool_)
    for row, example in enumerate(examples):
        if example.token_ids is not None:
            token_ids[row, : len(example.token_ids)] = example.token_ids
            attention_mask[row, : len(example.token_ids)] = True
    inputs = {"token_ids": torch.from_numpy(token_ids), "attention_mask": torch.from_numpy(attention_mask)}
    return inputs, [e.token_ids is not None for e in examples]


def _labels(name: str, examples: Sequence[Example]) -> Tensor:
    """B rows of one label; rows without it are -100 (integers) or NaN (floats)."""
    values = [example.labels.get(name) for example in examples]
    if all(type(value) is int for value in values):  # the usual case, in a fraction of the time
        return torch.tensor(values, dtype=torch.int64)
    known = [value for value in values if value is not None]
    shape = np.shape(known[0])
    other = next((e for e in examples if e.labels.get(name) is not None and np.shape(e.labels[name]) != shape), None)
    if other is not None:
        raise DataError(
            f"the label {name!r} of the sample {other.id!r} has shape {np.shape(other.labels[name])}, that of others "
            f"{shape}: Task.labels must give a number, or a list of one length, for every sample."
        )
    whole = all(np.issubdtype(np.asarray(value).dtype, np.integer) or isinstance(value, bool) for value in known)
    filler = np.full(shape, IGNORE if whole else np.nan)
    rows = np.stack([filler if value is None else np.asarray(value) for value in values])
    return torch.from_numpy(rows.astype(np.int64 if whole else np.float32))
