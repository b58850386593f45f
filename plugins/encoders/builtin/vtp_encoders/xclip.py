"""``xclip``: the vision side of X-CLIP (arXiv:2208.02816), CLIP's ViT whose frames send each other messages, and a
transformer over frames, by transformers.

video    (B, T, 3, H, W)   float, normalised as the settings beside the model say
tokens   (B, T, D)         one per frame, in the space of CLIP; their mean is the embedding of the clip
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import AutoImageProcessor, XCLIPConfig, XCLIPModel

from vtp.media.settings import as_trained
from vtp.model.build import BuildContext
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

__all__ = ["XCLIP"]

NAME = "xclip"
UNUSED = ("text_model", "prompts_visual_layernorm", "prompts_generator", "text_projection")


class XCLIP(HubEncoder):
    """X-CLIP without its texts, from a checkpoint.

    Args:
        model: hub name (``microsoft/xclip-base-patch32``) or folder written by ``save_pretrained``. It fixes the number
            of frames.
        pretrained: False takes the architecture only, with random weights.
        context: gives the saved configuration when a checkpoint is restored; then nothing is downloaded.
    """

    def __init__(
        self, *, context: BuildContext, model: str = "microsoft/xclip-base-patch32", pretrained: bool = True
    ) -> None:
        super().__init__()
        source, restored = source_of(NAME, "video", model, context)
        config: Any = config_of(NAME, XCLIPConfig, source)
        vision = config.vision_config
        self.settings = load_settings(NAME, AutoImageProcessor, source, known=False)
        if pretrained and not restored:
            self.model = load_weights(NAME, XCLIPModel, source)
        else:
            self.model = XCLIPModel(config)
        self.space = space_of(model, self.model.config, self.model.logit_scale.item())
        for name in UNUSED:
            self.model.register_module(name, None)
        for name in ("logit_scale", "prompts_visual_projection"):
            self.model.register_parameter(name, None)
        spec = VideoSpec(frames=int(vision.num_frames), size=int(vision.image_size))
        self.spec = as_trained(spec, self.settings and self.settings.to_dict())
        self.width = int(config.projection_dim)
        self.vision_layers = int(vision.num_hidden_layers)
        self.depth = self.vision_layers + int(vision.mit_num_hidden_layers)
        self.grid = (self.spec.frames,)

    def forward(self, video: Tensor) -> Tokens:
        """(B, T, 3, H, W) -> Tokens (B, T, D)."""
        frames = self.model.vision_model(pixel_values=video.flatten(0, 1)).pooler_output
        frames = self.model.visual_projection(frames).unflatten(0, video.shape[:2])
        hidden = self.model.mit(frames).last_hidden_state
        return Tokens(hidden, hidden.new_ones(hidden.shape[:2], dtype=torch.bool), self.grid)

    def layer_of(self, name: str) -> int:
        """Layer of a parameter for learning-rate decay: 0 embeddings, then the layers of the ViT (its last norm and the
        projection belong to the last one), then those over frames; depth + 1 behind them.
        """
        layer = layer_of_huggingface(name, self.vision_layers)
        if ".mit." in name:
            numbered = layer_of_huggingface(name, self.depth - self.vision_layers)
            return self.vision_layers + (1 if "position" in name else numbered)
        return 0 if "pre_layernorm" in name else min(layer, self.vision_layers)
