"""What ``vtp data pack`` keeps of a table: ``dataset=shards`` gives the tasks, splits and samples of the csv."""

from __future__ import annotations

import json
import os
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from vtp.cli.main import main
from vtp.data.shards import shard_index
from vtp.data.table import media_id
from vtp.eval.leaks import check_leaks, media_names, train_record
from vtp.media import MediaReader
from vtp.media.member import fetch
from vtp.prepare.pack import Packing, pack
from vtp.prepare.target import Kept
from vtp.types import MediaRef, Sample
from vtp_datasets.own import OwnData
from vtp_datasets.shards import Shards

SPLITS = ("train", "val", "test")


@pytest.fixture(autouse=True, scope="module")
def in_process():
    """No decoder process for every call."""
    patch = pytest.MonkeyPatch()
    patch.setattr("vtp.prepare.pack.MediaReader", partial(MediaReader, isolate=False))
    yield
    patch.undo()


@pytest.fixture(scope="module")
def clips(tmp_path_factory) -> Path:
    """Stills, which are videos of one frame: the same names in two folders, and one without an ending."""
    root = tmp_path_factory.mktemp("root")
    for number in range(10):
        path = root / ("a" if number < 5 else "b") / f"c{number % 5}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(np.full((8, 8, 3), 20 * number, np.uint8)).save(path)
    return root


def names() -> list[str]:
    return [f"{folder}/c{number}.png" for folder in "ab" for number in range(5)]


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def packed(table: Path, *options: str) -> tuple[OwnData, Shards]:
    out = table.parent / f"{table.stem}-shards"
    assert main(["data", "pack", str(table), str(out), "--per-shard", "3", "--workers", "1", *options]) == 0
    return OwnData(file=table), Shards(urls=out)


def content(ref: MediaRef | None) -> Any:
    """Bytes and span of media."""
    if ref is None:
        return None
    inside = fetch(ref).path
    return inside if isinstance(inside, bytes) else Path(inside).read_bytes(), ref.start, ref.end


def facts(sample: Sample) -> Any:
    extra = {key: value for key, value in sample.extra.items() if key != "source"}  # the file that it was read from
    return sample.texts, dict(sample.labels), extra, media_id(sample), content(sample.video), content(sample.audio)


def check_equal(own: OwnData, shards: Shards) -> dict[str, int]:
    """Every table, sample by sample; returns how many samples each has."""
    counts = {}
    assert shards.kinds == own.kinds
    for kind in own.kinds:
        for split in SPLITS:
            want, got = own.samples(kind, split), shards.samples(kind, split)
            assert {s.id: facts(s) for s in got} == {s.id: facts(s) for s in want}, (kind, split)
            assert len(got) == len(want) and (split in shards.splits(kind)) == bool(len(want))
            counts[f"{kind}/{split}"] = len(want)
            assert media_names(got, shards) == media_names(want, own)
    return counts


TYPES = {"category": "pets", "question_type": "what"}
WAYS = {
    "caption": lambda n: {"caption": f"clip {n}"},
    "captions": lambda n: {"caption": [f"clip {n}", f"again {n}"], "category": "pets"},
    "spans": lambda n: {"caption": f"clip {n}", "start": n / 4, "end": n + 1.5},
    "qa": lambda n: {"question": f"what is {n}?", "answer": f"a {n}", **TYPES},
    "both": lambda n: {"caption": f"clip {n}", "question": f"what is {n}?", "answer": "a", "id": f"q{n}"},
    "mc": lambda n: {"question": "which?", "options": ["x", "y|z", f"o{n}"], "answer": n % 3},
    "hidden": lambda n: {"question": f"what is {n}?", **({"answer": "a"} if n < 12 else {})},
}


@pytest.mark.parametrize("way", WAYS)
def test_every_form_of_table_comes_back_with_its_splits(clips, tmp_path, way):
    split = lambda n: "train" if n % 10 < 6 else "val" if n % 10 < 8 else "test"  # noqa: E731
    rows = [{"video": names()[n % 10], "split": split(n), **WAYS[way](n)} for n in range(20)]
    table = write(clips / f"{way}.jsonl", rows)
    counts = check_equal(*packed(table))
    kinds = {"qa": ["qa"], "mc": ["qa", "mc"], "both": ["caption", "retrieval", "qa"], "hidden": ["qa"]}
    kinds = kinds.get(way, ["caption", "retrieval"])
    assert {name.partition("/")[0] for name in counts} == set(kinds)
    if kinds[-1] in ("qa", "mc"):
        assert [counts[f"{kinds[-1]}/{split}"] for split in SPLITS] == [12, 4, 4]
    table.unlink()


def test_splits_that_a_run_makes_are_those_of_the_table(clips, tmp_path):
    rows = [{"video": names()[n % 10], "question": f"what is {n}?", "answer": "a"} for n in range(30)]
    table = write(clips / "carved.jsonl", rows)
    counts = check_equal(*packed(table))
    assert counts == {"qa/train": 24, "qa/val": 3, "qa/test": 3}
    out = clips / "carved-shards"
    both = Shards(urls=out, test_urls=out)  # said otherwise: every row is what one says
    assert [len(both.samples("qa", split)) for split in SPLITS] == [30, 0, 30]
    table.unlink()


def test_of_shards_with_several_splits_a_split_takes_its_own(clips):
    rows = [{"video": name, "caption": name, "split": "train" if n < 7 else "test"} for n, name in enumerate(names())]
    packed(write(clips / "given.jsonl", rows))
    out = clips / "given-shards"
    both = Shards(urls=out, test_urls=out)
    assert [len(both.samples("caption", split)) for split in SPLITS] == [7, 0, 3]
    assert Shards(test_urls=out).splits("retrieval") == ("test",)
    (clips / "given.jsonl").unlink()


def test_a_test_clip_is_found_among_the_training_clips_of_its_table(clips):
    """Trained on the table, tested on shards of it; and the other way round."""
    own, shards = packed(write(clips / "leak.jsonl", [{"video": name, "caption": name} for name in names()]))
    for trained, tested in ((own, shards), (shards, own)):
        stage = train_record("first", trained.samples("caption", "train"), trained)
        report = check_leaks([stage], media_names(tested.samples("caption", "train"), tested), on_leak="stamp")
        assert len(report.leaked) == 8
        assert not check_leaks([stage], media_names(tested.samples("caption", "test"), tested)).found
    (clips / "leak.jsonl").unlink()


def test_shards_of_two_tables_are_clips_of_two_tables(clips, tmp_path):
    """Both number their rows from 1, and both have a clip a/c0.png, which is another picture."""
    other = tmp_path / "other"
    (other / "a").mkdir(parents=True)
    Image.fromarray(np.full((8, 8, 3), 255, np.uint8)).save(other / "a" / "c0.png")
    row = {"video": "a/c0.png", "caption": "white"}
    packed(write(clips / "one.jsonl", [row | {"caption": "black"}]))
    packed(write(other / "two.jsonl", [row]))
    data = Shards(urls=[clips / "one-shards", other / "two-shards"])
    first, second = data.samples("caption", "train")
    assert (first.texts, second.texts) == (("black",), ("white",)) and first.id != second.id
    assert [media_id(first), media_id(second)] == [f"csv:{clips.name}:a/c0.png", "csv:other:a/c0.png"]
    assert data.media_namespace == ""
    (clips / "one.jsonl").unlink()


def test_labels_and_extras_of_any_shape_come_back(clips, tmp_path):
    labels = {"answer": ["several", "answers"], "score": 0.5, "n": {"deep": [1, None]}}
    extra = {"video_id": "clip", "question_type": 7, "category": "x", "list": [1, "ü"], "duration": 2.5}
    ref = MediaRef(str(clips / "a" / "c0.png"))
    rows = [
        Kept(Sample("s", ref, None, ("t",), labels, extra), ("mine",), "val"),
        Kept(Sample("s", ref, None, (), {"answer_index": 3}, {"video_id": "clip"}), ("other",)),
        Sample("plain", ref, ref, ("half \ud83d",), {}, {"video_id": "\udcff"}),
        Sample("no media", None, None, ("t",)),
    ]
    manifest = pack(rows, tmp_path / "out", Packing(), workers=1)
    assert (manifest["samples"], manifest["without_media"]) == (3, 1)
    data = Shards(urls=tmp_path / "out")
    assert data.kinds == ("caption", "retrieval", "mine", "other")
    (got,) = data.samples("mine", "val")
    assert got.labels == labels and {key: got.extra[key] for key in extra} == extra and got.audio is None
    (got,) = data.samples("other", "train")
    assert got.labels == {"answer_index": 3}
    (got,) = data.samples("caption", "train")
    assert got.texts == ("half \\ud83d",) and media_id(got) == "\\udcff"


def test_whatever_a_file_is_called_it_is_what_it_was(clips, tmp_path):
    """A picture without an ending, a sound in a film, names that are no UTF-8."""
    data = (clips / "a" / "c1.png").read_bytes()
    still, odd = tmp_path / "picture", tmp_path / os.fsdecode(b"\xff.png")
    for path in (still, odd):
        path.write_bytes(data)
    (tmp_path / "s.tune").write_bytes(wav())
    refs = [MediaRef(str(path)) for path in (still, odd, tmp_path / "s.tune")]
    rows = [
        Sample("a", refs[0], None, ("a",)),
        Sample("b", refs[1], refs[2], ("b",)),
        Sample("c", None, refs[2], ("c",)),
    ]
    manifest = pack(rows, tmp_path / "out", Packing(), workers=1)
    assert manifest["failures"] == []
    table = Shards(urls=tmp_path / "out").samples("caption", "train")
    assert [(content(s.video), content(s.audio)) for s in table] == [
        ((data, None, None), None), ((data, None, None), (wav(), None, None)), (None, (wav(), None, None))
    ]  # fmt: skip
    again = pack(list(table), tmp_path / "again", Packing(), workers=1)  # shards out of shards
    assert again["failures"] == [] and again["samples"] == 3
    twice = Shards(urls=tmp_path / "again").samples("caption", "train")
    assert [facts(s) for s in twice] == [facts(s) for s in table]


def wav() -> bytes:
    import io
    import wave

    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setparams((1, 2, 8000, 0, "NONE", "not compressed"))
        file.writeframes(np.arange(800, dtype="<i2").tobytes())
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"texts": "a dog"}, "texts are no list"),
        ({"texts": ["a", 5]}, "texts are no list"),
        ({"start": "now"}, "no time"),
        ({"start": float("nan")}, "no time"),
        ({"start": 5, "end": 2}, "not after the start"),
        ({"labels": [1]}, "labels are no object"),
        ({"extra": "x"}, "extra are no object"),
        ({"labels": {"answer_index": "first"}}, "answer_index"),
        ({"labels": {"answer_index": True}}, "answer_index"),
        ({"labels": {"answer_index": 10**12}}, "answer_index"),
        ({"labels": {"answer_index": 2}, "kinds": ["mc"]}, "none of its 1 texts"),
        ({"labels": {"answer_index": -1}}, "answer_index"),
        ({"extra": {"video_id": ["x"]}}, "video_id"),
        ({"id": None}, "id is None"),
        ({"id": ""}, "id is ''"),
        ({"kinds": "qa"}, "kinds"),
        ({"split": "trian"}, "none of train, val, test"),
        ("no object", "no object"),
    ],
)
def test_a_record_of_wrong_types_is_left_out_by_its_place(clips, tmp_path, change, why):
    import io
    import tarfile

    good = {"id": "g", "texts": ["fine"], "extra": {"video_id": "v"}}
    bad = change if isinstance(change, str) else {"id": "b", "texts": ["bad"]} | change
    record = {"samples": [good, bad, good | {"texts": ["also fine"]}]}
    with tarfile.open(tmp_path / "00000.tar", "w") as tar:
        for name, data in (("k.mp4", b"film"), ("k.json", json.dumps(record).encode())):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    data = Shards(urls=tmp_path)
    table = data.samples("caption", "train")
    assert {sample.id: sample.texts for sample in table} == {"g": ("fine",), "00000/k/g": ("also fine",)}
    (file,) = data.origin()["files"]
    assert (file["rows"], file["malformed"]) == (2, 1)
    assert file["malformed_first"][0].startswith("k, sample 2: ") and why in file["malformed_first"][0]
    assert shard_index(tmp_path / "00000.tar").malformed == []
