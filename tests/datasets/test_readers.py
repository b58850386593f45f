"""Every reader on small files written from the records that the formats' description quotes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from vtp.catalogue import Catalogue
from vtp.errors import ConfigError, DataError
from vtp.plugins import host
from vtp.testing import check_dataset
from vtp.types import MediaRef
from vtp_datasets.activitynet import ActivityNet
from vtp_datasets.antmmf import AntMMF
from vtp_datasets.audiocaps import AudioCaps
from vtp_datasets.caption_json import CaptionJson
from vtp_datasets.cc3m import CC3M
from vtp_datasets.didemo import DiDeMo
from vtp_datasets.karpathy import COCO, Flickr30k
from vtp_datasets.msvd import MSVD, MSVDCN
from vtp_datasets.music_avqa import MusicAVQA, fill_template
from vtp_datasets.timed_text import CNVid, HowTo100M
from vtp_datasets.ucf101 import UCF101
from vtp_datasets.vat import VAT
from vtp_datasets.vatex import VATEX
from vtp_datasets.visual_genome import VisualGenome
from vtp_datasets.webvid import WebVid, iso_seconds
from vtp_datasets.youcook2 import YouCook2


def write(root, files):
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        text = content if isinstance(content, str) else json.dumps(content, ensure_ascii=False)
        path.write_bytes(text.encode())
    return root


def malformed(dataset, name):
    return next(f["malformed_first"] for f in dataset.origin()["files"] if Path(f["path"]).name == name)


# -- MSVD ------------------------------------------------------------------------------------------------------------

MSVD_FILES = {
    "captions_msvd.json": {
        "-4wsuPCjDBc_5_15": ["a squirrel is eating a peanut in it s shell", "a chipmunk is eating"],
        "bQJQGoJF7_k_162_169": ["someone pours liquid", "someone pours liquid", " "],
    },
    "train_list.txt": "-4wsuPCjDBc_5_15\r\n",
    "test_list.txt": "bQJQGoJF7_k_162_169\nnobody_1_2\nbQJQGoJF7_k_162_169",
    "youtube_mapping.txt": "-4wsuPCjDBc_5_15 vid1\nbQJQGoJF7_k_162_169 vid1201\nonly_one_1_2 vid1301\nbroken\n",
    "train_qa.json": [{"answer": "animal", "id": 0, "question": "what is chewing on a nut?", "video_id": 1}],
    "val.csv": "video,width,height,question,answer,qid\n1201,480,360,who pours,someone,30933\n7,1,1,who,x,30934\n",
    "msvd_cn_captions_release_utf8.csv": "id,video_id,sentence\r\n1,vid1.mp4,一个小猫在舔舐牛奶\r\n2,vid1201.mp4,倒\r\n"
    "3,vid1.mp4,小猫\r\n4,vid9999.mp4,无\r\n5,vid1301.mp4,有",
}


def test_msvd_captions_repeat_and_lists_are_checked(tmp_path):
    dataset = MSVD(root=write(tmp_path, MSVD_FILES))
    (train,) = dataset.samples("retrieval", "train")
    assert train.texts == ("a squirrel is eating a peanut in it s shell", "a chipmunk is eating")
    (test,) = dataset.samples("caption", "test")
    assert test.texts == ("someone pours liquid",) * 2
    assert malformed(dataset, "captions_msvd.json") == ["bQJQGoJF7_k_162_169, caption 2: no caption"]
    assert sorted(malformed(dataset, "test_list.txt")) == [
        "line 2: nobody_1_2 has no caption", "line 3: bQJQGoJF7_k_162_169 is there already",
    ]  # fmt: skip


def test_msvd_questions_and_captions_name_clips_alike(tmp_path):
    dataset = MSVD(root=write(tmp_path, MSVD_FILES))
    (question,) = dataset.samples("qa", "train")
    assert question.extra["video_id"] == dataset.samples("retrieval", "train")[0].extra["video_id"]
    assert (question.id, question.labels, question.extra["question_type"]) == ("0", {"answer": "animal"}, "what")
    (second,) = dataset.samples("qa", "val")  # the csv form
    assert (second.id, second.texts, second.extra["video_id"]) == ("30933", ("who pours",), "bQJQGoJF7_k_162_169")
    assert malformed(dataset, "val.csv") == ["line 3: no 7"]
    assert dataset.media_namespace == MSVDCN(root=tmp_path).media_namespace == "msvd"


@pytest.mark.parametrize("name", ["videos/-4wsuPCjDBc_5_15.avi", "YouTubeClips/vid1.mp4", "vid1.webm"])
def test_msvd_clips_go_by_two_names(tmp_path, name):
    root = write(tmp_path, MSVD_FILES | {name: ""})
    for dataset, kind in ((MSVD(root=root), "retrieval"), (MSVD(root=root), "qa"), (MSVDCN(root=root), "caption")):
        assert dataset.samples(kind, "train")[0].video.path == str(tmp_path / name)
    missing = MSVD(root=root).samples("retrieval", "test")[0].video.path
    assert missing.endswith("bQJQGoJF7_k_162_169.mp4")


def test_msvd_cn(tmp_path):
    dataset = MSVDCN(root=write(tmp_path, MSVD_FILES))
    splits = dataset.splits("caption")
    found = {split: [(s.id, s.texts) for s in dataset.samples("retrieval", split)] for split in splits}
    train = [("1", ("一个小猫在舔舐牛奶", "小猫"))]
    assert found == {"train": train, "val": [("2", ("倒",))], "test": [("5", ("有",))]}
    assert malformed(dataset, "msvd_cn_captions_release_utf8.csv") == ["line 5: no 9999"]


# -- DiDeMo, VATEX, ActivityNet --------------------------------------------------------------------------------------


def didemo_root(tmp_path):
    first, second = "26292851@N04_4253489686_265c3c8051.m4v", "10052357@N03_7585070382_5762149bfc."
    item = {"num_segments": 6, "dl_link": "x", "times": [[4, 4], [0, 0]]}
    rows = [
        item | {"video": first, "description": " someone kicks the bug. ", "annotation_id": 1},
        item | {"video": second, "description": "a dog", "annotation_id": 2},
        item | {"video": first, "description": "the bug flies.", "annotation_id": 3},
        item | {"video": "1@N00_1_1.mov", "description": "not listed", "annotation_id": 4},
        item | {"video": first, "annotation_id": 5},
    ]
    lists = {"val_list.txt": f"{second}\n{first}\nnobody.mp4"}
    return write(tmp_path, lists | {"val_data.json": rows, "videos/10052357@N03_7585070382_5762149bfc.": ""})


def test_didemo_joins_descriptions_of_listed_clips(tmp_path):
    dataset = DiDeMo(root=didemo_root(tmp_path))
    dotted, other = dataset.samples("retrieval", "val")
    assert dotted.id == "10052357@N03_7585070382_5762149bfc" and dotted.texts == ("a dog",)
    assert dotted.video == MediaRef(str(tmp_path / "videos" / "10052357@N03_7585070382_5762149bfc."), 0.0, 30.0)
    assert other.texts == ("someone kicks the bug. the bug flies.",)
    assert malformed(dataset, "val_list.txt") == ["line 3: nobody.mp4 has no description"]
    assert malformed(dataset, "val_data.json") == ["item 4: no description"]
    record = next(f for f in dataset.origin()["files"] if f["path"].endswith("val_data.json"))
    assert record["rows"] == 4 and record["rows_of_clips_that_are_not_listed"] == 1
    assert dataset.origin()["clip_window_seconds"] == 30.0


def test_didemo_without_a_cut(tmp_path):
    dataset = DiDeMo(root=didemo_root(tmp_path), seconds=None)
    assert {(s.video.start, s.video.end) for s in dataset.samples("caption", "val")} == {(None, None)}
    with pytest.raises(ConfigError, match="more than 0"):
        DiDeMo(seconds=0)


PUMPKIN = ["A woman is carving a pumpkin", "B "]
VATEX_ROWS = [
    {"videoID": "nJ6KPT1uwe8_000047_000057", "enCap": PUMPKIN, "chCap": ["雕刻", "南瓜"]},
    {"videoID": "-J6KPT_uwe8_000001_000011", "enCap": ["C"], "chCap": []},
]


def test_vatex(tmp_path):
    files = {
        "vatex_training_v1.0.json": VATEX_ROWS[:1],
        "vatex_validation_v1.0.json": VATEX_ROWS[1:],
        "train_list.txt": "nJ6KPT1uwe8_000047_000057\n-J6KPT_uwe8_000001_000011\nshort_1_2",
        "val_list.txt": "-J6KPT_uwe8_000001_000011",
        "test1k5_sec_list.txt": "-J6KPT_uwe8_000001_000011",
        "videos/nJ6KPT1uwe8.mp4": "",
        "videos/-J6KPT_uwe8_000001_000011.mp4": "",
    }
    dataset = VATEX(root=write(tmp_path, files))
    whole, cut = dataset.samples("retrieval", "train")
    assert whole.texts == ("A woman is carving a pumpkin", "B")
    assert whole.video == MediaRef(str(tmp_path / "videos/nJ6KPT1uwe8.mp4"), 47.0, 57.0)
    assert cut.video == MediaRef(str(tmp_path / "videos/-J6KPT_uwe8_000001_000011.mp4"))
    assert malformed(dataset, "train_list.txt") == ["line 3: 'short_1_2' is no id_start_end with six digits each"]
    chinese = VATEX(root=tmp_path, language="zh")
    assert [s.texts for s in chinese.samples("caption", "train")] == [("雕刻", "南瓜")]
    second = VATEX(root=tmp_path, test="second")
    assert second.splits("retrieval") == ("train", "test") and len(second.samples("retrieval", "val")) == 0
    assert len(second.samples("retrieval", "test")) == 1
    with pytest.raises(DataError, match=r"test_list.txt"):
        dataset.samples("retrieval", "test")
    with pytest.raises(ConfigError, match="language='de' must be one of en, zh"):
        VATEX(language="de")


def test_vatex_with_the_splits_of_its_release(tmp_path):
    released = [*VATEX_ROWS, VATEX_ROWS[0], {"videoID": "short_1_2", "enCap": ["x"]}]
    files = {
        "vatex_training_v1.0.json": released,
        "vatex_validation_v1.0.json": VATEX_ROWS[1:],
        "vatex_public_test_english_v1.1.json": [{"videoID": VATEX_ROWS[0]["videoID"], "enCap": PUMPKIN}],
        "train_list.txt": "-J6KPT_uwe8_000001_000011",  # is not read
        "videos/nJ6KPT1uwe8.mp4": "",
    }
    dataset = VATEX(root=write(tmp_path, files), test="public")
    train = dataset.samples("caption", "train")
    assert [(s.id, s.texts) for s in train] == [
        ("nJ6KPT1uwe8_000047_000057", ("A woman is carving a pumpkin", "B")), ("-J6KPT_uwe8_000001_000011", ("C",)),
    ]  # fmt: skip
    assert train[0].video == MediaRef(str(tmp_path / "videos/nJ6KPT1uwe8.mp4"), 47.0, 57.0)
    assert malformed(dataset, "vatex_training_v1.0.json") == [
        "item 2: nJ6KPT1uwe8_000047_000057 is there already",
        "item 3: 'short_1_2' is no id_start_end with six digits each",
    ]
    assert [len(dataset.samples("caption", split)) for split in ("val", "test")] == [1, 1]


ACTIVITYNET = {
    "v_QOlSCBRmfWY": {
        "duration": 82.73,
        "timestamps": [[0.83, 19.86], [17, 60.81], [60, 56.26]],
        "sentences": ["A young woman is seen.", " The girl dances.", "  She continues."],
    },
    "v_two": {"duration": 5, "timestamps": [[0, 9]], "sentences": ["x"]},
    "v_bad": {"duration": 5, "timestamps": [[0, 9]], "sentences": ["x", "y"]},
}


def test_activitynet_paragraphs(tmp_path):
    files = {"val_1.json": ACTIVITYNET, "val_1_list.txt": "v_two\nv_three", "videos/QOlSCBRmfWY.mkv": ""}
    root = write(tmp_path, files)
    dataset = ActivityNet(root=root)
    assert dataset.splits("retrieval") == ("train", "test")
    first, second = dataset.samples("retrieval", "test")
    assert first.texts == ("A young woman is seen. The girl dances. She continues.",)
    assert first.video == MediaRef(str(tmp_path / "videos" / "QOlSCBRmfWY.mkv"))
    assert second.video.path == str(tmp_path / "videos" / "v_two.mp4")
    assert malformed(dataset, "val_1.json") == ["clip v_bad: 2 sentences with 1 time stamps"]
    listed = ActivityNet(root=root, lists=True)
    assert [s.id for s in listed.samples("retrieval", "test")] == ["v_two"]
    assert malformed(listed, "val_1_list.txt") == ["line 2: v_three has no sentence"]


def test_activitynet_moments(tmp_path):
    dataset = ActivityNet(root=write(tmp_path, {"train.json": ACTIVITYNET}), moments=True)
    table = dataset.samples("retrieval", "train")
    assert [(s.id, s.texts[0], s.video.start, s.video.end) for s in table] == [
        ("v_QOlSCBRmfWY#0", "A young woman is seen.", 0.83, 19.86),
        ("v_QOlSCBRmfWY#1", "The girl dances.", 17.0, 60.81),
        ("v_two#0", "x", 0.0, 9.0),
    ]
    assert table[0].extra["video_id"] == "v_QOlSCBRmfWY[0.83-19.86]"
    assert table[0].video.path.endswith("v_QOlSCBRmfWY.mp4")
    assert "clip v_QOlSCBRmfWY, sentence 2: [60, 56.26] is no span" in malformed(dataset, "train.json")[0]


STEPS = {
    "database": {
        "GLd3aX16zBg": {
            "subset": "training",
            "duration": 241.62,
            "recipe_type": "113",
            "annotations": [
                {"segment": [90, 102], "id": 0, "sentence": "spread margarine on white bread"},
                {"segment": [114, 127], "id": 1, "sentence": "place cheese on the bread "},
                {"segment": [130, 130], "id": 2, "sentence": "nothing"},
                {"segment": [131, 140], "id": 3, "sentence": " "},
            ],
        },
        "xHr8X2Wpmno": {
            "subset": "validation", "annotations": [{"segment": [47, 60], "id": 0, "sentence": "pick the ends off"}],
        },
        "broken": {"annotations": []},
    },
    "version": "x",
}  # fmt: skip


def test_youcook2_steps_are_spans_with_a_sentence(tmp_path):
    root = write(tmp_path, {"youcookii_annotations_trainval.json": STEPS, "videos/GLd3aX16zBg.mkv": ""})
    dataset = YouCook2(root=root)
    assert dataset.splits("caption") == ("train", "test")
    first, second = dataset.samples("caption", "train")
    assert (first.id, first.texts) == ("GLd3aX16zBg#0", ("spread margarine on white bread",))
    assert first.video == MediaRef(str(tmp_path / "videos" / "GLd3aX16zBg.mkv"), 90.0, 102.0)
    assert second.extra["video_id"] == "GLd3aX16zBg[114-127]" and second.texts == ("place cheese on the bread",)
    assert malformed(dataset, "youcookii_annotations_trainval.json") == [
        "video GLd3aX16zBg, step 2: [130, 130] is no span with a start before its end",
        "video GLd3aX16zBg, step 3: no sentence",
        "video broken: no subset",
    ]
    assert [s.id for s in dataset.samples("retrieval", "test")] == ["xHr8X2Wpmno#0"]


def test_youcook2_with_what_is_said_during_a_step(tmp_path):
    said = {"GLd3aX16zBg": {"start": [80, 88.5, 101, 102, 200], "end": [90, 92, 110, 120, 210], "text": list("abcde")}}
    root = write(tmp_path, {"youcookii_annotations_trainval.json": STEPS, "asr.json": said})
    first, second = YouCook2(root=root, transcripts="asr.json").samples("caption", "train")
    assert first.extra["transcript"] == "b c" and second.extra["transcript"] == "d"  # ends are exclusive
    (other,) = YouCook2(root=root, transcripts="asr.json").samples("caption", "test")
    assert other.extra["transcript"] == ""
    with pytest.raises(DataError, match="none.json"):
        YouCook2(root=root, transcripts="none.json").samples("caption", "train")


# -- sound -----------------------------------------------------------------------------------------------------------

AUDIOCAPS = (
    "audiocap_id,youtube_id,start_time,caption\r\n"
    '97151,vfY_TJq7n_U,130,"Rustling occurs, ducks quack and water splashes"\r\n'
    "2,r1nicOVtvkQ,7,Birds\r\n97152,vfY_TJq7n_U,130,Ducks quack\r\n97152,vfY_TJq7n_U,130,again\r\n3,x,soon,y\r\n"
)


def test_audiocaps(tmp_path):
    dataset = AudioCaps(root=write(tmp_path, {"val.csv": AUDIOCAPS}))
    first, second = dataset.samples("retrieval", "val")
    assert first.texts == ("Rustling occurs, ducks quack and water splashes", "Ducks quack", "again")
    assert (first.id, first.extra["video_id"], first.video) == ("97151", "vfY_TJq7n_U_130", None)
    assert second.audio.path.endswith("r1nicOVtvkQ_7.wav")
    assert [line.partition(": ")[0] for line in malformed(dataset, "val.csv")] == ["line 6"]
    table = AudioCaps(root=tmp_path, version="v2")
    with pytest.raises(DataError, match=r"v2_val.csv or dataset2.0/val.csv"):
        table.samples("retrieval", "val")


@pytest.mark.parametrize(
    "name, span",
    [
        ("audio/vfY_TJq7n_U_130.flac", (None, None)),
        ("wavs/Yvfy_TJq7n_U_130.wav", None),
        ("audio/YvfY_TJq7n_U_130.wav", (None, None)),
        ("audio/val/vfY_TJq7n_U_130000_140000.mp3", (None, None)),
        ("videos/vfY_TJq7n_U_130_140.mp4", (None, None)),
        ("waveforms/val/YvfY_TJq7n_U.wav", (130.0, 140.0)),
        ("vfY_TJq7n_U.mp4", (130.0, 140.0)),
    ],
)
def test_names_of_audiocaps_files(tmp_path, name, span):
    root = write(tmp_path, {"val.csv": AUDIOCAPS, name: ""})
    audio = AudioCaps(root=root, whole_videos=True).samples("caption", "val")[0].audio
    if span is None:
        assert not Path(audio.path).exists()  # YouTube ids tell capitals apart
    else:
        assert (audio.path, audio.start, audio.end) == (str(tmp_path / name), *span)
        clip = AudioCaps(root=root, video=True).samples("caption", "val")[0]
        assert clip.video == clip.audio == MediaRef(str(tmp_path / name))


AVQA = {
    "video_id": "00000093", "question_id": 12, "type": '["Audio", "Counting"]',
    "question_content": "How many musical instruments were heard throughout the video?", "templ_values": "[]",
    "question_deleted": 0, "anser": "one",
}  # fmt: skip


def test_music_avqa(tmp_path):
    templated = AVQA | {
        "question_id": 13, "video_id": "va00000093", "type": '["Audio-Visual", "Existential"]', "anser": "yes",
        "question_content": "Is the <Object> in the <LR> always playing?", "templ_values": '["ukulele", "left"]',
    }  # fmt: skip
    wrong = [
        AVQA | {"question_id": 14, "templ_values": '["one"]'},
        AVQA | {"question_id": 15, "type": "Audio"},
        AVQA | {"question_id": 12},
    ]
    root = write(tmp_path, {"avqa-test.json": [AVQA, templated, *wrong]})
    dataset = MusicAVQA(root=root)
    first, second = dataset.samples("qa", "test")
    assert (first.id, first.labels, first.extra["question_type"]) == ("12", {"answer": "one"}, "Audio/Counting")
    assert (first.extra["question_group"], first.extra["category"]) == ("Audio", "real")
    assert second.texts == ("Is the ukulele in the left always playing?",) and second.extra["category"] == "synthetic"
    assert [line.partition(":")[0] for line in malformed(dataset, "avqa-test.json")] == ["item 2", "item 3", "item 4"]
    real = MusicAVQA(root=root, clips="real")
    assert [s.id for s in real.samples("qa", "test")] == ["12"]
    assert real.origin()["files"][0]["rows_of_other_clips"] == 1
    with pytest.raises(ConfigError, match="no table of the kind 'retrieval'; it has: qa"):
        dataset.samples("retrieval", "test")


def test_templates_are_filled_in_order():
    assert fill_template("<A> or <B>?", ["x", "y"]) == "x or y?"
    with pytest.raises(ValueError, match="1 places and 2 words"):
        fill_template("<A>?", ["x", "y"])


# -- images ----------------------------------------------------------------------------------------------------------

IMAGE = "COCO_val2014_000000391895.jpg"
SENTENCES = [{"raw": "a man"}, {"raw": "b ", "tokens": []}]


@pytest.mark.parametrize(
    "name, content",
    [
        ("coco_karpathy_test.jsonl", json.dumps({"caption": [" a man ", "b"], "image": f"coco/val2014/{IMAGE}"})),
        ("coco_karpathy_test.json", [{"caption": text, "image": f"val2014/{IMAGE}"} for text in ("a man", "b")]),
        (
            "dataset_coco.json",
            {"images": [
                {"filepath": "val2014", "filename": IMAGE, "split": "test", "sentences": SENTENCES},
                {"filepath": "val2014", "filename": "x.jpg", "split": "restval", "sentences": [{"raw": "c"}]},
            ], "dataset": "coco"},
        ),
    ],
)  # fmt: skip
@pytest.mark.parametrize("place", ["images/val2014", "val2014", "images"])
def test_coco(tmp_path, name, content, place):
    root = write(tmp_path, {name: content, f"{place}/{IMAGE}": ""})
    (sample,) = COCO(root=root).samples("retrieval", "test")
    assert sample.texts == ("a man", "b") and sample.extra["video_id"] == IMAGE
    assert Path(sample.video.path).samefile(tmp_path / place / IMAGE) and sample.audio is None
    if name == "dataset_coco.json":
        assert [s.texts for s in COCO(root=root).samples("retrieval", "train")] == [("c",)]


def test_coco_in_its_own_files(tmp_path):
    content = {
        "images": [{"id": 5, "file_name": "a.jpg"}, {"id": 6, "file_name": "b.jpg"}],
        "annotations": [
            {"image_id": 5, "id": 50, "caption": "one"}, {"image_id": 6, "id": 51, "caption": "two "},
            {"image_id": 5, "id": 52, "caption": "three"}, {"image_id": 7, "id": 53, "caption": "four"},
        ],
    }  # fmt: skip
    dataset = COCO(root=write(tmp_path, {"annotations/captions_train2017.json": content, "train2017/b.jpg": ""}))
    first, second = dataset.samples("caption", "train")
    assert (first.id, first.texts, second.texts) == ("50", ("one", "three"), ("two",))
    assert second.video.path == str(tmp_path / "train2017" / "b.jpg")
    assert malformed(dataset, "captions_train2017.json") == ["annotation 3: no 7"]


def test_flickr30k(tmp_path):
    rows = [{"caption": ["one"], "image": "flickr30k-images/1007129816.jpg"}, {"image": "x.jpg"}, {"caption": "y"}]
    root = write(tmp_path, {"my.jsonl": "\n".join(map(json.dumps, rows))})
    dataset = Flickr30k(root=root, test_file="my.jsonl")
    (sample,) = dataset.samples("retrieval", "test")
    assert sample.texts == ("one",)
    assert malformed(dataset, "my.jsonl") == ["line 2: no caption", "line 3: no image"]


def test_visual_genome(tmp_path):
    region = {"region_id": 1382, "width": 82, "height": 139, "image_id": 1, "y": 57, "x": 421}
    rows = [
        {"id": 1, "regions": [region | {"phrase": "the clock is green in colour "}, region | {"phrase": " "}]},
        {"id": 2, "regions": []},
        {"regions": []},
    ]
    dataset = VisualGenome(root=write(tmp_path, {"region_descriptions.json": rows, "VG_100K_2/1.jpg": ""}))
    (sample,) = dataset.samples("caption", "train")
    assert (sample.id, sample.texts, sample.audio) == ("1", ("the clock is green in colour",), None)
    assert sample.video.path == str(tmp_path / "VG_100K_2" / "1.jpg") and dataset.splits("caption") == ("train",)
    assert malformed(dataset, "region_descriptions.json") == ["item 0, region 1: no phrase", "item 2: no id"]
    assert len(dataset.samples("caption", "test")) == 0


@pytest.mark.parametrize("place", ["images/00000/000000001.jpg", "images/training/1.jpg", "train/1.jpg"])
def test_cc3m(tmp_path, place):
    text = 'a "very typical bus station\thttp://x/1.jpg\nsecond\thttp://y/2.jpg\nno url\n\thttp://z\n'
    dataset = CC3M(root=write(tmp_path, {"Train_GCC-training.tsv": text, place: ""}))
    first, second = dataset.samples("retrieval", "train")
    assert first.texts == ('a "very typical bus station',) and first.extra["url"] == "http://x/1.jpg"
    assert second.video.path == str(tmp_path / place) and second.audio is None
    assert malformed(dataset, "Train_GCC-training.tsv") == [
        "line 3: 1 cells instead of caption and url", "line 4: no caption",
    ]  # fmt: skip


# -- pre-training videos ---------------------------------------------------------------------------------------------

WEBVID_A = (
    "videoid,name,page_idx,page_dir,duration,contentUrl\n"
    '1053841541,"Travel blogger shoot, a story on top of mountains.",27732,027701_027750,PT00H00M17S,http://x.mp4\n'
    "1053841541,twice,1,027701_027750,PT00H00M17S,http://x.mp4\n5,,1,d,PT00H00M17S,u\n6,fine,1,d,long,u\n"
)
WEBVID_B = (
    "videoid,contentUrl,duration,page_dir,name\n"
    '1053841541,http://x.mp4,PT00H00M17S,027701_027750,"Travel blogger shoot, a story on top of mountains."\n'
)


@pytest.mark.parametrize("text", [WEBVID_A, WEBVID_B])
@pytest.mark.parametrize(
    "place", ["videos/027701_027750/1053841541.mp4", "videos/train/105384/1053841541.mp4", "105384/1053841541.mp4",
              "videos/1053841541.mp4"]
)  # fmt: skip
def test_webvid(tmp_path, text, place):
    dataset = WebVid(root=write(tmp_path, {"results_2M_train.csv": text, place: ""}))
    sample = dataset.samples("retrieval", "train")[0]
    assert sample.id == "1053841541" and sample.texts == ("Travel blogger shoot, a story on top of mountains.",)
    assert sample.video == MediaRef(str(tmp_path / place)) and sample.extra["duration"] == 17.0
    if text is WEBVID_A:
        assert malformed(dataset, "results_2M_train.csv") == [
            "line 3: the clip 1053841541 is there already", "line 4: no name",
        ]  # fmt: skip
        assert dataset.origin()["files"][0]["rows_without_a_duration"] == 1
    assert dataset.splits("caption") == ("train", "val")


def test_durations():
    for text, seconds in {"PT00H00M17S": 17, "PT01H02M03.5S": 3723.5, "PT5M": 300, "P1DT1S": 86401}.items():
        assert iso_seconds(text) == seconds
    for text in ("", "PT", "17", "17S", "P"):
        with pytest.raises(ValueError, match="no duration"):
            iso_seconds(text)


def test_howto100m_with_a_file_per_video(tmp_path):
    files = {
        "captions/-tCQ4tCQdWE.csv": "start,end,text\n0.41,3.91,check pic tonight pick\n3.91,3.91,x\n5,6,\n7,9,bowl\n",
        "captions/abc.csv": "end,start,text\n4,1,salt\n",
        "captions/validation_youcook.csv": "end,start,task,text,video_id\n60,47,226,pick the ends,xHr8X2Wpmno\n",
        "videos/-/-tCQ4tCQdWE.mp4": "",
    }
    dataset = HowTo100M(root=write(tmp_path, files))
    table = dataset.samples("retrieval", "train")
    assert [(s.texts[0], s.video.start, s.video.end) for s in table] == [
        ("check pic tonight pick", 0.41, 3.91), ("bowl", 7.0, 9.0), ("salt", 1.0, 4.0),
    ]  # fmt: skip
    assert table[0].video.path == str(tmp_path / "videos/-/-tCQ4tCQdWE.mp4")
    assert table[0].extra["video_id"] == "-tCQ4tCQdWE[0.41-3.91]" and len({s.id for s in table}) == 3
    record = dataset.origin()["files"][0]
    assert (record["rows"], record["malformed"], record["files"]) == (3, 2, 2)
    assert record["malformed_first"][0].startswith("-tCQ4tCQdWE.csv, line 3: ")
    (test,) = dataset.samples("retrieval", "test")
    assert (test.texts, test.video.start, test.video.end) == (("pick the ends",), 47.0, 60.0)
    longer = HowTo100M(root=tmp_path, min_seconds=6).samples("retrieval", "train")
    assert [(s.video.start, s.video.end) for s in longer] == [(0.0, 6.0), (5.0, 11.0), (0.0, 6.0)]


def test_a_changed_folder_of_captions_is_read_again(tmp_path):
    root = write(tmp_path, {"captions/a.csv": "start,end,text\n0,1,x\n"})
    assert len(HowTo100M(root=root).samples("caption", "train")) == 1
    write(tmp_path, {"captions/b.csv": "start,end,text\n0,1,x\n2,3,y\n"})
    assert len(HowTo100M(root=root).samples("caption", "train")) == 3


@pytest.mark.parametrize("cls", [CNVid, HowTo100M])
def test_timed_text_in_one_file(tmp_path, cls):
    good = {"text": ["睡了。", "吃"], "start": [0.76, 3], "end": [2.2, 4.5]}
    dataset = cls(root=write(tmp_path, {"caption.json": {"v1": good, "v2": {"text": ["a"], "start": []}}}))
    first, second = dataset.samples("caption", "train")
    assert (first.texts, first.video.start, first.video.end) == (("睡了。",), 0.76, 2.2)
    assert (second.id, second.extra["source"]) == ("v1#1", "caption.json:v1:1")
    assert malformed(dataset, "caption.json") == ["video v2: no end"]


def test_caption_json(tmp_path):
    content = {"105384/1053841541.mp4": "Travel blogger", f"{tmp_path}/else/a.mp4": ["x", "y"], "b.mp4": " ", " ": "z"}
    files = {"train.json": content, "videos/105384/1053841541.mp4": "", "my.json": {"c.mp4": "q"}}
    dataset = CaptionJson(root=write(tmp_path, files))
    first, second = dataset.samples("retrieval", "train")
    assert first.texts == ("Travel blogger",) and first.video.path == str(tmp_path / "videos/105384/1053841541.mp4")
    assert second.texts == ("x", "y") and second.video.path == f"{tmp_path}/else/a.mp4"
    assert malformed(dataset, "train.json") == ["item 2: no caption", "item 3: no path"]
    assert dataset.splits("retrieval") == ("train",) and len(dataset.samples("retrieval", "test")) == 0
    other = CaptionJson(root=tmp_path, test_file="my.json")
    assert [s.texts for s in other.samples("retrieval", "test")] == [("q",)]
    with pytest.raises(DataError, match=r"gone.json"):
        CaptionJson(root=tmp_path, file="gone.json").samples("caption", "train")


ANTMMF = [
    {"caption": "a person", "clip_name": "data/mp4/video9770", "sen_id": 0, "label": 1},
    {"caption": "the system", "clip_name": "video9770.mp4", "sen_id": 1, "label": 2},
    {"caption": "a span", "clip_name": "video9770.mp4", "start": 0.0, "end": 3.7, "label": 1, "type": "video"},
    {"caption": "a dog", "clip_name": "dog.jpg", "sen_id": 0, "label": 1, "type": "image"},
    {"caption": "", "clip_name": "v_BlowingCandles_g24_c04.avi", "label": 13},
    {"caption": "back", "clip_name": "video9770.mp4", "start": 3.0, "end": 1.0},
]


def test_antmmf_mixes_clips_spans_and_images(tmp_path):
    files = {"train.jsonl": "\n".join(map(json.dumps, ANTMMF)), "mp4/video9770.avi": "", "images/dog.jpg": ""}
    dataset = AntMMF(root=write(tmp_path, files), namespace="msrvtt")
    clip, span, image = dataset.samples("caption", "train")
    assert clip.texts == ("a person", "the system") and clip.video == MediaRef(str(tmp_path / "mp4/video9770.avi"))
    assert clip.extra["label"] == 1 and dataset.media_namespace == "msrvtt"
    assert (span.video.start, span.video.end, span.extra["video_id"]) == (0.0, 3.7, "video9770[0-3.7]")
    assert image.video.path == str(tmp_path / "images/dog.jpg") and image.audio is None
    assert malformed(dataset, "train.jsonl") == [
        "line 5: no caption", "line 6: 3 to 1 s is no span with a start before its end",
    ]  # fmt: skip
    assert dataset.splits("caption") == ("train",) and dataset.splits("mc") == ("test",)


def test_antmmf_clips_may_be_folders_of_key_frames(tmp_path):
    lines = "\n".join(json.dumps({"caption": "c", "clip_name": name}) for name in ("video1", "video2.mp4", "video3"))
    root = write(tmp_path, {"train.jsonl": lines, "videos/video1/frame_1.jpg": "", "videos/video2/frame_1.jpg": ""})
    (root / "videos/video2.mp4").touch()
    found = AntMMF(root=root).samples("caption", "train")
    names = [str(Path(sample.video.path).relative_to(root)) for sample in found]
    assert names == ["videos/video1", "videos/video2.mp4", "videos/video3.mp4"]  # a file counts before a folder


def test_antmmf_labels_are_numbers_names_or_lists(tmp_path):
    rows = [*ANTMMF[:5], {"clip_name": "a", "label": ["b", 3]}, {"clip_name": "c", "caption": "x"}]
    files = {"train.jsonl": "\n".join(map(json.dumps, rows))}
    found = AntMMF(root=write(tmp_path, files)).samples("classification", "train")
    assert [s.labels.get("answer") for s in found] == ["1", "2", "1", "1", "13", None, None]
    assert [s.texts[0] for s in found] == ["a person", "the system", "a span", "a dog", "", "", "x"]
    assert found[5].extra["labels"] == ["b", "3"] and "label" not in found[0].extra


def test_vat(tmp_path):
    files = {
        "train.csv": "audio,text,video\na/1.wav,1.txt,1.mp4\n2.wav,2.json,2.mp4\n3.wav,3.txt,3.mp4\n,4.txt,4.mp4\n",
        "text/1.txt": "a title #tag #more",
        "text/2.json": {"title": "第二"},
        "text/4.txt": "four",
        "video/1.mp4": "",
        "audio/a/1.wav": "",
    }
    dataset = VAT(root=write(tmp_path, files))
    first, second, fourth = dataset.samples("retrieval", "train")
    assert first.texts == ("a title #tag #more",) and first.video.path == str(tmp_path / "video/1.mp4")
    assert first.audio.path == str(tmp_path / "audio/a/1.wav") and first.extra["video_id"] == "1"
    assert second.texts == ("第二",) and fourth.audio == fourth.video
    assert malformed(dataset, "train.csv") == [f"line 4: No such file or directory: {tmp_path}/text/3.txt"]
    assert VAT(root=tmp_path, tags=False).samples("caption", "train")[0].texts == ("a title",)


# -- UCF101 ----------------------------------------------------------------------------------------------------------

UCF101_FILES = {
    "ucfTrainTestlist/classInd.txt": "1 ApplyEyeMakeup\r\n2 ApplyLipstick\r\n10 Biking\r\n",
    "ucfTrainTestlist/trainlist01.txt": "ApplyEyeMakeup/v_ApplyEyeMakeup_g08_c01.avi 1\r\n"
    "Biking/v_Biking_g01_c01.avi 10\r\nBiking/v_Biking_g01_c01.avi 10\r\nBiking/v_Biking_g01_c02.avi 3\r\n",
    "ucfTrainTestlist/testlist01.txt": "ApplyLipstick/v_ApplyLipstick_g01_c01.avi\r\n"
    "Knitting/v_Knitting_g01_c01.avi\r\n",
    "UCF-101/ApplyEyeMakeup/v_ApplyEyeMakeup_g08_c01.avi": "a clip",
    "UCF-101/v_ApplyLipstick_g01_c01.mp4": "another one, in one folder and converted",
}


def test_ucf101_lists(tmp_path):
    dataset = UCF101(root=write(tmp_path, UCF101_FILES))
    assert dataset.class_names == ("ApplyEyeMakeup", "ApplyLipstick", "Biking")
    assert dataset.splits("classification") == ("train", "test") and not dataset.samples("classification", "val")
    first, second = dataset.samples("classification", "train")
    assert (first.id, first.texts, first.labels) == ("v_ApplyEyeMakeup_g08_c01", ("",), {"answer": "ApplyEyeMakeup"})
    assert first.video == MediaRef(str(tmp_path / "UCF-101/ApplyEyeMakeup/v_ApplyEyeMakeup_g08_c01.avi"))
    assert second.labels == {"answer": "Biking"} and not Path(second.video.path).exists()
    (test,) = dataset.samples("classification", "test")
    assert test.labels == {"answer": "ApplyLipstick"} and test.extra["video_id"] == "v_ApplyLipstick_g01_c01"
    assert test.video.path == str(tmp_path / "UCF-101/v_ApplyLipstick_g01_c01.mp4")
    assert malformed(dataset, "trainlist01.txt") == [
        "line 3: v_Biking_g01_c01 is there already", "line 4: no 3",
    ]  # fmt: skip
    assert malformed(dataset, "testlist01.txt")[0].startswith("line 2: Knitting/v_Knitting_g01_c01.avi is in no folder")


def test_another_fold_of_ucf101_is_another_list(tmp_path):
    with pytest.raises(DataError, match=r"trainlist02\.txt"):
        UCF101(root=write(tmp_path, UCF101_FILES), fold=2).samples("classification", "train")


# -- all of them -----------------------------------------------------------------------------------------------------

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
    "vat": (["caption"], {"train.csv": "audio,text,video\n1.wav,1.txt,1.mp4\n", "text/1.txt": "x"}),
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
