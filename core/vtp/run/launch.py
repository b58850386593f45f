"""From a composed configuration to a run, on one process or on several.

launch(config)   called by the command line on the first process
follow()         on the others of torchrun
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vtp.components import mistakes_of, refuse
from vtp.config import DataConfig, modes, with_types
from vtp.errors import ComponentError, ConfigError, LoadingError, PluginError, RunError, UserError, VtpError
from vtp.faults import fault_of, system_fault
from vtp.machine import cores, keep_memory
from vtp.run.asked import Environment
from vtp.run.check import check, refuse_ambiguous_options
from vtp.run.folder import RunFolder
from vtp.run.start import take_objective
from vtp.shown import one_line

if TYPE_CHECKING:
    from omegaconf import DictConfig

__all__ = ["execute", "follow", "launch"]


def launch(composed: DictConfig, further: Mapping[str, dict[str, Any]] | None = None) -> int:
    """Run a configuration that hydra composed; returns the exit code. On several processes, tells the others.

    Args:
        composed: the configuration.
        further: task -> resolved configuration, where several tasks are measured on one checkpoint; ``composed`` is
            then that of the first. Each has a folder of its own in the run folder.
    """
    from hydra.core.hydra_config import HydraConfig

    from vtp.storage import alone

    hydra = HydraConfig.get()
    folder = RunFolder(Path(hydra.runtime.output_dir))
    with alone(folder.path):
        return _launched(composed, further or {}, hydra, folder)


def _launched(composed: DictConfig, further: Mapping[str, dict[str, Any]], hydra: Any, folder: RunFolder) -> int:
    """:func:`launch` in a folder that is ours."""
    from omegaconf import OmegaConf

    try:
        given: Any = OmegaConf.to_container(hydra.overrides.task, resolve=False)  # may hold seed=${nope}
        overrides = list(map(str, given))
        configs = {"": _resolved(composed), **further}
        folder.environment = Environment.of(composed)
        _hide_in_log(folder.environment)
        for task, config in configs.items():
            config["run_dir"] = str(folder.path / task)
            as_run(config, overrides)
            # hydra does not record choices that are lists; an objective's option is named as its node
            objectives = config.get("objectives")
            chosen = {**hydra.runtime.choices, "objective": list(objectives) if isinstance(objectives, dict) else []}
            refuse_ambiguous_options({**chosen, "task": task} if task else chosen)
        first = configs.pop("")
        return execute(configs or {"": first}, folder)
    except BaseException as error:
        refused = system_fault(error)
        if isinstance(error, FileNotFoundError) and not folder.path.is_dir():
            refused = RunError(
                f"{folder.path}: this folder of the run was removed while it ran, and all of it is gone."
            )
        folder.keep_traceback(error)
        if isinstance(refused or error, UserError):
            folder.remove_if_empty()
        if refused is not None:
            raise refused from error
        if isinstance(error, LoadingError):
            raise LoadingError(f"{error} The traceback is in {folder.path / 'run.log'}.") from error
        if (failure := fault_of(error)) is not None:
            raise ComponentError(f"{failure} The traceback is in {folder.path / 'run.log'}.") from error
        raise


def _resolved(composed: DictConfig) -> dict[str, Any]:
    from omegaconf import OmegaConf
    from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

    try:
        return with_types(OmegaConf.to_container(composed, resolve=True, throw_on_missing=True))  # type: ignore[arg-type]
    except MissingMandatoryValue as error:
        raise ConfigError(f"{error.full_key} has no default: give {error.full_key}=...") from error
    except OmegaConfBaseException as error:  # a value that another one takes over and cannot use, such as seed=one
        raise ConfigError(f"{error.full_key}: {str(error).splitlines()[0]}") from error


def as_run(config: dict[str, Any], overrides: list[str]) -> dict[str, Any]:
    """What follows from the command line beside its overrides; changes ``config`` in place and gives it."""
    _length_from_the_command_line(config, overrides)
    take_objective(config, overrides)
    return config


def _hide_in_log(environment: Environment) -> None:
    """In run.log; the console is nobody else's."""
    import logging

    def hide(entry: logging.LogRecord) -> bool:
        entry.msg, entry.args = environment.hide(entry.getMessage()), None
        return True

    if environment.values:
        for handler in logging.getLogger().handlers:
            if isinstance(handler, logging.FileHandler):
                handler.addFilter(hide)


def follow() -> int:
    """The other processes of torchrun: take the configuration from the first one and run."""
    return execute(None, None)


def execute(configs: dict[str, dict[str, Any]] | None, folder: RunFolder | None) -> int:
    """Run resolved configurations in ``folder``; the first process gives both, the others pass None.

    Args:
        configs: task -> configuration, of one run ``""``. Several are measured one after another, each in the folder
            ``folder/task``; one that fails does not keep the others from being measured.
        folder: of the run.

    Returns:
        0; 1 where test items could not be evaluated and nobody said that they may; of several tasks the exit code of
        the first that failed.

    Raises:
        ConfigError: with everything that is wrong in the core's part of a configuration.
        VtpError: what the parts of a single run raise.
    """
    if configs is not None and folder is not None:
        _check(configs, folder.path)  # before a process group exists: a typo must not leave the others waiting
        folder.forget_failures()
    from vtp import distributed

    device = distributed.setup(next(iter(configs.values()))["device"] if configs else "auto")
    try:
        environment = Environment() if folder is None else folder.environment
        configs, path = distributed.broadcast_object((configs, None if folder is None else folder.path))
        assert configs is not None and path is not None
        _set_threads(next(iter(configs.values())))
        if device.type == "cpu":
            keep_memory(1 << 30, 2 << 30)  # a step needs what the step before it freed
        if list(configs) == [""]:
            return _run(configs[""], RunFolder(path, environment), device)
        from vtp.run.tasks import measure

        return measure(configs, path, lambda config, inner: _run_alone(config, inner, environment, device))
    finally:
        distributed.shutdown()


def _run_alone(config: dict[str, Any], folder: Path, environment: Environment, device: Any) -> int:
    """One of several tasks, in a folder of its own that somebody may have named as theirs."""
    from vtp import distributed
    from vtp.storage import alone

    if distributed.is_main():
        folder.mkdir(parents=True, exist_ok=True)
    with alone(folder) if distributed.is_main() else nullcontext():
        return _run(config, RunFolder(folder, environment), device)


def _run(config: dict[str, Any], folder: RunFolder, device: Any) -> int:
    """Do what ``mode`` says.

    Returns:
        0; or 1 where test items could not be evaluated and nobody said that they may: everything is written then.
    """
    from vtp import distributed
    from vtp.run.run import Run

    run = None
    try:
        with _naming_the_process_that_failed(folder):
            run = Run(config, folder, device)
        record = run.folder.recorded(config, distributed.world_size()) if distributed.is_main() else nullcontext()
        with record, _naming_the_process_that_failed(folder):
            for mode in modes(config["mode"]):
                getattr(run, {"train": "train", "eval": "evaluate", "predict": "predict"}[mode])()
            run.say_what_was_cached()
        if run.incomplete and distributed.is_main():
            print(
                f"vtp run: {one_line(run.incomplete)}. The report is written and says so; data.allow_incomplete=true "
                "accepts it, with exit code 0.",
                file=sys.stderr,
            )
        return 1 if run.incomplete else 0
    except Exception as error:
        if not distributed.is_main():
            folder.tell_failure(distributed.rank(), error)
        unexpected = isinstance(error, LoadingError) or not isinstance(error, VtpError)
        if unexpected and fault_of(error) is None and run is not None:
            problem = None
            with suppress(Exception):  # the search must not hide what it is about
                problem = run.problem()
            if problem is not None:
                raise PluginError(problem) from error
        if not distributed.is_main() and not isinstance(error, VtpError):
            folder.keep_traceback(error)  # of the first process it is kept by launch()
        raise


@contextmanager
def _naming_the_process_that_failed(folder: RunFolder) -> Iterator[None]:
    """For the first process: what another one failed of, or that it does not answer, in place of the error of the
    connection between them."""
    from vtp import distributed

    try:
        yield
    except Exception as error:
        if isinstance(error, VtpError) or distributed.world_size() == 1 or not distributed.is_main():
            raise
        if told := folder.failures():
            rank, text = next(iter(told.items()))
            raise RunError(f"process {rank} of {distributed.world_size()} failed: {text}") from error
        if isinstance(error, RuntimeError) and "timed out" in str(error).lower():
            raise RunError(
                f"another of the {distributed.world_size()} processes has not answered for {distributed.patience()}. "
                "VTP_RANK_TIMEOUT_S=SECONDS sets how long is waited."
            ) from error
        raise


def _check(configs: Mapping[str, dict[str, Any]], folder: Path) -> None:
    """Check every configuration; tell all that is wrong, with the task where there are several."""
    wrong = []
    for task, config in configs.items():
        if task and "train" in modes(config["mode"]):
            raise ConfigError(
                f"task=[{','.join(configs)}] measures several tasks on one checkpoint: add mode=eval (or predict) and "
                "checkpoint=RUN. Training is for one task; task=pretrain measures another one on the way."
            )
        try:
            check(config, folder / task)
        except ConfigError as error:
            if not task:
                raise
            wrong += [f"{task}: {line}" for line in mistakes_of(error)]
    refuse(wrong)


def _length_from_the_command_line(config: dict[str, Any], overrides: list[str]) -> None:
    """``train.steps=`` on the command line replaces the ``train.epochs`` of a recipe, and the other way round."""
    given = {name for name in ("steps", "epochs") if any(o.lstrip("+").startswith(f"train.{name}=") for o in overrides)}
    if len(given) == 1 and isinstance(config.get("train"), dict):
        config["train"]["epochs" if given == {"steps"} else "steps"] = None


def _set_threads(config: Mapping[str, Any]) -> None:
    """``threads``; by default the cores of this process less those that the usual number of loader workers keeps busy.

    A team of threads is as fast as its slowest member, and on a core that a worker shares that is slow. It is not the
    number of workers that there are: sums of another number of threads differ in their last bit, and so would losses.
    """
    import torch

    if config["threads"]:
        torch.set_num_threads(config["threads"])
    else:
        processes = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
        torch.set_num_threads(max(1, cores() // processes - DataConfig.workers))
