"""Time the kernels beside everything that they replace, in one process:

    python benchmarks/run.py --suite attention,tube,step --out benchmarks/results/NAME.json

Ceilings of the machine first, then per case: correctness, interleaved rounds, the noise between two copies of ours,
ratios. On a CPU the fallbacks are timed against what they replace, and the file says "not measured" for the GPU.
``--device cpu --tiny`` runs every provider at toy size; with TRITON_INTERPRET=1 in the environment that includes the
kernels themselves.
"""

from __future__ import annotations

import argparse
import datetime
import importlib
import importlib.util
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import record
import torch
from harness import Clock, measure, quantiles

SUITES = ("attention", "tube", "step")
# What a machine without a GPU has to show: suite, part of the case's name, provider, phase, least ratio
ACCEPTANCE = (
    ("tube", "embed B4 16 frames, 90% hidden", "embed all, then select", "forward", 5.0),
    ("tube", "loss B4 16 frames, 90% hidden", "VideoMAE, eager", "both", 2.0),
    ("attention", "tri-modal B8 L397", "sdpa, dense mask", "forward", 1.5),
    ("attention", "tri-modal B8 L397", "sdpa, dense mask", "both", 1.5),
)


def versions(device: torch.device) -> dict[str, Any]:
    """What ran where."""
    triton = importlib.import_module("triton").__version__ if importlib.util.find_spec("triton") else None
    found = record.versions() | {"triton": triton, "threads": torch.get_num_threads()}
    if device.type == "cuda":
        return found | {"gpu": torch.cuda.get_device_name(device), "cuda": torch.version.cuda, "clocks": _clocks()}
    return found | {"gpu": "not measured"}


def _clocks() -> str | None:
    return record.output(
        "nvidia-smi",
        "--query-gpu=driver_version,clocks.sm,clocks.mem,temperature.gpu,power.draw",
        "--format=csv,noheader",
    )


def ceilings(device: torch.device, clock: Clock, tiny: bool) -> dict[str, float]:
    """Best case of this machine in this run: matrix product, copy, and a launch that does next to nothing."""
    cuda = device.type == "cuda"
    n, dtype = (8192, torch.bfloat16) if cuda else (64 if tiny else 1024, torch.float32)
    a, b = (torch.randn(n, n, device=device, dtype=dtype) for _ in range(2))
    size = 4_300_000_000 if cuda else 1_000_000 if tiny else 128_000_000
    source = torch.empty(size, dtype=torch.uint8, device=device).fill_(1)
    target, one = torch.empty_like(source), torch.ones(1, device=device)

    def median(function: Callable[[], Any]) -> float:
        function()
        return quantiles(clock.sample(function, 7))["median_ms"]

    return {
        f"matmul_{n}_tflops": 2 * n**3 / median(lambda: a @ b) / 1e9,
        "copy_gb_per_s": 2 * size / median(lambda: target.copy_(source)) / 1e6,
        "small_call_us": median(lambda: one.add_(0)) * 1e3,
    }


def acceptance(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The promised ratios of a CPU, met or not; only for what was measured."""
    found = []
    for suite, case, provider, phase, least in ACCEPTANCE:
        for row in rows:
            key = (row["suite"], row["case"], row["provider"], row.get("phase"))
            if key == (suite, case, provider, phase):
                ratio = row["ours_is_faster_by"]
                check = {"case": case, "dtype": row["dtype"], "against": provider, "phase": phase}
                found.append(check | {"least": least, "ratio": ratio, "met": ratio >= least})
    return found


def markdown(result: dict[str, Any]) -> str:
    """The rows as tables, one per case."""
    lines = [
        f"# {result['command']}",
        "",
        f"{result['date']}. {json.dumps(result['versions'])}",
        "",
        f"Ceilings: {json.dumps(result['ceilings'])}",
        "",
    ]
    keys: tuple[str, ...] = ("provider", "phase", "median_ms", "p20_ms", "p80_ms", "setup_ms")
    keys += ("useful_tflops", "gb_per_s", "ours_is_faster_by", "outside_noise")
    cases = dict.fromkeys((row["suite"], row["case"], row["dtype"]) for row in result["rows"])
    for case in cases:
        lines += [f"## {', '.join(case)}", "", f"| {' | '.join(keys)} |", "|---" * len(keys) + "|"]
        for row in result["rows"]:
            if (row["suite"], row["case"], row["dtype"]) == case:
                cells = (
                    [row.get(key, "") for key in keys]
                    if row["status"] == "ok"
                    else [row["provider"], f"{row['status']}: {row['reason']}"]
                )
                lines.append(f"| {' | '.join(map(str, cells))} |")
        lines.append("")
    for check in result["acceptance"]:
        verdict = "met" if check["met"] else "NOT met"
        lines.append(
            f"- {check['case']}, {check['dtype']}, {check['phase']}: {check['ratio']} times as fast as "
            f"{check['against']}, wanted {check['least']}: {verdict}"
        )
    return "\n".join(lines) + "\n"


def main(arguments: list[str] | None = None) -> int:
    """Command line; 1 if one of ours gave wrong results."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--suite", default=",".join(SUITES), help="comma-separated; default all")
    parser.add_argument("--out", type=Path, help="write the result as JSON here, and as Markdown beside it")
    parser.add_argument("--budget", type=float, default=480, help="seconds for the timed rounds of all suites together")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--tiny", action="store_true", help="toy sizes, to test this program")
    options = parser.parse_args(arguments)
    unknown = set(options.suite.split(",")) - set(SUITES)
    if unknown:
        parser.error(f"unknown suite {', '.join(sorted(unknown))}; there are {', '.join(SUITES)}")
    device = torch.device(options.device)
    clock = Clock(device)
    result: dict[str, Any] = {
        "command": " ".join(["python benchmarks/run.py", *(sys.argv[1:] if arguments is None else arguments)]),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "versions": versions(device),
        "ceilings": {name: round(value, 3) for name, value in ceilings(device, clock, options.tiny).items()},
        "rows": [],
    }
    names = options.suite.split(",")
    per_suite = options.budget / len(names)
    for name in names:
        # cases of the full GPU suite; fewer cases use the time they need
        count = {"attention": 10, "tube": 9, "step": 1}[name]
        for case in importlib.import_module(f"suites.{name}").cases(device, options.tiny):
            rows = measure(case, clock, per_suite / count)
            result["rows"] += rows
            for row in rows:
                print(json.dumps(row), flush=True)
    if device.type == "cuda":
        result["versions"]["clocks_after"] = _clocks()
    result["acceptance"] = [] if device.type == "cuda" else acceptance(result["rows"])
    if options.out:
        record.write(options.out, result)
        options.out.with_suffix(".md").write_text(markdown(result))
    wrong = [row for row in result["rows"] if row["status"] == "wrong" and row["provider"].startswith("ours")]
    print("\n".join([f"{len(result['rows'])} rows", *(f"WRONG {row['case']}: {row['reason']}" for row in wrong)]))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
