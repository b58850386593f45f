"""``vjepa2``: the encoder of V-JEPA 2 (arXiv:2506.09985), a ViT over tubelets with rotary positions, by transformers.

video    (B, T, 3, H, W)   float, normalised as the settings beside the model say
tokens   (B, N, D)         N = T / tubelet * (H / patch) * (W / patch), time slowest
visible  (B, N_vis, D)     only if a mask is given
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import VJEPA2Config, VJEPA2Model, VJEPA2VideoProcessor

from vtp.errors import ConfigError
from vtp.media.settings import as_trained
from vtp.model.blocks import visible_index
from vtp.model.build import BuildContext
from vtp.ranges import Size
from vtp.types import Tokens, VideoSpec
from vtp_encoders.huggingface import HubEncoder, config_of, load_settings, load_weights, source_of

__all__ = ["VJEPA2"]

NAME = "vjepa2"


class VJEPA2(HubEncoder):
    """V-JEPA 2 without its predictor, from a checkpoint.

    Args:
        model: hub name (``facebook/vjepa2-vitl-fpc64-256``) or folder written by ``save_pretrained``.
        pretrained: False takes the architecture only, with random weights.
        frames: frames per clip, a multiple of the tubelet (2); null is what the model was trained at, 64. Its positions
            hold for any number.
        context: gives the saved configuration when a checkpoint is restored; then nothing is downloaded.
    """

    def __init__(
        self,
        *,
        context: BuildContext,
        model: str = "facebook/vjepa2-vitl-fpc64-256",
        pretrained: bool = True,
        frames: Size | None = None,
    ) -> None:
        super().__init__()
        source, restored = source_of(NAME, "video", model, context)
        config: Any = config_of(NAME, VJEPA2Config, source)
        frames = frames or int(config.frames_per_clip)
        if frames % config.tubelet_size:
            raise ConfigError(
                f"encoder {NAME}: frames={frames} must be a multiple of the {config.tubelet_size} frames of a tubelet. "
                f"Nearest valid: frames={max(frames // config.tubelet_size, 1) * config.tubelet_size}."
            )
        self.settings = load_settings(NAME, VJEPA2VideoProcessor, source)
        if pretrained and not restored:
            self.model = load_weights(NAME, VJEPA2Model, source)
        else:
            self.model = VJEPA2Model(config)
        self.model.register_module("predictor", None)
        size, patch = int(config.crop_size), int(config.patch_size)
        self.spec = as_trained(VideoSpec(frames=frames, size=size), self.settings.to_dict())
        self.width = int(config.hidden_size)
        self.depth = int(config.num_hidden_layers)
        self.grid = (frames // int(config.tubelet_size), size // patch, size // patch)

    def forward(self, video: Tensor, mask: Tensor | None = None) -> Tokens:
        """(B, T, 3, H, W) -> Tokens (B, N, D); with ``mask`` (bool (B, N), True = hidden; every row hides the same
        number) hidden tokens are dropped right behind the patch embedding, and ``index`` tells which are left.
        """
        encoder = self.model.encoder
        hidden = encoder.embeddings(video)
        index = None if mask is None else visible_index(mask)
        if index is not None:
            hidden = hidden.gather(1, index[..., None].expand(-1, -1, hidden.shape[-1]))
        for layer in encoder.layer:
            hidden = layer(hidden, index)[0]  # rotary positions are those of the visible tokens
        hidden = encoder.layernorm(hidden)
        return Tokens(hidden, hidden.new_ones(hidden.shape[:2], dtype=torch.bool), self.grid, index)
