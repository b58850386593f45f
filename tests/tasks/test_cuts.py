"""Cuts of a benchmark: the numbers on them are those of a set that has nothing else, and the difference adds up."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from vtp.errors import ConfigError
from vtp.eval.protocol import Protocol
from vtp.types import MediaRef, Sample
from vtp_tasks import cuts
from vtp_tasks.retrieval import Retrieval

CUTS = {
    "a_clip_less": {"title": "all but one", "rule": "without", "without": ["v3"], "circulates": [7]},
    "first": {"title": "one text of each clip", "rule": "first_caption"},
    "heard": {"title": "with sound", "rule": "sound"},
    "left": {"title": "readable ones", "rule": "readable"},
    "drawn": {"title": "drawn by somebody", "circulates": [5]},
}
CLIPS = 8


class Random:
    """Embeddings drawn from the names of clips and texts."""

    needs = frozenset({"video", "text"})

    def embed(self, ctx, modality):
        keys = [s.id if modality == "video" else s.texts[0] for s in ctx.batch.extra["sample"]]
        drawn = [np.random.default_rng(list(key.encode())).standard_normal(4) for key in keys]
        return torch.nn.functional.normalize(torch.tensor(np.array(drawn), dtype=torch.float32), dim=1)


def samples(keep=lambda clip, number: True) -> list[Sample]:
    """Up to three texts of each clip."""
    found = []
    for clip in range(CLIPS):
        media = MediaRef(f"v{clip}.mp4")
        for number in range(1 + clip % 3):
            if keep(clip, number):
                ids = {"video_id": f"v{clip}"}
                found.append(Sample(f"q{clip}.{number}", media, media, (f"text {clip} {number}",), {}, ids))
    return found


@pytest.fixture
def scores(fake_dataset, fake_model, make_evaluator, tmp_path):
    """``scores(samples, cuts)``: the result of a retrieval over them."""

    def run(table, named=None, **options):
        task = Retrieval(dataset=fake_dataset(test=table), protocol=None, **options)
        task.protocol = Protocol("toy", "a toy", "fake", "retrieval", "test", {}, cuts=named or {})
        return task.evaluate(make_evaluator(fake_model(vtc=Random()), task))

    return run


@pytest.mark.parametrize("v2t", ["any", "set"])
@pytest.mark.parametrize(
    "name, keep", [("a_clip_less", lambda clip, _: clip != 3), ("first", lambda _, number: number == 0)]
)
def test_a_cut_scores_as_if_there_were_nothing_else(name, keep, v2t, scores):
    got = scores(samples(), {name: CUTS[name]}, v2t=v2t)
    want = scores(samples(keep), v2t=v2t)
    assert got.protocol["cuts"][name]["metrics"] == pytest.approx(want.metrics | {}, abs=1e-9)
    (label,) = [label for label in got.rows if label.startswith("cut ")]
    assert got.rows[label] == got.protocol["cuts"][name]["metrics"]
    assert got.metrics == scores(samples(), v2t=v2t).metrics  # the headline is that of the whole set


def test_the_difference_is_explained_by_its_two_parts(scores):
    found = scores(samples(), {"a_clip_less": CUTS["a_clip_less"]})
    record = found.protocol["cuts"]["a_clip_less"]
    assert record["counts"] == {"videos": 7, "queries": 14} and record["verified"] is False
    line = next(note for note in found.tables[0].notes if note.startswith("cut a_clip_less"))
    for direction in ("t2v", "v2t"):
        parts = record["difference"][f"{direction}/r1"]
        assert parts["total"] == pytest.approx(record["metrics"][f"{direction}/r1"] - found.metrics[f"{direction}/r1"])
        assert parts["total"] == pytest.approx(parts["other_queries"] + parts["fewer_candidates"])
        assert parts["fewer_candidates"] >= 0  # a candidate less can only let others rise
    asked = [line["hit"] for line in found.predictions if line["direction"] == "t2v" and line["target"] != ["v3"]]
    same_gallery = 100 * np.mean(asked)
    assert record["difference"]["t2v/r1"]["other_queries"] == pytest.approx(same_gallery - found.metrics["t2v/r1"])
    assert "7 of 8 videos, 14 of 15 queries; unverified" in line and "circulates with 7 clips" in line


def test_a_cut_that_nobody_can_make_is_told_and_not_scored(scores):
    found = scores(samples(), {"drawn": CUTS["drawn"], "left": CUTS["left"]})
    told = {name: record["not_computed"] for name, record in found.protocol["cuts"].items()}
    assert told["drawn"] == "which clips it holds is not known"
    assert told["left"] == "it is the whole set here (8 of 8 videos)"
    assert not [label for label in found.rows if label.startswith("cut ")]
    assert "cuts" not in scores(samples(), CUTS, cuts=False).protocol


def test_clips_with_sound_are_those_that_the_model_heard_or_whose_files_say_so(monkeypatch):
    videos = SimpleNamespace(rows=np.array([0, 2]), present={"audio": np.array([False, True])})
    pairs = SimpleNamespace(videos=samples()[:3])
    scored = SimpleNamespace(videos=videos, pairs=pairs)
    assert cuts._with_sound(scored, heard=True).tolist() == [False, False, True]
    monkeypatch.setattr(cuts, "_sounds", lambda reader, clip: clip.id == "q0.0")
    assert cuts._with_sound(scored, heard=False).tolist() == [True, False, False]


def test_files_are_asked_for_sound(tmp_path):
    from vtp.media.isolation import MediaReader

    (tmp_path / "broken.mp4").write_bytes(b"no video")
    reader = MediaReader(isolate=False)
    assert not cuts._sounds(reader, Sample("a", MediaRef(str(tmp_path / "broken.mp4"))))
    assert not cuts._sounds(reader, Sample("a", texts=("a",)))


@pytest.mark.parametrize(
    "cut, said",
    [
        ({"title": "a", "rule": "loud"}, "cuts.c.rule: 'loud' must be one of sound"),
        ({"rule": "sound"}, "cuts.c: title is lacking"),
        ({"title": "a", "size": 3}, "cuts.c: unknown size; known: title"),
    ],
)
def test_a_protocol_with_a_cut_that_could_bind_nothing_is_refused(cut, said, tmp_path):
    import yaml

    content = {"name": "t", "title": "t", "dataset": "d", "kind": "retrieval", "split": "test", "counts": {"videos": 1}}
    file = Path(tmp_path / "t.yaml")
    file.write_text(yaml.safe_dump(content | {"cuts": {"c": cut}}))
    with pytest.raises(ConfigError, match=said):
        Protocol.load(file)
