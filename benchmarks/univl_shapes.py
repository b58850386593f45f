"""What model=univl learns on generated clips, and how long it takes: the three commands of docs/univl.md.

    python benchmarks/univl_shapes.py [--tasks retrieval qa captioning] [--size small] [--steps N]

Each task is one `vtp run task=msrvtt_TASK model=univl dataset=shapes`, seed 0, one after the other, in a folder of
its own under --work; a run that is finished is not repeated. Of captions, the share of test clips whose shape and
whose two colors are named right: the first shape, and all colors in their order, against the caption that names
everything.
"""

from __future__ import annotations

import argparse
import json
import re
import resource
import time
from pathlib import Path
from typing import Any

import record
from pretrainings import vtp

from vtp_datasets.shapes.world import COLORS, SHAPES


def named(sentence: str, words: tuple[str, ...]) -> list[str]:
    return [word for word in re.findall(r"\w+", sentence) if word in words]


def shares(predictions: Path) -> dict[str, float]:
    """In percent of the clips."""
    rows = [json.loads(line) for line in predictions.read_text(encoding="utf-8").splitlines()]
    right = {"shape": 0, "colors": 0, "both": 0}
    for row in rows:
        said, whole = row["prediction"], max(row["references"], key=len)
        shape = named(said, SHAPES)[:1] == named(whole, SHAPES)[:1]
        colors = named(said, COLORS) == named(whole, COLORS)
        for name, is_right in (("shape", shape), ("colors", colors), ("both", shape and colors)):
            right[name] += is_right
    return {name: 100 * count / len(rows) for name, count in right.items()}


def measure(task: str, options: argparse.Namespace) -> dict[str, Any]:
    folder = options.work / f"{options.size}-{options.steps or 'recipe'}" / task
    timed = folder / "time.json"
    if not timed.is_file():
        fewer = [] if options.steps is None else [f"train.steps={options.steps}", "train.eval_every=0"]
        words = [f"task=msrvtt_{task}", "model=univl", "dataset=shapes", f"dataset.size={options.size}"]
        clock, used = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN)
        vtp("run", *words, f"run_dir={folder}", *fewer)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        processor = after.ru_utime + after.ru_stime - used.ru_utime - used.ru_stime
        timed.write_text(json.dumps({"seconds": time.monotonic() - clock, "processor_seconds": processor}))
    report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    row = {"task": task, **json.loads(timed.read_text()), "metrics": report["metrics"]}
    return row | ({"named": shares(folder / "predictions.jsonl")} if task == "captioning" else {})


def main() -> None:
    tasks = ("retrieval", "qa", "captioning")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", nargs="+", choices=tasks, default=tasks)
    parser.add_argument("--size", default="small", help="of dataset=shapes")
    parser.add_argument("--steps", type=int, default=None, help="fewer than the recipe has")
    parser.add_argument("--work", type=Path, default=Path("outputs/univl_shapes"))
    parser.add_argument("--out", type=Path, default=record.RESULTS / "univl_shapes.json")
    options = parser.parse_args()
    rows = [measure(task, options) for task in options.tasks]
    for row in rows:
        print(json.dumps(row))
    record.save(options.out, "model=univl on dataset=shapes: test results and time", rows=rows)


if __name__ == "__main__":
    main()
