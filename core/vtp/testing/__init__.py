"""Contract tests for components of one's own, to be called from pytest.

    from vtp.testing import check_encoder, check_plugin

    def test_my_encoder_keeps_the_contract():
        check_encoder(MyVideo, {"width": 16, "depth": 1, "frames": 4, "size": 32})

    def test_my_plugin_keeps_its_promises():
        check_plugin("vtp_my_package.plugin")

Each function runs all its checks and raises one :class:`ContractError` that names the component, the checks that
failed, and what was expected. A check that cannot hold is left out with its reason:
``skip={"masks": "a convolution sees all"}``. :mod:`vtp.testing.environment` is what a ``conftest.py`` sets before torch
is imported.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vtp.testing.checks import ContractError as ContractError
    from vtp.testing.encoders import check_encoder as check_encoder
    from vtp.testing.encoders import check_fusion as check_fusion
    from vtp.testing.objectives import check_objective as check_objective
    from vtp.testing.plugins import check_plugin as check_plugin
    from vtp.testing.samples import check_dataset as check_dataset
    from vtp.testing.samples import check_task as check_task
    from vtp.testing.transforms import check_transform as check_transform

_LAZY = {
    "ContractError": "vtp.testing.checks",
    "check_dataset": "vtp.testing.samples",
    "check_encoder": "vtp.testing.encoders",
    "check_fusion": "vtp.testing.encoders",
    "check_objective": "vtp.testing.objectives",
    "check_plugin": "vtp.testing.plugins",
    "check_task": "vtp.testing.samples",
    "check_transform": "vtp.testing.transforms",
}

__all__ = [
    "ContractError",
    "check_dataset",
    "check_encoder",
    "check_fusion",
    "check_objective",
    "check_plugin",
    "check_task",
    "check_transform",
]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'vtp.testing' has no attribute {name!r}")
