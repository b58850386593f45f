"""A vision transformer (arXiv:2010.11929) that sees each frame alone: one token per frame."""

import torch
from torch import nn
from torchvision.models import VisionTransformer

from vtp.types import Tokens, VideoSpec


class OClip(nn.Module):
    def __init__(self, *, width: int = 32, layers: int = 2, heads: int = 2, frames: int = 4, size: int = 32):
        super().__init__()
        mean, std = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
        self.spec, self.width, self.depth = VideoSpec(frames=frames, size=size, mean=mean, std=std), width, layers
        self.vit = VisionTransformer(size, 16, layers, heads, width, 2 * width)
        self.vit.heads = nn.Identity()
        self.grid = (frames, 1, 1)

    def layer_of(self, name):
        block = name.partition("encoder_layer_")[2].partition(".")[0]
        return int(block) + 1 if block else self.depth + 1 if ".ln." in name else 0

    def forward(self, video):
        x = self.vit(video.flatten(0, 1)).unflatten(0, video.shape[:2])  # (B, T, D)
        return Tokens(x, torch.ones(x.shape[:2], dtype=torch.bool, device=x.device), self.grid)
