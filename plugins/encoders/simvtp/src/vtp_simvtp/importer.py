"""``vtp import simvtp FILE OUT`` and ``vtp import simvtp_dual FILE OUT``: weights of other programs as vtp models.

| FILE | what comes out of ``simvtp`` |
|---|---|
| pre-trained SimVTP | the pre-training model (shared encoder, four objectives) |
| fine-tuned SimVTP | two towers with the objective simvtp_vtc |
| pre-trained VideoMAE, its own or transformers' naming | video, shared encoder and mvm; with ``bert=`` text embeddings
too | | VideoMAE with a classification head | one video tower |

``simvtp_dual`` makes the two towers of fine-tuning from a pre-trained SimVTP, released or of vtp itself.

Sizes are read off the tensors, except what shapes do not tell: ``heads`` (width / 64 unless given), ``frames`` and
``size``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from vtp.errors import DataError
from vtp_simvtp.keys import DEAD, dual_from_pretrained, from_original, layout_of
from vtp_simvtp.reading import Checkpoint, read_checkpoint
from vtp_simvtp.videomae import from_transformers, is_transformers

__all__ = ["Imported", "import_dual", "import_simvtp"]

Imported = tuple[dict[str, Any], dict[str, Tensor], dict[str, Any]]
MASKS = {"video": {"kind": "tube", "ratio": 0.9}, "text": {"probability": 0.75, "replace": "mask"}}
OBJECTIVES = ("mvm", "simvtp_mlm", "simvtp_vtc", "simvtp_vtm")


@dataclass(frozen=True, slots=True)
class Options:
    """What the shapes in a checkpoint do not tell; see :func:`import_simvtp`."""

    tokenizer: str
    bert: str | None
    heads: int | None
    decoder_heads: int | None
    frames: int | None
    size: int | None
    variant: str | None


def import_simvtp(
    path: Path,
    *,
    tokenizer: str = "bert-base-uncased",
    bert: str | None = None,
    heads: int | None = None,
    decoder_heads: int | None = None,
    frames: int | None = None,
    size: int | None = None,
    variant: Literal["released"] | None = "released",
) -> Imported:
    """Read a SimVTP or VideoMAE checkpoint.

    Args:
        path: file or folder, see :mod:`vtp_simvtp.reading`.
        tokenizer: of the words: hub name, folder or vocab.txt.
        bert: for VideoMAE: hub name or folder of a BERT whose word embeddings start the text side.
        heads, decoder_heads: null is the width / 64, or what a config.json says.
        frames, size: of the clips; null is 16 and 224, or what a config.json says.
        variant: ``released`` computes as the released code does, which is what the weights were trained for; null as
            vtp repairs it.

    Returns:
        (spec, state, report): specification and tensors of the vtp model, and a report with ``kind``, ``used`` (theirs
        -> ours), ``dropped`` (with the reason), ``missing`` (ours, with the reason) and ``notes``.

    Raises:
        DataError: the file cannot be read safely, or is neither of these checkpoints.
    """
    found = read_checkpoint(path)
    options = Options(tokenizer, bert, heads, decoder_heads, frames, size, variant)
    if is_transformers(found.tensors):
        found.tensors, dropped = from_transformers(found.tensors)
        found.dropped |= dropped
        found.notes.append("names of transformers")
    layout = layout_of(found.tensors)
    if layout == "dual":
        return _dual(found, options)
    if layout == "pretrain" and "encoder.norm.weight" in found.tensors and "decoder.norm.weight" in found.tensors:
        has_text = any(name.startswith("text_embeddings.") for name in found.tensors)
        return _pretrained(found, options) if has_text else _videomae(found, options)
    if layout == "pretrain" and "decoder.norm.weight" not in found.tensors:
        found.tensors = {name.removeprefix("encoder."): value for name, value in found.tensors.items()}
    if "blocks.0.attn.qkv.weight" in found.tensors and "patch_embed.proj.weight" in found.tensors:
        return _video_tower(found, options)
    some = ", ".join(sorted(found.tensors)[:5])
    raise DataError(
        f"{found.file} is neither a SimVTP nor a VideoMAE checkpoint that this importer knows: its "
        f"{len(found.tensors)} "
        f"tensors are {some}, ... Expected encoder.blocks.* with decoder.* (pre-trained), video_encoder.* and "
        "text_encoder.* (fine-tuned), videomae.encoder.layer.* (transformers, with its final layernorm)."
    )


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
    if (path / "config.json").is_file() and (path / "model.safetensors").is_file():
        source = _own(path)
        if source is not None:
            spec, state = source
            return _towers_of(
                spec, state, {name: name for name in state}, variant, {"notes": [f"vtp checkpoint {path}"]}
            )
    # the towers have no decoder, so its heads need not be known
    options = {"tokenizer": tokenizer, "heads": heads, "frames": frames, "size": size, "decoder_heads": 1}
    spec, state, report = import_simvtp(path, **options)  # type: ignore[arg-type]
    if report["kind"] != "pre-trained SimVTP":
        raise DataError(
            f"{path} is a {report['kind']} checkpoint, expected a pre-trained SimVTP. Use `vtp import simvtp`."
        )
    return _towers_of(spec, state, report["used"], variant, report)


def _pretrained(found: Checkpoint, options: Options) -> Imported:
    tensors = _without_position_ids(found)
    spec = {
        "encoders": {
            "video": _video_options(tensors, "encoder.", found, options),
            "text": _text_options(tensors, "text_embeddings.", options),
            "fusion": _fusion_options(tensors, found, options),
        },
        "objectives": {name: {"name": name} for name in OBJECTIVES},
        "masks": MASKS,
        "variant": options.variant,
    }
    spec["objectives"]["mvm"] |= _decoder_options(tensors, found, options)
    return _finish("pre-trained SimVTP", found, spec, tensors, "pretrain")


def _videomae(found: Checkpoint, options: Options) -> Imported:
    tensors = dict(found.tensors)
    encoders: dict[str, Any] = {
        "video": _video_options(tensors, "encoder.", found, options),
        "fusion": _fusion_options(tensors, found, options),
    }
    objectives: dict[str, Any] = {"mvm": {"name": "mvm", **_decoder_options(tensors, found, options)}}
    missing = {}
    if options.bert is not None:
        words = _bert_embeddings(options.bert)
        if words["word_embeddings.weight"].shape[1] != encoders["fusion"]["width"]:
            raise DataError(
                f"bert={options.bert} is {words['word_embeddings.weight'].shape[1]} wide, the video encoder "
                f"{encoders['fusion']['width']}. Choose a BERT of the same width, or leave bert= out."
            )
        tensors |= {f"text_embeddings.{name}": value for name, value in words.items()}
        found.notes.append(f"word embeddings of {options.bert}")
        encoders["text"] = _text_options(tensors, "text_embeddings.", options)
        objectives |= {name: {"name": name} for name in OBJECTIVES if name != "mvm"}
        missing = {f"objectives.{part}": "a new head" for part in ("simvtp_mlm.text_cls.*", "simvtp_vtm.vtm_head.*")}
    spec = {"encoders": encoders, "objectives": objectives, "masks": MASKS, "variant": options.variant}
    return _finish("pre-trained VideoMAE", found, spec, tensors, "pretrain", missing)


def _video_tower(found: Checkpoint, options: Options) -> Imported:
    spec = {"encoders": {"video": _tower_video_options(found.tensors, "", found, options)}, "objectives": {}}
    spec["encoders"]["video"]["pooling"] = "ln_of_mean"
    tensors = {f"video_encoder.{name}": value for name, value in found.tensors.items()}
    missing = {"encoders.video.tower.fc_norm.*": "the file has none; it starts at 1 and 0"}
    if "fc_norm.weight" not in found.tensors and "norm.weight" in found.tensors:
        spec["encoders"]["video"]["pooling"] = "mean_of_ln"
    return _finish("VideoMAE encoder", found, spec, tensors, "dual", missing, strip="video_encoder.")


def _dual(found: Checkpoint, options: Options) -> Imported:
    tensors = _without_position_ids(found)
    spec = {
        "encoders": {
            "video": _tower_video_options(tensors, "video_encoder.", found, options),
            "text": _tower_text_options(tensors, "text_encoder.", found, options),
        },
        "objectives": {"simvtp_vtc": {"name": "simvtp_vtc", "video": "clean", "text": "clean"}},
        "variant": options.variant,
    }
    missing = {}
    if options.variant == "released":
        for prefix, ours in zip(DEAD, ("video.unused_text_embeddings", "text.unused_patch_embed"), strict=True):
            if not any(name.startswith(prefix) for name in tensors):
                missing[f"encoders.{ours}.*"] = "never used; the file has none"
    else:  # the repaired model has no place for weights that nothing reads
        dead = [name for name in tensors if name.startswith(DEAD)]
        found.dropped |= dict.fromkeys(dead, "never used by the released model")
        tensors = {name: value for name, value in tensors.items() if name not in dead}
    return _finish("fine-tuned SimVTP", found, spec, tensors, "dual", missing)


def _finish(
    kind: str,
    found: Checkpoint,
    spec: dict[str, Any],
    tensors: Mapping[str, Tensor],
    layout: str,
    missing: Mapping[str, str] | None = None,
    strip: str = "",
) -> Imported:
    """Rename, and put the report together."""
    renamed, unknown = from_original(tensors, layout)
    theirs = {ours: name for name in tensors if name not in unknown for ours in from_original({name: None}, layout)[0]}
    state = {ours: value for ours, value in renamed.items() if _has_place(ours, spec)}
    used = {theirs[ours].removeprefix(strip): ours for ours in state}
    lost = [*unknown, *(theirs[ours] for ours in renamed if ours not in state)]
    found.dropped |= {name.removeprefix(strip): "no part of the model" for name in lost}
    report = {
        "kind": kind,
        "file": str(found.file),
        "used": used,
        "dropped": found.dropped,
        "missing": dict(missing or {}),
        "notes": found.notes,
    }
    return spec, state, report


def _has_place(ours: str, spec: Mapping[str, Any]) -> bool:
    """Whether the model that ``spec`` describes has the part that a tensor belongs to."""
    section, part, *rest = ours.split(".")
    if section == "objectives":
        return part in spec["objectives"]
    other_norm = {"ln_of_mean": "norm", "mean_of_ln": "fc_norm"}
    if part not in spec["encoders"]:
        return False
    return not (rest[0] == "tower" and rest[1] == other_norm[spec["encoders"][part]["pooling"]])


def _towers_of(
    spec: Mapping[str, Any],
    state: Mapping[str, Tensor],
    used: Mapping[str, str],
    variant: str | None,
    report: Mapping[str, Any],
) -> Imported:
    """Spec, tensors and report of the towers that start from a pre-training model in vtp names."""
    video, text, fusion = (dict(spec["encoders"][slot]) for slot in ("video", "text", "fusion"))
    size = {key: fusion[key] for key in ("width", "depth", "heads")} | {"name": "simvtp_tower"}
    text |= size | {"preset": fusion.get("preset", "base")}
    video |= size | {"preset": fusion.get("preset", "base")}
    missing: dict[str, str] = {}
    if variant == "released":
        words, positions = (state[f"encoders.text.embeddings.{n}_embeddings.weight"] for n in ("word", "position"))
        video |= {"unused_vocabulary": len(words), "unused_positions": len(positions)}
        text |= {"unused_tubelet": video.get("tubelet", 2), "unused_patch": video.get("patch", 16)}
        missing |= {f"encoders.{tower}.tower.fc_norm.*": "starts at 1 and 0" for tower in ("video", "text")}
        missing |= {
            "encoders.video.unused_text_embeddings.*": "never used",
            "encoders.text.unused_patch_embed.*": "never used",
        }
    towers = dual_from_pretrained(state, keep_norm=variant is None)
    ours_to_theirs = {ours: theirs for theirs, ours in used.items()}
    kept: dict[str, str] = {}
    for name in state:
        made = list(dual_from_pretrained({name: None}, keep_norm=variant is None))
        if made:
            kept[ours_to_theirs[name]] = " and ".join(made)
    dropped = dict(report.get("dropped", {})) | {name: "no part of the towers" for name in used if name not in kept}
    return (
        {
            "encoders": {"video": video, "text": text},
            "objectives": {"simvtp_vtc": {"name": "simvtp_vtc", "video": "clean", "text": "clean"}},
            "variant": variant,
        },
        towers,
        {
            "kind": "two towers from a pre-trained SimVTP",
            "file": str(report.get("file", "")),
            "used": kept,
            "dropped": dropped,
            "missing": missing,
            "notes": list(report.get("notes", [])),
        },
    )


def _own(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]] | None:
    """Specification and tensors of a vtp checkpoint of the shared model; None if the folder is of another program."""
    import json

    from safetensors.torch import load_file

    from vtp_simvtp.vit import shape_of

    spec = json.loads((path / "config.json").read_text(encoding="utf-8")).get("spec")
    if not isinstance(spec, dict):
        return None
    encoders = spec.get("encoders", {})
    names = {slot: (encoders.get(slot) or {}).get("name") for slot in ("video", "text", "fusion")}
    if set(names.values()) != {"simvtp"}:
        raise DataError(f"{path} is a vtp model with encoders {names}, expected the shared model (model=simvtp).")
    fusion = encoders["fusion"]
    shape = shape_of(fusion.get("preset", "base"), *(fusion.get(key) for key in ("width", "depth", "heads")))
    fusion |= {"width": shape.width, "depth": shape.depth, "heads": shape.heads}
    encoders["text"]["tokenizer"] = str(path / "assets" / "encoders" / "text" / "tokenizer.json")
    return spec, load_file(path / "model.safetensors")


def _without_position_ids(found: Checkpoint) -> dict[str, Tensor]:
    ids = [name for name in found.tensors if name.endswith("position_ids")]
    found.dropped |= dict.fromkeys(ids, "position numbers that older transformers wrote")
    return {name: value for name, value in found.tensors.items() if name not in ids}


def _video_options(tensors: Mapping[str, Tensor], prefix: str, found: Checkpoint, options: Options) -> dict[str, Any]:
    weight = tensors.get(f"{prefix}patch_embed.proj.weight")
    if weight is None or weight.dim() != 5 or weight.shape[1] != 3:
        shape = "missing" if weight is None else f"of shape {tuple(weight.shape)}"
        raise DataError(
            f"{found.file}: {prefix}patch_embed.proj.weight is {shape}, expected a Conv3d weight (D, 3, tubelet, p, "
            f"p). "
            "An image model (MAE, ViT) has no tubelets."
        )
    return {
        "name": "simvtp",
        "preset": "base",
        "width": weight.shape[0],
        "depth": _depth(tensors, f"{prefix}blocks."),
        "frames": options.frames or int(found.config.get("num_frames", 16)),
        "size": options.size or int(found.config.get("image_size", 224)),
        "tubelet": weight.shape[2],
        "patch": weight.shape[3],
    }


def _text_options(tensors: Mapping[str, Tensor], prefix: str, options: Options) -> dict[str, Any]:
    words, positions = (_need(tensors, f"{prefix}{name}_embeddings.weight") for name in ("word", "position"))
    return {
        "name": "simvtp",
        "preset": "base",
        "width": words.shape[1],
        "tokenizer": options.tokenizer,
        "vocabulary": words.shape[0],
        "positions": positions.shape[0],
        "max_length": positions.shape[0],
    }


def _fusion_options(tensors: Mapping[str, Tensor], found: Checkpoint, options: Options) -> dict[str, Any]:
    return {
        "name": "simvtp",
        "preset": "base",
        **_blocks(tensors, "encoder.", found, options),
    }


def _tower_video_options(
    tensors: Mapping[str, Tensor], prefix: str, found: Checkpoint, options: Options
) -> dict[str, Any]:
    out = _video_options(tensors, prefix, found, options) | _tower(tensors, prefix, found, options)
    words, positions = (tensors.get(f"{prefix}text_embeddings.{n}_embeddings.weight") for n in ("word", "position"))
    if options.variant == "released" and words is not None and positions is not None:
        out |= {"unused_vocabulary": words.shape[0], "unused_positions": positions.shape[0]}
    return out


def _tower_text_options(
    tensors: Mapping[str, Tensor], prefix: str, found: Checkpoint, options: Options
) -> dict[str, Any]:
    out = _text_options(tensors, f"{prefix}text_embeddings.", options) | _tower(tensors, prefix, found, options)
    weight = tensors.get(f"{prefix}patch_embed.proj.weight")
    if options.variant == "released" and weight is not None:
        out |= {"unused_tubelet": weight.shape[2], "unused_patch": weight.shape[3]}
    return out


def _tower(tensors: Mapping[str, Tensor], prefix: str, found: Checkpoint, options: Options) -> dict[str, Any]:
    out = _blocks(tensors, prefix, found, options)
    out.pop("mlp_ratio", None)
    return {"name": "simvtp_tower", **out, "pooling": "ln_of_mean"}


def _blocks(tensors: Mapping[str, Tensor], prefix: str, found: Checkpoint, options: Options) -> dict[str, Any]:
    width = _need(tensors, f"{prefix}blocks.0.norm1.weight").shape[0]
    out: dict[str, Any] = {
        "width": width,
        "depth": _depth(tensors, f"{prefix}blocks."),
        "heads": _heads("heads", options.heads or found.config.get("num_attention_heads"), width, found),
    }
    if f"{prefix}blocks.0.gamma_1" in tensors:
        out["init_values"] = 1e-5  # any positive number allocates the factors, which the file then fills
    return out


def _decoder_options(tensors: Mapping[str, Tensor], found: Checkpoint, options: Options) -> dict[str, Any]:
    width = _need(tensors, "mask_token").shape[-1]
    return {
        "decoder_width": width,
        "decoder_depth": _depth(tensors, "decoder.blocks."),
        "decoder_heads": _heads(
            "decoder_heads", options.decoder_heads or found.config.get("decoder_num_attention_heads"), width, found
        ),
    }


def _depth(tensors: Mapping[str, Tensor], prefix: str) -> int:
    return 1 + max(
        (int(name.removeprefix(prefix).split(".")[0]) for name in tensors if name.startswith(prefix)), default=-1
    )


def _heads(option: str, given: Any, width: int, found: Checkpoint) -> int:
    if given is None and width % 64:
        raise DataError(
            f"{found.file}: a width of {width} does not tell the number of attention heads (64 channels each is the "
            f"rule of "
            f"ViT-S, B and L). Say it: {option}=..."
        )
    heads = int(given or width // 64)
    if width % heads:
        raise DataError(f"{found.file}: {option}={heads} does not divide the width {width}.")
    return heads


def _need(tensors: Mapping[str, Tensor], name: str) -> Tensor:
    if name not in tensors:
        raise DataError(f"the checkpoint is not whole: it lacks {name}.")
    return tensors[name]


def _bert_embeddings(source: str) -> dict[str, Tensor]:
    from transformers import BertModel

    try:
        embeddings = BertModel.from_pretrained(source, add_pooling_layer=False).embeddings.state_dict()
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise DataError(f"bert={source} cannot be loaded ({reason}). Give a hub name or a folder of a BERT.") from error
    return {name: value.to(torch.float32) for name, value in embeddings.items() if not name.endswith("position_ids")}
