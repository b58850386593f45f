"""Plugins written into a temporary folder, as pip would leave them: a package and a dist-info folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest


def write_plugin(
    site: Path,
    name: str,
    module: str = "",
    *,
    distribution: str | None = None,
    entry_name: str | None = None,
    requires: str = "vtp-core>=0.1,<0.2",
    files: dict[str, str] | None = None,
) -> Path:
    """Install a plugin package ``name`` into the folder ``site``; ``module`` is the text of its plugin.py."""
    package = site / name
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "plugin.py").write_text(module)
    for path, text in (files or {}).items():
        (package / path).parent.mkdir(parents=True, exist_ok=True)
        (package / path).write_text(text)
    distribution = distribution or name.replace("_", "-")
    info = site / f"{distribution.replace('-', '_')}-1.0.dist-info"
    info.mkdir()
    metadata = f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.0\nRequires-Dist: {requires}\n"
    (info / "METADATA").write_text(metadata)
    (info / "entry_points.txt").write_text(f"[vtp.plugins]\n{entry_name or name} = {name}.plugin\n")
    return package


@pytest.fixture
def install(site: Path) -> Callable[..., Path]:
    """``install(name, module, ...)``: :func:`write_plugin` into ``site``."""
    return lambda *args, **kwargs: write_plugin(site, *args, **kwargs)


@pytest.fixture
def install_into() -> Callable[..., Path]:
    """:func:`write_plugin`: ``install_into(site, name, module, ...)``."""
    return write_plugin
