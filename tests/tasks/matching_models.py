"""A small real model on random frames. Not a test module: the processes of a test import it."""

from __future__ import annotations

import os
import zlib

import numpy as np
import torch

from vtp import distributed
from vtp.data import Example, collate
from vtp.eval.evaluator import Evaluator
from vtp.model.build import BuildContext, build_model
from vtp.train import TrainConfig
from vtp.train.parallel import Parallel
from vtp.types import MediaRef, Sample
from vtp_encoders.concat import Concat
from vtp_encoders.tiny_text import TinyText
from vtp_encoders.tiny_video import TinyVideo
from vtp_objectives.vtc import VTC
from vtp_objectives.vtm import VTM
from vtp_tasks.pairs import Pairs, gallery
from vtp_tasks.rerank import score_pairs

CLASSES = {"text": TinyText, "video": TinyVideo, "fusion": Concat, "vtc": VTC, "vtm": VTM}
SMALL = {"name": "tiny", "width": 16, "heads": 2}
SPEC = {
    "encoders": {
        "text": SMALL,
        "video": {**SMALL, "frames": 2, "size": 32},
        "fusion": {"name": "concat", "width": 16, "depth": 1, "heads": 2},
    },
    "objectives": {"vtc": {"name": "vtc"}, "vtm": {"name": "vtm"}},
}
WORDS = (
    "a dog runs",
    "a red ball",
    "two",
    "the small cat sleeps on a very soft chair",
    "a dog runs",
    "rain falls here",
)
SPLIT = [
    Sample(f"q{i}", MediaRef(f"clip{i % 5}.mp4"), None, (text,), {}, {"video_id": f"clip{i % 5}"})
    for i, text in enumerate(WORDS)
]
QUESTIONS = [
    Sample(f"mc{i}", MediaRef(f"clip{i}.mp4"), None, WORDS[: 2 + i], {"answer_index": i}, {"video_id": f"clip{i}"})
    for i in range(3)
]


def frames_of(name):
    return np.random.default_rng(zlib.crc32(name.encode())).integers(0, 256, (2, 32, 32, 3), dtype=np.uint8)


class Loader:
    """Batches of three of the share of this process; the frames of a clip are a function of its name."""

    def __init__(self, model, samples, drop):
        rank, world = distributed.rank(), distributed.world_size()
        self.samples = samples[rank * len(samples) // world : (rank + 1) * len(samples) // world]
        self.drop, self.specs, self.misses = drop, model.specs(), {}

    def __iter__(self):
        readable = [s for s in self.samples if s.video is None or not s.video.path.startswith("lost")]
        self.misses = {s.id: "no such file" for s in self.samples if s not in readable}
        for start in range(0, len(readable), 3):
            yield collate([self.example(sample) for sample in readable[start : start + 3]], self.specs)

    def example(self, sample):
        frames = None if sample.video is None or "video" in self.drop else frames_of(sample.video.path)
        text = None if "text" in self.drop or not sample.texts else self.specs["text"].tokenize([sample.texts[0]])[0]
        return Example(sample.id, frames=frames, token_ids=text)


def make_model():
    """With random weights that tell pairs apart."""
    context = BuildContext(texts=lambda: WORDS)
    torch.manual_seed(0)
    built = build_model(SPEC, lambda kind, name, slot: CLASSES[slot or name], context)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in built.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.3)
    return built.eval()


def make_evaluator(model):
    return Evaluator(model, lambda samples, drop: Loader(model, samples, drop), progress=False)


def score_on_rank(rank, folder, port):
    """One of two processes: scores pairs of which most are about the clips of the first, with sharded parameters."""
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.set_num_threads(1)
    distributed.setup("cpu")
    model = make_model()
    Parallel(model, TrainConfig(steps=1, global_batch=2, strategy="fsdp2"), torch.device("cpu"))
    found = [scores(model, wanted) for wanted in WANTED]
    torch.save(found, f"{folder}/rank{rank}.pt")
    distributed.shutdown()


def scores(model, wanted):
    pairs = Pairs.of(SPLIT, gallery(SPLIT))
    return torch.from_numpy(score_pairs(make_evaluator(model), pairs, wanted, "vtm", pair_batch=4)[0])


WANTED = [np.ones((6, 5), bool), np.arange(30).reshape(6, 5) % 5 < 2, np.arange(30).reshape(6, 5) % 5 == 4]
