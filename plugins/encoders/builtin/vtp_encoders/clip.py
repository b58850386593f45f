"""``clip``: the picture side of CLIP (arXiv:2103.00020) and SigLIP (arXiv:2303.15343, arXiv:2502.14786 at fixed
resolutions), frame by frame, by transformers.

video    (B, T, 3, H, W)   float, normalised as the settings beside the model say
tokens   (B, T, D)         one per frame, the model's own embedding of a picture, through its own projection
pool     (B, D)            mean of the frames' embeddings at unit length, as CLIP4Clip compares clips (arXiv:2104.08860,
                           mean pooling); of one frame the direction of the embedding itself
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize
from transformers import AutoConfig, AutoImageProcessor, CLIPConfig, CLIPModel, SiglipConfig, SiglipModel

from vtp.errors import ConfigError
from vtp.media.settings import as_trained
from vtp.model.build import BuildContext
from vtp.ranges import Count
from vtp.types import Tokens, VideoSpec
from vtp_encoders.huggingface import (
    HubEncoder,
    config_of,
    layer_of_huggingface,
    load_settings,
    load_weights,
    source_of,
    space_of,
)

__all__ = ["CLIP"]

NAME = "clip"


class CLIP(HubEncoder):
    """CLIP's or SigLIP's pictures, from a checkpoint.

    Args:
        model: hub name (``openai/clip-vit-base-patch32``, ``google/siglip2-base-patch16-224``) or folder written by
            ``save_pretrained``.
        pretrained: False takes the architecture only, with random weights.
        frames: T; pictures know no order, so any number will do.
        context: gives the saved configuration when a checkpoint is restored; then nothing is downloaded.
    """

    def __init__(
        self,
        *,
        context: BuildContext,
        model: str = "openai/clip-vit-base-patch32",
        pretrained: bool = True,
        frames: Count = 8,
    ) -> None:
        super().__init__()
        source, restored = source_of(NAME, "video", model, context)
        config: Any = config_of(NAME, AutoConfig, source)
        kinds: dict[type, Any] = {CLIPConfig: CLIPModel, SiglipConfig: SiglipModel}
        if type(config) not in kinds:
            raise ConfigError(
                f"encoder {NAME}: {model!r} is a {config.model_type} model. Choose a CLIP or SigLIP with both towers; "
                "SigLIP 2 with flexible resolution (naflex) is none of them."
            )
        kind = kinds[type(config)]
        self.settings = load_settings(NAME, AutoImageProcessor, source, known=False)
        self.model = load_weights(NAME, kind, source) if pretrained and not restored else kind(config)
        bias = self.model.logit_bias.item() if kind is SiglipModel else None
        self.space = space_of(model, self.model.config, self.model.logit_scale.item(), bias)
        for name in ("text_model", "text_projection"):
            self.model.register_module(name, None)
        for name in ("logit_scale", "logit_bias"):
            self.model.register_parameter(name, None)
        vision = config.vision_config
        spec = VideoSpec(frames=frames, size=int(vision.image_size))
        self.spec = as_trained(spec, self.settings and self.settings.to_dict())
        clip = isinstance(config, CLIPConfig)
        self.projection: nn.Module = self.model.visual_projection if clip else nn.Identity()
        self.model.register_module("visual_projection", None)
        self.width = int(config.projection_dim if clip else vision.hidden_size)
        self.depth = int(vision.num_hidden_layers)
        self.grid = (frames,)

    def forward(self, video: Tensor) -> Tokens:
        """(B, T, 3, H, W) -> Tokens (B, T, D)."""
        pictures = self.model.vision_model(pixel_values=video.flatten(0, 1)).pooler_output
        x = self.projection(pictures).unflatten(0, video.shape[:2])
        return Tokens(x, x.new_ones(x.shape[:2], dtype=torch.bool), self.grid)

    def pool(self, tokens: Tokens) -> Tensor:
        """(B, D): mean of the frames at unit length."""
        return replace(tokens, x=normalize(tokens.x.float(), dim=-1).to(tokens.x.dtype)).pooled()

    def layer_of(self, name: str) -> int:
        """Layer of a parameter for learning-rate decay: 0 embeddings, 1..depth layers, depth + 1 behind them."""
        return 0 if "pre_layrnorm" in name else layer_of_huggingface(name, self.depth)
