"""Small SimVTP models for the tests, and the recorded step of the released code."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch

from vtp.cli.run import compose
from vtp.model.build import BuildContext, build_model, lookup_in
from vtp.model.context import ForwardContext
from vtp.model.model import VTPModel
from vtp.plugins import host
from vtp.train import TrainConfig
from vtp.train.parallel import Parallel
from vtp.train.precision import Precision
from vtp.train.step import Observation, Step
from vtp.types import Batch
from vtp_simvtp.keys import PRETRAIN

GOLDEN = Path(__file__).resolve().parents[5] / "shared" / "golden" / "simvtp_pretrain.pt"
WORDS = ["[PAD]", "[CLS]", "[SEP]", "[MASK]", "[UNK]", *(f"w{i}" for i in range(115))]  # ids as in the recorded step


def vocab_file(folder: Path) -> Path:
    """A vocab.txt with the 120 ids of the recorded step."""
    file = folder / "vocab.txt"
    file.write_text("\n".join(WORDS) + "\n", encoding="utf-8")
    return file


ALL = ("mvm", "mlm", "vtc", "vtm")


@cache
def _recipe(released: bool) -> dict[str, Any]:
    variant = "released" if released else "null"
    return compose(["model=simvtp", f"variant={variant}", "objective=[mvm,simvtp/mlm,simvtp/vtc,simvtp/vtm]"])


def recipe(released: bool, chosen: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Objectives with SimVTP's choices and those given here, masks of 75 %, and the variant, for a specification."""
    found = deepcopy(_recipe(released))
    found["masks"]["video"]["ratio"] = 0.75
    objectives = {name: found["objectives"][name] | given for name, given in chosen.items()}
    return {"objectives": objectives, "masks": found["masks"], "variant": found["variant"]}


def spec(vocab: Path, *, released: bool = False, objectives: dict[str, dict[str, Any]] | None = None) -> dict[str, Any]:
    """The pre-training model at the size of the recorded step."""
    chosen = objectives if objectives is not None else {name: {} for name in ALL}
    if "mvm" in chosen:
        chosen = chosen | {"mvm": {"decoder_width": 48, "decoder_depth": 1, "decoder_heads": 2} | chosen["mvm"]}
    size = {"width": 96, "depth": 2}
    return {
        "encoders": {
            "video": {"name": "simvtp", **size, "frames": 4, "size": 32, "tubelet": 2, "patch": 8},
            "text": {"name": "simvtp", **size, "tokenizer": str(vocab), "positions": 64, "max_length": 64},
            "fusion": {"name": "simvtp", **size, "heads": 4},
        },
        **recipe(released, chosen),
    }


def dual_spec(vocab: Path, *, released: bool = False) -> dict[str, Any]:
    """The fine-tuning model at the size of the recorded step."""
    size = {"name": "simvtp_tower", "width": 96, "depth": 2, "heads": 4}
    video = {"frames": 4, "size": 32, "tubelet": 2, "patch": 8, "unused_vocabulary": 120, "unused_positions": 64}
    text = {"tokenizer": str(vocab), "positions": 64, "max_length": 64, "unused_tubelet": 2, "unused_patch": 8}
    return {
        "encoders": {"video": size | video, "text": size | text},
        **recipe(released, {"vtc": {"masked": []}}),
    }


def build(model_spec: dict[str, Any], seed: int = 0) -> VTPModel:
    """Build by the plugins' names, as `vtp run` does."""
    return build_model(model_spec, lookup_in(host().registry), BuildContext(), seed=seed)


def random_batch(rows: int = 4, *, length: int = 10, seed: int = 0, size: int = 32, frames: int = 4) -> Batch:
    """Random clips and texts of different lengths."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(5, 120, (rows, length), generator=generator)
    lengths = torch.randint(4, length + 1, (rows,), generator=generator)
    lengths[0] = length
    place = torch.arange(length)
    ids[:, 0] = 1
    ids[place == lengths[:, None] - 1] = 2
    real = place < lengths[:, None]
    return Batch(
        ids=[str(i) for i in range(rows)],
        inputs={
            "video": {
                "frames": torch.randint(0, 256, (rows, frames, size, size, 3), generator=generator, dtype=torch.uint8)
            },
            "text": {"token_ids": ids * real, "attention_mask": real},
        },
        present={m: torch.ones(rows, dtype=torch.bool) for m in ("video", "text")},
    )


def take_step(model: VTPModel, batch: Batch, accumulation: int = 1, strategy: str = "auto") -> dict[str, Observation]:
    """A step of the engine: what each objective showed last. The gradient lies in the parameters afterwards."""
    cpu = torch.device("cpu")
    model.zero_grad()
    config = TrainConfig(steps=1, global_batch=len(batch), accumulation=accumulation, strategy=strategy)
    step = Step(Parallel(model, config, cpu), Precision("fp32", cpu), accumulation)
    return {seen.name: seen for seen in step(batch)}


@dataclass
class Recorded:
    """One pre-training step of the released code, and our model with the same weights and the same masks."""

    data: dict[str, Any]
    model: VTPModel
    batch: Batch
    views: dict[str, dict[str, torch.Tensor]] = field(default_factory=dict)

    @classmethod
    def load(cls, vocab: Path, *, released: bool = True, reuse_joint: bool = False) -> Recorded:
        data = torch.load(GOLDEN, weights_only=True)
        objectives: dict[str, dict[str, Any]] = {"mvm": {}, "mlm": {}, "vtc": {}}
        objectives["vtm"] = {"reuse_joint": reuse_joint}
        model = build(spec(vocab, released=released, objectives=objectives))
        state, unknown = PRETRAIN.to_ours(data["state_dict"])
        assert not unknown
        model.load_state_dict(state, strict=True)
        inputs = data["inputs"]
        real = inputs["attention_mask"].bool()
        batch = Batch(
            ids=["a", "b", "c"],
            inputs={
                "video": {"video": inputs["videos"].transpose(1, 2)},
                "text": {"token_ids": inputs["input_ids_no_mlm"], "attention_mask": real},
            },
            present={"video": torch.ones(3, dtype=torch.bool), "text": torch.ones(3, dtype=torch.bool)},
        )
        model.eval()
        return cls(data, model, batch)

    def take_step(self) -> dict[str, Observation]:
        """:func:`take_step` with :meth:`context`."""
        replayed = [
            patch(f"vtp.{room}.ForwardContext", lambda *_: self.context()) for room in ("model.model", "train.step")
        ]
        with replayed[0], replayed[1]:
            return take_step(self.model, self.batch)

    def context(self) -> ForwardContext:
        """A forward context whose masks and negatives are the recorded ones instead of drawn ones."""
        ctx = _Replayed(self.model, self.batch)
        ctx.recorded = self.data["inputs"]
        return ctx


class _Replayed(ForwardContext):
    """Gives, in place of uniform numbers, such ones that the masks and negatives come out as recorded."""

    recorded: dict[str, torch.Tensor]

    def uniform(self, name: str, columns: int) -> torch.Tensor:
        if name.startswith("simvtp.tube"):
            hidden = self.recorded["mask"][
                :, : columns // 2
            ].float()  # one slot of time; hidden tubes get small numbers
            return torch.cat([1 - hidden, hidden], dim=1)
        if name.startswith("simvtp.words"):
            numbers = torch.ones(3, columns)
            labels = self.recorded["mlm_labels"]
            numbers[:, : labels.shape[1]][labels != -100] = 0
            return numbers
        assert name == "simvtp.vtm"
        # other_rows steps 1 + floor(u * 2) places on, of three
        step = (self.recorded["neg_idx"] - torch.arange(3)) % 3
        return (step[:, None] - 1) / 2.0
