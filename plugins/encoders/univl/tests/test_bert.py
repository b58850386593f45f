"""The text encoder against Hugging Face's BERT, and what leaving out padding must not change."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import BertConfig, BertModel, RobertaConfig
from univl_models import SIZE, TEXTS, plain_bert, text_encoder, words

from vtp.errors import ConfigError
from vtp.testing import check_encoder
from vtp_univl.bert import Groups, Layers, Packing, sizes
from vtp_univl.text import UniVLText


def test_the_text_encoder_keeps_the_contract() -> None:
    small = SIZE | {"tokenizer": "texts", "max_length": 16}
    check_encoder(UniVLText, small)
    check_encoder(UniVLText, small | {"dropout": 0.0, "attention_dropout": 0.0})


def test_it_computes_what_hugging_face_computes() -> None:
    text = text_encoder()
    inputs = words(text)
    real = inputs["attention_mask"]
    theirs = plain_bert(text)(input_ids=inputs["token_ids"], attention_mask=real.long())
    ours = text(**inputs)
    torch.testing.assert_close(ours.x[real], theirs.last_hidden_state[real], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(text.pool(ours), theirs.pooler_output, atol=1e-5, rtol=1e-5)
    assert not ours.x[~real].any()


def test_gradients_are_those_of_hugging_face() -> None:
    text, inputs = text_encoder(), words(text_encoder())
    plain = plain_bert(text)
    real = inputs["attention_mask"]
    text(**inputs).x[real].square().sum().backward()
    plain(input_ids=inputs["token_ids"], attention_mask=real.long()).last_hidden_state[real].square().sum().backward()
    want = dict(plain.named_parameters())
    for name, parameter in text.bert.named_parameters():
        if not name.startswith("pooler"):
            torch.testing.assert_close(parameter.grad, want[name].grad, atol=1e-4, rtol=1e-4, msg=name)


def test_attention_maps_are_those_of_hugging_face() -> None:
    text, inputs = text_encoder(), words(text_encoder())
    plain = plain_bert(text)
    plain.set_attn_implementation("eager")
    numbers = inputs["attention_mask"].long()
    want = plain(input_ids=inputs["token_ids"], attention_mask=numbers, output_attentions=True).attentions
    found = text.attentions(**inputs)
    assert found.shape == (SIZE["depth"], len(TEXTS), SIZE["heads"], *(inputs["token_ids"].shape[1],) * 2)
    torch.testing.assert_close(found, torch.stack(want), atol=1e-5, rtol=1e-5)
    assert not found.requires_grad


@pytest.fixture
def batches() -> tuple[list[Tensor], list[Tensor]]:
    """Two batches of sequences with holes in them, one sequence without any token."""
    generator = torch.Generator().manual_seed(0)
    parts = [torch.randn(5, 7, 24, generator=generator), torch.randn(3, 4, 24, generator=generator)]
    masks = [torch.rand(part.shape[:2], generator=generator) < 0.6 for part in parts]
    masks[0][1] = False
    masks[1][0] = True
    return parts, masks


def test_packing_brings_every_token_back(batches: tuple[list[Tensor], list[Tensor]]) -> None:
    parts, masks = batches
    packing = Packing(masks)
    lengths = sorted(n for n in torch.cat([mask.sum(1) for mask in masks]).tolist() if n)
    assert packing.lengths == lengths
    flat = packing.pack(parts)
    assert flat.shape == (sum(lengths), 24)
    for found, part, mask in zip(packing.unpack(flat), parts, masks, strict=True):
        torch.testing.assert_close(found, part * mask[..., None])


@pytest.mark.parametrize("most", [None, 1, 6, 8, 1000])
def test_chunks_hold_all_sequences_and_no_more_tokens_than_asked_for(most: int | None) -> None:
    lengths = torch.tensor([3, 7, 2, 2, 5, 5, 1])
    packing = Packing([torch.arange(7) < lengths[:, None]])
    chunks = list(packing.chunks(most))
    assert [length for chunk in chunks for length in chunk] == sorted(lengths.tolist())
    assert all(len(chunk) == 1 or most is None or sum(chunk) <= most for chunk in chunks)


def run(layers: Layers, parts: list[Tensor], masks: list[Tensor], **how: Any) -> tuple[list[Tensor], dict[str, Any]]:
    layers.zero_grad()
    found = layers.run(parts, masks, **how)
    torch.stack([out.square().sum() for out in found]).sum().backward()
    return found, {name: p.grad.clone() for name, p in layers.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("how", [{"chunk": 5}, {"recompute": True}, {"chunk": 9, "recompute": True}], ids=str)
def test_chunks_and_checkpointing_change_nothing(batches: Any, how: dict[str, Any]) -> None:
    torch.manual_seed(0)
    layers = Layers(24, 2, 2, 0.0, 0.0)
    want, gradients = run(layers, *batches)
    found, again = run(layers, *batches, **how)
    torch.testing.assert_close(found, want)
    assert set(again) == set(dict(layers.named_parameters()))
    torch.testing.assert_close(again, gradients, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("attention_dropout", [0.0, 1e-12], ids=["attention", "with dropout"])
def test_padded_attention_equals_attention_by_length(
    batches: Any, attention_dropout: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a GPU does, one call with a mask, and what a CPU does."""
    torch.manual_seed(0)
    layers = Layers(24, 2, 2, 0.0, attention_dropout).train()
    want, gradients = run(layers, *batches)
    monkeypatch.setattr("vtp_univl.bert.Groups", lambda lengths, device: Groups(lengths, device, together=True))
    found, again = run(layers, *batches)
    torch.testing.assert_close(found, want, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(again, gradients, atol=1e-4, rtol=1e-4)


def test_a_batch_without_any_token_gives_zeros_and_zero_gradients() -> None:
    layers = Layers(24, 2, 2, 0.0, 0.0)
    found, gradients = run(layers, [torch.randn(2, 3, 24)], [torch.zeros(2, 3, dtype=torch.bool)])
    assert not found[0].any()
    assert set(gradients) == set(dict(layers.named_parameters()))
    assert not any(gradient.any() for gradient in gradients.values())


def test_a_graph_that_knows_no_lengths_gives_the_same(batches: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    layers, (parts, masks) = Layers(16, 2, 2, 0.0, 0.0).eval(), batches
    parts = [torch.randn(*mask.shape, 16) for mask in masks]
    want = layers.run(parts, masks)
    monkeypatch.setattr(torch.compiler, "is_exporting", lambda: True)
    for found, expected in zip(layers.run(parts, masks), want, strict=True):
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)


def test_dropout_is_on_in_training_alone() -> None:
    torch.manual_seed(0)
    text = text_encoder(dropout=0.5)
    inputs = words(text)
    assert torch.equal(text(**inputs).x, text(**inputs).x)
    text.train()
    assert not torch.equal(text(**inputs).x, text(**inputs).x)


# --- sizes and weights


def test_presets_and_numbers_in_their_place() -> None:
    assert sizes("here", "base", None, None, None) == (768, 12, 12)
    assert sizes("here", "tiny", 96, None, 3) == (96, 2, 3)
    with pytest.raises(ConfigError, match="no preset 'huge'"):
        sizes("here", "huge", None, None, None)
    with pytest.raises(ConfigError, match="width=100 must be a multiple of heads=3"):
        sizes("here", "tiny", 100, None, 3)


def saved_bert(folder: Path, **changed: Any) -> BertModel:
    config = {"vocab_size": 30, "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
    config |= {"intermediate_size": 96, "max_position_embeddings": 40}
    torch.manual_seed(3)
    model = BertModel(BertConfig(**(config | changed))).eval()
    model.save_pretrained(folder)
    return model


def test_weights_of_a_transformers_folder(tmp_path: Path) -> None:
    saved = saved_bert(tmp_path)
    text = text_encoder_from(tmp_path)
    state = saved.state_dict()
    assert set(state) >= set(text.bert.state_dict())
    for name, tensor in text.bert.state_dict().items():
        assert torch.equal(tensor, state[name]), name


def text_encoder_from(folder: Path, **options: Any) -> UniVLText:
    from vtp.model.build import BuildContext

    given = SIZE | {"tokenizer": "texts", "max_length": 16, "vocabulary": 30, "pretrained": str(folder)} | options
    return UniVLText(context=BuildContext(texts=lambda: TEXTS), **given)


def test_weights_of_other_sizes_are_refused_with_the_sizes_to_give(tmp_path: Path) -> None:
    saved_bert(tmp_path, num_hidden_layers=3, num_attention_heads=4)
    with pytest.raises(ConfigError, match=r"Give encoder\.text\.depth=3 encoder\.text\.heads=4\."):
        text_encoder_from(tmp_path)


def test_another_kind_of_model_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(RobertaConfig().to_dict()))
    with pytest.raises(ConfigError, match="is a roberta, and must be a BERT"):
        text_encoder_from(tmp_path)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"max_length": 41}, "max_length=41 is more than positions=40"),
        ({"vocabulary": 3}, "vocabulary=3 is less than the"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        text_encoder(**options)
