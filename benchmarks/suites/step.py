"""One training step of a masked video autoencoder (VideoMAE-B, arXiv:2203.12602), forward, backward and update, three
ways: as eager training code is written, with our operations, and with our operations compiled. The three share their
weights' shapes and their transformer blocks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import torch
from harness import Case, Provider
from suites.tube import TUBELET, boolean_mask, eager_labels, normalised
from torch import Tensor, nn
from torch.nn import functional

from vtp_kernels import gather_tubelets, grid_index, masked_pixel_loss, tube_keep_ids


class Size(NamedTuple):
    """Widths, depths and heads of encoder and decoder."""

    width: int
    depth: int
    heads: int
    decoder_width: int
    decoder_depth: int
    decoder_heads: int


BASE = Size(768, 12, 12, 384, 4, 6)
SMALL = Size(192, 2, 3, 96, 1, 3)  # for a CPU
TINY = Size(32, 1, 2, 32, 1, 2)


class Block(nn.Module):
    """Pre-norm transformer block with SDPA."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, D)."""
        q, k, v = self.qkv(self.norm1(x)).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        x = x + self.out(functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        return x + self.mlp(self.norm2(x))


class Autoencoder(nn.Module):
    """Encoder over visible tokens, decoder over all; the loss looks at the hidden ones."""

    def __init__(self, size: Size, grid: tuple[int, int, int], ours: bool) -> None:
        super().__init__()
        self.grid, self.ours = grid, ours
        self.embed = nn.Conv3d(3, size.width, TUBELET, TUBELET)
        self.encoder = nn.Sequential(
            *(Block(size.width, size.heads) for _ in range(size.depth)), nn.LayerNorm(size.width)
        )
        self.project = nn.Linear(size.width, size.decoder_width, bias=False)
        self.mask_token = nn.Parameter(torch.zeros(size.decoder_width))
        tokens = grid[0] * grid[1] * grid[2]
        self.register_buffer("positions", torch.randn(tokens, size.width) * 0.02)
        self.register_buffer("decoder_positions", torch.randn(tokens, size.decoder_width) * 0.02)
        blocks = (Block(size.decoder_width, size.decoder_heads) for _ in range(size.decoder_depth))
        self.decoder = nn.Sequential(*blocks, nn.LayerNorm(size.decoder_width))
        self.head = nn.Linear(size.decoder_width, 3 * TUBELET[0] * TUBELET[1] * TUBELET[2])

    def forward(self, video: Tensor, keep: Tensor, drop: Tensor) -> Tensor:
        """Loss of uint8 video (B, T, H, W, 3)."""
        visible, hidden = (grid_index(ids, self.grid) for ids in (keep, drop))
        if self.ours:
            pixels = gather_tubelets(video, keep, TUBELET, dtype=self.embed.weight.dtype)
            x = functional.linear(pixels, self.embed.weight.flatten(1), self.embed.bias) + self.positions[visible]
            pred = self._decode(self.encoder(x), visible, hidden)
            return masked_pixel_loss(pred, video, drop, TUBELET)
        normal, mask = normalised(video), boolean_mask(drop, self.grid)
        x = self.embed(normal).flatten(2).transpose(1, 2) + self.positions
        pred = self._decode(self.encoder(x[~mask].view(len(x), -1, x.shape[2])), visible, hidden)
        with torch.no_grad():
            labels = eager_labels(normal, mask)
        return functional.mse_loss(pred.float(), labels)

    def _decode(self, x: Tensor, visible: Tensor, hidden: Tensor) -> Tensor:
        x = self.project(x) + self.decoder_positions[visible]
        masked = (self.mask_token + self.decoder_positions[hidden]).to(x.dtype)
        return self.head(self.decoder(torch.cat([x, masked], 1))[:, -hidden.shape[1] :])


def cases(device: torch.device, tiny: bool) -> Iterator[Case]:
    """One case; ``useful`` counts nothing, the ratio and clips per second matter."""
    cuda = device.type == "cuda"
    size, batch, frames, pixels = (BASE, 64, 16, 224) if cuda else (TINY, 1, 4, 32) if tiny else (SMALL, 2, 16, 224)
    grid = (frames // 2, pixels // 16, pixels // 16)
    space = grid[1] * grid[2]
    video = torch.randint(0, 256, (batch, frames, pixels, pixels, 3), dtype=torch.uint8, device=device)
    keep, drop = tube_keep_ids(batch, space, max(1, space - int(0.9 * space)), seed=0, device=device)

    def provider(name: str, ours: bool, compiled: bool = False) -> Provider:
        torch.manual_seed(0)
        model = Autoencoder(size, grid, ours).to(device)
        fused = {"fused": True} if cuda else {}
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.0, **fused)  # the weights stay, the work is done
        forward = torch.compile(model) if compiled else model

        def step() -> None:
            with torch.autocast(device.type, torch.bfloat16, enabled=cuda):
                loss = forward(video, keep, drop)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()

        def results() -> Mapping[str, Tensor]:
            optimizer.zero_grad()
            value = model(video, keep, drop)  # in float32: bfloat16 rounding of twelve blocks would hide a fault
            value.backward()
            found = {"loss": value.detach().clone(), "grad of the embedding": model.embed.weight.grad.clone()}
            optimizer.zero_grad()
            return found

        return Provider(name, {"step": step}, results)

    # The definition of this case is the eager code in float32: what is compared is our path, not the transformer.
    torch.manual_seed(0)
    exact = Autoencoder(size, grid, ours=False).to(device)
    value = exact(video, keep, drop)
    value.backward()
    want = {"loss": value.detach(), "grad of the embedding": exact.embed.weight.grad}
    compiled = (
        provider("ours, compiled", True, True)
        if cuda
        else Provider("ours, compiled", unavailable="timed on a GPU only")
    )
    yield Case(
        "step",
        f"VideoMAE {'B' if cuda else 'tiny' if tiny else 'small'} B{batch}, 90 % hidden",
        torch.bfloat16 if cuda else torch.float32,
        [provider("ours", True), provider("eager", False), compiled],
        want,
        layers=1,
        tolerance=(1e-4, 1e-2) if cuda else None,  # convolutions on a GPU round to TF32
    )
