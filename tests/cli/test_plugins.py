"""The plugin host: faulty plugins are named and dropped, good ones and the built-ins keep working."""

import os
import pickle
import re
import subprocess
import sys

import numpy as np
import pytest

from vtp import plugins
from vtp.cli.main import main
from vtp.config import DataConfig
from vtp.errors import PluginError
from vtp.options import option_files
from vtp.plugins import Host, config_dir, discover

GOOD = """
from vtp import hookimpl

@hookimpl
def vtp_register_objectives(register):
    register("mine", "{package}.objective:Mine")
"""

# plugin.py that is wrong -> (status, words that its error must contain)
FAULTS = {
    "import_error": ("import nothing_of_that_name", "broken", ["ModuleNotFoundError", "nothing_of_that_name"]),
    "syntax_error": ("def (:", "broken", ["SyntaxError"]),
    "system_exit": ("raise SystemExit(3)", "broken", ["SystemExit"]),
    "other_error": ("1 / 0", "broken", ["ZeroDivisionError"]),
    "newer_api": ("VTP_API = 99", "incompatible", ["VTP_API 99"]),
    "misspelt_hook": (GOOD.replace("objectives", "objectivs"), "broken", ["vtp_register_objectivs"]),
    "extra_argument": (GOOD.replace("(register)", "(register, engine)"), "broken", ["engine"]),
    "raises_half_way": (GOOD + "    raise RuntimeError('half')", "broken", ["RuntimeError", "half"]),
    "target_without_colon": (GOOD.replace(":Mine", ".Mine"), "broken", ["module:attribute"]),
    "encoder_without_slot": (GOOD.replace("objectives", "encoders"), "broken", ["slot="]),
    "transform_without_modality": (GOOD.replace("objectives", "transforms"), "broken", ["modality=", "got None"]),
    "form_without_noun": (GOOD.replace("objectives", "forms"), "broken", ["counted="]),
    "name_of_the_core": (
        GOOD.replace("objectives", "samplers").replace('"mine"', '"dense"'),
        "broken",
        ["sampler 'dense'", "vtp-core offers already"],
    ),
    "name_of_a_builtin": (GOOD.replace('"mine"', '"vtc"'), "broken", ["vtc", "vtp-core offers already"]),
}


@pytest.fixture
def fresh_host():
    """The plugins of this process are looked for again, before and after the test."""
    plugins.host.cache_clear()
    yield
    plugins.host.cache_clear()


def status(host: Host, plugin: str) -> tuple[str, str]:
    info = next(info for info in host.infos if info.point.name == plugin)
    return info.status, info.error


@pytest.mark.parametrize("fault", FAULTS)
def test_a_faulty_plugin_is_named_and_the_others_work(install, fault):
    module, expected, words = FAULTS[fault]
    install("faulty", module.format(package="faulty"))
    install("good", GOOD.format(package="good").replace('"mine"', '"good_one"'))
    host = Host().load()
    found, error = status(host, "faulty")
    assert found == expected
    for word in words:
        assert word in error
    assert "\n" not in error  # one line: it is shown inside other messages
    assert host.registry.get("objective", "good_one").distribution == "good"
    assert host.registry.get("objective", "vtc").distribution == "vtp-core"
    assert not [entry for entry in host.registry.entries() if entry.plugin == "faulty"]


def test_a_plugin_for_another_core_is_not_imported(install):
    install("future", "raise AssertionError('imported')", requires="vtp-core>=99")
    assert status(Host().load(), "future") == (
        "incompatible",
        "it needs vtp-core>=99, this is 0.1.0. Update future or vtp-core",
    )


def test_an_unknown_name_tells_suggestions_and_broken_plugins(install):
    install("faulty", "import nothing_of_that_name")
    with pytest.raises(PluginError) as error:
        Host().load().registry.get("objective", "vtcc")
    assert "Did you mean 'vtc'" in str(error.value)
    assert "faulty" in str(error.value) and "nothing_of_that_name" in str(error.value)


def test_two_strangers_that_offer_one_component_make_it_unusable(install):
    install("one", GOOD.format(package="one"))
    install("two", GOOD.format(package="two"))
    host = Host().load()
    assert status(host, "one")[0] == status(host, "two")[0] == "loaded"
    with pytest.raises(PluginError, match=r"offered twice, by plugin 'one' \(one\) and by plugin 'two' \(two\)"):
        host.registry.get("objective", "mine")


def test_two_strangers_with_one_plugin_name_are_both_refused(install, monkeypatch):
    install("one", GOOD.format(package="one"), entry_name="same")
    install("two", GOOD.format(package="two").replace('"mine"', '"other"'), entry_name="same")
    host = Host().load()
    assert [info.status for info in host.infos if info.point.name == "same"] == ["refused", "refused"]
    monkeypatch.setenv("VTP_BLOCK_PLUGINS", "two")  # as the message says
    assert Host().load().registry.get("objective", "mine").distribution == "one"


def test_a_stranger_cannot_take_the_plugin_name_of_a_builtin(install):
    install("one", GOOD.format(package="one"), entry_name="objectives")
    infos = [info for info in Host().load().infos if info.point.name == "objectives"]
    assert [(info.point.distribution, info.status) for info in infos] == [("vtp-core", "loaded"), ("one", "refused")]


@pytest.mark.parametrize(
    ("variable", "value", "mine", "builtin"),
    [
        ("VTP_BLOCK_PLUGINS", "mine", "blocked", "loaded"),
        ("VTP_BLOCK_PLUGINS", "My_Dist", "blocked", "loaded"),
        ("VTP_BLOCK_PLUGINS", "objectives", "loaded", "blocked"),
        ("VTP_LOAD_PLUGINS", "", "blocked", "loaded"),
        ("VTP_LOAD_PLUGINS", "my-dist", "loaded", "loaded"),
    ],
)
def test_plugins_can_be_switched_off(install, monkeypatch, variable, value, mine, builtin):
    install("mine", GOOD.format(package="mine"), distribution="my-dist")
    monkeypatch.setenv(variable, value)
    host = Host().load()
    assert (status(host, "mine")[0], status(host, "objectives")[0]) == (mine, builtin)


def test_strict_makes_a_faulty_plugin_an_error(install, monkeypatch):
    install("faulty", "1 / 0")
    monkeypatch.setenv("VTP_STRICT_PLUGINS", "1")
    with pytest.raises(PluginError, match="ZeroDivisionError"):
        Host().load()


def test_finding_options_imports_no_plugin(install):
    install("mine", "raise AssertionError('imported')", files={"conf/objective/mine.yaml": "# mine\n"})
    point = next(p for p in discover() if p.name == "mine")
    assert config_dir(point).name == "conf"
    assert option_files([point])["objective"]["mine"] == [("mine", config_dir(point) / "objective" / "mine.yaml")]
    assert "mine.plugin" not in sys.modules


def test_every_registered_component_can_be_imported():
    for entry in Host().load().registry.entries():
        assert callable(entry.load()), entry


SAMPLER = """
from vtp import hookimpl

@hookimpl
def vtp_register_samplers(register):
    register("tail", "mine.sampling:tail")
    register("local", "mine.sampling:local")
    register("narrow", "mine.sampling:narrow")
"""
TAIL = """
import numpy as np

def tail(info, *, frames, stride, generator):
    return info.count - frames + np.arange(frames)

def narrow(info, frames):
    return np.arange(frames)

local = lambda info, *, frames, stride, generator: np.arange(frames)
"""


def test_a_strangers_sampler_chooses_the_frames_in_workers(install, fresh_host):
    from vtp.data import EvalLoader, Pipeline
    from vtp.media import VideoInfo
    from vtp.media.sampling import find_sampler
    from vtp.types import Clip, MediaRef, Sample, VideoSpec

    class Reader:
        def read(self, ref, wanted):
            info = VideoInfo(0, "fake", 8, 8, 10.0, np.arange(100) / 10, 10.0)
            return Clip(np.broadcast_to(wanted.times(info).astype(np.uint8)[:, None, None, None], (4, 8, 8, 3)))

    install("mine", SAMPLER, files={"sampling.py": TAIL})
    sampler = find_sampler("tail")
    assert pickle.loads(pickle.dumps(sampler)) is sampler
    pipeline = Pipeline({"video": VideoSpec(frames=4, size=8)}, train=False, reader=Reader(), sampler=sampler)
    samples = [Sample(str(i), video=MediaRef(str(i))) for i in range(4)]
    for batch in EvalLoader(samples, pipeline, batch_size=2, workers=2):
        assert batch.inputs["video"]["frames"][:, :, 0, 0, 0].tolist() == [[96, 97, 98, 99]] * 2


@pytest.mark.parametrize(("name", "words"), {"local": "pickle|attribute lookup", "narrow": "stride"}.items())
def test_a_sampler_that_cannot_work_is_refused_before_training(install, fresh_host, name, words):
    install("mine", SAMPLER, files={"sampling.py": TAIL})
    (wrong,) = DataConfig(sampler=name).validate()
    assert f"data.sampler={name}: mine.sampling" in wrong and re.search(words, wrong)


def test_an_unknown_sampler_suggests_a_strangers(install, fresh_host):
    install("mine", SAMPLER, files={"sampling.py": TAIL})
    (wrong,) = DataConfig(sampler="tial").validate()
    assert "data.sampler=tial: no such frame sampler. Did you mean 'tail'" in wrong and wrong.endswith("tail.")


def test_help_is_light():
    """`vtp --help` must not pay for hydra or torch, and lists the commands of plugins."""
    command = [sys.executable, "-X", "importtime", "-m", "vtp", "--help"]
    result = subprocess.run(command, capture_output=True, text=True, check=True, env=os.environ | {"COLUMNS": "200"})
    imported = {line.rsplit("|", 1)[-1].strip().partition(".")[0] for line in result.stderr.splitlines()}
    assert not imported & {"hydra", "omegaconf", "torch", "numpy", "transformers", "rich"}
    assert "vtp run" in result.stdout and re.search(r"^  reconstruct +\S.*\[simvtp\]$", result.stdout, re.M)


def test_help_survives_broken_plugins(install, fresh_host, capsys, monkeypatch):
    install("faulty", "1 / 0")
    assert main(["--help"]) == 0
    monkeypatch.setenv("VTP_STRICT_PLUGINS", "1")
    plugins.host.cache_clear()
    assert main(["--help"]) == 0
    assert "ZeroDivisionError" in capsys.readouterr().out


def test_plugin_modules_are_light():
    """Listing what is installed imports no library that computes."""
    code = (
        "import sys, vtp.plugins; vtp.plugins.host();"
        "print([m for m in ('torch', 'transformers', 'timm', 'av', 'hydra', 'numpy') if m in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_the_core_imports_no_plugin():
    """Direction of dependency: plugins -> core, never back."""
    from pathlib import Path

    import vtp

    addons = {"vtp_simvtp", "vtp_univl", "vtp_snps3", "vtp_crossformer", "vtp_alpro", "vtp_serve", "vtp_mteb"}
    plugins = {p.package for p in discover() if p.builtin} | addons
    pattern = re.compile(rf"^\s*(?:from|import)\s+({'|'.join(plugins)})\b", re.M)
    for file in Path(vtp.__file__).parent.rglob("*.py"):
        assert not pattern.search(file.read_text()), file


@pytest.mark.parametrize(
    "arguments",
    [
        ["run", "model=simvtp", "task=msrvtt_qa", "dataset=shapes"],
        ["run", "task=msrvtt_retrieval", "dataset=shapes", "objective=[simvtp/vtc]"],
        ["run", "experiment=simvtp/tiny_pretrain"],
        ["show", "objective", "simvtp/vtm"],
        ["import", "simvtp", "a.pth", "b"],
        ["reconstruct", "a", "b", "c"],
    ],
)
def test_what_an_addon_brings_is_named_with_its_package_where_it_is_missing(monkeypatch, capsys, tmp_path, arguments):
    monkeypatch.setenv("VTP_CACHE", str(tmp_path))  # what is installed is looked up, not remembered
    real = plugins.importlib.util.find_spec
    absent = lambda name, *rest: None if name.startswith("vtp_simvtp") else real(name, *rest)  # noqa: E731
    monkeypatch.setattr(plugins.importlib.util, "find_spec", absent)
    plugins.host.cache_clear()
    try:
        assert main(arguments) == 2
        said = capsys.readouterr().err
        wanted = "not installed: " if arguments[0] == "reconstruct" else "pip install "
        wanted += "vtp-plugin-simvtp"
        assert wanted in said and "Traceback" not in said
        assert main(["plugins"]) == 0
        assert "not installed: simvtp; pip install vtp-plugin-simvtp" in capsys.readouterr().out
    finally:
        plugins.host.cache_clear()


PARTS_OF_ALL_KINDS = """
from vtp import hookimpl

@hookimpl
def vtp_register_importers(register):
    register("mine", "mine.parts:read")

@hookimpl
def vtp_register_commands(register):
    register("mine-tool", "mine.parts:tool", help="counts what is there")

@hookimpl
def vtp_register_decoders(register):
    register("mine", "mine.parts:read")

@hookimpl
def vtp_register_samplers(register):
    register("mine", "mine.parts:read")

@hookimpl
def vtp_register_transforms(register):
    register("mine", "mine.parts:read", modality="audio")

@hookimpl
def vtp_register_forms(register):
    register("mine", "mine.parts:read", counted="moments")
"""


@pytest.fixture
def all_kinds(install, fresh_host):
    parts = 'def read(path, *, heads: int = 4):\n    """Reads theirs."""\n\ndef tool(arguments):\n    return 0\n'
    install("mine", PARTS_OF_ALL_KINDS, distribution="my-dist", files={"parts.py": parts})


@pytest.mark.parametrize(
    ("kind", "line"),
    {
        "command": r"mine-tool +counts what is there +\[mine\]",
        "importer": r"mine +mine.parts.read +\[mine\]",
        "decoder": r"mine +mine.parts.read +\[mine\]",
        "sampler": r"mine +mine.parts.read +\[mine\]",
        "transform/audio": r"mine +mine.parts.read +\[mine\]",
        "transform": r"mine +mine.parts.read +\[mine\]",
        "form": r"mine +moments +\[mine\]",
    }.items(),
)
def test_kinds_without_option_files_are_listed_and_shown(all_kinds, capsys, kind, line):
    assert main(["list", kind]) == 0
    assert re.search(rf"^  {line}$", capsys.readouterr().out, re.M)
    name = "mine-tool" if kind == "command" else "mine"
    assert main(["show", kind, name]) == 0
    shown = capsys.readouterr().out
    shown_kind = "transform/audio" if kind == "transform" else kind
    assert f"# {shown_kind} {name}, offered by mine" in shown and "mine.parts." in shown
    if kind == "importer":
        assert "heads" in shown and "Reads theirs." in shown


def test_the_cores_own_are_listed_too(capsys):
    for kind, own in {"command": "run", "decoder": "pyav", "sampler": "dense"}.items():
        assert main(["list", kind]) == 0
        assert re.search(rf"^  {own} .*\[vtp\]$", capsys.readouterr().out, re.M)


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (["encoder", "timm"], ["# encoder/video=timm"]),
        (["encoder", "tiny"], ["# encoder/text=tiny", "# encoder/video=tiny", "# encoder/audio=tiny"]),
        (["encoder/video=timm"], ["# encoder/video=timm"]),
        (["experiment", "simvtp/tiny_pretrain"], ["# experiment=simvtp/tiny_pretrain"]),
        (["experiment=simvtp/tiny_pretrain"], ["# experiment=simvtp/tiny_pretrain"]),
        (["objective=vtc"], ["# objective=vtc", "class vtp_objectives.vtc.VTC of vtp-core"]),
    ],
)
def test_show_takes_the_words_of_run(capsys, words, found):
    if "simvtp" in words[-1]:
        pytest.importorskip("vtp_simvtp")
    assert main(["show", *words]) == 0
    shown = capsys.readouterr().out
    for line in found:
        assert line in shown


def test_show_without_a_name_says_how(capsys):
    assert main(["show", "objective"]) == 2
    assert "`vtp list objective`" in capsys.readouterr().err


def test_uninstall_takes_the_name_that_plugins_prints(install, monkeypatch, capsys):
    install("mine", "1 / 0", distribution="my-dist")
    install("one", "", entry_name="same")
    install("two", "", entry_name="same")
    asked = []
    monkeypatch.setattr(
        subprocess, "run", lambda line, **kw: asked.append(line) or subprocess.CompletedProcess(line, 0)
    )
    for name in ("mine", "my-dist", "numpy"):
        assert main(["uninstall", name]) == 0
    assert [line[-1] for line in asked] == ["my-dist", "my-dist", "numpy"]
    assert main(["uninstall", "same"]) == 2 and "one and two" in capsys.readouterr().err
    assert main(["uninstall", "objectives"]) == 2 and "part of vtp-core" in capsys.readouterr().err
    assert len(asked) == 3


def test_doctor_counts_a_broken_plugin(install, fresh_host, monkeypatch, capsys):
    from vtp.cli import doctor

    install("mine", "1 / 0")
    for part in ("_python", "_libraries", "_devices", "_kernels", "_decoders", "_disk"):
        monkeypatch.setattr(doctor, part, lambda: ())
    assert main(["doctor"]) == 1
    said = capsys.readouterr().out
    assert "FAULT  plugin" in said and "ZeroDivisionError" in said and "no faults" not in said


def test_check_answers_with_its_new_name(capsys):
    assert main(["plugins", "--check"]) == 2
    assert "vtp plugins check" in capsys.readouterr().err


def test_nothing_is_wrong_with_the_built_in_plugins(capsys):
    assert main(["plugins", "check"]) == 0, capsys.readouterr().out
