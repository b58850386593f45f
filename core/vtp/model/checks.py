"""What the components of a model give, looked at when they give it for the first time: type, rank, rows, width.

Each check raises PluginError in one line: which component, which plugin, what it gave, what was expected. Shapes and
types only: nothing here waits for the device but :func:`check_count` and :func:`not_finite`.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

import torch
from torch import Tensor, nn

from vtp.contracts import Encoder, Fusion, member
from vtp.errors import PluginError
from vtp.faults import title
from vtp.types import Fused, LossOutput, Tokens

if TYPE_CHECKING:
    from vtp.model.context import ForwardContext
    from vtp.model.model import VTPModel

__all__ = [
    "check_call",
    "check_count",
    "check_features",
    "check_fused",
    "check_graph",
    "check_loss",
    "check_many",
    "check_pooled",
    "check_tokens",
    "first_tokens",
    "not_finite",
    "part_title",
]


def part_title(model: VTPModel, part: str) -> str:
    """``encoders.video`` -> ``encoder.video=swin3d (vtp-plugin-swin3d)``, ``objectives.vtc`` -> ``objective=...``."""
    section, _, name = part.partition(".")
    options = (model.spec.get(section) or {}).get(name) or {}
    modules: Any = model.encoders if section == "encoders" else model.objectives
    node = f"encoder.{name}" if section == "encoders" else "objective"
    return title(node, str(options.get("name") or type(modules[name]).__qualname__))


def check_call(model: VTPModel, part: str, function: Any, arguments: Mapping[str, Any]) -> None:
    """Whether the parameters of a method are those that it is called with."""
    method = function.forward if isinstance(function, nn.Module) else function
    try:
        inspect.signature(method).bind(**arguments)
    except TypeError as error:
        takes = ", ".join(inspect.signature(method).parameters) or "nothing"
        _refuse(model, part, f"has {method.__name__}({takes})", f"{method.__name__}({', '.join(arguments)}): {error}")


def check_tokens(model: VTPModel, part: str, out: Any, rows: int, width: int | None) -> None:
    """Whether an encoder gave Tokens for ``rows`` rows, ``width`` wide (None = any width)."""
    wrong = _tokens_problem(out, rows, width)
    if wrong:
        _refuse(model, part, *wrong)


def first_tokens(model: VTPModel, modality: str, stage: str, encode: Callable[..., Any], **arguments: Tensor) -> Tokens:
    """Call an encoder, or its embedding layer, and check arguments and result."""
    part = f"encoders.{modality}"
    check_call(model, part, encode, arguments)
    out = encode(**arguments)
    width = int(member(model.encoders[modality], Encoder, "width")) if stage == "encoded" else None
    check_tokens(model, part, out, len(next(iter(arguments.values()))), width)
    found: Tokens = out
    return found


def check_pooled(model: VTPModel, slot: str, pooled: Any, rows: int) -> None:
    """Whether the ``pool`` of an encoder gave a vector per row."""
    width = member(model.encoders[slot], Encoder, "pooled_width")
    if not _is_tensor(pooled, (rows, width)):
        _refuse(model, f"encoders.{slot}", f"returned {_kind(pooled)} from pool", f"float ({rows}, {width})")


def check_many(model: VTPModel, out: Any, given: Sequence[Mapping[str, Tokens]]) -> None:
    """Whether the fusion encoder gave a list of Fused, one for each pass that it was given."""
    if not isinstance(out, Sequence) or len(out) != len(given):
        many = f" of {len(out)}" if isinstance(out, Sequence) else ""
        _refuse(model, "encoders.fusion", f"returned {_kind(out)}{many} for {len(given)} passes", "a list of Fused")
    for one, passed in zip(out, given, strict=True):
        check_fused(model, one, passed)


def check_fused(model: VTPModel, out: Any, given: Mapping[str, Tokens]) -> None:
    """Whether the fusion encoder gave Fused, with tokens of every modality that it was given."""
    fusion, part = model.encoders["fusion"], "encoders.fusion"
    rows = len(next(iter(given.values())).x)
    if not isinstance(out, Fused):
        _refuse(model, part, f"returned {_kind(out)}", "Fused")
    if not isinstance(out.tokens, Mapping):
        _refuse(model, part, f"returned Fused.tokens as {_kind(out.tokens)}", "a dict of modality to Tokens")
    if lacking := [modality for modality in given if modality not in out.tokens]:
        held = f"Fused.tokens of {', '.join(out.tokens) or 'nothing'}"
        _refuse(model, part, f"returned {held}", f"those of {', '.join(lacking)} as well, which it was given")
    for modality, tokens in out.tokens.items():
        wrong = _tokens_problem(tokens, rows, member(fusion, Fusion, "width"))
        if wrong:
            _refuse(model, part, f"{wrong[0]} in Fused.tokens[{modality!r}]", wrong[1])
    pooled = out.pooled
    if not (isinstance(pooled, Tensor) and pooled.is_floating_point() and pooled.ndim == 2 and len(pooled) == rows):
        _refuse(model, part, f"returned Fused.pooled as {_kind(pooled)}", f"float ({rows}, D)")


def check_loss(model: VTPModel, name: str, out: Any) -> None:
    """Whether an objective gave a LossOutput that can be trained on."""
    part = f"objectives.{name}"
    if not isinstance(out, LossOutput):
        _refuse(model, part, f"returned {_kind(out)}", "LossOutput(loss, weight)")
    if not _is_tensor(out.loss, ()):
        _refuse(model, part, f"returned LossOutput.loss as {_kind(out.loss)}", "a floating scalar, the mean over items")
    if torch.is_grad_enabled() and not out.loss.requires_grad and _trains(model, name):
        what = "returned a loss that is detached from the graph, so nothing would be learnt from it"
        _refuse(model, part, what, "a loss with a gradient")
    if not isinstance(out.weight, Tensor) or out.weight.numel() != 1:
        _refuse(
            model, part, f"returned LossOutput.weight as {_kind(out.weight)}", "a scalar tensor, the number of items"
        )
    if not isinstance(out.metrics, Mapping):
        _refuse(model, part, f"returned LossOutput.metrics as {_kind(out.metrics)}", "a dict of scalar tensors")
    for metric, value in out.metrics.items():
        if not isinstance(value, Tensor) or value.numel() != 1:
            _refuse(model, part, f"returned the metric {metric!r} as {_kind(value)}", "a scalar tensor")


def check_count(model: VTPModel, name: str, counted: Any, weight: Tensor | None = None) -> None:
    """Whether ``count`` announced what then took part; micro-batches and processes would be weighted wrongly."""
    part = f"objectives.{name}"
    if not isinstance(counted, Tensor) or counted.numel() != 1:
        _refuse(model, part, f"returned {_kind(counted)} from count(ctx)", "a scalar tensor, the number of items")
    if weight is not None and not math.isclose(float(counted), float(weight), rel_tol=1e-5):
        said = f"counts {float(counted):g} items in count(ctx) and {float(weight):g} in LossOutput.weight"
        _refuse(model, part, said, "the same number")


def check_features(model: VTPModel, name: str, out: Any, rows: int) -> None:
    """Whether a contrastive objective gave tensors with a row per row of the batch, none of them a parameter itself."""
    part = f"objectives.{name}"
    if not isinstance(out, Mapping) or not out:
        _refuse(model, part, f"returned {_kind(out)} from features(ctx)", "a dict of tensors")
    for key, value in out.items():
        what = f"returned {_kind(value)} as features(ctx)[{key!r}]"
        if not isinstance(value, Tensor):
            _refuse(model, part, what, "a tensor")
        if value.is_leaf and value.requires_grad:
            what = f"returned a parameter itself as features(ctx)[{key!r}], which fails with several processes"
            _refuse(model, part, what, "parameter * 1.0")
        if value.ndim == 0 or len(value) not in (rows, 1):
            _refuse(model, part, what, f"a row per row of the batch ({rows}), or shape (1,) of which the mean counts")


def check_graph(model: VTPModel, name: str, loss: Tensor, features: Iterable[Tensor]) -> None:
    """Whether ``loss_from_features`` reads features alone: parameters that it reads get no gradient under DDP."""
    values = list(features)
    seen: set[Any] = {value.grad_fn for value in values}
    given = {id(value) for value in values}
    waiting = [loss.grad_fn] if loss.grad_fn not in seen else []
    while waiting:
        node: Any = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        leaf = getattr(node, "variable", None)
        if leaf is not None and id(leaf) not in given:
            names = [n for n, p in model.named_parameters() if p is leaf]
            if names:
                own = names[0].removeprefix(f"objectives.{name}.")
                what = f"reads the parameter {own} in loss_from_features, which fails with several processes"
                _refuse(model, f"objectives.{name}", what, f"{own} * 1.0, shape (1,), among the features")
        waiting += [following for following, _ in node.next_functions]


def not_finite(ctx: ForwardContext) -> str:
    """Which encoder gave NaN or infinity in the passes of a context, or which input has it; "" where none did."""
    for modality, tensors in ctx.batch.inputs.items():
        for name, tensor in tensors.items():
            if tensor.is_floating_point() and not tensor.isfinite().all():
                return f"the {name} of {modality} in the batch is not finite"
    for part, view, tokens in ctx.made():
        if not tokens.x[tokens.attention_mask].isfinite().all():
            of = f" of the view {view!r}" if view else ""
            return f"{part_title(ctx.model, part)} gave tokens{of} that are not finite"
    return ""


def _refuse(model: VTPModel, part: str, got: str, expected: str) -> NoReturn:
    raise PluginError(f"{part_title(model, part)} {got}, expected {expected}.")


def _tokens_problem(out: Any, rows: int, width: int | None) -> tuple[str, str] | None:
    if not isinstance(out, Tokens):
        return f"returned {_kind(out)}", "Tokens"
    x, mask = out.x, out.attention_mask
    wide = "D" if width is None else str(width)
    if not (isinstance(x, Tensor) and x.is_floating_point() and x.ndim == 3 and len(x) == rows):
        return f"returned Tokens.x as {_kind(x)}", f"float ({rows}, N, {wide})"
    if width is not None and x.shape[2] != width:
        return f"returned Tokens.x as {_kind(x)}", f"its width, {width}, in the last dimension"
    shape = tuple(x.shape[:2])
    if not (isinstance(mask, Tensor) and mask.dtype == torch.bool and tuple(mask.shape) == shape):
        return f"returned Tokens.attention_mask as {_kind(mask)}", f"bool {shape}, True = real"
    if out.index is not None and not (isinstance(out.index, Tensor) and tuple(out.index.shape) == shape):
        return f"returned Tokens.index as {_kind(out.index)}", f"int64 {shape}, or None"
    if out.grid is not None and out.index is None and math.prod(out.grid) != shape[1]:
        return f"returned {shape[1]} tokens with Tokens.grid={tuple(out.grid)}", "a grid of as many places, or None"
    return None


def _trains(model: VTPModel, name: str) -> bool:
    """Whether anything that an objective reaches is trained at all."""
    objective: Any = model.objectives[name]
    parts = [objective, *(encoder for slot, encoder in model.encoders.items() if slot in {*objective.needs, "fusion"})]
    return any(parameter.requires_grad for part in parts for parameter in part.parameters())


def _is_tensor(value: Any, shape: tuple[int, ...]) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point() and tuple(value.shape) == shape


def _kind(value: Any) -> str:
    """A tensor with dtype and shape, anything else by its type."""
    if isinstance(value, Tensor):
        return f"Tensor {str(value.dtype).removeprefix('torch.')} {tuple(value.shape)}"
    return "None" if value is None else type(value).__name__
