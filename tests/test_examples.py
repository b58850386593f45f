"""The four plugins of examples/: small, nothing wrong with them, and chosen by `vtp run`. Their own tests are beside
them; tests/outside/test_wheels.py installs and trains them."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from vtp.cli.main import main
from vtp.cli.plugins_contracts import as_installed
from vtp.cli.run import compose
from vtp.run.check import check

EXAMPLES = Path(__file__).parents[1] / "examples"
NAMES = {"objective": "sigmoid", "dataset": "clipfolder", "fusion": "perceiver", "callback": "losslog"}
USES = {
    "objective": ["task=msrvtt_retrieval", "dataset=shapes", "objective=[sigmoid]", "task.objective=sigmoid"],
    "dataset": ["task=retrieval", "dataset=clipfolder", "dataset.root=DIR"],
    "fusion": ["task=msrvtt_qa", "dataset=shapes", "encoder/fusion=perceiver"],
    "callback": ["task=msrvtt_qa", "dataset=shapes", "callbacks=[losslog]"],
}


def files(name: str) -> list[Path]:
    found = [file for file in (EXAMPLES / name).rglob("*") if file.is_file()]
    return [file for file in found if not any(part.startswith((".", "__pycache__")) for part in file.parts)]


@pytest.fixture(autouse=True)
def forgotten():
    before = set(sys.modules)
    yield
    for module in set(sys.modules) - before:
        if module.partition(".")[0] in {f"vtp_{name}" for name in NAMES.values()}:
            del sys.modules[module]


@pytest.mark.parametrize("folder", NAMES)
def test_an_example_is_small_and_in_order(folder: str, capsys: pytest.CaptureFixture[str]):
    assert sum(bool(line.strip()) for file in files(folder) for line in file.read_text().splitlines()) <= 120
    assert main(["plugins", "check", "--quick", str(EXAMPLES / folder)]) == 0, capsys.readouterr()


@pytest.mark.parametrize("folder", [pytest.param(n, marks=() if n == "objective" else pytest.mark.slow) for n in NAMES])
def test_an_example_is_chosen_by_the_command_of_its_page(folder: str, tmp_path: Path):
    assert f"vtp run {' '.join(USES[folder])}" in (EXAMPLES / "README.md").read_text()
    (tmp_path / "index.jsonl").write_text("")
    with as_installed(EXAMPLES / folder) as names:
        assert names == [NAMES[folder]]
        config = compose([word.replace("DIR", str(tmp_path)) for word in USES[folder]])
        check(config, tmp_path)
        assert NAMES[folder] in str(config)
