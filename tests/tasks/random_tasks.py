"""Every task over a few items with random scores, for properties that all tasks share."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import torch

from vtp.types import MediaRef, Sample, TextSpec
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

    def generate(self, ctx, **search):
        """As many of the words as the first number of a clip says."""
        counts = [int(self.clips[s.extra["video_id"]][0]) % 4 for s in ctx.batch.extra["sample"]]
        ids = [[5 + i if i < count else 0 for i in range(3)] for count in counts]
        return torch.tensor(ids), torch.tensor(counts, dtype=torch.float32)

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
CAPTIONS = [sample(i, i, ("a man sings", "a man", "sings", "a")[i % 4], "!") for i in range(CLIPS)]
TASKS = {
    "captions": lambda data: Captioning(dataset=data(train=CAPTIONS, test=CAPTIONS)),
    "retrieval": lambda data: Retrieval(dataset=data(train=PAIRS, test=PAIRS)),
    "retrieval, sets": lambda data: Retrieval(dataset=data(train=PAIRS, test=PAIRS), v2t="set", ties="average"),
    "questions": lambda data: QuestionAnswering(dataset=data(train=KNOWN, test=QUESTIONS)),
    "one class": lambda data: Classification(dataset=data(train=ONE, test=ONE)),
    "several classes": lambda data: Classification(dataset=data(train=SEVERAL, test=SEVERAL)),
    "choices": lambda data: MultipleChoice(dataset=data(train=PAIRS, test=CHOICES)),
}
NAMES = {"captions": "captioning", "retrieval": "retrieval", "retrieval, sets": "retrieval", "questions": "qa",
         "one class": "classification", "several classes": "classification", "choices": "multiple_choice"}  # fmt: skip
_WORDS = ("", "", "", "", "", "a", "man", "sings")
_TEXT = TextSpec(lambda texts: [[5]], 0, 1, 2, 3, (0, 1, 2, 3, 4), 8, 6, lambda ids: " ".join(_WORDS[i] for i in ids))


def measure(task, fake_model, make_evaluator, lost=None, broken=(), seed=5, **options):
    """Evaluate a task of :data:`TASKS` with the tables of ``seed``, and with others for the clips of :data:`LOST` where
    ``lost`` is a generator."""
    table = Table(np.random.default_rng(seed), lost)
    model = fake_model(**dict.fromkeys(("vtc", "qa", "classification", "caption"), table))
    model.encoders = {"text": SimpleNamespace(spec=_TEXT)}
    return task.evaluate(make_evaluator(model, task, broken=broken), **options)
