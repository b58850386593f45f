"""VideoMAE checkpoints in the naming of transformers, renamed to that of VideoMAE's own code, which SimVTP shares.

transformers keeps queries, keys and values apart, and has called their biases ``q_bias`` and ``v_bias`` as well as
``query.bias`` and ``value.bias``: both are read here, without its loader.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from vtp.errors import DataError

__all__ = ["from_transformers", "is_transformers"]

LAYER = re.compile(r"^(?:videomae\.)?encoder\.layer\.(\d+)\.(.+)$")
DECODER_LAYER = re.compile(r"^decoder\.decoder_layers\.(\d+)\.(.+)$")
PARTS = {
    "attention.output.dense": "attn.proj",
    "intermediate.dense": "mlp.fc1",
    "output.dense": "mlp.fc2",
    "layernorm_before": "norm1",
    "layernorm_after": "norm2",
}
BIASES = {
    "attention.attention.q_bias": "attn.q_bias",
    "attention.attention.v_bias": "attn.v_bias",
    "attention.attention.query.bias": "attn.q_bias",
    "attention.attention.value.bias": "attn.v_bias",
}
QKV = ("query", "key", "value")


def is_transformers(names: Mapping[str, object]) -> bool:
    """Whether these are names of a transformers VideoMAE."""
    return any(LAYER.match(name) for name in names)


def from_transformers(state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors under VideoMAE's own names, and what was dropped with the reason.

    Raises:
        DataError: a layer lacks its queries, keys or values.
    """
    out: dict[str, Tensor] = {}
    dropped: dict[str, str] = {}
    apart: dict[str, dict[str, Tensor]] = {}
    for name, value in state.items():
        short = name.removeprefix("videomae.")
        encoder, decoder = LAYER.match(name), DECODER_LAYER.match(name)
        if encoder or decoder:
            match = encoder or decoder
            assert match is not None
            block = f"{'encoder' if encoder else 'decoder'}.blocks.{match[1]}"
            part = match[2]
            if part in BIASES:
                out[f"{block}.{BIASES[part]}"] = value
            elif (kind := re.fullmatch(r"attention\.attention\.(query|key|value)\.weight", part)) is not None:
                apart.setdefault(f"{block}.attn.qkv.weight", {})[kind[1]] = value
            elif (stem := part.rpartition("."))[0] in PARTS:
                out[f"{block}.{PARTS[stem[0]]}.{stem[2]}"] = value
            else:
                dropped[name] = "unknown part of a layer"
        elif short.startswith("embeddings.patch_embeddings.projection."):
            out[short.replace("embeddings.patch_embeddings.projection.", "encoder.patch_embed.proj.")] = value
        elif short.startswith("layernorm."):
            out[f"encoder.norm.{short.removeprefix('layernorm.')}"] = value
        elif short.endswith("position_embeddings"):
            dropped[name] = "fixed positions, computed"
        elif short.startswith(("classifier.", "head.")):
            dropped[name] = "classification head"
        elif short == "mask_token" or short.startswith(("decoder.", "encoder_to_decoder.", "fc_norm.")):
            out[short] = value
        else:
            dropped[name] = "unknown"
    for name, parts in apart.items():
        if set(parts) != set(QKV):
            raise DataError(
                f"this VideoMAE checkpoint is not whole: {name} needs query, key and value, found {sorted(parts)}."
            )
        out[name] = torch.cat([parts[kind] for kind in QKV])
    return out, dropped
