"""Find attention configurations: ``python kernels/tools/search_configs.py [--chips sm_90] [--time]``.

Without a GPU it walks the candidates of each kernel in order of preference and takes the first that passes the compile
gate (no spills, shared memory within the limit, wgmma on sm_90) with and without segments. With ``--time`` it times all
that pass on the GPU at hand, at one short and one long shape, and takes the fastest. Either way it prints rows for the
table in ``vtp_kernels/configs.py``.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Iterator

import torch

from vtp_kernels import AttnLayout, attention, configs, masked_attention
from vtp_kernels import compile_gate as gate
from vtp_kernels.configs import Config

# Wide blocks reuse what they read; two stages hide latency. Preference is what FlashAttention-2 and the Triton
# tutorial choose, then ever smaller.
SHORT_16 = [
    (64, 64, 4, 2),
    (64, 64, 8, 2),
    (64, 32, 4, 2),
    (64, 32, 8, 2),
    (64, 32, 4, 1),
    (64, 32, 8, 1),
    (64, 16, 8, 1),
    (32, 32, 4, 1),
    (32, 16, 4, 1),
]
LONG_16 = [(128, 64, 8, 3), (128, 64, 8, 2), (128, 32, 8, 2), *SHORT_16]
SHORT_32 = [
    (32, 32, 4, 2),
    (32, 32, 8, 2),
    (32, 32, 4, 1),
    (32, 16, 4, 2),
    (32, 16, 4, 1),
    (16, 32, 4, 1),
    (16, 16, 4, 2),
    (16, 16, 4, 1),
    (16, 16, 8, 1),
]
LONG_32 = [(64, 32, 4, 2), (64, 32, 8, 2), (64, 16, 4, 1), *SHORT_32]
CANDIDATES = {16: (SHORT_16, LONG_16), 32: (SHORT_32, LONG_32)}
SHAPES = ((64, 192), (16, 2112))  # (batch, length) of the SimVTP encoder and of the tri-modal model


def passing(chip: str, key: tuple[str, int, int], candidates: list[tuple[int, int, int, int]]) -> Iterator[Config]:
    """Candidates that compile without a fault, best first."""
    for numbers in candidates:
        config = Config(*numbers)
        jobs = list(gate.attention_jobs(chip, [(*key, config)]))
        try:
            if not any(gate.faults(job, gate.compile_job(job)) for job in jobs):
                yield config
        except Exception as error:  # a candidate that the compiler rejects is no candidate
            print(
                f"# {chip} {key} {config}: {str(error).splitlines()[-1][:100] if str(error) else type(error).__name__}",
                flush=True,
            )


def milliseconds(kernel: str, config: Config, head_dim: int, batch: int, length: int, dtype: torch.dtype) -> float:
    """Median time of a forward or backward pass with ``config`` for ``kernel``."""
    from triton.testing import do_bench

    def choose(name: str, *rest: object) -> Config:
        return config if name == kernel else original(name, *rest)

    original, attention.attention_config = configs.attention_config, choose
    try:
        lengths = torch.randint(length // 2, length + 1, (batch,))
        layout = AttnLayout.from_lengths(lengths, packed=True, device="cuda")
        q, k, v = (
            torch.randn(int(lengths.sum()), 12, head_dim, device="cuda", dtype=dtype, requires_grad=True)
            for _ in range(3)
        )
        if kernel == "forward":
            return statistics.median(
                do_bench(lambda: masked_attention(q, k, v, layout, backend="triton"), return_mode="all")
            )
        o = masked_attention(q, k, v, layout, backend="triton")
        g = torch.randn_like(o)
        return statistics.median(
            do_bench(lambda: torch.autograd.grad(o, (q, k, v), g, retain_graph=True), return_mode="all")
        )
    finally:
        attention.attention_config = original


def main() -> None:
    """Print one row per kernel, element size and head dimension."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--chips", default=",".join(configs.ACCELERATORS))
    parser.add_argument("--kernels", default="forward,dkdv,dq")
    parser.add_argument("--time", action="store_true", help="time on the GPU at hand; names its chip in --chips")
    options = parser.parse_args()
    for chip in options.chips.split(","):
        for kernel in options.kernels.split(","):
            for bits in (16, 32):
                for head_dim in configs.HEAD_DIMS[bits]:
                    chosen = []
                    for candidates, (batch, length) in zip(CANDIDATES[bits], SHAPES, strict=True):
                        found = passing(chip, (kernel, bits, head_dim), candidates)
                        if options.time:
                            dtype = torch.bfloat16 if bits == 16 else torch.float32
                            timed = [(milliseconds(kernel, c, head_dim, batch, length, dtype), c) for c in found]
                            print("#", chip, kernel, bits, head_dim, length, timed, flush=True)
                            chosen.append(min(timed)[1] if timed else None)
                        else:
                            chosen.append(next(found, None))
                    row = ", ".join(f"Config{tuple(c)}" if c else "None" for c in chosen)
                    print(f'    ("{kernel}", {bits}, {head_dim}): ({row}),  # {chip}', flush=True)


if __name__ == "__main__":
    main()
