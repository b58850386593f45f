"""What importers share: the table of prefixes, sizes from tensors, the report, and a strict fill."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from vtp.errors import DataError
from vtp.model.importing import Checkpoint, PrefixTable, read_checkpoint
from vtp.model.weights import fill

TABLE = PrefixTable(
    (
        ("visual.patch_embed.", "encoders.video.embedding.patch_embed."),
        ("visual.", "encoders.video."),
        ("token", "objectives.mvm.token"),
        ("head.", "objectives.vtm.head."),
    )
)


def test_the_first_prefix_counts_and_every_name_has_a_way_back():
    names = {
        "visual.patch_embed.weight": "encoders.video.embedding.patch_embed.weight",
        "visual.blocks.0.bias": "encoders.video.blocks.0.bias",
        "token": "objectives.mvm.token",
        "token_type": None,  # a name without a dot at its end stands for itself
        "heads.weight": None,
    }
    assert {name: TABLE.ours(name) for name in names} == names
    renamed, unknown = TABLE.to_ours({name: i for i, name in enumerate(names)})
    assert unknown == ["token_type", "heads.weight"]
    assert TABLE.to_theirs(renamed) == ({name: i for i, name in enumerate(names) if names[name]}, [])
    assert TABLE.to_theirs({"encoders.text.x": 0}) == ({}, ["encoders.text.x"])
    assert PrefixTable((("", "encoders.video."),)).ours("norm.bias") == "encoders.video.norm.bias"


def checkpoint(tmp_path, **tensors):
    return Checkpoint(tmp_path / "a.pth", tensors)


def test_sizes_are_read_off_the_tensors(tmp_path):
    names = ("e.blocks.0.x", "e.blocks.11.x", "e.blocks.2.x", "d.blocks.40.x")
    found = checkpoint(tmp_path, **dict.fromkeys(names, torch.zeros(128)))
    assert (found.depth("e.blocks."), found.depth("other.")) == (12, 0)
    assert found.need("e.blocks.2.x").shape == (128,)
    assert (found.heads("heads", None, 128), found.heads("heads", 4, 96)) == (2, 4)
    with pytest.raises(DataError, match=r"a.pth: a width of 96 .* Say it: text_heads=\.\.\."):
        found.heads("text_heads", None, 96)
    with pytest.raises(DataError, match="heads=5 does not divide the width 96"):
        found.heads("heads", 5, 96)
    with pytest.raises(DataError, match=r"a.pth: .* it lacks nothing\.weight"):
        found.need("nothing.weight")


def test_the_report_accounts_for_every_tensor(tmp_path):
    names = ("visual.a", "token", "head.weight", "unknown", "visual.counter")
    found = checkpoint(tmp_path, **{name: torch.tensor(float(i)) for i, name in enumerate(names)})
    found.drop((name for name in found.tensors if name.endswith("counter")), "counts")
    found.notes.append("a note")
    spec = {"encoders": {"video": {"name": "x"}}, "objectives": {"vtm": {"name": "vtm"}}}
    same, state, report = found.imported("a thing", spec, TABLE, {"objectives.vtm.new.*": "new"})
    assert same is spec and {name: int(value) for name, value in state.items()} == {
        "encoders.video.a": 0,
        "objectives.vtm.head.weight": 2,
    }
    assert report == {
        "kind": "a thing",
        "file": str(tmp_path / "a.pth"),
        "used": {"visual.a": "encoders.video.a", "head.weight": "objectives.vtm.head.weight"},
        "dropped": {
            "visual.counter": "counts",
            "token": "no part of the model",  # the model has no objective mvm
            "unknown": "no part of the model",
        },
        "missing": {"objectives.vtm.new.*": "new"},
        "notes": ["a note"],
    }


def test_a_fill_is_strict_and_all_or_nothing(tmp_path):
    model = nn.ModuleDict({"a": nn.Linear(2, 3), "b": nn.Linear(3, 1)})
    tensors = {"a.weight": torch.ones(3, 2), "b.weight": torch.ones(1, 4), "c": torch.ones(1), "b.bias": torch.ones(1)}
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(DataError) as caught:
        fill(model, tensors, tmp_path / "f", advice="Do that.")
    assert str(caught.value).splitlines() == [
        f"{tmp_path / 'f'} does not fit the model:",
        "  b.weight has shape (1, 4) in the file, (1, 3) in the model",
        "  1 tensors of the model are not in the file: a.bias",
        "  1 tensors of the file are not in the model: c",
        "Do that.",
    ]
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    report = fill(model, tensors, tmp_path / "f", allow_missing=["a.bias", "b.w*"], allow_unused=["c"])
    assert report.loaded == ["a.weight", "b.bias"] and report.missing == ["a.bias", "b.weight"]
    assert torch.equal(model["a"].weight, torch.ones(3, 2)) and torch.equal(model["a"].bias, before["a.bias"])


def test_a_prefix_that_every_tensor_carries_is_noted_and_taken_off(tmp_path):
    torch.save({"state_dict": {"module.x": torch.zeros(2).half(), "module.n": torch.zeros(1)}}, tmp_path / "a.pt")
    found = read_checkpoint(tmp_path / "a.pt")
    assert set(found.tensors) == {"x", "n"} and found.tensors["x"].dtype == torch.float32
    assert found.notes == [
        "tensors under 'state_dict'",
        "prefix 'module.' removed",
        "float16 converted to float32",
    ]


@pytest.mark.parametrize("content", [b"\xff\xfetag", b"", b"../other", b"a\x00b", b"t" * 5000], ids=repr)
def test_a_latest_that_names_no_folder_is_one_line(tmp_path, content):
    """That of DeepSpeed: not UTF-8, empty, a path out of the folder, no text, longer than any name."""
    (tmp_path / "latest").write_bytes(content)
    with pytest.raises(DataError, match=r"latest (cannot be read|should name a folder beside it)") as told:
        read_checkpoint(tmp_path)
    assert "\n" not in str(told.value) and len(str(told.value)) < 600


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("[" * 100_000, "is not valid JSON"),
        ('{"a":' * 100_000, "is not valid JSON"),
        ("{", "is not valid JSON"),
        (b"\xff\xfe", "is not valid JSON"),
        ("[1]", "holds a list, expected a dict"),
        ("null", "holds a NoneType, expected a dict"),
    ],
    ids=["lists", "dicts", "cut", "binary", "list", "null"],
)
def test_a_configuration_of_transformers_that_is_none_is_one_line(tmp_path, content, words):
    save_file({"x": torch.zeros(1)}, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(DataError, match=words) as told:
        read_checkpoint(tmp_path)
    assert "config.json" in str(told.value) and "\n" not in str(told.value)
