"""Greedy and beam search against brute force: all texts that a tiny vocabulary allows, scored one by one."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor, nn

from vtp_objectives.caption_decoder import CaptionDecoder
from vtp_objectives.generation import generate

START, END, PAD, SPECIAL = 2, 3, 0, (0, 1, 2, 3, 4)
IDS = {"start": START, "end": END, "pad": PAD, "never": SPECIAL}


def decoder_of(seed: int, words: int = 3) -> CaptionDecoder:
    """A decoder that is sure enough of something to be told apart from chance."""
    torch.manual_seed(seed)
    made = CaptionDecoder(nn.Embedding(5 + words, 8), 9, 6, depth=2, heads=2).eval()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.mul_(1.5)
        made.bias[END] += 1.0
    return made


def memory_of(rows: int) -> tuple[Tensor, Tensor]:
    torch.manual_seed(7)
    mask = torch.ones(rows, 4, dtype=torch.bool)
    mask[0, 2:] = False
    return torch.randn(rows, 4, 6), mask


@torch.no_grad()
def log_probabilities(decoder: CaptionDecoder, memory: Tensor, mask: Tensor, texts: list[list[int]]) -> Tensor:
    """(texts,): the sum over the words of each, ends among them; without caches, one text after the other's words."""
    length = len(texts[0])
    ids = torch.tensor([[START, *text] for text in texts])
    hidden = decoder(ids[:, :-1], memory.expand(len(ids), -1, -1), mask.expand(len(ids), -1))
    found = decoder.logits(hidden).double().log_softmax(-1).gather(2, ids[:, 1:, None])
    return found.reshape(len(texts), length).sum(1)


def best_text(
    decoder: CaptionDecoder, memory: Tensor, mask: Tensor, penalty: float, least: int, most: int
) -> tuple[list[int], float]:
    """The words of the best text, and the mean log-probability of a word."""
    words = range(5, decoder.words.num_embeddings)
    scored = []
    for length in range(max(least, 0), most + 1):
        ended = [] if length == most else [END]  # a text that is cut off has no end
        texts = [[*text, *ended] for text in itertools.product(words, repeat=length)]
        if texts == [[]]:
            continue
        total = log_probabilities(decoder, memory, mask, texts)
        count = len(texts[0])
        scored += [(float(t) / count**penalty, text, float(t) / count) for t, text in zip(total, texts, strict=True)]
    _, text, mean = max(scored)
    return [word for word in text if word != END], mean


@pytest.mark.parametrize("penalty", [0.0, 1.0, 2.0])
@pytest.mark.parametrize("least", [0, 2])
def test_a_beam_that_holds_everything_finds_the_best_text(penalty, least):
    memory, mask = memory_of(2)
    lengths = set()
    for seed in range(3):
        decoder = decoder_of(seed)
        limits = {"length_penalty": penalty, "min_length": least, "max_length": 4}
        written, scores = generate(decoder, memory, mask, **IDS, beams=108, **limits)
        for row in range(2):
            text, mean = best_text(decoder, memory[row, None], mask[row, None], penalty, least, 4)
            assert written[row].tolist() == text + [PAD] * (4 - len(text))
            assert scores[row].item() == pytest.approx(mean, abs=1e-4)
            lengths.add(len(text))
    assert min(lengths) >= least


def narrow_search(
    decoder: CaptionDecoder, memory: Tensor, mask: Tensor, beams: int, penalty: float, least: int, most: int
) -> list[int]:
    """Beam search as textbooks have it, to the last step: the best ``beams`` texts go on, and of the same number of
    candidates those that have ended compete."""
    words = [END, *range(5, decoder.words.num_embeddings)]
    running: list[tuple[float, list[int]]] = [(0.0, [])]
    ended: list[tuple[float, list[int]]] = []
    for length in range(1, most + 1):
        texts = [[*text, word] for _, text in running for word in words[length <= least :]]
        totals = log_probabilities(decoder, memory, mask, texts).tolist()
        found = sorted(zip(totals, texts, strict=True), reverse=True)
        done = [(t / length**penalty, text) for t, text in found[:beams] if text[-1] == END or length == most]
        ended += done
        running = [(t, text) for t, text in found if text[-1] != END][:beams]
    return [word for word in max(ended)[1] if word != END]


@pytest.mark.parametrize("beams", [2, 4])
@pytest.mark.parametrize("penalty", [0.0, 1.0, 2.0])
def test_a_narrow_beam_finds_what_it_finds_when_it_never_stops_early(beams, penalty):
    memory, mask = memory_of(8)
    decoder = decoder_of(5, words=7)
    limits = {"length_penalty": penalty, "min_length": 1, "max_length": 6}
    written, _ = generate(decoder, memory * 3, mask, **IDS, beams=beams, **limits)
    for row in range(8):
        text = narrow_search(decoder, memory[row, None] * 3, mask[row, None], beams, penalty, 1, 6)
        assert written[row].tolist() == text + [PAD] * (6 - len(text))


def test_greedy_search_takes_the_best_next_word():
    memory, mask = memory_of(8)
    decoder = decoder_of(4, words=12)
    written, _ = generate(decoder, memory * 3, mask, **IDS, max_length=7)
    lengths = set()
    for row in range(8):
        text: list[int] = []
        while len(text) < 7:
            tries = [[*text, word] for word in (END, *range(5, 17))]
            text = tries[int(log_probabilities(decoder, memory[row, None] * 3, mask[row, None], tries).argmax())]
            if text[-1] == END:
                break
        words = [word for word in text if word != END]
        assert written[row].tolist() == words + [PAD] * (7 - len(words))
        lengths.add(len(words))
    assert len(lengths) > 1  # otherwise ends were not tried


def test_a_wider_beam_finds_nothing_less_probable():
    memory, mask = memory_of(4)
    decoder = decoder_of(1, words=20)
    totals = []
    for beams in (1, 3, 40):
        written, _ = generate(decoder, memory, mask, **IDS, beams=beams, min_length=4, max_length=5, length_penalty=0.0)
        texts = [[*row[:4].tolist(), row[4].item() or END] for row in written]
        totals.append([log_probabilities(decoder, memory[i, None], mask[i, None], [t])[0] for i, t in enumerate(texts)])
    assert all(greedy <= wide + 1e-6 for greedy, wide in zip(totals[0], totals[2], strict=True))
    assert sum(totals[0]) < sum(totals[2])


@pytest.mark.parametrize("beams", [1, 4])
def test_rows_do_not_depend_on_their_neighbours(beams):
    memory, mask = memory_of(5)
    decoder = decoder_of(6, words=20)
    together = generate(decoder, memory, mask, **IDS, beams=beams, max_length=6)
    for row in range(5):
        alone = generate(decoder, memory[row, None], mask[row, None], **IDS, beams=beams, max_length=6)
        assert torch.equal(alone[0][0], together[0][row])
        torch.testing.assert_close(alone[1][0], together[1][row], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("beams", [1, 3])
def test_special_ids_are_not_written_and_the_length_is_kept_to(beams):
    memory, mask = memory_of(6)
    decoder = decoder_of(2, words=9)
    with torch.no_grad():
        decoder.bias[:5] += 20.0  # would be written everywhere
    written, _ = generate(decoder, memory, mask, **IDS, beams=beams, min_length=3, max_length=6)
    assert written.shape == (6, 6)
    assert ((written[:, :3] >= 5).all()) and (written[:, 3:] == PAD).all()  # the end, as soon as it may come


@pytest.mark.parametrize("beams", [1, 3])
def test_numbers_that_are_none_are_told_by_the_score(beams):
    memory, mask = memory_of(3)
    memory[1] = torch.nan
    decoder = decoder_of(3)
    written, scores = generate(decoder, memory, mask, **IDS, beams=beams, max_length=4)
    assert scores.isfinite().tolist() == [True, False, True] and written.shape == (3, 4)


def test_a_row_without_memory_is_written_blindly_and_no_rows_give_none():
    memory, mask = memory_of(2)
    mask[1] = False
    written, scores = generate(decoder_of(0), memory, mask, **IDS, beams=2, max_length=4)
    other, _ = generate(decoder_of(0), memory * 5 + 1, mask, **IDS, beams=2, max_length=4)
    assert scores.isfinite().all() and torch.equal(written[1], other[1])
    nothing, none = generate(decoder_of(0), memory[:0], mask[:0], **IDS, beams=2, max_length=4)
    assert nothing.shape == (0, 4) and none.shape == (0,)
