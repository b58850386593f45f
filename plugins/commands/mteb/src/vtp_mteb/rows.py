"""Rows of mteb's data sets as what :meth:`vtp.Model.encode` reads.

    column of a row                             item
    text     str                                as it is
    video    file, undecoded                    its path or its bytes: frames are chosen as in an evaluation of vtp
             torchcodec decoder                 the file behind it, else all of its frames
             uint8 (T, 3, H, W)                 frames (T, H, W, 3)
    image    picture of PIL                     a video of one frame
    audio    file, undecoded                    its path or its bytes
             {"array", "sampling_rate"}         samples and their rate
             torchcodec decoder                 the file behind it, else all of its samples

mteb would decode files with torchcodec. They are handed to vtp as they lie instead, so that a model sees of a file what
it sees of it in vtp, and torchcodec need not be there.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from vtp.errors import DataError
from vtp.types import Modality

__all__ = ["COLUMNS", "item", "undecoded"]

# column -> the modality of vtp that reads it
COLUMNS: dict[str, Modality] = {"video": "video", "image": "video", "audio": "audio", "text": "text"}


def undecoded(inputs: Any) -> Iterable[Mapping[str, Any]]:
    """The batches of a ``DataLoader`` of mteb, with files in place of decoders."""
    import datasets
    from torch.utils.data import DataLoader

    rows = getattr(inputs, "dataset", None)
    if not isinstance(rows, datasets.Dataset):
        return inputs  # type: ignore[no-any-return]
    whole = rows
    for column in ("video", "audio"):
        feature = whole.features.get(column)
        if isinstance(feature, (datasets.Video, datasets.Audio)) and feature.decode:
            whole = whole.cast_column(column, type(feature)(decode=False))
    if whole is rows:
        return inputs  # type: ignore[no-any-return]
    return DataLoader(whole, batch_size=inputs.batch_size, collate_fn=inputs.collate_fn)


def item(column: str, value: Any) -> Any:
    """One value of a column as an item of ``encode``.

    Raises:
        DataError: it is nothing that can be read.
    """
    if column == "text":
        return str(value)
    if column == "audio" and isinstance(value, Mapping) and value.get("array") is not None:
        return np.asarray(value["array"], np.float32), int(value["sampling_rate"])
    if (file := _file(value)) is not None:
        return file
    if column == "image" and hasattr(value, "convert"):
        return np.asarray(value.convert("RGB"))[None]
    if column == "audio" and hasattr(value, "get_all_samples"):
        samples = value.get_all_samples()
        return np.asarray(samples.data, np.float32), int(samples.sample_rate)
    if column != "audio":
        frames = value[:] if hasattr(value, "get_frames_at") else value
        if hasattr(frames, "ndim") and frames.ndim in (3, 4):
            found = np.asarray(frames)
            return np.moveaxis(found, -3, -1) if found.shape[-1] != 3 else found
    raise DataError(f"mteb: a row has {type(value).__name__} in its column {column}, which vtp cannot read.")


def _file(value: Any) -> str | bytes | None:
    """The path or the bytes of a file of ``datasets``, or of a decoder that it has made."""
    kept = getattr(value, "_hf_encoded", value)
    if isinstance(kept, Mapping) and (kept.get("bytes") or kept.get("path")):
        if kept.get("bytes"):
            return bytes(kept["bytes"])
        path = str(kept["path"])
        if "://" in path and not os.path.exists(path):
            raise DataError(f"mteb: {path} is on the hub and not on this disk. Load the data set without streaming.")
        return path
    return None
