"""Packages that are broken on purpose, as strangers ship them: everything that does not use one goes on, and the cause
is named in one line without a traceback."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import venv
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from vtp.cli.main import main
from vtp.cli.run import compose
from vtp.plugins import host
from vtp.run.check import check

HOOK = """
from vtp import hookimpl

@hookimpl
def vtp_register_objectives(register):
    register("mine", "bad.parts:Mine")
"""
PARTS = """
from vtp.model.objective import Objective

class Mine(Objective):
    def __init__(self, *, target: float = 1.0):
        super().__init__()

class Pictures:
    def __init__(self, *, root: str):
        self.root = root

    def samples(self, kind, split):
        return []

class Refuses(Pictures):
    def __init__(self, *, root: str = "x"):
        raise OSError("the disk is gone")
"""
OPTIONS = "# @package objectives.mine\n# Mine.\nname: mine\nweight: 1.0\ntarget: 1.0\n"
FILE = "conf/objective/mine.yaml"
DATA = HOOK.replace("objectives", "datasets").replace(":Mine", ":Pictures")
PROTOCOL = "{name: mine, title: mine, dataset: csv, kind: retrieval, split: test, counts: {queries: 3}}"
USE = ("objective=[qa,mine]",)


@dataclass
class Bad:
    """A broken package: what is in it, what `vtp plugins check` must say, and what a command that uses it must."""

    module: str = HOOK
    says: str = ""
    files: dict[str, str | bytes] = field(default_factory=dict)
    status: str = "loaded"
    use: tuple[str, ...] = ()
    use_says: str = ""
    install: dict[str, Any] = field(default_factory=dict)
    metadata: dict[str, bytes] = field(default_factory=dict)
    twin: dict[str, Any] | None = None


def broken(module: str, says: str, **rest: Any) -> Bad:
    """One that does not even load; asking for its objective tells why."""
    return Bad(module, says, status=rest.pop("status", "broken"), use=USE, use_says=says, **rest)


PACKAGES = {
    # at import
    "import error": broken("import nothing_of_that_name", "ModuleNotFoundError"),
    "attribute missing": broken("from vtp import nothing_of_that_name", "ImportError"),
    "syntax error": broken("def (:", "SyntaxError"),
    "system exit": broken("raise SystemExit(3)", "SystemExit: 3"),
    "division by zero": broken("1 / 0", "ZeroDivisionError"),
    "missing dependency": broken("import snps3_runtime as s", "No module named 'snps3_runtime'"),
    "many lines": broken("raise ValueError('one\\ntwo')", "ValueError: one two"),
    "entry point to nothing": broken("", "No module named", install={"entry_module": "bad.nowhere"}),
    # made for another vtp
    "newer core": broken("1 / 0", "it needs vtp-core>=99", status="incompatible", install={"requires": "vtp-core>=99"}),
    "newer api": broken("VTP_API = 99", "VTP_API 99", status="incompatible"),
    # hooks
    "misspelt hook": broken(HOOK.replace("objectives", "objectivs"), "Did you mean 'vtp_register_objectives'"),
    "hook of a newer vtp": broken(HOOK.replace("objectives", "dreams"), "vtp_register_dreams"),
    "hook without mark": broken(HOOK.replace("@hookimpl\n", ""), "lacks @hookimpl"),
    "wrong hook parameter": broken(HOOK.replace("(register)", "(register, engine)"), "engine"),
    "raises half way": broken(HOOK + "    raise RuntimeError('half')", "RuntimeError: half"),
    # registrations
    "class instead of string": broken(HOOK.replace('"bad.parts:Mine"', "dict"), "register a string"),
    "target without colon": broken(HOOK.replace(":Mine", ".Mine"), "module:attribute"),
    "no slot": broken(HOOK.replace("objectives", "encoders"), "slot="),
    "wrong slot": broken(
        HOOK.replace("objectives", "encoders").replace(':Mine"', ':Mine", slot="smell"'), "text, video, audio, fusion"
    ),
    "name of a built-in": broken(HOOK.replace('"mine"', '"vtc"'), "which vtp-core offers already"),
    "name of a core sampler": broken(
        HOOK.replace("objectives", "samplers").replace('"mine"', '"dense"'), "which vtp-core offers already"
    ),
    "form without noun": broken(HOOK.replace("objectives", "forms"), "counted="),
    "target that is not there": Bad(
        HOOK.replace(":Mine", ":Yours"), "cannot be imported", {FILE: OPTIONS}, use=USE, use_says="bad.parts:Yours"
    ),
    "misspelt member": Bad(
        HOOK, "needs_fusion", {FILE: OPTIONS, "parts.py": PARTS.replace("    def __init__(self, *, target",
        "    needs_fusoin = True\n\n    def __init__(self, *, target", 1)},
    ),
    "objective without the base class": Bad(
        HOOK, "is no subclass of vtp.model.objective.Objective", {FILE: OPTIONS, "parts.py": "class Mine: pass\n"},
        use=USE, use_says="is no subclass of vtp.model.objective.Objective",
    ),
    "data set without samples": Bad(
        DATA, "it has no `samples`",
        {"conf/dataset/mine.yaml": "# Mine.\nname: mine\n", "parts.py": "class Pictures: pass\n"},
        use=("dataset=mine",), use_says="has no `samples`",
    ),
    "hook that is no function": broken("vtp_register_objectives = 5", "'vtp_register_objectives' is no function"),
    "name of a command": broken(
        HOOK.replace("objectives", "commands").replace('"mine"', '"run"'), "offers command 'run', which vtp-core"
    ),
    "name of two lines": broken(HOOK.replace('"mine"', '"mi\\nne"'), "a name of letters, digits, _ and -"),
    "metaclass that refuses": broken(
        "class Meta(type):\n    def __getattribute__(cls, name):\n        raise RuntimeError('no ' + name)\n\n"
        "class Mine(metaclass=Meta): pass\n", "RuntimeError: no ",
    ),
    "escape sequences": broken("raise ValueError('\\x1b[31m \\udce9')", r"ValueError: \x1b[31m \udce9"),
    # what the process is to stay: it works, and is told
    "changes the folder": Bad("import os\nos.chdir('/')\n" + HOOK, "it changes the working folder", {FILE: OPTIONS}),
    "replaces stdout": Bad(
        "import io, sys\nsys.stdout = sys.stderr = io.StringIO()\n" + HOOK, "changes sys.stdout or sys.stderr",
        {FILE: OPTIONS},
    ),
    "empties the path": Bad("import sys\nsys.path.clear()\n" + HOOK, "it changes sys.path when", {FILE: OPTIONS}),
    "few frames": Bad("import sys\nsys.setrecursionlimit(90)\n" + HOOK, "the recursion limit", {FILE: OPTIONS}),
    # metadata, as an interrupted installation leaves it
    "metadata that is not UTF-8": broken("", "METADATA cannot be read (Unicode", metadata={"METADATA": b"\xff\xfe"}),
    "metadata without a name": broken("", "it has no Name", metadata={"METADATA": b"Version: 1.0\n"}),
    "metadata without a version": broken("", "it has no Version", metadata={"METADATA": b"Name: bad\n"}),
    "empty metadata": broken("", "it has no Name", metadata={"METADATA": b""}),
    "nonsense for a range": broken(
        "", "InvalidRequirement", metadata={"METADATA": b"Name: bad\nVersion: 1.0\nRequires-Dist: vtp-core >>> 3 x\n"}
    ),
    "entry points that are not UTF-8": broken(
        "", "entry_points.txt cannot be read", metadata={"entry_points.txt": b"[vtp.plugins]\nbad = bad.plugin\n\xff"}
    ),
    # option files
    "shadows a built-in option": Bad(
        HOOK, "conf/objective/vtc.yaml has the name of a built-in one", {"conf/objective/vtc.yaml": OPTIONS},
        "broken", ("objective=[vtc,mine]",), "conf/objective/vtc.yaml has the name of a built-in one",
    ),
    "shadows a typed node": Bad(HOOK, "conf/schema/train.yaml", {"conf/schema/train.yaml": "lr: 1\n"}, "broken"),
    "shadows the configuration": Bad(HOOK, "conf/run.yaml", {"conf/run.yaml": "seed: 1\n"}, "broken"),
    "unknown option": Bad(
        HOOK, "has no option 'targt'. Did you mean 'target'", {FILE: OPTIONS.replace("target", "targt")},
        use=USE, use_says="has no option 'targt'. Did you mean 'target'",
    ),
    "option of a wrong type": Bad(
        HOOK, "target: expected float, got 'far'", {FILE: OPTIONS.replace("get: 1.0", "get: far")},
        use=USE, use_says="objectives.mine.target: expected float, got 'far'",
    ),
    "no package line": Bad(
        HOOK, "must be # @package objectives.mine", {FILE: OPTIONS.partition("\n")[2]},
        use=USE, use_says="conf/objective/mine.yaml of plugin 'bad' lacks its first line `# @package objectives.mine`",
    ),
    "no name": Bad(
        HOOK, "the line `name: ...`, the registered name, is missing", {FILE: OPTIONS.replace("name: mine\n", "")},
        use=USE, use_says="conf/objective/mine.yaml of plugin 'bad' lacks the line `name: ...`",
    ),
    "no option file": Bad(
        HOOK, "no option file in conf/objective/ chooses it", use=USE,
        use_says="plugin 'bad' (bad) registers it but brings no option file",
    ),
    "option file of nothing": Bad(
        "", "no plugin offers objective 'mine'", {FILE: OPTIONS}, use=USE, use_says="no plugin offers objective 'mine'"
    ),
    "option file that is not UTF-8": Bad(
        HOOK, "is not UTF-8", {FILE: b"# @package objectives.mine\n# \xff\nname: mine\n"},
        use=USE, use_says="objective=mine of plugin 'bad'",
    ),
    "option file that is not YAML": Bad(
        HOOK, "is not valid YAML", {FILE: OPTIONS + "x: [\n"}, use=USE, use_says="mine.yaml",
    ),
    "option file that builds on itself": Bad(
        HOOK, "conf/objective/mine.yaml builds on itself, by way of objective/mine, objective/yours",
        {
            FILE: OPTIONS + "defaults: [yours]\n",
            "conf/objective/yours.yaml": OPTIONS + "defaults: [/objective/mine@_here_]\n",
        },
        use=USE, use_says="objective=mine of plugin 'bad' builds on itself, by way of objective/mine, objective/yours",
    ),
    "renamed.yaml that is not YAML": Bad(HOOK, "conf/renamed.yaml", {FILE: OPTIONS, "conf/renamed.yaml": "x: ["}),
    "a value that must be given": Bad(
        DATA, "", {"conf/dataset/mine.yaml": "# Mine.\nname: mine\nroot: ???\n"}, use=("dataset=mine",),
        use_says="dataset.root has no default: give dataset.root=...",
    ),
    # protocols, twins
    "protocol of an unknown kind": Bad(
        HOOK, "kind: smell", {FILE: OPTIONS, "protocols/mine.yaml": PROTOCOL.replace("retrieval", "smell")},
        use=("task.protocol=mine",), use_says="kind: smell",
    ),
    "protocol that is not UTF-8": Bad(HOOK, "cannot be read", {FILE: OPTIONS, "protocols/mine.yaml": b"\xff"}),
    "one name by two plugins": Bad(
        HOOK, "is also offered by another plugin", {FILE: OPTIONS}, use=USE, use_says="is offered twice",
        twin={"name": "twin", "module": HOOK},
    ),
    "one plugin name by two packages": Bad(
        HOOK, "is also used by twin", {FILE: OPTIONS}, "refused", twin={"name": "twin", "module": HOOK,
        "entry_name": "bad"},
    ),
}  # fmt: skip


OF_EACH_STATUS = {bad.status: name for name, bad in PACKAGES.items()}.values()
# The default run tries a third of them; one run with all of them at once is among the long tests, too.
QUICK = {*OF_EACH_STATUS, *[*PACKAGES][::3]}
LOADED = [name for name, bad in PACKAGES.items() if bad.status == "loaded"]  # those that reach a run


@pytest.fixture
def package(install, site, tmp_path, monkeypatch) -> Callable[[str], Bad]:
    """Installs one of :data:`PACKAGES` as the plugin ``bad``."""
    monkeypatch.chdir(tmp_path)

    def put(name: str) -> Bad:
        bad = PACKAGES[name]
        keywords = dict(bad.install)
        module = keywords.pop("entry_module", None)
        write(install, "bad", bad.module, {"parts.py": PARTS, **bad.files}, **keywords)
        if module:
            (site / "bad-1.0.dist-info" / "entry_points.txt").write_text(f"[vtp.plugins]\nbad = {module}\n")
        for file, content in bad.metadata.items():
            (site / "bad-1.0.dist-info" / file).write_bytes(content)
        if bad.twin:
            write(install, bad.twin["name"], bad.twin["module"], {}, entry_name=bad.twin.get("entry_name"))
        host.cache_clear()
        return bad

    yield put
    host.cache_clear()


def write(install: Callable[..., Path], name: str, module: str, files: dict[str, str | bytes], **rest: Any) -> None:
    """Like ``install``, with files that need not be text."""
    folder = install(name, module, files={k: v for k, v in files.items() if isinstance(v, str)}, **rest)
    for path, content in files.items():
        if isinstance(content, bytes):
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_bytes(content)


def each(names: Iterable[str]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize(
        "name", [n if n in QUICK else pytest.param(n, marks=pytest.mark.slow) for n in names]
    )


@each(PACKAGES)
def test_unrelated_commands_work_and_the_cause_is_named(package, capsys, name, tmp_path):
    bad = package(name)
    unrelated = [["--help"], ["list"], ["plugins"], ["protocols"], ["run", "--help"]]
    for command in unrelated if name in (*OF_EACH_STATUS, *LOADED) else unrelated[:3]:
        assert main(command) == 0, command
    said = capsys.readouterr()
    assert "Traceback" not in said.out + said.err
    if name in LOADED:
        check(compose(["task=msrvtt_qa", "dataset=shapes"]), tmp_path)
    assert main(["plugins", "--json"]) == 0
    status = {info["name"]: info["status"] for info in json.loads(capsys.readouterr().out)}
    assert status["bad"] == bad.status

    assert main(["plugins", "check", "bad", "--quick"]) == (1 if bad.says else 0)
    out, err = capsys.readouterr()
    lines = [line for line in out.splitlines() if bad.says in line and line.startswith("bad: ")]
    assert len(lines) >= 1 if bad.says else out, out + err
    assert "Traceback" not in out + err
    assert main(["plugins", "why", "bad"]) == 0
    explained = capsys.readouterr().out
    if bad.status == "loaded":
        assert "plugin 'bad' of bad 1.0: loaded" in explained
    else:
        assert bad.says in explained and "what to do: " in explained


@each(name for name, bad in PACKAGES.items() if bad.use)
def test_whoever_uses_it_is_told_in_one_line(package, capsys, name):
    bad = package(name)
    assert main(["run", "task=msrvtt_qa", "dataset=shapes", *bad.use]) == 2
    error = capsys.readouterr().err
    assert "Traceback" not in error and error.startswith("vtp run: ")
    assert [line for line in error.splitlines() if bad.use_says in line], error


def test_a_plugin_that_prints_leaves_json_alone(package, install, capsys):
    install("loud", "print('hello')\n" + HOOK.replace("bad", "loud"), files={"parts.py": PARTS, FILE: OPTIONS})
    host.cache_clear()
    try:
        assert main(["plugins", "--json"]) == 0
        found = capsys.readouterr()
        (loud,) = [one for one in json.loads(found.out) if one["name"] == "loud"]
        assert loud["offers"] == {"objective": ["mine"]} and "requires" not in found.out
        assert "hello" in found.err
        assert main(["plugins", "check", "--json", "--quick", "loud"]) == 0
        assert json.loads(capsys.readouterr().out) == {"loud": []}
    finally:
        host.cache_clear()


def test_a_plugin_that_imports_torch_is_told(package, install, capsys, monkeypatch, site):
    install("heavy", "import torch\n" + HOOK.replace("bad", "heavy"), files={"parts.py": PARTS, FILE: OPTIONS})
    (site / "torch.py").write_text("")
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    host.cache_clear()
    try:
        assert main(["plugins"]) == 0
        assert "it imports torch when it is loaded, which slows every command down" in capsys.readouterr().out
    finally:
        sys.modules.pop("torch", None)  # the small one; the other comes back with the fixture
        host.cache_clear()


def test_ctrl_c_while_a_plugin_is_imported_names_it(package, install, capsys):
    install("slow", "raise KeyboardInterrupt")
    host.cache_clear()
    try:
        assert main(["plugins"]) == 130
        assert "interrupted while plugin 'slow' (slow) was loaded" in capsys.readouterr().err
    finally:
        host.cache_clear()


@pytest.mark.slow
def test_a_run_goes_on_with_all_of_them_installed(install, site, tmp_path):
    for number, bad in enumerate(PACKAGES.values()):
        if not (bad.install or bad.metadata or bad.twin):
            files = {"parts.py": PARTS, **bad.files}
            write(install, f"bad{number}", bad.module.replace("bad.", f"bad{number}."), files)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(site), os.environ.get("PYTHONPATH", "")])}
    options = ["task=msrvtt_qa", "dataset=shapes", "dataset.size=tiny", f"dataset.root={tmp_path / 'shapes'}"]
    options += ["train.steps=2", "train.epochs=null", "train.global_batch=4", "data.workers=0", "threads=1"]
    command = [sys.executable, "-m", "vtp", "run", *options]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_all_of_them_at_once_are_labelled_and_can_be_uninstalled(tmp_path, install_into):
    """In an environment of its own, because pip removes nothing from a folder that is only on the path."""
    venv.create(tmp_path / "venv")
    (site,) = (tmp_path / "venv" / "lib").glob("python*/site-packages")
    python = str(tmp_path / "venv" / "bin" / "python")
    (site / "libraries.pth").write_text("\n".join(path for path in sys.path if path and Path(path).is_dir()) + "\n")
    names = {}
    for number, (what, bad) in enumerate(PACKAGES.items()):
        if bad.twin or "entry_module" in bad.install or "entry_points.txt" in bad.metadata:  # torch reads those, too
            continue
        name = names[what] = f"bad{number}"
        module, package = bad.module.replace("bad.", f"{name}."), {"parts.py": PARTS, **bad.files}
        write(partial(install_into, site), name, module, package, **bad.install)
        info = site / f"{name}-1.0.dist-info"
        for file, content in bad.metadata.items():
            (info / file).write_bytes(content.replace(b"bad", name.encode()))
        files = [file for folder in (site / name, info) for file in folder.rglob("*") if file.is_file()]
        (info / "RECORD").write_text("".join(f"{file.relative_to(site)},,\n" for file in [*files, info / "RECORD"]))
    assert len(names) >= 20
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("VTP_", "PYTHON", "VIRTUAL_ENV"))}

    def vtp(*arguments: str, code: int = 0) -> str:
        command = [python, "-m", "vtp", *arguments]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == code, done.stdout + done.stderr
        assert "Traceback" not in done.stdout + done.stderr
        return done.stdout

    for command in (["--help"], ["list"], ["plugins"], ["protocols"], ["run", "--help"]):
        vtp(*command)
    vtp("run", "task=msrvtt_qa", "dataset=shapes", "--cfg", "job")
    listed = {one["name"]: one for one in json.loads(vtp("plugins", "--json"))}
    checked = json.loads(vtp("plugins", "check", "--json", "--quick", code=1))
    for what, name in names.items():
        bad = PACKAGES[what]
        assert listed[name]["status"] == bad.status, what
        said = (
            " ".join([listed[name]["error"], *checked[name]]).replace(f"{name}.", "bad.").replace(repr(name), "'bad'")
        )
        assert bad.says in said or "is also " in said, (what, said)  # several offer 'mine', which is a cause as well
    for name in names.values():
        assert re.search(rf"Successfully uninstalled {name}-1.0|{name}: \d+ files removed", vtp("uninstall", name))
    left = {one["name"] for one in json.loads(vtp("plugins", "--json"))}
    assert left and not left & set(names.values())
    assert not list(site.glob("bad*"))
    vtp("plugins", "check")
