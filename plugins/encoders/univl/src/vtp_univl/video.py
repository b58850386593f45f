"""``univl`` video: frames through a visual backbone, and the mean over the places of each clip (UniVL,
arXiv:2002.06353, with the image and video backbones of Base-VTP and SNP-S3).

    video     (B, T, 3, H, W)   float, normalised; T = n * frames_per_clip
    tokens    (B, n, D)         one per clip: what the cross encoder reads; not normalised
    features  (B, n, D)         of unit length, what texts are compared with
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, normalize

from vtp.errors import ConfigError, DataError
from vtp.model.blocks import connected_zero
from vtp.model.build import BuildContext
from vtp.model.importing import read_checkpoint
from vtp.ranges import Count, Share, Size
from vtp.types import Tokens, VideoSpec
from vtp_univl.backbones import Backbone, make_backbone
from vtp_univl.bert import init_linear
from vtp_univl.keys import backbone_kind, backbone_to_ours

__all__ = ["ClipEncoder", "carried_name", "pool_clips"]

PRESETS: dict[str, dict[str, Any]] = {
    "base": {"backbone": "pvt_v2_b2", "width": 768, "frames": 4, "size": 224},
    "tiny": {"backbone": "tiny", "width": 128, "frames": 6, "size": 64},
}
HEADS = ("head.", "fc.", "classifier.", "cls_head.")  # of the classifiers that backbones were trained as
Name = Literal[
    "pvt_v2_b0",
    "pvt_v2_b1",
    "pvt_v2_b2",
    "pvt_v2_b2_li",
    "pvt_v2_b3",
    "pvt_v2_b4",
    "pvt_v2_b5",
    "swin3d_t",
    "swin3d_s",
    "swin3d_b",
    "resnet50",
    "clip",
    "tiny",
]


class ClipEncoder(nn.Module):
    """A visual backbone, a linear map to D, and the mean over each clip.

    Args:
        preset: ``base`` (PVTv2-B2, D = 768, 4 frames of 224 pixels) or ``tiny`` (convolutions, D = 128, 6 frames of 64
            pixels, for a CPU); the options that are null follow it.
        backbone: see :mod:`vtp_univl.backbones`.
        sizes: other sizes of the backbone than its name says, such as ``{depths: [1, 1, 1, 1]}``.
        width: D, that of the text encoder where the cross encoder shares its weights.
        frames: frames per video, T; a multiple of ``frames_per_clip``.
        size: side of the square frames in pixels.
        frames_per_clip: frames behind one token.
        tokens: ``mean`` gives a token per clip, ``patch`` keeps all places of all frames.
        pretrained: true downloads the published weights of the backbone (timm, torchvision) once; a path reads those
            weights from a file, by the names of timm, torchvision or the original programs. Restoring a checkpoint
            reads neither.
        frozen_norm: of resnet50: BatchNorm with fixed statistics and factors.
        drop_path: stochastic depth of pvt and swin3d; null is 0 and 0.2.
        stride: source frames between two sampled ones; null spreads the frames over the whole clip.
        carried: names and shapes of tensors that an imported checkpoint has and no program reads, such as the
            classifier that a backbone was trained with, kept for ``vtp export antmmf``.
        context: tells whether a checkpoint is being restored.

    Attributes:
        clip_width: E of :meth:`clip_features`, equal to ``width``.
    """

    def __init__(
        self,
        *,
        context: BuildContext,
        preset: Literal["base", "tiny"] = "base",
        backbone: Name | None = None,
        sizes: dict[str, Any] | None = None,
        width: Size | None = None,
        frames: Size | None = None,
        size: Size | None = None,
        frames_per_clip: Count = 1,
        tokens: Literal["mean", "patch"] = "mean",
        pretrained: bool | str = False,
        frozen_norm: bool = True,
        drop_path: Share | None = None,
        stride: Count | None = None,
        carried: dict[str, list[int]] | None = None,
    ) -> None:
        super().__init__()
        chosen = PRESETS[preset]
        name = backbone or str(chosen["backbone"])
        self.width: int = width or chosen["width"]
        frames, side = frames or int(chosen["frames"]), size or int(chosen["size"])
        if frames % frames_per_clip:
            nearest = max(1, round(frames / frames_per_clip)) * frames_per_clip
            raise ConfigError(
                f"encoder univl: frames={frames} must be a multiple of frames_per_clip={frames_per_clip}. Nearest "
                f"valid: frames={nearest}."
            )
        given = {"size": side, "channels": self.width, "whole": tokens == "mean"}
        given |= {"frozen_norm": frozen_norm, "drop_path": drop_path}
        self.backbone: Backbone = make_backbone(name, sizes, given)
        if side < self.backbone.least or (name == "clip" and side % self.backbone.least):
            raise ConfigError(
                f"encoder univl: size={side} does not suit backbone={name}, whose last map has a place per "
                f"{self.backbone.least} pixels. Use at least {self.backbone.least}"
                + (", a multiple of it." if name == "clip" else ".")
            )
        if pretrained and context.assets is None:
            load_backbone(self.backbone, pretrained)
        mean, std = self.backbone.pixels
        self.spec = VideoSpec(frames=frames, size=side, mean=mean, std=std, stride=stride)
        self.frames_per_clip = frames_per_clip
        self.tokens = tokens
        self.depth = self.backbone.depth
        self.clip_width = self.width
        channels = self.backbone.channels
        self.output_proj = None if channels == self.width else nn.Conv2d(channels, self.width, 1)
        self.img_fc = nn.Sequential(nn.Linear(self.width, self.width), nn.ReLU(), nn.Linear(self.width, self.width))
        init_linear(self.img_fc, self.width)
        self.carried = nn.Module()
        for given_name, shape in (carried or {}).items():
            self.carried.register_buffer(carried_name(given_name), torch.zeros(shape))

    def forward(self, video: Tensor, padding: Tensor | None = None) -> Tokens:
        """Frames to clips.

        Args:
            video: float (B, T, 3, H, W); T may be any multiple of ``frames_per_clip``.
            padding: bool (B, T, H, W), True = pixels that only fill up a batch of several sizes; they are left out of
                the means. None: there are none.

        Returns:
            Tokens (B, n, D) with grid (n, 1, 1), or with ``tokens=patch`` (B, n * P, D) with grid (n, P, 1): P places
            per clip, all places of its first frame first.
        """
        batch, frames = video.shape[:2]
        if frames % self.frames_per_clip:
            raise ConfigError(
                f"encoder univl: a video of {frames} frames cannot be cut into clips of {self.frames_per_clip} "
                "(frames_per_clip)."
            )
        grid: Tensor = self.backbone(video)
        if self.output_proj is not None:
            grid = self.output_proj(grid.flatten(0, 1)).unflatten(0, (batch, frames))
        clips = frames // self.frames_per_clip
        mask = None if padding is None else map_of_padding(padding, grid.shape[-2:])
        if self.tokens == "mean":
            x = pool_clips(grid, clips, mask)
            real = torch.ones(x.shape[:2], dtype=torch.bool, device=x.device)
            shape = (clips, 1, 1)
        else:
            x = grid.permute(0, 1, 3, 4, 2).flatten(1, 3)
            real = torch.ones(x.shape[:2], dtype=torch.bool, device=x.device) if mask is None else ~mask.flatten(1)
            shape = (clips, x.shape[1] // clips, 1)
        if self.training and torch.is_grad_enabled():
            # who reads the tokens alone, such as question answering, must not leave img_fc without a gradient
            idle = [p for p in self.img_fc.parameters() if type(p) is nn.Parameter]  # a sharded one is a DTensor
            x = x + connected_zero(idle, x)
        return Tokens(x, real, shape)

    def clip_features(self, tokens: Tokens) -> Tensor:
        """Tokens (B, N, D) of this encoder -> (B, n, D) of unit length, one per clip."""
        x = tokens.x
        if tokens.grid is not None and (clips := tokens.grid[0]) < x.shape[1]:
            weight = tokens.attention_mask.view(x.shape[0], clips, -1, 1).to(x.dtype)
            x = (x.view(x.shape[0], clips, -1, x.shape[2]) * weight).sum(2) / weight.sum(2).clamp(min=1)
        features: Tensor = self.img_fc(x)
        return normalize(features, dim=-1)

    def pool(self, tokens: Tokens) -> Tensor:
        """Tokens (B, N, D) -> (B, D), the mean over the clip features."""
        return self.clip_features(tokens).mean(dim=1)

    def layer_of(self, name: str) -> int:
        """Layer of a parameter for learning-rate decay: 0 stem, 1..depth stages or blocks, depth + 1 behind them."""
        if not name.startswith("backbone.net."):
            return self.depth + 1
        return self.backbone.layer_of(name.removeprefix("backbone.net."))

    def gradient_checkpointing_enable(self) -> None:
        """Recompute the blocks of the backbone in the backward pass."""
        self.backbone.checkpointing = True


def carried_name(name: str) -> str:
    """Name of the buffer that keeps a tensor which nothing reads; buffers have no dots."""
    return name.replace(".", "/")


def pool_clips(grid: Tensor, clips: int, mask: Tensor | None = None) -> Tensor:
    """Mean over frames and places of each clip.

    Args:
        grid: (B, T, D, h, w), the frames of a clip next to each other.
        clips: n; T is a multiple of it.
        mask: bool (B, T, h, w), True = padding. A clip that is nothing else gives 0.

    Returns:
        (B, n, D).
    """
    batch, frames, width, height, breadth = grid.shape
    places = grid.reshape(batch, clips, frames // clips, width, height, breadth)
    if mask is None:
        return places.mean(dim=(2, 4, 5))
    real = (~mask).view(batch, clips, -1, 1, height, breadth).to(grid.dtype)
    return (places * real).sum(dim=(2, 4, 5)) / real.sum(dim=(2, 4, 5)).clamp(min=1)


def map_of_padding(padding: Tensor, size: torch.Size) -> Tensor:
    """bool (B, T, H, W) of pixels -> bool (B, T, h, w) of places, by the pixel nearest to each."""
    return interpolate(padding.float(), size=tuple(size)).bool()


def load_backbone(backbone: Backbone, source: bool | str) -> None:
    """Fill a backbone with published weights.

    Args:
        backbone: to be changed.
        source: True downloads them; else a file by the names of timm, torchvision or the original programs.

    Raises:
        ConfigError: they cannot be downloaded or read, or do not fit; a classification head is ignored.
    """
    net = backbone.net
    try:
        found = backbone.published() if source is True else _from_file(str(source))
    except (OSError, RuntimeError, ValueError, DataError) as error:
        hint = "Without network: give the file of the weights, pretrained=PATH." if source is True else ""
        reason = " ".join(str(error).split())[:300]
        raise ConfigError(f"encoder univl: pretrained={source} cannot be loaded ({reason}). {hint}".rstrip()) from error
    own = net.state_dict()
    found = {name: value for name, value in found.items() if name in own or not name.startswith(HEADS)}
    wrong = sorted(own.keys() ^ found.keys()) or [n for n in own if own[n].shape != found[n].shape]
    if wrong:
        raise ConfigError(
            f"encoder univl: pretrained={source} does not fit this backbone: {len(wrong)} of {len(own)} tensors are "
            f"missing, unknown or of another shape ({', '.join(wrong[:4])}, ...). Is it the same backbone with the "
            "same sizes?"
        )
    net.load_state_dict(found)


def _from_file(path: str) -> dict[str, Tensor]:
    tensors = read_checkpoint(Path(path)).tensors
    for prefix in ("backbone.", "model.", "encoder."):
        if all(name.startswith((prefix, *HEADS)) for name in tensors):
            tensors = {name.removeprefix(prefix): value for name, value in tensors.items()}
    tensors = {name: value for name, value in tensors.items() if not name.endswith("num_batches_tracked")}
    kind = backbone_kind(tensors)
    return tensors if kind is None else {backbone_to_ours(kind, name): value for name, value in tensors.items()}
