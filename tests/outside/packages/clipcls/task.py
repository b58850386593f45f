"""Tags of clips: those words of a list that its captions name. Scored by mean average precision."""

from itertools import combinations

import numpy as np

from vtp.data.table import media_id
from vtp.errors import ConfigError
from vtp.eval.protocol import Protocol
from vtp.eval.task import ReportTable, TaskResult

WORDS = ("red", "green", "blue", "purple", "yellow")


def tags(sample):
    said = " ".join(sample.texts).split()
    return [word for word in WORDS if word in said]


def lines(sample):
    return [f"{media_id(sample)}\t{','.join(tags(sample))}"]


def average_precision(scores, right):
    hits = right[np.argsort(-scores, kind="stable")]
    return float((np.cumsum(hits) / np.arange(1, len(hits) + 1))[hits].mean())


class ClipCls:
    name, kind, monitor, metrics = "clipcls", "clipcls", ("map", "max"), ("map", "accuracy")

    def __init__(self, *, dataset, protocol: str = "clipcls_shapes", objective: str = "clipcls"):
        self.dataset, self.objective, self.answers = dataset, objective, WORDS
        self.protocol = Protocol.find(protocol)

    def samples(self, split):
        return self.dataset.samples("retrieval", split)

    def train_samples(self):
        return self.samples("train")

    def use_answers(self, answers):
        self.answers = tuple(answers)

    def labels(self, sample):
        return {"tags": [int(word in tags(sample)) for word in self.answers]}

    def check(self, model):
        if self.objective not in model.objectives:
            raise ConfigError(f"task clipcls: the model has no objective {self.objective!r}; add objective=[clipcls].")

    def evaluate(self, evaluator, split="test", *, detail=True):
        samples = evaluator.limited(self.samples(split))
        found = evaluator.run(samples, self.scores, what="clips")
        metrics = self.measure(samples, found)
        seen = [m for m in evaluator.modalities if m != "text"]
        withheld = [group for size in range(1, len(seen)) for group in combinations(seen, size)] if detail else []
        rows = {}
        for drop in withheld:
            part = evaluator.run(samples, self.scores, drop=drop, what="clips", strict=False)
            rows[f"without {'+'.join(drop)}"] = self.measure(samples, part)
        match = self.protocol.match(samples, self.dataset.name, split)
        cells = [("all", *metrics.values()), *((name, *row.values()) for name, row in rows.items())]
        table = ReportTable("tags", ("given", *metrics), tuple(cells), (found.ledger.line(), match.line()))
        best = found.arrays["scores"]
        said = [{"id": name, "scores": row.tolist()} for name, row in zip(found.ids, best, strict=True)]
        return TaskResult(self.name, split, metrics, found.ledger, said, match.record(), [table], rows=rows)

    def predict(self, evaluator, split="test"):
        return self.evaluate(evaluator, split, detail=False)

    def scores(self, ctx):
        return {"scores": ctx.model.objectives[self.objective].logits(ctx).sigmoid()}

    def measure(self, samples, found):
        scores = found.full("scores", fill=-1.0, shape=(len(self.answers),))
        right = np.array([self.labels(sample)["tags"] for sample in samples], dtype=bool)
        known = [k for k in range(len(self.answers)) if right[:, k].any()]
        precision = [average_precision(scores[:, k], right[:, k]) for k in known]
        answered = scores.min(1) >= 0  # a clip that is missing has no tag right
        accuracy = ((scores > 0.5) == right).mean(1) * answered
        return {"map": 100 * float(np.mean(precision)), "accuracy": 100 * float(accuracy.mean())}
