"""Does SimVTP pre-training help? On generated clips: pre-train, fine-tune from it and from scratch, three seeds.

    python benchmarks/simvtp_pretraining_helps.py [--seeds 0 1 2] [--size small] [--steps 400] [--finetune-steps 200]

Clips are decoded once (vtp data cache). Per seed, with the same data, batches and number of fine-tuning steps:

    pre-train    experiment=simvtp/tiny_pretrain                       losses at the start and at the end
    fine-tune    experiment=simvtp/tiny_finetune, towers from it       text-to-video R@1 on the test clips
    from scratch experiment=simvtp/tiny_finetune

The result is the difference of R@1 per seed, their mean, and its 95 % interval (Student's t over the seeds). Whatever
it is, it is written to benchmarks/results/simvtp_pretraining_helps.json. A run that is finished is not repeated.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path

import record
from pretrainings import interval, metric, run, vtp


def losses(folder: Path) -> dict[str, dict[str, float]]:
    """First and last logged value of each loss of a run."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    found: dict[str, dict[str, float]] = {}
    for line in lines:
        for name in ("mvm", "mlm", "vtc", "vtm"):
            value = line.get(name, line.get(f"loss/{name}", line.get("losses", {}).get(name)))
            if isinstance(value, (int, float)):
                found.setdefault(name, {"first": value})["last"] = value
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--size", default="small", help="of dataset=shapes")
    parser.add_argument("--steps", type=int, default=400, help="of pre-training")
    parser.add_argument("--finetune-steps", type=int, default=200)
    parser.add_argument("--threads", type=int, default=None, help="CPU threads per run")
    parser.add_argument("--work", type=Path, default=Path("outputs/simvtp_pretraining_helps"))
    parser.add_argument("--out", type=Path, default=record.RESULTS / "simvtp_pretraining_helps.json")
    options = parser.parse_args()
    started = time.monotonic()
    cache = options.work / "cache" / options.size
    frames = ("--kind", "raw", "--frames", "8", "--size", "64", "--audio", "none")  # what the tiny experiments read
    vtp("data", "cache", "shapes", f"size={options.size}", str(cache), *frames)
    rows = []
    for seed in options.seeds:
        work = options.work / f"{options.size}-{options.steps}-{options.finetune_steps}" / f"seed{seed}"
        pretrained = run(work / "pretrain", "simvtp/tiny_pretrain", seed, options.steps, options)
        start = work / "start"
        if not start.is_dir():
            vtp("import", "simvtp_dual", str(pretrained), str(start))
        tuned = run(
            work / "finetune", "simvtp/tiny_finetune", seed, options.finetune_steps, options, f"init_from={start}"
        )
        scratch = run(work / "scratch", "simvtp/tiny_finetune", seed, options.finetune_steps, options)
        rows.append(
            {
                "seed": seed,
                "losses": losses(pretrained),
                "zero_shot_t2v_r1": metric(pretrained, "zero_shot/t2v/r1"),
                "pretrained_t2v_r1": metric(tuned, "t2v/r1"),
                "scratch_t2v_r1": metric(scratch, "t2v/r1"),
            }
        )
        print(json.dumps(rows[-1]), flush=True)
    differences = [row["pretrained_t2v_r1"] - row["scratch_t2v_r1"] for row in rows]
    low, high = interval(differences)
    print(f"difference {statistics.mean(differences):+.2f} points of R@1, 95 % interval {low:+.2f} to {high:+.2f}")
    record.save(
        options.out,
        "text-to-video R@1 on dataset=shapes, fine-tuned from SimVTP pre-training minus from scratch",
        minutes=round((time.monotonic() - started) / 60, 1),
        settings={k: getattr(options, k) for k in ("size", "steps", "finetune_steps", "seeds")},
        rows=rows,
        difference={"per_seed": differences, "mean": statistics.mean(differences), "interval_95": [low, high]},
    )


if __name__ == "__main__":
    main()
