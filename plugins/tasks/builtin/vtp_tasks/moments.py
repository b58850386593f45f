"""When in a video does what a sentence tells happen? Moment retrieval by a model that compares clips with texts:
windows of several lengths slide over the video, each is compared with the sentence, and the best one is the answer.

    R@n at IoU m   share of the sentences for which one of the first n windows has an IoU of at least m with the moment
    mIoU           mean IoU of the first window, in percent

Windows of the same best score share the first place: R@1 and mIoU are means over them. For n above 1 windows are first
thinned (non-maximum suppression), equal scores in the order of their start. Windows, overlap and threshold are options
of the method and stand in the report, the windows with a hash.

A moment whose video cannot be read is a miss with an IoU of 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from vtp import distributed
from vtp.data.table import media_id
from vtp.errors import ConfigError, DataError
from vtp.eval.embedding import compare_embeddings
from vtp.eval.evaluator import Collected, Evaluator
from vtp.eval.figures import Strip
from vtp.eval.forms import sha256_lines
from vtp.eval.ledger import Ledger
from vtp.eval.task import ReportTable, TaskResult
from vtp.media import MediaError
from vtp.media.isolation import MediaReader
from vtp.model.model import VTPModel
from vtp.ranges import Count, Seed, Share
from vtp.spans import whole_clip
from vtp.types import MediaRef, Modality, Sample
from vtp_tasks.definitions import find_protocol, rule_for
from vtp_tasks.pairs import without_broken
from vtp_tasks.recounts import moments as recount_moments
from vtp_tasks.rows import References, add_counts, add_references, compare, facts
from vtp_tasks.sides import Modalities, Space, embed_side, find_space, read_side, spell_side
from vtp_tasks.splits import FromSplits, Splits
from vtp_tasks.windows import check_windows, sliding_windows, suppressed

__all__ = ["MomentRetrieval"]

Array = npt.NDArray[Any]
METRICS = ("r1/iou0.5", "r1/iou0.7", "r1/iou0.3", "miou", "r5/iou0.5", "r5/iou0.7")
TEXT: tuple[Modality, ...] = ("text",)


class MomentRetrieval(FromSplits):
    """The task ``moment_retrieval``.

    Args:
        dataset: offers ``samples("retrieval", split)``: moments, samples whose video has a start and an end, with what
            is said about them. Training sees the moments as clips of their own.
        protocol: name of a protocol of any plugin, or the path of one; None = data of one's own.
        gallery: what of a window is compared with the text: ``video``, ``audio``, or both.
        split: which split is reported: ``test`` or ``val``.
        objective: what scores: an objective with ``embed(ctx, modality)``. None = what of the model compares texts with
            ``gallery``.
        windows: lengths in seconds. The whole video is a window besides.
        overlap: share of a window that the next one of its length covers.
        nms: IoU above which a window is left out beside one with a better score.
        selection: rule by which the checkpoint is chosen; None = ``val`` if there is a validation split, else ``last``.
        top: windows per moment in the predictions, at least 5.
        references: published results to print beside one's own: label -> metric -> value.
        val_share: share of the training videos held out for validation when ``selection`` is ``val`` and the data set
            has no validation split.
        seed: of the bootstrap and of the held-out videos.
    """

    kind = "moments"
    monitor: tuple[str, Literal["max", "min"]] = ("miou", "max")
    metrics = METRICS
    recount = staticmethod(recount_moments)
    ties = None  # windows that tie share the first place, and no other rule is offered

    def __init__(
        self,
        *,
        dataset: Any,
        protocol: str | None = None,
        gallery: Modalities = "video",
        split: Literal["test", "val"] = "test",
        objective: str | None = "vtc",
        windows: Sequence[float] = (2.5, 5.0, 10.0, 20.0),
        overlap: float = 0.5,
        nms: float = 0.5,
        selection: str | None = None,
        top: Count = 10,
        references: References = None,
        val_share: Share | None = None,
        seed: Seed = 0,
    ) -> None:
        check_windows(windows, overlap, nms)
        self.dataset = dataset
        self.protocol = find_protocol(protocol, dataset, self.kind)
        self.name = "moment_retrieval" if protocol is None else self.protocol.name
        self.gallery = read_side("task.gallery", gallery)
        if "text" in self.gallery:
            raise ConfigError("task.gallery: a moment is searched by a text, so it is video, audio, or both.")
        self.objective = objective
        self.split = split
        self.windows = sorted({float(length) for length in windows})
        self.overlap, self.nms = float(overlap), float(nms)
        self.top = max(top, 5)
        self.references = references
        self.seed = seed
        self.splits = Splits(dataset, "retrieval", rule_for(split, selection), val_share, seed)

    # --- evaluation -----------------------------------------------------------------------------------------------

    def samples(self, split: str) -> Sequence[Sample]:
        """A sample per sentence with the whole video, and ``start`` and ``end`` of the moment in ``labels``."""
        return [moment for sample in self.splits[split] for moment in _moments(sample)]

    def check_split(self, split: str) -> None:
        """Whether every sample is a moment."""
        table = self.splits[split]
        media = [sample.video or sample.audio for sample in table]
        whole = [
            s.id for s, ref in zip(table, media, strict=True) if ref is None or ref.start is None or ref.end is None
        ]
        if whole:
            raise DataError(
                f"{self.dataset.name}: {len(whole):,} of {len(media):,} samples of the {split} split have no start and "
                f"end (first: {whole[0]}), so they are no moments. Own data: columns video, start, end and caption."
            )

    def check(self, model: VTPModel) -> None:
        """Whether the model compares texts with clips."""
        objectives = dict(model.objectives.items())
        if self.objective is not None and self.objective not in objectives:
            raise ConfigError(
                f"task {self.name}: the model has no objective {self.objective!r} (it has: "
                f"{', '.join(objectives) or 'none'}). Add it with objective=[{self.objective}], or set task.objective."
            )
        self._space(model)

    def _space(self, model: VTPModel) -> Space:
        return find_space(self.name, dict(model.objectives.items()), self.objective, TEXT, self.gallery)

    def evaluate(self, evaluator: Evaluator, split: str = "test", *, detail: bool = True) -> TaskResult:
        found = self._score(evaluator, split)
        result = TaskResult(self.name, split, {}, found.ledger(), self._predictions(found))
        result.ledgers = {"videos": found.videos}
        result.facts = {
            "score_row": "raw",
            "gallery_side": list(self.gallery),
            "proposals": found.proposals,
            **facts(self, evaluator, found.limited),
        }
        counted = add_counts(result, self.recount, self.seed)
        if not detail:
            result.predictions = []
            return result
        for line, derived in zip(result.predictions, counted.derived, strict=True):
            line |= derived
        match = compare(self, evaluator, result, found.moments, gallery=spell_side(self.gallery))
        result.protocol["proposals"] = found.proposals
        if found.unread:
            result.warnings.append(
                f"{len(found.unread):,} of {found.proposals['count']:,} windows could not be read and are never found "
                f"(first: {found.unread[0]})"
            )
        result.chart = {"R@1": {f"IoU {m}": result.metrics[f"r1/iou{m}"] for m in ("0.3", "0.5", "0.7")}}
        add_references(result, self.references)
        result.tables = [self._table(result, match.line())]
        return result

    def predict(self, evaluator: Evaluator, split: str = "test") -> TaskResult:
        found = self._score(evaluator, split)
        lines = self._predictions(found, judged=False)
        return TaskResult(self.name, split, {}, found.ledger(), lines, ledgers={"videos": found.videos})

    def examples(self, evaluator: Evaluator, result: TaskResult, count: int = 4) -> list[Strip]:
        """None: frames of a whole video would not show a moment."""
        return []

    def _score(self, evaluator: Evaluator, split: str) -> Scored:
        self.check(evaluator.bare_model)
        moments = list(self.samples(split))
        if not moments:
            raise DataError(f"{self.dataset.name}: there is no moment in the {split} split to evaluate.")
        every: dict[str, Sample] = {}
        for moment in moments:
            every.setdefault(media_id(moment), moment)
        videos = {media_id(one): one for one in evaluator.limited(list(every.values()))}
        limited = len(videos) < len(every)
        moments = [moment for moment in moments if media_id(moment) in videos]
        lengths, lost = _durations(videos)
        spans = {name: sliding_windows(lengths[name], self.windows, self.overlap) for name in lengths}
        table = [_window(videos[name], span) for name in spans for span in spans[name].tolist()]
        names = [f"{name}\t{start:.3f}\t{end:.3f}" for name in spans for start, end in spans[name].tolist()]
        texts = {text: i for i, text in enumerate(dict.fromkeys(moment.texts[0] for moment in moments))}
        space = self._space(evaluator.bare_model)
        told = [Sample(f"text {i}", texts=(text,)) for text, i in texts.items()]
        seen = without_broken(
            embed_side(evaluator, space.other, self.gallery, table, "windows", strict=False), "embedding"
        )
        words = without_broken(embed_side(evaluator, space.one, TEXT, told, "texts"), "embedding")
        scores = _scores(moments, spans, seen, words, texts)
        unread: list[str] = []
        ids = iter(window.id for window in table)
        for name, found in spans.items():
            own = [next(ids) for _ in found]
            gone = [window for window in own if window in seen.misses]
            if len(gone) == len(own):
                lost[name] = seen.misses[own[0]]
            else:
                unread += gone
        proposals = {
            "lengths": self.windows, "whole_video": True, "overlap": self.overlap, "nms": self.nms, "count": len(table),
            "sha256": sha256_lines(names),
        }  # fmt: skip
        ledger = Ledger(tuple(videos), {name: lost[name] for name in videos if name in lost}, "videos")
        ledger.check(evaluator.max_missing)
        return Scored(moments, lengths, spans, scores, ledger, words.misses, texts, proposals, unread, limited)

    def _predictions(self, found: Scored, judged: bool = True) -> list[dict[str, Any]]:
        """One line per moment: where it is, the best windows, and the first ones."""
        reasons = found.missing()
        lines = []
        for moment, scores in zip(found.moments, found.scores, strict=True):
            video = media_id(moment)
            line: dict[str, Any] = {"id": moment.id, "video": video, "text": moment.texts[0]}
            if judged:
                line |= {key: moment.labels[key] for key in ("start", "end")}
            if video in found.lengths:
                line["duration"] = round(found.lengths[video], 3)
            if moment.id in reasons:
                line["missing"] = reasons[moment.id]
            else:
                spans, here = found.spans[video], np.isfinite(scores)
                spans, scores = spans[here], scores[here]
                line["best"] = spans[scores == scores.max()].tolist()
                first = suppressed(spans, scores, self.nms, self.top)
                line["top"] = [[*spans[row].tolist(), round(float(scores[row]), 6)] for row in first]
            lines.append(line)
        return lines

    def _table(self, result: TaskResult, protocol_line: str) -> ReportTable:
        heads = [f"R@{name[1]} IoU {name[-3:]}" if name != "miou" else "mIoU" for name in METRICS]
        rows: list[tuple[str | float | None, ...]] = [("raw", *(result.metrics[name] for name in METRICS))]
        for further in (result.rows, result.references):
            rows += [(label, *(row.get(name) for name in METRICS)) for label, row in further.items()]
        low, high = result.intervals[METRICS[0]]
        made = result.facts["proposals"]
        notes = (
            result.ledger.line(),
            result.ledgers["videos"].line(),
            protocol_line,
            f"{METRICS[0]} 95 % interval {low:.2f} to {high:.2f}, over videos",
            f"{made['count']:,} windows of {', '.join(f'{one:g}' for one in made['lengths'])} s and whole videos, "
            f"overlap {made['overlap']:g}, thinned above IoU {made['nms']:g}; sha256 {made['sha256'][:12]}",
        )
        return ReportTable(
            f"{result.title}: moments in videos by text ({result.split})", ("scores", *heads), tuple(rows), notes
        )


@dataclass(frozen=True, slots=True)
class Scored:
    """What was found.

    Attributes:
        moments: a sample per sentence.
        lengths: video -> seconds, of those that can be read.
        spans: video -> its windows (W, 2).
        scores: of each moment, float32 (W,), NaN where nothing could be scored.
        videos: their ledger.
        wordless: texts that could not be evaluated -> why.
        texts: text -> number.
        proposals: how windows were made, how many there are, and their hash.
        unread: windows that could not be read, of videos that could.
        limited: whether a part of the split was left out.
    """

    moments: list[Sample]
    lengths: dict[str, float]
    spans: dict[str, Array]
    scores: list[Array]
    videos: Ledger
    wordless: dict[str, str]
    texts: dict[str, int]
    proposals: dict[str, Any]
    unread: list[str]
    limited: bool

    def missing(self) -> dict[str, str]:
        """Moments that could not be evaluated -> why."""
        found = {}
        for moment, scores in zip(self.moments, self.scores, strict=True):
            if not np.isfinite(scores).any():
                text = self.wordless.get(f"text {self.texts[moment.texts[0]]}")
                found[moment.id] = self.videos.missing.get(media_id(moment)) or text or "no window has a score"
        return found

    def ledger(self) -> Ledger:
        return Ledger(tuple(moment.id for moment in self.moments), self.missing(), "moments")


def _moments(sample: Sample) -> list[Sample]:
    media = sample.video or sample.audio
    start, end = (None, None) if media is None else (media.start, media.end)
    video, audio = (None if ref is None else MediaRef(ref.path) for ref in (sample.video, sample.audio))
    extra = {**sample.extra, "video_id": whole_clip(media_id(sample))}
    moment = {"start": start, "end": end}
    many = len(sample.texts) > 1
    return [
        Sample(f"{sample.id}#{i}" if many else sample.id, video, audio, (text,), moment, extra)
        for i, text in enumerate(sample.texts)
    ]


def _window(video: Sample, span: Sequence[float]) -> Sample:
    start, end = span
    picture, sound = (None if ref is None else MediaRef(ref.path, start, end) for ref in (video.video, video.audio))
    name = f"{media_id(video)}[{start:.3f}-{end:.3f}]"
    return Sample(name, picture, sound, (), {}, {"video_id": name})


def _durations(videos: dict[str, Sample]) -> tuple[dict[str, float], dict[str, str]]:
    """Seconds of each video that can be read, and why the others cannot."""
    names, rank, world = list(videos), distributed.rank(), distributed.world_size()
    lengths: dict[str, float] = {}
    lost: dict[str, str] = {}
    with closing(MediaReader()) as reader:
        for name in names[rank::world]:
            ref = videos[name].video or videos[name].audio
            try:
                if ref is None:
                    raise MediaError("the sample has no file", "empty")
                info = reader.probe(ref)
                found = info.video.end if info.video is not None else info.audio.seconds if info.audio else 0.0
                if not found > 0:
                    raise MediaError("it has no length", "empty")
                lengths[name] = float(found)
            except MediaError as error:
                lost[name] = str(error.reason)
    parts = distributed.gather_objects((lengths, lost))
    return (
        {name: part[0][name] for name in names for part in parts if name in part[0]},
        {name: part[1][name] for name in names for part in parts if name in part[1]},
    )


def _scores(
    moments: Sequence[Sample], spans: dict[str, Array], seen: Collected, words: Collected, texts: dict[str, int]
) -> list[Array]:
    """Of each moment the scores of the windows of its video, float32 (W,)."""
    shape = next((c.arrays["embedding"].shape[1:] for c in (seen, words) if "embedding" in c.arrays), (1,))
    windows, sentences = seen.full("embedding", np.nan, shape), words.full("embedding", np.nan, shape)
    first, starts = 0, {}
    for name, found in spans.items():
        starts[name] = first
        first += len(found)
    out = []
    for moment in moments:
        name = media_id(moment)
        if name not in spans:
            out.append(np.full(1, np.nan, np.float32))
            continue
        part = windows[starts[name] : starts[name] + len(spans[name])]
        vector = sentences[texts[moment.texts[0]]][None]
        if part.ndim == vector.ndim == 2:  # each product by itself, so that equal windows tie exactly
            out.append((part.astype(np.float64) * vector.astype(np.float64)).sum(1).astype(np.float32))
        else:
            out.append(compare_embeddings(vector, part)[0])
    return out
