"""Results with named fields: tuples that print as `torch.return_types.max(values=..., ...)`."""

from __future__ import annotations

import functools
from collections.abc import Sequence

__all__ = ["PUBLIC_NAMES", "result_class"]

PUBLIC_NAMES = {"max_dim": "max", "min_dim": "min", "median_dim": "median",
           "nanmedian_dim": "nanmedian"}


@functools.cache
def result_class(op_name: str, fields: tuple[str, ...]) -> type:
    """The tuple class of an op's results."""
    name = PUBLIC_NAMES.get(op_name, op_name.replace(".", "_"))

    def make(cls: type, values: Sequence):
        if len(values) != len(fields):
            raise TypeError(f"torch.return_types.{name}() takes a {len(fields)}-sequence "
                            f"({len(values)}-sequence given)")
        return tuple.__new__(cls, values)

    def show(self: tuple) -> str:
        parts = ",\n".join(f"{field}={value!r}" for field, value in zip(fields, self, strict=True))
        return f"torch.return_types.{name}(\n{parts})"

    def reduce(self: tuple) -> tuple:
        return _rebuild, (op_name, fields, tuple(self))

    body = {"__new__": make, "__repr__": show, "__slots__": (), "__reduce__": reduce,
            "_fields": fields, "n_fields": len(fields), "n_sequence_fields": len(fields),
            "n_unnamed_fields": 0, "__match_args__": fields, "__module__": "torch.return_types"}
    for position, field in enumerate(fields):
        body[field] = property(_getter(position))
    return type(name, (tuple,), body)


def _getter(position: int):
    def get(self: tuple):
        return self[position]

    return get


def _rebuild(op_name: str, fields: tuple, values: tuple) -> tuple:
    return result_class(op_name, fields)(values)
