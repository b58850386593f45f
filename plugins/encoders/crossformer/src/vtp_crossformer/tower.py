"""``tower``: another encoder, run for the rows that have its modality and no others, and, where it is frozen, once per
input.

    rows without sound or text   are not encoded: their tokens are zeros that are padding
    frozen                       the other encoder is not trained, runs without gradients, and its features of clean
                                 inputs are remembered, so that later epochs look them up
    tokens=pooled                one vector per row, (B, 1, D), which is little to remember

Frames of a clip that has none cannot be told from black ones, so clips are always encoded.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import torch
from torch import Tensor, nn

from vtp.components import choose, find, refuse
from vtp.contracts import Encoder, member
from vtp.errors import ConfigError
from vtp.model.blocks import connected_zero, visible_index
from vtp.model.build import BuildContext
from vtp.plugins import host
from vtp.ranges import Natural
from vtp.types import Tokens

__all__ = ["AudioTower", "TextTower", "VideoTower"]


class Tower(nn.Module):
    """An encoder around another one.

    Args:
        encoder: the other one: its ``name``, and its options.
        frozen: do not train it, and remember what it gives.
        tokens: ``all`` of its tokens, or ``pooled``, its own vector per row as the only one.
        remember: most rows whose features are kept in memory, of a frozen one; 0 = none. Inputs are told apart by a
            hash of their values, so augmented ones are computed anew.
        context: passed on.

    Attributes:
        computed: rows that the other encoder has run for so far.
    """

    slot: ClassVar[str]

    def __init__(
        self,
        *,
        context: BuildContext,
        encoder: dict[str, Any],
        frozen: bool = False,
        tokens: Literal["all", "pooled"] = "all",
        remember: Natural = 100_000,
    ) -> None:
        super().__init__()
        problems: list[str] = []
        kind = f"encoder/{self.slot}"
        where, known = f"encoder.{self.slot}.encoder", find(host().registry, kind)
        choice = choose(where, encoder, known, problems, kind=kind, given=("context",))
        if choice is not None and choice.target is type(self):
            problems.append(f"{where}: a tower cannot stand in a tower; name its encoder.")
        refuse(problems, f"encoder.{self.slot}")
        if choice is None:
            raise ConfigError(f"{where}: give the encoder, {{name: ..., options}}.")
        self.tower: Any = choice.build(context=context)
        self.frozen, self.pooled_only, self.remember = frozen, tokens == "pooled", remember if frozen else 0
        if frozen:
            self.tower.requires_grad_(False).eval()
        inner = self.tower
        self.spec = member(inner, Encoder, "spec")
        self.pooled_width = int(member(inner, Encoder, "pooled_width"))
        self.width = self.pooled_width if self.pooled_only else int(member(inner, Encoder, "width"))
        self.grid = (1,) if self.pooled_only else member(inner, Encoder, "grid")
        self.depth = member(inner, Encoder, "depth")
        self.view_inputs: Sequence[str] = member(inner, Encoder, "view_inputs")
        self.padded = True
        self.origin: Callable[[], Mapping[str, Any]] | None = member(inner, Encoder, "origin")
        self.patches: Callable[..., tuple[Tensor, Tensor]] | None = member(inner, Encoder, "patches")
        self.computed = 0
        self._kept: dict[bytes, tuple[Tensor, Tensor]] = {}
        self._shape: tuple[tuple[int, ...], tuple[int, ...] | None] | None = None  # of a row, and the grid

    @classmethod
    def nested(cls, options: Mapping[str, Any]) -> Iterator[tuple[str, str, Any, Sequence[str]]]:
        """The other encoder, for the check before anything is built."""
        if isinstance(options.get("encoder"), Mapping):
            yield "encoder", f"encoder/{cls.slot}", options["encoder"], ("context",)

    def forward(self, **inputs: Tensor) -> Tokens:
        """What the other encoder gives, in rows that have the modality."""
        there = self._there(inputs)
        if torch.compiler.is_exporting():  # a graph computes all rows, and remembers none
            out = self._encode(inputs)
            x = out.x.masked_fill(~there[:, None, None], 0.0)
            return Tokens(x, out.attention_mask & there[:, None], out.grid, out.index)
        if self.remember and "mask" not in inputs:
            return self._looked_up(inputs, there)
        rows = there.nonzero()[:, 0]
        if len(rows) == len(there):
            return self._encode(inputs)
        if len(rows) == 0:  # one row of it all the same, for shapes and for gradients of zero
            out = self._encode({name: value[:1] for name, value in inputs.items()})
            where = torch.zeros(len(there), dtype=torch.int64, device=there.device)
        else:
            out = self._encode({name: value[rows] for name, value in inputs.items()})
            where = (there.cumsum(0) - 1).clamp(min=0)
        taken = out.take(where)
        index = taken.index
        if index is not None and "mask" in inputs:
            index = visible_index(inputs["mask"])
        x = taken.x.masked_fill(~there[:, None, None], 0.0)
        if len(rows) == 0 and torch.is_grad_enabled():
            x = x + connected_zero(self.tower.parameters(), x)
        return Tokens(x, taken.attention_mask & there[:, None], taken.grid, index)

    def pool(self, tokens: Tokens) -> Tensor:
        """One vector per row, as the other encoder makes it."""
        if self.pooled_only:
            return tokens.x[:, 0]
        pooled: Tensor = member(self.tower, Encoder, "pool")(tokens)
        return pooled

    def _encode(self, inputs: Mapping[str, Tensor]) -> Tokens:
        first = next(iter(inputs.values()))
        self.computed += 0 if torch.compiler.is_exporting() else len(first)
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
            out: Tokens = self.tower(**inputs)
            if not self.pooled_only:
                return out
            pooled: Tensor = member(self.tower, Encoder, "pool")(out)
        return Tokens(pooled[:, None], out.attention_mask.any(dim=1, keepdim=True), (1,))

    def _there(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """bool (B,): rows that have the modality."""
        if "lengths" in inputs:
            return inputs["lengths"] > 0
        if "attention_mask" in inputs:
            return inputs["attention_mask"].any(dim=1)
        first = next(iter(inputs.values()))
        return torch.ones(first.shape[0], dtype=torch.bool, device=first.device)

    def _looked_up(self, inputs: Mapping[str, Tensor], there: Tensor) -> Tokens:
        """Rows whose inputs were seen before from memory, the others computed."""
        keys = _hashes(inputs)
        new = [row for row, key in enumerate(keys) if key not in self._kept and bool(there[row])]
        fresh: dict[int, tuple[Tensor, Tensor]] = {}
        if new or self._shape is None:
            asked = new or [0]
            out = self._encode({name: value[asked] for name, value in inputs.items()})
            for place, row in enumerate(asked):
                fresh[row] = (out.x[place].detach(), out.attention_mask[place])
                if len(self._kept) < self.remember and bool(there[row]):
                    self._kept[keys[row]] = (fresh[row][0].cpu(), fresh[row][1].cpu())
            self._shape = (tuple(out.x.shape[2:]), out.grid)
        device = there.device
        found = [fresh[row] if row in fresh else self._kept.get(key) for row, key in enumerate(keys)]
        longest = max((len(one[0]) for one in found if one is not None), default=1)
        x = torch.zeros(len(keys), longest, *self._shape[0], device=device)
        mask = torch.zeros(len(keys), longest, dtype=torch.bool, device=device)
        for row, one in enumerate(found):
            if one is not None and bool(there[row]):
                x[row, : len(one[0])], mask[row, : len(one[1])] = one[0].to(device), one[1].to(device)
        return Tokens(x, mask, self._shape[1])

    def train(self, mode: bool = True) -> Self:
        """As of every module; a frozen encoder stays in evaluation mode, without dropout."""
        super().train(mode)
        if self.frozen:
            self.tower.eval()
        return self

    def layer_of(self, name: str) -> int:
        """Layer of a parameter, as the other encoder numbers them."""
        layer_of = member(self.tower, Encoder, "layer_of")
        return 0 if layer_of is None else int(layer_of(name.removeprefix("tower.")))

    def gradient_checkpointing_enable(self) -> None:
        """As the other encoder does, if it can."""
        enable = member(self.tower, Encoder, "gradient_checkpointing_enable")
        if enable is not None:
            enable()

    def no_weight_decay(self) -> Iterable[str]:
        """Those of the other encoder."""
        return [f"tower.{name}" for name in member(self.tower, Encoder, "no_weight_decay")()]

    def save_assets(self, directory: Path) -> None:
        """Those of the other encoder."""
        save = member(self.tower, Encoder, "save_assets")
        if save is not None:
            save(directory)


class VideoTower(Tower):
    """A tower around an encoder of video."""

    slot = "video"


class AudioTower(Tower):
    """A tower around an encoder of sound."""

    slot = "audio"


class TextTower(Tower):
    """A tower around a text encoder."""

    slot = "text"


def _hashes(inputs: Mapping[str, Tensor]) -> list[bytes]:
    """A hash per row over all tensors, whatever padding stands behind real words."""
    if "attention_mask" in inputs:
        ids, mask = inputs["token_ids"].cpu(), inputs["attention_mask"].cpu()
        return [_hash(row[real].numpy()) for row, real in zip(ids, mask, strict=True)]
    if "lengths" in inputs:
        sounds, lengths = inputs["waveform"].cpu(), inputs["lengths"].tolist()
        return [_hash(row[:length].contiguous().numpy()) for row, length in zip(sounds, lengths, strict=True)]
    (frames,) = (value.cpu().contiguous() for name, value in inputs.items() if name == "video")
    return [_hash(row.numpy()) for row in frames]


def _hash(values: Any) -> bytes:
    return hashlib.blake2b(values.tobytes(), digest_size=16).digest()
