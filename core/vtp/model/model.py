"""The composed model: four encoder slots and any number of objectives behind one ``forward``.

    encoders.video  encoders.audio  encoders.text     inputs of a modality -> Tokens (B, N, D)
    encoders.fusion                                   dict of Tokens -> Fused
    objectives.<name>                                 ForwardContext -> LossOutput, or features

Everything runs under one ``forward``, because DDP and FSDP see nothing else: a method called beside it would silently
skip the exchange of gradients.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from vtp import contracts
from vtp.contracts import Encoder, Fusion, Read, joined_reads, member, reads_of
from vtp.errors import ConfigError, PluginError
from vtp.model.adapters import Adapted
from vtp.model.context import ForwardContext
from vtp.model.masking import Masker, default_masks
from vtp.model.objective import Objective
from vtp.types import MODALITIES, AudioSpec, Batch, Modality, TextSpec, VideoSpec

__all__ = ["SLOTS", "VTPModel"]

SLOTS = (*MODALITIES, "fusion")


class VTPModel(nn.Module):
    """Encoders and objectives under one forward.

    Args:
        encoders: per filled slot (video, audio, text, fusion) the module.
        objectives: by name.
        weights: factor of each objective in the total loss; 1 where not named.
        spec: the JSON-able dict that :func:`vtp.model.build.build_model` built this from; stored with the weights.
        seed: key of the random masks.
        masks: masker per modality, for ``ctx.masked``; :func:`vtp.model.masking.default_masks` where not named.

    Attributes:
        encoders, objectives, weights, spec, seed, masks: as given.
        checked: what encoders have been looked at in, see :mod:`vtp.model.checks`.
        adapted: which of its layers have adapters (``train.lora``); None without.
    """

    _video_mean: Tensor
    _video_scale: Tensor

    def __init__(
        self,
        encoders: Mapping[str, nn.Module],
        objectives: Mapping[str, Objective] | None = None,
        weights: Mapping[str, float] | None = None,
        spec: dict[str, Any] | None = None,
        seed: int = 0,
        masks: Mapping[str, Masker] | None = None,
    ) -> None:
        super().__init__()
        unknown = sorted(set(encoders) - set(SLOTS))
        if unknown:
            raise ConfigError(f"encoder: no slot named {', '.join(unknown)}; the slots are {', '.join(SLOTS)}")
        self.encoders = nn.ModuleDict({slot: encoders[slot] for slot in SLOTS if slot in encoders})
        self.objectives = nn.ModuleDict(dict(objectives or {}))
        self.weights = {name: float((weights or {}).get(name, 1.0)) for name in self.objectives}
        self.spec = spec or {}
        self.seed = seed
        self.checked: set[tuple[object, ...]] = set()
        self.adapted: Adapted | None = None
        self.masks: dict[str, Masker] = default_masks() | dict(masks or {})
        video = self.specs().get("video")
        if isinstance(video, VideoSpec):
            # In bytes, so that normalising is one subtraction and one product; not part of a checkpoint: the encoder's
            # spec owns them.
            mean, std = (torch.tensor(numbers).mul(255).view(3, 1, 1) for numbers in (video.mean, video.std))
            self.register_buffer("_video_mean", mean, persistent=False)
            self.register_buffer("_video_scale", std.reciprocal(), persistent=False)

    @property
    def answers(self) -> tuple[str, ...]:
        """The answer list that a classification head of this model was built for; () without one."""
        return tuple(self.spec.get("answers", ()))

    @property
    def unimodal_fusion(self) -> bool:
        """Whether features of a single modality are also taken through the fusion encoder (SimVTP's shared one)."""
        return "fusion" in self.encoders and bool(member(self.encoders["fusion"], Fusion, "unimodal"))

    def specs(self) -> dict[Modality, VideoSpec | AudioSpec | TextSpec]:
        """What each encoder wants as input; the loader follows it."""
        return {m: member(self.encoders[m], Encoder, "spec") for m in MODALITIES if m in self.encoders}

    def reads(self) -> dict[str, Read]:
        """What objectives want in ``batch.extra`` and ``batch.fields``, with the objective that asks for it.

        Raises:
            PluginError: an objective's ``reads`` is a string, which would be read letter by letter, or two of them want
                different tensors of one name.
        """
        asked = [reads_of(o, contracts.Objective, f"objective {name}") for name, o in self.objectives.items()]
        return joined_reads(*asked)

    def parts(self) -> Iterator[tuple[str, nn.Module]]:
        """Encoders and objectives with their names, ``encoders.text``, ``objectives.vtc``."""
        for slot, module in self.encoders.items():
            yield f"encoders.{slot}", module
        for name, module in self.objectives.items():
            yield f"objectives.{name}", module

    def origins(self) -> dict[str, dict[str, Any]]:
        """What parts say they were made of, for the record of a run, by the names of :meth:`parts`.

        Raises:
            PluginError: one of them says something else than plain JSON.
        """
        found = {}
        for name, part in self.parts():
            if (origin := member(part, contracts.Part, "origin")) is None:
                continue
            try:
                told = json.loads(json.dumps(origin()))
            except (TypeError, ValueError) as error:
                raise PluginError(f"{name}: origin() of {type(part).__name__} gave no plain JSON: {error}.") from error
            if not isinstance(told, dict):
                raise PluginError(f"{name}: origin() of {type(part).__name__} gave {told!r}, expected a dict.")
            found[name] = told
        return found

    def normalize_video(self, frames: Tensor) -> Tensor:
        """Frames as decoded, uint8 (B, T, H, W, 3) -> what the spec of the video encoder asks for: float
        (B, T, 3, H, W) normalised, or the bytes themselves."""
        spec = self.specs().get("video")
        if isinstance(spec, VideoSpec) and spec.layout == "uint8":
            return frames
        video = frames.movedim(-1, -3).to(torch.float32, copy=True)  # in place from here on: clips are large
        return video.sub_(self._video_mean).mul_(self._video_scale)

    def gradient_checkpointing_enable(self) -> list[str]:
        """Recompute activations in the backward pass; returns the slots whose encoder cannot."""
        unable = []
        for slot, encoder in self.encoders.items():
            enable = member(encoder, Encoder, "gradient_checkpointing_enable")
            if enable is None:
                unable.append(slot)
            else:
                enable()
        return unable

    def forward(self, batch: Batch, run: Callable[[ForwardContext], Any]) -> Any:
        """What ``run(ctx)`` gives for a micro-batch.

        Args:
            batch: on the model's device.
            run: the passes of a training step (:mod:`vtp.train.step`), or an evaluation. While training, the first
                tensor with a gradient of a dict that it returns also carries zero gradients to the encoders that
                nothing was asked of.
        """
        ctx = ForwardContext(self, batch)
        result = run(ctx)
        if self.training and torch.is_grad_enabled() and isinstance(result, dict):
            for name, value in result.items():
                if isinstance(value, Tensor) and value.requires_grad:
                    return {**result, name: value + ctx.connected_zero().to(value.dtype)}
        return result
