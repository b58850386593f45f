"""Which rows of which part come in an epoch, in which order, and that it depends on seed and epoch alone."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from number_files import NumberReader, fingerprint, pipeline, take
from number_files import table as plain_table

from vtp.data import BadFiles, TrainLoader
from vtp.data.mixture import Mixture
from vtp.data.presence import look
from vtp.errors import ConfigError, DataError, RunError
from vtp.types import MediaRef, Sample
from vtp_datasets.mix import MixTable


def part(name: str, count: int, first: int = 0) -> list[Sample]:
    """Rows whose file and text are their number, from ``first`` on."""
    return [
        Sample(
            str(i), MediaRef(f"{name}/{first + i}"), MediaRef(f"{name}/{first + i}"), (f"{first + i}",), {"answer": i}
        )
        for i in range(count)
    ]


def mix(**options: Any) -> MixTable:
    """30 rows of a (0 to 29), 10 of b (100 to 109)."""
    return MixTable(Mixture({"a": part("a", 30), "b": part("b", 10, 100)}, **options), {"a": "a", "b": "b"})


def in_order(place: int, generator: np.random.Generator) -> Any:
    return generator.permutation({0: 30, 1: 10}[place])


def drawn(table: MixTable, epoch: int, batch: int = 8, seed: int = 0) -> tuple[list[int], list[int]]:
    rows, passes = table.mixture.order(seed, epoch, batch, in_order)
    return rows.tolist(), [epoch] * len(rows) if passes is None else passes.tolist()


def loader(table: Any, **options: Any) -> TrainLoader:
    options = {"global_batch": 8, "seed": 5, "reader": NumberReader()} | options
    return TrainLoader(table, pipeline(reader=options.pop("reader")), **options)


def parts_of(ids: list[str]) -> Counter[str]:
    return Counter(name.partition("/")[0] for name in ids)


@pytest.mark.parametrize("how", [{}, {"temperature": 1.0}, {"weights": {"a": 3, "b": 1}}, {"turns": True}], ids=str)
def test_by_default_every_row_comes_once_in_an_epoch(how: Any) -> None:
    rows, passes = drawn(mix(**how), 3)
    assert sorted(rows) == list(range(40)) and set(passes) == {3}
    assert rows != drawn(mix(**how), 4)[0] and rows != drawn(mix(**how), 3, seed=1)[0]
    assert rows == drawn(mix(**how), 3)[0]


def test_parts_in_turn_come_one_after_another() -> None:
    rows, _ = drawn(mix(turns=True), 0)
    assert sorted(rows[:30]) == list(range(30)) and rows[:30] != list(range(30))
    early = [sum(row >= 30 for row in drawn(mix(), epoch)[0][:30]) for epoch in range(200)]
    assert np.mean(early) == pytest.approx(7.5, abs=0.3)  # of the 10 rows of b; hypergeometric, std 1.2 / sqrt(200)


@pytest.mark.parametrize(
    "how, expected",
    [
        ({"weights": {"a": 1, "b": 1}}, (20, 20)),
        ({"weights": {"a": 1, "b": 7}}, (5, 35)),
        ({"temperature": 0.0}, (20, 20)),
        # 30^0.5 : 10^0.5 = 1.732 : 1, of 40 rows 25.36 and 14.64
        ({"temperature": 0.5}, (25, 15)),
    ],
    ids=str,
)
def test_shares_of_an_epoch(how: Any, expected: tuple[int, int]) -> None:
    table = mix(**how)
    assert tuple(table.mixture.counts(8)) == expected
    for epoch in range(3):
        rows, _ = drawn(table, epoch)
        assert (sum(r < 30 for r in rows), sum(r >= 30 for r in rows)) == expected


def test_epochs_of_a_part_follow_each_other_without_a_gap() -> None:
    """Whatever its share, a part shows all its rows before one comes again, and then with another key."""
    table = mix(weights={"a": 1, "b": 3})  # 10 and 30 of 40
    seen: dict[str, list[tuple[int, int]]] = {"a": [], "b": []}
    for epoch in range(6):
        for row, number in zip(*drawn(table, epoch), strict=True):
            seen["a" if row < 30 else "b"].append((row, number))
    for name, size in (("a", 30), ("b", 10)):
        whole = len(seen[name]) // size
        for turn in range(whole):
            stretch = seen[name][turn * size : (turn + 1) * size]
            assert len({row for row, _ in stretch}) == size and {number for _, number in stretch} == {turn}
        assert len(set(seen[name])) == len(seen[name])  # row and key never come together twice


def test_a_small_share_still_comes() -> None:
    table = mix(weights={"a": 1_000_000, "b": 1})
    assert tuple(table.mixture.counts(8)) == (39, 1)


@pytest.mark.parametrize("how", [{}, {"weights": {"a": 1, "b": 1}}, {"turns": True}], ids=str)
def test_batches_of_one_part(how: Any) -> None:
    batches = loader(mix(batches="part", **how))
    assert batches.steps_per_epoch == 5
    found = [parts_of(batch.ids) for batch in take(batches, 15)]
    assert all(len(one) == 1 for one in found)
    whole = Counter(name for one in found for name in one)
    assert whole == ({"a": 12, "b": 3} if not how or "turns" in how else {"a": 9, "b": 6})  # 3.75 : 1.25 and 2.5 : 2.5
    mixed = [parts_of(batch.ids) for batch in take(loader(mix()), 5)]
    assert any(len(one) == 2 for one in mixed)


def test_a_batch_that_parts_cannot_fill_is_refused_before_the_first() -> None:
    with pytest.raises(ConfigError, match=r"an epoch of 40 rows has 1 batches of 32 for 2 parts.*at most 20"):
        loader(mix(batches="part"), global_batch=32)


def test_one_part_is_that_part() -> None:
    alone = MixTable(Mixture({"x": plain_table(20)}, {"x": 2.0}, None, True, "part"), {"x": "x"})
    for group in (1, 3):
        for ours, plain in zip(
            take(loader(alone, group=group), 12), take(loader(plain_table(20), group=group), 12), strict=True
        ):
            assert [name.removeprefix("x/") for name in ours.ids] == plain.ids
            ours.extra["video_id"] = [name.removeprefix("x:") for name in ours.extra["video_id"]]
            assert fingerprint(ours)[1:] == fingerprint(plain)[1:]


@pytest.mark.parametrize("how", [{}, {"weights": {"a": 1, "b": 3}}, {"batches": "part"}], ids=str)
@pytest.mark.parametrize("workers", [0, 2])
def test_resume_ranks_and_workers_see_the_same_rows(how: Any, workers: int) -> None:
    whole = [fingerprint(batch) for batch in take(loader(mix(**how)), 12)]
    resumed = loader(mix(**how), workers=workers)
    resumed.load_state_dict({"samples": 7 * 8})
    assert [fingerprint(batch) for batch in take(resumed, 5)] == whole[7:]
    ranks = [take(loader(mix(**how), rank=rank, world_size=2), 12) for rank in (0, 1)]
    ids = [[*one.ids, *two.ids] for one, two in zip(*ranks, strict=True)]
    assert ids == [batch.ids for batch in take(loader(mix(**how)), 12)]


def test_a_row_that_comes_again_in_an_epoch_is_drawn_anew() -> None:
    """Which frames is a random choice, keyed by the epoch of the part: 3 of 100, so hardly twice the same."""
    seen: dict[str, list[Any]] = {}
    for batch in take(loader(mix(weights={"a": 1, "b": 7})), 5):  # an epoch: 35 rows of the 10 of b
        for name, frames in zip(batch.ids, batch.inputs["video"]["frames"].tolist(), strict=True):
            seen.setdefault(name, []).append(frames)
    again = [frames for frames in seen.values() if len(frames) > 2]
    assert len(again) >= 5 and all(frames[0] != frames[1] for frames in again)


@pytest.mark.parametrize("batches", ["mixed", "part"])
def test_grouped_rows_of_a_clip_stay_together_and_batches_pure(batches: Any) -> None:
    """5 rows per clip: with group=5 a batch of 20 needs at most 8 decodes, without about 20."""
    tables = {"a": plain_table(40, per_file=5), "b": plain_table(20, per_file=5)}
    table = MixTable(Mixture(tables, None, None, False, batches), {"a": "a", "b": "b"})
    grouped = take(loader(table, global_batch=20, group=5), 6)
    clips = [batch.inputs["video"]["frames"].shape[0] for batch in grouped]
    alone = [batch.inputs["video"]["frames"].shape[0] for batch in take(loader(table, global_batch=20), 6)]
    assert sum(clips) < sum(alone) * 0.8
    if batches == "part":
        assert all(len(parts_of(batch.ids)) == 1 for batch in grouped)


def test_a_bad_row_is_replaced_by_one_of_its_part(tmp_path: Path) -> None:
    bad = BadFiles(tmp_path / "bad.jsonl", 1.0)
    batches = loader(mix(batches="part"), reader=NumberReader(bad=range(100, 105)), bad=bad)
    assert all(len(parts_of(batch.ids)) == 1 for batch in take(batches, 10))
    tried = batches.tried()
    assert tried["a"][1] == 0 and 0 < tried["b"][1] < tried["b"][0]
    assert tried["a"][0] + tried["b"][0] - tried["b"][1] == 80
    assert all(entry["id"].startswith("b/") for entry in bad.entries())


def test_a_small_part_that_is_all_damage_stops_the_run(tmp_path: Path) -> None:
    """2 bad of 12 rows of b are 17 % of it, and less than the 1 % of all that is allowed."""
    tables = {"a": part("a", 900), "b": part("b", 12, 1000)}
    table = MixTable(Mixture(tables, {"a": 1, "b": 1}), {"a": "a", "b": "b"})
    bad = BadFiles(tmp_path / "bad.jsonl", 0.05)
    with pytest.raises(RunError, match=r"\d+ of \d+ samples of b drawn so far could not be decoded"):
        take(loader(table, reader=NumberReader(bad=[1000, 1001]), bad=bad), 40)


def test_absent_files_are_told_per_part() -> None:
    table = mix()
    gone = {"a/3", "b/101", "b/102"}
    found = look(table, lambda sample: sample.video, lambda path: path not in gone)
    assert found.line() == (
        "a: 1 of 30 training clips are not on the disk (first: a/3); training on the 29 that are, 29 of 30 samples; "
        "b: 2 of 10 training clips are not on the disk (first: b/101); training on the 8 that are, 8 of 10 samples"
    )
    assert found.record()["parts"]["b"]["absent_clips"] == 2
    left = found.take(table)
    assert [len(one) for one in left.mixture.tables.values()] == [29, 8]
    assert [s.video.path for s in left][27:31] == ["a/28", "a/29", "b/100", "b/103"]
    none = look(table, lambda sample: sample.video, lambda path: path.startswith("a"))
    with pytest.raises(DataError, match=r"none of the 10 training clips of dataset\.parts\.b is on the disk"):
        none.take(table)


def test_rows_keep_who_they_are() -> None:
    table = mix()
    assert len({sample.id for sample in table}) == 40
    sample = table[31]
    assert (sample.id, sample.extra["video_id"], sample.extra["part"]) == ("b/1", f"b:{Path.cwd()}/b/101", "b")
    assert (
        list(table.video_ids())
        == [s.extra["video_id"] for s in table]
        == [table[i].extra["video_id"] for i in range(40)]
    )
    assert list(table.all_texts()) == [text for s in table for text in s.texts]
    cut = table.select(np.array([2, 5, 35]))
    assert isinstance(cut, MixTable) and [s.id for s in cut] == ["a/2", "a/5", "b/5"]
    back = table.select(np.array([35, 2]))
    assert [s.id for s in back] == ["b/5", "a/2"]
    assert table[-1].id == "b/9"


def test_the_order_of_a_part_is_its_own() -> None:
    """A part that says in which order its rows are read, as shards do, is asked."""

    class Backwards(list[Sample]):
        def epoch_order(self, generator: np.random.Generator) -> Any:
            return np.arange(len(self))[::-1]

    table = MixTable(Mixture({"a": part("a", 30), "b": Backwards(part("b", 10, 100))}), {"a": "a", "b": "b"})
    order, _ = loader(table)._order(0)
    assert [row - 30 for row in order.tolist() if row >= 30] == list(range(10))[::-1]
