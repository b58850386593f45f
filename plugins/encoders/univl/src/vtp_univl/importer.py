"""``vtp import antmmf FILE OUT``: checkpoints of AntMMF (Base-VTP, SNP-S3, CNVid-VTP, DMAE) as vtp models.

| FILE | what comes out, besides text, video and cross encoder |
|---|---|
| pre-training | ``univl/vtc``, and of ``univl/vtm``, ``mlm``, ``mlm_text``, ``itm`` those of which it has the head |
| retrieval, multiple choice | ``univl/vtc``, ``univl/vtm`` |
| question answering, classification | ``qa``, or ``classification``, over the answers of ``answers=FILE`` |
| with DMAE | ``univl/dmae`` as well |

Sizes are read off the tensors, except what shapes do not tell, which is an option. Further names of one tensor must
hold equal values. A tensor that has no place is an error, and so is a place without a tensor.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from vtp.errors import DataError
from vtp.model.importing import Checkpoint, Imported, read_checkpoint
from vtp_univl.backbones import PVT, RESNET, SWIN
from vtp_univl.keys import ALIASES, NEVER_READ, backbone_kind, is_sequence, split_prefix, to_ours
from vtp_univl.video import carried_name

__all__ = ["import_antmmf", "read_answers"]

WORDS = "text_encoder.embeddings.word_embeddings.weight"
MLM = "mlm_head.{}.cls.predictions."
RECOMPUTED = r".*embeddings\.position_ids"  # numbers 0, 1, 2, ... that old versions of transformers wrote


def import_antmmf(
    path: Path,
    *,
    tokenizer: str = "bert-base-uncased",
    heads: int | None = None,
    backbone_heads: list[int] | None = None,
    frames: int | None = None,
    size: int | None = None,
    max_length: int = 30,
    answers: str | None = None,
    classifier: Literal["qa", "classification"] = "qa",
    moco: bool = False,
    interaction: Literal["ti", "wti", "att_ti", "att_wti"] | None = None,
    partial_type: Literal[2, 3, 4] = 4,
    variant: Literal["released"] | None = None,
) -> Imported:
    """Read a checkpoint of AntMMF.

    Args:
        path: file; of several states in it (``model``, ``optimizer``, ...) the model's.
        tokenizer: of the words: hub name, folder or vocab.txt; ``bert-base-chinese`` for Chinese checkpoints.
        heads: attention heads of BERT; null is one per 64 channels.
        backbone_heads: attention heads per stage of a PVTv2 that is none of B0 to B5.
        frames, size: of the videos, in frames and pixels; null is 4 and 224.
        max_length: longest text in tokens.
        answers: file with the names of the classes in their order: a JSON list, or one per line. Null names them
            ``answer 0``, ``answer 1``, ...
        classifier: what the classes are: answers of questions, or classes of clips without a caption (UCF101).
        moco: keep queues and key encoders, to go on with pre-training.
        interaction: of DMAE, which shapes do not tell; null is ``wti`` or ``ti``, as the file has weights or not.
        partial_type: of DMAE, where the file has its weight predictors.
        variant: null as vtp repairs the losses, or ``released``. Features and scores are the same.

    Raises:
        DataError: the file cannot be read safely, is no checkpoint of AntMMF, or not a whole one.
    """
    found = _named(read_checkpoint(path))
    _check_copies(found.checkpoint)
    found.kind = _kind(found.checkpoint)
    _drop_moco(found.checkpoint, moco)
    names = found.checkpoint.tensors
    spec: dict[str, Any] = {"encoders": {"fusion": {"name": "univl", "share_with": "text"}}}
    spec["encoders"]["text"] = _text(found.checkpoint, tokenizer, heads, max_length)
    spec["encoders"]["video"] = _video(found.checkpoint, found.kind, backbone_heads, frames, size)
    _carry(found, interaction)
    classes = names.get("clf.weight")
    objectives = ["univl/moco" if moco else "univl/vtc"] if classes is None else []
    heads_of = {"vtm": "similarity_dense.", "itm": "itm_head.", "mlm": MLM.format("transformer_mlm")}
    heads_of["mlm_text"] = MLM.format("text_encoder_mlm")
    objectives += [f"univl/{name}" for name, prefix in heads_of.items() if _any(names, prefix)]
    objectives += ["univl/dmae"] if _any(names, "dmae_utils.") else []
    if classes is not None:
        objectives.append(classifier)
        spec["answers"] = _answers(answers, len(classes), found.checkpoint)
    spec |= _recipe(objectives, variant)
    if found.carried:
        spec["encoders"]["video"]["carried"] = {name: list(tensor.shape) for name, tensor in found.carried.items()}
    _fit_objectives(spec["objectives"], found.checkpoint, spec["encoders"]["text"], interaction, partial_type)
    return _imported(found, spec, _what(names))


@dataclass(slots=True)
class _Found:
    """A file whose names have lost what differs from task to task."""

    checkpoint: Checkpoint
    prefixes: dict[str, str]
    recomputed: list[str]
    kind: str = ""
    carried: dict[str, Tensor] = field(default_factory=dict)


def _named(checkpoint: Checkpoint) -> _Found:
    """Split off the prefixes; a name that is there twice then is an error."""
    prefixes: dict[str, str] = {}
    tensors: dict[str, Tensor] = {}
    for full, tensor in checkpoint.tensors.items():
        prefix, name = split_prefix(full)
        if name in tensors:
            raise DataError(f"{checkpoint.file} holds {name} twice, under {prefix!r} and another prefix.")
        prefixes.setdefault(name.split(".")[0], prefix)
        tensors[name] = tensor
    if WORDS not in tensors or not _any(tensors, "img_encoder."):
        some = ", ".join(sorted(checkpoint.tensors)[:5])
        raise DataError(
            f"{checkpoint.file} is no checkpoint of AntMMF's video-text models: its {len(tensors)} tensors are {some}, "
            f"... Expected text_encoder.* with word embeddings, img_encoder.* and cross_pooler.*, below model."
        )
    recomputed = [name for name in tensors if re.fullmatch(RECOMPUTED, name)]
    checkpoint.tensors = tensors
    checkpoint.drop(recomputed, "position numbers that older transformers wrote")
    return _Found(checkpoint, prefixes, recomputed)


def _check_copies(found: Checkpoint) -> None:
    """Drop further names of tensors, whose values must be equal and which must be there all or not at all."""
    tensors, wrong = found.tensors, []
    copies: dict[str, str] = {}
    for alias, read in ALIASES:
        for name in [n for n in tensors if n == alias or (alias.endswith(".") and n.startswith(alias))]:
            if name in copies:
                continue
            own = read + name.removeprefix(alias)
            if own not in tensors:
                raise DataError(
                    f"{found.file}: the checkpoint is not whole: {name} is a second name of {own}, which it lacks."
                )
            copies[name] = own
            if not torch.equal(tensors[name], tensors[own]):
                wrong.append(f"{name} and {own}")
    if wrong:
        raise DataError(
            f"{found.file}: {len(wrong)} pairs of names that AntMMF has for one tensor hold different values: "
            f"{', '.join(wrong[:3])}{', ...' if wrong[3:] else ''}. The file was put together from several, or its "
            "text and cross encoder do not share their weights, which this importer cannot express."
        )
    for alias, read in ALIASES:
        lacking = [n for n in tensors if _under(n, alias, read) and alias + n.removeprefix(read) not in tensors]
        if lacking and any(name.startswith(alias) for name in copies):
            raise DataError(
                f"{found.file}: the checkpoint is not whole: it lacks {len(lacking)} of the names below {alias}, the "
                f"first is {alias + lacking[0].removeprefix(read)}."
            )
    found.drop(copies, "another name of a tensor that is used")


def _under(name: str, alias: str, read: str) -> bool:
    """Whether a name should have a second one below ``alias``."""
    if not name.startswith(read) or name.startswith(alias):
        return False
    return not read.startswith("text_encoder.") or name.split(".")[1] in ("embeddings", "encoder", "pooler")


def _kind(found: Checkpoint) -> str:
    nets = [name.split(".", 2)[2] for name in found.tensors if re.match(r"img_encoder\.(swin|model)\.", name)]
    kind = backbone_kind(nets)
    if kind is None:
        whole = [name for name in found.tensors if re.match(r"img_encoder\.(?!img_fc|output_proj)", name)]
        clip = any(re.search(r"class_embedding|cls_token|resblocks", name) for name in whole)
        raise DataError(
            f"{found.file}: img_encoder is neither a PVTv2, a Video Swin nor a ResNet by its names "
            f"({', '.join(sorted(whole)[:3]) or 'there are none'}). "
            + (
                "AntMMF has CLIP's vision transformer too, but no configuration of it was released and how its tensors "
                "are named is not documented, so it is not imported; encoder.video.backbone=clip with "
                "encoder.video.pretrained=true starts from the weights of OpenAI."
                if clip
                else "Other image encoders of AntMMF are not imported."
            )
        )
    return kind


def _drop_moco(found: Checkpoint, keep: bool) -> None:
    names = [name for name in found.tensors if name.startswith("moco_utils.")]
    if names and not keep:
        found.drop(names, "MoCo's queues and key encoders, for pre-training alone; moco=true keeps them")
    if keep and not names:
        raise DataError(f"{found.file} has no queues and key encoders of MoCo. Leave moco=true out.")
    heads = [n for n in found.tensors if n.startswith("moco_utils.") and re.fullmatch(NEVER_READ[0], n)]
    found.drop(heads, "never read")


def _text(found: Checkpoint, tokenizer: str, heads: int | None, max_length: int) -> dict[str, Any]:
    words = found.need(WORDS)
    positions = found.need("text_encoder.embeddings.position_embeddings.weight")
    return {
        "name": "univl",
        "preset": "base",
        "width": words.shape[1],
        "depth": found.depth("text_encoder.encoder.layer."),
        "heads": found.heads("heads", heads, words.shape[1]),
        "tokenizer": tokenizer,
        "vocabulary": words.shape[0],
        "positions": positions.shape[0],
        "max_length": min(max_length, positions.shape[0]),
    }


def _video(
    found: Checkpoint, kind: str, heads: list[int] | None, frames: int | None, size: int | None
) -> dict[str, Any]:
    theirs = {name: tensor for name, tensor in found.tensors.items() if re.match(r"img_encoder\.(swin|model)\.", name)}
    net = {(to_ours(n, kind) or "").removeprefix("encoders.video.backbone.net."): t for n, t in theirs.items()}
    if kind == "pvt":
        sizes = _pvt(found, net, heads)
    elif kind == "swin":
        sizes = _swin(found, net)
    else:
        sizes = {"depths": [_count(net, f"layer{stage}.") for stage in range(1, 5)]}
    named = {"pvt": PVT, "swin": SWIN, "resnet": RESNET}[kind]
    name = next((name for name, usual in named.items() if usual == sizes), None)
    video: dict[str, Any] = {"name": "univl", "preset": "base", "backbone": name or next(iter(named))}
    video |= {"width": found.need(WORDS).shape[1], "frames": frames, "size": size}
    video |= {} if name else {"sizes": sizes}
    # frozen BatchNorm counts no batches
    video |= {"frozen_norm": False} if any(name.endswith("num_batches_tracked") for name in net) else {}
    return video


def _carry(found: _Found, interaction: str | None) -> None:
    """Take out what nothing reads; the video encoder keeps it for the way back."""
    tensors = found.checkpoint.tensors
    patterns = [*NEVER_READ]
    if interaction in ("ti", "att_ti"):
        patterns.append(r"dmae_utils\.(text|video)_weight_fc\..*")
    for name in [n for n in tensors if any(re.fullmatch(pattern, n) for pattern in patterns)]:
        if name.endswith("predictions.bias") and name.replace(".bias", ".decoder.bias") not in tensors:
            continue  # it is in use then
        found.carried[name] = tensors[name]
        found.checkpoint.drop([name], "never read; kept for vtp export antmmf")


def _count(net: Mapping[str, Tensor], prefix: str) -> int:
    """Number of blocks below a prefix."""
    return len({name.removeprefix(prefix).split(".")[0] for name in net if name.startswith(prefix)})


def _pvt(found: Checkpoint, net: Mapping[str, Tensor], heads: list[int] | None) -> dict[str, Any]:
    stages = range(_count(net, "stages."))
    first = [f"stages.{stage}.blocks.0." for stage in stages]
    try:
        widths = [net[f"{block}norm1.weight"].shape[0] for block in first]
        strides = [net[f"{b}attn.sr.weight"].shape[-1] if f"{b}attn.sr.weight" in net else 1 for b in first]
        ratios = [net[f"{block}mlp.fc1.weight"].shape[0] // width for block, width in zip(first, widths, strict=True)]
    except KeyError as error:
        raise DataError(f"{found.file}: the checkpoint is not whole: its PVTv2 lacks {error}.") from error
    linear = len(first) > 1 and f"{first[-1]}attn.sr.weight" in net
    usual = next((sizes["heads"] for sizes in PVT.values() if sizes["widths"] == widths), None)
    chosen = heads or usual
    if chosen is None or len(chosen) != len(widths) or any(w % h for w, h in zip(widths, chosen, strict=True)):
        raise DataError(
            f"{found.file}: widths of {widths} do not tell the attention heads per stage of this PVTv2. Say them: "
            "backbone_heads=[...]."
        )
    return {
        "widths": widths,
        "heads": list(chosen),
        "mlp_ratios": ratios,
        "reductions": [8, 4, 2, 1] if linear else strides,
        "linear": linear,
        "depths": [_count(net, f"stages.{stage}.blocks.") for stage in stages],
    }


def _swin(found: Checkpoint, net: Mapping[str, Tensor]) -> dict[str, Any]:
    stages = range((_count(net, "features.") + 1) // 2)
    try:
        tables = [net[f"features.{2 * stage}.0.attn.relative_position_bias_table"] for stage in stages]
        width = net["patch_embed.proj.weight"].shape[0]
    except KeyError as error:
        raise DataError(f"{found.file}: the checkpoint is not whole: its Video Swin lacks {error}.") from error
    index = net.get("features.0.0.attn.relative_position_index")
    places = 8 * 7 * 7 if index is None else index.shape[0]
    rows = tables[0].shape[0]
    fitting = [
        [places // side**2, side, side]
        for side in range(1, places + 1)
        if places % side**2 == 0 and (2 * (places // side**2) - 1) * (2 * side - 1) ** 2 == rows
    ]
    if not fitting:
        raise DataError(f"{found.file}: no window of this Video Swin has {places} places and {rows} distances.")
    return {
        "width": width,
        "heads": [table.shape[1] for table in tables],
        "window": fitting[0],
        "depths": [_count(net, f"features.{2 * stage}.") for stage in stages],
    }


def _fit_objectives(
    objectives: dict[str, Any], found: Checkpoint, text: dict[str, Any], interaction: str | None, partial_type: int
) -> None:
    """Options of the objectives that the tensors tell."""
    if "vtm" in objectives:
        objectives["vtm"]["hidden"] = found.need("similarity_dense.0.weight").shape[0]
        if "mlm" in objectives:
            objectives["vtm"]["masked"] = ["text"]  # in pre-training all words are masked
    if (queue := found.tensors.get("moco_utils.txt_queue")) is not None:
        objectives["vtc"]["queue_size"] = queue.shape[1]
    if "dmae" in objectives:
        dmae = objectives["dmae"]
        heads = sum(re.fullmatch(r"dmae_utils\.text_weight_fc\.(\d+\.)?weight", n) is not None for n in found.tensors)
        dmae |= {"interaction": interaction or ("wti" if heads else "ti"), "wti_arch": max(heads, 1)}
        frames = _any(found.tensors, "dmae_utils.frame_position_embeddings")
        dmae |= {"sim_header": "seqTransf" if frames else "meanP", "partial_type": -1}
        if (weight := found.tensors.get("dmae_utils.v2t_linear_xwp.qk_proj.weight")) is not None:
            dmae |= {"partial_type": partial_type, "max_words": weight.shape[0], "max_frames": weight.shape[1] - 1}
            text["max_length"] = min(text["max_length"], weight.shape[0])


def _answers(file: str | None, classes: int, found: Checkpoint) -> list[str]:
    if file is None:
        found.notes.append(f"the {classes} answers have no names; answers=FILE gives them")
        return [f"answer {number}" for number in range(classes)]
    names = read_answers(file)
    if names is None or len(names) != classes or len(set(names)) != classes:
        raise DataError(
            f"answers={file} holds {'no' if names is None else len(names)} answers, and the classifier has "
            f"{classes} classes. Give a JSON list, or one answer per line, each once."
        )
    return names


def read_answers(file: str) -> list[str] | None:
    """Answers in the order of their classes: a JSON list, a JSON dict answer -> number, or one per line. None where the
    file holds something else.

    Raises:
        DataError: it cannot be read.
    """
    try:
        text = Path(file).expanduser().read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise DataError(f"answers={file} cannot be read ({error}).") from error
    try:
        names = json.loads(text)
    except ValueError:
        names = [line.strip() for line in text.splitlines() if line.strip()]
    if isinstance(names, dict):  # answer -> number
        names = sorted(names, key=names.__getitem__)
    return [str(name) for name in names] if isinstance(names, list) else None


def _recipe(objectives: list[str], variant: str | None) -> dict[str, Any]:
    """Objectives, masks and variant of a specification, as ``vtp run model=univl objective=[...]`` has them."""
    from vtp.cli.run import compose

    found = compose(["model=univl", f"objective=[{','.join(objectives)}]", f"variant={variant or 'null'}"])
    return {key: found[key] for key in ("objectives", "masks", "variant")}


def _what(names: Mapping[str, Tensor]) -> str:
    if _any(names, "mlm_head."):
        return "pre-trained UniVL of AntMMF"
    return "UniVL of AntMMF that answers questions" if "clf.weight" in names else "UniVL of AntMMF for retrieval"


def _imported(found: _Found, spec: dict[str, Any], what: str) -> Imported:
    """Rename what is left; nothing may be left over."""
    checkpoint = found.checkpoint
    used: dict[str, str] = {}
    state: dict[str, Tensor] = {}
    unknown = []
    for name, tensor in checkpoint.tensors.items():
        theirs = name
        if name.endswith("cls.predictions.bias"):  # the one in use where there is no decoder.bias
            theirs = name.replace(".bias", ".decoder.bias")
        ours = to_ours(theirs, found.kind)
        if ours and ours.startswith("objectives.qa.") and "classification" in spec["objectives"]:
            ours = ours.replace(".qa.", ".classification.", 1)
        section, part = (ours or "..").split(".")[:2]
        if ours is None or part not in spec.get(section, {}):
            unknown.append(name)
            continue
        used[name], state[ours] = ours, tensor
    if unknown:
        raise DataError(
            f"{checkpoint.file}: {len(unknown)} tensors have no place in this model: {', '.join(unknown[:6])}"
            f"{', ...' if unknown[6:] else ''}. The importer knows the names of Base-VTP, SNP-S3, CNVid-VTP and DMAE; "
            "leave others out of the file."
        )
    for name, tensor in found.carried.items():
        state[f"encoders.video.carried.{carried_name(name)}"] = tensor
    if "img_proj" in found.carried:
        checkpoint.notes.append("img_proj is never set by AntMMF: its numbers have no meaning")
    report = {
        "kind": what,
        "file": str(checkpoint.file),
        "used": used,
        "dropped": checkpoint.dropped,
        "missing": {
            "objectives.vtc.*_identity": "which captions and clips the keys are of; AntMMF does not know",
            "objectives.vtc.key_encoders.*.updates": "counts from here",
            "objectives.vtc.key_encoders.video.module.carried.*": "never read",
        }
        if "moco_utils.txt_queue" in checkpoint.tensors
        else {},
        "notes": checkpoint.notes,
        "layout": {
            "prefixes": found.prefixes,
            "position_ids": found.recomputed,
            "copies": sorted({a for a, _ in ALIASES if any(n.startswith(a) for n in checkpoint.dropped)}),
            "decoder_bias": [n for n in used if n.endswith("decoder.bias")],
            "sequence": found.kind == "resnet" and is_sequence(_nets(used)),
        },
    }
    return spec, state, report


def _nets(names: Mapping[str, Any]) -> list[str]:
    return [name.split(".", 2)[2] for name in names if name.startswith("img_encoder.model.")]


def _any(names: Mapping[str, Any], prefix: str) -> bool:
    return any(name.startswith(prefix) for name in names)
