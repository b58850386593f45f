"""Names of parameters: those of AntMMF on one side, those of vtp models on the other.

Of the visual backbones, those of the programs that they come from and those of timm and torchvision:

| backbone | theirs | ours |
|---|---|---|
| PVTv2 | ``patch_embed1.``, ``patch_embedI.``, ``blockI.J``, ``normI``, ``dwconv.dwconv`` | ``patch_embed.``, ``stages.(I-1).downsample.``, ``stages.(I-1).blocks.J``, ``stages.(I-1).norm``, ``dwconv`` |
| Video Swin | ``layers.I.blocks.J``, ``layers.I.downsample``, ``mlp.fc1``, ``mlp.fc2`` | ``features.(2I).J``, ``features.(2I+1)``, ``mlp.0``, ``mlp.3`` |
| ResNet | ``0.``, ``1.``, ``4.`` to ``7.`` where it was written as a sequence | ``conv1.``, ``bn1.``, ``layer1.`` to ``layer4.`` |

Every name of one side has exactly one on the other.
"""  # noqa: E501

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

__all__ = ["backbone_kind", "backbone_to_ours", "backbone_to_theirs", "is_sequence"]

Rule = tuple[str, Callable[[re.Match[str]], str]]

_PVT_OURS: tuple[Rule, ...] = (
    (r"^patch_embed1\.", lambda m: "patch_embed."),
    (r"^patch_embed(\d+)\.", lambda m: f"stages.{int(m[1]) - 1}.downsample."),
    (r"^block(\d+)\.", lambda m: f"stages.{int(m[1]) - 1}.blocks."),
    (r"^norm(\d+)\.", lambda m: f"stages.{int(m[1]) - 1}.norm."),
    (r"\.dwconv\.dwconv\.", lambda m: ".dwconv."),
)
_PVT_THEIRS: tuple[Rule, ...] = (
    (r"^patch_embed\.", lambda m: "patch_embed1."),
    (r"^stages\.(\d+)\.downsample\.", lambda m: f"patch_embed{int(m[1]) + 1}."),
    (r"^stages\.(\d+)\.blocks\.", lambda m: f"block{int(m[1]) + 1}."),
    (r"^stages\.(\d+)\.norm\.", lambda m: f"norm{int(m[1]) + 1}."),
    (r"\.dwconv\.", lambda m: ".dwconv.dwconv."),
)
_SWIN_OURS: tuple[Rule, ...] = (
    (r"^layers\.(\d+)\.blocks\.", lambda m: f"features.{2 * int(m[1])}."),
    (r"^layers\.(\d+)\.downsample\.", lambda m: f"features.{2 * int(m[1]) + 1}."),
    (r"\.mlp\.fc1\.", lambda m: ".mlp.0."),
    (r"\.mlp\.fc2\.", lambda m: ".mlp.3."),
)
_SWIN_THEIRS: tuple[Rule, ...] = (
    (r"^features\.(\d*[02468])\.", lambda m: f"layers.{int(m[1]) // 2}.blocks."),
    (r"^features\.(\d*[13579])\.", lambda m: f"layers.{int(m[1]) // 2}.downsample."),
    (r"\.mlp\.0\.", lambda m: ".mlp.fc1."),
    (r"\.mlp\.3\.", lambda m: ".mlp.fc2."),
)
_SEQUENCE = {"0": "conv1", "1": "bn1", "4": "layer1", "5": "layer2", "6": "layer3", "7": "layer4"}
_RESNET_OURS: tuple[Rule, ...] = ((r"^([014567])\.", lambda m: f"{_SEQUENCE[m[1]]}."),)
_NUMBERS = {name: number for number, name in _SEQUENCE.items()}
_RESNET_THEIRS: tuple[Rule, ...] = ((r"^(conv1|bn1|layer[1-4])\.", lambda m: f"{_NUMBERS[m[1]]}."),)
_OURS = {"pvt": _PVT_OURS, "swin": _SWIN_OURS, "resnet": _RESNET_OURS}
_THEIRS = {"pvt": _PVT_THEIRS, "swin": _SWIN_THEIRS, "resnet": _RESNET_THEIRS}


def backbone_kind(names: Iterable[str]) -> str | None:
    """``pvt``, ``swin`` or ``resnet`` for the parameters of a backbone by either side's names, else None."""
    names = list(names)
    for kind, pattern in (
        ("pvt", r"(block\d+|stages\.\d+\.blocks)\.\d+\.attn\.kv\."),
        ("swin", r"(layers|features)\.\d+\.(blocks\.)?\d+\.attn\.relative_position_bias_table$"),
        ("resnet", r"(layer1|4)\.0\.conv1\.weight$"),
    ):
        if any(re.match(pattern, name) for name in names):
            return kind
    return None


def is_sequence(names: Iterable[str]) -> bool:
    """Whether the names of a ResNet are the numbers of a sequence."""
    return any(re.match(r"\d+\.", name) for name in names)


def backbone_to_ours(kind: str, name: str) -> str:
    """The name that timm or torchvision has for a parameter; those that are theirs already stay."""
    return _replaced(name, _OURS[kind])


def backbone_to_theirs(kind: str, name: str, *, sequence: bool = False) -> str:
    """The way back.

    Args:
        kind: of :func:`backbone_kind`.
        name: of timm or torchvision.
        sequence: of a ResNet, write the numbers of a sequence; else torchvision's names stand in both.
    """
    return name if kind == "resnet" and not sequence else _replaced(name, _THEIRS[kind])


def _replaced(name: str, rules: Iterable[Rule]) -> str:
    for pattern, new in rules:
        name = re.sub(pattern, new, name)
    return name
