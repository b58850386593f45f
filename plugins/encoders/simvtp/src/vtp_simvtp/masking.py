"""Which tokens are hidden. Masks are drawn from the numbers of :meth:`ForwardContext.uniform`, so they depend on the
seed, the step and the row of the global batch, and on neither processes nor micro-batches; sorting them is done on the
device.

    tube     one spatial mask per clip, the same in every slot of time: a hidden patch is hidden in every frame
    random   any tokens of the grid
    frame    whole slots of time
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from vtp.errors import ConfigError
from vtp.model.context import ForwardContext
from vtp.model.tubelets import sizes

__all__ = ["MaskKind", "VideoMask", "WordMask", "draw_mask", "split_mask"]

MaskKind = Literal["tube", "random", "frame"]


def draw_mask(kind: MaskKind, ratio: float, grid: tuple[int, int, int], numbers: Tensor) -> Tensor:
    """bool (B, N), True = hidden; all rows hide the same number of tokens.

    Args:
        kind: tube, random or frame.
        ratio: share to hide, in [0, 1). Rounded down: 0.9 of 14 x 14 hides 176 and keeps 20.
        grid: (T', H', W').
        numbers: uniform float (B, N), on the device where the mask is wanted; tube and frame use the first columns.
    """
    time, space = grid[0], grid[1] * grid[2]
    columns = {"tube": space, "random": time * space, "frame": time}[kind]
    count = int(ratio * columns)
    first = numbers[:, :columns].argsort(dim=1)[:, :count]
    mask = torch.zeros(len(numbers), columns, dtype=torch.bool, device=numbers.device).scatter_(1, first, True)
    if kind == "tube":
        return mask[:, None, :].expand(-1, time, -1).flatten(1)
    if kind == "frame":
        return mask[:, :, None].expand(-1, -1, space).flatten(1)
    return mask


def split_mask(mask: Tensor, visible: int) -> tuple[Tensor, Tensor]:
    """Positions of visible and of hidden tokens, ascending: int64 (B, ``visible``) and (B, N - ``visible``).

    ``visible`` is known beforehand, so nothing waits for the device.
    """
    order = mask.int().argsort(dim=1, stable=True)
    return order[:, :visible], order[:, visible:]


@dataclass(frozen=True, slots=True)
class VideoMask:
    """A way to hide video tokens; ``view(ctx)`` makes it once per batch and returns its name.

    Attributes:
        kind: tube, random or frame.
        ratio: share to hide, in [0, 1).
    """

    kind: str = "tube"
    ratio: float = 0.9

    def __post_init__(self) -> None:
        if self.kind not in get_args(MaskKind):
            raise ConfigError(f"mask_kind={self.kind}: expected one of {', '.join(get_args(MaskKind))}.")
        if not 0 <= self.ratio < 1:
            raise ConfigError(f"mask_ratio={self.ratio}: expected a share in [0, 1).")

    @property
    def name(self) -> str:
        """Name of the view: equal masks are one view, however many objectives ask for it."""
        return f"{self.kind}{self.ratio:g}"

    def view(self, ctx: ForwardContext) -> str:
        """Make the view of the clip: ``mask`` bool (B, N), and ``visible`` and ``hidden``, int64 positions."""
        ctx.view("video", self.name, lambda inputs: inputs | self._draw(ctx, inputs["video"]))
        return self.name

    def _draw(self, ctx: ForwardContext, video: Tensor) -> dict[str, Tensor]:
        grid = grid_of(ctx.model.encoders["video"], video)
        time, space = grid[0], grid[1] * grid[2]
        clips = video.shape[1] if video.dim() == 6 else 1  # several clips of one video are masked one by one
        numbers = ctx.uniform(f"simvtp.{self.name}", clips * time * space).unflatten(1, (clips, -1)).flatten(0, 1)
        mask = draw_mask(self.kind, self.ratio, grid, numbers)  # type: ignore[arg-type]
        columns, repeats = {"tube": (space, time), "random": (time * space, 1), "frame": (time, space)}[self.kind]
        visible, hidden = split_mask(mask, (columns - int(self.ratio * columns)) * repeats)
        made = {"mask": mask, "visible": visible, "hidden": hidden}
        return {k: v.unflatten(0, (-1, clips)) for k, v in made.items()} if video.dim() == 6 else made


def grid_of(encoder: object, video: Tensor) -> tuple[int, int, int]:
    """Tokens per axis that ``encoder`` makes of ``video``; its ``grid`` is for ``spec.frames`` frames.

    Raises:
        ConfigError: if the encoder does not say how its tokens lie.
    """
    grid = getattr(encoder, "grid", None)
    if grid is None or len(grid) != 3:
        raise ConfigError(
            f"masked video modelling needs a video encoder whose tokens lie on a grid (attribute grid = (T', H', W')) "
            f"and "
            f"whose forward takes a mask; {type(encoder).__name__} has none. Use encoder/video=simvtp or tiny."
        )
    tubelet = encoder.spec.frames // grid[0]  # type: ignore[attr-defined]
    return (sizes(video)[0] // tubelet, grid[1], grid[2])


@dataclass(frozen=True, slots=True)
class WordMask:
    """Replaces words by [MASK]; ``view(ctx)`` makes it once per batch and returns its name.

    Attributes:
        probability: that a word is selected. Special tokens and unknown words never are, and all selected ones become
            [MASK]: the 80/10/10 scheme of BERT is not used (SimVTP, arXiv:2212.03490).
    """

    probability: float = 0.75

    def __post_init__(self) -> None:
        if not 0 <= self.probability <= 1:
            raise ConfigError(f"probability={self.probability}: expected a share in [0, 1].")

    @property
    def name(self) -> str:
        """Name of the view."""
        return f"words{self.probability:g}"

    def view(self, ctx: ForwardContext, again: str = "") -> str:
        """Make the view of the text: other ``token_ids``, and ``labels`` int64 (B, L), the original id or -100.

        Args:
            again: not empty gives the same words under another name, for a second pass that must not be shared.
        """
        name = self.name
        ctx.view("text", name, lambda inputs: inputs | self._draw(ctx, inputs["token_ids"], inputs["attention_mask"]))
        if again:
            made = ctx.inputs("text", name)
            name = f"{name}:{again}"
            ctx.view("text", name, lambda inputs: made)
        return name

    def _draw(self, ctx: ForwardContext, ids: Tensor, real: Tensor) -> dict[str, Tensor]:
        spec = ctx.model.specs()["text"]
        special = torch.tensor([*spec.special_ids], device=ids.device)  # type: ignore[union-attr]
        length = max(spec.max_length, ids.shape[1])  # type: ignore[union-attr]
        drawn = ctx.uniform(f"simvtp.{self.name}", length)[:, : ids.shape[1]]
        chosen = (drawn < self.probability) & real & ~torch.isin(ids, special) & ctx.present("text")[:, None]
        return {
            "token_ids": ids.masked_fill(chosen, spec.mask_id),  # type: ignore[union-attr]
            "labels": ids.masked_fill(~chosen, -100),
        }
