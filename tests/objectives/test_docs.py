"""The objective that docs/plugins.md writes with shared masks and losses is what it says."""

from __future__ import annotations

import re
from pathlib import Path

import torch
from torch import nn
from torch.nn.functional import cross_entropy

from vtp.model.build import BuildContext
from vtp.model.losses import masked_cross_entropy
from vtp.model.masking import IGNORE, WordMask
from vtp.model.objective import Objective
from vtp.types import LossOutput

TEXT = (Path(__file__).parents[2] / "docs" / "plugins.md").read_text(encoding="utf-8")
GIVEN = {
    "BuildContext": BuildContext,
    "IGNORE": IGNORE,
    "LossOutput": LossOutput,
    "Objective": Objective,
    "masked_cross_entropy": masked_cross_entropy,
    "nn": nn,
}


def test_the_objective_of_the_docs(context, make_model, make_batch, run):
    source = next(block for block in re.findall(r"```python\n(.*?)```", TEXT, re.S) if "WordsFromSound" in block)
    made = dict(GIVEN)
    exec(source, made)
    objective = made["WordsFromSound"](context=context)
    ctx = run(make_model({"text": WordMask(0.5)}, it=objective), make_batch(4))
    out = objective(ctx)
    words = ctx.inputs("text", "bert0.5")
    logits = objective.head(ctx.fused({"text": "bert0.5", "audio": ""}).tokens["text"].x)
    want = cross_entropy(logits.flatten(0, 1), words["labels"].flatten(), ignore_index=-100)
    torch.testing.assert_close(out.loss, want)
    assert int(out.weight) == int((words["labels"] >= 0).sum()) > 0
