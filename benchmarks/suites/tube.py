"""Mask ids, embedding of the visible tubelets, masked pixel loss, against what VideoMAE-style training code does."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from harness import Case, Provider
from torch import Tensor
from torch.nn import functional

from vtp_kernels import gather_tubelets, grid_index, masked_pixel_loss, tube_keep_ids, tubelets

TUBELET = (2, 16, 16)
MEAN, STD = tubelets.IMAGENET_MEAN, tubelets.IMAGENET_STD


def boolean_mask(drop: Tensor, grid: tuple[int, int, int]) -> Tensor:
    """(B, N) True = hidden, as training code ships it."""
    index = grid_index(drop, grid)
    return torch.zeros(len(drop), grid[0] * grid[1] * grid[2], dtype=torch.bool, device=drop.device).scatter_(
        1, index, True
    )


def normalised(video: Tensor) -> Tensor:
    """(B, C, T, H, W) float, all pixels."""
    x = video.float().div_(255)
    return ((x - x.new_tensor(MEAN)) / x.new_tensor(STD)).permute(0, 4, 1, 2, 3)


def eager_labels(normal: Tensor, mask: Tensor) -> Tensor:
    """VideoMAE's labels: un-normalise, cut all tokens, normalise each channel of each, select. (B, n, P * C)."""
    p0, p1, p2 = TUBELET
    pixels = normal * normal.new_tensor(STD).view(3, 1, 1, 1) + normal.new_tensor(MEAN).view(3, 1, 1, 1)
    batch, channels, time, height, width = pixels.shape
    x = pixels.view(batch, channels, time // p0, p0, height // p1, p1, width // p2, p2)
    x = x.permute(0, 2, 4, 6, 3, 5, 7, 1).reshape(batch, -1, p0 * p1 * p2, channels)
    x = (x - x.mean(-2, keepdim=True)) / (x.var(-2, unbiased=True, keepdim=True).sqrt() + 1e-6)
    x = x.flatten(2)
    return x[mask].view(batch, -1, x.shape[2])


def _ids_case(device: torch.device, batch: int, space: int, keep: int) -> Case:
    want = {
        name: x.double()
        for name, x in zip(("keep", "drop"), tube_keep_ids(batch, space, keep, seed=1, backend="torch"), strict=True)
    }

    def ours() -> tuple[Tensor, Tensor]:
        return tube_keep_ids(batch, space, keep, seed=1, device=device)

    def sort_based() -> tuple[Tensor, Tensor]:
        order = torch.rand(batch, space, device=device).argsort(1)
        return order[:, :keep].sort(1).values, order[:, keep:].sort(1).values

    def any_mask() -> Mapping[str, Tensor]:
        kept, dropped = sort_based()  # other random numbers: only the sizes can be compared
        complete = torch.cat([kept, dropped], 1).sort(1).values.cpu().equal(torch.arange(space).expand(batch, -1))
        return want if complete else {"keep": kept, "drop": dropped}

    return Case(
        "tube",
        f"ids B{batch} {keep} of {space}",
        torch.float32,
        [
            Provider("ours", {"forward": ours}, lambda: dict(zip(want, ours(), strict=True))),
            Provider("rand + argsort + sort", {"forward": sort_based}, any_mask),
        ],
        want,
        layers=1,
    )


def _embed_case(video: Tensor, keep: Tensor, drop: Tensor, dtype: torch.dtype, name: str) -> Case:
    """From the decoder's bytes to the embedded visible tokens."""
    batch, time, height, width, _ = video.shape
    grid = (time // 2, height // 16, width // 16)
    torch.manual_seed(0)
    weight = torch.randn(768, 3, *TUBELET, device=video.device, dtype=dtype) * 0.02
    flat = weight.flatten(1)

    def ours(backend: str = "auto") -> Tensor:
        return functional.linear(gather_tubelets(video, keep, TUBELET, dtype=dtype, backend=backend), flat)

    def all_then_select() -> Tensor:
        tokens = functional.conv3d(normalised(video).to(dtype), weight, stride=TUBELET).flatten(2).transpose(1, 2)
        return tokens[~boolean_mask(drop, grid)].view(batch, -1, 768)

    pixels = tubelets.gather_tubelets_reference(
        video[:1].cpu(), keep[:1].cpu(), TUBELET, MEAN, STD, torch.float64, "tube"
    )
    want = {"tokens": pixels @ flat.cpu().double().T}

    def first(function: Callable[[], Tensor]) -> Callable[[], Mapping[str, Tensor]]:
        return lambda: {"tokens": function()[:1]}

    offered = [
        Provider("ours", {"forward": ours}, first(ours)),
        Provider("embed all, then select", {"forward": all_then_select}, first(all_then_select)),
    ]
    offered += _more(lambda: ours("torch"), video.device, "forward", first)
    kept = keep.shape[1] * grid[0] * batch * 1536
    return Case(
        "tube", f"embed {name}", dtype, offered, want, traffic={"forward": kept * (1 + dtype.itemsize)}, layers=1
    )


def _more(
    eager: Callable[..., Any], device: torch.device, phase: str, results: Callable[[Callable[..., Any]], Any]
) -> list[Provider]:
    """Gather-first in plain torch, eager and compiled; on a CPU that is what we run ourselves."""
    if device.type != "cuda":
        return [
            Provider(name, unavailable="is ours on a CPU") for name in ("gather first, eager", "gather first, compiled")
        ]
    compiled = torch.compile(eager)
    return [
        Provider("gather first, eager", {phase: eager}, results(eager)),
        Provider("gather first, compiled", {phase: compiled}, results(compiled)),
    ]


def _loss_case(video: Tensor, drop: Tensor, dtype: torch.dtype, name: str) -> Case:
    """Loss and gradient of the prediction. The eager path starts from the normalised video, which its encoder has."""
    batch, time, height, width, _ = video.shape
    grid = (time // 2, height // 16, width // 16)
    torch.manual_seed(0)
    pred = torch.randn(batch, drop.shape[1] * grid[0], 1536, device=video.device).to(dtype).requires_grad_()
    normal, mask = normalised(video), boolean_mask(drop, grid)

    def ours(backend: str = "auto") -> tuple[Tensor, Tensor]:
        loss = masked_pixel_loss(pred, video, drop, TUBELET, backend=backend)
        return loss.detach(), torch.autograd.grad(loss, pred)[0]

    def eager() -> tuple[Tensor, Tensor]:
        loss = functional.mse_loss(pred.float(), eager_labels(normal, mask))
        return loss.detach(), torch.autograd.grad(loss, pred)[0]

    labels = eager_labels(normalised(video[:1].cpu()).double(), mask[:1].cpu())
    error = pred.detach()[:1].cpu().double() - labels
    want = {"grad of the first sample": error * (2 / pred.numel())}

    def first(function: Callable[[], tuple[Tensor, Tensor]]) -> Callable[[], Mapping[str, Tensor]]:
        return lambda: {"grad of the first sample": function()[1][:1]}

    offered = [
        Provider("ours", {"both": ours}, first(ours)),
        Provider("VideoMAE, eager", {"both": eager}, first(eager)),
    ]
    offered += _more(lambda: ours("torch"), video.device, "both", first)
    traffic = {"both": pred.numel() * (1 + 2 * dtype.itemsize)}
    return Case("tube", f"loss {name}", dtype, offered, want, traffic=traffic, layers=1)


def cases(device: torch.device, tiny: bool) -> Iterator[Case]:
    """Ids, embedding and loss for each number of frames and mask ratio."""
    cuda = device.type == "cuda"
    size, batch = (32, 1) if tiny else (224, 64 if cuda else 4)
    sizes: Sequence[tuple[int, float]] = ((4, 0.75),) if tiny else ((16, 0.9), (16, 0.95), (16, 0.75), (8, 0.9))
    dtype = torch.bfloat16 if cuda else torch.float32
    for frames, ratio in sizes:
        space = (size // 16) ** 2
        keep_n = space - int(ratio * space)
        generator = torch.Generator().manual_seed(0)
        video = torch.randint(0, 256, (batch, frames, size, size, 3), dtype=torch.uint8, generator=generator).to(device)
        keep, drop = tube_keep_ids(batch, space, keep_n, seed=0, device=device)
        name = f"B{batch} {frames} frames, {ratio:.0%} hidden"
        yield _embed_case(video, keep, drop, dtype, name)
        yield _loss_case(video, drop, dtype, name)
    yield _ids_case(device, 2 if tiny else 64, 16 if tiny else 196, 4 if tiny else 20)
