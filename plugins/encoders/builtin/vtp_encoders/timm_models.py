"""Models of timm by name, from the hub or from a folder, with errors that say what to do."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import timm
from timm.models._hub import save_config_for_hf

from vtp.errors import ConfigError
from vtp.model.build import BuildContext
from vtp.registry import did_you_mean
from vtp_encoders import hub

__all__ = ["create", "save_config", "source_of"]

CONFIG = "config.json"


def source_of(slot: str, model: str, context: BuildContext) -> tuple[str, bool]:
    """What timm is to create, and whether a checkpoint is being restored: then nothing is downloaded, and what stood in
    the folder or on the hub is read from the checkpoint.

    Args:
        slot: ``video`` or ``audio``.
        model: a name of timm, ``hf-hub:NAME``, or a folder.

    Raises:
        ConfigError: an unknown name, or a folder that lacks its configuration.
    """
    saved = context.assets_of(f"encoders/{slot}")
    if saved is not None and (saved / CONFIG).is_file():
        return f"local-dir:{saved}", True
    if model.startswith(("hf-hub:", "hf_hub:")):
        return model, saved is not None
    path = os.path.expanduser(model.removeprefix("local-dir:"))
    if os.path.isdir(path):
        if not os.path.isfile(os.path.join(path, CONFIG)):
            raise ConfigError(
                f"encoder timm: the folder {path!r} lacks {CONFIG}. It must be one that timm saved for the hub "
                "(save_for_hf): copy or download it again."
            )
        return f"local-dir:{path}", saved is not None
    if not timm.is_model(model):
        known = timm.list_models()
        raise ConfigError(
            f"encoder timm: timm {timm.__version__} has no model {model!r}.{did_you_mean(model, known)} "
            "List them with: python -c 'import timm; print(timm.list_models())'"
        )
    return model, saved is not None


def create(source: str, pretrained: bool, **options: Any) -> Any:
    """``timm.create_model`` without a classifier.

    Args:
        source: as :func:`source_of` gives it.
        pretrained: whether to load the weights.
        options: of the model's class; ``img_size`` is left out for families that take any.

    Raises:
        ConfigError: it cannot be created.
    """
    options = {"pretrained": pretrained, "num_classes": 0, **options}
    if pretrained:
        hub.settle()
    try:
        try:
            return timm.create_model(source, **options)
        except TypeError:  # convolutional families take any size and no such argument
            if options.pop("img_size", None) is None:
                raise
            return timm.create_model(source, **options)
    except (OSError, RuntimeError, ValueError, TypeError, KeyError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        if not pretrained:
            hint = "Check the size: it must suit the patches and windows of this model."
        elif source.startswith("local-dir:"):
            hint = "Check that the folder holds the weights of this model: copy or download it again."
        else:
            hint = "Without network: use pretrained=false, or fill the Hugging Face cache on this machine first."
        name = source.removeprefix("local-dir:")
        raise ConfigError(f"encoder timm: cannot create {name!r} ({reason}). {hint}") from error


def save_config(model: Any, directory: Path) -> None:
    """Write what :func:`create` makes the model from, without its weights."""
    save_config_for_hf(model, directory / CONFIG)
