"""A mistake on the command line gets one helpful line and exit code 2, before anything is built; no folder is left."""

import pytest

from vtp.cli.main import main
from vtp.cli.run import compose
from vtp.errors import ConfigError

MISTAKES = {
    "task": (["task=msrvtt_qaa"], ["'msrvtt_qaa'", "Did you mean 'msrvtt_qa'", "msrvtt_retrieval"]),
    "dataset": (["task=msrvtt_qa", "dataset=shape"], ["'shape'", "Did you mean 'shapes'"]),
    "dataset key": (["task=msrvtt_qa", "dataset=shapes", "dataset.seeed=3"], ["'dataset.seeed'", "'seed'"]),
    "objective": (["task=msrvtt_qa", "objective=[vtcc]"], ["'vtcc'", "Did you mean 'vtc'"]),
    "encoder": (["task=msrvtt_qa", "encoder/video=videomea"], ["'videomea'", "Did you mean 'videomae'"]),
    "encoder key": (["task=msrvtt_qa", "encoder.video.widht=3"], ["'encoder.video.widht'", "'width'"]),
    "group": (["taks=msrvtt_qa"], ["'taks'", "'task'"]),
    "train key": (["task=msrvtt_qa", "train.stesp=3"], ["'train.stesp'", "'steps'"]),
    "train value": (["task=msrvtt_qa", "train.lr=fast"], ["train.lr: expected float, got 'fast'"]),
    "grammar": (["task=msrvtt_qa", "train.betas=[0.9,"], ["train.betas=[0.9,"]),
    "no task": ([], ["choose a task", "vtp list task"]),
    "no model": (
        [
            "task=msrvtt_qa",
            "dataset=shapes",
            *(f"encoder/{slot}=none" for slot in ("text", "video", "audio", "fusion")),
        ],
        ["choose a model", "vtp list model"],
    ),
    "null": (["task=msrvtt_qa", "model=null"], ["model=null", "name of an option", "base", "dual"]),
    "number": (["task=3"], ["task=3", "name of an option", "msrvtt_qa"]),
    "sampler": (
        ["task=msrvtt_qa", "dataset=shapes", "data.sampler=unifrom"],
        ["Did you mean 'uniform'", "Known: auto"],
    ),
    "seed": (["task=msrvtt_qa", "dataset=shapes", "seed=one"], ["seed: expected int (at least 0", "got 'one'"]),
    "threads": (["task=msrvtt_qa", "dataset=shapes", "threads=two"], ["threads: expected int (at least 1", "'two'"]),
    "no threads": (["task=msrvtt_qa", "dataset=shapes", "threads=0"], ["threads: expected int (at least 1", "got 0"]),
    "device": (["task=msrvtt_qa", "dataset=shapes", "device=gpu"], ["device=gpu", "auto, cpu, cuda"]),
    "mode": (["task=msrvtt_qa", "mode=trian"], ["mode=trian", "train, eval, predict"]),
    "checkpoint": (
        ["task=msrvtt_qa", "dataset=shapes", "mode=eval", "checkpoint=nowhere/run"],
        ["nowhere/run", "no such checkpoint"],
    ),
    "eval without checkpoint": (["task=msrvtt_qa", "dataset=shapes", "mode=eval"], ["checkpoint="]),
    "root": (["task=msrvtt_qa", "dataset.root=nowhere"], ["nowhere", "dataset=shapes"]),
    "restart": (["task=msrvtt_qa", "dataset=shapes", "restart=true"], ["restart=true", "resume=PATH"]),
    "task value": (["task=msrvtt_qa", "dataset=shapes", "task.answers=many"], ["task.answers: expected int", "'many'"]),
    "dataset value": (
        ["task=msrvtt_qa", "dataset=shapes", "dataset.seed=[1]"],
        ["dataset.seed: expected int (at least 0", "got [1]"],
    ),
    "mapping key": (["task=msrvtt_qa", "dataset=shapes", "train.grup_lr={a: 1}"], ["'train.grup_lr'", "'group_lr'"]),
    "mapping node": (["task=msrvtt_qa", "dataset=shapes", "trian.x={a: 1}"], ["'trian'", "'train'"]),
    "mapping option": (
        ["task=msrvtt_qa", "dataset=shapes", "encoder.video.widht={a: 1}"],
        ["no option 'widht'", "'width'"],
    ),
    "values of all kinds": (
        [
            "task=msrvtt_qa",
            "dataset=shapes",
            "dataset.seed=x",
            "task.answers=y",
            "encoder.video.width=z",
            "threads=two",
        ],
        [
            "threads: expected int (at least 1",
            "dataset.seed: expected",
            "task.answers: expected",
            "encoder.video.width: expected int (at least 1",
            "got 'z'",
        ],
    ),
}


# a composition for each: the default run takes every second one, the slow one all
@pytest.mark.parametrize(
    "mistake", [pytest.param(one, marks=[pytest.mark.slow] if place % 2 else []) for place, one in enumerate(MISTAKES)]
)
def test_a_mistake_gets_one_helpful_line(mistake, tmp_path, monkeypatch, capsys):
    arguments, words = MISTAKES[mistake]
    monkeypatch.chdir(tmp_path)
    assert main(["run", *arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith("vtp run: ") and "Traceback" not in error
    for word in words:
        assert word in error
    assert not list(tmp_path.rglob("run.json"))
    assert not [p for p in tmp_path.rglob("*") if p.is_file()]


def test_several_mistakes_are_told_at_once(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    arguments = ["data.workers=-1", "data.on_leak=ignore", "train.lr=-1", "train.steps=5", "mode=nothing"]
    assert main(["run", "task=msrvtt_qa", "dataset=shapes", *arguments]) == 2
    error = capsys.readouterr().err
    for word in ("data.workers: expected int (at least 0", "data.on_leak='ignore'", "mode=nothing"):
        assert word in error


def test_built_in_encoders_can_be_switched_off(monkeypatch):
    """docs/plugins.md: built-in parts can be switched off like any other."""
    simvtp = pytest.importorskip("vtp_simvtp")
    monkeypatch.setenv("VTP_BLOCK_PLUGINS", "encoders")
    found = compose(["task=msrvtt_retrieval", "dataset=shapes", "model=simvtp"])
    slots = {slot: options["name"] for slot, options in found["encoder"].items()}
    assert simvtp and slots == {"text": "simvtp", "video": "simvtp", "audio": None, "fusion": "simvtp"}
    with pytest.raises(ConfigError, match=r"no 'base' in 'model'.*Available: .*simvtp"):
        compose(["task=msrvtt_qa", "dataset=shapes"])


def test_unknown_command(capsys):
    assert main(["rnu"]) == 2
    assert "Did you mean 'run'" in capsys.readouterr().err


def test_option_of_two_plugins_is_refused(install, tmp_path, monkeypatch, capsys):
    """hydra would take the first file of that name without a word."""
    for name in ("mine", "yours"):
        options = "# @package objectives.words\nname: mlm\nweight: 1.0\n"
        install(name, "", files={"conf/objective/words.yaml": options})
    monkeypatch.chdir(tmp_path)
    assert main(["run", "task=msrvtt_qa", "dataset=shapes", "objective=[qa,words]"]) == 2
    error = capsys.readouterr().err
    assert "objective=words is offered by mine and yours" in error and "VTP_BLOCK_PLUGINS=yours" in error


def test_an_option_whose_plugin_is_broken_says_so(install, tmp_path, monkeypatch, capsys):
    from vtp.plugins import host

    options = "# @package objectives.mine\nname: mine\nweight: 1.0\n"
    install("mine", "import nothing_of_that_name", files={"conf/objective/mine.yaml": options})
    monkeypatch.chdir(tmp_path)
    host.cache_clear()
    try:
        size = ["dataset=shapes", "dataset.size=tiny", f"dataset.root={tmp_path / 'shapes'}"]
        assert main(["run", "task=msrvtt_qa", *size, "objective=[qa,mine]", "train.steps=1"]) == 2
    finally:
        host.cache_clear()
    error = capsys.readouterr().err
    assert "'mine'" in error and "nothing_of_that_name" in error and "broken" in error


def test_mappings_are_given_as_documented():
    """docs/training.md: a value {key: value} for train.group_lr and init_map."""
    found = compose(
        ["task=msrvtt_qa", "dataset=shapes", "train.group_lr={encoders.video: 0.1, heads: 2}", "init_map={a: b}"]
    )
    assert found["train"]["group_lr"] == {"encoders.video": 0.1, "heads": 2.0} and found["init_map"] == {"a": "b"}


@pytest.mark.parametrize(
    "command", [["data", "check", "m", "--no-decode", "--out"], ["data", "pack", "m"], ["data", "cache", "m"]]
)
def test_a_place_in_which_there_can_be_no_folder_is_one_line(command, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "a.mp4").touch()
    assert main([*command, "/proc/x"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "/proc/x: No such file or directory. Name a place that can be read and written" in line
