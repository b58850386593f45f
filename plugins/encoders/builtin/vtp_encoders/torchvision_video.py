"""``torchvision``: Video Swin (arXiv:2106.13230) and MViT (arXiv:2104.11227, arXiv:2112.01526), by torchvision.

video    (B, T, 3, H, W)   float, normalised as the weights of torchvision were trained
tokens   (B, N, D)         swin3d: positions of the last map, (T / 2) * (H / 32) * (W / 32), time slowest
                           mvit: the class token, then the positions; a clip is its class token
"""

from __future__ import annotations

import os
import re
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from torchvision import models

from vtp.errors import ConfigError
from vtp.media.settings import triple
from vtp.model.build import BuildContext
from vtp.ranges import Size
from vtp.registry import did_you_mean
from vtp.types import Tokens, VideoSpec

__all__ = ["TorchvisionVideo"]

NAME = "torchvision"


class TorchvisionVideo(nn.Module):
    """A video transformer of torchvision without its classifier.

    Args:
        model: ``swin3d_t``, ``swin3d_s``, ``swin3d_b``, ``mvit_v1_b`` or ``mvit_v2_s``.
        weights: a name that torchvision has weights under (``DEFAULT``, ``KINETICS400_V1``), which downloads them once;
            or a file with a state dict, as torchvision offers for download. null starts from random ones. Restoring a
            checkpoint reads none.
        frames: frames per clip, a multiple of 2; 16 for MViT.
        size: pixels per side, a multiple of 32; 224 for MViT.
        context: tells whether a checkpoint is being restored.
    """

    def __init__(
        self,
        *,
        context: BuildContext,
        model: str = "swin3d_t",
        weights: str | None = None,
        frames: Size = 16,
        size: Size = 224,
    ) -> None:
        super().__init__()
        known = [name for name in models.list_models(models.video) if name.startswith(("swin3d", "mvit"))]
        if model not in known:
            raise ConfigError(
                f"encoder {NAME}: there is no {model!r}.{did_you_mean(model, known)} Known: {', '.join(known)}."
            )
        self.swin = model.startswith("swin3d")
        if not self.swin and (frames, size) != (16, 224):
            raise ConfigError(f"encoder {NAME}: {model} takes 16 frames of 224 pixels. Give frames=16 size=224.")
        if frames % 2 or size % 32:
            raise ConfigError(
                f"encoder {NAME}: frames={frames} must be a multiple of 2 and size={size} of 32. Nearest valid: "
                f"frames={max(frames // 2, 1) * 2}, size={max(size // 32, 1) * 32}."
            )
        self.model: Any = models.get_model(model, weights=None)
        if weights is not None and context.assets is None:
            _load(self.model, model, weights)
        self.model.head = nn.Identity()
        trained = models.get_model_weights(model).DEFAULT.transforms.keywords
        mean, std = triple(trained["mean"]), triple(trained["std"])
        self.spec = VideoSpec(frames=frames, size=size, mean=mean, std=std)
        self.width = int(self.model.norm.normalized_shape[0])
        blocks = [len(part) if self.swin else 1 for part in self._parts()]
        self.before = [sum(blocks[:i]) for i in range(len(blocks))]  # blocks before a part
        self.depth = sum(blocks)
        self.grid = (frames // 2, size // 32, size // 32) if self.swin else None
        self.checkpointing = False

    def forward(self, video: Tensor) -> Tokens:
        """(B, T, 3, H, W) -> Tokens (B, N, D)."""
        model, video = self.model, video.transpose(1, 2)
        if self.swin:
            x = model.pos_drop(model.patch_embed(video))
            for part in model.features:
                for block in part if isinstance(part, nn.Sequential) else [part]:
                    x = self._run(block, x)
            x = model.norm(x).flatten(1, 3)
        else:
            x = model.pos_encoding(model.conv_proj(video).flatten(2).transpose(1, 2))
            thw = (model.pos_encoding.temporal_size, *model.pos_encoding.spatial_size)
            for block in model.blocks:
                x, thw = self._run(block, x, thw)
            x = model.norm(x)
        return Tokens(x, x.new_ones(x.shape[:2], dtype=torch.bool), self.grid)

    def pool(self, tokens: Tokens) -> Tensor:
        """(B, D), what torchvision classifies: the mean of Swin's positions, the class token of MViT."""
        return tokens.pooled() if self.swin else tokens.x[:, 0]

    def layer_of(self, name: str) -> int:
        """Layer of a parameter for learning-rate decay: 0 patch embedding, 1..depth blocks (a merging belongs to the
        block before it), depth + 1 the final norm.
        """
        if found := re.search(r"features\.(\d+)\.(\d+)\.", name):
            return self.before[int(found[1]) // 2] + int(found[2]) + 1
        if found := re.search(r"features\.(\d+)\.", name):
            return self.before[int(found[1]) // 2 + 1]
        if found := re.search(r"blocks\.(\d+)\.", name):
            return int(found[1]) + 1
        return self.depth + 1 if name.startswith("model.norm") else 0

    def gradient_checkpointing_enable(self) -> None:
        """Recompute the blocks in the backward pass."""
        self.checkpointing = True

    def _parts(self) -> list[Any]:
        return list(self.model.features)[::2] if self.swin else list(self.model.blocks)

    def _run(self, block: nn.Module, *inputs: Any) -> Any:
        if self.checkpointing and torch.is_grad_enabled():
            return checkpoint(block, *inputs, use_reentrant=False)
        return block(*inputs)


def _load(module: nn.Module, model: str, weights: str) -> None:
    """Fill a whole model, classifier included, from a file or from torchvision's list of weights."""
    known = {entry.name: entry for entry in models.get_model_weights(model)}
    known["DEFAULT"] = models.get_model_weights(model).DEFAULT
    path = os.path.expanduser(weights)
    if weights not in known and not os.path.isfile(path):
        raise ConfigError(
            f"encoder {NAME}: weights={weights!r} is neither a file nor weights of {model}: {', '.join(sorted(known))}."
        )
    try:
        found = known[weights].get_state_dict() if weights in known else torch.load(path, weights_only=True)
        found = {key: tensor for key, tensor in found.items() if not key.startswith("head.")}
        missing, unexpected = module.load_state_dict(found, strict=False)
    except Exception as error:  # no network; no file of tensors; other sizes: each has its own
        raise ConfigError(
            f"encoder {NAME}: cannot load weights={weights!r} into {model} ({' '.join(str(error).split())[:300]}). "
            "Without network: download the file elsewhere and give its path."
        ) from error
    missing = [key for key in missing if not key.startswith("head.")]
    if missing or unexpected:
        raise ConfigError(
            f"encoder {NAME}: weights={weights!r} do not fit {model}: {len(missing)} missing and {len(unexpected)} "
            f"unknown ({', '.join([*missing, *unexpected][:3])}, ...). Is it the right model?"
        )
