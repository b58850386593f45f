"""``simvtp`` video: tubelets to tokens, nothing more. The transformer over them is the fusion encoder, which text
shares.

video    uint8 (B, T, H, W, 3), or float (B, T, 3, H, W) normalised
tokens   (B, N, D)       N = T/p0 * H/p * W/p, time slowest
visible  (B, N_vis, D)   with a mask: only visible tubelets are read and embedded
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from vtp.errors import ConfigError
from vtp.model.blocks import sincos_table, visible_index
from vtp.model.tubelets import Grid, gather_tubelets
from vtp.ranges import Count, Depth, Size
from vtp.types import Tokens, VideoSpec
from vtp_simvtp.vit import width_and_depth

__all__ = ["PatchEmbed", "VideoTubelets"]


class VideoTubelets(nn.Module):
    """Linear embedding of tubelets plus fixed sine-cosine positions over the flattened grid.

    Args:
        preset: tiny, small, base or large; its width is D.
        width: D in place of the preset's.
        depth: blocks of the shared transformer in place of the preset's; only for layer-wise learning rates.
        frames: frames per clip, T; a multiple of ``tubelet``.
        size: side of the square frames in pixels; a multiple of ``patch``.
        tubelet: frames per token.
        patch: pixels per token and axis.
        stride: source frames between two sampled ones; null spreads the frames over the whole clip.
        layout: ``uint8`` takes the decoder's bytes and normalises only the tubelets that are read; ``float`` takes
            normalised frames.

    Attributes:
        grid: (T', H', W') of a full clip.
        view_inputs: tensors of a masked view that :meth:`forward` takes beside ``mask``.
        padded: False: all tokens of a clip are real.
    """

    view_inputs = ("visible",)
    padded = False
    pos_embed: Tensor
    mean: Tensor
    scale: Tensor

    def __init__(
        self,
        *,
        preset: str = "base",
        width: Size | None = None,
        depth: Depth | None = None,
        frames: Size = 16,
        size: Size = 224,
        tubelet: Size = 2,
        patch: Size = 16,
        stride: Count | None = None,
        layout: Literal["uint8", "float"] = "uint8",
    ) -> None:
        super().__init__()
        if frames % tubelet or size % patch:
            near = (max(round(frames / tubelet), 1) * tubelet, max(round(size / patch), 1) * patch)
            raise ConfigError(
                f"encoder simvtp: frames={frames} must be a multiple of tubelet={tubelet} and size={size} of "
                f"patch={patch}, because tokens are whole {tubelet}x{patch}x{patch} tubelets. Nearest valid: "
                f"frames={near[0]}, size={near[1]}."
            )
        self.width, self.depth = width_and_depth(preset, width, depth)
        self.spec = VideoSpec(frames=frames, size=size, layout=layout, stride=stride)
        self.grid = (frames // tubelet, size // patch, size // patch)
        self.tubelet, self.patch = tubelet, patch
        self.patch_embed = PatchEmbed(self.width, tubelet, patch)
        tokens = self.grid[0] * self.grid[1] * self.grid[2]
        self.register_buffer("pos_embed", sincos_table(tokens, self.width), persistent=False)
        self.register_buffer("mean", torch.tensor(self.spec.mean).mul(255), persistent=False)
        self.register_buffer("scale", torch.tensor(self.spec.std).mul(255).reciprocal(), persistent=False)

    def forward(self, video: Tensor, mask: Tensor | None = None, visible: Tensor | None = None) -> Tokens:
        """A clip to Tokens (B, N, D).

        Args:
            video: uint8 (B, T, H, W, 3) or float (B, T, 3, H, W); fewer frames than ``frames`` are fine, in whole
                tubelets.
            mask: bool (B, N), True = hidden, the same number in every row: only visible tokens are embedded.
            visible: int64 (B, N_vis), the positions that ``mask`` leaves, where the caller knows them: reading them off
                the mask waits for the device.
        """
        if mask is not None and visible is None:
            visible = visible_index(mask)
        time = (video.shape[1] + self.tubelet - 1) // self.tubelet
        grid = Grid.of(video, (time, *self.grid[1:]))
        if (grid.tubelet, *grid.patch) != (self.tubelet, self.patch, self.patch) or time > self.grid[0]:
            raise ConfigError(
                f"encoder simvtp: a clip of shape {tuple(video.shape)} does not fit {self.spec.frames} frames of "
                f"{self.spec.size}x{self.spec.size} pixels in tubelets of {self.tubelet}."
            )
        x = self.patch_embed(gather_tubelets(video, visible, grid, self.mean, self.scale, self.spec))
        x = x + (self.pos_embed[: grid.tokens] if visible is None else self.pos_embed[visible])
        real = torch.ones(x.shape[:2], dtype=torch.bool, device=x.device)
        return Tokens(x, real, grid.shape, visible)

    def layer_of(self, name: str) -> int:
        """Layer of a parameter for learning-rate decay: this is the embedding of the shared transformer, layer 0."""
        return 0

    def gradient_checkpointing_enable(self) -> None:
        """Nothing to recompute: there is one linear layer."""


class PatchEmbed(nn.Module):
    """Holds the embedding as the Conv3d of released checkpoints; kernel = stride, so it is a matrix product."""

    def __init__(self, width: int, tubelet: int, patch: int) -> None:
        super().__init__()
        self.proj = nn.Conv3d(3, width, (tubelet, patch, patch), (tubelet, patch, patch))

    def forward(self, cubes: Tensor) -> Tensor:
        """(B, K, 3 * p0 * p * p) in the order of the weight -> (B, K, D)."""
        return linear(cubes, self.proj.weight.flatten(1), self.proj.bias)
