"""The compile gate, in a process of its own: here the interpreter has replaced the compiler."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from vtp_kernels import compile_gate

RECORD = Path(__file__).parents[1] / "RESOURCES.md"


def gate(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    command = [sys.executable, "-m", "vtp_kernels.compile_gate", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)


def test_a_part_of_the_kernels_compiles_for_hopper_as_recorded():
    """Everything that a bfloat16 model with 64-wide heads launches for short sequences."""
    chosen = r"d64.*segments.*bf16.*64x64|block visits|keep ids.*196|pixel loss channel.*video.*bf16|gather.*video"
    done = gate("--chips", "sm_90", "--only", chosen, "--check", str(RECORD))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "8 compiled, 0 faults" in done.stdout


@pytest.mark.slow
def test_every_kernel_compiles_for_every_chip_as_recorded():
    done = gate("--check", str(RECORD))
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_record_has_every_compilation_and_no_spill():
    rows = compile_gate.rows_of(RECORD.read_text())
    recorded = {f"| {' | '.join(cells[:5])} |" for cells in rows}
    assert recorded == {compile_gate._name(job) for job in compile_gate.jobs()}
    assert {cells[6] for cells in rows} == {"0"}


def test_types_that_use_the_same_share_a_row():
    jobs = compile_gate.jobs(["sm_90"])
    one, other = next(jobs), next(jobs)
    bf16, fp16 = (one._replace(dtype=name) for name in ("bf16", "fp16"))
    used = compile_gate.Resources(9, 0, 1024, 2)
    text = compile_gate.table([(bf16, used), (other, used), (fp16, used)])
    assert [line.split(" | ")[2] for line in text.splitlines()[2:]] == ["bf16, fp16", other.dtype]
    assert [row[2] for row in compile_gate.rows_of(text)] == ["bf16", "fp16", other.dtype]
    assert compile_gate.rows_of(text)[1][3:] == [bf16.label, "sm_90", "9", "0", "1.0", "2"]
    different = compile_gate.table([(bf16, used), (fp16, used._replace(registers=10))])
    assert [line.split(" | ")[2] for line in different.splitlines()[2:]] == ["bf16", "fp16"]


@pytest.mark.parametrize(
    "used, complaint",
    [
        (compile_gate.Resources(255, 8, 0, 4), "spills 8 bytes"),
        (compile_gate.Resources(100, 0, 300_000, 4), "shared memory"),
        (compile_gate.Resources(100, 0, 0, 0), "no wgmma"),
    ],
)
def test_faults_are_named(used, complaint):
    job = next(compile_gate.jobs(["sm_90"], lambda job: job.wants_wgmma))
    (fault,) = compile_gate.faults(job, used)
    assert complaint in fault
    assert compile_gate.faults(job, compile_gate.Resources(255, 0, 200_000, 1)) == []


def test_the_interpreter_is_refused():
    with pytest.raises(SystemExit):
        compile_gate.main([])
