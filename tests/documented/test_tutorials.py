"""The tutorials, typed as a reader would type them: files are written, commands run, one after the other, in one
folder. Sizes are made tiny, encoders of the hub become small ones of their own kind, and `pip install` puts the package
on the path of this process."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
from blocks import ROOT, Block, blocks, written_to

from vtp.cli.main import main
from vtp.cli.plugins_contracts import as_installed
from vtp.plugins import host

TINY = ("train.steps=2", "train.epochs=null", "train.global_batch=4", "train.eval_every=0", "data.workers=0")
TINY += ("train.tensorboard=false", "threads=1", "data.group=1")
CLIPS = ("dog", "ball", "cat", "star")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A working folder with four clips and the tables that pages speak of, and nothing of other pages in memory."""
    import av

    (tmp_path / "videos").mkdir()
    for shade, name in enumerate(CLIPS):
        with av.open(str(tmp_path / "videos" / f"{name}.mp4"), "w") as file:
            stream = file.add_stream("mpeg4", rate=4)
            stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
            for second in range(8):
                frame = np.full((48, 64, 3), 40 * shade + 5 * second, np.uint8)
                file.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
            file.mux(stream.encode())
    splits = dict(zip(CLIPS, ("train", "train", "val", "test"), strict=True))
    lines = [f"videos/{name}.mp4,a {name},{split}" for name, split in splits.items()]
    (tmp_path / "my.csv").write_text("\n".join(["video,caption,split", *lines, ""]))
    lines = [
        f"videos/{name}.mp4,what is it?,{answer},{splits[name]}" for name, answer in zip(CLIPS, "abab", strict=True)
    ]
    (tmp_path / "questions.csv").write_text("\n".join(["video,question,answer,split", *lines, ""]))
    lines = [f"videos/{name}.mp4,{label},{splits[name]}" for name, label in zip(CLIPS, "abab", strict=True)]
    (tmp_path / "classes.csv").write_text("\n".join(["video,label,split", *lines, ""]))
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    forget()


def forget() -> None:
    """Every command of a reader is a new process: packages are read again, as the page has changed them."""
    for module in [one for one in sys.modules if one.partition(".")[0] in ("vtp_spread", "vtp_film")]:
        del sys.modules[module]
    host.cache_clear()


def small_bert(folder: Path) -> Path:
    """A random BERT of transformers with a vocabulary of its own, as `save_pretrained` writes it."""
    from transformers import BertConfig, BertModel, BertTokenizerFast

    (folder / "vocab.txt").write_text(
        "\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", *CLIPS, "what", "is"])
    )
    BertTokenizerFast(str(folder / "vocab.txt")).save_pretrained(folder / "bert")
    BertModel(
        BertConfig(vocab_size=12, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32)
    ).save_pretrained(folder / "bert")
    return folder / "bert"


def typed(block: Block, folder: Path, installed: ExitStack, replaced: Callable[[str], str]) -> int:
    """Write the file or run the commands of a block; gives how many of them there were."""
    if path := written_to(block):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(f"{block.text}\n", encoding="utf-8")
        return 1
    if block.language == "python":
        exec(compile(block.text, block.name, "exec"), {"__name__": "reader"})
        return 1
    if not block.is_commands:
        return 0
    for command in block.commands():
        words = [replaced(word) for word in shlex.split(command)]
        forget()
        if words[:2] == ["pip", "install"] and words[-1].startswith("vtp-plugin-"):
            installed.enter_context(as_installed(folder / words[-1].partition("[")[0].partition("/")[0]))
        elif words[0] == "pytest":
            passed(folder / words[1])
        elif words[0] == "python" and words[1:3] == ["-m", "build"]:
            from hatchling.builders.wheel import WheelBuilder

            (wheel,) = WheelBuilder(words[3]).build(directory=f"{words[3]}/dist", versions=["standard"])
            assert f"dist/{Path(wheel).name}" in block.text
        elif words[0] == "vtp" and words[1] not in ("install", "uninstall"):
            if words[1] == "run":
                words += [one for one in sizes(words) if one.partition("=")[0] + "=" not in command or "train." in one]
            assert main(words[1:]) == 0, command
    return len(block.commands())


def sizes(words: list[str]) -> list[str]:
    return [*TINY, *(["dataset.size=tiny"] if "dataset=shapes" in words else [])]


def passed(package: Path) -> None:
    """The tests of a package, called one by one: pytest within pytest would share its modules. That of the entry point
    asks a new process for the package, which tests/outside/test_new_packages.py installs."""
    for file in sorted({*package.glob("tests/test_*.py")} - {package / "tests" / "test_plugin.py"}):
        names: dict[str, object] = {"__name__": "tests_of_the_page"}
        exec(compile(file.read_text(), str(file), "exec"), names)
        tests = [value for name, value in names.items() if name.startswith("test_") and callable(value)]
        assert tests
        for test in tests:
            test()


def hub(folder: Path) -> Callable[[str], str]:
    """Names of encoders on the hub, as small ones that are made here."""
    bert = small_bert(folder)

    def replaced(word: str) -> str:
        word = re.sub(r"^encoder\.text\.model=.*", f"encoder.text.model={bert}", word)
        word = re.sub(r"^encoder\.video\.model=vit_.*", "encoder.video.model=test_vit", word)
        word = re.sub(r"^encoder\.video\.model=MCG.*", "encoder.video.preset=tiny", word)
        return word.replace("pretrained=true", "pretrained=false")

    return replaced


@pytest.mark.slow
@pytest.mark.parametrize("pages", ["own-videos", "objective+publish", "fusion", "fine-tune"])
def test_a_tutorial_is_typed(pages: str, folder: Path):
    replaced = hub(folder) if pages == "fine-tune" else lambda word: word
    done = 0
    with ExitStack() as installed:
        for page in pages.split("+"):
            wanted = f"docs/tutorials/{page}.md"
            assert (ROOT / wanted).exists()
            for block in (block for block in blocks() if block.page == wanted):
                if "vtp import" not in block.text:  # reads a checkpoint of the reader
                    done += typed(block, folder, installed, replaced)
    assert done > 5


@pytest.mark.slow
def test_the_first_run_is_typed(folder: Path):
    found = [block for block in blocks() if block.page == "docs/first-run.md" and block.is_commands]
    with ExitStack() as installed:
        assert sum(typed(block, folder, installed, lambda word: word) for block in found) > 8
