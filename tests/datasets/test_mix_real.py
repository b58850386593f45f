"""A mix of the real annotation files of MSVD, AudioCaps and ActivityNet, with the real clips at hand: two processes,
killed and resumed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from vtp_datasets.activitynet import ActivityNet
from vtp_datasets.audiocaps import AudioCaps

pytestmark = [pytest.mark.slow, pytest.mark.data]

SHORT = ["train.steps=14", "train.epochs=null", "train.global_batch=6", "train.log_every=1", "train.eval_every=0"]
SHORT += ["train.save_every=3", "train.tensorboard=false", "threads=1", "data.workers=1", "mode=train"]


@pytest.fixture(scope="module")
def parts(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """MSVD has 3 of its training clips. No training clip of the other two is here: under the names of the first ones
    lie four clips of VGGSound, and a clip of ActivityNet's validation split."""
    root, annotations = tmp_path_factory.mktemp("clips"), shared_data / "annotations"
    for name in ("audiocaps", "activitynet"):
        (root / name).mkdir()
    table = AudioCaps(root=annotations / "audiocaps", audio=root / "audiocaps", video=True).samples("caption", "train")
    for row, clip in enumerate(sorted((shared_data / "videos/vggsound").glob("*.mp4"))):
        name = Path(table[row].audio.path).stem
        (root / "audiocaps" / f"{name}.mp4").symlink_to(clip)
    table = ActivityNet(root=annotations, videos=root / "activitynet").samples("caption", "train")
    for row in range(2):
        link = root / "activitynet" / Path(table[row].video.path).name
        link.symlink_to(shared_data / "videos/activitynet/v_GGSY1Qvo990.mp4")
    return (
        f"dataset.parts={{msvd: {{root: {annotations}, videos: {shared_data / 'videos/msvd'}}}, "
        f"audiocaps: {{root: {annotations / 'audiocaps'}, audio: {root / 'audiocaps'}, video: true}}, "
        f"activitynet: {{root: {annotations}, videos: {root / 'activitynet'}}}}}"
    )


def command(*arguments: str) -> list[str]:
    launch = ["-m", "torch.distributed.run", "--nproc-per-node=2", "--rdzv-backend=c10d"]
    return [sys.executable, *launch, "--rdzv-endpoint=localhost:0", "-m", "vtp", "run", *arguments]


def lines(folder: Path) -> list[dict[str, Any]]:
    found = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{key: line[key] for key in ("step", "loss", "losses", "items")} for line in found if "losses" in line]


@pytest.mark.parametrize("how", ["dataset.weights={msvd: 1, audiocaps: 2, activitynet: 1}", "dataset.batches=part"])
def test_two_processes_resumed_after_a_kill(how: str, parts: str, tmp_path: Path) -> None:
    train = "data.val_share=0.1"
    # of the 61,047 rows, 9 have their clip: batches of one part need a part of the batch size
    batch = ["train.global_batch=2"] if how == "dataset.batches=part" else []
    options = ["task=pretrain", "dataset=mix", parts, how, "objective=[vtc,mlm]", train, *SHORT, *batch]
    whole = subprocess.run(
        command(*options, "run_dir=whole"), cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert whole.returncode == 0, whole.stderr[-3000:]
    told = whole.stdout + whole.stderr
    assert "msvd: 1,197 of 1,200 training clips are not on the disk" in told
    assert "audiocaps: 49,834 of 49,838 training clips" in told and "activitynet: 10,007 of 10,009" in told
    with open(tmp_path / "killed.log", "w") as log:
        process = subprocess.Popen(
            command(*options, "run_dir=parts"), cwd=tmp_path, stdout=log, stderr=log, start_new_session=True
        )
        until = time.monotonic() + 200
        while not (tmp_path / "parts/checkpoints/step_00000006").exists() and time.monotonic() < until:
            time.sleep(0.02)
        # torchrun gives each rank a session of its own, so killing the group of torchrun would leave them at work
        ranks = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        for pid in (process.pid, *map(int, ranks)):
            os.kill(pid, signal.SIGKILL)
        process.wait()
    before = max(int(path.name[5:]) for path in (tmp_path / "parts/checkpoints").glob("step_*"))
    assert 6 <= before < 14
    resumed = subprocess.run(
        command(*options, "run_dir=parts", "resume=auto"), cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert resumed.returncode == 0, resumed.stderr[-3000:]
    assert lines(tmp_path / "parts") == lines(tmp_path / "whole") and len(lines(tmp_path / "whole")) == 14
    provenance = json.loads((tmp_path / "parts/checkpoints/last/provenance.json").read_text())
    rows = {name: part["samples"] for name, part in provenance["stages"][0]["parts"].items()}
    assert rows == {"msvd": 3, "audiocaps": 4, "activitynet": 2}
