"""Of every task: whatever the items would have scored that could not be read, each metric lies between its bounds."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from vtp.types import MediaRef, Sample
from vtp_tasks.captioning import Captioning
from vtp_tasks.classification import Classification
from vtp_tasks.multiple_choice import MultipleChoice
from vtp_tasks.qa import QuestionAnswering
from vtp_tasks.retrieval import Retrieval

CLIPS = 8
LOST = (1, 4, 6)
BROKEN = tuple(f"clip{number}.mp4" for number in LOST)


def sample(number: int, clip: int, *texts: str, **labels) -> Sample:
    extra = {"video_id": f"clip{clip}", **({"labels": labels.pop("classes")} if "classes" in labels else {})}
    return Sample(f"s{number}", MediaRef(f"clip{clip}.mp4"), None, texts, labels, extra)


class Table:
    """An objective whose answers come from tables of numbers by clip and by text."""

    needs = frozenset({"video", "text"})

    def __init__(self, rng, lost=None):
        self.clips = {f"clip{i}": rng.integers(-2, 3, 4).astype(float) for i in range(CLIPS)}
        self.texts: dict[str, np.ndarray] = {}
        self.rng = rng
        for number in LOST if lost is not None else ():
            self.clips[f"clip{number}"] = lost.integers(-9, 10, 4).astype(float)

    def embed(self, ctx, modality):
        rows = []
        for one in ctx.batch.extra["sample"]:
            key = one.texts[0] if modality == "text" else one.id
            rows.append(
                self.texts.setdefault(key, self.rng.integers(-2, 3, 4)) if modality == "text" else self.clips[key]
            )
        return torch.tensor(np.array(rows), dtype=torch.float32)

    def logits(self, ctx):
        return torch.tensor(np.array([self.clips[s.extra["video_id"]] for s in ctx.batch.extra["sample"]]))


PAIRS = [sample(i, i % CLIPS, f"text {i % 13}") for i in range(19)]
QUESTIONS = [sample(i, i % CLIPS, f"{['what', 'who'][i % 2]} {i}?", answer="abcde"[i % 5]) for i in range(17)]
KNOWN = [sample(100 + i, i, "what?", answer="abcd"[i]) for i in range(4)]
ONE = [sample(i, i % CLIPS, "", answer="abcd"[i % 4]) for i in range(11)]
SEVERAL = [
    sample(i, i % CLIPS, "", classes=[c for j, c in enumerate("abcd") if (i * 7 + j) % 3 == 0]) for i in range(11)
]
CHOICES = [sample(i, i % CLIPS, *(f"text {(i + j) % 9}" for j in range(3)), answer_index=i % 3) for i in range(11)]
TASKS = {
    "retrieval": lambda data: Retrieval(dataset=data(train=PAIRS, test=PAIRS)),
    "retrieval, sets": lambda data: Retrieval(dataset=data(train=PAIRS, test=PAIRS), v2t="set", ties="average"),
    "questions": lambda data: QuestionAnswering(dataset=data(train=KNOWN, test=QUESTIONS)),
    "one class": lambda data: Classification(dataset=data(train=ONE, test=ONE)),
    "several classes": lambda data: Classification(dataset=data(train=SEVERAL, test=SEVERAL)),
    "choices": lambda data: MultipleChoice(dataset=data(train=PAIRS, test=CHOICES)),
}


@pytest.mark.parametrize("kind", TASKS)
def test_no_metric_leaves_its_bounds(kind, fake_dataset, fake_model, make_evaluator):
    task = TASKS[kind](fake_dataset)

    def measure(lost=None, broken=()):
        table = Table(np.random.default_rng(5), lost)
        model = fake_model(**dict.fromkeys(("vtc", "qa", "classification"), table))
        return task.evaluate(make_evaluator(model, task, broken=broken))

    reported = measure(broken=BROKEN)
    assert reported.missing and reported.record()["incomplete"]
    assert set(reported.bounds) == set(reported.metrics)
    others = [measure(np.random.default_rng(seed)) for seed in range(12)]
    assert len({tuple(one.metrics.values()) for one in others}) > 4 and not any(one.bounds for one in others)
    for one in (reported, *others):
        assert not one.missing or one is reported
        for name, (low, high) in reported.bounds.items():
            assert low - 1e-9 <= one.metrics[name] <= high + 1e-9, name
    assert any(low < high for low, high in reported.bounds.values())


def test_about_a_lost_clip_a_reference_could_have_been_written(fake_dataset, make_evaluator, fake_model):
    from vtp.types import TextSpec

    words = ("", "", "", "", "", "a", "man", "sings")
    text = TextSpec(lambda texts: [[5]], 0, 1, 2, 3, (0, 1, 2, 3, 4), 8, 6, lambda ids: " ".join(words[i] for i in ids))
    clips = [sample(0, 0, "a man sings"), sample(1, 1, "a man"), sample(2, 2, "a", "!")]
    task = Captioning(dataset=fake_dataset(train=clips, test=clips))
    ids = torch.tensor([[5, 6]])
    writer = SimpleNamespace(
        generate=lambda ctx, **_: (ids.repeat(len(ctx.batch.ids), 1), torch.zeros(len(ctx.batch.ids)))
    )
    model = fake_model(caption=writer)
    model.encoders = {"text": SimpleNamespace(spec=text)}
    found = task.evaluate(make_evaluator(model, task, broken=("clip1.mp4",)))
    f1 = 0.8 + 2 / 3
    assert found.bounds["token_f1"] == pytest.approx((100 * f1 / 3, 100 * (f1 + 1) / 3))
    assert found.bounds["exact_match"] == pytest.approx((0.0, 100 / 3))
