"""Compile every kernel and configuration for every chip, without a GPU: ``python -m vtp_kernels.compile_gate``.

The interpreter accepts programs that the compiler rejects or that spill; this finds them. For each row of ``configs``
it demands: no local memory (spills), shared memory within the chip's limit, and on sm_90 wgmma where a 16-bit product
has 64 rows. ``--write RESOURCES.md`` writes the table, ``--check RESOURCES.md`` compares with it. Must run without
TRITON_INTERPRET: the flag is read when kernels are decorated.
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

from vtp_kernels import attention, layout, masking, pixel_loss, tubelets
from vtp_kernels.configs import ACCELERATORS, Config, attention_rows, pixel_warps
from vtp_kernels.dispatch import INTERPRET, tl, triton

__all__ = ["Job", "Resources", "attention_jobs", "compile_job", "faults", "jobs", "main", "table"]

SHARED_LIMIT = {"sm_80": 163 * 1024, "sm_90": 227 * 1024, "gfx942": 64 * 1024}
REGISTER_LIMIT = {"sm_80": 255, "sm_90": 255, "gfx942": 512}
VIDEO = tubelets.Geometry((8, 14, 14), (2, 16, 16), 3)
SPECTROGRAM = tubelets.Geometry((1, 64, 8), (1, 16, 16), 1)
COLUMNS = ("kernel", "case", "type", "configuration", "chip", "registers", "stack", "shared KB", "wgmma")
HEADER = f"| {' | '.join(COLUMNS)} |\n{'|---' * len(COLUMNS)}|"


class Job(NamedTuple):
    """One compilation: ``values`` gives each argument a Triton type such as ``*bf16`` or ``i32``, and each constant
    its value."""

    kernel: str
    case: str
    dtype: str
    label: str
    function: Any
    values: dict[str, Any]
    warps: int
    accelerator: str
    stages: int = 2
    wants_wgmma: bool = False


class Resources(NamedTuple):
    """What the compiler used: registers per thread, bytes of local memory per thread, bytes of shared memory per
    block, wgmma instructions."""

    registers: int
    stack: int
    shared: int
    wgmma: int


class _Constant(NamedTuple):
    value: Any


def _attention_values(
    kernel: str, dtype: str, sets: bool, config: Any, head_dim: int, precision: str
) -> dict[str, Any]:
    element = {"bf16": tl.bfloat16, "fp16": tl.float16, "fp32": tl.float32}[dtype]
    values: dict[str, Any] = dict.fromkeys(("q", "k", "v", "o", "do", "dq", "dk", "dv"), f"*{dtype}")
    values |= dict.fromkeys(("lse", "delta"), "*fp32") | dict.fromkeys(("scale", "scale_log2"), "fp32")
    values |= dict.fromkeys(("cu_q", "cu_k"), "*i32") | {name: _Constant(None) for name in ("len_q", "len_k")}
    values |= {name: "*i32" if sets else _Constant(None) for name in ("see", "bit", "visits")}
    constants = {"ROWS": config.rows, "COLS": config.cols, "D": head_dim, "BLOCK_D": head_dim}
    return values | _constants(constants | {"DT": element, "PRECISION": precision})


def _constants(values: dict[str, Any]) -> dict[str, Any]:
    return {name: _Constant(value) for name, value in values.items()}


def attention_jobs(accelerator: str, rows: Iterable[tuple[str, int, int, Config]]) -> Iterator[Job]:
    """Compilations of attention configurations, with and without segments, in every type of their size."""
    functions = {"forward": attention._forward_kernel, "dkdv": attention._dkdv_kernel, "dq": attention._dq_kernel}
    for kernel, bits, head_dim, config in rows:
        for dtype in ("bf16", "fp16") if bits == 16 else ("fp32",):
            for sets in (False, True):
                precision = "ieee" if bits == 16 or accelerator == "gfx942" else "tf32x3"
                values = _attention_values(kernel, dtype, sets, config, head_dim, precision)
                case = f"d{head_dim} {'packed, segments' if sets else 'packed'}"
                label = f"{config.rows}x{config.cols} w{config.warps} s{config.stages}"
                wgmma = bits == 16 and config.rows >= 64 and accelerator == "sm_90"
                what = (f"attention {kernel}", case, dtype, label, functions[kernel], values)
                yield Job(*what, config.warps, accelerator, config.stages, wgmma)


def _other_jobs(accelerator: str) -> Iterator[Job]:
    for queries, keys in ((64, 64), (128, 64), (64, 128)):
        constants: dict[str, Any] = {"QUERIES": queries, "KEYS": keys, "len_q": None, "len_k": None}
        constants |= {"LOG_QUERIES": queries.bit_length() - 1, "LOG_KEYS": keys.bit_length() - 1}
        values = dict.fromkeys(("see", "bit", "cu_q", "cu_k", "summary"), "*i32") | _constants(constants)
        label = f"{queries}x{keys} w1"
        yield Job("block summary", "segments", "i32", label, layout._summary_kernel, values, 1, accelerator)
    for keys_are_rows in (False, True):
        constants = {"CHUNK": layout.VISIT_CHUNK, "KEYS_ARE_ROWS": keys_are_rows}
        values = {"summary": "*i32", "out": "*i32"} | _constants(constants)
        case, label = "rows of keys" if keys_are_rows else "rows of queries", f"{layout.VISIT_CHUNK} w1"
        yield Job("block visits", case, "i32", label, layout._visits_kernel, values, 1, accelerator)
    for head_dim in (64, 128):
        values = {"o": "*bf16", "do": "*bf16", "delta": "*fp32", "cu_q": "*i32"}
        values |= _constants({"len_q": None, "ROWS": 64, "D": head_dim, "BLOCK_D": head_dim})
        case = f"d{head_dim} packed"
        yield Job("attention delta", case, "bf16", "64 w4", attention._delta_kernel, values, 4, accelerator)
    for space in (196, 1568):
        block = 1 << (space - 1).bit_length()
        values = {"step": "*i64", "keep": "*i32", "drop": "*i32", "seed": "i64"} | _constants({"BLOCK": block})
        warps = masking._keep_warps(block)
        case, label = f"{space} positions", f"{block} w{warps}"
        yield Job("keep ids", case, "i32", label, masking._keep_kernel, values, warps, accelerator)
    for case, source, shape in (("video 2x16x16x3", "u8", VIDEO), ("spectrogram 16x16", "fp32", SPECTROGRAM)):
        yield from _pixel_jobs(accelerator, case, source, shape)
    values = {"x": "*bf16", "factor": "*fp32"} | _constants({"BLOCK": pixel_loss.SCALE_BLOCK})
    yield Job("scale", "", "bf16", f"{pixel_loss.SCALE_BLOCK} w8", pixel_loss._scale_kernel, values, 8, accelerator)


def _pixel_jobs(accelerator: str, case: str, source: str, shape: tubelets.Geometry) -> Iterator[Job]:
    shared = {"video": f"*{source}", **{f"{name}{i}": "fp32" for name in "fs" for i in range(tubelets.MAX_CHANNELS)}}
    kind = "tube" if source == "u8" else "token"
    block = 1 << (shape.channels * shape.pixels - 1).bit_length()
    warps = pixel_warps(block)
    constants = {"BLOCK": block, **tubelets.kernel_constants(shape, kind)}
    values = shared | {"keep": "*i32", "out": "*bf16"} | _constants(constants)
    yield Job("gather", case, "bf16", f"{block} w{warps}", tubelets._gather_kernel, values, warps, accelerator)
    block_p, block_c = 1 << (shape.pixels - 1).bit_length(), 1 << (shape.channels - 1).bit_length()
    warps = pixel_warps(block_p * block_c)
    for norm, name in enumerate(pixel_loss.NORMS):
        for dtype in ("bf16", "fp32"):
            values = shared | {"pred": f"*{dtype}", "grad": f"*{dtype}", "drop": "*i32", "partial": "*fp32"}
            values |= {"grad_factor": "fp32", "eps": "fp32"}
            blocks = {"BLOCK_P": block_p, "BLOCK_C": block_c, "NORM": norm, "SAME_SCALE": True, "GRAD": True}
            values |= _constants(blocks | tubelets.kernel_constants(shape, kind))
            label = f"{block_p}x{block_c} w{warps}"
            yield Job(f"pixel loss {name}", case, dtype, label, pixel_loss._loss_kernel, values, warps, accelerator)


def jobs(accelerators: Iterable[str] = ACCELERATORS, keep: Callable[[Job], bool] = lambda job: True) -> Iterator[Job]:
    """Every compilation that must succeed."""
    for accelerator in accelerators:
        for job in (*attention_jobs(accelerator, attention_rows(accelerator)), *_other_jobs(accelerator)):
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
    target = (
        GPUTarget("hip", "gfx942", 64)
        if job.accelerator == "gfx942"
        else GPUTarget("cuda", int(job.accelerator[3:]), 32)
    )
    source = ASTSource(job.function, signature, constants, attributes)
    compiled = triton.compile(source, target=target, options={"num_warps": job.warps, "num_stages": job.stages})
    if job.accelerator == "gfx942":
        text = compiled.asm["amdgcn"]
        number = {
            key: int(re.search(rf"\.{key}:\s+(\d+)", text)[1])
            for key in ("vgpr_count", "vgpr_spill_count", "private_segment_fixed_size")
        }
        return Resources(
            number["vgpr_count"],
            max(number["vgpr_spill_count"], number["private_segment_fixed_size"]),
            compiled.metadata.shared,
            0,
        )
    registers, stack = _cubin_usage(compiled.asm["cubin"])
    return Resources(registers, stack, compiled.metadata.shared, compiled.asm["ptx"].count("wgmma.mma_async"))


def _cubin_usage(cubin: bytes) -> tuple[int, int]:
    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        text = subprocess.run(
            [tool, "--dump-resource-usage", file.name], capture_output=True, text=True, check=True
        ).stdout
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
    """Markdown rows in the order of ``jobs``; types that use the same share a row."""
    types: dict[tuple[str, str], list[str]] = {}
    for job, u in measured:
        used = f"{u.registers} | {u.stack} | {u.shared / 1024:.1f} | {u.wgmma or '-'}"
        key = (f"{job.kernel} | {job.case}", f"{job.label} | {job.accelerator} | {used}")
        types.setdefault(key, []).append(job.dtype)
    rows = [f"| {what} | {', '.join(names)} | {how} |" for (what, how), names in types.items()]
    return "\n".join([HEADER, *rows]) + "\n"


def rows_of(text: str) -> list[list[str]]:
    """The cells of every row of a table, a row per type."""
    rows = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| ")]
    found = [[*row[:2], name, *row[3:]] for row in rows if len(row) == len(COLUMNS) for name in row[2].split(", ")]
    return [row for row in found if row != list(COLUMNS)]


def _document(rows: str) -> str:
    limits = ", ".join(f"{chip} {limit // 1024} KB" for chip, limit in SHARED_LIMIT.items())
    return f"""# What every kernel uses, per chip

Triton {triton.__version__}. Written by `python -m vtp_kernels.compile_gate --write kernels/RESOURCES.md`; do not edit.
Registers and stack per thread (stack is spilled registers: must be 0), shared memory per block, number of wgmma
instructions. Limits of shared memory: {limits}.

{rows}"""


def main(arguments: list[str] | None = None) -> int:
    """Command line; 0 if every compilation passes and, with ``--check``, the table is as recorded."""
    parser = argparse.ArgumentParser(prog="python -m vtp_kernels.compile_gate", description=__doc__.split("\n\n")[0])
    parser.add_argument("--chips", default=",".join(ACCELERATORS), help="comma-separated; default all")
    parser.add_argument("--only", default="", help="regular expression that the row must contain, such as 'd64.*bf16'")
    parser.add_argument("--write", type=Path, help="write the table to this file")
    parser.add_argument("--check", type=Path, help="compare with the table in this file")
    options = parser.parse_args(arguments)
    if triton is None or INTERPRET:
        parser.error("needs Triton, and TRITON_INTERPRET unset: the interpreter replaces the compiler.")
    measured, wrong = [], []
    for job in jobs(options.chips.split(","), lambda job: bool(re.search(options.only, _name(job)))):
        try:
            used = compile_job(job)
        except Exception as error:  # whatever the compiler raises is the finding
            wrong.append(
                f"{_name(job)} does not compile: {str(error).splitlines()[-1] if str(error) else type(error).__name__}"
            )
            continue
        measured.append((job, used))
        wrong += [f"{_name(job)} {fault}" for fault in faults(job, used)]
        print(table([(job, used)]).splitlines()[-1], flush=True)
    if options.write:
        options.write.write_text(_document(table(measured)))
    if options.check:
        recorded = rows_of(options.check.read_text())
        found = rows_of(table(measured))
        wrong += [f"not as recorded in {options.check}: {' | '.join(row)}" for row in found if row not in recorded]
    print("\n".join([f"{len(measured)} compiled, {len(wrong)} faults", *wrong]))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
