"""What every test of this package sees: one thread per process, no network, and small models and clips."""

from __future__ import annotations

import csv
import os
import sys
from pathlib import Path

import pytest

from vtp.testing.environment import prepare, seeded  # noqa: F401 (a fixture)

prepare()  # before torch or tokenizers are imported
os.environ["HF_HUB_OFFLINE"] = "1"

ROOT = Path(__file__).resolve().parents[4]
sys.path[:0] = [
    str(Path(__file__).parent),
    str(ROOT / "tests" / "use"),
]  # local_tasks.py, seven_clips.py, small_models.py


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small dual model of clips, sounds and texts."""
    from small_models import DUAL, write_model

    return write_model(tmp_path_factory.mktemp("models") / "dual", DUAL)


@pytest.fixture(scope="session")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """clips.csv with seven clips of a colour that grows lighter, sounds beside them, all of them the test split."""
    import wave

    import av
    import numpy as np
    from seven_clips import CAPTIONS, COLOURS

    folder = tmp_path_factory.mktemp("clips")
    rows = []
    for number, (colour, caption) in enumerate(zip(COLOURS, CAPTIONS, strict=True)):
        with av.open(str(folder / f"c{number}.mp4"), "w") as file:
            stream = file.add_stream("libx264", rate=4, options={"preset": "ultrafast", "threads": "1"})
            stream.width = stream.height = 48
            stream.pix_fmt = "yuv420p"
            for value in range(8 + number):
                picture = np.full((48, 48, 3), np.minimum(np.array(colour) + 5 * value, 255), np.uint8)
                picture[: 6 * number + 1] = 10
                file.mux(stream.encode(av.VideoFrame.from_ndarray(picture, "rgb24")))
            file.mux(stream.encode(None))
        with wave.open(str(folder / f"c{number}.wav"), "wb") as sound:
            sound.setparams((1, 2, 16000, 0, "NONE", "not compressed"))
            sound.writeframes((8000 * np.sin(np.arange(16000) * (number + 1) / 40)).astype("<i2").tobytes())
        rows.append({"video": f"c{number}.mp4", "audio": f"c{number}.wav", "caption": caption, "split": "test"})
    with (folder / "clips.csv").open("w", newline="") as table:
        writer = csv.DictWriter(table, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return folder
