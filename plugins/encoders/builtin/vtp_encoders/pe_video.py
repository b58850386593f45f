"""``pe_video``: the video tower of PE-AV (arXiv:2512.19687), a Perception Encoder (arXiv:2504.13181) frame by frame and
a transformer over frames, by transformers (and timm, which has the Perception Encoder).

video    (B, T, 3, H, W)    float, normalised as the settings beside the model say
tokens   (B, 1 + T, D)      the token that sums a clip up, then one per frame
pool     (B, E)             its embedding of a clip, which it compares with texts
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from transformers import AutoConfig, AutoModel, AutoVideoProcessor, PeAudioVideoConfig, PeVideoConfig, PeVideoModel

from vtp.errors import ConfigError
from vtp.media.settings import as_trained
from vtp.model.build import BuildContext
from vtp.ranges import Count
from vtp.types import Tokens, VideoSpec
from vtp_encoders.huggingface import HubEncoder, config_of, keeping, load_settings, load_weights, source_of, space_of

__all__ = ["PEVideo"]

NAME = "pe_video"


class PEVideo(HubEncoder):
    """The videos of PE-AV, from a checkpoint of all its towers or of video and text.

    Args:
        model: hub name (``facebook/pe-av-large-16-frame``) or folder written by ``save_pretrained``.
        pretrained: False takes the architecture only, with random weights.
        frames: T; its positions hold for any number.
        context: gives the saved configuration when a checkpoint is restored; then nothing is downloaded.
    """

    def __init__(
        self,
        *,
        context: BuildContext,
        model: str = "facebook/pe-av-large-16-frame",
        pretrained: bool = True,
        frames: Count = 16,
    ) -> None:
        super().__init__()
        source, restored = source_of(NAME, "video", model, context)
        config: Any = config_of(NAME, AutoConfig, source)
        if not isinstance(config, (PeVideoConfig, PeAudioVideoConfig)):
            raise ConfigError(f"encoder {NAME}: {model!r} is a {config.model_type} model. Choose a PE-AV model.")
        self.settings = load_settings(NAME, AutoVideoProcessor, source, known=False)
        if pretrained and not restored:
            found: Any = load_weights(NAME, AutoModel, source)
            self.model = found.video_model if isinstance(config, PeAudioVideoConfig) else found
        else:
            self.model = PeVideoModel(config.video_config if isinstance(config, PeAudioVideoConfig) else config)
        factor = self.model.text_video_logit_scale.item()
        self.space = space_of(model, self.model.config, math.log(factor) if factor > 0 else None)
        for name in ("text_model", "text_video_head"):
            self.model.register_module(name, None)
        for name in ("text_video_logit_scale", "text_video_logit_bias"):
            self.model.register_parameter(name, None)
        pictures = self.model.video_encoder.embedder.vision_model.timm_model
        side = pictures.patch_embed.img_size
        spec = VideoSpec(frames=frames, size=int(side if isinstance(side, int) else side[0]))
        self.spec = as_trained(spec, self.settings and self.settings.to_dict())
        video = self.model.config.video_config
        self.width, self.pictures = int(video.hidden_size), len(pictures.blocks)
        self.depth = self.pictures + int(video.num_hidden_layers)

    @property
    def pooled_width(self) -> int:
        """E, width of the embedding."""
        return int(self.model.video_head.proj.out_features)

    def forward(self, video: Tensor) -> Tokens:
        """(B, T, 3, H, W) -> Tokens (B, 1 + T, D)."""
        out = self.model.video_encoder(pixel_values_videos=video.contiguous())
        hidden = torch.cat([out.pooler_output[:, None], out.last_hidden_state], dim=1)
        hidden = keeping(hidden, self.model.video_head)
        return Tokens(hidden, hidden.new_ones(hidden.shape[:2], dtype=torch.bool))

    def pool(self, tokens: Tokens) -> Tensor:
        """(B, E): the embedding of a clip."""
        pooled: Tensor = self.model.video_head(tokens.x[:, 0])
        return pooled

    def layer_of(self, name: str) -> int:
        """Layer of a parameter for learning-rate decay: 0 embeddings, then those of the pictures, then those over
        frames; depth + 1 behind them.
        """
        parts = name.split(".")
        if "timm_model" in parts:
            return int(parts[parts.index("blocks") + 1]) + 1 if "blocks" in parts else 0
        if "layers" in parts:
            return self.pictures + int(parts[parts.index("layers") + 1]) + 1
        return self.pictures if "embedder" in parts or "patch_embedder" in parts else self.depth + 1
