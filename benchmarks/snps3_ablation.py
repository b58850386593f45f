"""What do SNP-S3's objectives bring over MLM and VTM alone? On generated clips, whose captions have function words.

    python benchmarks/snps3_ablation.py [--seeds 0 1 2] [--size small] [--steps 300] [--finetune-steps 100]

Per seed, with the same data, batches and number of steps, four pre-trainings of UniVL from scratch, with VTC and VTM:

    mlm     experiment=snps3/tiny_mlm        any words are masked
    mssm    experiment=snps3/tiny_mssm       significant words first
    lvwm    experiment=snps3/tiny_lvwm       any words are masked, three significant ones matched with the clips
    both    experiment=snps3/tiny_pretrain   SNP-S3

Each is measured by zero-shot text-to-video retrieval on the test clips, and by the accuracy of question answering after
fine-tuning from it (experiment=snps3/tiny_qa). Significant words are those of the training captions that are no
function words. Clips are decoded once (vtp data cache); two runs at a time, one thread each. The result is the
difference to ``mlm`` per seed, its mean, and its 95 % interval (Student's t over the seeds), written to
benchmarks/results/snps3_ablation.json whatever it is. A run that is finished is not repeated.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import record
from pretrainings import interval, metric, run, vtp

from vtp_datasets.shapes import Shapes
from vtp_encoders.tokenizers import build_tokenizer

ARMS = {"mlm": "tiny_mlm", "mssm": "tiny_mssm", "lvwm": "tiny_lvwm", "both": "tiny_pretrain"}
MEASURED = {
    "zero_shot_t2v_r1": "text-to-video R@1 without fine-tuning",
    "zero_shot_t2v_mean_recall": "mean of R@1, R@5 and R@10",
    "qa_accuracy": "accuracy of question answering, fine-tuned",
}


def tokenizer(options: argparse.Namespace) -> Path:
    """A file with that of the words of all captions and questions of the training clips."""
    file = options.work / f"tokenizer-{options.size}.json"
    data = Shapes(size=options.size)
    texts = [text for kind in ("caption", "qa") for sample in data.samples(kind, "train") for text in sample.texts]
    build_tokenizer(texts).save(str(file))
    return file


def one(arm: str, seed: int, options: argparse.Namespace) -> dict[str, Any]:
    """One pre-training, and what is measured of it."""
    folder = options.work / f"{options.size}-{options.steps}-{options.finetune_steps}" / f"{arm}-seed{seed}"
    start = time.monotonic()
    words = f"encoder.text.tokenizer={options.work / f'tokenizer-{options.size}.json'}"
    pretrained = run(folder / "pretrain", f"snps3/{ARMS[arm]}", seed, options.steps, options, words)
    begin = (f"init_from={pretrained}", "encoder/audio=none")  # captions tell of the sound, but nobody heard it
    tuned = run(folder / "qa", "snps3/tiny_qa", seed, options.finetune_steps, options, words, *begin)
    recalls = [metric(pretrained, f"zero_shot/t2v/r{k}") for k in (1, 5, 10)]
    found = {
        "arm": arm,
        "seed": seed,
        "zero_shot_t2v_r1": recalls[0],
        "zero_shot_t2v_mean_recall": statistics.mean(recalls),
        "qa_accuracy": metric(tuned, "accuracy"),
        "minutes": round((time.monotonic() - start) / 60, 1),
    }
    print(json.dumps(found), flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS))
    parser.add_argument("--size", default="small", help="of dataset=shapes")
    parser.add_argument("--steps", type=int, default=300, help="of pre-training")
    parser.add_argument("--finetune-steps", type=int, default=100)
    parser.add_argument("--parallel", type=int, default=2, help="runs at a time")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads per run")
    parser.add_argument("--work", type=Path, default=Path("outputs/snps3_ablation"))
    parser.add_argument("--out", type=Path, default=record.RESULTS / "snps3_ablation.json")
    options = parser.parse_args()
    started = time.monotonic()
    cache = options.work / "cache" / options.size
    frames = ("--kind", "raw", "--frames", "6", "--size", "64", "--audio", "none")  # what the tiny experiments read
    vtp("data", "cache", "shapes", f"size={options.size}", str(cache), *frames)
    tokenizer(options)
    with ThreadPoolExecutor(options.parallel) as pool:
        jobs = [pool.submit(one, arm, seed, options) for seed in options.seeds for arm in options.arms]
        rows = [job.result() for job in jobs]
    by = {(row["arm"], row["seed"]): row for row in rows}
    differences: dict[str, Any] = {}
    for arm in (arm for arm in options.arms if arm != "mlm" and "mlm" in options.arms):
        for name, told in MEASURED.items():
            found = [by[arm, seed][name] - by["mlm", seed][name] for seed in options.seeds]
            low, high = interval(found)
            mean = statistics.mean(found)
            differences[f"{arm}/{name}"] = {"per_seed": found, "mean": mean, "interval_95": [low, high]}
            print(f"{arm} - mlm: {mean:+.2f} points of {told}, 95 % interval {low:+.2f} to {high:+.2f}")
    means = {arm: {n: statistics.mean(by[arm, s][n] for s in options.seeds) for n in MEASURED} for arm in options.arms}
    record.save(
        options.out,
        "UniVL pre-trained on dataset=shapes with MLM, MSSM, MLM + LVWM, MSSM + LVWM, each beside VTC and VTM",
        minutes=round((time.monotonic() - started) / 60, 1),
        settings={k: getattr(options, k) for k in ("size", "steps", "finetune_steps", "seeds", "parallel", "threads")},
        rows=rows,
        means=means,
        differences=differences,
    )


if __name__ == "__main__":
    main()
