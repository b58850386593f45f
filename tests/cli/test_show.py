"""`vtp show KIND NAME`: the hook, a command, the docstring, and every key with type, default and meaning."""

from __future__ import annotations

import re

import pytest

from vtp.cli.components import PLAIN, argument_texts, options_of, use
from vtp.cli.main import main
from vtp.cli.run import compose
from vtp.options import below, first_comment, option_files
from vtp.plugins import RESERVED, host
from vtp.run.check import check

WORDS = """Something.

Args:
    width: of the space,
        in channels.
    heads, depth: as usual.

Raises:
    ConfigError: other: things.
"""


def test_what_a_docstring_says_of_its_arguments():
    assert argument_texts(WORDS) == {
        "width": "of the space, in channels.", "heads": "as usual.", "depth": "as usual."
    }  # fmt: skip
    assert argument_texts("No arguments.") == {}


def test_a_component_is_shown_whole(capsys):
    assert main(["show", "objective", "vtc"]) == 0
    out = capsys.readouterr().out
    assert "# class vtp_objectives.vtc.VTC of vtp-core, registered with vtp_register_objectives" in out
    assert "# use: vtp run task=msrvtt_retrieval dataset=shapes objective=[vtc]" in out
    assert "# VTC: Contrastive loss between a pair of modalities." in out
    (row,) = [line for line in out.splitlines() if re.match(r"#   directions ", line)]
    assert re.split(r"\s{2,}", row[1:].strip()) == [
        "directions",
        "one of 'mean', 'sum'",
        "mean",
        "of ``softmax``: mean or sum of both cross-entropies.",
    ]
    assert not re.search(r"^#   context ", out, re.M)


@pytest.mark.parametrize(
    "kind",
    [
        "task",
        "encoder/fusion",
        *(pytest.param(k, marks=pytest.mark.slow) for k in ("model", "encoder/video", "objective")),
    ],
)
def test_the_command_that_is_shown_composes(kind):
    group = below(option_files(), kind)
    name = "msrvtt_qa" if kind == "task" else min(name for name in group if name not in ("none", "mam"))
    command = use(kind, name)
    assert command.startswith("vtp run ") and compose([*command.split()[2:], "run_dir=x"])


@pytest.mark.parametrize("kind", ["encoder/fusion", "encoder/text"])
def test_the_command_of_an_empty_slot_is_one_that_needs_none(kind, tmp_path):
    check(compose([*use(kind, "none").split()[2:], "run_dir=x"]), tmp_path)


@pytest.mark.parametrize(
    ("kind", "name", "command"),
    [
        ("model", "base", "task=msrvtt_qa dataset=shapes model=base"),
        ("model", "dual", "task=msrvtt_retrieval dataset=shapes model=dual"),
        ("model", "simvtp_dual_released", "task=msrvtt_retrieval dataset=shapes model=simvtp_dual_released"),
        ("model", "clap", "task=audiocaps_retrieval dataset=shapes model=clap"),
        ("objective", "vtm", "task=msrvtt_qa dataset=shapes objective=[qa,vtm]"),
        ("objective", "qa", "task=msrvtt_qa dataset=shapes objective=[qa]"),
        ("objective/univl", "moco", "task=msrvtt_retrieval dataset=shapes objective=[univl/moco]"),
        ("objective", "univl/moco", "task=msrvtt_retrieval dataset=shapes objective=[univl/moco]"),
        ("objective/univl", "hscl", "task=msrvtt_qa dataset=shapes objective=[qa,univl/hscl]"),
    ],
)
def test_the_command_fits_what_the_option_needs(kind, name, command):
    assert use(kind, name) == f"vtp run {command}"


def test_an_experiment_that_evaluates_asks_for_a_checkpoint(capsys):
    assert main(["show", "experiment", "snps3/eval_msrvtt_mc"]) == 0
    assert "# use: vtp run experiment=snps3/eval_msrvtt_mc checkpoint=RUN\n" in capsys.readouterr().out


def test_a_command_that_is_shown_has_what_must_be_given(install, capsys):
    hook = "from vtp import hookimpl\n\n@hookimpl\ndef vtp_register_datasets(register):\n"
    hook += "    register('films', 'films.parts:Films')\n"
    parts = "class Films:\n    def __init__(self, *, root: str): ...\n"
    install("films", hook, files={"parts.py": parts, "conf/dataset/films.yaml": "# Films.\nname: films\nroot: ???\n"})
    host.cache_clear()
    try:
        assert main(["show", "dataset", "films"]) == 0
    finally:
        host.cache_clear()
    assert "# use: vtp run task=retrieval dataset=films dataset.root=...\n" in capsys.readouterr().out


@pytest.mark.parametrize(("kind", "names"), RESERVED.items())
def test_choices_of_the_core_are_explained(kind, names, capsys):
    for name in names:
        assert main(["show", kind, name]) == 0
        head, text = capsys.readouterr().out.splitlines()
        assert head.endswith(f"={name}") and len(text) > 3


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (["# One. Two.", "# Three."], "One. Two."),
        (["# One. Two goes", "# on. Three."], "One."),
        (["# @package x", "# One goes", "# on here. Two."], "One goes on here."),
        (["# One: x=none", "name: null"], "One: x=none"),
        (["# One goes", "#", "# Two."], "One goes"),
    ],
)
def test_what_an_option_is_ends_with_a_sentence(tmp_path, lines, said):
    (tmp_path / "one.yaml").write_text("\n".join(lines))
    assert first_comment(tmp_path / "one.yaml") == said


@pytest.mark.parametrize(("kind", "name"), [("dataset", "howto100m"), ("encoder/video", "tower")])
def test_what_a_base_class_says_of_an_option_is_shown(kind, name):
    entry = host().registry.get(kind, name)
    assert "Args:" not in (entry.load().__doc__ or "")
    assert [row[0] for row in options_of(entry) if not row[3]] == []


@pytest.mark.slow
def test_every_option_of_every_component_has_a_meaning():
    entries = [one for one in host().registry.entries() if one.kind not in PLAIN and one.kind != "command"]
    assert len(entries) > 60
    assert [(one.kind, one.name, row[0]) for one in entries for row in options_of(one) if not row[3]] == []
