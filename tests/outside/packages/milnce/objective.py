"""MIL-NCE (arXiv:1912.06430): the texts of one film are candidates for each other's clips."""

from torch import nn
from torch.nn.functional import normalize

from vtp.model.losses import mil_nce
from vtp.model.objective import ContrastiveObjective, masked_mean
from vtp.types import LossOutput


class MILNCE(ContrastiveObjective):
    needs = frozenset({"video", "text"})

    def __init__(self, *, context, width: int = 32, temperature: float = 0.1):
        super().__init__()
        self.temperature = temperature
        self.proj = nn.ModuleDict({m: nn.Linear(context.pooled_width(m), width) for m in sorted(self.needs)})

    def embed(self, ctx, modality):
        return normalize(self.proj[modality](ctx.pooled(modality)).float(), dim=1)

    def features(self, ctx):
        bags = {"bag": ctx.identity("video", whole=True), "rows": self.rows(ctx)}
        return {m: self.embed(ctx, m) for m in self.proj} | bags

    def loss_from_features(self, features):
        sim = features["text"] @ features["video"].T / self.temperature
        rows = features["rows"]
        return LossOutput(masked_mean(mil_nce(sim, features["bag"], rows), rows), rows.sum())
