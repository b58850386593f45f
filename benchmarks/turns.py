"""Two training runs side by side, step by step: what a change of the code, or of the configuration, costs per step.

    python benchmarks/turns.py --against /path/to/old/.venv/bin/python -- task=msrvtt_qa dataset=shapes
    python benchmarks/turns.py --other 'dataset=mix dataset.parts={shapes:{}}' -- task=msrvtt_qa dataset=shapes

Each side is `vtp run` in a process of its own; one takes a step while the other waits, in random order, so that both
see the same machine. A run differs from the next by a few per cent, because its memory lies elsewhere: that is why
several pairs of processes are started (``--pairs``), and ``--twins`` measures a side against itself: the noise.

Prints and writes the ratio new / old of the whole step, of its passes (forward and backward) and of the rest (data,
optimiser, records): the median over pairs of the median over neighbouring steps.
"""

from __future__ import annotations

import argparse
import os
import random
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import record

# What both sides run with; the loader works in the process itself, so that its time is part of the step.
ALWAYS = [
    "mode=train",
    "run_dir=run",
    "data.workers=0",
    "train.epochs=null",
    *(f"train.{name}=1000000" for name in ("steps", "log_every", "eval_every")),
    "train.tensorboard=false",
    "task.selection=last",
]
PARTS = ("step", "passes", "rest", "processor")
SERVE = "VTP_BENCHMARK_SERVE"


def serve(arguments: list[str]) -> None:
    """One side: `vtp run`, whose step waits for a line on stdin and then tells how long the one before took."""
    from vtp.cli.main import main
    from vtp.train.step import Step

    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    passes = Step.__call__
    begun: list[float] = []

    def step(self: Step, batch: Any) -> Any:
        now, processor = time.perf_counter(), time.process_time()
        if begun:
            start, ended, used = begun
            answers.write(f"{now - start} {ended - start} {now - ended} {processor - used}\n")
        else:
            answers.write("ready\n")
        if not sys.stdin.readline():
            os._exit(0)
        start, used = time.perf_counter(), time.process_time()
        seen = passes(self, batch)
        begun[:] = [start, time.perf_counter(), used]
        return seen

    Step.__call__ = step  # type: ignore[method-assign]
    raise SystemExit(main(["run", *arguments]))


class Side:
    """One of the two runs."""

    def __init__(self, python: str, overrides: list[str], folder: Path) -> None:
        folder.mkdir()
        self.log = folder / "log.txt"
        command = [python, str(Path(__file__).resolve()), *overrides, *ALWAYS]
        environment = {**os.environ, SERVE: "1"}
        with open(self.log, "w") as log:
            self.process = subprocess.Popen(
                command, cwd=folder, env=environment, stdin=-1, stdout=-1, stderr=log, text=True
            )
        if self._answer() != "ready\n":
            raise SystemExit(f"{shlex.join(command)} did not reach its first step:\n{self.log.read_text()[-3000:]}")

    def take(self) -> tuple[float, ...]:
        """Milliseconds of one step: all of it, its passes, the rest, and the processor's."""
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return tuple(1000 * float(second) for second in self._answer().split())

    def _answer(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline()

    def close(self) -> None:
        self.process.kill()
        self.process.communicate()


def pair(sides: list[tuple[str, list[str]]], seconds: float, warm: int) -> dict[str, float]:
    """One pair of processes: milliseconds of both, and medians of their ratios over neighbouring steps."""
    with tempfile.TemporaryDirectory() as folder:
        order = random.sample([0, 1], 2)
        running = {}
        try:
            for which in order:
                running[which] = Side(*sides[which], Path(folder) / str(which))
            taken: list[list[tuple[float, ...]]] = [[], []]
            end = time.monotonic() + seconds
            while time.monotonic() < end or len(taken[0]) < warm + 5:
                for which in random.sample([0, 1], 2):
                    taken[which].append(running[which].take())
        finally:
            for side in running.values():
                side.close()
    found = {"steps": float(len(taken[0]) - warm)}
    for place, part in enumerate(PARTS):
        old, new = ([step[place] for step in side[warm:]] for side in taken)
        found[f"{part}_old_ms"] = round(statistics.median(old), 3)
        found[f"{part}_new_ms"] = round(statistics.median(new), 3)
        found[part] = round(statistics.median(b / a for a, b in zip(old, new, strict=True)), 4)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--against", default=sys.executable, help="Python of the old side's installation")
    parser.add_argument("--other", default="", help="overrides that only the new side gets")
    parser.add_argument("--twins", action="store_true", help="the old side against itself")
    parser.add_argument("--pairs", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=18.0, help="per pair")
    parser.add_argument("--warm", type=int, default=8, help="steps that are not counted")
    parser.add_argument("--out", type=Path, help="result file; without it nothing is written")
    parser.add_argument("overrides", nargs="+", help="what `vtp run` is given")
    options = parser.parse_args()
    old = (options.against, options.overrides)
    new = old if options.twins else (sys.executable, [*options.overrides, *shlex.split(options.other)])
    pairs = []
    for _ in range(options.pairs):
        pairs.append(pair([old, new], options.seconds, options.warm))
        print(
            "  ".join(f"{part} {pairs[-1][part]:.3f}" for part in PARTS),
            f"({pairs[-1]['steps']:.0f} steps)",
            flush=True,
        )
    ratios = {part: round(statistics.median(one[part] for one in pairs), 4) for part in PARTS}
    print("new / old: " + "  ".join(f"{part} {ratio:.3f}" for part, ratio in ratios.items()))
    if options.out:
        record.save(options.out, "time of a training step, new over old", ratios=ratios, pairs=pairs)


if __name__ == "__main__":
    serve(sys.argv[1:]) if os.environ.get(SERVE) else main()
