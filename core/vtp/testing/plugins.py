"""What every plugin package promises: it loads, it is light, and its option files fit its classes."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from functools import cached_property

import yaml

from vtp.cli.plugins_check import OPTION_KINDS, check_option_file
from vtp.contracts import contract_of, misspelt
from vtp.options import first_comment, option_files
from vtp.plugins import Host, PluginPoint, config_dir, discover, host
from vtp.registry import Entry
from vtp.testing.checks import Check, expect, run, some

__all__ = ["check_plugin"]

HEAVY = ("torch", "numpy", "transformers", "timm", "triton", "av", "pyarrow", "hydra", "matplotlib")


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
        done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True)
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
        files = option_files()
        own = [
            (g, file)
            for g, opts in files.items()
            for found in opts.values()
            for p, file in found
            if p == self.point.name
        ]
        chosen: set[tuple[str, str]] = set()
        for group, file in own:
            kind = group if group.startswith("encoder/") else group.partition("/")[0]
            if not kind.startswith(OPTION_KINDS):
                continue
            name, problems = check_option_file(kind, group, file, host(), files)
            expect(not problems, "; ".join(problems))
            where = f"conf/{group}/{file.name}"
            expect(first_comment(file), f"{where}: its first comment is what `vtp list` says about it; there is none")
            chosen.add((kind, name))
        hidden = [f"{e.kind}={e.name}" for e in self.entries if e.kind.startswith(OPTION_KINDS)]
        hidden = [one for one in hidden if tuple(one.split("=")) not in chosen]
        expect(not hidden, f"an option file must choose what is registered; none chooses {some(hidden)}")

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
