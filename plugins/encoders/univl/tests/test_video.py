"""The video encoder: its contract, the mean over clips, and every backbone by the names of the programs that it comes
from."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import normalize

from vtp.errors import ConfigError
from vtp.model.build import BuildContext
from vtp.testing import check_encoder
from vtp_univl.backbones import PVT, SWIN, family_of, make_backbone
from vtp_univl.keys import backbone_kind, backbone_to_ours, backbone_to_theirs
from vtp_univl.video import ClipEncoder, load_backbone, map_of_padding, pool_clips

SMALL = {
    "pvt_v2_b0": {"widths": [8, 16, 24, 32], "depths": [1, 2, 1, 1], "heads": [1, 2, 3, 4]},
    "pvt_v2_b2_li": {"widths": [8, 16, 24, 32], "depths": [1, 1, 1, 1], "heads": [1, 2, 3, 4]},
    "swin3d_s": {"width": 12, "depths": [2, 1, 1, 1], "heads": [1, 2, 4, 6], "window": [2, 3, 3]},
    "resnet50": {"depths": [1, 1, 1, 1]},
    "clip": {"width": 24, "depth": 2, "heads": 2},
    "tiny": None,
}


def encoder(backbone: str = "tiny", **options: object) -> ClipEncoder:
    small = {"backbone": backbone, "sizes": SMALL.get(backbone), "width": 24, "frames": 4, "size": 32}
    return ClipEncoder(context=BuildContext(), **small | options)


@pytest.mark.parametrize(
    "backbone", [b if b in ("pvt_v2_b0", "tiny") else pytest.param(b, marks=pytest.mark.slow) for b in SMALL]
)
def test_every_backbone_keeps_the_contract(backbone):
    options = {"backbone": backbone, "sizes": SMALL[backbone], "width": 24, "frames": 2, "size": 32, "drop_path": 0.0}
    check_encoder(ClipEncoder, options)


def test_patches_keep_the_contract():
    check_encoder(ClipEncoder, {"preset": "tiny", "width": 24, "frames": 4, "tokens": "patch", "frames_per_clip": 2})


def test_clip_pooling_is_that_of_the_original(golden):
    cases = golden["clip_pooling"]
    assert {case["frames"] for case in cases} != {1}
    for case in cases:
        grid, mask, clips = case["grid"], case["mask"], case["clips"]
        got = pool_clips(grid, clips, mask)
        torch.testing.assert_close(got, case["clip_tokens"], rtol=0, atol=1e-5)
        model = encoder(width=grid.shape[2])
        for layer, name in ((0, "fc0"), (2, "fc2")):
            model.img_fc[layer].load_state_dict({"weight": case[f"{name}_weight"], "bias": case[f"{name}_bias"]})
        tokens = model(torch.zeros(len(grid), clips, 3, 32, 32))
        tokens.x = got
        features = model.clip_features(tokens)
        torch.testing.assert_close(features.flatten(0, 1), case["clip_features"], rtol=0, atol=1e-5)


def test_without_padding_the_mean_is_over_everything():
    grid = torch.randn(2, 6, 5, 2, 3)
    want = grid.view(2, 3, 2, 5, 6).transpose(2, 3).flatten(3).mean(-1)
    torch.testing.assert_close(pool_clips(grid, 3), want)
    torch.testing.assert_close(pool_clips(grid, 3, torch.zeros(2, 6, 2, 3, dtype=torch.bool)), want)


def test_padded_pixels_are_left_out_of_the_mean():
    padding = torch.zeros(1, 2, 64, 64, dtype=torch.bool)
    padding[:, 1, :, 32:] = True
    assert map_of_padding(padding, torch.Size((2, 2))).tolist() == [[[[False] * 2] * 2, [[False, True]] * 2]]
    model = encoder("pvt_v2_b0", size=64).eval()
    video = torch.randn(1, 2, 3, 64, 64)
    places = model.output_proj(model.backbone(video)[0])
    got = model(video, padding=padding).x[0]
    torch.testing.assert_close(got, torch.stack([places[0].mean((1, 2)), places[1, :, :, 0].mean(1)]))


@pytest.mark.parametrize("frames_per_clip", [1, 2])
def test_patches_are_the_places_that_the_mean_is_over(frames_per_clip):
    torch.manual_seed(1)
    mean = encoder("pvt_v2_b0", size=64, frames_per_clip=frames_per_clip).eval()
    patch = encoder("pvt_v2_b0", size=64, frames_per_clip=frames_per_clip, tokens="patch").eval()
    patch.load_state_dict(mean.state_dict())
    video = torch.randn(2, 4, 3, 64, 64)
    one, all_ = mean(video), patch(video)
    clips = 4 // frames_per_clip
    assert one.grid == (clips, 1, 1) and all_.grid == (clips, 4 * frames_per_clip, 1)
    torch.testing.assert_close(all_.x.view(2, clips, -1, 24).mean(2), one.x)
    torch.testing.assert_close(patch.clip_features(all_), mean.clip_features(one))
    torch.testing.assert_close(mean.clip_features(one), normalize(mean.img_fc(one.x), dim=-1))


def test_frames_of_a_video_swin_see_each_other_and_those_of_an_image_model_do_not():
    video = torch.randn(1, 4, 3, 32, 32)
    other = video.clone()
    other[:, 3] = 0
    for backbone, alone in (("swin3d_s", False), ("pvt_v2_b0", True), ("resnet50", True)):
        model = encoder(backbone).eval()
        assert torch.allclose(model(video).x[:, 0], model(other).x[:, 0]) is alone


def plain_swin(net: torch.nn.Module, video: torch.Tensor) -> torch.Tensor:
    """Video Swin written out: one zero frame behind the last, patches of two frames that begin at every frame."""
    batch, frames = video.shape[:2]
    video = torch.cat([video, torch.zeros_like(video[:, :1])], dim=1).transpose(1, 2)
    weight, bias = net.patch_embed.proj.weight, net.patch_embed.proj.bias
    moments = [
        torch.nn.functional.conv3d(video[:, :, t : t + 2], weight, bias, stride=(2, 4, 4)) for t in range(frames)
    ]
    x = torch.cat(moments, dim=2).permute(0, 2, 3, 4, 1)
    return net.norm(net.features(net.patch_embed.norm(x))).permute(0, 1, 4, 2, 3)


@pytest.mark.parametrize("frames", [2, 3, 4])
def test_video_swin_gives_a_moment_per_frame(frames):
    backbone = make_backbone("swin3d_s", SMALL["swin3d_s"], {}).eval()
    video = torch.randn(2, frames, 3, 32, 64)
    got = backbone(video)
    assert got.shape == (2, frames, 96, 1, 2)
    torch.testing.assert_close(got, plain_swin(backbone.net, video))


def original_names(kind: str, state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {backbone_to_theirs(kind, name): value for name, value in state.items()}


USED = ("pvt_v2_b0", "pvt_v2_b2", "swin3d_s", "resnet50")  # those of recipes; timm draws weights on the meta device too
SIZED = (*PVT, *SWIN, "resnet50")
NAMES = [name if name in USED else pytest.param(name, marks=pytest.mark.slow) for name in SIZED]


@pytest.mark.parametrize(
    "name", [n if n in ("pvt_v2_b0", "resnet50") else pytest.param(n, marks=pytest.mark.slow) for n in SIZED]
)
def test_names_lead_there_and_back(name):
    cls, sizes = family_of(name)
    with torch.device("meta"):
        names = list(cls(**sizes).net.state_dict())
    kind = backbone_kind(names)
    assert kind == ("pvt" if name in PVT else "swin" if name in SWIN else "resnet")
    for options in ({}, {"sequence": True}):
        theirs = [backbone_to_theirs(kind, n, **options) for n in names]
        assert len(set(theirs)) == len(names)
        assert backbone_kind(theirs) == kind
        assert [backbone_to_ours(kind, n) for n in theirs] == names
        assert [backbone_to_ours(kind, n) for n in names] == names


def test_original_names_of_pvt():
    """From the text of the specification, not from our own table."""
    names = {
        "patch_embed1.proj.weight": "patch_embed.proj.weight",
        "patch_embed3.norm.bias": "stages.2.downsample.norm.bias",
        "block1.0.attn.sr.weight": "stages.0.blocks.0.attn.sr.weight",
        "block4.1.mlp.dwconv.dwconv.weight": "stages.3.blocks.1.mlp.dwconv.weight",
        "norm4.weight": "stages.3.norm.weight",
        "block2.1.norm2.weight": "stages.1.blocks.1.norm2.weight",
    }
    for theirs, ours in names.items():
        assert backbone_to_ours("pvt", theirs) == ours
        assert backbone_to_theirs("pvt", ours) == theirs


def test_original_names_of_video_swin():
    names = {
        "layers.2.blocks.11.attn.qkv.weight": "features.4.11.attn.qkv.weight",
        "layers.1.downsample.reduction.weight": "features.3.reduction.weight",
        "layers.3.blocks.1.mlp.fc2.bias": "features.6.1.mlp.3.bias",
        "patch_embed.proj.weight": "patch_embed.proj.weight",
        "norm.weight": "norm.weight",
    }
    for theirs, ours in names.items():
        assert backbone_to_ours("swin", theirs) == ours
        assert backbone_to_theirs("swin", ours) == theirs


@pytest.mark.parametrize("name", ["pvt_v2_b0", "swin3d_s", "resnet50"])
def test_original_weights_load_strictly(name, tmp_path):
    """``pretrained=PATH`` reads a file with the original names and a classifier on top."""
    torch.manual_seed(3)
    source = make_backbone(name, SMALL[name], {})
    kind = backbone_kind(source.net.state_dict())
    state = original_names(kind, source.net.state_dict())
    state |= {"head.weight": torch.zeros(7, 3), "head.bias": torch.zeros(7)}
    torch.save({"state_dict": {f"backbone.{n}" if kind == "swin" else n: v for n, v in state.items()}}, tmp_path / "w")
    loaded = encoder(name, pretrained=str(tmp_path / "w"))
    for n, value in source.net.state_dict().items():
        assert torch.equal(loaded.backbone.net.state_dict()[n], value), n
    del state[next(iter(state))]
    torch.save(state, tmp_path / "w")
    with pytest.raises(ConfigError, match="1 of .* missing, unknown or of another shape"):
        load_backbone(source, str(tmp_path / "w"))


@pytest.mark.parametrize("name", NAMES)
def test_sizes_are_those_of_timm_and_torchvision(name):
    import timm
    import torchvision

    cls, sizes = family_of(name)
    with torch.device("meta"):
        ours = cls(**sizes).net
        library = timm if name in PVT else torchvision.models.video if name in SWIN else torchvision.models
        theirs = timm.create_model(name, num_classes=0) if library is timm else getattr(library, name)()
    want = {n: v.shape for n, v in theirs.state_dict().items()}
    want = {n: v for n, v in want.items() if not n.startswith(("head.", "fc.")) and "num_batches" not in n}
    assert {n: v.shape for n, v in ours.state_dict().items()} == want
    if name == "swin3d_s":
        assert want["patch_embed.proj.weight"] == (96, 3, 2, 4, 4)
        assert want["features.0.0.attn.relative_position_bias_table"] == (2535, 3)


@pytest.mark.parametrize("backbone", ["pvt_v2_b0", "swin3d_s", "resnet50"])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_every_tensor_of_a_backbone_gets_a_gradient(backbone, checkpointing):
    """The release checkpointed re-entrantly, and a picture needs no gradient: its backbones were never trained."""
    model = encoder(backbone, drop_path=0.0).train()
    if checkpointing:
        model.gradient_checkpointing_enable()
    model.clip_features(model(torch.randn(2, 4, 3, 32, 32)))[..., 0].sum().backward()
    grads = {name: p.grad for name, p in model.named_parameters()}
    assert all(grad is not None for grad in grads.values())
    still = [n for n, grad in grads.items() if not grad.any() and not n.endswith((".q.weight", ".q.bias", "qkv.bias"))]
    # one place per stage leaves nothing to choose between: keys and queries get none then, nor what follows a dead ReLU
    assert len(still) < len(grads) / 4, still


@pytest.mark.parametrize("backbone, stem", [("pvt_v2_b0", "patch_embed."), ("swin3d_s", "patch_embed.")])
def test_checkpointing_is_not_re_entrant(backbone, stem):
    """Behind a frozen stem, too, blocks get gradients, although their input needs none."""
    model = encoder(backbone, drop_path=0.0).train()
    model.gradient_checkpointing_enable()
    net = model.backbone.net
    for name, parameter in net.named_parameters():
        parameter.requires_grad_(not name.startswith(stem))
    model(torch.randn(1, 2, 3, 32, 32)).x.square().sum().backward()
    assert [n for n, p in net.named_parameters() if p.requires_grad and p.grad is None] == []


def test_frozen_batchnorm_is_neither_trained_nor_updated():
    frozen, free = encoder("resnet50"), encoder("resnet50", frozen_norm=False)
    assert not [n for n, _ in frozen.backbone.named_parameters() if "bn" in n]
    assert [n for n, _ in free.backbone.named_parameters() if "bn" in n]
    before = {n: b.clone() for n, b in frozen.named_buffers()}
    frozen.train()(torch.randn(2, 4, 3, 32, 32))
    assert all(torch.equal(before[n], b) for n, b in frozen.named_buffers())


def test_mistakes_are_told():
    with pytest.raises(ConfigError, match="frames=5 must be a multiple of frames_per_clip=2. Nearest valid: frames=4"):
        encoder(frames=5, frames_per_clip=2)
    with pytest.raises(ConfigError, match="has no size 'depth'. Sizes: widths, heads"):
        encoder("pvt_v2_b0", sizes={"depth": [1]})
    with pytest.raises(ConfigError, match=r"sizes.depths=\[1, 1\] must look like"):
        encoder("resnet50", sizes={"depths": [1, 1]})
    with pytest.raises(ConfigError, match="do not fit each other"):
        encoder("pvt_v2_b0", sizes={"heads": [3, 3, 3, 3]})
    with pytest.raises(ConfigError, match="size=16 does not suit"):
        encoder("pvt_v2_b0", sizes=None, size=16)
    with pytest.raises(ConfigError, match="must be a multiple of 32 pixels"):
        encoder("tiny", size=48)
    with pytest.raises(ConfigError, match="cannot be cut into clips of 2"):
        encoder(frames_per_clip=2)(torch.zeros(1, 3, 3, 32, 32))
    with pytest.raises(ConfigError, match="pretrained=True cannot be loaded .* Without network: give the file"):
        encoder("pvt_v2_b0", sizes=None, pretrained=True)
    with pytest.raises(ConfigError, match="there are no published weights of TinyFrames"):
        encoder(pretrained=True)
    with pytest.raises(ConfigError, match="nowhere.pth does not exist"):
        encoder("resnet50", pretrained="nowhere.pth")
