"""Video Swin (arXiv:2106.13230) of torchvision. Patches are two frames deep: the last of an odd number is repeated."""

import torch
from torch import nn
from torchvision.models.video.swin_transformer import SwinTransformer3d

from vtp.types import Tokens, VideoSpec


class Swin3D(nn.Module):
    def __init__(self, *, frames: int = 5, size: int = 32, embed: int = 16):
        super().__init__()
        self.spec = VideoSpec(frames=frames, size=size, mean=(0.485, 0.456, 0.4), std=(0.25, 0.25, 0.25))
        shape = {"patch_size": [2, 4, 4], "window_size": [2, 4, 4], "depths": [1, 1], "num_heads": [1, 2]}
        self.net = SwinTransformer3d(embed_dim=embed, stochastic_depth_prob=0.0, **shape)
        self.net.head = nn.Identity()
        self.width = 2 * embed
        self.grid = ((frames + 1) // 2, size // 8, size // 8)

    def forward(self, video):
        if video.shape[1] % 2:
            video = torch.cat([video, video[:, -1:]], dim=1)
        x = self.net.norm(self.net.features(self.net.patch_embed(video.transpose(1, 2))))  # (B, T', H', W', D)
        x = x.flatten(1, 3)
        return Tokens(x, torch.ones(x.shape[:2], dtype=torch.bool, device=x.device), self.grid)
