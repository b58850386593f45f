"""``profile=true``: what the time of a training step is spent on.

    steps    what is done in them
    first    nothing: caches, allocator and cuDNN's choices settle
    timed    the clock alone, without a profiler: step time, clips/s, wait for data, MFU, peak memory
    one      floating-point operations are counted
    traced   torch.profiler records every operator and kernel, after one step that warms it up

Folder ``profile`` of the run: ``*.pt.trace.json`` for TensorBoard's profiler plugin, chrome://tracing and Perfetto,
``profile.json`` and ``operators.csv`` with every number of the printed table.
"""

from __future__ import annotations

import csv
import io
import logging
import os
import platform
import re
import resource
import socket
import sys
import time
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from vtp import distributed
from vtp.errors import ConfigError
from vtp.storage import write_json_atomic, write_text_atomic
from vtp.train.callbacks import Callback

if TYPE_CHECKING:
    from vtp.train.trainer import Trainer

__all__ = ["Operator", "Profile", "ProfileSteps", "peak_flops"]

log = logging.getLogger("vtp.train")

TOP = 10
# torch-tb-profiler knows waiting for data by this beginning, and shows it as a part of each step.
WAIT = "enumerate(DataLoader)#"

# Dense matrix multiplication at its data sheet rate, in FLOP/s: device name -> dtype -> rate. Without sparsity.
PEAK = {
    "H200": {"bf16": 989e12, "fp16": 989e12, "fp32": 67e12},
    "H100": {"bf16": 989e12, "fp16": 989e12, "fp32": 67e12},  # SXM; the PCIe card has 756
    "A100": {"bf16": 312e12, "fp16": 312e12, "fp32": 19.5e12},
    "L40S": {"bf16": 362e12, "fp16": 362e12, "fp32": 91.6e12},
    "MI300X": {"bf16": 1307e12, "fp16": 1307e12, "fp32": 163e12},
}
_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class ProfileSteps:
    """How many steps of each kind; one more counts operations, and one warms the profiler up.

    ``parse`` reads the key ``profile``: true, or ``"first,timed,traced"`` such as ``"20,10,5"``.
    """

    first: int = 10
    timed: int = 10
    traced: int = 5

    @property
    def total(self) -> int:
        """Steps from the start of training until the profile is written."""
        return self.first + self.timed + self.traced + 2

    @classmethod
    def parse(cls, value: Any, available: int | None = None) -> ProfileSteps | None:
        """From the configuration; None for false.

        Args:
            available: steps that the run has. The defaults shrink to fit a short run; given numbers do not.

        Raises:
            ConfigError: neither true, false nor three whole numbers, or they do not fit the run.
        """
        if value in (False, None):
            return None
        if value is True:
            steps = cls()
            if available is not None and available < steps.total:
                steps = cls(*(max(1, (available - 2) * part // 25) for part in (10, 10, 5)))
        else:
            given = re.fullmatch(r"(\d+),(\d+),(\d+)", str(value).strip("[]() ").replace(" ", ""))
            if given is None or not all(int(part) for part in given.groups()[1:]):
                raise ConfigError(
                    f"profile={value} must be true, or three numbers of steps: left alone, timed, traced "
                    "(profile='20,10,5')."
                )
            steps = cls(*map(int, given.groups()))
        if available is not None and available < steps.total:
            raise ConfigError(f"profile={value} needs {steps.total} training steps, this run has {available}.")
        return steps


@dataclass(frozen=True)
class Operator:
    """One row of the table, per step.

    Attributes:
        name: of the operator or kernel.
        ms: time in it and not in operators below it, on the device that computes.
        share: of the sum over all operators.
        calls: per step.
    """

    name: str
    ms: float
    share: float
    calls: float


class Profile(Callback):
    """Records once, at the beginning of :meth:`vtp.train.Trainer.fit`, and then watches no more.

    Args:
        folder: where the files go.
        steps: what the key ``profile`` says, see :class:`ProfileSteps`.
        precision: ``fp32``, ``bf16`` or ``fp16``, for the peak that MFU is a share of.
    """

    def __init__(self, folder: Path, steps: Any = True, precision: str = "fp32") -> None:
        self.folder = folder
        self.steps = ProfileSteps.parse(steps) or ProfileSteps()
        self._wanted = steps
        self.precision = precision
        self.result: dict[str, Any] | None = None
        self._done = False
        self._first = 0
        self._waited = self._step_started = self._window_started = self._elapsed = 0.0
        self._clips = 0
        self._flops: float | None = None
        self._running = ExitStack()
        self._wait: Any = None
        self._profiler: Any = None

    def on_fit_start(self, trainer: Trainer, *, step: int, **facts: Any) -> None:
        self._first = step
        self.steps = ProfileSteps.parse(self._wanted, trainer.total_steps - step) or self.steps

    def on_step_start(self, trainer: Trainer, *, step: int, **facts: Any) -> None:
        if self._done:
            return
        number = step - self._first - 1  # from 0
        plan = self.steps
        if number == plan.first:
            _settle(trainer.device, reset=True)
            self._window_started = time.perf_counter()
        elif number == plan.first + plan.timed:
            _settle(trainer.device)
            self._elapsed = time.perf_counter() - self._window_started
            self._count_operations()
        elif number == plan.first + plan.timed + 1:
            self._start_profiler(trainer)
        self._step_started = time.perf_counter()
        if self._profiler is not None:
            self._wait = torch.profiler.record_function(f"{WAIT}wait for data")
            self._wait.__enter__()

    def on_batch(self, trainer: Trainer, *, step: int, batch: Any, **facts: Any) -> None:
        if self._done:
            return
        if self._wait is not None:
            self._wait.__exit__(None, None, None)
            self._wait = None
        if self.steps.first <= step - self._first - 1 < self.steps.first + self.steps.timed:
            self._waited += time.perf_counter() - self._step_started
            self._clips += batch.global_rows

    def on_step_end(self, trainer: Trainer, *, step: int, **facts: Any) -> None:
        if self._done:
            return
        number = step - self._first - 1
        if number == self.steps.first + self.steps.timed:
            self._running.close()
        if self._profiler is not None:
            self._profiler.step()
        if number == self.steps.total - 1:
            self._finish(trainer)

    def on_fit_end(self, trainer: Trainer, *, step: int, error: BaseException | None, **facts: Any) -> None:
        if not self._done:
            self._done = True
            self._running.close()
            if error is None:
                log.warning("profile: training ended at step %d, before the profile was complete", step)

    def _count_operations(self) -> None:
        from torch.utils.flop_counter import FlopCounterMode

        counter = FlopCounterMode(display=False)
        self._running.enter_context(counter)
        self._running.callback(lambda: setattr(self, "_flops", float(counter.get_total_flops())))

    def _start_profiler(self, trainer: Trainer) -> None:
        activities = [torch.profiler.ProfilerActivity.CPU]
        if trainer.device.type == "cuda":
            activities.append(torch.profiler.ProfilerActivity.CUDA)
        else:  # it looks for a GPU all the same, and prints an error when there is none
            os.environ.setdefault("KINETO_LOG_LEVEL", "5")
        self._profiler = torch.profiler.profile(
            activities=activities,
            schedule=torch.profiler.schedule(wait=0, warmup=1, active=self.steps.traced, repeat=1),
            on_trace_ready=self._write_trace,
            record_shapes=True,
            profile_memory=True,
            with_flops=True,
            acc_events=True,
        )
        self._running.enter_context(self._profiler)

    def _write_trace(self, profiler: Any) -> None:
        """Under the name by which TensorBoard's plugin finds it, one file per process."""
        self.folder.mkdir(parents=True, exist_ok=True)
        host = re.sub(r"[^\w-]", "_", socket.gethostname())
        name = f"{host}_{os.getpid()}_rank{distributed.rank()}.{time.time_ns() // 1_000_000}.pt.trace.json"
        profiler.export_chrome_trace(str(self.folder / name))

    def _finish(self, trainer: Trainer) -> None:
        self._done = True
        _settle(trainer.device)
        self._running.close()
        operators = _operators(self._profiler, trainer.device, self.steps.traced)
        self._profiler = None
        step_s = self._elapsed / self.steps.timed
        measured = _matmul_rate(trainer.device, _DTYPES[self.precision])
        sheet = peak_flops(_device_name(trainer.device), self.precision)
        flops = self._flops or 0.0
        self.result = {
            "device": _device_name(trainer.device),
            "torch": torch.__version__,
            "precision": self.precision,
            "processes": distributed.world_size(),
            "steps": asdict(self.steps) | {"from": self._first + self.steps.first + 1},
            "step_ms": step_s * 1e3,
            "clips_per_s": self._clips / self._elapsed,
            "data_wait_share": self._waited / self._elapsed,
            "gflop_per_step": flops / 1e9,
            "gflop_per_s": flops / step_s / 1e9,
            "matmul_gflop_per_s": measured / 1e9,
            "mfu_of_matmul": flops / step_s / measured,
            "peak_gflop_per_s": None if sheet is None else sheet / 1e9,
            "mfu": None if sheet is None else flops / step_s / sheet,
            "peak_memory_mb": _peak_memory(trainer.device),
            "operators": [asdict(operator) for operator in operators],
        }
        if distributed.is_main():
            self.folder.mkdir(parents=True, exist_ok=True)
            write_json_atomic(self.folder / "profile.json", self.result)
            write_text_atomic(self.folder / "operators.csv", _csv(operators))
            self._print(operators)

    def _print(self, operators: list[Operator]) -> None:
        from rich.console import Console
        from rich.table import Table

        assert self.result is not None
        facts = self.result
        console = Console(file=sys.stderr, highlight=False)
        table = Table(title=f"the {TOP} most expensive operators of a training step", title_justify="left")
        for heading in ("operator", "ms / step", "share", "calls"):
            table.add_column(heading, justify="left" if heading == "operator" else "right", overflow="fold")
        for row in operators[:TOP]:
            table.add_row(row.name, f"{row.ms:.2f}", f"{100 * row.share:.1f} %", f"{row.calls:.0f}")
        console.print(table)
        console.print(
            f"step {facts['step_ms']:.1f} ms, {facts['clips_per_s']:.1f} clips/s, waiting for data "
            f"{100 * facts['data_wait_share']:.0f} %, peak memory {facts['peak_memory_mb']:,.0f} MB\n"
            f"{facts['gflop_per_step']:,.1f} GFLOP per step, {facts['gflop_per_s']:,.1f} GFLOP/s: "
            f"{100 * facts['mfu_of_matmul']:.1f} % of the {facts['matmul_gflop_per_s']:,.0f} GFLOP/s that one large "
            f"{self.precision} matrix product reaches here"
            + ("" if facts["mfu"] is None else f", MFU {100 * facts['mfu']:.1f} % of the data sheet")
            + f"\nin {self.folder}: operators.csv, profile.json, and a trace for https://ui.perfetto.dev or\n"
            f"  pip install torch-tb-profiler; tensorboard --logdir {self.folder}    (its pages load scripts from the "
            "internet)"
        )


def peak_flops(device: str, precision: str) -> float | None:
    """Data sheet rate of dense matrix products in FLOP/s, or None for a device that is not in the table."""
    return next((rates[precision] for name, rates in PEAK.items() if name in device), None)


def _operators(profiler: Any, device: torch.device, steps: int) -> list[Operator]:
    """Operators by the time in themselves, most expensive first; on a GPU those are its kernels."""
    on_device = device.type == "cuda"
    found = []
    for event in profiler.key_averages():
        if event.key.startswith("ProfilerStep"):
            continue
        us = event.self_device_time_total if on_device else event.self_cpu_time_total
        if us > 0:
            found.append((event.key.removeprefix(WAIT), us / 1e3 / steps, event.count / steps))
    total = sum(ms for _, ms, _ in found) or 1.0
    return [Operator(name, ms, ms / total, calls) for name, ms, calls in sorted(found, key=lambda row: -row[1])]


def _csv(operators: list[Operator]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("operator", "ms_per_step", "share", "calls_per_step"))
    writer.writerows((o.name, f"{o.ms:.4f}", f"{o.share:.5f}", f"{o.calls:g}") for o in operators)
    return text.getvalue()


def _settle(device: torch.device, reset: bool = False) -> None:
    """Let the device finish, so that the clock reads its work and not the queue's."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        if reset:
            torch.cuda.reset_peak_memory_stats(device)


def _peak_memory(device: torch.device) -> float:
    """MB: of the allocator on a GPU since the timed steps began, of the process elsewhere since it was started."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


def _device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{platform.machine()}, {torch.get_num_threads()} threads"


@torch.no_grad()
def _matmul_rate(device: torch.device, dtype: torch.dtype) -> float:
    """FLOP/s of the fastest of some large square matrix products: what this device reaches in practice."""
    size = 8192 if device.type == "cuda" else 1024
    a = torch.full((size, size), 0.5, dtype=dtype, device=device)
    best = float("inf")
    started = time.perf_counter()
    while time.perf_counter() - started < 0.5:
        _settle(device)
        before = time.perf_counter()
        a @ a
        _settle(device)
        best = min(best, time.perf_counter() - before)
    return 2 * size**3 / best
