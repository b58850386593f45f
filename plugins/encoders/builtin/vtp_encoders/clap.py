"""``clap``: the audio tower of CLAP (arXiv:2211.06687), a Swin over a folded mel spectrogram, by transformers; the
features are computed on the device.

    waveform (B, S)         float32 mono in [-1, 1] of 48 kHz, lengths (B,) real samples
    mel      (B, C, F, M)   10 log10 of mel power, 10 ms per step; C = 1, or 4 equal ones for feature fusion
    tokens   (B, N, D)      N = F' * S', 2 x 32 for 10 s; frequency slowest

A sound shorter than the window is repeated as often as it fits whole, as the model was trained. ``pool`` is the mean
over all tokens, repetitions included: the embedding of CLAP before its projection. Tokens that begin behind the sound
itself are masked for whoever reads tokens.

transformers' own feature extractor draws a random stretch of a longer sound, and with feature fusion a random row of
the batch that counts as a longer one. Here the loader cuts, the same stretch every time in evaluation, and no row does.
"""

from __future__ import annotations

import re
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoConfig, ClapAudioConfig, ClapAudioModel, ClapConfig, ClapFeatureExtractor, ClapModel
from transformers import ClapAudioModelWithProjection as WithProjection
from transformers.models.clap.modeling_clap import ClapProjectionLayer

from vtp.errors import ConfigError
from vtp.model.build import BuildContext
from vtp.types import AudioSpec, Tokens
from vtp_encoders.huggingface import HubEncoder, config_of, keeping, load_settings, load_weights, source_of, space_of

__all__ = ["Clap"]

NAME = "clap"


class Clap(HubEncoder):
    """CLAP's audio encoder, from a checkpoint. Its batch norm of the mel bins keeps its statistics in training: rows
    without sound would be among them.

    Args:
        model: hub name (``laion/clap-htsat-unfused``) or folder written by ``save_pretrained``.
        pretrained: False takes the architecture only, with random weights.
        projected: ``pool`` gives the embedding in the space that CLAP's sounds share with its texts.
        context: gives the saved configuration when a checkpoint is restored; then nothing is downloaded.
    """

    filters: Tensor

    def __init__(
        self,
        *,
        context: BuildContext,
        model: str = "laion/clap-htsat-unfused",
        pretrained: bool = True,
        projected: bool = False,
    ) -> None:
        super().__init__()
        source, restored = source_of(NAME, "audio", model, context)
        whole: Any = config_of(NAME, AutoConfig, source)
        config: Any = whole.audio_config if isinstance(whole, ClapConfig) else whole
        if not isinstance(config, ClapAudioConfig):
            raise ConfigError(f"encoder {NAME}: {model!r} is a {whole.model_type} model. Choose a CLAP model.")
        self.settings = load_settings(NAME, ClapFeatureExtractor, source)
        self.settings.truncation = "fusion" if config.enable_fusion else "rand_trunc"  # a folder without settings
        if (made := int(self.settings.feature_size)) != (bins := config.num_mel_bins):
            said = f"{model!r} takes {bins} mel bins, and the settings beside it make {made}"
            raise ConfigError(f"encoder {NAME}: {said}: copy its own preprocessor_config.json.")
        found: Any = None
        if pretrained and not restored:
            alone = WithProjection if (whole.architectures or [""])[0] == WithProjection.__name__ else ClapAudioModel
            found = load_weights(NAME, ClapModel if isinstance(whole, ClapConfig) else alone, source)
        self.model = ClapAudioModel(config) if found is None else getattr(found, "audio_model", found)
        self.projection, self.space = None, None
        if projected:
            own = getattr(found, "audio_projection", None)
            self.projection = ClapProjectionLayer(config) if own is None else own
            scale = found.logit_scale_a.item() if isinstance(found, ClapModel) else None
            self.space = space_of(model, self.model.config, scale)
        encoder = self.model.audio_encoder
        if config.enable_fusion:  # for longer sounds only
            encoder.patch_embed.fusion_model.requires_grad_(False)
            encoder.patch_embed.mel_conv2d.requires_grad_(False)
        self.width = int(encoder.num_features)
        self.depths = [int(depth) for depth in config.depths]
        self.depth = sum(self.depths)
        self.channels = 4 if config.enable_fusion else 1
        rate, samples = int(self.settings.sampling_rate), int(self.settings.nb_max_samples)
        self.spec = AudioSpec(sample_rate=rate, seconds=samples / rate)
        rows, columns = (side // 2 ** (len(self.depths) - 1) for side in encoder.patch_embed.grid_size)
        self.grid = (rows // encoder.freq_ratio, columns * encoder.freq_ratio)
        filters = self.settings.mel_filters if config.enable_fusion else self.settings.mel_filters_slaney
        self.register_buffer("filters", torch.from_numpy(filters).float().T.contiguous(), persistent=False)
        self.train()

    def forward(self, waveform: Tensor, lengths: Tensor) -> Tokens:
        """(B, S) -> Tokens (B, N, D), what lies behind the sound masked."""
        mel = self.features(waveform, lengths)[:, None].expand(-1, self.channels, -1, -1)
        longer = torch.zeros(mel.shape[0], 1, dtype=torch.bool, device=mel.device)
        hidden = self.model(input_features=mel, is_longer=longer).last_hidden_state  # (B, D, F', S')
        hidden = hidden if self.projection is None else keeping(hidden, self.projection)
        begins = torch.arange(self.grid[1], device=mel.device) * self.spec.samples / self.grid[1]
        real = (begins < lengths[:, None])[:, None].expand(-1, self.grid[0], -1).flatten(1)
        return Tokens(hidden.flatten(2).transpose(1, 2), real, self.grid)

    def features(self, waveform: Tensor, lengths: Tensor) -> Tensor:
        """(B, F, M): decibel of mel power of the repeated sound, at least -100."""
        with torch.autocast(waveform.device.type, enabled=False):
            place = torch.arange(self.spec.samples, device=waveform.device).expand(waveform.shape[0], -1)
            length = lengths.clamp(min=1)[:, None]
            # Not a plain number by a tensor: that is what onnxscript 0.7 cannot export.
            times = torch.full_like(length, self.spec.samples).div(length, rounding_mode="floor")
            heard = place < times * lengths[:, None]
            source = (place % length).clamp(max=waveform.shape[1] - 1)
            sound = waveform.float().gather(1, source) * heard
            size = int(self.settings.fft_window_size)
            window = torch.hann_window(size, device=sound.device)
            spectrum = torch.stft(sound, size, int(self.settings.hop_length), window=window, return_complex=True)
            mel = self.filters @ spectrum.abs().square()
            return 10.0 * mel.clamp(min=1e-10).log10().transpose(1, 2)

    def pool(self, tokens: Tokens) -> Tensor:
        """(B, D): mean over all tokens, repetitions included; with ``projected`` through CLAP's projection."""
        mean = tokens.x.mean(1)
        return mean if self.projection is None else self.projection(mean)

    @property
    def pooled_width(self) -> int:
        """Width of what ``pool`` gives."""
        return self.width if self.projection is None else int(self.projection.linear2.out_features)

    def train(self, mode: bool = True) -> Clap:
        """As of any module, but the batch norms stay as they are."""
        super().train(mode)
        for norm in [module for module in self.modules() if isinstance(module, nn.BatchNorm2d)]:
            norm.eval()
        return self

    def gradient_checkpointing_enable(self) -> None:
        """Recompute the stages in the backward pass."""
        self.model.supports_gradient_checkpointing = True  # its stages do; transformers does not say so
        super().gradient_checkpointing_enable()

    def layer_of(self, name: str) -> int:
        """Layer of a parameter for learning-rate decay: 0 patch embedding, 1..depth blocks (a merging belongs to the
        block before it), depth + 1 the final norm."""
        if found := re.search(r"layers\.(\d+)\.(?:blocks\.(\d+)|downsample)\.", name):
            stage = int(found[1])
            return sum(self.depths[:stage]) + (self.depths[stage] if found[2] is None else int(found[2]) + 1)
        return 0 if "patch_embed" in name or "batch_norm" in name else self.depth + 1
