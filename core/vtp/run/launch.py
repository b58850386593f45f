"""From a composed configuration to a run, on one process or on several.

launch(config)   called by the command line on the first process
follow()         on the others of torchrun
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vtp.config import modes
from vtp.errors import ComponentError, ConfigError, PluginError, UserError, VtpError
from vtp.faults import fault_of
from vtp.machine import cores, keep_memory
from vtp.run.check import check, refuse_ambiguous_options
from vtp.run.folder import RunFolder

if TYPE_CHECKING:
    from omegaconf import DictConfig

__all__ = ["execute", "follow", "launch"]


def launch(composed: DictConfig) -> int:
    """Run a configuration that hydra composed; returns the exit code. On several processes, tells the others."""
    from hydra.core.hydra_config import HydraConfig

    hydra = HydraConfig.get()
    folder = RunFolder(Path(hydra.runtime.output_dir))
    try:
        config = _resolved(composed)
        config["run_dir"] = str(folder.path)
        _length_from_the_command_line(config, list(hydra.overrides.task))
        # hydra does not record choices that are lists; an objective's option is named as its node
        refuse_ambiguous_options({**hydra.runtime.choices, "objective": list(config["objectives"] or {})})
        return execute(config, folder.path)
    except BaseException as error:
        folder.keep_traceback(error)
        if isinstance(error, UserError):
            folder.remove_if_empty()
        if (failure := fault_of(error)) is not None:
            raise ComponentError(f"{failure} The traceback is in {folder.path / 'run.log'}.") from error
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
    if config is not None and folder is not None:
        check(config, folder)  # before a process group exists: a typo must not leave the others waiting
    from vtp import distributed
    from vtp.run.run import Run

    device = distributed.setup((config or {}).get("device", "auto"))
    run = None
    try:
        config, folder = distributed.broadcast_object((config, folder))
        assert config is not None and folder is not None
        _set_threads(config)
        if device.type == "cpu":
            keep_memory(1 << 30, 2 << 30)  # a step needs what the step before it freed
        run = Run(config, RunFolder(folder), device)
        with run.folder.recorded(config, distributed.world_size()) if distributed.is_main() else nullcontext():
            for mode in modes(config["mode"]):
                getattr(run, {"train": "train", "eval": "evaluate", "predict": "predict"}[mode])()
            run.say_what_was_cached()
    except Exception as error:
        if not isinstance(error, VtpError) and fault_of(error) is None and run is not None:
            problem = None
            with suppress(Exception):  # the search must not hide what it is about
                problem = run.problem()
            if problem is not None:
                raise PluginError(problem) from error
        if folder is not None and not distributed.is_main() and not isinstance(error, VtpError):
            RunFolder(folder).keep_traceback(error)  # of the first process it is kept by launch()
        raise
    finally:
        distributed.shutdown()
    return 0


def _length_from_the_command_line(config: dict[str, Any], overrides: list[str]) -> None:
    """``train.steps=`` on the command line replaces the ``train.epochs`` of a recipe, and the other way round."""
    given = {name for name in ("steps", "epochs") if any(o.lstrip("+").startswith(f"train.{name}=") for o in overrides)}
    if len(given) == 1:
        config["train"]["epochs" if given == {"steps"} else "steps"] = None


def _set_threads(config: Mapping[str, Any]) -> None:
    """``threads``; by default the cores of this process less those that its loader workers keep busy.

    A team of threads is as fast as its slowest member, and on a core that a worker shares that is slow.
    """
    import torch

    if config["threads"]:
        torch.set_num_threads(config["threads"])
    else:
        processes = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
        torch.set_num_threads(max(1, cores() // processes - int(config["data"]["workers"])))
