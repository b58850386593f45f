"""The documented script makes a root that decodes, and says in the report what share of the protocol it covers."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from vtp.eval.leaks import check_leaks, media_names, train_record
from vtp.media import Wanted, read_clip
from vtp_datasets.msrvtt import MSRVTT

pytestmark = pytest.mark.data


def test_the_tables_of_the_sample_root(sample_root):
    dataset = MSRVTT(root=sample_root)
    assert Counter(s.extra["video_id"] for s in dataset.samples("qa", "train")) == {"video9770": 31, "video9771": 17}
    asked = {(s.id, s.texts, s.labels["answer"]) for s in dataset.samples("qa", "test")}
    assert len(asked) == 72_821
    assert {(s.id, s.texts, s.labels["answer"]) for s in dataset.samples("qa", "train")} <= asked
    captions = {s.id: s.texts for s in dataset.samples("retrieval", "train")}
    assert {name: len(texts) for name, texts in captions.items()} == {"video9770": 3, "video9771": 2}
    assert "the boy is trying to fix the problem" in captions["video9770"]
    assert not any("keyframe" in text for texts in captions.values() for text in texts)
    assert len(dataset.samples("retrieval", "test")) == 1000
    assert dataset.origin()["tables"]["qa/test"]["clips_on_disk"] == 2
    assert all(f["malformed"] == 0 for f in dataset.origin()["files"])


def test_its_clips_decode(sample_root):
    found = {}
    for sample in MSRVTT(root=sample_root).samples("retrieval", "train"):
        clip = read_clip(sample.video, Wanted(size=None, sample_rate=16_000))
        found[sample.id] = (clip.frames.shape[1:], clip.waveform is not None)
    assert found == {"video9770": ((240, 320, 3), True), "video9771": ((240, 320, 3), False)}


def test_the_overlap_of_training_and_test_is_found(sample_root):
    dataset = MSRVTT(root=sample_root)
    stage = train_record("train", dataset.samples("qa", "train"), dataset)
    report = check_leaks([stage], media_names(dataset.samples("qa", "test"), dataset), on_leak="stamp")
    assert report.leaked == {"msrvtt:video9770", "msrvtt:video9771"}


def test_it_prints_the_commands(sample_tool, shared_data, tmp_path, capsys):
    out = tmp_path / "root"
    assert sample_tool.main([str(shared_data), str(out)]) == 0
    printed = capsys.readouterr().out
    for task in ("msrvtt_qa", "msrvtt_retrieval"):
        assert f"vtp run task={task} dataset.root={out} data.on_leak=stamp" in printed
    assert (out / "videos" / "video9770.mp4").is_symlink()
    assert sample_tool.main([str(shared_data), str(out), "--copy"]) == 0  # again, over what is there
    clip = out / "videos" / "video9770.mp4"
    assert not clip.is_symlink() and clip.stat().st_size == 431_888


def test_its_questions_are_in_the_official_layout(sample_root):
    for item in json.loads(Path(sample_root, "train_qa.json").read_text()):
        assert {k: type(v) for k, v in item.items()} == {
            "answer": str, "category_id": int, "id": int, "question": str, "video_id": int,
        }  # fmt: skip


def test_another_folder_is_refused(sample_tool, tmp_path, capsys):
    assert sample_tool.main([str(tmp_path), str(tmp_path / "out")]) == 2
    assert "video9770.mp4" in capsys.readouterr().err and not (tmp_path / "out").exists()
