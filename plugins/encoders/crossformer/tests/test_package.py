"""The package itself."""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest
import yaml

import vtp_crossformer
from vtp.cli.run import compose
from vtp.plugins import discover, host
from vtp.testing import check_plugin

CONF = Path(vtp_crossformer.__file__).parent / "conf"


def test_vtp_finds_the_package_and_its_version() -> None:
    found = [plugin for plugin in discover() if plugin.package == "vtp_crossformer"]
    assert len(found) == 1
    assert vtp_crossformer.__version__


def test_the_package_keeps_its_promises() -> None:
    check_plugin("vtp_crossformer.plugin")


@pytest.mark.parametrize("file", sorted((CONF / "encoder" / "fusion").glob("*.yaml")), ids=lambda file: file.stem)
def test_option_files_name_every_option(file: Path) -> None:
    given = yaml.safe_load(file.read_text())
    cls = host().registry.get("encoder/fusion", given.pop("name")).load()
    parameters = {n: p.default for n, p in inspect.signature(cls).parameters.items() if n != "context"}
    assert given == parameters


@pytest.mark.parametrize("slot", ["video", "audio", "text"])
def test_towers_have_their_options(slot: str) -> None:
    given = yaml.safe_load((CONF / "encoder" / slot / "tower.yaml").read_text())
    cls = host().registry.get(f"encoder/{slot}", given.pop("name")).load()
    parameters = {n: p.default for n, p in inspect.signature(cls).parameters.items() if n != "context"}
    assert given == parameters | {"encoder": {"name": "tiny"}}


def test_a_fusion_takes_its_place_in_the_model() -> None:
    """The sizes of the model are for any of them."""
    for task, name in (("msrvtt_qa", "bottleneck"), ("msrvtt_retrieval", "gate")):
        fusion = compose([f"task={task}", "model=crossformer", "dataset=shapes", f"encoder/fusion={name}"])["encoder"]
        assert (fusion["fusion"]["name"], fusion["fusion"]["preset"]) == (name, "tiny")


@pytest.mark.parametrize(
    "file", sorted((CONF / "objective" / "crossformer").glob("*.yaml")), ids=lambda file: file.stem
)
def test_objectives_have_their_options(file: Path) -> None:
    given = compose(["task=pretrain", "model=crossformer", "dataset=shapes", f"objective=[crossformer/{file.stem}]"])
    node = given["objectives"][file.stem]
    cls = host().registry.get("objective", node.pop("name")).load()
    assert node.pop("weight") == 1.0
    parameters = {n: p.default for n, p in inspect.signature(cls).parameters.items() if n != "context"}
    assert node.keys() == parameters.keys()
    plain = {name: _plain(value) for name, value in parameters.items()}
    differs = {name for name, value in node.items() if value != plain[name]}
    assert differs <= {"sides"}


def _plain(value: object) -> object:
    return [_plain(part) for part in value] if isinstance(value, tuple) else value
