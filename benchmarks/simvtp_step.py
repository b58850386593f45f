"""One SimVTP pre-training step, forward and backward: the four passes written out plainly, and vtp.

    python benchmarks/simvtp_step.py [--preset base] [--batch 2] [--text 32] [--rounds 5] [--threads 2] [--device cpu]

``plain`` follows the released code's order of work from its specification: a Conv3d over every tubelet of every pass,
the encoder on [visible video ; words], on the video, on the words and on 2B pairs, attention with an explicit softmax
and an additive mask, the vocabulary layer on every word. ``vtp`` is ``model=simvtp_released`` with shared passes
(``objectives.vtm.reuse_joint=true``), in the step of the engine as ``vtp run`` takes it (``vtp.train.step``, one
micro-batch, fp32). Both have the same weights, inputs, masks and negatives, and the script stops unless their losses
and gradients agree. How they are timed: see step_pair.py.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path

import torch
from step_pair import StepPair
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, gelu, normalize

from vtp.cli.run import compose
from vtp.model.blocks import sincos_table
from vtp.model.build import BuildContext, build_model, lookup_in
from vtp.model.context import ForwardContext
from vtp.model.losses import other_rows
from vtp.plugins import host
from vtp.types import Batch
from vtp_simvtp.keys import PRETRAIN
from vtp_simvtp.vit import PRESETS

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
OBJECTIVES = ("mvm", "simvtp/mlm", "simvtp/vtc", "simvtp/vtm")


# --- the plain implementation


class PlainAttention(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.q_bias = nn.Parameter(torch.zeros(width))
        self.v_bias = nn.Parameter(torch.zeros(width))
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        b, n, d = x.shape
        bias = torch.cat([self.q_bias, torch.zeros_like(self.q_bias), self.v_bias])
        qkv = nn.functional.linear(x, self.qkv.weight, bias).reshape(b, n, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        q, k, v = qkv[0] * (d // self.heads) ** -0.5, qkv[1], qkv[2]
        weights = (q @ k.transpose(-2, -1) + mask).softmax(dim=-1)
        return self.proj((weights @ v).transpose(1, 2).reshape(b, n, d))


class PlainMlp(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(gelu(self.fc1(x)))


class PlainBlock(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1, self.attn = nn.LayerNorm(width, eps=1e-6), PlainAttention(width, heads)
        self.norm2, self.mlp = nn.LayerNorm(width, eps=1e-6), PlainMlp(width)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x), mask)
        return x + self.mlp(self.norm2(x))


class PlainTransformer(nn.Module):
    """Blocks and a norm, with a Conv3d (encoder) or a head (decoder)."""

    def __init__(self, width: int, depth: int, heads: int, values: int = 0) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(PlainBlock(width, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(width, eps=1e-6)
        if values:
            self.head = nn.Linear(width, values)
        else:
            self.patch_embed = nn.ModuleDict({"proj": nn.Conv3d(3, width, (2, 16, 16), (2, 16, 16))})

    def run(self, x: Tensor, mask: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x, mask)
        return x


class PlainSimVTP(nn.Module):
    """The released model's order of work; parameters under its names."""

    def __init__(self, width: int, depth: int, heads: int, vocabulary: int) -> None:
        super().__init__()
        self.encoder = PlainTransformer(width, depth, heads)
        self.decoder = PlainTransformer(width // 2, 4, width // 128, 1536)
        self.encoder_to_decoder = nn.Linear(width, width // 2, bias=False)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, width // 2))
        self.text_embeddings = nn.ModuleDict(
            {
                "word_embeddings": nn.Embedding(vocabulary, width, padding_idx=0),
                "position_embeddings": nn.Embedding(512, width),
                "token_type_embeddings": nn.Embedding(2, width),
                "LayerNorm": nn.LayerNorm(width, eps=1e-12),
            }
        )
        self.text_cls = nn.Linear(width, vocabulary)
        self.vtm_head = nn.Linear(width, 2)
        self.positions = table(1568, width)
        self.decoder_positions = table(1568, width // 2)

    def embed_text(self, ids: Tensor) -> Tensor:
        parts = self.text_embeddings
        x = parts["word_embeddings"](ids) + parts["token_type_embeddings"](torch.zeros_like(ids))
        return parts["LayerNorm"](x + parts["position_embeddings"](torch.arange(ids.shape[1], device=ids.device)))

    def visible(self, video: Tensor, mask: Tensor) -> Tensor:
        x = self.encoder.patch_embed["proj"](video).flatten(2).transpose(1, 2)
        x = x + self.positions.type_as(x).to(x.device)
        return x[~mask].reshape(len(x), -1, x.shape[-1])

    def joint(self, video: Tensor, mask: Tensor, text: Tensor, real: Tensor) -> tuple[Tensor, int]:
        x = self.visible(video, mask)
        additive = torch.cat([torch.zeros(len(x), x.shape[1], device=x.device), (1 - real.float()) * -10000.0], dim=1)
        n = x.shape[1]
        return self.encoder.norm(self.encoder.run(torch.cat([x, text], dim=1), additive[:, None, None, :])), n

    def forward(self, video: Tensor, mask: Tensor, ids: Tensor, real: Tensor, labels: Tensor, other: Tensor) -> dict:
        none = torch.zeros(1, 1, 1, 1, device=video.device)
        text = self.embed_text(ids)
        x, n = self.joint(video, mask, text, real)
        words = self.text_cls(x[:, n:])
        guess = self.decode(x[:, :n], mask, none)
        v = self.encoder.norm(self.encoder.run(self.visible(video, mask), none)).mean(1)
        t = self.encoder.norm(self.encoder.run(text, (1 - real.float())[:, None, None, :] * -10000.0)).mean(1)
        pairs, _ = self.joint(
            torch.cat([video, video[other]]),
            torch.cat([mask, mask[other]]),
            self.embed_text(torch.cat([ids, ids])),
            torch.cat([real, real]),
        )
        matching = self.vtm_head(pairs.mean(1))
        target = torch.cat([torch.ones(len(ids)), torch.zeros(len(ids))]).long().to(ids.device)
        sim = normalize(t, dim=-1, eps=1e-8) @ normalize(v, dim=-1, eps=1e-8).T / 0.05
        diagonal = torch.arange(len(sim), device=sim.device)
        return {
            "mvm": (guess - self.target(video, mask)).square().mean(),
            "mlm": cross_entropy(words.flatten(0, 1), labels.flatten(), ignore_index=-100),
            "vtc": cross_entropy(sim, diagonal) + cross_entropy(sim.T, diagonal),
            "vtm": cross_entropy(matching, target),
        }

    def decode(self, x: Tensor, mask: Tensor, none: Tensor) -> Tensor:
        x = self.encoder_to_decoder(x)
        positions = self.decoder_positions.expand(len(x), -1, -1).type_as(x).to(x.device).clone()
        shown = positions[~mask].reshape(len(x), -1, x.shape[-1])
        hidden = positions[mask].reshape(len(x), -1, x.shape[-1])
        x = self.decoder.run(torch.cat([x + shown, self.mask_token + hidden], dim=1), none)
        return self.decoder.head(self.decoder.norm(x[:, -hidden.shape[1] :]))

    @torch.no_grad()
    def target(self, video: Tensor, mask: Tensor) -> Tensor:
        mean, std = (torch.tensor(v, device=video.device)[None, :, None, None, None] for v in (MEAN, STD))
        u = video * std + mean
        b, c, t, h, w = u.shape
        u = u.reshape(b, c, t // 2, 2, h // 16, 16, w // 16, 16).permute(0, 2, 4, 6, 3, 5, 7, 1)
        u = u.reshape(b, -1, 512, c)
        u = (u - u.mean(-2, keepdim=True)) / (u.var(-2, unbiased=True, keepdim=True).sqrt() + 1e-6)
        return u.flatten(2)[mask].reshape(b, -1, 1536)


def table(positions: int, width: int) -> Tensor:
    return sincos_table(positions, width)[None]


# --- both, on the same step


class SimVTPStep(StepPair):
    def make_model(self, options: argparse.Namespace, folder: Path) -> nn.Module:
        words = folder / "vocab.txt"
        words.write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "word"]) + "\n")
        part = {"name": "simvtp", "preset": options.preset}
        text = part | {"tokenizer": str(words), "vocabulary": 30522, "dropout": 0.0}
        recipe = compose(["model=simvtp", "variant=released", f"objective=[{','.join(OBJECTIVES)}]"])
        spec = {
            "encoders": {"video": part, "text": text, "fusion": part},
            **{key: recipe[key] for key in ("objectives", "masks", "variant")},
        }
        spec["objectives"]["vtm"]["reuse_joint"] = True
        return build_model(spec, lookup_in(host().registry), BuildContext())

    def make_batch(self, options: argparse.Namespace) -> Batch:
        rows, length = options.batch, options.text
        ids = torch.randint(5, 30522, (rows, length))
        ids[:, 0], ids[:, -1] = 2, 3
        return Batch(
            ids=[str(i) for i in range(rows)],
            inputs={
                "video": {"frames": torch.randint(0, 256, (rows, 16, 224, 224, 3), dtype=torch.uint8)},
                "text": {"token_ids": ids, "attention_mask": torch.ones(rows, length, dtype=torch.bool)},
            },
            present={m: torch.ones(rows, dtype=torch.bool) for m in ("video", "text")},
        )

    def make_plain(self, options: argparse.Namespace) -> nn.Module:
        shape = PRESETS[options.preset]
        return PlainSimVTP(shape.width, shape.depth, shape.heads, 30522)

    def to_plain(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        found, unknown = PRETRAIN.to_theirs(tensors)
        assert not unknown
        return found

    def plain_inputs(self) -> tuple[Tensor, ...]:
        ctx = ForwardContext(self.model, self.batch)
        mask = ctx.inputs("video", ctx.masked("video"))["mask"]
        words = ctx.inputs("text", ctx.masked("text"))
        frames = self.batch.inputs["video"]["frames"].float() / 255
        video = (frames - torch.tensor(MEAN, device=frames.device)) / torch.tensor(STD, device=frames.device)
        other = other_rows(ctx.uniform("simvtp.vtm", 1)[:, 0], ctx.present("video"))
        real = self.batch.inputs["text"]["attention_mask"]
        return video.permute(0, 4, 1, 2, 3).contiguous(), mask, words["token_ids"], real, words["labels"], other


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="base", choices=sorted(PRESETS))
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--text", type=int, default=32, help="text tokens")
    parser.add_argument("--rounds", type=int, default=5)
    what = "SimVTP pre-training step, forward and backward; vtp's is the engine's (vtp.train.step)"
    return SimVTPStep.main(parser, what)


if __name__ == "__main__":
    sys.exit(main())
