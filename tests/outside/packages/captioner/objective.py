"""A decoder that writes a caption word by word from what the video encoder saw."""

import torch
from torch import nn

from vtp.model.losses import masked_cross_entropy
from vtp.model.objective import Objective
from vtp.types import IGNORE, LossOutput


class Captioner(Objective):
    needs = frozenset({"video", "text"})

    def __init__(self, *, context, width: int = 32, heads: int = 2):
        super().__init__()
        self.spec = context.encoders["text"].spec
        self.words = nn.Embedding(self.spec.vocab_size, width)
        self.places = nn.Embedding(self.spec.max_length, width)
        self.seen = nn.Linear(context.encoders["video"].width, width)
        self.block = nn.TransformerDecoderLayer(width, heads, 2 * width, dropout=0.0, batch_first=True)
        self.head = nn.Linear(width, self.spec.vocab_size)

    def logits(self, ctx, ids):
        x = self.words(ids) + self.places.weight[: ids.shape[1]]
        later = torch.ones(ids.shape[1], ids.shape[1], dtype=torch.bool, device=ids.device).triu(1)
        return self.head(self.block(x, self.seen(ctx.tokens("video").x), tgt_mask=later))

    def wanted(self, ctx):
        text = ctx.inputs("text")
        taken = text["attention_mask"][:, 1:] & self.rows(ctx)[:, None]
        return text["token_ids"][:, 1:].masked_fill(~taken, IGNORE)

    def count(self, ctx):
        return (self.wanted(ctx) != IGNORE).sum()

    def forward(self, ctx):
        logits = self.logits(ctx, ctx.inputs("text")["token_ids"][:, :-1])
        return LossOutput(masked_cross_entropy(logits, self.wanted(ctx)), self.count(ctx))

    def caption(self, ctx):
        ids = torch.full((len(ctx.batch), 1), self.spec.cls_id, device=ctx.device)
        for _ in range(self.spec.max_length - 1):
            ids = torch.cat([ids, self.logits(ctx, ids)[:, -1:].argmax(2)], dim=1)
        ends = (ids == self.spec.sep_id).int().argmax(1).tolist()
        return [self.spec.detokenize(row[1 : end or None]) for row, end in zip(ids.tolist(), ends, strict=True)]
