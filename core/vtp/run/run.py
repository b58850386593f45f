"""One run: data set -> task -> model -> loaders, and what is done with them.

Run(config, folder, device)
  .train()       into folder/checkpoints
  .evaluate()    into folder/report.json, predictions.jsonl, report.png
  .predict()     predictions.jsonl without labels
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

from vtp.components import build
from vtp.config import DataConfig, MediaConfig, modes
from vtp.contracts import Dataset, Task, member
from vtp.errors import ConfigError, DataError, PluginError
from vtp.faults import title
from vtp.registry import did_you_mean
from vtp.run.asked import changes
from vtp.run.check import chosen_callbacks, model_spec, refuse_untrained
from vtp.run.data import RunData
from vtp.run.folder import RunFolder, fingerprint
from vtp.run.inspection import check_result, problem_with
from vtp.run.model_from import same_text_encoder
from vtp.run.stages import configuration, continued, recorded
from vtp.run.start import checkpoint_folder, read_spec, seed_everything
from vtp.types import MODALITIES

__all__ = ["Run"]

log = logging.getLogger("vtp")


class Run:
    """One run: its parts, built when they are first needed, and what is done with them.

    Args:
        config: resolved configuration of ``conf/run.yaml``.
        folder: where everything is written.
        device: of the model.
    """

    def __init__(self, config: dict[str, Any], folder: RunFolder, device: Any) -> None:
        from vtp.plugins import host

        self.config = config
        self.folder = folder
        self.device = device
        self.host = host()
        self.modes = modes(config["mode"])
        self.trainer: Any = None
        self.running = ""  # what computes attention, once the model is built
        self.tried: dict[str, Any] | None = None  # of the training of this run: samples, and those not decoded
        self.evaluated: Path | None = None  # the checkpoint whose weights are in the model
        self.incomplete = ""  # what the evaluation lacks, if nobody said that it may

    # -- parts -------------------------------------------------------------------------------------------------------

    @cached_property
    def dataset(self) -> Any:
        return build("dataset", self.config["dataset"], self.host.registry)

    @cached_property
    def task(self) -> Any:
        val_share = self.config["data"]["val_share"]
        given = {"dataset": self.dataset, "seed": self.config["seed"], "val_share": val_share}
        task = build("task", self.config["task"], self.host.registry, **given)
        described = self.start or self.described_by
        if described is not None and (answers := read_spec(described).get("answers")):
            member(task, Task, "use_answers")(answers)
        return task

    @cached_property
    def data(self) -> RunData:
        data, media = DataConfig(**self.config["data"]), MediaConfig(**self.config["media"])
        encoders = self.config["encoder"] if self.start is None else read_spec(self.start)["encoders"]
        filled = {slot for slot, options in encoders.items() if (options or {}).get("name")}
        wanted = [m for m in MODALITIES if m != "text" and m in filled and m not in data.drop]
        seed, folder = self.config["seed"], self.folder.path
        return RunData(data, media, self.task, seed=seed, folder=folder, wanted=wanted)

    @cached_property
    def start(self) -> Path | None:
        """The checkpoint that is evaluated, or that training starts from with its whole model; None for a new model."""
        return None if self.config["checkpoint"] is None else checkpoint_folder(self.config["checkpoint"])

    @cached_property
    def described_by(self) -> Path | None:
        """The checkpoint that a new model takes its sizes, vocabulary and answers from: model=PATH."""
        return None if self.config["model_from"] is None else Path(self.config["model_from"])

    @cached_property
    def weights_only(self) -> Path | None:
        """Where a new model takes its first weights from: ``init_from``, or ``resume=PATH restart=true``. A checkpoint
        folder, or one file of it, such as its ``ema.safetensors``."""
        from vtp.train.checkpoint import locate

        given = self.config["resume"] if self.config["restart"] else self.config["init_from"]
        if given is None:
            return None
        return Path(given) if Path(given).is_file() and Path(given).suffix else locate(given)  # a pointer has no suffix

    @cached_property
    def adapters(self) -> Path | None:
        """The adapters that training goes on with, where ``init_from`` has such as ``train.lora`` asks for."""
        from vtp.train.lora import same_adapters

        lora = self.config["train"]["lora"] if "train" in self.modes else None
        return None if lora is None or self.weights_only is None else same_adapters(self.weights_only, lora)

    @cached_property
    def resumed(self) -> Path | None:
        """The checkpoint that training goes on from; None where it starts at step 0."""
        from vtp.train.checkpoint import find

        if self.config["resume"] is None or self.config["restart"]:
            return None
        return find(self.folder.path / "checkpoints", self.config["resume"])

    @cached_property
    def model(self) -> Any:
        from vtp.model.build import BuildContext, build_model, lookup_in
        from vtp.model.kernels import adopt, use_kernels
        from vtp.model.weights import read_config

        spec = model_spec(self.config)
        context = BuildContext(texts=self._ask("texts"))
        if self.start is not None:
            spec = read_config(self.start)["spec"]
            context.assets = self.start / "assets"
        elif self.described_by is not None and same_text_encoder(self.described_by, self.config["encoder"]):
            context.assets = self.described_by / "assets"
        context.answers = tuple(self._ask("answers"))
        seed_everything(self.config["seed"])
        self.running = use_kernels(self.config["kernels"], self.device)
        model = build_model(spec, lookup_in(self.host.registry), context, seed=self.config["seed"])
        adopt(model, self.device)
        self._fill(model)
        if self.modes != ["train"] or self._ask("selection") != "last" or self._ask("watched"):
            self._ask("check")(model)  # what cannot be scored is said now, not after hours of training
        return model

    def _fill(self, model: Any) -> None:
        """Load the weights that the run starts from."""
        from vtp.model.weights import load_weights

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
                merge=self.adapters is None,
            )
        if self.start is None and "train" not in self.modes:
            refuse_untrained(model, self.config["mode"])
        self.evaluated = self.start

    def _ask(self, name: str) -> Any:
        """What the task says about ``name``, or the default of its contract."""
        return member(self.task, Task, name)

    def title(self, node: str) -> str:
        """``task=qa (vtp-core)``: the task or the data set by its name and where it comes from."""
        return title(node, str(self.config[node]["name"]))

    def problem(self) -> str | None:
        """Why a run failed with an exception that is none of vtp's: what its data set or its task gave, if that is
        wrong."""
        built = {node: vars(self).get(node) for node in ("dataset", "task")}
        return problem_with(built["dataset"], built["task"], self.title("dataset"), self.title("task"))

    # -- what is done ------------------------------------------------------------------------------------------------

    def train(self) -> None:
        """Train, with evaluation on the validation split on the way, and leave the selected weights in the model."""
        from vtp.train import TrainConfig, Trainer

        config = TrainConfig(**self.config["train"])
        self._say_what_changed()
        selection = self._ask("selection")
        split = {"val": "val", "test(!)": self._ask("split")}.get(selection)
        if "eval" in self.modes:  # before hours of training, not after
            self._check_scored(self._ask("split"))
            self._check_leaks()
        if split is not None:
            self._check_scored(split)
        if not len(self.task.train_samples()):
            name = member(self.dataset, Dataset, "name")
            raise DataError(f"{name}: there is nothing to train on. mode=eval checkpoint=RUN scores a checkpoint.")
        loader = self.data.train_loader(self.model.specs(), config.global_batch, self.model.reads())
        watched = self._ask("watched") if split is None and config.eval_every != 0 else None
        monitor = self._monitor() if split else None
        self.trainer = Trainer(
            self.model,
            loader,
            config,
            self.folder.path,
            evaluate=None if (scored := split or watched) is None else lambda model: self._score(model, scored),
            monitor=monitor,
            provenance=self.provenance,
            device=self.device,
            callbacks=[
                self.data.wait_hint(self.config["dataset"], loader),
                *self._profile(config.precision),
                *(choice.build() for choice in chosen_callbacks(self.config, [])),
            ],
        )
        if self.adapters is not None:
            self.trainer.start_adapters(self.adapters)
        if self.resumed is not None:
            self.trainer.restore(self.resumed)
        elif self.config["resume"] is not None and not self.config["restart"]:
            log.info("resume=auto: no checkpoint in %s yet; starting from the beginning", self.folder.path)
        log.info(
            "training %s on %s: %s samples, %d steps of %d, %s parameters, %s",
            self.task.name,
            self.dataset.name,
            f"{len(self.data.train_table):,}",
            self.trainer.total_steps,
            config.global_batch,
            f"{sum(p.numel() for p in self.trainer.model.parameters()):,}",
            self.device,
        )
        for line in self.data.parts():
            log.info("  %s", line)
        self.trainer.fit()
        self._say_what_was_not_decoded()
        self.evaluated = self.trainer.load_best() if selection != "last" else None

    def _say_what_changed(self) -> None:
        """What differs from the configuration of the checkpoint that training goes on from.

        Raises:
            ConfigError: the data set or the task is another one, and nobody said that it may be.
        """
        from vtp import distributed

        before = {} if self.resumed is None else configuration(self.resumed)
        if not before:
            return
        for kind in ("dataset", "task"):
            old, new = ((config.get(kind) or {}).get("name") for config in (before, self.config))
            if old not in (None, new) and not self.config["resume_other"]:
                raise ConfigError(
                    f"resume: the checkpoint was trained with {kind}={old}, now it is {kind}={new}. To go on all the "
                    f"same, add resume_other=true; to start a new run from its weights, use init_from={self.resumed}."
                )
        for change in changes(before, self.folder.environment.asked(self.config)) if distributed.is_main() else ():
            log.warning("resume: %s; the run goes on with the new value.", change)

    def _say_what_was_not_decoded(self) -> None:
        self.tried = self.data.tried()
        for name, found in self.tried.get("parts", {}).items():
            if found["not_decoded"]:
                log.warning("%s: %d of %d samples could not be decoded", name, found["not_decoded"], found["tried"])

    def _monitor(self) -> tuple[str, str]:
        """The metric that the task selects by, and whether it should be large or small."""
        given = self._ask("monitor")
        if not (isinstance(given, (tuple, list)) and len(given) == 2 and given[1] in ("max", "min")):
            expected = 'a metric and max or min, such as ("accuracy", "max")'
            raise PluginError(f"{self.title('task')} has monitor={given!r}, expected {expected}.")
        name, known = self.config["train"]["monitor"] or given[0], self._ask("metrics")
        if known and name not in known:
            raise ConfigError(
                f"train.monitor={name}: task {self.task.name} gives no such metric during training."
                f"{did_you_mean(name, known)} It gives: {', '.join(known)}."
            )
        return str(given[0]), str(given[1])

    def _profile(self, precision: str) -> list[Any]:
        from vtp.train.profiling import Profile

        wanted = self.config["profile"]
        return [Profile(self.folder.path / "profile", wanted, precision)] if wanted else []

    def evaluate(self) -> None:
        """Score the split that the task reports, and write report.json, predictions.jsonl, report.png and
        report.html."""
        from vtp import distributed
        from vtp.eval.report import incomplete_line
        from vtp.run.reporting import Reporting

        self._check_scored(self._ask("split"))
        leaks = self._check_leaks()
        with self._evaluating() as model:
            evaluator = self._evaluator(model, self._journal())
            result = check_result(
                self.title("task"), self.task.evaluate(evaluator, self._ask("split")), "evaluate(evaluator, split)"
            )
            if "train" in self.modes and self.data.on_disk.absent:
                result.warnings.append(self.data.on_disk.line())
            result.warnings += [] if self.trainer is None else self.trainer.warnings
            if not self.data.data.allow_incomplete and self.data.data.max_missing is None:
                self.incomplete = incomplete_line(result)
            near = self.data.near_duplicates(self._ask("split"), result.warnings)
            report = Reporting(self.folder, self.task, self.title("task"), self.dataset, result)
            if distributed.is_main():
                report.write(**self._known(leaks))
            report.look(evaluator)
        if not distributed.is_main():
            return
        report.finish(near_duplicates=near)
        if evaluator.journal is not None:
            evaluator.journal.forget()
        report.show()
        self.folder.say_where()

    def _known(self, leaks: Any) -> dict[str, Any]:
        """What the report says of the run, as :meth:`vtp.run.reporting.Reporting.write` takes it."""
        train = self.stages
        if self.tried is not None:
            train = [*train[:-1], {**train[-1], "samples_tried": self.tried}]
        return {
            "seed": self.config["seed"],
            "train": train,
            "leaks": leaks,
            "checkpoint": self._weights(),
            "config": self.folder.environment.asked(self.config),
            "plugins": self.plugins,
            "extra": {"dataset": self._origin(), "model": self.origins},
        }

    def predict(self) -> None:
        """Write predictions.jsonl for the split that the task reports; labels are neither needed nor looked at."""
        from vtp import distributed
        from vtp.eval.report import write_predictions

        self._check_scored(self._ask("split"), judged=False)
        with self._evaluating() as model:
            evaluator = self._evaluator(model, self._journal())
            found = self.task.predict(evaluator, self._ask("split"))
            result = check_result(self.title("task"), found, "predict(evaluator, split)")
        if distributed.is_main():
            write_predictions(self.folder.path, result)
            if evaluator.journal is not None:
                evaluator.journal.forget()
            print(result.ledger.line())
            self.folder.say_where()

    def say_what_was_cached(self) -> None:
        """The last line of a run with ``data.cache``."""
        self.data.say_what_was_cached()

    @contextmanager
    def _evaluating(self) -> Iterator[Any]:
        """The model in eval mode: of the trainer if this run trained, else that of the checkpoint."""
        if self.trainer is not None:
            with self.trainer.evaluating() as model:
                yield model
        else:
            yield self.model.to(self.device).eval()

    def _weights(self) -> Path | None:
        """The checkpoint of the weights in the model; None where its encoders brought them."""
        untrained = self.start is None and "train" not in self.modes
        return None if untrained else self.evaluated or self.folder.last_checkpoint()

    def _journal(self) -> Any:
        """Where results are kept as they come; None where nobody could tell later which weights they are of."""
        from vtp.eval.journal import Journal

        resume = self.config["resume"] is not None and not self.config["restart"]
        return Journal.of(self.folder.path, fingerprint(self.config), self._weights(), resume=resume)

    def _evaluator(self, model: Any, journal: Any = None) -> Any:
        from vtp.eval.evaluator import Evaluator

        data = self.data.data
        return Evaluator(
            model,
            lambda samples, drop, **how: self.data.eval_loader(
                self.model.specs(), samples, drop, reads=self.model.reads(), **how
            ),
            device=self.device,
            precision=self.config["train"]["precision"],
            limit=data.limit_eval,
            max_missing=data.max_missing,
            scratch=self.folder.path,
            journal=journal,
            facts={
                "sampling": data.sampler,
                "clips": data.eval_clips,
                "crops": data.eval_crops,
                "resize": data.eval_resize,
                "decoder": self.config["media"]["backend"],
                "dropped": list(data.drop),
                "kernels": self.running,
                "cache": self.data.cache_record(),
            },
        )

    def _score(self, model: Any, split: str) -> dict[str, float]:
        """Headline metrics of a split, for selection during training."""
        found = self.task.evaluate(self._evaluator(model), split, detail=False)
        result = check_result(self.title("task"), found, "evaluate(evaluator, split, detail=False)")
        if not result.ledger.evaluated and self.trainer is not None:
            self.trainer.warn(
                f"selection: none of {len(result.ledger.expected):,} {result.ledger.what} of {split} could be "
                "evaluated, so nothing decides which checkpoint is the best"
            )
        metrics: dict[str, float] = result.metrics
        return metrics

    # -- records -----------------------------------------------------------------------------------------------------

    @cached_property
    def stages(self) -> list[Mapping[str, Any]]:
        """The training stages behind the weights, oldest first, each with its clips."""
        from vtp.eval.leaks import train_record

        source = self.start or self.weights_only
        before = [] if source is None else recorded(source)
        if "train" not in self.modes:
            return before
        table = self.data.train_table
        by_val = self._ask("selection") == "val" and self._ask("split") != "val"  # else the report says what it is
        selected_on = self.task.samples("val") if by_val else ()
        known_list = self._ask("known_list")()
        record = train_record(self.folder.path.name, table, self.dataset, known_list, selected_on=selected_on)
        record |= {"on_disk": self.data.on_disk.record()}
        return [*before, record] if self.resumed is None else continued(self.resumed, record)

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
        asked = self.folder.environment.asked(self.config)
        made_of = {"dataset": self._origin(), "model": self.origins}
        return {"stages": self.stages, **made_of, "plugins": self.plugins, "config": asked}

    @cached_property
    def origins(self) -> Any:
        """What the parts of the model were made of."""
        return self.folder.environment.hide(self.model.origins())

    def _origin(self) -> Any:
        return self.folder.environment.hide(member(self.dataset, Dataset, "origin")())

    def _check_scored(self, split: str, judged: bool = True) -> None:
        from vtp.eval.task import check_scored

        others = ("test", "val") if "split" in self.config["task"] else ()
        check_scored(self.task, self.dataset, split, judged=judged, others=others)

    def _check_leaks(self) -> Any:
        from vtp.eval.identity import clip_files
        from vtp.eval.leaks import check_leaks, media_names

        tables = [(self.task.samples(self._ask("split")), self.dataset), *self._ask("further_tests")()]
        tested = [name for samples, dataset in tables for name in media_names(samples, dataset)]
        files = clip_files(tables) if any(stage.get("files") for stage in self.stages) else None
        return check_leaks(self.stages, tested, on_leak=self.data.data.on_leak, files=files)
