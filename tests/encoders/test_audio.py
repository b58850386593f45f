from __future__ import annotations

import shutil

import numpy as np
import pytest
import torch

from vtp.model.build import BuildContext
from vtp_encoders.ast_audio import AST, PREFIX
from vtp_encoders.tiny_audio import TinyAudio


def sound(samples: int) -> torch.Tensor:
    t = torch.arange(samples) / 16000
    return 0.3 * torch.sin(2 * torch.pi * 440 * t) + 0.05 * torch.randn(samples)


def test_ast_features_equal_those_of_its_feature_extractor(ast):
    """transformers' own extractor (Kaldi through torchaudio or numpy) is the oracle, padding included."""
    from transformers import ASTFeatureExtractor

    encoder = AST(context=BuildContext(), model=str(ast))
    extractor = ASTFeatureExtractor(num_mel_bins=32, max_length=50)
    for samples in (8000, 5000):
        wave = sound(samples)
        expected = extractor(wave.numpy().astype(np.float32), sampling_rate=16000, return_tensors="pt").input_values
        padded = torch.nn.functional.pad(wave, (0, encoder.spec.samples - samples))[None]
        ours, steps = encoder.features(padded, torch.tensor([samples]))
        assert steps.item() == 1 + (samples - 400) // 160
        torch.testing.assert_close(ours, expected, rtol=0, atol=2e-3)


def test_ast_takes_mean_and_deviation_of_its_settings(ast, tmp_path):
    """Those of Speech Commands are others than AudioSet's."""
    from transformers import ASTFeatureExtractor

    folder = shutil.copytree(ast, tmp_path / "ast")
    ASTFeatureExtractor(num_mel_bins=32, max_length=50, mean=-6.8, std=5.5).save_pretrained(folder)
    encoder = AST(context=BuildContext(), model=str(folder))
    assert (encoder.mean, encoder.std) == (-6.8, 5.5)
    (tmp_path / "saved" / "encoders" / "audio").mkdir(parents=True)
    encoder.save_assets(tmp_path / "saved" / "encoders" / "audio")
    assert AST(context=BuildContext(assets=tmp_path / "saved"), model="not there").mean == -6.8
    assert AST(context=BuildContext(), model=str(folder), mean=1.0).mean == 1.0
    assert AST(context=BuildContext(), model=str(ast)).mean == pytest.approx(-4.2677393)


def test_ast_output_is_that_of_the_model(ast):
    from transformers import ASTModel

    encoder = AST(context=BuildContext(), model=str(ast)).eval()
    reference = ASTModel.from_pretrained(ast).eval()
    waveform = torch.stack([sound(8000), sound(8000)])
    lengths = torch.tensor([8000, 8000])
    features, _ = encoder.features(waveform, lengths)
    expected = reference(features).last_hidden_state[:, PREFIX:]
    tokens = encoder(waveform, lengths)
    torch.testing.assert_close(tokens.x, expected, rtol=1e-5, atol=1e-5)
    assert tokens.x.shape[1] == encoder.grid[0] * encoder.grid[1] and tokens.attention_mask.all()


@pytest.mark.parametrize("lengths", [[8000], [8000, 4000, 1, 399, 400, 7999, 2640, 6000]], ids=["1", "8"])
def test_ast_can_attend_to_padding_as_transformers_does(ast, lengths):
    """Extractor and model of transformers, which asks for a whole window: shorter sounds are padded to one there."""
    from transformers import ASTFeatureExtractor, ASTModel

    encoder = AST(context=BuildContext(), model=str(ast), padding="attended").eval()
    waves = [sound(max(length, 400)) * (torch.arange(max(length, 400)) < length) for length in lengths]
    extractor = ASTFeatureExtractor(num_mel_bins=32, max_length=50)
    given = extractor([wave.numpy() for wave in waves], sampling_rate=16000, return_tensors="pt").input_values
    waveform = torch.stack([torch.nn.functional.pad(wave, (0, 8000 - len(wave)), value=0.7) for wave in waves])
    count = torch.tensor([len(wave) for wave in waves])
    with torch.no_grad():
        tokens = encoder(waveform, count)
        torch.testing.assert_close(encoder.features(waveform, count)[0], given, rtol=0, atol=2e-3)
        model = ASTModel.from_pretrained(ast).eval()
        expected = model(encoder.features(waveform, count)[0]).last_hidden_state[:, PREFIX:]
    torch.testing.assert_close(tokens.x, expected, rtol=0, atol=1e-5)
    assert len(lengths) == 1 or not tokens.attention_mask.all()


def test_ast_masks_the_time_steps_behind_the_sound(ast):
    encoder = AST(context=BuildContext(), model=str(ast)).eval()
    waveform = torch.nn.functional.pad(sound(4000), (0, 4000))[None]
    tokens = encoder(waveform, torch.tensor([4000]))  # 23 of 50 steps: patches start at steps 0, 10, 20, 30
    assert tokens.attention_mask.view(encoder.grid).tolist() == [[True, True, True, False]] * encoder.grid[0]


def test_patches_of_ast_are_what_its_patch_embedding_reads(ast):
    """The convolution of the model as a product with the patches."""
    encoder = AST(context=BuildContext(), model=str(ast)).eval()
    waveform, lengths = torch.nn.functional.pad(sound(4000), (0, 4000))[None], torch.tensor([4000])
    features, _ = encoder.features(waveform, lengths)
    embedding = encoder.model.embeddings.patch_embeddings
    values, real = encoder.patches(waveform, lengths)
    made = torch.nn.functional.linear(values, embedding.projection.weight.flatten(1), embedding.projection.bias)
    torch.testing.assert_close(made, embedding(features), rtol=1e-4, atol=1e-4)
    assert torch.equal(real, encoder(waveform, lengths).attention_mask)


@pytest.mark.parametrize("second", [0.1, 0.5, 1.7])
def test_patches_of_tiny_lie_where_their_token_does(second):
    """A click shows in the token of its 160 ms, and in the next or last one where a window reaches over the edge."""
    encoder = TinyAudio(width=16, depth=1)
    lengths = torch.tensor([30_000])
    quiet = torch.randn(1, encoder.spec.samples) * 0.01
    loud = quiet.clone()
    loud[0, int(second * 16000)] = 1.0
    values, real = zip(*(encoder.patches(wave, lengths) for wave in (quiet, loud)), strict=True)
    changed = (values[0] != values[1]).any(2)[0].nonzero()[:, 0].tolist()
    assert int(second / 0.16) in changed and len(changed) <= 2
    assert torch.equal(real[0], encoder(quiet, lengths).attention_mask) and not real[0].all()
    assert values[0].shape == (1, encoder.grid[0], 8 * encoder.bins)


@pytest.mark.parametrize("kind", ["ast", "tiny"])
def test_what_follows_the_sound_is_not_attended_to(ast, kind):
    """Hiding the padded tokens, so that they are not there at all, changes nothing."""
    torch.manual_seed(0)
    encoder = AST(context=BuildContext(), model=str(ast)) if kind == "ast" else TinyAudio(width=16, depth=1)
    half = encoder.spec.samples // 2
    waveform = torch.nn.functional.pad(sound(half), (0, encoder.spec.samples - half))[None]
    tokens = encoder.eval()(waveform, torch.tensor([half]))
    alone = encoder(waveform, torch.tensor([half]), mask=~tokens.attention_mask)
    torch.testing.assert_close(tokens.x[tokens.attention_mask], alone.x[0], rtol=1e-4, atol=1e-5)


def test_ast_from_scratch():
    encoder = AST(context=BuildContext(), preset="tiny", seconds=1.0)
    assert encoder.spec.seconds == 1.0 and encoder.width == 192


def test_tiny_tokens_cover_the_sound():
    encoder = TinyAudio(width=16, seconds=2.0)
    waveform = torch.zeros(4, 32000)
    lengths = torch.tensor([0, 1, 16000, 32000])
    tokens = encoder(waveform, lengths)
    assert tokens.x.shape == (4, 13, 16)  # 101 frames of 20 ms, 8 per token
    assert tokens.attention_mask.sum(1).tolist() == [0, 1, 7, 13]


def test_tiny_tells_sounds_apart_and_hears_order():
    encoder = TinyAudio(width=16).eval()
    high = torch.sin(torch.arange(16000) / 16000 * 2 * torch.pi * 3000)
    low = torch.sin(torch.arange(16000) / 16000 * 2 * torch.pi * 200)
    waves = torch.stack([torch.cat([high, low]), torch.cat([low, high])])
    pooled = encoder(waves, torch.tensor([32000, 32000])).pooled()
    assert (pooled[0] - pooled[1]).abs().max() > 1e-3
