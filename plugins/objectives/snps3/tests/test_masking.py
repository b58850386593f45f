"""The mask: how many words, which ones first, and what becomes of them."""

from __future__ import annotations

import json
from math import sqrt
from pathlib import Path
from typing import Any

import pytest
import torch
from word_tables import context_of, numbered_spec, ranked_table, table_of

from vtp.types import IGNORE
from vtp_encoders.tokenizers import spec_of, word_pieces
from vtp_snps3.counting import table_of_texts
from vtp_snps3.masking import SignificantWordMask, masked_number, select_significant
from vtp_snps3.significant import Significant

SHARED = Path(__file__).resolve().parents[5] / "shared" / "data"


def within(found: float, share: float, of: int, sigmas: float = 3.0) -> bool:
    """Whether a share of so many draws is what chance allows."""
    return abs(found - share) <= sigmas * sqrt(share * (1 - share) / of)


def drawn(mask: SignificantWordMask, ids: Any, runs: int) -> dict[str, Any]:
    """The view of one text, so many times over."""
    ctx = context_of(mask.significant.spec, [[101, *ids, 102]] * runs)
    return ctx.inputs("text", mask.view(ctx))


@pytest.mark.parametrize(
    ("words", "want"), [(0, 0), (1, 0), (2, 1), (7, 1), (8, 1), (9, 2), (16, 3), (22, 3), (28, 4), (42, 6)]
)
def test_numbers_of_hidden_words(words: int, want: int) -> None:
    """Of N p the whole part, one more from a fraction of 0.3 on; 22 and 42 as double precision has it."""
    assert int(masked_number(60, 0.15)[words]) == want


def test_never_more_than_there_are() -> None:
    assert masked_number(3, 1.0).tolist() == [0, 1, 2, 3]
    assert masked_number(3, 0.0).tolist() == [0, 0, 0, 0]


def test_the_numbers_are_the_recorded_ones(golden: Any) -> None:
    assert torch.equal(masked_number(60, 0.15), golden["mssm"]["number_by_length"])


def test_significant_words_first() -> None:
    words = torch.tensor([[False, True, True, True, True, True, False]] * 4)
    significant = torch.tensor([[False, False, True, False, True, False, False]] * 4)
    for count in range(6):
        for _ in range(20):
            chosen = select_significant(words, significant, torch.full((4,), count), torch.rand(4, 7))
            assert (chosen.sum(dim=1) == count).all()
            assert not (chosen & ~words).any()
            first = chosen & significant
            assert (first.sum(dim=1) == min(count, 2)).all()


def test_texts_with_enough_significant_words_are_the_recorded_ones(golden: Any) -> None:
    """Frequencies per place over 4000 draws, and shares of what becomes of the words."""
    case = golden["mssm"]
    spec = numbered_spec()
    significant = Significant(ranked_table(spec, case["rank"]), case["top_k"], spec, released=True)
    for one in case["ss_only_cases"]:
        view = drawn(SignificantWordMask(significant), one["ids"].tolist(), 4000)
        chosen = view["labels"] != IGNORE
        assert (chosen.sum(dim=1) == one["number"]).all()
        places = one["ss_positions"].long() + 1
        assert not chosen.index_fill(1, places, False).any()
        assert torch.equal(view["labels"][chosen], torch.cat([torch.tensor([101]), one["ids"], torch.tensor([102])])
                           .expand(4000, -1)[chosen])  # fmt: skip
        for place, share in enumerate(one["frequency"].tolist()):
            found = float(chosen[:, place + 1].float().mean())
            assert abs(found - share) <= 3.5 * sqrt(2 * max(share * (1 - share), 1e-9) / 4000), place
        if not (total := int(chosen.sum())):
            continue
        now, was = view["token_ids"][chosen], view["labels"][chosen]
        assert within(float((now == 103).float().mean()), one["share_mask"], total, 3 * sqrt(2))
        other = now[(now != 103) & (now != was)]
        assert set(other.tolist()) <= set(range(200, 260))


def test_texts_with_few_significant_words_get_others(golden: Any) -> None:
    """All significant ones and as many others as are lacking; the labels are the words themselves."""
    case = golden["mssm"]
    spec = numbered_spec()
    significant = Significant(ranked_table(spec, case["rank"]), case["top_k"], spec, released=True)
    for one in case["top_up_cases"]:
        ids = torch.tensor([101, *one["ids"].tolist(), 102])
        view = drawn(SignificantWordMask(significant), one["ids"].tolist(), 500)
        chosen = view["labels"] != IGNORE
        assert (chosen.sum(dim=1) == one["number"]).all()
        assert chosen[:, one["ss_positions"].long() + 1].all()
        assert torch.equal(view["labels"][chosen], ids.expand(500, -1)[chosen])
        assert not chosen[:, 0].any() and not chosen[:, -1].any()
        others = chosen.float().mean(dim=0)[1:-1]
        free = one["number"] - len(one["ss_positions"])
        rest = len(one["ids"]) - len(one["ss_positions"])
        for place, share in enumerate(others.tolist()):
            if place not in one["ss_positions"].tolist():
                assert within(share, free / rest, 500, 4)


def test_what_becomes_of_chosen_words() -> None:
    """80 % [MASK], 10 % another significant word, 10 % the word itself, over 10^5 words."""
    spec = numbered_spec()
    significant = Significant(table_of(spec, {(i,): 300 - i for i in range(200, 260)}), 60, spec)
    mask = SignificantWordMask(significant, probability=1.0)
    view = drawn(mask, [150] * 50, 2000)
    now = view["token_ids"][:, 1:-1]
    assert within(float((now == 103).float().mean()), 0.8, now.numel())
    assert within(float((now == 150).float().mean()), 0.1, now.numel())
    assert within(float(((now >= 200) & (now < 260)).float().mean()), 0.1, now.numel())
    counts = torch.bincount(now[now >= 200], minlength=300)[200:260].float()
    assert (counts - counts.mean()).abs().max() < 5 * counts.mean().sqrt()  # every word as often as any other
    masked = drawn(SignificantWordMask(significant, probability=1.0, replace="mask"), [150] * 5, 10)
    assert (masked["token_ids"][:, 1:-1] == 103).all()


def test_a_replaced_word_takes_forms_of_its_lemma() -> None:
    spec = numbered_spec()
    lemmas = {"w200": ["w200", "w210"], "w201": [], "w202": ["w203", "w999"]}
    table = table_of(spec, {(200,): 5, (201,): 4, (202,): 3, (203,): 0, (210,): 0}, **lemmas)
    significant = Significant(table, 3, spec)
    numbers = torch.rand(2, 3000)
    plain = significant.replacements(*numbers, inflect=False)
    assert set(plain.tolist()) == {200, 201, 202}
    formed = significant.replacements(*numbers, inflect=True)
    first = plain == 200
    assert set(formed[first].tolist()) == {200, 210}
    assert within(float((formed[first] == 210).float().mean()), 0.5, int(first.sum()))
    assert set(formed[plain == 201].tolist()) == {201}  # no list: the word itself
    assert set(formed[plain == 202].tolist()) == {203}  # w999 is no word of the vocabulary


def test_padding_and_special_words_are_never_chosen() -> None:
    spec = numbered_spec()
    significant = Significant(table_of(spec, {(i,): 1 for i in (0, 100, 101, 102, 103, 200)}), 99, spec)
    ctx = context_of(spec, [[101, 200, 100, 102], [101, 102], [101, *[150] * 40, 102]])
    view = ctx.inputs("text", SignificantWordMask(significant, probability=1.0).view(ctx))
    chosen = view["labels"] != IGNORE
    assert chosen.sum(dim=1).tolist() == [1, 0, 40]
    assert not chosen[:, 0].any() and chosen[0, 1]
    assert view["significant"].sum() == 1
    assert significant.tokens(ctx).sum() == 1


def test_padding_and_micro_batches_do_not_change_what_is_drawn() -> None:
    spec = numbered_spec()
    significant = Significant(table_of(spec, {(200,): 1}), 9, spec)
    mask = SignificantWordMask(significant, probability=0.5)
    rows = [[101, *range(160, 180), 102], [101, *range(150, 158), 102]]
    both = context_of(spec, rows)
    alone = context_of(spec, rows[1:])
    alone.batch.global_rows, alone.batch.row_offset = 2, 1
    whole, part = both.inputs("text", mask.view(both)), alone.inputs("text", mask.view(alone))
    assert torch.equal(whole["token_ids"][1:, :10], part["token_ids"])


def test_captions_of_msvd() -> None:
    """On 10,000 real captions: k by the rule, significant words first, 80/10/10 within three standard deviations."""
    file = SHARED / "annotations" / "msvd" / "captions_msvd.json"
    vocabulary = SHARED / "vocabs" / "bert-base-uncased_vocab.txt"
    if not file.is_file() or not vocabulary.is_file():
        pytest.skip(f"the captions of MSVD or BERT's vocabulary are not in {SHARED}")
    texts = [text for captions in json.loads(file.read_text()).values() for text in captions][:10_000]
    assert len(texts) == 10_000
    spec = spec_of(word_pieces(vocabulary), 30)
    significant = Significant(table_of_texts(texts, spec, "mssm"), 500, spec)
    mask = SignificantWordMask(significant)
    ids = spec.tokenize(texts)
    chosen_words = masked = other = same = first = 0
    for start in range(0, len(ids), 500):
        ctx = context_of(spec, ids[start : start + 500], step=start)
        clean, view = ctx.inputs("text")["token_ids"], ctx.inputs("text", mask.view(ctx))
        chosen = view["labels"] != IGNORE
        special = torch.isin(clean, torch.tensor(spec.special_ids))
        count = (~special).sum(dim=1)
        want = torch.tensor([int(n * 0.15) + (n * 0.15 - int(n * 0.15) >= 0.3) for n in count.tolist()])
        assert torch.equal(chosen.sum(dim=1), want)
        assert not (chosen & special).any()
        assert torch.equal(view["labels"][chosen], clean[chosen])
        hidden = (chosen & view["significant"]).sum(dim=1)
        assert torch.equal(hidden, torch.minimum(want, view["significant"].sum(dim=1)))
        now, was = view["token_ids"][chosen], clean[chosen]
        chosen_words += int(chosen.sum())
        masked += int((now == spec.mask_id).sum())
        same += int((now == was).sum())
        other += int(((now != was) & (now != spec.mask_id)).sum())
        first += int(hidden.sum())
    words = len(significant.table.words)
    assert within(masked / chosen_words, 0.8, chosen_words)
    assert within(same / chosen_words, 0.1 + 0.1 / words, chosen_words)  # one in so many is replaced by itself
    assert within(other / chosen_words, 0.1 - 0.1 / words, chosen_words)
    assert first / chosen_words > 0.95
