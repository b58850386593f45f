"""Scores of clips with texts by a matching head that reads both together.

Each clip is decoded and encoded once, and so is each distinct text; what is left per pair is the fusion. Pairs are put
in the order of the length of their texts and cut into pieces, so that hardly any padding is fused and memory does not
grow with their number.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from vtp import distributed
from vtp.contracts import offers
from vtp.data import Example, collate
from vtp.errors import ConfigError, RunError
from vtp.eval.evaluator import Collected, Evaluator
from vtp.model.context import ForwardContext
from vtp.model.model import VTPModel
from vtp.types import Batch, Modality, Sample, Tokens

__all__ = ["PAIR_BATCH", "check_matches", "match_texts"]

Array = npt.NDArray[Any]
PAIR_BATCH = 256  # pairs that are fused at once
TEXTS = 256  # that are encoded at once
NEIGHBOURS = 8 * TEXTS  # texts among which those of similar length are looked for


def check_matches(model: VTPModel, objective: str, task: str) -> None:
    """Whether the model has an objective that matches texts with clips.

    Raises:
        ConfigError: it has not.
    """
    if objective not in model.objectives or not offers(model.objectives[objective], "match_logits"):
        raise ConfigError(
            f"task {task}: comparing a clip with each text needs an objective that matches texts with clips, and the "
            f"model has no {objective!r} that does (it has: {', '.join(model.objectives)}). Train with "
            f"objective=[vtc,{objective}], or set task.rerank=0 task.exhaustive=false."
        )


def match_texts(
    evaluator: Evaluator,
    videos: Sequence[Sample],
    texts: Sequence[Sample],
    texts_of: Sequence[Array],
    objective: str,
    what: str = "videos",
    *,
    drop: Sequence[Modality] = (),
    pair_batch: int = PAIR_BATCH,
) -> tuple[Array, Collected]:
    """Scores of a matching head for each clip with each of its texts: log-odds of "they match", or its one number.

    Args:
        videos: the clips.
        texts: samples with one text each.
        texts_of: per clip int64, the rows of ``texts`` to compare it with.
        objective: which has the head, see :func:`check_matches`.
        what: names the clips.
        drop: modalities of the clips to withhold.
        pair_batch: pairs that are fused at once.

    Returns:
        float32 (clips, W), W = the largest number of texts, those of a clip in their order, NaN behind them and where
        nothing could be scored; and what was evaluated.

    Raises:
        RunError: the head gives something else than (R, 2), (R, 1) or (R,) for R pairs.
    """
    width = max(map(len, texts_of))
    position = {video.id: i for i, video in enumerate(videos)}
    bank = _TextBank(evaluator.bare_model, texts)
    collective = _is_collective(evaluator.bare_model)

    def match(ctx: ForwardContext) -> dict[str, Tensor]:
        lists = [texts_of[position[name]] for name in ctx.batch.ids]
        out = torch.full((len(lists), width), torch.nan, device=ctx.device)
        clips = np.repeat(np.arange(len(lists)), [len(one) for one in lists])
        columns = np.concatenate([np.arange(len(one)) for one in lists])
        asked = np.concatenate(lists)
        idle = not len(asked)
        if idle and not collective:
            return {"match": out}
        if idle:  # the other processes wait for this one to make the passes that they make
            clips, columns, asked = (np.zeros(1, np.int64) for _ in range(3))
        bank.announce(asked)
        order = np.lexsort((asked, bank.lengths(asked)))  # short texts first, the pairs of one text side by side
        for piece in _pieces(order, pair_batch, collective):
            distinct, row = np.unique(asked[piece], return_inverse=True)
            together = _Together(ctx, bank, distinct)
            index = {m: torch.from_numpy(row if m == "text" else clips[piece]).to(ctx.device) for m in ctx.modalities}
            matcher: Any = ctx.model.objectives[objective]
            logits = matcher.match_logits(together, index)
            scores = _one_number(logits, len(piece), objective)
            if not idle:
                out[clips[piece], columns[piece]] = scores
        return {"match": out}

    label = f"pairs for {objective}"
    collected = evaluator.run(videos, match, drop=("text", *drop), what=what, label=label, strict=not drop)
    return collected.full("match", np.nan, (width,)), collected


def _one_number(logits: Tensor, pairs: int, objective: str) -> Tensor:
    """float32 (R,): the score of each pair from (R, 2), no match and match, or from (R, 1) or (R,), a score."""
    if logits.shape == (pairs, 2):
        return logits[:, 1].float() - logits[:, 0].float()
    if logits.shape in ((pairs, 1), (pairs,)):
        return logits.float().view(-1)
    raise RunError(
        f"objective {objective}: match_logits gave shape {tuple(logits.shape)} for {pairs} pairs; expected ({pairs}, "
        f"2), no match and match, or ({pairs}, 1), a score."
    )


def _is_collective(model: VTPModel) -> bool:
    """Whether parameters are sharded over processes (FSDP2), so that all of them must make equally many passes."""
    if distributed.world_size() == 1:
        return False
    from torch.distributed.fsdp import FSDPModule  # slow to import, and needed by nobody else

    return any(isinstance(module, FSDPModule) for module in model.modules())


def _pieces(rows: Array, size: int, collective: bool) -> list[Array]:
    """``rows`` cut into pieces; equally many on all processes where passes are collective, by repeating the first."""
    found = [rows[start : start + size] for start in range(0, len(rows), size)]
    if collective:
        found += found[:1] * (max(distributed.gather_objects(len(found))) - len(found))
    return found


class _TextBank:
    """Texts that are tokenised once, and encoded once when they are first asked for.

    Tokens are kept without padding, on the device of the clips and in the precision of the pass. What is encoded
    together are always the same texts, whichever are asked for first: the last bits depend on it, and another number
    of processes asks in another order.

    Args:
        model: whose text encoder it is.
        texts: samples with one text each.
    """

    def __init__(self, model: VTPModel, texts: Sequence[Sample]) -> None:
        self.model = model
        self.texts = texts
        self.spec: Any = model.specs()["text"]
        self.collective = _is_collective(model)
        characters = np.array([len(text.texts[0]) for text in texts], np.int64)
        # texts of similar length together, of neighbours alone: clips that have texts of their own are shared out
        order = np.lexsort((characters, np.arange(len(texts)) // NEIGHBOURS))
        self._blocks = [order[start : start + TEXTS] for start in range(0, len(order), TEXTS)]
        self._block_of = np.empty(len(order), np.int64)
        self._block_of[order] = np.arange(len(order)) // TEXTS
        self._token_ids: dict[int, Sequence[int]] = {}
        self._kept: dict[str, dict[int, tuple[Tensor, Tensor]]] = {}  # stage -> text -> (N, D), bool (N,)
        self._announced: Array = np.zeros(0, np.int64)
        self._looked_up: set[str] = set()  # stages whose announced texts have been encoded

    def announce(self, rows: Array) -> None:
        """These texts will be asked for: what is new is tokenised now, with those that it is encoded with."""
        self._announced = np.unique(rows)
        self._looked_up = set()
        blocks = np.unique(self._block_of[self._announced]).tolist()
        if new := [row for block in blocks for row in self._blocks[block].tolist() if row not in self._token_ids]:
            found = self.spec.tokenize([self.texts[row].texts[0] for row in new])
            self._token_ids |= dict(zip(new, found, strict=True))

    def lengths(self, rows: Array) -> Array:
        """int64, how many tokens each of some announced texts has."""
        return np.array([len(self._token_ids[row]) for row in rows.tolist()], np.int64)

    def batch(self, rows: Array) -> Batch:
        """Announced texts as a batch, with their row as id."""
        examples = [Example(str(row), token_ids=self._token_ids[row]) for row in rows.tolist()]
        return collate(examples, {"text": self.spec})

    def tokens(self, rows: Array, stage: str, device: torch.device) -> Tokens:
        """What the text encoder gives for some announced texts, padded to the longest of them."""
        kept = self._kept.setdefault(stage, {})
        if stage not in self._looked_up:
            self._looked_up.add(stage)
            self._encode(kept, stage, device)
        x, mask = zip(*(kept[row] for row in rows.tolist()), strict=True)
        return Tokens(pad_sequence(list(x), True), pad_sequence(list(mask), True))

    def _encode(self, kept: dict[int, tuple[Tensor, Tensor]], stage: str, device: torch.device) -> None:
        new = np.array([row for row in self._announced.tolist() if row not in kept], np.int64)
        wanted = np.unique(self._block_of[new if len(new) or not self.collective else self._announced[:1]])
        for block in itertools.chain.from_iterable(_pieces(wanted, 1, self.collective)):
            piece = self._blocks[block]
            out = ForwardContext(self.model, self.batch(piece).to(device)).encode("text", "", stage)
            ends = out.attention_mask.shape[1] - out.attention_mask.flip(1).int().argmax(1)  # behind the last real one
            for row, x, mask, end in zip(piece.tolist(), out.x, out.attention_mask, ends.tolist(), strict=True):
                kept[row] = x[:end].clone(), mask[:end].clone()  # a view would keep the padding of its neighbours


class _Together(ForwardContext):
    """A context of clips and of texts, of different number; everything is paired by explicit rows.

    Args:
        clips: the context of the clips, which keeps what has been made of them.
        bank: of the texts.
        rows: int64, the texts.
    """

    def __init__(self, clips: ForwardContext, bank: _TextBank, rows: Array) -> None:
        super().__init__(clips.model, clips.batch)
        self.clips = clips
        self.bank = bank
        self.text_rows = rows
        self.texts = ForwardContext(clips.model, bank.batch(rows).to(clips.device))

    def present(self, modality: str) -> Tensor:
        return self._side(modality).present(modality)

    def inputs(self, modality: str, view: str = "") -> dict[str, Tensor]:
        return self._side(modality).inputs(modality, view)

    def view(
        self, modality: str, name: str, make: Callable[[dict[str, Tensor]], dict[str, Tensor]]
    ) -> dict[str, Tensor]:
        return self._side(modality).view(modality, name, make)

    def identity(self, modality: str, *, whole: bool = False) -> Tensor:
        return self._side(modality).identity(modality, whole=whole)

    def pooled(self, modality: str, view: str = "") -> Tensor:
        return super().pooled(modality, view) if modality == "text" else self.clips.pooled(modality, view)

    def encode(self, modality: str, view: str, stage: str) -> Tokens:
        if modality == "text" and not view:
            return self.bank.tokens(self.text_rows, stage, self.device)
        return self._side(modality).encode(modality, view, stage)

    def _side(self, modality: str) -> ForwardContext:
        return self.texts if modality == "text" else self.clips
