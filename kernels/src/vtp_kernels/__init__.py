"""Triton kernels for masked attention over several modalities and for masked-video training, each beside its
definition and a PyTorch fallback."""

from vtp_kernels.attention import masked_attention, masked_attention_reference
from vtp_kernels.dispatch import Backend
from vtp_kernels.layout import PAD, AttnLayout
from vtp_kernels.masking import MaskKind, grid_index, tube_keep_ids
from vtp_kernels.pixel_loss import masked_patch_loss, masked_pixel_loss
from vtp_kernels.tubelets import gather_patches, gather_tubelets

__all__ = [
    "PAD",
    "AttnLayout",
    "Backend",
    "MaskKind",
    "gather_patches",
    "gather_tubelets",
    "grid_index",
    "masked_attention",
    "masked_attention_reference",
    "masked_patch_loss",
    "masked_pixel_loss",
    "tube_keep_ids",
]
__version__ = "0.1.0"
