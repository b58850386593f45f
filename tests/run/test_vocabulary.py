"""A run on other texts from the weights of a run: its tokenizer has other ids for the same words."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import pytest

from vtp.cli.main import main


@pytest.fixture
def corpus(clips: Path) -> Callable[[str, str, str], str]:
    """``corpus("a.csv", "red", "cat")``: 8 captions, in which the first word is more frequent than the second."""

    def write(name: str, often: str, seldom: str) -> str:
        with open(clips / name, "w", newline="") as file:
            rows = csv.writer(file)
            rows.writerow(["video", "caption", "split"])
            rows.writerows([f"c{i}.mp4", f"{often} {'ball' if i else seldom}", "train"] for i in range(8))
        return f"dataset.file={clips / name}"

    return write


def test_other_texts_never_train_on_permuted_words(
    vtp: Callable[..., int], tiny: list[str], corpus: Callable[[str, str, str], str], capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = corpus("red.csv", "red", "cat"), corpus("cat.csv", "cat", "red")
    assert vtp(first, "mode=train", "train.save_every=2", "run_dir=a") == 0
    capsys.readouterr()
    assert vtp(second, "mode=train", "init_from=a", "run_dir=b") == 2
    told = capsys.readouterr().err.splitlines()[-1]
    assert told.startswith("vtp run: ") and "its words have other places" in told and "add model=" in told
    assert vtp(second, "mode=train", "resume=a", "train.steps=6", "run_dir=c") == 2
    told = capsys.readouterr().err.splitlines()[-1]
    assert told.startswith("vtp run: resume: ") and "its words have other places" in told
    kept = [option for option in tiny if not option.startswith(("model=", "encoder."))]
    assert main(["run", *kept, second, "mode=train", "model=a", "init_from=a", "run_dir=d"]) == 0
    words = [Path(run, "checkpoints/last/assets/encoders/text/tokenizer.json").read_text() for run in "ad"]
    assert words[0] == words[1]
