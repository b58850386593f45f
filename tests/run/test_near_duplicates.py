"""``data.near_duplicates=report``: a test clip that is a training clip encoded again is named."""

from __future__ import annotations

import json
from pathlib import Path

import av
import numpy as np
import pytest


def write(path: Path, frames: np.ndarray) -> None:
    with av.open(str(path), "w") as file:
        stream = file.add_stream("mpeg4", rate=8)
        stream.height, stream.width = frames.shape[1:3]
        for frame in frames:
            file.mux(stream.encode(av.VideoFrame.from_ndarray(frame, "rgb24")))
        file.mux(stream.encode(None))


@pytest.mark.slow
def test_a_re_encoded_training_clip_is_told(vtp, tmp_path, capsys):
    rng = np.random.default_rng(0)
    lines = ["video,caption,split"]
    blocks = rng.integers(0, 255, (8, 4, 4, 3), dtype=np.uint8)  # a still picture each
    clips = [np.kron(one, np.ones((16, 16, 1), np.uint8))[None].repeat(8, 0) for one in blocks]
    for number, frames in enumerate(clips):
        write(tmp_path / f"c{number}.mp4", frames)
        lines.append(f"c{number}.mp4,clip {number},{'test' if number > 5 else 'train'}")
    write(tmp_path / "again.mp4", clips[2][:, ::2, ::2])
    lines.append("again.mp4,the third one,test")
    (tmp_path / "a.csv").write_text("\n".join(lines) + "\n")
    options = [f"dataset.file={tmp_path / 'a.csv'}", "data.near_duplicates=report", "train.steps=1", "run_dir=a"]
    assert vtp(*options) == 0
    told = capsys.readouterr().out
    assert "NEAR DUPLICATES: 1 of 3 test clips look like training clips (first: again.mp4 like c2.mp4" in told
    report = json.loads((tmp_path / "a/report.json").read_text())
    found = report["near_duplicates"]
    assert (found["train_clips"], found["test_clips"], found["not_compared"], found["found"]) == (6, 3, 0, 1)
    assert report["leaks"]["leak"] is False and any("NEAR DUPLICATES" in line for line in report["warnings"])
    assert vtp(*options[:1], "data.near_duplicates=yes", "run_dir=b") == 2
    assert "near_duplicates" in capsys.readouterr().err
