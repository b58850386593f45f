"""How checks are run: all of them, and one error that tells every one that failed."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from vtp.components import check_options
from vtp.contracts import Part, member, unfit

__all__ = [
    "Check",
    "ContractError",
    "backward",
    "close",
    "construct",
    "expect",
    "keeps_members",
    "run",
    "same_origin",
    "some",
]

Check = Callable[[], None]


class ContractError(AssertionError):
    """A component does not keep its contract: which component, which check, and what was expected."""


def expect(holds: object, expected: str) -> None:
    """Raise ContractError with what was expected unless it holds."""
    if not holds:
        raise ContractError(expected)


def close(got: Tensor, want: Tensor, expected: str, *, rtol: float = 1e-4, atol: float = 1e-5) -> None:
    """Raise ContractError with what was expected, and by how much it is missed, unless two tensors are close."""
    try:
        torch.testing.assert_close(got, want, rtol=rtol, atol=atol)
    except AssertionError as error:
        told = [line for line in str(error).splitlines() if line.startswith(("Greatest absolute", "The values"))]
        raise ContractError(f"{expected} ({' '.join(told) or str(error).splitlines()[0]})") from None


def backward(loss: Tensor) -> None:
    """The backward pass of a scalar."""
    torch.autograd.backward([loss])


def some(names: Iterable[object]) -> str:
    """The first four names, and how many more there are."""
    told = list(map(str, names))
    return ", ".join(told[:4]) + (f" and {len(told) - 4} more" if len(told) > 4 else "")


def run(subject: str, checks: Mapping[str, Check], skip: Mapping[str, str] | None = None) -> None:
    """Run all checks.

    Args:
        subject: what is checked, for the message.
        checks: by name.
        skip: names of checks that are left out, each with the reason.

    Raises:
        ContractError: with what failed, and in which checks. What a check expected comes first: exceptions in others
            mostly follow from it.
        ValueError: ``skip`` names a check that does not exist, or gives no reason.
    """
    for name, reason in (skip or {}).items():
        if name not in checks or not reason:
            raise ValueError(f"skip={{{name!r}: {reason!r}}}: expected a reason, for one of {', '.join(checks)}")
    unkept: dict[str, list[str]] = {}
    raised: dict[str, list[str]] = {}
    cause: Exception | None = None
    for name, check in checks.items():
        if skip and name in skip:
            continue
        try:
            check()
        except ContractError as error:
            unkept.setdefault(str(error), []).append(name)
        except Exception as error:
            raised.setdefault(f"it raised {type(error).__name__}: {error}", []).append(name)
            cause = error
    if unkept or raised:
        count = sum(map(len, (*unkept.values(), *raised.values())))
        head = f"{subject} does not keep its contract ({count} of {len(checks)} checks):"
        told = [f"{', '.join(names)}: {what}" for what, names in (*unkept.items(), *raised.items())]
        raise ContractError("\n  ".join([head, *told])) from cause


def construct(cls: Callable[..., Any], options: Mapping[str, Any], **given: Any) -> Any:
    """Call a constructor as vtp does, with those of ``given`` that it asks for.

    Raises:
        ContractError: an option is not one of its parameters, or of another type than it is annotated with.
    """
    problems: list[str] = []
    check_options("", cls.__name__, cls, options, problems, given=given)
    if problems:
        raise ContractError("; ".join(problems))
    taken = inspect.signature(cls).parameters
    return cls(**{key: value for key, value in given.items() if key in taken}, **options)


def keeps_members(component: object, contract: type) -> None:
    """The check of :func:`vtp.contracts.unfit`."""
    problems = unfit(component, contract)
    expect(not problems, "; ".join(f"it {problem}" for problem in problems))


def same_origin(part: object, again: object) -> None:
    """The check of ``origin`` of a part of a model, and of the same part that was restored from its assets."""
    told = []
    for one in (part, again):
        origin = member(one, Part, "origin")
        found = {} if origin is None else origin()
        expect(isinstance(found, Mapping), f"origin() must be a dict, got {type(found).__name__}")
        try:
            told.append(json.dumps(found, sort_keys=True))
        except (TypeError, ValueError) as error:
            raise ContractError(f"origin() must be plain JSON: {error}") from None
    expect(told[0] == told[1], f"origin() must tell the same after save_assets: {told[0]}, and then {told[1]}")
