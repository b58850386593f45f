"""The benchmark program: its gate refuses wrong results, its clock is fair, and every provider runs at toy size."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

FOLDER = Path(__file__).parents[2] / "benchmarks"
pytestmark = pytest.mark.skipif(not (FOLDER / "run.py").exists(), reason="the wheel has no benchmarks")


@pytest.fixture(params=["harness"])
def module(request):
    spec = importlib.util.spec_from_file_location(f"vtp_benchmark_{request.param}", FOLDER / f"{request.param}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    yield spec.loader.exec_module(module) or module
    del sys.modules[spec.name]


@pytest.fixture
def harness(module):
    return module


RECORD = pytest.mark.parametrize("module", ["record"], indirect=True)


@RECORD
def test_a_result_file_has_a_line_per_measurement(module, tmp_path):
    result = {
        "what": "é",
        "rows": [{"ms": 1.5, "range": [1, 2]}, {"ms": None, "losses": {"a": 1}}],
        "none": [],
        "o": {},
    }
    module.write(tmp_path / "new" / "r.json", result)
    text = (tmp_path / "new" / "r.json").read_text()
    assert json.loads(text) == result
    assert text.splitlines() == [
        "{",
        ' "what": "\\u00e9",',
        ' "rows": [',
        '  {"ms": 1.5, "range": [1, 2]},',
        "  {",
        '   "ms": null,',
        '   "losses": {"a": 1}',
        "  }",
        " ],",
        ' "none": [],',
        ' "o": {}',
        "}",
    ]


@RECORD
@pytest.mark.parametrize("file", sorted((FOLDER / "results").glob("*.json")), ids=lambda file: file.stem)
def test_committed_results_are_written_like_that(module, file):
    assert module.as_lines(json.loads(file.read_text())) + "\n" == file.read_text()


@RECORD
def test_a_result_says_what_ran_where(module, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["/somewhere/benchmarks/some.py", "--rounds", "3"])
    module.save(tmp_path / "r.json", "words", seconds=[1.0])
    result = json.loads((tmp_path / "r.json").read_text())
    assert result["what"] == "words" and result["seconds"] == [1.0]
    assert result["command"] == "python benchmarks/some.py --rounds 3"
    assert result["versions"]["torch"] == torch.__version__ and result["versions"]["cpu"]


def case(harness, *values):
    """Providers that give these numbers where 1 is right."""
    providers = [
        harness.Provider(f"p{i}", {"forward": lambda: None}, lambda value=value: {"o": torch.tensor([value])})
        for i, value in enumerate(values)
    ]
    return harness.Case("s", "c", torch.float32, providers, {"o": torch.ones(1)})


def test_a_wrong_provider_gets_no_time(harness):
    rows = harness.measure(case(harness, 1.0, 1.1, float("nan")), harness.Clock(torch.device("cpu")), 0.0)
    found = {row["provider"]: row for row in rows}
    assert [found[p]["status"] for p in ("p0", "p1", "p2")] == ["ok", "wrong", "wrong"]
    assert "median_ms" not in found["p1"] and "off by 1.0e-01" in found["p1"]["reason"]
    assert found["p0"]["samples"] >= 5


def test_no_ratio_without_ours(harness):
    rows = harness.measure(case(harness, 2.0, 1.0), harness.Clock(torch.device("cpu")), 0.0)
    assert [row["status"] for row in rows] == ["wrong"]


def test_quantiles(harness):
    assert harness.quantiles([5.0, 1.0, 2.0, 3.0, 4.0]) == {"median_ms": 3.0, "p20_ms": 2.0, "p80_ms": 5.0}


def test_setup_counts_once_for_all_layers(harness):
    row = harness._row(case(harness, 1.0), "p", "forward", [10.0], 11.0, 0.05, 12.0)
    assert row["ours_is_faster_by"] == 1.0 and row["outside_noise"] is False


@pytest.mark.slow
def test_tiny_run_of_every_suite(tmp_path):
    out = tmp_path / "tiny.json"
    command = [sys.executable, FOLDER / "run.py", "--device", "cpu", "--tiny", "--budget", "0.1", "--out", out]
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"} | {
        "OMP_NUM_THREADS": "1"
    }
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    result = json.loads(out.read_text())
    assert {row["suite"] for row in result["rows"]} == {"attention", "tube", "step"}
    assert not [row for row in result["rows"] if row["status"] == "wrong"]
    assert result["versions"]["gpu"] == "not measured"
    assert {"needs a GPU", "takes no mask"} <= {
        row["reason"] for row in result["rows"] if row["status"] == "not measured"
    }
    assert "ours, packed" in out.with_suffix(".md").read_text()
