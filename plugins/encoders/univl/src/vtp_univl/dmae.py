"""``univl_dmae``: texts and videos compared token by token, with more weight on hard negatives (stage 3, DMAE,
arXiv:2309.11082).

    sentence  (B, 1, E)   pooled text
    words     (B, L, E)   embedding layer of BERT over the text, not contextual
    frames    (B, U, E)   the same layer over the clip tokens and a [SEP]
    S         (N, N)      their similarity, N rows of all micro-batches and processes (vtp_univl.interaction)
    loss      mean over S and its transpose of NegNCE (or cross-entropy) at a fixed scale
              + margins of each pair over what is left of it without its most important tokens (vtp_univl.partial)

With a text encoder other than ``univl``, words are its tokens and frames are clip tokens alone. Parameters are named as
in the released code.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize, pad

from vtp.contracts import Encoder, Fusion, member
from vtp.errors import ConfigError
from vtp.model.blocks import connected_zero
from vtp.model.build import BuildContext
from vtp.model.context import ForwardContext
from vtp.model.losses import comparable
from vtp.model.objective import ContrastiveObjective, masked_mean
from vtp.ranges import Count, Positive, Range, Size
from vtp.types import LossOutput, TextSpec
from vtp_univl.clips import clip_tokens
from vtp_univl.content_words import ContentWords, Tagger
from vtp_univl.frame_blocks import FrameBlocks
from vtp_univl.interaction import cross_entropy, matched_similarity, neg_nce, token_similarity
from vtp_univl.partial import TokenImportance, partial_margins
from vtp_univl.text import UniVLText

__all__ = ["DMAE"]

PAIRS = 512  # pairs of a text and a video that match_logits compares at once
POSITIONS, BLOCKS, CHANNELS = 77, 4, 64  # of sim_header=seqTransf: most frames, blocks, channels per head
_OLD = (
    "interaction loss_type with_nfc use_twm partial_type cis_thresh margin_loss_thresh wti_arch sim_header max_frames "
    "max_words"
)


class DMAE(ContrastiveObjective):
    """Contrastive loss over tokens.

    Args:
        interaction: ``ti`` compares the sentence with the frames, tokens weighing the same; ``wti`` with learned
            weights; ``att_ti`` and ``att_wti`` take the mean of that and the same with the words.
        wti_arch: linear layers of the heads that give those weights.
        with_nfc: a best frame is joined by the frame most like it.
        use_twm: content words count twice; for interactions with words.
        tagger: what tells content words: ``nltk``, ``spacy`` (English) or ``jieba`` (Chinese).
        loss_type: ``negNCE``, or ``cross_entropy``.
        partial_type: margins over partial pairs while training: -1 = none, or 2, 3, 4 as in
            :func:`vtp_univl.partial.partial_margins`.
        cis_thresh: share of the importance that is taken out.
        margin_loss_thresh: margin of similarity.
        sim_header: ``seqTransf`` sends frames through four attention blocks of its own; ``meanP`` does not.
        max_frames: most clip tokens of a video, for partial_type; null = those of the encoder's input.
        max_words: most tokens of a text; null = the encoder's longest text.
        width: E, a common space into which all are projected; null = no projection, all must have one width.
        logit_scale: factor on S in the loss.
        mask_duplicates: equal captions, and clips of the same video, are no negatives of each other.
        chunk: so many texts are compared with all videos at a time, and again in the backward pass; null = all at once.
        context: tells the encoders.
    """

    needs = frozenset({"video", "text"})
    variants = ("released",)  # of the options in its file
    renamed: ClassVar[Mapping[str, str]] = {f"l3_{name}": f"objectives.dmae.{name}" for name in _OLD.split()}

    def __init__(
        self,
        *,
        context: BuildContext,
        interaction: Literal["ti", "wti", "att_ti", "att_wti"] = "wti",
        wti_arch: Literal[1, 2, 3] = 1,
        with_nfc: bool = True,
        use_twm: bool = False,
        tagger: Tagger = "nltk",
        loss_type: Literal["negNCE", "cross_entropy"] = "negNCE",
        partial_type: Literal[-1, 2, 3, 4] = -1,
        cis_thresh: Annotated[float, Range(above=0, most=1)] = 0.6,
        margin_loss_thresh: Positive = 0.6,
        sim_header: Literal["meanP", "seqTransf"] = "meanP",
        max_frames: Count | None = None,
        max_words: Size | None = None,
        width: Size | None = None,
        logit_scale: Positive = 100.0,
        mask_duplicates: bool = True,
        chunk: Count | None = None,
    ) -> None:
        super().__init__()
        text = context.encoders["text"]
        spec: TextSpec = text.spec
        self.by_words = interaction.startswith("att_")
        if use_twm and not self.by_words:
            raise ConfigError(
                f"objective univl_dmae: use_twm counts words, and interaction={interaction} compares the sentence "
                f"alone. Set objectives.dmae.interaction=att_{interaction}, or use_twm=false."
            )
        self.max_words = max_words or spec.max_length
        if self.max_words < spec.max_length:
            raise ConfigError(
                f"objective univl_dmae: max_words={self.max_words} must be at least {spec.max_length}, the longest "
                "text of the encoder. Set encoder.text.max_length lower, or leave max_words=null."
            )
        self.nfc, self.partial_type = with_nfc, partial_type
        self.threshold, self.margin = cis_thresh, margin_loss_thresh
        self.loss_type, self.scale = loss_type, logit_scale
        self.mask_duplicates, self.chunk = mask_duplicates, chunk
        self.embedded = isinstance(text, UniVLText)
        self.content = ContentWords(tagger, spec, "objective univl_dmae") if use_twm else None
        self.width = self._make_projections(context, width)
        self.most_frames = _frames_of(context.encoders["video"], max_frames) + self.embedded
        if interaction.endswith("wti"):
            self.text_weight_fc = _weight_head(self.width, wti_arch)
            self.video_weight_fc = _weight_head(self.width, wti_arch)
        self.weighted = interaction.endswith("wti")
        if sim_header == "seqTransf":
            self.frame_position_embeddings = nn.Embedding(POSITIONS, self.width)
            heads = self.width // CHANNELS if self.width % CHANNELS == 0 else 1
            self.transformerClip = FrameBlocks(self.width, BLOCKS, heads)
        self.by_blocks = sim_header == "seqTransf"
        if partial_type != -1:
            self.t2v_linear_xwp = TokenImportance(1, self.most_frames, self.width)
            self.v2t_linear_xwp = TokenImportance(self.most_frames, self.max_words, self.width)

    def _make_projections(self, context: BuildContext, width: int | None) -> int:
        """E. With BERT's embedding layer clips are words among words, so they get its width in any case."""
        fusion, text, video = (context.encoders.get(slot) for slot in ("fusion", "text", "video"))
        if member(fusion, Fusion, "unimodal"):
            text = video = fusion
        own = int(member(text, Encoder, "width"))
        clips = int(member(video, Encoder, "width"))
        self.clip_proj = nn.Linear(clips, own) if self.embedded and clips != own else None
        widths = {
            "sentence": context.pooled_width("text"),
            "words": own,
            "frames": own if self.embedded else clips,
        }
        if width is None and len(set(widths.values())) > 1:
            raise ConfigError(
                "objective univl_dmae: width=null is no projection, so all tokens must have one width, and they have "
                f"{', '.join(f'{n} ({what})' for what, n in widths.items())}. Give objectives.dmae.width."
            )
        made = {} if width is None else {what: nn.Linear(n, width, bias=False) for what, n in widths.items()}
        if "words" in made and not self._reads_words():
            del made["words"]
        self.proj = nn.ModuleDict(made)
        return width or own

    def _reads_words(self) -> bool:
        return self.by_words or self.partial_type != -1

    # -- scores ------------------------------------------------------------------------------------------------------

    def match_logits(self, ctx: ForwardContext, rows: Mapping[str, Tensor] | None = None) -> Tensor:
        """float32 (R,): S of pairs of clean inputs, in [-1, 1]. ``rows``: modality -> int64 (R,) rows of the batch to
        pair, as in ``ctx.fused``."""
        side = {"text": self._texts(ctx), "video": self._videos(ctx)}
        count = len(next(iter(rows.values()))) if rows else len(side["text"]["sentence"])
        found = []
        for start in range(0, count, PAIRS):
            taken: dict[str, Tensor] = {}
            for modality, tensors in side.items():
                chosen = slice(start, start + PAIRS)
                index = rows[modality][chosen] if rows and modality in rows else chosen
                taken |= {name: tensor[index] for name, tensor in tensors.items()}
            found.append(self._similarity(taken, matched=True))
        return torch.cat(found)

    def similarity(self, ctx: ForwardContext, rows: str, columns: str) -> Tensor:
        """S within the batch, float32 (B, B)."""
        sim = self._similarity(self._texts(ctx) | self._videos(ctx))
        return sim if rows == "text" else sim.T

    def _similarity(self, x: Mapping[str, Tensor], matched: bool = False) -> Tensor:
        """S of every text with every video, or of text i with video i."""
        one = torch.ones_like(x["sentence"][:, :, 0])
        found = [self._compare(x["sentence"], one, x.get("sentence_weights"), x, matched)]
        if self.by_words:
            found.append(self._compare(x["words"], x["word_mask"], x.get("word_weights"), x, matched))
        return found[0] if len(found) == 1 else (found[0] + found[1]) / 2

    def _compare(
        self, words: Tensor, mask: Tensor, weights: Tensor | None, x: Mapping[str, Tensor], matched: bool
    ) -> Tensor:
        given = words, x["frames"], mask, x["frame_mask"]
        both = None if weights is None else (weights, x["frame_weights"])
        if matched:
            return matched_similarity(*given, nfc=self.nfc, weights=both)
        return token_similarity(*given, nfc=self.nfc, weights=both, chunk=self.chunk)

    # -- training ----------------------------------------------------------------------------------------------------

    def plan(self, ctx: ForwardContext) -> None:
        """One pass per modality, where features come from the fusion encoder."""
        if ctx.model.unimodal_fusion:
            for modality in ("video", "text"):
                ctx.plan({modality: ""})

    def features(self, ctx: ForwardContext) -> dict[str, Tensor]:
        """Tokens of clean inputs and how much they count, the margins of each row, and what counts as equal."""
        found = self._texts(ctx) | self._videos(ctx)
        if self.partial_type != -1:
            found["margins"] = self._margins(found)
            if not self.by_words:
                del found["words"], found["word_mask"]
        found["rows"] = self.rows(ctx)
        if self.mask_duplicates:
            found |= {f"{m}_identity": ctx.identity(m) for m in ("video", "text")}
        return found

    def loss_from_features(self, features: dict[str, Tensor]) -> LossOutput:
        """The loss over all N rows; ``t2v_r1`` is the share of texts whose own video is the nearest."""
        rows = features["rows"]
        same = [features[name] for name in ("video_identity", "text_identity") if name in features]
        sim = comparable(self._similarity(features), rows, same)
        one_way = neg_nce if self.loss_type == "negNCE" else cross_entropy
        loss = (one_way(sim, rows, scale=self.scale) + one_way(sim.T, rows, scale=self.scale)) / 2
        index = torch.arange(len(sim), device=sim.device)
        metrics = {
            "t2v_r1": masked_mean((sim.detach().argmax(dim=1) == index).float(), rows),
            "v2t_r1": masked_mean((sim.detach().argmax(dim=0) == index).float(), rows),
        }
        if "margins" in features:
            margin = masked_mean(features["margins"], rows)
            metrics["margin"] = margin.detach()
            loss = loss + margin
        return LossOutput(loss, rows.sum(), metrics)

    def _margins(self, x: Mapping[str, Tensor]) -> Tensor:
        """Margin losses of each row, float32 (B,)."""
        words = x["words"] * (x["word_mask"] > 0)[..., None]  # what padding holds must not matter
        frames = x["frames"] * x["frame_mask"][..., None]
        one = torch.ones_like(x["sentence"][:, :, 0])

        def similarity(text: Tensor, frames: Tensor) -> Tensor:
            weights = (one, self._weights(self.video_weight_fc, frames, x["frame_mask"])) if self.weighted else None
            return matched_similarity(text, frames, one, x["frame_mask"], weights=weights)

        kind: Any = self.partial_type
        losses = partial_margins(
            x["sentence"],
            words,
            frames,
            self.v2t_linear_xwp(frames, words),
            self.t2v_linear_xwp(x["sentence"], frames),
            similarity,
            kind=kind,
            threshold=self.threshold,
            margin=self.margin,
        )
        # the importance of frames only chooses which are taken out, so as published nothing trains what predicts it
        idle = [p for p in self.parameters() if type(p) is nn.Parameter]  # a sharded one is a DTensor
        return losses + connected_zero(idle, losses)

    # -- tokens ------------------------------------------------------------------------------------------------------

    def _texts(self, ctx: ForwardContext) -> dict[str, Tensor]:
        """``sentence`` (B, 1, E); ``words`` (B, L, E) and ``word_mask`` (B, L), L = max_words, where something reads
        them; ``sentence_weights`` (B, 1) and ``word_weights`` (B, L) where tokens are weighted."""
        found = {"sentence": self._unit("sentence", ctx.pooled("text"))[:, None]}
        if self.weighted:  # of one token it is 1
            one = torch.ones_like(found["sentence"][:, :, 0], dtype=torch.bool)
            found["sentence_weights"] = self._weights(self.text_weight_fc, found["sentence"], one)
        if not self._reads_words():
            return found
        if ctx.model.unimodal_fusion:
            tokens = ctx.fused({"text": ""}).tokens["text"]
        else:
            tokens = ctx.tokens("text", stage="embedded" if self.embedded else "encoded")
        mask = tokens.attention_mask.float()
        if self.content is not None:
            mask = mask * self._counts(ctx, mask)
        more = self.max_words - mask.shape[1]
        found["words"] = pad(self._unit("words", tokens.x), (0, 0, 0, more))
        found["word_mask"] = pad(mask, (0, more))
        if self.weighted and self.by_words:
            found["word_weights"] = self._weights(self.text_weight_fc, found["words"], found["word_mask"] > 0)
        return found

    def _videos(self, ctx: ForwardContext) -> dict[str, Tensor]:
        """``frames`` (B, U, E), ``frame_mask`` bool (B, U), and ``frame_weights`` (B, U) where tokens are weighted."""
        x, mask = clip_tokens(ctx)
        if self.embedded:
            text: Any = ctx.model.encoders["text"]
            x = x if self.clip_proj is None else self.clip_proj(x)
            last = text.bert.embeddings.word_embeddings.weight[text.spec.sep_id].to(x.dtype)
            x = text.bert.embed(torch.cat([x, last.expand(len(x), 1, -1)], dim=1), type_id=1)
            mask = torch.cat([mask, mask.any(dim=1, keepdim=True)], dim=1)
        x = self._projected("frames", x).float()
        if self.by_blocks:
            x = x + self.transformerClip(x + self._positions(x.shape[1]), mask)
        x = normalize(x, dim=-1)
        if self.partial_type != -1:
            x, mask = self._whole(x, mask)
        found = {"frames": x, "frame_mask": mask}
        if self.weighted:
            found["frame_weights"] = self._weights(self.video_weight_fc, x, mask)
        return found

    def _whole(self, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Padded to the number of frames that the importance of tokens is made for."""
        more = self.most_frames - x.shape[1]
        if more < 0:
            extra = " and a [SEP]" if self.embedded else ""
            raise ConfigError(
                f"objective univl_dmae: a video has {x.shape[1] - self.embedded} clip tokens{extra}, and partial_type="
                f"{self.partial_type} was built for max_frames={self.most_frames - self.embedded}. Give a larger "
                "objectives.dmae.max_frames."
            )
        return pad(x, (0, 0, 0, more)), pad(mask, (0, more))

    def _positions(self, count: int) -> Tensor:
        if count > POSITIONS:
            raise ConfigError(
                f"objective univl_dmae: sim_header=seqTransf has {POSITIONS} positions, and a video {count} frames: "
                "use fewer, or sim_header=meanP."
            )
        table: Tensor = self.frame_position_embeddings.weight
        return table[:count]

    def _projected(self, what: str, x: Tensor) -> Tensor:
        out: Tensor = self.proj[what](x) if what in self.proj else x
        return out

    def _unit(self, what: str, x: Tensor) -> Tensor:
        return normalize(self._projected(what, x).float(), dim=-1)

    def _weights(self, head: nn.Module, x: Tensor, mask: Tensor) -> Tensor:
        """Softmax over real tokens, (B, N); 0 in rows without any."""
        logits = head(x)[..., 0].float().masked_fill(~mask, -math.inf)
        some = mask.any(dim=1, keepdim=True)
        weights: Tensor = logits.masked_fill(~some, 0.0).softmax(dim=1) * some
        return weights

    def _counts(self, ctx: ForwardContext, like: Tensor) -> Tensor:
        """What each token of the texts counts, float (B, L): 2 in content words, else 1."""
        assert self.content is not None
        out = torch.ones(like.shape)
        for row, text in enumerate(self._read(ctx, len(like))):
            if text:
                counts = self.content.counts(text)[: like.shape[1]]
                out[row, : len(counts)] = torch.tensor(counts, dtype=torch.float32)
        return out.to(like.device, non_blocking=True)

    def _read(self, ctx: ForwardContext, rows: int) -> Sequence[str | None]:
        """The texts of a batch; what their ids say where a batch comes without."""
        texts: Sequence[str | None] = ctx.batch.extra.get("text", ())
        if len(texts) == rows and any(text is not None for text in texts):
            return texts
        spec: Any = ctx.model.specs()["text"]
        if spec.detokenize is None:
            raise ConfigError("objective univl_dmae: use_twm needs texts, and this tokenizer does not give them back.")
        inputs = ctx.inputs("text")
        ids, real = inputs["token_ids"].cpu(), inputs["attention_mask"].cpu()
        return [spec.detokenize(own[mask].tolist()) for own, mask in zip(ids, real, strict=True)]


def _weight_head(width: int, layers: int) -> nn.Module:
    """A number per token."""
    hidden = [module for _ in range(layers - 1) for module in (nn.Linear(width, width), nn.ReLU())]
    return nn.Sequential(*hidden, nn.Linear(width, 1)) if hidden else nn.Linear(width, 1)


def _frames_of(encoder: Any, given: int | None) -> int:
    """Clip tokens of a whole input, :func:`vtp_univl.clips.clip_tokens`."""
    if given is not None:
        return given
    if per_clip := getattr(encoder, "frames_per_clip", None):
        return int(encoder.spec.frames) // int(per_clip)
    grid = member(encoder, Encoder, "grid")
    return grid[0] if grid is not None and len(grid) == 3 else 1
