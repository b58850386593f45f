"""masked_pixel_loss against the labels of VideoMAE and MAE written out the long way, and its gradient written in the
forward pass."""

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vtp_kernels import masked_patch_loss, masked_pixel_loss, pixel_loss, tube_keep_ids, tubelets

BACKENDS = ("triton", "torch")
NORMS = ("channel", "patch", "none")
KINDS = {"tube": 6, "token": 12, "frame": 2}


def bytes_of(*shape: int) -> torch.Tensor:
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def labels(video: torch.Tensor, mask: torch.Tensor, tubelet: tuple[int, int, int], norm: str) -> torch.Tensor:
    """As a training script would: cut all tokens of the whole video, normalise each, select with a boolean mask. (B,
    N, P * C)."""
    batch, time, height, width, channels = video.shape
    p0, p1, p2 = tubelet
    x = (video.double() / 255).view(batch, time // p0, p0, height // p1, p1, width // p2, p2, channels)
    x = x.permute(0, 1, 3, 5, 2, 4, 6, 7).reshape(batch, -1, p0 * p1 * p2, channels)
    if norm == "channel":
        x = (x - x.mean(-2, keepdim=True)) / (x.var(-2, unbiased=True, keepdim=True).sqrt() + 1e-6)
    x = x.flatten(2)
    if norm == "patch":
        x = (x - x.mean(-1, keepdim=True)) / (x.var(-1, keepdim=True) + 1e-6) ** 0.5
    return x[mask].view(batch, -1, x.shape[2])


def case(kind: str, dtype: torch.dtype):
    """A video of 2 x 2 x 3 tokens, predictions for the hidden ones, and the boolean mask of those."""
    torch.manual_seed(0)
    video = bytes_of(2, 4, 16, 24, 3)
    video[0, :, :8, :8] = 7  # a token without any variance
    _, drop = tube_keep_ids(2, KINDS[kind], KINDS[kind] // 2, seed=3)
    index = pixel_loss.geometry(video, (2, 8, 8), kind, [0] * 3, [1] * 3)
    hidden = tubelets.grid_index(drop, index.grid, kind)
    mask = torch.zeros(2, 12, dtype=torch.bool).scatter(1, hidden, True)
    return video, drop, mask, torch.randn(2, hidden.shape[1], 384).to(dtype).requires_grad_()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("kind", KINDS)
def test_loss_and_gradient_equal_the_long_way(kind, norm, backend, relative_error):
    video, drop, mask, pred = case(kind, torch.float32)
    want_pred = pred.detach().double().requires_grad_()
    want = (want_pred - labels(video, mask, (2, 8, 8), norm)).square().mean()
    loss = masked_pixel_loss(pred, video, drop, (2, 8, 8), norm=norm, kind=kind, backend=backend)
    loss.backward()
    want.backward()
    assert loss.dtype == torch.float32 and relative_error(loss, want) < 1e-6
    assert relative_error(pred.grad, want_pred.grad) < 2e-6


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype, limit", [(torch.float16, 5e-4), (torch.bfloat16, 8e-3)], ids=str)
@pytest.mark.parametrize("scale", [2.0**8, 2.0**16])
def test_half_precision_keeps_small_gradients(scale, dtype, limit, backend, relative_error):
    """2 / numel alone is below float16's smallest number; with a gradient scaler nothing may be lost on the way."""
    video, drop, mask, pred = case("tube", dtype)
    want_pred = pred.detach().double().requires_grad_()
    (masked_pixel_loss(pred, video, drop, (2, 8, 8), backend=backend) * scale).backward()
    ((want_pred - labels(video, mask, (2, 8, 8), "channel")).square().mean() * scale).backward()
    assert relative_error(pred.grad, want_pred.grad) < limit


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    tubelet=st.tuples(st.integers(1, 2), st.integers(2, 5), st.integers(2, 5)),
    grid=st.tuples(st.integers(1, 2), st.integers(1, 2), st.integers(1, 2)),
    channels=st.integers(1, 4),
    norm=st.sampled_from(NORMS),
    share=st.floats(0, 1),
)
def test_any_shape(tubelet, grid, channels, norm, share, relative_error):
    video = bytes_of(1, *(g * p for g, p in zip(grid, tubelet, strict=True)), channels)
    space = grid[1] * grid[2]
    _, drop = tube_keep_ids(1, space, int(share * space), seed=0)
    hidden = tubelets.grid_index(drop, grid, "tube")
    mask = torch.zeros(1, grid[0] * space, dtype=torch.bool).scatter(1, hidden, True)
    values = tubelet[0] * tubelet[1] * tubelet[2] * channels
    pred = torch.randn(1, hidden.shape[1], values, generator=torch.Generator().manual_seed(1)).requires_grad_()
    for backend in BACKENDS:
        loss = masked_pixel_loss(pred, video, drop, tubelet, norm=norm, backend=backend)
        if hidden.numel() == 0:
            assert loss == 0.0
            continue
        want_pred = pred.detach().double().requires_grad_()
        want = (want_pred - labels(video, mask, tubelet, norm)).square().mean()
        assert relative_error(loss, want) < 1e-5
        assert relative_error(torch.autograd.grad(loss, pred)[0], torch.autograd.grad(want, want_pred)[0]) < 1e-5


@pytest.mark.parametrize("backend", BACKENDS)
def test_mean_and_std_come_before_the_norm(backend, relative_error):
    video, drop, _, pred = case("token", torch.float32)
    mean, std = [0.4, 0.5, 0.6], [0.2, 0.3, 0.1]
    for norm in NORMS:
        want = pixel_loss.masked_pixel_loss_reference(
            pred.detach().double(), video, drop, (2, 8, 8), norm, mean, std, "token"
        )
        got = masked_pixel_loss(
            pred, video, drop, (2, 8, 8), norm=norm, mean=mean, std=std, kind="token", backend=backend
        )
        assert relative_error(got, want) < 1e-5


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
def test_second_backward_does_not_touch_the_first_result(dtype, backend):
    """The first gradient is the buffer of the forward pass; whoever got it may change it."""
    video, drop, _, pred = case("tube", dtype)
    loss = masked_pixel_loss(pred, video, drop, (2, 8, 8), backend=backend)
    first = torch.autograd.grad(loss, pred, torch.tensor(512.0), retain_graph=True)[0]
    kept = first.clone()
    first.zero_()
    second = torch.autograd.grad(loss, pred, torch.tensor(1024.0), retain_graph=True)[0]
    assert torch.equal(first, torch.zeros_like(first))
    torch.testing.assert_close(second, kept * 2)
    assert torch.equal(torch.autograd.grad(loss, pred, torch.tensor(512.0))[0], kept)


def test_factor_one_leaves_the_buffer_alone():
    """What the kernel does when the loss is the whole objective: nothing."""
    x, one = torch.tensor([1.0, float("nan"), 3.0]), torch.tensor(1.0)
    pixel_loss._scale(x, one, "triton")
    assert x.isnan().tolist() == [False, True, False]
    pixel_loss._scale(x, torch.tensor(2.0), "triton")
    assert x[[0, 2]].tolist() == [2.0, 6.0]


@pytest.mark.parametrize("backend", BACKENDS)
def test_evaluation_writes_no_gradient(backend, monkeypatch):
    video, drop, _, pred = case("tube", torch.float32)
    sizes = []
    monkeypatch.setattr(pixel_loss, "_empty_grad", lambda pred, want: sizes.append(want) or torch.empty(0))
    with torch.no_grad():
        masked_pixel_loss(pred, video, drop, (2, 8, 8), backend=backend)
    masked_pixel_loss(pred.detach(), video, drop, (2, 8, 8), backend=backend)
    assert set(sizes) == {False}


@pytest.mark.parametrize("backend", BACKENDS)
def test_spectrogram(backend, relative_error):
    torch.manual_seed(0)
    fbank = torch.randn(2, 16, 24)
    _, drop = tube_keep_ids(2, 6, 2, seed=0)
    pred = torch.randn(2, 4, 64)
    x = fbank.double().view(2, 2, 8, 3, 8).transpose(2, 3).reshape(2, 6, 64)[torch.arange(2)[:, None], drop.long()]
    x = (x - x.mean(-1, keepdim=True)) / (x.var(-1, keepdim=True) + 1e-6).sqrt()
    assert (
        relative_error(masked_patch_loss(pred, fbank, drop, (8, 8), backend=backend), (pred - x).square().mean()) < 1e-6
    )


@pytest.mark.parametrize("backend", BACKENDS)
def test_pred_may_be_a_slice(backend):
    video, drop, _, pred = case("tube", torch.float32)
    wide = torch.randn(2, pred.shape[1] + 3, 400)
    part = wide[:, 3:, :384]
    expected = masked_pixel_loss(part.contiguous(), video, drop, (2, 8, 8), backend=backend)
    assert torch.equal(masked_pixel_loss(part, video, drop, (2, 8, 8), backend=backend), expected)


@pytest.mark.parametrize("backend", BACKENDS)
def test_operators_are_registered_soundly(backend):
    video, (_, drop) = bytes_of(1, 2, 8, 8, 3), tube_keep_ids(1, 4, 2, seed=1)
    pred = torch.randn(1, 2, 96, requires_grad=True)
    torch.library.opcheck(
        pixel_loss._pixel_loss, (pred, video, drop, [2, 4, 4], "channel", [0.0] * 3, [1.0] * 3, "tube", True, backend)
    )
    torch.library.opcheck(pixel_loss._scale, (torch.randn(5), torch.tensor(2.0), backend))


@pytest.mark.parametrize("backend", BACKENDS)
def test_compiles_without_graph_breaks(backend):
    video, drop, _, pred = case("tube", torch.float32)

    def loss(pred):
        return masked_pixel_loss(pred * 2, video, drop, (2, 8, 8), backend=backend) * 3

    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(torch.autograd.grad(compiled(pred), pred), torch.autograd.grad(loss(pred), pred))


def test_wrong_arguments_are_refused():
    video, drop, _, pred = case("tube", torch.float32)
    with pytest.raises(ValueError, match=r"must be \(2, 6, 384\)"):
        masked_pixel_loss(pred[:, :5], video, drop, (2, 8, 8))
    with pytest.raises(ValueError, match="norm='pixel'"):
        masked_pixel_loss(pred, video, drop, (2, 8, 8), norm="pixel")
