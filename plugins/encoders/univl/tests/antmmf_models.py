"""A state dict as AntMMF writes it, and what its model computes, written out plainly: padded, one pass per question,
with additive masks. Names and formulas are those of the papers' release; nothing of the package is used."""

from __future__ import annotations

import re
from functools import lru_cache
from pathlib import Path

import timm
import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.video.swin_transformer import SwinTransformer3d

CLS, SEP, MASK, WORDS = 2, 3, 4, 40
WIDTH, LAYERS, CHANNELS = 128, 2, 64  # channels per attention head


def vocabulary(folder: Path) -> Path:
    file = folder / "vocab.txt"
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(f"w{n}" for n in range(WORDS - 5))]
    file.write_text("\n".join(words) + "\n", encoding="utf-8")
    return file


def pictures(kind: str, *, real: bool = False) -> nn.Module:
    """The network below ``img_encoder.model.`` or ``img_encoder.swin.``, of timm or torchvision."""
    if kind == "pvt":
        return timm.create_model("pvt_v2_b2" if real else "pvt_v2_b0", num_classes=1000)
    if kind == "swin":
        sizes = (96, [2, 2, 18, 2], [3, 6, 12, 24], [8, 7, 7]) if real else (16, [2, 1, 2, 1], [1, 2, 2, 4], [2, 3, 3])
        width, depths, heads, window = sizes
        net = SwinTransformer3d([2, 4, 4], width, depths, heads, window, num_classes=1)
        net.head = nn.Identity()
        return net
    frozen = torchvision.ops.FrozenBatchNorm2d
    depths = [3, 4, 6, 3] if real else [1, 2, 1, 1]
    net = torchvision.models.ResNet(torchvision.models.resnet.Bottleneck, depths, norm_layer=frozen)
    net.fc = nn.Identity()
    return net


def their_name(kind: str, name: str) -> str:
    """Names of timm and torchvision -> those of the release, as its specification lists them."""
    if kind == "swin" and (found := re.match(r"features\.(\d)\.(.*)", name)):
        stage, rest = int(found[1]), found[2]
        part = "blocks" if stage % 2 == 0 else "downsample"
        name = f"layers.{stage // 2}.{part}.{rest}".replace("mlp.0.", "mlp.fc1.").replace("mlp.3.", "mlp.fc2.")
    if kind == "pvt":
        name = name.replace("patch_embed.", "patch_embed1.").replace("mlp.dwconv.", "mlp.dwconv.dwconv.")
        for stage in range(4):
            for ours, theirs in (("downsample", "patch_embed"), ("blocks", "block"), ("norm", "norm")):
                name = re.sub(rf"^stages\.{stage}\.{ours}\.", f"{theirs}{stage + 1}.", name)
    return name


def bert_names(width: int, layers: int, words: int = WORDS) -> dict[str, tuple[int, ...]]:
    names: dict[str, tuple[int, ...]] = {
        "embeddings.word_embeddings.weight": (words, width),
        "embeddings.position_embeddings.weight": (20, width),
        "embeddings.token_type_embeddings.weight": (2, width),
        "embeddings.LayerNorm.weight": (width,),
        "embeddings.LayerNorm.bias": (width,),
    }
    for n in range(layers):
        at = f"encoder.layer.{n}."
        for part, out, given in (
            ("attention.self.query", width, width),
            ("attention.self.key", width, width),
            ("attention.self.value", width, width),
            ("attention.output.dense", width, width),
            ("intermediate.dense", 4 * width, width),
            ("output.dense", width, 4 * width),
        ):
            names |= {f"{at}{part}.weight": (out, given), f"{at}{part}.bias": (out,)}
        for part in ("attention.output.LayerNorm", "output.LayerNorm"):
            names |= {f"{at}{part}.weight": (width,), f"{at}{part}.bias": (width,)}
    return names | {"pooler.dense.weight": (width, width), "pooler.dense.bias": (width,)}


def value(name: str, shape: tuple[int, ...]) -> Tensor:
    """Numbers that depend on name and shape alone."""
    generator = torch.Generator().manual_seed(sum(ord(c) * (i + 1) for i, c in enumerate(name)))
    drawn = torch.randn(shape, generator=generator)
    if len(shape) < 2:
        return drawn * 0.1 + (1 if name.endswith("weight") else 0)
    return drawn * 0.05


def head_names(width: int, heads: tuple[str, ...], words: int = WORDS) -> dict[str, tuple[int, ...]]:
    names: dict[str, tuple[int, ...]] = {}
    for head in heads:
        if head == "similarity":
            names |= {"similarity_dense.0.weight": (2 * width, width), "similarity_dense.0.bias": (2 * width,)}
            names |= {"similarity_dense.2.weight": (1, 2 * width), "similarity_dense.2.bias": (1,)}
        elif head == "itm":
            names |= {f"itm_head.cls.seq_relationship.{n}": s for n, s in (("weight", (2, width)), ("bias", (2,)))}
        elif head == "dmae":
            names |= dmae_names(width)
        elif head == "clf":
            names |= {"clf.weight": (3, width), "clf.bias": (3,)}
        else:
            at = f"mlm_head.{head}.cls.predictions."
            names |= {f"{at}transform.dense.weight": (width, width), f"{at}transform.dense.bias": (width,)}
            names |= {f"{at}transform.LayerNorm.weight": (width,), f"{at}transform.LayerNorm.bias": (width,)}
            names |= {f"{at}bias": (words,), f"{at}decoder.bias": (words,)}
    return names


def dmae_names(width: int, frames: int = 3, words: int = 8) -> dict[str, tuple[int, ...]]:
    names: dict[str, tuple[int, ...]] = {"dmae_utils.tis_selector.thresh": ()}
    for part in ("text", "video"):
        names |= {f"dmae_utils.{part}_weight_fc.{n}": s for n, s in (("weight", (1, width)), ("bias", (1,)))}
    for part, queries, tokens in (("t2v", 1, frames + 1), ("v2t", frames + 1, words)):
        at = f"dmae_utils.{part}_linear_xwp."
        names |= {f"{at}{n}.weight": (width, width) for n in ("q_proj", "k_proj")}
        names |= {f"{at}qk_proj.weight": (tokens, queries), f"{at}attn_proj.0.weight": (tokens, 2 * width)}
        names |= {f"{at}attn_proj.0.bias": (tokens, 2 * width), f"{at}attn_proj.1.weight": (width // 2, 2 * width)}
        names |= {f"{at}attn_proj.3.weight": (1, width // 2)}
    return names


PRETRAINING = ("similarity", "transformer_mlm", "text_encoder_mlm", "itm")


def prefixed(name: str, pretraining: bool) -> str:
    first = name.split(".")[0]
    if first in ("mlm_head", "itm_head", "clf"):
        return f"model.{name}"
    inner = "" if first in ("similarity_dense", "moco_utils", "dmae_utils") else "module."
    return f"model.{'model.' if pretraining else ''}{inner}{name}"


def checkpoint(
    kind: str, heads: tuple[str, ...] = PRETRAINING, *, real: bool = False, moco: bool = False
) -> tuple[dict[str, Tensor], nn.Module]:
    """A state dict, second names included, and the network of the image encoder with its values."""
    state, net = _made(kind, heads, real, moco)
    return dict(state), net


@lru_cache
def _made(kind: str, heads: tuple[str, ...], real: bool, moco: bool) -> tuple[dict[str, Tensor], nn.Module]:
    width = 768 if real else WIDTH
    net = pictures(kind, real=real)
    channels = {"pvt": 512 if real else 256, "swin": width, "resnet": 2048}[kind]
    parts = {f"text_encoder.{n}": s for n, s in bert_names(width, LAYERS).items()}
    parts |= {"cross_pooler.dense.weight": (width, width), "cross_pooler.dense.bias": (width,)}
    for n in (0, 2):
        parts |= {f"img_encoder.img_fc.{n}.weight": (width, width), f"img_encoder.img_fc.{n}.bias": (width,)}
    if channels != width:
        parts |= {"img_encoder.output_proj.weight": (width, channels, 1, 1), "img_encoder.output_proj.bias": (width,)}
    state = {name: value(name, shape) for name, shape in (parts | head_names(width, heads)).items()}
    below = f"img_encoder.{'swin' if kind == 'swin' else 'model'}."
    for name, tensor in net.state_dict().items():
        theirs = below + their_name(kind, name)
        if tensor.is_floating_point():
            tensor.copy_(value(theirs, tuple(tensor.shape)) + ("running_var" in name))
        state[theirs] = tensor
    state |= copies(state)
    if moco:
        state |= moco_state(state, width)
    pretraining = "itm" in heads
    return {prefixed(name, pretraining): tensor for name, tensor in state.items()}, net.eval()


def copies(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The second names that the release has for parts of BERT."""
    found: dict[str, Tensor] = {}
    for name, tensor in state.items():
        rest = name.removeprefix("text_encoder.")
        if rest != name:
            found[f"text_encoder.module.{rest}"] = tensor
        if rest.startswith("embeddings."):
            found[f"cross_embeddings.{rest.removeprefix('embeddings.')}"] = tensor
        if rest.startswith("encoder."):
            found[f"cross_encoder.{rest.removeprefix('encoder.')}"] = tensor
        if name.startswith("mlm_head.") and name.endswith("decoder.bias"):
            found[name.replace("bias", "weight")] = state["text_encoder.embeddings.word_embeddings.weight"]
    return found


def moco_state(state: dict[str, Tensor], width: int) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    for part, short in (("text_encoder.", "txt_encoder"), ("img_encoder.", "img_encoder")):
        own = {n.removeprefix(part): t for n, t in state.items() if n.startswith(part)}
        keys = {n: t + 0.01 if t.is_floating_point() else t for n, t in own.items() if not n.startswith("module.")}
        keys |= {f"module.{n}": t for n, t in keys.items() if short == "txt_encoder"}
        found |= {f"moco_utils.{short}_q.{n}": t for n, t in own.items()}
        found |= {f"moco_utils.{short}_k.{n}": t for n, t in keys.items()}
    for short in ("txt", "img"):
        found[f"moco_utils.{short}_queue"] = F.normalize(torch.randn(width, 6), dim=0)
        found[f"moco_utils.{short}_queue_ptr"] = torch.tensor([4])
    return found


class Plain:
    """What the model of a state dict computes."""

    def __init__(self, state: dict[str, Tensor], net: nn.Module, kind: str) -> None:
        self.state = {re.sub(r"^((model|module)\.)+", "", name): tensor for name, tensor in state.items()}
        self.net, self.kind = net, kind

    def linear(self, x: Tensor, name: str) -> Tensor:
        return F.linear(x, self.state[f"{name}.weight"], self.state[f"{name}.bias"])

    def norm(self, x: Tensor, name: str, eps: float = 1e-12) -> Tensor:
        return F.layer_norm(x, x.shape[-1:], self.state[f"{name}.weight"], self.state[f"{name}.bias"], eps)

    def embeddings(self, x: Tensor, token_type: int) -> Tensor:
        at = "text_encoder.embeddings."
        tables = (self.state[f"{at}{n}_embeddings.weight"] for n in ("position", "token_type"))
        positions, types = tables
        return self.norm(x + positions[: x.shape[1]] + types[token_type], f"{at}LayerNorm")

    def words(self, ids: Tensor) -> Tensor:
        return self.state["text_encoder.embeddings.word_embeddings.weight"][ids]

    def layers(self, x: Tensor, mask: Tensor) -> Tensor:
        batch, length, width = x.shape
        additive = (1 - mask.float())[:, None, None] * -10000.0
        for n in range(LAYERS):
            at = f"text_encoder.encoder.layer.{n}."
            q, k, v = (
                self.linear(x, f"{at}attention.self.{part}").view(batch, length, -1, CHANNELS).transpose(1, 2)
                for part in ("query", "key", "value")
            )
            weights = (q @ k.transpose(-1, -2) / CHANNELS**0.5 + additive).softmax(-1)
            mixed = (weights @ v).transpose(1, 2).reshape(batch, length, width)
            x = self.norm(self.linear(mixed, f"{at}attention.output.dense") + x, f"{at}attention.output.LayerNorm")
            inner = F.gelu(self.linear(x, f"{at}intermediate.dense"))
            x = self.norm(self.linear(inner, f"{at}output.dense") + x, f"{at}output.LayerNorm")
        return x

    def text(self, ids: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens (B, L, D) and feature (B, D)."""
        x = self.layers(self.embeddings(self.words(ids), 0), mask)
        return x, F.normalize(self.linear(x[:, 0], "text_encoder.pooler.dense").tanh(), dim=-1)

    def grid(self, video: Tensor) -> Tensor:
        """(B, T, 3, H, W) -> (B, T, C, h, w), frame by frame or, of Video Swin, all together."""
        net = self.net
        if self.kind == "swin":
            padded = torch.cat([video, torch.zeros_like(video[:, :1])], dim=1).transpose(1, 2)
            proj = net.patch_embed.proj
            x = F.conv3d(padded, proj.weight, proj.bias, stride=(1, 4, 4)).permute(0, 2, 3, 4, 1)
            return net.norm(net.features(net.patch_embed.norm(x))).permute(0, 1, 4, 2, 3)
        found = []
        for frame in video.unbind(1):
            if self.kind == "pvt":
                found.append(net.forward_features(frame))
            else:
                x = net.maxpool(net.relu(net.bn1(net.conv1(frame))))
                found.append(net.layer4(net.layer3(net.layer2(net.layer1(x)))))
        return torch.stack(found, dim=1)

    def clips(self, video: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens (B, n, D) and features (B, n, D)."""
        grid = self.grid(video)
        if "img_encoder.output_proj.weight" in self.state:
            weight, bias = (self.state[f"img_encoder.output_proj.{n}"] for n in ("weight", "bias"))
            grid = torch.stack([F.conv2d(frame, weight, bias) for frame in grid.unbind(1)], dim=1)
        tokens = grid.mean((-1, -2))
        hidden = F.relu(self.linear(tokens, "img_encoder.img_fc.0"))
        return tokens, F.normalize(self.linear(hidden, "img_encoder.img_fc.2"), dim=-1)

    def cross(self, ids: Tensor, mask: Tensor, clips: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Text tokens (B, L, D), visual tokens (B, n, D), pooled (B, D)."""
        sep = self.words(torch.full((len(ids), 1), SEP))
        seen = self.embeddings(torch.cat([clips, sep], dim=1), 1)
        x = torch.cat([self.embeddings(self.words(ids), 0), seen], dim=1)
        whole = torch.cat([mask.float(), torch.ones(seen.shape[:2])], dim=1)
        x = self.layers(x, whole)
        length = ids.shape[1]
        return x[:, :length], x[:, length:-1], self.linear(x[:, 0], "cross_pooler.dense").tanh()

    def similarity(self, pooled: Tensor) -> Tensor:
        return self.linear(F.relu(self.linear(pooled, "similarity_dense.0")), "similarity_dense.2")[:, 0]

    def word_logits(self, tokens: Tensor, head: str) -> Tensor:
        at = f"mlm_head.{head}.cls.predictions."
        x = self.norm(F.gelu(self.linear(tokens, f"{at}transform.dense")), f"{at}transform.LayerNorm", 1e-6)
        bias = self.state.get(f"{at}decoder.bias", self.state.get(f"{at}bias"))
        return F.linear(x, self.state["text_encoder.embeddings.word_embeddings.weight"], bias)
