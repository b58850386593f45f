"""Text against picture and sound together, and picture against sound, where a clip has both."""

from torch import nn
from torch.nn.functional import normalize

from vtp.model.losses import comparable, symmetric_nce
from vtp.model.objective import ContrastiveObjective
from vtp.types import LossOutput


class TriAlign(ContrastiveObjective):
    needs = frozenset({"text"})
    slots = frozenset({"text", "video", "audio"})
    embeds = {"video": ("video", "audio")}
    needs_fusion = True

    def __init__(self, *, context, width: int = 32, temperature: float = 0.1):
        super().__init__()
        self.temperature = temperature
        self.whole = nn.Linear(context.encoders["fusion"].width, width)
        self.proj = nn.ModuleDict({m: nn.Linear(context.pooled_width(m), width) for m in ("text", "video", "audio")})

    def embed(self, ctx, modality):
        both = modality == "video"
        x = self.whole(ctx.fused({"video": "", "audio": ""}).pooled) if both else self.alone(ctx, modality)
        return normalize(x.float(), dim=1)

    def alone(self, ctx, modality):
        return self.proj[modality](ctx.pooled(modality))

    def rows(self, ctx):
        return super().rows(ctx) & (ctx.present("video") | ctx.present("audio"))

    def features(self, ctx):
        whole = {"text": self.embed(ctx, "text"), "clip": self.embed(ctx, "video"), "rows": self.rows(ctx)}
        parts = {m: normalize(self.alone(ctx, m).float(), dim=1) for m in ("video", "audio")}
        same = {"same_text": ctx.identity("text"), "same_clip": ctx.identity("video")}
        return whole | parts | same | {"both": ctx.present("video") & ctx.present("audio") & whole["rows"]}

    def loss_from_features(self, features):
        same, loss = (features["same_text"], features["same_clip"]), 0.0
        for one, two, rows in (("text", "clip", features["rows"]), ("video", "audio", features["both"])):
            sim = features[one] @ features[two].T / self.temperature
            loss = loss + symmetric_nce(comparable(sim, rows, same), rows)
        return LossOutput(loss, features["rows"].sum())
