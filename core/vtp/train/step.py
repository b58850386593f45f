"""Losses and gradients of one step, equal to those of the whole batch for any number of micro-batches and processes.

An ordinary objective is a mean over its items (rows, masked words). Its micro-batch counts as much as it has items:
loss_m * count_m / count, with the count of the whole step known before the first backward pass.

A contrastive objective compares all rows of the step. With one micro-batch its features are gathered over the
processes with gradients. With several, GradCache (arXiv:2101.06983): a pass without gradients collects all features,
the loss gives the gradient of each feature, and a second pass repeats each micro-batch (same random numbers) and
sends those gradients back.

An objective of weight 0 is not computed; its parameters get zero gradients, as if it were.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from vtp import distributed
from vtp.contracts import Objective, member
from vtp.model import checks
from vtp.model.blocks import connected_zero
from vtp.model.context import ForwardContext
from vtp.train.parallel import Parallel
from vtp.train.precision import Precision
from vtp.types import Batch

__all__ = ["Observation", "Step"]


class Observation:
    """What one objective showed in one micro-batch, as detached device scalars: loss, number of items, metrics."""

    __slots__ = ("loss", "metrics", "name", "weight")

    def __init__(self, name: str, loss: Tensor, weight: Tensor, metrics: Mapping[str, Tensor]) -> None:
        self.name = name
        self.loss = loss.detach()
        self.weight = weight.detach()
        self.metrics = {k: v.detach() for k, v in metrics.items()}


class Step:
    """Runs the passes of a step and leaves the gradient in the parameters.

    Args:
        parallel: the wrapped model.
        precision: autocast and loss scaling.
        accumulation: number of micro-batches.
        watch: look in every pass, not just the first, which encoder gave what is not finite. That waits for the
            device.

    Attributes:
        weights: factor of each objective in the total loss.
        culprit: what gave NaN or infinity first, "" as long as nothing has.
    """

    def __init__(self, parallel: Parallel, precision: Precision, accumulation: int, *, watch: bool = False) -> None:
        self._parallel = parallel
        self._precision = precision
        self._accumulation = accumulation
        self._objectives: dict[str, Any] = dict(parallel.model.objectives.items())
        self.weights: dict[str, float] = parallel.model.weights
        self._compares = {n: member(o, Objective, "contrastive") for n, o in self._objectives.items()}
        self._contrastive: list[str] = []  # of the objectives that count in this step
        self._ordinary: list[str] = []
        self._idle: list[str] = []
        self._watch = watch
        self._first = True  # what the parts give is checked in the first step
        self._watched: ForwardContext | None = None
        self.culprit = ""

    def __call__(self, batch: Batch) -> list[Observation]:
        """Forward and backward passes of this process's share of the step."""
        self._sort()
        parts = self._split(batch)
        seen = self._whole(parts[0]) if len(parts) == 1 else self._accumulated(batch, parts)
        self._first = False
        return seen

    def _sort(self) -> None:
        """Which objectives count: those with a weight, and all where none has one."""
        counting = [name for name in self._objectives if self.weights[name]] or list(self._objectives)
        self._contrastive = [name for name in counting if self._compares[name]]
        self._ordinary = [name for name in counting if not self._compares[name]]
        self._idle = [name for name in self._objectives if name not in counting]

    def _accumulated(self, batch: Batch, parts: list[Batch]) -> list[Observation]:
        """Several micro-batches."""
        seen: list[Observation] = []
        counts = self._counts(parts)
        seeds = torch.randint(2**62, (len(parts),)).tolist() if self._contrastive else [None] * len(parts)
        wanted = self._feature_gradients(parts, seeds, seen)
        for index, part in enumerate(parts):
            with self._parallel.accumulate(last=index == len(parts) - 1):
                with _random(seeds[index], batch), self._precision.autocast():
                    out = self._parallel.forward(part, run=self._pass)
                loss = self._ordinary_loss(out, counts, seen)
                for (objective, name), gradients in wanted.items():
                    loss = loss + (out["feature", objective, name].float() * gradients[index]).sum()
                self._look(loss)
                self._precision.backward(loss)
        return seen

    def _whole(self, batch: Batch) -> list[Observation]:
        """One micro-batch: losses straight from the forward pass."""
        seen: list[Observation] = []
        with self._precision.autocast():
            out = self._parallel.forward(batch, run=self._pass)
        counts = None
        if distributed.world_size() > 1 and self._ordinary:
            counts = distributed.sum_scalars(torch.stack([out["weight", n].float() for n in self._ordinary]))
        loss = self._ordinary_loss(out, counts, seen)
        for objective in self._contrastive:
            own = {k[2]: v for k, v in out.items() if k[:2] == ("feature", objective)}
            output = self._contrastive_loss(objective, own)
            loss = loss + self.weights[objective] * output.loss
            seen.append(self._shared(objective, output))
        self._look(loss)
        self._precision.backward(loss)
        return seen

    def _look(self, loss: Tensor) -> None:
        """Note which encoder gave what is not finite, as long as its tokens are there."""
        ctx, self._watched = self._watched, None
        if ctx is not None and not self.culprit and not math.isfinite(loss.item()):
            self.culprit = checks.not_finite(ctx)

    def _pass(self, ctx: ForwardContext) -> dict[tuple[str, ...], Tensor]:
        """What runs inside the wrapped forward. Plain tensors in one dict: the wrappers look for them there.

        Contrastive objectives come first, as in :meth:`_features_only`, so that both passes draw the same random
        numbers for their features.
        """
        self._announce(ctx, [*self._contrastive, *self._ordinary])
        out = self._features(ctx)
        for name in self._ordinary:
            output = self._objectives[name](ctx)
            if self._first:
                self._check(ctx, name, output)
            out["loss", name] = output.loss
            out["weight", name] = output.weight.detach()
            for metric, value in output.metrics.items():
                out["metric", name, metric] = value.detach()
        if self._watch or self._first:
            self._watched = ctx
        return self._with_idle(out)

    def _with_idle(self, out: dict[tuple[str, ...], Tensor]) -> dict[tuple[str, ...], Tensor]:
        """What a pass gives, with zero gradients for objectives that do not count, where any tensor has a gradient."""
        idle = [p for name in self._idle for p in self._objectives[name].parameters() if type(p) is torch.nn.Parameter]
        key = next((key for key, value in out.items() if value.requires_grad), None) if idle else None
        return out if key is None else {**out, key: out[key] + connected_zero(idle, out[key])}

    def _check(self, ctx: ForwardContext, name: str, output: Any) -> None:
        """Look at what an ordinary objective gives for the first time."""
        checks.check_loss(ctx.model, name, output)
        devices = [ctx.device] if ctx.device.type == "cuda" else []
        with torch.no_grad(), torch.random.fork_rng(devices=devices):  # the check must not move what is drawn later
            counted = self._objectives[name].count(ForwardContext(ctx.model, ctx.batch))
        checks.check_count(ctx.model, name, counted, output.weight)

    def _features_only(self, ctx: ForwardContext) -> dict[tuple[str, ...], Tensor]:
        """The first pass of GradCache, which must not make what only the ordinary objectives ask for."""
        self._announce(ctx, self._contrastive)
        return self._features(ctx)

    def _announce(self, ctx: ForwardContext, names: list[str]) -> None:
        for name in names:
            self._objectives[name].plan(ctx)

    def _features(self, ctx: ForwardContext) -> dict[tuple[str, ...], Tensor]:
        found: dict[tuple[str, ...], Tensor] = {}
        for objective in self._contrastive:
            features = self._objectives[objective].features(ctx)
            if self._first:
                checks.check_features(ctx.model, objective, features, len(ctx.batch))
            found |= {("feature", objective, name): value for name, value in features.items()}
        return found

    def _ordinary_loss(self, out: Mapping[Any, Tensor], counts: Tensor | None, seen: list[Observation]) -> Tensor:
        """Weighted sum of the ordinary objectives of one micro-batch, scaled so that micro-batches and ranks add up."""
        total: Tensor | None = None
        for index, name in enumerate(self._ordinary):
            loss, weight = out["loss", name], out["weight", name]
            term = self.weights[name] * loss.float()
            if counts is not None:
                # times world size, since DDP and FSDP2 average the gradients of the ranks
                term = term * (weight.float() * distributed.world_size() / counts[index].clamp(min=1))
            total = term if total is None else total + term
            metrics = {k[2]: v for k, v in out.items() if k[0] == "metric" and k[1] == name}
            seen.append(Observation(name, loss, weight, metrics))
        if total is None:
            total = torch.zeros((), device=next(iter(out.values())).device)
        return total

    def _counts(self, parts: list[Batch]) -> Tensor | None:
        """Items per ordinary objective in the whole step, (objectives,)."""
        if not self._ordinary:
            return None
        with torch.no_grad():
            rows = []
            for part in parts:
                ctx = ForwardContext(self._parallel.model, part)
                counted = {name: self._objectives[name].count(ctx) for name in self._ordinary}
                if self._first:
                    for name, count in counted.items():
                        checks.check_count(ctx.model, name, count)
                rows.append(torch.stack([count.float().reshape(()) for count in counted.values()]))
        return distributed.sum_scalars(torch.stack(rows).sum(0))

    def _feature_gradients(
        self, parts: list[Batch], seeds: list[Any], seen: list[Observation]
    ) -> dict[tuple[str, str], list[Tensor]]:
        """First pass of GradCache: (objective, feature) -> gradient per micro-batch."""
        if not self._contrastive:
            return {}
        passes: list[dict[Any, Tensor]] = []
        for part, seed in zip(parts, seeds, strict=True):
            with torch.no_grad(), _random(seed, part), self._precision.autocast():
                passes.append(self._parallel.forward(part, run=self._features_only))
        gradients: dict[tuple[str, str], list[Tensor]] = {}
        for objective in self._contrastive:
            names = [k[2] for k in passes[0] if k[1] == objective]
            chunks = {n: [out["feature", objective, n] for out in passes] for n in names}
            own = {n: torch.cat(values) for n, values in chunks.items()}
            leaves = {n: v.float().requires_grad_() for n, v in own.items() if v.is_floating_point()}
            output = self._contrastive_loss(objective, {**own, **leaves})
            (self.weights[objective] * output.loss).backward()
            for name, leaf in leaves.items():
                if leaf.grad is not None:
                    gradients[objective, name] = list(torch.split(leaf.grad, [len(c) for c in chunks[name]]))
            seen.append(self._shared(objective, output))
        return gradients

    @staticmethod
    def _shared(objective: str, output: Any) -> Observation:
        """A loss over the rows of all processes: each reports its share of the items."""
        return Observation(objective, output.loss, output.weight / distributed.world_size(), output.metrics)

    def _contrastive_loss(self, objective: str, own: dict[str, Tensor]) -> Any:
        """Loss over the rows of all processes, in fp32. Sorted: every rank must gather in the same order."""
        values = {n: v.float() if v.is_floating_point() else v for n, v in sorted(own.items())}
        gathered = {n: distributed.gather_with_grad(v) for n, v in values.items()}
        output = self._objectives[objective].loss_from_features(gathered)
        if self._first:
            checks.check_loss(self._parallel.model, objective, output)
            checks.check_graph(self._parallel.model, objective, output.loss, gathered.values())
        return output

    def _split(self, batch: Batch) -> list[Batch]:
        parts = min(self._accumulation, len(batch))
        edges = [len(batch) * i // parts for i in range(parts + 1)]
        return [batch.rows(a, b) for a, b in zip(edges, edges[1:], strict=False)] if parts > 1 else [batch]


@contextmanager
def _random(seed: int | None, batch: Batch) -> Iterator[None]:
    """Draw from ``seed`` inside, and leave the generators of the CPU and the GPU as they were."""
    if seed is None:
        yield
        return
    device = next((t.device for m in batch.inputs.values() for t in m.values()), torch.device("cpu"))
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield
