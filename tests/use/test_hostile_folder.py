"""``vtp embed`` over a folder of hostile files and real films: each bad file is named, the others are embedded, and a
program that was killed goes on to the same table."""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("lancedb", reason="tables of embeddings need lancedb")

sys.path.insert(0, str(Path(__file__).parents[1] / "data"))
from hostile_files import make_hostile_files  # noqa: E402

from vtp.use.table import Table  # noqa: E402

pytestmark = pytest.mark.slow

# The command, adding to the table every few windows, as it does every 512 of a large folder.
EMBED = "import sys, vtp.use.embed as e; e.AT_ONCE = 16; from vtp.cli.main import main; sys.exit(main(sys.argv[1:]))"


@pytest.fixture
def media(shared_data, tmp_path):
    """A folder of hostile files made from a real film, with real films beside them; and what must come of each."""
    folder, videos = tmp_path / "media", shared_data / "videos"
    folder.mkdir()
    expected = make_hostile_files(folder, [videos / "msrvtt" / "video9770.mp4"], flips=2)
    expected.pop("00_has_no_extension")
    for source in sorted((videos / "decoder").iterdir()) + sorted((videos / "vggsound").glob("*.mp4"))[:2]:
        if source.suffix in (".mp4", ".mkv"):
            shutil.copy(source, folder)
            expected[source.name] = "fine"
    return folder, expected


def command(folder, model, index):
    return [sys.executable, "-c", EMBED, "embed", str(folder), str(index), "--model", str(model), "--device", "cpu"]


def rows(index):
    """(file, start, end, modality) -> vector, and file -> reasons, of a whole table."""
    table = Table.open(str(index))
    found = table.windows.search().limit(100_000).to_arrow().to_pylist()
    vectors = {(Path(r["file"]).name, r["start"], r["end"], r["modality"]): r["vector"] for r in found}
    assert len(vectors) == len(found)  # no row twice
    reasons: dict[str, list[str]] = {}
    for file, told in table.bad():
        reasons.setdefault(Path(file).name, []).append(told["reason"])
    return vectors, reasons


def test_every_bad_file_is_named_and_a_killed_program_goes_on_to_the_same_table(media, dual_folder, tmp_path):
    folder, expected = media
    run = subprocess.run(command(folder, dual_folder, tmp_path / "whole"), capture_output=True, text=True)
    vectors, reasons = rows(tmp_path / "whole")
    assert run.returncode == 1, run.stderr  # something is bad, and nobody accepted it
    assert f"exit code 1, because {sum(map(len, reasons.values()))} clips or rows are left out" in run.stdout
    shown = {file for file, *_ in vectors}
    assert shown | set(reasons) == set(expected)
    for name, outcome in expected.items():
        if outcome == "fine":
            assert name in shown and name not in reasons, (name, reasons.get(name))
        elif outcome != "any":
            assert name not in shown and re.search(outcome, reasons[name][0]), (name, reasons.get(name))

    program = subprocess.Popen(command(folder, dual_folder, tmp_path / "killed"), stdout=subprocess.DEVNULL)
    begun, deadline = 0, time.monotonic() + 300
    while not 0 < begun < len(vectors) and program.poll() is None and time.monotonic() < deadline:
        time.sleep(0.2)
        if all(any((tmp_path / "killed").glob(f"{part}.lance/_versions/*")) for part in ("windows", "files")):
            begun = len(Table.open(str(tmp_path / "killed")))
    program.send_signal(signal.SIGKILL)
    assert program.wait() == -signal.SIGKILL and 0 < len(Table.open(str(tmp_path / "killed"))) < len(vectors)
    again = subprocess.run(command(folder, dual_folder, tmp_path / "killed"), capture_output=True, text=True)
    assert again.returncode == 1 and not re.search(r"\b0 were done", again.stdout), again.stdout
    found, told = rows(tmp_path / "killed")
    assert told == reasons and found.keys() == vectors.keys()
    for key, vector in vectors.items():
        np.testing.assert_allclose(found[key], vector, rtol=0, atol=1e-6)
