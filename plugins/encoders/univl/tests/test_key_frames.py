"""``media.backend=key_frames``: folders of pictures are read in place, in the order of their numbers."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vtp.media import MediaError, MediaReader, Wanted, probe, read_clip
from vtp.media.request import EVERYTHING
from vtp.types import MediaRef
from vtp_datasets.shapes.render import write_clip


def pictures(folder: Path, numbers: list[int], ending: str = "png", size: tuple[int, int] = (64, 48)) -> MediaRef:
    folder.mkdir(parents=True, exist_ok=True)
    for number in numbers:
        pixels = np.full((size[1], size[0], 3), (200, number, 30), np.uint8)
        Image.fromarray(pixels).save(folder / f"frame_{number}.{ending}", quality=95)
    return MediaRef(str(folder))


def read(ref: MediaRef, wanted: Wanted = EVERYTHING):
    return read_clip(ref, wanted, backend="key_frames")


def test_pictures_are_frames_in_the_order_of_their_numbers(tmp_path):
    ref = pictures(tmp_path / "video7", [100, 20, 3])
    (tmp_path / "video7" / "notes.txt").write_text("no picture")
    clip = read(ref, Wanted(sample_rate=16000))
    assert clip.frames[:, 0, 0].tolist() == [[200, 3, 30], [200, 20, 30], [200, 100, 30]]  # red first
    assert clip.timestamps.tolist() == [0.0, 1.0, 2.0] and clip.missing == {"audio": "no audio stream"}
    found = probe(ref, backend="key_frames").video
    assert (found.count, found.fps, found.end, found.width, found.height) == (3, 1.0, 3.0, 64, 48)


def test_chosen_frames_of_a_span_at_a_size(tmp_path):
    ref = pictures(tmp_path / "v", list(range(10, 20)), "jpg")
    span = MediaRef(ref.path, 2.0, 7.0)  # pictures 12 to 16
    clip = read(span, Wanted(times=lambda info: np.array([4, 0, 0]) if info.count == 5 else 1 / 0, size=(24, 32)))
    assert clip.frames.shape == (3, 24, 32, 3) and clip.timestamps.tolist() == [6.0, 2.0, 2.0]
    assert abs(clip.frames[:, 5, 5, 1].astype(int) - [16, 12, 12]).max() <= 2
    with pytest.raises(MediaError, match="outside the 10.00 s"):
        read(MediaRef(ref.path, 11.0, 12.0))


def test_another_process_reads_them_too(tmp_path):
    reader = MediaReader(backend="key_frames")
    assert reader.read(pictures(tmp_path / "v", [1, 2]), Wanted()).frames.shape == (2, 48, 64, 3)
    write_clip(tmp_path / "clip.mp4", np.full((6, 32, 32, 3), 90, np.uint8), None)
    assert len(reader.read(MediaRef(str(tmp_path / "clip.mp4")), Wanted()).frames) == 6  # a file is read as ever


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda folder: [file.unlink() for file in folder.iterdir()], "the folder holds no .jpg or .png"),
        (lambda folder: (folder / "frame_1.png").rename(folder / "cover.png"), "cover.png has no number at its end"),
        (lambda folder: (folder / "frame_2.png").write_bytes(b"no picture"), "frame_2.png: no frame could be decoded"),
        (lambda folder: pictures(folder, [3], size=(20, 20)), "its pictures have 2 sizes"),
    ],
)
def test_what_cannot_be_read_is_told(change, message, tmp_path):
    ref = pictures(tmp_path / "v", [1, 2])
    change(tmp_path / "v")
    with pytest.raises(MediaError, match=message) as caught:
        read(ref)
    assert caught.value.backend == "key_frames"


def test_sizes_may_differ_where_one_is_wanted(tmp_path):
    ref = pictures(tmp_path / "v", [1, 2])
    pictures(tmp_path / "v", [3], size=(20, 20))
    assert read(ref, Wanted(size=(16, 16))).frames.shape == (3, 16, 16, 3)


def test_a_folder_without_sound(tmp_path):
    with pytest.raises(MediaError, match="has no sound"):
        read(pictures(tmp_path / "v", [1]), Wanted(video=False, sample_rate=16000))


@pytest.mark.slow
def test_training_and_evaluation_on_key_frames(tmp_path):
    for split, first in (("train", 0), ("test", 4)):
        lines = []
        for number in range(first, first + 4):
            pictures(tmp_path / "videos" / f"video{number}", [10 * number + k for k in range(5)], "jpg")
            line = {"caption": f"clip number {number}", "clip_name": f"video{number}"}
            lines.append(line | ({} if split == "train" else {"retrieval_key": f"ret{number}"}))
        (tmp_path / f"{split}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    options = ["experiment=univl/tiny_finetune", "dataset=antmmf", "dataset.root=.", "media.backend=key_frames"]
    options += ["encoder.text.preset=tiny", "encoder.text.tokenizer=texts", "encoder.video.preset=tiny"]
    options += ["encoder.video.frames=3", "encoder.video.size=32", "train.steps=2", "train.global_batch=4"]
    command = [sys.executable, "-m", "vtp", "run", *options, "task.selection=last", "threads=1", "run_dir=out"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["ledger"]["evaluated"] == 4 and not report["ledger"]["reasons"]
    assert not (tmp_path / "out" / "bad_samples.jsonl").exists()
