"""The real annotation files at hand are read completely: counts of the protocols, sections 4 to 9 of the formats, and
the official hashes. Rows are also counted without our readers."""

from __future__ import annotations

import csv
import json
from collections import Counter

import numpy as np
import pytest

from vtp.eval.leaks import check_leaks, media_names, train_record
from vtp.eval.protocol import Protocol
from vtp.media import Wanted, read_clip
from vtp_datasets.activitynet import ActivityNet
from vtp_datasets.antmmf import AntMMF
from vtp_datasets.audiocaps import AudioCaps
from vtp_datasets.didemo import DiDeMo
from vtp_datasets.msvd import MSVD, MSVDCN
from vtp_datasets.own import OwnData
from vtp_datasets.timed_text import HowTo100M
from vtp_datasets.vatex import VATEX

pytestmark = pytest.mark.data


@pytest.fixture(scope="module")
def root(shared_data):
    return shared_data / "annotations"


@pytest.fixture(scope="module")
def msvd(root, shared_data):
    return MSVD(root=root, videos=(shared_data / "videos" / "msvd").absolute())


def texts(table):
    return sum(1 for _ in table.all_texts())


def rows_and_malformed(dataset, name):
    record = next(f for f in dataset.origin()["files"] if f["path"].endswith(name))
    return record["rows"], record["malformed"]


@pytest.mark.parametrize(
    "split, clips, captions, questions, asked",
    [("train", 1200, 48_774, 30_933, 1161), ("val", 100, 4290, 6415, 245), ("test", 670, 27_763, 13_157, 504)],
)
def test_msvd(msvd, split, clips, captions, questions, asked):
    table = msvd.samples("retrieval", split)
    assert (len(table), texts(table)) == (clips, captions)
    table = msvd.samples("qa", split)
    assert (len(table), len(set(table.video_ids()))) == (questions, asked)
    assert rows_and_malformed(msvd, f"{split}_qa.json") == (questions, 0)
    assert rows_and_malformed(msvd, "captions_msvd.json") == (80_827, 0)
    first, last = {"train": (0, 30932), "val": (30933, 37347), "test": (37348, 50504)}[split]
    assert (table[0].id, table[-1].id) == (str(first), str(last))


def test_msvd_questions_by_their_first_word(msvd):
    kinds = Counter(msvd.samples("qa", "test").column("question_type"))
    assert kinds == {"what": 8149, "who": 4552, "how": 370, "when": 58, "where": 28}


def test_validation_questions_are_about_retrieval_test_clips(msvd):
    """150 ids, of which those that have questions can be found."""
    stage = train_record("qa", msvd.samples("qa", "val"), msvd)
    report = check_leaks([stage], media_names(msvd.samples("retrieval", "test"), msvd), on_leak="stamp")
    asked = {int(item["video_id"]) for item in json.loads((msvd.root / "msvd_qa" / "val_qa.json").read_text())}
    assert len(report.leaked) == sum(n > 1300 for n in asked) > 100


def test_msvd_clips_decode(msvd):
    table = msvd.samples("retrieval", "train")
    found = [s for s in table if s.id in ("UXs3eq68ZjE_250_255", "3qqEKTPxLNs_1_15", "WTf5EgVY5uU_124_128")]
    shapes = {s.id: (read_clip(s.video, Wanted(size=None)).frames.shape[1:3], len(s.texts)) for s in found}
    assert shapes == {
        "UXs3eq68ZjE_250_255": ((720, 1280), 32), "3qqEKTPxLNs_1_15": ((360, 480), 50),
        "WTf5EgVY5uU_124_128": ((240, 320), 32),
    }  # fmt: skip


def test_msvd_cn(root, msvd):
    dataset = MSVDCN(root=root)
    tables = {split: dataset.samples("retrieval", split) for split in ("train", "val", "test")}
    assert sum(texts(table) for table in tables.values()) == 11_758
    for split, table in tables.items():
        assert set(table.video_ids()) == set(msvd.samples("retrieval", split).video_ids())
    assert tables["train"][0].texts[0] == "一个小猫在舔舐牛奶"


@pytest.mark.parametrize("split, listed, rows, described", [("val", 1065, 4180, 1094), ("test", 1004, 4021, 1037)])
def test_didemo(root, split, listed, rows, described):
    dataset = DiDeMo(root=root)
    table = dataset.samples("retrieval", split)
    assert len(table) == len(set(table.video_ids())) == listed and texts(table) == listed
    assert rows_and_malformed(dataset, f"{split}_data.json") == (rows, 0)
    assert rows_and_malformed(dataset, f"{split}_list.txt") == (listed, 0)
    content = json.loads((root / "didemo" / f"{split}_data.json").read_text())
    assert len({row["video"] for row in content}) == described
    by_stem = {}  # some clips go by two names that differ in the extension
    for row in content:
        by_stem.setdefault(row["video"].rpartition(".")[0], []).append(row["description"].strip())
    names = (root / "didemo" / f"{split}_list.txt").read_text().split()
    assert [s.texts for s in table] == [(" ".join(by_stem[name.rpartition(".")[0]]),) for name in names]


def test_vatex_lists(root, tmp_path):
    """The captions are not at hand: these are made up, the lists are real."""
    names = ("train_list.txt", "val_list.txt", "test_list.txt", "test1k5_sec_list.txt")
    lists = {name: (root / "vatex" / name).read_text().split() for name in names}
    for name, clips in lists.items():
        (tmp_path / name).write_text("\n".join(clips))
    rows = [{"videoID": clip, "enCap": ["x"], "chCap": ["二"]} for clip in sorted(set().union(*lists.values()))]
    (tmp_path / "vatex_training_v1.0.json").write_text(json.dumps(rows))
    dataset, second = VATEX(root=tmp_path), VATEX(root=tmp_path, test="second", language="zh")
    assert [len(dataset.samples("retrieval", split)) for split in dataset.splits("retrieval")] == [25_991, 1500, 1500]
    assert len(second.samples("retrieval", "test")) == 1500
    overlap = set(second.samples("retrieval", "test").video_ids())
    others = [set(dataset.samples("caption", split).video_ids()) for split in ("val", "test")]
    assert [len(overlap & other) for other in others] == [776, 724]
    assert sum(f["malformed"] for f in dataset.origin()["files"]) == 0
    match = Protocol.find("vatex").match(dataset.samples("retrieval", "test"), "vatex", "test")
    assert not any("videos" in difference for difference in match.differences)


@pytest.mark.parametrize("split, clips, sentences", [("train", 10_009, 37_421), ("test", 4917, 17_505)])
def test_activitynet(root, split, clips, sentences):
    dataset = ActivityNet(root=root)
    table = dataset.samples("retrieval", split)
    assert (len(table), texts(table)) == (clips, clips)
    assert rows_and_malformed(dataset, {"train": "train.json", "test": "val_1.json"}[split]) == (sentences, 0)
    assert not any(text != text.strip() or "  " in text[:2] for text in table.all_texts())


def test_activitynet_moments_and_lists(root):
    content = json.loads((root / "activitynet" / "train.json").read_text())
    backward = sum(end <= start for clip in content.values() for start, end in clip["timestamps"])
    dataset = ActivityNet(root=root, moments=True)
    assert len(dataset.samples("caption", "train")) == 37_421 - backward
    assert rows_and_malformed(dataset, "train.json") == (37_421 - backward, backward) and 2 <= backward < 10
    assert len(ActivityNet(root=root, lists=True).samples("retrieval", "test")) == 4916


@pytest.mark.parametrize(
    "version, split, clips, captions",
    [("v1", "train", 49_838, 49_838), ("v1", "val", 495, 2475), ("v1", "test", 975, 4875),
     ("v2", "val", 495, 2475), ("v2", "test", 975, 4875)],
)  # fmt: skip
def test_audiocaps(root, version, split, clips, captions):
    dataset = AudioCaps(root=root / "audiocaps", version=version)
    table = dataset.samples("retrieval", split)
    assert (len(table), texts(table)) == (clips, captions)
    assert rows_and_malformed(dataset, f"{split}.csv") == (captions, 0)


def test_howto100m(root):
    dataset = HowTo100M(root=root / "howto100m")
    table = dataset.samples("caption", "train")
    expected = 0
    for path in sorted((root / "howto100m").glob("*.csv")):
        with open(path, encoding="utf-8", newline="") as file:
            expected += sum(1 for _ in csv.DictReader(file))
    record = dataset.origin()["files"][0]
    assert record["files"] == 100 and len(table) + record["malformed"] == expected
    assert len({name.rpartition("[")[0] for name in table.video_ids()}) == 100
    spans = [s.video for s in table]
    assert all(span.start < span.end for span in spans)


def test_antmmf(shared_data):
    folder = shared_data / "videos" / "msrvtt"
    dataset = AntMMF(root=folder, train_file="univl_video.jsonl")
    clip = read_clip(dataset.samples("caption", "train")[0].video, Wanted(size=None))
    assert clip.timestamps[0] >= 0 and clip.timestamps[-1] < 3.7
    assert [len(s.texts) for s in dataset.samples("retrieval", "test")] == [1, 1]
    assert [s.labels["answer_index"] for s in dataset.samples("mc", "test")] == [0, 2]


def test_own_data_about_real_clips(shared_data, tmp_path):
    clips = sorted((shared_data / "videos" / "vggsound").glob("*.mp4"))
    lines = [f"{clip.name},sound {n}" for n, clip in enumerate(clips)]
    (tmp_path / "my.csv").write_text("\n".join(["video,caption", *lines]))
    dataset = OwnData(file=tmp_path / "my.csv", root=clips[0].parent)
    sizes = {split: len(dataset.samples("retrieval", split)) for split in ("train", "val", "test")}
    assert sizes == {"train": 2, "val": 1, "test": 1}
    sample = dataset.samples("retrieval", "test")[0]
    assert read_clip(sample.video, Wanted(size=64, sample_rate=16_000)).waveform is not None
    assert dataset.origin()["tables"]["retrieval/train"]["clips_on_disk"] == 2


@pytest.mark.parametrize(
    "name, dataset",
    [("msvd", MSVD), ("msvd_qa", MSVD), ("msvd_cn", MSVDCN), ("didemo", DiDeMo), ("didemo_val", DiDeMo),
     ("activitynet", ActivityNet), ("audiocaps", AudioCaps), ("audiocaps_val", AudioCaps)],
)  # fmt: skip
def test_tables_are_the_official_protocols(root, name, dataset):
    protocol = Protocol.find(name)
    folder = root / "audiocaps" if dataset is AudioCaps else root
    table = dataset(root=folder).samples(protocol.kind, protocol.split)
    match = protocol.match(table, protocol.dataset, protocol.split)
    assert match.official, match.differences


def test_small_tables_leave_no_file_behind(root, tmp_path):
    table = MSVD(root=root).samples("qa", "train")
    assert not list(tmp_path.rglob("*.arrow")) and isinstance(table.select(np.array([5]))[0].texts[0], str)
