"""What all readers of annotation files have in common."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from small_files import (
    ACTIVITYNET,
    ANTMMF,
    AUDIOCAPS,
    AVQA,
    CLOTHO,
    MSVD_FILES,
    STEPS,
    UCF101_FILES,
    VALOR,
    VATEX_ROWS,
    WEBVID_A,
    write,
)

from vtp.catalogue import Catalogue
from vtp.errors import ConfigError, DataError
from vtp.plugins import host
from vtp.testing import check_dataset

OTHERS = {"csv", "mix", "shapes", "shards"}  # one's own table, parts of others, generated, tar files


BUILT_IN = [e for e in host().registry.entries() if e.kind == "dataset" and e.target.startswith("vtp_datasets")]


READERS = [entry.load() for entry in BUILT_IN if entry.name not in OTHERS]


@pytest.mark.parametrize("reader", READERS, ids=lambda r: r.name)
def test_what_is_missing_is_told_at_once(tmp_path, reader):
    dataset = reader(root=tmp_path / "nowhere")
    with pytest.raises(DataError) as error:
        dataset.samples(dataset.kinds[0], "train")
    message = str(error.value)
    folder = f"folder  {tmp_path / 'nowhere'}"
    for words in (folder, "  file    ", "dataset.root=FOLDER", "dataset=shapes", "  media   "):
        assert words in message, words
    assert dataset.about in message and "http" not in message


@pytest.mark.parametrize("reader", READERS, ids=lambda r: r.name)
def test_the_common_interface(tmp_path, monkeypatch, reader):
    monkeypatch.setenv("VTP_DATA", str(tmp_path))
    dataset = reader()
    assert isinstance(dataset, Catalogue)
    assert tmp_path in dataset.root.parents and dataset.media_namespace
    for kind in dataset.kinds:
        assert set(dataset.splits(kind)) <= {"train", "val", "test"}
        for split in {"train", "val", "test"} - set(dataset.splits(kind)):
            assert len(dataset.samples(kind, split)) == 0
    with pytest.raises(ConfigError, match="no table of the kind 'asr'"):
        dataset.samples("asr", "train")
    with pytest.raises(ConfigError, match="split 'dev' must be one of"):
        dataset.samples(dataset.kinds[0], "dev")
    assert set(dataset.origin()) >= {"root", "files", "tables"}
    monkeypatch.delenv("VTP_DATA")
    assert Path("data") in reader().root.parents


SPLITS = ("train", "val", "test")


PARTS = ("development", "validation", "evaluation")


QUESTION = {"answer": "man", "id": 4, "question": "who is singing?", "video_id": 1}


SPEECH = {"v1": {"text": ["one", "two"], "start": [0.5, 3], "end": [2.2, 4.5]}}


CLIP = "nJ6KPT1uwe8_000047_000057"


CAPTIONED = [{"caption": ["a", "b"], "image": "x/1.jpg"}, {"caption": "c", "image": "x/2.jpg"}]


WHOLE: dict[str, tuple[list[str], dict[str, object]]] = {  # reader -> kinds, all files that they need
    "activitynet": (["caption"], {f"{name}.json": ACTIVITYNET for name in ("train", "val_1")}),
    "antmmf": (["caption"], {"train.jsonl": "\n".join(map(json.dumps, ANTMMF))}),
    "audiocaps": (["caption"], {f"{split}.csv": AUDIOCAPS for split in SPLITS}),
    "caption_json": (["caption"], {"train.json": {"a/1.mp4": "x", "a/2.mp4": ["y", "z"]}}),
    "cc3m": (["caption"], dict.fromkeys(("cc3m_train.tsv", "cc3m_val.tsv"), "a\thttp://x\nb\thttp://y\n")),
    "charades_sta": (["caption"], {f"charades_sta_{s}.txt": "AO8RW 0 6.9##x\nAO8RW 1 2##y" for s in ("train", "test")}),
    "clotho": (["caption"], {f"clotho_captions_{part}.csv": CLOTHO for part in PARTS}),
    "cnvid": (["caption"], {"caption.json": SPEECH}),
    "coco": (["caption"], {f"{split}.json": CAPTIONED for split in SPLITS}),
    "didemo": (["caption"], {f"{split}_list.txt": "a.mov\nb.mp4" for split in SPLITS} | {
        f"{split}_data.json": [{"video": f"{n}.m4v", "description": "x"} for n in "ab"] for split in SPLITS}),
    "flickr30k": (["caption"], {f"{split}.json": CAPTIONED for split in SPLITS}),
    "howto100m": (["caption"], {"caption.json": SPEECH, "youcook2_val.csv": "end,start,text,video_id\n6,4,x,v\n"}),
    "msrvtt": (["qa"], {f"{split}_qa.json": [QUESTION, QUESTION | {"id": 5}] for split in SPLITS}),
    "msvd": (["qa"], {"youtube_mapping.txt": "abc_1_2 vid1"} | {f"{s}_qa.json": [QUESTION] for s in SPLITS}),
    "msvd_cn": (["caption"], MSVD_FILES),
    "music_avqa": (["qa"], {f"avqa-{split}.json": [AVQA, AVQA | {"question_id": 2}] for split in SPLITS}),
    "ucf101": (["classification"], UCF101_FILES),
    "valor32k": (["caption"], {f"desc_{split}.json": VALOR for split in SPLITS}),
    "vat": (["caption", "classification"],
            {"train.csv": "audio,text,video,label\n1.wav,1.txt,1.mp4,dog\n", "text/1.txt": "x"}),
    "vatex": (["caption"], {f"{split}_list.txt": CLIP for split in SPLITS} | {"vatex_data.json": VATEX_ROWS}),
    "visual_genome": (["caption"], {"region_descriptions.json": [{"id": 1, "regions": [{"phrase": "x"}]}]}),
    "youcook2": (["caption"], {"youcookii_annotations_trainval.json": STEPS}),
    "webvid": (["caption"], {f"results_2M_{split}.csv": WEBVID_A for split in ("train", "val")}),
}  # fmt: skip


@pytest.mark.parametrize("reader", READERS, ids=lambda r: r.name)
def test_every_reader_keeps_the_contract(tmp_path, reader):
    kinds, files = WHOLE[reader.name]
    check_dataset(reader, {"root": write(tmp_path, files)}, kinds=kinds)
    dataset = reader(root=tmp_path)
    assert dataset.samples(kinds[0], "train") is dataset.samples(kinds[0], "train")
