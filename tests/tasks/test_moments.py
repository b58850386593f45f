"""Moments in videos: windows, overlaps and metrics are those of counting, and everything follows from the
predictions."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from vtp.errors import ConfigError, DataError
from vtp.eval.ledger import EVALUATED_ONLY
from vtp.eval.report import finite
from vtp.media import MediaError
from vtp.types import MediaRef, Sample
from vtp_tasks import moments as module
from vtp_tasks.moments import MomentRetrieval
from vtp_tasks.windows import iou, sliding_windows, suppressed

SECONDS = {f"v{i}": 4.0 + 3.3 * i for i in range(6)}


@pytest.mark.parametrize("seed", range(4))
def test_overlap_in_time_is_that_of_counting_milliseconds(seed):
    rng = np.random.default_rng(seed)
    spans = np.sort(rng.integers(0, 300, (40, 2)), axis=1)
    for one in spans[:10]:
        mine = set(range(*one))
        want = [len(mine & set(range(*o))) / max(len(mine | set(range(*o))), 1) for o in spans]
        np.testing.assert_allclose(iou(one / 1000, spans / 1000), want, atol=1e-12)


@pytest.mark.parametrize("seed", range(4))
def test_suppression_is_that_of_taking_and_striking_out(seed):
    rng = np.random.default_rng(seed)
    spans = np.sort(rng.uniform(0, 20, (30, 2)), axis=1)
    scores = rng.integers(0, 6, 30).astype(np.float32)
    left, want = sorted(range(30), key=lambda row: (-scores[row], row)), []
    while left:
        want.append(left[0])
        left = [row for row in left[1:] if iou(spans[want[-1]], spans[row : row + 1])[0] <= 0.4]
    assert suppressed(spans, scores, 0.4, 99) == want and suppressed(spans, scores, 0.4, 3) == want[:3]


def test_windows_slide_over_the_whole_video():
    assert sliding_windows(5, [2, 4, 30], 0.5).tolist() == [[0, 2], [0, 4], [0, 5], [1, 3], [1, 5], [2, 4], [3, 5]]
    assert sliding_windows(3.5, [2], 0.0).tolist() == [[0, 2], [0, 3.5], [1.5, 3.5]]
    assert sliding_windows(1.0, [2], 0.5).tolist() == [[0, 1]]
    for seconds in (7.3, 21.0, 90.01):
        found = sliding_windows(seconds, [2.5, 5, 10], 0.5)
        assert len(np.unique(found, axis=0)) == len(found) and found.min() == 0 and found.max() == seconds
        assert (np.diff(found[found[:, 1] - found[:, 0] == 2.5][:, 0]) <= 1.25 + 1e-9).all()


def table(count=17):
    rng = np.random.default_rng(0)
    found = []
    for i in range(count):
        name = f"v{i % 6}"
        start, end = np.sort(rng.uniform(0, SECONDS[name], 2).round(2)).tolist()
        ref = MediaRef(f"{name}.mp4", start, end)
        found.append(Sample(f"m{i}", ref, None, (f"text {i % 5}",), {}, {"video_id": f"{name}[{start:g}-{end:g}]"}))
    return found


class Embedding:
    """Vectors of whole numbers for windows, by their start, and for texts."""

    needs = frozenset({"video", "text"})

    def embed(self, ctx, modality):
        rows = []
        for s in ctx.batch.extra["sample"]:
            key = s.texts[0] if modality == "text" else f"{s.video.path} {int(s.video.start) % 4}"
            rows.append(np.random.default_rng(sum(key.encode())).integers(-1, 2, 3))
        return torch.tensor(np.array(rows), dtype=torch.float32)


@pytest.fixture
def lengths(monkeypatch):
    """Videos are as long as the table says; v4 cannot be read where it is asked for."""
    lost: set[str] = set()

    class Reader:
        def probe(self, ref):
            name = ref.path.removesuffix(".mp4")
            assert ref.start is None and ref.end is None
            if name in lost:
                raise MediaError("moov atom not found", "broken")
            return SimpleNamespace(video=SimpleNamespace(end=SECONDS[name]), audio=None)

        def close(self):
            pass

    monkeypatch.setattr(module, "MediaReader", Reader)
    return lost


def measure(task, fake_model, make_evaluator, **options):
    return task.evaluate(make_evaluator(fake_model(vtc=Embedding()), task, **options))


@pytest.mark.parametrize("lost", [(), ("v4",)], ids=["whole", "a broken video"])
def test_metrics_are_those_of_counting(lost, lengths, fake_dataset, fake_model, make_evaluator):
    lengths |= set(lost)
    task = MomentRetrieval(dataset=fake_dataset(test=table()), windows=[2, 4], nms=0.4)
    result = measure(task, fake_model, make_evaluator)
    means: dict[str, list[float]] = {}
    count = 0
    for name in SECONDS:
        count += 0 if name in lost else len(sliding_windows(SECONDS[name], [2, 4], 0.5))
    vector = lambda key: np.random.default_rng(sum(key.encode())).integers(-1, 2, 3)  # noqa: E731
    for sample in table():
        name = sample.video.path.removesuffix(".mp4")
        spans = sliding_windows(SECONDS[name], [2, 4], 0.5)
        scores = np.array([vector(sample.texts[0]) @ vector(f"{name}.mp4 {int(s) % 4}") for s, _ in spans])
        fits = iou((sample.video.start, sample.video.end), spans)
        best, five = fits[scores == scores.max()], fits[suppressed(spans, scores, 0.4, 5)]
        there = 0.0 if name in lost else 100.0
        for m in (0.3, 0.5, 0.7):
            means.setdefault(f"r1/iou{m}", []).append(there * (best >= m).mean())
        for m in (0.5, 0.7):
            means.setdefault(f"r5/iou{m}", []).append(there * (five >= m).any())
        means.setdefault("miou", []).append(there * best.mean())
    assert result.metrics == {name: pytest.approx(np.mean(values)) for name, values in means.items()}
    assert next(iter(result.metrics)) == "r1/iou0.5" and set(result.metrics) == set(task.metrics)
    assert result.facts["proposals"]["count"] == count and result.protocol["proposals"] == result.facts["proposals"]
    assert result.rows["the whole video"]["miou"] > 0
    if lost:
        assert result.missing == {"videos": 1, "moments": 3 - (17 % 6 <= 4)} and EVALUATED_ONLY in result.rows
        assert all(low <= result.metrics[n] < high for n, (low, high) in result.bounds.items())
        assert {line["missing"] for line in result.predictions if "missing" in line} == {"moov atom not found"}
    else:
        assert not result.missing and not result.bounds and not result.warnings

    lines = [json.loads(json.dumps(finite(line))) for line in result.predictions]
    counted = task.recount(lines, json.loads(json.dumps(finite(result.facts))))
    assert counted.metrics == result.metrics and counted.bounds == result.bounds
    assert counted.intervals(task.seed) == result.intervals
    assert all(result.rows[label] == row for label, row in counted.rows.items())
    assert (counted.expected, counted.missing) == (17, dict(result.ledger.missing))
    assert [line["iou"] for line in lines] == [one["iou"] for one in counted.derived]
    assert dict(task.protocol.match(counted.samples, "toy", "test").sha256) == result.protocol["sha256"]
    assert len(set(counted.items["miou"].clips)) == 6  # sentences about one video are one witness
    assert task.evaluate(make_evaluator(fake_model(vtc=Embedding()), task), detail=False).metrics == result.metrics


def test_a_model_that_knows_finds_every_moment(lengths, fake_dataset, fake_model, make_evaluator):
    spans = {name: sliding_windows(SECONDS[name], [3], 0.5) for name in SECONDS}
    samples = []
    for name, windows in spans.items():
        start, end = windows[len(windows) // 2].tolist()
        named = {"video_id": f"{name}[{start:g}-{end:g}]"}
        samples.append(Sample(name, MediaRef(f"{name}.mp4", start, end), None, (f"in {name}",), {}, named))
    right = {s.id: (s.video.start, s.video.end) for s in samples}

    class Knows(Embedding):
        def embed(self, ctx, modality):
            rows = []
            for s in ctx.batch.extra["sample"]:
                hit = modality == "text" or (s.video.start, s.video.end) == right[s.video.path[:2]]
                rows.append([1.0, 0.0] if hit else [0.0, 1.0])
            return torch.tensor(rows)

    task = MomentRetrieval(dataset=fake_dataset(test=samples), windows=[3])
    result = task.evaluate(make_evaluator(fake_model(vtc=Knows()), task))
    assert set(result.metrics.values()) == {100.0}
    assert result.predictions[0]["top"][0][:2] == list(right["v0"]) and result.predictions[0]["iou"] == 1.0


@pytest.mark.parametrize(
    "options, words",
    [
        ({"windows": []}, "task.windows"),
        ({"windows": [5, -1]}, "task.windows"),
        ({"overlap": 1.0}, "task.overlap=1.0"),
        ({"nms": 0}, "task.nms=0"),
        ({"gallery": "text"}, "task.gallery: a moment is searched by a text"),
        ({"gallery": "vidio"}, "Did you mean 'video'"),
    ],
)
def test_wrong_options_are_refused(options, words, fake_dataset):
    with pytest.raises(ConfigError, match=words):
        MomentRetrieval(dataset=fake_dataset(), **options)


def test_clips_without_a_span_are_no_moments(fake_dataset):
    samples = [*table(2), Sample("whole", MediaRef("v0.mp4"), None, ("a",), {}, {"video_id": "v0"})]
    with pytest.raises(DataError, match=r"1 of 3 samples of the test split have no start and end \(first: whole\)"):
        MomentRetrieval(dataset=fake_dataset(test=samples)).check_split("test")
