"""Recipes of UniVL in the sizes of a test, and what of them is published."""

from __future__ import annotations

from typing import Any

SMALL = {
    "pvt_v2_b2": {"widths": [8, 16, 40, 64], "depths": [1, 1, 1, 1]},
    "swin3d_s": {"width": 12, "depths": [1, 1, 1, 1], "heads": [1, 2, 4, 8]},
    "resnet50": {"depths": [1, 1, 1, 1]},
}


def small(found: dict[str, Any]) -> dict[str, Any]:
    """The specification of a recipe with the sizes of a test; weights and tokenizers of the hub are left out."""
    encoders = {slot: dict(node) for slot, node in found["encoder"].items() if node and node.get("name")}
    encoders["text"] |= {"preset": "tiny", "width": 32, "depth": 1, "tokenizer": "texts", "pretrained": None}
    video = encoders["video"]
    video |= {"pretrained": False, "width": 32}
    if video["backbone"] in SMALL:
        video |= {"size": 64, "sizes": SMALL[video["backbone"]]}
    objectives = {name: dict(node) for name, node in found["objectives"].items()}
    for node in objectives.values():
        node |= {"queue_size": 16} if node["name"] == "univl_moco" else {}
    return {"encoders": encoders, "objectives": objectives, "masks": found["masks"]}


def held(found: dict[str, Any]) -> tuple[Any, ...]:
    """What tables of recipes tell: backbone, frames, batch, learning rate, weight decay, steps or epochs, milestone."""
    train, video = found["train"], found["encoder"]["video"]
    length = train["epochs"] if train["steps"] is None else train["steps"]
    numbers = (train["global_batch"], train["lr"], train["weight_decay"], length, *train["lr_milestones"])
    return (video["backbone"], video["frames"], *numbers)
