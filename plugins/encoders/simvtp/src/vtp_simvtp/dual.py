"""``vtp import simvtp_dual FILE OUT``: the two towers of fine-tuning, from a pre-trained SimVTP, released or of vtp."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from vtp.errors import ConfigError, DataError
from vtp.model.importing import Imported, renames
from vtp.model.weights import read_config
from vtp_simvtp.importer import import_simvtp, retrieval
from vtp_simvtp.vit import shape_of

__all__ = ["dual_from_pretrained", "import_dual"]

T = TypeVar("T")


@renames(legacy="variant=released")
def import_dual(
    path: Path,
    *,
    tokenizer: str = "bert-base-uncased",
    heads: int | None = None,
    frames: int | None = None,
    size: int | None = None,
    variant: Literal["released"] | None = None,
) -> Imported:
    """Make the two towers of fine-tuning from a pre-trained SimVTP.

    Args:
        path: a checkpoint of the released code, or a vtp checkpoint or run folder of ``model=simvtp``.
        tokenizer, heads, frames, size: as in :func:`import_simvtp`; a vtp checkpoint knows them itself.
        variant: ``released`` pools as the released fine-tuning does, with a fresh norm; null keeps the norm of the
            encoder.

    Raises:
        DataError: as :func:`import_simvtp`, or the checkpoint is no pre-trained SimVTP.
    """
    path = Path(path).expanduser()
    if (path / "checkpoints").is_dir():  # a run folder: its best or last checkpoint
        from vtp.train.checkpoint import locate

        path = locate(path)
    if (own := _own(path)) is not None:
        spec, state = own
        report: dict[str, Any] = {"used": {name: name for name in state}, "notes": [f"vtp checkpoint {path}"]}
    else:  # the towers have no decoder, so its heads need not be known
        spec, state, report = import_simvtp(
            path, tokenizer=tokenizer, heads=heads, decoder_heads=1, frames=frames, size=size
        )
        if report["kind"] != "pre-trained SimVTP":
            raise DataError(
                f"{path} is a {report['kind']} checkpoint, expected a pre-trained SimVTP. Use `vtp import simvtp`."
            )
    return _towers_of(spec, state, report, variant)


def dual_from_pretrained(state: Mapping[str, T], *, keep_norm: bool) -> dict[str, T]:
    """Start both towers of a fine-tuning model from the shared encoder of a pre-training model, in vtp names.

    Args:
        state: tensors of a vtp model with encoder/video, text and fusion = simvtp.
        keep_norm: start the norm of the towers (pooling mean) from the encoder's; the released code starts its own at 1
        / 0.
    """
    towers: dict[str, T] = {}
    for name, value in state.items():
        if name.startswith("encoders.video."):
            towers[name.replace("encoders.video.", "encoders.video.embedding.", 1)] = value
        elif name.startswith("encoders.text."):
            towers[name.replace("encoders.text.", "encoders.text.embedding.", 1)] = value
        elif name.startswith("encoders.fusion.blocks.") or (keep_norm and name.startswith("encoders.fusion.norm.")):
            for tower in ("video", "text"):
                towers[name.replace("encoders.fusion.", f"encoders.{tower}.tower.", 1)] = value
    return towers


def _towers_of(
    spec: Mapping[str, Any], state: Mapping[str, Tensor], report: Mapping[str, Any], variant: str | None
) -> Imported:
    """Spec, tensors and report of the towers that start from a pre-training model in vtp names."""
    video, text, fusion = (dict(spec["encoders"][slot]) for slot in ("video", "text", "fusion"))
    size = {key: fusion[key] for key in ("width", "depth", "heads")}
    size |= {"name": "simvtp_tower", "preset": fusion.get("preset", "base")}
    video, text = video | size, text | size
    missing: dict[str, str] = {}
    if variant == "released":
        words, positions = (state.get(f"encoders.text.embeddings.{n}_embeddings.weight") for n in ("word", "position"))
        if words is None or positions is None:
            raise DataError(f"{report.get('file') or 'the checkpoint'} lacks its embeddings of words or positions.")
        video |= {"unused_vocabulary": len(words), "unused_positions": len(positions)}
        text |= {"unused_tubelet": video.get("tubelet", 2), "unused_patch": video.get("patch", 16)}
        missing = {f"encoders.{tower}.tower.fc_norm.*": "starts at 1 and 0" for tower in ("video", "text")}
        unused = ("video.unused_text_embeddings", "text.unused_patch_embed")
        missing |= {f"encoders.{part}.*": "never used" for part in unused}
    keep_norm = variant is None
    places = {ours: list(dual_from_pretrained({ours: None}, keep_norm=keep_norm)) for ours in state}
    made = {theirs: places[ours] for theirs, ours in report["used"].items()}
    towers = {
        "kind": "two towers from a pre-trained SimVTP",
        "file": str(report.get("file", "")),
        "used": {theirs: " and ".join(names) for theirs, names in made.items() if names},
        "dropped": report.get("dropped", {}) | {name: "no part of the towers" for name in made if not made[name]},
        "missing": missing,
        "notes": list(report.get("notes", [])),
    }
    dual = {"encoders": {"video": video, "text": text}, **retrieval(variant)}
    return dual, dual_from_pretrained(state, keep_norm=keep_norm), towers


def _own(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]] | None:
    """Specification and tensors of a vtp checkpoint of the shared model; None if ``path`` is of another program."""
    config, weights = path / "config.json", path / "model.safetensors"
    if not (config.is_file() and weights.is_file()):
        return None
    try:
        found = json.loads(config.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None  # told where it is read as one of transformers
    if not isinstance(found, dict) or not isinstance(found.get("spec"), dict):
        return None
    spec = read_config(path)["spec"]
    encoders = spec["encoders"]
    names = {slot: (encoders.get(slot) or {}).get("name") for slot in ("video", "text", "fusion")}
    if any(name != "simvtp" for name in names.values()):
        raise DataError(f"{path} is a vtp model with encoders {names}, expected the shared model (model=simvtp).")
    fusion = encoders["fusion"]
    try:
        shape = shape_of(fusion.get("preset", "base"), *(fusion.get(key) for key in ("width", "depth", "heads")))
        state = load_file(weights)
    except (TypeError, ZeroDivisionError, ConfigError) as error:
        raise DataError(f"{config} is damaged, or was not written by vtp: its fusion encoder is {fusion}.") from error
    except (SafetensorError, OSError) as error:
        raise DataError(f"{weights} is not a readable safetensors file ({error}). Copy it again.") from error
    fusion |= {"width": shape.width, "depth": shape.depth, "heads": shape.heads}
    encoders["text"]["tokenizer"] = str(path / "assets" / "encoders" / "text" / "tokenizer.json")
    return spec, state
