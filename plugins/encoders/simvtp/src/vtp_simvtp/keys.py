"""Names of parameters: those of the released SimVTP code on one side, those of vtp models on the other.

Every name of one side has exactly one on the other. The pre-training model of the released code is vtp's shared encoder
with the objectives mvm, mlm, vtc and vtm; its fine-tuned model is a pair of towers.
"""

from __future__ import annotations

from collections.abc import Iterable

from vtp.model.importing import PrefixTable

__all__ = ["DEAD", "DUAL", "PRETRAIN", "VIDEO_TOWER", "layout_of"]

PRETRAIN = PrefixTable(
    (
        ("encoder.patch_embed.", "encoders.video.patch_embed."),
        ("encoder.", "encoders.fusion."),
        ("text_embeddings.", "encoders.text.embeddings."),
        ("mask_token", "objectives.mvm.mask_token"),
        ("encoder_to_decoder.", "objectives.mvm.encoder_to_decoder."),
        ("decoder.", "objectives.mvm.decoder."),
        ("text_cls.", "objectives.mlm.head.0."),
        ("vtm_head.", "objectives.vtm.head.0."),
    )
)
DUAL = PrefixTable(
    (
        ("video_encoder.patch_embed.", "encoders.video.embedding.patch_embed."),
        ("video_encoder.text_embeddings.", "encoders.video.unused_text_embeddings."),
        ("video_encoder.", "encoders.video.tower."),
        ("text_encoder.text_embeddings.", "encoders.text.embedding.embeddings."),
        ("text_encoder.patch_embed.", "encoders.text.unused_patch_embed."),
        ("text_encoder.", "encoders.text.tower."),
    )
)
# The encoder of a VideoMAE that was trained to classify.
VIDEO_TOWER = PrefixTable(
    (
        ("patch_embed.", "encoders.video.embedding.patch_embed."),
        ("blocks.", "encoders.video.tower.blocks."),
        ("norm.", "encoders.video.tower.norm."),
        ("fc_norm.", "encoders.video.tower.fc_norm."),
    )
)
# Weights that the released fine-tuned model holds and never uses.
DEAD = ("video_encoder.text_embeddings.", "text_encoder.patch_embed.")


def layout_of(names: Iterable[str]) -> str | None:
    """``pretrain`` or ``dual`` for the names of an original checkpoint; None for anything else."""
    names = list(names)
    if any(name.startswith(("video_encoder.", "text_encoder.")) for name in names):
        return "dual"
    if any(name.startswith("encoder.blocks.") for name in names):
        return "pretrain"
    return None
