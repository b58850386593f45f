"""``caption``: write the text of a clip, word by word.

    memory   (B, N, M)   the tokens of the clip: fused where the model has a fusion encoder, else of one encoder
    words    (B, L)      [start] w1 .. wn [end] of the text; the decoder reads all but the last one
    loss     mean cross-entropy of each next word, the end among them, given the right words before it

The text itself is never part of the memory, and a state depends on no later word, so nothing leaks. :meth:`generate`
writes texts by greedy or beam search.
"""

from __future__ import annotations

from typing import Annotated, Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from vtp.contracts import Fusion, member
from vtp.errors import ConfigError
from vtp.model.build import BuildContext
from vtp.model.context import ForwardContext
from vtp.model.losses import share_right
from vtp.model.objective import Objective, masked_mean
from vtp.ranges import Count, Positive, Range, Share, Size
from vtp.types import IGNORE, MODALITIES, LossOutput, Modality, TextSpec, Tokens
from vtp_objectives.caption_decoder import CaptionDecoder
from vtp_objectives.generation import generate

__all__ = ["Caption"]


class Caption(Objective):
    """A decoder of texts (UniVL, arXiv:2002.06353), trained with the right words before each word.

    Args:
        modalities: what is described, ``[video]``, ``[video, audio]``; null = all that the model has besides text. A
            row takes part where one of them and a text is there. Without a fusion encoder it must be one.
        transcript: key of ``Sample.extra`` under which samples have what is said in the clip, which is then fused with
            it as text; null = none. Needs a fusion encoder.
        share_with: ``text`` uses the word embeddings of the text encoder for input and output; null a table of its own.
        width: D of the decoder; null = that of the shared table, else of what it looks at.
        depth: layers.
        heads: attention heads; null = one per 64 channels, or 4 where that is no whole number.
        mlp_ratio: hidden width of the feed-forward part over D.
        dropout: of the embeddings and after attention and feed-forward.
        label_smoothing: share of the probability that the target spreads over the whole vocabulary (arXiv:1512.00567).
        context: tells the tokenizer and the widths.
    """

    needs = frozenset({"text"})
    slots = frozenset({"text"})

    def __init__(
        self,
        *,
        context: BuildContext,
        modalities: list[str] | tuple[str, ...] | None = None,
        transcript: str | None = None,
        share_with: str | None = "text",
        width: Size | None = None,
        depth: Annotated[int, Range(least=1, most=64)] = 3,
        heads: Count | None = None,
        mlp_ratio: Positive = 4.0,
        dropout: Share = 0.0,
        label_smoothing: Share = 0.0,
    ) -> None:
        super().__init__()
        encoders = context.encoders
        self.needs_fusion = "fusion" in encoders
        self.modalities = _described(modalities, encoders)
        if transcript is not None and not self.needs_fusion:
            raise ConfigError(
                "objective caption: transcript needs a fusion encoder, which joins it with the clip "
                "(encoder/fusion=concat)."
            )
        self.transcript = transcript
        self.reads = frozenset() if transcript is None else frozenset({transcript})
        self.spec: TextSpec = encoders["text"].spec
        self._starts = _begins_with_its_start(self.spec)
        self.label_smoothing = label_smoothing
        seen_width = int(encoders["fusion" if self.needs_fusion else self.modalities[0]].width)
        words = _words(share_with, width, seen_width, encoders["text"], self.spec)
        channels = words.embedding_dim
        self.decoder = CaptionDecoder(
            words,
            self.spec.max_length,
            seen_width,
            depth=depth,
            heads=heads or (channels // 64 if channels % 64 == 0 else 4),
            mlp_ratio=mlp_ratio,
            dropout=dropout,
        )
        alone = self.modalities if len(self.modalities) == 1 else ()
        needs: tuple[Modality, ...] = (*alone, "text") if share_with else alone
        self.needs = frozenset(needs)

    def rows(self, ctx: ForwardContext) -> Tensor:
        """bool (B,): rows with a text and something to describe."""
        return ctx.present("text") & self._describable(ctx)

    def count(self, ctx: ForwardContext) -> Tensor:
        """Number of words to predict, ends among them."""
        return (self._target(ctx)[1] != IGNORE).sum()

    def plan(self, ctx: ForwardContext) -> None:
        """The pass over the clip."""
        if self.needs_fusion and self.transcript is None:
            ctx.plan(self._views())

    def forward(self, ctx: ForwardContext) -> LossOutput:
        """Cross-entropy of the words, and the share of them that has the best score."""
        logits, labels = self.word_logits(ctx), self._target(ctx)[1]
        labels = labels[labels != IGNORE]
        taken = torch.ones_like(labels, dtype=torch.bool)
        losses = cross_entropy(logits.float(), labels, reduction="none", label_smoothing=self.label_smoothing)
        accuracy = share_right(logits, labels)
        return LossOutput(masked_mean(losses, taken), taken.sum(), {"accuracy": accuracy})

    def word_logits(self, ctx: ForwardContext) -> Tensor:
        """Scores of every word to predict, (S, V), row by row; with none they are still part of the graph."""
        given, labels = self._target(ctx)
        hidden = self.decoder(given, *self.memory(ctx))
        return self.decoder.logits(hidden[labels != IGNORE])

    @torch.no_grad()
    def generate(
        self,
        ctx: ForwardContext,
        *,
        beams: int = 1,
        length_penalty: float = 1.0,
        min_length: int = 0,
        max_length: int | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Write a text for every row; the rows' own texts are not looked at.

        Args:
            beams: width of the beam; 1 is greedy.
            length_penalty: among finished texts the one with the largest log-probability / length ** length_penalty
                wins, the end counted: 0 prefers short ones, 1 compares means, more prefers long ones.
            min_length: tokens before the end at least.
            max_length: tokens at most; None = as many as the text encoder takes.

        Returns:
            int64 (B, L), tokens without start and end and padded; and float32 (B,), the mean log-probability of a
            token, the end counted, not finite where the model gives no numbers.
        """
        memory, mask = self.memory(ctx)
        most = self.spec.max_length - 1
        return generate(
            self.decoder,
            memory,
            mask,
            start=self.spec.cls_id if self._starts else self.spec.pad_id,
            end=self.spec.sep_id,
            pad=self.spec.pad_id,
            never=self.spec.special_ids,
            beams=beams,
            length_penalty=length_penalty,
            min_length=min_length,
            max_length=min(most, max_length or most),
        )

    def memory(self, ctx: ForwardContext) -> tuple[Tensor, Tensor]:
        """What the decoder looks at: (B, N, M), and bool (B, N), True = real."""
        if not self.needs_fusion:
            tokens = ctx.tokens(self.modalities[0])
            return tokens.x, tokens.attention_mask
        views: dict[str, str | Tokens] = dict(self._views())
        if self.transcript is not None:
            views["text"] = self._said(ctx)
        parts = ctx.fused(views).tokens
        joined = [parts[modality] for modality in MODALITIES if modality in views]
        return torch.cat([part.x for part in joined], 1), torch.cat([part.attention_mask for part in joined], 1)

    def _views(self) -> dict[str, str]:
        return dict.fromkeys(self.modalities, "")

    def _describable(self, ctx: ForwardContext) -> Tensor:
        return torch.stack([ctx.present(modality) for modality in self.modalities]).any(dim=0)

    def _target(self, ctx: ForwardContext) -> tuple[Tensor, Tensor]:
        """What the decoder reads and what it is to say next: int64 (B, L) each, -100 = nothing."""
        text = ctx.inputs("text")
        ids, real = text["token_ids"], text["attention_mask"] & self.rows(ctx)[:, None]
        labels = torch.where(real, ids, IGNORE)
        if self._starts:
            return ids[:, :-1], labels[:, 1:]
        start = ids.new_full((len(ids), 1), self.spec.pad_id)
        return torch.cat([start, ids[:, :-1]], dim=1), labels

    def _said(self, ctx: ForwardContext) -> Tokens:
        """The transcripts as text tokens; all padding in rows without one."""
        assert self.transcript is not None
        texts = ctx.batch.extra[self.transcript]
        found = [self.spec.tokenize([text])[0] if text else [] for text in texts]
        longest = max(1, *map(len, found))
        rows = [[*ids, *[self.spec.pad_id] * (longest - len(ids))] for ids in found]
        mask = [[place < len(ids) for place in range(longest)] for ids in found]
        encoder: Any = ctx.model.encoders["text"]
        embedded = member(ctx.model.encoders["fusion"], Fusion, "consumes").get("text") == "embedded"
        encode = encoder.embed if embedded else encoder
        tokens: Tokens = encode(torch.tensor(rows, device=ctx.device), torch.tensor(mask, device=ctx.device))
        return tokens


def _described(modalities: list[str] | tuple[str, ...] | None, encoders: dict[str, nn.Module]) -> tuple[Modality, ...]:
    """The modalities that are described, in the order video, audio.

    Raises:
        ConfigError: there is none, or one that cannot be.
    """
    there = [m for m in MODALITIES if m in encoders and m != "text"]
    if modalities is None:
        chosen = there if "fusion" in encoders else there[:1]
    else:
        chosen = [m for m in there if m in modalities]
        if len(chosen) < len(set(modalities)) or not chosen:
            raise ConfigError(
                f"objective caption: modalities={list(modalities)} must be some of {', '.join(there) or 'nothing'}, "
                "which the model has encoders for; text is what is written."
            )
    if not chosen:
        raise ConfigError("objective caption: there is nothing to describe; fill encoder/video or encoder/audio.")
    if len(chosen) > 1 and "fusion" not in encoders:
        raise ConfigError(
            f"objective caption: modalities={chosen} need a fusion encoder that joins them (encoder/fusion=concat); "
            "without one choose a single one."
        )
    return tuple(chosen)


def _begins_with_its_start(spec: TextSpec) -> bool:
    """Whether texts of a tokenizer begin with its start; otherwise the padding id stands for it.

    Raises:
        ConfigError: they have no end.
    """
    ids = spec.tokenize(["1"])[0]
    if spec.sep_id < 0 or not ids or ids[-1] != spec.sep_id:
        raise ConfigError(
            "objective caption: the tokenizer of this text encoder puts no end behind a text, so that none could be "
            "written to its end. Choose another encoder/text (bert, t5, tiny)."
        )
    return spec.cls_id >= 0 and ids[0] == spec.cls_id


def _words(share_with: str | None, width: int | None, seen_width: int, text: nn.Module, spec: TextSpec) -> nn.Embedding:
    """The table of words.

    Raises:
        ConfigError: the text encoder has none that could be shared, or one of another width.
    """
    if share_with is None:
        own = nn.Embedding(spec.vocab_size, width or seen_width)
        nn.init.normal_(own.weight, std=own.embedding_dim**-0.5)
        return own
    tables = [m for m in text.modules() if isinstance(m, nn.Embedding) and m.num_embeddings == spec.vocab_size]
    if len(tables) != 1:
        raise ConfigError(
            f"objective caption: share_with=text looks for the one table with a row for each of {spec.vocab_size:,} "
            f"words in the text encoder ({type(text).__name__}), which has {len(tables)}. "
            "objectives.caption.share_with=null makes one of its own."
        )
    if width not in (None, tables[0].embedding_dim):
        raise ConfigError(
            f"objective caption: width={width}, but share_with=text uses word embeddings that are "
            f"{tables[0].embedding_dim} wide. Leave width out, or set share_with=null."
        )
    return tables[0]
