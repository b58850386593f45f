"""``timm``: any image model of timm, frame by frame.

    video   (B, T, 3, H, W)   float, normalised as the image model was trained
    tokens  (B, N, D)         N = T * H' * W' patches, T frames, or 1 clip

Frames meet only in the fusion encoder, or in the temporal pooling.
"""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any, Literal, cast

import torch
from timm.data import resolve_model_data_config
from timm.models import group_parameters
from torch import Tensor, nn

from vtp.errors import ConfigError
from vtp.media.settings import triple
from vtp.model.build import BuildContext
from vtp.ranges import Size
from vtp.types import Tokens, VideoSpec
from vtp_encoders.timm_models import create, save_config, source_of

__all__ = ["TimmVideo"]


class TimmVideo(nn.Module):
    """An image model over frames.

    Args:
        model: name in timm (``timm.list_models()``): ResNet, ViT, Swin, PVTv2, ConvNeXt, ...; a name on the hub with
            ``hf-hub:`` before it; or a folder as timm saves for the hub.
        pretrained: True downloads timm's weights once; False starts from random ones. Restoring a checkpoint downloads
            nothing.
        frames: frames per clip, T.
        size: side of the frames in pixels; null is what the model was trained at.
        tokens: ``frame`` gives one token per frame, ``patch`` all positions of all frames, ``clip`` one token per clip.
        pooling: with ``tokens=clip``, how frames become a clip: ``mean``, or ``attention`` with a learned query.
        context: tells whether a checkpoint is being restored.
    """

    def __init__(
        self,
        *,
        context: BuildContext,
        model: str = "vit_small_patch16_224",
        pretrained: bool = False,
        frames: Size = 8,
        size: Size | None = None,
        tokens: Literal["frame", "patch", "clip"] = "frame",
        pooling: Literal["mean", "attention"] = "mean",
    ) -> None:
        super().__init__()
        source, restored = source_of("video", model, context)
        self.model = create(source, pretrained and not restored, img_size=size)
        self._elsewhere = ":" in source  # not a name that timm knows by itself
        data = resolve_model_data_config(self.model)
        side = size if size is not None else int(data["input_size"][-1])
        self.spec = VideoSpec(frames=frames, size=side, mean=triple(data["mean"]), std=triple(data["std"]))
        self.tokens = tokens
        self._prefix = _prefix(self.model)
        self.model.eval()
        with torch.enable_grad():  # asked, not read off: the head's pooling changes the width in some families
            picture = torch.zeros(1, 3, side, side)
            if tokens == "patch":
                _check_positions(model, self.model.forward_features(picture), self._prefix)
            probe = self._encode(picture)
            _freeze_unused(self.model, probe)
        self.width = int(probe.shape[-1])
        self.model.train()
        self.depth, self._layers = _layers(self.model)
        self.query = None
        if tokens == "clip" and pooling == "attention":
            self.query = nn.Parameter(torch.zeros(self.width))  # starts as the mean

    def forward(self, video: Tensor) -> Tokens:
        """(B, T, 3, H, W) -> Tokens (B, N, D)."""
        frames = video.shape[1]
        x = self._encode(video.flatten(0, 1))
        x = x.reshape(video.shape[0], -1, x.shape[-1])  # (B, T * P, D)
        if self.tokens == "clip":
            logits = x.new_zeros(x.shape[:2]) if self.query is None else x @ self.query * self.width**-0.5
            x = (x * logits.softmax(dim=1)[..., None]).sum(dim=1, keepdim=True)
        real = torch.ones(x.shape[:2], dtype=torch.bool, device=x.device)
        return Tokens(x, real, (1,) if self.tokens == "clip" else (frames,) if self.tokens == "frame" else None)

    def layer_of(self, name: str) -> int:
        """Layer of a parameter for learning-rate decay, by timm's own grouping: 0 stem, 1..depth stages or blocks,
        depth + 1 behind them.
        """
        return self._layers.get(name.removeprefix("model."), self.depth + 1)

    def gradient_checkpointing_enable(self) -> None:
        """Recompute the stages in the backward pass, where the model can."""
        self.model.set_grad_checkpointing(True)

    def save_assets(self, directory: Path) -> None:
        """Write what timm makes a model of the hub or a folder from."""
        if self._elsewhere:
            save_config(self.model, directory)

    def _encode(self, images: Tensor) -> Tensor:
        """(I, 3, H, W) -> (I, P, D): one pooled vector per image, or its positions without cls and register tokens."""
        if self.tokens != "patch":
            return cast("Tensor", self.model(images)).flatten(1).unsqueeze(1)
        features = cast("Tensor", self.model.forward_features(images))
        if features.dim() == 3:
            return features[:, self._prefix :]
        if str(getattr(self.model, "output_fmt", "NCHW")).endswith("NHWC"):
            return features.flatten(1, 2)
        return features.flatten(2).transpose(1, 2)


def _prefix(model: Any) -> int:
    """Class and register tokens before the positions. Families that do not tell their number have what they learn."""
    told = getattr(model, "num_prefix_tokens", None)
    if told is not None:
        return int(told)
    learnt: dict[str, int] = {}  # kind -> how many; coat has a class token per stage, cls_token1 to cls_token4
    for name, token in model.named_parameters(recurse=False):
        if (kind := re.fullmatch(r"(cls|dist|reg)_token\d*", name)) and token.dim() == 3:
            learnt[kind[1]] = int(token.shape[1])  # the last one is that of the last stage
    return sum(learnt.values())


def _check_positions(name: str, features: Any, prefix: int) -> None:
    """Refuse ``tokens=patch`` for families whose last features are not one map of positions.

    Args:
        features: what the model makes of one square picture, so the positions must be a square.
        prefix: tokens before them.
    """
    if not isinstance(features, Tensor):
        what = f"{len(features)} maps" if isinstance(features, (list, tuple)) else type(features).__name__
    elif features.dim() == 3:
        count = features.shape[1] - prefix
        if count > 0 and math.isqrt(count) ** 2 == count:
            return
        what = f"{features.shape[1]} tokens, {prefix} of them class or register tokens"
    elif features.dim() == 4:
        return
    else:
        what = f"one vector of shape {tuple(features.shape)}"
    raise ConfigError(
        f"encoder timm: the last features of {name!r} are {what}, not one map of positions, so tokens=patch is not to "
        "be had. Use tokens=frame, or another model."
    )


def _freeze_unused(model: nn.Module, out: Tensor) -> None:
    """Take parameters that ``out`` does not depend on out of training, such as a head that only pooled output passes:
    DDP would wait for their gradients.
    """
    parameters = [p for p in model.parameters() if p.requires_grad]
    gradients = torch.autograd.grad(out.sum(), parameters, allow_unused=True)
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.requires_grad_(gradient is not None)


def _layers(model: Any) -> tuple[int, dict[str, int]]:
    """Depth, and parameter name -> layer, as timm groups them."""
    matcher = getattr(model, "group_matcher", None)
    names = [name for name, _ in model.named_parameters()]
    if matcher is None:
        return 0, dict.fromkeys(names, 0)
    layers = {str(k): int(v) for k, v in group_parameters(model, matcher(coarse=False), reverse=True).items()}
    return max(max(layers.values(), default=0) - 1, 0), layers
