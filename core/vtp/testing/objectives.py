"""What every objective promises. It is run as the engine runs it: planned, then asked for its loss or its features."""

from __future__ import annotations

import inspect
import tempfile
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.multiprocessing.spawn import spawn

from vtp.contracts import Objective as Contract
from vtp.contracts import Part, member
from vtp.data.fields import collate_field
from vtp.model.build import BuildContext
from vtp.model.context import ForwardContext
from vtp.model.masking import Masker
from vtp.model.model import VTPModel
from vtp.model.objective import ContrastiveObjective, Objective
from vtp.testing.checks import (
    Check,
    ContractError,
    backward,
    close,
    construct,
    expect,
    keeps_members,
    run,
    same_origin,
    some,
)
from vtp.testing.inputs import TEXTS, batch_for, tiny_encoders
from vtp.types import Batch, LossOutput

__all__ = ["check_objective"]

ROWS = 6


def check_objective(
    cls: type[Objective],
    options: Mapping[str, Any] | None = None,
    *,
    encoders: Callable[[], Mapping[str, nn.Module]] = tiny_encoders,
    answers: Sequence[str] = ("red", "blue", "two"),
    labels: Mapping[str, Sequence[Any]] | None = None,
    extra: Mapping[str, Sequence[Any]] | None = None,
    masks: Mapping[str, Masker] | None = None,
    variant: str | None = None,
    processes: int = 1,
    skip: Mapping[str, str] | None = None,
) -> None:
    """Check an objective on a batch of six rows.

    Args:
        cls: the class.
        options: keyword arguments that make it tiny.
        encoders: makes the encoders by slot, always with the same shapes; by default small ones in all four slots.
        answers: the answer list.
        labels: of the batch by name, repeated over its rows; by default ``answer`` counts through the list.
        extra: what samples hold in ``extra`` by name, repeated over the rows; otherwise every row is about a clip of
            its own, and what ``reads`` names is None.
        masks: maskers by modality, in place of the defaults.
        variant: ``released`` for the numerics of released code.
        processes: 2 also compares two processes with one, which takes some seconds. Class, options and ``encoders``
            must then be importable, because they are sent to the other processes.
        skip: checks to leave out, with the reason.

    Checks: members, loss, count, determinism, gradients, inputs, missing, nothing, micro-batches, restore, processes.

    Raises:
        ContractError: with every check that failed.

    Example::

        def test_my_objective():
            check_objective(MyLoss, {"width": 8}, processes=2)

        def test_matching_draws_its_negatives_from_the_micro_batch():
            check_objective(MyMatching, skip={"micro-batches": "negatives come from the own micro-batch"})
    """
    given = labels if labels is not None else {"answer": list(range(len(answers)))}
    trial = _Trial(cls, dict(options or {}), encoders, tuple(answers), given, extra or {}, masks, variant)
    checks: dict[str, Check] = {
        "members": trial.members,
        "loss": trial.loss,
        "count": trial.count,
        "determinism": trial.determinism,
        "gradients": trial.gradients,
        "inputs": trial.inputs,
        "missing": trial.missing,
        "nothing": trial.nothing,
        "micro-batches": trial.micro_batches,
        "restore": trial.restore,
        "processes": partial(trial.processes, processes),
    }
    run(f"{cls.__module__}.{cls.__name__}", checks, skip)


class _Trial:
    """An objective in a model of its own, and the checks."""

    def __init__(
        self,
        cls: type[Objective],
        options: dict[str, Any],
        encoders: Callable[[], Mapping[str, nn.Module]],
        answers: tuple[str, ...],
        labels: Mapping[str, Sequence[Any]],
        extra: Mapping[str, Sequence[Any]],
        masks: Mapping[str, Masker] | None,
        variant: str | None,
    ) -> None:
        self.cls = cls
        self.options = options
        self.encoders = encoders
        self.answers = answers
        self.labels = labels
        self.extra = extra
        self.masks = masks
        self.variant = variant

    def model(self, seed: int = 0, assets: Path | None = None) -> VTPModel:
        torch.manual_seed(seed)
        built = dict(self.encoders())
        context = BuildContext(answers=self.answers, variant=self.variant, encoders=built, assets=assets)
        objective = construct(self.cls, self.options, context=context)
        return VTPModel(built, {"it": objective}, seed=seed, masks=self.masks).eval()

    def batch(self, model: VTPModel, missing: Mapping[str, Sequence[int]] | None = None) -> Batch:
        batch = batch_for(model.specs(), ROWS, self.labels, missing or {})
        given: dict[str, Sequence[Any]] = {
            "video_id": batch.ids,
            "text": [TEXTS[row % len(TEXTS)] for row in range(ROWS)],
        }
        given |= {name: [None] for name in model.reads() if name not in given} | dict(self.extra)
        rows = {name: [values[row % len(values)] for row in range(ROWS)] for name, values in given.items()}
        reads = model.reads()
        batch.extra = {name: values for name, values in rows.items() if name not in reads or reads[name].listed}
        for name, read in reads.items():
            if read.how is not None:
                batch.fields |= collate_field(name, read, rows[name], batch.ids)
        return batch

    def members(self) -> None:
        inherits = inspect.isclass(self.cls) and issubclass(self.cls, Objective)
        expect(inherits, "it must be a subclass of vtp.model.objective.Objective")
        model = self.model()
        keeps_members(_it(model), Contract)
        model.reads()

    def loss(self) -> None:
        out = _output(model := self.model(), self.batch(model))
        expect(isinstance(out, LossOutput), f"it must give vtp.types.LossOutput, got {type(out).__name__}")
        expect(out.loss.dim() == 0 and out.loss.isfinite(), f"loss must be a finite scalar, got {_shape(out.loss)}")
        expect(out.loss.requires_grad, "loss must be connected to the graph")
        expect(out.weight.dim() == 0 and not out.weight.requires_grad, "weight must be a detached scalar tensor")
        expect(out.weight > 0, "on a batch of six whole rows some must take part: is there a label for them?")
        for name, value in out.metrics.items():
            plain = isinstance(value, Tensor) and value.dim() == 0 and not value.requires_grad
            expect(plain, f"the metric {name} must be a detached scalar tensor")

    def count(self) -> None:
        needs = sorted(_it(self.model()).needs)
        for missing in ({}, {m: [1, 4] for m in needs[:1]}):
            model = self.model()
            batch = self.batch(model, missing)
            ran: list[str] = []
            for slot, encoder in model.encoders.items():
                encoder.register_forward_pre_hook(partial(_note, ran, slot))
            counted = _it(model).count(ForwardContext(model, batch))
            expect(not ran, f"count must not run an encoder; it ran {some(ran)}")
            weight = _output(model, batch).weight
            equal = float(counted) == float(weight)
            rows = f" with {len(missing[needs[0]])} rows without {needs[0]}" if missing else ""
            expect(equal, f"count(ctx) must equal the weight{rows}: {float(counted):g} and {float(weight):g}")

    def determinism(self) -> None:
        losses = [_output(model, self.batch(model)).loss for model in (self.model(), self.model())]
        expect(torch.equal(*losses), "the same model and batch must give the same loss: draw with ctx.uniform")

    def gradients(self) -> None:
        model = self.model()
        backward(_output(model, self.batch(model)).loss)
        trained = {n: p for n, p in _it(model).named_parameters() if p.requires_grad}
        without = [n for n, p in trained.items() if p.grad is None]
        expect(not without, f"a gradient must reach every trained parameter; none reaches {some(without)}")
        wrong = [n for n, p in trained.items() if p.grad is not None and not p.grad.isfinite().all()]
        expect(not wrong, f"gradients must be finite; those of {some(wrong)} are not")
        reached = [s for s, e in model.encoders.items() if any(p.grad is not None for p in e.parameters())]
        deaf = sorted(set(_it(model).needs) - set(reached))
        expect(
            not deaf, f"it needs {some(sorted(_it(model).needs))}, but no gradient reaches the encoder of {some(deaf)}"
        )

    def inputs(self) -> None:
        model = self.model()
        batch, clean = self.batch(model), self.batch(model)
        backward(_output(model, batch).loss)
        for modality, tensors in clean.inputs.items():
            same = all(torch.equal(batch.inputs[modality][name], tensor) for name, tensor in tensors.items())
            expect(same, f"it must not write into the {modality} of the batch: other objectives read it")

    def missing(self) -> None:
        model = self.model()
        for modality in sorted(_it(model).needs):
            lacking = _output(model, self.batch(model, {modality: [ROWS - 1]}))
            without = _output(model, self.batch(model).rows(0, ROWS - 1))
            what = f"a row without {modality} must take no part, as if it were not in the batch"
            expect(float(lacking.weight) == float(without.weight), f"{what}; weight differs")
            close(lacking.loss, without.loss, f"{what}; the loss differs")

    def nothing(self) -> None:
        model = self.model()
        needs = sorted(_it(model).needs)
        if not needs:
            return
        out = _output(model, self.batch(model, {m: list(range(ROWS)) for m in needs}))
        expect(
            float(out.weight) == 0 and float(out.loss.detach()) == 0,
            "where no row takes part, loss and weight must be 0",
        )
        expect(
            out.loss.requires_grad, "where no row takes part, the loss must be a zero that is connected to the graph"
        )
        backward(out.loss)
        gradients = [p.grad for p in model.parameters() if p.grad is not None]
        expect(all(g.isfinite().all() for g in gradients), "where no row takes part, gradients must be finite")

    def micro_batches(self) -> None:
        whole, parts = self.model(), self.model()
        _step(whole, self.batch(whole), 1)
        _step(parts, self.batch(parts), 3)
        _compare(parts, _gradients(whole), "three micro-batches must give the gradient of the whole batch")

    def restore(self) -> None:
        model = self.model()
        with tempfile.TemporaryDirectory() as name:
            assets = Path(name)
            if (save := member(_it(model), Part, "save_assets")) is not None:
                folder = assets / "objectives" / "it"
                folder.mkdir(parents=True)
                save(folder)
            again = self.model(seed=5, assets=assets)
        again.seed = model.seed
        try:
            again.load_state_dict(model.state_dict(), strict=True)
        except RuntimeError as error:
            raise ContractError(f"state_dict must load into a new instance of the same options: {error}") from None
        same_origin(_it(model), _it(again))
        same = torch.equal(_output(model, self.batch(model)).loss, _output(again, self.batch(again)).loss)
        expect(same, "an instance with the state_dict of another must compute the same")

    def processes(self, count: int) -> None:
        if count == 1:
            return
        model = self.model()
        _step(model, self.batch(model), 1)
        with tempfile.TemporaryDirectory() as folder:
            spawn(_one_of, (self, folder, count), nprocs=count)  # type: ignore[no-untyped-call]
            for rank in range(count):
                found = torch.load(Path(folder, f"{rank}.pt"), weights_only=True)
                _compare(model, found, f"{count} processes must give the gradient of one")


def _one_of(rank: int, trial: _Trial, folder: str, count: int) -> None:
    """One of several processes, with its share of the rows."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=count)
    try:
        model = trial.model()
        share = ROWS // count
        _step(model, trial.batch(model).rows(rank * share, (rank + 1) * share), 1)
        torch.save(_gradients(model), Path(folder, f"{rank}.pt"))
    finally:
        dist.destroy_process_group()


def _note(ran: list[str], slot: str, *_: Any) -> None:
    ran.append(slot)


def _it(model: VTPModel) -> Any:
    return model.objectives["it"]


def _output(model: VTPModel, batch: Batch) -> Any:
    """The loss of a batch that is a whole step."""
    ctx, objective = ForwardContext(model, batch), _it(model)
    objective.plan(ctx)
    if isinstance(objective, ContrastiveObjective):
        return objective.loss_from_features(objective.features(ctx))
    return objective(ctx)


def _step(model: VTPModel, batch: Batch, accumulation: int) -> None:
    """A step of the engine; the gradient lies in the parameters afterwards."""
    from vtp.train.config import TrainConfig
    from vtp.train.parallel import Parallel
    from vtp.train.precision import Precision
    from vtp.train.step import Step

    cpu = torch.device("cpu")
    config = TrainConfig(steps=1, global_batch=ROWS, accumulation=accumulation)
    Step(Parallel(model, config, cpu), Precision("fp32", cpu), accumulation)(batch)


def _gradients(model: VTPModel) -> dict[str, Tensor]:
    return {n: p.grad.detach() for n, p in model.named_parameters() if p.grad is not None}


def _compare(model: VTPModel, want: Mapping[str, Tensor], expected: str) -> None:
    found = _gradients(model)
    largest = max(float(gradient.abs().max()) for gradient in want.values()) or 1.0
    for name in sorted({*found, *want}):
        zero = torch.zeros_like(want[name] if name in want else found[name])
        scale = max(float(want.get(name, zero).abs().max()), 0.1 * largest)
        close(found.get(name, zero) / scale, want.get(name, zero) / scale, f"{expected}, of {name}")


def _shape(value: Tensor) -> str:
    return f"shape {tuple(value.shape)}" if value.dim() else f"{float(value.detach()):g}"
