"""Backbones of the video encoder: frames to maps of features.

    video   (B, T, 3, H, W)    float, normalised
    grid    (B, T, C, h, w)    h = H / 32 and w = W / 32, rounded up; 1 x 1 of clip and of tiny

| backbone | origin | frames see each other |
|---|---|---|
| pvt_v2_b0 .. b5, b2_li | PVTv2 (arXiv:2106.13797) as timm writes it, without its average pooling and head | no |
| swin3d_t, s, b | Video Swin (arXiv:2106.13230) as torchvision writes it, patches one frame apart | yes |
| resnet50 | ResNet (arXiv:1512.03385) of torchvision up to C5, BatchNorm frozen | no |
| clip | ViT-B/16 of CLIP (arXiv:2103.00020) as timm writes it, its class token | no |
| tiny | a few convolutions, for CPUs | between neighbours |

Names of parameters are those of timm and torchvision.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from timm.models.pvt_v2 import PyramidVisionTransformerV2
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint
from torchvision.models.resnet import Bottleneck, ResNet
from torchvision.models.video.swin_transformer import SwinTransformer3d
from torchvision.ops import FrozenBatchNorm2d

from vtp.errors import ConfigError
from vtp_encoders import hub

__all__ = ["CLIP", "IMAGENET", "PVT", "RESNET", "SWIN", "Backbone", "family_of", "make_backbone"]

Triple = tuple[float, float, float]
IMAGENET: tuple[Triple, Triple] = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
CLIP_PIXELS: tuple[Triple, Triple] = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))

_PVT: dict[str, Any] = {
    "widths": [64, 128, 320, 512],
    "heads": [1, 2, 5, 8],
    "mlp_ratios": [8, 8, 4, 4],
    "reductions": [8, 4, 2, 1],
    "linear": False,
}
PVT: dict[str, dict[str, Any]] = {
    "pvt_v2_b0": {**_PVT, "widths": [32, 64, 160, 256], "depths": [2, 2, 2, 2]},
    "pvt_v2_b1": {**_PVT, "depths": [2, 2, 2, 2]},
    "pvt_v2_b2": {**_PVT, "depths": [3, 4, 6, 3]},
    "pvt_v2_b2_li": {**_PVT, "depths": [3, 4, 6, 3], "linear": True},
    "pvt_v2_b3": {**_PVT, "depths": [3, 4, 18, 3]},
    "pvt_v2_b4": {**_PVT, "depths": [3, 8, 27, 3]},
    "pvt_v2_b5": {**_PVT, "depths": [3, 6, 40, 3], "mlp_ratios": [4, 4, 4, 4]},
}
_SWIN: dict[str, Any] = {"width": 96, "heads": [3, 6, 12, 24], "window": [8, 7, 7]}
SWIN: dict[str, dict[str, Any]] = {
    "swin3d_t": {**_SWIN, "depths": [2, 2, 6, 2]},
    "swin3d_s": {**_SWIN, "depths": [2, 2, 18, 2]},
    "swin3d_b": {**_SWIN, "depths": [2, 2, 18, 2], "width": 128, "heads": [4, 8, 16, 32]},
}
RESNET: dict[str, dict[str, Any]] = {"resnet50": {"depths": [3, 4, 6, 3]}}
CLIP: dict[str, dict[str, Any]] = {"clip": {"patch": 16, "width": 768, "depth": 12, "heads": 12}}
TINY: dict[str, dict[str, Any]] = {"tiny": {"widths": [32, 64, 64]}}


class Backbone(nn.Module):
    """What all of them have.

    Attributes:
        net: the network of timm or torchvision; its parameters' names are theirs.
        channels: C.
        depth: stages or blocks that have a layer of their own in :meth:`layer_of`.
        least: smallest side of a frame in pixels.
        pixels: mean and standard deviation per RGB channel that its published weights were trained with.
        checkpointing: compute the activations of each block again in the backward pass.
    """

    net: nn.Module
    channels: int
    depth: int = 4
    least: int = 32
    pixels: tuple[Triple, Triple] = IMAGENET
    checkpointing: bool = False

    def forward(self, video: Tensor) -> Tensor:
        """(B, T, 3, H, W) -> (B, T, C, h, w)."""
        raise NotImplementedError

    def published(self) -> dict[str, Tensor]:
        """Its published weights, downloaded once, by the names of ``net``."""
        raise ConfigError(f"encoder univl: there are no published weights of {type(self).__name__}; pretrained=false")

    def layer_of(self, name: str) -> int:
        """0 the stem, 1..depth stages or blocks, depth + 1 what is behind them, of a parameter of ``net``."""
        raise NotImplementedError

    def run(self, block: Callable[..., Tensor], *inputs: Any) -> Tensor:
        """Call a block, its activations kept or not."""
        if self.checkpointing and torch.is_grad_enabled():
            # the re-entrant kind gives no gradient at all where the input, a picture, needs none
            out: Tensor = checkpoint(block, *inputs, use_reentrant=False)
            return out
        return block(*inputs)


class PVTv2(Backbone):
    """Pyramid Vision Transformer v2, frames folded into the batch.

    Args:
        widths, depths, heads, mlp_ratios, reductions: per stage.
        linear: average pooling to 7 x 7 in place of strided convolutions in front of keys and values.
        drop_path: stochastic depth of the last block; 0 as in AntMMF.
    """

    def __init__(
        self,
        *,
        widths: list[int],
        depths: list[int],
        heads: list[int],
        mlp_ratios: list[int],
        reductions: list[int],
        linear: bool,
        drop_path: float = 0.0,
        name: str = "",
    ) -> None:
        super().__init__()
        self.name = name
        net: Any = PyramidVisionTransformerV2(
            num_classes=0,
            depths=tuple(depths),
            embed_dims=tuple(widths),
            num_heads=tuple(heads),
            sr_ratios=tuple(reductions),
            mlp_ratios=tuple(mlp_ratios),
            linear=linear,
            drop_path_rate=drop_path,
        )
        # timm starts it at 0: a frame of the mean colour would then reach LayerNorm without variance, one after the
        # other, each of which multiplies gradients by 1000
        nn.init.normal_(net.patch_embed.proj.bias, std=0.02)
        self.net = net
        self.channels = widths[-1]

    def forward(self, video: Tensor) -> Tensor:
        """(B, T, 3, H, W) -> (B, T, C, h, w)."""
        net: Any = self.net
        x = net.patch_embed(video.flatten(0, 1))  # (B * T, h, w, C)
        for stage in net.stages:
            x = x if stage.downsample is None else stage.downsample(x)
            size = x.shape[1:3]
            x = x.flatten(1, 2)
            for block in stage.blocks:
                x = self.run(block, x, size)
            x = stage.norm(x).unflatten(1, size).permute(0, 3, 1, 2)
        out: Tensor = x.unflatten(0, video.shape[:2])
        return out

    def published(self) -> dict[str, Tensor]:
        """ImageNet-1k, of timm."""
        return _timm(self.name or "pvt_v2_b2")

    def layer_of(self, name: str) -> int:
        """Of a parameter of ``net``."""
        return _numbered(name, "stages.", self.depth, "patch_embed.")


class VideoSwin(Backbone):
    """Video Swin Transformer whose patches, two frames deep, begin at every frame: one zero frame is put behind the
    last, so that T frames give T moments.

    Args:
        width: channels of the first stage.
        depths, heads: per stage.
        window: (frames, height, width) of the attention windows in patches.
        drop_path: stochastic depth of the last block.
    """

    def __init__(
        self,
        *,
        width: int,
        depths: list[int],
        heads: list[int],
        window: list[int],
        drop_path: float = 0.2,
        name: str = "",
    ) -> None:
        super().__init__()
        self.name = name
        net = SwinTransformer3d(
            patch_size=[2, 4, 4],
            embed_dim=width,
            depths=list(depths),
            num_heads=list(heads),
            window_size=list(window),
            stochastic_depth_prob=drop_path,
            num_classes=1,
        )
        net.head = nn.Identity()
        net.patch_embed.proj.stride = (1, 4, 4)
        self.net = net
        self.depth = len(depths)
        self.channels = width * 2 ** (len(depths) - 1)

    def forward(self, video: Tensor) -> Tensor:
        """(B, T, 3, H, W) -> (B, T, C, h, w)."""
        net: Any = self.net
        height, width = video.shape[-2:]
        # torchvision's own padding in time would depend on whether T is even
        x = F.pad(video.transpose(1, 2), (0, -width % 4, 0, -height % 4, 0, 1))
        x = net.patch_embed.norm(net.patch_embed.proj(x).permute(0, 2, 3, 4, 1))  # (B, T, h, w, C)
        for part in net.features:
            for block in part if isinstance(part, nn.Sequential) else [part]:
                x = self.run(block, x)
        out: Tensor = net.norm(x).permute(0, 1, 4, 2, 3)
        return out

    def published(self) -> dict[str, Tensor]:
        """Kinetics-400, of torchvision."""
        from torchvision.models import get_model_weights

        weights = get_model_weights(self.name or "swin3d_s").KINETICS400_V1
        return dict(weights.get_state_dict(progress=False, check_hash=True))

    def layer_of(self, name: str) -> int:
        """Of a parameter of ``net``: stages and the merging of patches take turns in its list."""
        if not name.startswith("features."):
            return 0 if name.startswith("patch_embed.") else self.depth + 1
        return (int(name.split(".")[1]) + 1) // 2 + 1


class ResNet50(Backbone):
    """ResNet of bottlenecks, its last map, frames folded into the batch.

    Args:
        depths: blocks per stage.
        frozen_norm: BatchNorm with the statistics, factors and offsets that it was given, none of them trained.
    """

    def __init__(self, *, depths: list[int], frozen_norm: bool = True, name: str = "") -> None:
        super().__init__()
        self.name = name
        self.frozen = frozen_norm
        net = ResNet(
            Bottleneck, list(depths), num_classes=1, norm_layer=FrozenBatchNorm2d if frozen_norm else nn.BatchNorm2d
        )
        net.fc, net.avgpool = nn.Identity(), nn.Identity()
        self.net = net
        self.channels = 512 * Bottleneck.expansion

    def forward(self, video: Tensor) -> Tensor:
        """(B, T, 3, H, W) -> (B, T, C, h, w)."""
        net: Any = self.net
        x = net.maxpool(net.relu(net.bn1(net.conv1(video.flatten(0, 1)))))
        for stage in (net.layer1, net.layer2, net.layer3, net.layer4):
            for block in stage:
                # computed twice, a block would count its batch twice in the running statistics
                x = self.run(block, x) if self.frozen else block(x)
        out: Tensor = x.unflatten(0, video.shape[:2])
        return out

    def published(self) -> dict[str, Tensor]:
        """ImageNet-1k, of torchvision."""
        from torchvision.models import ResNet50_Weights

        return dict(ResNet50_Weights.IMAGENET1K_V1.get_state_dict(progress=False, check_hash=True))

    def layer_of(self, name: str) -> int:
        """Of a parameter of ``net``."""
        return _numbered(name.replace("layer", "layer.", 1), "layer.", self.depth, "", first=1)


class ClipViT(Backbone):
    """Vision transformer of CLIP; its class token is the only place of the map.

    Args:
        patch: pixels per token and axis.
        width, depth, heads: of the transformer.
        size: side of the frames in pixels; positions are learned for it.
    """

    pixels = CLIP_PIXELS

    def __init__(self, *, patch: int, width: int, depth: int, heads: int, size: int = 224, name: str = "") -> None:
        super().__init__()
        self.name = name
        self.net = VisionTransformer(
            img_size=size,
            patch_size=patch,
            embed_dim=width,
            depth=depth,
            num_heads=heads,
            num_classes=0,
            pre_norm=True,
            norm_layer=partial(nn.LayerNorm, eps=1e-5),
            act_layer="quick_gelu",
        )
        self.depth, self.channels, self.least = depth, width, patch

    def forward(self, video: Tensor) -> Tensor:
        """(B, T, 3, H, W) -> (B, T, C, 1, 1)."""
        net: Any = self.net
        x = net.norm_pre(net._pos_embed(net.patch_embed(video.flatten(0, 1))))
        for block in net.blocks:
            x = self.run(block, x)
        out: Tensor = net.norm(x[:, 0]).unflatten(0, video.shape[:2])[..., None, None]
        return out

    def published(self) -> dict[str, Tensor]:
        """Those of OpenAI, through timm."""
        return _timm("vit_base_patch16_clip_quickgelu_224.openai")

    def layer_of(self, name: str) -> int:
        """Of a parameter of ``net``."""
        return _numbered(name, "blocks.", self.depth, ("patch_embed.", "pos_embed", "cls_token", "norm_pre."))


class TinyFrames(Backbone):
    """Convolutions per frame and one over time, to be trained on a CPU from nothing.

    Args:
        widths: channels of the three convolutions of the stem, at strides 4, 8 and 16.
        size: side of the frames in pixels.
        channels: C.
        whole: one vector per frame, which knows what is where; else a map of stride 32.
    """

    pixels = ((0.45, 0.45, 0.45), (0.25, 0.25, 0.25))
    depth = 1

    def __init__(
        self, *, widths: list[int], size: int = 64, channels: int = 128, whole: bool = True, name: str = ""
    ) -> None:
        super().__init__()
        if size % 32:
            raise ConfigError(
                f"encoder univl: size={size} must be a multiple of 32 pixels with backbone=tiny. Nearest valid: "
                f"size={max(1, round(size / 32)) * 32}."
            )
        first, second, third = widths
        side = size // 16 if whole else 2
        stem = nn.Sequential(
            nn.Conv2d(3, first, 7, stride=4, padding=3),  # windows overlap, or corners are cut apart
            nn.GroupNorm(1, first),
            nn.GELU(),
            nn.Conv2d(first, second, 3, stride=2, padding=1),
            nn.GroupNorm(1, second),
            nn.GELU(),
            nn.Conv2d(second, third, 3, stride=2, padding=1),
            nn.GELU(),
        )
        embed = nn.Conv2d(third, channels, side, stride=side)
        anywhere = nn.Linear(third, channels)
        motion = nn.Conv1d(channels, channels, 3, padding=1)
        norm = nn.LayerNorm(channels)
        # as small as BERT's tables, whose positions say which moment a clip is: next to larger clips they go under
        nn.init.constant_(norm.weight, 0.02)
        parts = {"stem": stem, "embed": embed, "anywhere": anywhere, "motion": motion, "norm": norm}
        self.net = nn.ModuleDict(parts)
        self.channels = channels

    def forward(self, video: Tensor) -> Tensor:
        """(B, T, 3, H, W) -> (B, T, C, h, w)."""
        net: Any = self.net
        batch, frames = video.shape[:2]
        x = self.run(net["stem"], video.flatten(0, 1).contiguous(memory_format=torch.channels_last))
        there = net["anywhere"](x.amax(dim=(2, 3)))[:, :, None, None]  # what is in the frame, wherever it is
        x = net["embed"](x) + there  # (B * T, C, h, w)
        h, w = x.shape[2:]
        x = x.unflatten(0, (batch, frames)).permute(0, 3, 4, 2, 1)  # (B, h, w, C, T)
        x = x + F.gelu(net["motion"](x.flatten(0, 2))).view(x.shape)
        out: Tensor = net["norm"](x.permute(0, 4, 1, 2, 3)).permute(0, 1, 4, 2, 3)
        return out

    def layer_of(self, name: str) -> int:
        """Of a parameter of ``net``."""
        return 0 if name.startswith("stem.") else 1


FAMILIES: tuple[tuple[type[Backbone], Mapping[str, Mapping[str, Any]]], ...] = (
    (PVTv2, PVT),
    (VideoSwin, SWIN),
    (ResNet50, RESNET),
    (ClipViT, CLIP),
    (TinyFrames, TINY),
)


def family_of(name: str) -> tuple[type[Backbone], dict[str, Any]]:
    """Class and sizes of a backbone.

    Raises:
        KeyError: no such name.
    """
    return next((cls, dict(named[name])) for cls, named in FAMILIES if name in named)


def make_backbone(name: str, sizes: Mapping[str, Any] | None, given: Mapping[str, Any]) -> Backbone:
    """A backbone with random weights.

    Args:
        name: one of the table above.
        sizes: in place of some of its own; they are keyword arguments of its class.
        given: what else its class may want (``size``, ``channels``, ``whole``, ``frozen_norm``, ``drop_path``); what it
            does not know is left out, and None is its default.

    Raises:
        ConfigError: sizes that it does not have, or that do not fit each other.
    """
    cls, own = family_of(name)
    known = inspect.signature(cls).parameters
    if unknown := sorted(set(sizes or {}) - set(own)):
        raise ConfigError(
            f"encoder univl: backbone={name} has no size {unknown[0]!r}. Sizes: {', '.join(own)} (encoder.video.sizes)."
        )
    changed = {key: value for key, value in (sizes or {}).items() if value != own[key]}
    for key, value in changed.items():
        if isinstance(own[key], list) != isinstance(value, list) or (
            isinstance(value, list) and (len(value) != len(own[key]) or not all(isinstance(v, int) for v in value))
        ):
            raise ConfigError(
                f"encoder univl: sizes.{key}={value!r} must look like that of {name}, {own[key]!r}: as many whole "
                "numbers."
            )
    options = {key: value for key, value in given.items() if key in known and value is not None}
    try:
        return cls(**{**own, **changed}, **options, name=name if not changed else "")
    except (AssertionError, ValueError, ZeroDivisionError, RuntimeError) as error:
        raise ConfigError(f"encoder univl: sizes of backbone={name} do not fit each other: {error}") from error


def _timm(model: str) -> dict[str, Tensor]:
    import timm

    hub.settle()
    return dict(timm.create_model(model, pretrained=True, num_classes=0).state_dict())


def _numbered(name: str, prefix: str, depth: int, stem: str | tuple[str, ...], *, first: int = 0) -> int:
    """Layer of ``prefix`` + number; 0 for the stem ("" = whatever has no number), depth + 1 for the rest."""
    if name.startswith(prefix):
        return int(name.removeprefix(prefix).split(".")[0]) - first + 1
    return 0 if not stem or name.startswith(stem) else depth + 1
