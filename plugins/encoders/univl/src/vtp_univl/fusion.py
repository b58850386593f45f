"""``univl`` fusion: text and clips through one BERT, by default the one that reads texts (cross encoder of UniVL,
arXiv:2002.06353; with shared weights as in SNP-S3, arXiv:2401.17773).

    [CLS] w1 .. wn [SEP] | v_1 .. v_n [SEP]

    words   embedding layer of the text encoder: word + position 0.. + type 0, LayerNorm, dropout
    clips   their tokens and the word [SEP], through the same layer: positions from 0 again, type 1
    fused   text (R, L, D), video (R, n, D), zeros in place of padding; the last [SEP] is not given
    pooled  (R, D), Linear and tanh of the output at [CLS]

A row without a text has the empty one, [CLS] [SEP], and one without a clip ends with its text. Sound, where a model has
it, follows the clips.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from copy import deepcopy
from dataclasses import replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from vtp.contracts import Encoder, member
from vtp.errors import ConfigError
from vtp.model.blocks import connected_zero
from vtp.model.build import BuildContext
from vtp.ranges import Count, Depth, Share, Size
from vtp.types import MODALITIES, Fused, Tokens
from vtp_univl.bert import Embeddings, Layers, Pooler, sizes
from vtp_univl.text import UniVLText, layer_of_bert

__all__ = ["UniVLFusion"]


class UniVLFusion(nn.Module):
    """The cross encoder.

    Args:
        share_with: ``text`` uses the embeddings and layers of the text encoder, which must be ``univl``; null has
            layers and embeddings of its own, which start as copies of those where the sizes are the same.
        preset, width, depth, heads, positions, dropout, attention_dropout: of the own layers, with share_with=null;
            null takes what the text encoder has, or preset=base.
        chunk: most tokens that pass through the layers together; null = all of a pass. It bounds memory and changes no
            result.
        checkpointing: compute the activations of the layers again in the backward pass instead of keeping them.
        context: tells the encoders; one whose width differs from D gets a linear layer.

    Attributes:
        takes_many: whether several passes may be asked for in one call: not with dropout, whose draws would differ.
    """

    consumes: Mapping[str, Literal["encoded", "embedded"]] = {"text": "embedded"}

    def __init__(
        self,
        *,
        context: BuildContext,
        share_with: Literal["text"] | None = "text",
        preset: str | None = None,
        width: Size | None = None,
        depth: Depth | None = None,
        heads: Count | None = None,
        positions: Size | None = None,
        dropout: Share | None = None,
        attention_dropout: Share | None = None,
        chunk: Count | None = 8192,
        checkpointing: bool = False,
    ) -> None:
        super().__init__()
        found = context.encoders.get("text")
        text = found if isinstance(found, UniVLText) else None
        own = {
            "preset": preset,
            "width": width,
            "depth": depth,
            "heads": heads,
            "positions": positions,
            "dropout": dropout,
            "attention_dropout": attention_dropout,
        }
        if share_with == "text":
            _check_shared(text, own)
        else:
            self.embeddings, self.encoder = _own_parts(text, own)
        # Outside of the tree of modules: the text encoder keeps these parameters, under one name.
        self._text: tuple[UniVLText | None] = (text,)
        self.shared = share_with == "text"
        self.chunk, self.checkpointing = chunk, checkpointing
        embeddings, layers, _ = self._parts()
        self.width = embeddings.word_embeddings.embedding_dim
        self.depth = len(layers.layer)
        self.takes_many = not layers.random
        encoders: dict[str, Any] = {m: context.encoders[m] for m in MODALITIES if m in context.encoders}
        widths = {m: int(member(encoder, Encoder, "width")) for m, encoder in encoders.items()}
        self.proj = nn.ModuleDict({m: nn.Linear(w, self.width) for m, w in widths.items() if w != self.width})
        self.cross_pooler = Pooler(self.width)
        if text is not None and text.width == self.width:
            self.cross_pooler.load_state_dict(text.bert.pooler.state_dict())

    def _parts(self) -> tuple[Embeddings, Layers, Tensor]:
        """Embedding layer, layers, and the ids of [CLS] and [SEP], int64 (1, 2)."""
        text = self._text[0]
        if self.shared:
            assert text is not None
            bert, spec = text.bert, text.spec
            device = bert.embeddings.word_embeddings.weight.device
            return bert.embeddings, bert.encoder, torch.tensor([[spec.cls_id, spec.sep_id]], device=device)
        device = self.embeddings.word_embeddings.weight.device
        return self.embeddings, self.encoder, torch.tensor([[0, 1]], device=device)

    def forward(self, tokens: Mapping[str, Tokens] | Sequence[Mapping[str, Tokens]]) -> Fused | list[Fused]:
        """Tokens per modality (R rows each), of text those of its embedding layer -> Fused.

        A list of such dicts gives the list of results: the passes run together.
        """
        if isinstance(tokens, Mapping):
            return self._run([tokens])[0]
        return self._run(tokens)

    def _run(self, requests: Sequence[Mapping[str, Tokens]]) -> list[Fused]:
        embeddings, layers, ends = self._parts()
        made = [self._sequence(tokens, embeddings, ends) for tokens in requests]
        encoded = layers.run(
            [x for x, _, _ in made], [mask for _, mask, _ in made], chunk=self.chunk, recompute=self.checkpointing
        )
        found = [self._fused(t, x, start) for t, x, (_, _, start) in zip(requests, encoded, made, strict=True)]
        if self.training and torch.is_grad_enabled():
            found[0].pooled = found[0].pooled + connected_zero(self._idle(requests), found[0].pooled)
        return found

    def _sequence(
        self, tokens: Mapping[str, Tokens], embeddings: Embeddings, ends: Tensor
    ) -> tuple[Tensor, Tensor, int]:
        """What goes through the layers (R, N, D), its mask, and where the clips begin."""
        x, mask = self._words(tokens, embeddings, ends)
        start = x.shape[1]
        names = [m for m in MODALITIES if m in tokens and m != "text"]
        if names:
            last = embeddings.word_embeddings(ends[:, 1:]).expand(x.shape[0], -1, -1)  # [SEP]
            seen = [tokens[m].attention_mask for m in names]
            seen.append(torch.stack([m.any(dim=1) for m in seen]).any(dim=0)[:, None])
            clips = embeddings(torch.cat([*(self._projected(m, tokens[m]) for m in names), last], dim=1), type_id=1)
            x, mask = torch.cat([x, clips], dim=1), torch.cat([mask, *seen], dim=1)
        return x, mask, start

    def _projected(self, modality: str, tokens: Tokens) -> Tensor:
        x: Tensor = self.proj[modality](tokens.x) if modality in self.proj else tokens.x
        return x

    def _words(self, tokens: Mapping[str, Tokens], embeddings: Embeddings, ends: Tensor) -> tuple[Tensor, Tensor]:
        """The words of a pass, embedded, and their mask; [CLS] [SEP] in rows without."""
        if "text" not in tokens:
            rows = next(iter(tokens.values())).x.shape[0]
            return embeddings(ends.expand(rows, -1)), ends.new_ones(rows, 2, dtype=torch.bool)
        x, mask = self._projected("text", tokens["text"]), tokens["text"].attention_mask
        empty = ~mask.any(dim=1)
        if torch.compiler.is_exporting() or not empty.any():  # every row of an exported graph has words
            return x, mask
        if x.shape[1] < 2:
            x, mask = (nn.functional.pad(t, (0,) * (2 * t.dim() - 3) + (1,)) for t in (x, mask))
        first = torch.where(empty[:, None, None], embeddings(ends), x[:, :2])
        real = mask[:, :2] | empty[:, None]
        return torch.cat([first, x[:, 2:]], dim=1), torch.cat([real, mask[:, 2:]], dim=1)

    def _fused(self, tokens: Mapping[str, Tokens], x: Tensor, start: int) -> Fused:
        found: dict[str, Tokens] = {}
        for m in [m for m in MODALITIES if m in tokens]:
            count = tokens[m].x.shape[1]
            begin = 0 if m == "text" else start
            found[m] = replace(tokens[m], x=x[:, begin : begin + count])
            start += 0 if m == "text" else count
        return Fused(found, self.cross_pooler(x[:, 0]))

    def _idle(self, requests: Sequence[Mapping[str, Tokens]]) -> Iterable[nn.Parameter]:
        """Parameters that these passes may leave without a gradient. Sharded ones (FSDP) need none."""
        given = {m for tokens in requests for m in tokens}
        parts: list[nn.Module] = [layer for m, layer in self.proj.items() if m not in given]
        if (text := self._text[0]) is not None:
            parts += [text.bert.pooler] if self.shared else [text.bert.pooler, text.bert.encoder]
        if not self.shared:
            parts.append(self.embeddings)
        return (p for part in parts for p in part.parameters() if type(p) is nn.Parameter)

    def layer_of(self, name: str) -> int:
        """Layer of a parameter for learning-rate decay: 0 embeddings and projections, 1..depth layers, depth + 1 the
        pooler."""
        return 0 if name.startswith("proj.") else layer_of_bert(name, self.depth)

    def gradient_checkpointing_enable(self) -> None:
        """Recompute the layers in the backward pass."""
        self.checkpointing = True


def _check_shared(text: UniVLText | None, own: Mapping[str, Any]) -> None:
    where = "encoder univl (fusion): share_with=text"
    if text is None:
        raise ConfigError(
            f"{where} needs encoder/text=univl, whose layers it uses. Choose that, or give the fusion encoder its own: "
            "encoder.fusion.share_with=null."
        )
    if given := [name for name, value in own.items() if value is not None]:
        raise ConfigError(
            f"{where} has the sizes of the text encoder, so {', '.join(given)} would have no effect. Set "
            f"{', '.join(f'encoder.text.{name}' for name in given)}, or share_with=null."
        )


def _own_parts(text: UniVLText | None, own: Mapping[str, Any]) -> tuple[Embeddings, Layers]:
    """Embedding layer, whose words are [CLS] and [SEP], and layers of the fusion encoder's own."""
    usual: dict[str, Any] = {"dropout": 0.1, "attention_dropout": 0.1, "positions": 512}
    if text is not None:
        attend = text.bert.encoder.layer[0].attention if text.depth else None
        usual = {
            "positions": text.bert.embeddings.position_embeddings.num_embeddings,
            "dropout": text.bert.embeddings.dropout.p,
            "attention_dropout": getattr(attend, "dropout", 0.0),
        }
    chosen = usual | {name: value for name, value in own.items() if value is not None}
    given: list[Any] = [own[name] for name in ("width", "depth", "heads")]
    if text is not None and own["preset"] is None:
        theirs = (text.width, text.depth, text.heads)
        given = [value if value is not None else other for value, other in zip(given, theirs, strict=True)]
    width, depth, heads = sizes("encoder univl (fusion)", own["preset"] or "base", *given)
    embeddings = Embeddings(2, chosen["positions"], width, chosen["dropout"], pad_id=None)
    layers = Layers(width, depth, heads, chosen["dropout"], chosen["attention_dropout"])
    if text is not None and (width, depth, heads) == (text.width, text.depth, text.heads):
        layers.load_state_dict(deepcopy(text.bert.encoder.state_dict()))
        with torch.no_grad():
            source = text.bert.embeddings
            embeddings.word_embeddings.weight.copy_(source.word_embeddings.weight[[text.spec.cls_id, text.spec.sep_id]])
            embeddings.token_type_embeddings.weight.copy_(source.token_type_embeddings.weight)
            embeddings.LayerNorm.load_state_dict(source.LayerNorm.state_dict())
            if chosen["positions"] == source.position_embeddings.num_embeddings:
                embeddings.position_embeddings.weight.copy_(source.position_embeddings.weight)
    return embeddings, layers
