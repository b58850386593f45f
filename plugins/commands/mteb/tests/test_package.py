"""The package itself."""

from __future__ import annotations

import vtp_mteb
from vtp.plugins import discover
from vtp.testing import check_plugin


def test_vtp_finds_the_package_and_its_version() -> None:
    found = [plugin for plugin in discover() if plugin.package == "vtp_mteb"]
    assert len(found) == 1
    assert vtp_mteb.__version__


def test_the_package_keeps_its_promises() -> None:
    check_plugin("vtp_mteb.plugin")
