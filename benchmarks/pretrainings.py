"""Runs of `vtp run` that a benchmark compares over seeds: what is finished is not repeated."""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path

T_95 = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 6: 2.447, 7: 2.365, 8: 2.306, 9: 2.262}


def vtp(*arguments: str) -> None:
    subprocess.run([sys.executable, "-m", "vtp", *arguments], check=True)


def run(folder: Path, experiment: str, seed: int, steps: int, options: argparse.Namespace, *more: str) -> Path:
    """One `vtp run` into ``folder``, unless it finished there before.

    Args:
        options: with ``size`` of dataset=shapes, ``work``, in whose ``cache`` its clips lie, and ``threads``.
    """
    if not (folder / "report.json").is_file():
        settings = [f"seed={seed}", f"train.steps={steps}", f"dataset.size={options.size}", f"run_dir={folder}"]
        settings += [
            f"data.cache={options.work / 'cache' / options.size}",
            "resume=auto" if folder.exists() else "resume=null",
        ]
        threads = [f"threads={options.threads}"] if options.threads else []
        vtp("run", f"experiment={experiment}", *settings, *threads, *more)
    return folder


def metric(folder: Path, name: str) -> float:
    """A number of the report of a run, in percent."""
    report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    return float(report["metrics"][name])


def interval(differences: list[float]) -> tuple[float, float]:
    """95 % interval of the mean, Student's t."""
    mean = statistics.mean(differences)
    if len(differences) < 2:
        return mean, mean
    half = T_95[len(differences) - 1] * statistics.stdev(differences) / len(differences) ** 0.5
    return mean - half, mean + half
