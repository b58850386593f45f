"""What cannot be scored is said before the first step, with exit code 2, and nothing is left behind."""

from __future__ import annotations

from pathlib import Path

import pytest

from vtp.cli.main import main

CAPTIONS = "video,caption,split\n" + "".join(f"c{n}.mp4,a dog {n},{'val' if n > 5 else 'train'}\n" for n in range(8))
HEAD = "video,question,answer,split\n"
QUESTIONS = HEAD + "".join(
    f"c{n}.mp4,who {n}?,{'dog' if n < 6 else ''},{'test' if n > 3 else 'train'}\n" for n in range(8)
)
CHOICES = QUESTIONS.replace("answer,", "a0,a1,answer,").replace("?,", "?,dog,cat,")


@pytest.mark.parametrize(
    "task, text, words",
    [
        ("retrieval", CAPTIONS, "nothing in the test split to evaluate. task.split=val takes that split (2 items)"),
        ("retrieval", CAPTIONS.replace("val", "test").replace("train", "val"), "there is nothing to train on"),
        ("qa", QUESTIONS.replace("test", "val"), "nothing in the test split to evaluate. task.split=val"),
        ("qa", QUESTIONS, "2 of 4 questions of the test split have no answer (first: 8)"),
        ("multiple_choice", CHOICES.replace("test", "val"), "nothing in the test split to evaluate. mode=train"),
        ("multiple_choice", CHOICES, "2 of 4 questions of the test split have no answer (first: 8)"),
    ],
)
def test_before_the_first_step(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    task: str,
    text: str,
    words: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("my.csv").write_text(text)
    options = ["task.selection=last", "threads=1", "data.workers=0", "train.tensorboard=false"]
    code = main(["run", f"task={task}", "dataset=csv", "dataset.file=my.csv", "run_dir=out", *options])
    told = capsys.readouterr()
    assert code == 2 and words in told.err and "Traceback" not in told.err, told.err
    assert not Path("out").exists()
