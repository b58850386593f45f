"""What every plugin package promises: it loads, it is light, and its option files fit its classes."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from vtp.cli.components import first_comment, option_files
from vtp.components import check_options
from vtp.contracts import contract_of, misspelt
from vtp.plugins import Host, PluginPoint, config_dir, discover, host
from vtp.registry import Entry
from vtp.run.check import GIVEN
from vtp.testing.checks import Check, expect, run, some

__all__ = ["check_plugin"]

HEAVY = ("torch", "numpy", "transformers", "timm", "triton", "av", "pyarrow", "hydra", "matplotlib")
OPTION_KINDS = ("encoder/", "objective", "dataset", "task")  # those that are chosen by an option file


def check_plugin(module: str, *, skip: Mapping[str, str] | None = None) -> None:
    """Check an installed plugin.

    Args:
        module: what its entry point names, ``"vtp_my_package.plugin"``.
        skip: checks to leave out, with the reason.

    Checks: entry-point, loads, light, targets, options, renamed.

    Raises:
        ContractError: with every check that failed.

    Example::

        def test_my_plugin():
            check_plugin("vtp_my_package.plugin")
    """
    trial = _Plugin(module)
    checks: dict[str, Check] = {
        "entry-point": trial.entry_point,
        "loads": trial.loads,
        "light": trial.light,
        "targets": trial.targets,
        "options": trial.options,
        "renamed": trial.renamed,
    }
    run(module, checks, skip)


class _Plugin:
    """One plugin module and what lies beside it."""

    def __init__(self, module: str) -> None:
        self.module = module

    @cached_property
    def point(self) -> PluginPoint:
        found = [point for point in discover() if point.value.partition(":")[0] == self.module]
        expect(found, f"an entry point of the group vtp.plugins must name {self.module}: install the package")
        return found[0]

    @cached_property
    def entries(self) -> list[Entry]:
        return Host([self.point]).load().registry.entries()

    def entry_point(self) -> None:
        expect(self.point.name, "its entry point must have a name")

    def loads(self) -> None:
        info = Host([self.point]).load().infos[0]
        expect(info.status == "loaded", f"it is {info.status}: {info.error}")
        expect(
            self.entries or info.hooks, "it must offer something: functions named as in vtp.hookspecs, with @hookimpl"
        )

    def light(self) -> None:
        code = f"import sys, {self.module}; print(*sorted({{*{HEAVY!r}}} & {{*sys.modules}}))"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        expect(done.returncode == 0, f"importing it fails: {done.stderr.strip().splitlines()[-1:]}")
        heavy = done.stdout.split()
        expect(not heavy, f"importing it must be light, `vtp plugins` does it; it imports {some(heavy)}")

    def targets(self) -> None:
        for entry in self.entries:
            target = entry.load()
            expect(callable(target), f"{entry.kind} {entry.name!r}: {entry.target} must be a class or function")
            problems = misspelt(target, contract_of(entry.kind))
            expect(not problems, f"{entry.kind} {entry.name!r}: it {'; it '.join(problems)}")

    def options(self) -> None:
        folder = config_dir(self.point)
        chosen: set[tuple[str, str]] = set()
        for file in sorted(folder.rglob("*.yaml")) if folder is not None else ():
            group = file.parent.relative_to(folder or file).as_posix()
            if group.startswith(OPTION_KINDS):
                kind = group if group.startswith("encoder/") else group.partition("/")[0]
                chosen.add((kind, self._check_file(kind, group, file)))
        hidden = [f"{e.kind}={e.name}" for e in self.entries if e.kind.startswith(OPTION_KINDS)]
        hidden = [one for one in hidden if tuple(one.split("=")) not in chosen]
        expect(not hidden, f"an option file must choose what is registered; none chooses {some(hidden)}")

    def _check_file(self, kind: str, group: str, file: Path) -> str:
        """Compare the keys of an option file with the class that it chooses; returns the name of that."""
        node = _node(group, file)
        where = f"conf/{group}/{file.name}"
        expect(first_comment(file), f"{where}: its first comment is what `vtp list` says about it; there is none")
        if group == "objective":
            wanted = f"# @package objectives.{file.stem}"
            expect(
                file.read_text(encoding="utf-8").splitlines()[0] == wanted, f"{where}: the first line must be {wanted}"
            )
        name = node.pop("name", None)
        if name is None:  # encoder/video=none
            expect(not node, f"{where}: options without a name choose nothing")
            return ""
        target = host().registry.get(kind, str(name)).load()
        plain = {k: v for k, v in node.items() if k != "weight" and not (isinstance(v, str) and "${" in v)}
        problems: list[str] = []
        check_options(where, str(name), target, plain, problems, given=("context", *GIVEN.get(kind, ())))
        expect(not problems, "; ".join(problems))
        return str(name)

    def renamed(self) -> None:
        folder = config_dir(self.point)
        file = folder / "renamed.yaml" if folder is not None else None
        if folder is None or file is None or not file.is_file():
            return
        names = yaml.safe_load(file.read_text(encoding="utf-8"))
        plain = isinstance(names, dict) and all(isinstance(one, str) for pair in names.items() for one in pair)
        expect(plain, "conf/renamed.yaml must hold lines `group/option: what to write now`")
        alive = [name for name in names if (folder / f"{name}.yaml").is_file()]
        expect(not alive, f"conf/renamed.yaml: {some(alive)} is still there")


def _node(group: str, file: Path) -> dict[str, Any]:
    """The options that a file sets in its own node, over those of the files of its group that it builds on."""
    text = file.read_text(encoding="utf-8")
    content = dict(yaml.safe_load(text) or {})
    found: dict[str, Any] = {}
    for base in content.pop("defaults", ()):
        place, _, option = str(base).partition("@")[0].rpartition("/")  # "mvm", or "/objective/mvm@_here_"
        for _, below in option_files().get(place.strip("/") or group, {}).get(option, ()):
            found |= _node(group, below)
    if text.startswith("# @package _global_"):
        content = content.get(group, {})
    return found | content
