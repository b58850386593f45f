"""Pages that are made from the code: hooks, commands, configuration, options, protocols and public names.

Nothing is parsed a second time: options are what `vtp show` reads, the configuration is what `vtp run --help` prints,
protocols are what `vtp protocols` loads, and Sphinx reads the docstrings of the modules in PYTHON.
"""

from __future__ import annotations

import importlib
import inspect
import io
import re
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout, suppress
from pathlib import Path
from typing import Any

from vtp import hookspecs
from vtp.cli.components import GROUPS, PLAIN, options_of, use
from vtp.cli.main import COMMANDS, main
from vtp.cli.new_plugin import KINDS, generate
from vtp.cli.run import _fields  # what `vtp run --help` prints of a schema
from vtp.config import TOP_LEVEL, typed_nodes
from vtp.errors import PluginError
from vtp.eval.protocol import Protocol, protocol_files, readable_protocols
from vtp.options import first_comment, option_files, read_options
from vtp.plugins import host
from vtp.values import spell, types_of

ROOT = Path(__file__).resolve().parents[2]

# kind -> files of the tree that show it, or the kind of `vtp new-plugin` that writes such a package. Of a plugin of the
# tree, which offers more than this, only the function of the hook is shown.
EXAMPLES: dict[str, list[str] | str] = {
    "encoder": [
        "examples/fusion/src/vtp_perceiver/plugin.py",
        "examples/fusion/src/vtp_perceiver/fusion.py",
        "examples/fusion/src/vtp_perceiver/conf/encoder/fusion/perceiver.yaml",
    ],
    "objective": [
        "examples/objective/src/vtp_sigmoid/plugin.py",
        "examples/objective/src/vtp_sigmoid/objective.py",
        "examples/objective/src/vtp_sigmoid/conf/objective/sigmoid.yaml",
    ],
    "dataset": [
        "examples/dataset/src/vtp_clipfolder/plugin.py",
        "examples/dataset/src/vtp_clipfolder/dataset.py",
        "examples/dataset/src/vtp_clipfolder/conf/dataset/clipfolder.yaml",
    ],
    "callback": ["examples/callback/src/vtp_losslog/plugin.py", "examples/callback/src/vtp_losslog/losslog.py"],
    "form": ["plugins/tasks/builtin/vtp_tasks/plugin.py", "plugins/tasks/builtin/vtp_tasks/forms.py"],
    "transform": [
        "plugins/encoders/univl/src/vtp_univl/plugin.py",
        "plugins/encoders/univl/src/vtp_univl/keywords.py",
    ],
    "task": "task",
    "decoder": "decoder",
    "sampler": "sampler",
    "importer": "importer",
    "command": "command",
}
CONTRACTS = {
    "encoder": ("Encoder", "Fusion"),
    "objective": ("Objective",),
    "dataset": ("Dataset", "Table"),
    "task": ("Task",),
    "decoder": ("Decoder",),
    "sampler": ("Sampler",),
    "transform": ("Transform",),
    "importer": ("Importer",),
}
NOUNS = {"dataset": "Data sets", "importer": "Importers of checkpoints", "form": "Forms of tasks"}

# page -> what it is about, and the modules whose public names stand on it
PYTHON: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "use": ("Use a model", "Load, encode, answer, caption, save.", ("vtp.use.model",)),
    "plugins": (
        "Plugins and contracts",
        "Hooks, what vtp reads of each component, ranges of options, errors.",
        ("vtp.hookspecs", "vtp.contracts", "vtp.ranges", "vtp.errors"),
    ),
    "types": ("Types", "What samples, batches, tokens and losses are.", ("vtp.types",)),
    "model": (
        "Model",
        "The forward context, objectives, losses, masks and blocks to build from.",
        (
            "vtp.model.build",
            "vtp.model.context",
            "vtp.model.objective",
            "vtp.model.losses",
            "vtp.model.masking",
            "vtp.model.blocks",
            "vtp.model.importing",
        ),
    ),
    "data": ("Data and media", "Reading annotations and decoding clips.", ("vtp.catalogue", "vtp.media", "vtp.spans")),
    "train": (
        "Training",
        "The trainer, its options and watchers.",
        ("vtp.train.trainer", "vtp.train.config", "vtp.train.callbacks"),
    ),
    "eval": (
        "Evaluation",
        "Tasks, metrics, protocols and what recomputes a report.",
        ("vtp.eval.task", "vtp.eval.metrics", "vtp.eval.protocol", "vtp.eval.recount"),
    ),
    "testing": ("Testing", "One check per kind of component, for the tests of a plugin.", ("vtp.testing",)),
}


def generated_pages() -> dict[str, str]:
    """Every generated page by its path in the site."""
    pages = dict(hook_pages())
    pages["reference/commands.md"] = commands()
    pages["reference/configuration.md"] = configuration()
    pages["reference/protocols.md"] = protocols()
    return pages | dict(option_pages()) | dict(python_pages())


def code(text: str, language: str = "text") -> str:
    """A fenced block, with a fence that the text does not hold."""
    fence = "`" * max(3, *(len(run) + 1 for run in re.findall(r"`{3,}", text)), 3)
    return f"{fence}{language}\n{text.rstrip()}\n{fence}\n"


def cell(text: str) -> str:
    """Text within a table, with the double back quotes of docstrings as Markdown has them."""
    plain = re.sub(r":\w+:`~?([^`]*)`", r"`\1`", text.replace("``", "`"))
    parts = plain.split("`")
    parts[::2] = [part.replace("<", "&lt;").replace("*", "\\*").replace("_", "\\_") for part in parts[::2]]
    return "`".join(parts).replace("|", "\\|").replace("\n", " ")


def prose(docstring: str) -> str:
    """A docstring of hookspecs.py as Markdown, without its example, which becomes a block."""
    text = docstring.partition("Example::")[0]
    text = re.sub(r":\w+:`~?([^`]*)`", r"`\1`", text.replace("``", "`"))
    return text.strip()


# -- hooks -------------------------------------------------------------------------------------------------------------


def hook_pages() -> Iterator[tuple[str, str]]:
    """A page per hook of hookspecs.py."""
    for hook, kind in hookspecs.HOOKS.items():
        yield f"hooks/{kind}.md", hook_page(hook, kind)


def hook_page(hook: str, kind: str) -> str:
    """What the hook offers, how it is called, the members that are read, and an example that exists."""
    docstring = inspect.getdoc(vars(hookspecs)[hook]) or ""
    called = docstring.partition("Example::")[2].strip()
    lines = [f"# {NOUNS.get(kind, kind.capitalize() + 's')}", "", prose(docstring), "", f"## `{hook}`", ""]
    lines += ["The hook gets `register` and offers components by name:", "", code(called, "python")]
    lines += [f"{'It may' if kind == 'command' else 'They may'} be chosen with {_chosen(kind)}.", ""]
    if contracts := CONTRACTS.get(kind):
        names = " and ".join(f"[`{name}`](/reference/python/plugins.md)" for name in contracts)
        lines += [f"What vtp reads of it stands in the contract {names}; docs/plugins.md has it as a table.", ""]
    lines += ["## Example", ""]
    found = EXAMPLES[kind]
    if isinstance(found, str):
        lines += [f"`vtp new-plugin` writes this package; it passes its tests as it is. {KINDS[found][0]}:", ""]
        lines += [code(f"vtp new-plugin my_{found} --kind {found}", "bash")]
        files = {
            path: text
            for path, text in generate(f"my_{found}", found).items()
            if path.startswith("src/") and text.strip() and not path.endswith("__init__.py")
        }
        uses = KINDS[found][1]
        lines += ["Use it:", "", code("\n".join(_filled(line, found) for line in uses), "bash")]
    else:
        files = {path: (ROOT / path).read_text(encoding="utf-8") for path in found}
        if not found[0].startswith("examples/"):
            files[found[0]] = _function(files[found[0]], hook)
    for path, text in sorted(files.items(), key=lambda item: (not item[0].endswith("plugin.py"), "conf/" in item[0])):
        lines += [f"`{path}`", "", code(text, {"py": "python", "yaml": "yaml"}[path.rpartition(".")[2]])]
    return "\n".join(lines)


def _filled(line: str, kind: str) -> str:
    return line.replace("$name", f"my_{kind}").replace("$command", f"my-{kind}")


def _chosen(kind: str) -> str:
    ways = [text.replace("NAME", "<name>") for one, text in PLAIN.items() if one.partition("/")[0] == kind]
    fixed = {
        "encoder": ["encoder/<slot>=<name>"],
        "objective": ["objective=[<name>]"],
        "dataset": ["dataset=<name>"],
        "task": ["task=<name>"],
    }
    return ", ".join(f"`{way}`" for way in fixed.get(kind) or ways)


def _function(source: str, name: str) -> str:
    """One function of a module with its decorator, as it stands there."""
    found = re.search(rf"^@hookimpl\ndef {name}\(.*?(?=^\S(?!.*\) -> None:$)|\Z)", source, re.M | re.S)
    assert found is not None, name
    return "from vtp import hookimpl\nfrom vtp.hookspecs import Register\n\n\n" + found[0].rstrip() + "\n"


# -- commands and configuration ----------------------------------------------------------------------------------------


def commands() -> str:
    """What every command says about itself with --help; that of `vtp run` is the page of the configuration."""
    plugins = {entry.name: str(entry.facts.get("help", "")) for entry in host().registry.entries("command")}
    lines = ["# Commands", "", "What each command of `vtp` says with `--help`. Exit codes: 0 done, 1 the run failed, "]
    lines += ["2 something to correct in the command.", ""]
    for name in (*COMMANDS, *plugins):
        about = COMMANDS[name][1] if name in COMMANDS else plugins[name]
        lines += [f"## vtp {name}", "", cell(about[:1].upper() + about[1:]) + ".", ""]
        if name != "run":
            lines += [code(said(name))]
    return "\n".join(lines)


def said(name: str) -> str:
    """What ``vtp NAME --help`` prints; lists of what is installed depend on the machine, paths of it are shortened."""
    out = io.StringIO()
    with redirect_stdout(out), redirect_stderr(out), suppress(SystemExit):
        main([name, "--help"])
    return out.getvalue().replace(str(ROOT), "...").replace(str(Path.home()), "~")


def configuration() -> str:
    """The keys of the core: name, type, default and meaning."""
    lines = ["# Configuration", ""]
    lines += ["The keys of `vtp run` that the core owns. Those of components are on the pages of options; "]
    lines += ["`vtp run ... --cfg job` prints what a command composes to.", "", "## Top level", ""]
    lines += _table(("key", "meaning"), ((f"`{name}`", cell(text)) for name, text in TOP_LEVEL.items()))
    for node, schema in typed_nodes().items():
        hints = types_of(schema)
        lines += [f"## {node}", "", f"{cell((inspect.getdoc(schema) or '').partition(chr(10))[0])}", ""]
        rows = []
        for shown, meaning in _fields(schema):
            name, _, default = shown.partition("=")
            kind = "anything" if hints.get(name) is Any else spell(hints[name])
            rows.append((f"`{node}.{name}`", cell(kind), f"`{default}`", cell(meaning)))
        lines += _table(("key", "type", "default", "meaning"), rows)
    return "\n".join(lines)


def _table(head: tuple[str, ...], rows: Any) -> list[str]:
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return [*lines, *("| " + " | ".join(row) + " |" for row in rows), ""]


# -- options -----------------------------------------------------------------------------------------------------------


def option_pages() -> Iterator[tuple[str, str]]:
    """A page per group: every option file as it is, and the options of the class behind it."""
    groups = option_files()
    for group in [*GROUPS, *sorted(set(groups) - set(GROUPS))]:
        if group in groups and group.partition("/")[0] in {one.partition("/")[0] for one in GROUPS}:
            yield f"reference/options/{group.replace('/', '-')}.md", option_page(group, groups[group])


def option_page(group: str, options: dict[str, list[tuple[str, Path]]]) -> str:
    """Every option of a group, with what `vtp show` says."""
    chosen = f"{group}=[NAME]" if group == "objective" else f"{group}=NAME"
    lines = [
        f"# {group}",
        "",
        f"The {len(options)} options of `{chosen}`; `vtp show {group} NAME` prints them too.",
        "",
    ]
    for name, found in sorted(options.items()):
        for provider, file in found:
            lines += [f"## {name}", "", f"{cell(_sentence(first_comment(file)))} Offered by `{provider}`.", ""]
            if command := use(group, name):
                lines += [code(command, "bash")]
            text = file.read_text(encoding="utf-8")
            lines += [code(text, "yaml"), *_class(group, name, file)]
    return "\n".join(lines)


def _sentence(text: str) -> str:
    text = text.strip()
    return text if text.endswith((".", ":")) or not text else f"{text}."


def _class(group: str, name: str, file: Path) -> list[str]:
    """The class of an option file: what it says, and its keys with type, default and meaning."""
    try:
        entry = host().registry.get(group, str(read_options(file).get("name", name)))
        rows = options_of(entry)
    except (PluginError, TypeError, ValueError):  # a file that combines components and is none itself
        return []
    summary = " ".join((inspect.getdoc(entry.load()) or "").partition("\n\n")[0].split())
    lines = [f"`{entry.target.replace(':', '.')}`: {cell(summary)}", ""]
    cells = ((f"`{key}`", cell(kind), f"`{default}`", cell(meaning)) for key, kind, default, meaning in rows)
    return [*lines, *_table(("key", "type", "default of the class", "meaning"), cells)] if rows else lines


# -- protocols ---------------------------------------------------------------------------------------------------------


def protocols() -> str:
    """Every protocol with its counts, metrics, hashes, and what is said about it."""
    lines = [
        "# Protocols",
        "",
        "What each benchmark evaluates, to the last item, and by which hashes it is recognised.",
    ]
    lines += ["How they work stands in docs/evaluation.md; `vtp protocols show NAME` prints one.", ""]
    files = protocol_files()
    for name, protocol in readable_protocols()[0].items():
        lines += [f"## {name}", "", f"{cell(protocol.title)}. Offered by `{files[name][0]}`.", ""]
        lines += _table(("", ""), _facts(protocol))
        lines += [f"- {cell(note)}" for note in protocol.notes] + [""]
    return "\n".join(lines)


def _facts(protocol: Protocol) -> Iterator[tuple[str, str]]:
    yield "data set, table, split", f"`{protocol.dataset}`, `{protocol.kind}`, `{protocol.split}`"
    for what, count in protocol.counts.items():
        yield what, f"{count:,}"
    for what, digest in protocol.sha256.items():
        yield f"sha256 of {what}", f"`{digest[:16]}...`"
    yield "metrics", ", ".join(f"`{metric}`" for metric in protocol.metrics)
    yield "ties", f"`{protocol.ties}`"


# -- Python ------------------------------------------------------------------------------------------------------------


def python_pages() -> Iterator[tuple[str, str]]:
    """A page per area; Sphinx fills in the docstrings."""
    for page, (title, about, modules) in PYTHON.items():
        lines = [f"# {title}", "", about, ""]
        for module in modules:
            importlib.import_module(module)
            lines += [f"## {module}", "", "```{eval-rst}", f".. automodule:: {module}", "```", ""]
        yield f"reference/python/{page}.md", "\n".join(lines)
