"""A value on the command line is the text that stands there, whatever a path is made of."""

from __future__ import annotations

import itertools

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from vtp.cli.main import main
from vtp.cli.run import _quoted, compose


def test_every_text_that_is_no_list_comes_through() -> None:
    parser = OverridesParser.create()
    for letters in itertools.product(["a", "\\", '"', "'", "#", "ü", "=", "(", "{"], repeat=3):
        text = "a" + "".join(letters)
        setting = _quoted(f"run_dir={text}")
        if "\\" in text and setting == f"run_dir={text}":
            continue  # what hydra reads, it reads as always: a=b\\,c is a text with a comma
        assert parser.parse_overrides([setting])[0].value() == text


@pytest.mark.parametrize(
    "setting",
    ["a=[1,2]", "a={b: c}", "a='b=c'", 'a="b#c"', "a=1,2", "a=ü,ö", "a=${b}", "a=1e-3", "a=null", "a=", "~a", "+a=b c"],
)
def test_what_hydra_reads_as_more_than_a_text_stays(setting: str) -> None:
    assert _quoted(setting) == setting


def test_a_run_takes_any_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/people/zoë")
    given = ["task=msrvtt_qa", "dataset=shapes", "run_dir=runs/lr=0.1 (ü)#2", "dataset.root=~/clips"]
    config = compose(given)
    assert (config["run_dir"], config["dataset"]["root"]) == ("runs/lr=0.1 (ü)#2", "/people/zoë/clips")


def test_how_a_list_is_written_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "task=msrvtt_qa", "run_dir=ü,b"]) == 2
    assert "Write lists as [a,b], and a text that reads as something else as 'run_dir=\"TEXT\"'." in (
        capsys.readouterr().err
    )
