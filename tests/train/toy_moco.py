"""MoCo (arXiv:1911.05722) as somebody else's plugin would bring it: keys from an averaged encoder, and a queue. Not a
test module."""

import torch
from torch import nn
from torch.nn import functional

from vtp.model.momentum import Momentum
from vtp.model.objective import ContrastiveObjective
from vtp.types import LossOutput


class MoCo(ContrastiveObjective):
    """Two views of the sound, one of them quieter, against the keys of earlier steps."""

    needs = frozenset({"audio"})

    def __init__(self, *, context, width: int = 8, size: int = 32, m: float = 0.6, temperature: float = 0.2):
        super().__init__()
        self.head = nn.Linear(context.pooled_width("audio"), width)
        self.prototypes = nn.Parameter(torch.randn(5, width))
        self.teacher = Momentum(context.encoders["audio"], m)
        self.teacher_head = Momentum(self.head, lambda done: m + (1 - m) * done.step / done.total_steps)
        self.register_buffer("queue", functional.normalize(torch.randn(size, width)))
        self.temperature = temperature
        self.fresh = None

    def features(self, ctx):
        sound = ctx.inputs("audio")
        keys = self.teacher_head(self.teacher(sound["waveform"] * 0.9, sound["lengths"]).pooled())
        return {
            "query": functional.normalize(self.head(ctx.pooled("audio")), dim=1),
            "key": functional.normalize(keys, dim=1),
            "prototypes": (self.prototypes * 1.0)[None].expand(len(keys), -1, -1),
            "rows": self.rows(ctx),
        }

    def loss_from_features(self, features):
        rows = features["rows"]
        query, key = features["query"][rows], features["key"][rows]
        logits = torch.cat([(query * key).sum(1, keepdim=True), query @ self.queue.T], dim=1) / self.temperature
        loss = functional.cross_entropy(logits, torch.zeros(len(query), dtype=torch.long, device=query.device))
        near = (query @ features["prototypes"].mean(0).T).logsumexp(1).mean()
        self.fresh = key.detach()
        return LossOutput(loss - 0.1 * near, weight=rows.sum())

    def after_step(self, done):
        self.queue.copy_(torch.cat([self.fresh, self.queue])[: len(self.queue)])
        self.prototypes.copy_(functional.normalize(self.prototypes, dim=1))
