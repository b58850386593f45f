"""Wrong command lines of every command: exit code 2, one helpful line (or one list), no traceback, and nothing is left
behind. None of them trains."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from vtp.cli.main import main

RUN = "run task=msrvtt_qa dataset=shapes dataset.size=tiny dataset.root=made data.workers=0 media.isolate=false"

# command line -> words of the answer. FILE is a file, TABLE a csv, FULL a folder with a file; `made` must not appear
LINES = {
    # vtp
    "rnu": "Did you mean 'run'",
    "--nope": "no such command",
    # vtp run: nodes, choices, flags
    f"{RUN} task=null": "task=null: expected the name of an option",
    f"{RUN} task=": "task=: expected the name of an option",
    f"{RUN} task=[a,,b]": "expected different tasks",
    f"{RUN} encoder=5": "encoder/text",
    f"{RUN} encoder.video=5": "encoder.video: expected options with a name",
    f"{RUN} train=5": "train: expected mapping",
    f"{RUN} ~train": "train cannot be left out",
    f"{RUN} ~data ~media": "media cannot be left out",
    f"{RUN} ~nope": "~nope: there is no such key",
    f"{RUN} objectives=5": "objectives: expected mapping or null",
    f"{RUN} masks=5": "masks: expected mapping",
    f"{RUN} callbacks=5": "callbacks: expected list",
    f"{RUN} =5": "KEY=VALUE",
    f"{RUN} seed": "KEY=VALUE",
    f"{RUN} hydra=5": "hydra=5: expected",
    f"{RUN} -x": "unrecognized arguments: -x",
    f"{RUN} --cgf job": "unrecognized arguments: --cgf job. Did you mean '--cfg'",
    f"{RUN} objectives.vtc.width=3": "objectives.vtc.width: the objective vtc is not chosen|objective=[qa,vtc].",
    f"{RUN} objectives.qaa.width=3": "no objective 'qaa' is chosen. Did you mean 'qa'",
    "plugins why snp3": "Did you mean 'snps3'",
    f"{RUN} --cfg nope": "invalid choice: 'nope'",
    f"{RUN} --config-name other": "--config-name is not for vtp",
    f"{RUN} legacy=true": "legacy is now variant=released",
    f"{RUN} objective=[qa,nope,vtcc]": "'nope'|Did you mean 'vtc'",
    f"{RUN} experiment=simvtp/tiny": "no 'simvtp/tiny' in 'experiment'|'simvtp/tiny_pretrain'|simvtp/finetune_msrvtt",
    f"{RUN} experiment=nope": "bind, |of simvtp/|`vtp list experiment`",
    f"{RUN} objective=[snps3/msm]": "Did you mean 'snps3/mssm'",
    f"{RUN} dataset.urls=5": "no key 'dataset.urls'",
    f"{RUN} train.a=1 train.b=2 encoder.video.widht=3 data.group=two": "'train.a'|'train.b'|'width'|data.group:",
    f"{RUN} seed=${{nope}}": "'nope' not found",
    # vtp run: numbers
    f"{RUN} seed=-1": "seed: expected int (at least 0",
    f"{RUN} seed=99999999999999999999": "seed: expected int (at least 0",
    f"{RUN} threads=100000": "threads: expected int (at least 1, at most 1,024)",
    f"{RUN} train.epochs=inf": "train.epochs: expected float",
    f"{RUN} train.steps=1 train.epochs=null train.lr=nan": "train.lr: expected float, got nan",
    f"{RUN} media.timeout_s=nan": "media.timeout_s: expected float, got nan",
    f"{RUN} data.workers=-1": "data.workers: expected int (at least 0",
    f"{RUN} data.workers=100000": "data.workers: expected int (at least 0, at most 1,024)",
    f"{RUN} dataset.seed=abc": "dataset.seed: expected int",
    f"{RUN} encoder.video.width=0": "encoder.video.width: expected int (at least 1",
    f"{RUN} encoder.video.frames=0": "encoder.video.frames: expected int (at least 1",
    f"{RUN} encoder.text.max_length=0": "encoder.text.max_length: expected int",
    f"{RUN} encoder.text.vocabulary=0": "encoder.text.vocabulary: expected int",
    f"{RUN} encoder.text.depth=-1": "encoder.text.depth: expected int (at least 0",
    f"{RUN} encoder.text.dropout=2": "encoder.text.dropout: expected float",
    f"{RUN} objectives.qa.weight=-1": "objectives.qa.weight: expected float (at least 0)",
    f"{RUN} objectives.qa.weight=nan": "objectives.qa.weight: expected float",
    f"{RUN} task.top=0": "task.top: expected int (at least 1)",
    f"{RUN} objective=[qa,qa]": "objective=[qa,qa]: qa is named twice",
    f"{RUN} data.drop=[video,audio,text]": "data.drop leaves nothing",
    # vtp run: places
    f"{RUN} run_dir=": "run_dir=: expected the folder of this run",
    f"{RUN} run_dir=null": "run_dir=null: expected the folder of this run",
    f"{RUN} run_dir=FILE": "FILE: File exists",
    f"{RUN} run_dir=FILE/x": "FILE/x: Not a directory",
    f"{RUN} hydra.run.dir=FILE": "FILE: File exists",
    f"{RUN} run_dir=new/er/est seed=-1": "seed: expected int",
    f"{RUN} data.cache=FILE": "data.cache=FILE",
    f"{RUN} data.cache=": "data.cache=",
    f"{RUN} resume=true": "resume: expected str or null, got true",
    f"{RUN} resume=": "resume=: expected",
    f"{RUN} checkpoint=": "checkpoint=: expected",
    f"{RUN} init_from=nowhere": "init_from=nowhere: no such checkpoint",
    f"{RUN} init_map=5": "init_map: expected mapping of str to str",
    f"{RUN} init_allow_missing=5": "init_allow_missing: expected list of str",
    f"{RUN} model=nowhere/x": "model=nowhere/x: no such folder",
    # vtp run: sweeps say it before the first job
    f"{RUN} -m seed=0,x": "seed=x: seed: expected int",
    f"{RUN} -m train.lr=1e-3,-1 objective=qa,nope": "train.lr=-1|'nope'",
    # vtp data
    "data nope": "no action 'nope'",
    "data check": "the following arguments are required: TARGET",
    "data check ''": "the name of a file or folder, got an empty one",
    "data check nowhere.csv": "no such file or folder",
    "data check msvd kind=[1,": "'kind=[1,' cannot be read",
    "data check msvdd": "Did you mean 'msvd'",
    "data check TABLE --timeout nan": "--timeout: expected float (above 0",
    "data check TABLE --timeout 0": "--timeout: expected float (above 0",
    "data check TABLE --workers -1": "--workers: expected int (at least 0",
    "data check TABLE --workers 100000": "--workers: expected int (at least 0, at most 1,024)",
    "data check TABLE --limit 0": "--limit: expected int (at least 1)",
    "data check TABLE --frames x": "--frames: expected int (at least 1), got 'x'",
    "data check TABLE --backend nope": "--backend nope: no such decoder",
    "data check TABLE --out FILE": "FILE is a file",
    "data check TABLE --out ''": "got an empty one",
    "data check TABLE --split nope": "no split 'nope'",
    "data check TABLE --kind nope": "no 'nope' tables",
    "data check TABLE nope=1": "no option 'nope'",
    "data check FULL root=5": "FULL is a folder",
    "data check TABLE --nope": "unrecognized arguments: --nope",
    "data cache TABLE": "the following arguments are required: OUT",
    "data cache TABLE ''": "got an empty one",
    "data cache TABLE FILE": "FILE is a file",
    "data cache TABLE FULL": "holds something that is no cache",
    "data cache TABLE made --timeout nan": "--timeout: expected float (above 0",
    "data cache TABLE made --timeout 0": "--timeout: expected float (above 0",
    "data cache TABLE made --workers -1": "--workers: expected int",
    "data cache TABLE made --audio 5": "--audio: expected int (at least 1,000",
    "data cache TABLE made --audio x": "--audio: expected int (at least 1,000",
    "data cache TABLE made --size 0": "--size: expected int (at least 16",
    "data cache TABLE made --every 0": "--every: expected int (at least 1)",
    "data cache TABLE made --frames -1": "--frames: expected int (at least 0)",
    "data cache TABLE made --kind nope": "--kind nope must be one of",
    "data cache TABLE made --backend nope": "--backend nope: no such decoder",
    "data cache msrvtt made root=[1,": "'root=[1,' cannot be read",
    "data pack TABLE FULL": "FULL holds what `vtp data pack` did not write",
    "data pack TABLE FILE": "FILE is a file",
    "data pack TABLE made --per-shard 0": "--per-shard: expected int (at least 1",
    "data pack TABLE made --frames nan": "--frames: expected int (at least 0)",
    "data pack TABLE made --timeout inf": "--timeout: expected float (above 0",
    "data pack TABLE made split=nope": "no split 'nope'",
    # the others
    "import nope FILE made": "'nope'",
    "import simvtp FILE": "expected NAME FILE OUT",
    "import simvtp nowhere made": "nowhere does not exist",
    "import simvtp FILE FULL": "FULL exists already",
    "import simvtp FILE FILE/x": "FILE is a file",
    "import simvtp FILE made heads=[1,": "'heads=[1,' cannot be read",
    "import simvtp FILE made heads=four": "heads: expected int",
    "import simvtp FILE made nope=1": "no option 'nope'",
    "import simvtp FILE made --nope": "there is no --nope",
    "import simvtp FILE made": "FILE",
    "reconstruct": "the following arguments are required",
    "reconstruct nowhere FILE made": "nowhere",
    "reconstruct nowhere FILE made --clips 0": "--clips: expected int (at least 1",
    "reconstruct nowhere FILE made --fps nan": "--fps: expected float (above 0",
    "reconstruct nowhere FILE made --seed -1": "--seed: expected int (at least 0",
    "reconstruct nowhere FILE made --mask-ratio 2": "--mask-ratio: expected float",
    "compare": "the following arguments are required: RUN[#ROW]",
    "compare FULL": "FULL holds no report.json",
    "compare FULL#row": "FULL holds no report.json",
    "compare FULL FULL": "a run is named twice",
    "compare FULL, FILE": "a run between two commas has no name",
    "compare FULL FILE": "FULL holds no report.json",
    "compare FULL FILE --nope": "unrecognized arguments: --nope",
    "verify": "the following arguments are required: run",
    "verify ''": "the name of a file or folder, got an empty one",
    "verify FULL": "FULL holds no report.json",
    "verify FILE": "report.json cannot be read",
    "verify FULL --nope": "unrecognized arguments: --nope",
    "protocols show": "vtp protocols show NAME",
    "protocols show msvdd": "Did you mean 'msvd",
    "protocols show nowhere.yaml": "nowhere.yaml",
    "protocols nope": "invalid choice: 'nope'",
    "list nope": "no kind 'nope'",
    "list objective vtc": "unrecognized arguments: vtc",
    "show": "the following arguments are required: kind",
    "show objective": "say which one",
    "show objective vtcc": "Did you mean 'vtc'",
    "show nope x": "no kind 'nope'",
    "plugins nope": "invalid choice: 'nope'",
    "plugins chek": "Did you mean 'check'?",
    "compare --htlm a b": "--htlm. Did you mean '--html'",
    "embed --modle x a b": "There is no option --modle. Did you mean '--model'?",
    "plugins check nope": "no plugin 'nope'",
    "plugins --nope": "unrecognized arguments: --nope",
    "doctor nope": "unrecognized arguments: nope",
    "install": "expected the name of a distribution",
    "uninstall": "expected the name of a distribution",
    "uninstall encoders": "a part of vtp-core",
    "uninstall ''": "the name of a distribution",
    "embed": "required: TARGET, OUT, --model",
    "search FULL": "required: QUERY",
    "search FULL ''": "QUERY: expected a text, got an empty one",
    "ask FILE": "required: QUESTION, --model",
    "ask FILE '' --model FULL": "QUESTION: expected a text, got an empty one",
    "caption FILE": "required: --model",
    "export FILE": "required: OUT",
    "completion nope": "invalid choice: 'nope'",
    "new-plugin x --kind nope": "--kind=nope: no such kind",
}  # fmt: skip


def test_there_are_enough_of_them():
    from vtp.cli.main import COMMANDS

    assert len(LINES) >= 60
    assert {line.partition(" ")[0] for line in LINES} >= {*COMMANDS, "reconstruct"}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "FILE").write_text("no checkpoint")
    (tmp_path / "FULL").mkdir()
    (tmp_path / "FULL" / "letter.txt").write_text("dear reader")
    (tmp_path / "TABLE.csv").write_text("video,caption,split\na.mp4,a dog,train\nb.mp4,a cat,test\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def tree(folder: Path) -> dict[str, str | None]:
    return {str(path.relative_to(folder)): path.read_text() if path.is_file() else None for path in folder.rglob("*")}


# `vtp run` composes its configuration for each: the default run takes the first, the slow one all
OF_RUN = [line for line in LINES if line.startswith("run ")]
CASES = [pytest.param(line, marks=[pytest.mark.slow] if line in OF_RUN[18:] else []) for line in LINES]


@pytest.mark.parametrize("line", CASES)
def test_a_wrong_command_line_gets_one_helpful_line(line, folder, capsys):
    before = tree(folder)
    words = str(LINES[line])
    code = main([word.replace("TABLE", "TABLE.csv") for word in shlex.split(line)])
    error = capsys.readouterr().err
    told = [one for one in error.rstrip("\n").split("\n") if not one.startswith("csv: of ")]  # the log of the table
    assert code == 2, error
    assert "Traceback" not in error and told[0].startswith("vtp "), error
    assert all(one.startswith("  ") for one in told[1:]), error  # one line, or one list
    assert told[0] == told[0].rstrip() and len(told[0]) > 12, error
    assert [word for word in words.split("|") if word not in error] == [], error
    assert tree(folder) == before
