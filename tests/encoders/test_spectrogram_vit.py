"""ViTs over a spectrogram: features against torchaudio's Kaldi, tokens against transformers and timm."""

from __future__ import annotations

import numpy as np
import pytest
import timm
import torch
import transformers as hf
from test_speech import batched, sounds
from transformers.models.vit_mae.modeling_vit_mae import build_2d_sinusoidal_position_embedding

from vtp.errors import ConfigError
from vtp.model.build import BuildContext
from vtp_encoders.timm_audio import TimmAudio
from vtp_encoders.vit_mae import ViTMAE, positions

LENGTHS = [[5360], [5360, 4000, 1, 399, 400, 2000, 5359, 1680]]
each_batch = pytest.mark.parametrize("lengths", LENGTHS, ids=["1", "8"])


def kaldi(wave: np.ndarray, bins: int, scale: float = 1.0) -> torch.Tensor:
    """(F, M), as "simple-multimodal", AudioMAE and BEATs call torchaudio; dither is off, or no two calls are equal."""
    compliance = pytest.importorskip("torchaudio.compliance.kaldi")
    wave = torch.from_numpy(wave)[None] * scale
    return compliance.fbank(
        wave - wave.mean() if scale == 1 else wave,
        htk_compat=True,
        sample_frequency=16000,
        use_energy=False,
        window_type="hanning",
        num_mel_bins=bins,
        dither=0.0,
        frame_shift=10,
    )


def picture_of(waves: list[np.ndarray], bins: int, steps: int) -> torch.Tensor:
    """(B, 1, bins, steps), padded with zeros."""
    found = torch.zeros(len(waves), 1, bins, steps)
    for row, wave in enumerate(waves):
        if len(wave) >= 400:
            fbank = kaldi(wave, bins)
            found[row, 0, :, : len(fbank)] = fbank.T
    return found


@each_batch
@pytest.mark.parametrize("name", ["vit_mae", "vit_mae grey"])
def test_vit_mae_gives_what_transformers_gives(hub, name, lengths):
    """Its model has an attention mask too, for which an all-hidden sound must not be asked."""
    folder = hub(name)
    encoder = ViTMAE(context=BuildContext(), model=str(folder), bins=32, steps=32).eval()
    model = hf.ViTMAEModel.from_pretrained(folder, mask_ratio=0.0).eval()
    waves = sounds(lengths)
    waveform, count = batched(encoder, waves)
    picture, real = encoder.picture(waveform, count)
    expected = picture_of(waves, 32, 32)
    torch.testing.assert_close(picture, expected, rtol=0, atol=2e-3)  # float32 of the logarithm of quiet bins
    with torch.no_grad():
        tokens = encoder(waveform, count)
        keys = torch.cat([torch.ones(len(real), 1, dtype=torch.bool), real], dim=1)
        colours = picture.expand(-1, model.config.num_channels, -1, -1)
        noise = torch.arange(16.0).expand(len(waves), -1)
        hidden = model(pixel_values=colours, noise=noise, attention_mask=keys).last_hidden_state[:, 1:]
    torch.testing.assert_close(tokens.x[real], hidden[real], rtol=0, atol=1e-5)
    assert torch.equal(real, tokens.attention_mask) and tokens.grid == (4, 4)
    steps = [max(1 + (length - 400) // 160, 1) for length in lengths]
    assert real.sum(1).tolist() == [4 * -(-step // 8) for step in steps]


def test_vit_mae_encodes_visible_tokens_alone_as_transformers_does(hub):
    encoder = ViTMAE(context=BuildContext(), model=str(hub("vit_mae")), bins=32, steps=32).eval()
    model = hf.ViTMAEModel.from_pretrained(hub("vit_mae"), mask_ratio=0.75).eval()
    waveform, count = batched(encoder, sounds([5360, 5360]))
    hidden = torch.ones(2, 16, dtype=torch.bool)
    places = torch.tensor([[1, 5, 6, 15], [0, 2, 3, 9]])
    hidden.scatter_(1, places, False)
    noise = torch.ones(2, 16).scatter_(1, places, torch.arange(4.0).expand(2, -1) - 9)  # transformers keeps the lowest
    with torch.no_grad():
        picture = encoder.picture(waveform, count)[0].expand(-1, 3, -1, -1)
        expected = model(pixel_values=picture, noise=noise).last_hidden_state[:, 1:]
        torch.testing.assert_close(encoder(waveform, count, hidden).x, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("grid", [(4, 4), (2, 6)])
def test_positions_are_those_of_mae(grid):
    """transformers' function with its halves exchanged, as MAE has them; and one of them by hand."""
    canonical = build_2d_sinusoidal_position_embedding(*grid, embed_dim=32, cls_token=True)
    torch.testing.assert_close(positions(grid, 32), canonical.roll(16, 1), rtol=0, atol=1e-6)
    row, column, rates = 1, 3, 10000 ** (-np.arange(8) / 8)
    angles = [np.sin(column * rates), np.cos(column * rates), np.sin(row * rates), np.cos(row * rates)]
    np.testing.assert_allclose(positions(grid, 32)[1 + row * grid[1] + column], np.concatenate(angles), atol=1e-6)


def test_pictures_become_spectrograms_of_another_size_and_are_saved(hub, tmp_path):
    """Of no square, for which transformers has no positions; its model takes the saved folder."""
    encoder = ViTMAE(context=BuildContext(), model=str(hub("vit_mae")), bins=16, steps=48).eval()
    assert encoder.grid == (2, 6) and encoder.spec.samples == 47 * 160 + 400
    encoder.model.save_pretrained(tmp_path)
    model = hf.ViTMAEModel.from_pretrained(tmp_path).eval()
    again = ViTMAE(context=BuildContext(), model=str(tmp_path), bins=16, steps=48).eval()
    waveform, count = batched(encoder, sounds([7920, 3000]))
    with torch.no_grad():
        picture, real = encoder.picture(waveform, count)
        keys = torch.cat([torch.ones(2, 1, dtype=torch.bool), real], dim=1)
        noise = torch.arange(12.0).expand(2, -1)
        expected = model(pixel_values=picture, noise=noise, attention_mask=keys).last_hidden_state[:, 1:]
        torch.testing.assert_close(encoder(waveform, count).x[real], expected[real], rtol=0, atol=1e-5)
        torch.testing.assert_close(again(waveform, count).x[real], expected[real], rtol=0, atol=1e-5)
    with pytest.raises(ConfigError, match="bins=20 and steps=50 must be multiples.*Nearest valid: bins=16, steps=48"):
        ViTMAE(context=BuildContext(), model=str(hub("vit_mae")), bins=20, steps=50)


def test_a_waveform_is_a_picture_row_by_row(hub):
    """22,050 Hz; a short one is repeated, as the original does, and hears itself only."""
    encoder = ViTMAE(context=BuildContext(), model=str(hub("vit_mae")), features="waveform_image").eval()
    assert (encoder.spec.sample_rate, encoder.spec.samples) == (22050, 1024)
    waves = sounds([1024, 300, 0])
    picture, real = encoder.picture(*batched(encoder, waves))
    for row, wave in enumerate(waves[:2]):
        tiled = np.tile(wave, 4)[:1024].reshape(1, 32, 32)
        np.testing.assert_allclose(picture[row], (tiled - 0.5) / 0.5, atol=1e-6)
    assert real.sum(1).tolist() == [16, 16, 0]
    assert encoder(*batched(encoder, waves)).x.isfinite().all()


def test_patches_are_what_the_patch_embedding_reads(hub):
    encoder = ViTMAE(context=BuildContext(), model=str(hub("vit_mae")), bins=16, steps=48).eval()
    waveform, count = batched(encoder, sounds([7920, 3000]))
    values, real = encoder.patches(waveform, count)
    embedding = encoder.model.embeddings.patch_embeddings
    made = torch.nn.functional.linear(values, embedding.projection.weight.flatten(1), embedding.projection.bias)
    torch.testing.assert_close(made, embedding(encoder.picture(waveform, count)[0]), rtol=1e-4, atol=1e-4)
    assert torch.equal(real, encoder(waveform, count).attention_mask) and not real[1].all()


@pytest.fixture
def saved(tmp_path):
    """A folder as timm saves for the hub: AudioMAE's kind of ViT, over 64 steps of 32 bins, without a class token."""
    torch.manual_seed(0)
    options = {"img_size": (64, 32), "in_chans": 1, "class_token": False, "global_pool": "avg", "fc_norm": True}
    model = timm.create_model("test_vit", num_classes=0, **options)
    timm.models.save_for_hf(model, tmp_path / "saved", model_args=options, safe_serialization=True)
    return tmp_path / "saved"


@each_batch
@pytest.mark.parametrize("scale, mean, std", [(1.0, -4.2677393, 4.5689974), (32768.0, 15.41663, 6.55582)])
def test_timm_vit_gives_what_timm_gives(saved, lengths, scale, mean, std):
    """The features of AudioMAE, and those of BEATs; timm's own forward pass takes a mask of the keys."""
    options = {"bins": 32, "steps": 64, "scale": scale, "mean": mean, "std": std}
    encoder = TimmAudio(context=BuildContext(), model=str(saved), pretrained=True, **options).eval()
    reference = timm.create_model(f"local-dir:{saved}", pretrained=True).eval()
    waves = sounds([2 * length for length in lengths])[: len(lengths)]
    waveform, count = batched(encoder, [wave[: encoder.spec.samples] for wave in waves])
    picture, real = encoder.picture(waveform, count)
    for row in range(len(waves)):
        wave = waveform[row, : count[row]].numpy()
        fbank = kaldi(wave, 32, scale) if len(wave) >= 400 else torch.zeros(0, 32)
        expected = torch.nn.functional.pad(fbank, (0, 0, 0, 64 - len(fbank)))
        torch.testing.assert_close(picture[row, 0], (expected - mean) / (2 * std), rtol=0, atol=1e-3)
    with torch.no_grad():
        tokens = encoder(waveform, count)
        expected = reference.forward_features(picture, attn_mask=real[:, None, None])
        torch.testing.assert_close(tokens.x[real], expected[real], rtol=0, atol=1e-5)
        encoder.attended = True  # padding=attended
        torch.testing.assert_close(encoder(waveform, count).x, reference.forward_features(picture), rtol=0, atol=1e-5)
        if real.all():
            torch.testing.assert_close(encoder.pool(tokens), reference(picture), rtol=0, atol=1e-5)


def test_timm_pictures_are_stretched_to_the_spectrogram(tmp_path):
    """timm adds up colours and interpolates positions itself; a class token takes part."""
    torch.manual_seed(0)
    timm.models.save_for_hf(timm.create_model("test_vit"), tmp_path / "picture", safe_serialization=True)
    encoder = TimmAudio(context=BuildContext(), model=str(tmp_path / "picture"), pretrained=True, bins=32, steps=64)
    again = TimmAudio(context=BuildContext(), model=str(tmp_path / "picture"), bins=32, steps=64)
    colours = timm.create_model(f"local-dir:{tmp_path / 'picture'}", pretrained=True).patch_embed.proj.weight
    torch.testing.assert_close(encoder.model.patch_embed.proj.weight, colours.sum(1, keepdim=True))
    assert encoder.grid == (4, 2) and not torch.equal(again.model.pos_embed, encoder.model.pos_embed)
    encoder.eval()
    waveform, count = batched(encoder, sounds([encoder.spec.samples]))
    expected = encoder.model.forward_features(encoder.picture(waveform, count)[0])[:, 1:]
    torch.testing.assert_close(encoder(waveform, count).x, expected, rtol=0, atol=1e-5)


def test_timm_checkpoints_need_no_folder(saved, tmp_path):
    encoder = TimmAudio(context=BuildContext(), model=str(saved), pretrained=True, bins=32, steps=64).eval()
    folder = tmp_path / "assets" / "encoders" / "audio"
    folder.mkdir(parents=True)
    encoder.save_assets(folder)
    context = BuildContext(assets=tmp_path / "assets")
    again = TimmAudio(context=context, model="gone", pretrained=True, bins=32, steps=64).eval()
    again.load_state_dict(encoder.state_dict(), strict=True)
    given = batched(encoder, sounds([8000, 3000]))
    assert torch.equal(again(*given).x, encoder(*given).x)


def test_timm_says_what_it_cannot_take(tmp_path):
    with pytest.raises(ConfigError, match="'resnet10t' is a ResNet, and sound takes a plain ViT"):
        TimmAudio(context=BuildContext(), model="resnet10t")
    with pytest.raises(ConfigError, match="lacks config.json"):
        TimmAudio(context=BuildContext(), model=str(tmp_path))
    with pytest.raises(ConfigError, match="steps=70 and bins=32 must be multiples"):
        TimmAudio(context=BuildContext(), model="test_vit", steps=70, bins=32)
