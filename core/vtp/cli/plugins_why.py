"""``vtp plugins why NAME``: where a plugin, a component or an option comes from, and who else has its name."""

from __future__ import annotations

from collections.abc import Iterator

from vtp import __version__
from vtp.errors import ConfigError
from vtp.options import option_files
from vtp.plugins import CORE, Host, PluginInfo, addon_hint, missing_addons
from vtp.registry import did_you_mean

__all__ = ["why"]


def why(name: str, host: Host) -> list[str]:
    """What is known of a name, a line each.

    Args:
        name: of a plugin, a distribution or a component, or an option as ``vtp run`` takes it: ``objective=vtc``.
        host: loaded.

    Raises:
        ConfigError: nothing has that name.
    """
    kind, _, asked = name.replace("=", "/").rpartition("/")
    lines = [] if kind else [line for info in host.infos for line in _plugin(info, name, host)]
    lines += [*_components(kind, asked, host), *_options(kind, asked, host)]
    if lines:
        return lines
    if name in missing_addons() or name in missing_addons().values():
        return [f"{name} is an add-on of vtp that is not installed.{addon_hint(name)}"]
    known = {info.point.name for info in host.infos} | {info.point.distribution for info in host.infos}
    known |= {entry.name for entry in host.registry.entries()}
    known |= {option for options in option_files().values() for option in options}
    known |= missing_addons().keys()
    notes = "".join(f"\n  note: {note}" for note in host.registry.notes)
    raise ConfigError(
        f"nothing here is called {name!r}.{did_you_mean(asked, known)} `vtp list` shows what there is.{notes}"
    )


def _plugin(info: PluginInfo, name: str, host: Host) -> Iterator[str]:
    point = info.point
    if name not in (point.name, point.distribution):
        return
    yield f"plugin {point.name!r} of {point.distribution} {point.version}: {info.status}"
    yield f"  entry point {point.name} = {point.value}" + (f", which lies in {info.path}" if info.path else "")
    needs = [
        need for need in point.requires if need.lower().replace("_", "-").startswith(CORE) and "extra ==" not in need
    ]
    if needs:
        yield f"  it needs {', '.join(needs)}; this is {CORE} {__version__}"
    offers: dict[str, list[str]] = {}
    for entry in host.registry.entries():
        if (entry.plugin, entry.distribution) == (point.name, point.distribution):
            offers.setdefault(entry.kind, []).append(entry.name)
    yield from (f"  offers {kind}: {', '.join(names)}" for kind, names in offers.items())
    twins = [other.point.distribution for other in host.infos if other.point.name == point.name and other is not info]
    if twins:
        yield f"  the plugin name {point.name!r} is used by {', '.join(twins)} too"
    if info.error:
        yield f"  why: {info.error}"
        yield f"  {_remedy(info)}"


def _remedy(info: PluginInfo) -> str:
    point = info.point
    if info.status == "loaded":
        return "what to do: nothing, it works; tell its authors"
    if info.status == "blocked":
        return "what to do: unset VTP_BLOCK_PLUGINS and VTP_LOAD_PLUGINS, or take it off (into) them"
    if info.status == "refused":
        return f"what to do: vtp uninstall {point.distribution}, or VTP_BLOCK_PLUGINS={point.distribution}"
    if info.status == "incompatible":
        return f"what to do: vtp install --upgrade {point.distribution}, or vtp uninstall {point.distribution}"
    return f"what to do: vtp plugins --verbose shows the traceback; vtp uninstall {point.distribution} removes it"


def _components(kind: str, name: str, host: Host) -> Iterator[str]:
    doubled = {(entry.kind, entry.name) for entry in host.registry.doubled()}
    alone = [entry for entry in host.registry.entries() if (entry.kind, entry.name) not in doubled]
    for entry in [*alone, *host.registry.doubled()]:
        if entry.name != name or kind not in ("", entry.kind, entry.kind.partition("/")[0]):
            continue
        yield f"{entry.kind} {name!r}: {entry.target} of {entry.origin}"
        if (entry.kind, name) in doubled:
            others = [e for e in host.registry.doubled() if (e.kind, e.name) == (entry.kind, name) and e != entry]
            yield f"  offered by {' and '.join(e.origin for e in others)} too, so nobody can use it"
            yield f"  what to do: VTP_BLOCK_PLUGINS={entry.distribution} switches this one off"


def _options(kind: str, name: str, host: Host) -> Iterator[str]:
    for group, options in sorted(option_files(host.active_points()).items()):
        if name not in options or (kind and kind != group and kind != group.partition("/")[0]):
            continue
        for owner, file in options[name]:
            yield f"{group}={name}: {file} of {_owner(owner)}"
        if len(options[name]) > 1:
            yield "  two plugins bring this file, so `vtp run` refuses it"
            yield f"  what to do: VTP_BLOCK_PLUGINS={options[name][-1][0]} switches the last one off"
    for point, ignored in host.shadowing.items():
        for one in ignored:
            if one.rpartition("/")[2] == name and kind in ("", one.rpartition("/")[0]):
                where = f"conf/{one}.yaml of plugin {point.name!r} ({point.distribution})"
                yield f"{where} has the name of a built-in one and is ignored"
                yield "  what to do: rename it"


def _owner(name: str) -> str:
    return "vtp itself" if name == "vtp" else f"plugin {name!r}"
