"""Every block of commands or code in README and docs is run, and the count is printed.

Commands of `vtp run` are composed and checked against this installation (test_commands.py; those that generated data
can feed are trained in the slow tests), other commands of vtp are run or parsed, Python is executed and held against
the contract it is about, files are read as what they are.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import math
import re
import shlex
import subprocess
import sys
import tomllib
from collections import Counter
from collections.abc import Callable
from contextlib import redirect_stderr
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
import yaml
from blocks import ROOT, Block, blocks, texts_of, written_to
from torch import nn
from torch.nn.functional import normalize

import vtp.catalogue  # noqa: F401 (before coverage of its names)
from vtp.cli.main import COMMANDS, main
from vtp.cli.plugins_contracts import as_installed
from vtp.cli.run import compose
from vtp.eval.task import TaskResult
from vtp.model.build import BuildContext
from vtp.model.losses import masked_cross_entropy
from vtp.model.momentum import Momentum
from vtp.model.objective import Objective
from vtp.plugins import host
from vtp.run.check import check as check_options
from vtp.testing import check_dataset, check_objective, check_task, check_transform
from vtp.testing.inputs import tiny_encoders
from vtp.types import IGNORE, LossOutput, MediaRef, Sample

BLOCKS = {block.name: block for block in blocks()}
CODE = ("python", "yaml", "toml", "json", "csv")
# Pages whose Python is one session, which a test of their own runs from the first block to the last.
SESSIONS = {"docs/use.md": ROOT / "tests" / "use" / "test_documented.py"}
# Pages whose blocks are files and commands of one working folder; test_tutorials.py types all of it (slow).
TUTORIALS = "docs/tutorials/"


def kind(block: Block) -> str:
    """What a block is: commands, python, yaml, ..., or shown, which are formulas, files of a folder and their contents
    and what a command prints; "" for a language that nobody runs."""
    if block.is_commands:
        return "commands"
    if block.language in CODE:
        return block.language
    if block.language not in ("", "text"):
        return ""
    return "python" if re.match(r"(register\(|from |import |def |class |@)", block.text) else "shown"


OF_KIND = {wanted: [n for n, b in BLOCKS.items() if kind(b) == wanted] for wanted in ("commands", *CODE, "shown", "")}


def test_every_block_is_run(capsys: pytest.CaptureFixture[str]):
    assert OF_KIND[""] == [], "say in this file how a block of this language is run"
    assert [name for name in OF_KIND["python"] if of_python(BLOCKS[name]) is None] == []
    count = Counter(kind(block) for block in BLOCKS.values())
    commands = sum(len(BLOCKS[name].commands()) for name in OF_KIND["commands"])
    told = ", ".join(f"{number} of {what}" for what, number in count.most_common() if what != "shown")
    with capsys.disabled():
        print(
            f"\nREADME and docs: {len(BLOCKS)} blocks, {len(BLOCKS) - count['shown']} are run ({told}; {commands} "
            f"commands), "
            f"{count['shown']} show formulas, files and output"
        )
    assert sum(count.values()) == len(BLOCKS) > 50


# -- commands ----------------------------------------------------------------------------------------------------------


class Understood(BaseException):
    """The command line was taken apart; no Exception, which vtp would report as a fault of the plugin."""


def _slow_where(name: str, words: str) -> Any:
    return pytest.param(name, marks=pytest.mark.slow) if words in BLOCKS[name].text else name


@pytest.mark.parametrize("name", [_slow_where(name, "mine-words") for name in OF_KIND["commands"]])
def test_commands_are_understood(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.chdir(tmp_path)
    for command in BLOCKS[name].commands():
        words = shlex.split(command)
        while re.match(r"\w+=", words[0]):  # variables of the environment
            del words[0]
        RUN[words[0]](command, words[1:], monkeypatch)
        assert "Traceback" not in capsys.readouterr().err


def _vtp(command: str, words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    from test_commands import COMMANDS as OF_RUN
    from test_commands import OTHERS

    if words[0] == "run":
        own = (
            "my_loss",
            "my_thing",
            "sigmoid",
            "clipfolder",
            "perceiver",
            "losslog",
            "spread",
            "film",
        )  # written by the page, or an example
        assert any(name.endswith(f": {command}") for name in OF_RUN) or any(word in command for word in own), command
    elif words[0] == "new-plugin":
        assert main(words) == 0
    elif not any(line.endswith(f": {command}") for line, _ in OTHERS) and words[0] not in ("install", "uninstall"):
        if any(word in command for word in ("my_loss", "my_thing", "sigmoid", "spread", "film")):
            return
        _parsed(words, monkeypatch)


def _parsed(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A command that reads files of the user: its arguments are taken apart, and there it ends; one that takes them
    apart by itself says that those files are not there, and nothing else."""
    assert words[0] in {*COMMANDS, *(entry.name for entry in host().registry.entries("command"))}, words
    parse = argparse.ArgumentParser.parse_args
    told = io.StringIO()
    try:
        with redirect_stderr(told), monkeypatch.context() as patched:
            patched.setattr(argparse.ArgumentParser, "parse_args", lambda self, given=None: _stop(parse(self, given)))
            code = main([word for word in words if word != "..."])
    except Understood:
        return
    assert code == 0 or (code == 2 and re.search(ABSENT, told.getvalue())), (words, told.getvalue())


ABSENT = (
    r"is not there|does not exist|not found|there is no|no such|missing|lacks|not installed|cannot be read|is neither"
)


def _stop(found: argparse.Namespace) -> None:
    raise Understood(found)


def _pip(command: str, words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Real installs are in tests/outside; here, that what is named exists."""
    assert words[0] == "install"
    for word in words[1:]:
        bare = word.partition("[")[0]
        known = bare.startswith(("-", "vtp-core", "vtp-plugin-", "my_loss", "lancedb")) or (ROOT / bare).exists()
        assert known, command


def _make(command: str, words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    done = subprocess.run(["make", "-n", *words], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def _python(command: str, words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A script of the tree: it is there, and has the options. A module of a library: it is there."""
    if words[0] == "-m":
        assert find_spec(words[1].partition(".")[0]) is not None
        return
    source = (ROOT / words[0]).read_text(encoding="utf-8")
    compile(source, words[0], "exec")
    assert [word for word in words if word.startswith("--") and f'"{word}"' not in source] == []


def _pytest(command: str, words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert all(word.startswith(("examples/", "vtp-plugin-")) or word == "" for word in words), command


def _nothing(command: str, words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """``torchrun`` lines are composed in test_commands.py; ``git clone ... && cd vtp`` has an address to come."""


RUN = {"vtp": _vtp, "pip": _pip, "make": _make, "python": _python, "pytest": _pytest, "torchrun": _nothing}
RUN |= {"git": _nothing, "cd": _nothing, "source": _nothing}


# -- code --------------------------------------------------------------------------------------------------------------


def of_python(block: Block) -> Callable[[dict[str, Any], Path], None] | None:
    """What is asked of what a block of Python made."""
    if block.page in SESSIONS:
        return _session
    if block.page.startswith(TUTORIALS):
        return _of_a_tutorial
    return next((check for words, check in PYTHON.items() if words in block.text), None)


@pytest.mark.parametrize("name", OF_KIND["python"])
def test_python_does_what_the_page_says(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    module = ModuleType("of_the_page")  # a real one: what is made can then be sent to other processes
    vars(module).update(GIVEN)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    made = vars(module)
    if (
        BLOCKS[name].page not in SESSIONS
        and not BLOCKS[name].page.startswith(TUTORIALS)
        and "\n" in BLOCKS[name].text
        and "trainer = Trainer(" not in BLOCKS[name].text
    ):
        exec(compile(BLOCKS[name].text, name, "exec"), made)
    check = of_python(BLOCKS[name])
    assert check is not None
    made["block"] = BLOCKS[name]
    check(made, tmp_path)


class Rows:
    """A data set of three clips with a label."""

    name = "rows"

    def samples(self, kind: str, split: str) -> list[Sample]:
        clips = [f"{split}{k}.mp4" for k in range(3)]
        return [Sample(c, MediaRef(c), texts=("grey",), labels={"brightness": 0.5}) for c in clips]


GIVEN: dict[str, Any] = {
    "BuildContext": BuildContext,
    "IGNORE": IGNORE,
    "LossOutput": LossOutput,
    "Momentum": Momentum,
    "Objective": Objective,
    "TaskResult": TaskResult,
    "load_asr": lambda values: torch.zeros(len(values), 2),
    "masked_cross_entropy": masked_cross_entropy,
    "nn": nn,
    "normalize": normalize,
    "torch": torch,
}


def _session(made: dict[str, Any], folder: Path) -> None:
    """The test of the page reads it, and finds its blocks by their fence."""
    for page, file in SESSIONS.items():
        text = file.read_text(encoding="utf-8")
        assert page.rpartition("/")[2] in text and "```python" in text and "exec(" in text


def _of_a_tutorial(made: dict[str, Any], folder: Path) -> None:
    """The package of the page as `vtp new-plugin` writes it and the page changes it: the module keeps its contract,
    the tests pass, the options fit. Other blocks of Python are a session with a trained model, which the slow test has.
    """
    block = made["block"]
    path = written_to(block)
    if path is None:
        compile(block.text, block.name, "exec")
        return
    package = folder / path.partition("/")[0]
    name = package.name.removeprefix("vtp-plugin-")
    kind = next(k for k in ("objective", "fusion") if f"vtp new-plugin {name} --kind {k}" in texts_of(block.page))
    try:
        assert main(["new-plugin", name, "--kind", kind, "--out", str(package)]) == 0
        for one in BLOCKS.values():
            if one.page == block.page and (target := written_to(one)):
                assert (folder / target).exists(), f"vtp new-plugin writes no {target}"
                (folder / target).write_text(f"{one.text}\n", encoding="utf-8")
        with as_installed(package):
            if "/tests/" in path:
                exec(compile(block.text, block.name, "exec"), made)
                for test in [value for key, value in made.items() if key.startswith("test_")]:
                    test()
            else:
                assert main(["plugins", "check", "--quick", str(package)]) == 0
                pages = [b for b in BLOCKS.values() if b.page == block.page and b.is_commands]
                for command in [command for one in pages for command in one.commands()]:
                    words = shlex.split(command)
                    if words[:2] == ["vtp", "run"] and name in command:
                        check_options(compose([*words[2:], "run_dir=x"]), folder)
    finally:
        for module in [module for module in sys.modules if module.partition(".")[0] == f"vtp_{name}"]:
            del sys.modules[module]


def _package(made: dict[str, Any], folder: Path) -> None:
    """The blocks of "An objective in five minutes" as the package that the page lists, as if it were installed."""
    texts = [block.text for block in BLOCKS.values() if block.page == "docs/plugins.md"]
    for path, words in {
        "pyproject.toml": 'name = "vtp-plugin-my-loss"',
        "src/vtp_my_loss/plugin.py": 'register("my_loss", "vtp_my_loss.objective:MyLoss")',
        "src/vtp_my_loss/objective.py": "class MyLoss(Objective)",
        "src/vtp_my_loss/conf/objective/my_loss.yaml": "# @package objectives.my_loss",
    }.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(next(text for text in texts if words in text))
    (folder / "src" / "vtp_my_loss" / "__init__.py").write_text("")
    try:
        with as_installed(folder):
            assert main(["plugins", "check", str(folder)]) == 0
            options = ["task=msrvtt_retrieval", "dataset=shapes", "objective=[vtc,my_loss]"]
            assert main(["run", *options, "objectives.my_loss.weight=0.1", "--cfg", "job"]) == 0
            check_objective(host().registry.get("objective", "my_loss").load(), {"target": 1.0})
    finally:
        for module in [module for module in sys.modules if module.startswith("vtp_my_loss")]:
            del sys.modules[module]


def _hook(made: dict[str, Any], folder: Path) -> None:
    """The hook of the page; the package that it belongs to is made for the block of the objective."""
    given: list[tuple[str, str]] = []
    made["vtp_register_objectives"](lambda name, target: given.append((name, target)))
    assert given == [("my_loss", "vtp_my_loss.objective:MyLoss")]


def _boxes(made: dict[str, Any], folder: Path) -> None:
    from vtp.contracts import Objective as Contract
    from vtp.contracts import reads_of

    reads = reads_of(made["Boxes"](), Contract, "the page")
    assert reads.keys() == {"source", "score", "boxes", "ids", "asr"} and reads["source"].listed


def _tests(made: dict[str, Any], folder: Path) -> None:
    """The page's tests are tests; they are run for the package in _package and by test_new_packages.py."""
    assert {name for name in made if name.startswith("test_")} and {"check_encoder", "check_plugin"} <= made.keys()


def _environment(made: dict[str, Any], folder: Path) -> None:
    assert callable(made["seeded"])


def _words(made: dict[str, Any], folder: Path) -> None:
    check_objective(made["WordsFromSound"])


def _transform(made: dict[str, Any], folder: Path) -> None:
    check_transform(made["HideStretches"], {"share": 0.5}, modality="audio")


def _queue(made: dict[str, Any], folder: Path) -> None:
    queue = made["Queue"](context=BuildContext(encoders=dict(tiny_encoders())), width=4)
    before, queue.fresh = queue.queue.clone(), torch.ones(3, 4)
    queue.after_step(None)
    assert torch.equal(queue.queue[:3], torch.ones(3, 4)) and torch.equal(queue.queue[3:], before[:-3])


def _talks(made: dict[str, Any], folder: Path) -> None:
    for split in ("train", "test"):
        (folder / f"talks_{split}.csv").write_text(f"talk,title\ntalk{split},About {split}\n")
    check_dataset(made["Talks"], {"root": str(folder)})
    (row,) = made["Talks"](root=str(folder)).samples("retrieval", "test")
    assert row.texts == ("About test",)


def _brightness(made: dict[str, Any], folder: Path) -> None:
    task = made["Brightness"]  # the page leaves two members out
    task.train_samples = lambda self: self.samples("train")
    task.predict = task.evaluate
    check_task(task, dataset=Rows())

    class Context:
        inputs = staticmethod(lambda modality: {"video": torch.full((2, 3, 3, 4, 4), 0.75)})

        class batch:
            labels = {"brightness": torch.tensor([0.5, 0.75])}

    assert task(dataset=Rows()).error(Context())["error"].tolist() == [0.25, 0.0]


def _moments(made: dict[str, Any], folder: Path) -> None:
    sample = Sample("a", MediaRef("film.mp4"), texts=("A dog.",), labels={"second": 1.5}, extra={"video_id": "film"})
    (line,) = made["moments"](sample)
    assert line.startswith("film\t") and line.endswith("\t1.5")


def _registered(made: dict[str, Any], folder: Path) -> None:
    source = next(block.text for block in BLOCKS.values() if block.text.startswith("register("))
    given: list[tuple[str, str, str]] = []
    exec(source, {"register": lambda name, target, counted: given.append((name, target, counted))})
    assert given == [("moment", "my_package.forms:moments", "moments")]


def _by_hand(made: dict[str, Any], folder: Path) -> None:
    """The loop of docs/training.md, with fewer steps and in this folder."""
    source = next(block.text for block in BLOCKS.values() if "trainer = Trainer(" in block.text)
    source = source.replace("steps=1000", "steps=2").replace('"outputs/mine"', repr(str(folder / "mine")))
    from vtp.model.model import VTPModel
    from vtp.testing.inputs import batch_for

    class Norm(Objective):
        needs = frozenset({"video"})

        def forward(self, ctx: Any) -> LossOutput:
            return LossOutput(ctx.pooled("video").square().mean(), self.rows(ctx).sum())

    model = VTPModel(dict(tiny_encoders()), {"norm": Norm()})

    class Loader:
        steps_per_epoch = 1

        def __iter__(self) -> Any:
            while True:
                yield batch_for(model.specs(), 4, {}, {})

        def state_dict(self) -> dict[str, Any]:
            return {}

        def load_state_dict(self, state: dict[str, Any]) -> None: ...

    made |= {"model": model, "loader": Loader(), "score": lambda model: 0.5}
    source = source.replace("TrainConfig(steps=2,", "TrainConfig(steps=2, global_batch=4, tensorboard=False,")
    exec(compile(source, "docs/training.md", "exec"), made)
    assert math.isclose(
        made["result"].best["metrics"]["accuracy"] if isinstance(made["result"].best, dict) else 0.5, 0.5
    )


PYTHON: dict[str, Callable[[dict[str, Any], Path], None]] = {
    'register("my_loss", "vtp_my_loss.objective:MyLoss")': _hook,
    "class MyLoss(Objective)": _package,
    "class Boxes(Objective)": _boxes,
    "def test_my_loss_keeps_the_contract": _tests,
    "prepare()": _environment,
    "class WordsFromSound(Objective)": _words,
    "class HideStretches": _transform,
    "class Queue(Objective)": _queue,
    "class Talks(Catalogue)": _talks,
    "class Brightness": _brightness,
    "def moments(sample)": _moments,
    'register("moment"': _registered,
    "trainer = Trainer(": _by_hand,
}


@pytest.mark.parametrize("name", [*OF_KIND["yaml"], *OF_KIND["toml"], *OF_KIND["json"], *OF_KIND["csv"]])
def test_files_are_what_they_are_said_to_be(name: str):
    block = BLOCKS[name]
    if block.language == "csv":
        rows = list(csv.DictReader(io.StringIO(block.text)))
        assert rows and all(None not in row and None not in row.values() for row in rows)
        return
    read = {"yaml": yaml.safe_load, "toml": tomllib.loads, "json": json.loads}[block.language]
    content = read(block.text)
    assert isinstance(content, dict) and content
    if "defaults" in content:  # an option file that builds on others: they are there
        from vtp.options import option_files

        groups = option_files()
        for entry in content["defaults"]:
            text = entry if isinstance(entry, str) else next(f"{k}: {v}" for k, v in entry.items())
            group, _, option = re.sub(r"^override /", "", text).partition(": ")
            assert group in groups["task"] if not option else option in groups[group], text
