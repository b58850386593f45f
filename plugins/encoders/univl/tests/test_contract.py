"""What every objective promises, on encoders of nobody's; and that its file of options names all of them."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import pytest
import yaml

import vtp_univl
from vtp.testing import check_objective
from vtp_univl.clip_order import ClipOrder
from vtp_univl.itm import ITM
from vtp_univl.mlm import MLM
from vtp_univl.moco import MoCo
from vtp_univl.vtc import VTC
from vtp_univl.vtm import VTM

PAIRS = {"micro-batches": "rows are compared with those of the micro-batch"}
SINGLE = {**PAIRS, "missing": "a row keeps its place in the order of the batch"}
CASES: list[tuple[Any, dict[str, Any], dict[str, str]]] = [
    (VTC, {}, {}),
    (VTC, {"width": 4}, {}),
    (MoCo, {"queue_size": 16, "width": 4}, {}),
    (VTM, {"dropout": 0.0}, PAIRS),
    (VTM, {"dropout": 0.0, "block": 2}, SINGLE),
    (ITM, {}, PAIRS),
    (MLM, {}, {}),
    (MLM, {"tokens": "text"}, {}),
    (ClipOrder, {"places": 4, "depth": 1}, {}),
]


@pytest.mark.parametrize(("cls", "options", "skip"), CASES)
def test_objectives_keep_the_contract(cls: Any, options: dict[str, Any], skip: dict[str, str]) -> None:
    check_objective(cls, options, skip=skip)


@pytest.mark.slow
@pytest.mark.parametrize(("cls", "options", "skip"), [case for case in CASES if case[0] is not VTM])
def test_two_processes_are_one(cls: Any, options: dict[str, Any], skip: dict[str, str]) -> None:
    """Those of the cross encoder's scores are in test_processes.py."""
    check_objective(cls, options, skip=skip, processes=2)


def test_option_files_name_every_option() -> None:
    """With the defaults of the class, but for those that depend on the variant or make another objective of it."""
    targets = {"clip_order": ClipOrder, "itm": ITM, "mlm": MLM, "moco": MoCo, "vtc": VTC, "vtm": VTM}
    for name, cls in targets.items():
        file = Path(vtp_univl.__file__).parent / "conf" / "objective" / "univl" / f"{name}.yaml"
        given = yaml.safe_load(file.read_text())
        assert given.pop("name") == f"univl_{name}"
        assert given.pop("weight") == 1.0
        parameters = {n: p for n, p in inspect.signature(cls).parameters.items() if n != "context"}
        assert set(given) == set(parameters)
        for option, value in given.items():
            default = parameters[option].default
            default = list(default) if isinstance(default, tuple) else default
            repaired = str(value).removesuffix("}").rpartition(",")[2] if "released:" in str(value) else value
            assert repaired == (str(default).lower() if "released:" in str(value) else default), (name, option)
