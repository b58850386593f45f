"""Modality dropout: in training, modalities that a row has are withheld at random."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch

from vtp.data.keys import keyed_generator
from vtp.types import MODALITIES, Batch

__all__ = ["withhold"]


def withhold(batch: Batch, shares: Mapping[str, float], seed: int, pad_id: int = 0) -> None:
    """Make modalities of some rows missing: ``present`` becomes False, a text becomes padding.

    Every modality that a row has is withheld with its probability, independently of the others. A row never loses all
    of them: where they would all go, one of those stays, each as often as the others. The draw is keyed by the seed,
    the step and the row of the global batch, so it depends on neither processes, workers nor micro-batches, nor on the
    shares of other modalities, and all passes of a step see the same.

    Args:
        batch: with its ``step``, ``row_offset`` and ``global_rows``; changed in place.
        shares: modality -> probability in [0, 1).
        seed: first part of the key.
        pad_id: of the tokenizer.
    """
    names = [modality for modality in MODALITIES if modality in batch.present]
    drawn = keyed_generator(seed, "modality_dropout", batch.step).random((batch.global_rows, len(MODALITIES)))
    drawn = drawn[batch.row_offset : batch.row_offset + len(batch), [MODALITIES.index(name) for name in names]]
    share = np.array([shares.get(name, 0.0) for name in names])
    present = np.stack([batch.present[name].numpy() for name in names], axis=1)  # (B, modalities)
    gone = present & (drawn < share)
    emptied = np.flatnonzero(present.any(1) & ~(present & ~gone).any(1))
    ratio = np.where(gone, drawn / np.maximum(share, 1e-9), -1.0)  # uniform, whatever the share
    gone[emptied, ratio[emptied].argmax(1)] = False
    for name, rows in zip(names, torch.from_numpy(gone).unbind(1), strict=True):
        batch.present[name] = batch.present[name] & ~rows
        if name == "text":
            words = batch.inputs["text"]
            words["token_ids"] = words["token_ids"].masked_fill(rows[:, None], pad_id)
            words["attention_mask"] = words["attention_mask"] & ~rows[:, None]
