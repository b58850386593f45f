"""``vtp run``: compose a configuration with hydra, then train, evaluate or predict.

hydra does what it is good at (defaults lists, overrides, sweeps with ``-m``, ``--cfg job``); its help, its error
messages and its folder handling are replaced by ours.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from vtp.cli.composed import printed
from vtp.cli.mistakes import key_of, mistakes, refuse_at_sight, refuse_bad_sweep, split_flags
from vtp.components import refuse
from vtp.errors import ConfigError, UserError

__all__ = ["compose", "main"]

HELP = """vtp run: train, evaluate or predict.

usage: vtp run task=TASK [GROUP=OPTION ...] [KEY=VALUE ...]

  vtp run task=msrvtt_qa dataset=shapes                    train and evaluate on generated data
  vtp run task=msrvtt_qa dataset.root=/data/msrvtt         the real thing
  vtp run task=msrvtt_retrieval model=base objective=[vtc,vtm] objectives.vtm.weight=0.5
  vtp run task=msrvtt_qa mode=eval checkpoint=outputs/...  evaluate a trained model again
  vtp run task=[msvd_qa,msvd_retrieval] mode=eval ...      several tasks on one checkpoint
  vtp run ... resume=auto                                  go on exactly where the run stopped
  vtp run ... --cfg job                                    print what a command composes to, and stop
  vtp run -m ... seed=0,1,2                                one run per value
  torchrun --nproc-per-node 8 -m vtp run task=...          several processes

GROUP=OPTION chooses one of these (the plugin that offers it in brackets; `vtp show GROUP OPTION` prints its settings):
"""


def main(arguments: list[str]) -> int:
    """Run; hydra's own flags (-m, --cfg, --info, ...) work as usual."""
    if set(arguments) & {"-h", "--help"}:
        print(HELP)
        print("\n".join(_listing()))
        return 0
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and int(os.environ.get("RANK", "0")) > 0:
        from vtp.run.launch import follow

        return follow()  # rank 0 composes and tells; composing again here would evaluate ${now:} again
    code = printed(arguments, _main)
    return _main(arguments) if code is None else code


def _main(arguments: list[str]) -> int:
    flags, settings = split_flags(arguments)
    settings = _rewritten(settings)
    refuse_at_sight(settings)
    sweep = bool(set(flags) & {"-m", "--multirun"})
    if (tasks := _several_tasks(settings)) is not None:
        return _measure(tasks, flags, [a for a in settings if not a.startswith("task=")])
    if sweep and len(flags) == 1:
        refuse_bad_sweep(settings, compose)
    if any(argument.startswith("resume=auto") for argument in settings) and not sweep:
        settings = _find_run(settings)
    return _hydra(flags, settings)


def compose(overrides: list[str]) -> Any:
    """The configuration that these command-line arguments compose to, as a resolved dict; for tests and notebooks."""
    overrides = _rewritten(overrides)
    with _helpful(overrides):
        return _compose(overrides)


def _compose(overrides: list[str]) -> dict[str, Any]:
    from hydra import compose as hydra_compose
    from hydra import initialize_config_module
    from omegaconf import OmegaConf

    from vtp.config import with_types

    _prepare()
    with initialize_config_module("vtp.conf", version_base="1.3"):
        return with_types(OmegaConf.to_container(hydra_compose("run", overrides), resolve=True))  # type: ignore[arg-type]


def _rewritten(arguments: list[str]) -> list[str]:
    """Arguments as hydra reads them: mappings forced, and the folder of ``model=PATH`` as an option."""
    from vtp.options import below, option_files
    from vtp.run.model_from import as_option

    if any(argument.startswith("model=") for argument in arguments):
        arguments = as_option(arguments, [*below(option_files(), "model")])
    return [_dict_valued(_quoted(argument)) for argument in arguments]


def _quoted(argument: str) -> str:
    """``run_dir=runs/lr=0.1`` -> ``run_dir="runs/lr=0.1"``: a bare value of hydra's grammar has no place for ``= # ~``,
    brackets, quotes and letters beyond ASCII, which paths have. Lists, mappings, sweeps and quoted values stay."""
    key, _, value = argument.partition("=")
    if re.fullmatch(r"[\w./:+\-]*", value, re.ASCII) or re.match(r"[\[{'\"]|.*(,|\$\{)", value, re.S):
        return argument
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import OverrideParseException

    try:
        OverridesParser.create().parse_overrides([argument])
    except OverrideParseException:
        value = os.path.expanduser(value) if value.startswith("~/") else value
        # a backslash is taken literally, but before a quote
        return f'{key}="' + re.sub(r'(\\*)("|\Z)', lambda m: m[1] * 2 + ('\\"' if m[2] else ""), value) + '"'
    return argument


def _dict_valued(argument: str) -> str:
    """``init_map={a: b}`` -> ``++init_map={a: b}``: hydra refuses new keys in a mapping unless they are forced. What is
    no key of the configuration is refused when it is checked; typed nodes open their own mappings."""
    key, _, value = argument.partition("=")
    if re.fullmatch(r"\{.*\}", value, re.S) and re.fullmatch(r"init_map|(?!(train|data|media)\.)\w+(\.\w+)+", key):
        return f"++{argument}"
    return argument


def _prepare() -> None:
    """Tell hydra about the plugins' folders and the typed nodes, and omegaconf about ``${released:this,that}``."""
    from hydra.core.config_store import ConfigStore
    from omegaconf import OmegaConf

    from vtp.config import typed_nodes
    from vtp.searchpath import register

    register()
    OmegaConf.register_new_resolver("released", _released, replace=True)
    store = ConfigStore.instance()
    for name, schema in typed_nodes().items():
        store.store(group="schema", name=name, node=_open_mappings(asdict(schema())))


def _open_mappings(defaults: dict[str, Any]) -> Any:
    """A node whose mappings take keys of the user: hydra closes everything but what says otherwise. The types are
    checked with everything else, so that all mistakes are told at once."""
    from omegaconf import DictConfig, OmegaConf

    node = OmegaConf.create(defaults)
    for value in node.values():
        if isinstance(value, DictConfig):
            OmegaConf.set_struct(value, False)
    return node


def _released(this: Any, that: Any, *, _root_: Any) -> Any:
    """What a method's option files choose between: ``this`` with ``variant=released``, else ``that``."""
    return this if _root_.get("variant") == "released" else that


def _several_tasks(arguments: list[str]) -> list[str] | None:
    """The tasks of ``task=[a,b]``; None where one is named without brackets, or none."""
    given = [match.group(1) for a in arguments if (match := re.fullmatch(r"task=\[(.*)\]", a))]
    if not given:
        return None
    tasks = [name.strip() for name in given[-1].split(",")]
    if not all(tasks) or len(set(tasks)) < len(tasks):
        raise ConfigError(
            f"task=[{given[-1]}]: expected different tasks, for example task=[msrvtt_retrieval,msrvtt_qa]."
        )
    return tasks


def _measure(tasks: list[str], flags: list[str], arguments: list[str]) -> int:
    """Several tasks on one checkpoint: every task is composed as if it were alone."""
    if set(flags) & {"-m", "--multirun"}:
        raise ConfigError(f"task=[{','.join(tasks)}] cannot be swept; task={','.join(tasks)} is a run for each.")
    if flags:  # --cfg and the like print
        return max(_hydra(flags, [*arguments, f"task={task}"]) for task in tasks)
    further = {}
    for task in tasks:
        try:
            further[task] = compose([*arguments, f"task={task}"])
        except ConfigError as error:
            raise ConfigError(f"{task}: {error}") from error
    return _hydra([], [*arguments, f"task={tasks[0]}"], further)


def _hydra(flags: list[str], arguments: list[str], further: dict[str, Any] | None = None) -> int:
    import hydra
    from omegaconf import DictConfig

    exit_codes: list[int] = []
    errors: list[Exception] = []

    def job(config: DictConfig) -> None:
        from vtp.run.launch import launch

        try:
            exit_codes.append(launch(config, further))
        except Exception as error:  # raised below: hydra would print the overrides once more, and end a sweep
            errors.append(error)

    with _leaving_nothing(arguments), _helpful(arguments), _logging_of_this_run():
        _prepare()
        # hydra reads the command line from sys.argv and names its messages after argv[0]
        before, sys.argv = sys.argv, ["vtp run", *flags, *arguments]
        try:
            hydra.main(version_base="1.3", config_path="pkg://vtp.conf", config_name="run")(job)()
        finally:
            sys.argv = before
        for error in errors[1:]:  # of a sweep; the first is told by the caller
            print(f"vtp run: {error}", file=sys.stderr)
        if errors:
            raise errors[0]
    return max(exit_codes, default=0)


@contextmanager
def _leaving_nothing(arguments: list[str]) -> Iterator[None]:
    """After a mistake of the user, remove the empty folders above a run that hydra made for it, and keep a folder that
    was there."""
    given = [a.partition("=")[2] for a in arguments if key_of(a) in ("run_dir", "hydra.run.dir")]
    folder = Path((given or ["outputs"])[-1].strip("'\""))
    made = [part for part in (folder, *folder.parents) if not part.exists()]
    try:
        yield
    except (UserError, OSError):
        for part in made:
            with suppress(OSError):
                part.rmdir()
        if not folder.exists() and not made:
            folder.mkdir()
        raise


@contextmanager
def _logging_of_this_run() -> Iterator[None]:
    """Take hydra's handlers off again afterwards: run.log may be gone by then, and the caller had its own."""
    import logging

    root = logging.getLogger()
    before = list(root.handlers), root.level
    told, logging.raiseExceptions = logging.raiseExceptions, False  # else a traceback for each line on a full disk
    try:
        yield
    finally:
        for handler in set(root.handlers) - set(before[0]):
            with suppress(OSError):  # a full disk: what ended the run is told, not what its log could not keep
                handler.close()
        logging.raiseExceptions = told
        root.handlers[:], root.level = before


@contextmanager
def _helpful(arguments: list[str]) -> Iterator[None]:
    """Tell all that is wrong where hydra stops at the first error; let everything else through."""
    import yaml
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    before = os.environ.get("HYDRA_FULL_ERROR")
    os.environ["HYDRA_FULL_ERROR"] = "1"  # hydra then raises instead of printing and exiting with 1
    try:
        yield
    except (HydraException, OmegaConfBaseException) as error:
        raise _all_of(error, arguments) from error
    except UnicodeDecodeError as error:
        from vtp.options import unreadable

        raise ConfigError("; ".join(unreadable()) or f"a configuration file is not UTF-8: {error}") from error
    except RecursionError as error:  # hydra follows files that build on themselves without an end
        from vtp.options import all_circular

        if not (told := all_circular()):
            raise
        raise ConfigError("; ".join(told)) from error
    except ValueError as error:
        if "onfig group override" not in str(error):
            raise
        raise _all_of(error, arguments) from error
    except yaml.YAMLError as error:
        raise ConfigError(f"a configuration file is not valid YAML: {' '.join(str(error).split())}") from error
    finally:
        if before is None:
            os.environ.pop("HYDRA_FULL_ERROR", None)
        else:
            os.environ["HYDRA_FULL_ERROR"] = before


def _all_of(error: Exception, arguments: list[str]) -> ConfigError:
    """Every mistake of a command line, as :func:`vtp.components.refuse` tells them."""
    try:
        refuse(mistakes(error, arguments, _compose))
    except ConfigError as found:
        return found
    return ConfigError(" ".join(str(error).split()))


def _find_run(arguments: list[str]) -> list[str]:
    """With ``resume=auto`` and no ``run_dir``, go on in the newest unfinished run of the same configuration."""
    from vtp.run.folder import find_unfinished, fingerprint
    from vtp.run.launch import as_run

    if any(a.startswith(("run_dir=", "hydra.run.dir=")) for a in arguments):
        return arguments
    config = compose(arguments)
    found = find_unfinished(fingerprint(as_run(config, arguments)))
    if found is None:
        print(
            "resume=auto: no unfinished run of this configuration under outputs/; starting a new one", file=sys.stderr
        )
        return arguments
    print(f"resume=auto: going on in {found}", file=sys.stderr)
    return [*arguments, _quoted(f"run_dir={found}")]


def _listing() -> Iterator[str]:
    from vtp.cli.components import GROUPS
    from vtp.config import TOP_LEVEL, DataConfig, MediaConfig
    from vtp.options import first_comment, option_files
    from vtp.train.config import TrainConfig

    groups = option_files()
    for group in [*GROUPS, *sorted(set(groups) - set(GROUPS))]:
        if group not in groups:
            continue
        yield f"  {group}"
        width = max(map(len, groups[group]))
        for option, found in sorted(groups[group].items()):
            providers = " AND ".join(provider for provider, _ in found)
            conflict = "   <- offered twice: block one plugin" if len(found) > 1 else ""
            yield f"    {option:<{width}}  {first_comment(found[0][1])}  [{providers}]{conflict}"
    yield "\nKEY=VALUE sets one of these:\n"
    yield from _columns((name, text) for name, text in TOP_LEVEL.items() if name not in ("train", "data", "media"))
    for name, schema in (("train", TrainConfig), ("data", DataConfig), ("media", MediaConfig)):
        yield ""
        yield from _columns((f"{name}.{key}", text) for key, text in _fields(schema))


def _columns(rows: Iterable[tuple[str, str]]) -> Iterator[str]:
    rows = list(rows)
    width = max(len(name) for name, _ in rows)
    yield from (f"    {name:<{width}}  {text}" for name, text in rows)


def _fields(schema: type) -> Iterator[tuple[str, str]]:
    """``(name=default, meaning)`` of a dataclass; the meaning is the comment behind the field."""
    import ast
    import inspect

    source = inspect.getsource(schema)
    lines = source.splitlines()
    body = next(node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.ClassDef)).body
    for node in body:
        if not isinstance(node, ast.AnnAssign) or node.value is None:
            continue
        default = ast.unparse(node.value)
        if default.startswith("field("):
            made = default.removeprefix("field(default_factory=")[:-1]
            default = {"list": "[]", "dict": "{}"}.get(made, made.removeprefix("lambda: "))
        shown = {"None": "null", "True": "true", "False": "false"}.get(default, default.strip("'"))
        yield f"{ast.unparse(node.target)}={shown}", lines[node.lineno - 1].partition("  # ")[2]
