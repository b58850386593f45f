"""What components are asked: defaults, members that must be there, and misspelt ones."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from torch import nn

from vtp import contracts
from vtp.contracts import (
    Component,
    Dataset,
    Encoder,
    Fusion,
    Objective,
    Table,
    Task,
    contract_of,
    member,
    members,
    offers,
    unfit,
)
from vtp.data.table import clip_names
from vtp.errors import PluginError
from vtp.model.objective import ContrastiveObjective
from vtp.model.objective import Objective as ObjectiveBase
from vtp.types import Sample

ROOT = Path(__file__).resolve().parents[1]
SOURCES = sorted(
    file for folder in ("core", "plugins") for file in (ROOT / folder).rglob("*.py") if "tests" not in file.parts
)
ALL = {*contracts.CONTRACTS.values(), Table}


class Plain:
    """A data set exactly as small as docs/plugins.md allows."""

    def samples(self, kind, split):
        return [Sample("a", texts=("one", "two"), extra={"video_id": "v1"}), Sample("b", texts=("three",))]


def test_a_data_set_needs_nothing_but_samples():
    data = Plain()
    assert unfit(data, Dataset) == []
    assert member(data, Dataset, "name") == "plain"
    assert member(data, Dataset, "kinds") == ("caption", "retrieval", "qa")
    assert member(data, Dataset, "splits")("qa") == ("train", "val", "test")
    assert member(data, Dataset, "media_namespace") == "plain"
    data.name = "mine"
    assert member(data, Dataset, "media_namespace") == "mine"
    assert member(data, Dataset, "origin")() == {"name": "mine"}


def test_a_list_is_a_table():
    table = Plain().samples("qa", "train")
    assert member(table, Table, "select")([1]) == [table[1]]
    assert list(member(table, Table, "all_texts")()) == ["one", "two", "three"]
    assert member(table, Table, "video_ids") is None and list(clip_names(table)) == ["v1", "b"]
    assert member(table, Table, "media_numbers") is None and not offers(table, "select")


def test_what_a_component_says_counts_before_the_default():
    class Own(Plain):
        kinds = ("mc",)

        def splits(self, kind):
            return (kind,)

    assert member(Own(), Dataset, "kinds") == ("mc",) and member(Own(), Dataset, "splits")("mc") == ("mc",)


def test_a_slot_that_is_empty_has_the_defaults():
    assert member(None, Fusion, "unimodal") is False and member(None, Fusion, "consumes") == {}


def test_a_member_without_default_must_be_there():
    with pytest.raises(PluginError, match=r"test_contracts\.Plain has no `width`, which a component"):
        member(Plain(), Encoder, "width")


def test_asking_for_what_no_contract_names_is_a_fault_of_the_caller():
    with pytest.raises(KeyError, match="pooled_widht"):
        member(Plain(), Encoder, "pooled_widht")


def test_the_fault_of_a_property_is_not_taken_for_its_absence():
    class Broken(Plain):
        @property
        def kinds(self):
            return self.nothing

    with pytest.raises(AttributeError, match="nothing"):
        member(Broken(), Dataset, "kinds")


class Widths(nn.Module):
    def __init__(self, **attributes):
        super().__init__()
        self.width, self.spec = 8, object()
        for name, value in attributes.items():
            setattr(self, name, value)

    def forward(self, video):
        raise NotImplementedError


@pytest.mark.parametrize(
    "name, meant",
    [
        ("pooled_widht", "pooled_width"),
        ("layer_off", "layer_of"),
        ("gird", "grid"),
        ("view_input", "view_inputs"),
        ("gradient_checkpoint_enable", "gradient_checkpointing_enable"),
        ("no_weight_decays", "no_weight_decay"),
    ],
)
def test_a_misspelt_member_is_told(name, meant):
    (problem,) = unfit(Widths(**{name: 3}), Encoder)
    assert problem.startswith(f"has `{name}`, which nothing reads. Is it meant to be `{meant}`?")


@pytest.mark.parametrize("name", ["pools", "weight", "widths", "specs", "deep", "embedding", "grids", "_gird"])
def test_a_name_of_ones_own_is_left_alone(name):
    assert unfit(Widths(**{name: 3}), Encoder) == []


def test_a_name_close_to_a_member_that_is_there_is_left_alone():
    assert unfit(Widths(pooled_widths=[1], pooled_width=1), Encoder) == []


def test_a_misspelt_member_that_must_be_there_is_told():
    class Wrong:
        def sampels(self, kind, split):
            return []

    (problem,) = unfit(Wrong(), Dataset)
    assert problem.startswith("has no `samples`") and problem.endswith("Is `sampels` meant to be it?")


def test_the_base_classes_of_objectives_keep_the_contract():
    for base in (ObjectiveBase, ContrastiveObjective):
        assert unfit(base(), Objective) == []
    lacking = {name for name in members(Objective) if not hasattr(ObjectiveBase, name)}
    assert lacking == {
        "renamed",
        "nested",
        "variants",
        "save_assets",
        "origin",
        "no_weight_decay",
        "features",
        "loss_from_features",
    } | {
        "after_step_on_shards",
        "embed",
        "similarity",
        "match_logits",
        "logits",
    }


def test_kinds_of_the_registry_have_contracts():
    assert contract_of("encoder/video") is Encoder and contract_of("encoder/fusion") is Fusion
    assert contract_of("task") is Task and contract_of("command") is Component


@pytest.mark.parametrize("contract", sorted(ALL, key=lambda c: c.__name__), ids=lambda c: c.__name__)
def test_every_member_says_what_it_is(contract):
    tree = ast.parse(Path(contracts.__file__).read_text())
    classes = {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}
    for base in contract.__mro__:
        if base.__name__ in classes:
            told = dict(_told(classes[base.__name__]))
            assert [name for name, text in told.items() if not text and not name.startswith("__")] == []


def _told(node: ast.ClassDef) -> Iterator[tuple[str, str]]:
    for one, following in zip(node.body, [*node.body[1:], None], strict=True):
        if isinstance(one, ast.FunctionDef):
            yield one.name, ast.get_docstring(one) or ""
        elif isinstance(one, ast.AnnAssign):
            text = following.value if isinstance(following, ast.Expr) else None
            yield ast.unparse(one.target), str(text.value) if isinstance(text, ast.Constant) else ""


def test_members_are_asked_for_in_one_place():
    """``getattr`` and ``hasattr`` with the name of a member are for :func:`vtp.contracts.member` alone."""
    names = {name for contract in ALL for name in members(contract)}
    found = []
    for file in SOURCES:
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in ("getattr", "hasattr"):
                name = node.args[1]
                if isinstance(name, ast.Constant) and name.value in names:
                    found.append(f"{file.relative_to(ROOT)}:{node.lineno} {ast.unparse(node)}")
    assert found == []


def test_importing_the_contracts_is_light():
    heavy = "import sys, vtp.contracts; print(sorted({'torch', 'numpy', 'av', 'hydra', 'pluggy'} & {*sys.modules}))"
    assert subprocess.run([sys.executable, "-c", heavy], capture_output=True, text=True).stdout.strip() == "[]"


SECTIONS = {
    "Component": "**Every component**",
    "Part": "**Every part of a model**",
    "_Layers": "**Encoder and fusion encoder**",
    "Encoder": "**Encoder**",
    "Fusion": "**Fusion encoder**",
    "Objective": "**Objective**",
    "Dataset": "**Data set**",
    "Table": "**Table**",
    "Task": "**Task**",
    "Importer": "**Importer**",
    "Decoder": "**Decoder**",
    "Sampler": "**Sampler**",
    "Transform": "**Transform**",
}


def test_the_documentation_names_every_member():
    text = (ROOT / "docs" / "plugins.md").read_text()
    text = text[text.index("## Contracts") : text.index("## Test it")]
    classes = {
        base.__name__: base for contract in ALL for base in contract.__mro__ if base.__module__ == "vtp.contracts"
    }
    assert set(classes) == set(SECTIONS)
    for name, base in classes.items():
        section = text[text.index(SECTIONS[name]) + 2 :]
        section = section[: section.index("\n**") if "\n**" in section else None]
        own = {one for one in members(base) if one in vars(base) or one in vars(base).get("__annotations__", {})}
        told = set(re.findall(r"`(\w+)[`(]", section))
        assert own - told == set(), name
