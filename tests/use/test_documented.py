"""Every Python block of docs/use.md runs, one after the other, as a reader would type them."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path

import pytest

from vtp.cli.main import main

PAGE = Path(__file__).parents[2] / "docs" / "use.md"
LINES = re.findall(r"^(vtp (?:embed|search|ask|caption) .*)$", PAGE.read_text(encoding="utf-8"), re.M)
BLOCKS = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.M | re.S)
TINY = {"name": "tiny", "width": 16, "depth": 1, "heads": 2}
MINE = {
    "encoders": {
        "text": TINY,
        "video": {**TINY, "frames": 2, "size": 32},
        "fusion": {"name": "concat", "width": 16, "depth": 1, "heads": 2},
    },
    "objectives": {
        "vtc": {"name": "vtc", "width": 8, "weight": 1.0},
        "qa": {"name": "qa", "weight": 1.0},
        "caption": {"name": "caption", "depth": 1, "heads": 2, "weight": 1.0},
    },
    "answers": ["red", "two"],
}
SOUNDS = {
    "encoders": {"text": TINY, "audio": TINY},
    "objectives": {"vtc": {"name": "vtc", "width": 8, "modalities": ["audio", "text"], "weight": 1.0}},
}


@pytest.fixture
def reader(write, clips, tmp_path, monkeypatch):
    """The working folder of a reader, and a hub of their own."""
    write(tmp_path / "outputs" / "mine", MINE)
    write(tmp_path / "outputs" / "sounds", SOUNDS)
    for file in clips.iterdir():
        shutil.copy(file, tmp_path / {"tone.wav": "dog.wav"}.get(file.name, file.name))

    class Api:
        def __init__(self, token=None):
            pass

        def create_repo(self, name, private=None, exist_ok=False):
            return f"https://hub/{name}"

        def file_exists(self, name, file, revision=None):
            return False

        def upload_folder(self, *, repo_id, folder_path, revision, commit_message):
            shutil.copytree(folder_path, tmp_path / "hub" / repo_id)

    monkeypatch.setattr("huggingface_hub.HfApi", Api)
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda name, **how: str(tmp_path / "hub" / name))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_examples_run(reader, capsys):
    assert len(BLOCKS) >= 7
    names: dict[str, object] = {"__name__": "reader"}
    for block in BLOCKS:
        exec(compile(block, str(PAGE), "exec"), names)
    out = capsys.readouterr().out
    assert "<vtp.Model video=tiny, text=tiny, fusion=concat" in out
    assert "{'broken.mp4': 'not a media file, or too damaged to read'}" in out


def test_the_lines_for_the_shell_run(reader, capsys):
    pytest.importorskip("lancedb", reason="tables of embeddings need lancedb")
    (reader / "videos").mkdir()
    for name in ("a.mp4", "b.mp4"):
        shutil.copy(reader / name, reader / "videos")
    assert len(LINES) >= 5
    for line in LINES:
        assert main(shlex.split(line)[1:]) == 0, line
    out = capsys.readouterr().out
    assert "2 files: 0 were done, 6 windows added" in out and "exact: compared with all of 6 windows" in out


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_the_lines_of_export_run(reader, capsys):
    for package in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(package, reason="export needs it")
    lines = re.findall(r"^(vtp export .*)$", PAGE.read_text(encoding="utf-8"), re.M)
    assert len(lines) == 4
    for line in lines:
        assert main(shlex.split(line)[1:]) == 0, line
    written = {
        name.name for folder in ("exported", "texts", "answering", "merged") for name in (reader / folder).iterdir()
    }
    assert written >= {"video.onnx", "text.onnx", "fused.onnx", "export.json", "assets", "model.safetensors"}
