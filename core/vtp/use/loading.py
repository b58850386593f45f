"""``vtp.load``: from a run, a folder, options or a name on the hub to a model.

What is read are safetensors, JSON and the files of tokenizers. Nothing that a folder holds is executed or unpickled:
the parts of a model are those of the plugins that are installed here.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from vtp.config import DataConfig
from vtp.errors import ConfigError, DataError
from vtp.use.model import Model
from vtp.use.places import is_path, near

__all__ = ["ON_HUB", "load"]

log = logging.getLogger("vtp")

ON_HUB = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
# What a saved model consists of; a repository may hold anything else besides.
_FILES = ("*.json", "model.safetensors", "README.md", "assets/*")
_NEVER = ("*.py", "*.pkl", "*.pickle", "*.bin", "*.pt", "*.pth", "*.ckpt", "*.so", "*.zip")
_STORED = ("stages", "config", "model", "plugins", "evaluation", "dataset")


def load(
    source: str | Path | Sequence[str],
    *,
    device: str = "auto",
    precision: str = "fp32",
    workers: int = 2,
    kernels: str = "auto",
    revision: str | None = None,
    token: str | None = None,
    cache_dir: str | Path | None = None,
) -> Model:
    """A model to use.

    Args:
        source: a run folder (its best checkpoint, with averaged weights where it has them), a checkpoint, a folder that
            :meth:`Model.save` wrote, ``organisation/name`` on the hub, or the options of a new model as ``vtp run``
            takes them: ``"model=clip,encoder.video.frames=8"``, or a list of them.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:1``.
        precision: ``fp32``, ``bf16`` or ``fp16`` autocast.
        workers: processes that decode when there is more than a batch; 0 decodes in this one.
        kernels: ``auto``, ``triton`` or ``torch``: what computes attention.
        revision, token, cache_dir: of a name on the hub: branch, tag or commit; access; where downloads are kept.

    Raises:
        DataError: there is no such folder or name, or it is damaged.
        ConfigError: options are wrong, or the device is not there.
    """
    from vtp import distributed
    from vtp.eval.evaluator import AUTOCAST
    from vtp.model.kernels import adopt, use_kernels

    if precision not in AUTOCAST:
        raise ConfigError(f"precision={precision!r} must be one of {', '.join(AUTOCAST)}.")
    if isinstance(workers, bool) or not isinstance(workers, int) or workers < 0:
        raise ConfigError(f"workers={workers!r} must be a number of processes, 0 or more.")
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", str(device)):
        raise ConfigError(f"device={device!r} must be auto, cpu, cuda, or one GPU such as cuda:1.")
    where = distributed._device(str(device))
    use_kernels(kernels, where)
    options = _options(source)
    if options is not None:
        module, provenance = _new(options)
    else:
        module, provenance = _stored(_folder(str(source), revision, token, cache_dir))
    adopt(module, where)
    return Model(module, provenance, device=where, precision=precision, workers=workers)


def _options(source: str | Path | Sequence[str]) -> list[str] | None:
    """Options of a new model; None where it is a folder or a name. Folders go first: those of sweeps have ``=`` in
    their names."""
    if isinstance(source, (list, tuple)):
        return [str(option) for option in source]
    if not isinstance(source, (str, Path)) or not str(source).strip():
        raise ConfigError(f"load: {source!r} must be a folder, a name on the hub, or options such as 'model=clip'.")
    text = str(source)
    if Path(text).expanduser().exists() or not re.match(r"[+~]*[\w./@]+=", text):
        return None
    return _split(text)


def _split(text: str) -> list[str]:
    """``a=1,b=[2,3]`` at its commas outside of brackets and quotes that begin another option."""
    parts, depth, quote, begin = [], 0, "", 0
    for place, sign in enumerate(text):
        if quote:
            quote = "" if sign == quote else quote
        elif sign in "\"'":
            quote = sign
        elif sign in "[{(":
            depth += 1
        elif sign in "]})":
            depth -= 1
        elif sign == "," and depth == 0:
            parts.append(text[begin:place])
            begin = place + 1
    return [part.strip() for part in [*parts, text[begin:]] if part.strip()]


def _new(options: list[str]) -> tuple[Any, dict[str, Any]]:
    """A model of options, with the weights that its encoders come with, and those of ``init_from``."""
    from vtp.cli.run import compose
    from vtp.model.build import BuildContext, build_model, lookup_in
    from vtp.model.weights import load_weights
    from vtp.plugins import host
    from vtp.run.check import model_spec, pair_of
    from vtp.run.model_from import same_text_encoder
    from vtp.run.start import checkpoint_folder
    from vtp.train.checkpoint import locate

    config = compose(options)
    if config["checkpoint"] is not None:
        return _stored(checkpoint_folder(config["checkpoint"]))
    filled = [slot for slot, given in config["encoder"].items() if (given or {}).get("name")]
    if not filled:
        raise ConfigError("load: the options choose no encoder. Give model=...; `vtp list model` says which there are.")
    pair = pair_of(filled)
    if not config["objectives"] and len(pair) > 1 and not any(option.startswith("objective=") for option in options):
        config = compose([*options, "objective=[vtc]", f"objectives.vtc.modalities=[{','.join(pair)}]"])
    context = BuildContext()
    described = config["model_from"]
    if described is not None and same_text_encoder(Path(described), config["encoder"]):
        context.assets = Path(described) / "assets"
    registry = host().registry
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config["seed"])
        module = build_model(model_spec(config), lookup_in(registry), context, seed=config["seed"])
    stages: list[Any] = []
    if (start := config["init_from"]) is not None:
        from vtp.run.stages import recorded

        start = Path(start) if Path(start).is_file() else locate(start)
        allowed = {key: config[f"init_{key}"] for key in ("allow_missing", "allow_unused")}
        load_weights(start, module, init_map=config["init_map"], **allowed)
        stages = list(recorded(start))
    # Not all of the configuration: values of environment variables stand in it, and this may be published.
    return module, {"stages": stages, "model": module.origins(), "config": {"data": config["data"]}}


def _folder(source: str, revision: str | None, token: str | None, cache_dir: str | Path | None) -> Path:
    """The folder of the weights, downloaded if the name is one of the hub."""
    from vtp.run.start import checkpoint_folder

    path = Path(source).expanduser()
    if path.exists():
        return checkpoint_folder(path)
    if is_path(source):
        raise DataError(
            f"load: there is no folder {source}.{near(source)} Give a run folder such as outputs/DATE/TIME."
        )
    if not ON_HUB.fullmatch(source):
        raise DataError(
            f"load: {source!r} is no folder, no option (model=...) and no name on the hub (organisation/name)."
            f"{near(source)} Give a run folder such as outputs/DATE/TIME."
        )
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        found = snapshot_download(
            source,
            revision=revision,
            token=token,
            cache_dir=cache_dir,
            allow_patterns=list(_FILES),
            ignore_patterns=list(_NEVER),
        )
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise DataError(
            f"load: there is no folder {source}, and nothing of this name comes from the hub ({reason}).{near(source)}"
        ) from error
    return checkpoint_folder(found)


def _stored(folder: Path) -> tuple[Any, dict[str, Any]]:
    """The model of a checkpoint, with averaged weights where it has them, and its provenance."""
    from vtp.model.build import lookup_in
    from vtp.model.weights import load_model, load_weights
    from vtp.plugins import host
    from vtp.run.stages import recorded

    with torch.random.fork_rng(devices=[]):
        module = load_model(folder, lookup_in(host().registry))
    averaged = folder / "ema.safetensors"
    if averaged.exists():
        load_weights(averaged, module)
    provenance = _provenance(folder)
    provenance["stages"] = list(recorded(folder))
    evaluation = provenance.get("evaluation") or _evaluation(folder)
    if evaluation is not None:
        provenance["evaluation"] = evaluation
    if wrong := _wrong_data(provenance):
        raise DataError(f"{folder}: provenance.json says what cannot be: {wrong[0]}. Copy the checkpoint again.")
    return module, provenance


def _provenance(folder: Path) -> dict[str, Any]:
    try:
        found = json.loads((folder / "provenance.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return {key: found[key] for key in _STORED if key in found} if isinstance(found, dict) else {}


def _wrong_data(provenance: Mapping[str, Any]) -> list[str]:
    config = provenance.get("config")
    data = config.get("data") if isinstance(config, dict) else None
    if data is None:
        return []
    if not isinstance(data, dict):
        return ["config.data is no dict"]
    known = {key: data[key] for key in vars(DataConfig()) if key in data}
    return DataConfig(**{**known, "cache": None}).validate()


def _evaluation(folder: Path) -> dict[str, Any] | None:
    """What report.json of the run says of these very weights, without what is as long as the test set."""
    from vtp.eval.report import checkpoint_hash

    for place in (folder.parent.parent, folder.parent):
        try:
            report = json.loads((place / "report.json").read_text(encoding="utf-8"))
            if report["checkpoint"]["sha256"] != checkpoint_hash(folder):
                continue
            kept = {
                key: report.get(key) for key in ("task", "split", "metrics", "intervals", "incomplete", "selection")
            }
            protocol, ledger = report.get("protocol") or {}, report.get("ledger") or {}
            kept["protocol"] = {key: protocol.get(key) for key in ("name", "official", "differences", "sha256")}
            kept["ledger"] = {key: value for key, value in ledger.items() if isinstance(value, (int, float, str))}
            kept["warnings"], kept["checkpoint"] = report.get("warnings"), report["checkpoint"]["sha256"]
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            continue
        return kept
    return None
