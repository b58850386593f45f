"""Masked words that mean something: the rarer a word is in the training texts, the more often it is hidden."""

import json
from collections import Counter

import torch
from torch import nn

from vtp.model.losses import masked_cross_entropy
from vtp.model.masking import WeightedWordMask
from vtp.model.objective import Objective
from vtp.types import IGNORE, LossOutput


class Mined(Objective):
    needs = frozenset({"text"})

    def __init__(self, *, context, share: float = 0.3):
        super().__init__()
        self.spec = context.encoders["text"].spec
        folder = context.assets_of("objectives/mined")
        if folder is None:
            self.found = Counter(word for text in context.texts() for word, _ in self.spec.words(text))
        else:
            self.found = Counter(json.loads((folder / "words.json").read_text()))
        weights = torch.zeros(self.spec.vocab_size)
        for word, count in self.found.items():
            for _, ids in self.spec.words(word):
                weights[ids] = 1 / count
        self.register_buffer("weights", weights, persistent=False)
        self.head = nn.Linear(context.encoders["text"].width, self.spec.vocab_size)
        context.masks["text"] = WeightedWordMask("mined", self.weigh, share)

    def weigh(self, ctx):
        return self.weights[ctx.inputs("text")["token_ids"]]

    def save_assets(self, folder):
        (folder / "words.json").write_text(json.dumps(self.found))

    def labels(self, ctx):
        return ctx.inputs("text", ctx.masked("text"))["labels"].masked_fill(~self.rows(ctx)[:, None], IGNORE)

    def count(self, ctx):
        return (self.labels(ctx) != IGNORE).sum()

    def forward(self, ctx):
        tokens = ctx.tokens("text", ctx.masked("text"))
        return LossOutput(masked_cross_entropy(self.head(tokens.x), self.labels(ctx)), self.count(ctx))
