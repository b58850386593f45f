"""The text models that are named in the docs against transformers' own pipeline: tokenizer with its padding, then
model, in batches of one and eight."""

from __future__ import annotations

import pytest
import torch
import transformers as hf

from vtp.model.build import BuildContext
from vtp.testing import check_encoder
from vtp_encoders.transformers_text import TransformersText

SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
RANDOM = {**SMALL, "initializer_range": 0.2, "vocab_size": 40, "max_position_embeddings": 16}
IDS = {"bos_token_id": 2, "eos_token_id": 3, "pad_token_id": 0}
TEXTS = [
    "a red ball moves to the left", "two blue boxes stand still", "what moves?", "red", "", "a ball", "blue boxes",
    "left the to moves ball red a left the to moves ball red a",
]  # fmt: skip
VISION = {**SMALL, "image_size": 8, "patch_size": 4}


def _clip(config: type, model: type, **text: object) -> hf.PreTrainedModel:
    return model(config(text_config=RANDOM | text, vision_config=VISION))


MODELS = {
    "bert": lambda: hf.BertModel(hf.BertConfig(**RANDOM)),
    "roberta": lambda: hf.RobertaModel(hf.RobertaConfig(**RANDOM | {"max_position_embeddings": 18}, pad_token_id=0)),
    "deberta": lambda: hf.DebertaV2Model(
        hf.DebertaV2Config(**RANDOM, relative_attention=True, pos_att_type=["p2c", "c2p"], position_biased_input=False)
    ),
    "modernbert": lambda: hf.ModernBertModel(
        hf.ModernBertConfig(**RANDOM, **IDS, cls_token_id=2, sep_token_id=3, local_attention=4)
    ),
    "clip": lambda: _clip(hf.CLIPConfig, hf.CLIPModel, **IDS),
    "siglip": lambda: _clip(hf.SiglipConfig, hf.SiglipModel, **IDS, projection_size=32),
}


@pytest.fixture(scope="module")
def folder(bert, tmp_path_factory):
    """``folder("siglip")``: a saved model of the family with the words of the ``bert`` fixture."""
    root = tmp_path_factory.mktemp("texts")

    def make(family: str):
        if not (root / family).exists():
            torch.manual_seed(0)
            tokenizer = hf.AutoTokenizer.from_pretrained(bert)
            tokenizer.model_max_length = 16
            tokenizer.save_pretrained(root / family)
            MODELS[family]().save_pretrained(root / family)
        return root / family

    return make


def pipeline(folder, texts: list[str]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Last hidden state, the model's own pooled vector, and which tokens are real. SigLIP is given no mask, as its
    documentation says."""
    tokenizer = hf.AutoTokenizer.from_pretrained(folder)
    model = hf.AutoModel.from_pretrained(folder).eval()
    siglip = model.config.model_type == "siglip"
    model = getattr(model, "text_model", model)
    given = tokenizer(
        texts, padding="max_length" if siglip else True, truncation=True, max_length=16, return_tensors="pt"
    )
    arguments = {name: given[name] for name in (("input_ids",) if siglip else ("input_ids", "attention_mask"))}
    with torch.no_grad():
        out = model(**arguments)
    return out.last_hidden_state, getattr(out, "pooler_output", None), given["attention_mask"].bool()


def ours(encoder, texts: list[str]) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids and mask as a loader makes them: padded to the longest."""
    ids = encoder.spec.tokenize(texts)
    longest = max(map(len, ids))
    token_ids = torch.tensor([row + [encoder.spec.pad_id] * (longest - len(row)) for row in ids])
    return token_ids, torch.tensor([[i < len(row) for i in range(longest)] for row in ids])


@pytest.mark.parametrize("family", MODELS)
def test_texts_give_what_transformers_gives(folder, family):
    encoder = TransformersText(context=BuildContext(), model=str(folder(family)), max_length=16).eval()
    for texts in (TEXTS[:1], TEXTS):
        hidden, _, real = pipeline(folder(family), texts)
        given = ours(encoder, texts)
        with torch.no_grad():
            tokens = encoder(*given)
        length = given[0].shape[1]
        assert torch.equal(tokens.attention_mask, real[:, :length]) and not real[:, length:].any()
        torch.testing.assert_close(tokens.x[given[1]], hidden[:, :length][given[1]], rtol=0, atol=1e-5)
        expected = (hidden * real[..., None]).sum(1) / real.sum(1, keepdim=True)
        torch.testing.assert_close(encoder.pool(tokens), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("family", ["clip", "siglip"])
def test_the_token_that_sums_a_text_up_is_the_one_of_the_model(folder, family):
    """The end of the text in CLIP, whose first token knows no other; the last padding through the head in SigLIP."""
    encoder = TransformersText(context=BuildContext(), model=str(folder(family)), max_length=16, pooling="cls").eval()
    _, pooled, real = pipeline(folder(family), TEXTS)
    with torch.no_grad():
        tokens = encoder(*ours(encoder, TEXTS))
    torch.testing.assert_close(encoder.pool(tokens), pooled, rtol=0, atol=1e-5)
    assert torch.equal(tokens.attention_mask, real[:, : tokens.x.shape[1]])
    bert = TransformersText(context=BuildContext(), model=str(folder("bert")), max_length=16, pooling="cls").eval()
    tokens = bert(*ours(bert, TEXTS))
    assert torch.equal(bert.pool(tokens), tokens.x[:, 0])


def test_a_folder_of_siglips_text_tower_alone(folder, tmp_path):
    hf.AutoTokenizer.from_pretrained(folder("siglip")).save_pretrained(tmp_path)
    hf.SiglipModel.from_pretrained(folder("siglip")).text_model.save_pretrained(tmp_path)
    one, other = (
        TransformersText(context=BuildContext(), model=str(f), max_length=16) for f in (folder("siglip"), tmp_path)
    )
    assert all(map(torch.equal, one.state_dict().values(), other.state_dict().values()))


OTHERS = [("clip", "cls"), ("roberta", "mean"), ("deberta", "mean"), ("modernbert", "mean"), ("siglip", "mean")]


@pytest.mark.slow
@pytest.mark.parametrize("family, pooling", [("siglip", "cls"), *OTHERS])
def test_families_keep_the_contract(folder, family, pooling):
    check_encoder(TransformersText, {"model": str(folder(family)), "max_length": 12, "pooling": pooling})


@pytest.mark.parametrize(
    "family",  # deberta has an attention of its own
    [pytest.param(f, marks=pytest.mark.slow) if f in ("bert", "roberta") else f for f in MODELS if f != "deberta"],
)
def test_families_under_the_dispatcher(folder, family):
    attention = pytest.importorskip("vtp_kernels.transformers_attention")
    encoder = TransformersText(context=BuildContext(), model=str(folder(family)), max_length=16).eval()
    token_ids, mask = ours(encoder, TEXTS)
    mask[3] = False  # a row without a text
    with torch.no_grad():
        expected = encoder(token_ids, mask)
        encoder.model.set_attn_implementation(attention.register("torch"))
        got = encoder(token_ids, mask)
    torch.testing.assert_close(got.x[mask], expected.x[mask], rtol=0, atol=1e-5)
    assert got.x.isfinite().all()
