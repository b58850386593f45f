"""Scores and losses of an imported DMAE checkpoint, against its formulas written out for one pair and one token at a
time, with the tensors under the names of the file."""

from __future__ import annotations

import math
from typing import Any

import antmmf_models as released
import pytest
import torch
from antmmf_models import Plain, checkpoint
from test_import_antmmf import context, example, run_import
from torch import Tensor
from torch.nn import functional as F

from vtp.model.context import ForwardContext

AT = "dmae_utils."


class PlainDMAE(Plain):
    """Stage 3 of the model of a state dict: sentence, words and frames of a row of the batch, and their similarity."""

    def tokens(self, ids: Tensor, mask: Tensor, clips: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(B, 1, D), (B, L, D), (B, n + 1, D), of unit length."""
        sep = self.words(torch.full((len(ids), 1), released.SEP))
        words = self.embeddings(self.words(ids), 0)
        frames = self.embeddings(torch.cat([clips, sep], dim=1), 1)
        return self.text(ids, mask)[1][:, None], F.normalize(words, dim=2), F.normalize(frames, dim=2)

    def weights(self, which: str, x: Tensor) -> Tensor:
        """Shares of the real tokens (N, D) of one row."""
        layers = sorted(n for n in self.state if n.startswith(f"{AT}{which}_weight_fc.") and n.endswith(".weight"))
        for place, name in enumerate(layers):
            x = F.linear(x, self.state[name], self.state[name.replace(".weight", ".bias")])
            x = x if place == len(layers) - 1 else F.relu(x)
        return x[:, 0].softmax(0)

    def similarity_of(self, x: Tensor, v: Tensor, weighted: bool, nfc: bool) -> Tensor:
        """Of the real tokens (L, D) of one text with the frames (U, D) of one video."""
        like = x @ v.T
        own = (v @ v.T).fill_diagonal_(0.0)
        r = []
        for t in range(len(x)):
            best = int(like[t].argmax())
            r.append(like[t, best])
            if nfc:
                beside = int(own[best].argmax())
                r[-1] = r[-1] + 0.5 * own[best, beside] * like[t, beside]
        q = [like[:, u].max() for u in range(len(v))]
        a = self.weights("text", x) if weighted else torch.full((len(x),), 1 / len(x))
        b = self.weights("video", v) if weighted else torch.full((len(v),), 1 / len(v))
        return (a @ torch.stack(r) + b @ torch.stack(q)) / 2

    def scores(self, ids: Tensor, mask: Tensor, clips: Tensor, interaction: str) -> Tensor:
        """S (B, B)."""
        sentences, words, frames = self.tokens(ids, mask, clips)
        weighted = interaction.endswith("wti")
        out = torch.zeros(len(ids), len(clips))
        for i in range(len(ids)):
            for j in range(len(clips)):
                parts = [self.similarity_of(sentences[i], frames[j], weighted, nfc=True)]
                if interaction.startswith("att_"):
                    parts.append(self.similarity_of(words[i][mask[i]], frames[j], weighted, nfc=True))
                out[i, j] = sum(parts) / len(parts)
        return out

    def importance(self, which: str, queries: Tensor, tokens: Tensor) -> Tensor:
        """Weights of tokens (n_k, D), given queries (n_q, D)."""
        at = f"{AT}{which}_linear_xwp."
        x = torch.cat([self.state[f"{at}qk_proj.weight"] @ queries, tokens], dim=1)
        x = F.layer_norm(x, x.shape, self.state[f"{at}attn_proj.0.weight"], self.state[f"{at}attn_proj.0.bias"])
        x = F.gelu(x @ self.state[f"{at}attn_proj.1.weight"].T) @ self.state[f"{at}attn_proj.3.weight"].T
        w = x[:, 0].sigmoid()
        return w / w.sum()

    def margin(self, t: Tensor, x: Tensor, v: Tensor, weighted: bool, kind: int) -> Tensor:
        """Margin losses of one pair: sentence (1, D), words (L, D), frames (U, D)."""

        def like(text: Tensor, frames: Tensor) -> Tensor:
            return self.similarity_of(text, frames, weighted, nfc=False)

        def left(tokens: Tensor, w: Tensor) -> Tensor:
            tokens, taken = tokens.clone(), 0.0
            for place in sorted(range(len(w)), key=lambda k: -float(w[k])):
                taken += float(w[place])
                if taken < 0.6:
                    tokens[place] = 0
            return tokens

        by_text, by_video = self.importance("t2v", t, v), self.importance("v2t", v, x)
        pooled = F.normalize(by_video[None] @ x, dim=1)
        pooled_left, frames_left = by_video[None] @ left(x, by_video), left(v, by_text)
        found = []
        if kind in (2, 4):
            found += [(like(t, v), like(t, frames_left)), (like(pooled, v), like(pooled, frames_left))]
        if kind in (3, 4):
            found += [(like(pooled, v), like(pooled_left, v))]
        return sum((0.6 - (a - b)).clamp(min=0) for a, b in found)

    def loss(self, ids: Tensor, mask: Tensor, clips: Tensor, interaction: str, kind: int) -> Tensor:
        scores = self.scores(ids, mask, clips, interaction)
        both = (one_way(scores) + one_way(scores.T)) / 2
        rows = zip(*self.tokens(ids, mask, clips), strict=True)
        return both + sum(self.margin(*row, interaction.endswith("wti"), kind) for row in rows) / len(ids)


def one_way(s: Tensor) -> Tensor:
    """NegNCE of the rows of S (N, N)."""
    p = (100 * s).softmax(1).clamp(1e-6, 1 - 1e-6)
    n = len(s)
    hard = [
        -math.log(1 - p[i, j])
        for i in range(n)
        for j in range(n)
        if i != j and max(0, s[i, j] - s[i, i]) + max(0, s[i, j] - s[j, j]) > 0
    ]
    return -p.diagonal().log().mean() + (0.5 * sum(hard) / len(hard) if hard else 0.0)


def imported(tmp_path: Any, *options: str, layers: int = 1) -> tuple[Any, PlainDMAE, ForwardContext, tuple[Any, ...]]:
    state, net = checkpoint("swin", ("similarity", "dmae"))
    if layers == 2:  # heads of two layers
        for part in ("text", "video"):
            at = f"model.{AT}{part}_weight_fc."
            state |= {f"{at}2.{n}": state.pop(f"{at}{n}") for n in ("weight", "bias")}
            hidden = {"weight": (released.WIDTH, released.WIDTH), "bias": (released.WIDTH,)}
            state |= {f"{at}0.{n}": released.value(f"{at}0.{n}", shape) for n, shape in hidden.items()}
    plain = PlainDMAE(state, net, "swin")
    model, _ = run_import(state, tmp_path, *options)
    ids, mask, frames = example()
    if any(option.startswith("partial_type") for option in options):
        ids, mask = ids.where(mask, torch.tensor(7)), torch.ones_like(mask)  # no padding: margins read all the words
    ctx = context(model, ids, mask, frames)
    clips, _ = plain.clips(ctx.inputs("video")["video"])
    return model.objectives["dmae"], plain, ctx, (ids, mask, clips)


@pytest.mark.slow
@pytest.mark.parametrize("interaction, layers", [("ti", 1), ("wti", 1), ("wti", 2), ("att_ti", 1), ("att_wti", 1)])
@torch.no_grad()
def test_scores_are_those_of_the_formula(interaction: str, layers: int, tmp_path: Any) -> None:
    dmae, plain, ctx, given = imported(tmp_path, f"interaction={interaction}", layers=layers)
    want = plain.scores(*given, interaction)
    assert want.std() > 1e-3
    torch.testing.assert_close(dmae.similarity(ctx, "text", "video"), want, rtol=1e-5, atol=1e-5)
    pairs = torch.cartesian_prod(torch.arange(3), torch.arange(3))
    matched = dmae.match_logits(ctx, {"text": pairs[:, 0], "video": pairs[:, 1]}).view(3, 3)
    torch.testing.assert_close(matched, want, rtol=1e-5, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(
    "interaction, kind", [("ti", 2), ("wti", 3), ("wti", 4), ("att_ti", 2), ("att_ti", 4), ("att_wti", 3)]
)
@torch.no_grad()
def test_losses_are_those_of_the_formula(interaction: str, kind: int, tmp_path: Any) -> None:
    dmae, plain, ctx, given = imported(tmp_path, f"interaction={interaction}", f"partial_type={kind}")
    loss = dmae.loss_from_features(dmae.features(ctx)).loss
    torch.testing.assert_close(loss, plain.loss(*given, interaction, kind), rtol=1e-5, atol=1e-5)
