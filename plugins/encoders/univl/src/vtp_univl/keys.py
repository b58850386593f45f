"""Names of parameters: those of AntMMF on one side, those of vtp models on the other.

Of the visual backbones, those of the programs that they come from and those of timm and torchvision:

| backbone | theirs | ours |
|---|---|---|
| PVTv2 | ``patch_embed1.``, ``patch_embedI.``, ``blockI.J``, ``normI``, ``dwconv.dwconv`` | ``patch_embed.``, ``stages.(I-1).downsample.``, ``stages.(I-1).blocks.J``, ``stages.(I-1).norm``, ``dwconv`` |
| Video Swin | ``layers.I.blocks.J``, ``layers.I.downsample``, ``mlp.fc1``, ``mlp.fc2`` | ``features.(2I).J``, ``features.(2I+1)``, ``mlp.0``, ``mlp.3`` |
| ResNet | ``0.``, ``1.``, ``4.`` to ``7.`` where it was written as a sequence | ``conv1.``, ``bn1.``, ``layer1.`` to ``layer4.`` |

Of a whole model, AntMMF's names stand without the chain of ``model.`` and ``module.`` in front of them, which differs
from task to task (:func:`split_prefix`). Every name of one side has exactly one on the other.
"""  # noqa: E501

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

from vtp.model.importing import PrefixTable

__all__ = [
    "ALIASES",
    "MODEL",
    "NEVER_READ",
    "backbone_kind",
    "backbone_to_ours",
    "backbone_to_theirs",
    "copies_of",
    "is_sequence",
    "split_prefix",
    "standard_prefix",
    "to_ours",
    "to_theirs",
]

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


_BERT = (
    ("embeddings.", "embeddings."),
    ("encoder.", "encoder."),
    ("pooler.", "pooler."),
)
_PREDICTIONS = (("transform.", "transform."), ("decoder.bias", "decoder.bias"))
MODEL = PrefixTable(
    (
        *((f"text_encoder.{theirs}", f"encoders.text.bert.{ours}") for theirs, ours in _BERT),
        ("cross_pooler.", "encoders.fusion.cross_pooler."),
        ("img_encoder.", "encoders.video."),
        ("similarity_dense.", "objectives.vtm.similarity_dense."),
        *(
            (f"mlm_head.{head}.cls.predictions.{theirs}", f"objectives.{name}.{ours}")
            for head, name in (("transformer_mlm", "mlm"), ("text_encoder_mlm", "mlm_text"))
            for theirs, ours in _PREDICTIONS
        ),
        ("itm_head.cls.seq_relationship.", "objectives.itm.itm_head."),
        ("clf.", "objectives.qa.head.1."),
        ("clf.", "objectives.classification.head.1."),
        *((f"moco_utils.txt_encoder_k.{n}", f"objectives.vtc.key_encoders.text.module.bert.{o}") for n, o in _BERT),
        ("moco_utils.img_encoder_k.", "objectives.vtc.key_encoders.video.module."),
        ("moco_utils.txt_queue", "objectives.vtc.text_queue"),
        ("moco_utils.img_queue", "objectives.vtc.video_queue"),
        ("moco_utils.txt_queue_ptr", "objectives.vtc.text_queue_ptr"),
        ("moco_utils.img_queue_ptr", "objectives.vtc.video_queue_ptr"),
        ("dmae_utils.", "objectives.dmae."),
    )
)
"""AntMMF's names, without what stands in front of them, and ours; what is below ``img_encoder.`` is renamed besides by
:func:`to_ours` and :func:`to_theirs`."""

# Further names of the same tensors: (their prefix, prefix of the names that are read).
ALIASES = (
    ("text_encoder.module.", "text_encoder."),
    ("cross_embeddings.", "text_encoder.embeddings."),
    ("cross_encoder.", "text_encoder.encoder."),
    ("mlm_head.transformer_mlm.cls.predictions.decoder.weight", "text_encoder.embeddings.word_embeddings.weight"),
    ("mlm_head.text_encoder_mlm.cls.predictions.decoder.weight", "text_encoder.embeddings.word_embeddings.weight"),
    ("moco_utils.img_encoder_q.", "img_encoder."),
    ("moco_utils.txt_encoder_q.module.", "text_encoder."),
    ("moco_utils.txt_encoder_q.", "text_encoder."),
    ("moco_utils.txt_encoder_k.module.", "moco_utils.txt_encoder_k."),
)
# Tensors that AntMMF's own code never reads.
NEVER_READ = (
    r"(moco_utils\.img_encoder_[qk]|img_encoder)\.model\.head\.(weight|bias)",  # classes of ImageNet
    r"mlm_head\.\w+\.cls\.predictions\.bias",  # where decoder.bias is there too
    r"dmae_utils\.[tv]2[tv]_linear_xwp\.[qk]_proj\..*",
    r"dmae_utils\.tis_selector\.thresh",  # the number of an option
    r"img_proj",
)
_STANDARD = {
    "pretraining": {"module": "model.model.module.", "model": "model.model.", "head": "model."},
    "finetuning": {"module": "model.module.", "model": "model.", "head": "model."},
}
_HEADS = ("mlm_head", "itm_head", "clf")
_OUTSIDE = ("similarity_dense", "moco_utils", "dmae_utils")
_NET = re.compile(r"^((?:moco_utils\.)?img_encoder(?:_k)?)\.(swin|model)\.(.*)$", re.DOTALL)
_OUR_NET = re.compile(r"^(.*encoders\.video\.(?:module\.)?)backbone\.net\.(.*)$", re.DOTALL)


def split_prefix(name: str) -> tuple[str, str]:
    """``model.model.module.text_encoder.x`` -> ``("model.model.module.", "text_encoder.x")``."""
    found = re.match(r"(?:(?:model|module)\.)*", name)
    end = found.end() if found else 0
    return name[:end], name[end:]


def standard_prefix(name: str, *, pretraining: bool) -> str:
    """What stands in front of a name (:func:`split_prefix`) in files of AntMMF."""
    first = name.split(".")[0]
    place = "head" if first in _HEADS else "model" if first in _OUTSIDE else "module"
    return _STANDARD["pretraining" if pretraining else "finetuning"][place]


def to_ours(name: str, kind: str) -> str | None:
    """The name that a vtp model has for a tensor of AntMMF; None if it has no place.

    Args:
        name: without its prefix.
        kind: of the backbone, see :func:`backbone_kind`.
    """
    if found := _NET.match(name):
        name = f"{found[1]}.backbone.net.{backbone_to_ours(kind, found[3])}"
    return MODEL.ours(name)


def to_theirs(name: str, kind: str, *, sequence: bool = False) -> str | None:
    """The way back; ``sequence`` as for :func:`backbone_to_theirs`."""
    if found := _OUR_NET.match(name):
        rest = backbone_to_theirs(kind, found[2], sequence=sequence)
        name = f"{found[1]}{'swin' if kind == 'swin' else 'model'}.{rest}"
    return MODEL.theirs(name)


def copies_of(name: str) -> list[str]:
    """Further names that AntMMF's files have for the tensor of a name."""
    return [alias + name.removeprefix(read) for alias, read in ALIASES if _is(name, read)]


def _is(name: str, prefix: str) -> bool:
    return name.startswith(prefix) if prefix.endswith(".") else name == prefix
