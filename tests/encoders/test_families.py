"""Text models of other families than BERT's: folders that lack something, positions, vocabularies."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest
import torch
import transformers as hf

from vtp.errors import ConfigError
from vtp.model.build import BuildContext
from vtp_encoders.transformers_text import TransformersText

SMALL = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
T5 = {"d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 1, "num_heads": 2}
BART = {
    "d_model": 16,
    **{f"{part}_{what}": number for part in ("encoder", "decoder") for what, number in
       (("layers", 1), ("attention_heads", 2), ("ffn_dim", 32))},
}  # fmt: skip
VISION = {**SMALL, "image_size": 8, "patch_size": 4}


def build(folder: Path, **options: object) -> TransformersText:
    torch.manual_seed(0)
    return TransformersText(context=BuildContext(), model=str(folder), **options)


# -- a tokenizer without its vocabulary (transformers makes one, and says nothing) -------------------------------------

ALONE = {
    "bert": hf.BertConfig(**SMALL),
    "roberta": hf.RobertaConfig(**SMALL),
    "xlm-roberta": hf.XLMRobertaConfig(**SMALL),
    "mpnet": hf.MPNetConfig(**SMALL),
    "deberta": hf.DebertaV2Config(**SMALL),
    "albert": hf.AlbertConfig(**SMALL, embedding_size=8),
    "distilbert": hf.DistilBertConfig(dim=16, n_layers=1, n_heads=2, hidden_dim=32),
    "t5": hf.T5Config(**T5),
    "mt5": hf.MT5Config(**T5),
    "umt5": hf.UMT5Config(**T5),
    "bart": hf.BartConfig(**BART),
    "mbart": hf.MBartConfig(**BART),
    "pegasus": hf.PegasusConfig(**BART),
    "xlnet": hf.XLNetConfig(d_model=16, n_layer=1, n_head=2, d_inner=32),
    "gpt2": hf.GPT2Config(n_embd=16, n_layer=1, n_head=2),
    "clip": hf.CLIPConfig(text_config=SMALL, vision_config=VISION),
    "clip text": hf.CLIPTextConfig(**SMALL),
    "modernbert": hf.ModernBertConfig(**SMALL),
    "gemma": hf.GemmaConfig(**SMALL, num_key_value_heads=2, head_dim=8),
}


@pytest.mark.parametrize("family", ALONE)
def test_a_configuration_alone_is_no_tokenizer(tmp_path, family):
    """Right: refused. A run would train on one id for all words, and end well."""
    ALONE[family].vocab_size = 600
    ALONE[family].save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match="^encoder transformers: .*tokenizer of") as caught:
        build(tmp_path, pretrained=False)
    assert "vocabulary was not found" in str(caught.value) or family == "pegasus"
    assert "\n" not in str(caught.value)


def test_a_tokenizer_of_another_language_knows_its_words(bert, tmp_path):
    """Not one of the words that the probe has; its own are asked then."""
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "\u7ea2", "\u7403"]
    (tmp_path / "vocab.txt").write_text("\n".join(words), encoding="utf-8")
    hf.BertTokenizer(vocab=str(tmp_path / "vocab.txt")).save_pretrained(tmp_path)
    hf.BertConfig(**SMALL, vocab_size=7).save_pretrained(tmp_path)
    spec = build(tmp_path, pretrained=False).spec
    assert spec.tokenize(["\u7ea2\u7403", "\u7403"]) == [[2, 5, 6, 3], [2, 6, 3]]


def test_a_tokenizer_of_another_model_is_refused(bert, tmp_path):
    """Its ids would lie outside of the table, which is an IndexError in the middle of training."""
    shutil.copytree(bert, tmp_path / "mixed")
    hf.BertConfig(**SMALL, vocab_size=10).save_pretrained(tmp_path / "mixed")
    ids = len(hf.AutoTokenizer.from_pretrained(bert))
    with pytest.raises(ConfigError, match=f"ids up to {ids - 1}, and the model has embeddings of 10"):
        build(tmp_path / "mixed", pretrained=False)


# -- positions ---------------------------------------------------------------------------------------------------------

LIMITS = {  # configuration with 16 positions, and how many tokens they hold
    "bert": (hf.BertConfig(**SMALL, max_position_embeddings=16), 16),
    "electra": (hf.ElectraConfig(**SMALL, max_position_embeddings=16), 16),
    "clip text": (hf.CLIPTextConfig(**SMALL, max_position_embeddings=16, eos_token_id=3), 16),
    "clip": (
        hf.CLIPConfig(text_config={**SMALL, "max_position_embeddings": 16, "vocab_size": 99}, vision_config=VISION),
        16,
    ),
    # RoBERTa counts positions from behind the id of padding: with padding 1, rows 0 and 1 are never used
    "roberta": (hf.RobertaConfig(**SMALL, max_position_embeddings=16, pad_token_id=1), 14),
    "xlm-roberta": (hf.XLMRobertaConfig(**SMALL, max_position_embeddings=16, pad_token_id=1), 14),
    "mpnet": (hf.MPNetConfig(**SMALL, max_position_embeddings=16, pad_token_id=1), 14),
    "bart": (hf.BartConfig(**BART, max_position_embeddings=16), 16),  # its table has 2 rows more
    "gpt2": (hf.GPT2Config(n_embd=16, n_layer=1, n_head=2, n_positions=16), 16),
    # relative and rotary positions: the number in the configuration is no limit
    "deberta": (
        hf.DebertaV2Config(**SMALL, max_position_embeddings=16, relative_attention=True, position_biased_input=False),
        None,
    ),  # fmt: skip
    "t5": (hf.T5Config(**T5), None),
    "xlnet": (hf.XLNetConfig(d_model=16, n_layer=1, n_head=2, d_inner=32), None),
    "modernbert": (hf.ModernBertConfig(**SMALL, max_position_embeddings=16, pad_token_id=0), None),
}


@pytest.mark.parametrize("family", LIMITS)
def test_texts_longer_than_the_positions_are_refused_at_construction(bert, tmp_path, family):
    config, most = LIMITS[family]
    config.vocab_size = 99
    hf.AutoTokenizer.from_pretrained(bert).save_pretrained(tmp_path)
    config.save_pretrained(tmp_path)
    text = "a red ball moves to the left " * 20
    if most is not None:
        for length in (most + 1, 17, 60, 5000):
            with pytest.raises(ConfigError, match=rf"max_length={length} .* is {most} tokens. .*max_length={most} or"):
                build(tmp_path, pretrained=False, max_length=length)
    encoder = build(tmp_path, pretrained=False, max_length=most or 60)
    assert encoder.training  # as before it was asked
    ids = torch.tensor(encoder.spec.tokenize([text]))
    assert ids.shape == (1, most or 60)  # the longest one that comes goes through
    assert encoder(ids, torch.ones_like(ids, dtype=torch.bool)).x.isfinite().all()


def test_what_is_no_model_of_texts_says_so(bert, tmp_path):
    hf.AutoTokenizer.from_pretrained(bert).save_pretrained(tmp_path)
    hf.ViTConfig(**VISION).save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match="^encoder transformers: .* is a ViTModel, which has no table of word emb"):
        build(tmp_path, pretrained=False)


# -- an encoder without its decoder ------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["T5", "MT5", "UMT5", "LongT5"])
def test_encoder_only_folders_load(bert, tmp_path, family):
    """T5EncoderModel.save_pretrained writes no decoder; the encoder is that of the whole model."""
    torch.manual_seed(0)
    whole = getattr(hf, f"{family}Model")(getattr(hf, f"{family}Config")(vocab_size=99, **T5))
    alone = getattr(hf, f"{family}EncoderModel")(whole.config)
    alone.load_state_dict({k: v for k, v in whole.state_dict().items() if "decoder" not in k}, strict=False)
    for model, folder in ((whole, tmp_path / "whole"), (alone, tmp_path / "alone")):
        hf.AutoTokenizer.from_pretrained(bert).save_pretrained(folder)
        model.save_pretrained(folder)
    one, other = build(tmp_path / "whole").eval(), build(tmp_path / "alone").eval()
    assert one.state_dict().keys() == other.state_dict().keys()
    ids = torch.tensor(one.spec.tokenize(["a red ball moves"]))
    mask = torch.ones_like(ids, dtype=torch.bool)
    assert torch.equal(one(ids, mask).x, other(ids, mask).x)
    assert torch.equal(other(ids, mask).x, whole.eval().encoder(ids, mask).last_hidden_state)

    assets = tmp_path / "assets" / "encoders" / "text"
    assets.mkdir(parents=True)
    other.save_assets(assets)
    again = TransformersText(context=BuildContext(assets=tmp_path / "assets"), model="gone").eval()
    again.load_state_dict(other.state_dict(), strict=True)
    assert torch.equal(again(ids, mask).x, other(ids, mask).x)


# -- sentencepiece -----------------------------------------------------------------------------------------------------


def sentencepiece_file(pieces: list[str]) -> bytes:
    """A unigram model in protobuf's wire format: special pieces as DeBERTa-v3 has them, then ``pieces``."""

    def field(number: int, value: bytes | int) -> bytes:
        if isinstance(value, int):
            return bytes([number << 3]) + varint(value)
        return varint(number << 3 | 2) + varint(len(value)) + value

    def varint(value: int) -> bytes:
        low, rest = value & 127, value >> 7
        return bytes([low | 128]) + varint(rest) if rest else bytes([low])

    special = [("[PAD]", 3), ("[CLS]", 3), ("[SEP]", 3), ("[UNK]", 2)]  # control, control, control, unknown
    content = b"".join(field(1, field(1, name.encode()) + field(3, kind)) for name, kind in special)
    for piece in pieces:
        content += field(1, field(1, piece.encode()))
    ids = {40: 3, 41: 1, 42: 2, 43: 0}  # unk, bos, eos, pad
    names = {45: "[UNK]", 46: "[CLS]", 47: "[SEP]", 48: "[PAD]"}
    trainer = field(3, 1) + b"".join(varint(n << 3) + varint(i) for n, i in ids.items())
    trainer += b"".join(field(n, name.encode()) for n, name in names.items())
    return content + field(2, trainer) + field(3, field(1, b"identity"))


FILES = {
    "deberta": ("spm.model", hf.DebertaV2Config(**SMALL)),
    "albert": ("spiece.model", hf.AlbertConfig(**SMALL, embedding_size=8)),
    "xlm-roberta": ("sentencepiece.bpe.model", hf.XLMRobertaConfig(**SMALL)),
    "t5": ("spiece.model", hf.T5Config(**T5)),
}


@pytest.fixture
def pieces(tmp_path, request):
    name, config = FILES[request.param]
    config.vocab_size = 600
    config.save_pretrained(tmp_path)
    marks = ["\u2581", "\u2581red", "\u2581ball", *"abcdefghijklmnopqrstuvwxyz0123456789"]
    (tmp_path / name).write_bytes(sentencepiece_file(marks))
    return tmp_path


@pytest.mark.parametrize("pieces", FILES, indirect=True)
def test_a_sentencepiece_file_names_the_package_that_reads_it(pieces, monkeypatch):
    monkeypatch.setitem(sys.modules, "sentencepiece", None)  # not installed, whatever there is
    monkeypatch.setattr("vtp_encoders.huggingface.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"needs the packages sentencepiece and protobuf.*vtp-core\[sentencepiece\]"):
        build(pieces, pretrained=False)


@pytest.mark.parametrize("pieces", FILES, indirect=True)
def test_a_sentencepiece_file_is_read_where_the_package_is(pieces):
    pytest.importorskip("sentencepiece")
    pytest.importorskip("google.protobuf")
    encoder = build(pieces, pretrained=False)
    (ids,) = encoder.spec.tokenize(["red ball"])
    assert encoder.spec.detokenize(ids) == "red ball"
    words = encoder.spec.words("red ball")
    assert [word for word, _ in words] == ["red", "ball"] and [len(i) for _, i in words] == [1, 1]
    if "deberta" in str(encoder.model.config.model_type):  # [CLS] and [SEP] around, pieces behind the special ones
        assert ids == [1, 5, 6, 2]
