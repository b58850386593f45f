"""Compile every kernel and configuration for every chip, without a GPU: ``python -m vtp_kernels.compile_gate``.

The interpreter accepts programs that the compiler rejects or that spill; this finds them. For each row of ``configs`` it demands: no local memory (spills),
shared memory within the chip's limit, and on sm_90 wgmma where a 16-bit product has 64 rows. ``--write RESOURCES.md`` writes the table,
``--check RESOURCES.md`` compares with it. Must run without TRITON_INTERPRET: the flag is read when kernels are decorated.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch

from vtp_kernels import attention, layout
from vtp_kernels.configs import ACCELERATORS, attention_rows
from vtp_kernels.dispatch import INTERPRET, tl, triton

__all__ = ["Job", "Resources", "compile_job", "faults", "jobs", "main", "table"]

SHARED_LIMIT = {"sm_80": 163 * 1024, "sm_90": 227 * 1024, "gfx942": 64 * 1024}
REGISTER_LIMIT = {"sm_80": 255, "sm_90": 255, "gfx942": 512}
TYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32, "u8": torch.uint8}
HEADER = "| kernel | case | type | configuration | chip | registers | stack | shared KB | wgmma |\n|---|---|---|---|---|---|---|---|---|"


class Job(NamedTuple):
    """One compilation: ``values`` gives each argument a Triton type such as ``*bf16`` or ``i32``, and each constant its value."""

    kernel: str
    case: str
    dtype: str
    label: str
    function: Any
    values: dict[str, Any]
    warps: int
    stages: int
    accelerator: str
    wants_wgmma: bool


class Resources(NamedTuple):
    """What the compiler used: registers per thread, bytes of local memory per thread, bytes of shared memory per block, wgmma instructions."""

    registers: int
    stack: int
    shared: int
    wgmma: int


class _Constant(NamedTuple):
    value: Any


def _attention_values(kernel: str, dtype: str, sets: bool, config: Any, head_dim: int, precision: str) -> dict[str, Any]:
    element = {"bf16": tl.bfloat16, "fp16": tl.float16, "fp32": tl.float32}[dtype]
    values: dict[str, Any] = {name: f"*{dtype}" for name in ("q", "k", "v", "o", "do", "dq", "dk", "dv")}
    values |= {name: "*fp32" for name in ("lse", "delta")} | {name: "fp32" for name in ("scale", "scale_log2")}
    values |= {name: "*i32" for name in ("cu_q", "cu_k")} | {name: _Constant(None) for name in ("len_q", "len_k")}
    values |= {name: "*i32" if sets else _Constant(None) for name in ("see", "bit", "visits")}
    constants = {"ROWS": config.rows, "COLS": config.cols, "D": head_dim, "BLOCK_D": head_dim, "DT": element, "PRECISION": precision}
    return values | {name: _Constant(value) for name, value in constants.items()}


def _attention_jobs(accelerator: str) -> Iterator[Job]:
    functions = {"forward": attention._forward_kernel, "dkdv": attention._dkdv_kernel, "dq": attention._dq_kernel}
    for kernel, bits, head_dim, config in attention_rows(accelerator):
        for dtype in ("bf16", "fp16") if bits == 16 else ("fp32",):
            for sets in (False, True):
                precision = "ieee" if bits == 16 or accelerator == "gfx942" else "tf32x3"
                values = _attention_values(kernel, dtype, sets, config, head_dim, precision)
                case = f"d{head_dim} {'packed, segments' if sets else 'packed'}"
                label = f"{config.rows}x{config.cols} w{config.warps} s{config.stages}"
                wgmma = bits == 16 and config.rows >= 64 and accelerator == "sm_90"
                function = functions[kernel]
                yield Job(f"attention {kernel}", case, dtype, label, function, values, config.warps, config.stages, accelerator, wgmma)


def _other_jobs(accelerator: str) -> Iterator[Job]:
    for rows, cols in ((64, 64), (128, 64)):
        for keys in (False, True):
            constants = {"ROWS": rows, "COLS": cols, "LOG_ROWS": rows.bit_length() - 1, "LOG_COLS": cols.bit_length() - 1}
            constants |= {"CHUNK": layout.VISIT_CHUNK, "KEYS_ARE_ROWS": keys, "len_q": None, "len_k": None}
            values = {name: "*i32" for name in ("see", "bit", "cu_q", "cu_k", "out")} | {n: _Constant(v) for n, v in constants.items()}
            yield Job("block visits", "keys" if keys else "queries", "i32", f"{rows}x{cols} w8", layout._visits_kernel, values, 8, 2, accelerator, False)
    for head_dim in (64, 128):
        values = {"o": "*bf16", "do": "*bf16", "delta": "*fp32", "cu_q": "*i32", "len_q": _Constant(None)}
        values |= {"ROWS": _Constant(64), "D": _Constant(head_dim), "BLOCK_D": _Constant(head_dim)}
        yield Job("attention delta", f"d{head_dim} packed", "bf16", "64 w4", attention._delta_kernel, values, 4, 2, accelerator, False)


def jobs(accelerators: Iterable[str] = ACCELERATORS, keep: Callable[[Job], bool] = lambda job: True) -> Iterator[Job]:
    """Every compilation that must succeed."""
    for accelerator in accelerators:
        for job in (*_attention_jobs(accelerator), *_other_jobs(accelerator)):
            if keep(job):
                yield job


def compile_job(job: Job) -> Resources:
    """Compile one kernel to machine code and read its resources."""
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    signature, constants, attributes = {}, {}, {}
    for index, name in enumerate(job.function.arg_names):
        value = job.values.get(name, "i32")  # lengths and strides
        if isinstance(value, _Constant):
            signature[name], constants[name] = "constexpr", value.value
            continue
        signature[name] = value
        if value.startswith("*") or name.startswith("stride"):
            attributes[(index,)] = [["tt.divisibility", 16]]  # what a launch with torch's allocations finds
    target = GPUTarget("hip", "gfx942", 64) if job.accelerator == "gfx942" else GPUTarget("cuda", int(job.accelerator[3:]), 32)
    source = ASTSource(job.function, signature, constants, attributes)
    compiled = triton.compile(source, target=target, options={"num_warps": job.warps, "num_stages": job.stages})
    if job.accelerator == "gfx942":
        text = compiled.asm["amdgcn"]
        number = {key: int(re.search(rf"\.{key}:\s+(\d+)", text)[1]) for key in ("vgpr_count", "vgpr_spill_count", "private_segment_fixed_size")}
        return Resources(number["vgpr_count"], max(number["vgpr_spill_count"], number["private_segment_fixed_size"]), compiled.metadata.shared, 0)
    registers, stack = _cubin_usage(compiled.asm["cubin"])
    return Resources(registers, stack, compiled.metadata.shared, compiled.asm["ptx"].count("wgmma.mma_async"))


def _cubin_usage(cubin: bytes) -> tuple[int, int]:
    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        text = subprocess.run([tool, "--dump-resource-usage", file.name], capture_output=True, text=True, check=True).stdout
    return int(re.search(r"REG:(\d+)", text)[1]), int(re.search(r"STACK:(\d+)", text)[1])


def faults(job: Job, used: Resources) -> list[str]:
    """What is wrong with a compilation; empty if nothing."""
    found = []
    if used.stack:
        found.append(f"spills {used.stack} bytes per thread to local memory")
    if used.shared > SHARED_LIMIT[job.accelerator]:
        found.append(f"needs {used.shared} bytes of shared memory, the limit is {SHARED_LIMIT[job.accelerator]}")
    if job.wants_wgmma and not used.wgmma:
        found.append("has no wgmma although its products have 64 rows")
    return found


def _name(job: Job) -> str:
    return f"| {job.kernel} | {job.case} | {job.dtype} | {job.label} | {job.accelerator} |"


def table(measured: Iterable[tuple[Job, Resources]]) -> str:
    """Markdown rows in the order of ``jobs``."""
    rows = [f"{_name(job)} {u.registers} | {u.stack} | {u.shared / 1024:.1f} | {u.wgmma or '-'} |" for job, u in measured]
    return "\n".join([HEADER, *rows]) + "\n"


def _document(rows: str) -> str:
    return (
        "# What every kernel uses, per chip\n\n"
        f"Triton {triton.__version__}. Written by `python -m vtp_kernels.compile_gate --write kernels/RESOURCES.md`; do not edit.\n"
        "Registers and stack per thread (stack is spilled registers: must be 0), shared memory per block, number of wgmma instructions.\n"
        f"Limits of shared memory: {', '.join(f'{chip} {limit // 1024} KB' for chip, limit in SHARED_LIMIT.items())}.\n\n{rows}"
    )


def main(arguments: list[str] | None = None) -> int:
    """Command line; 0 if every compilation passes and, with ``--check``, the table is as recorded."""
    parser = argparse.ArgumentParser(prog="python -m vtp_kernels.compile_gate", description=__doc__.split("\n\n")[0])
    parser.add_argument("--chips", default=",".join(ACCELERATORS), help="comma-separated; default all")
    parser.add_argument("--only", default="", help="regular expression that the row must contain, such as 'd64.*bf16'")
    parser.add_argument("--write", type=Path, help="write the table to this file")
    parser.add_argument("--check", type=Path, help="compare with the table in this file")
    options = parser.parse_args(arguments)
    if triton is None or INTERPRET:
        parser.error("needs Triton, and TRITON_INTERPRET unset: the interpreter replaces the compiler when kernels are decorated.")
    measured, wrong = [], []
    for job in jobs(options.chips.split(","), lambda job: bool(re.search(options.only, _name(job)))):
        try:
            used = compile_job(job)
        except Exception as error:  # whatever the compiler raises is the finding
            wrong.append(f"{_name(job)} does not compile: {str(error).splitlines()[-1] if str(error) else type(error).__name__}")
            continue
        measured.append((job, used))
        wrong += [f"{_name(job)} {fault}" for fault in faults(job, used)]
        print(table([(job, used)]).splitlines()[-1], flush=True)
    if options.write:
        options.write.write_text(_document(table(measured)))
    if options.check:
        recorded = set(options.check.read_text().splitlines())
        wrong += [f"not as recorded in {options.check}: {row}" for row in table(measured).splitlines()[2:] if row not in recorded]
    print("\n".join([f"{len(measured)} compiled, {len(wrong)} faults", *wrong]))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
