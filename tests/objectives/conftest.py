"""A small trained-from-scratch model with every slot filled, and batches for it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from vtp.data import Pipeline, collate
from vtp.media import VideoInfo, Wanted
from vtp.model.build import BuildContext
from vtp.model.context import ForwardContext
from vtp.model.masking import Masker
from vtp.model.model import VTPModel
from vtp.types import AudioSpec, Batch, Clip, Fused, MediaRef, Sample, TextSpec, Tokens, VideoSpec

WIDTH, WORDS, LONGEST = 6, 30, 8


def _tokenize(texts: list[str]) -> list[list[int]]:
    """``"7 9"`` -> [CLS] 7 9 [SEP]."""
    return [[2, *map(int, text.split()), 3] for text in texts]


class Noise:
    """A decoder without files: noise that depends on the path and the span; a path ``silent...`` has no sound."""

    def read(self, ref: MediaRef, wanted: Wanted) -> Clip:
        seed = int.from_bytes(repr((ref.path, ref.start, ref.end)).encode(), "little") % 2**32
        noise, clip = np.random.default_rng(seed), Clip()
        if wanted.video:
            times = np.asarray(wanted.times(VideoInfo(0, "noise", 4, 4, 10.0, np.arange(20) / 10, 2.0)))
            clip.frames = noise.integers(0, 256, (len(times), 4, 4, 3), dtype=np.uint8)
        if wanted.sample_rate is not None and str(ref.path).startswith("silent"):
            clip.missing["audio"] = "no audio stream"
        elif wanted.sample_rate is not None:
            clip.waveform = noise.normal(size=(1, 8)).astype(np.float32)
            clip.sample_rate = wanted.sample_rate
        return clip


class Text(nn.Module):
    width = WIDTH
    spec = TextSpec(_tokenize, 0, 4, 2, 3, (0, 1, 2, 3, 4), WORDS, LONGEST)

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(WORDS, WIDTH)

    def forward(self, token_ids: Tensor, attention_mask: Tensor) -> Tokens:
        return Tokens(self.words(token_ids), attention_mask)


class Video(nn.Module):
    width = WIDTH
    spec = VideoSpec(frames=2, size=4)

    def __init__(self) -> None:
        super().__init__()
        self.proj = nn.Linear(3, WIDTH)

    def forward(self, video: Tensor) -> Tokens:
        x = self.proj(video.mean(dim=(-1, -2)))
        return Tokens(x, torch.ones(x.shape[:2], dtype=torch.bool))


class Audio(nn.Module):
    width = WIDTH
    spec = AudioSpec(8, 1.0)

    def __init__(self) -> None:
        super().__init__()
        self.proj = nn.Linear(8, WIDTH)

    def forward(self, waveform: Tensor, lengths: Tensor) -> Tokens:
        x = self.proj(waveform)[:, None]
        return Tokens(x, torch.ones(x.shape[:2], dtype=torch.bool))


class Fusion(nn.Module):
    """Every token sees the mean of all real tokens."""

    width = WIDTH

    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Linear(WIDTH, WIDTH)

    def forward(self, tokens: dict[str, Tokens]) -> Fused:
        x = torch.cat([t.x for t in tokens.values()], 1)
        mask = torch.cat([t.attention_mask for t in tokens.values()], 1)
        pooled = self.mix(Tokens(x, mask).pooled()).tanh()
        return Fused({m: Tokens(t.x + pooled[:, None], t.attention_mask) for m, t in tokens.items()}, pooled)


@pytest.fixture
def context() -> BuildContext:
    """What constructors of objectives get: all four encoders and an answer list."""
    torch.manual_seed(0)
    encoders = {"text": Text(), "video": Video(), "audio": Audio(), "fusion": Fusion()}
    return BuildContext(encoders=encoders, answers=("red", "blue", "two"))


@pytest.fixture
def make_model(context) -> Callable[..., VTPModel]:
    """``make_model(vtc=VTC(context=...), ..., masks={...})``: a model with these objectives."""

    def make(masks: dict[str, Masker] | None = None, **objectives: nn.Module) -> VTPModel:
        return VTPModel(context.encoders, objectives, seed=5, masks=masks)

    return make


@pytest.fixture
def make_batch() -> Callable[..., Batch]:
    """``make_batch(rows, missing={"text": [1]}, answer=[...])``; texts have 1 to 6 words between [CLS] and [SEP]."""

    def make(rows: int = 6, missing: dict[str, list[int]] | None = None, seed: int = 1, **labels: list[int]) -> Batch:
        generator = torch.Generator().manual_seed(seed)
        ids = torch.randint(5, WORDS, (rows, LONGEST), generator=generator)
        lengths = torch.tensor([3 + i % 6 for i in range(rows)])
        place = torch.arange(LONGEST)
        mask = place[None] < lengths[:, None]
        ids[:, 0] = 2
        ids[place[None] == lengths[:, None] - 1] = 3
        present = {m: torch.ones(rows, dtype=torch.bool) for m in ("video", "audio", "text")}
        for modality, absent in (missing or {}).items():
            present[modality][absent] = False
        mask &= present["text"][:, None]
        frames = torch.randint(0, 256, (rows, 2, 4, 4, 3), generator=generator, dtype=torch.uint8)
        sound = torch.randn(rows, 8, generator=generator)
        return Batch(
            ids=[f"clip{i}" for i in range(rows)],
            inputs={
                "video": {"frames": frames * present["video"][:, None, None, None, None]},
                "audio": {"waveform": sound * present["audio"][:, None], "lengths": 8 * present["audio"].long()},
                "text": {"token_ids": ids * mask, "attention_mask": mask},
            },
            present=present,
            labels={name: torch.tensor(values) for name, values in labels.items()},
            global_rows=rows,
        )

    return make


@pytest.fixture
def run() -> Callable[..., ForwardContext]:
    """``run(model, batch)``: a fresh context."""
    return ForwardContext


@pytest.fixture
def make_pipeline(context) -> Callable[..., Pipeline]:
    """``make_pipeline(reads=...)``: from samples with texts like "7 9" to examples, without files."""

    def make(**options) -> Pipeline:
        specs = {modality: context.encoders[modality].spec for modality in ("video", "audio", "text")}
        return Pipeline(specs, train=True, reader=Noise(), transform=_Whole(), **options)

    return make


@pytest.fixture
def load(make_pipeline) -> Callable[..., Batch]:
    """``load(samples, reads=...)``: a batch of these rows in this order, through the pipeline."""

    def make(samples: Sequence[Sample], **options) -> Batch:
        pipeline = make_pipeline(**options)
        return collate([pipeline(sample, 0, row) for row, sample in enumerate(samples)], pipeline.specs)

    return make


@pytest.fixture
def clips() -> Callable[..., list[Sample]]:
    """``clips("a", "a", "b", texts=[...])``: a row per name, about that clip; no text and no clip for None."""

    def make(*names: str | None, texts: Sequence[str | None] | None = None) -> list[Sample]:
        made = []
        for row, name in enumerate(names):
            text = f"{5 + row} {6 + row}" if texts is None else texts[row]
            ref = None if name is None else MediaRef(f"{name}.mp4")
            extra = {} if name is None else {"video_id": name}
            made.append(Sample(f"row {row}", ref, ref, () if text is None else (text,), extra=extra))
        return made

    return make


class _Whole:
    """Frames as the decoder gives them."""

    decode_size = 4

    def __call__(self, frames: np.ndarray, seed: int | None) -> np.ndarray:
        return frames
