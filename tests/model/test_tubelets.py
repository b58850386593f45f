"""Cutting clips into tubelets and putting them back, and the kernels of vtp-kernels against the plain path."""

from __future__ import annotations

import pytest
import torch

from vtp.errors import ConfigError
from vtp.model import tubelets
from vtp.model.tubelets import (
    Grid,
    gather_patches,
    gather_tubelets,
    masked_pixel_loss,
    normalised_pixels,
    pixels,
    spectrogram_clip,
    unpatch,
)
from vtp.types import VideoSpec

SPEC = VideoSpec(frames=4, size=16)
MEAN, STD = torch.tensor(SPEC.mean), torch.tensor(SPEC.std)


def clip(rows=3):
    return torch.randint(0, 256, (rows, 4, 16, 16, 3), dtype=torch.uint8)


def test_unpatch_undoes_pixels():
    video = clip()
    grid = Grid.of(video, (2, 2, 4))
    assert (grid.tubelet, grid.patch) == (2, (8, 4))
    torch.testing.assert_close(unpatch(pixels(video, None, grid, MEAN, STD), grid), video / 255)


def test_tubelet_number_counts_time_slowest():
    video = clip()
    grid = Grid.of(video, (2, 2, 2))
    got = pixels(video, torch.tensor([[5]] * 3), grid, MEAN, STD).view(3, 2, 8, 8, 3)
    torch.testing.assert_close(got, video[:, 2:4, 0:8, 8:16] / 255)


def test_normalised_pixels_by_formula():
    values = torch.rand(2, 5, 7, 3)
    want = torch.empty_like(values)
    for b in range(2):
        for k in range(5):
            for c in range(3):
                x = values[b, k, :, c].double()
                centred = x - x.sum() / 7
                want[b, k, :, c] = centred / ((centred**2).sum() / 6).sqrt().add(1e-6)
    torch.testing.assert_close(normalised_pixels(values), want)
    assert torch.equal(normalised_pixels(torch.ones(1, 1, 7, 3)), torch.zeros(1, 1, 7, 3))


def test_an_uneven_cut_is_refused():
    with pytest.raises(ConfigError, match="Every axis must be a multiple"):
        Grid.of(clip(), (2, 3, 2))


@pytest.mark.parametrize("normalise", [True, False])
@pytest.mark.parametrize("missing", [[], [1]])
def test_kernels_compute_the_same(normalise, missing, monkeypatch):
    """The operators of vtp-kernels in their PyTorch form stand in for the compiled ones."""
    ops = pytest.importorskip("vtp_kernels")
    video, rows = clip(), torch.ones(3, dtype=torch.bool)
    rows[missing] = False
    video[missing] = 0
    grid = Grid.of(video, (2, 2, 2))
    index = torch.stack([torch.randperm(8)[:5].sort().values for _ in range(3)])
    pred = torch.randn(3, 5, 384, requires_grad=True)
    found = []
    for offered in (None, ops):
        monkeypatch.setattr(tubelets, "_kernels", lambda video, offered=offered: offered)
        cubes = gather_tubelets(video, index, grid, MEAN * 255, 1 / (STD * 255), SPEC)
        loss = masked_pixel_loss(pred, video, index, rows, grid, MEAN, STD, normalise)
        found.append((cubes, loss.detach(), torch.autograd.grad(loss, pred)[0]))
    for plain, kernel in zip(*found, strict=True):
        torch.testing.assert_close(kernel, plain, atol=1e-5, rtol=1e-5)


def test_patches_of_a_spectrogram_are_those_of_a_convolution():
    """In the order of a Conv2d weight, time slowest; the kernel in its PyTorch form gives the same."""
    spectrogram = torch.randn(2, 12, 8)
    weight = torch.randn(5, 1, 4, 2)
    want = (
        torch.nn.functional.conv2d((spectrogram[:, None] - 0.3) / 2, weight, stride=(4, 2)).flatten(2).transpose(1, 2)
    )
    patches = gather_patches(spectrogram, None, (4, 2), 0.3, 2.0)
    torch.testing.assert_close(patches @ weight.flatten(1).T, want)
    index = torch.tensor([[0, 5, 11], [3, 4, 7]])
    some = gather_patches(spectrogram, index, (4, 2), 0.3, 2.0)
    assert torch.equal(some, patches.gather(1, index[..., None].expand(-1, -1, 8)))
    if (ops := pytest.importorskip("vtp_kernels")) is not None:
        torch.testing.assert_close(ops.gather_patches(spectrogram, index.int(), (4, 2), 0.3, 2.0), some)


def test_hidden_patches_of_a_spectrogram_have_a_loss():
    spectrogram, index = torch.randn(2, 12, 8), torch.tensor([[1, 2], [0, 11]])
    clip = spectrogram_clip(spectrogram)
    grid = Grid.of(clip, (1, 3, 4))
    pred = torch.zeros(2, 2, 8)
    rows = torch.tensor([True, False])
    loss = masked_pixel_loss(pred, clip, index, rows, grid, torch.zeros(1), torch.ones(1), normalise=False)
    want = gather_patches(spectrogram, index, (4, 2), 0.0, 1.0)[0].square().mean()
    torch.testing.assert_close(loss, want)


def test_a_patch_that_does_not_divide_the_spectrogram_is_refused():
    with pytest.raises(ConfigError, match="Every axis must be a multiple"):
        gather_patches(torch.zeros(1, 12, 9), None, (4, 2), 0.0, 1.0)
    with pytest.raises(ConfigError, match="Every axis must be a multiple"):
        gather_patches(torch.zeros(1, 2, 8), None, (4, 2), 0.0, 1.0)
