"""What the encoders over transformers share: loading by name or path with errors that say what to do, saved
configurations, layer numbers.

Only the encoder modules import this, and so transformers: it takes seconds and is never needed to list what is
installed.
"""

from __future__ import annotations

import json
import logging
import math
import os
import re
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from transformers import AutoConfig, PreTrainedModel
from transformers.utils import logging as library

from vtp.errors import ConfigError
from vtp.model.blocks import connected_zero
from vtp.model.build import BuildContext
from vtp.types import Space
from vtp_encoders import hub

__all__ = [
    "HubEncoder",
    "checkpoint_blocks",
    "checkpoint_or_preset",
    "config_of",
    "drop_pooler",
    "from_pretrained",
    "keeping",
    "layer_of_huggingface",
    "load",
    "load_settings",
    "load_weights",
    "open_empty_rows",
    "saved_folder",
    "source_of",
    "space_of",
]

T = TypeVar("T")
log = logging.getLogger(__name__)


def load(encoder: str, model: str, what: str, make: Callable[[], T]) -> T:
    """Run ``make``, one of the ``from_pretrained`` of transformers, and say in plain words what to do when it cannot
    find ``model``.

    Args:
        encoder: registered name of the encoder, for the message.
        model: hub name or local folder.
        what: ``"configuration"``, ``"tokenizer"`` or ``"weights"``.

    Raises:
        ConfigError: no such folder, no such hub model, no network, or something in the folder that is missing or cannot
            be read.
    """
    if os.path.isdir(model) and not os.path.isfile(os.path.join(model, "config.json")):
        # some classes of transformers would take the sizes of their base model without a word
        raise ConfigError(
            f"encoder {encoder}: the folder {model!r} lacks config.json. Its download was not finished, or it is none "
            "that save_pretrained wrote: copy or download it again."
        )
    if not os.path.isdir(model):
        hub.settle()
    try:
        return make()
    except Exception as error:  # missing, odd, unknown, cut off, or needs another package: of several libraries
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        if what == "tokenizer" and re.search("tiktoken|sentencepiece", reason, re.IGNORECASE):
            reason, hint = _sentencepiece(reason)  # what is named last is not what helps
        elif what == "tokenizer" and "Couldn't instantiate the backend tokenizer" in reason:
            reason, hint = (
                "its vocabulary was not found",
                ("There must be a tokenizer.json, or the vocabulary files that its class reads."),
            )
        elif what == "weights" and (damage := _damage(Path(model))):
            reason, hint = damage, "Copy or download it again."
        elif "weights_only" in reason:  # torch says how to read it all the same
            reason, hint = (
                "its weights are a pickle that holds more than tensors, which could run anything and is not read",
                "Get the checkpoint with model.safetensors.",
            )
        elif "custom code" in reason:
            reason, hint = (
                "it comes with code of its own, which is never run",
                "Choose a checkpoint that transformers has a class for.",
            )
        elif os.path.isdir(model):
            hint = f"The folder is read as one written by save_pretrained; check that it holds the {what}."
        elif model.startswith((".", "/", "~")) or model.count("/") > 1:
            hint = f"There is no folder {model}. Give the path of a model folder, or the name of a model on the hub."
        else:
            hint = (
                f"It is no local folder, and the hub gave nothing. Without network: download it elsewhere "
                f"(`hf download {model} --local-dir FOLDER`) and give model=FOLDER; or choose the encoder 'tiny', "
                "which downloads nothing."
            )
        raise ConfigError(f"encoder {encoder}: cannot load the {what} of {model!r} ({reason}). {hint}") from error


def from_pretrained(cls: Any, model: str, **options: Any) -> Any:
    """``cls.from_pretrained(model)`` without any code that lies there: the Auto classes would ask whoever sits at the
    terminal whether to run it.
    """
    code = {"trust_remote_code": False} if cls.__name__.startswith("Auto") else {}
    return cls.from_pretrained(model, **code, **options)


def config_of(encoder: str, kind: Any, model: str) -> Any:
    """The configuration of a model of one family, or of any.

    Args:
        kind: class of the configuration; AutoConfig takes what is there.

    Raises:
        ConfigError: it cannot be read, or is of another family: most of them have sizes of the same names.
    """
    if kind is AutoConfig:
        return load(encoder, model, "configuration", lambda: from_pretrained(kind, model))
    told = load(encoder, model, "configuration", lambda: kind.get_config_dict(model)[0])
    family = told.get("model_type") if isinstance(told, dict) else None
    if family not in (None, kind.model_type):
        raise ConfigError(f"encoder {encoder}: {model!r} is a {family} model. Choose a {kind.model_type} model.")
    return load(encoder, model, "configuration", lambda: kind.from_pretrained(model))


def _damage(folder: Path) -> str:
    """Which file of the weights in a folder is missing, cut off or damaged; nothing where none can be named."""
    whole, index = folder / "model.safetensors", folder / "model.safetensors.index.json"
    if whole.is_file() or not folder.is_dir():
        names = [whole.name] if whole.is_file() else []
    elif index.is_file():
        try:
            names = sorted({str(name) for name in json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()})
        except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
            return f"{index.name} is cut off or damaged"
    else:
        shards = sorted(file.name for file in folder.glob("model-*.safetensors"))
        return f"{index.name} is missing, which tells what is in {', '.join(shards[:3])}" if shards else ""
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        return (
            f"{', '.join(missing[:3])} {'are' if missing[1:] else 'is'} missing: {len(missing)} of {len(names)} files"
        )
    for name in names:
        try:
            with safe_open(folder / name, framework="pt"):
                pass
        except (SafetensorError, OSError) as error:
            return f"{name} of {(folder / name).stat().st_size:,} bytes is cut off or damaged: {error}"
    return ""


def _sentencepiece(reason: str) -> tuple[str, str]:
    """What to say where transformers could not read a sentencepiece file and, tried as a last resort, not as one of
    tiktoken either."""
    if find_spec("sentencepiece") is None or find_spec("google.protobuf") is None:
        return "its vocabulary is a sentencepiece file, which needs the packages sentencepiece and protobuf", (
            "Install them: pip install 'vtp-core[sentencepiece]'. A folder with tokenizer.json needs neither."
        )
    return reason, "The sentencepiece file (spm.model, spiece.model, ...) may be damaged: copy it again."


def load_weights(encoder: str, cls: Any, model: str, **options: Any) -> PreTrainedModel:
    """``cls.from_pretrained(model)`` in float32 that refuses to leave a part of the encoder at random values.

    from_pretrained renames the keys of old checkpoints itself; only its own report tells whether everything was found.
    A pooler may be missing: it is not used. Sizes that do not fit are an error.

    Raises:
        ConfigError: weights are missing, or have other shapes than the configuration asks for.
    """
    # What does not fit is told below, in a line.
    options = {"dtype": torch.float32, "output_loading_info": True, "ignore_mismatched_sizes": True} | options
    with _quiet():
        found, report = load(encoder, model, "weights", lambda: from_pretrained(cls, model, **options))
    missing = sorted(key for key in report["missing_keys"] if "pooler" not in key)
    wrong = sorted(str(key) for key in report.get("mismatched_keys", ()))
    if missing or wrong:
        some = ", ".join((missing + wrong)[:5])
        raise ConfigError(
            f"encoder {encoder}: the weights of {model!r} do not fill the model: {len(missing)} missing and "
            f"{len(wrong)} of another shape ({some}, ...). Is it the right kind of model? "
            "pretrained=false starts from random weights on purpose."
        )
    result: PreTrainedModel = found
    return result


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the table of all keys that transformers prints, and without its bars where nobody watches them."""
    level, bars = library.get_verbosity(), library.is_progress_bar_enabled()
    library.set_verbosity_error()
    if not sys.stderr.isatty():
        library.disable_progress_bar()
    try:
        yield
    finally:
        library.set_verbosity(level)
        if bars:
            library.enable_progress_bar()


def saved_folder(encoder: str, folder: Path | None) -> str | None:
    """The folder of saved assets as transformers wants it, or None when nothing is being restored.

    Raises:
        ConfigError: if the checkpoint should hold it and does not.
    """
    if folder is None:
        return None
    if not folder.is_dir():
        raise ConfigError(
            f"encoder {encoder}: the checkpoint lacks the folder {folder}. Copy the checkpoint as a whole."
        )
    return str(folder)


def source_of(encoder: str, slot: str, model: str, context: BuildContext) -> tuple[str, bool]:
    """What to open, as transformers wants it, and whether it is the folder of a checkpoint that is being restored: then
    it holds no weights, and nothing is downloaded.
    """
    saved = saved_folder(encoder, context.assets_of(f"encoders/{slot}"))
    return saved or os.path.expanduser(model), saved is not None


def checkpoint_or_preset(
    encoder: str,
    slot: str,
    model: str | None,
    pretrained: bool,
    context: BuildContext,
    classes: tuple[Any, Any],
    preset: Callable[[], Any],
) -> tuple[Any, str | None]:
    """The model of a checkpoint; without weights where it is being restored or ``pretrained`` is False; or, without
    ``model``, of the configuration that ``preset`` makes. And what was opened, None for a preset.

    Args:
        classes: of its configuration, and of the model itself.
    """
    kind, cls = classes
    if model is None and context.assets_of(f"encoders/{slot}") is None:
        return cls(preset()), None
    source, restored = source_of(encoder, slot, model or "", context)
    config = config_of(encoder, kind, source)
    weights = pretrained and model is not None and not restored
    return load_weights(encoder, cls, source) if weights else cls(config), source


def load_settings(encoder: str, cls: Any, model: str | None, *, known: bool = True) -> Any:
    """The settings of the preprocessing that stand beside a model, as an instance of ``cls``, a feature extractor or
    processor of transformers; without a model, and for a folder that has none, its defaults, or None where ``cls`` is
    not ``known``, one of those that choose the class by the settings.
    """
    with warnings.catch_warnings():  # without torchaudio it makes filters for itself, which nothing here uses
        warnings.filterwarnings("ignore", message="At least one mel filter has all zero values", category=UserWarning)
        return _settings(encoder, cls, model, known)


def _settings(encoder: str, cls: Any, model: str | None, known: bool) -> Any:
    if model is None:
        return cls()
    names = ("preprocessor_config.json", "video_preprocessor_config.json", "processor_config.json")
    if os.path.isdir(model) and not any(os.path.isfile(os.path.join(model, name)) for name in names):
        if any(name.endswith((".safetensors", ".bin")) for name in os.listdir(model)):  # no checkpoint of ours
            log.warning(
                "encoder %s: %s holds neither %s nor %s, so that %s is assumed of its preprocessing. If it was made "
                "with another one, its embeddings are wrong: copy that file as well.",
                encoder,
                model,
                *names[:2],
                f"what {cls.__name__} has as default"
                if known
                else "the middle of a frame at ImageNet's mean and deviation",
            )
        return cls() if known else None
    return load(encoder, model, "settings of the preprocessing", lambda: from_pretrained(cls, model))


def space_of(model: str, config: Any, log_scale: float | None, bias: float | None = None) -> Space:
    """The space that the towers of a model share, at the temperature that it was trained to.

    Args:
        model: its name or folder.
        config: of the tower, in which the temperature is kept: whoever restores it has no weights yet.
        log_scale: logarithm of the factor of the cosines, of the whole model; None where it has none, for 1 / 0.07. Of
            an encoder that is being restored what stands in ``config`` counts.
        bias: that is added to them, of SigLIP.
    """
    kept = getattr(config, "shared_logit_scale", None)
    if kept is None:
        kept = config.shared_logit_scale = -math.log(0.07) if log_scale is None else log_scale
        config.shared_logit_bias = bias
    return Space(model, math.exp(-float(kept)), getattr(config, "shared_logit_bias", None))


def keeping(hidden: Tensor, head: nn.Module) -> Tensor:
    """``hidden``, with a gradient of zero for a head that only ``pool`` uses: a parameter without one stops DDP."""
    if not torch.is_grad_enabled():
        return hidden
    return hidden + connected_zero([p for p in head.parameters() if type(p) is nn.Parameter], hidden)


def open_empty_rows(attention_mask: Tensor) -> Tensor:
    """Rows without any real token get one: a softmax over nothing would be NaN in some attention kernels. What comes
    out of them is masked.
    """
    opened = attention_mask.clone()
    opened[:, 0] |= ~attention_mask.any(dim=1)
    return opened


class HubEncoder(nn.Module):
    """An encoder around one model of transformers, ``model``, with the settings of its preprocessing, ``settings``, if
    it has any. ``depth`` counts its layers.
    """

    model: Any
    settings: Any = None
    depth: int

    def layer_of(self, name: str) -> int:
        """Layer of a parameter for learning-rate decay: 0 embeddings, 1..depth layers, depth + 1 behind them."""
        return layer_of_huggingface(name, self.depth)

    def gradient_checkpointing_enable(self) -> None:
        """Recompute the layers in the backward pass."""
        checkpoint_blocks(self.model)

    def save_assets(self, directory: Path) -> None:
        """Write configuration and settings, so that a checkpoint can be loaded without the hub."""
        self.model.config.save_pretrained(directory)
        if self.settings is not None:
            self.settings.save_pretrained(directory)


def checkpoint_blocks(model: PreTrainedModel) -> None:
    """Recompute activations in the backward pass, without re-entrance (which loses gradients when the input needs
    none).
    """
    enable = getattr(model, "activation_checkpointing_enable", None)  # since transformers 5.2
    enable = enable or model.gradient_checkpointing_enable
    enable({"use_reentrant": False})


def layer_of_huggingface(name: str, depth: int) -> int:
    """Layer of a parameter for learning-rate decay: 0 embeddings, 1..depth layers, depth + 1 behind them."""
    numbered = re.search(r"(?:layer|layers|block|blocks|h)\.(\d+)\.", name)
    if numbered:
        return int(numbered.group(1)) + 1
    return 0 if "embed" in name else depth + 1


def drop_pooler(model: nn.Module) -> None:
    """Remove the pooler of a BERT-like model: we pool ourselves, and a parameter without gradient stops DDP."""
    if isinstance(getattr(model, "pooler", None), nn.Module):
        model.register_module("pooler", None)
