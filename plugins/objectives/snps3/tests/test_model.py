"""What `model=snps3` composes to, and a few steps of it with the words of a generated data set."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

import vtp_snps3
import vtp_tasks
import vtp_univl
from vtp.cli.main import main
from vtp.cli.run import compose

ROOT = Path(__file__).resolve().parents[4]
DATA = ROOT.parent / "shared" / "data"


@pytest.mark.parametrize(
    ("task", "dataset"),
    [pytest.param("msrvtt_qa", None, marks=pytest.mark.slow), ("msrvtt_qa", "shapes"), ("msrvtt_retrieval", "shapes")],
)
def test_the_objectives_stand_beside_those_of_the_task(task: str, dataset: str | None) -> None:
    given = [] if dataset is None else [f"dataset={dataset}"]
    found = compose([f"task={task}", "model=snps3", *given])
    univl = compose([f"task={task}", "model=univl", *given])
    assert set(found["objectives"]) == {*univl["objectives"], "mssm", "lvwm"}
    for key in ("encoder", "train", "data", "masks", "task"):
        assert found[key] == univl[key]
    weights = {name: found["objectives"][name]["weight"] for name in ("mssm", "lvwm")}
    assert set(weights.values()) == {0.0 if task.endswith("qa") else 1.0}  # as published: pre-training alone has them


def test_all_questions_are_trained_alike() -> None:
    """A task of questions that has no file here would train on words of questions."""
    tasks, recipes = (
        {file.stem for file in (Path(str(package.__file__)).parent / "conf" / group).glob("*qa.yaml")}
        for package, group in ((vtp_tasks, "task"), (vtp_snps3, "recipe/task"))
    )
    assert {"qa", "msrvtt_qa", "msvd_qa"} <= tasks
    assert recipes == {f"for_snps3_{name}" for name in tasks}


def test_generated_clips_have_the_recipes_of_univl() -> None:
    for folder in ("recipe/shapes", "recipe/shapes/task"):
        univl, snps3 = (
            {
                file.stem.replace("univl", "snps3"): file
                for file in (Path(str(package.__file__)).parent / "conf" / folder).glob("*.yaml")
            }
            for package in (vtp_univl, vtp_snps3)
        )
        assert univl.keys() == snps3.keys() != set()
        for name, file in snps3.items():
            assert yaml.safe_load(file.read_text()) == {"defaults": [univl[name].stem]}


def test_options_of_the_words_are_given_once_and_a_named_objective_has_its_weight() -> None:
    options = ["objectives.mssm.words=a.json", "objectives.mssm.top_k=7", "objectives.lvwm.weight=0.5"]
    found = compose(["task=qa", "model=snps3", "objective=[qa,snps3/mssm]", "variant=released", *options])
    assert {name: node["weight"] for name, node in found["objectives"].items()} == {"mssm": 1.0, "lvwm": 0.5, "qa": 1.0}
    lvwm = found["objectives"]["lvwm"]
    assert (lvwm["words"], lvwm["top_k"], lvwm["temperature"]) == ("a.json", 7, 1.0)
    own = compose(["task=pretrain", "model=univl", "objective=[univl/vtc,snps3/lvwm]"])["objectives"]["lvwm"]
    assert (own["words"], own["top_k"], own["temperature"]) == (None, 3000, 0.05)


@pytest.mark.slow
@pytest.mark.parametrize("task", ["msrvtt_qa", "msrvtt_retrieval"])
def test_a_run_trains_evaluates_and_is_evaluated_again(task: str, tmp_path: Path) -> None:
    """From the command line; the checkpoint keeps the words that were counted in the training texts."""
    command = ["run", f"task={task}", "model=snps3", "dataset=shapes", "dataset.size=tiny", "threads=1"]
    train = [*command, "train.steps=2", "train.global_batch=8", f"run_dir={tmp_path / 'run'}"]
    assert main(train) == 0
    checkpoint = next((tmp_path / "run" / "checkpoints").glob("step_*"))
    tables = {file.name: json.loads(file.read_text()) for file in checkpoint.rglob("snps3_*_words.json")}
    assert set(tables) == {"snps3_mssm_words.json", "snps3_lvwm_words.json"}
    words: list[dict[str, Any]] = tables["snps3_mssm_words.json"]["words"]
    assert {"red", "circle", "light", "shines"} & {row["word"] for row in words}
    assert not {"the", "is", "and"} & {row["word"] for row in words}
    again = [*command, "mode=eval", f"checkpoint={tmp_path / 'run'}", f"run_dir={tmp_path / 'eval'}"]
    assert main(again) == 0
    first, second = (json.loads((tmp_path / name / "report.json").read_text()) for name in ("run", "eval"))
    assert first["metrics"] == second["metrics"] and first["model"] == second["model"]
    for name in ("mssm", "lvwm"):
        named = first["model"][f"objectives.{name}"]["words"]
        assert named["vocabulary"] == first["model"]["encoders.text"]["vocabulary"]
        assert named["corpus"] == tables[f"snps3_{name}_words.json"]["corpus"]


@pytest.mark.slow
@pytest.mark.data
@pytest.mark.skipif(not (DATA.is_dir() and (ROOT / "tools").is_dir()), reason="the sample clips are not there")
@pytest.mark.parametrize("task", ["msrvtt_qa", "msvd_retrieval"])
def test_the_command_of_the_readme_starts_with_real_annotations(task: str, tmp_path: Path) -> None:
    """With the vocabulary of BERT; two clips of each data set are here."""
    name = task.partition("_")[0]
    tool = [sys.executable, str(ROOT / "tools" / f"{name}_sample_root.py"), str(DATA), str(tmp_path / name)]
    subprocess.run(tool, check=True, capture_output=True)
    vocabulary = DATA / "vocabs" / "bert-base-uncased_vocab.txt"
    small = [
        "encoder.text.preset=tiny",
        "encoder.video.preset=tiny",
        f"encoder.text.tokenizer={vocabulary}",
        "threads=1",
    ]
    short = ["mode=train", "train.steps=2", "train.global_batch=4", "train.epochs=null", "data.on_leak=stamp"]
    options = [f"dataset.root={tmp_path / name}", f"run_dir={tmp_path / 'run'}", "task.selection=last"]
    assert main(["run", f"task={task}", "model=snps3", *options, *small, *short]) == 0
    lines = (tmp_path / "run" / "metrics.jsonl").read_text()
    assert ("mssm" in lines, "lvwm" in lines) == (2 * (task == "msvd_retrieval",))
