"""MoCo (arXiv:1911.05722) between texts and clips: keys of averaged encoders, and a queue of those of earlier steps."""

import torch
from torch import nn
from torch.nn.functional import cross_entropy, normalize

from vtp.model.momentum import Momentum
from vtp.model.objective import ContrastiveObjective, masked_mean
from vtp.types import LossOutput


class MoCo(ContrastiveObjective):
    needs = frozenset({"video", "text"})

    def __init__(self, *, context, width: int = 16, size: int = 64, m: float = 0.9, temperature: float = 0.1):
        super().__init__()
        self.text = nn.Linear(context.pooled_width("text"), width)
        self.video = nn.Linear(context.pooled_width("video"), width)
        self.teacher = Momentum(context.encoders["video"], m)
        self.teacher_head = Momentum(self.video, m)
        self.register_buffer("queue", normalize(torch.randn(size, width), dim=1))
        self.temperature, self.fresh = temperature, None

    def features(self, ctx):
        with torch.no_grad():
            key = self.teacher_head(ctx.tokens_of(self.teacher, "video").pooled())
        return {
            "query": normalize(self.text(ctx.pooled("text")).float(), dim=1),
            "live": normalize(self.video(ctx.pooled("video")).float(), dim=1),
            "key": normalize(key.float(), dim=1),
            "rows": self.rows(ctx),
        }

    def loss_from_features(self, features):
        rows, losses = features["rows"], []
        for name in ("query", "live"):
            near = (features[name] * features["key"]).sum(1, keepdim=True)
            logits = torch.cat([near, features[name] @ self.queue.T], dim=1) / self.temperature
            losses.append(cross_entropy(logits, torch.zeros_like(rows, dtype=torch.long), reduction="none"))
        self.fresh = features["key"].detach()
        return LossOutput(masked_mean(losses[0] + losses[1], rows), rows.sum())

    def after_step(self, done):
        self.queue.copy_(torch.cat([self.fresh, self.queue])[: len(self.queue)])
