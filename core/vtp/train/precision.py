"""fp32, bf16 and fp16: where autocast applies, and the loss scaling that fp16 needs."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

from vtp.errors import ConfigError

__all__ = ["Precision"]


class Precision:
    """Weights, gradients and optimizer stay in fp32; the forward pass runs in the chosen type where autocast allows it.

    Contrastive losses are computed outside of autocast, from features converted to fp32: their softmax runs over the
    whole step, and the same numbers must come out for any accumulation.

    Raises:
        ConfigError: fp16 without a GPU, or bf16 on a GPU without it.
    """

    def __init__(self, name: str, device: torch.device) -> None:
        if name == "fp16" and device.type != "cuda":
            raise ConfigError(
                f"train.precision=fp16 needs a GPU, this run is on {device.type}. Use bf16 (also on a CPU) or fp32."
            )
        if name == "bf16" and device.type == "cuda" and not torch.cuda.is_bf16_supported():
            raise ConfigError("train.precision=bf16: this GPU cannot compute in bf16. Use fp16 or fp32.")
        self.name = name
        self.device = device
        self.scaler = torch.GradScaler(device.type, enabled=name == "fp16")

    def autocast(self) -> AbstractContextManager[Any]:
        """Context of the forward pass."""
        if self.name == "fp32":
            return nullcontext()
        return torch.autocast(self.device.type, dtype=torch.bfloat16 if self.name == "bf16" else torch.float16)

    def backward(self, loss: Tensor) -> None:
        """Backward pass of a loss, scaled if fp16 needs it."""
        self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]

    def unscale(self, optimizer: torch.optim.Optimizer) -> None:
        """Bring gradients back to their true size, before they are clipped."""
        if self.scaler.is_enabled():
            self.scaler.unscale_(optimizer)

    def step(self, optimizer: torch.optim.Optimizer) -> None:
        """Update the weights; under fp16 not if a gradient overflowed (the scale is lowered instead)."""
        self.scaler.step(optimizer)
        self.scaler.update()

    def state_dict(self) -> dict[str, Any]:
        """Plain numbers; empty unless fp16."""
        return dict(self.scaler.state_dict())

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue with the scale of a checkpoint, if it has one."""
        if state and self.scaler.is_enabled():
            self.scaler.load_state_dict(state)
