"""What every objective promises, checked for every built-in one."""

from __future__ import annotations

import pytest

from vtp.testing import check_objective
from vtp_objectives.caption import Caption
from vtp_objectives.classification import Classification
from vtp_objectives.mlm import MLM
from vtp_objectives.mvm import MVM
from vtp_objectives.plugin import vtp_register_objectives
from vtp_objectives.qa import QA
from vtp_objectives.vtc import VTC
from vtp_objectives.vtm import VTM

LOCAL = {"micro-batches": "negatives come from the own micro-batch"}
CASES = [
    (VTC, {"width": 4}, {}),
    (VTC, {"width": 4, "modalities": ["audio", "text"], "directions": "sum"}, {}),
    (VTM, {}, LOCAL),
    (Caption, {"depth": 2, "heads": 2}, {}),
    (Caption, {"depth": 1, "heads": 2, "share_with": None, "modalities": ["video"], "label_smoothing": 0.1}, {}),
    (MLM, {}, {}),
    (MLM, {"tokens": "text"}, {}),
    (MVM, {"decoder_width": 8, "decoder_depth": 1, "decoder_heads": 2}, {}),
    (QA, {}, {}),
    (Classification, {"label": "answer"}, {}),
    (Classification, {"label": "answer", "modalities": ["audio", "video"], "features": "pooled"}, {}),
]


def test_every_objective_is_tested():
    registered = set()
    vtp_register_objectives(lambda name, target: registered.add(target.partition(":")[2]))
    assert registered == {cls.__name__ for cls, _, _ in CASES}


@pytest.mark.parametrize("cls, options, skip", CASES, ids=lambda one: getattr(one, "__name__", None))
def test_the_contract_is_kept(cls, options, skip):
    check_objective(cls, options, skip=skip)


@pytest.mark.slow
@pytest.mark.parametrize("cls, options", [(VTC, {"width": 4}), (MLM, {}), (QA, {}), (Caption, {"heads": 2})])
def test_two_processes_compute_what_one_does(cls, options):
    check_objective(cls, options, processes=2)
