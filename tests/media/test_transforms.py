"""Transforms of clips: one geometry for all frames, a function of clip and seed, uint8 in and out."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torchvision.transforms import v2

from vtp.errors import ConfigError
from vtp.media.transforms import EvalTransform, TrainTransform, eval_transform
from vtp.types import VideoSpec


def still(frames: int = 4, height: int = 48, width: int = 64) -> np.ndarray:
    """The same picture in every frame, with another value at every pixel."""
    picture = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return np.repeat(picture[None], frames, axis=0)


ALL = {"crop_scale": (0.3, 0.9), "flip": 0.5, "randaugment": (4, 7), "erase": 0.5}


@pytest.mark.parametrize("seed", range(8))
def test_all_frames_of_a_clip_are_treated_alike(seed: int) -> None:
    out = TrainTransform(32, **ALL)(still(), seed)
    assert out.shape == (4, 32, 32, 3) and out.dtype == np.uint8
    assert (out == out[:1]).all()


def test_the_result_depends_on_the_clip_and_the_seed_alone() -> None:
    transform = TrainTransform(32, **ALL)
    torch.manual_seed(1)
    first = transform(still(), 5)
    torch.manual_seed(2)
    state = torch.get_rng_state()
    np.testing.assert_array_equal(transform(still(), 5), first)
    assert torch.equal(torch.get_rng_state(), state)
    assert not np.array_equal(transform(still(), 6), first)


def test_the_default_only_crops() -> None:
    """Its result is what torchvision's crop of the same draw gives; nothing is mirrored."""
    for seed in range(5):
        torch.manual_seed(seed)
        expected = v2.RandomResizedCrop(32, (0.5, 1.0), (3 / 4, 4 / 3), antialias=True)(
            torch.from_numpy(still()).permute(0, 3, 1, 2)
        )
        out = TrainTransform(32)(still(), seed)
        np.testing.assert_array_equal(out, expected.permute(0, 2, 3, 1).numpy())
    ramp = np.broadcast_to(np.arange(64, dtype=np.uint8)[None, None, :, None] * 3, (2, 48, 64, 3)).copy()
    for seed in range(50):
        row = TrainTransform(32)(ramp, seed)[0, 16, :, 0].astype(int)
        assert (np.diff(row) >= 0).all()  # left stays left


def test_a_random_short_side_is_cropped_without_scaling() -> None:
    """The square that comes out lies in the picture at one of the sizes, and both ends of the range are drawn."""
    transform = TrainTransform(32, short_side=(36, 40))
    assert transform.decode_size == 40
    frames = still(2, 40, 60)
    sizes = set()
    for seed in range(60):
        out = transform(frames, seed)
        torch.manual_seed(seed)
        side = int(torch.randint(36, 41, ()))
        picture = v2.functional.resize(torch.from_numpy(frames[0]).permute(2, 0, 1), [side], antialias=True)
        top = int(torch.randint(side - 32 + 1, ()))
        left = int(torch.randint(picture.shape[2] - 32 + 1, ()))
        expected = picture[:, top : top + 32, left : left + 32].permute(1, 2, 0).numpy()
        np.testing.assert_array_equal(out, np.stack([expected] * 2))
        sizes.add(side)
    assert sizes == {36, 37, 38, 39, 40}
    with pytest.raises(ConfigError, match=r"data.short_side=\[28,40\] must begin at the encoder's size .* here 32"):
        TrainTransform(32, short_side=(28, 40))


def test_a_flip_happens_when_it_is_asked_for() -> None:
    ramp = np.broadcast_to(np.arange(64, dtype=np.uint8)[None, None, :, None] * 3, (1, 48, 64, 3)).copy()
    transform = TrainTransform(32, flip=0.5)
    falling = [bool(np.diff(transform(ramp, seed)[0, 16, :, 0].astype(int)).sum() < 0) for seed in range(60)]
    assert 15 < sum(falling) < 45


def test_erasing_covers_one_box() -> None:
    flat = np.zeros((3, 40, 40, 3), np.uint8)
    shares = []
    for seed in range(60):
        out = TrainTransform(40, crop_scale=(1.0, 1.0), crop_ratio=(1.0, 1.0), erase=1.0)(flat, seed)
        rows, columns = np.nonzero(out[0].any(-1))
        box = (rows.max() - rows.min() + 1) * (columns.max() - columns.min() + 1)
        assert (out == out[:1]).all() and len(rows) > 0.9 * box
        shares.append(box / 1600)
    assert min(shares) > 0.01 and max(shares) < 0.4
    assert not TrainTransform(40, crop_scale=(1.0, 1.0), erase=0.0)(flat, 1).any()


def test_evaluation_takes_the_centre() -> None:
    transform = EvalTransform(32, resize=40)
    assert transform.decode_size == 40
    frames = still(2, 40, 60)
    np.testing.assert_array_equal(transform(frames, None), frames[:, 4:36, 14:46])
    views = EvalTransform(40, crops=3)(frames, None)
    np.testing.assert_array_equal(views, np.stack([frames[:, :, left : left + 40] for left in (0, 10, 20)]))


def test_frames_that_were_not_resized_are() -> None:
    out = EvalTransform(24)(np.full((2, 48, 96, 3), 9, np.uint8), None)
    assert out.shape == (2, 24, 24, 3) and (out == 9).all()


def test_training_needs_a_seed() -> None:
    assert TrainTransform(224).decode_size == 256 and TrainTransform(224, decode_size=0).decode_size is None
    with pytest.raises(ValueError, match="needs a seed"):
        TrainTransform(32)(still(), None)


@pytest.mark.parametrize("size", [(48, 97), (97, 48)])
@pytest.mark.parametrize("how", ["bilinear", "bicubic"])
def test_stored_frames_are_scaled_as_the_processors_of_libraries_do(size, how):
    """torchvision's own resize and crop, which they call."""
    frames = np.random.default_rng(0).integers(0, 255, (2, *size, 3), np.uint8)
    picture = torch.from_numpy(frames).permute(0, 3, 1, 2)
    mode = v2.InterpolationMode(how)
    cut = v2.Compose([v2.Resize(24, mode, antialias=True), v2.CenterCrop(24)])(picture)
    whole = v2.Resize((24, 24), mode, antialias=True)(picture)
    spec = VideoSpec(frames=2, size=24, resample=how)
    for transform, want in (
        (eval_transform(spec), cut),
        (eval_transform(replace(spec, squeeze=True)), whole),
        (eval_transform(replace(spec, squeeze=True), 24), cut),  # data.eval_resize asks for the middle
    ):
        assert transform.decode_size is None  # as stored
        assert np.array_equal(transform(frames), want.permute(0, 2, 3, 1).numpy())


def test_a_squeezed_picture_is_scaled_by_the_decoder_where_nothing_else_is_said():
    transform = eval_transform(VideoSpec(frames=2, size=24, squeeze=True))
    assert transform.decode_size == (24, 24)
    assert transform(np.full((2, 48, 96, 3), 9, np.uint8)).shape == (2, 24, 24, 3)
