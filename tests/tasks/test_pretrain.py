"""Losses on a validation part: their formula, the same for any number of processes and with rows that are missing, per
part of a mix; and another task that is measured on the way."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from vtp.data import EvalLoader, Pipeline
from vtp.data.mixture import Mixture
from vtp.errors import ConfigError, DataError
from vtp.eval.evaluator import Evaluator
from vtp.eval.losses import Losses, objective_losses
from vtp.media import MediaError
from vtp.model.context import ForwardContext
from vtp.types import LossOutput, Sample, TextSpec
from vtp_datasets.mix import MixTable
from vtp_tasks.pretrain import Pretrain

TEXT = TextSpec(lambda texts: [[int(word) for word in text.split()] for text in texts], 0, 3, 1, 2, (0, 1, 2, 3), 99, 9)


def rows(count: int, first: int = 10) -> list[Sample]:
    """Row i has the words first + i, once for even i and twice for odd ones."""
    return [Sample(f"s{i}", texts=(" ".join([str(first + i)] * (1 + i % 2)),)) for i in range(count)]


class Words(nn.Module):
    """The mean word and, by random numbers, of which row one is counted twice; its items are words."""

    def plan(self, ctx: Any) -> None:
        pass

    def forward(self, ctx: Any) -> LossOutput:
        text = ctx.inputs("text")
        mask = text["attention_mask"]
        draw = ctx.uniform("words", 1)
        total = (text["token_ids"] * mask).sum()
        return LossOutput(total / mask.sum(), mask.sum(), {"draw": draw.mean()})


class Spread(nn.Module):
    """Compares rows: the largest less the smallest first word of a block."""

    contrastive = True

    def plan(self, ctx: Any) -> None:
        pass

    def features(self, ctx: Any) -> dict[str, torch.Tensor]:
        return {"first": ctx.inputs("text")["token_ids"][:, 0].float(), "scale": torch.ones(1)}

    def loss_from_features(self, features: dict[str, torch.Tensor]) -> LossOutput:
        first = features["first"]
        return LossOutput(first.max() - first.min(), torch.tensor(len(first)))


class Model(nn.Module):
    """What a context reads of a model."""

    def __init__(self) -> None:
        super().__init__()
        self.encoders = nn.ModuleDict({"text": nn.Identity()})
        self.objectives = nn.ModuleDict({"words": Words(), "spread": Spread()})
        self.weights = {"words": 1.0, "spread": 0.5}
        self.seed = 0

    def specs(self) -> dict[str, Any]:
        return {"text": TEXT}

    def forward(self, batch: Any, run: Callable[[Any], Any]) -> Any:
        return run(ForwardContext(self, batch))  # type: ignore[arg-type]


class Torn(Pipeline):
    """Rows in ``broken`` cannot be read."""

    broken: tuple[str, ...] = ()

    def __call__(self, sample: Sample, epoch: int, index: int, clip: int | None = None) -> Any:
        if sample.id in self.broken:
            raise MediaError("no video stream", "no_video")
        return super().__call__(sample, epoch, index, clip)


def evaluator(rank: int = 0, world: int = 1, broken: tuple[str, ...] = (), **options: Any) -> Evaluator:
    def make_loader(samples: Any, drop: Any, whole_batches: bool = False) -> EvalLoader:
        pipeline = Torn({"text": TEXT}, train=False, reader=SimpleNamespace())  # type: ignore[arg-type]
        pipeline.broken = broken
        return EvalLoader(samples, pipeline, batch_size=4, rank=rank, world_size=world, whole_batches=whole_batches)

    return Evaluator(Model(), make_loader, **options)


def test_losses_are_means_over_all_items() -> None:
    """10 rows in blocks of 4, 4, 2. Words: row i counts 1 + i % 2 times. Spread: 3, 3 and 1, weighted by rows."""
    found = objective_losses(evaluator(), rows(10)).metrics()
    words = sum((10 + i) * (1 + i % 2) for i in range(10)) / sum(1 + i % 2 for i in range(10))
    assert found["loss/words"] == pytest.approx(words) and found["loss/spread"] == pytest.approx(2.6)
    assert found["loss"] == pytest.approx(words + 0.5 * 2.6)
    assert 0 < found["words/draw"] < 1


def test_a_row_that_is_missing_is_told_and_the_blocks_stay() -> None:
    losses = objective_losses(evaluator(broken=("s0",)), rows(10))
    assert losses.ledger.evaluated == 9 and losses.ledger.missing == {"s0": "no video stream"}
    # blocks are 1..3, 4..7, 8..9: spreads 2, 3, 1
    assert losses.metrics()["loss/spread"] == pytest.approx((3 * 2 + 4 * 3 + 2 * 1) / 9)


@pytest.mark.parametrize("world", [2, 3, 5])
def test_any_number_of_processes_sees_the_same_blocks(world: int) -> None:
    """Each share as its process sees it, added up: the same sums to the last digits, random numbers too."""
    table = rows(18)
    whole = objective_losses(evaluator(), table).metrics()
    shares = []
    for rank in range(world):
        loader = evaluator(rank, world).make_loader(table, (), whole_batches=True)
        assert rank == 0 or loader.rows.start % 4 == 0
        share = [table[row] for row in loader.rows]
        if share:
            shares.append(objective_losses(evaluator(), share))
    assert sum(len(share.ledger.expected) for share in shares) == 18
    together = Losses.together(shares).metrics()
    assert together == pytest.approx(whole, rel=1e-12)


def test_an_objective_without_items_is_left_out_and_told(fake_dataset: Any) -> None:
    losses = Losses({"a": 1.0, "b": 1.0}, {"a": {"loss": 6.0}, "b": {"loss": 0.0}}, {"a": 3.0, "b": 0.0})
    found = losses.metrics()
    assert found["loss"] == found["loss/a"] == 2.0 and found["loss/b"] != found["loss/b"]


def test_parts_of_a_mix_have_losses_of_their_own(fake_dataset: Any) -> None:
    table = MixTable(Mixture({"a": rows(5), "b": rows(6, 60)}), {"a": "x", "b": "y"})
    task = Pretrain(dataset=fake_dataset(train=rows(3), val=table))
    result = task.evaluate(evaluator())
    assert result.rows["part a"]["loss/spread"] == pytest.approx((4 * 3 + 1 * 0) / 5)
    assert result.rows["part b"]["loss/spread"] == pytest.approx((4 * 3 + 2 * 1) / 6)
    assert result.metrics["loss/spread"] == pytest.approx((12 + 14) / 11)  # no block has rows of both
    assert len(result.ledger.expected) == 11 and result.tables[0].rows[2][0] == "b"


def test_without_a_validation_part(fake_dataset: Any) -> None:
    task = Pretrain(dataset=fake_dataset(train=rows(40)), val_share=0.2)
    assert task.watched is None and task.selection == "last" and len(task.train_samples()) == 40
    for late in (lambda: task.evaluate(evaluator()), lambda: task.check(None)):
        with pytest.raises(DataError, match=r"no validation part.*task\.selection=val.*mode=train"):
            late()
    held = Pretrain(dataset=fake_dataset(train=rows(40)), val_share=0.2, selection="val")
    assert held.watched == "val" and 0 < len(held.samples("val")) < 20
    assert len(held.samples("val")) + len(held.train_samples()) == 40


@pytest.mark.parametrize(
    "monitor, direction", [("loss", "min"), ("loss/vtc", "min"), ("vtc/t2v_r1", "max"), ("zero_shot/r_mean", "max")]
)
def test_losses_are_to_fall(fake_dataset: Any, monitor: str, direction: str) -> None:
    zero_shot = {"name": "retrieval"} if monitor.startswith("zero") else None
    task = Pretrain(dataset=fake_dataset(), monitor=monitor, zero_shot=zero_shot)
    assert task.monitor == (monitor, direction)


def test_a_monitor_that_cannot_be(fake_dataset: Any) -> None:
    with pytest.raises(ConfigError, match=r"needs task\.zero_shot"):
        Pretrain(dataset=fake_dataset(), monitor="zero_shot/r_mean")


def test_problems_of_the_other_task_and_its_data_set_are_told_at_once(tmp_path: Path) -> None:
    from vtp.cli.run import compose
    from vtp.run.check import check

    node = "{name: retrieval, tops: 3, dataset: {name: msrvtt, rot: x}}"
    with pytest.raises(ConfigError) as error:
        check(compose(["task=pretrain", "dataset=shapes", f"task.zero_shot={node}"]), tmp_path)
    assert "task.zero_shot: retrieval has no option 'tops'" in str(error.value)
    assert "task.zero_shot.dataset: msrvtt has no option 'rot'" in str(error.value)


SHORT = ["dataset=shapes", "dataset.size=tiny", "train.steps=4", "train.global_batch=8", "train.tensorboard=false"]
SHORT += ["threads=1", "data.workers=0", "train.log_every=1"]


@pytest.mark.slow
def test_a_run_from_end_to_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Losses on the way, the best checkpoint by one of them, zero-shot retrieval; evaluated again they are the same,
    and training is that of a run that measures nothing."""
    from vtp.cli.main import main

    monkeypatch.chdir(tmp_path)
    zero_shot = "task.zero_shot={name: retrieval}"
    by_loss = ["task.selection=val", "task.monitor=loss/vtc", "train.eval_every=2"]
    assert main(["run", "task=pretrain", *SHORT, zero_shot, *by_loss, "run_dir=out"]) == 0
    assert main(["run", "task=pretrain", *SHORT, "mode=train", "train.eval_every=0", "run_dir=bare"]) == 0
    losses = {}
    for name in ("out", "bare"):
        lines = map(json.loads, Path(name, "metrics.jsonl").read_text().splitlines())
        losses[name] = [line["losses"] for line in lines if "losses" in line]
    assert losses["out"] == losses["bare"] and len(losses["out"]) == 4
    evaluations = json.loads(next(Path("out").rglob("evaluations.json")).read_text())
    best = min(evaluations, key=lambda entry: entry["metrics"]["loss/vtc"])
    report = json.loads(Path("out/report.json").read_text())
    assert report["metrics"]["loss/vtc"] == pytest.approx(best["metrics"]["loss/vtc"], rel=1e-6)
    assert report["selection"] == "val" and report["ledger"]["expected"] == 4
    assert "zero_shot/t2v/r1" in report["metrics"] and report["facts"]["zero_shot"]["task"] == "retrieval"
    command = ["run", "task=pretrain", *SHORT[:2], zero_shot, "mode=eval", "checkpoint=out", "run_dir=again"]
    assert main([*command, "data.workers=0", "threads=1"]) == 0
    assert json.loads(Path("again/report.json").read_text())["metrics"] == pytest.approx(report["metrics"])
