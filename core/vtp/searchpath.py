"""Lets hydra see the options of all plugins. They are located, not imported: a broken one cannot break composition."""

from __future__ import annotations

from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.plugins import Plugins
from hydra.plugins.search_path_plugin import SearchPathPlugin

from vtp.options import shadowing
from vtp.plugins import Host, config_dir

__all__ = ["VtpSearchPath", "register"]


class VtpSearchPath(SearchPathPlugin):
    """Appends ``<package>/conf`` of every plugin, built-in ones first (at module level: hydra counts classes)."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        points = Host().active_points()
        shadowed = shadowing(points)
        for point in points:
            if any(name.startswith("schema/") for name in shadowed.get(point, ())):
                continue  # hydra would take these before the core's typed nodes; of files it takes the built-in one
            if (folder := config_dir(point)) is not None:
                search_path.append(provider=f"vtp-plugin:{point.name}", path=f"file://{folder}")


def register() -> None:
    """Tell hydra, once per process."""
    if VtpSearchPath not in Plugins.instance().discover(SearchPathPlugin):
        Plugins.instance().register(VtpSearchPath)
