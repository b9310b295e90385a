"""`opcheck`: does a custom operator keep what its rules promise?"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import flambeau
from flambeau.library.operators import FakeContext, OpOverload, faking, operator_of
from flambeau.tensor import Tensor

__all__ = ["opcheck"]

_UTILS = ("test_schema", "test_autograd_registration", "test_faketensor",
          "test_aot_dispatch_dynamic")


class OpCheckError(Exception):
    """A custom operator fails a check."""


def opcheck(op: Any, args: tuple, kwargs: dict | None = None, *,
            test_utils: str | Sequence[str] = _UTILS, raise_exception: bool = True,
            atol: float | None = None, rtol: float | None = None) -> dict[str, Any]:
    """Check an operator on an example: name of the check -> "SUCCESS" or the error.

    - test_schema: it writes to the arguments that it says, and to no others.
    - test_autograd_registration: there is a gradient if the arguments ask for one.
    - test_faketensor: `register_fake` describes the results.
    - test_aot_dispatch_dynamic: compiled calls equal eager ones.

    Raises:
        OpCheckError: a check fails, and `raise_exception`.
    """
    names = (test_utils,) if isinstance(test_utils, str) else tuple(test_utils)
    unknown = [name for name in names if name not in _UTILS]
    if unknown:
        raise ValueError(f"opcheck: unknown test_utils {unknown}; there are {', '.join(_UTILS)}")
    found, report = operator_of(op), {}
    for name in names:
        try:
            _CHECKS[name](found, args, kwargs or {}, atol, rtol)
            report[name] = "SUCCESS"
        except Exception as error:
            if raise_exception:
                raise OpCheckError(f"opcheck(op, ...): {name} failed with {error}") from error
            report[name] = error
    return report


def _copied(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.detach().clone().requires_grad_(value.requires_grad)
    if isinstance(value, (list, tuple)):
        return type(value)(_copied(item) for item in value)
    return value


def _check_schema(op: OpOverload, args: tuple, kwargs: dict, *_: Any) -> None:
    values = op._schema.bind(_copied(args), {k: _copied(v) for k, v in kwargs.items()})
    before = [_copied(value) for value in values]
    with flambeau.no_grad():
        op.compute([v.detach() if isinstance(v, Tensor) else v for v in values])
    for argument, old, new in zip(op._schema.arguments, before, values, strict=True):
        if not argument.mutates and not _same(old, new):
            raise RuntimeError(f"argument {argument.name} is not declared as mutable in the schema "
                               f"{op._schema}, but the operator wrote to it: name it in "
                               "mutates_args")


def _same(old: Any, new: Any) -> bool:
    if isinstance(old, Tensor):
        return old.shape == new.shape and bool(flambeau.allclose(
            old.detach(), new.detach(), rtol=0, atol=0, equal_nan=True))
    if isinstance(old, (list, tuple)):
        return all(_same(a, b) for a, b in zip(old, new, strict=True))
    return True


def _check_autograd(op: OpOverload, args: tuple, kwargs: dict, *_: Any) -> None:
    wants = any(isinstance(v, Tensor) and v.requires_grad for v in (*args, *kwargs.values()))
    if wants and op.backward is None and op.autograd_kernel is None and not op.implicit:
        raise RuntimeError(f"{op.name()} has no gradient, but an argument requires one: use "
                           "register_autograd")


def _results(result: Any) -> list:
    return list(result) if isinstance(result, (tuple, list)) else [result]


def _check_fake(op: OpOverload, args: tuple, kwargs: dict, *_: Any) -> None:
    if op.fake is None:
        if op.implicit or not op._schema.returns:
            return
        raise RuntimeError(f"There was no fake impl registered for {op}. Please use "
                           "register_fake to add one.")
    values = op._schema.bind(_copied(args), {k: _copied(v) for k, v in kwargs.items()})
    real = _results(op.compute([v.detach() if isinstance(v, Tensor) else v for v in values]))
    given, named = op._split(values)
    context = FakeContext()
    before, faking.context = faking.context, context
    try:
        fake = _results(op.fake(*given, **named))
    finally:
        faking.context = before
    for got, want in zip(fake, real, strict=True):
        if not isinstance(want, Tensor):
            continue
        fits = got.dim() == want.dim() if context.sizes else got.shape == want.shape
        if not fits or got.dtype != want.dtype:
            raise RuntimeError(f"the fake of {op} gives {got.dtype}{list(got.shape)}, the kernel "
                               f"{want.dtype}{list(want.shape)}")


def _check_compiled(op: OpOverload, args: tuple, kwargs: dict, atol: float | None,
                    rtol: float | None) -> None:
    tolerance = {"atol": 1e-6 if atol is None else atol, "rtol": 1e-5 if rtol is None else rtol}

    def run(*tensors: Any) -> Any:
        return op(*tensors, **kwargs)

    compiled = flambeau.compile(run, fullgraph=False)
    for _ in range(2):
        expected = _results(op(*_copied(args), **kwargs))
        for got, want in zip(_results(compiled(*_copied(args))), expected, strict=True):
            if isinstance(want, Tensor) and not flambeau.allclose(got, want, equal_nan=True,
                                                                  **tolerance):
                raise RuntimeError(f"the compiled result {got} is not the eager one {want}")


_CHECKS: dict[str, Callable] = {
    "test_schema": _check_schema, "test_autograd_registration": _check_autograd,
    "test_faketensor": _check_fake, "test_aot_dispatch_dynamic": _check_compiled}
