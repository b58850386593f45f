"""Retrieval by l1 and l2, multiple choice by l2 and classification of clips: the built-in tasks on this model."""

from __future__ import annotations

import zlib
from typing import Any

import numpy as np
import pytest
import torch

from vtp.contracts import Task, member
from vtp.data import Example, collate
from vtp.eval.evaluator import Evaluator
from vtp.model.build import BuildContext, build_model, lookup_in
from vtp.model.context import ForwardContext
from vtp.model.model import VTPModel
from vtp.plugins import host
from vtp.types import Batch, MediaRef, Sample
from vtp_tasks.classification import Classification
from vtp_tasks.multiple_choice import MultipleChoice
from vtp_tasks.retrieval import Retrieval

TEXTS = ("a red cube rolls", "two green balls", "a man walks his old dog through the rain in the park", "rain", "a dog")
SIZE = {"width": 24, "frames": 3, "size": 32}
SPEC = {
    "encoders": {
        "text": {"name": "univl", "width": 24, "depth": 2, "heads": 2, "tokenizer": "texts", "max_length": 16},
        "video": {"name": "univl", "preset": "tiny", **SIZE},
        "fusion": {"name": "univl"},
    },
    "objectives": {
        "vtc": {"name": "univl_vtc"},
        "vtm": {"name": "univl_vtm"},
        "classification": {"name": "classification"},
    },
}


def clip(number: int) -> MediaRef:
    return MediaRef(f"clip{number}.mp4")


SPLIT = [Sample(f"q{i}", clip(i), None, (text,), {}, {"video_id": f"clip{i}"}) for i, text in enumerate(TEXTS)]


class Given:
    """A data set of given tables."""

    name = "given"
    kinds = ("retrieval", "mc", "classification")

    def __init__(self, **splits: list[Sample]) -> None:
        self.tables = splits

    def samples(self, kind: str, split: str) -> list[Sample]:
        return self.tables.get(split, [])


class Loader:
    """Batches of two; the frames of a clip follow from its name."""

    def __init__(self, model: VTPModel, samples: Any, drop: Any, labels: Any = None) -> None:
        self.model, self.samples, self.drop, self.labels, self.misses = model, samples, drop, labels, {}

    def __iter__(self) -> Any:
        for start in range(0, len(self.samples), 2):
            yield batch_of(self.model, self.samples[start : start + 2], self.drop, self.labels)


def batch_of(model: VTPModel, samples: list[Sample], drop: Any = (), labels: Any = None) -> Batch:
    examples = []
    for sample in samples:
        made = Example(sample.id, labels=labels(sample) if labels else {})
        if sample.video is not None and "video" not in drop:
            noise = np.random.default_rng(zlib.crc32(sample.video.path.encode()))
            made.frames = noise.integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)
        if sample.texts and "text" not in drop:
            (made.token_ids,) = model.specs()["text"].tokenize([sample.texts[0]])
        examples.append(made)
    return collate(examples, model.specs())


@pytest.fixture
def model() -> VTPModel:
    context = BuildContext(texts=lambda: TEXTS, answers=("one", "two", "three"))
    built = build_model(SPEC, lookup_in(host().registry), context).eval()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in built.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.2)
    return built


def evaluator(model: VTPModel, task: Any) -> Evaluator:
    labels = member(task, Task, "labels")
    return Evaluator(model, lambda samples, drop: Loader(model, samples, drop, labels), progress=False)


def alone(model: VTPModel, number: int, text: str) -> tuple[float, float]:
    """l1 and l2 of one pair in a batch of its own, from the definitions."""
    ctx = ForwardContext(model, batch_of(model, [Sample("pair", clip(number), None, (text,))]))
    objectives: Any = model.objectives
    with torch.no_grad():
        feature = torch.nn.functional.normalize(ctx.pooled("text"), dim=1)
        clips = model.encoders["video"].clip_features(ctx.tokens("video"))
        l1 = (clips[0] @ feature[0]).logsumexp(0)
        fused = ctx.fused({"video": "", "text": ""}).pooled
        return float(l1), float(objectives["vtm"].similarity_dense(fused))


@pytest.fixture
def pairs(model: VTPModel) -> np.ndarray:
    """(2, texts, clips): l1 and l2 of every pair."""
    found = [[alone(model, number, text) for number in range(5)] for text in TEXTS]
    return np.array(found).transpose(2, 0, 1)


def scores_of(result: Any) -> np.ndarray:
    """(texts, clips), from the predictions of text queries."""
    lines = [line for line in result.predictions if line["direction"] == "t2v"]
    return np.array([[dict(line["top"])[f"clip{i}"] for i in range(5)] for line in lines])


@pytest.mark.parametrize(("objective", "row"), [("vtc", 0), ("vtm", 1)])
def test_retrieval_by_l1_and_by_l2(model: VTPModel, pairs: np.ndarray, objective: str, row: int) -> None:
    task = Retrieval(dataset=Given(train=SPLIT, test=SPLIT), objective=objective, pair_batch=7)
    result = task.evaluate(evaluator(model, task))
    assert pairs[row].std() > 1e-3
    np.testing.assert_allclose(scores_of(result), pairs[row], atol=1e-5)
    assert result.metrics["t2v/r1"] == pytest.approx(100 * (pairs[row].argmax(1) == np.arange(5)).mean())
    assert result.metrics["v2t/r1"] == pytest.approx(100 * (pairs[row].argmax(0) == np.arange(5)).mean())


def test_l2_on_the_first_of_l1(model: VTPModel, pairs: np.ndarray) -> None:
    """All candidates give the exhaustive order; the first two keep the others behind them in the order of l1."""
    given: dict[str, Any] = {"dataset": Given(train=SPLIT, test=SPLIT), "exhaustive": True}
    task = Retrieval(**given, rerank=5)
    rows = task.evaluate(evaluator(model, task)).rows
    assert rows["re-rank(5) by vtm"] == rows["all pairs by vtm"]
    task = Retrieval(**given, rerank=2)
    found = task.evaluate(evaluator(model, task)).rows
    assert found["all pairs by vtm"] == rows["all pairs by vtm"]
    ranks = []
    for own, (l1, l2) in enumerate(zip(*pairs, strict=True)):
        first = np.argsort(-l1)
        order = [*sorted(first[:2], key=lambda i: -l2[i]), *first[2:]]
        ranks.append(order.index(own) + 1)
    assert found["re-rank(2) by vtm"]["t2v/mnr"] == pytest.approx(np.mean(ranks))


def test_multiple_choice_by_l2(model: VTPModel, pairs: np.ndarray) -> None:
    questions = [Sample(f"m{i}", clip(i), None, TEXTS, {"answer_index": i}, {"video_id": f"clip{i}"}) for i in range(5)]
    for objective, row in (("vtm", 1), ("vtc", 0)):
        task = MultipleChoice(dataset=Given(train=SPLIT, test=questions), objective=objective)
        result = task.evaluate(evaluator(model, task))
        for number, line in enumerate(result.predictions):
            assert line["scores"] == pytest.approx(list(pairs[row][:, number]), abs=1e-5)
        assert result.metrics["accuracy"] == pytest.approx(100 * (pairs[row].argmax(0) == np.arange(5)).mean())


def test_classification_reads_a_clip_with_its_empty_caption(model: VTPModel) -> None:
    """The logits are the head on the pooled output for [CLS] [SEP] and the clip."""
    names = ("one", "two", "three", "one")
    items = [Sample(f"i{i}", clip(i), None, ("",), {"answer": n}, {"video_id": f"c{i}"}) for i, n in enumerate(names)]
    task = Classification(dataset=Given(train=items, test=items))
    task.use_answers(("one", "two", "three"))
    result = task.evaluate(evaluator(model, task))
    head: Any = model.objectives["classification"].head
    spec: Any = model.specs()["text"]
    assert list(spec.tokenize([""])[0]) == [spec.cls_id, spec.sep_id]
    for number, line in enumerate(result.predictions):
        ctx = ForwardContext(model, batch_of(model, [Sample("one", clip(number), None, ("",))]))
        with torch.no_grad():
            want = head(ctx.fused({"video": "", "text": ""}).pooled)[0].softmax(0)
        found = dict(line["top"])
        assert [found[name] for name in ("one", "two", "three")] == pytest.approx(want.tolist(), abs=2e-6)
