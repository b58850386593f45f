"""One tri-modal training step, forward and backward: the usual way with missing sound and padding, and vtp.

    python benchmarks/trimodal.py [--batch 8] [--frames 16] [--size 224] [--seconds 9.92] [--rounds 5] [--threads 2]

Both have the model, weights and losses of experiment=crossformer/small, on rows of which every second one lacks sound,
with captions of 4 to 40 words, 90 % of the video and 30 % of the sound hidden.

``plain`` treats a missing modality as is usual: zeros are encoded and decoded in its place, all tokens are embedded
before hidden ones are dropped, and everything is padded to the longest row and fused under a dense mask, with an
explicit softmax. ``vtp`` embeds what is visible, encodes and decodes the sound of the rows that have one, and fuses the
real tokens of each row, both passes of the step at once, in the step of the engine as ``vtp run`` takes it. In both,
losses share their passes. The script stops unless losses and gradients agree. How they are timed: see step_pair.py.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from step_pair import StepPair
from torch import Tensor, nn

from vtp.cli.run import compose
from vtp.model.blocks import visible_index
from vtp.model.build import BuildContext, build_model, lookup_in
from vtp.model.context import ForwardContext
from vtp.model.model import VTPModel
from vtp.plugins import host
from vtp.types import MODALITIES, Batch, Fused, Tokens
from vtp_crossformer.crossformer import Crossformer


class DenseFusion(nn.Module):
    """The crossformer with its parameters, over padded rows and with a dense mask."""

    def __init__(self, ours: Crossformer) -> None:
        super().__init__()
        self.projections, self.joint, self.blocks, self.norm = ours.projections, ours.joint, ours.blocks, ours.norm
        self.width = ours.width

    def forward(self, tokens: Mapping[str, Tokens]) -> Fused:
        names = [m for m in MODALITIES if m in tokens]
        rows = len(tokens[names[0]].x)
        first = self.joint.expand(rows, 1, -1)
        x = torch.cat([first, *(self.projections(m, tokens[m]) for m in names)], dim=1)
        real = torch.cat([torch.ones(rows, 1, dtype=torch.bool), *(tokens[m].attention_mask for m in names)], dim=1)
        mask = torch.zeros(rows, 1, x.shape[1], x.shape[1]).masked_fill(~real[:, None, None, :], -1e9)
        for block in self.blocks:
            x = x + self.attend(block.attention, block.norm1(x), mask)
            x = x + block.mlp(block.norm2(x))
        x = self.norm(x)
        pieces = x[:, 1:].split([tokens[m].x.shape[1] for m in names], dim=1)
        return Fused({m: replace(tokens[m], x=piece) for m, piece in zip(names, pieces, strict=True)}, x[:, 0])

    def attend(self, part: Any, x: Tensor, mask: Tensor) -> Tensor:
        q, k, v = part.qkv(x).unflatten(2, (3, part.heads, -1)).permute(2, 0, 3, 1, 4)
        weights = (q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5 + mask).softmax(dim=-1)
        return part.proj((weights @ v).transpose(1, 2).flatten(2))


class WholeVideo(nn.Module):
    """VideoMAE as transformers runs it."""

    def __init__(self, ours: Any) -> None:
        super().__init__()
        self.model, self.spec, self.width, self.grid = ours.model, ours.spec, ours.width, ours.grid

    def forward(self, video: Tensor, mask: Tensor | None = None) -> Tokens:
        hidden = self.model(pixel_values=video, bool_masked_pos=mask).last_hidden_state
        index = None if mask is None else visible_index(mask)
        return Tokens(hidden, torch.ones(hidden.shape[:2], dtype=torch.bool), self.grid, index)


class PlainTrimodal(nn.Module):
    """The same encoders and heads, each row encoded in full."""

    def __init__(self, ours: VTPModel) -> None:
        super().__init__()
        encoders = dict(deepcopy(ours.encoders).items())
        encoders["audio"] = encoders["audio"].tower
        encoders["video"] = WholeVideo(encoders["video"])
        encoders["fusion"] = DenseFusion(encoders["fusion"])
        objectives: dict[str, Any] = dict(deepcopy(ours.objectives).items())
        predict = objectives["mam"].predict  # of every row, and the silent ones left out afterwards
        objectives["mam"].predict = lambda ctx, rows: predict(ctx)[rows]
        self.model = VTPModel(encoders, objectives, ours.weights, masks=ours.masks)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        ctx = ForwardContext(self.model, batch)
        losses = {}
        for name, objective in self.model.objectives.items():
            if objective.contrastive:
                losses[name] = objective.loss_from_features(objective.features(ctx)).loss
            else:
                losses[name] = objective(ctx).loss
        return losses


class TrimodalStep(StepPair):
    def make_model(self, options: argparse.Namespace, folder: Path) -> nn.Module:
        found = compose(["experiment=crossformer/small"])
        found["encoder"]["video"] |= {"frames": options.frames, "size": options.size}
        found["encoder"]["audio"]["encoder"]["seconds"] = options.seconds
        spec = {"encoders": found["encoder"], "objectives": found["objectives"], "masks": found["masks"]}
        words = " ".join(f"word{i}" for i in range(5000))
        return build_model(spec, lookup_in(host().registry), BuildContext(texts=lambda: [words]))

    def make_batch(self, options: argparse.Namespace) -> Batch:
        rows, specs = options.batch, self.model.specs()
        there = torch.arange(rows) % 2 == 0
        sounds = torch.rand(rows, specs["audio"].samples) * 2 - 1
        lengths = torch.linspace(4, 40, rows).round().long() + 2
        ids = torch.randint(len(specs["text"].special_ids), specs["text"].vocab_size, (rows, int(lengths.max())))
        real = torch.arange(ids.shape[1]) < lengths[:, None]
        ids[:, 0] = specs["text"].cls_id
        ids[torch.arange(rows), lengths - 1] = specs["text"].sep_id
        shape = (rows, options.frames, options.size, options.size, 3)
        return Batch(
            ids=[str(i) for i in range(rows)],
            inputs={
                "video": {"frames": torch.randint(0, 256, shape, dtype=torch.uint8)},
                "audio": {"waveform": sounds * there[:, None], "lengths": specs["audio"].samples * there.long()},
                "text": {"token_ids": ids.where(real, specs["text"].pad_id), "attention_mask": real},
            },
            present={"video": torch.ones(rows, dtype=torch.bool), "audio": there, "text": real[:, 0]},
        )

    def make_plain(self, options: argparse.Namespace) -> nn.Module:
        return PlainTrimodal(self.model)

    def to_plain(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {f"model.{name.replace('encoders.audio.tower.', 'encoders.audio.')}": t for name, t in tensors.items()}

    def plain_inputs(self) -> tuple[Any, ...]:
        return (self.batch,)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--frames", type=int, default=16)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--seconds", type=float, default=9.92)
    parser.add_argument("--rounds", type=int, default=5)
    what = "training step of experiment=crossformer/small, every second row without sound; vtp's is the engine's"
    return TrimodalStep.main(parser, what)


if __name__ == "__main__":
    sys.exit(main())
