"""A protocol binds what it states: on exactly the official items, what else changes the number costs the name."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import yaml

from vtp.eval.evaluator import Evaluator
from vtp.eval.protocol import Protocol
from vtp.types import MediaRef, Sample
from vtp_tasks.multiple_choice import MultipleChoice
from vtp_tasks.qa import QuestionAnswering
from vtp_tasks.retrieval import Retrieval


def sample(number: int, *texts: str, **labels) -> Sample:
    media = MediaRef(f"clip{number}.mp4")
    return Sample(f"s{number}", media, media, texts, labels, {"video_id": f"clip{number}"})


class Same:
    """An objective that finds everything alike."""

    needs = frozenset({"video", "audio", "text"})

    def embed(self, ctx, modality):
        return torch.ones(len(ctx.batch.ids), 1)

    def logits(self, ctx):
        return torch.zeros(len(ctx.batch.ids), 3)


TABLES = {
    "retrieval": [sample(0, "a dog", "an animal"), sample(1, "a cat"), sample(2, "a car")],
    "qa": [sample(i, "what is it?", answer=("dog", "cat", "car")[i]) for i in range(3)],
    "mc": [sample(i, "a dog", "a cat", answer_index=i % 2) for i in range(3)],
}
TRAIN = [sample(i, "what is it?", answer=answer) for i, answer in enumerate(("dog", "cat", "pot"))]
CLASSES = {"retrieval": Retrieval, "qa": QuestionAnswering, "mc": MultipleChoice}
STATED = {
    "retrieval": {"metrics": ["t2v/r1", "v2t/r1"], "options": {"v2t": "any"}, "frames": 4},
    "qa": {"metrics": ["accuracy", "top10"], "options": {"answers_from": "train"}},
    "mc": {"metrics": ["accuracy"], "options": {"modality": "video"}},
}


def write_protocol(path: Path, samples, dataset: str, kind: str, **stated) -> str:
    """A protocol file that describes exactly these items."""
    found = Protocol.own(dataset, kind).match(samples, dataset, "test")
    parts = {"counts": dict(found.counts), "sha256": dict(found.sha256)}
    content = {"name": "mine", "title": "t", "dataset": dataset, "kind": kind, "split": "test", **parts, **stated}
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    return str(path)


@pytest.fixture
def evaluate(tmp_path, fake_dataset, fake_model, make_evaluator):
    """Evaluate a task on exactly the items of its protocol; options of the task, ``stated`` by the protocol, ``how``
    of the evaluator, and the answer ``list`` of a checkpoint."""

    def run(kind, options=(), stated=(), how=(), answers=None, train=TRAIN):
        file = write_protocol(tmp_path / "mine.yaml", TABLES[kind], "toy", kind, **STATED[kind] | dict(stated))
        missing = ("train",) if train is None else ()
        dataset = fake_dataset(train=train, test=TABLES[kind], val=TABLES[kind], missing=missing)
        given = {"answers": 3, "ablate": False, "selection": "last"} if kind == "qa" else {}
        task = CLASSES[kind](dataset=dataset, protocol=file, **given | dict(options))
        if answers is not None:
            task.use_answers(answers)
        model = fake_model(vtc=Same(), qa=Same())
        split = dict(options).get("split", "test")
        result = task.evaluate(make_evaluator(model, task, **dict(how)), split)
        return SimpleNamespace(
            protocol=result.protocol, warnings=result.warnings, name=result.title,
            printed="\n".join([table.title + "\n" + "\n".join(table.notes) for table in result.tables]),
        )  # fmt: skip

    return run


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("retrieval", {}),
        ("retrieval", {"dsl": True, "top": 2, "seed": 7, "selection": "last"}),  # further rows, and what is written
        ("qa", {}),
        ("qa", {"top": 1, "seed": 7, "breakdown": []}),
        ("mc", {"seed": 7}),
    ],
)
def test_what_changes_no_number_costs_nothing(evaluate, kind, options):
    found = evaluate(kind, options)
    assert found.protocol["official"] and found.protocol["differences"] == [] and found.name == "mine"
    assert found.printed.startswith("mine: ") and "protocol mine: the official test set" in found.printed


CASES = {
    "ties": ("retrieval", {"ties": "optimistic"}, {}, {}, "the tie rule is optimistic, not expected"),
    "ties of the protocol": ("retrieval", {}, {"ties": "average"}, {}, "the tie rule is expected, not average"),
    "ties of answers": ("qa", {"ties": "pessimistic"}, {}, {}, "the tie rule is pessimistic, not expected"),
    "ties of choices": ("mc", {"ties": "optimistic"}, {}, {}, "the tie rule is optimistic, not expected"),
    "several texts": ("retrieval", {"v2t": "set"}, {}, {}, "task.v2t is set, not any"),
    "split": ("retrieval", {"split": "val"}, {}, {}, "the split is val, not test"),
    "headline": ("retrieval", {}, {"metrics": ["r_mean", "t2v/r1"]}, {}, "the headline is t2v/r1, not r_mean"),
    "metric": ("retrieval", {}, {"metrics": ["t2v/r1", "t2v/r50"]}, {}, "not reported: t2v/r50"),
    "metric of answers": ("qa", {}, {"metrics": ["accuracy", "top5"]}, {}, "not reported: top5"),
    "sound": ("retrieval", {"gallery": "audio"}, {}, {}, "the headline is t2a/r1, not t2v/r1"),
    "sound of choices": ("mc", {"modality": "audio"}, {}, {}, "task.modality is audio, not video"),
    "frames": ("retrieval", {}, {"frames": 12}, {}, "the model sees 4 frames of a clip, not 12"),
    "clips": ("retrieval", {}, {}, {"facts": {"clips": 3}}, "the model sees 12 frames of a clip, not 4"),
    "frames of choices": ("mc", {}, {"frames": 1}, {}, "the model sees 4 frames of a clip, not 1"),
    "limit": ("retrieval", {}, {"counts": {}, "sha256": {}}, {"limit": 2},
              "only a part of the split was evaluated (data.limit_eval=2)"),
    "limit of answers": ("qa", {}, {"counts": {}, "sha256": {}}, {"limit": 2},
                         "only a part of the split was evaluated (data.limit_eval=2)"),
    "limit of choices": ("mc", {}, {"counts": {}, "sha256": {}}, {"limit": 2},
                         "only a part of the split was evaluated (data.limit_eval=2)"),
    "answers of the test set": ("qa", {"answers_from": "all"}, {}, {}, "task.answers_from is all, not train"),
    "no such option": ("mc", {}, {"options": {"v2t": "any"}}, {}, "task.v2t is not an option of this task, not any"),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_what_changes_the_number_costs_the_name(evaluate, case):
    kind, options, stated, how, reason = CASES[case]
    found = evaluate(kind, options, stated, how)
    assert not found.protocol["official"] and reason in found.protocol["differences"]
    name = found.protocol["name"]
    assert name == found.name == ("mine@toy:val" if case == "split" else "mine@toy")
    assert found.printed.startswith(f"{name}: ")
    line = f"protocol {name}: NOT the official mine ("
    assert line in found.printed and reason in found.printed and any(w.startswith(line) for w in found.warnings)


def test_with_one_text_per_clip_both_forms_are_the_same_number(evaluate, monkeypatch):
    monkeypatch.setitem(TABLES, "retrieval", [sample(0, "a dog"), sample(1, "a cat")])
    assert evaluate("retrieval", {"v2t": "set"}).protocol["official"]


@pytest.mark.parametrize(
    ("answers", "train", "official", "unverified"),
    [
        (("cat", "dog", "pot"), TRAIN, True, []),
        (("cat", "dog", "car"), TRAIN, False, []),  # car is an answer of test questions alone
        (("cat", "dog", "moon"), TRAIN, True, ["answers_from"]),  # a list from elsewhere
        (("cat", "dog", "car"), None, True, ["answers_from"]),  # no training answers to compare with
    ],
)
def test_the_list_of_a_checkpoint_is_judged_by_what_is_in_it(evaluate, answers, train, official, unverified):
    found = evaluate("qa", answers=answers, train=train).protocol
    assert found["official"] is official and found["unverified"] == unverified
    assert found["differences"] == ([] if official else ["task.answers_from is all, not train"])


def test_a_model_without_pictures_has_no_number_of_frames(fake_model):
    model = fake_model(specs={"audio": None})
    assert Evaluator(model, lambda samples, drop: ()).frames is None


@pytest.mark.slow
def test_a_run_with_another_tie_rule_is_not_called_official(tmp_path):
    """`vtp run` of the validation split, on exactly the items of the protocol."""
    from vtp_datasets.shapes.dataset import Shapes

    world = Shapes(size="tiny", root=tmp_path / "world")
    stated = {"split": "val", "metrics": ["accuracy"]}
    write_protocol(tmp_path / "mine.yaml", world.samples("qa", "val"), world.name, "qa", **stated)
    command = ["task=msrvtt_qa", "task.protocol=mine.yaml", "task.split=val", "task.ties=optimistic"]
    command += [
        "dataset=shapes",
        "dataset.size=tiny",
        "dataset.root=world",
        "run_dir=out",
        "threads=1",
        "task.ablate=false",
    ]
    command += ["train.steps=1", "train.global_batch=2", "train.eval_every=null", "train.tensorboard=false"]
    done = subprocess.run([sys.executable, "-m", "vtp", "run", *command], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "out/report.json").read_text(encoding="utf-8"))["protocol"]
    assert found["differences"] == ["the tie rule is optimistic, not expected"] and not found["official"]
    assert f"mine@{world.name}: accuracy in % by question type (val)" in done.stdout
    assert "NOT the official mine (the tie rule is optimistic, not expected)" in done.stdout
    assert "the official val set" not in done.stdout
