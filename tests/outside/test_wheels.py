"""The wheels of the tree in a clean environment, laid over the libraries: nothing of the checkout is on its path."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
import tomllib
import venv
from pathlib import Path

import pytest
from outside_packages import folder_of_shapes

ROOT = Path(__file__).resolve().parents[2]
WORKSPACE = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]["vtp.workspace"]
ADDONS = {f"vtp-plugin-{name}": name for name in WORKSPACE}
METHODS = sorted(name for name in WORKSPACE if not (ROOT / "plugins" / "commands" / name).exists())
SMALL = ["dataset.size=tiny", "train.steps=2", "train.epochs=null", "train.global_batch=8", "threads=1"]
SMALL += ["data.workers=0", "train.tensorboard=false"]

EXAMPLES = {
    f"vtp-plugin-{name}": ROOT / "examples" / folder
    for name, folder in [
        ("sigmoid", "objective"),
        ("clipfolder", "dataset"),
        ("perceiver", "fusion"),
        ("losslog", "callback"),
    ]
}

pytestmark = pytest.mark.slow


def conf(name: str) -> Path:
    """Options that the add-on brings, in its wheel's source."""
    return next(ROOT.glob(f"plugins/*/{name}/src")) / WORKSPACE[name].partition(".")[0] / "conf"


class Environment:
    """A virtual environment with nothing but the wheels, and the libraries of this one behind them."""

    def __init__(self, folder: Path, wheels: Path) -> None:
        venv.create(folder / "venv")
        self.folder, self.wheels = folder, wheels
        self.python = folder / "venv" / "bin" / "python"
        hidden = ("PYTHON", "VTP_", "VIRTUAL_ENV")
        self.variables = {k: v for k, v in os.environ.items() if not k.startswith(hidden)}
        self.variables |= {"VTP_CACHE": str(folder / "cache"), "COLUMNS": "300"}
        self.pip("install", "vtp-core", *ADDONS)
        (site,) = (folder / "venv" / "lib").glob("python*/site-packages")
        # As paths, not as site folders: a .pth file in there, such as that of an editable vtp, is not followed.
        libraries = [path for path in sys.path if path.endswith(("site-packages", "dist-packages"))]
        (site / "libraries.pth").write_text("\n".join(libraries) + "\n")

    def pip(self, what: str, *names: str) -> None:
        options = {
            "install": ["--no-index", "--find-links", str(self.wheels), "--no-deps", "--ignore-installed"],
            "uninstall": ["--yes"],
        }
        command = [sys.executable, "-m", "pip", "--python", str(self.python), what, *options[what], *names]
        self.done(subprocess.run(command, capture_output=True, text=True, check=False))

    def vtp(self, *arguments: str, fails: int = 0) -> str:
        """What the command says, run from an empty folder."""
        empty = self.folder / "empty"
        empty.mkdir(exist_ok=True)
        command = [str(self.python.with_name("vtp")), *arguments]
        done = subprocess.run(command, cwd=empty, env=self.variables, capture_output=True, text=True, check=False)
        return self.done(done, fails)

    @staticmethod
    def done(process: subprocess.CompletedProcess[str], fails: int = 0) -> str:
        said = process.stdout + process.stderr
        assert process.returncode == fails, said[-3000:]
        return said


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Environment:
    for tool in ("hatchling", "pip"):
        pytest.importorskip(tool)
    folder = tmp_path_factory.mktemp("clean")
    for project in (ROOT, *(conf(name).parents[2] for name in ADDONS.values()), *EXAMPLES.values()):
        command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder / "wheels")]
        Environment.done(subprocess.run(command, cwd=project, capture_output=True, text=True, check=False))
    return Environment(folder, folder / "wheels")


def test_code_is_that_of_the_wheels(environment: Environment) -> None:
    modules = ["vtp", "vtp_encoders", *(value.partition(".")[0] for value in WORKSPACE.values())]
    code = f"import sys, {', '.join(modules)}\nfor m in ({', '.join(modules)}): print(m.__file__)\nprint(*sys.path)"
    command = [str(environment.python), "-c", code]
    said = subprocess.run(
        command, cwd=environment.folder, env=environment.variables, capture_output=True, text=True, check=True
    )
    assert str(ROOT) not in said.stdout
    assert said.stdout.count(str(environment.folder / "venv")) >= len(modules)


def test_plugins_are_listed(environment: Environment) -> None:
    said = environment.vtp("plugins")
    for distribution in ADDONS:
        assert distribution in said and f"pip install {distribution}" not in said


@pytest.mark.parametrize("name", METHODS)
def test_a_tiny_experiment_runs(environment: Environment, name: str) -> None:
    experiments = sorted(
        conf(name).glob(f"experiment/{name}/tiny_*.yaml"), key=lambda file: "pretrain" not in file.name
    )
    assert experiments, "a method brings an experiment of toy size"
    chosen = f"experiment={name}/{experiments[0].stem}"
    environment.vtp("run", chosen, "dataset=shapes", f"run_dir={environment.folder / name}", *SMALL)
    assert (environment.folder / name / "report.json").is_file()


def test_crossformer_runs_alone(environment: Environment) -> None:
    """On top of the core, without the other packages."""
    others = [distribution for distribution, name in ADDONS.items() if name != "crossformer"]
    environment.pip("uninstall", *others)
    try:
        run_dir = environment.folder / "alone"
        environment.vtp("run", "experiment=crossformer/tiny_qa", "dataset=shapes", f"run_dir={run_dir}", *SMALL)
        assert (run_dir / "report.json").is_file()
        assert "vat-media" in environment.vtp("--help")
    finally:
        environment.pip("install", *others)


def test_univl_retrieves(environment: Environment) -> None:
    run_dir = environment.folder / "retrieval"
    small = [*SMALL, "encoder.video.preset=tiny", "encoder.text.preset=tiny", "encoder.text.tokenizer=texts"]
    environment.vtp("run", "task=msrvtt_retrieval", "model=univl", "dataset=shapes", f"run_dir={run_dir}", *small)
    assert (run_dir / "report.json").is_file()


def test_without_the_packages_errors_name_them(environment: Environment) -> None:
    environment.pip("uninstall", *ADDONS)
    try:
        listed = environment.vtp("plugins")
        for distribution, name in ADDONS.items():
            assert f"not installed: {name}; pip install {distribution}" in listed
            for kind in ("model", "experiment"):
                for file in sorted(conf(name).glob(f"{kind}/**/*.yaml"))[:1]:
                    option = file.relative_to(conf(name) / kind).with_suffix("").as_posix()
                    said = environment.vtp("run", f"{kind}={option}", "dataset=shapes", fails=2)
                    assert said.count("\n") == 1 and "pip install " in said and distribution in said
    finally:
        environment.pip("install", *ADDONS)


def test_the_examples_are_installed_and_train(environment: Environment) -> None:
    folder_of_shapes(environment.folder / "data")
    index = environment.folder / "data" / "index.jsonl"
    lines = [json.loads(line) for line in index.read_text().splitlines()]
    index.write_text("\n".join(json.dumps(line | {"clip": f"media/{line['clip']}"}) for line in lines))
    page = (ROOT / "examples" / "README.md").read_text()
    commands = [shlex.split(line)[1:] for line in re.findall(r"`(vtp run .*?)`", page)]
    assert len(commands) == len(EXAMPLES)
    environment.pip("install", *EXAMPLES)
    try:
        assert f"{len(EXAMPLES)} plugins, nothing is wrong" in environment.vtp("plugins", "check", *EXAMPLES)
        for number, command in enumerate(commands):
            run_dir = environment.folder / f"example{number}"
            small = [option for option in SMALL if "dataset=shapes" in command or "dataset.size" not in option]
            used = [word.replace("=DIR", f"={environment.folder / 'data'}") for word in command]
            environment.vtp(*used, f"run_dir={run_dir}", *small)
            report = json.loads((run_dir / "report.json").read_text())
            assert report["metrics"] and report["ledger"]["missing"] == 0
    finally:
        environment.pip("uninstall", *EXAMPLES)
