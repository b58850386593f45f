"""The training loop::

    trainer = Trainer(model, loader, config, run_dir, evaluate=evaluate, monitor=("accuracy", "max"))
    trainer.resume("auto")              # False when there is nothing to continue
    result = trainer.fit()
    with trainer.evaluating() as model: # averaged weights, if there are any; safe under every strategy
        ...

A step is: batch, passes (:mod:`vtp.train.step`), clip, update, ``after_step`` of the parts that have it. Nothing in it
waits for the device; losses are collected there and fetched every ``log_every`` steps, before every checkpoint and at
the end.
"""

from __future__ import annotations

import logging
import math
import random
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor, nn

from vtp import distributed
from vtp.errors import ConfigError, RunError
from vtp.numbers import plain
from vtp.storage import clean_leftovers, write_json_atomic
from vtp.train import checkpoint
from vtp.train.adapter_files import load_adapters
from vtp.train.after_step import AfterStep
from vtp.train.callbacks import Callback, MetricsFile, Progress, TensorBoard
from vtp.train.config import TrainConfig
from vtp.train.ema import Average
from vtp.train.health import NoGradient, peak_memory_gb
from vtp.train.history import Evaluations, Window
from vtp.train.lora import Unused, adapt
from vtp.train.parallel import Parallel
from vtp.train.parameters import build_optimizer, freeze
from vtp.train.precision import Precision
from vtp.train.schedule import learning_rate
from vtp.train.signals import Interrupted, StopSignal
from vtp.train.step import Step
from vtp.types import Batch

if TYPE_CHECKING:
    from vtp.model.model import VTPModel

__all__ = ["Interrupted", "Loader", "TrainResult", "Trainer"]

log = logging.getLogger("vtp.train")


class Loader(Protocol):
    """What the trainer asks of a loader: batches for ever, and a position counted in samples."""

    steps_per_epoch: int

    def __iter__(self) -> Iterator[Batch]: ...
    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state: dict[str, Any]) -> None: ...


@dataclass(frozen=True)
class TrainResult:
    """What a finished run left.

    Attributes:
        steps: updates done.
        best: checkpoint with the best monitored metric; None without one.
        last: newest checkpoint; None with ``save_every=0``.
        history: metrics.jsonl.
        evaluations: ``{"step": ..., "metrics": {...}}`` in order.
        stopped_early: whether ``patience`` ended it.
    """

    steps: int
    best: Path | None
    last: Path | None
    history: Path
    evaluations: list[dict[str, Any]] = field(default_factory=list)
    stopped_early: bool = False


class Trainer:
    """Trains one model.

    Args:
        model: a ``VTPModel``. It is moved to ``device``; under fsdp2 it is sharded in place.
        loader: yields this process's share of each step.
        config: the options; checked here.
        run_dir: folder for checkpoints, metrics.jsonl and TensorBoard files.
        evaluate: called with the unwrapped model in eval mode, on every process; gives the same metrics on each.
        monitor: (metric, "max" or "min") that picks the best checkpoint; ``config.monitor`` overrules it.
        provenance: stored with every checkpoint.
        callbacks: further watchers, after the built-in ones.
        device: of this process; None is :func:`vtp.distributed.setup`'s choice.

    Attributes:
        model, config, run_dir, device: as given.
        step, samples: updates and samples done.
        total_steps: length of the run.
        warnings: what :meth:`warn` was told.

    Raises:
        ConfigError: options that are wrong in themselves, or do not fit this model or machine.
    """

    def __init__(
        self,
        model: VTPModel,
        loader: Loader,
        config: TrainConfig,
        run_dir: Path | str,
        *,
        evaluate: Callable[[Any], Mapping[str, float]] | None = None,
        monitor: tuple[str, str] | None = None,
        provenance: dict[str, Any] | None = None,
        callbacks: Sequence[Callback] = (),
        device: torch.device | str | None = None,
    ) -> None:
        if wrong := config.validate(distributed.world_size()):
            raise ConfigError("\n".join(wrong))
        self.config = config
        self.run_dir = Path(run_dir)
        self.device = distributed.setup("auto") if device is None else torch.device(device)
        self.total_steps = config.steps or math.ceil((config.epochs or 0) * loader.steps_per_epoch)
        self.step = 0
        self.samples = 0
        self._loader = loader
        self._evaluate = evaluate
        chosen = (config.monitor, config.monitor_mode) if config.monitor else monitor
        self.evaluations = Evaluations(chosen, config.patience, config.min_delta)
        self._provenance = provenance or {}
        self._precision = Precision(config.precision, self.device)
        if config.gradient_checkpointing:
            _enable_checkpointing(model)
        if config.lora is not None:
            adapt(model, config.lora)
        freeze(model, config)
        self._parallel = Parallel(model, config, self.device)
        self.model = self._parallel.model
        self._optimizer = build_optimizer(self.model, config)
        self._average = Average(self._parallel.parameters, config.ema_decay) if config.ema_decay is not None else None
        watch = self.device.type == "cpu" or config.log_every == 1  # where looking at a loss costs no waiting
        self._passes = Step(self._parallel, self._precision, config.accumulation, watch=watch)
        self._after_step = AfterStep(self._parallel)
        self._window = Window()
        self._resumed_rng: dict[str, Any] | None = None
        self.warnings: list[str] = []
        builtin: list[Callback] = [MetricsFile(self.run_dir / "metrics.jsonl"), Progress(config.progress_every_s)]
        builtin += [NoGradient(), Unused(self.model)]
        if config.tensorboard:
            builtin.append(TensorBoard(self.run_dir / "tensorboard"))
        self.callbacks: list[Callback] = [*builtin, *callbacks]

    # -- the loop ----------------------------------------------------------------------------------------------------

    def fit(self) -> TrainResult:
        """Train until the last step, early stop or a signal.

        Raises:
            RunError: a loss is NaN or infinite, or a checkpoint cannot be written.
            Interrupted: SIGTERM or SIGINT, after the checkpoint was saved.
        """
        self._prepare_folder()
        self._seed()
        error: BaseException | None = None
        self._call("on_fit_start", step=self.step)
        try:
            with StopSignal() as stop:
                stopped_early = self._run(stop)
        except BaseException as failure:
            error = failure
            raise
        finally:
            self._call("on_fit_end", step=self.step, error=error)
        return TrainResult(
            steps=self.step,
            best=self._pointer("best"),
            last=self._pointer("last"),
            history=self.run_dir / "metrics.jsonl",
            evaluations=self.evaluations.entries,
            stopped_early=stopped_early,
        )

    def _prepare_folder(self) -> None:
        held = None
        if distributed.is_main():
            self.run_dir.mkdir(parents=True, exist_ok=True)
            clean_leftovers(self._checkpoints)
            held = checkpoint.later_than(self._checkpoints, self.step)
        held = distributed.broadcast_object(held)
        if held:
            raise ConfigError(
                f"{self.run_dir} already holds a run ({held[-1].name}), and a new one would mix with it. "
                "Go on with it (resume=auto), or choose another run_dir."
            )

    def _run(self, stop: StopSignal) -> bool:
        self.model.train()
        if self.step > 0 and self._evaluation_due() and not self.evaluations.covers(self.step):
            self._evaluate_now()  # the run ended between the checkpoint and its evaluation
        if self.step == 0:
            self._after_step.begin()
        batches = iter(self._loader)
        self._window.restart()
        try:
            while self.step < self.total_steps and not self.evaluations.exhausted():
                self._update(batches)
                number = self._agree(stop)
                if self.step % self.config.log_every == 0 or self.step == self.total_steps:
                    self._log()
                if self._save_due() or number:
                    self._save()
                if number:
                    self._leave(number)
                if self._evaluation_due():
                    self._evaluate_now()
        finally:
            if hasattr(batches, "close"):  # a traceback would keep the workers of a loader alive
                batches.close()
        if number := self._agree(stop):  # that came during the last evaluation: its checkpoint is there
            self._leave(number)
        return self.step < self.total_steps

    def _update(self, batches: Iterator[Batch]) -> None:
        self._call("on_step_start", step=self.step + 1)
        with self._window.waiting():
            batch = next(batches)
        batch.step, batch.total_steps = self.step, self.total_steps
        batch = batch.to(self.device)
        self._call("on_batch", step=self.step + 1, batch=batch)
        rate = learning_rate(self.config, self.step, self.total_steps)
        for group in self._optimizer.param_groups:
            group["lr"] = rate * group["lr_scale"]
        seen = self._passes(batch)
        self._precision.unscale(self._optimizer)
        norm = self._clip()
        self._precision.step(self._optimizer)
        self._optimizer.zero_grad(set_to_none=True)
        if self._average is not None:
            self._average.update()
        self.step += 1
        self._after_step(self.step, self.total_steps)
        self.samples += batch.global_rows
        self._window.add(self.step, rate, batch.global_rows, seen, norm)
        self._call("on_step_end", step=self.step)

    def _clip(self) -> Tensor | None:
        parameters = [parameter for _, parameter in self._parallel.parameters]
        if self.config.clip_norm is not None:
            norm = nn.utils.clip_grad_norm_(parameters, self.config.clip_norm)
        elif (self.step + 1) % self.config.log_every == 0:
            norm = nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
        else:
            return None
        return norm.full_tensor() if hasattr(norm, "full_tensor") else norm  # a DTensor under fsdp2

    def _seed(self) -> None:
        """Generators of this process: those of the checkpoint, or seed + rank."""
        if self._resumed_rng is not None:
            checkpoint.restore_rng(self._resumed_rng)
            self._resumed_rng = None
        else:
            seed = self.config.seed + distributed.rank() + 1_000_003 * self.step
            random.seed(seed)
            torch.manual_seed(seed)

    def _agree(self, stop: StopSignal) -> int:
        """Number of the signal that any process has received, else 0."""
        if not distributed.any_rank(stop.received is not None):
            return 0
        return max(number or 0 for number in distributed.gather_objects(stop.received))

    def _leave(self, number: int) -> None:
        name = signal.Signals(number).name
        if self.config.save_every == 0:
            raise Interrupted(
                f"Stopped by {name} after step {self.step}; train.save_every=0, so nothing was saved.", number
            )
        path = self._checkpoints / checkpoint.folder_name(self.step)
        raise Interrupted(f"Stopped by {name} after step {self.step}; saved {path}. Continue with resume=auto.", number)

    # -- logging -----------------------------------------------------------------------------------------------------

    def _log(self) -> None:
        """Write the window as one line and start a new one."""
        self._check()
        line = self._window.line(self._passes.weights)
        line["epoch"] = round(self.step / self._loader.steps_per_epoch, 4)
        line["samples"] = self.samples
        line["timing"]["memory_gb"] = round(peak_memory_gb(self.device), 3)
        self._call("on_log", step=self.step, line=line)
        self._window.clear()

    def _check(self) -> None:
        """Fetch what the device has computed, and stop at the first step that is not finite.

        Raises:
            RunError: names objective and step. Every process raises it, and nothing is saved after that step.
        """
        for values in self._window.fetch():
            wrong = [f"the loss of objective {n} is {v}" for n, v in values.losses.items() if not math.isfinite(v)]
            norm = values.grad_norm
            if not wrong and norm is not None and not math.isfinite(norm) and self.config.precision != "fp16":
                wrong = [f"the norm of the gradient is {norm}, although all losses are finite"]
            if wrong:
                culprits = dict.fromkeys(filter(None, distributed.gather_objects(self._passes.culprit)))
                blame = f" ({'; '.join(culprits)})" if culprits else ""
                last = self._pointer("last")
                kept = f"The last checkpoint, {last}, is from before." if last else "There is no checkpoint yet."
                raise RunError(
                    f"Step {values.step}: {' and '.join(wrong)}{blame}. Training stopped without saving. {kept} "
                    "Try a lower train.lr, a longer train.warmup, a smaller train.clip_norm, or train.precision=fp32."
                )

    # -- evaluation --------------------------------------------------------------------------------------------------

    def _evaluation_due(self) -> bool:
        every = self._loader.steps_per_epoch if self.config.eval_every is None else self.config.eval_every
        return self.step == self.total_steps or (every > 0 and self.step % every == 0)

    def _evaluate_now(self) -> None:
        if self._evaluate is None:
            return
        self._check()  # a score of weights that are no numbers would be one
        self._call("on_evaluate_start", step=self.step)
        with self._window.pause():
            with self.evaluating() as model:
                found = self._evaluate(model)
                metrics = distributed.broadcast_object(plain(found))  # all must decide alike
            monitor = self.evaluations.monitor
            if monitor is not None and monitor[0] not in metrics:
                known = ", ".join(sorted(metrics))
                raise ConfigError(f"train.monitor: the evaluation gives no metric {monitor[0]!r}. It gives: {known}.")
            best = self.evaluations.add(self.step, metrics)
            if distributed.is_main():
                write_json_atomic(self.run_dir / checkpoint.EVALUATIONS, self.evaluations.entries)
                self._mark_best()
                checkpoint.prune(self._checkpoints, self.config.keep, self._pointer("best"))
        self._call("on_evaluate", step=self.step, metrics=metrics, best=best)

    @contextmanager
    def evaluating(self) -> Iterator[Any]:
        """The model ready to be evaluated: eval mode, averaged weights if there are any, random state kept for
        training.

        Under fsdp2 each process holds the whole weights inside, so processes may run different numbers of batches.
        """
        generators = checkpoint.rng_state()
        self.model.eval()
        self._parallel.reshard()
        average = self._average.applied() if self._average is not None else nullcontext()
        try:
            with average, self._parallel.evaluating():
                yield self.model
        finally:
            self.model.train()
            checkpoint.restore_rng(generators)

    # -- checkpoints -------------------------------------------------------------------------------------------------

    @property
    def _checkpoints(self) -> Path:
        return self.run_dir / "checkpoints"

    def _pointer(self, name: str) -> Path | None:
        path = self._checkpoints / name
        if path.is_file():
            path = self._checkpoints / path.read_text(encoding="utf-8").strip()
        return path.resolve() if path.is_dir() else None

    def _save_due(self) -> bool:
        every = self.config.save_every
        if every == 0:
            return False
        return self._evaluation_due() or (every is not None and self.step % every == 0)

    def _save(self) -> None:
        if self.config.save_every == 0:
            return
        self._check()
        trainer: dict[str, Any] = {
            "step": self.step,
            "samples": self.samples,
            "total_steps": self.total_steps,
            "steps_per_epoch": self._loader.steps_per_epoch,
            "learning_rate": learning_rate(self.config, self.step, self.total_steps),
            "loader": {**self._loader.state_dict(), "samples": self.samples},
            "evaluations": self.evaluations.entries,
            "scaler": self._precision.state_dict(),
            "ema_updates": self._average.updates if self._average is not None else 0,
            "window": self._window.state_dict(),
            "config": self.config.as_dict(),
            "fingerprint": self.config.fingerprint(),
            "world_size": distributed.world_size(),
            "strategy": self._parallel.name,
        }
        with self._window.pause():
            path = checkpoint.save(
                self._checkpoints, self._parallel, self._optimizer, self._average, trainer, self._provenance
            )
            if distributed.is_main():
                checkpoint.prune(self._checkpoints, self.config.keep, self._pointer("best"))
        self._call("on_save", step=self.step, path=path)

    def _mark_best(self) -> None:
        """Point ``best`` at the best evaluated checkpoint that exists."""
        best = self.evaluations.best()
        if best is not None and (self._checkpoints / checkpoint.folder_name(best)).is_dir():
            checkpoint.mark(self._checkpoints, "best", self._checkpoints / checkpoint.folder_name(best))

    def resume(self, path: Path | str = "auto") -> bool:
        """Continue from a checkpoint: weights, optimizer, average, scaler, generators, position in the data, best
        metric.

        Args:
            path: ``auto`` takes the newest complete checkpoint of the run folder; damaged ones are named in a warning
                and passed over. Else a checkpoint, a ``best``/``last`` pointer or a run folder.

        Returns:
            False if ``auto`` found nothing: the run then starts from the beginning.

        Raises:
            DataError: the checkpoint is damaged or belongs to another model.
        """
        found = checkpoint.find(self._checkpoints, path)
        if found is not None:
            self.restore(found)
        return found is not None

    def restore(self, path: Path) -> None:
        """As :meth:`resume`, from what :func:`vtp.train.checkpoint.find` gave."""
        saved = checkpoint.load(path, self._parallel, self._optimizer, self._average)
        self.step, self.samples = saved["step"], saved["samples"]
        self._loader.load_state_dict(saved["loader"])
        self._precision.load_state_dict(saved["scaler"])
        self._window.load_state_dict(saved["window"])
        self.evaluations.entries = checkpoint.read_evaluations(path, saved)
        if saved["world_size"] == distributed.world_size():
            self._resumed_rng = checkpoint.read_rng(path)[distributed.rank()]
        if distributed.is_main():
            self._announce(path, saved)
            self._take_over(path)

    def _take_over(self, path: Path) -> None:
        """Make the run folder go on from ``path``, which may lie in another one."""
        self._checkpoints.mkdir(parents=True, exist_ok=True)
        elsewhere = path.parent.resolve() != self._checkpoints.resolve()
        for later in checkpoint.later_than(self._checkpoints, self.step):
            log.warning("resume: %s is later than step %d and set aside as %s.abandoned.", later, self.step, later.name)
            checkpoint.set_aside(later, "abandoned")
        for name in ("best", "last"):  # they may point at what has been set aside
            checkpoint.unmark(self._checkpoints, name)
        if elsewhere and (best := self.evaluations.best()) is not None:
            checkpoint.borrow(self._checkpoints, best, path.parent)
        self._mark_best()
        if not elsewhere:
            checkpoint.mark(self._checkpoints, "last", path)

    def _announce(self, path: Path, saved: Mapping[str, Any]) -> None:
        log.info("Continuing from %s, step %d of %d.", path, self.step, self.total_steps)
        for name, (old, new) in self.config.differences(saved["config"]).items():
            log.warning("resume: train.%s was %s and is %s now; the run goes on with the new value.", name, old, new)
        if saved["steps_per_epoch"] != self._loader.steps_per_epoch:
            log.warning("resume: an epoch had %d steps and has %d now: the training table or the batch has changed.",
                        saved["steps_per_epoch"], self._loader.steps_per_epoch)  # fmt: skip
        if saved["world_size"] != distributed.world_size():
            log.warning("resume: %d processes then, %d now: the data goes on at its position, dropout draws anew.",
                        saved["world_size"], distributed.world_size())  # fmt: skip

    def start_adapters(self, path: Path) -> None:
        """Begin with the adapters of another run, over the base that the model already has."""
        load_adapters(path, self._parallel)
        if self._average is not None:
            self._average.restart()

    def load_best(self) -> Path | None:
        """Put the weights of the best checkpoint (without one, the last) into the model, for a final evaluation.

        With an average these are the averaged weights, which :meth:`evaluating` then uses as well.
        """
        path = distributed.broadcast_object(self._pointer("best") or self._pointer("last"))
        best = None if self.config.save_every == 0 else self.evaluations.best()
        if best is not None and (path is None or path.name != checkpoint.folder_name(best)):
            self.warn(f"the best checkpoint, of step {best}, is not there any more: step {self.step} is taken instead")
        if path is not None:
            checkpoint.load_weights(path, self._parallel, averaged=self._average is not None)
            if self._average is not None:
                self._average.restart()
        return path

    def warn(self, text: str) -> None:
        """Say something that people should know of this training, once: in the log, and in the report."""
        if text not in self.warnings:
            self.warnings.append(text)
            if distributed.is_main():
                log.warning("%s", text)

    def _call(self, event: str, **facts: Any) -> None:
        for callback in self.callbacks:
            getattr(callback, event)(self, **facts)


def _enable_checkpointing(model: VTPModel) -> None:
    unable = model.gradient_checkpointing_enable()
    slots = list(model.encoders)
    if len(unable) == len(slots):
        raise ConfigError(
            f"train.gradient_checkpointing: no encoder of this model can ({', '.join(slots)}). Use false."
        )
    if unable:
        log.warning("train.gradient_checkpointing has no effect on encoder %s", ", ".join(unable))
