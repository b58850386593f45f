"""Whole runs of the tasks, as people start them: incomplete copies of data sets, own data, and the real clips."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

TOOLS = Path(__file__).resolve().parents[2] / "tools"
SHORT = ["train.steps=2", "train.global_batch=4", "train.eval_every=null", "train.tensorboard=false", "threads=1"]
SHORT += ["data.allow_incomplete=true"]  # copies of data sets are not whole

pytestmark = pytest.mark.slow


def run(cwd: Path, *arguments: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "vtp", "run", *SHORT, *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=300, check=False)


def report(folder: Path) -> dict:
    return json.loads((folder / "report.json").read_text(encoding="utf-8"))


def test_absent_training_clips_are_told_and_left_out(tmp_path):
    command = ["task=msrvtt_retrieval", "dataset=shapes", "dataset.size=tiny", "dataset.root=world"]
    whole = run(tmp_path, *command, "run_dir=whole")
    assert whole.returncode == 0, whole.stderr
    assert "not on the disk" not in whole.stdout + whole.stderr
    command = ["task=msrvtt_retrieval", "dataset=msrvtt", "dataset.train_list=full", "dataset.test=full"]
    command += ["dataset.root=world"]  # the same folder, read by a reader that does not mind what is missing
    clips = sorted((tmp_path / "world/videos").iterdir(), key=lambda path: int(path.stem.removeprefix("video")))
    for path in clips[:10]:  # of the 16 training clips
        path.unlink()
    clips[10].write_bytes(b"no video")  # a bad file is no absent one
    part = run(tmp_path, *command, "run_dir=part", "data.max_bad_fraction=0.5")
    assert part.returncode == 0, part.stderr
    line = "10 of 16 training clips are not on the disk (first: world/videos/video0.mp4)"
    assert line in part.stdout + part.stderr
    assert any(line in warning for warning in report(tmp_path / "part")["warnings"])
    stage = report(tmp_path / "part")["train"][-1]
    assert stage["on_disk"]["absent_clips"] == 10 and stage["on_disk"]["usable_samples"] == 6
    bad = [json.loads(one)["path"] for one in (tmp_path / "part/bad_samples.jsonl").read_text().splitlines()]
    assert bad == [f"world/videos/{clips[10].name}"]  # absent files are not in it
    for path in clips[10:16]:
        path.unlink()
    none = run(tmp_path, *command, "run_dir=none")
    assert none.returncode == 2 and "none of the 16 training clips is on the disk" in none.stderr
    assert not (tmp_path / "none").exists()


@pytest.mark.data
def test_msvd_with_the_five_real_clips(tmp_path, shared_data):
    tool = [sys.executable, str(TOOLS / "msvd_sample_root.py"), str(shared_data), "root"]
    subprocess.run(tool, cwd=tmp_path, check=True, capture_output=True)
    asked = run(tmp_path, "task=msvd_qa", "dataset.root=root", "run_dir=qa", "task.selection=last")
    assert asked.returncode == 0, asked.stderr
    assert "23 of 13,157 questions evaluated (0.17 %), 13,134 missing counted as misses" in asked.stdout
    found = report(tmp_path / "qa")
    assert found["protocol"]["official"] and not found["protocol"]["unverified"]
    assert found["ledger"]["reasons"] == {"no such file": 13134}
    # published: always answering "man" scores 14.1 %, all 1,852 training answers hold 94.1 % of the right ones
    assert found["rows"]["majority answer"]["accuracy"] == pytest.approx(14.1, abs=0.05)
    assert found["metrics"]["in_vocabulary"] == pytest.approx(94.1, abs=0.05) and found["facts"]["answers"] == 1852
    # the same through training, and on all questions: what looks at nothing reads no clip
    blind = run(tmp_path, "task=msvd_qa", "model=prior", "dataset.root=root", "train.steps=200", "run_dir=blind")
    assert blind.returncode == 0, blind.stderr
    assert "13,157 of 13,157 questions evaluated" in blind.stdout and "no picture" not in blind.stdout
    found = report(tmp_path / "blind")
    assert found["metrics"]["accuracy"] == pytest.approx(14.1, abs=0.05)
    lines = [json.loads(line) for line in (tmp_path / "blind/predictions.jsonl").read_text().splitlines()]
    assert len(lines) == 13157 and {line["prediction"] for line in lines} == {"man"}
    searched = run(tmp_path, "task=msvd_retrieval", "dataset.root=root", "run_dir=retrieval")
    assert searched.returncode == 0, searched.stderr
    found = report(tmp_path / "retrieval")
    assert found["protocol"]["official"] and found["ledger"]["expected"] == 27763
    assert found["ledger"]["evaluated"] == 28 + 33  # sentences of the two test clips
    assert found["ledgers"]["videos"]["expected"] == 670 and "v2t: a clip's texts as one set" in found["rows"]


@pytest.mark.data
def test_captions_of_the_five_real_clips(tmp_path, shared_data):
    tool = [sys.executable, str(TOOLS / "msvd_sample_root.py"), str(shared_data), "root"]
    subprocess.run(tool, cwd=tmp_path, check=True, capture_output=True)
    options = ["dataset.root=root", "run_dir=out", "task.selection=last", "task.subsets=[[video]]", "task.max_length=8"]
    done = run(tmp_path, "task=msvd_captioning", *options)
    assert done.returncode == 0, done.stderr
    assert "2 of 670 clips evaluated (0.30 %), 668 missing counted as misses" in done.stdout
    found = report(tmp_path / "out")
    assert found["protocol"]["official"] and not found["protocol"]["unverified"]
    assert found["facts"]["references"] == 27763 and "only video" in found["rows"]
    lines = [json.loads(line) for line in (tmp_path / "out/predictions.jsonl").read_text().splitlines()]
    written = [line for line in lines if "missing" not in line]
    assert len(lines) == 670 and sorted(len(line["references"]) for line in written) == [28, 33]
    assert all(isinstance(line["prediction"], str) and len(line["prediction"].split()) <= 8 for line in written)
    assert (tmp_path / "out/report.png").stat().st_size > 10_000
    assert "data:image/jpeg;base64," in (tmp_path / "out/report.html").read_text(encoding="utf-8")
    assert all(len(one["sha256"]) == 64 for one in found["frames"]["pyav"]["items"].values())
    # the same sentences without references, of the clips alone
    names = [line["video"] for line in written]
    clips = [next((tmp_path / "root/videos").glob(f"{name}.*")) for name in names]
    (tmp_path / "clips.csv").write_text("\n".join(["video", *map(str, clips)]) + "\n")
    predict = ["mode=predict", "checkpoint=out", "dataset=csv", "dataset.test_file=clips.csv", "task.max_length=8"]
    alone = run(tmp_path, "task=captioning", *predict, "run_dir=alone")
    assert alone.returncode == 0, alone.stderr
    again = [json.loads(line) for line in (tmp_path / "alone/predictions.jsonl").read_text().splitlines()]
    assert [line["prediction"] for line in again] == [line["prediction"] for line in written]
    assert not any("references" in line or "token_f1" in line for line in again)


@pytest.mark.data
@pytest.mark.parametrize("task", ["retrieval", "qa", "multiple_choice", "captioning"])
def test_own_data_without_code(task, tmp_path, shared_data):
    clips = sorted((shared_data / "videos/msvd").glob("*.avi"))
    rows = []
    for i, clip in enumerate(clips):
        row = {"video": os.fspath(clip), "split": "train" if i < 3 else "test"}
        columns = {
            "retrieval": {"caption": f"clip number {i}"},
            "captioning": {"caption": f"clip number {i}"},
            "qa": {"question": "which?", "answer": "one" * (i % 2 + 1)},
            "multiple_choice": {"question": "which?", "options": "a|b|c", "answer": i % 3},
        }
        rows.append(row | columns[task])
    with open(tmp_path / "my.csv", "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    done = run(tmp_path, f"task={task}", "dataset=csv", "dataset.file=my.csv", "run_dir=out")
    assert done.returncode == 0, done.stderr
    found = report(tmp_path / "out")
    assert found["ledger"]["evaluated"] == 2 and found["protocol"]["name"] == "own data"
    assert "protocol own data (csv test: 2 videos, 2 " in done.stdout and "official" not in done.stdout


@pytest.mark.data
def test_sounds_of_real_clips_are_searched(tmp_path, shared_data):
    clips = sorted((shared_data / "videos/vggsound").glob("*.mp4"))
    lines = ["audio,caption,split"]
    lines += [f"{clip},sound number {i},{split}" for i, clip in enumerate(clips) for split in ("train", "test")]
    (tmp_path / "my.csv").write_text("\n".join(lines) + "\n")
    options = ["dataset=csv", "dataset.file=my.csv", "task.protocol=null", "data.on_leak=stamp", "run_dir=out"]
    done = run(tmp_path, "task=audiocaps_retrieval", *options)
    assert done.returncode == 0, done.stderr
    found = report(tmp_path / "out")
    assert found["ledger"]["evaluated"] == len(clips) == 4 and found["modality_coverage"]["audio"] == 1.0
    assert {"t2a/r1", "a2t/r1"} <= set(found["metrics"]) and found["leaks"]["leak"]
