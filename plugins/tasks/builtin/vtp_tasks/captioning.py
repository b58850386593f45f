"""Captioning: one sentence per clip, written by the model and compared with those that people wrote.

Texts of clips are withheld from the model while it writes. Sentences are scored by exact match and token F1
(:mod:`vtp_tasks.caption_scores`), the best over the references of a clip, and by the metrics of captioning benchmarks
(:mod:`vtp_tasks.caption_metrics`). A clip that cannot be decoded, and one for
which the model gives no numbers, is missing and scores 0; so does an empty sentence, and the report counts them.
"""

from __future__ import annotations

import logging
import textwrap
from collections import Counter
from collections.abc import Sequence
from functools import cached_property
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch

from vtp.contracts import Dataset, Encoder, Table, member, offers
from vtp.data.table import media_id
from vtp.errors import ConfigError, DataError
from vtp.eval.evaluator import Collected, Evaluator
from vtp.eval.figures import Strip
from vtp.eval.ledger import EVALUATED_ONLY
from vtp.eval.task import ReportTable, TaskResult
from vtp.model.model import VTPModel
from vtp.ranges import Count, Natural, Seed, Share
from vtp.types import Modality, Sample
from vtp_tasks.caption_metrics import meteor_stages
from vtp_tasks.caption_scores import exact_match, token_f1
from vtp_tasks.definitions import find_protocol, rule_for
from vtp_tasks.examples import strips
from vtp_tasks.lines import note_row, percent
from vtp_tasks.recounts import captions as recount_captions
from vtp_tasks.rows import add_counts, compare, facts
from vtp_tasks.splits import FromSplits, Splits
from vtp_tasks.subsets import Subsets, check_subsets, withheld

__all__ = ["Captioning"]

log = logging.getLogger("vtp")

NAMED = 3  # clips that a warning names
WIDTH = 78  # characters of a sentence in the figure
CHART = {
    "token_f1": "token F1",
    "exact_match": "exact match",
    "bleu1": "BLEU-1",
    "bleu4": "BLEU-4",
    "rouge_l": "ROUGE-L",
}


class Captioning(FromSplits):
    """The task ``captioning``.

    Args:
        dataset: offers ``samples("caption", split)``: a clip each, its references in ``texts``.
        protocol: name of a protocol of any plugin, or the path of one; None = data of one's own.
        split: which split is reported: ``test`` or ``val``.
        objective: the objective that writes: one with ``generate(ctx, ...)``.
        beams: width of the beam; 1 is greedy.
        length_penalty: finished sentences compete by log-probability / length ** length_penalty.
        min_length: tokens before the end at least.
        max_length: tokens at most, the end counted; None = as many as the text encoder takes.
        selection: rule by which the checkpoint is chosen; None = ``val`` if there is a validation split, else ``last``.
        subsets: also score with these modalities alone, ``[[video], [video, audio]]``, or ``all`` subsets.
        val_share: share of the training clips held out for validation when ``selection`` is ``val`` and the data set
            has no validation split; None = refuse that.
        seed: of the bootstrap and of the held-out clips.
    """

    kind = "caption"
    monitor: tuple[str, Literal["max", "min"]] = ("token_f1", "max")
    metrics = ("token_f1", "exact_match")
    recount = staticmethod(recount_captions)
    ties = None  # sentences are not ranked

    def __init__(
        self,
        *,
        dataset: Any,
        protocol: str | None = None,
        split: Literal["test", "val"] = "test",
        objective: str = "caption",
        beams: Count = 5,
        length_penalty: float = 1.0,
        min_length: Natural = 0,
        max_length: Count | None = None,
        selection: str | None = None,
        subsets: Subsets = None,
        val_share: Share | None = None,
        seed: Seed = 0,
    ) -> None:
        check_subsets(subsets)
        if max_length is not None and min_length >= max_length:
            raise ConfigError(
                f"task.min_length={min_length} leaves no room for the end in task.max_length={max_length} tokens."
            )
        self.dataset = dataset
        self.protocol = find_protocol(protocol, dataset, self.kind)
        self.name = "captioning" if protocol is None else self.protocol.name
        self.split = split
        self.objective = objective
        self.search = {
            "beams": beams, "length_penalty": length_penalty, "min_length": min_length, "max_length": max_length,
        }  # fmt: skip
        self.subsets = subsets
        self.seed = seed
        self.splits = Splits(dataset, self.kind, rule_for(split, selection), val_share, seed)

    # --- evaluation -----------------------------------------------------------------------------------------------

    def samples(self, split: str) -> Sequence[Sample]:
        """The clips of a split; of own data without a column of captions, the clips alone."""
        kinds = member(self.dataset, Dataset, "kinds")
        if self.kind not in kinds and "media" in kinds:
            clips: Sequence[Sample] = self.dataset.samples("media", split)
            return clips
        return self.splits[split]

    def check_split(self, split: str) -> None:
        """Whether every clip of the split has a reference."""
        self._refuse_without_reference(split, self.samples(split))

    def check(self, model: VTPModel) -> None:
        """Whether the model has the objective that writes, and a tokenizer that can be read back."""
        objectives = model.objectives
        if self.objective not in objectives or not offers(objectives[self.objective], "generate"):
            raise ConfigError(
                f"task {self.name}: the model has no objective {self.objective!r} that writes sentences (it has: "
                f"{', '.join(objectives) or 'none'}). Add it with objective=[caption], or set task.objective."
            )
        if self._spec(model).detokenize is None:
            raise ConfigError(
                f"task {self.name}: the tokenizer of encoder.text cannot turn ids into words (TextSpec.detokenize). "
                "Choose another encoder/text."
            )

    def evaluate(self, evaluator: Evaluator, split: str = "test", *, detail: bool = True) -> TaskResult:
        table = self.samples(split)
        samples = list(evaluator.limited(table))
        if not samples:
            raise DataError(f"{self.dataset.name}: there is no clip in the {split} split to write about.")
        self._refuse_without_reference(split, samples)
        written = self._write(evaluator, samples)
        result = TaskResult(self.name, split, written.metrics(), written.collected.ledger)
        result.facts = {
            "score_row": "raw",
            "tokens": "Penn Treebank style, lower case, without punctuation (BLEU, ROUGE-L, CIDEr-D, METEOR)",
            "meteor_stages": meteor_stages(),
            "search": self.search,
            "references": sum(len(sample.texts) for sample in samples),
            "empty_sentences": len(written.empty),
            **facts(self, evaluator, len(samples) < len(table)),
        }
        if written.empty:
            result.warnings.append(
                f"{len(written.empty):,} of {written.collected.ledger.evaluated:,} sentences are empty (first: "
                f"{', '.join(written.empty[:NAMED])})"
            )
        if not detail:
            return result
        match = compare(self, evaluator, result, samples)
        result.predictions = written.predictions()
        self._compare(evaluator, written, result)
        counted = add_counts(result, self.recount, self.seed)
        for line, scores in zip(result.predictions, counted.derived, strict=True):
            line |= scores
        for series, row in {"model": result.metrics, **result.rows}.items():
            if series != EVALUATED_ONLY:
                result.chart[series] = {label: row[name] for name, label in CHART.items()}
        result.tables = [self._table(result, match.line())]
        return result

    def predict(self, evaluator: Evaluator, split: str = "test") -> TaskResult:
        written = self._write(evaluator, list(evaluator.limited(self.samples(split))))
        predictions = written.predictions(judged=False)
        return TaskResult(self.name, split, {}, written.collected.ledger, predictions=predictions)

    def examples(self, evaluator: Evaluator, result: TaskResult, count: int = 4) -> list[Strip]:
        """Evenly spaced clips with the frames that the model saw, a reference and the sentence."""
        shown = []
        for line in result.predictions:
            first = next(iter(line.get("references", ())), "none")
            short = {"question": f"reference: {first}", "credit": line.get("token_f1", 0.0)}
            sentence = textwrap.shorten(line["prediction"] or "", WIDTH, placeholder="...")
            shown.append({**line, **short, "prediction": sentence})
        return strips(evaluator, self.samples(result.split), shown, count, drop=("text",))

    def _refuse_without_reference(self, split: str, samples: Sequence[Sample]) -> None:
        lacking = [sample for sample in samples if not sample.texts]
        if lacking:
            raise DataError(
                f"{self.dataset.name}: {len(lacking):,} of {len(samples):,} clips of the {split} split have no caption "
                f"(first: {lacking[0].id}), so what is written about them cannot be scored. mode=predict writes it; to "
                "score the others, take these rows out of the file."
            )

    @staticmethod
    def _spec(model: Any) -> Any:
        return member(model.encoders["text"], Encoder, "spec")

    def _write(
        self, evaluator: Evaluator, samples: Sequence[Sample], drop: Sequence[Modality] = (), label: str = "captions"
    ) -> Written:
        self.check(evaluator.bare_model)
        withhold = ("text", *drop)  # a clip without media must not count because there are words about it
        collected = evaluator.run(samples, self._forward, drop=withhold, what="clips", label=label, strict=not drop)
        finite = np.isfinite(collected.arrays.get("score", np.zeros(0)))
        if not finite.all():
            collected = collected.without(~finite, "scores are not finite numbers")
        return Written(samples, collected, self._spec(evaluator.bare_model).detokenize)

    def _forward(self, ctx: Any) -> dict[str, torch.Tensor]:
        token_ids, score = ctx.model.objectives[self.objective].generate(ctx, **self.search)
        return {"token_ids": token_ids, "score": score}

    def _compare(self, evaluator: Evaluator, written: Written, result: TaskResult) -> None:
        """Baselines and subsets, which the numbers have to be compared with: what they say is noted, to be counted."""
        result.facts["most_frequent_caption"] = self._constant
        present = written.collected.present
        seen = [m for m in evaluator.modalities if m != "text" and m in present and present[m].any()]
        for name, drop in withheld(self.subsets, seen, result.warnings).items():
            sentences = self._write(evaluator, written.samples, drop, name).sentences
            note_row(result.predictions, name, (sentences.get(sample.id) for sample in written.samples))

    @cached_property
    def _constant(self) -> str | None:
        """The most frequent training caption, the first of equals; None where the training captions are not there."""
        if not self.splits.has_train:
            return None
        counted = Counter(member(self.splits["train"], Table, "all_texts")())
        return counted.most_common(1)[0][0] if counted else None

    def _table(self, result: TaskResult, protocol_line: str) -> ReportTable:
        shown = [*CHART, "cider", *(name for name in result.metrics if name.startswith("meteor"))]
        all_rows = {"model": result.metrics, **result.rows}
        rows = [(label, *(row.get(name) for name in shown)) for label, row in all_rows.items()]
        low, high = result.intervals["token_f1"]
        beams, penalty = self.search["beams"], self.search["length_penalty"]
        how = "greedy search" if beams == 1 else f"{beams} beams, length penalty {penalty:g}"
        notes = [
            result.ledger.line(),
            protocol_line,
            f"token F1 {result.metrics['token_f1']:.2f} % (95 % interval {low:.2f} to {high:.2f}), best over "
            f"{result.facts['references']:,} references; {how}",
        ]
        title = f"{result.title}: written sentences in % ({result.split})"
        stages = ", ".join(result.facts["meteor_stages"])
        notes.append(f"CIDEr-D x 100; METEOR of 2005 by {stages}: not the METEOR 1.5 of papers")
        columns = ("row", *CHART.values(), "CIDEr-D", f"METEOR ({stages})")
        return ReportTable(title, columns, tuple(rows), tuple(notes))


class Written:
    """Sentences of one pass over the clips, with their scores."""

    def __init__(self, samples: Sequence[Sample], collected: Collected, detokenize: Any) -> None:
        self.samples = samples
        self.collected = collected
        ids = collected.arrays.get("token_ids", np.zeros((0, 1), np.int64))
        self.sentences = dict(zip(collected.ids, (detokenize(row.tolist()) for row in ids), strict=True))
        self.empty = [name for name, sentence in self.sentences.items() if not sentence.strip()]
        given = [(self.sentences.get(sample.id, ""), sample.texts) for sample in samples]
        self.f1: npt.NDArray[Any] = np.array([token_f1(sentence, texts) for sentence, texts in given])
        self.exact: npt.NDArray[Any] = np.array([float(exact_match(sentence, texts)) for sentence, texts in given])

    def metrics(self) -> dict[str, float]:
        return {"token_f1": percent(self.f1), "exact_match": percent(self.exact)}

    def predictions(self, judged: bool = True) -> list[dict[str, Any]]:
        """One line per clip, missing ones included."""
        scores = dict(zip(self.collected.ids, self.collected.arrays.get("score", ()), strict=True))
        lines = []
        for sample, f1, exact in zip(self.samples, self.f1, self.exact, strict=True):
            line: dict[str, Any] = {"id": sample.id, "video": media_id(sample)}
            if judged:
                line |= {"references": list(sample.texts), "token_f1": float(f1), "exact_match": float(exact)}
            if sample.id in self.sentences:
                line |= {"prediction": self.sentences[sample.id], "score": round(float(scores[sample.id]), 6)}
            else:
                line |= {"prediction": None, "missing": self.collected.misses[sample.id]}
            lines.append(line)
        return lines
