"""What models of two towers do with the last hidden state of a text, before they compare it with a picture or a sound.

Every head works on each token alone: applied to all of them it gives, at the token that sums a text up, the model's own
embedding. Whoever restores a tower has no whole model: which head it has is kept in its configuration.
"""

from __future__ import annotations

import math
from typing import Any

from torch import nn
from transformers.models.clap.modeling_clap import ClapProjectionLayer

from vtp.errors import ConfigError

__all__ = ["head_of"]

_KNOWN = {
    "clip_text_model": "linear",
    "xclip_text_model": "linear",
    "clap_text_model": "clap",
    "siglip_text_model": "none",
    "siglip2_text_model": "none",
    "videoprism_text_model": "none",
}


def head_of(encoder: str, found: Any, config: Any, name: str) -> tuple[nn.Module | None, int, float | None]:
    """Head of a text tower, width of what it gives, and logarithm of the factor of the cosines (None where none is
    known).

    Args:
        encoder: registered name, for messages.
        found: the whole model, or the tower alone when it is being restored.
        config: of the tower; which head it has is written into it.
        name: of the model, for messages.

    Raises:
        ConfigError: its texts share no space with anything.
    """
    kind = getattr(config, "shared_head", None) or _KNOWN.get(str(config.model_type))
    pe = getattr(found, "video_model", found)  # of PE-AV the texts that are compared with pictures
    if hasattr(pe, "text_video_head"):
        kind = "pe"
    whole = hasattr(found, "text_model")
    head: nn.Module | None = None
    if kind == "linear":
        head = found.text_projection if whole else nn.Linear(config.hidden_size, config.projection_dim, bias=False)
        config.projection_dim = head.out_features  # that of the whole model, which may not stand in that of its texts
    elif kind == "clap":
        pooler = (found.text_model if whole else found).pooler
        projection = found.text_projection if whole else ClapProjectionLayer(config)
        head = nn.Sequential(pooler.dense, pooler.activation, projection)
    elif kind == "pe":
        plain = nn.Sequential(nn.LayerNorm(config.hidden_size, eps=1e-6), _square(config.hidden_size))
        head = nn.Sequential(pe.text_video_head.layer_norm, pe.text_video_head.proj) if whole else plain
    elif kind is None:
        raise ConfigError(
            f"encoder {encoder}: {name!r} is a {config.model_type}, whose texts share no space with pictures or "
            "sounds, as projected=true asks for. Those of CLIP, SigLIP, X-CLIP, CLAP, VideoPrism and PE-AV do."
        )
    config.shared_head = kind
    width = {"linear": "projection_dim", "clap": "projection_dim"}.get(kind, "hidden_size")
    return head, int(getattr(config, width)), _log_scale(found, pe)


def _square(width: int) -> nn.Linear:
    return nn.Linear(width, width, bias=False)


def _log_scale(found: Any, pe: Any) -> float | None:
    for owner, name in ((found, "logit_scale"), (found, "logit_scale_a")):
        if hasattr(owner, name):
            return float(getattr(owner, name).item())
    factor = pe.text_video_logit_scale.item() if hasattr(pe, "text_video_logit_scale") else 0.0
    return math.log(factor) if factor > 0 else None
