"""What the suites share: providers, the correctness gate, interleaved timing, the noise band, ratios.

A case is timed like this: every provider's results are compared with a float64 reference first, and one that is wrong
gets no time. Then, in at least five rounds, the providers run in random order; the first provider is there twice, under
two names, and the spread between these twins is the noise band: a ratio inside it is reported as a tie.
"""

from __future__ import annotations

import itertools
import math
import random
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

TOLERANCE = {
    torch.float32: (1e-5, 1e-5),
    torch.float16: (2e-3, 4e-3),
    torch.bfloat16: (5e-3, 1e-2),
}  # outputs, gradients
ROUNDS = 5


@dataclass
class Provider:
    """One way to compute a case.

    Attributes:
        name: as it stands in the tables.
        phases: what is timed, such as forward, backward, both: functions without arguments.
        results: the tensors that the gate compares, by name; names with "grad" get the tolerance of gradients.
        setup: function that a training step calls once for all layers (layout, block mask), timed apart.
        unavailable: why this provider cannot run here; then the rest is not used.
    """

    name: str
    phases: Mapping[str, Callable[[], Any]] = field(default_factory=dict)
    results: Callable[[], Mapping[str, Tensor]] | None = None
    setup: Callable[[], Any] | None = None
    unavailable: str | None = None


@dataclass
class Case:
    """Providers of one problem, the first being ours.

    Attributes:
        reference: the right results in float64, by the names of ``Provider.results``.
        useful, dense: floating-point operations per phase that count, and that a dense computation does.
        traffic: bytes per phase that have to move at least.
        layers: calls that share one ``setup``.
        tolerance: relative errors allowed for outputs and for gradients; None is what rounding in ``dtype`` explains.
    """

    suite: str
    name: str
    dtype: torch.dtype
    providers: Sequence[Provider]
    reference: Mapping[str, Tensor]
    useful: Mapping[str, float] = field(default_factory=dict)
    dense: Mapping[str, float] = field(default_factory=dict)
    traffic: Mapping[str, float] = field(default_factory=dict)
    layers: int = 12
    tolerance: tuple[float, float] | None = None


def faults(provider: Provider, case: Case) -> list[str]:
    """Results that differ from the reference by more than rounding explains."""
    if provider.results is None:
        return ["has no results to compare"]
    found = []
    results = provider.results()
    if results.keys() != case.reference.keys():
        return [f"gives {sorted(results)} and not {sorted(case.reference)}"]
    for name, want in case.reference.items():
        limit = (case.tolerance or TOLERANCE[case.dtype])["grad" in name]
        got = results[name].detach().to("cpu", torch.float64)
        want = want.detach().to("cpu", torch.float64)
        error = (got - want).norm().item() / (want.norm().item() or 1.0)
        if not error <= limit:  # NaN too
            found.append(f"{name} is off by {error:.1e}, allowed {limit:.0e}")
    return found


class Clock:
    """Milliseconds of a call: CUDA events with a flushed L2 cache, or the wall on a CPU."""

    def __init__(self, device: torch.device) -> None:
        self.cuda = device.type == "cuda"
        if self.cuda:
            cache = torch.cuda.get_device_properties(device).L2_cache_size
            self.flush = torch.empty(max(cache, 1) * 4, dtype=torch.uint8, device=device)

    def sample(self, function: Callable[[], Any], repeats: int) -> list[float]:
        """``repeats`` times of one call each. On CUDA a call under 50 us is timed as a captured graph of 20, free of
        launch gaps."""
        if not self.cuda:
            return [self._wall(function) for _ in range(repeats)]
        single = [self._events(function) for _ in range(repeats)]
        if statistics.median(single) >= 0.05:
            return single
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph):
                for _ in range(20):
                    function()
        except RuntimeError:  # a provider that asks the host in between cannot be captured; its gaps are its own
            torch.cuda.synchronize()
            return single
        return [self._events(graph.replay) / 20 for _ in range(repeats)]

    def _wall(self, function: Callable[[], Any]) -> float:
        start = time.perf_counter()
        function()
        return (time.perf_counter() - start) * 1e3

    def _events(self, function: Callable[[], Any]) -> float:
        self.flush.zero_()
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        function()
        end.record()
        end.synchronize()
        return start.elapsed_time(end)


def quantiles(times: Sequence[float]) -> dict[str, float]:
    """Median, 20 % and 80 % in milliseconds."""
    ordered = sorted(times)
    pick = lambda share: ordered[min(len(ordered) - 1, int(share * len(ordered)))]  # noqa: E731  (one line, used twice)
    return {"median_ms": statistics.median(ordered), "p20_ms": pick(0.2), "p80_ms": pick(0.8)}


def measure(case: Case, clock: Clock, seconds: float, seed: int = 0) -> list[dict[str, Any]]:
    """Rows of the result file: gate, then interleaved rounds until ``seconds`` are spent, but at least ``ROUNDS``."""
    rows: list[dict[str, Any]] = []
    running: list[Provider] = []
    for provider in case.providers:
        if provider.unavailable is not None:
            rows.append({**_head(case, provider.name), "status": "not measured", "reason": provider.unavailable})
        elif wrong := faults(provider, case):
            rows.append({**_head(case, provider.name), "status": "wrong", "reason": "; ".join(wrong)})
        else:
            running.append(provider)
    if not running or running[0] is not case.providers[0]:
        return rows  # nothing to set the others against
    twin = Provider(running[0].name + " (again)", running[0].phases)
    times, spent = _interleave([*running, twin], clock, seconds, random.Random(seed))
    ours = {phase: statistics.median(samples) for (name, phase), samples in times.items() if name == running[0].name}
    noise = {phase: abs(statistics.median(times[twin.name, phase]) / median - 1) for phase, median in ours.items()}
    for provider in running:
        setup = _setup_milliseconds(provider, clock)
        for phase in provider.phases:
            samples = times[provider.name, phase]
            rows.append(_row(case, provider.name, phase, samples, ours.get(phase), noise.get(phase, 0.0), setup))
    for row in rows:
        row.setdefault("seconds_spent", round(spent, 1))
    return rows


def _interleave(
    providers: Sequence[Provider], clock: Clock, seconds: float, order: random.Random
) -> tuple[dict[tuple[str, str], list[float]], float]:
    work = [(p.name, phase, function) for p in providers for phase, function in p.phases.items()]
    for _, _, function in work:
        function()  # caches, compilation, allocator
    times: dict[tuple[str, str], list[float]] = {(name, phase): [] for name, phase, _ in work}
    start = time.perf_counter()
    for done in itertools.count():
        if done >= ROUNDS and time.perf_counter() - start > seconds:
            return times, time.perf_counter() - start
        if done >= 100:
            return times, time.perf_counter() - start
        for name, phase, function in order.sample(work, len(work)):
            times[name, phase] += clock.sample(function, 3 if clock.cuda else 1)


def _setup_milliseconds(provider: Provider, clock: Clock) -> float:
    if provider.setup is None:
        return 0.0
    provider.setup()
    return statistics.median(clock.sample(provider.setup, 5))


def _head(case: Case, name: str) -> dict[str, Any]:
    return {"suite": case.suite, "case": case.name, "dtype": str(case.dtype).removeprefix("torch."), "provider": name}


def _row(
    case: Case, name: str, phase: str, samples: list[float], ours: float | None, noise: float, setup: float
) -> dict[str, Any]:
    numbers = quantiles(samples)
    with_setup = numbers["median_ms"] + setup / case.layers
    row = {
        **_head(case, name),
        "phase": phase,
        "status": "ok",
        "samples": len(samples),
        **{key: round(value, 5) for key, value in numbers.items()},
        "setup_ms": round(setup, 5),
        "noise": round(noise, 4),
    }
    for key, operations in (("useful_tflops", case.useful), ("dense_tflops", case.dense)):
        if phase in operations:
            row[key] = round(operations[phase] / with_setup / 1e9, 3)
    if phase in case.traffic:
        row["gb_per_s"] = round(case.traffic[phase] / with_setup / 1e6, 2)
    if ours:
        ratio = with_setup / ours
        row["ours_is_faster_by"] = round(ratio, 3) if math.isfinite(ratio) else None
        row["outside_noise"] = abs(ratio - 1) > noise
    return row


def peak_memory(function: Callable[[], Any], device: torch.device) -> float | None:
    """Megabytes that a call allocates beyond what was there; None on a CPU, where torch does not count."""
    if device.type != "cuda":
        return None
    torch.cuda.synchronize(device)
    before = torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    function()
    torch.cuda.synchronize(device)
    return (torch.cuda.max_memory_allocated(device) - before) / 2**20
