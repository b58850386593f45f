"""A model small enough to compute by hand: encoders that count their calls, and a fusion that adds."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from vtp.model.model import VTPModel
from vtp.types import AudioSpec, Batch, Fused, TextSpec, Tokens, VideoSpec

WIDTH = 4


class Words(nn.Module):
    """Text: one learned vector per id."""

    width = WIDTH
    spec = TextSpec(lambda texts: [[1, 5, 2] for _ in texts], 0, 3, 1, 2, (0, 1, 2, 3, 4), 20, 6)

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(20, WIDTH)
        self.calls: list[str] = []

    def forward(self, token_ids: Tensor, attention_mask: Tensor) -> Tokens:
        self.calls.append("encoded")
        return Tokens(self.words(token_ids), attention_mask)

    def embed(self, token_ids: Tensor, attention_mask: Tensor) -> Tokens:
        self.calls.append("embedded")
        return Tokens(self.words(token_ids) * 100, attention_mask)


class Frames(nn.Module):
    """Video: one token per frame, a linear map of its mean colour."""

    width = WIDTH
    spec = VideoSpec(frames=2, size=4, mean=(0.5, 0.25, 0.0), std=(0.5, 0.25, 1.0))

    def __init__(self) -> None:
        super().__init__()
        self.proj = nn.Linear(3, WIDTH)
        self.calls: list[str] = []

    def forward(self, video: Tensor, mask: Tensor | None = None) -> Tokens:
        self.calls.append("masked" if mask is not None else "encoded")
        x = self.proj(video.mean(dim=(-1, -2)))
        index = None
        if mask is not None:
            index = mask.int().argsort(dim=1, stable=True)[:, : int((~mask[0]).sum())]
            x = x.gather(1, index[..., None].expand(-1, -1, WIDTH))
        return Tokens(x, torch.ones(x.shape[:2], dtype=torch.bool), (video.shape[1], 1, 1), index)


class Sound(nn.Module):
    """Audio: one token, a linear map of the loudness."""

    width = WIDTH
    spec = AudioSpec(sample_rate=8, seconds=1.0)

    def __init__(self) -> None:
        super().__init__()
        self.proj = nn.Linear(1, WIDTH)
        self.calls: list[str] = []

    def forward(self, waveform: Tensor, lengths: Tensor) -> Tokens:
        self.calls.append("encoded")
        x = self.proj(waveform.abs().mean(dim=1, keepdim=True))[:, None]
        return Tokens(x, torch.ones(x.shape[:2], dtype=torch.bool))


class Sum(nn.Module):
    """Fusion: adds the pooled modalities."""

    width = WIDTH

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))
        self.calls: list[tuple[str, ...]] = []

    def forward(self, tokens: dict[str, Tokens]) -> Fused:
        self.calls.append(tuple(tokens))
        pooled = self.scale * sum(t.pooled() for t in tokens.values())
        return Fused({m: Tokens(t.x * 2, t.attention_mask) for m, t in tokens.items()}, pooled)


@pytest.fixture
def stubs() -> SimpleNamespace:
    """The classes above."""
    return SimpleNamespace(Words=Words, Frames=Frames, Sound=Sound, Sum=Sum, width=WIDTH)


@pytest.fixture
def model() -> VTPModel:
    """All four slots filled with counting stubs, no objective."""
    torch.manual_seed(0)
    return VTPModel({"text": Words(), "video": Frames(), "audio": Sound(), "fusion": Sum()}, seed=7)


@pytest.fixture
def make_batch() -> Callable[..., Batch]:
    """``make_batch(rows)``: three modalities; row 1 has no sound; texts are padded with id 0."""

    def make(rows: int = 3, **changes: object) -> Batch:
        generator = torch.Generator().manual_seed(1)
        ids = torch.randint(5, 20, (rows, 5), generator=generator)
        mask = torch.ones(rows, 5, dtype=torch.bool)
        mask[0, 3:] = False
        ids[~mask] = 0
        sound = torch.ones(rows, dtype=torch.bool)
        sound[1:2] = False
        batch = Batch(
            ids=[f"clip{i}" for i in range(rows)],
            inputs={
                "video": {"frames": torch.randint(0, 256, (rows, 2, 4, 4, 3), generator=generator, dtype=torch.uint8)},
                "audio": {
                    "waveform": torch.randn(rows, 8, generator=generator) * sound[:, None],
                    "lengths": 8 * sound.long(),
                },
                "text": {"token_ids": ids, "attention_mask": mask},
            },
            present={"video": torch.ones(rows, dtype=torch.bool), "audio": sound, "text": mask.any(1)},
        )
        for name, value in changes.items():
            setattr(batch, name, value)
        return batch

    return make
