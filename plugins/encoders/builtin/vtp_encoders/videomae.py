"""``videomae``: plain ViT over tubelets with joint space-time attention (VideoMAE, arXiv:2203.12602), by transformers.

video    (B, T, 3, H, W)   float, normalised as the settings beside the model say; from scratch as ImageNet
tokens   (B, N, D)         N = T / tubelet * (H / patch) * (W / patch), time slowest
visible  (B, N_vis, D)     only if a mask is given
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn.functional import linear
from transformers import AutoImageProcessor, VideoMAEConfig, VideoMAEModel

from vtp.errors import ConfigError
from vtp.media.settings import as_trained
from vtp.model.blocks import visible_index
from vtp.model.build import BuildContext
from vtp.ranges import Size
from vtp.types import Tokens, VideoSpec
from vtp_encoders.huggingface import HubEncoder, checkpoint_or_preset, load_settings

__all__ = ["PRESETS", "VideoMAE"]

NAME = "videomae"
PRESETS = {
    "tiny": (192, 4, 3),
    "small": (384, 12, 6),
    "base": (768, 12, 12),
    "large": (1024, 24, 16),
}  # width, depth, heads


class VideoMAE(HubEncoder):
    """VideoMAE's encoder, from a checkpoint or from scratch.

    Args:
        model: hub name (``MCG-NJU/videomae-base``) or folder written by ``save_pretrained``; null builds ``preset``
            from scratch.
        pretrained: with ``model``: False takes the architecture only, with random weights.
        preset: without ``model``: tiny (width 192, depth 4), small (384, 12), base (768, 12) or large (1024, 24).
        frames, size, tubelet, patch: without ``model``: frames per clip, pixels per side, frames and pixels per token.
        context: gives the saved configuration when a checkpoint is restored; then nothing is downloaded.
    """

    def __init__(
        self,
        *,
        context: BuildContext,
        model: str | None = None,
        pretrained: bool = True,
        preset: Literal["tiny", "small", "base", "large"] = "base",
        frames: Size = 16,
        size: Size = 224,
        tubelet: Size = 2,
        patch: Size = 16,
    ) -> None:
        super().__init__()
        self.model, source = checkpoint_or_preset(
            NAME,
            "video",
            model,
            pretrained,
            context,
            (VideoMAEConfig, VideoMAEModel),
            lambda: _config(preset, frames, size, tubelet, patch),
        )
        config = self.model.config
        if source is not None:
            self.settings = load_settings(NAME, AutoImageProcessor, source, known=False)
        spec = VideoSpec(frames=int(config.num_frames), size=_side(config.image_size))
        self.spec = as_trained(spec, self.settings and self.settings.to_dict())
        self.width = int(config.hidden_size)
        self.depth = int(config.num_hidden_layers)
        side = self.spec.size // _side(config.patch_size)
        self.grid = (config.num_frames // config.tubelet_size, side, side)

    def forward(self, video: Tensor, mask: Tensor | None = None) -> Tokens:
        """(B, T, 3, H, W) -> Tokens (B, N, D); with ``mask`` (bool (B, N), True = hidden; every row hides the same
        number) only visible tokens are embedded, and ``index`` tells which they are.
        """
        index = None if mask is None else visible_index(mask)
        if index is None:
            hidden = self.model(pixel_values=video).last_hidden_state
        else:
            hidden = self.model.encoder(self._embedded(video, index)).last_hidden_state
            hidden = hidden if self.model.layernorm is None else self.model.layernorm(hidden)
        real = torch.ones(hidden.shape[:2], dtype=torch.bool, device=hidden.device)
        return Tokens(hidden, real, self.grid, index)

    def _embedded(self, video: Tensor, index: Tensor) -> Tensor:
        """The embeddings of the tubelets at ``index`` (B, N_vis), which is what the convolution over the whole clip
        gives there: (B, N_vis, D)."""
        embeddings = self.model.embeddings
        convolution = embeddings.patch_embeddings.projection
        (slots, rows, columns), (tubelet, height, width) = self.grid, convolution.kernel_size
        shape = (len(video), slots, tubelet, 3, rows, height, columns, width)
        cut = video.reshape(shape).permute(0, 1, 4, 6, 3, 2, 5, 7)  # (B, T', H', W', 3, tubelet, height, width)
        row = torch.arange(len(video), device=video.device)[:, None]
        seen = cut[row, index // (rows * columns), index // columns % rows, index % columns].flatten(2)
        x = linear(seen, convolution.weight.flatten(1), convolution.bias)
        places: Tensor = embeddings.position_embeddings.detach().to(x)
        return x + places[0][index]


def _config(preset: str, frames: int, size: int, tubelet: int, patch: int) -> VideoMAEConfig:
    if frames % tubelet or size % patch:
        raise ConfigError(
            f"encoder {NAME}: frames={frames} must be a multiple of tubelet={tubelet} and size={size} of "
            f"patch={patch}, because tokens are whole {tubelet}x{patch}x{patch} tubelets. Nearest valid: "
            f"frames={max(frames // tubelet, 1) * tubelet}, size={max(size // patch, 1) * patch}."
        )
    width, depth, heads = PRESETS[preset]
    return VideoMAEConfig(
        image_size=size,
        patch_size=patch,
        num_frames=frames,
        tubelet_size=tubelet,
        hidden_size=width,
        num_hidden_layers=depth,
        num_attention_heads=heads,
        intermediate_size=4 * width,
        use_mean_pooling=False,
    )


def _side(size: Any) -> int:
    return int(size[0] if isinstance(size, (list, tuple)) else size)
