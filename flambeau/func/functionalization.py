"""functionalize: mutations have no meaning left once a function is captured."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

__all__ = ["functionalize"]


def functionalize(func: Callable, *, remove: str = "mutations") -> Callable:
    """The same function. What it writes to tensors becomes values of a program when it is captured
    (`torch.compile`, `torch.export`), here as everywhere, so nothing is left to do.

    Args:
        remove: "mutations" or "mutations_and_views".

    Raises:
        RuntimeError: another word.

    >>> torch.func.functionalize(lambda x: x.clone().add_(1))(torch.zeros(2))
    tensor([1., 1.])
    """
    if remove not in ("mutations", "mutations_and_views"):
        raise RuntimeError("functionalize(f, remove='mutations'): received invalid argument for "
                           f"remove={remove}. Valid options are: 'mutations' and "
                           "'mutations_and_views'.")

    @functools.wraps(func)
    def functional(*args: Any, **kwargs: Any) -> Any:
        return func(*args, **kwargs)

    return functional
