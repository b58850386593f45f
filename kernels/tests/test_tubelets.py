"""gather_tubelets against torch's own convolution: embedding the gathered pixels is Conv3d on all pixels, then a
selection."""

import pytest
import torch
from torch.nn import functional

from vtp_kernels import gather_patches, gather_tubelets, grid_index, tube_keep_ids, tubelets

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
BACKENDS = ("triton", "torch")
KINDS = {"tube": 6, "token": 12, "frame": 2}  # positions to choose from, in a grid of 2 x 2 x 3


def bytes_of(*shape: int) -> torch.Tensor:
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("kind", KINDS)
def test_embedding_what_was_gathered_is_conv3d_then_select(kind, backend, relative_error):
    torch.manual_seed(0)
    video, weight, bias = bytes_of(2, 4, 16, 24, 3), torch.randn(5, 3, 2, 8, 8), torch.randn(5)
    keep, _ = tube_keep_ids(2, KINDS[kind], KINDS[kind] // 2, seed=1)
    pixels = gather_tubelets(video, keep, (2, 8, 8), MEAN, STD, kind=kind, backend=backend)
    got = functional.linear(pixels, weight.flatten(1), bias)
    normal = ((video.float() / 255 - torch.tensor(MEAN)) / torch.tensor(STD)).permute(0, 4, 1, 2, 3)  # (B, C, T, H, W)
    every = functional.conv3d(normal, weight, bias, stride=(2, 8, 8)).flatten(2).transpose(1, 2)  # (B, N, D)
    index = grid_index(keep, (2, 2, 3), kind)
    assert relative_error(got, every[torch.arange(2)[:, None], index]) < 1e-6


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("kind", KINDS)
def test_equals_the_definition(kind, backend):
    video = bytes_of(2, 4, 16, 24, 3)
    keep, _ = tube_keep_ids(2, KINDS[kind], 1, seed=1)
    want = tubelets.gather_tubelets_reference(video, keep, (2, 8, 8), MEAN, STD, torch.float64, kind)
    for dtype, limit in ((torch.float32, 1e-6), (torch.float16, 2e-3), (torch.bfloat16, 2e-2)):
        got = gather_tubelets(video, keep, (2, 8, 8), MEAN, STD, dtype, kind=kind, backend=backend)
        assert got.dtype == dtype
        torch.testing.assert_close(got.double(), want, rtol=limit, atol=limit)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    "change",
    [
        lambda x: x.permute(0, 1, 4, 2, 3).contiguous().permute(0, 1, 3, 4, 2),  # (B, T, C, H, W) in memory
        lambda x: x.repeat(1, 2, 1, 1, 1)[:, ::2],  # every second frame
        lambda x: x[:1].expand(2, -1, -1, -1, -1),
        lambda x: torch.cat([x, x], 3)[:, :, :, 5:29],  # a crop
    ],
)
def test_strides(change, backend):
    video = change(bytes_of(2, 4, 16, 24, 3))
    keep, _ = tube_keep_ids(2, 6, 2, seed=1)
    got = gather_tubelets(video, keep, (2, 8, 8), backend=backend)
    assert torch.equal(got, gather_tubelets(video.contiguous(), keep, (2, 8, 8), backend=backend))


@pytest.mark.parametrize(
    "shape, tubelet", [((1, 2, 6, 10, 1), (2, 3, 5)), ((1, 3, 4, 4, 4), (1, 2, 2)), ((1, 2, 4, 4, 5), (2, 2, 2))]
)
def test_odd_sizes_and_channel_counts(shape, tubelet):
    """Sizes that are no powers of two; 5 channels take the fallback."""
    video, numbers = bytes_of(*shape), [0.1 * (i + 1) for i in range(shape[4])]
    keep, _ = tube_keep_ids(1, 4, 3, seed=1)
    want = tubelets.gather_tubelets_reference(video, keep, tubelet, numbers, numbers, torch.float64, "tube")
    torch.testing.assert_close(
        gather_tubelets(video, keep, tubelet, numbers, numbers, backend="triton").double(), want, rtol=1e-5, atol=1e-5
    )


@pytest.mark.parametrize("backend", BACKENDS)
def test_spectrogram_patches_are_conv2d_then_select(backend, relative_error):
    torch.manual_seed(0)
    fbank, weight = torch.randn(2, 32, 24), torch.randn(5, 1, 8, 8)
    keep, _ = tube_keep_ids(2, 12, 5, seed=1)
    got = gather_patches(fbank, keep, (8, 8), mean=-4.0, std=9.0, backend=backend) @ weight.flatten(1).T
    every = functional.conv2d(((fbank + 4.0) / 9.0)[:, None], weight, stride=8).flatten(2).transpose(1, 2)
    assert relative_error(got, every[torch.arange(2)[:, None], keep.long()]) < 1e-6


@pytest.mark.parametrize("backend", BACKENDS)
def test_gradient_of_a_float_source(backend, relative_error):
    torch.manual_seed(0)
    keep, _ = tube_keep_ids(2, 6, 2, seed=1)
    sources = [torch.randn(2, 4, 16, 24, 3).requires_grad_() for _ in range(2)]
    sources[1].data.copy_(sources[0].data)
    got = gather_tubelets(sources[0], keep, (2, 8, 8), backend=backend)
    want = tubelets.gather_tubelets_reference(sources[1], keep, (2, 8, 8), MEAN, STD, torch.float32, "tube")
    g = torch.randn_like(want)
    first = torch.autograd.grad(got, sources[0], g, retain_graph=True)[0]
    assert torch.equal(first, torch.autograd.grad(got, sources[0], g)[0])
    assert relative_error(first, torch.autograd.grad(want, sources[1], g)[0]) < 1e-6


def test_operators_are_registered_soundly():
    keep, _ = tube_keep_ids(1, 4, 2, seed=1)
    numbers = ([0.5] * 3, [0.2] * 3)
    for backend in BACKENDS:
        for video in (bytes_of(1, 2, 8, 8, 3), torch.rand(1, 2, 8, 8, 3, requires_grad=True)):
            arguments = (video, keep, [2, 4, 4], *numbers, torch.float32, "tube", backend)
            torch.library.opcheck(tubelets._gather_tubelets, arguments)
    torch.library.opcheck(
        tubelets._gather_backward, (torch.rand(1, 2, 96), torch.rand(1, 2, 8, 8, 3), keep, [2, 4, 4], *numbers, "tube")
    )
    compiled = torch.compile(
        lambda video, keep: gather_tubelets(video, keep, (2, 4, 4)), fullgraph=True, backend="aot_eager"
    )
    video = bytes_of(1, 2, 8, 8, 3)
    assert torch.equal(compiled(video, keep), gather_tubelets(video, keep, (2, 4, 4)))


def test_wrong_shapes_are_refused():
    keep = torch.zeros(1, 1, dtype=torch.int32)
    with pytest.raises(ValueError, match="multiples of the tubelet"):
        gather_tubelets(bytes_of(1, 3, 16, 16, 3), keep)
    with pytest.raises(ValueError, match="one number for each of the 1 channels"):
        gather_tubelets(bytes_of(1, 2, 16, 16, 1), keep)
    with pytest.raises(ValueError, match="kind"):
        gather_tubelets(bytes_of(1, 2, 16, 16, 3), keep, kind="cube")
