"""A folder of hostile files through the loader: the process survives, nothing hangs past its limit, and every file has
one reasoned entry or decodes."""

from __future__ import annotations

import json
import re
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from vtp.data import BadFiles, EvalLoader, Pipeline, TrainLoader
from vtp.errors import PluginError
from vtp.media import MediaReader, backends
from vtp.types import AudioSpec, MediaRef, Sample, TextSpec, VideoSpec

sys.path.insert(0, str(Path(__file__).parent))
from hostile_files import make_hostile_files, small_clip

SPECS = {"video": VideoSpec(frames=4, size=32), "audio": AudioSpec(16000, 1.0)}
LIMIT_S = 10.0
PATIENCE_S = 40.0  # for the start of a new decoder process on a machine that does other things as well
SOURCES = (
    "msrvtt/video9770.mp4",
    "decoder/h265_video.mp4",
    "decoder/var_fps_video.mp4",
    "decoder/av1_video.mkv",
    "decoder/h264_10bits.mp4",
    "msvd/klteYv1Uv9A_27_33.avi",
    "vggsound",
)


class Timed(MediaReader):
    """Notes how long the slowest file took."""

    slowest = 0.0

    def read(self, *args: object, **kwargs: object) -> object:
        started = time.monotonic()
        try:
            return super().read(*args, **kwargs)  # type: ignore[arg-type]
        finally:
            self.slowest = max(self.slowest, time.monotonic() - started)


def survives(folder: Path, expected: dict[str, str], backend: str, tmp_path: Path) -> None:
    reader = Timed(backend, timeout_s=LIMIT_S)
    ledger = BadFiles(tmp_path / "bad_samples.jsonl", 1.0)
    refs = {name: MediaRef(str(folder / name)) for name in expected}
    samples = [Sample(name, ref, ref) for name, ref in refs.items()]
    loader = EvalLoader(samples, Pipeline(SPECS, train=False, reader=reader), batch_size=16, bad=ledger)
    shown: set[str] = set()
    for batch in loader:
        assert batch.inputs["video"]["frames"].shape[1:] == (4, 32, 32, 3)
        shown.update(batch.ids)
    assert reader.slowest < LIMIT_S + PATIENCE_S
    assert shown | set(loader.misses) == set(expected) and not shown & set(loader.misses)

    lines = [json.loads(line) for line in (tmp_path / "bad_samples.jsonl").read_text().splitlines()]
    assert sorted(line["path"] for line in lines) == sorted(refs[name].path for name in loader.misses)
    for line in lines:
        assert line["reason"].strip() and line["kind"] and line["backend"] == backend, line
    for name, outcome in expected.items():
        if outcome == "fine":
            assert name in shown or backend != "pyav", (name, loader.misses.get(name))
        elif outcome != "any":
            assert re.search(outcome, loader.misses[name]), (name, loader.misses[name])

    again = EvalLoader(samples, Pipeline(SPECS, train=False, reader=_Never()), batch_size=16, bad=ledger)
    again.table = [sample for sample in samples if sample.id in loader.misses]
    again.rows = range(len(again.table))
    assert list(again) == [] and again.misses == loader.misses  # none of them is opened a second time
    assert len((tmp_path / "bad_samples.jsonl").read_text().splitlines()) == len(lines)
    reader.close()


class _Never:
    def read(self, *args: object, **kwargs: object) -> object:
        raise AssertionError("a file that is known to be bad was opened again")


def test_a_small_folder_of_hostile_files(tmp_path: Path) -> None:
    folder = tmp_path / "files"
    folder.mkdir()
    source = small_clip(tmp_path / "source.mp4")
    survives(folder, make_hostile_files(folder, [source], flips=16), "pyav", tmp_path)


@pytest.mark.slow
@pytest.mark.data
@pytest.mark.parametrize("backend", ["pyav", "torchcodec", "decord"])
def test_three_hundred_hostile_files(tmp_path: Path, shared_data: Path, backend: str) -> None:
    try:
        backends.load_backend(backends.find_backend(backend))
    except PluginError as error:
        pytest.skip(str(error))
    folder = tmp_path / "files"
    folder.mkdir()
    sources = [shared_data / "videos" / name for name in SOURCES[:-1]]
    sources += sorted((shared_data / "videos" / SOURCES[-1]).glob("*.mp4"))[:1]
    expected = make_hostile_files(folder, sources, flips=12)
    assert len(expected) >= 300
    survives(folder, expected, backend, tmp_path)


def test_with_a_fifth_of_the_files_corrupt_every_trained_pair_is_a_true_pair(tmp_path: Path) -> None:
    """Frames that show a number, captions that say it, 20 % of the files cut to pieces: picture and caption of every
    row agree, in each of two epochs with two workers."""
    samples = []
    for k in range(20):
        path = tmp_path / f"{k}.mp4"
        _clip_that_shows(path, k)
        if k % 5 == 2:
            path.write_bytes(path.read_bytes()[:200])
        samples.append(Sample(f"s{k}", MediaRef(str(path)), None, ("x" * (k + 1),), {"n": k}))
    text = TextSpec(lambda texts: [[1, len(text), 2] for text in texts], 0, 3, 1, 2, (0, 1, 2, 3), 999, 8)
    specs = {"video": VideoSpec(frames=2, size=16, layout="uint8"), "text": text}
    pipeline = Pipeline(specs, train=True, labels=lambda s: dict(s.labels), reader=MediaReader(timeout_s=60))
    loader = TrainLoader(samples, pipeline, global_batch=10, workers=2, bad=BadFiles(tmp_path / "bad", 1.0))
    iterator = iter(loader)
    trained = 0
    for batch in (next(iterator) for _ in range(4)):
        frames = batch.inputs["video"]["frames"].float()
        brightness = frames.flatten(1).mean(1)
        for row in range(len(batch.ids)):
            number = int(batch.labels["n"][row])
            assert batch.ids[row] == f"s{number}" and number % 5 != 2
            assert batch.inputs["text"]["token_ids"][row, 1] == number + 1
            assert abs(float(brightness[row]) - 12 * number) < 5, (number, float(brightness[row]))
            trained += 1
    iterator.close()  # type: ignore[attr-defined]
    assert trained == 40


def _clip_that_shows(path: Path, number: int) -> None:
    """Two seconds whose grey value is 12 times ``number``."""
    import av

    with av.open(str(path), "w") as out:
        stream = out.add_stream("libx264", rate=8, options={"preset": "ultrafast", "crf": "1"})
        stream.width = stream.height = 32
        stream.pix_fmt = "yuv444p"
        for k in range(16):
            frame = av.VideoFrame.from_ndarray(np.full((32, 32, 3), 12 * number, np.uint8), format="rgb24")
            frame.pts = k
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
