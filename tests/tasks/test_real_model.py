"""Both tasks with a real (untrained) model, the real loader and the two real MSR-VTT clips."""

from __future__ import annotations

import csv
import random

import numpy as np
import pytest
import torch

from vtp.contracts import Task, member
from vtp.data import EvalLoader, Pipeline
from vtp.eval.evaluator import Evaluator
from vtp.media import MediaReader
from vtp.model.build import BuildContext, build_model
from vtp.model.context import ForwardContext
from vtp.types import MediaRef, Sample
from vtp_encoders.concat import Concat
from vtp_encoders.tiny_audio import TinyAudio
from vtp_encoders.tiny_text import TinyText
from vtp_encoders.tiny_video import TinyVideo
from vtp_objectives.qa import QA
from vtp_objectives.vtc import VTC
from vtp_objectives.vtm import VTM
from vtp_tasks.qa import QuestionAnswering
from vtp_tasks.retrieval import Retrieval

CLASSES = {
    ("encoder", "text"): TinyText,
    ("encoder", "video"): TinyVideo,
    ("encoder", "audio"): TinyAudio,
    ("encoder", "fusion"): Concat,
    ("objective", "qa"): QA,
    ("objective", "vtc"): VTC,
    ("objective", "vtm"): VTM,
}
SMALL = {"name": "tiny", "width": 16, "heads": 2}
SPEC = {
    "encoders": {
        "text": SMALL,
        "video": {**SMALL, "frames": 2, "size": 32},
        "audio": SMALL,
        "fusion": {"name": "concat", "width": 16, "depth": 1, "heads": 2},
    },
    "objectives": {name: {"name": name} for name in ("qa", "vtc", "vtm")},
}


def setup(task, **options):
    """The task's model in a random state, and an evaluator over real files."""
    context = BuildContext(texts=member(task, Task, "texts"), answers=("man", "woman", "girl", "show", "connect"))
    model = build_model(SPEC, lambda kind, name, slot: CLASSES[kind, slot or name], context)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.5)
    reader = MediaReader(isolate=False)
    labels = member(task, Task, "labels")

    def make_loader(samples, drop):
        pipeline = Pipeline(model.specs(), train=False, seed=0, labels=labels, reader=reader, drop=drop)
        return EvalLoader(samples, pipeline, batch_size=4)

    return model, Evaluator(model, make_loader, **options)


@pytest.fixture
def clip(shared_data):
    def make(name: str) -> MediaRef:
        return MediaRef(str(shared_data / "videos/msrvtt" / f"{name}.mp4"))

    return make


def rows(path, **wanted):
    with open(path, encoding="utf-8", newline="") as file:
        return [row for row in csv.DictReader(file) if all(row[key] in values for key, values in wanted.items())]


@pytest.mark.data
def test_real_questions_about_real_clips(shared_data, clip, fake_dataset):
    found = rows(shared_data / "annotations/msrvtt_qa/test.csv", video=("9770", "9771", "9772"))
    samples = []
    for row in found:
        media = clip(f"video{row['video']}")
        extra = {"video_id": f"video{row['video']}"}
        samples.append(Sample(row["qid"], media, media, (row["question"],), {"answer": row["answer"]}, extra))
    absent = [s for s in samples if s.extra["video_id"] == "video9772"]  # a clip that is not there
    assert len(samples) - len(absent) == 48 and absent
    dataset = fake_dataset(name="msrvtt", train=samples, test=samples)
    task = QuestionAnswering(dataset=dataset, answers=5, protocol="msrvtt_qa")
    task.use_answers(("man", "woman", "girl", "show", "connect"))
    _, evaluator = setup(task)
    result = task.evaluate(evaluator)
    assert result.ledger.evaluated == 48 and len(result.ledger.missing) == len(absent)
    coverage = result.ledger.modality_coverage()
    assert coverage["video"] == 1.0 and coverage["audio"] == pytest.approx(31 / 48)  # video9771 has no sound
    assert set(result.rows) >= {"without audio", "without video", "without question", "question-only prior"}
    assert result.protocol["official"] is False and "instead of 72,821" in result.protocol["differences"][1]
    right = np.mean([line.get("prediction") == line["answer"] for line in result.predictions])
    assert result.metrics["accuracy"] == pytest.approx(100 * right)
    strips = task.examples(evaluator, result, 2)
    assert all(strip.frames.shape == (2, 32, 32, 3) for strip in strips)


@pytest.mark.data
def test_reranking_equals_scoring_every_pair_by_itself(shared_data, clip, fake_dataset):
    captions = rows(shared_data / "annotations/msrvtt/MSRVTT_JSFUSION_test.csv", video_id=("video9770", "video9771"))
    captions += [
        {"key": f"x{i}", "video_id": "video9771", "sentence": s} for i, s in enumerate(("a girl", "a man sings"))
    ]
    samples = []
    for row in captions:
        media = clip(row["video_id"])
        samples.append(Sample(row["key"], media, media, (row["sentence"],), {}, {"video_id": row["video_id"]}))
    random.Random(0).shuffle(samples)
    task = Retrieval(dataset=fake_dataset(name="msrvtt", train=samples, test=samples), rerank=10)
    model, evaluator = setup(task)
    result = task.evaluate(evaluator)

    score = {}
    for text in samples:
        for video in {s.extra["video_id"]: s for s in samples}.values():
            one = Sample("pair", video.video, video.audio, text.texts)
            (batch,) = evaluator.make_loader([one], ())
            with torch.no_grad():
                logits = model.eval().objectives["vtm"].match_logits(ForwardContext(model, batch))[0]
            score[text.id, video.extra["video_id"]] = float(logits[1] - logits[0])
    right = [max(("video9770", "video9771"), key=lambda v, t=t: score[t.id, v]) == t.extra["video_id"] for t in samples]
    assert len({round(value, 4) for value in score.values()}) > 4  # the head tells pairs apart
    assert result.rows["re-rank(10) by vtm"]["t2v/r1"] == pytest.approx(100 * np.mean(right))
    order = sorted(samples, key=lambda t: -score[t.id, "video9771"])
    first = 1 + next(i for i, t in enumerate(order) if t.extra["video_id"] == "video9771")
    other = sorted(samples, key=lambda t: -score[t.id, "video9770"])
    second = 1 + next(i for i, t in enumerate(other) if t.extra["video_id"] == "video9770")
    assert result.rows["re-rank(10) by vtm"]["v2t/mnr"] == pytest.approx((first + second) / 2)
    assert result.ledger.modality_coverage()["video"] == 1.0


@pytest.mark.data
def test_a_batch_of_one_scores_like_a_batch_of_many(shared_data, clip, fake_dataset):
    """Predictions must not depend on who else is in the batch."""
    found = rows(shared_data / "annotations/msrvtt_qa/test.csv", video=("9770", "9771"))[25:37]
    samples = [
        Sample(
            r["qid"], clip(f"video{r['video']}"), clip(f"video{r['video']}"), (r["question"],), {"answer": r["answer"]}
        )
        for r in found
    ]
    task = QuestionAnswering(dataset=fake_dataset(train=samples, test=samples), answers=5, ablate=False)
    task.use_answers(("man", "woman", "girl", "show", "connect"))
    model, evaluator = setup(task)
    many = task.evaluate(evaluator).predictions
    evaluator.make_loader = lambda samples, drop, make=evaluator.make_loader: _single(make(samples, drop))
    one = task.evaluate(evaluator).predictions
    assert [line["prediction"] for line in one] == [line["prediction"] for line in many]
    for a, b in zip(one, many, strict=True):
        assert [p for _, p in a["top"]] == pytest.approx([p for _, p in b["top"]], abs=2e-5)


def _single(loader):
    loader.batch_size = 1
    return loader
