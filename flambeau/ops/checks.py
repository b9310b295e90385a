"""Checks of op records that several families share: what must agree before anything is promoted."""

from __future__ import annotations

from collections.abc import Callable

from flambeau.ir.graph import Value

__all__ = ["no_bool", "one_dtype", "vectors_alike"]


def one_dtype(text: str, *places: int) -> Callable[..., None]:
    """A check for records: the arguments at these places (those that are there) have one dtype.

    A body cannot ask that: by then 16-bit floats are widened, and look like float32.

    Args:
        text: the message; {first} and {other} are the two dtypes, as PyTorch's messages name them.
    """

    def check(*args: object) -> None:
        given = [args[n] for n in places]
        given = [arg for arg in given if isinstance(arg, Value) and not arg.number]
        for value in given[1:]:
            if value.dtype is not given[0].dtype:
                raise RuntimeError(text.format(first=given[0].dtype.scalar_name,
                                               other=value.dtype.scalar_name))

    return check


vectors_alike = one_dtype("dot : expected both vectors to have same dtype, but found {first} and "
                          "{other}", 0, 1)


def no_bool(*args: object) -> None:
    """Refuse truth values, which have no difference.

    Raises:
        RuntimeError: a bool tensor among the arguments.
    """
    if any(isinstance(arg, Value) and arg.dtype.kind == "b" for arg in args):
        raise RuntimeError("Subtraction, the `-` operator, with a bool tensor is not supported. If "
                           "you are trying to invert a mask, use the `~` or `logical_not()` "
                           "operator instead; otherwise convert with .to(torch.float32).")
