"""The whole model: a clip without sound, whatever else is in its batch; and all losses at once."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from fusions import SUBSETS
from trimodal_models import batch_of, build

from vtp.model.context import ForwardContext
from vtp.model.model import VTPModel
from vtp.train import TrainConfig
from vtp.train.parallel import Parallel
from vtp.train.precision import Precision
from vtp.train.step import Step
from vtp.types import MODALITIES, Batch

FUSIONS = ["crossformer", "concat", "pairwise", "bottleneck", "gate"]
OFTEN: list[Any] = ["crossformer", ["text"], ["video", "audio", "text"]]  # in the default run


def answers(model: VTPModel, batch: Batch) -> torch.Tensor:
    with torch.inference_mode():
        logits: torch.Tensor = model.eval()(batch, lambda ctx: ctx.model.objectives["qa"].logits(ctx))
    return logits


@pytest.mark.parametrize("fusion", [pytest.param(f, marks=() if f in OFTEN else pytest.mark.slow) for f in FUSIONS])
def test_a_clip_without_sound_is_answered_as_if_its_sound_had_been_removed(fusion: str) -> None:
    """Alone, among clips that have sound, and where the batch knows no sound."""
    model = build("task=msrvtt_qa", "model=crossformer", f"encoder/fusion={fusion}")
    whole = answers(model, batch_of(model, 4, audio=[1]))
    loud = batch_of(model, 4, audio=[1])
    loud.inputs["audio"]["waveform"][1] = torch.randn_like(loud.inputs["audio"]["waveform"][1])
    loud.inputs["audio"]["lengths"][1] = loud.inputs["audio"]["lengths"][0]
    torch.testing.assert_close(answers(model, loud)[1], whole[1], rtol=0, atol=1e-5)
    alone = batch_of(model, 4, audio=[1]).rows(1, 2)
    torch.testing.assert_close(answers(model, alone)[0], whole[1], rtol=0, atol=1e-5)
    del alone.inputs["audio"], alone.present["audio"]
    torch.testing.assert_close(answers(model, alone)[0], whole[1], rtol=0, atol=1e-5)
    assert (answers(model, batch_of(model, 4))[1] - whole[1]).abs().max() > 1e-4  # its sound is listened to


def step(model: VTPModel, batch: Batch) -> tuple[dict[str, float], dict[str, torch.Tensor]]:
    """Losses and gradients of a training step of the engine."""
    device = torch.device("cpu")
    parallel = Parallel(model.train(), TrainConfig(steps=1, global_batch=len(batch)), device)
    done = Step(parallel, Precision("fp32", device), 1)(batch)
    gradients = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
    return {found.name: float(found.loss) for found in done}, gradients


@pytest.mark.parametrize(
    "names", [pytest.param(s, marks=() if s in OFTEN else pytest.mark.slow, id="+".join(s)) for s in SUBSETS]
)
def test_every_parameter_has_a_gradient_for_every_subset_of_the_modalities(names: list[str]) -> None:
    model = build("experiment=crossformer/tiny_pretrain")
    gone = {m: [0, 1, 2, 3] for m in MODALITIES if m not in names}
    losses, gradients = step(model, batch_of(model, 4, **gone))
    assert losses.keys() == set(model.objectives) and all(math.isfinite(loss) for loss in losses.values())
    assert gradients.keys() == {n for n, p in model.named_parameters() if p.requires_grad}
    assert all(g.isfinite().all() for g in gradients.values())


def test_rows_that_lack_something_are_in_no_denominator() -> None:
    """Losses over the rows that have all of it are those of a batch of these rows."""
    model = build("experiment=crossformer/tiny_pretrain", "masks.text.probability=1", "masks.text.replace=mask")
    losses = {}
    for rows, missing in ((3, {}), (5, {"text": [3], "audio": [3, 4], "video": [4]})):
        batch = batch_of(model, 5, **missing).rows(0, rows)
        ctx = ForwardContext(model.eval(), batch)
        losses["mam", rows] = model.objectives["mam"](ctx)
        for name in ("at", "av"):
            objective: Any = model.objectives[name]
            losses[name, rows] = objective.loss_from_features(objective.features(ctx))
    for name in ("at", "av", "mam"):
        torch.testing.assert_close(losses[name, 5].loss, losses[name, 3].loss, rtol=0, atol=1e-5)
        assert losses[name, 5].weight == losses[name, 3].weight


def test_a_checkpoint_gives_the_same_answers() -> None:
    model, other = (build("task=msrvtt_qa", "model=crossformer", seed=seed) for seed in (0, 1))
    other.load_state_dict(model.state_dict())
    batch = batch_of(model, 3, audio=[2])
    assert answers(model, batch).equal(answers(other, batch))


def test_masked_views_encode_visible_tokens_alone() -> None:
    model = build("experiment=crossformer/tiny_pretrain")
    ctx = ForwardContext(model, batch_of(model, 3))
    for m, total, ratio in (("video", 16, 0.5), ("audio", 13, 0.3)):
        tokens = ctx.tokens(m, ctx.masked(m))
        assert tokens.x.shape[1] == total - int(total * ratio) and tokens.index is not None
