"""``vtp import-config FILE.yml``: a configuration of AntMMF as options of ``vtp run``.

Keys are known by their last name, wherever they stand in the file. Options go to the standard output, one a line; what
has no counterpart goes to the standard error with its reason, key by key, and so do keys that are unknown::

    vtp run $(vtp import-config msr_vtt.yml 2> left_over.txt) dataset.root=DIR
"""

from __future__ import annotations

import ast
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from vtp.cli.arguments import key_values
from vtp.errors import ConfigError, DataError
from vtp.registry import did_you_mean
from vtp_univl.config_keys import (
    BACKBONES,
    DATASETS,
    HEADS,
    INSIDE,
    LEFT_OVER,
    METRICS,
    NUMBERS,
    RUN_TYPES,
)

__all__ = ["main", "translate"]

USAGE = """vtp import-config: a configuration of AntMMF as options of `vtp run`.

usage: vtp import-config FILE.yml [KEY=VALUE ...] [--counter released]

  FILE.yml             with the files that it includes
  KEY=VALUE            settings of a shell script, as AntMMF's command line takes them: training_parameters.max_epochs=5
  --counter released   the released program counted every step twice: halve numbers that it counted with that, and do
                       what it did; without this, what the configuration says

Options are printed one a line, what has no counterpart on the standard error:

  vtp run $(vtp import-config FILE.yml 2> left_over.txt) dataset.root=DIR
"""
TWICE = ("max_iterations", "change_iter", "log_interval", "snapshot_interval", "val_interval", "eval_interval")
STAGES = {"stage1": "univl/vtc", "stage2": "univl/vtm", "stage3": "univl/dmae"}
MAX_DEPTH = 20


def main(arguments: list[str]) -> int:
    """Print options and what is left over."""
    if not arguments or arguments[0] in ("-h", "--help"):
        print(USAGE)
        return 0
    arguments = list(arguments)
    released = False
    if "--counter" in arguments:
        place = arguments.index("--counter")
        said = arguments[place + 1 : place + 2]
        if said not in (["released"], ["paper"]):
            raise ConfigError(f"--counter {' '.join(said)}: expected released or paper.")
        released = said == ["released"]
        del arguments[place : place + 2]
    files = [argument for argument in arguments if "=" not in argument]
    if len(files) != 1 or files[0].startswith("-"):
        raise ConfigError(f"expected one FILE.yml, got {' '.join(arguments)}. `vtp import-config --help` explains.")
    config = _read(Path(files[0]).expanduser(), [])
    for key, value in key_values([argument for argument in arguments if "=" in argument]).items():
        _set(config, key, value)
    options, notes = translate(config, released=released)
    if not options:
        raise DataError(f"{files[0]} has no key of AntMMF that vtp knows. Is it a configuration of AntMMF?")
    for line in options:
        print(line)
    for key, reason in notes.items():
        print(f"{key}: {reason}", file=sys.stderr)
    return 0


def translate(config: Mapping[str, Any], *, released: bool = False) -> tuple[list[str], dict[str, str]]:
    """Options of ``vtp run`` for a configuration, and the reason for every key that has none.

    Args:
        config: nested, as AntMMF reads it, with the files that it includes.
        released: halve what the released program counted twice per step.

    Returns:
        ``key=value`` lines, and key with dots -> reason.
    """
    found = _Translation(dict(_leaves(config)), released)
    found.run()
    return found.lines(), found.notes


class _Translation:
    """One configuration. ``options`` by their vtp names, ``notes`` by AntMMF's keys with dots."""

    def __init__(self, leaves: dict[str, Any], released: bool) -> None:
        self.leaves = {key: _literal(value) for key, value in leaves.items()}
        self.released = released
        self.options: dict[str, Any] = {}
        self.notes: dict[str, str] = {}
        self.last: dict[str, tuple[str, Any]] = {}  # last name -> key and value
        for key, value in self.leaves.items():
            if not INSIDE.keys() & set(key.split(".")):
                self.last[key.rsplit(".", 1)[-1]] = (key, value)
        self.done: set[str] = set()

    def run(self) -> None:
        self._model()
        self._objectives()
        self._data()
        self._length()
        self._rates()
        self._mode()
        for key, value in self.leaves.items():
            if key not in self.done:
                self._plain(key, value)

    def lines(self) -> list[str]:
        return [f"{key}={_written(value)}" for key, value in self.options.items()]

    def take(self, name: str) -> Any:
        """The value of a key, by its last name, which is then accounted for; None where it is not there."""
        if name not in self.last:
            return None
        for key in self.leaves:
            if key.rsplit(".", 1)[-1] == name:
                self.done.add(key)
        value = self.last[name][1]
        return math.ceil(value / 2) if self.released and name in TWICE and isinstance(value, int) else value

    def note(self, name: str, reason: str) -> None:
        self.notes[self.last[name][0]] = reason

    def _model(self) -> None:
        head = self.take("training_head_type")
        if head in HEADS:
            self.options["task"] = HEADS[head]
        elif head is not None:
            self.note("training_head_type", f"there is no task for {head}; tasks: {', '.join(HEADS.values())}")
        self.options["model"] = "univl"
        for key, value in self.leaves.items():
            if isinstance(value, str) and value in BACKBONES:
                self.options["encoder.video.backbone"] = BACKBONES[value]
                self.done.add(key)
        clips, per_clip = self.take("n_clips"), self.take("num_frm") or 1
        if isinstance(clips, int) and isinstance(per_clip, int):
            self.options["encoder.video.frames"] = clips * per_clip
        if per_clip != 1:
            self.options["encoder.video.frames_per_clip"] = per_clip
        if (recompute := self.take("gradient_checkpointing")) is not None:
            several = recompute if isinstance(recompute, (list, tuple)) else [recompute]
            self.options["train.gradient_checkpointing"] = any(bool(one) for one in several)
        if (side := self.take("max_size")) is not None:
            self.options["encoder.video.size"] = side
            self.note("max_size", "frames are squares here; it was the longer side, padded")

    def _objectives(self) -> None:
        head, stage = self.last.get("training_head_type", ("", None))[1], self.take("training_stage")
        if head == "video_text_classification":
            self.options = {"objective": ["qa"], **self.options}
            self.note("training_head_type", "without captions, as for UCF101, it is task=classification")
            return
        stages = str(stage or "stage1+stage2")
        chosen = [name for word, name in STAGES.items() if word in stages]
        moco = self.take("with_moco")
        training = head in ("video_pretraining", "video_text_retrieval") and not self._evaluates_only()
        if training and (moco is None or moco) and "univl/vtc" in chosen:
            chosen[chosen.index("univl/vtc")] = "univl/moco"
            self._copy({"M": "objectives.vtc.momentum", "K": "objectives.vtc.queue_size"})
            self._copy({"T": "objectives.vtc.temperature"})
        if "univl/vtm" in chosen:
            self._mining(chosen)
        if head == "video_pretraining":
            chosen += ["univl/itm"] if self.take("add_false_caption") else []
            chosen.append("univl/mlm")
            self._significant_words(chosen)
            if "univl/vtm" in chosen or "univl/hscl" in chosen or "univl/hsm" in chosen:
                self.options["objectives.vtm.masked"] = ["text"]
        self.options = {"objective": chosen, **self.options}
        if "univl/dmae" not in chosen:
            for name in [name for name in self.last if name.startswith("l3_")]:
                self.take(name)
                self.note(name, "of DMAE, which needs stage3 in training_stage")

    def _significant_words(self, chosen: list[str]) -> None:
        """SNP-S3: MSSM in the place of MLM, and LVWM."""
        names: dict[str, str] = {}
        if self.take("IW_MLM"):
            chosen[chosen.index("univl/mlm")] = "snps3/mssm"
            names["words_top_k"] = "objectives.mssm.top_k"
        if self.take("Vision_Word_Matching"):
            chosen.append("snps3/lvwm")
            names |= {"Word_Chosen_Num": "objectives.lvwm.chosen", "VWM_count_stage": "objectives.lvwm.stage"}
            names.setdefault("words_top_k", "objectives.lvwm.top_k")
        self._copy(names)

    def _mining(self, chosen: list[str]) -> None:
        mined = self.take("hard_example_mining")
        names = {"re_sample_method": "objectives.vtm.re_sample_method"}
        if mined and self.take("change_iter") is not None:
            chosen[chosen.index("univl/vtm")] = "univl/hscl"
            names |= {"change_iter": "objectives.vtm.change_iter", "change_rate": "objectives.vtm.change_rate"}
        elif mined:
            chosen[chosen.index("univl/vtm")] = "univl/hsm"
        else:
            for name in ("re_sample_method", "re_weight_method", "change_iter", "change_rate"):
                if self.take(name) is not None:
                    self.note(name, "has no effect without hard_example_mining")
            return
        self._copy(names)
        if (method := self.take("re_weight_method")) is not None:
            # the released program calls a mean median
            self.options["objectives.vtm.re_weight_method"] = "mean" if method == "median" else method
            if method == "median":
                self.note("re_weight_method", "median was a mean in the released program; mean is written here")

    def _copy(self, names: Mapping[str, str]) -> None:
        for name, option in names.items():
            if (value := self.take(name)) is not None:
                self.options[option] = value

    def _data(self) -> None:
        """Files and folders, known by the keys above them: ``annotations.train``, ``videos.train``."""
        for key, value in self.leaves.items():
            above, _, split = key.rpartition(".")
            place = above.rsplit(".", 1)[-1]
            files = list(value) if isinstance(value, (list, tuple)) else [value]
            if place == "annotations" and split in ("train", "val", "test") and all(isinstance(f, str) for f in files):
                self.done.add(key)
                self.options |= {"dataset": "antmmf", f"dataset.{split}_file": files[0]}
                if files[1:]:
                    self.notes[key] = f"of {len(files)} files the first is taken; dataset=mix joins several"
            elif place in ("videos", "images") and split in ("train", "val", "test") and isinstance(files[0], str):
                self.done.add(key)
                self.options.setdefault("dataset.videos", files[0])
                if files[0] != self.options["dataset.videos"] or files[1:]:
                    self.notes[key] = "one folder holds the clips of all splits: dataset.videos"
        if any(name in key for key in self.leaves for name in DATASETS):
            self.options.setdefault("dataset", "antmmf")

    def _length(self) -> None:
        steps, epochs = self.take("max_iterations"), self.take("max_epochs")
        if steps is not None:
            self.options |= {"train.steps": steps, "train.epochs": None}
            if not self.released:
                self.note(
                    "max_iterations", f"the released program made half as many steps; --counter released: {steps // 2}"
                )
            if epochs is not None:
                self.note(
                    "max_epochs", f"length is given by max_iterations={steps}; AntMMF stopped at the first of both"
                )
        elif epochs is not None:
            self.options["train.epochs"] = epochs

    def _rates(self) -> None:
        rate = self.last.get("lr", ("", None))[1]
        if (milestones := self.take("lr_steps")) is not None:
            given = [int(step) for step in (milestones if isinstance(milestones, (list, tuple)) else [milestones])]
            self.options |= {"train.schedule": "step", "train.lr_milestones": given}
        elif self.take("lr_epochs") is not None:
            self.note(
                "lr_epochs", "milestones are steps here: train.schedule=step train.lr_milestones=[epochs * steps]"
            )
        warm, steps, factor = (self.take(f"{name}") for name in ("use_warmup", "warmup_iterations", "warmup_factor"))
        if steps is not None or warm is not None:
            self.options["train.warmup"] = 0 if warm is False else steps or 0
        if factor is not None and warm is not False and isinstance(rate, float):
            self.options["train.warmup_lr"] = float(f"{rate * factor:.6g}")
        if (decay := self.take("encoder_lr_decay")) is not None:
            self.options["train.group_lr"] = {"encoders.text": decay, "encoders.video": decay}

    def _evaluates_only(self) -> bool:
        words = str(self.last.get("run_type", ("", "train"))[1]).split("+")
        return "train" not in words

    def _mode(self) -> None:
        words = [word.strip() for word in str(self.take("run_type") or "train").split("+")]
        modes = [RUN_TYPES[word] for word in words if word in RUN_TYPES]
        if "train" in modes and "eval" in modes:
            modes = ["train", "eval"]
        if self.take("evalai_inference"):
            modes.append("predict")
        self.options["mode"] = "+".join(dict.fromkeys(modes)) or "train+eval"
        if words == ["val"]:
            self.options["task.split"] = "val"
        file, fresh = self.take("resume_file"), self.take("restart")
        start = file or self.take("load_pretrained")
        if isinstance(start, str):
            self.options["init_from"] = start
            name = "resume_file" if file else "load_pretrained"
            self.note(name, f"convert it first: vtp import antmmf {start} NEW, init_from=NEW; weights alone are taken")
            if file and fresh is False:
                self.note("restart", "optimizer and counters of AntMMF are not taken over")
        elif self.take("resume"):
            self.options["resume"] = "auto"
        stop = self.take("should_early_stop")
        if (patience := self.take("patience")) is not None:
            if stop:
                self.options["train.patience"] = patience
            else:
                self.note("patience", "has no effect without should_early_stop")
        self._monitor()

    def _monitor(self) -> None:
        metric, least = self.take("monitored_metric"), self.take("metric_minimize")
        if metric is None:
            return
        known = METRICS.get(str(metric).rsplit("/", 1)[-1].split("_simi_")[-1])
        if known is None:
            self.note("monitored_metric", f"there is no metric {metric}; the task's own is watched")
            return
        if "mean_recall" in str(metric):
            self.note("monitored_metric", "r_mean is the mean over both directions")
        self.options |= {"train.monitor": known} | ({"train.monitor_mode": "min"} if least else {})
        for level, objective in (("l1_", "vtc"), ("l2_", "vtm"), ("l3_", "dmae")):
            if level in str(metric):
                self.options["task.objective"] = objective

    def _plain(self, key: str, value: Any) -> None:
        """A key that is an option by itself, has a reason to be left out, or is unknown."""
        name = key.rsplit(".", 1)[-1]
        inside = next((reason for part, reason in INSIDE.items() if part in key.split(".")), None)
        if inside is not None:
            self.notes[key] = inside
        elif name in NUMBERS:
            option, convert = NUMBERS[name]
            if value is not None:
                made = self.take(name) if name in TWICE else value
                for one in option.split():
                    self.options[one] = convert(made)
        elif name == "type" and "optimizer" in key and value != "AdamW":
            self.notes[key] = f"training is by AdamW, not by {value}"
        elif name in LEFT_OVER or name.startswith("with_"):
            self.notes[key] = LEFT_OVER.get(name, "is never read, or off in every configuration")
        else:
            self.notes[key] = f"unknown.{did_you_mean(name, [*NUMBERS, *LEFT_OVER])}".rstrip()


def _leaves(node: Any, above: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in node.items():
        place = f"{above}.{key}" if above else str(key)
        if isinstance(value, Mapping) and value:
            yield from _leaves(value, place)
        else:
            yield place, value


def _literal(value: Any) -> Any:
    """Strings that AntMMF takes for values: ``"None"``, ``"5e-5"``, ``"1,2"``."""
    if isinstance(value, str):
        try:
            return ast.literal_eval(value)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            return value
    return value


def _written(value: Any) -> str:
    """As hydra reads it."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, (list, tuple)):
        return f"[{','.join(map(_written, value))}]"
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{key}:{_written(one)}" for key, one in value.items()) + "}"
    text = str(value)
    plain = all(c.isalnum() or c in "/._-+:" for c in text)
    return text if plain else "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def _read(file: Path, above: Sequence[Path]) -> dict[str, Any]:
    """A file over those that it includes: dicts are merged, anything else is replaced."""
    import yaml

    if file in above or len(above) > MAX_DEPTH:
        raise DataError(f"{file} includes itself: {' -> '.join(map(str, (*above, file)))}.")
    try:
        config = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise DataError(f"{file} cannot be read ({' '.join(str(error).split())[:200]}).") from error
    if not isinstance(config, dict):
        raise DataError(f"{file} holds a {type(config).__name__}, expected the keys of a configuration.")
    merged: dict[str, Any] = {}
    includes = config.pop("includes", None) or []
    for include in [includes] if isinstance(includes, str) else includes:
        there = [place for place in (file.parent / str(include), Path(str(include))) if place.is_file()]
        if not there:
            raise DataError(f"{file} includes {include}, which lies neither beside it nor in this folder.")
        _merge(merged, _read(there[0], [*above, file]))
    _merge(merged, config)
    return merged


def _merge(into: dict[str, Any], other: Mapping[str, Any]) -> None:
    for key, value in other.items():
        if isinstance(value, Mapping) and isinstance(into.get(key), dict):
            _merge(into[key], value)
        else:
            into[key] = value


def _set(config: dict[str, Any], key: str, value: Any) -> None:
    *above, last = key.split(".")
    for name in above:
        below = config.setdefault(name, {})
        if not isinstance(below, dict):
            raise ConfigError(f"{key}: {name} is no group of keys in the file.")
        config = below
    config[last] = value
