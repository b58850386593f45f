from __future__ import annotations

import math

import pytest
import torch

from vtp.errors import ConfigError
from vtp.model.build import BuildContext
from vtp_encoders.timm_video import TimmVideo
from vtp_encoders.tiny_video import TinyVideo
from vtp_encoders.videomae import VideoMAE


def test_videomae_output_is_that_of_the_model(videomae):
    from transformers import VideoMAEModel

    encoder = VideoMAE(context=BuildContext(), model=str(videomae)).eval()
    reference = VideoMAEModel.from_pretrained(videomae).eval()
    assert {n: p.abs().sum().item() for n, p in encoder.model.named_parameters() if n.endswith("_bias")} == {
        n: p.abs().sum().item() for n, p in reference.named_parameters() if n.endswith("_bias")
    }
    video = torch.randn(2, 4, 3, 16, 16)
    torch.testing.assert_close(encoder(video).x, reference(video).last_hidden_state, rtol=0, atol=0)
    mask = torch.tensor([[True, False] * 4, [False] * 4 + [True] * 4])
    expected = reference(video, bool_masked_pos=mask).last_hidden_state
    found = encoder(video, mask).x  # of visible tubelets alone, and so another sum of the same products
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    for output in (found, expected):
        output.pow(3).sum().backward()
    theirs = dict(reference.named_parameters())
    for name, parameter in encoder.model.named_parameters():
        torch.testing.assert_close(parameter.grad, theirs[name].grad, rtol=1e-4, atol=1e-5, msg=name)


def test_videomae_from_scratch(tmp_path):
    encoder = VideoMAE(context=BuildContext(), preset="tiny", frames=4, size=32, tubelet=2, patch=16)
    assert encoder.grid == (2, 2, 2) and encoder.width == 192 and encoder.spec.frames == 4
    assert encoder(torch.randn(1, 4, 3, 32, 32)).x.shape == (1, 8, 192)


def test_videomae_takes_whole_tubelets():
    with pytest.raises(
        ConfigError, match="frames=15 must be a multiple of tubelet=2.*Nearest valid: frames=14, size=224"
    ):
        VideoMAE(context=BuildContext(), frames=15, size=230)


def test_a_missing_model_says_so():
    with pytest.raises(ConfigError, match="encoder videomae: cannot load the configuration of 'MCG-NJU/nothing'"):
        VideoMAE(context=BuildContext(), model="MCG-NJU/nothing")


def test_tiny_checks_its_grid():
    with pytest.raises(ConfigError, match="size=64 with patch=24.*Nearest valid: patch=32, size=64"):
        TinyVideo(size=64, patch=24)
    assert TinyVideo(size=32).grid[1:] == (1, 1) and TinyVideo(size=32, patch=16).grid[1:] == (2, 2)


def test_tiny_frames_keep_their_order():
    encoder = TinyVideo(width=16, heads=2, frames=4, size=32).eval()
    video = torch.randn(1, 4, 3, 32, 32)
    assert not torch.allclose(encoder(video).pooled(), encoder(video.flip(1)).pooled(), atol=1e-4)


@pytest.mark.parametrize("model", ["test_vit", "resnet10t", "test_convnext", "test_efficientnet"])
@pytest.mark.parametrize("tokens", ["frame", "patch", "clip"])
def test_timm_families(model, tokens):
    encoder = TimmVideo(context=BuildContext(), model=model, frames=3, size=64, tokens=tokens).train()
    out = encoder(torch.randn(2, 3, 3, 64, 64))
    assert out.x.shape[2] == encoder.width
    assert out.x.shape[1] == {"frame": 3, "clip": 1, "patch": out.x.shape[1]}[tokens]
    assert out.x.shape[1] % 3 == 0 or tokens == "clip"
    out.x.square().sum().backward()
    assert [n for n, p in encoder.named_parameters() if p.grad is None and p.requires_grad] == []
    frozen = [n for n, p in encoder.named_parameters() if not p.requires_grad]
    assert frozen == [] or tokens == "patch" and all("head" in n or "fc_norm" in n for n in frozen)


def test_timm_frame_tokens_are_the_image_model(tmp_path):
    import timm

    torch.manual_seed(0)
    encoder = TimmVideo(context=BuildContext(), model="test_vit", frames=2, size=32).eval()
    reference = timm.create_model("test_vit", num_classes=0, img_size=32).eval()
    reference.load_state_dict(encoder.model.state_dict())
    video = torch.randn(2, 2, 3, 32, 32)
    expected = torch.stack([reference(video[:, t]) for t in range(2)], dim=1)
    torch.testing.assert_close(encoder(video).x, expected, rtol=1e-5, atol=1e-6)
    maps = reference.forward_features(video[:, 1])[:, reference.num_prefix_tokens :]
    encoder.tokens = "patch"
    torch.testing.assert_close(encoder(video).x[:, maps.shape[1] :], maps, rtol=1e-5, atol=1e-6)


def test_timm_reads_a_folder_and_restores_without_it(tmp_path):
    import timm

    torch.manual_seed(0)
    reference = timm.create_model("test_vit", img_size=32, num_classes=0).eval()
    timm.models.save_for_hf(reference, tmp_path / "saved", model_args={"img_size": 32}, safe_serialization=True)
    options = {"pretrained": True, "frames": 2, "size": 32}
    encoder = TimmVideo(context=BuildContext(), model=str(tmp_path / "saved"), **options).eval()
    video = torch.randn(8, 2, 3, 32, 32)
    expected = reference(video.flatten(0, 1)).unflatten(0, (8, 2))
    torch.testing.assert_close(encoder(video).x, expected, rtol=0, atol=1e-5)
    folder = tmp_path / "assets" / "encoders" / "video"
    folder.mkdir(parents=True)
    encoder.save_assets(folder)
    again = TimmVideo(context=BuildContext(assets=tmp_path / "assets"), model="gone", **options).eval()
    again.load_state_dict(encoder.state_dict(), strict=True)
    assert torch.equal(again(video).x, encoder(video).x) and again.spec == encoder.spec
    with pytest.raises(ConfigError, match="lacks config.json"):
        TimmVideo(context=BuildContext(), model=str(tmp_path))


def test_timm_positions_of_a_convolution_are_row_by_row():
    encoder = TimmVideo(context=BuildContext(), model="resnet10t", frames=1, size=64, tokens="patch").eval()
    video = torch.randn(1, 1, 3, 64, 96)  # 2 x 3 positions
    maps = encoder.model.forward_features(video[:, 0])
    x = encoder(video).x
    assert x.shape[1] == 6
    torch.testing.assert_close(x[0, 4], maps[0, :, 1, 1])


def test_timm_attention_pooling_starts_as_the_mean():
    torch.manual_seed(0)
    options = {"model": "test_vit", "frames": 3, "size": 32, "tokens": "clip"}
    attention = TimmVideo(context=BuildContext(), **options, pooling="attention").eval()
    mean = TimmVideo(context=BuildContext(), **options).eval()
    mean.model.load_state_dict(attention.model.state_dict())
    video = torch.randn(2, 3, 3, 32, 32)
    torch.testing.assert_close(attention(video).x, mean(video).x)
    with torch.no_grad():
        attention.query.normal_()
    assert not torch.allclose(attention(video).x, mean(video).x)


# positions of a picture of 64 pixels: side over stride, squared. Nothing tells the class tokens of volo and coat
@pytest.mark.parametrize("model, positions", [("volo_d1_224", 16), ("coat_lite_tiny", 4), ("test_vit", 16)])
def test_class_tokens_are_no_patches(model, positions):
    encoder = TimmVideo(context=BuildContext(), model=model, frames=1, size=64, tokens="patch").eval()
    x = encoder(video := torch.zeros(1, 1, 3, 64, 64)).x
    assert x.shape == (1, positions, encoder.width)
    assert torch.equal(x, encoder.model.forward_features(video[0])[:, 1:])


@pytest.mark.parametrize("model, said", [
    ("pit_ti_224", "1 tokens, 1 of them class"),
    ("crossvit_9_240", "2 maps"),
    ("coat_tiny", "3 maps"),
])  # fmt: skip
def test_models_without_one_map_of_positions_are_refused_by_name(model, said):
    with pytest.raises(ConfigError, match=f"the last features of '{model}' are .*{said}.*Use tokens=frame"):
        TimmVideo(context=BuildContext(), model=model, frames=1, tokens="patch")


def test_timm_knows_its_models():
    with pytest.raises(ConfigError, match="has no model 'resnet50x'. Did you mean 'resnet50"):
        TimmVideo(context=BuildContext(), model="resnet50x")
    with pytest.raises(ConfigError, match="Without network: use pretrained=false"):
        TimmVideo(context=BuildContext(), model="test_vit", pretrained=True)


def test_timm_normalises_as_the_model_was_trained():
    spec = TimmVideo(context=BuildContext(), model="test_vit", size=32).spec
    assert (spec.mean, spec.std) == ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)) and spec.size == 32
    spec = TimmVideo(context=BuildContext(), model="resnet10t").spec
    assert spec.mean == (0.485, 0.456, 0.406) and spec.size == 176


def smallest_of_each_family():
    """One of the smaller models of every module of timm, by name; those above 60 million parameters are left out."""
    import timm
    from timm.models import _registry

    words = ("test_", "atto", "femto", "pico", "nano", "_xxs", "_xs", "xx_small", "_tiny", "_t0", "_s0", "_b0", "small")
    families: dict[str, list[str]] = {}
    for name in timm.list_models():
        families.setdefault(_registry._model_to_module[name], []).append(name)
    for names in families.values():
        names.sort(key=lambda n: (next((i for i, word in enumerate(words) if word in n), len(words)), len(n)))
    return {family: names[0] for family, names in families.items()}


@pytest.mark.slow
@pytest.mark.parametrize("tokens", ["frame", "patch"])
def test_every_family_of_timm_gives_tokens_or_is_refused_by_name(tokens):
    """A square picture has a square of positions, whatever class and register tokens there are."""
    import timm

    refused, made = {}, 0
    for family, model in smallest_of_each_family().items():
        with torch.device("meta"):
            if sum(p.numel() for p in timm.create_model(model).parameters()) > 60e6:
                continue
        for size in (64, 224, None):  # some need more pixels, and some the size they were made for
            try:
                torch.manual_seed(0)
                encoder = TimmVideo(context=BuildContext(), model=model, frames=1, size=size, tokens=tokens).eval()
                side = encoder.spec.size
                with torch.no_grad():
                    x = encoder(torch.zeros(1, 1, 3, side, side)).x
                break
            except ConfigError as error:
                refused[family] = str(error)
                assert model in str(error) and "\n" not in str(error)
            except (RuntimeError, AssertionError, ValueError, IndexError):  # of the picture's size
                assert size is not None, model
        else:
            continue
        refused.pop(family, None)
        made += 1
        count = x.shape[1]
        assert x.shape[2] == encoder.width and math.isqrt(count) ** 2 == count, model
        assert tokens == "patch" or count == 1
    assert made + len(refused) > 80
    assert set(refused) == ({"coat", "crossvit", "efficientvim", "pit"} if tokens == "patch" else set())
