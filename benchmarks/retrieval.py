"""Ranks of retrieval from embeddings: vtp's tiles beside the full matrix with argsort, and a large set within 2 GB.

    python benchmarks/retrieval.py [--items 20000] [--width 512] [--rounds 3] [--large 100000] [--limit-mb 2000]

``usual`` is what the evaluation of the ALBEF family does: the matrix of all texts and clips, then for every text, and
for every clip, ``np.argsort`` of its scores, the place of the right one and the first ten. ``vtp`` is what
task=retrieval calls, ``vtp.eval.search.search``. Each runs in a process of its own, in turns. Time begins with the
embeddings in memory; memory is what the process takes beyond what it had then. Texts are noisy copies of their clips,
and every hundredth clip is a copy of another, so that there are ties. The script stops unless the ranks are identical:
the place that argsort finds is the rank, or one of those that the candidates with the same score share.

The large set goes through ``Retrieval.evaluate`` itself, whose model and loader give embeddings at once, and through
the files of a run; ranks of some texts and clips are counted anew in float64. Memory is that of the whole process,
Python, torch, samples and predictions included. Exit code 1 where vtp is less than ``--times`` as fast, takes more than
``--share`` of the memory, or the large set takes more than ``--limit-mb``.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import record
import torch
from torch import nn

from vtp.eval.evaluator import Evaluator
from vtp.eval.report import write_predictions
from vtp.eval.scores import Embeddings
from vtp.eval.search import search
from vtp.types import Batch, MediaRef, Sample, TextSpec, VideoSpec
from vtp_tasks.retrieval import Retrieval

BEST = 10  # first candidates that both keep
BATCH = 512
CHECKED = 200  # queries of the large set, per direction


def vectors(items: np.ndarray, width: int, noise: float) -> np.ndarray:
    """Of unit length, float32; a function of the item. Every hundredth is a copy of the one before."""
    items = np.where(items % 100 == 99, items - 1, items)
    out = np.empty((len(items), width), np.float32)
    for row, item in zip(out, items.tolist(), strict=True):
        row[:] = np.random.default_rng(item).standard_normal(width)
        if noise:
            row += noise * np.random.default_rng(2**32 + item).standard_normal(width)
    return out / np.linalg.norm(out, axis=1, keepdims=True)


def usual(text: np.ndarray, clip: np.ndarray) -> dict[str, np.ndarray]:
    sim = (torch.from_numpy(text) @ torch.from_numpy(clip).T).numpy()
    found = {}
    for direction, scores in (("t2v", sim), ("v2t", sim.T)):
        places, best = np.empty(len(sim), np.int64), np.empty((len(sim), BEST), np.int64)
        for i, row in enumerate(scores):
            order = np.argsort(row)[::-1]
            places[i], best[i] = np.where(order == i)[0][0], order[:BEST]
        found |= {direction: places, f"{direction}/first": best}
    return found


def vtp(text: np.ndarray, clip: np.ndarray) -> dict[str, np.ndarray]:
    own = np.arange(len(text))
    found = search(Embeddings(text, clip), own, own, top=BEST)
    return {
        "t2v": found.forward.higher, "t2v/tied": found.forward.tied, "t2v/first": found.first.index,
        "v2t": found.back.higher, "v2t/tied": found.back.tied, "v2t/first": found.first_back.index,
    }  # fmt: skip


def peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6


def alone(which: str, options: argparse.Namespace, folder: Path) -> None:
    """In a process of its own: measure one of the two, and write down what it found."""
    text, clip = (np.load(folder / f"{name}.npy") for name in ("text", "clip"))
    torch.mm(torch.ones(8, 8), torch.ones(8, 8))  # threads and their stacks
    before, begun = peak_mb(), time.perf_counter()
    found = {"usual": usual, "vtp": vtp}[which](text, clip)
    seconds = time.perf_counter() - begun
    np.savez(folder / f"{which}.npz", **found)
    print(json.dumps({"seconds": seconds, "mb": peak_mb() - before}))


def identical(folder: Path) -> dict[str, Any]:
    """Compare what both found; how many queries had ties."""
    one, other = np.load(folder / "usual.npz"), np.load(folder / "vtp.npz")
    ties = {}
    for direction in ("t2v", "v2t"):
        behind = one[direction] - other[direction]
        wrong = (behind < 0) | (behind > other[f"{direction}/tied"])
        if wrong.any():
            raise SystemExit(f"{direction}: {wrong.sum()} of {len(wrong)} ranks differ")
        ties[direction] = int((other[f"{direction}/tied"] > 0).sum())
    return ties


class Given(nn.Module):
    """A model and its objective ``vtc``: embeddings that the loader has made."""

    def __init__(self) -> None:
        super().__init__()
        self.objectives = {"vtc": self.Objective()}

    class Objective:
        needs = frozenset({"video", "text"})

        def embed(self, ctx: Any, modality: str) -> torch.Tensor:
            found: torch.Tensor = ctx.batch.inputs[modality]["vectors"]
            return found

    def specs(self) -> dict[str, Any]:
        text = TextSpec(lambda texts: [[1] for _ in texts], 0, 1, 2, 3, (0, 1, 2, 3), 10, 8)
        return {"video": VideoSpec(frames=1, size=8), "text": text}

    def forward(self, batch: Batch, run: Any) -> Any:
        return run(SimpleNamespace(batch=batch, model=self))


class Loader:
    misses: dict[str, str] = {}

    def __init__(self, samples: Sequence[Sample], drop: Sequence[str], width: int) -> None:
        self.samples, self.width = samples, width
        self.modality = "text" if "video" in drop else "video"

    def __iter__(self) -> Iterator[Batch]:
        for start in range(0, len(self.samples), BATCH):
            part = [self.samples[i] for i in range(start, min(start + BATCH, len(self.samples)))]
            items = np.array([int(s.texts[0] if self.modality == "text" else s.id) for s in part])
            made = torch.from_numpy(vectors(items, self.width, 1.5 if self.modality == "text" else 0))
            present = {m: torch.full((len(part),), m == self.modality) for m in ("video", "text")}
            yield Batch([s.id for s in part], {self.modality: {"vectors": made}}, present, {}, {})


class Pairs:
    """The data set: text i belongs to clip i."""

    name = "generated"

    def __init__(self, items: int) -> None:
        self.table = [
            Sample(f"q{i}", MediaRef(str(i)), None, (str(i),), {}, {"video_id": str(i)}) for i in range(items)
        ]

    def samples(self, kind: str, split: str) -> list[Sample]:
        return self.table if split == "test" else []


def large(options: argparse.Namespace) -> None:
    """In a process of its own: the task on the large set."""
    begun = time.perf_counter()
    with tempfile.TemporaryDirectory(dir=options.scratch) as folder:
        task = Retrieval(dataset=Pairs(options.large))
        loader: Any = lambda samples, drop, **_: Loader(samples, drop, options.width)  # noqa: E731
        result = task.evaluate(Evaluator(Given(), loader, scratch=Path(folder)))
        write_predictions(Path(folder), result)
        seconds = time.perf_counter() - begun
        lines = len(result.predictions)
        peak = peak_mb()
    items = np.arange(options.large)
    clip, text = vectors(items, options.width, 0), vectors(items, options.width, 1.5)
    rng, places = np.random.default_rng(0), {line["id"]: line["rank"] for line in result.predictions}
    differ = 0
    for direction, one, other in (("t2v:q", text, clip), ("v2t:", clip, text)):
        for i in rng.choice(len(items), CHECKED, replace=False):
            scores = np.float32(other.astype(np.float64) @ one[i].astype(np.float64))
            higher, same = (scores > scores[i]).sum(), (scores == scores[i]).sum() - 1
            differ += not 1 + higher <= places[f"{direction}{i}"] <= 1 + higher + same
    print(json.dumps({
        "seconds": round(seconds, 1), "peak_mb": round(peak), "lines": lines, "checked": 2 * CHECKED, "differ": differ,
        "metrics": result.metrics,
    }))  # fmt: skip


def child(which: str, folder: str) -> dict[str, Any]:
    command = [sys.executable, __file__, *sys.argv[1:], "--child", which, "--folder", folder]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--items", type=int, default=20_000, help="texts and clips side by side; 0 = only the large set"
    )
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--large", type=int, default=100_000, help="texts and clips of the large set; 0 = none")
    parser.add_argument("--limit-mb", type=float, default=2000)
    parser.add_argument("--scratch", help="folder for the embeddings of the large set; not one in memory")
    parser.add_argument("--times", type=float, default=4.0)
    parser.add_argument("--share", type=float, default=0.1)
    parser.add_argument("--out", type=Path, default=record.RESULTS / "retrieval.json")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child == "large":
        large(options)
        return 0
    if options.child:
        alone(options.child, options, Path(options.folder))
        return 0
    rounds: list[dict[str, Any]] = []
    measured: dict[str, Any] = {"items": options.items, "width": options.width}
    failed = []
    with tempfile.TemporaryDirectory() as folder:
        if options.items:
            items = np.arange(options.items)
            for name, noise in (("clip", 0.0), ("text", 1.5)):
                np.save(Path(folder) / f"{name}.npy", vectors(items, options.width, noise))
            for _ in range(options.rounds):
                rounds.append({which: child(which, folder) for which in ("usual", "vtp")})
                measured["queries_with_ties"] = identical(Path(folder))
                print(rounds[-1], flush=True)
            faster = statistics.median(one["usual"]["seconds"] / one["vtp"]["seconds"] for one in rounds)
            memory = statistics.median(one["vtp"]["mb"] / max(one["usual"]["mb"], 0.1) for one in rounds)
            measured |= {"rounds": rounds, "times_as_fast": round(faster, 2), "share_of_memory": round(memory, 3)}
            print(f"ranks identical; vtp is {faster:.2f} times as fast, with {100 * memory:.1f} % of the memory")
            failed += ["speed"] * (faster < options.times) + ["memory"] * (memory > options.share)
        if options.large:
            measured["large"] = {"items": options.large, **child("large", folder)}
            print(measured["large"])
            failed += ["limit"] * (measured["large"]["peak_mb"] > options.limit_mb)
            failed += ["ranks"] * (measured["large"]["differ"] > CHECKED // 20)
    record.save(options.out, "ranks and first ten in both directions from embeddings", **measured)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
