"""What can be refused before anything is built: everything that is wrong in the core's part of a configuration."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vtp.components import refuse
from vtp.config import NODES, TOP_LEVEL, TYPES, DataConfig, MediaConfig, modes, typed_nodes
from vtp.contracts import Encoder, member
from vtp.errors import ConfigError, PluginError, UserError
from vtp.registry import did_you_mean
from vtp.types import MODALITIES, Modality
from vtp.values import misfits, types_of

if TYPE_CHECKING:
    from vtp.components import Choice

__all__ = [
    "GIVEN",
    "check",
    "chosen_callbacks",
    "contrast",
    "lacks",
    "model_spec",
    "pair_of",
    "refuse_ambiguous_options",
    "refuse_untrained",
]

# In place of a value of the wrong type, so that the others are looked at all the same; null where nothing is said.
_INSTEAD = {
    "mode": "train+eval",
    "device": "auto",
    "kernels": "auto",
    "restart": False,
    "resume_other": False,
    "run_dir": ".",
}

GIVEN = {"dataset": (), "task": ("dataset", "seed", "val_share")}  # what their constructors get besides their options


def check(config: Mapping[str, Any], folder: Path) -> None:
    """Check the core's part of a resolved configuration.

    Args:
        config: of ``conf/run.yaml``.
        folder: of the run.

    Raises:
        ConfigError: with everything that is wrong, one line each.
    """
    wrong = [line for key in config if key not in TOP_LEVEL for line in _unknown(key)]
    wrong += [f"{key} cannot be left out of the configuration" for key in TOP_LEVEL if key not in config]
    misfit = misfits("", config, TYPES)
    wrong += misfit.values()
    if any(key not in config for key in TOP_LEVEL) or any(key in misfit for key in NODES):
        refuse(wrong)  # what would be in them cannot be looked at
    seed = config["seed"]
    config = {**config, **{key: _INSTEAD.get(key) for key in misfit}}
    if "seed" in misfit and config["train"].get("seed") == seed:
        config["train"] = {key: value for key, value in config["train"].items() if key != "seed"}  # told already
    config |= {node: _fitting(node, config[node], schema, wrong) for node, schema in typed_nodes().items()}
    wrong += [] if str(config["run_dir"]).strip() else ["run_dir=: expected the folder of this run"]
    parts: list[str] = []
    try:
        parts = modes(config["mode"])
    except ConfigError as error:
        wrong.append(str(error))
    for kind in ("task", "dataset"):
        if not (config[kind] or {}).get("name"):
            wrong.append(f"choose a {kind}: {kind}=...; `vtp list {kind}` says which there are")
    if not any((options or {}).get("name") for options in config["encoder"].values()) and config["checkpoint"] is None:
        wrong.append("choose a model: model=...; `vtp list model` says which there are")
    wrong += DataConfig(**config["data"]).validate() + MediaConfig(**config["media"]).validate()
    wrong += _machine(config)
    wrong += _training(config, folder) if "train" in parts else []
    wrong += _sources(config, parts)
    wrong += _dropped(config, parts)
    wrong += _cache(config)
    wrong += _components(config)
    refuse(wrong)


def _cache(config: Mapping[str, Any]) -> list[str]:
    if config["data"].get("cache") is None:
        return []
    from vtp.media.cache import ClipCache

    try:
        ClipCache(config["data"]["cache"])
    except UserError as error:
        return [str(error)]
    return []


def _dropped(config: Mapping[str, Any], parts: Sequence[str]) -> Iterator[str]:
    """Whether ``data.drop`` leaves anything to learn from."""
    from vtp.contracts import Objective, member
    from vtp.model.build import lookup_in
    from vtp.plugins import host

    dropped = set(config["data"].get("drop") or ())
    if not dropped or config["checkpoint"] is not None:
        return
    read = [
        slot
        for slot in MODALITIES
        if isinstance(options := config["encoder"].get(slot), Mapping) and options.get("name") is not None
    ]
    if dropped >= set(read):
        yield f"data.drop leaves nothing: the model reads {', '.join(read)}. Keep one of them."
        return
    lookup = lookup_in(host().registry)
    for name, options in (config["objectives"] or {}).items() if "train" in parts else ():
        try:
            needs = member(lookup("objective", str(options["name"]), None), Objective, "needs")
        except (UserError, TypeError, KeyError):  # told with the components
            continue
        if isinstance(needs, frozenset) and needs & dropped:
            yield (
                f"objectives.{name}: needs {' and '.join(sorted(needs & dropped))}, which data.drop leaves out. "
                "Leave out the objective, or drop less."
            )


def _unknown(key: str) -> list[str]:
    """What is said of a key that the configuration must not have at its top."""
    from vtp.options import unpackaged

    found = unpackaged() if key == "objective" else []  # the likeliest reason
    return found or [f"no key {key!r} at the top.{did_you_mean(key, TOP_LEVEL)}"]


def _fitting(node: str, given: Mapping[str, Any], schema: type, wrong: list[str]) -> dict[str, Any]:
    """Those values of a node of the core that have the right types; ``wrong`` takes what is said of the others, and of
    keys that the node does not have (``+train.x=1``, or in a file)."""
    hints = types_of(schema)
    wrong += [
        f"the configuration has no key '{node}.{key}'.{did_you_mean(key, hints)}" for key in given if key not in hints
    ]
    misfit = misfits(f"{node}.", given, hints)
    wrong += misfit.values()
    return {key: value for key, value in given.items() if key in hints and key not in misfit}


def model_spec(config: Mapping[str, Any]) -> dict[str, Any]:
    """What :func:`vtp.model.build.build_model` builds of a configuration."""
    return {"encoders": config["encoder"], **{key: config[key] for key in ("objectives", "masks", "variant")}}


def _components(config: Mapping[str, Any]) -> list[str]:
    """What is wrong with the options of data set, task and, unless a checkpoint says what it is, model."""
    from vtp.components import choose, find
    from vtp.data.transforms import chosen_transforms
    from vtp.model.build import lookup_in, spec_problems
    from vtp.plugins import host

    registry = host().registry
    wrong: list[str] = []
    for kind, given in GIVEN.items():
        if (config[kind] or {}).get("name"):
            choose(kind, config[kind], find(registry, kind), wrong, given=given)
    chosen_callbacks(config, wrong)
    chosen_transforms(config["data"].get("transforms") or {}, wrong)
    return wrong if config["checkpoint"] else wrong + spec_problems(model_spec(config), lookup_in(registry))


def chosen_callbacks(config: Mapping[str, Any], problems: list[str]) -> list[Choice]:
    """The callbacks that a configuration names, looked up and checked; ``problems`` takes what is wrong."""
    from vtp.components import choose, find
    from vtp.plugins import host
    from vtp.train.callbacks import Callback

    chosen = []
    for given in config["callbacks"] or ():
        options = {"name": given} if isinstance(given, str) else given
        if not (isinstance(options, Mapping) and options.get("name")):
            problems.append(f"callbacks: expected a name, or options with a name, got {given!r}")
            continue
        choice = choose("callbacks", options, find(host().registry, "callback"), problems, kind="callback")
        if choice and not (isinstance(choice.target, type) and issubclass(choice.target, Callback)):
            problems.append(
                f"callbacks: {choice.name} is no subclass of vtp.train.callbacks.Callback, which it must be"
            )
        elif choice:
            unknown = [n for n in vars(choice.target) if n.startswith("on_") and not hasattr(Callback, n)]
            problems += [
                f"callbacks: {choice.name} has `{name}`, which is no event.{did_you_mean(name, vars(Callback))}"
                for name in unknown
            ]
            chosen.append(choice)
    return chosen


def _machine(config: Mapping[str, Any]) -> Iterator[str]:
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", str(config["device"])):
        yield f"device={config['device']}: expected auto, cpu, cuda, or one GPU such as cuda:1"


def _training(config: Mapping[str, Any], folder: Path) -> Iterator[str]:
    from vtp.train.config import TrainConfig
    from vtp.train.profiling import ProfileSteps

    yield from TrainConfig(**config["train"]).validate(int(os.environ.get("WORLD_SIZE", "1")))
    try:
        ProfileSteps.parse(config["profile"])
    except ConfigError as error:
        yield from str(error).splitlines()
    if config["resume"] is None and any(folder.glob("checkpoints/step_*")):
        yield f"{folder} already holds a run: resume=auto goes on with it, another run_dir starts a new one"


def _sources(config: Mapping[str, Any], parts: list[str]) -> Iterator[str]:
    """Where weights come from."""
    if parts and "train" not in parts and config["checkpoint"] is None and not _brings_weights(config):
        yield (
            f"mode={config['mode']} needs checkpoint=: a run folder or a checkpoint folder; or a model whose towers "
            "were trained together, such as model=clip"
        )
    for key in ("checkpoint", "init_from", "resume"):
        given = config[key]
        if given == "":
            yield f"{key}=: expected a run folder or a checkpoint, or null"
        elif given is not None and not (key == "resume" and given == "auto") and not Path(given).exists():
            yield f"{key}={given}: no such checkpoint. Give a run folder, or a folder like .../checkpoints/best"
    if config["restart"] and config["resume"] in (None, "auto"):
        yield "restart=true takes the weights of resume=PATH and starts counting at 0; give that path"
    if config["restart"] and config["init_from"] is not None:
        yield "restart=true and init_from both say where the weights come from; give one of them"


def _brings_weights(config: Mapping[str, Any]) -> bool:
    """Whether every encoder starts from a checkpoint of its own, so that there may be something to evaluate."""
    filled = [options for options in config["encoder"].values() if (options or {}).get("name")]
    return bool(filled) and all(options.get("pretrained") is True for options in filled)


def pair_of(slots: Collection[str]) -> list[Modality]:
    """The two modalities of a model that an objective would compare: video before sound, with text where it is read."""
    there = [modality for modality in MODALITIES if modality in slots]
    return there[:1] + there[1:][-1:]


def contrast(slots: Collection[str]) -> str:
    """``objective=[vtc]``, with the modalities where they are not those that it begins with."""
    pair = pair_of(slots)
    beside = f" objectives.vtc.modalities=[{','.join(pair)}]" if len(pair) > 1 and pair != ["video", "text"] else ""
    return f"objective=[vtc]{beside}"


def lacks(what: str, objective: str | None, able: Collection[str], modalities: Sequence[Modality]) -> str:
    """What to tell where no objective of a model, or not the one that is asked for, does something.

    Args:
        what: it should do.
        objective: that is asked for.
        able: those that do it.
        modalities: of the model.
    """
    if able:
        return f"--objective {objective} is none that {what}. Those of this model that do: {', '.join(able)}."
    asked = "" if objective is None else f", --objective {objective} neither"
    return f"this model has no objective that {what}{asked}. Train one with {contrast(modalities)}."


def refuse_untrained(model: Any, mode: str) -> None:
    """Refuse to evaluate a model without a checkpoint, unless all of it was trained: encoders that share a space, and
    no layers between them.

    Raises:
        ConfigError: numbers that are random would be measured.
    """
    spaces = {member(encoder, Encoder, "space") for encoder in model.encoders.values()}
    layers = sorted({name.split(".")[0] for name, p in model.objectives.named_parameters() if p.numel() > 1})
    if layers or len(spaces) != 1 or None in spaces:
        reason = f"the weights of objectives.{layers[0]}" if layers else "what brings the encoders into one space"
        if len(spaces) == 1 and None not in spaces:  # it is one
            instead = f"{contrast(model.encoders)} without further options, which these towers were trained with"
        else:
            instead = "a model whose towers were trained together, such as model=clip with objective=[vtc]"
        raise ConfigError(
            f"mode={mode} without checkpoint=: {reason} would be random. Give checkpoint=: a run folder or a "
            f"checkpoint folder; or {instead}."
        )


def refuse_ambiguous_options(choices: Mapping[str, Any]) -> None:
    """An option file that two plugins ship would be taken from the first of them without a word.

    Args:
        choices: group -> chosen option, or list of them.

    Raises:
        PluginError: names the option and both plugins.
    """
    from vtp.options import option_files

    files = option_files()
    for place, chosen in choices.items():
        group = place.partition("@")[0]
        for option in chosen if isinstance(chosen, list) else [chosen]:
            folder, _, name = f"{group}/{option}".rpartition("/")
            found = [provider for provider, _ in files.get(folder, {}).get(name, [])]
            if len(found) > 1:
                raise PluginError(
                    f"{group}={option} is offered by {' and '.join(found)}. "
                    f"Switch one off: VTP_BLOCK_PLUGINS={found[-1]}"
                )
