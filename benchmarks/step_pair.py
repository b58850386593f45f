"""Two implementations of a training step side by side: vtp's engine, and one that is written out plainly.

Each has a process of its own, as in use, because what one of them does to the heap would change the other's times; the
processes take turns, step by step, and the ratio is the median over rounds. On a CPU vtp's process keeps freed memory,
as ``vtp run`` does (vtp.machine), so there are two ratios: over ``plain``, each with its usual setting, and over
``plain, memory kept``, the plain one in a process with vtp's setting. Peak memory is the process's resident set (on a
GPU: what PyTorch allocated) over all its steps. Processor time is told besides, for machines that others use: it does
not count waiting.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import record
import torch
from torch import Tensor, nn

from vtp.machine import keep_memory
from vtp.train import TrainConfig
from vtp.train.parallel import Parallel
from vtp.train.precision import Precision
from vtp.train.step import Step
from vtp.types import Batch

SERVED = ("plain", "vtp", "plain, memory kept")  # what has a process


class StepPair(ABC):
    """A training step, forward and backward, of vtp's engine and of a plain implementation with the same weights.

    A script says what both are made of; ``main`` checks that they agree and times them, each in a process of its own.
    Neither is timed with clipping and the optimizer, which are the same for both.

    Attributes:
        model: vtp's, on the device.
        batch: what the engine gets, on the device.
    """

    def __init__(self, options: argparse.Namespace, which: Sequence[str]) -> None:
        torch.manual_seed(0)
        device = torch.device(options.device)
        with tempfile.TemporaryDirectory() as folder:
            self.model = self.make_model(options, Path(folder)).to(device)
        self.batch = self.make_batch(options).to(device)
        self.modules: dict[str, nn.Module] = {"vtp": self.model}
        if "vtp" in which:
            config = TrainConfig(steps=1, global_batch=options.batch)
            precision = Precision(config.precision, device)
            self.step = Step(Parallel(self.model, config, device), precision, config.accumulation)
        if "plain" in which:
            plain = self.make_plain(options)
            plain.load_state_dict(self.to_plain(self.model.state_dict()))
            self.modules["plain"] = plain.to(device)
            self.inputs = self.plain_inputs()

    @abstractmethod
    def make_model(self, options: argparse.Namespace, folder: Path) -> nn.Module:
        """vtp's model; files it is made from may be written to ``folder``."""

    @abstractmethod
    def make_batch(self, options: argparse.Namespace) -> Batch:
        """Random rows."""

    @abstractmethod
    def make_plain(self, options: argparse.Namespace) -> nn.Module:
        """The plain implementation; its ``forward`` returns losses by the names of vtp's objectives."""

    @abstractmethod
    def to_plain(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Weights or gradients of vtp's model, under the plain one's names."""

    @abstractmethod
    def plain_inputs(self) -> tuple[Tensor, ...]:
        """Arguments of the plain implementation: the batch with the masks and negatives that vtp draws for it."""

    def forward_backward(self, which: str) -> dict[str, Tensor]:
        self.modules[which].zero_grad(set_to_none=True)
        if which == "vtp":
            losses = {seen.name: seen.loss for seen in self.step(self.batch)}
        else:
            losses = self.modules["plain"](*self.inputs)
            torch.stack(list(losses.values())).sum().backward()
        if self.batch.inputs["video"]["frames"].is_cuda:
            torch.cuda.synchronize()
        return {name: loss.detach() for name, loss in losses.items()}

    def check(self) -> float:
        """Largest relative difference of losses and of gradients."""
        plain, ours = ({n: float(x) for n, x in self.forward_backward(w).items()} for w in ("plain", "vtp"))
        errors = [abs(plain[name] - ours[name]) / abs(plain[name]) for name in plain]
        grads = self.to_plain({name: p.grad for name, p in self.model.named_parameters()})
        theirs = {name: p.grad for name, p in self.modules["plain"].named_parameters()}
        largest = max(grad.norm() for grad in theirs.values())
        # Some gradients are zero but for rounding, those of the biases of keys: a softmax does not see them. So
        # differences are measured against at least a hundred thousandth of the largest norm.
        errors += [float((grads[n] - g).norm() / g.norm().clamp(min=1e-5 * largest)) for n, g in theirs.items()]
        return max(errors)

    @classmethod
    def main(cls, parser: argparse.ArgumentParser, what: str) -> int:
        """Run a script: check, take turns, print, and save as ``benchmarks/results/<script>_<device>.json``.

        Args:
            parser: with the options that both are made from; those that all such scripts have are added.
            what: head of the result file.

        Returns:
            Exit status, 1 if the two disagree.
        """
        sizes = [action.dest for action in parser._actions if action.dest != "help"]
        parser.add_argument("--threads", type=int, default=2)
        parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
        parser.add_argument("--serve", choices=SERVED, help=argparse.SUPPRESS)
        parser.add_argument("--out", type=Path, help="JSON file; default benchmarks/results/<script>_<device>.json")
        options = parser.parse_args()
        torch.set_num_threads(options.threads)
        if options.serve:
            cls._serve(options)
            return 0
        return cls._compare(options, [*sizes, "threads", "device"], what)

    @classmethod
    def _serve(cls, options: argparse.Namespace) -> None:
        """The process of one implementation: per line of stdin a step, answered by its seconds; then its memory."""
        name = options.serve.split(",")[0]
        if options.serve != "plain" and options.device == "cpu":
            keep_memory(1 << 30, 2 << 30)
        pair = cls(options, (name,))
        if name == "plain":
            del pair.model.encoders, pair.model.objectives  # the weights of the other one
        before = start_of_peak(options.device)
        pair.forward_backward(name)
        print("ready", flush=True)
        for _ in sys.stdin:
            start, processor = time.perf_counter(), time.process_time()
            pair.forward_backward(name)
            print(time.perf_counter() - start, time.process_time() - processor, flush=True)
        print(json.dumps({"before": before, "peak": max(before, end_of_peak(options.device))}))

    @classmethod
    def _compare(cls, options: argparse.Namespace, settings: Sequence[str], what: str) -> int:
        error = cls(options, ("plain", "vtp")).check()
        print(f"losses and gradients agree within {error:.1e} (relative)", flush=True)
        if not error <= 1e-3:
            print("they must agree within 1e-3; no timing is reported")
            return 1
        chosen = {name: getattr(options, name) for name in settings}
        names = SERVED if options.device == "cpu" else SERVED[:2]
        served = {name: Served(name, chosen) for name in names}
        for i in range(options.rounds):
            for one in served.values() if i % 2 == 0 else reversed(served.values()):
                one.step()
            line = ", ".join(f"{name} {one.times[-1]:.3f} s" for name, one in served.items())
            print(f"round {i + 1}: {line}", flush=True)
        times = {name: one.times for name, one in served.items()}
        memory = {name: one.memory() for name, one in served.items()}
        speedup = {name: served["vtp"].speedup_over(one) for name, one in served.items() if name != "vtp"}
        for name, ratio in speedup.items():
            told = f"{ratio['median_of_rounds']:.2f} (median), {ratio['of_minima']:.2f} (minima)"
            print(f"speed-up over {name}: {told}, {ratio['of_processor_time']:.2f} (processor time)")
        print(f"peak memory: plain {memory['plain']['peak']:.0f} MiB, vtp {memory['vtp']['peak']:.0f} MiB")
        record.save(
            options.out or record.RESULTS / f"{Path(sys.argv[0]).stem}_{options.device.replace(':', '')}.json",
            what,
            settings=chosen,
            gpu=None if options.device == "cpu" else torch.cuda.get_device_name(),
            largest_relative_difference=error,
            seconds={k: {"median": statistics.median(v), "min": min(v), "all": v} for k, v in times.items()},
            processor_seconds={name: one.processor for name, one in served.items()},
            vtp_speedup_over=speedup,
            memory_mib=memory,
            memory_ratio=memory["vtp"]["peak"] / memory["plain"]["peak"],
        )
        return 0


class Served:
    """A process that takes the steps of one implementation."""

    def __init__(self, which: str, settings: Mapping[str, Any]) -> None:
        command = [sys.executable, sys.argv[0], "--serve", which, *(f"--{k}={v}" for k, v in settings.items())]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.times: list[float] = []
        self.processor: list[float] = []
        assert self.process.stdin and self.process.stdout
        self.stdin, self.stdout = self.process.stdin, self.process.stdout
        if self.stdout.readline() != "ready\n":
            raise SystemExit(f"the process of {which} ended before its first step; what it said stands above")

    def step(self) -> None:
        print("step", file=self.stdin, flush=True)
        wall, processor = map(float, self.stdout.readline().split())
        self.times.append(wall)
        self.processor.append(processor)

    def speedup_over(self, other: Served) -> dict[str, float]:
        return {
            "median_of_rounds": statistics.median(a / b for a, b in zip(other.times, self.times, strict=True)),
            "of_minima": min(other.times) / min(self.times),
            "of_processor_time": statistics.median(other.processor) / statistics.median(self.processor),
        }

    def memory(self) -> dict[str, float]:
        """End it."""
        self.stdin.close()
        memory: dict[str, float] = json.loads(self.stdout.readline())
        self.process.wait()
        return memory


def start_of_peak(device: str) -> float:
    """Memory in use now, in MiB; the peak counts from here."""
    if device != "cpu":
        torch.cuda.reset_peak_memory_stats()
        return torch.cuda.memory_allocated() / 2**20
    Path("/proc/self/clear_refs").write_text("5")  # the high-water mark of the resident set starts anew
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def end_of_peak(device: str) -> float:
    """The most memory that was in use since then, in MiB."""
    if device != "cpu":
        return torch.cuda.max_memory_allocated() / 2**20
    line = next(s for s in Path("/proc/self/status").read_text().splitlines() if s.startswith("VmHWM"))
    return int(line.split()[1]) / 1024
