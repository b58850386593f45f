"""A good plugin package passes, and for every check there is a faulty one that it catches."""

from __future__ import annotations

import os
import re

import pytest

from vtp.plugins import host
from vtp.testing import ContractError, check_plugin

MODULE = """
from vtp import hookimpl

@hookimpl
def vtp_register_objectives(register):
    register("my_loss", "vtp_mine.objective:MyLoss")
"""
OBJECTIVE = """
from vtp.model.objective import Objective

class MyLoss(Objective):
    def __init__(self, *, target: float = 1.0):
        super().__init__()
"""
OPTIONS = "# @package objectives.my_loss\n# pulls towards a target\nname: my_loss\nweight: 1.0\ntarget: 1.0\n"
FILE = "conf/objective/my_loss.yaml"
GOOD = {"plugin.py": MODULE, "objective.py": OBJECTIVE, FILE: OPTIONS}


@pytest.fixture
def install(site, monkeypatch):
    """``install(changes)``: the package ``vtp_mine``, with other files."""

    def write(changes: dict[str, str]) -> None:
        package, info = site / "vtp_mine", site / "vtp_mine-1.0.dist-info"
        for name, text in ({"__init__.py": ""} | GOOD | changes).items():
            (package / name).parent.mkdir(parents=True, exist_ok=True)
            (package / name).write_text(text)
        info.mkdir()
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: vtp-mine\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text("[vtp.plugins]\nmine = vtp_mine.plugin\n")
        monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(site), os.environ.get("PYTHONPATH", "")]))
        host.cache_clear()

    yield write
    host.cache_clear()


def test_a_good_plugin_passes(install):
    install({})
    check_plugin("vtp_mine.plugin")


@pytest.mark.parametrize(
    "check, changes, words",
    [
        ("loads", {"plugin.py": "1 / 0"}, "it is broken: ZeroDivisionError"),
        ("loads", {"plugin.py": ""}, "it must offer something"),
        ("light", {"plugin.py": "import torch\n" + MODULE}, "it imports .*torch"),
        ("targets", {"objective.py": OBJECTIVE + "    needs_fusoin = True\n"}, "`needs_fusoin`.*`needs_fusion`"),
        ("targets", {"plugin.py": MODULE.replace(":MyLoss", ":YourLoss")}, "cannot be imported"),
        ("options", {FILE: OPTIONS + "targt: 2.0\n"}, "has no option 'targt'. Did you mean 'target'"),
        ("options", {FILE: OPTIONS.replace("target: 1.0", "target: far")}, "target: expected float, got 'far'"),
        ("options", {FILE: OPTIONS.replace("@package objectives.my_loss", "what it is")}, "first line must be"),
        ("options", {FILE: OPTIONS.replace("# pulls towards a target\n", "")}, "first comment"),
        ("options", {FILE: OPTIONS.replace("name: my_loss", "name: vtc").replace("target: 1", "width: 8 # ")},
         "none chooses objective=my_loss"),
        ("renamed", {"conf/renamed.yaml": "objective/my_loss: objective=yours\n"}, "objective/my_loss is still there"),
        ("renamed", {"conf/renamed.yaml": "- a list\n"}, "must hold lines"),
    ],
)  # fmt: skip
def test_a_faulty_plugin_is_caught(install, check, changes, words):
    install(changes)
    with pytest.raises(ContractError) as error:
        check_plugin("vtp_mine.plugin")
    assert re.search(rf"^  (?:[\w, -]+, )?{check}(?:, [\w, -]+)?: .*{words}", str(error.value), re.M), str(error.value)


def test_a_plugin_that_is_not_installed_is_caught():
    with pytest.raises(ContractError, match="an entry point of the group vtp.plugins must name vtp_absent.plugin"):
        check_plugin("vtp_absent.plugin")


@pytest.mark.parametrize("name", ["vtp_encoders", "vtp_objectives", "vtp_datasets", "vtp_tasks"])
def test_built_in_plugins_pass(name):
    check_plugin(f"{name}.plugin")
