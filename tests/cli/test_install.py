"""`vtp install` shows what pip will change, and keeps the builds of torch together."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from vtp.cli import install
from vtp.cli.main import main


@pytest.fixture
def pip(monkeypatch):
    """A pip that would install these; every call of it is noted."""
    calls: list[list[str]] = []
    plan: list[tuple[str, str]] = []

    def run(command, **given):
        assert command[:4] == [sys.executable, "-P", "-m", "pip"]
        calls.append(command[4:])
        found = [{"metadata": {"name": name, "version": version}} for name, version in plan]
        return subprocess.CompletedProcess(command, 0, json.dumps({"install": found}))

    monkeypatch.setattr(install.subprocess, "run", run)
    monkeypatch.setattr(install, "_installed", lambda name: {"torch": "2.11.0", "av": "15.0"}.get(name, ""))
    return calls, plan


def test_a_short_name_is_resolved_and_changes_are_told_first(pip, capsys):
    calls, plan = pip
    plan += [("vtp_plugin_spread", "0.1.0"), ("av", "16.0")]
    assert main(["install", "--upgrade", "spread"]) == 0
    assert capsys.readouterr().out == "av 15.0 -> 16.0\nvtp-plugin-spread 0.1.0 (new)\n"
    assert [call[:2] for call in calls] == [["install", "--dry-run"], ["install", "--upgrade"]]
    assert calls[1] == ["install", "--upgrade", "vtp-plugin-spread"]


def test_another_torch_is_refused_unless_one_insists(pip, capsys):
    calls, plan = pip
    plan += [("torch", "2.13.0")]
    assert main(["install", "other"]) == 2
    assert "this changes torch 2.11.0 -> 2.13.0" in capsys.readouterr().err and len(calls) == 1
    assert main(["install", "other", "--yes"]) == 0
    assert calls[-1] == ["install", "vtp-plugin-other"]


def test_a_torch_where_there_is_none_breaks_nothing(pip):
    calls, plan = pip
    plan += [("torchaudio", "2.11.0")]
    assert main(["install", "other"]) == 0 and len(calls) == 2


@pytest.mark.parametrize("planned", [[], [("other", "1.0")]])
def test_a_dry_run_and_nothing_to_do_install_nothing(pip, planned):
    calls, plan = pip
    plan += planned
    assert main(["install", "other", *(["--dry-run"] if planned else [])]) == 0
    assert len(calls) == 1


@pytest.mark.parametrize(
    ("given", "taken"),
    [
        ("spread", "vtp-plugin-spread"),  # of somebody else: the index may have anything under the bare name
        ("my_loss[fast]>=0.2", "vtp-plugin-my-loss[fast]>=0.2"),
        ("vtp-plugin-spread", "vtp-plugin-spread"),
        ("vtp_kernels", "vtp_kernels"),
        ("torch==2.11.0", "torch==2.11.0"),  # what a refusal advises
        ("./spread", "./spread"),
        ("spread-0.1.0-py3-none-any.whl", "spread-0.1.0-py3-none-any.whl"),
        ("git+https://example.org/spread", "git+https://example.org/spread"),
    ],
)
def test_a_bare_name_is_that_of_a_plugin(pip, given, taken):
    calls, plan = pip
    plan += [("any", "1.0")]
    assert main(["install", given]) == 0
    assert calls[-1] == ["install", taken]


def test_a_plugin_of_another_distribution_is_found_by_its_name(pip, site, install):
    calls, plan = pip
    plan += [("any", "1.0")]
    install("other", distribution="somebodys-other")
    assert main(["install", "--upgrade", "other"]) == 0
    assert calls[-1] == ["install", "--upgrade", "somebodys-other"]


def test_options_of_pip_keep_their_place_and_their_values(pip, capsys):
    calls, plan = pip
    plan += [("any", "1.0")]
    words = ["--no-index", "--find-links", "wheels", "spread", "--no-deps", "-e", "folder", "--pre"]
    assert main(["install", *words]) == 0
    assert calls[-1] == ["install", *words[:3], "vtp-plugin-spread", *words[4:]]
    assert main(["install", "--yes"]) == 2 and "expected the name" in capsys.readouterr().err


def test_what_is_no_plugin_and_what_is_not_there_are_told(pip, capsys):
    assert main(["install", "tasks"]) == main(["uninstall", "tasks"]) == 2
    assert capsys.readouterr().err.count("tasks is a part of vtp-core") == 2
    assert main(["uninstall", "nothing-of-that-name"]) == 2
    assert "nothing here is called 'nothing-of-that-name'" in capsys.readouterr().err


def test_what_pip_cannot_remove_is_removed(pip, site, install, capsys):
    calls, _ = pip
    package = install("torn_apart", "", files={"conf/objective/torn.yaml": "name: torn"})
    (package / "__pycache__").mkdir()
    (package / "__pycache__" / "plugin.pyc").write_text("")
    (site / "other").mkdir()
    (site / "other" / "kept.py").write_text("")
    (site.parent / "outside.txt").write_text("")
    info = site / "torn_apart-1.0.dist-info"
    (info / "METADATA").write_bytes(b"\xff")
    listed = ["torn_apart/__init__.py", "torn_apart/plugin.py", "torn_apart/conf/objective/torn.yaml", "../outside.txt"]
    (info / "RECORD").write_text("".join(f"{name},,\n" for name in [*listed, "torn_apart-1.0.dist-info/METADATA"]))
    assert main(["uninstall", "torn_apart"]) == 0 and calls == []
    assert "torn_apart: 6 files removed" in capsys.readouterr().out  # with METADATA, entry_points.txt and RECORD
    assert sorted(path.name for path in site.iterdir()) == ["other"] and (site.parent / "outside.txt").exists()


def test_others_are_removed_too_while_pip_cannot(pip, site, install, capsys):
    calls, _ = pip
    install("torn")
    install("whole")
    (site / "torn-1.0.dist-info" / "METADATA").write_bytes(b"\xff")
    (site / "whole-1.0.dist-info" / "RECORD").write_text("whole/__init__.py,,\nwhole/plugin.py,,\n")
    assert main(["uninstall", "whole"]) == 0 and calls == []
    assert sorted(path.name for path in site.iterdir()) == ["torn", "torn-1.0.dist-info"]
    assert main(["uninstall", "torn"]) == 0
    install("third")
    assert main(["uninstall", "third"]) == 0 and calls == [["uninstall", "--yes", "third"]]


def test_where_pip_fails_its_own_words_count(monkeypatch, capsys):
    codes = iter([1, 7, 1])

    def run(command, **given):
        return subprocess.CompletedProcess(command, next(codes), "")

    monkeypatch.setattr(install.subprocess, "run", run)
    assert main(["install", "vtp-plugin-of-nobody"]) == 7
    assert main(["install", "nothing-of-that-name"]) == 2
    assert "pip cannot install vtp-plugin-nothing-of-that-name; its words are above" in capsys.readouterr().err


def test_an_experiment_of_an_unknown_name_may_be_that_of_a_package_that_is_not_installed(monkeypatch):
    from vtp.options import no_option

    monkeypatch.setattr("vtp.plugins.missing_addons", lambda: {"crossformer": "vtp-plugin-crossformer"})
    said = no_option("experiment", "bind", ["alpro"])
    assert "Packages that are not installed may bring it: pip install vtp-plugin-crossformer." in said
    assert "may bring it" not in no_option("task", "bind", ["qa"])
    assert "comes with vtp-plugin-crossformer" in no_option("experiment", "crossformer/tiny_qa", [])
