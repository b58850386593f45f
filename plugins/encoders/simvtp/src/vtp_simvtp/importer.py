"""``vtp import simvtp FILE OUT``: weights of other programs as vtp models.

| FILE | what comes out |
|---|---|
| pre-trained SimVTP | the pre-training model (shared encoder, four objectives) |
| fine-tuned SimVTP | two towers with the objective vtc |
| pre-trained VideoMAE, its own or transformers' naming | video, shared encoder, mvm; with ``bert=`` text embeddings |
| VideoMAE with a classification head | one video tower |

Sizes are read off the tensors, except what shapes do not tell: ``heads`` (width / 64 unless given), ``frames`` and
``size``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from vtp.errors import DataError
from vtp.model.importing import Checkpoint, Imported, read_checkpoint, renames
from vtp_encoders import hub
from vtp_simvtp.keys import DEAD, DUAL, PRETRAIN, VIDEO_TOWER, layout_of
from vtp_simvtp.videomae import from_transformers, is_transformers

__all__ = ["import_simvtp", "retrieval"]


@renames(legacy="variant=released")
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
        path: file or folder, see :mod:`vtp.model.importing`.
        tokenizer: of the words: hub name, folder or vocab.txt.
        bert: for VideoMAE: hub name or folder of a BERT whose word embeddings start the text side.
        heads, decoder_heads: null is the width / 64, or what a config.json says.
        frames, size: of the clips; null is 16 and 224, or what a config.json says.
        variant: ``released`` computes as the released code does, which is what the weights were trained for; null as
            vtp repairs it.

    Raises:
        DataError: the file cannot be read safely, or is neither of these checkpoints.
    """
    found = read_checkpoint(path)
    if is_transformers(found.tensors):
        found.tensors, dropped = from_transformers(found.tensors)
        found.dropped |= dropped
        found.notes.append("names of transformers")
    ids = [name for name in found.tensors if name.endswith("position_ids")]
    found.drop(ids, "position numbers that older transformers wrote")
    parts = _Parts(found, tokenizer, heads, decoder_heads, frames, size, variant == "released")
    layout = layout_of(found.tensors)
    if layout == "dual":
        return _dual(found, parts)
    if layout == "pretrain" and {"encoder.norm.weight", "decoder.norm.weight"} <= found.tensors.keys():
        if any(name.startswith("text_embeddings.") for name in found.tensors):
            return _pretrained(found, parts, "pre-trained SimVTP", {})
        return _videomae(found, parts, bert)
    if layout == "pretrain" and "decoder.norm.weight" not in found.tensors:
        found.tensors = {name.removeprefix("encoder."): value for name, value in found.tensors.items()}
    if {"blocks.0.attn.qkv.weight", "patch_embed.proj.weight"} <= found.tensors.keys():
        return _video_tower(found, parts)
    raise DataError(
        f"{found.file} is neither a SimVTP nor a VideoMAE checkpoint that this importer knows: its "
        f"{len(found.tensors)} tensors are {', '.join(sorted(found.tensors)[:5])}, ... Expected encoder.blocks.* with "
        "decoder.* (pre-trained), video_encoder.* and text_encoder.* (fine-tuned), or videomae.encoder.layer.* "
        "(transformers, with its final layernorm)."
    )


@dataclass(frozen=True, slots=True)
class _Parts:
    """Options of the parts of a model, read off the tensors; what these do not tell is given."""

    found: Checkpoint
    tokenizer: str
    heads: int | None
    decoder_heads: int | None
    frames: int | None
    size: int | None
    released: bool

    @property
    def variant(self) -> str | None:
        return "released" if self.released else None

    def video(self, prefix: str) -> dict[str, Any]:
        weight = self.found.tensors.get(f"{prefix}patch_embed.proj.weight")
        if weight is None or weight.dim() != 5 or weight.shape[1] != 3:
            shape = "missing" if weight is None else f"of shape {tuple(weight.shape)}"
            raise DataError(
                f"{self.found.file}: {prefix}patch_embed.proj.weight is {shape}, expected a Conv3d weight "
                "(D, 3, tubelet, p, p). An image model (MAE, ViT) has no tubelets."
            )
        return {
            "name": "simvtp",
            "preset": "base",
            "width": weight.shape[0],
            "depth": self.found.depth(f"{prefix}blocks."),
            "frames": self.frames or int(self.found.config.get("num_frames", 16)),
            "size": self.size or int(self.found.config.get("image_size", 224)),
            "tubelet": weight.shape[2],
            "patch": weight.shape[3],
        }

    def text(self, prefix: str) -> dict[str, Any]:
        words, positions = (self.found.need(f"{prefix}{name}_embeddings.weight") for name in ("word", "position"))
        return {
            "name": "simvtp",
            "preset": "base",
            "width": words.shape[1],
            "tokenizer": self.tokenizer,
            "vocabulary": words.shape[0],
            "positions": positions.shape[0],
            "max_length": positions.shape[0],
        }

    def blocks(self, prefix: str) -> dict[str, Any]:
        width = self.found.need(f"{prefix}blocks.0.norm1.weight").shape[0]
        heads = self.heads or self.found.config.get("num_attention_heads")
        out: dict[str, Any] = {
            "width": width,
            "depth": self.found.depth(f"{prefix}blocks."),
            "heads": self.found.heads("heads", heads, width),
        }
        if f"{prefix}blocks.0.gamma_1" in self.found.tensors:
            out["init_values"] = 1e-5  # any positive number allocates the factors, which the file then fills
        return out

    def tower(self, prefix: str, embedding: Mapping[str, Any]) -> dict[str, Any]:
        return {**embedding, **self.blocks(prefix), "name": "simvtp_tower", "pooling": "mean_then_norm"}

    def decoder(self) -> dict[str, Any]:
        width = self.found.need("mask_token").shape[-1]
        heads = self.decoder_heads or self.found.config.get("decoder_num_attention_heads")
        return {
            "decoder_width": width,
            "decoder_depth": self.found.depth("decoder.blocks."),
            "decoder_heads": self.found.heads("decoder_heads", heads, width),
        }


def _pretrained(found: Checkpoint, parts: _Parts, kind: str, missing: Mapping[str, str]) -> Imported:
    """The shared encoder with the objectives; without text embeddings, those of video alone."""
    encoders = {
        "video": parts.video("encoder."),
        "fusion": {"name": "simvtp", "preset": "base", **parts.blocks("encoder.")},
    }
    objectives = ["mvm"]
    if "text_embeddings.word_embeddings.weight" in found.tensors:
        encoders["text"] = parts.text("text_embeddings.")
        objectives += ["simvtp/mlm", "simvtp/vtc", "simvtp/vtm"]
    spec = {"encoders": encoders, **_recipe(objectives, parts.variant)}
    spec["objectives"]["mvm"] |= parts.decoder()
    return found.imported(kind, spec, PRETRAIN, missing)


def _videomae(found: Checkpoint, parts: _Parts, bert: str | None) -> Imported:
    missing = {}
    if bert is not None:
        words = _bert_embeddings(bert)
        widths = [words["word_embeddings.weight"].shape[1], found.need("encoder.norm.weight").shape[0]]
        if widths[0] != widths[1]:
            raise DataError(
                f"bert={bert} is {widths[0]} wide, the video encoder {widths[1]}. Choose a BERT of the same width, or "
                "leave bert= out."
            )
        found.tensors |= {f"text_embeddings.{name}": value for name, value in words.items()}
        found.notes.append(f"word embeddings of {bert}")
        missing = {f"objectives.{part}": "a new head" for part in ("mlm.head.*", "vtm.head.*")}
    return _pretrained(found, parts, "pre-trained VideoMAE", missing)


def _video_tower(found: Checkpoint, parts: _Parts) -> Imported:
    video = parts.tower("", parts.video(""))
    if "fc_norm.weight" not in found.tensors and "norm.weight" in found.tensors:
        video["pooling"] = "mean"
    other = "fc_norm." if video["pooling"] == "mean" else "norm."
    found.drop([name for name in found.tensors if name.startswith(other)], "no part of the model")
    missing = {"encoders.video.tower.fc_norm.*": "the file has none; it starts at 1 and 0"}
    return found.imported("VideoMAE encoder", {"encoders": {"video": video}, "objectives": {}}, VIDEO_TOWER, missing)


def _dual(found: Checkpoint, parts: _Parts) -> Imported:
    video = parts.tower("video_encoder.", parts.video("video_encoder."))
    text = parts.tower("text_encoder.", parts.text("text_encoder.text_embeddings."))
    missing = {}
    if parts.released:
        unused = "video_encoder.text_embeddings.{}_embeddings.weight"
        words, positions = (found.tensors.get(unused.format(name)) for name in ("word", "position"))
        if words is not None and positions is not None:
            video |= {"unused_vocabulary": words.shape[0], "unused_positions": positions.shape[0]}
        if (weight := found.tensors.get("text_encoder.patch_embed.proj.weight")) is not None:
            text |= {"unused_tubelet": weight.shape[2], "unused_patch": weight.shape[3]}
        for prefix, ours in zip(DEAD, ("video.unused_text_embeddings", "text.unused_patch_embed"), strict=True):
            if not any(name.startswith(prefix) for name in found.tensors):
                missing[f"encoders.{ours}.*"] = "never used; the file has none"
    else:  # the repaired model has no place for weights that nothing reads
        found.drop([name for name in found.tensors if name.startswith(DEAD)], "never used by the released model")
    spec = {"encoders": {"video": video, "text": text}, **retrieval(parts.variant)}
    return found.imported("fine-tuned SimVTP", spec, DUAL, missing)


def _recipe(objectives: Sequence[str], variant: str | None) -> dict[str, Any]:
    """Objectives, masks and variant of a specification, as ``vtp run model=simvtp objective=[...]`` has them."""
    from vtp.cli.run import compose

    found = compose(["model=simvtp", f"objective=[{','.join(objectives)}]", f"variant={variant or 'null'}"])
    return {key: found[key] for key in ("objectives", "masks", "variant")}


def retrieval(variant: str | None) -> dict[str, Any]:
    """Objective, masks and variant of two towers, which look at clean clips and words."""
    recipe = _recipe(["simvtp/vtc"], variant)
    recipe["objectives"]["vtc"]["masked"] = []
    return recipe


def _bert_embeddings(source: str) -> dict[str, Tensor]:
    from transformers import BertModel

    hub.settle()
    try:
        embeddings = BertModel.from_pretrained(source, add_pooling_layer=False).embeddings.state_dict()
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise DataError(f"bert={source} cannot be loaded ({reason}). Give a hub name or a folder of a BERT.") from error
    return {name: value.to(torch.float32) for name, value in embeddings.items() if not name.endswith("position_ids")}
