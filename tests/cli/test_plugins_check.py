"""`vtp plugins check NAME|DIR` holds components against their contracts, `vtp plugins why NAME` explains a name."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from vtp.cli.main import main
from vtp.cli.new_plugin import generate
from vtp.plugins import host

HOOK = """
from vtp import hookimpl

@hookimpl
def vtp_register_objectives(register):
    register("mine", "{package}.parts:Mine")
"""
PARTS = """
from vtp.model.objective import Objective
from vtp.types import LossOutput

class Mine(Objective):
    needs = frozenset({"video"})

    def forward(self, ctx):
        return LossOutput(ctx.pooled("video").square().mean(), self.rows(ctx).sum())
"""
OPTIONS = "# @package objectives.mine\n# Mine.\nname: mine\nweight: 1.0\n"


@pytest.fixture
def fresh():
    host.cache_clear()
    yield
    host.cache_clear()


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """The folder of a package that nobody installed."""
    for path, text in generate("unseen", "objective").items():
        (tmp_path / "project" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "project" / path).write_text(text)
    return tmp_path / "project"


def test_a_folder_is_checked_without_being_installed(fresh, project, capsys):
    before, path = set(sys.modules), list(sys.path)
    assert main(["plugins", "check", str(project)]) == 0
    head, row, *_ = capsys.readouterr().out.splitlines()
    assert dict(zip(head.split(), row.replace(" ok", "").split(), strict=True)) == {
        "plugin": "unseen", "loads": "1", "components": "1", "options": "1", "names": "2", "contracts": "1"
    }  # fmt: skip
    assert sys.path == path and "unseen" not in {info.point.name for info in host().infos}
    for module in set(sys.modules) - before:
        if module.startswith("vtp_unseen"):
            del sys.modules[module]


def test_a_contract_that_is_not_kept_is_told_in_one_line(fresh, install, capsys):
    files = {"parts.py": PARTS, "conf/objective/mine.yaml": OPTIONS}
    install("wrong", HOOK.format(package="wrong"), files=files)
    assert main(["plugins", "check", "wrong", "--quick"]) == 0  # seen only when it runs
    assert main(["plugins", "check", "wrong"]) == 1
    out = capsys.readouterr().out
    assert "wrong: objective=mine (objective/mine.yaml): missing: a row without video must take no part" in out
    assert "1 plugin, nothing is wrong" in out and "WRONG" in out


READS_A_PARAMETER = """
import torch
from torch.nn.functional import normalize
from vtp.model.objective import ContrastiveObjective
from vtp.types import LossOutput

class Mine(ContrastiveObjective):
    needs = frozenset({"video"})

    def __init__(self):
        super().__init__()
        self.bias = torch.nn.Parameter(torch.zeros(()))

    def features(self, ctx):
        return {"video": normalize(ctx.pooled("video"), dim=1), "rows": self.rows(ctx)}

    def loss_from_features(self, features):
        errors = (features["video"].sum(dim=1) + self.bias).square()
        rows = features["rows"]
        return LossOutput(torch.where(rows, errors, 0.0).sum() / rows.sum().clamp(min=1), rows.sum())
"""


def test_what_the_first_step_of_a_run_would_refuse_is_no_note(fresh, install, capsys):
    install(
        "reads",
        HOOK.format(package="reads"),
        files={"parts.py": READS_A_PARAMETER, "conf/objective/mine.yaml": OPTIONS},
    )
    assert main(["plugins", "check", "reads"]) == 1
    assert "reads the parameter bias in loss_from_features" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("text", "said"),
    [("", "has no 'project'"), ("[project]\nname = 'x'\n", "names no plugin"), ("[", "cannot be read")],
)
def test_a_folder_without_a_plugin_is_refused(tmp_path, capsys, text, said):
    (tmp_path / "pyproject.toml").write_text(text)
    assert main(["plugins", "check", str(tmp_path)]) == 2
    told = capsys.readouterr().err
    assert said in told and told.count("\n") == 1


def test_a_name_of_two_plugins_is_explained(fresh, install, capsys):
    for name in ("one", "two"):
        files = {"parts.py": PARTS, "conf/objective/mine.yaml": OPTIONS}
        install(name, HOOK.format(package=name), files=files)
    assert main(["plugins", "why", "mine"]) == 0
    out = capsys.readouterr().out
    for name, other in (("one", "two"), ("two", "one")):
        assert out.count(f"objective 'mine': {name}.parts:Mine of plugin '{name}' ({name})\n") == 1
        assert f"offered by plugin '{other}' ({other}) too, so nobody can use it" in out
        assert f"VTP_BLOCK_PLUGINS={name} switches this one off" in out
    assert "two plugins bring this file" in out


def test_what_is_well_is_explained_as_well(fresh, capsys):
    assert main(["plugins", "why", "objective=vtc", "objectives"]) == 0
    out = capsys.readouterr().out
    assert "objective 'vtc': vtp_objectives.vtc:VTC of plugin 'objectives' (vtp-core)" in out
    assert "plugin 'objectives' of vtp-core" in out and "what to do" not in out


def test_a_blocked_and_an_ignored_one_are_explained(fresh, install, capsys, monkeypatch):
    install("stray", HOOK.format(package="stray"), files={"conf/objective/vtc.yaml": OPTIONS})
    install("off", HOOK.format(package="off"))
    monkeypatch.setenv("VTP_BLOCK_PLUGINS", "off")
    assert main(["plugins", "why", "objective=vtc", "off"]) == 0
    out = capsys.readouterr().out
    assert "conf/objective/vtc.yaml of plugin 'stray' (stray) has the name of a built-in one and is ignored" in out
    assert "plugin 'off' of off 1.0: blocked" in out and "unset VTP_BLOCK_PLUGINS" in out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["why", "vtcc"], "nothing here is called 'vtcc'. Did you mean 'vtc'"),
        (["why"], "say what to explain"),
        (["list", "vtc"], "vtp plugins why vtc explains one"),
        (["check", "objectivs"], "Did you mean 'objectives'?"),
    ],
)
def test_what_is_not_there_is_told(arguments, said, capsys):
    assert main(["plugins", *arguments]) == 2
    assert said in capsys.readouterr().err


def test_json_has_the_same_lines(fresh, project, capsys):
    (project / "src" / "vtp_unseen" / "conf" / "objective" / "unseen.yaml").write_text("name: unseen\n")
    assert main(["plugins", "check", "--json", str(project)]) == 1
    assert "the first line must be # @package objectives.unseen" in json.loads(capsys.readouterr().out)["unseen"][0]
    for module in [name for name in sys.modules if name.startswith("vtp_unseen")]:
        del sys.modules[module]
