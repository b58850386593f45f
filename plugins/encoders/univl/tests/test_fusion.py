"""The cross encoder against Hugging Face's BERT run on a concatenation that is written out here."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from univl_models import WIDTH, clips, fusion_encoder, plain_bert, text_encoder, words

from vtp.errors import ConfigError
from vtp.model.build import BuildContext
from vtp.testing import check_fusion
from vtp.types import Tokens
from vtp_univl.fusion import UniVLFusion
from vtp_univl.text import UniVLText

OWN: dict[str, Any] = {"share_with": None, "width": WIDTH, "depth": 2, "heads": 2, "positions": 40}


@pytest.mark.parametrize("dropout", [0.0, 0.1])
def test_the_fusion_encoder_keeps_the_contract(dropout: float) -> None:
    check_fusion(UniVLFusion, OWN | {"dropout": dropout, "attention_dropout": dropout, "chunk": 20})


def expected(text: UniVLText, inputs: dict[str, Tensor], clip: Tensor) -> Tensor:
    """The last hidden state of `[CLS] text [SEP] PAD | clips [SEP]`, padded, by Hugging Face."""
    plain = plain_bert(text)
    table = plain.embeddings
    rows, count = clip.shape[:2]
    last = table.word_embeddings(torch.tensor(text.spec.sep_id)).expand(rows, 1, -1)
    seen = table(inputs_embeds=torch.cat([clip, last], dim=1), token_type_ids=torch.ones(rows, count + 1).long())
    x = torch.cat([table(input_ids=inputs["token_ids"]), seen], dim=1)
    mask = torch.cat([inputs["attention_mask"], torch.ones(rows, count + 1, dtype=torch.bool)], dim=1)
    additive = (1 - mask.float())[:, None, None, :] * -10000.0
    for layer in plain.encoder.layer:
        out = layer(x, additive)
        x = out[0] if isinstance(out, tuple) else out
    return x


def test_it_computes_what_hugging_face_computes() -> None:
    """Positions begin anew at the clips, of type 1; the last [SEP] is not among the tokens."""
    text = text_encoder()
    fusion, inputs, clip = fusion_encoder(text), words(text), clips()
    real = inputs["attention_mask"]
    out = fusion({"text": text.embed(**inputs), "video": clip})
    want = expected(text, inputs, clip.x)
    length = real.shape[1]
    torch.testing.assert_close(out.tokens["text"].x[real], want[:, :length][real], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(out.tokens["video"].x, want[:, length:-1], atol=1e-5, rtol=1e-5)
    pooler = fusion.cross_pooler.dense
    torch.testing.assert_close(out.pooled, pooler(want[:, 0]).tanh(), atol=1e-5, rtol=1e-5)


def test_what_stands_at_padding_changes_nothing() -> None:
    text = text_encoder()
    fusion, inputs, clip = fusion_encoder(text), words(text), clips()
    clip.attention_mask[1, 2:] = False
    words_in = text.embed(**inputs)
    changed = Tokens(words_in.x.clone(), words_in.attention_mask)
    changed.x[~words_in.attention_mask] = 1e3
    other = Tokens(clip.x.clone(), clip.attention_mask)
    other.x[1, 2:] = -1e3
    ids = dict(inputs, token_ids=inputs["token_ids"].masked_fill(~inputs["attention_mask"], 7))
    want = fusion({"text": words_in, "video": clip})
    for given in ({"text": changed, "video": other}, {"text": text.embed(**ids), "video": clip}):
        found = fusion(given)
        assert torch.equal(found.pooled, want.pooled)
        for modality in ("text", "video"):
            assert torch.equal(found.tokens[modality].x, want.tokens[modality].x)
    assert torch.equal(text(**ids).x, text(**inputs).x)


def test_a_longer_table_of_padding_changes_nothing() -> None:
    text = text_encoder()
    fusion, inputs, clip = fusion_encoder(text), words(text), clips()
    wider = {
        "token_ids": torch.nn.functional.pad(inputs["token_ids"], (0, 3)),
        "attention_mask": torch.nn.functional.pad(inputs["attention_mask"], (0, 3)),
    }
    a, b = (fusion({"text": text.embed(**given), "video": clip}).pooled for given in (inputs, wider))
    torch.testing.assert_close(a, b)


def test_a_row_without_text_has_the_empty_one_and_one_without_a_clip_ends_with_its_text() -> None:
    text = text_encoder()
    fusion, inputs, clip = fusion_encoder(text), words(text), clips()
    inputs["attention_mask"][0] = False
    clip.attention_mask[1] = False
    together = fusion({"text": text.embed(**inputs), "video": clip}).pooled
    empty = words(text, [""])
    assert empty["token_ids"].shape == (1, 2)
    first = torch.tensor([0])
    want = fusion({"text": text.embed(**empty), "video": clip.take(first)}).pooled
    torch.testing.assert_close(together[:1], want)
    torch.testing.assert_close(fusion({"video": clip.take(first)}).pooled, want)
    alone = {name: tensor[1:2] for name, tensor in inputs.items()}
    torch.testing.assert_close(together[1:2], fusion({"text": text.embed(**alone)}).pooled)


def test_a_batch_in_which_nobody_has_a_text() -> None:
    """The loader then gives a single token of padding."""
    text = text_encoder()
    fusion, clip = fusion_encoder(text), clips()
    nothing = {"token_ids": torch.zeros(3, 1).long(), "attention_mask": torch.zeros(3, 1, dtype=torch.bool)}
    out = fusion({"text": text.embed(**nothing), "video": clip})
    torch.testing.assert_close(out.pooled, fusion({"video": clip}).pooled)
    assert out.tokens["text"].x.shape == (3, 1, WIDTH)


def test_clips_of_another_width_pass_a_linear_layer() -> None:
    text = text_encoder()
    fusion = fusion_encoder(text, video=10)
    clip = clips(width=10)
    layer = fusion.proj["video"]
    inside = Tokens(layer(clip.x), clip.attention_mask)
    given = text.embed(**words(text))
    same = fusion_encoder(text)
    same.cross_pooler.load_state_dict(fusion.cross_pooler.state_dict())
    torch.testing.assert_close(
        fusion({"text": given, "video": clip}).pooled, same({"text": given, "video": inside}).pooled
    )


# --- whose weights


def count(*parts: torch.nn.Module) -> int:
    return sum(p.numel() for p in {id(p): p for part in parts for p in part.parameters()}.values())


def test_sharing_adds_a_pooler_and_null_doubles_the_stack() -> None:
    text = text_encoder()
    shared, own = fusion_encoder(text), fusion_encoder(text, share_with=None)
    assert {name.split(".")[0] for name in shared.state_dict()} == {"cross_pooler"}
    assert count(shared) == count(text.bert.pooler)
    assert count(text.bert.encoder, own.encoder) == 2 * count(text.bert.encoder)
    assert count(text, own) - count(text, shared) == count(text.bert.encoder) + count(own.embeddings)


def test_null_starts_as_a_copy_and_goes_its_own_way() -> None:
    text = text_encoder()
    own, inputs = fusion_encoder(text, share_with=None), words(text)
    given = {"text": text.embed(**inputs), "video": clips()}
    want = fusion_encoder(text)(given).pooled
    torch.testing.assert_close(own(given).pooled, want)
    with torch.no_grad():
        own.encoder.layer[0].output.dense.weight.mul_(2.0)
    assert not torch.allclose(own(given).pooled, want)
    torch.testing.assert_close(fusion_encoder(text)(given).pooled, want)


def test_null_may_have_other_sizes() -> None:
    text = text_encoder()
    own = fusion_encoder(text, video=10, share_with=None, width=16, depth=1, heads=4)
    out = own({"text": text.embed(**words(text)), "video": clips(width=10)})
    assert out.pooled.shape == (3, 16)
    assert (own.width, own.depth) == (16, 1)


def test_the_pooler_starts_as_that_of_the_texts() -> None:
    text = text_encoder()
    fusion = fusion_encoder(text)
    assert torch.equal(fusion.cross_pooler.dense.weight, text.bert.pooler.dense.weight)
    assert fusion.cross_pooler.dense.weight is not text.bert.pooler.dense.weight


@pytest.mark.parametrize("share", ["text", None])
def test_every_parameter_gets_a_gradient(share: Any) -> None:
    """A process whose batch lacks something must exchange the same gradients as the others."""
    text = text_encoder().train()
    fusion = fusion_encoder(text, video=10, share_with=share).train()
    for given in ({"text": text.embed(**words(text))}, {"video": clips(width=10)}):
        text.zero_grad(), fusion.zero_grad()
        fusion({"text": text.embed(**words(text))} | given).pooled.sum().backward()
        assert [n for m in (text, fusion) for n, p in m.named_parameters() if p.grad is None] == []


def test_several_passes_in_one_call() -> None:
    text = text_encoder()
    fusion, inputs = fusion_encoder(text), words(text)
    assert fusion.takes_many
    assert not fusion_encoder(text_encoder(dropout=0.1)).takes_many
    passes = [{"text": text.embed(**inputs), "video": clips()}, {"text": text.embed(**inputs), "video": clips(seed=2)}]
    for found, want in zip(fusion(passes), map(fusion, passes), strict=True):
        torch.testing.assert_close(found.pooled, want.pooled)


def test_sharing_needs_the_text_encoder_of_this_package() -> None:
    with pytest.raises(ConfigError, match="needs encoder/text=univl"):
        UniVLFusion(context=BuildContext())
    with pytest.raises(ConfigError, match="so depth would have no effect. Set encoder.text.depth"):
        fusion_encoder(text_encoder(), depth=1)


def test_more_clips_than_positions_are_refused() -> None:
    text = text_encoder()
    with pytest.raises(ConfigError, match="41 tokens in a row are more than its 40 positions"):
        fusion_encoder(text)({"text": text.embed(**words(text)), "video": clips(count=40)})
