"""``vtp new-plugin NAME --kind KIND``: a package that works at once, to be changed into one's own."""

from __future__ import annotations

import ast
import builtins
import datetime
import keyword
import re
import shlex
from pathlib import Path
from string import Template

from vtp import __version__
from vtp.cli.arguments import Parser, place, refuse_file
from vtp.errors import ConfigError, DataError
from vtp.registry import did_you_mean

__all__ = ["KINDS", "generate", "main"]

TEMPLATES = Path(__file__).with_name("templates")
_RUN = "vtp run task=msrvtt_retrieval dataset=shapes"

# kind -> (what the package is, for people; commands that use it)
KINDS = {
    "encoder": ("A video encoder", (f"{_RUN} encoder/video=$name",)),
    "objective": ("A training objective", (f"{_RUN} objective=[vtc,$name] objectives.$name.weight=0.5",)),
    "dataset": (
        "A data set: a folder of clips and index.jsonl",
        ("vtp run task=retrieval dataset=$name dataset.root=DIR",),
    ),
    "task": ("A task", ("vtp run task=$name dataset=shapes",)),
    "fusion": ("A fusion encoder", ("vtp run task=msrvtt_qa dataset=shapes encoder/fusion=$name",)),
    "sampler": ("A frame sampler", (f"{_RUN} data.sampler=$name",)),
    "decoder": ("A media decoder", ("vtp run task=retrieval dataset=csv dataset.file=clips.csv media.backend=$name",)),
    "importer": (
        "An importer of checkpoints",
        (
            "vtp import $name FILE OUT",
            f"{_RUN} model=dual init_from=OUT 'init_allow_missing=[encoders.text.*,objectives.*]'",
        ),
    ),
    "command": ("A command", ("vtp $command RUN",)),
    "method": (
        "A method: an encoder, an objective, a model and an experiment",
        ("vtp run experiment=$name/tiny", f"{_RUN} model=$name objective=[vtc,$name]"),
    ),
}
LAYERS = {"method": ("encoder", "objective", "method")}  # of other kinds, and what comes on top
# What YAML, the grammar of `vtp run` and vtp's own options read as something else than a name.
_SPOKEN_FOR = {"true", "false", "yes", "no", "on", "off", "null", "none", "inf", "nan", "auto"}
_LONGEST = 60
# where the names of a kind are registered, where it is not called as the kind
_REGISTERED = {"encoder": ("encoder/video",), "fusion": ("encoder/fusion",), "method": ("encoder/video", "objective")}


def main(arguments: list[str]) -> int:
    """Write the package and say what comes next."""
    parser = Parser(
        prog="vtp new-plugin",
        description="Write a plugin package that installs, passes its tests and can be used at once: code, option "
        "files, tests, README, licence and a CI file.",
        epilog="Example: vtp new-plugin my_loss --kind objective",
    )
    parser.add_argument("name", help="as it is to be called on the command line of vtp, such as my_loss")
    parser.add_argument("--kind", required=True, help=", ".join(KINDS))
    parser.add_argument("--out", type=place, metavar="DIR", help="folder to write; by default vtp-plugin-NAME here")
    options = parser.parse_args(arguments)
    if options.kind not in KINDS:
        raise ConfigError(
            f"--kind={options.kind}: no such kind.{did_you_mean(options.kind, KINDS)} Kinds: {', '.join(KINDS)}."
        )
    name = options.name.replace("-", "_")
    _refuse(name, options.kind, options.name)
    out = Path(options.out or f"vtp-plugin-{name.replace('_', '-')}").expanduser()
    refuse_file(out)
    if out.is_dir() and any(out.iterdir()):
        raise DataError(f"{out} is there and not empty. Name another folder with --out, or remove it first.")
    files = generate(name, options.kind)
    if clash := _clash(name, options.kind, files):
        raise ConfigError(
            f"{options.name!r}: the code of a {options.kind} uses {clash} for something else. Choose another one, "
            f"such as my_{name}."
        )
    try:
        for path, text in files.items():
            (out / path).parent.mkdir(parents=True, exist_ok=True)
            (out / path).write_text(text, encoding="utf-8")
    except FileNotFoundError as error:  # a folder that went away, or one of the system in which nothing can be made
        raise DataError(f"{out} cannot be made: {error.strerror}. Name another folder with --out.") from error
    print(f"{out}: {len(files)} files. Next:\n")
    for line in (
        f"pip install -e {shlex.quote(f'{out}[test]')}",
        f"pytest {shlex.quote(str(out))}",
        f"vtp plugins check {name}",
        *_uses(name, options.kind),
    ):
        print(f"  {line}")
    return 0


def generate(name: str, kind: str) -> dict[str, str]:
    """The files of a package, by their paths in it.

    Args:
        name: a Python identifier, small letters, as ``vtp run`` will know it.
        kind: one of :data:`KINDS`.
    """
    words = _words(name, kind)
    files = {}
    for layer in ("every", *LAYERS.get(kind, (kind,))):
        ending = {"encoder": "Encoder", "objective": "Loss"}.get(layer, "") if kind == "method" else ""
        own = words | {"Class": words["Class"] + ending}
        for file in sorted((TEMPLATES / layer).rglob("*.in")):
            path = file.relative_to(TEMPLATES / layer).as_posix().removesuffix(".in")
            path = path.replace("PACKAGE", words["package"]).replace("NAME", name)
            files[path] = Template(file.read_text(encoding="utf-8")).substitute(own)
    return files


def _clash(name: str, kind: str, files: dict[str, str]) -> str:
    """The class or function of the package that would hide what its own code imports, defines or has built in."""
    stem = _words(name, kind)["Class"]
    own = {stem, f"{stem}Encoder", f"{stem}Loss"} | ({name} if kind == "sampler" else set())
    for path, text in files.items():
        bound: list[str] = []
        for node in ast.walk(ast.parse(text)) if path.endswith(".py") else ():
            if isinstance(node, (ast.Import, ast.ImportFrom)):
                bound += [alias.asname or alias.name for alias in node.names]
            elif isinstance(node, (ast.ClassDef, ast.FunctionDef)):
                bound.append(node.name)
        for one in own & set(bound):
            if bound.count(one) > 1 or hasattr(builtins, one):
                return one
    return ""


def _words(name: str, kind: str) -> dict[str, str]:
    """What stands for the placeholders of the templates."""
    major, minor = (int(part) for part in __version__.split(".")[:2])
    summary, _ = KINDS[kind]
    return {
        "name": name,
        "Class": "".join(part.capitalize() for part in name.split("_")),
        "command": name.replace("_", "-"),
        "package": f"vtp_{name}",
        "distribution": f"vtp-plugin-{name.replace('_', '-')}",
        "summary": summary,
        "core": f"{major}.{minor}",
        "next_core": f"{major}.{minor + 1}",
        "year": str(datetime.date.today().year),
        "use": "".join(f"    {line}\n" for line in _uses(name, kind)),
    }


def _uses(name: str, kind: str) -> list[str]:
    return [Template(line).substitute(name=name, command=name.replace("_", "-")) for line in KINDS[kind][1]]


def _refuse(name: str, kind: str, given: str) -> None:
    """Refuse a name that could not be used; ``given`` is how it was written.

    Raises:
        ConfigError: it is no name of a module, or somebody has it.
    """
    from vtp.cli.main import COMMANDS
    from vtp.plugins import RESERVED, host, missing_addons

    if not re.fullmatch(r"[a-z][a-z0-9]*(_[a-z0-9]+)*", name) or len(name) > _LONGEST:
        like = "_".join(re.findall(r"[a-z0-9]+", re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", given).lower())).lstrip(
            "0123456789_"
        )
        raise ConfigError(
            f"{given[:_LONGEST]!r}: expected a name of small letters, digits and _, at most {_LONGEST}, such as "
            f"{like if 0 < len(like) <= _LONGEST else 'my_loss'}."
        )
    if keyword.iskeyword(name) or keyword.issoftkeyword(name) or name in _SPOKEN_FOR:
        raise ConfigError(
            f"{given!r} means something else in Python or in options. Choose another name, such as my_{name}."
        )
    taken = {"kernels": "the package vtp_kernels"}
    taken |= {addon: f"{distribution}, an add-on of vtp" for addon, distribution in missing_addons().items()}
    taken |= {point.name: f"the plugin {point.name!r} of {point.distribution}" for point in host().points}
    taken |= {point.package.removeprefix("vtp_"): f"the package {point.package}" for point in host().points}
    for one in _REGISTERED.get(kind, (kind,)):
        taken |= {entry.name: f"{one} {entry.name!r} of {entry.distribution}" for entry in host().registry.entries(one)}
        taken |= {reserved: f"{one} {reserved!r} of vtp-core" for reserved in RESERVED.get(one, ())}
    if kind == "command":
        taken |= {command.replace("-", "_"): f"the command {command!r} of vtp" for command in COMMANDS}
    if name in taken:
        raise ConfigError(f"{name!r} is taken by {taken[name]}. Choose another name.")
