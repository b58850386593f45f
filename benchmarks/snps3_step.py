"""What SNP-S3's objectives add to a pre-training step of UniVL: forward and backward in the engine, in turns.

    python benchmarks/snps3_step.py [--batch 8] [--frames 4] [--size 224] [--rounds 7] [--threads 2] [--device cpu]

    mlm          objective=[univl/vtc,univl/vtm,univl/mlm], BERT-base and PVTv2-B0, as in benchmarks/univl.py
    mlm again    the same in a second process: the noise
    mssm         and snps3/mssm with tokens=null: univl/mlm predicts words that a table calls significant
    mssm + lvwm  and snps3/lvwm, three words per text behind the text encoder

Each has a process of its own that keeps freed memory, as ``vtp run`` does; they take turns in random order, and the
ratio to ``mlm`` is the median over rounds. A third of the words of the texts are significant, about as many as in
captions. Neither clipping nor the optimizer is timed.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import record
import torch
from step_pair import Served, end_of_peak, start_of_peak
from torch import nn
from univl import WORDS, UniVLStep

from vtp.machine import keep_memory
from vtp.model.build import BuildContext, build_model, lookup_in
from vtp.plugins import host
from vtp_encoders.tokenizers import vocabulary_hash
from vtp_snps3.words import Word, WordTable, save_table

OBJECTIVES = {
    "mlm": [],
    "mlm again": [],
    "mssm": ["snps3/mssm"],
    "mssm + lvwm": ["snps3/mssm", "snps3/lvwm"],
}
SIGNIFICANT = 10_000  # of the 30522 ids


class SNPS3Step(UniVLStep):
    """The engine's step with the objectives of one of them; there is no plain implementation."""

    def __init__(self, options: argparse.Namespace, which: str) -> None:
        self.objectives = ",".join([UniVLStep.objectives, *OBJECTIVES[which]])
        super().__init__(options, ("vtp",))

    def build(self, spec: dict[str, Any], folder: Path) -> nn.Module:
        lookup = lookup_in(host().registry)
        text = build_model({"encoders": {"text": spec["encoders"]["text"]}, "objectives": {}}, lookup, BuildContext())
        hashed = vocabulary_hash(text.specs()["text"])
        ids = torch.randperm(WORDS - 6, generator=torch.Generator().manual_seed(0))[:SIGNIFICANT] + 6
        words = tuple(Word((i,), f"w{i}", f"w{i}", SIGNIFICANT - n, rank=n) for n, i in enumerate(sorted(ids.tolist())))
        save_table(WordTable("", hashed, "", "none", "en", {}, words), folder / "words.json")
        for name in ("mssm", "lvwm"):
            if name in spec["objectives"]:
                spec["objectives"][name] |= {"words": str(folder / "words.json"), "top_k": SIGNIFICANT}
        if "mssm" in spec["objectives"]:
            spec["objectives"]["mssm"]["tokens"] = None
        return build_model(spec, lookup, BuildContext())


def serve(options: argparse.Namespace) -> None:
    """The process of one of them: per line of stdin a step, answered by its seconds; then its memory."""
    if options.device == "cpu":
        keep_memory(1 << 30, 2 << 30)
    pair = SNPS3Step(options, options.serve)
    before = start_of_peak(options.device)
    for _ in range(2):  # the first step looks at what the parts give
        pair.forward_backward("vtp")
    print("ready", flush=True)
    for _ in sys.stdin:
        start, processor = time.perf_counter(), time.process_time()
        pair.forward_backward("vtp")
        print(time.perf_counter() - start, time.process_time() - processor, flush=True)
    print(json.dumps({"before": before, "peak": max(before, end_of_peak(options.device))}))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--frames", type=int, default=4)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--depth", type=int, default=12, help="layers of BERT")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--serve", choices=OBJECTIVES, help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, help="JSON file; default benchmarks/results/snps3_step_<device>.json")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.serve:
        serve(options)
        return 0
    chosen = {
        name: getattr(options, name) for name in ("batch", "frames", "size", "depth", "rounds", "threads", "device")
    }
    served = {name: Served(name, chosen) for name in OBJECTIVES}
    order = random.Random(0)
    for i in range(options.rounds):
        for one in order.sample(list(served.values()), len(served)):
            one.step()
        print(f"round {i + 1}: " + ", ".join(f"{n} {one.times[-1]:.3f} s" for n, one in served.items()), flush=True)
    ratios = {name: one.speedup_over(served["mlm"]) for name, one in served.items() if name != "mlm"}
    added = {
        name: {kind: round(1 / value - 1, 4) for kind, value in found.items()} for name, found in ratios.items()
    }  # speedup_over is mlm's time over its own
    for name, found in added.items():
        told = ", ".join(f"{100 * value:+.1f} % ({kind.replace('_', ' ')})" for kind, value in found.items())
        print(f"{name}: {told}")
    record.save(
        options.out or record.RESULTS / f"snps3_step_{options.device.replace(':', '')}.json",
        "time that SNP-S3's objectives add to a step of UniVL (VTC, VTM, MLM), forward and backward in the engine",
        settings=chosen,
        gpu=None if options.device == "cpu" else torch.cuda.get_device_name(),
        seconds={
            n: {"median": statistics.median(o.times), "min": min(o.times), "all": o.times} for n, o in served.items()
        },
        processor_seconds={name: one.processor for name, one in served.items()},
        added_over_mlm=added,
        memory_mib={name: one.memory() for name, one in served.items()},
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
