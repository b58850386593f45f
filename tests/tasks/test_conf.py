from __future__ import annotations

import functools
import inspect
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

import vtp_tasks
from vtp.cli.main import main
from vtp.cli.run import compose
from vtp.components import choose
from vtp.eval.protocol import Protocol
from vtp_tasks.captioning import Captioning
from vtp_tasks.classification import Classification
from vtp_tasks.moments import METRICS as OF_MOMENTS
from vtp_tasks.moments import MomentRetrieval
from vtp_tasks.multiple_choice import MultipleChoice
from vtp_tasks.pretrain import Pretrain
from vtp_tasks.qa import QuestionAnswering
from vtp_tasks.retrieval import Retrieval

CLASSES = {
    "captioning": Captioning,
    "classification": Classification,
    "moment_retrieval": MomentRetrieval,
    "multiple_choice": MultipleChoice,
    "pretrain": Pretrain,
    "qa": QuestionAnswering,
    "retrieval": Retrieval,
}
FOLDER = Path(vtp_tasks.__file__).parent
FILES = sorted((FOLDER / "conf/task").glob("*.yaml"))
SCORED = [path for path in FILES if path.stem != "pretrain"]


@functools.cache
def composed(name: str) -> dict[str, Any]:
    return dict(compose([f"task={name}"])["task"])


def options_of(path: Path) -> dict[str, Any]:
    """The node ``task`` that the file composes to, with all that it inherits."""
    return dict(composed(path.stem))


@pytest.mark.parametrize("path", SCORED, ids=lambda path: path.stem)
def test_every_shipped_task_builds(path, fake_dataset):
    options = options_of(path)
    name = options.pop("name")
    task = CLASSES[name](dataset=fake_dataset(), **options)
    assert task.protocol.kind == task.kind
    assert task.name == (options["protocol"] or name)


@pytest.mark.parametrize("name", CLASSES)
def test_the_file_of_a_class_states_its_defaults(name):
    """The file and the signature must not drift apart."""
    options = options_of(FOLDER / f"conf/task/{name}.yaml")
    del options["name"]
    defaults = {key: p.default for key, p in inspect.signature(CLASSES[name]).parameters.items() if key in options}
    assert {key: list(v) if isinstance(v, tuple) else v for key, v in defaults.items()} == options


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_argument_can_be_set_and_is_explained_by_vtp_show(path, capsys):
    assert path.read_text(encoding="utf-8").startswith("# @package _global_\n# ")
    options = options_of(path)
    component = CLASSES[options.pop("name")]
    run_gives = {"dataset", "seed", "val_share"}
    assert set(inspect.signature(component).parameters) - run_gives == set(options)
    assert main(["show", "task", path.stem]) == 0
    shown = capsys.readouterr().out
    assert all(re.search(rf"^  {name}: .+  # ", shown, re.M) for name in options)
    assert f"{component.__module__}.{component.__qualname__} of vtp-core" in shown


@pytest.mark.parametrize("path", [p for p in FILES if p.stem not in CLASSES], ids=lambda path: path.stem)
def test_a_benchmark_says_only_what_is_its_own(path):
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    inherited = options_of(FOLDER / f"conf/task/{content['defaults'][0]}.yaml")
    assert options_of(path) == inherited | content["task"]
    assert all(inherited[name] != value for name, value in content["task"].items())


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("retrieval", {"ties": "random", "v2t": "all", "split": "train"}),
        ("qa", {"ties": "random", "answers_from": "test", "split": "train"}),
        ("multiple_choice", {"ties": "random", "modality": "text"}),
        ("classification", {"ties": "random", "classes_from": "test", "split": "train"}),
        ("pretrain", {"table": "qa", "selection": "test"}),
        ("captioning", {"split": "train"}),
    ],
)
def test_choices_are_types_which_the_builder_checks(name, options):
    problems: list[str] = []
    choose("task", {"name": name, **options}, CLASSES.__getitem__, problems, given=("dataset",))
    assert {problem.partition(": expected one of ")[0] for problem in problems} == {f"task.{key}" for key in options}


METRICS = {
    "retrieval": {
        f"{d}/{m}" for d in ("t2v", "v2t", "t2a", "a2t", "t2va", "va2t") for m in ("r1", "r5", "r10", "mdr", "mnr")
    },
    "qa": {"accuracy", "top10", "in_vocabulary"},
    "mc": {"accuracy"},
    "moments": {*OF_MOMENTS},
    "caption": {"token_f1", "exact_match"},
    "classification": {"top1", "top5", "mean_class"},
}


@pytest.mark.parametrize("path", [p for p in FILES if p.stem not in CLASSES], ids=lambda path: path.stem)
def test_a_benchmark_as_it_stands_is_what_its_protocol_states(path):
    options = options_of(path)
    if options["protocol"] is None:  # a way to measure, of any data
        return
    protocol = Protocol.find(options["protocol"])
    assert protocol.ties == options.get("ties", "expected") and protocol.split == options.get("split", "test")
    spelt = {k: "+".join(map(str, v)) if isinstance(v, list) else v for k, v in options.items()}  # sides of retrieval
    usual = {"gallery": "video"}  # what null is called
    assert protocol.options == {name: spelt[name] or usual.get(name) for name in protocol.options}
    assert set(protocol.metrics) <= METRICS[protocol.kind]
    assert ("t2a" in "".join(protocol.metrics[:1])) == (options.get("gallery") == "audio")


def test_every_protocol_has_a_task():
    wanted = {options_of(path)["protocol"] for path in SCORED} - {None}
    assert wanted | {"didemo_val", "audiocaps_val", "ucf101_2", "ucf101_3"} == {
        path.stem for path in (FOLDER / "protocols").glob("*.yaml")
    }


def test_the_example_task_of_the_documentation_works(fake_model, fake_dataset, make_evaluator):
    """The class in docs/evaluation.md, executed as it stands there."""
    from vtp.eval.task import TaskResult
    from vtp.types import MediaRef, Sample

    text = (Path(__file__).parents[2] / "docs/evaluation.md").read_text(encoding="utf-8")
    namespace = {"TaskResult": TaskResult}
    exec(text.split("```python\n")[1].split("```")[0], namespace)
    samples = [Sample(f"c{i}", MediaRef(f"c{i}.mp4"), labels={"brightness": 7 / 255 + 0.1 * i}) for i in range(4)]
    task = namespace["Brightness"](dataset=fake_dataset(test=samples))
    result = task.evaluate(make_evaluator(fake_model(), task, broken=("c3.mp4",)))
    assert result.metrics["error"] == pytest.approx((0.0 + 0.1 + 0.2 + 1.0) / 4)
    assert result.ledger.evaluated == 3
