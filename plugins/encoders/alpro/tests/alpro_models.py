"""A state dict under the names of the released code, and what transformers' TimeSformer and BERT make of it: nothing of
the package is used."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import BertConfig, BertModel, TimesformerConfig, TimesformerModel

WORDS, WIDTH, TEXT_LAYERS, PAIR_LAYERS, VIDEO_LAYERS, FRAMES, SIZE, PATCH = 40, 128, 2, 1, 2, 3, 32, 16
HEADS = WIDTH // 64
JOINT = 16  # width of the common space
PLACES = (SIZE // PATCH) ** 2


def vocabulary(folder: Path) -> Path:
    file = folder / "vocab.txt"
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(f"w{n}" for n in range(WORDS - 5))]
    file.write_text("\n".join(words) + "\n", encoding="utf-8")
    return file


def bert(layers: int) -> BertModel:
    config = BertConfig(
        vocab_size=WORDS,
        hidden_size=WIDTH,
        num_hidden_layers=layers,
        num_attention_heads=HEADS,
        intermediate_size=4 * WIDTH,
        max_position_embeddings=20,
        attn_implementation="eager",
    )
    return BertModel(config, add_pooling_layer=False).eval()


def timesformer(frames: int = FRAMES) -> TimesformerModel:
    config = TimesformerConfig(
        image_size=SIZE,
        patch_size=PATCH,
        num_frames=frames,
        hidden_size=WIDTH,
        num_hidden_layers=VIDEO_LAYERS,
        num_attention_heads=HEADS,
        intermediate_size=4 * WIDTH,
        attention_type="divided_space_time",
    )
    return TimesformerModel(config).eval()


def their_name(name: str) -> str:
    """Name in transformers' TimeSformer -> below ``visual_encoder.model.``."""
    table = (
        ("embeddings.cls_token", "cls_token"),
        ("embeddings.position_embeddings", "pos_embed"),
        ("embeddings.time_embeddings", "time_embed"),
        ("embeddings.patch_embeddings.projection.", "patch_embed.proj."),
        ("encoder.layer.", "blocks."),
        ("layernorm.", "norm."),
    )
    for old, new in table:
        if name.startswith(old):
            name = name.replace(old, new, 1)
            break
    inner = (
        (".attention.attention.qkv.", ".attn.qkv."),
        (".attention.output.dense.", ".attn.proj."),
        (".temporal_attention.attention.qkv.", ".temporal_attn.qkv."),
        (".temporal_attention.output.dense.", ".temporal_attn.proj."),
        (".temporal_layernorm.", ".temporal_norm1."),
        (".temporal_dense.", ".temporal_fc."),
        (".layernorm_before.", ".norm1."),
        (".layernorm_after.", ".norm2."),
        (".intermediate.dense.", ".mlp.fc1."),
        (".output.dense.", ".mlp.fc2."),
    )
    for old, new in inner:
        if old in name:
            return name.replace(old, new, 1)
    return name


class Released:
    """Random weights, and the formulas of the release written out: padded, one pass per pair.

    Args:
        heads: ``retrieval`` or ``answers``.
    """

    def __init__(self, heads: str = "retrieval", classes: int = 5) -> None:
        torch.manual_seed(3)
        self.video, self.text, self.pairs = timesformer(), bert(TEXT_LAYERS), bert(PAIR_LAYERS)
        parts = (self.video, self.text, self.pairs)
        self.vision_proj, self.text_proj = nn.Linear(WIDTH, JOINT), nn.Linear(WIDTH, JOINT)
        self.itm_head = nn.Linear(WIDTH, 2)
        self.temp = torch.tensor(0.04)
        self.classifier = nn.Sequential(nn.Linear(WIDTH, 2 * WIDTH), nn.ReLU(), nn.Linear(2 * WIDTH, classes))
        for part in (*parts, self.vision_proj, self.text_proj, self.itm_head, self.classifier):
            for name, parameter in part.named_parameters():  # biases and tables that start at 0 would hide mistakes
                norm = "norm" in name.lower() and name.endswith("weight")
                parameter.data.normal_(1.0 if norm else 0.0, 0.1)
        self.heads = heads

    def state(self, bert_prefix: str = "text_encoder.bert.") -> dict[str, Tensor]:
        state = {f"visual_encoder.model.{their_name(n)}": t for n, t in self.video.state_dict().items()}
        for name, tensor in self.text.state_dict().items():
            state[bert_prefix + name] = tensor
        for name, tensor in self.pairs.state_dict().items():
            if name.startswith("encoder.layer."):
                number, rest = name.removeprefix("encoder.layer.").split(".", 1)
                state[f"{bert_prefix}encoder.layer.{int(number) + TEXT_LAYERS}.{rest}"] = tensor
        state = {name: tensor for name, tensor in state.items() if not name.endswith("token_type_ids")}
        state[f"{bert_prefix}embeddings.position_ids"] = torch.arange(20)[None]
        named = {"vision_proj": self.vision_proj, "text_proj": self.text_proj, "itm_head": self.itm_head}
        if self.heads == "answers":
            named = {"classifier": self.classifier}
        else:
            state["temp"] = self.temp
            state["text_encoder.cls.predictions.bias"] = torch.zeros(WORDS)
        for name, part in named.items():
            state |= {f"{name}.{n}": t for n, t in part.state_dict().items()}
        return {name: tensor.clone() for name, tensor in state.items()}

    def clip_tokens(self, video: Tensor) -> Tensor:
        """(B, T, 3, H, W) -> (B, 1 + P, D): patches of transformers are place by place, times within."""
        out = self.video(video).last_hidden_state
        places = out[:, 1:].view(len(out), PLACES, FRAMES, WIDTH).mean(dim=2)
        return torch.cat([out[:, :1], places], dim=1)

    def text_tokens(self, ids: Tensor, mask: Tensor) -> Tensor:
        out: Tensor = self.text(ids, mask.long()).last_hidden_state
        return out

    def pair(self, text: Tensor, mask: Tensor, clip: Tensor) -> Tensor:
        """[CLS] of one pair behind the last layers."""
        x = torch.cat([text, clip], dim=1)
        allowed = torch.cat([mask, mask.new_ones(clip.shape[:2])], dim=1)
        hidden = (1.0 - allowed[:, None, None, :].float()) * torch.finfo(torch.float32).min
        return self.pairs.encoder(x, attention_mask=hidden).last_hidden_state[:, 0]
