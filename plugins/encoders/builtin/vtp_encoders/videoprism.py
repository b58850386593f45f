"""``videoprism``: VideoPrism's factorised ViT (arXiv:2402.13217), within frames and then over them, by transformers.

video    (B, T, 3, H, W)   float in [0, 1], unless the settings beside the model say more
tokens   (B, N, D)         N = T * (H / patch) * (W / patch), time slowest; of the video-text model behind its layers
pool     (B, D)            of the video-text model its embedding of a clip; else the mean
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize
from transformers import (
    AutoConfig,
    AutoVideoProcessor,
    VideoPrismClipModel,
    VideoPrismConfig,
    VideoPrismVideoModel,
    VideoPrismVisionConfig,
    VideoPrismVisionModel,
)

from vtp.errors import ConfigError
from vtp.media.settings import as_trained
from vtp.model.build import BuildContext
from vtp.types import Tokens, VideoSpec
from vtp_encoders.huggingface import HubEncoder, config_of, keeping, load_settings, load_weights, source_of, space_of

__all__ = ["VideoPrism"]

NAME = "videoprism"


class VideoPrism(HubEncoder):
    """VideoPrism's videos, from a checkpoint.

    Args:
        model: hub name (``google/videoprism-lvt-base-f16r288``, ``google/videoprism-base-f16r288``) or folder written
            by ``save_pretrained``. It fixes the number of frames.
        pretrained: False takes the architecture only, with random weights.
        context: gives the saved configuration when a checkpoint is restored; then nothing is downloaded.
    """

    def __init__(
        self, *, context: BuildContext, model: str = "google/videoprism-lvt-base-f16r288", pretrained: bool = True
    ) -> None:
        super().__init__()
        source, restored = source_of(NAME, "video", model, context)
        whole: Any = config_of(NAME, AutoConfig, source)
        config: Any = whole.vision_config if isinstance(whole, VideoPrismConfig) else whole
        if not isinstance(config, VideoPrismVisionConfig):
            raise ConfigError(f"encoder {NAME}: {model!r} is a {whole.model_type} model. Choose a VideoPrism model.")
        self.compared = isinstance(whole, VideoPrismConfig) or hasattr(config, "shared_logit_scale")
        self.settings = load_settings(NAME, AutoVideoProcessor, source, known=False)
        if not pretrained or restored:
            self.model = VideoPrismVideoModel(config) if self.compared else VideoPrismVisionModel(config)
        elif self.compared:
            self.model = load_weights(NAME, VideoPrismClipModel, source).video_model
        else:
            self.model = load_weights(NAME, VideoPrismVisionModel, source)
        self.space = space_of(model, self.model.config, None) if self.compared else None
        size = config.image_size if isinstance(config.image_size, int) else config.image_size[0]
        tubelet = [int(side) for side in config.tubelet_size]
        spec = VideoSpec(frames=int(config.num_frames), size=int(size))
        plain = {"do_normalize": False, "size": {"height": size, "width": size}}  # of a folder without settings
        self.spec = as_trained(spec, plain if self.settings is None else self.settings.to_dict())
        self.width = int(config.hidden_size)
        self.spatial, self.temporal = int(config.num_spatial_layers), int(config.num_temporal_layers)
        self.depth = self.spatial + self.temporal + (int(config.num_auxiliary_layers) if self.compared else 0)
        self.grid = (self.spec.frames // tubelet[0], size // tubelet[1], size // tubelet[2])

    def forward(self, video: Tensor) -> Tokens:
        """(B, T, 3, H, W) -> Tokens (B, N, D)."""
        vision = self.model.vision_model if self.compared else self.model
        hidden = vision(pixel_values_videos=video).last_hidden_state
        for layer in self.model.auxiliary_layers if self.compared else ():
            hidden = layer(hidden)
        hidden = keeping(keeping(hidden, self.model.head), self.model.head_layernorm) if self.compared else hidden
        return Tokens(hidden, hidden.new_ones(hidden.shape[:2], dtype=torch.bool), self.grid)

    def pool(self, tokens: Tokens) -> Tensor:
        """(B, D): the embedding of a clip, of unit length; without texts the mean."""
        if not self.compared:
            return tokens.pooled()
        pooled: Tensor = self.model.head_layernorm(self.model.head(tokens.x)[0])[:, 0]
        return normalize(pooled, dim=-1) if self.model.config.apply_l2norm else pooled

    def layer_of(self, name: str) -> int:
        """Layer of a parameter for learning-rate decay: 0 embeddings, then layers within frames, those over frames and
        those of the video-text model; depth + 1 behind them.
        """
        parts = name.split(".")
        before = {
            "spatial_layers": 0,
            "temporal_layers": self.spatial,
            "auxiliary_layers": self.spatial + self.temporal,
        }
        for part, first in before.items():
            if part in parts:
                return first + int(parts[parts.index(part) + 1]) + 1
        if "temporal_embeddings" in parts or "layernorm1" in parts:
            return self.spatial
        if "layernorm2" in parts:
            return self.spatial + self.temporal
        return 0 if "spatial_embeddings" in parts else self.depth + 1
