"""Which version of each modality an objective looks at while it trains: the options ``masked`` and ``fuse``."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from vtp.errors import ConfigError
from vtp.model.build import BuildContext
from vtp.model.context import ForwardContext
from vtp.model.masking import grid_of
from vtp.types import MODALITIES

__all__ = ["check_masked", "training_views"]


def training_views(ctx: ForwardContext, masked: Iterable[str], fuse: Sequence[str] | None = None) -> dict[str, str]:
    """Name of the view per modality: the masked one for those in ``masked``, else the clean one.

    Args:
        masked: modalities whose masked version is looked at.
        fuse: modalities to name, of those of the model; None = all of them.
    """
    taken = [m for m in ctx.modalities if fuse is None or m in fuse]
    return {m: ctx.masked(m) if m in masked else "" for m in taken}


def check_masked(objective: str, masked: Sequence[str], context: BuildContext) -> None:
    """
    Raises:
        ConfigError: ``masked`` names something else than modalities, or one whose encoder cannot be masked.
    """
    if unknown := [m for m in masked if m not in MODALITIES]:
        raise ConfigError(
            f"objective {objective}: masked={list(masked)} names no modality {unknown[0]!r}; "
            f"known: {', '.join(MODALITIES)}"
        )
    for modality in masked:
        if modality in ("video", "audio") and modality in context.encoders:
            grid_of(context.encoders[modality], modality)
