"""Nothing in the working folder is executed: it may hold a stranger's data set, or a colleague's wave.py."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import av
import numpy as np
import pytest

from vtp.cli.main import main
from vtp.media import MediaReader
from vtp.types import MediaRef

ROOT = Path(__file__).resolve().parents[1]
PLANTED = ("av", "numpy", "wave", "contextlib", "vtp", "vtp_datasets", "pip", "hydra", "torch", "yaml", "pluggy")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with modules that say when they are run, and a clip."""
    folder = tmp_path / "data set"
    folder.mkdir()
    for name in PLANTED:
        (folder / f"{name}.py").write_text(f"open({str(tmp_path / 'executed')!r}, 'a').write({name!r})")
    with av.open(str(folder / "a.mp4"), "w") as file:
        stream = file.add_stream("mpeg4", rate=10)
        stream.width = stream.height = 32
        for value in range(10):
            frame = av.VideoFrame.from_ndarray(np.full((32, 32, 3), 20 * value, np.uint8), "rgb24")
            file.mux(stream.encode(frame))
        file.mux(stream.encode(None))
    (folder / "clips.csv").write_text("video,caption\na.mp4,a grey square\n")
    monkeypatch.chdir(folder)
    return folder


def executed(folder: Path) -> str:
    file = folder.parent / "executed"
    return file.read_text() if file.exists() else ""


def test_the_decoder_does_not_import_from_it(folder: Path) -> None:
    reader = MediaReader()
    assert reader.read(MediaRef("a.mp4")).frames is not None
    reader.close()
    assert executed(folder) == ""


def test_the_renderer_of_shapes_does_not(folder: Path) -> None:
    from vtp_datasets.shapes.build import Blueprint, ensure

    ensure(folder / "tiny", Blueprint("tiny", 0))
    assert executed(folder) == ""


def test_pip_does_not(folder: Path) -> None:
    assert main(["uninstall", "vtp-plugin-nobody-has"]) == 0
    assert executed(folder) == ""


def test_commands_on_it_do_not(folder: Path) -> None:
    assert main(["data", "check", "clips.csv", "--out", str(folder.parent / "report")]) == 0
    assert executed(folder) == ""


def test_the_form_that_torchrun_needs_does_not(folder: Path) -> None:
    """What Python itself imports for ``-m`` comes before anything that we can do, and so does ``vtp``."""
    for name in ("vtp", "contextlib"):
        (folder / f"{name}.py").unlink()
    done = subprocess.run([sys.executable, "-m", "vtp", "list", "dataset"], capture_output=True, text=True)
    assert done.returncode == 0 and "shapes" in done.stdout, done.stderr
    assert executed(folder) == ""


def test_every_child_is_started_without_it() -> None:
    sources = [
        file for part in ("core", "plugins") for file in (ROOT / part).rglob("*.py") if "tests" not in file.parts
    ]
    children = [m for file in sources for m in re.findall(r"\[sys\.executable, .*", file.read_text())]
    assert len(children) >= 4
    assert [child for child in children if not child.startswith('[sys.executable, "-P", ')] == []
