from __future__ import annotations

import socket
import time

import numpy as np
import pytest
import torch
from toy_evaluation import ToyLoader, ToyModel, evaluator, outcome, results, run_rank, table

from vtp.errors import ConfigError, DataError, RunError
from vtp.eval.evaluator import Evaluator
from vtp.types import Sample


@pytest.fixture
def model():
    return ToyModel()


def test_results_come_in_table_order_and_in_float32(model):
    collected = evaluator(model, broken=("q1", "q4")).run(table(6), outcome, what="questions")
    assert collected.ids == ["q0", "q2", "q3", "q5"]
    assert collected.arrays["number"].tolist() == [0, 2, 3, 5]
    assert collected.arrays["value"].dtype == np.float32 and collected.arrays["value"].shape == (4, 4)
    assert collected.misses == {"q1": "no video stream", "q4": "no video stream"}
    assert collected.full("number", -1).tolist() == [0, -1, 2, 3, -1, 5]
    assert collected.ledger.line() == "4 of 6 questions evaluated (66.67 %), 2 missing counted as misses"


def test_which_modalities_the_items_had_is_counted(model):
    collected = evaluator(model).run(table(5), outcome)
    assert collected.ledger.modality_coverage() == {"video": 1.0, "audio": 3 / 5}
    assert evaluator(model).run(table(5), outcome, drop=("audio",)).ledger.modality_coverage()["audio"] == 0.0


def test_evaluation_mode_without_gradients_and_back_again(model):
    model.train()
    arrays = evaluator(model).run(table(3), outcome).arrays
    assert not arrays["train"].any() and not arrays["grad"].any()
    assert model.training and torch.is_grad_enabled()


def test_the_mode_is_restored_when_the_function_fails(model):
    with pytest.raises(ZeroDivisionError):
        evaluator(model.train()).run(table(3), lambda ctx: 1 / 0)
    assert model.training


def test_reduced_precision_computes_low_and_returns_float32(model):
    seen = []

    def product(ctx):
        out = torch.ones(len(ctx.batch), 3) @ torch.ones(3, 3)
        seen.append(out.dtype)
        return {"out": out}

    collected = evaluator(model, precision="bf16").run(table(2), product)
    assert seen == [torch.bfloat16] and collected.arrays["out"].dtype == np.float32
    evaluator(model).run(table(2), product)
    assert seen[-1] == torch.float32
    with pytest.raises(ConfigError, match="fp32, bf16, fp16"):
        evaluator(model, precision="half")


def test_nothing_could_be_read(model):
    collected = evaluator(model, broken=("q0", "q1")).run(table(2), outcome)
    assert collected.ids == [] and collected.arrays == {}
    assert collected.full("value", np.nan, (4,)).shape == (2, 4)
    assert collected.ledger.coverage == 0.0


def test_an_empty_table_is_an_empty_result(model):
    assert evaluator(model).run([], outcome).ids == []


def test_ids_must_be_unique(model):
    with pytest.raises(RunError, match="occur more than once"):
        evaluator(model).run([Sample("a"), Sample("a")], outcome)


class Faulty(ToyLoader):
    def __init__(self, samples, fault):
        super().__init__(samples)
        self.fault = fault

    def __iter__(self):
        yield from self.fault(list(super().__iter__()), self)


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (lambda batches, loader: [*batches, batches[0]], "2 items were evaluated more than once"),
        (lambda batches, loader: batches[1:], "2 items are neither evaluated nor reported missing .first: 'q0'"),
        (lambda batches, loader: loader.misses.update(q0="x") or batches, "evaluated and also reported missing"),
        (lambda batches, loader: loader.misses.update(zz="x") or batches, "unexpected .first: 'zz'"),
    ],
)
def test_a_loader_that_loses_or_doubles_items_is_noticed(model, fault, message):
    with pytest.raises(RunError, match=message):
        Evaluator(model, lambda samples, drop: Faulty(samples, fault)).run(table(5), outcome)


def test_a_loader_may_deliver_batches_in_any_order(model):
    def make(samples, drop):
        return Faulty(samples, lambda batches, loader: batches[::-1])

    collected = Evaluator(model, make).run(table(5), outcome)
    assert collected.arrays["number"].tolist() == [0, 1, 2, 3, 4] and collected.ids == [f"q{i}" for i in range(5)]
    assert collected.present["audio"].tolist() == [True, False, True, False, True]


@pytest.mark.parametrize("wrong", [torch.zeros(1), torch.zeros(())])
def test_results_must_have_one_row_per_item(model, wrong):
    with pytest.raises(RunError, match="'bad' of shape"):
        evaluator(model).run(table(4), lambda ctx: {"bad": wrong})


def test_max_missing_holds_for_every_table_but_not_for_ablations(model):
    strict = evaluator(model, broken=("q1",), max_missing=0)
    with pytest.raises(DataError, match="1 of 3 clips could not be evaluated .first: q1"):
        strict.run(table(3), outcome, what="clips", drop=("audio",))
    assert strict.run(table(3), outcome, strict=False).ledger.evaluated == 2


def test_a_limit_is_evenly_spaced(model):
    assert [s.id for s in evaluator(model, limit=3).limited(table(10))] == ["q0", "q3", "q6"]
    assert [s.id for s in evaluator(model, limit=0.2).limited(table(10))] == ["q0", "q5"]
    assert len(evaluator(model, limit=50).limited(table(10))) == 10
    assert len(evaluator(model, limit=0.001).limited(table(10))) == 1
    with pytest.raises(ConfigError, match="data.limit_eval=0"):
        evaluator(model, limit=0).limited(table(10))


def test_items_can_be_declared_missing_afterwards(model):
    collected = evaluator(model, broken=("q1",)).run(table(4), outcome)
    fewer = collected.without(collected.arrays["number"] == 2, "not a number")
    assert fewer.ids == ["q0", "q3"] and fewer.arrays["number"].tolist() == [0, 3]
    assert fewer.misses == {"q1": "no video stream", "q2": "not a number"}
    assert fewer.ledger.present == {"video": 2, "audio": 1}


COUNTS = (1, 2, 3, 7)  # fewer items than ranks, uneven shares, different numbers of batches


def test_two_ranks_see_exactly_what_one_sees(tmp_path):
    """Plain, and wrapped by DDP and FSDP2, where a rank that has run out of items must not leave the other waiting."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    broken = ("q5", "q6")
    arguments = (str(tmp_path), port, COUNTS, broken)
    processes = torch.multiprocessing.spawn(run_rank, arguments, nprocs=2, join=False)
    end = time.monotonic() + 120
    try:
        while not processes.join(timeout=5):
            assert time.monotonic() < end, "the ranks wait for each other"
    finally:
        for process in processes.processes:
            process.kill()
    alone = results(ToyModel(), COUNTS, broken)
    for rank in range(2):
        found = torch.load(tmp_path / f"rank{rank}.pt", weights_only=True)
        assert found == {"plain": alone, "ddp": alone, "fsdp": alone}
