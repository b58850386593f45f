"""`vtp new-plugin` writes packages that load, fit their classes and are formatted. What they do is in
tests/outside/test_new_packages.py."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from vtp.cli.main import main
from vtp.cli.new_plugin import KINDS, generate
from vtp.cli.plugins_check import problems_of
from vtp.plugins import Host, host


@pytest.fixture
def packages(site: Path, tmp_path: Path) -> Path:
    """A folder with one package of every kind, all of them on the path as pip would leave them."""
    for kind in KINDS:
        folder = tmp_path / "all" / kind
        assert main(["new-plugin", f"new_{kind}", "--kind", kind, "--out", str(folder)]) == 0
        project = tomllib.loads((folder / "pyproject.toml").read_text())["project"]
        shutil.copytree(folder / "src" / f"vtp_new_{kind}", site / f"vtp_new_{kind}")
        info = site / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
        info.mkdir()
        needs = "".join(f"Requires-Dist: {one}\n" for one in project["dependencies"])
        name = f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n"
        (info / "METADATA").write_text(name + needs)
        ((point, module),) = project["entry-points"]["vtp.plugins"].items()
        (info / "entry_points.txt").write_text(f"[vtp.plugins]\n{point} = {module}\n")
    host.cache_clear()
    yield tmp_path / "all"
    host.cache_clear()


def test_every_kind_loads_and_nothing_is_wrong(packages: Path):
    found = Host().load()
    mine = {info.point.name: info for info in found.infos if info.point.name.startswith("new_")}
    assert {name: info.error for name, info in mine.items()} == {f"new_{kind}": "" for kind in KINDS}
    assert {name: problems_of(info.point, found) for name, info in mine.items()} == {name: [] for name in mine}
    offered = {entry.kind for entry in found.registry.entries() if entry.plugin in mine}
    kinds = {"encoder/video", "objective", "dataset", "task", "encoder/fusion", "sampler", "decoder", "importer"}
    assert offered == {*kinds, "command"}
    method = {entry.kind for entry in found.registry.entries() if entry.plugin == "new_method"}
    assert method == {"encoder/video", "objective"}


def test_the_code_is_formatted_and_finished(packages: Path):
    texts = {file: file.read_text() for file in packages.rglob("*") if file.is_file()}
    assert [
        file for file, text in texts.items() if re.search(r"\$(?!\{\{ matrix)|TODO|FIXME|PACKAGE|NAME\b", text)
    ] == []
    assert max(text.count("\n") for file, text in texts.items() if file.suffix == ".py") <= 75
    for command in (["format", "--check"], ["check"]):
        pytest.importorskip("ruff")
        done = subprocess.run([sys.executable, "-m", "ruff", *command, "--no-cache", packages], capture_output=True)
        assert done.returncode == 0, done.stdout.decode()


def test_a_dash_is_an_underscore(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.chdir(tmp_path)
    assert main(["new-plugin", "two-words", "--kind", "command"]) == 0
    assert "vtp two-words RUN" in capsys.readouterr().out
    package = tmp_path / "vtp-plugin-two-words" / "src" / "vtp_two_words"
    assert 'register("two-words", "vtp_two_words.command:main"' in (package / "plugin.py").read_text()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["mine", "--kind", "objektive"], "Did you mean 'objective'?"),
        (["mine"], "--kind"),
        (["2fast", "--kind", "task"], "expected a name of small letters, digits and _"),
        (["Mine", "--kind", "task"], "expected a name of small letters, digits and _"),
        (
            ["My-Loss", "--kind", "task"],
            "'My-Loss': expected a name of small letters, digits and _, at most 60, such as my_loss.",
        ),
        (["TimeSformer2", "--kind", "task"], "such as time_sformer2."),
        (["a" * 61, "--kind", "task"], "at most 60, such as my_loss."),
        (["class", "--kind", "task"], "'class' means something else in Python or in options"),
        (["nan", "--kind", "objective"], "'nan' means something else"),  # a number in objective=[vtc,nan]
        (["null", "--kind", "fusion"], "'null' means something else"),  # nothing in `name: null`
        (["tokens", "--kind", "fusion"], "the code of a fusion uses Tokens for something else"),
        (["wide", "--kind", "fusion"], "the code of a fusion uses Wide for something else"),  # in its tests
        (["np", "--kind", "sampler"], "the code of a sampler uses np for something else"),
        (["exception", "--kind", "decoder"], "the code of a decoder uses Exception for something else"),
        (["kernels", "--kind", "task"], "'kernels' is taken by the package vtp_kernels"),
        (["mine", "--kind", "task", "--out", "/proc/mine"], "/proc/mine cannot be made: No such file or directory."),
        (["../mine", "--kind", "task"], "expected a name of small letters, digits and _"),
        (["vtc", "--kind", "objective"], "'vtc' is taken by objective 'vtc' of vtp-core"),
        (["concat", "--kind", "fusion"], "is taken by encoder/fusion 'concat'"),
        (["dense", "--kind", "sampler"], "is taken by sampler 'dense' of vtp-core"),
        (["doctor", "--kind", "command"], "is taken by the command 'doctor' of vtp"),
        (["encoders", "--kind", "encoder"], "is taken by the package vtp_encoders"),
        (["mine", "--kind", "task", "--out", "full"], "full is there and not empty"),
        (["mine", "--kind", "task", "--out", "full/file"], "is a file"),
        (["mine", "--kind", "task", "--out", ""], "got an empty one"),
    ],
)
def test_what_cannot_be_is_refused(
    arguments: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").write_text("")
    assert main(["new-plugin", *arguments]) == 2
    told = capsys.readouterr().err
    assert said in told and told.count("\n") == 1
    assert os.listdir(tmp_path) == ["full"]


def test_a_name_of_an_addon_that_is_not_installed_is_taken(monkeypatch, capsys):
    monkeypatch.setattr("vtp.plugins.missing_addons", lambda: {"absent": "vtp-plugin-absent"})
    assert main(["new-plugin", "absent", "--kind", "objective"]) == 2
    assert "'absent' is taken by vtp-plugin-absent, an add-on of vtp" in capsys.readouterr().err


def test_commands_that_come_next_can_be_typed(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["new-plugin", "mine", "--kind", "objective", "--out", "my folder"]) == 0
    told = capsys.readouterr().out
    assert "pip install -e 'my folder[test]'\n" in told and "pytest 'my folder'\n" in told


def test_a_name_of_another_kind_is_free():
    assert "vtp_vtc" in generate("vtc", "task")["pyproject.toml"]
