"""``univl_moco``: texts and clips against keys of averaged encoders and queues of those of earlier steps (MoCo,
arXiv:1911.05722, across modalities, as UniVL trains its stage 1).

    text   (N, E), video (N, n, E)   queries, of unit length
    keys                             the same of the averaged encoders, without gradient
    loss   (mean over texts + mean over clips) / 2
"""

from __future__ import annotations

from typing import Annotated, Any

import torch
from torch import Tensor, nn

from vtp.contracts import Encoder, Fusion, member
from vtp.model.build import BuildContext
from vtp.model.context import ForwardContext
from vtp.model.momentum import Momentum
from vtp.model.objective import masked_mean
from vtp.ranges import Count, Range, Size
from vtp.types import LossOutput, StepDone, Tokens
from vtp_univl.clips import features_of
from vtp_univl.losses import enqueue, moco_losses
from vtp_univl.vtc import VTC, Temperature, nearest

__all__ = ["MoCo"]


class MoCo(VTC):
    """Contrastive loss between texts and clips with queues. Evaluation compares them as :class:`VTC` does.

    Queues, pointers and key encoders are part of the model, equal on all processes, and stand in its checkpoints.

    Args:
        width: see :class:`VTC`.
        temperature: divides the cosines.
        momentum: share of the key encoders that stays at an update of the weights.
        queue_size: K, columns of either queue.
        key_dropout: whether the key encoders drop out while training, as the encoders do.
        mask_duplicates: keys of equal captions, and of clips of the same video, are no negatives.
        context: has the encoders that are averaged.
    """

    text_queue: Tensor
    video_queue: Tensor
    text_queue_ptr: Tensor
    video_queue_ptr: Tensor

    def __init__(
        self,
        *,
        context: BuildContext,
        width: Size | None = None,
        temperature: Temperature = 0.05,
        momentum: Annotated[float, Range(least=0, most=1)] = 0.9999,
        queue_size: Count = 16384,
        key_dropout: bool = True,
        mask_duplicates: bool = True,
    ) -> None:
        super().__init__(context=context, width=width, temperature=temperature, mask_duplicates=mask_duplicates)
        average = _Averaged if key_dropout else Momentum
        fusion = context.encoders.get("fusion")
        self.unimodal = fusion is not None and bool(member(fusion, Fusion, "unimodal"))
        averaged = ["video", "text", *(["fusion"] if self.unimodal else [])]
        self.key_encoders: Any = nn.ModuleDict({slot: average(context.encoders[slot], momentum) for slot in averaged})
        self.key_proj: Any = average(self.proj, momentum) if len(self.proj) else None
        generator = torch.Generator().manual_seed(0)  # the same columns on all processes
        for modality in ("text", "video"):
            queue = torch.randn(self.width, queue_size, generator=generator)
            self.register_buffer(f"{modality}_queue", nn.functional.normalize(queue, dim=0))
            self.register_buffer(f"{modality}_queue_ptr", torch.zeros(1, dtype=torch.int64))
            for other in ("text", "video"):  # what the captions and clips behind the keys are, for mask_duplicates
                name = f"{modality}_queue_{other}_identity"
                self.register_buffer(name, torch.zeros(queue_size, dtype=torch.int64))
        self._fresh: dict[str, Tensor] = {}

    def features(self, ctx: ForwardContext) -> dict[str, Tensor]:
        """Queries and keys, and as :meth:`VTC.features`."""
        with torch.no_grad():
            keys = {f"key_{modality}": self._keys(ctx, modality) for modality in ("text", "video")}
        same = {f"{m}_identity": ctx.identity(m) for m in ("video", "text")}
        return super().features(ctx) | same | keys

    def loss_from_features(self, features: dict[str, Tensor]) -> LossOutput:
        """The loss over all N rows."""
        rows = features["rows"]
        self._fresh = {name: value.detach() for name, value in features.items()}
        keys = (self._fresh["key_text"], self._fresh["key_video"])
        known = (self._known(features, "text"), self._known(features, "video")) if self.mask_duplicates else None
        queues = (self.text_queue, self.video_queue)
        texts, clips = moco_losses(features["text"], features["video"], keys, queues, self.temperature, known)
        loss = (masked_mean(texts, rows) + masked_mean(clips.mean(dim=1), rows)) / 2
        return LossOutput(loss, rows.sum(), nearest(features, ~rows[None, :] | ~rows[:, None]))

    def after_step(self, done: StepDone) -> None:
        """Write the keys of the step, of all processes, into the queues; not one that is no number."""
        fresh, self._fresh = self._fresh, {}
        if not fresh:
            return
        rows = fresh["rows"]
        for modality in ("text", "video"):
            keys = fresh[f"key_{modality}"][rows]
            if not len(keys) or not keys.isfinite().all():
                continue
            each = keys.shape[1] if modality == "video" else 1
            pointer = getattr(self, f"{modality}_queue_ptr")
            for other in ("text", "video"):
                identity = fresh[f"{other}_identity"][rows].repeat_interleave(each)
                enqueue(getattr(self, f"{modality}_queue_{other}_identity"), pointer.clone(), identity)
            enqueue(getattr(self, f"{modality}_queue"), pointer, keys.flatten(0, -2))

    def _keys(self, ctx: ForwardContext, modality: str) -> Tensor:
        """(B, E) of texts, (B, n, E) of clips."""
        owner: Any = self.key_encoders[modality]
        tokens: Tokens = ctx.tokens_of(owner, modality)
        if self.unimodal:
            tokens = self.key_encoders["fusion"]({modality: tokens}).tokens[modality]
        if modality == "video":
            found = features_of(owner.module, tokens)
        else:
            pooler: Any = self.key_encoders["fusion" if self.unimodal else "text"]
            found = member(pooler.module, Encoder, "pool")(tokens)
        if self.key_proj is not None:
            found = self.key_proj.module[modality](found)
        unit: Tensor = nn.functional.normalize(found.float(), dim=-1)
        return unit

    def _known(self, features: dict[str, Tensor], queue: str) -> Tensor:
        """bool (N, K): which columns of a queue belong to the caption or the video of a row."""
        pairs = [(features[f"{m}_identity"], getattr(self, f"{queue}_queue_{m}_identity")) for m in ("text", "video")]
        text, video = (identity[:, None] == column for identity, column in pairs)
        known: Tensor = text | video
        return known


class _Averaged(Momentum):
    """An average that drops out as the module that it copies does."""

    def train(self, mode: bool = True) -> _Averaged:
        nn.Module.train(self, mode)
        return self
