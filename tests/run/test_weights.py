"""Where weights come from: files of a checkpoint, pointers, a best one that is gone; and what a run says of itself."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors.torch import load_file
from tokenizers import Tokenizer

from vtp.errors import DataError
from vtp.run.start import checkpoint_folder
from vtp_encoders.tokenizers import origin_of, spec_of


@pytest.mark.slow
def test_a_run_starts_from_the_averaged_weights(
    vtp: Callable[..., int], table: Callable[..., str], capsys: pytest.CaptureFixture[str]
) -> None:
    data = f"dataset.file={table('a.csv', train=range(12), test=range(12, 16))}"
    assert vtp(data, "mode=train", "train.ema_decay=0.5", "run_dir=a") == 0
    for name in ("ema", "model"):
        file = f"a/checkpoints/last/{name}.safetensors"
        still = ["train.lr=1e-20", "train.warmup=0", "train.weight_decay=0", "train.steps=1"]
        assert vtp(data, "mode=train", f"init_from={file}", f"run_dir={name}", *still) == 0
        got, want = load_file(f"{name}/checkpoints/last/model.safetensors"), load_file(file)
        assert all((got[key] - value).abs().max() < 1e-6 for key, value in want.items())
        stages = json.loads(Path(name, "checkpoints/last/provenance.json").read_text())["stages"]
        assert [stage["stage"] for stage in stages] == ["a", name]
    Path("any-file.txt").write_text("nothing of use " * 1000)
    Path("model.pt").write_bytes(b"\x80\x02}q\x00.")
    capsys.readouterr()
    for option, words in [
        ("resume=any-file.txt", "any-file.txt is a file: neither a checkpoint"),
        ("init_from=any-file.txt", "any-file.txt"),
        ("resume=a/checkpoints/last/ema.safetensors", "a file of weights alone"),
        ("checkpoint=a/checkpoints/last/ema.safetensors", "a file of weights alone"),
        ("init_from=model.pt", "is a pickle by its name"),
    ]:
        assert vtp(data, option, "run_dir=b") == 2
        told = capsys.readouterr().err
        assert words in told and "Traceback" not in told and told.splitlines()[-1].startswith("vtp run: ")


def test_a_best_that_points_nowhere_is_no_other_checkpoint(tmp_path: Path) -> None:
    folder = tmp_path / "run" / "checkpoints"
    (folder / "step_00000004").mkdir(parents=True)
    os.symlink("/gone/step_00000002", folder / "best")
    with pytest.raises(DataError, match="best points at /gone/step_00000002, which is not there.*holds: step_00000004"):
        checkpoint_folder(tmp_path / "run")
    (folder / "best").unlink()
    (folder / "best").write_text("/gone/step_00000002\n")
    with pytest.raises(DataError, match="best is a file"):
        checkpoint_folder(tmp_path / "run")


@pytest.mark.slow
def test_a_run_that_was_continued_elsewhere_stands_on_its_own(
    vtp: Callable[..., int], table: Callable[..., str]
) -> None:
    """The old folder may go: the best checkpoint is here as well."""
    data = f"dataset.file={table('v.csv', train=range(8), val=range(8, 12), test=range(12, 16))}"
    chosen = [data, "task.selection=val", "train.eval_every=2", "train.monitor=t2v/r1", "train.keep=1"]
    assert vtp(*chosen, "mode=train", "run_dir=a") == 0
    best = Path("a/checkpoints/best").resolve().name
    assert vtp(*chosen, "mode=train", "resume=a", "train.steps=6", "run_dir=b") == 0
    shutil.rmtree("a")
    assert Path("b/checkpoints/best/model.safetensors").is_file()
    if best == "step_00000002":  # the later ones are no better: equal ones leave the first
        assert Path("b/checkpoints/best").resolve().parent == Path("b/checkpoints").resolve()
    assert vtp(*chosen, "mode=eval", "checkpoint=b", "run_dir=c") == 0


def test_training_that_cannot_learn_is_mentioned_in_the_report(
    vtp: Callable[..., int], table: Callable[..., str], capsys: pytest.CaptureFixture[str]
) -> None:
    """One clip per step has no negatives: the contrastive loss is 0 from the start."""
    data = f"dataset.file={table('a.csv', train=range(12), test=range(12, 16))}"
    assert vtp(data, "train.global_batch=1", "run_dir=a") == 0
    warnings = json.loads(Path("a/report.json").read_text())["warnings"]
    assert [w for w in warnings if w.startswith("nothing is learned: up to step 3 the loss is 0 and its gradient is 0")]
    assert "nothing is learned" in capsys.readouterr().err


def test_a_selection_by_nothing_is_mentioned_in_the_report(
    vtp: Callable[..., int], table: Callable[..., str], clips: Path
) -> None:
    file = table("bad.csv", train=range(8), val=[20, 21], test=range(12, 16))
    for number in (20, 21):
        (clips / f"c{number}.mp4").write_bytes(b"no video")
    assert vtp(f"dataset.file={file}", "task.selection=val", "data.max_bad_fraction=1", "run_dir=a") == 0
    warnings = json.loads(Path("a/report.json").read_text())["warnings"]
    assert [w for w in warnings if w.startswith("selection: none of 2 ") and "of val could be evaluated" in w]


def test_report_and_checkpoint_name_what_the_model_was_made_of(
    vtp: Callable[..., int], table: Callable[..., str]
) -> None:
    made_of = {}
    for name, options in {"a": ["run_dir=a"], "b": ["mode=eval", "checkpoint=a", "run_dir=b"]}.items():
        assert vtp(f"dataset.file={table('words.csv', train=range(12), test=range(12, 16))}", *options) == 0
        made_of[name] = json.loads(Path(name, "report.json").read_text())["model"]
    kept = json.loads(Path("a/checkpoints/last/provenance.json").read_text())["model"]
    spec = spec_of(Tokenizer.from_file("a/checkpoints/last/assets/encoders/text/tokenizer.json"), 8)
    assert spec.vocab_size == 5 + len({"dark", "light", "clip"})
    assert made_of["a"] == made_of["b"] == kept == {"encoders.text": origin_of(spec)}
