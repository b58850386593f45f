"""``vtp --help`` names the commands of plugins without asking the plugins again, and never from an outdated answer."""

from __future__ import annotations

import importlib.metadata
import itertools
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from vtp.kept import keep, kept
from vtp.plugins import discover

OFFERS = """
from vtp import hookimpl

@hookimpl
def vtp_register_commands(register):
    register("brew", "{package}.plugin:brew", help="{help}")
"""
HELP = "from vtp.cli.main import main; main(['--help'])"


@pytest.fixture
def told(site: Path, tmp_path: Path) -> Callable[..., str | None]:
    """``told(command, **environment)``: its line in the help of a new process, None if it is not listed."""
    moments = itertools.count(1_000_000_000, 10)

    def tell(command: str = "brew", **environment: str) -> str | None:
        moment = next(moments)
        for path in (site, *site.rglob("*")):  # as if the last change had happened a while ago
            if time.time() - path.stat().st_mtime < 1e6:
                os.utime(path, (moment, moment))
        own = {"PYTHONPATH": str(site), "VTP_CACHE": str(tmp_path / "cache")}
        done = subprocess.run(
            [sys.executable, "-c", HELP], capture_output=True, text=True, check=True, env=os.environ | own | environment
        )
        assert not done.stderr
        lines = {words[0]: words[1] for line in done.stdout.splitlines() if len(words := line.split(maxsplit=1)) == 2}
        return lines.get(command)

    return tell


def imported(code: str, environment: dict[str, str]) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-c", code], capture_output=True, text=True, check=True, env=environment
    )
    return {line.rsplit("|", 1)[-1].strip() for line in done.stderr.splitlines()}


def test_help_imports_nothing_that_python_has_not_imported(tmp_path: Path) -> None:
    environment = os.environ | {"VTP_CACHE": str(tmp_path)}
    assert "pluggy" in imported(HELP, environment)
    more = imported(HELP, environment) - imported("", environment)
    assert {name for name in more if name.partition(".")[0] != "vtp"} <= {"__future__"}


def test_every_change_is_seen(install, site: Path, told: Callable[..., str | None]) -> None:
    package = install("teapot", OFFERS.format(package="teapot", help="tea"))
    assert told() == told() == "tea [teapot]"
    (package / "plugin.py").write_text(OFFERS.format(package="teapot", help="green tea"))
    assert told() == "green tea [teapot]"
    install("cafe", OFFERS.format(package="cafe", help="coffee").replace("brew", "roast"))
    assert told("roast") == "coffee [cafe]"
    assert told(VTP_BLOCK_PLUGINS="teapot") is None
    assert told() == "green tea [teapot]"
    (package / "conf" / "objective").mkdir(parents=True)
    (package / "conf" / "objective" / "vtc.yaml").write_text("{}\n")  # a name of vtp's own: the plugin is refused
    assert told() is None
    assert told("roast") == "coffee [cafe]"


def test_it_is_kept_only_while_every_plugin_works(install, tmp_path: Path, told: Callable[..., str | None]) -> None:
    install("teapot", OFFERS.format(package="teapot", help="tea"))
    broken = install("cracked", "import nothing_of_that_name")
    assert told() == "tea [teapot]"
    assert not list((tmp_path / "cache").rglob("commands*"))
    (broken / "plugin.py").write_text("")
    assert told() == "tea [teapot]"
    (kept,) = (tmp_path / "cache").rglob("commands*")
    for damaged in (b"", kept.read_bytes()[:-9], b"\xff\n\n"):
        kept.write_bytes(damaged)
        assert told() == "tea [teapot]"


def test_a_folder_that_cannot_be_written_does_not_matter(tmp_path: Path, told: Callable[..., str | None]) -> None:
    (tmp_path / "file").write_text("")
    assert told("run", VTP_CACHE=str(tmp_path / "file")) is not None


def test_what_has_just_changed_is_not_kept(
    install, site: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """It may change again within the resolution of a file system's clock."""
    monkeypatch.setenv("VTP_CACHE", str(tmp_path))
    keep("x", ["old"], [str(site)])
    assert kept("x") is None
    os.utime(site, (1e9, 1e9))
    keep("x", ["old"], [str(site)], "asked")
    assert (kept("x", "asked"), kept("x"), kept("y", "asked")) == (["old"], None, None)
    install("cafe")
    assert kept("x", "asked") is None


def test_plugins_are_found_again_after_a_change(
    install, site: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("VTP_CACHE", str(tmp_path))
    install("cafe")
    for path in (site, *site.rglob("*")):
        os.utime(path, (1e9, 1e9))
    found = discover()
    assert discover() == found and list(tmp_path.rglob("plugins*"))
    monkeypatch.setattr(importlib.metadata, "entry_points", None)  # is not called again
    assert discover() == found and {"cafe"} < {point.name for point in found}
    monkeypatch.undo()
