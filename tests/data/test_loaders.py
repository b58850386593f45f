"""Which rows a loader gives, in which order, on which rank, with which randomness, and what it does about broken
files."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import signal
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from number_files import SPECS, NumberReader, fingerprint, pipeline, table, take

from vtp.contracts import Read
from vtp.data import BadFiles, EvalLoader, Pipeline, TrainLoader, keyed_generator
from vtp.data import workers as loader_workers
from vtp.errors import ConfigError, DataError, RunError
from vtp.media import MediaError, Wanted
from vtp.media.multi_view import InWindows, View, Windows
from vtp.media.sampling import dense
from vtp.media.transforms import TrainTransform
from vtp.types import Batch, Clip, MediaRef, Sample


def loader(count: int = 20, global_batch: int = 4, reader: Any = None, **options: Any) -> TrainLoader:
    return TrainLoader(table(count), pipeline(reader=reader), global_batch=global_batch, **options)


def test_an_epoch_shows_every_sample_once_in_an_order_of_its_own() -> None:
    train = loader(count=10, global_batch=3)
    assert train.steps_per_epoch == 3
    ids = [batch.ids for batch in take(train, 6)]
    first, second = sum(ids[:3], []), sum(ids[3:], [])
    assert len(set(first)) == len(set(second)) == 9 and first != second  # 10 is no multiple of 3: one is left out
    assert train.epoch == 2 and train.state_dict() == {"samples": 18, "tried": {"": [18, 0]}}


def test_a_table_smaller_than_the_batch_runs_over_into_the_next_epoch() -> None:
    train = loader(count=3, global_batch=8)
    batches = take(train, 3)
    rows = sum((batch.ids for batch in batches), [])
    assert Counter(rows) == {"s0": 8, "s1": 8, "s2": 8}
    assert all(len(set(rows[i : i + 3])) == 3 for i in range(0, 24, 3))
    pixels = {
        (r, tuple(b.inputs["video"]["frames"][k].flatten().tolist())) for b in batches for k, r in enumerate(b.ids)
    }
    assert len(pixels) > 12  # repeated rows are augmented anew
    assert train.steps_per_epoch == 1


@pytest.mark.parametrize("workers", [1, 2])
def test_workers_do_not_change_a_batch(workers: int) -> None:
    expected = [
        fingerprint(batch) for batch in take(loader(reader=NumberReader(bad=[3, 7]), bad=BadFiles(None, 1.0)), 7)
    ]
    got = take(loader(reader=NumberReader(bad=[3, 7]), workers=workers, bad=BadFiles(None, 1.0)), 7)
    assert [fingerprint(batch) for batch in got] == expected


@pytest.mark.parametrize("workers", [0, 2])
def test_a_resumed_loader_goes_on_exactly(workers: int) -> None:
    whole = [fingerprint(batch) for batch in take(loader(workers=workers), 9)]
    first = loader(workers=workers)
    take(first, 4)
    second = loader(workers=workers)
    second.load_state_dict(first.state_dict())
    assert [fingerprint(batch) for batch in take(second, 5)] == whole[4:]
    assert [fingerprint(batch) for batch in take(first, 5)] == whole[4:]  # the same object can be iterated again


def test_a_resumed_loader_remembers_what_was_tried() -> None:
    bad = {"reader": NumberReader(bad=[3, 7]), "bad": BadFiles(None, 1.0)}
    whole, first, second = loader(**bad), loader(**bad), loader(**bad)
    take(whole, 9), take(first, 4)
    second.load_state_dict(first.state_dict())
    assert second.tried() == first.tried()
    take(second, 5)
    assert second.tried() == whole.tried() and whole.tried()[""][1] > 0
    other = loader(rank=1, world_size=2)
    other.load_state_dict(first.state_dict())
    assert other.tried() == {"": (0, 0)}  # the first process has them
    second.load_state_dict({"samples": 4})  # of an older vtp
    assert second.tried() == {"": (0, 0)}


def test_ranks_share_a_global_batch() -> None:
    whole = take(loader(global_batch=6), 4)
    ranks = [take(loader(global_batch=6, rank=rank, world_size=3), 4) for rank in range(3)]
    for step, batch in enumerate(whole):
        assert sum((parts[step].ids for parts in ranks), []) == batch.ids
        for rank, parts in enumerate(ranks):
            part = parts[step]
            assert (part.row_offset, part.global_rows, part.step) == (2 * rank, 6, step)
            frames = batch.inputs["video"]["frames"][2 * rank : 2 * rank + 2]
            torch.testing.assert_close(part.inputs["video"]["frames"], frames, rtol=0, atol=0)
    with pytest.raises(
        ConfigError, match=r"global_batch=7 must be a positive multiple of the number of processes, 3. Nearest: 6"
    ):
        loader(global_batch=7, world_size=3)


def test_the_seed_changes_order_and_augmentation() -> None:
    one, two = (take(TrainLoader(table(20), pipeline(seed=s), global_batch=4, seed=s), 1)[0] for s in (0, 1))
    assert one.ids != two.ids
    same = pipeline(seed=0)(table(20)[5], 0, 5), pipeline(seed=1)(table(20)[5], 0, 5)
    assert not np.array_equal(same[0].frames, same[1].frames)


def test_starting_a_loader_leaves_the_global_generator_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    take(loader(workers=0), 2)
    take(loader(workers=1), 1)
    assert torch.equal(torch.rand(3), expected)


def check_pairs(batches: Sequence[Batch], bad: set[int]) -> Counter[int]:
    """Picture, sound, caption, id and label of every row are those of one and the same good sample."""
    seen: Counter[int] = Counter()
    for batch in batches:
        for row, name in enumerate(batch.ids):
            number = int(name[1:])
            seen[number] += 1
            assert number not in bad
            assert batch.labels["answer"][row] == number
            assert batch.inputs["text"]["token_ids"][row, 1] == number + 10
            sound = batch.inputs["audio"]["waveform"][row]
            assert float(sound[0]) % 1 == pytest.approx(number / 1000, abs=1e-4)
    return seen


@pytest.mark.parametrize("workers", [0, 2])
def test_with_a_fifth_of_the_files_broken_every_pair_is_a_true_pair(tmp_path: Path, workers: int) -> None:
    bad, tries = set(range(0, 50, 5)), tmp_path / "tries"
    ledger = BadFiles(tmp_path / "run/bad_samples.jsonl", max_bad_fraction=0.5)
    reader = NumberReader(tuple(bad), tries)
    train = TrainLoader(table(50), pipeline(reader=reader), global_batch=10, workers=workers, bad=ledger)
    seen = check_pairs(take(train, 25), bad)
    assert set(seen) == set(range(50)) - bad and sum(seen.values()) == 250
    entries = [json.loads(line) for line in (tmp_path / "run/bad_samples.jsonl").read_text().splitlines()]
    assert sorted(int(e["path"][3:]) for e in entries) == sorted(bad)  # once each
    assert {(e["reason"], e["backend"], e["kind"]) for e in entries} == {("moov atom not found", "fake", "invalid")}
    opens = Counter(tries.read_text().split())
    assert all(opens[f"/v/{number}"] <= max(1, workers) for number in bad)  # two workers may meet it at the same moment


def test_the_replacement_does_not_depend_on_who_failed_first(tmp_path: Path) -> None:
    expected = take(loader(20, reader=NumberReader([1, 2, 3]), bad=BadFiles(None, 1.0)), 10)
    ledger = BadFiles(tmp_path / "bad.jsonl", 1.0)
    for number in (3, 1, 2):  # known beforehand, as after a resume
        ledger.add(table(20)[number], MediaRef(f"/v/{number}"), MediaError("moov atom not found"))
    got = take(loader(20, reader=NumberReader([1, 2, 3]), bad=ledger), 10)
    assert [fingerprint(b) for b in got] == [fingerprint(b) for b in expected]


@pytest.mark.parametrize("workers", [0, 2])
def test_too_many_bad_files_stop_the_run_with_the_reasons(tmp_path: Path, workers: int) -> None:
    ledger = BadFiles(tmp_path / "bad.jsonl", max_bad_fraction=0.05)
    train = loader(40, 8, NumberReader(tuple(range(8))), workers=workers, bad=ledger)
    with pytest.raises(
        RunError, match=r"could not be decoded, more than data.max_bad_fraction=0.05(.|\n)*moov atom not found"
    ) as caught:
        take(train, 10)
    assert str(tmp_path / "bad.jsonl") in str(caught.value) and "Traceback" not in str(caught.value)


def test_a_few_bad_files_among_many_do_not(tmp_path: Path) -> None:
    take(loader(2000, 8, NumberReader((1, 2, 3)), bad=BadFiles(None, max_bad_fraction=0.01)), 60)


def test_media_that_are_all_away_stop_the_run_at_once(tmp_path: Path) -> None:
    reader = NumberReader(tuple(range(500)), tmp_path / "tries")
    with pytest.raises(RunError, match="no usable sample in 20 draws in a row(.|\n)*20  moov atom not found"):
        take(loader(500, 8, reader, bad=BadFiles(None, 0.01)), 1)
    assert len((tmp_path / "tries").read_text().split()) == 20


def test_an_empty_table_is_told() -> None:
    with pytest.raises(DataError, match="training table is empty"):
        loader(count=0)


@pytest.mark.parametrize("world_size, workers", [(1, 0), (1, 2), (3, 1), (5, 0)])
def test_evaluation_scores_or_reports_every_item_once(world_size: int, workers: int) -> None:
    samples, ids, misses = table(23), [], {}
    for rank in range(world_size):
        part = EvalLoader(
            samples,
            pipeline(False, NumberReader((4, 11, 22))),
            batch_size=4,
            rank=rank,
            world_size=world_size,
            workers=workers,
        )
        ids += [name for batch in part for name in batch.ids]
        misses |= part.misses
    assert ids == [s.id for s in samples if s.id not in ("s4", "s11", "s22")]
    assert misses == dict.fromkeys(("s4", "s11", "s22"), "moov atom not found")


def test_evaluation_is_the_same_twice_and_takes_middles() -> None:
    results = [
        [fingerprint(b) for b in EvalLoader(table(9), pipeline(False), batch_size=4, workers=w)] for w in (0, 2, 0)
    ]
    assert results[0] == results[1] == results[2]
    batch = next(iter(EvalLoader(table(1), pipeline(False), batch_size=1)))
    assert batch.inputs["video"]["frames"][0, :, 0, 0, 0].tolist() == [
        16,
        50,
        83,
    ]  # middles of three thirds of 100 frames
    assert batch.extra["text"] == ["0 0"]
    assert batch.inputs["audio"]["waveform"][0, [0, -1]].tolist() == [15, 64]  # the middle 50 of 80 samples


def test_a_batch_without_any_usable_item_is_left_out() -> None:
    part = EvalLoader(table(6), pipeline(False, NumberReader((2, 3))), batch_size=2)
    assert [batch.ids for batch in part] == [["s0", "s1"], ["s4", "s5"]] and len(part) == 3
    assert set(part.misses) == {"s2", "s3"}


def test_questions_about_one_video_decode_it_once(tmp_path: Path) -> None:
    reader = NumberReader(bad=[1], tries=tmp_path / "tries")
    part = EvalLoader(table(12, per_file=4), pipeline(False, reader), batch_size=6)
    assert sum(len(batch) for batch in part) == 8 and len(part.misses) == 4
    assert Counter((tmp_path / "tries").read_text().split()) == {"/v/0": 1, "/v/1": 1, "/v/2": 1}


def test_evaluation_refuses_a_pipeline_that_augments() -> None:
    with pytest.raises(ValueError, match="must not augment"):
        EvalLoader(table(2), pipeline(True), batch_size=1)


def test_dropped_modalities_are_missing_not_read(tmp_path: Path) -> None:
    reader = NumberReader(bad=[0], tries=tmp_path / "tries")
    part = EvalLoader(table(2), pipeline(False, reader, drop=("video", "audio")), batch_size=2)
    batch = next(iter(part))
    assert {m: p.tolist() for m, p in batch.present.items()} == {
        "video": [False] * 2,
        "audio": [False] * 2,
        "text": [True] * 2,
    }
    assert not (tmp_path / "tries").exists() and part.misses == {}
    assert batch.inputs["video"]["frames"].shape == (2, 3, 8, 8, 3)


def test_a_file_without_sound_is_a_missing_modality() -> None:
    batch = next(iter(EvalLoader(table(3), pipeline(False, NumberReader(silent=[1])), batch_size=3)))
    assert batch.present["audio"].tolist() == [True, False, True] and batch.present["video"].all()
    assert batch.inputs["audio"]["lengths"].tolist() == [50, 0, 50]
    assert not batch.inputs["audio"]["waveform"][1].any()
    assert batch.extra["missing"] == [{}, {"audio": "no audio stream"}, {}]


def test_sound_from_a_broken_second_file_is_a_missing_modality_too(tmp_path: Path) -> None:
    samples = [Sample("a", MediaRef("/v/0"), MediaRef("/w/1"), ("0 0",), labels={"answer": 0})] * 3
    reader = NumberReader(bad=[1], tries=tmp_path / "tries")
    ledger = BadFiles(tmp_path / "bad.jsonl", 0.0)
    train = TrainLoader(samples, pipeline(reader=reader), global_batch=2, bad=ledger)
    for batch in take(train, 3):
        assert not batch.present["audio"].any() and batch.present["video"].all()
    assert [entry["path"] for entry in ledger.entries()] == ["/w/1"]
    assert Counter((tmp_path / "tries").read_text().split())["/w/1"] == 1


def test_a_text_without_media_and_media_without_text() -> None:
    samples = [Sample("t", texts=("5",)), Sample("v", MediaRef("/v/7"))]
    batch = next(iter(EvalLoader(samples, Pipeline(SPECS, train=False, reader=NumberReader()), batch_size=2)))
    assert {m: p.tolist() for m, p in batch.present.items()} == {
        "video": [False, True],
        "audio": [False, False],
        "text": [True, False],
    }
    assert batch.inputs["text"]["token_ids"].tolist() == [[1, 15, 2], [0, 0, 0]]
    assert batch.inputs["text"]["attention_mask"].tolist() == [[True] * 3, [False] * 3]


def test_training_draws_texts_and_evaluation_takes_the_first() -> None:
    random_texts = {pipeline()(table(1)[0], epoch, 0).extra["text"] for epoch in range(20)}
    assert random_texts == {"0 0", "0 1"}
    assert {pipeline(text_choice="first")(table(1)[0], epoch, 0).extra["text"] for epoch in range(20)} == {"0 0"}


def test_a_mistake_in_a_plugin_keeps_its_own_type() -> None:
    def broken(sample: Sample) -> dict[str, int]:
        raise ConfigError("no such answer list")

    for workers in (0, 1):
        train = TrainLoader(
            table(4), Pipeline(SPECS, train=True, labels=broken, reader=NumberReader()), global_batch=2, workers=workers
        )
        with pytest.raises(ConfigError, match="^no such answer list$"):
            take(train, 1)


def _children() -> Iterator[int]:
    for task in Path("/proc/self/task").iterdir():
        with contextlib.suppress(FileNotFoundError):  # a thread that ended meanwhile
            yield from map(int, (task / "children").read_text().split())


def test_workers_survive_the_signals_of_a_process_group() -> None:
    """torchrun sends SIGTERM to everyone; the checkpoint is written by a process that still needs its loader."""
    before = set(_children())
    iterator = iter(loader(count=400, workers=2))
    next(iterator)
    workers = set(_children()) - before
    assert len(workers) == 2
    for pid, number in itertools.product(workers, (signal.SIGTERM, signal.SIGINT)):
        os.kill(pid, number)
    assert len([next(iterator) for _ in range(30)]) == 30
    iterator.close()  # type: ignore[attr-defined]
    assert not workers & set(_children())


def test_a_worker_that_is_just_starting_survives_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """Torch's own handler of SIGTERM, and Python's of SIGINT, would each end it with exit code 0."""
    start = loader_workers._start_worker

    def signalled(*args: Any) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            os.kill(os.getpid(), number)
        start(*args)

    monkeypatch.setattr(loader_workers, "_start_worker", signalled)
    assert len(take(loader(count=40, workers=2), 8)) == 8
    assert not signal.pthread_sigmask(signal.SIG_BLOCK, ())  # here they are heard


def test_keys_make_streams() -> None:
    draws = {key: keyed_generator(*key).random() for key in itertools.product((0, 1), ("a", "b"), (0, 1, 10))}
    assert len(set(draws.values())) == 12
    assert keyed_generator(0, "a", 1).random() == draws[0, "a", 1]
    assert keyed_generator("1").random() != keyed_generator(1).random()
    assert keyed_generator(1, 23).random() != keyed_generator(12, 3).random()
    assert keyed_generator("a", "b").random() != keyed_generator("asb").random()
    assert keyed_generator(np.int64(7)).random() == keyed_generator(7).random()


def read_by_others(count: int) -> list[Sample]:
    """Rows with a key that all have, and one that every second row has."""
    rows = table(count, per_file=2)
    return [
        Sample(
            s.id, s.video, s.audio, s.texts, s.labels, {"source": f"x:{k}", **({"weights": [k, 0.5]} if k % 2 else {})}
        )
        for k, s in enumerate(rows)
    ]


@pytest.mark.parametrize("workers, group", [(0, 1), (2, 1), (0, 2)])
def test_what_is_read_travels_with_its_row(workers: int, group: int) -> None:
    rows = read_by_others(12)
    by_id = {sample.id: (number, sample) for number, sample in enumerate(rows)}
    reads = {name: Read("objective x") for name in ("source", "weights", "texts", "video_id")}
    train = TrainLoader(rows, pipeline(reads=reads), global_batch=6, workers=workers, group=group)
    evaluate = EvalLoader(rows, pipeline(False, reads=reads), batch_size=5, workers=workers)
    for batch in [*take(train, 4), *evaluate]:
        assert sorted(batch.extra) == ["source", "text", "texts", "video_id", "weights"]
        for cut in [batch, batch.rows(0, 1), batch.rows(1, len(batch))]:
            for row, name in enumerate(cut.ids):
                number, sample = by_id[name]
                found = {key: values[row] for key, values in cut.extra.items()}
                assert found["text"] in sample.texts and found["texts"] == sample.texts
                assert found["video_id"] == f"/v/{number // 2}" and found["source"] == f"x:{number}"
                assert found["weights"] == ([number, 0.5] if number % 2 else None)


def test_the_clip_of_a_row_comes_without_being_asked() -> None:
    assert take(loader(group=1), 1)[0].extra.keys() == {"text", "video_id"}


def test_labels_may_be_lists() -> None:
    many = Pipeline(
        SPECS, train=False, labels=lambda s: {"tags": [0.0, float(s.labels["answer"])]}, reader=NumberReader()
    )
    batch = next(iter(EvalLoader(table(3), many, batch_size=3)))
    assert batch.labels["tags"].tolist() == [[0, 0], [0, 1], [0, 2]] and batch.labels["tags"].dtype == torch.float32
    assert batch.rows(1, 3).labels["tags"].tolist() == [[0, 1], [0, 2]]


def test_labels_of_different_lengths_are_refused() -> None:
    ragged = Pipeline(
        SPECS, train=False, labels=lambda s: {"tags": [1] * (1 + s.labels["answer"] // 2)}, reader=NumberReader()
    )
    with pytest.raises(DataError, match=r"label 'tags' of the sample 's2' has shape \(2,\), that of others \(1,\)"):
        next(iter(EvalLoader(table(3), ragged, batch_size=3)))


@pytest.mark.parametrize("workers", [0, 2])
def test_windows_of_a_video_are_an_axis_of_the_batch_even_where_no_row_has_a_picture(workers: int) -> None:
    """Shapes do not depend on luck: rows 0 to 3 have no picture, whoever comes first."""
    samples = [Sample(f"a{k}", audio=MediaRef(f"/v/{k}"), labels={"answer": k}) for k in range(4)] + table(4)
    transform = InWindows(TrainTransform(8), 2)
    windows = pipeline(sampler=Windows(2, dense), transform=transform, clips=2, views=2)
    shapes = set()
    for batch in take(TrainLoader(samples, windows, global_batch=1, workers=workers), 8):
        shapes.add((tuple(batch.inputs["video"]["frames"].shape), bool(batch.present["video"].all())))
    assert shapes == {((1, 2, 3, 8, 8, 3), True), ((1, 2, 3, 8, 8, 3), False)}


class Picture(NumberReader):
    """Files with an even number are images: one frame, which the sampler takes as often as frames are wanted."""

    def read(self, ref: MediaRef, wanted: Wanted) -> Clip:
        clip = super().read(ref, wanted)
        number = int(str(ref.path).rsplit("/", 1)[-1])
        if number % 2 == 0 and clip.frames is not None and clip.timestamps is not None:
            clip.frames = np.repeat(clip.frames[:1], len(clip.frames), axis=0)
            clip.timestamps = np.zeros(len(clip.frames))
        return clip


@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("stills", ["repeat", "pad"])
@pytest.mark.parametrize("windows", [1, 2])
def test_an_image_is_repeated_or_followed_by_black(train: bool, stills: Any, windows: int) -> None:
    """Pixels: an image has its own in the first frame of each window, and in the others the same or 0; a video keeps
    all of its own, whatever stills says."""
    options: dict[str, Any] = {}
    if windows == 2:
        options = {"sampler": Windows(2, dense), "transform": View(8, 2, 1), "clips": 2, "views": 2}
    rows = table(2)
    made = [
        pipeline(train, reader=Picture(), stills=how, **options)(sample, 0, row)
        for how in (stills, "repeat")
        for row, sample in enumerate(rows)
    ]
    image, video, plain_image, plain_video = [np.reshape(one.frames, (windows, 3, 8, 8, 3)) for one in made]  # type: ignore[arg-type]
    np.testing.assert_array_equal(video, plain_video)
    assert np.ptp(video[:, :, 0, 0, 0].ravel()) > 0
    np.testing.assert_array_equal(image[:, 0], plain_image[:, 0])
    assert (plain_image == plain_image[:, :1]).all() and plain_image.any(axis=(2, 3, 4)).all()
    if stills == "pad":
        assert not image[:, 1:].any()
    else:
        np.testing.assert_array_equal(image, plain_image)
