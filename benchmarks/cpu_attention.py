"""Attention on a CPU, forward and backward: what vtp calls against PyTorch's SDPA, taken in turns within one run.

    python benchmarks/cpu_attention.py [--rounds 30] [--threads 2]

SDPA's kernel cuts fewer than 192 queries into slices of 32, whose matrix products are too small: for 96 to 191 of them
``vtp.model.attention`` writes the softmax out. Where keys are many it copies them into rows of their own. Elsewhere it
calls SDPA as it is, and the ratio is 1 but for noise. Queries, keys and values are slices of one projection (heads of
width 64), as in a transformer. Prints SDPA's time over vtp's, the median over rounds, and writes
``benchmarks/results/cpu_attention.json``.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import record
import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from vtp.model.attention import attention

SIZES = [(8, 12, 64), (8, 12, 96), (8, 12, 128), (8, 12, 160), (8, 12, 191), (8, 12, 197), (2, 12, 160), (2, 6, 1568)]


def step(attend: Callable[[Tensor, Tensor, Tensor], Tensor], qkv: Tensor, grad: Tensor, heads: int) -> float:
    """Seconds of one forward and backward."""
    qkv.grad = None
    start = time.perf_counter()
    q, k, v = (piece.unflatten(-1, (heads, 64)).transpose(1, 2) for piece in qkv.chunk(3, dim=-1))
    attend(q, k, v).transpose(1, 2).flatten(2).backward(grad)
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, default=record.RESULTS / "cpu_attention.json")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    ways = {"sdpa": scaled_dot_product_attention, "vtp": attention}
    rows = []
    for batch, heads, length in SIZES:
        torch.manual_seed(0)
        qkv = torch.randn(batch, length, 3 * heads * 64, requires_grad=True)
        grad = torch.randn(batch, length, heads * 64)
        for attend in ways.values():
            step(attend, qkv, grad, heads)
        times: dict[str, list[float]] = {name: [] for name in ways}
        for i in range(options.rounds):
            for name in ways if i % 2 else reversed(ways):
                times[name].append(step(ways[name], qkv, grad, heads))
        ratio = statistics.median(a / b for a, b in zip(times["sdpa"], times["vtp"], strict=True))
        ms = {name: statistics.median(found) * 1000 for name, found in times.items()}
        rows.append({"batch": batch, "heads": heads, "tokens": length, "milliseconds": ms, "speedup": ratio})
        print(
            f"{batch} x {heads} heads x {length:4d} tokens: SDPA {ms['sdpa']:7.2f} ms, vtp {ms['vtp']:7.2f} ms, "
            f"{ratio:.2f} times as fast",
            flush=True,
        )
    what = "attention on a CPU, forward and backward, float32, heads of width 64, no mask"
    record.save(options.out, what, threads=options.threads, rows=rows)


if __name__ == "__main__":
    main()
