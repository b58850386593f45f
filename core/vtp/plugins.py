"""Find and load plugins, so that a broken one never takes vtp down.

An entry point of the group ``vtp.plugins`` names a plugin module. For each one, in the order of their names:
blocked? -> does the distribution accept this version of vtp-core (no import)? -> import -> ``VTP_API`` -> register with
pluggy -> hooks known? -> ask each hook. Whatever goes wrong is kept in its :class:`PluginInfo` and shown by ``vtp
plugins``; the offers of that plugin are dropped.

Environment:
    VTP_BLOCK_PLUGINS=a,b    do not load these (entry-point or distribution names; built-in ones too)
    VTP_LOAD_PLUGINS=a,b     load only these besides the built-in ones; empty = none
    VTP_STRICT_PLUGINS=1     a plugin that cannot be loaded is an error

An installed plugin is trusted code with the user's rights: this isolates faults, not malice.
"""

from __future__ import annotations

import functools
import importlib.util
import os
import re
import sys
import traceback
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

from vtp import VTP_API, __version__
from vtp.errors import PluginError
from vtp.kept import keep, kept, search_path
from vtp.process import put_back
from vtp.registry import Entry, Registry, did_you_mean
from vtp.shown import printable

__all__ = [
    "Host",
    "PluginInfo",
    "PluginPoint",
    "addon_hint",
    "config_dir",
    "config_places",
    "discover",
    "host",
    "missing_addons",
]

CORE = "vtp-core"
ENCODER_SLOTS = ("text", "video", "audio", "fusion")
# Names that the core's own media code has: kept here, so that a plugin is refused before anything of it is imported.
RESERVED = {
    "decoder": ("auto", "pyav", "torchcodec", "decord"),
    "sampler": ("auto", "uniform", "segment", "dense", "every"),
}

HEAVY = ("torch", "transformers")  # what takes longer to import than all of `vtp plugins`

Status = Literal["loaded", "blocked", "broken", "incompatible", "refused"]


@dataclass(frozen=True, slots=True)
class PluginPoint:
    """An entry point and the distribution that it belongs to; found without importing the plugin."""

    name: str
    value: str
    distribution: str
    version: str
    requires: tuple[str, ...] = ()
    fault: str = ""  # of the distribution's metadata

    @property
    def package(self) -> str:
        """Top-level package of the plugin module."""
        return self.value.partition(":")[0].partition(".")[0]

    @property
    def builtin(self) -> bool:
        return self.distribution == CORE


@dataclass(slots=True)
class PluginInfo:
    """What became of a plugin."""

    point: PluginPoint
    status: Status = "loaded"
    error: str = ""
    trace: str = ""
    hooks: list[str] = field(default_factory=list)
    path: str = ""

    def summary(self) -> str:
        """One line for messages: name, distribution, version and what is wrong."""
        point = self.point
        return f"plugin {point.name!r} ({point.distribution} {point.version}) is {self.status}: {self.error}"


def normalised(distribution: str) -> str:
    """A distribution name as indexes compare it: ``Vtp_Plugin.X`` is ``vtp-plugin-x``."""
    return distribution.lower().replace("_", "-").replace(".", "-")


def discover() -> list[PluginPoint]:
    """All plugin entry points, sorted by name, built-in ones first. Nothing is imported.

    ``vtp.workspace`` lists the add-ons of a source checkout, which are importable there without being installed as
    distributions; an entry whose package is not importable is left out, and one that is installed for real counts as
    that distribution.
    """
    if (lines := kept("plugins")) is not None:  # importing importlib.metadata alone is a tenth of `vtp run --cfg job`
        return [
            PluginPoint(name, value, owner, version, tuple(requires))
            for name, value, owner, version, *requires in (line.split("\t") for line in lines)
        ]
    from vtp.installed import entry_points

    points: dict[tuple[str, str], PluginPoint] = {}
    watched = search_path()
    for group in ("vtp.plugins", "vtp.workspace"):
        for found in entry_points(group):
            # what is rewritten in place leaves the folder above it as it is
            watched += [f"{found.folder}/METADATA", f"{found.folder}/entry_points.txt"]
            owner = normalised(found.distribution)
            point = PluginPoint(found.name, found.value, owner, found.version, found.requires, found.fault)
            known = points.get((point.name, point.value))
            if known is not None and (group == "vtp.workspace" or known.builtin):
                continue
            if group == "vtp.workspace" and importlib.util.find_spec(point.package) is None:
                continue
            points[(point.name, point.value)] = point
    ordered = sorted(points.values(), key=lambda p: (not p.builtin, p.name, p.distribution))
    if not any(point.fault for point in ordered):
        lines = ["\t".join((p.name, p.value, p.distribution, p.version, *p.requires)) for p in ordered]
        keep("plugins", lines, watched)
    return ordered


def missing_addons() -> dict[str, str]:
    """Add-ons of the vtp project that are not installed, from the list that vtp-core's metadata carries: their names
    and the distributions that hold them."""
    from vtp.installed import entry_points

    points = {point.name: point.value.partition(".")[0] for point in entry_points("vtp.workspace")}
    return {name: f"vtp-plugin-{name}" for name, package in points.items() if importlib.util.find_spec(package) is None}


def addon_hint(name: str) -> str:
    """`` 'simvtp/vtc' comes with vtp-plugin-simvtp, which is not installed: pip install vtp-plugin-simvtp.``, or
    nothing where no missing add-on has to do with ``name``."""
    for addon, distribution in sorted(missing_addons().items()):
        if any(part == addon or part.startswith(f"{addon}_") for part in name.split("/")):
            return f" {name!r} comes with {distribution}, which is not installed: pip install {distribution}."
    return ""


def config_dir(point: PluginPoint) -> Path | None:
    """The plugin's folder of configuration options, or None. Looks at the top package only, so the plugin is not
    imported."""
    return next((folder for folder in config_places(point) if folder.is_dir()), None)


def config_places(point: PluginPoint) -> list[Path]:
    """Where that folder would be."""
    try:
        spec = importlib.util.find_spec(point.package)
    except (ImportError, ValueError):
        return []
    return [Path(location) / "conf" for location in (spec.submodule_search_locations or ())] if spec else []


class Host:
    """The plugins of this process and what they offer."""

    def __init__(self, points: list[PluginPoint] | None = None) -> None:
        self.points = discover() if points is None else points
        self.registry = Registry(addon_hint)
        self.infos: list[PluginInfo] = []
        self.shadowing: dict[PluginPoint, list[str]] = {}  # option files of built-in names, which are ignored

    def active_points(self) -> list[PluginPoint]:
        """Plugins that are not switched off: those whose configuration options count."""
        return [point for point in self.points if not _blocked(point)]

    def load(self) -> Host:
        """Load every plugin; never raises for a faulty one unless VTP_STRICT_PLUGINS=1."""
        import pluggy

        from vtp import hookspecs
        from vtp.options import shadowing

        manager = pluggy.PluginManager("vtp")
        manager.add_hookspecs(hookspecs)
        refused = self._same_name()
        self.shadowing = shadowing(self.active_points())
        for point in self.points:
            info = PluginInfo(point)
            self.infos.append(info)
            if reason := _blocked(point):
                info.status, info.error = "blocked", reason
            elif point in refused:
                info.status, info.error = "refused", refused[point]
            else:
                self._load_one(manager, info)
        for info in self.infos:
            if info.status in ("broken", "incompatible", "refused"):
                self.registry.notes.append(info.summary())
        faulty = [info.summary() for info in self.infos if info.status in ("broken", "incompatible", "refused")]
        if faulty and os.environ.get("VTP_STRICT_PLUGINS", "") not in ("", "0"):
            raise PluginError("VTP_STRICT_PLUGINS is set and not every plugin could be loaded: " + "; ".join(faulty))
        return self

    def _same_name(self) -> dict[PluginPoint, str]:
        """Strangers with one entry-point name are all refused; a built-in keeps its name against a stranger."""
        by_name: dict[str, list[PluginPoint]] = {}
        for point in self.points:
            if not _blocked(point):
                by_name.setdefault(point.name, []).append(point)
        refused = {}
        for name, points in by_name.items():
            for point in points:
                others = [p.distribution for p in points if p is not point]
                if others and not point.builtin:
                    refused[point] = (
                        f"the plugin name {name!r} is also used by {', '.join(others)}. "
                        f"Block one by its distribution: VTP_BLOCK_PLUGINS={point.distribution}"
                    )
        return refused

    def _load_one(self, manager: Any, info: PluginInfo) -> None:
        point = info.point
        try:
            if point.fault:
                raise PluginError(point.fault)
            if reason := _incompatible(point):
                info.status, info.error = "incompatible", reason
                return
            if shadowed := self.shadowing.get(point):
                first = f"its option file conf/{shadowed[0]}.yaml has the name of a built-in one and is ignored"
                more = f"; so have {', '.join(shadowed[1:])}" if shadowed[1:] else ""
                raise PluginError(f"{first}: rename it{more}")
            lacking = [name for name in HEAVY if name not in sys.modules]
            with put_back() as changed:
                module = importlib.import_module(point.value.partition(":")[0])
            info.path = str(getattr(module, "__file__", "") or "")
            if (api := getattr(module, "VTP_API", VTP_API)) != VTP_API:
                info.status = "incompatible"
                info.error = f"it was written for VTP_API {api}, this is vtp {__version__} with VTP_API {VTP_API}"
                return
            manager.register(module, name=point.name)
            with put_back() as changed_later:
                self._ask(manager, info, module)
            if changed := [*changed, *changed_later]:
                info.error = f"it changes {', '.join(changed)} when it is loaded, which was undone"
            elif heavy := [name for name in lacking if name in sys.modules]:
                info.error = f"it imports {' and '.join(heavy)} when it is loaded, which slows every command down"
        except KeyboardInterrupt as error:
            raise KeyboardInterrupt(f"while plugin {point.name!r} ({point.distribution}) was loaded") from error
        except BaseException as error:  # SystemExit at import is real, and must not end `vtp plugins`
            info.status = "broken"
            info.error = str(error) if isinstance(error, PluginError) else f"{type(error).__name__}: {error}"
            info.error = printable(" ".join(info.error.split()))
            info.trace = printable(traceback.format_exc())
            self.registry.remove_plugin(point.name)
            if manager.has_plugin(point.name):
                manager.unregister(name=point.name)

    def _ask(self, manager: Any, info: PluginInfo, module: ModuleType) -> None:
        """Call the plugin's hooks one by one: one that raises must not stop those of other plugins."""
        from vtp.hookspecs import HOOKS

        for attribute in sorted(vars(module)):
            options = manager.parse_hookimpl_opts(module, attribute)
            if options is not None and attribute not in HOOKS and not options.get("optionalhook"):
                raise PluginError(
                    f"it implements the hook {attribute!r}, which vtp {__version__} does not have: "
                    f"a typo, or made for a newer vtp{did_you_mean(attribute, HOOKS).replace(' D', '. D')}"
                )
            if options is None and attribute in HOOKS:
                if callable(getattr(module, attribute)):
                    raise PluginError(f"its function {attribute!r} lacks @hookimpl, so vtp would never call it")
                raise PluginError(f"its {attribute!r} is no function, so vtp cannot call it")
        for hook, kind in HOOKS.items():
            for implementation in getattr(manager.hook, hook).get_hookimpls():
                if implementation.plugin is module:
                    register = functools.partial(self._register, kind, info.point)
                    implementation.function(*(register for _ in implementation.argnames))
                    info.hooks.append(hook)

    def _register(self, kind: str, point: PluginPoint, name: str, target: str, **facts: Any) -> None:
        if not isinstance(name, str) or not isinstance(target, str):
            module, attribute = (
                getattr(target, "__module__", "my_package.module"),
                getattr(target, "__name__", "MyClass"),
            )
            raise PluginError(
                f"{kind} {name!r}: register a string, not the thing itself, so that listing imports nothing: "
                f"register({str(name)!r}, {f'{module}:{attribute}'!r})"
            )
        if not re.fullmatch(r"\w[\w.+-]*", name):
            raise PluginError(f"{kind} {name!r} must be registered with a name of letters, digits, _ and -")
        if kind == "command":
            from vtp.cli.main import COMMANDS

            if name in COMMANDS:
                raise PluginError(
                    f"offers command {name!r}, which {CORE} offers already. Names must be unique: rename it"
                )
        if kind == "encoder":
            slot = facts.pop("slot", None)
            if slot not in ENCODER_SLOTS:
                raise PluginError(
                    f"encoder {name!r} must be registered with slot= one of {', '.join(ENCODER_SLOTS)} but got {slot!r}"
                )
            kind = f"encoder/{slot}"
        if kind == "transform":
            modality = facts.pop("modality", None)
            if modality not in ENCODER_SLOTS[:3]:
                raise PluginError(
                    f"transform {name!r} must be registered with modality= one of {', '.join(ENCODER_SLOTS[:3])} "
                    f"but got {modality!r}"
                )
            kind = f"transform/{modality}"
        if kind == "form" and facts.get("counted") in (None, "", "videos"):  # videos are counted for every form
            raise PluginError(f"form {name!r} must be registered with counted= a noun for its items, such as queries")
        if name in RESERVED.get(kind, ()):
            raise PluginError(f"offers {kind} {name!r}, which {CORE} offers already. Names must be unique: rename it")
        self.registry.add(Entry(kind, name, target, point.name, point.distribution, facts))


def _names(variable: str) -> set[str] | None:
    value = os.environ.get(variable)
    return None if value is None else {normalised(name.strip()) for name in value.split(",") if name.strip()}


def _blocked(point: PluginPoint) -> str:
    own = {normalised(point.name), normalised(point.distribution)}
    if own & (_names("VTP_BLOCK_PLUGINS") or set()):
        return "switched off by VTP_BLOCK_PLUGINS"
    allowed = _names("VTP_LOAD_PLUGINS")
    if allowed is not None and not point.builtin and not own & allowed:
        return "not in VTP_LOAD_PLUGINS"
    return ""


def _incompatible(point: PluginPoint) -> str:
    """Why the distribution's own requirement on vtp-core excludes this version; read from metadata, before anything is
    imported."""
    if point.builtin or not any(normalised(requirement).startswith(CORE) for requirement in point.requires):
        return ""
    from packaging.requirements import Requirement

    for text in point.requires:
        requirement = Requirement(text)
        wanted = requirement.marker is None or requirement.marker.evaluate({"extra": ""})
        if (
            normalised(requirement.name) == CORE
            and wanted
            and not requirement.specifier.contains(__version__, prereleases=True)
        ):
            needed = f"{CORE}{requirement.specifier}"
            return f"it needs {needed}, this is {__version__}. Update {point.distribution} or vtp-core"
    return ""


@functools.cache
def host() -> Host:
    """The plugins of this process, loaded once."""
    return Host().load()
