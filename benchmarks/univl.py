"""One UniVL training step, forward and backward: the four passes written out plainly, and vtp.

    python benchmarks/univl.py [--batch 8] [--frames 4] [--size 224] [--rounds 3] [--threads 2] [--device cpu]

BERT-base and PVTv2-B0, losses VTC, VTM over all B x B pairs, and MLM. ``plain`` follows the order of work of the
released code as its specification tells it: frames through the backbone, texts through BERT, all pairs through BERT,
the masked texts with their clips through BERT once more; texts padded to 30 tokens, attention with an explicit softmax
and an additive mask, the vocabulary layer on every word. ``vtp`` is ``model=univl`` with
``objective=[univl/vtc,univl/vtm,univl/mlm]`` in the step of the engine as ``vtp run`` takes it (``vtp.train.step``, one
micro-batch, fp32): pairs that belong together and masked words are one pass, and no pass computes anything for padding.
Both have the same weights, inputs and masked words and no dropout, and the script stops unless their losses and
gradients agree.

Texts have 7 to 19 tokens, [CLS] and [SEP] included, the octiles of the captions of MSR-VTT 1k-A in words. How both are
timed: see step_pair.py.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import timm
import torch
from step_pair import StepPair
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, gelu, normalize

from vtp.cli.run import compose
from vtp.model.build import BuildContext, build_model, lookup_in
from vtp.model.context import ForwardContext
from vtp.plugins import host
from vtp.types import Batch

WORDS, LENGTH, WIDTH, HEADS = 30522, 30, 768, 12
LENGTHS = (7, 8, 9, 10, 11, 13, 15, 19)  # octiles of the captions of MSR-VTT 1k-A
TEMPERATURE = 0.05


# --- the plain implementation


class PlainLayer(nn.Module):
    """A layer of BERT; names of parameters as there."""

    def __init__(self) -> None:
        super().__init__()
        linear = {name: nn.Linear(WIDTH, WIDTH) for name in ("query", "key", "value")}
        self.attention = nn.ModuleDict({"self": nn.ModuleDict(linear), "output": PlainOutput(WIDTH)})
        self.intermediate = nn.ModuleDict({"dense": nn.Linear(WIDTH, 4 * WIDTH)})
        self.output = PlainOutput(4 * WIDTH)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        b, n, d = x.shape
        parts = self.attention["self"]
        q, k, v = (parts[name](x).view(b, n, HEADS, -1).transpose(1, 2) for name in ("query", "key", "value"))
        weights = (q @ k.transpose(2, 3) / (d // HEADS) ** 0.5 + mask).softmax(dim=-1)
        x = self.attention["output"]((weights @ v).transpose(1, 2).reshape(b, n, d), x)
        return self.output(gelu(self.intermediate["dense"](x)), x)


class PlainOutput(nn.Module):
    def __init__(self, inner: int) -> None:
        super().__init__()
        self.dense = nn.Linear(inner, WIDTH)
        self.LayerNorm = nn.LayerNorm(WIDTH, eps=1e-12)

    def forward(self, y: Tensor, x: Tensor) -> Tensor:
        return self.LayerNorm(self.dense(y) + x)


class PlainBert(nn.Module):
    def __init__(self, depth: int) -> None:
        super().__init__()
        tables = {
            "word_embeddings": nn.Embedding(WORDS, WIDTH, padding_idx=0),
            "position_embeddings": nn.Embedding(512, WIDTH),
            "token_type_embeddings": nn.Embedding(2, WIDTH),
            "LayerNorm": nn.LayerNorm(WIDTH, eps=1e-12),
        }
        self.embeddings = nn.ModuleDict(tables)
        self.encoder = nn.ModuleDict({"layer": nn.ModuleList(PlainLayer() for _ in range(depth))})
        self.pooler = nn.ModuleDict({"dense": nn.Linear(WIDTH, WIDTH)})

    def embed(self, x: Tensor, kind: int) -> Tensor:
        x = x if x.is_floating_point() else self.embeddings["word_embeddings"](x)
        places = torch.arange(x.shape[1], device=x.device)
        types = self.embeddings["token_type_embeddings"](torch.full_like(places, kind))
        return self.embeddings["LayerNorm"](x + self.embeddings["position_embeddings"](places) + types)

    def run(self, x: Tensor, real: Tensor) -> Tensor:
        mask = (1 - real.float())[:, None, None, :] * -10000.0
        for layer in self.encoder["layer"]:
            x = layer(x, mask)
        return x


class PlainUniVL(nn.Module):
    """The order of work of the released model."""

    def __init__(self, depth: int) -> None:
        super().__init__()
        self.backbone = timm.create_model("pvt_v2_b0", num_classes=0, global_pool="")
        self.output_proj = nn.Conv2d(256, WIDTH, 1)
        self.img_fc = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.ReLU(), nn.Linear(WIDTH, WIDTH))
        self.bert = PlainBert(depth)
        self.cross_pooler = nn.Linear(WIDTH, WIDTH)
        self.similarity_dense = nn.Sequential(nn.Linear(WIDTH, 2 * WIDTH), nn.ReLU(), nn.Linear(2 * WIDTH, 1))
        self.transform = nn.Linear(WIDTH, WIDTH)
        self.transform_norm = nn.LayerNorm(WIDTH, eps=1e-6)
        self.bias = nn.Parameter(torch.zeros(WORDS))

    def cross(self, ids: Tensor, real: Tensor, clips: Tensor) -> tuple[Tensor, Tensor]:
        """Text tokens and the pooled vector of padded pairs."""
        rows, length = ids.shape
        words = self.bert.embeddings["word_embeddings"]
        last = words(torch.full((rows, 1), SEP, device=ids.device))
        seen = self.bert.embed(torch.cat([clips, last], dim=1), 1)
        x = torch.cat([self.bert.embed(ids, 0), seen], dim=1)
        x = self.bert.run(x, torch.cat([real, real.new_ones(rows, seen.shape[1])], dim=1))
        return x[:, :length], self.cross_pooler(x[:, 0]).tanh()

    def forward(self, video: Tensor, raw: Tensor, masked: Tensor, real: Tensor, labels: Tensor) -> dict[str, Tensor]:
        rows, frames = video.shape[:2]
        grid = self.output_proj(self.backbone(video.flatten(0, 1)))
        clips = grid.mean(dim=(2, 3)).view(rows, frames, -1)
        v = normalize(self.img_fc(clips), dim=-1)
        hidden = self.bert.run(self.bert.embed(raw, 0), real)
        t = normalize(self.bert.pooler["dense"](hidden[:, 0]).tanh(), dim=-1)
        sim = t @ v.flatten(0, 1).T / TEMPERATURE  # (B, B n)
        scores = []
        for start in range(0, rows, 5):  # five texts with all videos at a time
            taken = torch.arange(start, min(start + 5, rows), device=raw.device)
            text, other = taken.repeat_interleave(rows), torch.arange(rows, device=raw.device).repeat(len(taken))
            _, pooled = self.cross(masked[text], real[text], clips[other])
            scores.append(self.similarity_dense(pooled).view(-1, rows))
        words, _ = self.cross(masked, real, clips)
        guess = self.transform_norm(gelu(self.transform(words)))
        guess = guess @ self.bert.embeddings["word_embeddings"].weight.T + self.bias
        return {
            "vtc": mil_nce(sim.repeat_interleave(frames, dim=0), frames),
            "vtm": mil_nce(torch.cat(scores), 1),
            "mlm": cross_entropy(guess.flatten(0, 1), labels.flatten(), ignore_index=-100),
        }


def mil_nce(x: Tensor, clips: int) -> Tensor:
    """MIL-NCE over texts (rows, each ``clips`` times) and clips (columns), mean over the middle clip of each video."""
    rows = len(x) // clips
    same = torch.eye(rows, dtype=torch.bool, device=x.device).repeat_interleave(clips, 0).repeat_interleave(clips, 1)
    centre = torch.arange(rows, device=x.device) * clips + clips // 2
    positive = x.masked_fill(~same, -torch.inf)[:, centre].logsumexp(dim=0)
    everything = torch.cat([x[:, centre], x.masked_fill(same, -torch.inf)[centre].T]).logsumexp(dim=0)
    return (everything - positive).mean()


# --- both, on the same step

CLS, SEP = 2, 3  # of the tokenizer that is made here
NAMES = (  # ours, the plain ones
    ("encoders.video.backbone.net.", "backbone."),
    ("encoders.video.output_proj.", "output_proj."),
    ("encoders.video.img_fc.", "img_fc."),
    ("encoders.text.bert.", "bert."),
    ("encoders.fusion.cross_pooler.dense.", "cross_pooler."),
    ("objectives.vtm.similarity_dense.", "similarity_dense."),
    ("objectives.mlm.transform.dense.", "transform."),
    ("objectives.mlm.transform.LayerNorm.", "transform_norm."),
    ("objectives.mlm.decoder.bias", "bias"),
)


def plain_name(name: str) -> str:
    """Name of a parameter of the vtp model in the plain one."""
    return next(theirs + name[len(ours) :] for ours, theirs in NAMES if name.startswith(ours))


class UniVLStep(StepPair):
    objectives = "univl/vtc,univl/vtm,univl/mlm"

    def make_model(self, options: argparse.Namespace, folder: Path) -> nn.Module:
        words = folder / "vocab.txt"
        words.write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "word"]) + "\n")
        recipe = compose(["model=univl", f"objective=[{self.objectives}]"])
        spec = {key: recipe[key] for key in ("objectives", "masks", "variant")}
        spec["encoders"] = {slot: dict(recipe["encoder"][slot]) for slot in ("text", "video", "fusion")}
        spec["encoders"]["text"] |= {"tokenizer": str(words), "vocabulary": WORDS, "depth": options.depth}
        spec["encoders"]["text"] |= {"dropout": 0.0, "attention_dropout": 0.0}
        spec["encoders"]["video"] |= {"backbone": "pvt_v2_b0", "frames": options.frames, "size": options.size}
        spec["objectives"]["vtm"] |= {"masked": ["text"], "dropout": 0.0}
        spec["objectives"]["mlm"] |= {"attentive_masking": 0.0}
        return self.build(spec, folder)

    def build(self, spec: dict[str, Any], folder: Path) -> nn.Module:
        return build_model(spec, lookup_in(host().registry), BuildContext())

    def make_batch(self, options: argparse.Namespace) -> Batch:
        rows = options.batch
        lengths = torch.tensor([LENGTHS[i % len(LENGTHS)] for i in range(rows)])
        ids = torch.randint(6, WORDS, (rows, LENGTH))
        place = torch.arange(LENGTH)
        ids[:, 0] = CLS
        ids[place == lengths[:, None] - 1] = SEP
        real = place < lengths[:, None]
        shape = (rows, options.frames, options.size, options.size, 3)
        longest = int(lengths.max())  # vtp's loader pads to the longest text of the batch, the released one to 30
        return Batch(
            ids=[str(i) for i in range(rows)],
            inputs={
                "video": {"frames": torch.randint(0, 256, shape, dtype=torch.uint8)},
                "text": {"token_ids": (ids * real)[:, :longest], "attention_mask": real[:, :longest]},
            },
            present={m: torch.ones(rows, dtype=torch.bool) for m in ("video", "text")},
        )

    def make_plain(self, options: argparse.Namespace) -> nn.Module:
        return PlainUniVL(options.depth)

    def to_plain(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {plain_name(name): tensor for name, tensor in tensors.items()}

    def plain_inputs(self) -> tuple[Tensor, ...]:
        ctx = ForwardContext(self.model, self.batch)
        words = ctx.inputs("text", ctx.masked("text"))
        raw = ctx.inputs("text")

        def padded(x: Tensor, value: int) -> Tensor:
            return nn.functional.pad(x, (0, LENGTH - x.shape[1]), value=value)

        real = padded(raw["attention_mask"], 0)
        ids = (padded(raw["token_ids"], 0), padded(words["token_ids"], 0))
        return (ctx.inputs("video")["video"], *ids, real, padded(words["labels"], -100))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--frames", type=int, default=4)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--depth", type=int, default=12, help="layers of BERT")
    parser.add_argument("--rounds", type=int, default=3)
    what = "UniVL step (VTC, VTM over all pairs, MLM), forward and backward; vtp's is the engine's (vtp.train.step)"
    return UniVLStep.main(parser, what)


if __name__ == "__main__":
    sys.exit(main())
