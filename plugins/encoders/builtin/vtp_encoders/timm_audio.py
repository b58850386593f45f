"""``timm``: a plain ViT of timm over Kaldi's log-mel features, as AudioMAE and BEATs; the features are computed on the
device.

    waveform (B, S)         float32 mono in [-1, 1], lengths (B,) real samples
    picture  (B, 1, F, M)   F steps of 10 ms by M bins, (fbank(scale * waveform) - mean) / (2 std), padded with 0 before
    tokens   (B, N, D)      N = F / patch * M / patch, time slowest
    visible  (B, N_vis, D)  only if a mask is given

Tokens that begin behind the sound are masked: what follows a sound has no influence on it, unless ``padding=attended``
asks for it. Class tokens take part inside and are not returned.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from timm.models import group_parameters
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from vtp.errors import ConfigError
from vtp.media.audio import kaldi_fbank
from vtp.model.blocks import visible_index
from vtp.model.build import BuildContext
from vtp.ranges import Positive, Range, Size
from vtp.types import AudioSpec, Tokens
from vtp_encoders.ast_audio import SAMPLE_RATE
from vtp_encoders.timm_models import create, save_config, source_of

__all__ = ["TimmAudio"]

WINDOW, HOP = 400, 160  # samples of a window of fbank, and from one to the next
MEAN, STD = -4.2677393, 4.5689974  # of AudioSet


class TimmAudio(nn.Module):
    """A ViT of timm over a spectrogram.

    Args:
        model: a plain ViT among ``timm.list_models()``; a name on the hub with ``hf-hub:`` before it
            (``hf-hub:gaunernst/vit_base_patch16_1024_128.audiomae_as2m``); or a folder as timm saves for the hub.
        pretrained: True loads the weights: timm's own are of pictures, whose colours are added up and whose positions
            are stretched to the spectrogram. Restoring a checkpoint downloads nothing.
        steps, bins: 10 ms steps of the longest sound and mel bins, multiples of the patch.
        scale: what the samples are multiplied with: 1, or 32768 as Kaldi reads files and BEATs was trained.
        mean, std: of the features; those of AudioSet at scale 1 by default. BEATs has 15.41663 and 6.55582.
        padding: whether the steps behind a sound are ``masked``, or ``attended`` to as AudioMAE was trained. Tokens
            that begin there are masked afterwards either way.
        context: gives the saved configuration when a checkpoint is restored.
    """

    def __init__(
        self,
        *,
        context: BuildContext,
        model: str = "vit_base_patch16_224",
        pretrained: bool = False,
        steps: Size = 1024,
        bins: Annotated[int, Range(least=8, most=1024)] = 128,
        scale: Positive = 1.0,
        mean: float = MEAN,
        std: Positive = STD,
        padding: Literal["masked", "attended"] = "masked",
    ) -> None:
        super().__init__()
        source, restored = source_of("audio", model, context)
        found = create(source, pretrained and not restored, img_size=(steps, bins), in_chans=1)
        if not isinstance(found, VisionTransformer):
            raise ConfigError(
                f"encoder timm: {model!r} is a {type(found).__name__}, and sound takes a plain ViT (vit_*)."
            )
        self.model: Any = found
        self.patch = tuple(int(side) for side in self.model.patch_embed.patch_size)
        self.grid = tuple(int(side) for side in self.model.patch_embed.grid_size)
        if (steps, bins) != (self.grid[0] * self.patch[0], self.grid[1] * self.patch[1]):
            raise ConfigError(
                f"encoder timm: steps={steps} and bins={bins} must be multiples of the patches of {model!r}, "
                f"{self.patch[0]} x {self.patch[1]}."
            )
        self.model.fc_norm.requires_grad_(False)  # of pooled vectors alone
        if self.model.attn_pool is not None:
            self.model.attn_pool = None
        self.spec = AudioSpec(sample_rate=SAMPLE_RATE, seconds=((steps - 1) * HOP + WINDOW) / SAMPLE_RATE)
        self.width = int(self.model.embed_dim)
        self.depth = len(self.model.blocks)
        groups = group_parameters(self.model, self.model.group_matcher(coarse=False), reverse=True)
        self._layers = {str(name): min(int(layer), self.depth + 1) for name, layer in groups.items()}
        self.steps, self.bins, self.scale, self.mean, self.std = steps, bins, scale, mean, std
        self.attended = padding == "attended"
        self.checkpointing = False

    def forward(self, waveform: Tensor, lengths: Tensor, mask: Tensor | None = None) -> Tokens:
        """(B, S) -> Tokens (B, N, D), padding masked; with ``mask`` (bool (B, N), True = hidden; every row hides the
        same number) hidden tokens are dropped before the first block, and ``index`` tells which are left.
        """
        picture, real = self.picture(waveform, lengths)
        model, index = self.model, None
        x = model.norm_pre(model.patch_drop(model._pos_embed(model.patch_embed(picture))))
        first = int(model.num_prefix_tokens)
        if mask is not None:
            index = visible_index(mask)
            real = real.gather(1, index)
            kept = x[:, first:].gather(1, index[..., None].expand(-1, -1, x.shape[-1]))
            x = torch.cat([x[:, :first], kept], dim=1)
        opened = real | ~real.any(1, keepdim=True) | self.attended
        keys = torch.cat([real.new_ones(real.shape[0], first), opened], dim=1)[:, None, None]
        for block in model.blocks:
            if self.checkpointing and torch.is_grad_enabled():
                x = checkpoint(block, x, keys, use_reentrant=False)
            else:
                x = block(x, keys)
        return Tokens(model.norm(x)[:, first:], real, self.grid, index)

    def pool(self, tokens: Tokens) -> Tensor:
        """(B, D): mean over real tokens, through the norm that timm has behind a mean."""
        pooled: Tensor = self.model.fc_norm(tokens.pooled())
        return pooled

    def patches(self, waveform: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """The values of the picture behind each token, (B, N, P), and bool (B, N), real tokens."""
        picture, real = self.picture(waveform, lengths)
        return nn.functional.unfold(picture, self.patch, stride=self.patch).transpose(1, 2), real

    def picture(self, waveform: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """What the model sees, (B, 1, F, M), and bool (B, N), tokens that are not padding."""
        with torch.autocast(waveform.device.type, enabled=False):
            within = torch.arange(waveform.shape[1], device=waveform.device) < lengths[:, None]
            sound = waveform.float() * within * self.scale
            fbank, steps = kaldi_fbank(sound, lengths, sample_rate=SAMPLE_RATE, bins=self.bins)
        fbank = nn.functional.pad(fbank, (0, 0, 0, max(self.steps - fbank.shape[1], 0)))[:, : self.steps]
        padding = torch.arange(self.steps, device=fbank.device) >= steps[:, None]
        fbank = (fbank.masked_fill(padding[..., None], 0.0) - self.mean) / (2 * self.std)
        begins = torch.arange(self.grid[0], device=fbank.device) * self.patch[0]
        # a sound shorter than a window has its first row all the same
        real = (begins < steps.clamp(min=1)[:, None]) & (lengths > 0)[:, None]
        return fbank[:, None], real[..., None].expand(-1, -1, self.grid[1]).flatten(1)

    def layer_of(self, name: str) -> int:
        """Layer of a parameter for learning-rate decay, by timm's own grouping: 0 embeddings, 1..depth blocks, depth +
        1 behind them.
        """
        return self._layers.get(name.removeprefix("model."), self.depth + 1)

    def gradient_checkpointing_enable(self) -> None:
        """Recompute the blocks in the backward pass."""
        self.checkpointing = True

    def save_assets(self, directory: Path) -> None:
        """Write what timm makes the model from, so that a checkpoint can be loaded without the hub or the folder."""
        save_config(self.model, directory)
