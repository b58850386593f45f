"""What objectives and tasks read of ``Sample.extra`` as tensors, with a row per sample: padded, stacked, or made by a
function of their own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from vtp.errors import DataError, PluginError
from vtp.members import Read
from vtp.types import Field

__all__ = ["collate_field"]


def collate_field(name: str, read: Read, values: Sequence[Any], ids: Sequence[str]) -> Mapping[str, Tensor]:
    """Tensors with B rows for ``batch.fields``.

    Args:
        name: of the field.
        read: who asks for it, and as what.
        values: B of them, None in rows that lack it.
        ids: of the B samples, for messages.

    Returns:
        ``name`` (B, ...), ``name.present`` bool (B,), and of a field that is padded ``name.lengths`` int64 (B,); what a
        function gives, as ``name``, or ``name.key`` where it gives several.

    Raises:
        DataError: a value has another shape than was declared.
        PluginError: a function gives no tensor with B rows.
    """
    if isinstance(read.how, Field):
        pairs = zip(values, ids, strict=True)
        return _padded(name, read.how, [None if value is None else _array(name, read, value, i) for value, i in pairs])
    assert callable(read.how)
    made = read.how(list(values))
    found = {f"{name}.{key}": value for key, value in made.items()} if isinstance(made, Mapping) else {name: made}
    for key, value in found.items():
        if not isinstance(value, Tensor) or value.ndim == 0 or len(value) != len(values):
            got = f"shape {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
            raise PluginError(
                f"{read.owner}: the function that reads[{name!r}] names gave {got} for {key!r}, expected a tensor with "
                f"{len(values)} rows, or a dict of them."
            )
    return found


def _array(name: str, read: Read, value: Any, sample: str) -> npt.NDArray[Any]:
    """A value as the field wants it."""
    field = read.how
    assert isinstance(field, Field)
    try:
        given = np.asarray(value)
    except ValueError:  # lists of different lengths
        given = np.empty((), object)
    dtype = np.dtype(field.dtype)
    if given.size == 0 and given.ndim == 1 and field.shape[:1] == (None,):  # [] says nothing of the other axes
        given = given.reshape(0, *field.shape[1:])
    fits = given.ndim == len(field.shape) and given.dtype.kind in "biuf"
    if fits and all(want in (None, got) for want, got in zip(field.shape, given.shape, strict=True)):
        with np.errstate(invalid="ignore"):
            array = given.astype(dtype)
        if dtype.kind == "f" or np.array_equal(array, given):
            return array
    got = "no numbers of one shape" if given.dtype.kind not in "biuf" else f"{given.dtype} {given.shape}"
    wanted = ", ".join("any" if size is None else str(size) for size in field.shape)
    raise DataError(
        f"sample {sample!r}: {name!r} holds {got}, expected {field.dtype} "
        f"({wanted}{',' if len(field.shape) == 1 else ''}), as {read.owner} reads it."
    )


def _padded(name: str, field: Field, rows: Sequence[npt.NDArray[Any] | None]) -> dict[str, Tensor]:
    """(B, ...), zeros where a row ends or has none."""
    padded = field.shape[:1] == (None,)
    lengths = [0 if row is None or not padded else len(row) for row in rows]
    sizes = (max(1, *lengths), *field.shape[1:]) if padded else field.shape
    shape = [size for size in sizes if size is not None]
    out = np.zeros((len(rows), *shape), field.dtype)
    for place, row in enumerate(rows):
        if row is not None and padded:
            out[place, : len(row)] = row
        elif row is not None:
            out[place] = row
    found = {name: torch.from_numpy(out), f"{name}.present": torch.tensor([row is not None for row in rows])}
    if padded:
        found[f"{name}.lengths"] = torch.tensor(lengths, dtype=torch.int64)
    return found
