"""What the objectives of this package share: which version of a modality they look at."""

from __future__ import annotations

from collections.abc import Mapping

from vtp.model.build import BuildContext
from vtp.model.context import ForwardContext

__all__ = ["fused_views", "is_legacy"]


def fused_views(ctx: ForwardContext, wanted: Mapping[str, str | None]) -> dict[str, str]:
    """View per modality of the model for a joint pass: as wanted, clean where nothing is said, left out where None."""
    return {m: view for m in ctx.modalities if (view := wanted.get(m, "")) is not None}


def is_legacy(context: BuildContext) -> bool:
    """Whether the model is to compute as the released code does."""
    return context.variant == "released"
