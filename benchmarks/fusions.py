"""What does sound bring, and which fusion brings most? Questions on generated clips, three seeds.

    python benchmarks/fusions.py [--seeds 0 1 2] [--size small] [--steps 400] [--fusions crossformer concat ...]

Per seed, experiment=crossformer/tiny_qa with each fusion encoder, at one width and depth, and with ``crossformer``
once more without sound (``silent``: encoder/audio=none, the same questions). Accuracy on the questions about sounds and
on the others, parameters of the fusion encoder, minutes, and the peak of memory of a training process go to
benchmarks/results/fusions.json, and the accuracies into fusions.png beside it. Clips are decoded once (vtp data cache);
two runs at a time, one thread each. A run that is finished is not repeated.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from math import prod
from pathlib import Path
from typing import Any

import record
from pretrainings import vtp

FUSIONS = ("crossformer", "concat", "pairwise", "bottleneck", "gate")
SIZES = ("width=96", "depth=2", "heads=4", "mlp_ratio=2")  # of model=base
CODE = """import json, resource, sys
from vtp.cli.main import main
code = main(sys.argv[2:])
json.dump(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, open(sys.argv[1], "w"))
sys.exit(code)"""


def one(arm: str, seed: int, options: argparse.Namespace) -> dict[str, Any]:
    """One training and what its report says."""
    folder = options.work / f"{options.size}-{options.steps}" / f"{arm}-seed{seed}"
    fusion = "crossformer" if arm == "silent" else arm
    settings = [f"seed={seed}", f"train.steps={options.steps}", f"dataset.size={options.size}", f"run_dir={folder}"]
    settings += [f"encoder/fusion={fusion}", *(f"encoder.fusion.{size}" for size in SIZES)]
    settings += [f"threads={options.threads}", f"data.cache={options.work / 'cache' / options.size}", "resume=auto"]
    settings += ["encoder/audio=none", "task.subsets=null"] if arm == "silent" else []
    told = folder.with_suffix(".json")
    if not (folder / "report.json").is_file():
        folder.parent.mkdir(parents=True, exist_ok=True)
        start = time.monotonic()
        command = [sys.executable, "-c", CODE, f"{told}.mib", "run", "experiment=crossformer/tiny_qa", *settings]
        subprocess.run(command, check=True)
        spent = {"minutes": round((time.monotonic() - start) / 60, 1), "peak_mib": json.loads(_read(f"{told}.mib"))}
        told.write_text(json.dumps(spent))
    report = json.loads(_read(folder / "report.json"))
    metrics, counts = report["metrics"], _questions(folder)
    sound = metrics["accuracy/question_type=sound"]
    others = [(metrics[f"accuracy/question_type={kind}"], n) for kind, n in counts.items() if kind != "sound"]
    visual = sum(accuracy * n for accuracy, n in others) / sum(n for _, n in others)
    found = {"arm": arm, "seed": seed, "sound": sound, "visual": visual, "all": metrics["accuracy"]}
    found |= {"fusion_parameters": _parameters(folder), **json.loads(_read(told))}
    print(json.dumps(found), flush=True)
    return found


def _read(file: str | Path) -> str:
    return Path(file).read_text(encoding="utf-8")


def _questions(folder: Path) -> dict[str, int]:
    """Number of test questions by type."""
    counts: dict[str, int] = {}
    for line in _read(folder / "predictions.jsonl").splitlines():
        kind = json.loads(line)["question_type"]
        counts[kind] = counts.get(kind, 0) + 1
    return counts


def _parameters(folder: Path) -> int:
    from safetensors import safe_open

    (file, *_) = sorted((folder / "checkpoints").glob("*/model.safetensors"))
    with safe_open(file, "pt") as tensors:
        names = [name for name in tensors.keys() if name.startswith("encoders.fusion.")]  # noqa: SIM118 (no dict)
        return sum(prod(tensors.get_slice(name).get_shape()) for name in names)


def draw(file: Path, arms: list[str], means: dict[str, dict[str, float]]) -> None:
    """Two bars per model."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(8, 3.5), layout="constrained")
    for shift, name in ((-0.2, "sound"), (0.2, "visual")):
        places = [i + shift for i in range(len(arms))]
        axes.bar(places, [means[arm][name] for arm in arms], 0.38, label=f"questions: {name}")
    axes.set_xticks(range(len(arms)), arms)
    axes.set_ylabel("accuracy in %")
    axes.set_ylim(0, 100)
    figure.legend(loc="outside upper center", ncols=2, frameon=False)
    figure.savefig(file, dpi=150)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--fusions", nargs="+", choices=FUSIONS, default=list(FUSIONS))
    parser.add_argument("--size", default="small", help="of dataset=shapes")
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--parallel", type=int, default=2, help="runs at a time")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads per run")
    parser.add_argument("--work", type=Path, default=Path("outputs/fusions"))
    parser.add_argument("--out", type=Path, default=record.RESULTS / "fusions.json")
    options = parser.parse_args()
    started = time.monotonic()
    cache = options.work / "cache" / options.size
    frames = ("--kind", "raw", "--frames", "6", "--size", "64")  # what the tiny encoders read
    vtp("data", "cache", "shapes", f"size={options.size}", str(cache), *frames)
    arms = [*options.fusions, "silent"]
    with ThreadPoolExecutor(options.parallel) as pool:
        jobs = [pool.submit(one, arm, seed, options) for seed in options.seeds for arm in arms]
        rows = [job.result() for job in jobs]
    names = ("sound", "visual", "all", "minutes", "peak_mib", "fusion_parameters")
    means = {arm: {n: statistics.mean(row[n] for row in rows if row["arm"] == arm) for n in names} for arm in arms}
    for arm, mean in means.items():
        print(f"{arm:12} " + "  ".join(f"{name} {mean[name]:,.1f}" for name in names))
    record.save(
        options.out,
        "experiment=crossformer/tiny_qa on dataset=shapes: fusion encoders, and the crossformer without sound (silent)",
        minutes=round((time.monotonic() - started) / 60, 1),
        settings={k: getattr(options, k) for k in ("size", "steps", "seeds", "parallel", "threads")},
        rows=rows,
        means=means,
    )
    draw(options.out.with_suffix(".png"), arms, means)


if __name__ == "__main__":
    main()
