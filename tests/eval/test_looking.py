"""Hashes of the frames that a model was shown: of a fixed choice of clips, the same however they come."""

from __future__ import annotations

import hashlib
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from vtp.eval.evaluator import Evaluator
from vtp.eval.ledger import Ledger
from vtp.eval.looking import HASHED, look, shown_frames
from vtp.eval.task import TaskResult
from vtp.types import Batch, MediaRef, Sample, VideoSpec


def sample(number: int, caption: int = 0) -> Sample:
    return Sample(f"s{number}.{caption}", MediaRef(f"{number}.mp4"), None, ("a",), {}, {"video_id": f"v{number}"})


def frames(number: int, shift: int = 0) -> np.ndarray:
    return np.random.default_rng(number).integers(0, 200, (4, 6, 8, 3)).astype(np.uint8) + np.uint8(shift)


class Loader:
    """Batches of so many clips; one is not to be read."""

    def __init__(self, samples, size, shift, unreadable):
        self.samples, self.size, self.shift = samples, size, shift
        self.misses = {s.id: "damaged" for s in samples if media(s) in unreadable}

    def __iter__(self):
        kept = [s for s in self.samples if s.id not in self.misses]
        for start in range(0, len(kept), self.size):
            part = kept[start : start + self.size]
            stacked = torch.from_numpy(np.stack([frames(media(s), self.shift) for s in part]))
            rows = torch.ones(len(part), dtype=torch.bool)
            yield Batch([s.id for s in part], {"video": {"frames": stacked}}, {"video": rows})


def media(one: Sample) -> int:
    return int(one.video.path.removesuffix(".mp4"))


class Model(torch.nn.Module):
    def specs(self):
        return {"video": VideoSpec(frames=4, size=6)}

    def forward(self, batch, run):
        return run(SimpleNamespace(batch=batch))


def looked(samples, *, size=7, shift=0, unreadable=(), predictions=(), missing=()):
    def make(table, drop):
        assert drop == ("audio", "text")
        return Loader(table, size, shift, unreadable)

    task = SimpleNamespace(samples=lambda split: samples)
    ledgers = {"videos": Ledger(("a", *missing), dict.fromkeys(missing, "gone"))}
    found = TaskResult("t", "test", {}, Ledger(("a",)), list(predictions), ledgers=ledgers)
    return look(Evaluator(Model(), make, facts={"decoder": "auto"}, progress=False), task, found)


def test_hashes_are_those_of_the_bytes_of_the_frames():
    record = looked([sample(n) for n in range(3)]).frames["pyav"]
    want = {f"v{n}": hashlib.sha256(frames(n).tobytes()).hexdigest() for n in range(3)}
    assert {name: one["sha256"] for name, one in record["items"].items()} == want
    assert [record["items"][f"v{n}"]["mean"] for n in range(3)] == pytest.approx(
        [frames(n).mean() for n in range(3)], abs=1e-3
    )
    assert (record["frames"], record["size"], record["cached"]) == (4, 6, False) and "libavcodec" in record["version"]


def test_the_choice_of_clips_depends_on_neither_order_nor_captions_nor_batches():
    many = [sample(n, caption) for n in range(40) for caption in range(2)]
    first = looked(many).frames
    assert len(first["pyav"]["items"]) == HASHED
    assert looked(many[::-1], size=1).frames == first
    gone = looked(many, missing=list(first["pyav"]["items"])[:3]).frames["pyav"]["items"]
    assert len(gone) == HASHED and len(gone.keys() & first["pyav"]["items"].keys()) == HASHED - 3
    fewer = [one for one in many if f"v{media(one)}" in first["pyav"]["items"]]
    assert looked(fewer).frames == first


def test_one_changed_pixel_value_is_seen_and_an_unreadable_clip_is_told():
    clips = [sample(n) for n in range(3)]
    first, other = looked(clips).frames["pyav"], looked(clips, shift=1).frames["pyav"]
    assert first["sha256"] != other["sha256"]
    apart = [other["items"][name]["mean"] - one["mean"] for name, one in first["items"].items()]
    assert apart == pytest.approx([1, 1, 1], abs=1e-3)
    lacking = looked(clips, unreadable=(1,)).frames["pyav"]["items"]
    assert lacking["v1"] == {"missing": "damaged"} and lacking["v0"] == first["items"]["v0"]


def test_clips_of_the_worst_and_best_items_become_pictures():
    lines = [{"id": f"s{n}.0", "video": f"v{n}", "rank": n + 1.0} for n in range(60)]
    found = looked([sample(n) for n in range(60)], predictions=lines)
    assert {one.right.id for one in (*found.worst, *found.best)} <= found.pictures.keys()
    assert len(found.worst) == len(found.best) == 10


def test_rows_that_share_a_clip_get_its_frames():
    stored = torch.arange(2, dtype=torch.uint8)[:, None, None, None, None].expand(2, 1, 1, 1, 3)
    batch = SimpleNamespace(inputs={"video": {"frames": stored}}, media_rows=[0, 0, 1])
    assert shown_frames(SimpleNamespace(batch=batch))[:, 0, 0, 0, 0].tolist() == [0, 0, 1]


def test_without_video_there_is_nothing_to_hash():
    model = SimpleNamespace(specs=lambda: {"text": None})
    found = look(
        Evaluator(model, lambda *_: pytest.fail("nothing is to be read")),
        None,
        TaskResult("t", "test", {}, Ledger(("a",))),
    )
    assert found.frames is None and found.pictures == {}
