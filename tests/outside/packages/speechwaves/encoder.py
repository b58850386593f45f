"""wav2vec 2.0 (arXiv:2006.11477) of transformers, small and with random weights."""

import torch
from torch import nn
from transformers import Wav2Vec2Config, Wav2Vec2Model

from vtp.types import AudioSpec, Tokens


class Wav2Vec2(nn.Module):
    def __init__(self, *, depth: int = 2, width: int = 32, seconds: float = 1.0):
        super().__init__()
        self.spec, self.width, self.depth = AudioSpec(sample_rate=16000, seconds=seconds), width, depth
        convolutions = {"conv_dim": (16, 16, 16), "conv_kernel": (40, 8, 4), "conv_stride": (20, 8, 4)}
        small = {"num_hidden_layers": depth, "hidden_size": width, "num_attention_heads": 2, "intermediate_size": 64}
        places = {"num_conv_pos_embeddings": 4, "num_conv_pos_embedding_groups": 2}
        still = {"mask_time_prob": 0.0, "mask_feature_prob": 0.0, "layerdrop": 0.0, "feat_extract_norm": "layer"}
        self.model = Wav2Vec2Model(Wav2Vec2Config(**convolutions, **small, **places, **still))

    def forward(self, waveform, lengths):
        places = torch.arange(waveform.shape[1], device=waveform.device)
        heard = places < lengths.clamp(min=800)[:, None]  # one key at least, also where there is no sound
        x = self.model(waveform, attention_mask=heard.long()).last_hidden_state
        tokens = self.model._get_feat_extract_output_lengths(lengths)
        return Tokens(x, torch.arange(x.shape[1], device=x.device) < tokens[:, None])
