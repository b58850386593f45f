"""Triton kernels for masked attention over several modalities and for masked-video training, each beside its definition and a PyTorch fallback."""

from vtp_kernels.attention import masked_attention, masked_attention_reference
from vtp_kernels.dispatch import Backend
from vtp_kernels.layout import PAD, AttnLayout

__all__ = ["PAD", "AttnLayout", "Backend", "masked_attention", "masked_attention_reference"]
__version__ = "0.1.0"
