"""The objective: one mask for all objectives of a model that mask words, whatever the model."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from objective_models import build, gradients, random_batch, take_step
from torch.nn.functional import cross_entropy
from torch.utils._python_dispatch import TorchDispatchMode

from vtp.errors import ConfigError
from vtp.model.context import ForwardContext
from vtp.types import IGNORE


def view_of(model: Any, batch: Any) -> tuple[str, dict[str, torch.Tensor]]:
    ctx = ForwardContext(model, batch)
    name = ctx.masked("text")
    return name, ctx.inputs("text", name)


OTHERS = {"base": ["mlm"], "simvtp": ["simvtp/mlm"], "univl": ["univl/mlm", "univl/mlm_text", "univl/itm"]}


@pytest.mark.parametrize(
    ("model", "tokens"),
    [
        pytest.param("base", "fused", marks=pytest.mark.slow),
        ("base", "null"),
        ("simvtp", "text"),
        ("univl", "fused"),
        pytest.param("univl", "null", marks=pytest.mark.slow),
    ],
)
def test_every_objective_of_a_model_reads_the_mask(model: str, tokens: str) -> None:
    """With a head of its own, and with those of other objectives alone."""
    found = build(model, [*OTHERS[model], "snps3/mssm"], f"objectives.mssm.tokens={tokens}")
    batch = random_batch(found, 6, text=[5])
    name, view = view_of(found, batch)
    assert name.startswith("mssm")
    chosen = view["labels"] != IGNORE
    assert chosen.sum() > 0 and not chosen[5].any()
    seen = take_step(found, batch)
    for objective in ("mlm", "mlm_text", "mssm"):
        if objective in seen:
            assert float(seen[objective].weight) == float(chosen.sum())
    significant = view["significant"][chosen].float().mean()
    torch.testing.assert_close(seen["mssm"].metrics["significant"], significant)
    assert float(seen["mssm"].loss) == 0 if tokens == "null" else float(seen["mssm"].loss) > 0
    assert any("mssm" in parameter for parameter in gradients(found)) == (tokens != "null")


def test_the_loss_is_the_cross_entropy_of_the_chosen_words() -> None:
    model = build("univl", ["snps3/mssm"])
    mssm: Any = model.objectives["mssm"]
    ctx = ForwardContext(model, random_batch(model, 5))
    view = ctx.inputs("text", mssm.words(ctx))
    scores = mssm.vocabulary_scores(ctx, mssm.words(ctx))
    want = cross_entropy(scores.flatten(0, 1), view["labels"].flatten(), ignore_index=IGNORE)
    torch.testing.assert_close(mssm(ctx).loss, want)


def test_share_and_replacement_are_those_of_the_run() -> None:
    model = build("univl", ["snps3/mssm"], "masks.text.probability=0.5", "masks.text.replace=mask")
    name, view = view_of(model, random_batch(model, 6))
    assert name == "mssm0.5mask"
    chosen = view["labels"] != IGNORE
    assert (view["token_ids"][chosen] == model.specs()["text"].mask_id).all()  # type: ignore[union-attr]
    words = view["attention_mask"].sum(dim=1) - 2
    want = [int(n * 0.5) + (n * 0.5 % 1 >= 0.3) for n in words.tolist()]
    assert chosen.sum(dim=1).tolist() == want


def attends(model: Any, name: str, steps: int = 40) -> float:
    """Share of the steps in which an objective reads words that attention chose."""
    batch = random_batch(model, 3)
    found = []
    for batch.step in range(steps):
        found.append(model.objectives[name].words(ForwardContext(model, batch)) == "univl.attentive")
    return sum(found) / steps


def test_attention_discards_the_masks_of_the_released_variant_alone() -> None:
    order = ["univl/mlm", "snps3/mssm"]
    assert attends(build("univl", ["univl/mlm"]), "mlm") == pytest.approx(0.5, abs=0.25)
    repaired = build("univl", order)
    assert attends(repaired, "mlm") == attends(repaired, "mssm") == 0
    released = build("univl", order, released=True)
    assert attends(released, "mlm") == attends(released, "mssm") == pytest.approx(0.5, abs=0.25)
    asked = build("univl", order, "objectives.mlm.attentive_masking=0.5")  # who asks for it gets it
    assert attends(asked, "mlm") == pytest.approx(0.5, abs=0.25)


def test_masks_that_nobody_predicts_are_refused() -> None:
    model = build("univl", ["univl/vtc", "snps3/mssm"], "objectives.mssm.tokens=null")
    batch = random_batch(model, 4)
    take_step(model, batch)
    batch.step = 1
    with pytest.raises(ConfigError, match="none of this model does. Add one"):
        take_step(model, batch)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["masks.text.whole_words=true"], "whole_words=true cannot be"),
        (["objectives.mssm.words=/nowhere/words.json"], "there is no file"),
        (["encoder.fusion=null"], "tokens=fused needs a fusion encoder"),
    ],
)
def test_what_cannot_be_is_refused(options: list[str], message: str) -> None:
    with pytest.raises(Exception, match=message):
        build("univl", ["snps3/mssm"], *options)


class Waits(TorchDispatchMode):
    """Counts what waits for the device: values that are read on the host, and shapes that depend on values."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        names = ("_local_scalar_dense", "nonzero", "masked_select", "_unique2", "is_nonzero", "equal")
        indices = args[1] if func.overloadpacket.__name__ in ("index", "index_put", "index_put_") else ()
        by_value = any(i is not None and i.dtype == torch.bool for i in indices)
        self.count += by_value or func.overloadpacket.__name__ in names
        return func(*args, **(kwargs or {}))


@contextmanager
def waits(monkeypatch: pytest.MonkeyPatch) -> Iterator[Waits]:
    mode = Waits()
    with monkeypatch.context() as patch:
        for name in ("tolist", "numpy", "cpu"):
            real = getattr(torch.Tensor, name)

            def told(self: Any, *args: Any, real: Any = real, **kwargs: Any) -> Any:
                mode.count += 1
                return real(self, *args, **kwargs)

            patch.setattr(torch.Tensor, name, told)
        with mode:
            yield mode


def test_what_waits_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.arange(3)
    for waiting in (
        lambda: x.sum().item(),
        lambda: bool(x.any()),
        lambda: x.nonzero(),
        lambda: x[x > 1],
        lambda: x.tolist(),
    ):
        with waits(monkeypatch) as mode:
            waiting()
        assert mode.count, waiting
    with waits(monkeypatch) as mode:
        x.cumsum(0).where(x > 1, 0)
    assert not mode.count


@pytest.mark.parametrize("accumulation", [1, 2])
def test_a_step_waits_for_the_device_no_more_often(accumulation: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Than with the mask of the run in place of that of significant words, and without matching words."""
    counts = {}
    for name, objectives in {"mlm": ["univl/mlm"], "both": ["univl/mlm", "snps3/mssm", "snps3/lvwm"]}.items():
        options = ["objectives.mssm.tokens=null"] if name == "both" else []
        model = build("univl", ["univl/vtc", *objectives], "objectives.mlm.attentive_masking=0", *options)
        batch = random_batch(model, 4)
        seen = later_steps(model, batch, accumulation)
        with waits(monkeypatch) as mode:
            seen()
        counts[name] = mode.count
    assert counts["both"] <= counts["mlm"]


def later_steps(model: Any, batch: Any, accumulation: int) -> Any:
    """A function that takes a step which is not the first one: that one is looked at closely."""
    from vtp.train.config import TrainConfig
    from vtp.train.parallel import Parallel
    from vtp.train.precision import Precision
    from vtp.train.step import Step

    cpu = torch.device("cpu")
    config = TrainConfig(steps=1, global_batch=len(batch), accumulation=accumulation)
    step = Step(Parallel(model, config, cpu), Precision("fp32", cpu), accumulation)
    step(batch)
    return lambda: step(batch)
