"""Methods of other people's packages, each at most 60 lines: MIL-NCE, MoCo, a captioner and a mined-word mask train
through the public command, the same however a step is cut, and go on exactly after a resume."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from outside_packages import folder_of_shapes, installed, lines_of

from vtp.cli.main import main
from vtp.plugins import host

METHODS = ("milnce", "moco", "captioner", "mined")
RUN = ["run", "task=pretrain", "dataset=folderset", "task.table=caption", "model=dual", "encoder/audio=none"]
RUN += [f"objective=[{','.join(METHODS)}]", "mode=train", "data.workers=0", "data.augment=false", "data.group=2"]
RUN += ["train.steps=3", "train.epochs=null", "train.global_batch=8", "train.log_every=1", "train.tensorboard=false"]
RUN += ["train.save_every=1", "train.keep=null", "threads=1", "encoder.text.dropout=0", "data.limit_eval=4"]
RUN += ["encoder.text.width=32", "encoder.text.depth=1", "encoder.video.width=32", "encoder.video.depth=1"]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A folder with the clips, and the packages on the path."""
    root = tmp_path_factory.mktemp("outside")
    folder_of_shapes(root / "data")
    with installed(root / "site", (*METHODS, "folderset")):
        yield root


def train(world: Path, name: str, *options: str) -> list[dict[str, float]]:
    """Losses of every step."""
    assert main([*RUN, f"dataset.root={world / 'data'}", f"run_dir={world / name}", *options]) == 0
    return losses_of(world / name)


def losses_of(folder: Path) -> list[dict[str, float]]:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [line["losses"] for line in lines if "losses" in line]


@pytest.fixture(scope="module")
def one(world: Path) -> list[dict[str, float]]:
    return train(world, "one")


def test_they_are_small() -> None:
    for name in METHODS:
        assert lines_of(name) <= 60, name


def test_all_of_them_train(one: list[dict[str, float]]) -> None:
    assert len(one) == 3 and all(set(step) == set(METHODS) for step in one)
    assert all(value > 0 for step in one for value in step.values())
    assert one[-1]["captioner"] < one[0]["captioner"]


def test_micro_batches_change_nothing(world: Path, one: list[dict[str, float]]) -> None:
    close(train(world, "micro", "train.accumulation=2"), one)


def test_a_resumed_run_is_the_unbroken_one(world: Path, one: list[dict[str, float]]) -> None:
    again = train(world, "resumed", f"resume={world / 'one' / 'checkpoints' / 'step_00000001'}")
    assert again == one[1:]


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["ddp", "fsdp2"])
def test_two_processes_change_nothing(world: Path, one: list[dict[str, float]], strategy: str) -> None:
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--standalone", "-m", "vtp"]
    options = [f"dataset.root={world / 'data'}", f"run_dir={world / strategy}", f"train.strategy={strategy}"]
    path = os.pathsep.join([str(world / "site"), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [*launch, *RUN, *options], env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    close(losses_of(world / strategy), one)


def test_windows_of_neighbouring_frames(world: Path) -> None:
    found = train(world, "windows", "data.train_clips=2", "train.steps=1", "objective=[milnce,moco,captioner]")
    assert len(found) == 1


def test_a_checkpoint_writes_captions(world: Path, one: list[dict[str, float]]) -> None:
    """The mined words come back from the checkpoint, not from training texts, which are none here."""
    from vtp.model.build import lookup_in
    from vtp.model.weights import load_model

    folder = world / "one" / "checkpoints" / "last"
    model = load_model(folder, lookup_in(host().registry)).eval()
    mined: Any = model.objectives["mined"]
    texts = [text for line in index(world) if line["split"] == "train" for text in line["captions"]]
    words = [word for text in texts for word, _ in mined.spec.words(text)]
    assert dict(mined.found) == {word: words.count(word) for word in set(words)}
    rare, often = min(words, key=words.count), max(words, key=words.count)
    ids = {word: mined.spec.words(word)[0][1] for word in (rare, often)}
    assert mined.weights[ids[rare]].min() > mined.weights[ids[often]].max()

    from vtp.data import EvalLoader, Pipeline
    from vtp.types import MediaRef, Sample

    clips = [Sample(str(k), video=MediaRef(str(file))) for k, file in enumerate(sorted(media(world))[:2])]
    specs: Any = {m: spec for m, spec in model.specs().items() if m == "video"}
    captioner: Any = model.objectives["captioner"]
    with torch.inference_mode():
        (batch,) = EvalLoader(clips, Pipeline(specs, train=False), batch_size=2)
        written = model(batch, run=captioner.caption)
    assert len(written) == 2 and all(isinstance(text, str) for text in written)


def close(found: list[dict[str, float]], want: list[dict[str, float]]) -> None:
    assert len(found) == len(want)
    for step, (left, right) in enumerate(zip(found, want, strict=True)):
        assert left == pytest.approx(right, rel=1e-4), step


def index(world: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (world / "data" / "index.jsonl").read_text().splitlines()]


def media(world: Path) -> list[Path]:
    return list((world / "data" / "media").iterdir())
