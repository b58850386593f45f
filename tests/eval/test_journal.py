"""An evaluation that is stopped goes on where it was: nothing is scored twice, and the results are the same."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from vtp.eval.evaluator import Evaluator
from vtp.eval.journal import FOLDER, Journal
from vtp.types import Batch, Sample

TABLE = [Sample(f"s{n}") for n in range(10)]
BAD = {"s3": "damaged", "s9": "gone"}


class Loader:
    """Batches of four rows of the table; some rows are not to be read."""

    def __init__(self, table, skip):
        self.table, self.skip, self.misses = table, skip, {}

    def __iter__(self):
        for start in range(0, len(self.table), 4):
            part = [one.id for one in self.table[start : start + 4] if one.id not in self.skip]
            self.misses |= {name: BAD[name] for name in part if name in BAD}
            if kept := [name for name in part if name not in BAD]:
                yield Batch(kept, {}, {"text": torch.tensor([int(name[1:]) % 2 == 0 for name in kept])})


class Model(torch.nn.Module):
    def forward(self, batch, run):
        return run(SimpleNamespace(batch=batch))


class Stopped(Exception):
    """In place of kill -9."""


def evaluate(journal, *, die_at=None, twice=False):
    """Two passes where ``twice``; ids that were scored, in order, and what came out."""
    scored: list[str] = []

    def score(ctx):
        if die_at is not None and len(scored) >= die_at:
            raise Stopped
        scored.extend(ctx.batch.ids)
        numbers = torch.tensor([float(name[1:]) for name in ctx.batch.ids])
        parted = {
            "a\0loss": numbers + 1,
            "a\0weight": numbers + 2,
            "a": numbers + 3,
        }  # as losses.py names what it gives
        return {"number": numbers, "vector": torch.stack([numbers, numbers**2], 1), "row": numbers.long(), **parted}

    evaluator = Evaluator(Model(), lambda table, drop, skip=(): Loader(table, skip), progress=False, journal=journal)
    found = []
    try:
        for label in ("a", "b")[: 1 + twice]:
            found.append(evaluator.run(TABLE, score, label=label))
    except Stopped:
        pass
    return scored, found


def same(one, other):
    assert (one.table, one.misses, one.what) == (other.table, other.misses, other.what)
    np.testing.assert_array_equal(one.rows, other.rows)
    for arrays in ("arrays", "present"):
        ours, theirs = getattr(one, arrays), getattr(other, arrays)
        assert ours.keys() == theirs.keys()
        for name in ours:
            assert ours[name].dtype == theirs[name].dtype
            np.testing.assert_array_equal(ours[name], theirs[name])


@pytest.mark.parametrize("die_at", [0, 1, 4, 7])
def test_nothing_is_scored_twice_and_the_results_are_the_same(die_at, tmp_path):
    unbroken, (want,) = evaluate(None)
    first, _ = evaluate(Journal(tmp_path, "weights", resume=False), die_at=die_at)
    second, (got,) = evaluate(Journal(tmp_path, "weights", resume=True))
    assert sorted(first + second) == sorted(unbroken) and len(first) < len(unbroken)
    same(got, want)
    third, (again,) = evaluate(Journal(tmp_path, "weights", resume=True))
    assert third == []
    same(again, want)


def test_passes_are_told_apart(tmp_path):
    _, want = evaluate(None, twice=True)
    evaluate(Journal(tmp_path, "weights", resume=False), die_at=12, twice=True)  # in the second pass
    scored, got = evaluate(Journal(tmp_path, "weights", resume=True), twice=True)
    assert scored == ["s8"]  # the last batch of the second pass
    for one, other in zip(got, want, strict=True):
        same(one, other)


@pytest.mark.parametrize("damage", ["short", "flipped"])
def test_a_record_that_is_not_whole_is_scored_again(damage, tmp_path):
    evaluate(Journal(tmp_path, "weights", resume=False), die_at=7)
    (file,) = (tmp_path / FOLDER / "1").iterdir()
    content = bytearray(file.read_bytes())
    if damage == "short":
        del content[-1:]
    else:
        content[-1] ^= 1
    file.write_bytes(content)
    scored, (got,) = evaluate(Journal(tmp_path, "weights", resume=True))
    assert scored == ["s4", "s5", "s6", "s7", "s8"]  # the first batch is whole
    same(got, evaluate(None)[1][0])


@pytest.mark.parametrize("identity, resume", [("other weights", True), ("weights", False)])
def test_results_of_other_weights_and_of_a_new_start_do_not_count(identity, resume, tmp_path):
    evaluate(Journal(tmp_path, "weights", resume=False))
    scored, _ = evaluate(Journal(tmp_path, identity, resume=resume))
    assert len(scored) == 8


def test_the_folder_goes_once_the_report_is_written(tmp_path):
    journal = Journal(tmp_path, "weights", resume=False)
    evaluate(journal)
    assert (tmp_path / FOLDER).is_dir()
    journal.forget()
    assert not (tmp_path / FOLDER).exists()
    assert Journal.of(tmp_path, "config", None, resume=True) is None
    assert Journal.of(tmp_path, "config", tmp_path, resume=True) is None  # a folder without weights


def test_a_full_disk_ends_the_journal_and_not_the_evaluation(tmp_path, caplog, monkeypatch):
    journal = Journal(tmp_path, "weights", resume=False)
    (tmp_path / FOLDER / "1").rmdir()  # nothing can be written into it
    _, (got,) = evaluate(journal)
    same(got, evaluate(None)[1][0])
    assert caplog.text.count("cannot be resumed") == 1


def test_a_loader_leaves_rows_out_and_keeps_the_others_in_their_batches():
    from vtp.data.eval_loader import EvalLoader
    from vtp.data.workers import Delivery

    pipeline = SimpleNamespace(train=False, with_bad=lambda bad: None)
    loader = EvalLoader(TABLE, pipeline, batch_size=4, skip={"s0", "s4", "s5", "s6", "s7"})
    loads: list[list[int]] = []
    loader._load = lambda rows: loads.append(list(rows)) or Delivery(None)
    list(loader)
    assert loads == [[1, 2, 3], [8, 9]]
