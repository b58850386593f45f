"""CLAP's audio tower against transformers' own pipeline: its feature extractor, then its model."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import torch
import transformers as hf
from test_speech import batched, sounds

from vtp.errors import ConfigError
from vtp.model.build import BuildContext
from vtp_encoders.clap import Clap

RATE = 48000


@pytest.fixture(params=["clap", "clap fused"])
def clap(hub, request):
    """Encoder, transformers' extractor and audio model of one folder."""
    folder = hub(request.param)
    model = hf.ClapModel.from_pretrained(folder).eval().audio_model
    return (
        Clap(context=BuildContext(), model=str(folder)).eval(),
        hf.AutoFeatureExtractor.from_pretrained(folder),
        model,
    )


@pytest.mark.parametrize("lengths", [[48000], [48000, 24000, 30000, 1, 480, 47999, 16000, 11111]], ids=["1", "8"])
def test_clap_gives_what_transformers_gives(clap, lengths):
    """Short sounds are repeated. With feature fusion its extractor calls one of them, at random, a longer one."""
    encoder, extractor, model = clap
    waves = sounds(lengths, RATE)
    given = extractor(waves, sampling_rate=RATE, return_tensors="pt")
    waveform, count = batched(encoder, waves)
    features = encoder.features(waveform, count)
    for channel in given["input_features"].unbind(1):
        torch.testing.assert_close(features, channel.float(), rtol=0, atol=2e-3)  # decibels; ours is float32
    given["is_longer"] = torch.zeros(len(waves), 1, dtype=torch.bool)
    with torch.no_grad():
        tokens = encoder(waveform, count)
        expected = model(input_features=given["input_features"].float(), is_longer=given["is_longer"])
    got = tokens.x.transpose(1, 2).unflatten(2, encoder.grid)
    torch.testing.assert_close(got, expected.last_hidden_state, rtol=0, atol=1e-4)
    torch.testing.assert_close(encoder.pool(tokens), expected.pooler_output, rtol=0, atol=1e-5)
    begins = np.arange(encoder.grid[1]) * RATE / encoder.grid[1]
    real = [(begins < length).sum() * encoder.grid[0] for length in lengths]
    assert tokens.attention_mask.sum(1).tolist() == real


def test_clap_is_the_same_every_time(hub):
    """transformers' extractor draws: two calls with one longer sound differ. Ours has what the loader cut, no more."""
    encoder = Clap(context=BuildContext(), model=str(hub("clap"))).eval()
    extractor = hf.AutoFeatureExtractor.from_pretrained(hub("clap"))
    (long,) = sounds([3 * RATE], RATE)
    drawn = [extractor(long, sampling_rate=RATE, return_tensors="pt")["input_features"] for _ in range(4)]
    assert any(not torch.equal(drawn[0], other) for other in drawn[1:])
    given = batched(encoder, [long[: encoder.spec.samples]])
    assert torch.equal(encoder.features(*given), encoder.features(*given))


def test_clap_folders_of_the_audio_tower_alone(hub, tmp_path):
    whole = hf.ClapModel.from_pretrained(hub("clap"))
    folders = {name: tmp_path / name for name in ("alone", "projected")}
    whole.audio_model.save_pretrained(folders["alone"])
    projected = hf.ClapAudioModelWithProjection(whole.config.audio_config)
    projected.audio_model = whole.audio_model
    projected.save_pretrained(folders["projected"])
    encoder = Clap(context=BuildContext(), model=str(hub("clap")))
    for folder in folders.values():
        hf.AutoFeatureExtractor.from_pretrained(hub("clap")).save_pretrained(folder)
        other = Clap(context=BuildContext(), model=str(folder))
        assert other.spec == encoder.spec
        assert all(map(torch.equal, encoder.state_dict().values(), other.state_dict().values()))


def test_rows_without_sound_do_not_change_the_statistics(hub):
    encoder = Clap(context=BuildContext(), model=str(hub("clap"))).train()
    before = {name: buffer.clone() for name, buffer in encoder.named_buffers()}
    waveform, lengths = batched(encoder, sounds([48000, 0], RATE))
    encoder(waveform, lengths).x.sum().backward()
    assert before and all(torch.equal(buffer, before[name]) for name, buffer in encoder.named_buffers())


def test_another_model_is_refused(bert):
    with pytest.raises(ConfigError, match="is a bert model. Choose a CLAP model"):
        Clap(context=BuildContext(), model=str(bert))


def test_without_its_settings_a_model_of_other_bins_is_refused(hub, tmp_path):
    shutil.copytree(hub("clap"), tmp_path / "model", ignore=shutil.ignore_patterns("preprocessor_config.json"))
    with pytest.raises(ConfigError, match="takes 8 mel bins, and the settings beside it make 64"):
        Clap(context=BuildContext(), model=str(tmp_path / "model"))


def test_layers_of_clap_count_its_blocks(hub):
    encoder = Clap(context=BuildContext(), model=str(hub("clap")))
    layers = {
        name.removeprefix("model.audio_encoder."): encoder.layer_of(name) for name, _ in encoder.named_parameters()
    }
    assert layers["layers.0.blocks.1.layernorm_before.weight"] == 2 and layers["layers.0.downsample.norm.weight"] == 2
    assert layers["layers.1.blocks.0.layernorm_before.weight"] == 3 and layers["norm.weight"] == encoder.depth + 1 == 4
