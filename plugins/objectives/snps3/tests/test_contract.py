"""What every objective promises, on encoders of nobody's; and that its file of options names all of them."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from word_tables import table_of, tiny_with_words

import vtp_snps3
from vtp.model.build import BuildContext
from vtp.model.context import ForwardContext
from vtp.model.masking import WordMask
from vtp.model.model import VTPModel
from vtp.testing import check_objective
from vtp.testing.inputs import batch_for
from vtp_snps3.lvwm import LVWM
from vtp_snps3.masking import SignificantWordMask
from vtp_snps3.mssm import MSSM
from vtp_snps3.significant import Significant
from vtp_snps3.words import save_table

CASES: list[tuple[Any, dict[str, Any]]] = [
    (LVWM, {}),
    (LVWM, {"stage": "after", "width": 4, "chosen": 5}),
    (MSSM, {}),
    (MSSM, {"tokens": "text", "inflect": False}),
]


@pytest.fixture
def words(tmp_path: Path) -> Path:
    """A table for the small encoders."""
    text: Any = tiny_with_words()["text"]
    save_table(table_of(text.spec, {(i,): 30 - i for i in range(5, 15)}), tmp_path / "words.json")
    return tmp_path / "words.json"


def checked(cls: Any, options: dict[str, Any], words: Path, **more: Any) -> None:
    text: Any = tiny_with_words()["text"]
    significant = Significant(table_of(text.spec, {(i,): 30 - i for i in range(5, 15)}), 8, text.spec)
    mask = SignificantWordMask(significant, probability=0.3)
    given = {"words": str(words), "top_k": 8, **options}
    check_objective(cls, given, encoders=tiny_with_words, masks={"text": mask}, **more)


@pytest.mark.parametrize(("cls", "options"), CASES)
def test_objectives_keep_the_contract(cls: Any, options: dict[str, Any], words: Path) -> None:
    checked(cls, options, words)


def test_the_mask_alone_has_no_gradient(words: Path) -> None:
    skip = dict.fromkeys(("gradients", "micro-batches"), "it has no loss of its own")
    checked(MSSM, {"tokens": None}, words, skip=skip)


def test_a_batch_of_empty_texts_trains(words: Path) -> None:
    """No word can be hidden or chosen: mssm has nothing to predict, lvwm takes [CLS] and [SEP] for its words."""
    encoders = tiny_with_words()
    text: Any = encoders["text"]
    options = {"words": str(words), "top_k": 8}
    context = BuildContext(encoders=encoders, masks={"text": WordMask()})
    objectives = {"mssm": MSSM(context=context, **options), "lvwm": LVWM(context=context, **options)}
    model = VTPModel(encoders, objectives, masks=context.masks)
    batch = batch_for(model.specs(), 4, {}, {})
    ids = torch.tensor([[text.spec.cls_id, text.spec.sep_id]] * 4)
    batch.inputs["text"] = {"token_ids": ids, "attention_mask": torch.ones_like(ids, dtype=torch.bool)}
    ctx = ForwardContext(model, batch)
    for objective in objectives.values():
        objective.plan(ctx)
    mssm = objectives["mssm"](ctx)
    lvwm = objectives["lvwm"].loss_from_features(objectives["lvwm"].features(ctx))
    assert (mssm.loss.item(), int(mssm.weight)) == (0.0, 0)
    assert int(lvwm.weight) == 4 and lvwm.loss.isfinite()
    (mssm.loss + lvwm.loss).backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.slow
@pytest.mark.parametrize(("cls", "options"), CASES[:3])
def test_two_processes_are_one(cls: Any, options: dict[str, Any], words: Path) -> None:
    checked(cls, options, words, processes=2)


def test_option_files_name_every_option() -> None:
    """With the defaults of the class, but for those that depend on the variant or follow another objective."""
    folder = Path(vtp_snps3.__file__).parent / "conf" / "objective" / "snps3"
    for name, cls in {"mssm": MSSM, "lvwm": LVWM}.items():
        given = yaml.safe_load((folder / f"{name}.yaml").read_text())
        assert given.pop("name") == f"snps3_{name}"
        assert given.pop("weight") == 1.0
        parameters = {n: p for n, p in inspect.signature(cls).parameters.items() if n != "context"}
        assert set(given) == set(parameters)
        for option, value in given.items():
            if str(value).startswith("${"):
                value = yaml.safe_load(str(value).removesuffix("}").rpartition(",")[2])
            assert value == parameters[option].default, (name, option)
