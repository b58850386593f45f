"""Video encoders against the pipelines of their libraries: their preprocessing, then their model."""

from __future__ import annotations

import pytest
import torch
import transformers as hf
from torchvision import models

from vtp.errors import ConfigError
from vtp.model.build import BuildContext
from vtp_encoders.torchvision_video import TorchvisionVideo
from vtp_encoders.videomae import VideoMAE
from vtp_encoders.vjepa2 import VJEPA2
from vtp_encoders.xclip import XCLIP

each_batch = pytest.mark.parametrize("rows", [1, 8])


def clips(encoder, rows: int) -> torch.Tensor:
    """uint8 (B, T, 3, H, W), at the size of the encoder: how frames are brought to it is the loader's."""
    spec = encoder.spec
    return torch.randint(0, 256, (rows, spec.frames, 3, spec.size, spec.size), dtype=torch.uint8)


def normalized(encoder, frames: torch.Tensor) -> torch.Tensor:
    """As the encoder is given them."""
    mean, std = (torch.tensor(values)[:, None, None] for values in (encoder.spec.mean, encoder.spec.std))
    return (frames / 255 - mean) / std


@each_batch
def test_vjepa2_gives_what_transformers_gives(hub, rows):
    encoder = VJEPA2(context=BuildContext(), model=str(hub("vjepa2"))).eval()
    processor = hf.AutoVideoProcessor.from_pretrained(hub("vjepa2"))
    model = hf.AutoModel.from_pretrained(hub("vjepa2")).eval()
    frames = clips(encoder, rows)
    given = processor(list(frames), do_resize=False, return_tensors="pt")
    with torch.no_grad():
        expected = model(**given, skip_predictor=True).last_hidden_state
        tokens = encoder(normalized(encoder, frames))
    torch.testing.assert_close(tokens.x, expected, rtol=0, atol=1e-5)
    assert tokens.grid == (2, 2, 2)


@each_batch
def test_videomae_v2_gives_what_transformers_gives(hub, rows):
    """Patches of 14, no norm at the end and other colours than ImageNet's: all from the folder."""
    encoder = VideoMAE(context=BuildContext(), model=str(hub("videomae v2"))).eval()
    processor = hf.AutoImageProcessor.from_pretrained(hub("videomae v2"))
    model = hf.AutoModel.from_pretrained(hub("videomae v2")).eval()
    frames = clips(encoder, rows)
    given = processor([list(clip) for clip in frames], do_resize=False, do_center_crop=False, return_tensors="pt")
    with torch.no_grad():
        expected = model(**given).last_hidden_state
        tokens = encoder(normalized(encoder, frames))
    torch.testing.assert_close(tokens.x, expected, rtol=1e-5, atol=1e-5)  # no norm: they are large
    assert tokens.grid == (2, 2, 2)


def test_frames_are_scaled_as_the_settings_say_and_so_after_restoring(hub, videomae, tmp_path):
    for cls, name in ((VideoMAE, "videomae v2"), (VJEPA2, "vjepa2")):
        encoder = cls(context=BuildContext(), model=str(hub(name)))
        assert encoder.spec.resample == "bilinear" and encoder.spec.mean == (0.4, 0.5, 0.6)
        folder = tmp_path / name / "encoders" / "video"
        folder.mkdir(parents=True)
        encoder.save_assets(folder)
        again = cls(context=BuildContext(assets=tmp_path / name), model="not there")
        assert again.spec == encoder.spec
    plain = VideoMAE(context=BuildContext(), model=str(videomae)).spec  # a folder without settings
    assert plain.resample == "decoder" and plain.mean == (0.485, 0.456, 0.406)


def test_vjepa2_positions_are_those_of_the_visible_tokens(hub):
    """The same as the whole clip in transformers, where all layers attend to the visible tokens only."""
    hidden = torch.tensor([[True, False, True, False, False, True, False, True], [False] * 4 + [True] * 4])

    def attend_to_visible(module, query, key, value, attention_mask, **rest):
        keys = ~hidden[:, None, None]
        return torch.nn.functional.scaled_dot_product_attention(query, key, value, keys).transpose(1, 2), None

    hf.AttentionInterface.register("visible", attend_to_visible)
    encoder = VJEPA2(context=BuildContext(), model=str(hub("vjepa2"))).eval()
    model = hf.AutoModel.from_pretrained(hub("vjepa2"), attn_implementation="visible").eval()
    video = torch.randn(2, 4, 3, 16, 16)
    with torch.no_grad():
        expected = model(pixel_values_videos=video, skip_predictor=True).last_hidden_state[~hidden].view(2, 4, -1)
        got = encoder(video, hidden)
    torch.testing.assert_close(got.x, expected, rtol=0, atol=1e-5)
    assert got.index.tolist() == [[1, 3, 4, 6], [0, 1, 2, 3]]
    with pytest.raises(ConfigError, match="frames=3 must be a multiple of the 2 frames.*Nearest valid: frames=2"):
        VJEPA2(context=BuildContext(), model=str(hub("vjepa2")), frames=3)


@each_batch
def test_xclip_gives_what_transformers_gives(hub, rows):
    encoder = XCLIP(context=BuildContext(), model=str(hub("xclip"))).eval()
    processor = hf.AutoImageProcessor.from_pretrained(hub("xclip"))
    model = hf.XCLIPModel.from_pretrained(hub("xclip")).eval()
    frames = clips(encoder, rows)
    given = processor([list(clip.permute(0, 2, 3, 1).numpy()) for clip in frames], return_tensors="pt")
    with torch.no_grad():
        expected = model.get_video_features(**given).pooler_output
        tokens = encoder(normalized(encoder, frames))
    torch.testing.assert_close(tokens.pooled(), expected, rtol=0, atol=1e-5)
    assert tokens.x.shape == (rows, 4, 32)


@each_batch
def test_videomae_gives_what_transformers_gives(videomae, rows):
    encoder = VideoMAE(context=BuildContext(), model=str(videomae)).eval()
    settings = {"size": {"shortest_edge": 16}, "crop_size": {"height": 16, "width": 16}}
    settings |= {"image_mean": encoder.spec.mean, "image_std": encoder.spec.std}  # those of the released models
    frames = clips(encoder, rows)
    given = hf.VideoMAEImageProcessor(**settings)(
        [list(c.permute(0, 2, 3, 1).numpy()) for c in frames], return_tensors="pt"
    )
    with torch.no_grad():
        expected = hf.VideoMAEModel.from_pretrained(videomae).eval()(**given).last_hidden_state
        torch.testing.assert_close(encoder(normalized(encoder, frames)).x, expected, rtol=0, atol=1e-5)


@pytest.mark.slow  # no small one by name
@pytest.mark.parametrize("name", ["swin3d_t", "swin3d_s", "swin3d_b", "mvit_v1_b", "mvit_v2_s"])
def test_torchvision_gives_what_torchvision_gives(tmp_path, name):
    """From a file of its weights, classifier included; preprocessing is its own but for the crop."""
    torch.manual_seed(0)
    frames, size = (4, 64) if "swin" in name else (16, 224)
    reference = models.get_model(name, weights=None).eval()
    torch.save(reference.state_dict(), tmp_path / "weights.pth")
    encoder = TorchvisionVideo(
        context=BuildContext(), model=name, weights=str(tmp_path / "weights.pth"), frames=frames, size=size
    )
    transform = models.get_model_weights(name).DEFAULT.transforms(crop_size=(size, size), resize_size=(size, size))
    reference.head = torch.nn.Identity()
    for rows in (1, 8) if "swin" in name else (1,):
        given = clips(encoder, rows)
        with torch.no_grad():
            tokens = encoder.eval()(normalized(encoder, given))
            expected = reference(transform(given))
        torch.testing.assert_close(encoder.pool(tokens), expected, rtol=0, atol=1e-5)
    assert tokens.x.shape[1:] == ((8, encoder.width) if "swin" in name else (1 + 8 * 7 * 7, 768))


@pytest.mark.slow
def test_every_parameter_of_mvit_is_trained():
    """With blocks computed again: one clip alone is 16 frames of 224 pixels, the only size that torchvision offers."""
    encoder = TorchvisionVideo(context=BuildContext(), model="mvit_v2_s").train()
    encoder.gradient_checkpointing_enable()
    encoder(torch.randn(1, 16, 3, 224, 224)).x.sin().sum().backward()
    assert [n for n, p in encoder.named_parameters() if p.grad is None or not p.grad.isfinite().all()] == []
    layers = {encoder.layer_of(n) for n, _ in encoder.named_parameters()}
    assert layers == set(range(encoder.depth + 2)) and encoder.depth == 16


def test_torchvision_says_what_it_cannot_take():
    with pytest.raises(ConfigError, match="there is no 'swin3d_x'. Did you mean.*Known: mvit_v1_b"):
        TorchvisionVideo(context=BuildContext(), model="swin3d_x")
    with pytest.raises(ConfigError, match="frames=3 .* Nearest valid: frames=2, size=64"):
        TorchvisionVideo(context=BuildContext(), frames=3, size=70)
    with pytest.raises(ConfigError, match="mvit_v1_b takes 16 frames of 224 pixels"):
        TorchvisionVideo(context=BuildContext(), model="mvit_v1_b", frames=8)


@pytest.mark.slow
def test_torchvision_refuses_other_weights(tmp_path):
    other = tmp_path / "other.pth"
    torch.save({"norm.weight": torch.ones(768)}, other)
    for weights, said in (
        ("nothing.pth", "neither a file nor weights of swin3d_t: DEFAULT"),
        (str(other), "missing and 0"),
    ):
        with pytest.raises(ConfigError, match=said):
            TorchvisionVideo(context=BuildContext(), weights=weights, frames=2, size=32)
