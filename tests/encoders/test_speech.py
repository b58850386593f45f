"""wav2vec2 and Whisper against transformers' own pipelines: its feature extractor, then its model."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import transformers as hf

from vtp.errors import ConfigError
from vtp.model.build import BuildContext
from vtp_encoders.wav2vec2 import Wav2Vec2
from vtp_encoders.whisper import Whisper


def sounds(lengths: list[int], rate: int = 16000) -> list[np.ndarray]:
    """Chirps with noise around 0.1, float32."""
    generator = np.random.default_rng(0)
    found = []
    for i, length in enumerate(lengths):
        t = np.arange(length) / rate
        wave = 0.1 + 0.3 * np.sin(2 * np.pi * (200 + 100 * i + 2000 * t) * t) + 0.05 * generator.standard_normal(length)
        found.append(wave.astype(np.float32))
    return found


def batched(encoder, waves: list[np.ndarray]) -> tuple[torch.Tensor, torch.Tensor]:
    """As a loader gives them, but with something behind the sound, which nobody may hear."""
    waveform = torch.full((len(waves), encoder.spec.samples), 0.7)
    for row, wave in enumerate(waves):
        waveform[row, : len(wave)] = torch.from_numpy(wave)
    return waveform, torch.tensor([len(wave) for wave in waves])


@pytest.fixture(params=["wav2vec2", "wav2vec2 layer"])
def speech(hub, request):
    """Encoder, transformers' extractor and model of one folder."""
    folder = hub(request.param)
    encoder = Wav2Vec2(context=BuildContext(), model=str(folder), seconds=0.06).eval()
    return encoder, hf.AutoFeatureExtractor.from_pretrained(folder), hf.AutoModel.from_pretrained(folder).eval()


@pytest.mark.parametrize("lengths", [[960], [960, 700, 26, 25, 333, 500, 501, 959]], ids=["1", "8"])
def test_wav2vec2_gives_what_transformers_gives_for_each_sound_alone(speech, lengths):
    encoder, extractor, model = speech
    waves = sounds(lengths)
    with torch.no_grad():
        tokens = encoder(*batched(encoder, waves))
        for row, wave in enumerate(waves):
            values = extractor(wave, sampling_rate=16000, return_tensors="pt").input_values
            expected = model(values).last_hidden_state[0]
            got = tokens.x[row][tokens.attention_mask[row]]
            torch.testing.assert_close(got, expected, rtol=0, atol=1e-5)


def test_wav2vec2_equals_a_padded_batch_of_transformers_where_that_has_a_mask(hub):
    """The models with a layer norm in the convolutions; for the others transformers lets silence in."""
    folder = hub("wav2vec2 layer")
    encoder = Wav2Vec2(context=BuildContext(), model=str(folder), seconds=0.06).eval()
    waves = sounds([960, 700, 100, 25])
    extractor, model = hf.AutoFeatureExtractor.from_pretrained(folder), hf.AutoModel.from_pretrained(folder).eval()
    given = extractor(waves, sampling_rate=16000, padding=True, return_attention_mask=True, return_tensors="pt")
    with torch.no_grad():
        tokens, expected = encoder(*batched(encoder, waves)), model(**given).last_hidden_state
    torch.testing.assert_close(tokens.x[tokens.attention_mask], expected[tokens.attention_mask], rtol=0, atol=1e-5)


def test_wav2vec2_leaves_the_scale_alone_where_the_settings_say_so(hub, tmp_path):
    import hub_models

    folder = hub_models.save("wav2vec2", tmp_path)
    hf.Wav2Vec2FeatureExtractor(do_normalize=False).save_pretrained(folder)
    encoder = Wav2Vec2(context=BuildContext(), model=str(folder), seconds=0.06).eval()
    (wave,) = sounds([700])
    with torch.no_grad():
        tokens = encoder(*batched(encoder, [wave]))
        expected = hf.AutoModel.from_pretrained(folder).eval()(torch.from_numpy(wave)[None]).last_hidden_state[0]
    torch.testing.assert_close(tokens.x[tokens.attention_mask], expected, rtol=0, atol=1e-5)


def test_a_sound_shorter_than_a_token_of_wav2vec2_has_one(speech):
    """25 samples are needed; 0 are no sound."""
    encoder, _, _ = speech
    tokens = encoder(*batched(encoder, sounds([1, 24, 25, 34, 35, 0])))
    assert tokens.attention_mask.sum(1).tolist() == [1, 1, 1, 1, 2, 0]
    assert tokens.x.isfinite().all()


def test_wav2vec2_trains_without_its_own_random_masks(hub):
    """They come from numpy and would differ between processes; a layer that is dropped has no gradient."""
    encoder = Wav2Vec2(context=BuildContext(), model=str(hub("wav2vec2")), seconds=0.06).train()
    state = np.random.get_state()[1].copy()
    encoder(*batched(encoder, sounds([960, 300]))).x.square().sum().backward()
    assert (np.random.get_state()[1] == state).all()
    assert [n for n, p in encoder.named_parameters() if p.grad is None] == []


def test_wav2vec2_says_where_its_layers_are(hub):
    encoder = Wav2Vec2(context=BuildContext(), model=str(hub("wav2vec2 layer")), seconds=0.06)
    layers = {name: encoder.layer_of(name) for name, _ in encoder.named_parameters()}
    assert {layer for name, layer in layers.items() if "conv" in name or "projection" in name} == {0}
    assert layers["model.encoder.layers.1.layer_norm.weight"] == 2 and layers["model.encoder.layer_norm.weight"] == 3


def test_wav2vec2_that_ends_in_convolutions_is_refused(tmp_path):
    import hub_models

    hub_models.wav2vec2(tmp_path, add_adapter=True)
    with pytest.raises(ConfigError, match="add_adapter"):
        Wav2Vec2(context=BuildContext(), model=str(tmp_path))


@pytest.fixture
def whisper(hub):
    folder = hub("whisper")
    encoder = Whisper(context=BuildContext(), model=str(folder)).eval()
    model = hf.WhisperModel.from_pretrained(folder).eval().get_encoder()
    return encoder, hf.AutoFeatureExtractor.from_pretrained(folder), model


@pytest.mark.parametrize("lengths", [[16000], [16000, 12345, 1, 160, 4000, 15999, 320, 8000]], ids=["1", "8"])
def test_whisper_gives_what_transformers_gives(whisper, lengths):
    encoder, extractor, model = whisper
    waves = sounds(lengths)
    given = extractor(waves, sampling_rate=16000, return_tensors="pt").input_features
    waveform, count = batched(encoder, waves)
    torch.testing.assert_close(encoder.features(waveform, count), given, rtol=0, atol=1e-5)
    with torch.no_grad():
        tokens, expected = encoder(waveform, count), model(given).last_hidden_state
    torch.testing.assert_close(tokens.x, expected, rtol=0, atol=1e-5)
    assert tokens.attention_mask.sum(1).tolist() == [-(-length // 320) for length in lengths]


def test_whisper_hears_its_full_length_whatever_is_loaded(whisper, hub):
    """The model refuses any other number of mel steps."""
    encoder, _, model = whisper
    with pytest.raises(ValueError, match="Whisper expects the mel input features to be of length 100"):
        model(torch.zeros(1, 8, 60))
    short = Whisper(context=BuildContext(), model=str(hub("whisper")), seconds=0.35).eval()
    assert short.spec.samples == 5600 and short.grid == (18,)
    waves = sounds([5600, 3000])
    with torch.no_grad():
        some, everything = short(*batched(short, waves)), encoder(*batched(encoder, waves))
    torch.testing.assert_close(some.x, everything.x[:, :18], rtol=0, atol=1e-6)
    assert torch.equal(some.attention_mask, everything.attention_mask[:, :18])
    with pytest.raises(ConfigError, match="seconds=2 is more than .* hears. Give at most 1."):
        Whisper(context=BuildContext(), model=str(hub("whisper")), seconds=2)


def test_whisper_features_do_not_lose_digits_in_half_precision(whisper):
    encoder, _, _ = whisper
    given = batched(encoder, sounds([16000, 5000]))
    exact = encoder.features(*given)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(encoder.features(*given), exact)


def test_a_folder_without_settings_has_the_bins_of_its_model(hub, tmp_path):
    import shutil

    folder = shutil.copytree(hub("whisper"), tmp_path / "bare")
    for name in ("preprocessor_config.json", "processor_config.json"):
        (folder / name).unlink(missing_ok=True)
    assert Whisper(context=BuildContext(), model=str(folder)).filters.shape == (8, 201)
