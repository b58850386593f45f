"""``vtp import-config`` on configurations of SNP-S3."""

from __future__ import annotations

from typing import Any

import pytest

from vtp.cli.run import compose
from vtp_univl.config_import import translate

MODEL = {
    "training_head_type": "video_pretraining",
    "training_stage": "stage1+stage2",
    "add_false_caption": True,
    "intra_VTM": {"IW_MLM": True},
    "Vision_Word_Matching": True,
    "MASK_All_IWords_info": {"words_top_k": 2000, "Word_Chosen_Num": 4, "VWM_count_stage": "both"},
}


@pytest.mark.parametrize(
    ("changed", "objectives", "options"),
    [
        (
            {},
            ["snps3/mssm", "snps3/lvwm"],
            {"mssm": {"top_k": 2000}, "lvwm": {"top_k": 2000, "chosen": 4, "stage": "both"}},
        ),
        ({"Vision_Word_Matching": False}, ["snps3/mssm"], {"mssm": {"top_k": 2000}}),
        ({"intra_VTM": {"IW_MLM": False}}, ["univl/mlm", "snps3/lvwm"], {"lvwm": {"top_k": 2000, "chosen": 4}}),
    ],
)
def test_masks_and_matching_of_words(changed: Any, objectives: list[str], options: dict[str, Any]) -> None:
    lines, notes = translate({"model_attributes": {"univl": MODEL | changed}})
    assert f"objective=[univl/moco,univl/vtm,univl/itm,{','.join(objectives)}]" in lines
    found = compose(lines)
    for name, wanted in options.items():
        assert wanted.items() <= found["objectives"][name].items()
    assert all("SNP-S3" in notes[key] for key in notes if "words_top_k" in key or "Word_Chosen" in key)
