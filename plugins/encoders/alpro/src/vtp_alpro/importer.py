"""``vtp import alpro FILE OUT``: weights of the released code (arXiv:2112.09583) as vtp models.

| FILE | what comes out |
|---|---|
| pre-trained, or fine-tuned for retrieval | encoders, objectives vtc and vtm |
| fine-tuned to answer questions | encoders, objective qa |

Sizes are read off the tensors, except what shapes do not tell: heads (64 channels each unless given), which layers of
the BERT are for texts (the first half unless given), names of answers. Heads of pre-training alone (words, entities)
have no place in these models and are left out.
"""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any, Literal

import torch
from torch.nn.functional import interpolate

from vtp.errors import DataError
from vtp.model.importing import Checkpoint, Imported, PrefixTable, read_checkpoint
from vtp_univl.importer import read_answers

__all__ = ["import_alpro", "keys"]

VIDEO = "visual_encoder.model."
TEXT = "text_encoder."
BERT = "text_encoder.bert."  # where the BERT of a file has a head for words, as in pre-training and retrieval
DROPPED = {
    r"prompter\..*": "the prompter of entities, for pre-training alone",
    r"mpm_head\..*": "the head of entities, for pre-training alone",
    r"(image|video)_prompt_feat": "the prompts of entities, for pre-training alone",
    r"text_encoder\.cls\..*": "the head of words, for pre-training alone",
    r"text_encoder\.(bert\.)?pooler\..*": "a pooler that nothing reads",
    r".*\.position_ids": "position numbers that older transformers wrote",
    r"visual_encoder\.model\.head\..*": "a head of classes that nothing reads",
}


def keys(text_layers: int, bert: str = BERT) -> PrefixTable:
    """Names of the released code, and ours.

    Args:
        text_layers: how many layers of the BERT read texts; the others read pairs.
        bert: what its names begin with.
    """
    return PrefixTable(
        (
            (VIDEO, "encoders.video."),
            (f"{bert}embeddings.", "encoders.text.embeddings."),
            *((f"{bert}encoder.layer.{n}.", f"encoders.text.encoder.layer.{n}.") for n in range(text_layers)),
            *(
                (f"{bert}encoder.layer.{n}.", f"encoders.fusion.encoder.layer.{n - text_layers}.")
                for n in range(text_layers, 100)
            ),
            ("vision_proj.", "objectives.vtc.proj.video."),
            ("text_proj.", "objectives.vtc.proj.text."),
            ("temp", "objectives.vtc.logit_scale"),
            ("itm_head.", "objectives.vtm.head.0."),
            ("classifier.", "objectives.qa.head."),
        )
    )


def import_alpro(
    path: Path,
    *,
    tokenizer: str = "bert-base-uncased",
    answers: str | None = None,
    frames: int | None = None,
    max_length: int = 40,
    text_layers: int | None = None,
    heads: int | None = None,
    video_heads: int | None = None,
    variant: Literal["released"] | None = None,
) -> Imported:
    """Read an ALPRO checkpoint.

    Args:
        path: file, see :mod:`vtp.model.importing`.
        tokenizer: of its BERT: a hub name, a folder or a vocab.txt.
        answers: file with the answers of a classifier in the order of its classes: a JSON list, a JSON dict answer ->
            number, or one per line. Classes behind the last answer (the released head has at least 1,500) get names
            that no answer has.
        frames: of a clip; another number than the file's takes the nearest of its times for each frame.
        max_length: longest text in tokens; the released recipes have 40, DiDeMo's 50.
        text_layers: layers of the BERT that read texts; null = half of them.
        heads, video_heads: attention heads of BERT and TimeSformer.
        variant: ``released`` ranks by probabilities that are rounded to 4 decimals.

    Raises:
        DataError: no such file, not an ALPRO checkpoint, not whole, or the options do not fit it.
    """
    found = read_checkpoint(path)
    if f"{VIDEO}time_embed" not in found.tensors or not any(name.startswith(TEXT) for name in found.tensors):
        some = ", ".join(list(found.tensors)[:3])
        raise DataError(
            f"{found.file} holds no ALPRO: its {len(found.tensors)} tensors are {some}, ... Expected "
            f"{VIDEO}time_embed (divided attention) and {TEXT}*."
        )
    for pattern, reason in DROPPED.items():
        found.drop([name for name in found.tensors if re.fullmatch(pattern, name)], reason)
    bert = BERT if any(name.startswith(BERT) for name in found.tensors) else TEXT
    depth = found.depth(f"{bert}encoder.layer.")
    layers = depth // 2 if text_layers is None else text_layers
    if not 0 < layers < depth:
        raise DataError(
            f"{found.file}: text_layers={layers}: of its {depth} layers of BERT some must read texts and some pairs. "
            f"Give text_layers=1 to {max(depth - 1, 1)}."
        )
    _at_frames(found, frames)
    objectives = _objectives(found)
    spec: dict[str, Any] = {
        "encoders": {
            "video": _video(found, video_heads),
            "text": {
                "name": "alpro",
                "depth": layers,
                "tokenizer": tokenizer,
                "vocabulary": found.need(f"{bert}embeddings.word_embeddings.weight").shape[0],
                "positions": (positions := found.need(f"{bert}embeddings.position_embeddings.weight").shape[0]),
                "max_length": min(max_length, positions),
            },
            "fusion": {"name": "alpro", "depth": depth - layers},
        },
        "objectives": objectives,
        "variant": variant,
    }
    width = found.need(f"{bert}embeddings.word_embeddings.weight").shape[1]
    size = {"preset": "base", "width": width, "heads": found.heads("heads", heads, width)}
    spec["encoders"]["text"] |= size
    spec["encoders"]["fusion"] |= size
    if "qa" in objectives:
        spec["answers"] = _answers(found, answers)
    elif answers is not None:
        raise DataError(f"{found.file} has no classifier, so answers={answers} names nothing. Leave it out.")
    kind = "ALPRO that answers questions" if "qa" in objectives else "ALPRO for retrieval"
    table = keys(layers, bert)
    strange = [name for name in found.tensors if table.ours(name) is None]
    if strange:
        raise DataError(
            f"{found.file}: {len(strange)} tensors have no place in this model: {', '.join(strange[:4])}"
            f"{', ...' if strange[4:] else ''}. Leave them out of the file."
        )
    return found.imported(kind, spec, table)


def _video(found: Checkpoint, heads: int | None) -> dict[str, Any]:
    weight = found.need(f"{VIDEO}patch_embed.proj.weight")
    width, patch = weight.shape[0], weight.shape[-1]
    places = found.need(f"{VIDEO}pos_embed").shape[1] - 1
    side = math.isqrt(max(places, 0))
    if weight.dim() != 4 or side == 0 or side**2 != places:
        raise DataError(
            f"{found.file}: {VIDEO}patch_embed.proj.weight {tuple(weight.shape)} and {places} places are no square "
            "picture cut into patches (Conv2d)."
        )
    return {
        "name": "timesformer",
        "preset": "base",
        "width": width,
        "depth": found.depth(f"{VIDEO}blocks."),
        "heads": found.heads("video_heads", heads, width),
        "frames": found.need(f"{VIDEO}time_embed").shape[1],
        "size": side * patch,
        "patch": patch,
    }


def _at_frames(found: Checkpoint, frames: int | None) -> None:
    """The table of times at another number of frames, by nearest neighbours, as the released code loads it."""
    table = found.need(f"{VIDEO}time_embed")
    if frames is None or table.dim() != 3 or frames == table.shape[1]:
        return
    if frames < 1:
        raise DataError(f"frames={frames} must be at least 1.")
    found.tensors[f"{VIDEO}time_embed"] = interpolate(table.transpose(1, 2), size=frames).transpose(1, 2).contiguous()
    found.notes.append(f"times of {table.shape[1]} frames taken for {frames}, the nearest of each")


def _objectives(found: Checkpoint) -> dict[str, Any]:
    """Objectives that the file has heads of, and their tensors as they are here."""
    tensors = found.tensors
    objectives: dict[str, Any] = {}
    if "classifier.2.weight" in tensors:
        left = [name for name in tensors if re.match(r"(vision_proj|text_proj|itm_head)\.|temp$", name)]
        found.drop(left, "of the checkpoint that fine-tuning started from")
        return {"qa": {"name": "alpro_qa", "weight": 1.0}}
    if "vision_proj.weight" in tensors:
        temperature = found.need("temp")
        if temperature.numel() != 1 or not 0 < float(temperature) < math.inf:
            some = temperature.flatten().tolist()[:3]
            raise DataError(f"{found.file}: temp is {some}, expected one temperature above 0.")
        tensors["temp"] = -torch.log(temperature.reshape(1))
        objectives["vtc"] = {"name": "alpro_vtc", "weight": 1.0, "width": tensors["vision_proj.weight"].shape[0]}
        found.notes.append("temp is logit_scale here, log(1 / temp)")
    if "itm_head.weight" in tensors:
        objectives["vtm"] = {"name": "alpro_vtm", "weight": 1.0}
    if not objectives:
        raise DataError(
            f"{found.file} has neither vision_proj and itm_head (retrieval) nor classifier (questions), so nothing in "
            "it can be scored."
        )
    return objectives


def _answers(found: Checkpoint, file: str | None) -> list[str]:
    """Names of the classes."""
    classes = found.need("classifier.2.weight").shape[0]
    if file is None:
        found.notes.append(f"the {classes} answers have no names; answers=FILE gives them")
        return [f"answer {number}" for number in range(classes)]
    names = read_answers(file)
    if names is None or len(names) > classes or len(set(names)) != len(names):
        held = "no" if names is None else len(names)
        raise DataError(
            f"answers={file} holds {held} answers, and the classifier has {classes} classes. Give at most as many, "
            "each once: a JSON list, a JSON dict answer -> number, or one per line."
        )
    if spare := classes - len(names):
        found.notes.append(f"{spare} of the {classes} classes have no answer")
    return [*names, *(f"[no answer {number}]" for number in range(len(names), classes))]
