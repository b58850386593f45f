"""Clips per second, from the file to the batch: what others do, our decoders, the caches and the shards, side by side.

    python benchmarks/data.py [--videos DIR] [--seconds 1.5] [--rounds 5] [--audio] [--only NAME] [--out FILE] [--tiny]

Every provider gives 16 frames at 224 of the same clips: uniformly spread, short side to 224, centre crop. ``naive
decord`` is what the code of SimVTP and VAT does: decode all wanted frames at full size, then resize. First every
provider has to give the right frames. Then, in rounds, the providers run in random order, so that all of them see the
same machine: alone in this process (``read``), and through the training loader with two workers until the batch is in
the main process (``loader``), where decoders run isolated as they do in training. The first provider runs twice, under
two names; the spread between these twins is the noise band.

Times are processor time (of the loader, its workers and their decoders), which other programs on the machine disturb
little; clips per second of the wall clock stand beside them. Files are in the page cache.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import av
import numpy as np
import record
import torch

from vtp.data import Example, Pipeline, TrainLoader
from vtp.errors import PluginError
from vtp.media import MediaReader, VideoInfo, Wanted
from vtp.media.backends import find_backend, load_backend
from vtp.media.cache import CachedReader, ClipCache, Settings
from vtp.media.request import target_size
from vtp.media.sampling import uniform
from vtp.prepare.cache import build
from vtp.prepare.pack import Packing, pack
from vtp.types import AudioSpec, Clip, MediaRef, Sample, VideoSpec
from vtp_datasets.shards import Shards

FRAMES, SIZE, RATE, BATCH, WORKERS = 16, 224, 16000, 16, 2
NAIVE = "naive decord"
# Mean difference of pixels to a plain decode: another scaler, JPEG, H.264. A neighbouring frame is farther away.
TOLERANCE = {"exact": 0.0, "near": 6.0}
ACCEPTANCE = {
    "pyav": 0.9, "decord": 0.9, "torchcodec": 0.9, "transcode cache": 2.0, "JPEG cache": 6.0, "raw cache": 40.0,
}  # fmt: skip


class NaiveDecord:
    """Full-size frames, then resize: a reader as published code has it, without index, isolation or error handling."""

    def __init__(self) -> None:
        import decord

        self.decord = decord

    def read(self, ref: MediaRef, wanted: Wanted) -> Clip:
        from torchvision.transforms.v2 import functional

        reader = self.decord.VideoReader(ref.path, num_threads=1)
        rate = reader.get_avg_fps()
        info = VideoInfo(0, "", 0, 0, rate, np.arange(len(reader)) / rate, len(reader) / rate)
        places = wanted.positions(info)
        frames = torch.from_numpy(reader.get_batch(places.tolist()).asnumpy()).permute(0, 3, 1, 2)
        shape = list(target_size(frames.shape[2], frames.shape[3], wanted.size))
        frames = functional.resize(frames, shape, antialias=True).permute(0, 2, 3, 1).contiguous()
        clip = Clip(frames.numpy(), info.timestamps[places])
        if wanted.sample_rate is not None:
            try:
                sound = self.decord.AudioReader(ref.path, sample_rate=wanted.sample_rate, mono=True)
                clip.waveform, clip.sample_rate = sound[:].asnumpy(), wanted.sample_rate
            except self.decord.DECORDError:
                clip.missing["audio"] = "no audio stream"
        return clip


@dataclass
class Provider:
    """One way to the same batch.

    Attributes:
        reader: for the loader.
        alone: the same without a process of its own for the decoder.
        samples: the clips as this provider names them.
        exact: whether its frames are those of PyAV bit by bit.
    """

    name: str
    reader: Any
    alone: Any
    samples: list[Sample]
    exact: bool = False
    unavailable: str | None = None
    read_ms: list[float] = field(default_factory=list)
    loader_ms: list[float] = field(default_factory=list)
    loader_rate: list[float] = field(default_factory=list)


def generated(folder: Path, clips: int, seconds: float) -> list[Path]:
    """Clips like those of MSR-VTT: 320x240, 30 frames per second, few key frames, noise enough to cost bits; one of two
    with sound."""
    paths = []
    for number in range(clips):
        generator = np.random.default_rng(number)
        texture = generator.integers(0, 255, (300, 400, 3), dtype=np.uint8)
        path = folder / f"generated{number}.mp4"
        with av.open(str(path), "w") as out:
            stream = out.add_stream("libx264", rate=30, options={"g": "250", "preset": "veryfast", "crf": "28"})
            stream.width, stream.height, stream.pix_fmt = 320, 240, "yuv420p"
            sound = out.add_stream("aac", rate=44100, layout="stereo") if number % 2 == 0 else None
            for k in range(round(30 * seconds)):
                top, left = k // 4 % 60, k // 3 % 80
                picture = np.ascontiguousarray(texture[top : top + 240, left : left + 320])
                out.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
            out.mux(stream.encode(None))
            for at in range(0, round(44100 * seconds) if sound else 0, 1024):
                wave = np.sin(np.arange(at, at + 1024, dtype=np.float32) / 20)[None].repeat(2, 0)
                piece = av.AudioFrame.from_ndarray(wave, format="fltp", layout="stereo")
                piece.sample_rate, piece.pts = 44100, at
                out.mux(sound.encode(piece))
            if sound:
                out.mux(sound.encode(None))
        paths.append(path)
    return paths


def plain_decode(path: str, times: Callable[[VideoInfo], Any]) -> tuple[np.ndarray, np.ndarray]:
    """The reference: every frame decoded in order and scaled; the wanted ones and their times."""
    frames, stamps = [], []
    with av.open(path) as container:
        zero = (container.start_time or 0) / av.time_base
        for frame in container.decode(video=0):
            height, width = target_size(frame.height, frame.width, SIZE)
            frames.append(frame.to_ndarray(format="rgb24", width=width, height=height, interpolation="BILINEAR"))
            stamps.append(frame.time - zero)
    stamps_ = np.array(stamps)
    info = VideoInfo(0, "", 0, 0, 0.0, stamps_, stamps_[-1] + float(np.median(np.diff(stamps_))))
    places = info.positions(times(info))
    return np.stack([frames[place] for place in places]), stamps_[places]


def sampler(info: VideoInfo, **_: Any) -> np.ndarray:
    return uniform(info, frames=FRAMES)


def providers(paths: Sequence[Path], folder: Path, audio: bool) -> list[Provider]:
    """All of them, with their caches and shards made in ``folder``."""
    sources = [str(path) for path in paths]
    own = [Sample(path, MediaRef(path), MediaRef(path)) for path in sources]
    found: list[Provider] = []

    def add(name: str, make: Callable[[bool], Any], samples: list[Sample] = own, exact: bool = False) -> None:
        try:
            found.append(Provider(name, make(True), make(False), samples, exact))
        except (ImportError, OSError, PluginError) as error:
            found.append(Provider(name, None, None, samples, unavailable=str(error).splitlines()[0]))

    def ours(backend: str, isolate: bool) -> MediaReader:
        load_backend(find_backend(backend))
        return MediaReader(backend, timeout_s=300, isolate=isolate)  # a busy machine is no damaged file

    add(NAIVE, lambda isolate: NaiveDecord())
    add("pyav", partial(ours, "pyav"), exact=True)
    add("pyav, not isolated", lambda isolate: ours("pyav", False), exact=True)
    add("decord", partial(ours, "decord"))
    add("torchcodec", partial(ours, "torchcodec"))
    for kind, name in (("transcode", "transcode cache"), ("jpeg", "JPEG cache"), ("raw", "raw cache")):
        size = 256 if kind == "transcode" else SIZE
        cache = ClipCache.create(folder / kind, Settings(kind, size, audio=RATE if audio else 0))
        build(cache, sources, workers=1)
        add(name, lambda isolate, cache=cache: CachedReader(ours("pyav", isolate), cache), exact=kind == "raw")
    decoded = Packing(FRAMES, SIZE, RATE if audio else 0)
    for name, packing in (("shards of mp4", Packing()), ("shards of frames", decoded)):
        out = folder / name.replace(" ", "-")
        pack(own, out, packing, workers=1)
        table = Shards(urls=out).samples("caption", "train")
        add(name, partial(ours, "pyav"), [table[row] for row in range(len(table))], exact=True)
    return found


def faults(provider: Provider, references: Sequence[tuple[np.ndarray, np.ndarray]], audio: bool) -> str | None:
    """What is wrong with the frames of a provider; None if they are right."""
    for sample, (frames, stamps) in zip(provider.samples, references, strict=True):
        clip = provider.reader.read(sample.video, Wanted(times=sampler, size=SIZE, sample_rate=RATE if audio else None))
        if clip.frames.shape != frames.shape:
            return f"{clip.frames.shape} instead of {frames.shape}"
        error = float(np.abs(clip.frames.astype(int) - frames.astype(int)).mean())
        if error > TOLERANCE["exact" if provider.exact else "near"]:
            return f"frames differ by {error:.2f} of 255"
        if np.abs(clip.timestamps - stamps).max() > 0.04:  # naive decord knows no start time
            return "frames of other times"
    return None


def read_once(provider: Provider, clips: int, audio: bool) -> float:
    """Processor milliseconds per clip in this process."""
    start = time.process_time()
    for number in range(clips):
        ref = provider.samples[number % len(provider.samples)].video
        provider.alone.read(ref, Wanted(times=sampler, size=SIZE, sample_rate=RATE if audio else None))
    return 1000 * (time.process_time() - start) / clips


class EveryRow(Pipeline):
    """As with data.augment=false, but every row is read, also where its neighbour is about the same clip: there are few
    clips here, and many in a data set."""

    def __call__(self, sample: Sample, epoch: int, index: int, clip: int | None = None) -> Example:
        self._last = None
        example = super().__call__(sample, epoch, index, clip)
        example.media = None
        return example


class Loading:
    """A training loader with two workers, kept between rounds: its workers wait once they are two batches ahead."""

    def __init__(self, provider: Provider, audio: bool) -> None:
        specs: dict[Any, Any] = {"video": VideoSpec(FRAMES, SIZE)}
        if audio:
            specs["audio"] = AudioSpec(RATE, 8.0)
        pipeline = EveryRow(specs, train=False, reader=provider.reader, sampler=sampler, memo=0)
        rows = [provider.samples[k % len(provider.samples)] for k in range(2 * BATCH)]
        before = set(descendants(os.getpid()))
        self.batches = iter(TrainLoader(rows, pipeline, global_batch=BATCH, workers=WORKERS))
        self.last = next(self.batches)
        self.pids = set(descendants(os.getpid())) - before
        self.settle()

    def take(self, batches: int) -> tuple[float, float]:
        """Processor milliseconds per clip of all processes, and clips per second of the wall clock."""
        cpu, own, wall = self.settle(), time.process_time(), time.perf_counter()
        for _ in range(batches):
            batch = next(self.batches)
            batch.inputs["video"]["frames"].view(-1)[::4096].sum()  # every page of the batch has arrived
        own = time.process_time() - own
        cpu = self.settle() - cpu
        wall = time.perf_counter() - wall
        clips = batches * BATCH
        return 1000 * (cpu + own) / clips, clips / wall

    def settle(self) -> float:
        """Wait until the workers are idle; processor seconds that they and their decoders have used."""
        used, quiet = -1.0, 0
        while quiet < 5:
            time.sleep(0.01)
            family = {*self.pids, *(child for pid in self.pids for child in descendants(pid))}
            states, seconds = zip(*map(process_state, family), strict=True)
            quiet = quiet + 1 if sum(seconds) == used and "R" not in "".join(states) else 0
            used = sum(seconds)
        return used

    def close(self) -> None:
        self.batches.close()


def descendants(pid: int) -> list[int]:
    """Children of a process, their children, and so on."""
    found = []
    with contextlib.suppress(OSError):
        for thread in os.listdir(f"/proc/{pid}/task"):
            for child in Path(f"/proc/{pid}/task/{thread}/children").read_text().split():
                found += [int(child), *descendants(int(child))]
    return found


def process_state(pid: int) -> tuple[str, float]:
    """The states of its threads (``R`` for one that runs or could run); user and system time of it and of the children
    that it has waited for."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        threads = [Path(f"/proc/{pid}/task/{thread}/stat").read_text() for thread in os.listdir(f"/proc/{pid}/task")]
    except OSError:
        return "R", 0.0  # it is just ending: look again
    states = "".join(thread.rpartition(")")[2].split()[0] for thread in threads)
    return states, sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")


def measure(running: list[Provider], rounds: int, seconds: float, audio: bool) -> None:
    """Fill in the times of all providers, in rounds of random order."""
    order = random.Random(0)
    with contextlib.ExitStack() as stack:
        loadings = {}
        for provider in running:
            loadings[provider.name] = Loading(provider, audio)
            stack.callback(loadings[provider.name].close)
        reads = {p.name: max(1, round(1000 * seconds / max(read_once(p, 2, audio), 0.5))) for p in running}
        takes = {}
        for provider in running:
            loadings[provider.name].take(1)  # what is slow once is over
            milliseconds = loadings[provider.name].take(2)[0]
            takes[provider.name] = max(1, round(1000 * seconds / max(milliseconds, 0.5) / BATCH))
        for _ in range(rounds):
            for provider in order.sample(running, len(running)):
                provider.read_ms.append(read_once(provider, reads[provider.name], audio))
            for provider in order.sample(running, len(running)):
                milliseconds, rate = loadings[provider.name].take(takes[provider.name])
                provider.loader_ms.append(milliseconds)
                provider.loader_rate.append(rate)


def rows_of(found: list[Provider], twin: Provider | None, wrong: dict[str, str]) -> list[dict[str, Any]]:
    """Plain data per provider. Ratios are medians over rounds, against naive decord (or the first that ran)."""
    running = [p for p in found if p.loader_ms]
    base = running[0] if running else None
    rows = []
    for provider in found:
        if provider.unavailable or provider.name in wrong:
            reason = provider.unavailable or wrong[provider.name]
            rows.append({"provider": provider.name, "status": "not measured" if provider.unavailable else "wrong",
                         "reason": reason})  # fmt: skip
            continue
        assert base is not None and twin is not None
        row: dict[str, Any] = {"provider": provider.name, "status": "ok"}
        for stage in ("read", "loader"):
            mine, theirs, again = (getattr(p, f"{stage}_ms") for p in (provider, base, twin))
            ratios = [b / m for b, m in zip(theirs, mine, strict=True)]
            row[f"{stage}_ms"] = round(statistics.median(mine), 3)
            row[f"{stage}_clips_per_core_s"] = round(1000 / statistics.median(mine), 1)
            row[f"{stage}_times_naive"] = round(statistics.median(ratios), 2)
            row[f"{stage}_times_naive_range"] = [round(min(ratios), 2), round(max(ratios), 2)]
            row[f"{stage}_noise"] = round(abs(statistics.median(again) / statistics.median(theirs) - 1), 3)
        row["loader_clips_per_s"] = round(statistics.median(provider.loader_rate), 1)
        rows.append(row)
    return rows


def table(rows: list[dict[str, Any]], baseline: str) -> Iterator[str]:
    columns = f"ms/clip | clips/s/core | x {baseline}"
    yield f"| provider | read: {columns} | loader: {columns} | clips/s, {WORKERS} workers |"
    yield "|---|---|---|---|---|---|---|---|"
    for row in rows:
        if row["status"] != "ok":
            yield f"| {row['provider']} | {row['status']}: {row['reason']} | | | | | | |"
            continue
        cells = [row["provider"]]
        for stage in ("read", "loader"):
            low, high = row[f"{stage}_times_naive_range"]
            cells += [f"{row[f'{stage}_ms']:.2f}", f"{row[f'{stage}_clips_per_core_s']:.0f}"]
            cells += [f"{row[f'{stage}_times_naive']:.2f} ({low:.2f} to {high:.2f})"]
        yield "| " + " | ".join([*cells, f"{row['loader_clips_per_s']:.0f}"]) + " |"


def suite(paths: list[Path], folder: Path, arguments: argparse.Namespace, audio: bool) -> dict[str, Any]:
    """One table: with or without sound."""
    found = [p for p in providers(paths, folder, audio) if arguments.only in p.name or p.name == NAIVE]
    references = [plain_decode(str(path), sampler) for path in paths]
    wrong = {}
    for provider in found:
        if provider.unavailable is None and (fault := faults(provider, references, audio)):
            wrong[provider.name] = fault
    running = [p for p in found if p.unavailable is None and p.name not in wrong]
    twin = Provider(f"{running[0].name} (again)", running[0].reader, running[0].alone, running[0].samples)
    measure([*running, twin], arguments.rounds, arguments.seconds, audio)
    rows = rows_of(found, twin, wrong)
    print(f"\n{'with' if audio else 'without'} sound; noise between two copies of {running[0].name}: "
          f"read {rows_noise(rows, 'read'):.1%}, loader {rows_noise(rows, 'loader'):.1%}\n")  # fmt: skip
    print("\n".join(table(rows, running[0].name)), flush=True)
    for provider in found:
        for reader in (provider.reader, provider.alone):
            if hasattr(reader, "close"):
                reader.close()
    return {"audio": audio, "baseline": running[0].name, "rows": rows}


def rows_noise(rows: list[dict[str, Any]], stage: str) -> float:
    return next((row[f"{stage}_noise"] for row in rows if row["status"] == "ok"), 0.0)


def acceptance(result: dict[str, Any]) -> list[dict[str, Any]]:
    """Whether the targets are met, end to end through the loader."""
    checks = []
    by_name = {row["provider"]: row for row in result["rows"]}
    if result["baseline"] != NAIVE:
        return []
    for name, least in ACCEPTANCE.items():
        row = by_name.get(name, {})
        ratio = row.get("loader_times_naive")
        met = None if ratio is None else ratio >= least
        checks.append({"provider": name, "at_least": least, "times_naive": ratio, "met": met})
    pair = [by_name.get(name, {}).get("loader_ms") for name in ("pyav", "pyav, not isolated")]
    if None not in pair:
        cost = pair[0] / pair[1] - 1
        checks.append({"provider": "isolation", "at_most": 0.1, "cost": round(cost, 3), "met": cost <= 0.1})
    return checks


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = Path(__file__).resolve().parents[2] / "shared" / "data" / "videos" / "msrvtt"
    parser.add_argument("--videos", type=Path, default=default, help="folder of clips; without it they are generated")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.5, help="processor seconds per provider and round")
    parser.add_argument("--audio", action="store_true", help="measure with sound too")
    parser.add_argument("--only", default="", help="only naive decord and providers with this in their name")
    parser.add_argument("--tiny", action="store_true", help="generated clips, one short round: does it run")
    parser.add_argument("--out", type=Path, help="result file (default: benchmarks/results/data-DATE.json)")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.tiny:
        arguments.rounds, arguments.seconds = 1, 0.01
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        real = not arguments.tiny and arguments.videos.is_dir()
        made = (1, 0.8) if arguments.tiny else (2, 10.0)  # clips, seconds
        paths = sorted(arguments.videos.glob("*.mp4")) if real else generated(folder, *made)
        results = [suite(paths, folder / "silent", arguments, False)]
        if arguments.audio:
            results.append(suite(paths, folder / "sound", arguments, True))
    checks = acceptance(results[0])
    print()
    for check in checks:
        verdict = {True: "met", False: "MISSED", None: "not measured"}[check["met"]]
        print("  ".join(f"{key} {value}" for key, value in check.items() if key != "met") + f"  {verdict}")
    record.save(
        arguments.out or record.RESULTS / f"data-{datetime.now(UTC):%Y-%m-%d}.json",
        "clips per second from file to batch",
        clips=[path.name for path in paths],
        settings={"frames": FRAMES, "size": SIZE, "batch": BATCH, "workers": WORKERS, "rounds": arguments.rounds},
        av=av.__version__,
        suites=results,
        acceptance=checks,
    )


if __name__ == "__main__":
    main()
