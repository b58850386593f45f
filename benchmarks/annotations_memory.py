"""Memory that millions of annotation rows cost a training run with its loader workers and their decoder processes.

    python benchmarks/annotations_memory.py [--rows 2500000] [--workers 4] [--limit-mb 1500] [--keep FOLDER]

Writes a WebVid-like csv of that many rows, then does with it what `vtp run` does before and while it trains: reads the
table, holds clips out for validation, builds a tokenizer from all captions, writes the record of the clips that goes
into every checkpoint and compares it with a test set, and loads batches of two epochs with real decoding in isolated
processes. Every row's clip is one small generated file, because 2.5 million files would measure the disk.

Memory is the proportional set size (PSS: private pages, and of shared ones each process's part) of this process, the
workers and the decoder processes, added up, from /proc/*/smaps_rollup; the largest sum counts. What the same
samples would take as a Python list in one process is measured on some of them. Exit code 1 above the limit. The result
goes into `benchmarks/results/annotations-memory-<date>.json`.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import tempfile
import threading
import time
import tracemalloc
import warnings
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import av
import numpy as np
import record
import torch

from vtp.data import Pipeline, TrainLoader
from vtp.eval.leaks import check_leaks, train_record
from vtp.eval.task import carve_validation
from vtp.media import MediaReader
from vtp.types import MediaRef, TextSpec, VideoSpec
from vtp_datasets.webvid import WebVid
from vtp_encoders.tokenizers import build_tokenizer

TEXT = """aerial view of a young woman walking on the beach at sunset with her dog while waves roll in slow motion city
traffic night mountain river forest snow people business team office laptop close up hands cooking fresh vegetables
kitchen beautiful landscape drone flying over green field time lapse clouds blue sky water drop flower car driving"""


def write_csv(path: Path, rows: int) -> None:
    """WebVid's columns: videoid,contentUrl,duration,page_dir,name; captions of 5 to 25 words."""
    generator, words = random.Random(0), TEXT.split()
    with open(path, "w", encoding="utf-8") as file:
        file.write("videoid,contentUrl,duration,page_dir,name\n")
        for row in range(rows):
            name = " ".join(generator.choices(words, k=generator.randint(5, 25)))
            page = f"{row // 1000 * 50 + 1:06d}_{row // 1000 * 50 + 50:06d}"
            url = f"https://ak.example/videos/{10**9 + row}/preview/stock-footage-{name[:40].replace(' ', '-')}.mp4"
            file.write(f'{10**9 + row},{url},PT00H00M{10 + row % 50}S,{page},"{name.capitalize()}."\n')


def write_clip(path: Path) -> None:
    with av.open(str(path), "w") as file:
        stream = file.add_stream("mpeg4", rate=25)
        stream.width = stream.height = 128
        for number in range(50):
            pixels = np.full((128, 128, 3), 5 * number, np.uint8)
            file.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        file.mux(stream.encode(None))


class OneFile:
    """Stands in for the search for files."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def ref(self, name: str, start: float | None = None, end: float | None = None) -> MediaRef:
        return MediaRef(self.path)

    def __contains__(self, name: str) -> bool:
        return True


def family(root: int) -> list[int]:
    """``root`` and all its descendants."""
    children: dict[int, list[int]] = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                stat = Path(f"/proc/{entry}/stat").read_text()
            except OSError:
                continue
            children.setdefault(int(stat.rpartition(") ")[2].split()[1]), []).append(int(entry))
    found = [root]
    for process in found:
        found += children.get(process, [])
    return found


def memory_mb(processes: list[int]) -> dict[str, float]:
    """Sums of PSS, of its part that is backed by files, and of private pages (USS) over processes, in MB."""
    total = {"pss": 0.0, "pss_file": 0.0, "uss": 0.0}
    for process in processes:
        try:
            lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
        except OSError:
            continue
        sizes = {line.split(":")[0]: int(line.split()[1]) / 1000 * 1.024 for line in lines if line.endswith("kB")}
        total["pss"] += sizes.get("Pss", 0.0)
        total["pss_file"] += sizes.get("Pss_File", 0.0)
        total["uss"] += sizes.get("Private_Clean", 0.0) + sizes.get("Private_Dirty", 0.0)
    return total


class Watch:
    """Samples memory in the background and keeps the largest sum of every phase."""

    def __init__(self, every_s: float = 0.25) -> None:
        self.phase = "import torch and vtp"
        self.peaks: dict[str, dict[str, float]] = {}
        self.processes = 0
        self._stop = threading.Event()
        self._every_s = every_s
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while True:
            processes = family(os.getpid())
            now = memory_mb(processes)
            if now["pss"] > self.peaks.get(self.phase, {"pss": 0.0})["pss"]:
                self.peaks[self.phase] = now
            self.processes = max(self.processes, len(processes))
            if self._stop.wait(self._every_s):
                return

    def enter(self, phase: str) -> None:
        time.sleep(2 * self._every_s)
        self.phase = phase
        print(f"  {phase} ...", flush=True)

    def stop(self) -> None:
        time.sleep(2 * self._every_s)
        self._stop.set()
        self._thread.join()


def train(dataset: WebVid, clip: Path, workers: int, watch: Watch) -> dict[str, Any]:
    """What a run does with its table."""
    watch.enter("read the csv")
    started = time.perf_counter()
    table: Any = dataset.samples("retrieval", "train")
    facts = {"rows": len(table), "read_s": round(time.perf_counter() - started, 1)}
    table.media = table.sound = OneFile(clip)
    watch.enter("hold out 1 % for validation")
    left, held_out = carve_validation(table, 0.01, 0)
    assert len(left) + len(held_out) == len(table)
    watch.enter("build a tokenizer from all captions")
    tokenizer = build_tokenizer(left.all_texts(), 30_522, 1)
    watch.enter("record the clips of the stage, and check leaks")
    stage = train_record("pretrain", left, dataset, selected_on=held_out)
    assert stage["clips"] == len(table)
    report = check_leaks([stage], ["webvid:1000000000", "webvid:1"], on_leak="stamp")
    assert report.found == {"pretrain": ("webvid:1000000000",)}
    facts["record_in_checkpoint_mb"] = round(len(json.dumps(stage)) / 1e6, 1)
    del stage

    watch.enter(f"load batches with {workers} workers")
    text = TextSpec(lambda texts: [e.ids for e in tokenizer.encode_batch(texts)], 0, 1, 2, 3, (0, 1, 2, 3), 100, 32)
    specs: dict[Any, Any] = {"video": VideoSpec(frames=4, size=64), "text": text}
    pipeline = Pipeline(specs, train=True, reader=MediaReader())
    loader = TrainLoader(left, pipeline, global_batch=64, workers=workers)
    steps = loader.steps_per_epoch
    for position in (0, steps - 20):  # the second one runs into the next epoch: a second order in every worker
        loader.load_state_dict({"samples": position * 64})
        batches: Iterator[Any] = iter(loader)
        for _ in range(40):
            next(batches)
        batches.close()  # type: ignore[attr-defined]
    return facts


def as_objects(dataset: WebVid, rows: int = 20_000) -> float:
    """MB that all samples would take as a Python list, from some of them."""
    table = dataset.samples("retrieval", "train")
    tracemalloc.start()
    kept = [table[row] for row in range(min(rows, len(table)))]
    taken = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    return taken / len(kept) * len(table) / 1e6


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=2_500_000)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--limit-mb", type=float, default=1500.0)
    parser.add_argument("--keep", type=Path, default=None, help="folder for the csv, kept for the next time")
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", message="This DataLoader will create")
    watch = Watch()
    with tempfile.TemporaryDirectory() as scratch:
        root = options.keep or Path(scratch)
        root.mkdir(parents=True, exist_ok=True)
        os.environ["VTP_CACHE"] = str(Path(scratch) / "cache")
        source = root / "results_2M_train.csv"
        if not source.exists():
            watch.enter("write the csv")
            write_csv(source, options.rows)
        write_clip(Path(scratch) / "clip.mp4")
        dataset = WebVid(root=root)
        facts = train(dataset, Path(scratch) / "clip.mp4", options.workers, watch)
        facts["csv_mb"] = round(source.stat().st_size / 1e6)
        facts["arrow_mb"] = round(sum(f.stat().st_size for f in Path(scratch).glob("cache/annotations/*.arrow")) / 1e6)
        watch.stop()
        facts["python_list_mb"] = round(as_objects(dataset))
    peak = max(watch.peaks.values(), key=lambda sizes: sizes["pss"])
    print(f"{facts['rows']:,} rows, {options.workers} workers, {watch.processes} processes")
    for phase, sizes in watch.peaks.items():
        print(f"  {phase:<50} PSS {sizes['pss']:7.0f} MB (files {sizes['pss_file']:5.0f}), USS {sizes['uss']:7.0f} MB")
    print(f"peak {peak['pss']:,.0f} MB PSS, limit {options.limit_mb:,.0f} MB; {facts}")
    if options.rows >= 2_500_000:
        out = record.RESULTS / f"annotations-memory-{datetime.now(UTC):%Y-%m-%d}.json"
        facts |= {"workers": options.workers, "processes": watch.processes}
        record.save(out, "memory of annotation tables", **facts, peak_mb=peak, phases_mb=watch.peaks)
    return int(peak["pss"] > options.limit_mb)


if __name__ == "__main__":
    sys.exit(main())
