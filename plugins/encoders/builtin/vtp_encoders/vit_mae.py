"""``vit_mae``: ViT-MAE (arXiv:2111.06377) over a spectrogram instead of a picture, by transformers; the features are
computed on the device.

    waveform (B, S)         float32 mono in [-1, 1], lengths (B,) real samples
    picture  (B, 1, H, W)   fbank: Kaldi log-mel, H bins by W steps of 10 ms, padded with 0, then (x - mean) / std;
                            waveform_image: the samples themselves, row by row, (x - 0.5) / 0.5
    tokens   (B, N, D)      N = H / patch * W / patch, frequency slowest
    visible  (B, N_vis, D)  only if a mask is given

The tri-modal models of "simple-multimodal" take sound this way. Its mean removal per clip is part of Kaldi's features,
which subtract the mean of every window. Tokens that begin behind the sound are masked: what follows a sound has no
influence on it. A waveform image that is too short is repeated; it has no padding.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import torch
from torch import Tensor, nn
from transformers import ViTMAEConfig, ViTMAEModel
from transformers.masking_utils import create_bidirectional_mask

from vtp.errors import ConfigError
from vtp.media.audio import kaldi_fbank
from vtp.model.blocks import visible_index
from vtp.model.build import BuildContext
from vtp.ranges import Positive, Range, Size
from vtp.types import AudioSpec, Tokens
from vtp_encoders.huggingface import HubEncoder, config_of, load_weights, source_of

__all__ = ["ViTMAE"]

NAME = "vit_mae"
RATES = {"fbank": 16000, "waveform_image": 22050}
WINDOW, HOP = 400, 160  # samples of a window of fbank, and from one to the next


class ViTMAE(HubEncoder):
    """ViT-MAE's encoder, from a checkpoint of pictures or of spectrograms.

    Weights of three colours are added up, which is what three equal channels give. Where the checkpoint is of another
    size, the positions are those of MAE (fixed sines and cosines) for the size asked for; its own are kept otherwise.

    Args:
        model: hub name (``facebook/vit-mae-base``) or folder written by ``save_pretrained``.
        pretrained: False takes the architecture only, with random weights.
        features: ``fbank``, or ``waveform_image``, a square of samples at 22,050 Hz whose side is that of the
            checkpoint's pictures: 50,176 samples for 224.
        bins, steps: of fbank, multiples of the patch: mel bins, and 10 ms steps of the longest sound.
        mean, std: of the fbank. The defaults leave it as it is; -4.27 and 9.14 bring AudioSet to the scale of pictures.
        context: gives the saved configuration when a checkpoint is restored; then nothing is downloaded.
    """

    def __init__(
        self,
        *,
        context: BuildContext,
        model: str = "facebook/vit-mae-base",
        pretrained: bool = True,
        features: Literal["fbank", "waveform_image"] = "fbank",
        bins: Annotated[int, Range(least=8, most=1024)] = 128,
        steps: Size = 992,
        mean: float = 0.0,
        std: Positive = 1.0,
    ) -> None:
        super().__init__()
        source, restored = source_of(NAME, "audio", model, context)
        config: Any = config_of(NAME, ViTMAEConfig, source)
        config.mask_ratio = 0.0  # which tokens are hidden is said from outside
        own, self.patch = _pair(config.image_size), _pair(config.patch_size)
        size = (bins, steps) if features == "fbank" else own
        if any(side % patch for side, patch in zip(size, self.patch, strict=True)):
            nearest = [max(side // patch, 1) * patch for side, patch in zip(size, self.patch, strict=True)]
            raise ConfigError(
                f"encoder {NAME}: bins={size[0]} and steps={size[1]} must be multiples of the patches of {model!r}, "
                f"{self.patch[0]} x {self.patch[1]}. Nearest valid: bins={nearest[0]}, steps={nearest[1]}."
            )
        drawn = restored or not pretrained
        if drawn:
            config.image_size = list(self.patch)  # transformers cannot draw weights for what is no square
            self.model = ViTMAEModel(config)
        else:
            self.model = load_weights(NAME, ViTMAEModel, source, config=config)
        self.grid = (size[0] // self.patch[0], size[1] // self.patch[1])
        if config.num_channels != 1:
            _one_channel(self.model.embeddings.patch_embeddings)
        if drawn or own != size:
            table = positions(self.grid, int(config.hidden_size))
            self.model.embeddings.position_embeddings = nn.Parameter(table[None], requires_grad=False)
        self.model.config.num_channels, self.model.config.image_size = 1, list(size)  # config may be a copy
        rate = RATES[features]
        samples = (steps - 1) * HOP + WINDOW if features == "fbank" else size[0] * size[1]
        self.spec = AudioSpec(sample_rate=rate, seconds=samples / rate)
        self.kind = features
        self.size = size
        self.width = int(config.hidden_size)
        self.depth = int(config.num_hidden_layers)
        self.mean = mean
        self.std = std

    def forward(self, waveform: Tensor, lengths: Tensor, mask: Tensor | None = None) -> Tokens:
        """(B, S) -> Tokens (B, N, D), padding masked; with ``mask`` (bool (B, N), True = hidden; every row hides the
        same number) hidden tokens are dropped before the first layer, and ``index`` tells which are left.
        """
        picture, real = self.picture(waveform, lengths)
        embeddings = self.model.embeddings
        hidden = embeddings.patch_embeddings(picture) + embeddings.position_embeddings[:, 1:]
        index = None
        if mask is not None:
            index = visible_index(mask)
            real = real.gather(1, index)
            hidden = hidden.gather(1, index[..., None].expand(-1, -1, hidden.shape[-1]))
        first = (embeddings.cls_token + embeddings.position_embeddings[:, :1]).expand(hidden.shape[0], -1, -1)
        hidden = torch.cat([first, hidden], dim=1)
        keys = torch.cat([real.new_ones(real.shape[0], 1), real], dim=1)
        keys = create_bidirectional_mask(config=self.model.config, inputs_embeds=hidden, attention_mask=keys)
        for layer in self.model.layers:
            hidden = layer(hidden, keys)
        return Tokens(self.model.layernorm(hidden)[:, 1:], real, self.grid, index)

    def patches(self, waveform: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """The values of the picture behind each token, (B, N, P), and bool (B, N), real tokens."""
        picture, real = self.picture(waveform, lengths)
        return nn.functional.unfold(picture, self.patch, stride=self.patch).transpose(1, 2), real

    def picture(self, waveform: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """What the model sees, (B, 1, H, W), and bool (B, N), tokens that are not padding."""
        with torch.autocast(waveform.device.type, enabled=False):
            if self.kind == "waveform_image":
                place = torch.arange(self.spec.samples, device=waveform.device) % lengths.clamp(min=1)[:, None]
                sound = waveform.float().gather(1, place.clamp(max=waveform.shape[1] - 1))
                real = (lengths > 0)[:, None].expand(-1, self.grid[0] * self.grid[1])
                return ((sound * (lengths > 0)[:, None] - 0.5) / 0.5).view(-1, 1, *self.size), real
            within = torch.arange(waveform.shape[1], device=waveform.device) < lengths[:, None]
            fbank, steps = kaldi_fbank(waveform * within, lengths, sample_rate=RATES["fbank"], bins=self.size[0])
        fbank = nn.functional.pad(fbank, (0, 0, 0, max(self.size[1] - fbank.shape[1], 0)))[:, : self.size[1]]
        padding = torch.arange(self.size[1], device=fbank.device) >= steps[:, None]
        fbank = (fbank.masked_fill(padding[..., None], 0.0) - self.mean) / self.std
        begins = torch.arange(self.grid[1], device=fbank.device) * self.patch[1]
        # a sound shorter than a window has its first column all the same
        real = (begins < steps.clamp(min=1)[:, None]) & (lengths > 0)[:, None]
        return fbank.transpose(1, 2)[:, None], real[:, None].expand(-1, self.grid[0], -1).flatten(1)


def positions(grid: tuple[int, int], width: int) -> Tensor:
    """MAE's fixed positions, float32 (1 + rows * columns, width), zeros for the first token: sines and cosines of the
    column in the first half, of the row in the second (so in its released code, and in all checkpoints).
    """
    rates = 10000.0 ** -(torch.arange(width // 4, dtype=torch.float64) / (width // 4))
    rows, columns = torch.meshgrid(*(torch.arange(n, dtype=torch.float64) for n in grid), indexing="ij")
    angles = [axis.flatten()[:, None] * rates for axis in (columns, rows)]
    table = torch.cat([part for angle in angles for part in (angle.sin(), angle.cos())], dim=1)
    return torch.cat([torch.zeros(1, width, dtype=torch.float64), table]).float()


def _one_channel(embeddings: Any) -> None:
    """Make a patch embedding of colours one of grey: the sum over its channels."""
    old = embeddings.projection
    new = nn.Conv2d(1, old.out_channels, old.kernel_size, old.stride)
    new.load_state_dict({"weight": old.weight.sum(1, keepdim=True), "bias": old.bias})
    embeddings.projection, embeddings.num_channels = new, 1


def _pair(size: Any) -> tuple[int, int]:
    rows, columns = size if isinstance(size, (list, tuple)) else (size, size)
    return int(rows), int(columns)
