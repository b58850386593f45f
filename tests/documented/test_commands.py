"""Every `vtp run` line of README and docs means something: it composes, names options that exist, and at tiny size the
cheap ones train."""

from __future__ import annotations

import argparse
import re
import shlex
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from blocks import PAGES, ROOT

from vtp.cli.main import main
from vtp.cli.run import HELP, compose
from vtp.errors import ConfigError
from vtp.run.check import check
from vtp.run.launch import _length_from_the_command_line

LINE = re.compile(r"^(?: {4}|)((?:\w+=\S+ )?(?:torchrun [^;]*?-m )?vtp run .*)$", re.M)
WHATEVER = ("task=msrvtt_qa", "dataset=shapes")  # for "vtp run ... KEY=VALUE"
TINY = ("dataset.size=tiny", "train.steps=1", "train.epochs=null", "train.global_batch=2", "train.eval_every=0")
TINY += ("data.workers=0", "train.tensorboard=false", "threads=1", "mode=train", "data.limit_train=4")


# components that the pages write, and those of examples/, which tests/test_examples.py composes
WRITTEN = ("my_loss", "objective=[sigmoid]", "clipfolder", "perceiver", "losslog", "spread", "film")


def commands() -> dict[str, list[str]]:
    """``"README.md: vtp run ..." -> arguments`` of every line, without comments."""
    found = {}
    texts = {page.relative_to(ROOT).as_posix(): page.read_text(encoding="utf-8") for page in PAGES}
    texts["vtp run --help"] = "\n".join(f"  {line}" for line in HELP.splitlines() if line.startswith("  "))
    for page, text in texts.items():
        for line in LINE.findall(re.sub(r"\\\n\s*", " ", text)):
            for one in re.split(r"\s;\s", re.split(r"\s+#|\s{3,}", line)[0]):
                if "vtp run" not in one or any(word in one for word in WRITTEN):
                    continue
                arguments = shlex.split(one.partition("vtp run")[2])
                if arguments and not any(word.startswith(("TASK", "[GROUP")) for word in arguments):
                    found[f"{page}: {one.strip()}"] = arguments
    return found


COMMANDS = commands()
OFTEN = 3  # lines of a page that the default run composes; the slow run composes all


def by_page() -> list[Any]:
    """The names of all lines; those beyond the first few of a page are slow."""
    seen: Counter[str] = Counter()
    found: list[Any] = []
    for name in COMMANDS:
        page = name.partition(":")[0]
        seen[page] += 1
        found.append(name if seen[page] <= OFTEN else pytest.param(name, marks=pytest.mark.slow))
    return found


def prepared(arguments: list[str], folder: Path) -> list[str]:
    """Without sweeps, and with a folder for every checkpoint that a reader has by then."""
    (folder / "given").mkdir(exist_ok=True)
    out = []
    for argument in arguments:
        key, _, value = argument.partition("=")
        if argument in ("...", "task=..."):
            out += [] if any(a.startswith(("task=m", "task=[")) for a in arguments) else WHATEVER
            out += [f"checkpoint={folder / 'given'}"] if "mode=eval" in arguments else []
        elif key == "model" and "/" in value:  # that of a run of the reader
            continue
        elif key in ("checkpoint", "init_from") or (key == "resume" and value != "auto"):
            out.append(f"{key}={folder / 'given'}")
        elif argument.startswith("task=["):
            out.append(argument.replace("[", "").replace("]", "").partition(",")[0])
        elif not argument.startswith("-") and value:
            out.append(f"{key}={value.split(',')[0]}" if "-m" in arguments and "[" not in value else argument)
    return out


def test_the_lines_are_found():
    pages = {name.partition(":")[0] for name in COMMANDS}
    assert (
        len(COMMANDS) > 30
        and {"README.md", *(f"docs/{page}.md" for page in ("simvtp", "evaluation", "datasets"))} <= pages
    )


@pytest.mark.parametrize("command", by_page())
def test_a_documented_line_composes_and_its_options_exist(command, tmp_path):
    arguments = prepared(COMMANDS[command], tmp_path)
    if not COMMANDS[command] or COMMANDS[command] == ["--help"]:
        assert main(["run", "--help"]) == 0
        return
    config = compose([*arguments, "run_dir=x"])
    _length_from_the_command_line(config, arguments)
    try:
        check(config, tmp_path)
    except ConfigError as error:  # decoders and kernels that this machine lacks, and a cache that a reader has by then
        lacking = ("media.backend=", "kernels=", "data.cache=", "train.lora needs the package peft")
        allowed = [line for line in str(error).splitlines() if any(one in line for one in lacking)]
        assert allowed, error


RUNNABLE = {
    name: arguments
    for name, arguments in COMMANDS.items()
    if ("dataset=shapes" in arguments or any("tiny_" in a for a in arguments) or "..." in arguments)
    and not any(a.startswith(("mode=", "checkpoint=", "resume=", "media.backend=", "kernels=t")) for a in arguments)
    and not any(a.startswith(("data.cache=", "dataset.urls=", "train.strategy=", "dataset=msrvtt")) for a in arguments)
}


@pytest.mark.slow
@pytest.mark.parametrize("command", RUNNABLE)
def test_a_documented_line_on_generated_data_trains(command, tmp_path, monkeypatch):
    if any(argument.startswith("train.lora=") for argument in RUNNABLE[command]):
        pytest.importorskip("peft", reason="adapters need peft")
    monkeypatch.chdir(tmp_path)
    root = [f"dataset.root={tmp_path / 'shapes'}", "run_dir=run"]
    sizes = [a for a in TINY if not (a == "mode=train" and "profile=true" in RUNNABLE[command])]
    given = [a for a in prepared(RUNNABLE[command], tmp_path) if not a.startswith(("train.epochs=", "profile="))]
    assert main(["run", *given, *root, *sizes]) == 0


# -- other commands --------------------------------------------------------------------------------------------------

SPOKEN = re.compile(
    r"(?:^ {4}|`)(vtp (?:data (?:check|cache|pack)|import|list|show|plugins|protocols|doctor|reconstruct)(?![\w-])"
    r" ?[^`\n]*)",
    re.M,
)


def others() -> list[tuple[str, list[str]]]:
    """(page: line, arguments) of every line that calls another command than run, in blocks and within sentences."""
    found = {}
    for page in PAGES:
        for line in SPOKEN.findall(page.read_text(encoding="utf-8")):
            for one in re.split(r"\s;\s", re.split(r"\s+#|\s{3,}", line)[0]):
                words = [word for word in shlex.split(one)[1:] if word not in ("...", "root=...")]
                if (
                    one.startswith("vtp ")
                    and words[-1] != "NAME"
                    and not any(
                        word in one
                        for word in ("my_loss", "my_thing", "sigmoid", "spread", "film", "NAME|DIR", "plugins why NAME")
                    )
                    and not any(word.startswith("[") for word in words)
                ):
                    found[f"{page.relative_to(ROOT).as_posix()}: {one.strip()}"] = words
    return list(found.items())


OTHERS = others()


class Understood(Exception):
    """The command line was taken apart."""


@pytest.mark.parametrize(("line", "words"), OTHERS, ids=[line for line, _ in OTHERS])
def test_another_documented_line_is_understood(line, words, monkeypatch, capsys):
    parse = argparse.ArgumentParser.parse_args

    def parse_and_stop(self, arguments):
        parse(self, arguments)
        raise Understood

    files = {"data": 4 - (words[1:2] == ["check"]), "import": 3, "reconstruct": 3}  # those name files of the reader
    plain = [word for word in words if not word.startswith("-")]
    if words[0] not in files:
        assert main(words) == 0
    elif len(plain) >= files[words[0]]:
        if words[0] == "import":
            assert main(["list", "importer"]) == 0
            assert re.search(rf"^ *{words[1]}\b", capsys.readouterr().out, re.M)
            return
        monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parse_and_stop)
        with pytest.raises(Understood):
            main(words)
    else:  # spoken of without its arguments
        try:
            assert main([*words, "--help"]) == 0
        except SystemExit as end:
            assert end.code == 0


def test_the_other_lines_are_found():
    assert len(OTHERS) > 20 and {words[0] for _, words in OTHERS} >= {"data", "import", "list", "show", "protocols"}
