"""Reading clips with two versions of the code, in turns: what a change costs every decoder, cache and the shards.

    python benchmarks/data_turns.py --against /path/to/old/checkout --python /path/to/old/.venv/bin/python
                                    [--videos DIR] [--seconds 10] [--only NAME] [--out FILE]

Each version makes its own caches and shards with the providers of its own ``benchmarks/data.py`` and waits in a process
of its own. One reads the clips while the other waits, in random order, so that both see the same machine. ``alone``
reads in that process, ``isolated`` through the decoder's process, ``loader`` through the training loader with two
workers.

Prints and writes old / new: above 1 the new version is faster. Of each the median over turns, and the ratio of the
fastest turns, which the rest of the machine disturbs least.
"""

from __future__ import annotations

import argparse
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import record

SERVE = "VTP_BENCHMARK_SERVE"  # the checkout whose version this process is to be
LEAST_S = 0.15  # of a turn


def serve(tree: str, folder: Path, videos: Path) -> None:
    """One version: reads what stdin asks for (``how|provider|times``) and tells the seconds."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    sys.path.insert(0, f"{tree}/benchmarks")
    import data
    import torch

    torch.set_num_threads(1)
    paths = sorted(videos.glob("*.mp4"))
    found = {p.name: p for p in data.providers(paths, folder, False) if p.unavailable is None}
    loadings: dict[str, Any] = {}
    answers.write("|".join(found) + "\n")
    for line in sys.stdin:
        how, name, times = line.strip().split("|")
        provider = found[name]
        if how == "loader":
            if name not in loadings:
                loadings[name] = data.Loading(provider, False)
                loadings[name].take(1)  # what is slow once is over
            answers.write(f"{1 / loadings[name].take(int(times))[1]}\n")
            continue
        reading = provider if how == "alone" else replace(provider, alone=provider.reader)
        start = time.perf_counter()
        for _ in range(int(times)):
            data.read_once(reading, len(paths), False)
        answers.write(f"{time.perf_counter() - start}\n")


class Version:
    """One of the two."""

    def __init__(self, python: str, tree: Path, folder: Path, videos: Path) -> None:
        folder.mkdir()
        command = [python, str(Path(__file__).resolve()), str(folder), str(videos)]
        with open(folder / "log.txt", "w") as log:
            environment = {**os.environ, SERVE: str(tree)}
            self.process = subprocess.Popen(command, env=environment, stdin=-1, stdout=-1, stderr=log, text=True)
        self.providers = self._answer().split("|")
        if self.providers == [""]:
            raise SystemExit(f"{tree} cannot be measured:\n{(folder / 'log.txt').read_text()[-3000:]}")

    def read(self, how: str, name: str, times: int) -> float:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{how}|{name}|{times}\n")
        self.process.stdin.flush()
        return float(self._answer())

    def _answer(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()


def measure(old: Version, new: Version, how: str, name: str, seconds: float) -> dict[str, Any]:
    """Turns of one provider."""
    for version in (old, new):
        version.read(how, name, 1)
    times = 1 if how == "loader" else max(1, round(LEAST_S / new.read(how, name, 1)))
    taken: dict[Version, list[float]] = {old: [], new: []}
    end = time.monotonic() + seconds
    while time.monotonic() < end or len(taken[old]) < 5:
        for version in random.sample([old, new], 2):
            taken[version].append(version.read(how, name, times))
    ratio = statistics.median(a / b for a, b in zip(taken[old], taken[new], strict=True))
    fastest = min(taken[old]) / min(taken[new])
    print(f"{how:<9} {name:<20} old / new {ratio:.3f}, fastest {fastest:.3f} ({len(taken[old])} turns)", flush=True)
    return {"how": how, "provider": name, "old_over_new": round(ratio, 3), "fastest": round(fastest, 3)}


def main() -> None:
    root = Path(__file__).resolve().parents[1]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--against", type=Path, required=True, help="checkout of the old version")
    parser.add_argument("--python", required=True, help="Python of an environment with the old version")
    parser.add_argument("--videos", type=Path, default=root.parent / "shared" / "data" / "videos" / "msrvtt")
    parser.add_argument("--seconds", type=float, default=10.0, help="per provider")
    parser.add_argument("--only", default="", help="what is in the name, such as `loader` or `JPEG`")
    parser.add_argument("--out", type=Path, help="result file; without it nothing is written")
    options = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        old = Version(options.python, options.against, Path(folder) / "old", options.videos)
        new = Version(sys.executable, root, Path(folder) / "new", options.videos)
        try:
            names = [name for name in old.providers if name in new.providers]
            decoders = [name for name in names if "cache" in name or name in ("pyav", "decord", "torchcodec")]
            jobs = [("alone", name) for name in names if name != "pyav"]
            jobs += [("isolated", name) for name in decoders]
            jobs += [("loader", name) for name in names if name != "pyav, not isolated"]
            for how, name in jobs:
                if options.only in f"{how} {name}":
                    rows.append(measure(old, new, how, name, options.seconds))
        finally:
            for version in (old, new):
                version.process.kill()
                version.process.communicate()
    if options.out:
        record.save(options.out, "time to read a clip, old over new", rows=rows)


if __name__ == "__main__":
    serve(os.environ[SERVE], Path(sys.argv[1]), Path(sys.argv[2])) if os.environ.get(SERVE) else main()
