"""Groups of modalities: ``[[video], [text, audio]]`` are the two sides of a pair, whatever a row has of each."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from vtp.errors import ConfigError
from vtp.model.build import BuildContext
from vtp.model.context import ForwardContext
from vtp.types import MODALITIES, Modality

__all__ = ["Groups", "check_groups", "has_some", "is_same"]

Groups = tuple[tuple[Modality, ...], ...]


def check_groups(
    objective: str, option: str, groups: Sequence[Sequence[str]], context: BuildContext, *, most: int
) -> Groups:
    """The groups, each in the order video, audio, text.

    Args:
        objective, option: for messages.
        groups: as configured.
        context: tells the encoders.
        most: how many groups there may be; two at least.

    Raises:
        ConfigError: too few or too many groups, one of none, a modality twice or unknown, or without an encoder.
    """
    where = f"objective {objective}: {option}={[list(group) for group in groups]}"
    named = [m for group in groups for m in group]
    number = "two" if most == 2 else "two or three"
    if not 2 <= len(groups) <= most or not all(groups) or len(set(named)) < len(named) or set(named) - {*MODALITIES}:
        raise ConfigError(
            f"{where} must be {number} groups of different ones of {', '.join(MODALITIES)}, for example "
            "[[video],[text,audio]]."
        )
    if lacking := [m for m in named if m not in context.encoders]:
        raise ConfigError(
            f"{where} needs an encoder for {' and '.join(lacking)}, and that slot is empty. Fill it "
            f"(encoder/{lacking[0]}=...), or leave {lacking[0]} out."
        )
    return tuple(tuple(m for m in MODALITIES if m in group) for group in groups)


def has_some(ctx: ForwardContext, group: Sequence[str]) -> Tensor:
    """bool (B,): rows that have any modality of a group."""
    return torch.stack([ctx.present(m) for m in group]).any(dim=0)


def is_same(ctx: ForwardContext, modality: str) -> Tensor:
    """bool (B, B): rows that show the same clip, or have the same text. Rows without the text are the same as none."""
    identity = ctx.identity(modality)
    same = identity[:, None] == identity[None, :]
    if modality == "text":
        there = ctx.present("text")
        same = same & there[:, None] & there[None, :]
    return same
