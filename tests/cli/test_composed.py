"""``vtp run ... --cfg job`` prints a kept configuration without composing again, and never an outdated one."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
import yaml

import vtp.conf
from vtp.cli import composed
from vtp.cli.main import main
from vtp.kept import keep, watched_by

ARGUMENTS = ["run", "task=msrvtt_qa", "dataset=shapes", "--cfg", "job"]
PRINT = """
import sys
from vtp.cli.main import main
from vtp.kept import keep, watched_by

code = main(sys.argv[1:])
print("hydra" in sys.modules)
sys.exit(code)
"""
HOOKS = "from vtp import hookimpl\n"


@pytest.fixture
def told(site: Path, tmp_path: Path) -> Callable[..., tuple[str, bool]]:
    """``told(*more, **environment)``: what a new process prints, and whether it composed."""
    moments = itertools.count(1_000_000_000, 10)
    # what changed in the last two seconds is not built on, and somebody may just have edited vtp
    core = Path(vtp.__file__).parent
    newest = max(
        path.stat().st_mtime for path in (core / "conf", *core.rglob("*")) if path.suffix in ("", ".py", ".yaml")
    )
    time.sleep(max(0.0, min(2.5, newest + 2.5 - time.time())))

    def tell(*more: str, **environment: str) -> tuple[str, bool]:
        moment = next(moments)
        for path in (site, *site.rglob("*")):  # as if the last change had happened a while ago
            if time.time() - path.stat().st_mtime < 1e6:
                os.utime(path, (moment, moment))
        own = {"PYTHONPATH": str(site), "VTP_CACHE": str(tmp_path / "cache")}
        command = [sys.executable, "-c", PRINT, *ARGUMENTS, *more]
        environment = os.environ | own | environment
        # not in the folder of the other tests, which would be a part of the search path and change
        done = subprocess.run(command, cwd=site, capture_output=True, text=True, check=True, env=environment)
        text, _, hydra = done.stdout.rstrip("\n").rpartition("\n")
        return text, hydra == "True"

    return tell


def seeded(told: tuple[str, bool]) -> tuple[int, bool]:
    """The seed of a printed configuration, and whether it was composed."""
    return yaml.safe_load(told[0])["seed"], told[1]


def test_every_change_is_seen(install, told: Callable[..., tuple[str, bool]]) -> None:
    package = install("teapot", HOOKS)
    first, composed_first = told()
    assert composed_first
    assert told() == (first, False)
    assert seeded(told("seed=7")) == (7, True)
    assert told() == (first, False)
    option = package / "conf" / "experiment" / "brew.yaml"
    option.parent.mkdir(parents=True)  # a plugin that had no option files so far
    option.write_text("# @package _global_\nseed: 3\n")
    assert seeded(told("experiment=brew")) == (3, True)
    assert seeded(told("experiment=brew")) == (3, False)
    option.write_text("# @package _global_\nseed: 4\n")
    assert seeded(told("experiment=brew")) == (4, True)
    option.write_text("# @package _global_\nseed: 5\ndevice: ${oc.env:WHERE,cpu}\n")
    assert told("experiment=brew")[1]
    assert told("experiment=brew")[1]  # the environment may have a say


@pytest.mark.slow
def test_an_option_that_came_first_is_seen(install, told: Callable[..., tuple[str, bool]]) -> None:
    first = told()[0]
    package = install("teapot", HOOKS)
    (package / "conf").mkdir()
    assert told() == (first, True)
    assert told() == (first, False)
    assert told(VTP_BLOCK_PLUGINS="teapot") == (first, True)


@pytest.mark.parametrize(
    "arguments",
    [
        ["task=msrvtt_qa"],
        ["task=msrvtt_qa", "--cfg", "all"],
        ["task=msrvtt_qa", "--cfg", "job", "--resolve"],
        ["task=msrvtt_qa", "--cfg", "job", "resume=auto"],
        ["task=msrvtt_qa", "--cfg", "job", "model=outputs/a"],
        ["task=msrvtt_qa", "--cfg", "job", "model=here"],
        ["task=msrvtt_qa", "--cfg", "job", "task=${oc.env:TASK}"],
        ["task=msrvtt_qa", "--cfg", "job", "hydra.searchpath=[file:///a]"],
        ["-m", "task=msrvtt_qa", "--cfg", "job"],
    ],
)
def test_what_more_than_files_decides_is_not_kept(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path)
    assert composed.printed(arguments, lambda _: pytest.fail("asked")) is None


@pytest.mark.parametrize("fault", ["print('careful', file=sys.stderr)", "code = 2", "raise SystemExit(2)"])
def test_what_fails_or_warns_is_not_kept(
    fault: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("VTP_CACHE", str(tmp_path))
    monkeypatch.setattr(composed, "keep", lambda *_: pytest.fail("kept"))

    def run(_: list[str]) -> int:
        here = {"sys": sys, "code": 0}
        print("half of it")
        exec(fault, here)
        return int(here["code"])

    with suppress(SystemExit):
        composed.printed(["--cfg", "job"], run)
    assert capsys.readouterr().out == "half of it\n"


def test_a_mistake_is_told_each_time(capsys: pytest.CaptureFixture[str]) -> None:
    for _ in range(2):
        assert main([*ARGUMENTS, "sed=3"]) == 2
        assert "Did you mean 'seed'?" in capsys.readouterr().err


def test_an_outdated_list_of_plugins_is_not_built_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VTP_CACHE", str(tmp_path / "cache"))
    depends = tmp_path / "METADATA"
    depends.write_text("old")
    os.utime(depends, (1e9, 1e9))
    keep("plugins", ["a"], [str(depends)])
    assert watched_by("plugins") == [str(depends)]
    depends.write_text("new")
    assert watched_by("plugins") is None
