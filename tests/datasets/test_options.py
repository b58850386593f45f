"""Option files say what the classes default to, and every data set that is offered has one."""

from __future__ import annotations

import inspect
from contextlib import suppress
from pathlib import Path

import pytest
import yaml

import vtp_datasets
from vtp.errors import ConfigError
from vtp.plugins import host

FILES = sorted((Path(vtp_datasets.__file__).parent / "conf" / "dataset").glob("*.yaml"))


def dataset_node(file):
    """The part about the data set; a file of package ``_global_`` may also bring a training recipe."""
    content = yaml.safe_load(file.read_text())
    return content["dataset"] if file.read_text().startswith("# @package _global_\n") else content


@pytest.mark.parametrize("file", FILES, ids=lambda f: f.stem)
def test_keys_are_parameters_and_values_are_their_defaults(file):
    options = dataset_node(file)
    assert options.pop("name") == file.stem
    component = host().registry.get("dataset", file.stem).load()
    parameters = inspect.signature(component).parameters
    assert list(options) == list(parameters)
    assert {name: p.default for name, p in parameters.items()} == options
    assert component.name == file.stem
    with suppress(ConfigError):  # of those that cannot do without a file, which says so
        assert component(**options).name == file.stem


@pytest.mark.parametrize("file", FILES, ids=lambda f: f.stem)
def test_every_key_is_explained(file):
    lines = [line.strip() for line in file.read_text().splitlines()]
    for key in set(dataset_node(file)) - {"name"}:
        assert any(line.startswith(f"{key}: ") and "  # " in line for line in lines), key


@pytest.mark.parametrize("file", FILES, ids=lambda f: f.stem)
def test_every_data_set_is_described(file):
    text = (Path(__file__).resolve().parents[2] / "docs" / "datasets.md").read_text(encoding="utf-8")
    assert f"| `{file.stem}` |" in text


def test_every_data_set_has_an_option_file():
    offered = {e.name for e in host().registry.entries() if e.kind == "dataset" and e.target.startswith("vtp_datasets")}
    assert offered == {file.stem for file in FILES}
