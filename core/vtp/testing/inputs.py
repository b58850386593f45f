"""Small inputs that fit a spec, and small encoders to try an objective with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from typing import Any

import torch
from torch import Tensor, nn

from vtp.model.blocks import visible_index
from vtp.types import AudioSpec, Batch, Fused, Modality, TextSpec, Tokens, VideoSpec

__all__ = ["TEXTS", "arguments", "batch_for", "slot_of", "tiny_encoders"]

TEXTS = ("a red ball moves to the left", "two blue boxes stand still", "what moves?")
WIDTH, WORDS = 8, 30


def slot_of(spec: object) -> Modality:
    """The modality whose input a spec describes.

    Raises:
        TypeError: it is none of the three.
    """
    if isinstance(spec, VideoSpec):
        return "video"
    if isinstance(spec, AudioSpec):
        return "audio"
    if isinstance(spec, TextSpec):
        return "text"
    raise TypeError(f"spec must be a VideoSpec, AudioSpec or TextSpec, not {type(spec).__name__}")


def arguments(encoder: Any, rows: int, texts: Sequence[str] = TEXTS) -> dict[str, Tensor]:
    """What a unimodal encoder's ``forward`` is given, ``rows`` rows of different lengths."""
    spec = encoder.spec
    if isinstance(spec, VideoSpec):
        if spec.layout == "uint8":
            return {"video": torch.randint(256, (rows, spec.frames, spec.size, spec.size, 3), dtype=torch.uint8)}
        return {"video": torch.randn(rows, spec.frames, 3, spec.size, spec.size)}
    if isinstance(spec, AudioSpec):
        lengths = torch.tensor([spec.samples, spec.samples // 2, spec.samples * 3 // 4])[torch.arange(rows) % 3]
        waveform = torch.rand(rows, spec.samples) * 2 - 1
        waveform[torch.arange(spec.samples) >= lengths[:, None]] = 0
        return {"waveform": waveform, "lengths": lengths}
    ids = spec.tokenize([texts[i % len(texts)] for i in range(rows)])
    longest = max(map(len, ids))
    return {
        "token_ids": torch.tensor([row + [spec.pad_id] * (longest - len(row)) for row in ids]),
        "attention_mask": torch.tensor([[i < len(row) for i in range(longest)] for row in ids]),
    }


def batch_for(
    specs: Mapping[Modality, VideoSpec | AudioSpec | TextSpec],
    rows: int,
    labels: Mapping[str, Sequence[Any]],
    missing: Mapping[str, Sequence[int]],
) -> Batch:
    """Random media and texts as a loader gives them; ``missing`` names rows that lack a modality."""
    generator = torch.Generator().manual_seed(1)
    inputs: dict[str, dict[str, Tensor]] = {}
    present: dict[str, Tensor] = {}
    for modality, spec in specs.items():
        there = torch.ones(rows, dtype=torch.bool)
        there[list(missing.get(modality, ()))] = False
        present[modality] = there
        if isinstance(spec, VideoSpec):
            shape = (rows, spec.frames, spec.size, spec.size, 3)
            frames = torch.randint(256, shape, generator=generator, dtype=torch.uint8)
            inputs[modality] = {"frames": frames * there[:, None, None, None, None]}
        elif isinstance(spec, AudioSpec):
            waveform = torch.rand(rows, spec.samples, generator=generator) * 2 - 1
            inputs[modality] = {"waveform": waveform * there[:, None], "lengths": spec.samples * there.long()}
        else:
            inputs[modality] = _words(spec, rows, there, generator)
    return Batch(
        ids=[f"clip{row}" for row in range(rows)],
        inputs=inputs,
        present=present,
        labels={
            name: torch.tensor([values[row % len(values)] for row in range(rows)]) for name, values in labels.items()
        },
    )


def _words(spec: TextSpec, rows: int, there: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
    length = min(8, spec.max_length)
    ordinary = torch.tensor(sorted(set(range(spec.vocab_size)) - set(spec.special_ids)))
    ids = ordinary[torch.randint(len(ordinary), (rows, length), generator=generator)]
    lengths = torch.tensor([min(length, 3 + row % 6) for row in range(rows)])
    place = torch.arange(length)
    ids[:, 0] = spec.cls_id
    ids[place == lengths[:, None] - 1] = spec.sep_id
    real = (place < lengths[:, None]) & there[:, None]
    return {"token_ids": ids.where(real, torch.tensor(spec.pad_id)), "attention_mask": real}


# -- encoders ----------------------------------------------------------------------------------------------------------


def _tokenize(texts: list[str]) -> list[list[int]]:
    return [[2, *(5 + len(word) % (WORDS - 5) for word in text.split()), 3] for text in texts]


class TinyText(nn.Module):
    """Words to vectors. The fixtures of objectives: the smallest encoders that keep the contract."""

    width = WIDTH
    spec = TextSpec(_tokenize, 0, 4, 2, 3, (0, 1, 2, 3, 4), WORDS, 8)

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(WORDS, WIDTH)

    def forward(self, token_ids: Tensor, attention_mask: Tensor) -> Tokens:
        """(B, L) -> Tokens (B, L, D)."""
        return Tokens(self.words(token_ids), attention_mask)


class TinyMedia(nn.Module):
    """Pieces of a clip or of a waveform to vectors, on a grid, with or without a mask."""

    width = WIDTH

    def __init__(self, spec: VideoSpec | AudioSpec, grid: tuple[int, ...], values: int) -> None:
        super().__init__()
        self.spec = spec
        self.grid = grid
        self.proj = nn.Linear(values, WIDTH)

    def _tokens(self, pieces: Tensor, real: Tensor, mask: Tensor | None) -> Tokens:
        """(B, N, values), (B, N) -> Tokens of the visible ones."""
        x = self.proj(pieces)
        if mask is None:
            return Tokens(x, real, self.grid)
        visible = visible_index(mask)
        x = x.gather(1, visible[..., None].expand(-1, -1, WIDTH))
        return Tokens(x, real.gather(1, visible), self.grid, visible)


class TinyVideo(TinyMedia):
    """4 frames of 8 x 8 pixels as 2 x 2 x 2 tubelets of 2 x 4 x 4."""

    def __init__(self) -> None:
        super().__init__(VideoSpec(frames=4, size=8), (2, 2, 2), 96)

    def forward(self, video: Tensor, mask: Tensor | None = None) -> Tokens:
        """(B, 4, 3, 8, 8) -> Tokens (B, 8, D)."""
        cubes = video.unflatten(1, (2, 2)).unflatten(-2, (2, 4)).unflatten(-1, (2, 4))  # type: ignore[no-untyped-call]
        pieces = cubes.permute(0, 1, 4, 6, 2, 3, 5, 7).reshape(len(video), prod(self.grid), -1)
        return self._tokens(pieces, torch.ones(pieces.shape[:2], dtype=torch.bool), mask)


class TinyAudio(TinyMedia):
    """64 samples as 1 x 4 pieces of 16."""

    def __init__(self) -> None:
        super().__init__(AudioSpec(sample_rate=64, seconds=1.0), (1, 4), 16)

    def forward(self, waveform: Tensor, lengths: Tensor, mask: Tensor | None = None) -> Tokens:
        """(B, 64) -> Tokens (B, 4, D)."""
        pieces = waveform.reshape(len(waveform), 4, 16)
        return self._tokens(pieces, torch.arange(4) * 16 < lengths[:, None], mask)


class TinyFusion(nn.Module):
    """Every token sees the mean of all real tokens."""

    width = WIDTH

    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Linear(WIDTH, WIDTH)

    def forward(self, tokens: Mapping[str, Tokens]) -> Fused:
        """Tokens (B, N_m, D) per modality -> Fused."""
        x = torch.cat([t.x for t in tokens.values()], 1)
        mask = torch.cat([t.attention_mask for t in tokens.values()], 1)
        pooled = self.mix(Tokens(x, mask).pooled()).tanh()
        fused = {m: Tokens(t.x + pooled[:, None], t.attention_mask, t.grid, t.index) for m, t in tokens.items()}
        return Fused(fused, pooled)


def tiny_encoders() -> dict[str, nn.Module]:
    """All four slots."""
    return {"text": TinyText(), "video": TinyVideo(), "audio": TinyAudio(), "fusion": TinyFusion()}
