"""What `vtp new-plugin` writes, as its reader uses it: pip installs it, its own tests, mypy and `vtp plugins check`
pass, and the commands of its README train."""

from __future__ import annotations

import csv
import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from outside_packages import folder_of_shapes

from vtp.cli.new_plugin import KINDS
from vtp.media import read_clip
from vtp.types import MediaRef
from vtp_encoders.tiny_video import TinyVideo

SMALL = ["dataset.size=tiny", "train.steps=2", "train.epochs=null", "train.global_batch=8", "train.tensorboard=false"]
SMALL += ["data.workers=0", "threads=1", "data.limit_eval=4"]


class Package:
    """A generated package in a folder of its own, and the environment in which it is installed."""

    def __init__(self, kind: str, root: Path, shapes: Path) -> None:
        self.root, self.shapes, self.folder = root, shapes, root / "package"
        variables = {name: value for name, value in os.environ.items() if not name.startswith("VTP_")}
        path = os.pathsep.join(filter(None, [str(root / "site"), variables.get("PYTHONPATH")]))
        self.variables = variables | {"PYTHONPATH": path, "COLUMNS": "300"}
        self.vtp("new-plugin", f"new_{kind}", "--kind", kind, "--out", str(self.folder))
        command = ["-m", "pip", "install", "-q", "--no-deps", "--no-build-isolation", "--no-index", "--target"]
        self.python(*command, str(root / "site"), str(self.folder))

    def python(self, *arguments: str, where: Path | None = None) -> str:
        command = [sys.executable, *arguments]
        done = subprocess.run(command, cwd=where or self.root, env=self.variables, capture_output=True, text=True)
        assert done.returncode == 0, (arguments, done.stdout[-3000:] + done.stderr[-3000:])
        return done.stdout

    def vtp(self, *arguments: str) -> str:
        return self.python("-m", "vtp", *arguments)

    def commands(self) -> list[list[str]]:
        """The commands of its README that use it, as words behind ``vtp``."""
        lines = [line.strip() for line in (self.folder / "README.md").read_text().splitlines()]
        return [shlex.split(line)[1:] for line in lines if line.startswith("vtp ") and "plugins check" not in line]


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data")
    folder_of_shapes(root)
    return root


def given(package: Package) -> dict[str, str]:
    """What the words in capitals of a README stand for."""
    root = package.root
    lines = [json.loads(line) for line in (package.shapes / "index.jsonl").read_text().splitlines()]
    (root / "DIR").symlink_to(package.shapes / "media")
    (root / "index.jsonl").write_text("\n".join(json.dumps(line) for line in lines))
    with (root / "clips.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["video", "caption", "split"])
        for line in lines:
            clip = read_clip(MediaRef(str(package.shapes / "media" / line["clip"])))
            np.savez(root / f"{line['clip']}.npz", frames=clip.frames, fps=1 / np.diff(clip.timestamps).mean())
            writer.writerow([f"{line['clip']}.npz", line["captions"][0], line["split"]])
    torch.manual_seed(0)
    state = {f"visual.{name}": value for name, value in TinyVideo().state_dict().items()}
    torch.save(state, root / "foreign.pth")
    return {"FILE": "foreign.pth", "OUT": "imported", "dataset.root=DIR": "dataset.root=DIR", "RUN": "before"}


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_a_generated_package_is_a_good_one(kind: str, tmp_path: Path, shapes: Path) -> None:
    pytest.importorskip("hatchling")
    package = Package(kind, tmp_path, shapes)
    assert "nothing is wrong" in package.vtp("plugins", "check", f"new_{kind}")
    assert " passed" in package.python("-m", "pytest", "-q", where=package.folder)
    package.python("-m", "mypy", "--cache-dir", str(tmp_path / "mypy"), where=package.folder)
    words = given(package)
    clips = package.shapes / "media"
    if not (clips / "index.jsonl").exists():
        (clips / "index.jsonl").write_text((tmp_path / "index.jsonl").read_text())
    if kind == "command":
        package.vtp("run", "task=msrvtt_retrieval", "dataset=shapes", "run_dir=before", *SMALL)
    commands = package.commands()
    assert commands
    for number, command in enumerate(commands):
        used = [argument.replace("=OUT", "=imported") for argument in (words.get(word, word) for word in command)]
        run = tmp_path / f"run{number}"
        if command[0] != "run":
            said = package.vtp(*used)
            assert said.strip()
            continue
        own = [
            option
            for option in SMALL
            if "dataset=shapes" in command or "experiment=" in command[1] or "size" not in option
        ]
        package.vtp(*used, f"run_dir={run}", *own)
        report = json.loads((run / "report.json").read_text())
        assert report["metrics"] and report["ledger"]["missing"] == 0
        losses = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        assert any("losses" in line for line in losses)
        assert f"new_{kind}" in json.dumps(report)  # the plugin is in the record of the run
