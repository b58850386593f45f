"""What ``vtp run`` does with a composed configuration: build the parts, train, evaluate, report.

    launch(config)            called by the command line on the first process; follow() on the others of torchrun
      Run(config, folder)     data set -> task -> model -> loaders
        .train()              into folder/checkpoints
        .evaluate()           into folder/report.json, predictions.jsonl, report.png
        .predict()            predictions.jsonl without labels

Nothing here knows a data set, an encoder or an objective by name.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import logging
import os
import re
import shutil
import sys
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vtp import __version__
from vtp.config import TOP_LEVEL, DataConfig, MediaConfig, modes
from vtp.errors import ConfigError, PluginError, UserError
from vtp.memory import keep_memory
from vtp.registry import did_you_mean
from vtp.types import Modality, Sample

if TYPE_CHECKING:
    from omegaconf import DictConfig

__all__ = ["Run", "execute", "find_unfinished", "fingerprint", "follow", "launch"]

log = logging.getLogger("vtp")

# These say where and how to go on, not what is computed; two configurations that differ only here are the same run.
_NOT_FINGERPRINTED = ("run_dir", "resume", "restart", "profile")


def fingerprint(config: Mapping[str, Any]) -> str:
    """Hash of everything in the configuration that decides what is computed."""
    decisive = {key: value for key, value in config.items() if key not in _NOT_FINGERPRINTED}
    return hashlib.sha256(json.dumps(decisive, sort_keys=True, default=str).encode()).hexdigest()[:16]


def find_unfinished(wanted: str, root: Path = Path("outputs")) -> Path | None:
    """The newest run folder under ``root`` with this fingerprint that did not finish, or None."""
    candidates = []
    for file in root.glob("*/*/run.json"):
        try:
            record = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue  # a run that died while it was created has nothing to go on from
        if record.get("fingerprint") == wanted and record.get("status") != "finished":
            candidates.append((record.get("started", ""), file.parent))
    return max(candidates)[1] if candidates else None


def launch(composed: DictConfig) -> int:
    """Run a configuration that hydra composed; returns the exit code. On several processes, tells the others."""
    from hydra.core.hydra_config import HydraConfig

    hydra = HydraConfig.get()
    folder = Path(hydra.runtime.output_dir)
    try:
        config = _resolved(composed)
        config["run_dir"] = str(folder)
        _length_from_the_command_line(config, list(hydra.overrides.task))
        # hydra does not record choices that are lists; an objective's option is named as its node
        _refuse_ambiguous_options({**hydra.runtime.choices, "objective": list(config["objectives"] or {})})
        return execute(config, folder)
    except BaseException as error:
        _keep_traceback(folder, error)
        if isinstance(error, UserError):
            _remove_if_empty(folder)
        raise


def _resolved(composed: DictConfig) -> dict[str, Any]:
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    try:
        return OmegaConf.to_container(composed, resolve=True)  # type: ignore[return-value]
    except OmegaConfBaseException as error:  # a value that another one takes over and cannot use, such as seed=one
        raise ConfigError(f"{error.full_key}: {str(error).splitlines()[0]}") from error


def follow() -> int:
    """The other processes of torchrun: take the configuration from the first one and run."""
    return execute(None, None)


def execute(config: dict[str, Any] | None, folder: Path | None) -> int:
    """Run a resolved configuration in ``folder``; the first process gives both, the others pass None.

    Raises:
        ConfigError: with everything that is wrong in the core's part of the configuration.
        VtpError: what the parts raise.
    """
    from vtp import distributed

    if config is not None and folder is not None:
        _check(config, folder)  # before a process group exists: a typo must not leave the others waiting
    device = distributed.setup((config or {}).get("device", "auto"))
    try:
        config, folder = distributed.broadcast_object((config, folder))
        assert config is not None and folder is not None
        _set_threads(config)
        if device.type == "cpu":
            keep_memory(1 << 30, 2 << 30)  # a step needs what the step before it freed
        run = Run(config, folder, device)
        with run.recorded():
            for mode in modes(config["mode"]):
                getattr(run, {"train": "train", "eval": "evaluate", "predict": "predict"}[mode])()
            run.say_what_was_cached()
    finally:
        distributed.shutdown()
    return 0


class Run:
    """One run: its parts, built when they are first needed, and what is done with them.

    Args:
        config: resolved configuration of ``conf/run.yaml``.
        folder: where everything is written.
        device: of the model.
    """

    def __init__(self, config: dict[str, Any], folder: Path, device: Any) -> None:
        from vtp.plugins import host

        self.config = config
        self.folder = folder
        self.device = device
        self.host = host()
        self.data = DataConfig(**config["data"])
        self.media = MediaConfig(**config["media"])
        self.modes = modes(config["mode"])
        self.trainer: Any = None
        self._cache_checked: set[str] = set()
        self.running = ""  # what computes attention, once the model is built
        self.evaluated: Path | None = None  # the checkpoint whose weights are in the model

    # -- parts -------------------------------------------------------------------------------------------------------

    @cached_property
    def dataset(self) -> Any:
        return self._component("dataset", self.config["dataset"])

    @cached_property
    def task(self) -> Any:
        given = {"dataset": self.dataset, "seed": self.config["seed"], "val_share": self.data.val_share}
        task = self._component("task", self.config["task"], **given)
        if self.start is not None and (answers := _read_spec(self.start).get("answers")):
            task.use_answers(answers)
        return task

    @cached_property
    def start(self) -> Path | None:
        """The checkpoint that is evaluated, or that training starts from with its whole model; None for a new model."""
        if self.config["checkpoint"] is None:
            return None
        from vtp.train.checkpoint import locate

        given = Path(self.config["checkpoint"])
        best = given / "checkpoints" / "best"  # of a run folder: what its own report was about
        return locate(best if best.exists() else given)

    @cached_property
    def model(self) -> Any:
        from vtp.model.build import BuildContext, build_model, lookup_in
        from vtp.model.kernels import adopt, use_kernels
        from vtp.model.weights import load_weights, read_config

        spec = {"encoders": self.config["encoder"], "objectives": self.config["objectives"]}
        context = BuildContext(texts=self.task.texts)
        if self.start is not None:
            spec = read_config(self.start)["spec"]
            context.assets = self.start / "assets"
        context.answers = tuple(self.task.answers)
        _seed_everything(self.config["seed"])
        self.running = use_kernels(self.config["kernels"], self.device)
        model = build_model(spec, lookup_in(self.host.registry), context, seed=self.config["seed"])
        adopt(model, self.device)
        if self.start is not None:
            averaged = self.start / "ema.safetensors"
            load_weights(averaged if averaged.exists() else self.start, model)
        elif self.weights_only is not None:
            load_weights(
                self.weights_only,
                model,
                init_map=self.config["init_map"],
                allow_missing=self.config["init_allow_missing"],
                allow_unused=self.config["init_allow_unused"],
            )
        self.evaluated = self.start
        return model

    @cached_property
    def weights_only(self) -> Path | None:
        """Where a new model takes its first weights from: ``init_from``, or ``resume=PATH restart=true``."""
        from vtp.train.checkpoint import locate

        if self.config["restart"]:
            return locate(self.config["resume"])
        return None if self.config["init_from"] is None else locate(self.config["init_from"])

    @cached_property
    def reader(self) -> Any:
        from vtp.media import MediaReader

        media = self.media
        reader = MediaReader(
            backend=media.backend, timeout_s=media.timeout_s, isolate=media.isolate, memory_mb=media.memory_mb
        )
        if self.data.cache is None:
            return reader
        from vtp.media.cache import CachedReader, ClipCache

        return CachedReader(reader, ClipCache(self.data.cache))

    @cached_property
    def bad(self) -> Any:
        from vtp.data import BadSampleLedger

        return BadSampleLedger(self.folder / "bad_samples.jsonl", self.data.max_bad_fraction)

    def _component(self, kind: str, options: Mapping[str, Any] | None, **given: Any) -> Any:
        """Build a data set or a task from its node, whose keys are the constructor's keyword arguments.

        ``given`` is passed as far as the constructor has such parameters; the node may override it.
        """
        options = dict(options or {})
        name = str(options.pop("name"))
        component = self.host.registry.get(kind, name).load()
        parameters = inspect.signature(component).parameters
        if unknown := [key for key in options if key not in parameters]:
            hint = did_you_mean(unknown[0], parameters)
            raise ConfigError(f"{kind} {name} has no option {unknown[0]!r}.{hint} Options: {', '.join(parameters)}.")
        return component(**{key: value for key, value in given.items() if key in parameters} | options)

    # -- data --------------------------------------------------------------------------------------------------------

    def _pipeline(self, *, train: bool, drop: Sequence[str] = ()) -> Any:
        from vtp.data import Pipeline
        from vtp.media.multi_view import View, Windows
        from vtp.media.sampling import find_sampler

        augment = train and self.data.augment
        video = self.model.specs().get("video")
        sampler, transform = find_sampler(self.data.sampler), None
        if not train and video is not None and self.data.eval_clips * self.data.eval_crops > 1:
            sampler = Windows(self.data.eval_clips)
            transform = View(video.size, self.data.eval_clips, self.data.eval_crops)
        return Pipeline(
            self.model.specs(),
            train=augment,
            seed=self.config["seed"],
            labels=self.task.labels,
            reader=self.reader,
            drop=tuple({*self.data.drop, *drop}),
            sampler=sampler,
            transform=transform,
        )

    @cached_property
    def train_samples(self) -> Sequence[Sample]:
        samples: Sequence[Sample] = self.task.train_samples()
        return samples

    @cached_property
    def train_media(self) -> Any:
        """Which training files are there, as the first process sees the disk."""
        from vtp import distributed
        from vtp.data.presence import look, on_disk

        cache = getattr(self.reader, "cache", None)  # what is in data.cache needs no original
        encoders = self.config["encoder"] if self.start is None else _read_spec(self.start)["encoders"]
        wanted = [m for m in ("video", "audio") if (encoders.get(m) or {}).get("name") and m not in self.data.drop]

        def media(sample: Sample) -> Any:  # a sample without its picture is lost; one without its sound is not
            return next((ref for m in wanted if (ref := getattr(sample, m)) is not None), None)

        def there(path: str) -> bool:
            return on_disk(path) or (cache is not None and cache.path(path).exists())

        found: Any = look(self.train_samples, media, there) if distributed.is_main() else None
        found = distributed.broadcast_object(found)
        if found.absent and found.usable and distributed.is_main():  # with none, the error says it
            log.warning(found.line())
        return found

    @cached_property
    def train_table(self) -> Sequence[Sample]:
        from vtp.eval.ledger import count_or_share

        samples: Sequence[Sample] = self.train_media.take(self.train_samples)
        if self.data.limit_train is None:
            return samples
        count = min(len(samples), max(1, count_or_share(self.data.limit_train, len(samples), "data.limit_train")))
        rows = [i * len(samples) // count for i in range(count)]
        if hasattr(samples, "select"):
            import numpy as np

            selected: Sequence[Sample] = samples.select(np.array(rows))
            return selected
        return [samples[row] for row in rows]

    def _train_loader(self, global_batch: int) -> Any:
        from vtp import distributed
        from vtp.data import TrainLoader

        pipeline = self._pipeline(train=True)
        self._check_cache(self.train_table, pipeline, "training")
        return TrainLoader(
            self.train_table,
            pipeline,
            global_batch=global_batch,
            rank=distributed.rank(),
            world_size=distributed.world_size(),
            workers=self.data.workers,
            seed=self.config["seed"],
            bad=self.bad,
            group=self.data.group,
        )

    def _eval_loader(self, samples: Sequence[Sample], drop: tuple[Modality, ...]) -> Any:
        from vtp import distributed
        from vtp.data import EvalLoader

        pipeline = self._pipeline(train=False, drop=drop)
        self._check_cache(samples, pipeline, "evaluation")
        return EvalLoader(
            samples,
            pipeline,
            batch_size=self.data.eval_batch,
            rank=distributed.rank(),
            world_size=distributed.world_size(),
            workers=self.data.workers,
            bad=self.bad,
        )

    def _check_cache(self, samples: Sequence[Sample], pipeline: Any, what: str) -> None:
        """Say once per table how much of it comes from the cache."""
        from vtp import distributed

        if self.data.cache is None or what in self._cache_checked or not distributed.is_main():
            return
        from vtp.media.cache import survey

        self._cache_checked.add(what)
        log.info(survey(self.reader.cache, samples, pipeline, what))

    def say_what_was_cached(self) -> None:
        """How many reads of this process and its workers came from ``data.cache``."""
        if self.data.cache is not None and "reader" in self.__dict__:
            log.info(self.reader.line())

    def _wait_hint(self, loader: Any) -> Any:
        from vtp.data.wait_hint import WaitHint, advice

        kind = "" if self.data.cache is None else self.reader.cache.settings.kind
        size = getattr(loader.pipeline.transform, "decode_size", None)
        return WaitHint(advice(self.config["dataset"], size, self.data.cache, kind))

    def _evaluator(self, model: Any) -> Any:
        from vtp.eval.evaluator import Evaluator

        return Evaluator(
            model,
            self._eval_loader,
            device=self.device,
            precision=self.config["train"]["precision"],
            limit=self.data.limit_eval,
            max_missing=self.data.max_missing,
            facts={
                "sampling": "uniform middle",
                "decoder": self.media.backend,
                "dropped": list(self.data.drop),
                "kernels": self.running,
                "cache": None if self.data.cache is None else self.reader.cache.record(),
            },
        )

    # -- what is done ------------------------------------------------------------------------------------------------

    def train(self) -> None:
        """Train, with evaluation on the validation split on the way, and leave the selected weights in the model."""
        from vtp.train import TrainConfig, Trainer

        config = TrainConfig(**self.config["train"])
        if "eval" in self.modes:
            self._check_leaks(self.stages)  # before hours of training, not after
        loader = self._train_loader(config.global_batch)
        selection = self.task.selection
        split = {"val": "val", "test(!)": "test"}.get(selection)
        self.trainer = Trainer(
            self.model,
            loader,
            config,
            self.folder,
            evaluate=None if split is None else lambda model: self._score(model, split),
            monitor=self.task.monitor if split else None,
            provenance=self.provenance,
            device=self.device,
            callbacks=[self._wait_hint(loader), *self._profile(config.precision)],
        )
        resume = self.config["resume"]
        if resume is not None and not self.config["restart"] and not self.trainer.resume(resume):
            log.info("resume=auto: no checkpoint in %s yet; starting from the beginning", self.folder)
        log.info(
            "training %s on %s: %s samples, %d steps of %d, %s parameters, %s",
            self.task.name,
            self.dataset.name,
            f"{len(self.train_table):,}",
            self.trainer.total_steps,
            config.global_batch,
            f"{sum(p.numel() for p in self.trainer.model.parameters()):,}",
            self.device,
        )
        self.trainer.fit()
        self.evaluated = self.trainer.load_best() if selection != "last" else None

    def _profile(self, precision: str) -> list[Any]:
        from vtp.train.profiling import Profile

        wanted = self.config["profile"]
        return [Profile(self.folder / "profile", wanted, precision)] if wanted else []

    def evaluate(self) -> None:
        """Score the test split by the task's protocol; write report.json, predictions.jsonl and report.png."""
        from vtp import distributed
        from vtp.eval.report import print_result, write_report

        leaks = self._check_leaks(self.stages)
        with self._evaluating() as model:
            evaluator = self._evaluator(model)
            result = self.task.evaluate(evaluator, "test")
            if "train" in self.modes and self.train_media.absent:
                result.warnings.append(self.train_media.line())
            strips = self.task.examples(evaluator, result) if result.chart else []
        if not distributed.is_main():
            return
        record = write_report(
            self.folder,
            result,
            selection=self.task.selection,
            seed=self.config["seed"],
            train=self.stages,
            leaks=leaks,
            checkpoint=self.evaluated or self._last_checkpoint(),
            config=self.config,
            plugins=self.plugins,
            extra={"dataset": self.dataset.origin()},
        )
        if result.chart:
            from vtp.eval.figures import draw_figure

            title = f"{self.task.name} on {self.dataset.name}"
            note = result.tables[0].notes[0] if result.tables and result.tables[0].notes else ""
            draw_figure(self.folder / "report.png", result.chart, strips, title=title, note=note)
        print_result(result, record)
        self._say_where()

    def predict(self) -> None:
        """Write predictions.jsonl for the test split; labels are neither needed nor looked at."""
        from vtp import distributed
        from vtp.storage import write_text_atomic

        with self._evaluating() as model:
            result = self.task.predict(self._evaluator(model), "test")
        if distributed.is_main():
            lines = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in result.predictions)
            write_text_atomic(self.folder / "predictions.jsonl", lines)
            print(result.ledger.line())
            self._say_where()

    @contextmanager
    def _evaluating(self) -> Iterator[Any]:
        """The model in eval mode: of the trainer if this run trained, else that of the checkpoint."""
        if self.trainer is not None:
            with self.trainer.evaluating() as model:
                yield model
        else:
            yield self.model.to(self.device).eval()

    def _score(self, model: Any, split: str) -> dict[str, float]:
        """Headline metrics of a split, for selection during training."""
        metrics: dict[str, float] = self.task.evaluate(self._evaluator(model), split, detail=False).metrics
        return metrics

    # -- records -----------------------------------------------------------------------------------------------------

    @cached_property
    def stages(self) -> list[dict[str, Any]]:
        """The training stages behind the weights, oldest first, each with its clips."""
        from vtp.eval.leaks import train_record

        source = self.start or self.weights_only
        before: list[dict[str, Any]] = []
        if source is not None:
            provenance = json.loads((source / "provenance.json").read_text(encoding="utf-8"))
            before = list(provenance.get("stages") or [{"stage": source.name, "media": None}])
        if "train" not in self.modes:
            return before
        selected_on = self.task.samples("val") if self.task.selection == "val" else ()
        known_list = self.task.known_list() if hasattr(self.task, "known_list") else None
        record = train_record(self.folder.name, self.train_table, self.dataset, known_list, selected_on=selected_on)
        return [*before, record | {"on_disk": self.train_media.record()}]

    @cached_property
    def plugins(self) -> list[dict[str, str]]:
        return [
            {"name": i.point.name, "distribution": i.point.distribution, "version": i.point.version}
            for i in self.host.infos
            if i.status == "loaded"
        ]

    @property
    def provenance(self) -> dict[str, Any]:
        """What a checkpoint must know about where it comes from."""
        origin = self.dataset.origin()
        return {"stages": self.stages, "dataset": origin, "plugins": self.plugins, "config": self.config}

    def _check_leaks(self, stages: list[dict[str, Any]]) -> Any:
        from vtp.eval.leaks import check_leaks, media_names

        tested = media_names(self.task.samples("test"), self.dataset)
        return check_leaks(stages, tested, on_leak=self.data.on_leak)

    def _last_checkpoint(self) -> Path | None:
        path = self.folder / "checkpoints" / "last"
        return path.resolve() if path.exists() else None

    def _say_where(self) -> None:
        """The last lines of a run: where everything lies."""
        texts = {
            "report.json": "every number with what it takes to believe it",
            "predictions.jsonl": "one line per item",
            "report.png": "the picture",
            "checkpoints": "weights and training state",
            "metrics.jsonl": "losses by step",
            "tensorboard": "the same as curves: tensorboard --logdir",
            "bad_samples.jsonl": "files that could not be used, and why",
            "profile": "where the time of a step goes: tables and a trace",
        }
        print(f"\nin {self.folder}:")
        for name, text in texts.items():
            if (self.folder / name).exists():
                print(f"  {name:<18} {text}")

    @contextmanager
    def recorded(self) -> Iterator[None]:
        """Keep ``config.yaml`` and ``run.json`` in the run folder: what was asked, and how it ended."""
        from vtp import distributed
        from vtp.storage import write_json_atomic, write_text_atomic

        if not distributed.is_main():
            yield
            return
        import yaml

        record = {
            "status": "running",
            "fingerprint": fingerprint(self.config),
            "command": sys.argv,
            "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
            "vtp": __version__,
            "processes": distributed.world_size(),
        }
        self.folder.mkdir(parents=True, exist_ok=True)
        write_text_atomic(self.folder / "config.yaml", yaml.safe_dump(self.config, sort_keys=False, allow_unicode=True))
        write_json_atomic(self.folder / "run.json", record)
        try:
            yield
        except BaseException as error:
            record |= {"status": "failed", "error": f"{type(error).__name__}: {error}"}
            raise
        else:
            record["status"] = "finished"
        finally:
            record["ended"] = time.strftime("%Y-%m-%dT%H:%M:%S%z")
            write_json_atomic(self.folder / "run.json", record)


def _read_spec(checkpoint: Path) -> dict[str, Any]:
    """The model specification of a checkpoint."""
    from vtp.model.weights import read_config

    spec: dict[str, Any] = read_config(checkpoint)["spec"]
    return spec


def _check(config: dict[str, Any], folder: Path) -> None:
    """Everything in the core's part of the configuration that is wrong, at once, before anything is built."""
    wrong = [f"no key {key!r} at the top.{did_you_mean(key, TOP_LEVEL)}" for key in config if key not in TOP_LEVEL]
    parts: list[str] = []
    try:
        parts = modes(config["mode"])
    except ConfigError as error:
        wrong.append(str(error))
    for kind in ("task", "dataset"):
        if not (config[kind] or {}).get("name"):
            wrong.append(f"choose a {kind}: {kind}=...; `vtp list {kind}` says which there are")
    wrong += DataConfig(**config["data"]).validate()
    threads = config["threads"]
    if threads is not None and (not isinstance(threads, int) or isinstance(threads, bool) or threads < 1):
        wrong.append(f"threads={threads}: expected a number of threads, or null for the cores that workers leave over")
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", str(config["device"])):
        wrong.append(f"device={config['device']}: expected auto, cpu, cuda, or one GPU such as cuda:1")
    if "train" in parts:
        from vtp.train.config import TrainConfig
        from vtp.train.profiling import ProfileSteps

        try:
            TrainConfig(**config["train"]).validate(int(os.environ.get("WORLD_SIZE", "1")))
            ProfileSteps.parse(config["profile"])
        except ConfigError as error:
            wrong += str(error).splitlines()
        if config["resume"] is None and any(folder.glob("checkpoints/step_*")):
            wrong.append(f"{folder} already holds a run: resume=auto goes on with it, another run_dir starts a new one")
    elif config["checkpoint"] is None:
        wrong.append(f"mode={config['mode']} needs checkpoint=: a run folder or a checkpoint folder")
    for key in ("checkpoint", "init_from", "resume"):
        given = config[key]
        if given is not None and not (key == "resume" and given == "auto") and not Path(given).exists():
            wrong.append(f"{key}={given}: no such checkpoint. Give a run folder, or a folder like .../checkpoints/best")
    if config["restart"] and config["resume"] in (None, "auto"):
        wrong.append("restart=true takes the weights of resume=PATH and starts counting at 0; give that path")
    if config["restart"] and config["init_from"] is not None:
        wrong.append("restart=true and init_from both say where the weights come from; give one of them")
    if wrong:
        raise ConfigError(wrong[0] if len(wrong) == 1 else "\n  ".join(["", *wrong]))


def _length_from_the_command_line(config: dict[str, Any], overrides: list[str]) -> None:
    """``train.steps=`` on the command line replaces the ``train.epochs`` of a recipe, and the other way round."""
    given = {name for name in ("steps", "epochs") if any(o.lstrip("+").startswith(f"train.{name}=") for o in overrides)}
    if len(given) == 1:
        config["train"]["epochs" if given == {"steps"} else "steps"] = None


def _refuse_ambiguous_options(choices: Mapping[str, Any]) -> None:
    """An option file that two plugins ship would be taken from the first of them without a word.

    Raises:
        PluginError: names the option and both plugins.
    """
    from vtp.plugins import Host, option_providers

    providers = option_providers(Host().active_points())
    for place, chosen in choices.items():
        group = place.partition("@")[0]
        for option in chosen if isinstance(chosen, list) else [chosen]:
            found = providers.get((group, str(option)), [])
            if len(found) > 1:
                raise PluginError(
                    f"{group}={option} is offered by {' and '.join(found)}. "
                    f"Switch one off: VTP_BLOCK_PLUGINS={found[-1]}"
                )


def _set_threads(config: Mapping[str, Any]) -> None:
    """``threads``; by default the cores of this process less those that its loader workers keep busy.

    A team of threads is as fast as its slowest member, and on a core that a worker shares that is slow.
    """
    import torch

    if config["threads"]:
        torch.set_num_threads(config["threads"])
    else:
        processes = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        torch.set_num_threads(max(1, cores // processes - int(config["data"]["workers"])))


def _seed_everything(seed: int) -> None:
    import random

    import numpy as np
    import torch

    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def _keep_traceback(folder: Path, error: BaseException) -> None:
    """Append the traceback to run.log, where people look for it afterwards; the console gets one line."""
    try:
        with open(folder / "run.log", "a", encoding="utf-8") as file:
            file.write("".join(traceback.format_exception(error)))
    except OSError:
        return  # a full disk must not hide the error that it caused


def _remove_if_empty(folder: Path) -> None:
    """A run that a mistake of the user ended before it did anything leaves no folder behind."""
    left = {entry.name for entry in folder.iterdir()} if folder.is_dir() else set()
    if left <= {".hydra", "run.log", "run.json", "config.yaml"}:
        logging.shutdown()
        shutil.rmtree(folder, ignore_errors=True)
        if folder.parent.parent.name == "outputs":  # our own outputs/DATE/TIME; both go when nothing else is in them
            with suppress(OSError):
                folder.parent.rmdir()
                folder.parent.parent.rmdir()
