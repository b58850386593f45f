"""Faulty components of plugins through the public commands: each ends with one line that names component and plugin and
says what was expected, none with a traceback on the screen, none in silence."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from vtp.cli.main import main
from vtp.plugins import host

PLUGIN = """
from vtp import hookimpl

@hookimpl
def vtp_register_encoders(register):
    register("odd", "odd.model:Frames", slot="video")

@hookimpl
def vtp_register_objectives(register):
    register("odd", "odd.model:Loss")

@hookimpl
def vtp_register_datasets(register):
    register("odd", "odd.data:Odd")

@hookimpl
def vtp_register_tasks(register):
    register("odd", "odd.task:Odd")

@hookimpl
def vtp_register_importers(register):
    register("odd", "odd.importer:read")

@hookimpl
def vtp_register_callbacks(register):
    register("odd", "odd.watch:Watch")
    register("misspelt", "odd.watch:Misspelt")
    register("stranger", "odd.watch:Stranger")

@hookimpl
def vtp_register_commands(register):
    for name in ("odd-raises", "odd-text", "odd-empty", "odd-fine"):
        register(name, "odd.commands:" + name.removeprefix("odd-"))
"""

FILES = {
    "model.py": """
import torch
from torch import nn
from vtp.model.objective import Objective, masked_mean
from vtp.types import LossOutput, Tokens, VideoSpec

class Frames(nn.Module):
    def __init__(self, *, fault: str = ""):
        super().__init__()
        self.width, self.spec, self.head, self.fault = 16, VideoSpec(frames=2, size=32), nn.Linear(3, 16), fault

    def forward(self, video):
        x = self.head(video.mean(dim=(3, 4)))
        if self.fault == "raises":
            return {}["no such key"]
        if self.fault == "tensor":
            return x
        if self.fault == "poison":
            x = x + float("nan")
        return Tokens(x, torch.ones(x.shape[:2], dtype=torch.bool, device=x.device))

class Loss(Objective):
    needs = frozenset({"video"})

    def __init__(self, *, fault: str = ""):
        super().__init__()
        self.scale, self.fault = nn.Parameter(torch.ones(1)), fault

    def forward(self, ctx):
        if self.fault == "view":
            ctx.inputs("video", "never made")
        loss = masked_mean(ctx.pooled("video").float().square().mean(1) * self.scale, self.rows(ctx))
        return LossOutput(loss.detach() if self.fault == "detached" else loss, self.rows(ctx).sum())
""",
    "data.py": """
from pathlib import Path
from vtp.types import MediaRef, Sample

class Odd:
    def __init__(self, *, fault: str = ""):
        if fault == "constructor":
            raise KeyError("annotations")
        self.fault = fault

    def samples(self, kind, split):
        if self.fault == "raises":
            raise ZeroDivisionError("of my own")
        if self.fault == "none":
            return None
        if self.fault == "dicts":
            return [{"id": "a"}] * 8
        if self.fault == "generator":
            return (Sample(str(i), texts=("a",)) for i in range(8))
        return [Sample(f"{split}{i}", texts=("what is it?",), labels={"answer": "b"}) for i in range(8)]
""",
    "task.py": """
import numpy as np
import torch
from vtp.errors import ConfigError
from vtp.eval.task import TaskResult

class Odd:
    name, kind, selection = "odd", "retrieval", "last"

    def __init__(self, *, dataset, fault: str = ""):
        self.dataset, self.fault = dataset, fault
        self.selection = "val" if fault in ("monitor", "no such metric", "float32") else "last"
        self.monitor = "score" if fault == "monitor" else ("score", "max")
        self.metrics = ("score", "loss") if fault == "no such metric" else ()

    def samples(self, split):
        return self.dataset.samples("retrieval", split)

    def train_samples(self):
        return self.samples("train")

    def labels(self, sample):
        return {"text": "of letters"} if self.fault == "labels" else {}

    def check(self, model):
        if self.fault == "check":
            raise ConfigError("the model has no objective 'mine'")

    def evaluate(self, evaluator, split="test", *, detail=True):
        found = evaluator.run(self.samples(split), lambda ctx: {"it": ctx.present("video")}, what="clips")
        scores = {"float32": np.float32(0.5), "text": "good", "infinite": float("inf")}
        score = scores.get(self.fault, torch.tensor(0.25))
        if self.fault == "dict":
            return {"score": 1.0}
        result = TaskResult("odd", split, {"score": score}, found.ledger, predictions=[{"id": i} for i in found.ids])
        result.chart = {"model": {"all": 1.0}}
        return result

    def predict(self, evaluator, split="test"):
        return None if self.fault == "predict" else self.evaluate(evaluator, split)

    def examples(self, evaluator, result, count=4):
        if self.fault == "examples":
            raise KeyError("no frames")
        return []
""",
    "importer.py": """
import torch

def read(path, *, fault: str = ""):
    spec = {"encoders": {"video": {"name": "odd"}}, "objectives": {}}
    state = {"encoders.video.head.weight": torch.ones(16, 3), "encoders.video.head.bias": torch.ones(16)}
    if fault == "raises":
        raise IndexError("layer 12")
    if fault == "two":
        return spec, state
    if fault == "list":
        state["encoders.video.head.bias"] = [1.0] * 16
    report = {"kind": "odd", "used": list(state)}
    if fault == "unused":
        del report["used"]
    if fault == "missing":
        report["missing"] = ["a"]
    return spec, state, report
""",
    "watch.py": """
from pathlib import Path
from vtp.train.callbacks import Callback

class Watch(Callback):
    def __init__(self, *, every: int = 1, fault: str = ""):
        self.every, self.fault = every, fault

    def on_step_end(self, trainer, *, step, **facts):
        if self.fault:
            raise RuntimeError("tired")
        if step % self.every == 0:
            with open(trainer.run_dir / "watched.txt", "a") as file:
                file.write(f"{step} ")

class Misspelt(Callback):
    def on_step_ends(self, trainer, **facts):
        pass

class Stranger:
    def on_step_end(self, trainer, **facts):
        pass
""",
    "commands.py": """
def raises(arguments):
    raise LookupError(f"nothing called {arguments[0]}")

def text(arguments):
    return "done"

def empty():
    return 0

def fine(arguments):
    print("fine", *arguments)
""",
    "conf/encoder/video/odd.yaml": "# Mean colours.\nname: odd\nfault: ''\n",
    "conf/objective/odd.yaml": "# @package objectives.odd\n# Length.\nname: odd\nweight: 1.0\nfault: ''\n",
    "conf/dataset/odd.yaml": "# Texts alone.\nname: odd\nfault: ''\n",
    "conf/task/odd.yaml": """# @package _global_
# Nothing of use.
defaults:
  - override /dataset: shapes
  - override /model: base
  - override /encoder/video@_global_.encoder.video: odd
  - override /objective: [odd]

task:
  name: odd
  fault: ''
""",
}
SMALL = [
    "train.steps=2",
    "train.epochs=null",
    "train.global_batch=4",
    "train.log_every=1",
    "train.tensorboard=false",
    "threads=1",
    "data.workers=0",
    "data.limit_eval=4",
]
RUN = ["run", "task=odd", "encoder/text=none", "encoder/audio=none", "encoder/fusion=none", *SMALL]


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> list[str]:
    return [f"dataset.root={tmp_path_factory.mktemp('shapes') / 'tiny'}", "dataset.size=tiny"]


@pytest.fixture
def odd(install, tmp_path, monkeypatch):
    install("odd", PLUGIN, distribution="vtp-plugin-odd", files=FILES)
    monkeypatch.chdir(tmp_path)
    host.cache_clear()
    yield tmp_path
    host.cache_clear()


IN_A_RUN = {
    "encoder raises": (["encoder.video.fault=raises"], 1, ["encoder.video=odd (vtp-plugin-odd)", "KeyError: 'no such"]),
    "encoder gives a tensor": (["encoder.video.fault=tensor"], 2, ["encoder.video=odd", "expected Tokens"]),
    "encoder gives nan": (
        ["encoder.video.fault=poison"],
        1,
        ["Step 1", "encoder.video=odd (vtp-plugin-odd) gave tokens"],
    ),
    "objective asks wrongly": (["objectives.odd.fault=view"], 1, ["objective=odd", "no view 'never made' of video"]),
    "objective detaches": (["objectives.odd.fault=detached"], 2, ["objective=odd", "detached from the graph"]),
    "task gives a dict": (
        ["task.fault=dict"],
        2,
        ["task=odd (vtp-plugin-odd) returned dict from evaluate", "TaskResult"],
    ),
    "task gives a text as metric": (["task.fault=text"], 2, ["task=odd", "metric 'score' as str", "expected a number"]),
    "task has no pair as monitor": (["task.fault=monitor"], 2, ["task=odd", "monitor='score'", "max or min"]),
    "no such metric": (
        ["task.fault=no such metric", "train.monitor=scores"],
        2,
        ["train.monitor=scores", "Did you mean 'score'"],
    ),
    "task refuses the model": (["task.fault=check"], 2, ["the model has no objective 'mine'"]),
    "labels are no numbers": (["task.fault=labels"], 2, ["task=odd", "label 'text' as str", "expected a number"]),
    "data set gives dicts": (
        ["dataset=odd", "dataset.fault=dicts"],
        2,
        ["dataset=odd", "dict in row 0", "types.Sample"],
    ),
    "data set gives none": (["dataset=odd", "dataset.fault=none"], 2, ["dataset=odd", "NoneType", "a sequence"]),
    "data set gives a generator": (
        ["dataset=odd", "dataset.fault=generator"],
        2,
        ["dataset=odd", "generator", "a sequence"],
    ),
    "data set raises": (["dataset=odd", "dataset.fault=raises"], 1, ["dataset=odd", "ZeroDivisionError: of my own"]),
    "data set cannot be built": (
        ["dataset=odd", "dataset.fault=constructor"],
        1,
        ["dataset=odd (vtp-plugin-odd)", "KeyError: 'annotations'"],
    ),
    "callback raises": (["callbacks=[{name: odd, fault: x}]"], 1, ["callback=odd", "RuntimeError: tired"]),
    "callback is misspelt": (["callbacks=[misspelt]"], 2, ["on_step_ends", "Did you mean 'on_step_end'"]),
    "callback is none": (["callbacks=[stranger]"], 2, ["stranger is no subclass of vtp.train.callbacks.Callback"]),
    "callback does not exist": (["callbacks=[odds]"], 2, ["callback 'odds'", "Did you mean 'odd'"]),
    "callback has no such option": (["callbacks=[{name: odd, often: 3}]"], 2, ["no option 'often'", "every"]),
    "callbacks are numbers": (["callbacks=[3]"], 2, ["callbacks: expected a name", "3"]),
}


# a run for each: the default run takes every second one, the slow one all
@pytest.mark.parametrize(
    "fault", [pytest.param(one, marks=[pytest.mark.slow] if place % 2 else []) for place, one in enumerate(IN_A_RUN)]
)
def test_a_fault_in_a_run_is_one_line_that_names_the_component(fault, odd, world, capsys):
    arguments, code, words = IN_A_RUN[fault]
    data = [] if "dataset=odd" in arguments else world
    assert main([*RUN, *data, *arguments, "run_dir=out"]) == code
    screen = capsys.readouterr()
    told = screen.err[screen.err.index("vtp run: ") :]
    assert "Traceback" not in screen.err and told.count("\n") == 1, screen.err
    assert not [word for word in words if word not in told], told
    if code == 1 and "Step" not in told:
        assert f"The traceback is in {odd / 'out' / 'run.log'}" in told
        assert "Traceback (most recent call last)" in (odd / "out" / "run.log").read_text()
    if code == 2:
        assert not list(Path(odd).glob("out/checkpoints/*")) or fault.startswith("task gives")


@pytest.mark.parametrize("workers", [0, 1])
def test_a_label_that_raises_in_a_loader_worker_is_told_as_well(odd, world, capsys, workers):
    text = (odd / "site" / "odd" / "task.py").read_text()
    (odd / "site" / "odd" / "task.py").write_text(text.replace('"of letters"', "1 // 0"))
    assert main([*RUN, *world, "task.fault=labels", f"data.workers={workers}", "run_dir=out"]) == 1
    told = capsys.readouterr().err
    assert "task=odd (vtp-plugin-odd): ZeroDivisionError" in told and "Traceback" not in told
    assert "1 // 0" in (odd / "out" / "run.log").read_text()


def test_a_data_set_without_media_is_no_silent_one(odd, capsys):
    main([*RUN, "dataset=odd", "mode=train", "run_dir=out"])
    assert "no training sample names a file of video, which the model takes" in capsys.readouterr().err


def report(folder: Path) -> dict:
    return json.loads((folder / "report.json").read_text())


def test_a_picture_that_fails_costs_no_report(odd, world, capsys):
    assert main([*RUN, *world, "task.fault=examples", "run_dir=out"]) == 0
    found = report(odd / "out")
    assert found["metrics"] == {"score": 0.25}
    assert [w for w in found["warnings"] if "there is no picture: task=odd (vtp-plugin-odd): KeyError" in w]
    assert (odd / "out" / "predictions.jsonl").is_file() and not (odd / "out" / "report.png").exists()
    assert "there is no picture" in capsys.readouterr().out


@pytest.mark.slow
def test_metrics_may_be_numbers_of_any_library(odd, world):
    assert main([*RUN, *world, "task.fault=float32", "train.tensorboard=true", "run_dir=out"]) == 0
    assert report(odd / "out")["metrics"] == {"score": 0.5}
    lines = [json.loads(line) for line in (odd / "out" / "metrics.jsonl").read_text().splitlines()]
    assert [line["evaluation"] for line in lines if "evaluation" in line] == [{"score": 0.5}]


def test_a_metric_that_is_no_finite_number_is_a_warning(odd, world):
    assert main([*RUN, *world, "task.fault=infinite", "run_dir=out"]) == 0
    assert "the metric score is inf, no finite number" in report(odd / "out")["warnings"]


def test_a_callback_runs_where_it_is_chosen(odd, world):
    assert main([*RUN, *world, "run_dir=silent"]) == 0
    assert not (odd / "silent" / "watched.txt").exists()
    assert main([*RUN, *world, "callbacks=[odd]", "run_dir=one"]) == 0
    assert (odd / "one" / "watched.txt").read_text() == "1 2 "
    assert main([*RUN, *world, "callbacks=[{name: odd, every: 2}]", "run_dir=two"]) == 0
    assert (odd / "two" / "watched.txt").read_text() == "2 "


IMPORTS = {
    "raises": (1, ["importer=odd (vtp-plugin-odd)", "IndexError: layer 12"]),
    "two": (2, ["importer=odd", "returned (dict, dict)", "(specification, tensors, report)"]),
    "list": (2, ["importer=odd", "'encoders.video.head.bias' as list", "expected a tensor"]),
    "unused": (2, ["importer=odd", "a report without 'used'"]),
    "missing": (2, ["importer=odd", "report['missing'] as list", "name to reason"]),
}


@pytest.mark.parametrize("fault", IMPORTS)
def test_a_faulty_importer_is_named_and_leaves_nothing(fault, odd, capsys):
    code, words = IMPORTS[fault]
    (odd / "theirs.bin").write_text("")
    assert main(["import", "odd", "theirs.bin", "ours", f"fault={fault}"]) == code
    told = capsys.readouterr().err
    assert "Traceback" not in told and not [word for word in words if word not in told], told
    assert not (odd / "ours").exists()
    assert main(["import", "odd", "theirs.bin", "ours"]) == 0


COMMANDS = {
    "odd-raises": (1, ["command=odd-raises (vtp-plugin-odd)", "LookupError: nothing called x", "VTP_TRACEBACK=1"]),
    "odd-text": (2, ["command=odd-text", "returned str", "the exit code"]),
    "odd-empty": (2, ["command=odd-empty", "cannot be called with the list of arguments"]),
}


@pytest.mark.parametrize("command", COMMANDS)
def test_a_faulty_command_is_named(command, odd, capsys):
    code, words = COMMANDS[command]
    assert main([command, "x"]) == code
    told = capsys.readouterr().err
    assert "Traceback" not in told and not [word for word in words if word not in told], told


def test_a_command_without_an_exit_code_is_done(odd, capsys):
    assert main(["odd-fine", "x"]) == 0 and capsys.readouterr().out == "fine x\n"


def test_a_bug_of_vtp_keeps_its_traceback(odd, world, monkeypatch):
    from vtp.train.trainer import Trainer

    def broken(self):
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(Trainer, "_clip", broken)
    with pytest.raises(ZeroDivisionError, match="a bug"):
        main([*RUN, *world, "run_dir=out"])


MISTAKES = {
    "retrieval without vtc": (["task=msrvtt_retrieval", "objective=[mlm]"], "no objective 'vtc' that embeds"),
    "qa without its head": (["task=msrvtt_qa", "objective=[mlm]"], "no objective 'qa' that scores answers"),
    "monitor of another task": (["task=msrvtt_qa", "train.monitor=t2v/r1"], "train.monitor=t2v/r1"),
    "re-ranking without vtm": (["task=msrvtt_retrieval", "task.rerank=3"], "no 'vtm' that does"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_what_is_known_before_the_first_step_is_told_before_it(mistake, world, tmp_path, monkeypatch, capsys):
    arguments, words = MISTAKES[mistake]
    monkeypatch.chdir(tmp_path)
    command = ["run", "dataset=shapes", *world, "model=base", *SMALL, *arguments]
    assert main([*command, "run_dir=out"]) == 2
    assert words in capsys.readouterr().err
    assert not (tmp_path / "out").exists()  # nothing was trained


def test_pre_training_with_an_objective_that_no_task_scores(world, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    command = ["run", "dataset=shapes", *world, "model=base", "task=msrvtt_retrieval", *SMALL]
    assert main([*command, "objective=[mlm]", "mode=train", "task.selection=last", "run_dir=out"]) == 0
