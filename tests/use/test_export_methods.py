"""Which parts of the methods' models export to ONNX, as the table in docs/use.md says: each trained for one step on
generated clips, exported and compared through onnxruntime."""

from __future__ import annotations

import re
from importlib.util import find_spec
from pathlib import Path

import pytest

import vtp
from vtp.cli.main import main

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]
PAGE = (Path(__file__).parents[2] / "docs" / "use.md").read_text(encoding="utf-8")
ROWS = re.findall(r"^\| `experiment=([\w/ =]+)` \| `(\w+)` \| ([\w, ]+) \| (.*?) \|$", PAGE, re.M)
# One step of four clips; nothing is measured.
SHORT = ["train.steps=1", "train.global_batch=4", "train.eval_every=0", "train.tensorboard=false", "mode=train"]
SHORT += ["data.workers=0", "data.limit_train=8", "media.isolate=false", "threads=1", "device=cpu"]


def test_there_are_rows_of_every_method():
    assert {row[0].partition("/")[0] for row in ROWS} == {"alpro", "univl", "simvtp", "crossformer", "bind", "snps3"}


@pytest.mark.parametrize("experiment", dict.fromkeys(row[0] for row in ROWS))
def test_methods(experiment, tmp_path):
    for package in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(package, reason="export needs it")
    package = f"vtp_{experiment.partition('/')[0]}".replace("vtp_bind", "vtp_crossformer")
    if find_spec(package) is None:
        pytest.skip(f"{package} is not installed")
    from vtp.use.export import export, parts_of

    run = tmp_path / "run"
    assert main(["run", *f"experiment={experiment}".split(), *SHORT, f"run_dir={run}"]) == 0
    model = vtp.load(run, device="cpu", workers=0, kernels="torch")
    said = {(row[1], part): row[3] for row in ROWS if row[0] == experiment for part in row[2].split(", ")}
    assert {*said} == {(name, part) for name, parts in parts_of(model).items() for part in parts}
    for name in dict.fromkeys(name for name, _ in said):
        for one in export(model, tmp_path / name, objective=name):
            assert said[name, one.part].startswith("no" if one.error else "yes"), one
