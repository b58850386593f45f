"""tools/demo_search.py: it runs to its end at tiny size, counts what is right, and says what is missing."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

SCRIPT = Path(__file__).parents[2] / "tools" / "demo_search.py"
pytestmark = pytest.mark.skipif(not SCRIPT.exists(), reason="the wheel has no tools")


@pytest.fixture
def demo(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script as a module."""
    spec = importlib.util.spec_from_file_location("demo_search", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "demo_search", module)
    spec.loader.exec_module(module)
    return module


class Found:
    """A table that finds the same files, whatever it is asked."""

    def __init__(self, *files: str) -> None:
        self.rows = [{"file": f"/clips/{file}"} for file in files]

    def find(self, query: str, modality: str, k: int) -> list[dict[str, str]]:
        return self.rows[:k]


def clips_of(demo: ModuleType, sounds: str) -> list[SimpleNamespace]:
    return [
        demo.Clip(Path(f"/clips/{number}.mp4"), f"caption {number}", f"words {number}", (sound, "fast"))
        for number, sound in enumerate(sounds)
    ]


def test_a_caption_counts_where_its_clip_is_among_the_first_three(demo, capsys):
    clips = clips_of(demo, "aaaa")
    assert not demo.captions(Found("0.mp4", "1.mp4", "2.mp4", "3.mp4"), clips)  # 3.mp4 is the fourth
    assert "3 of 4 captions" in capsys.readouterr().out
    assert demo.captions(Found("2.mp4", "0.mp4", "1.mp4"), clips[:3])


def test_a_sound_that_is_played_does_not_count_by_finding_itself(demo, capsys):
    clips = clips_of(demo, "ab")
    assert demo.sounds(Found("0.mp4", "1.mp4"), clips) == [False, False]
    out = capsys.readouterr().out
    assert "1 of 2 sounds that are told" in out  # 0.mp4 is first for both, and has the sound of one of them
    assert "0 of 2 sounds that are played" in out  # the other clip is found each time, with another sound
    assert demo.sounds(Found("0.mp4", "1.mp4"), clips_of(demo, "aa")) == [True, True]


def test_ten_are_chosen_evenly(demo):
    assert demo.evenly(list(range(200))) == list(range(0, 200, 20))
    assert demo.evenly(list(range(4))) == [0, 1, 2, 3]


def test_missing_libraries_are_named_in_one_line(demo, monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(sys, "argv", ["demo_search.py", "--work", str(tmp_path)])
    monkeypatch.setattr(demo.importlib.util, "find_spec", lambda name: None if name in ("lancedb", "uvicorn") else name)
    assert demo.main() == 2
    (line,) = capsys.readouterr().out.splitlines()
    assert line.endswith("-m pip install lancedb uvicorn") and not [*tmp_path.iterdir()]


@pytest.mark.slow
def test_runs_to_its_end_at_tiny_size(tmp_path):
    for library in ("lancedb", "fastapi", "uvicorn"):
        pytest.importorskip(library, reason=f"the demo of search needs {library}")
    command = [sys.executable, str(SCRIPT), "--size", "tiny", "--steps", "2", "--work", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=900)
    assert done.returncode in (0, 1), done.stdout[-2000:] + done.stderr[-3000:]  # two steps teach nothing
    assert "Traceback" not in done.stderr, done.stderr[-3000:]
    assert re.findall(r"\d/4", done.stdout) == ["1/4", "2/4", "3/4", "4/4"]
    assert len(re.findall(r"^\[demo-search\] \d of \d .* wanted: 9 of 10", done.stdout, re.M)) == 3
    assert re.search(r"^look yourself: .*vtp serve \S+seen \S+heard$", done.stdout, re.M)
    assert "NOT THE SAME" not in done.stdout
