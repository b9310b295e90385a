"""`factory_kwargs`: the arguments of a module's constructor that say how tensors are made."""

from __future__ import annotations

from typing import Any

__all__ = ["factory_kwargs"]

_KNOWN = {"device", "dtype", "memory_format"}


def factory_kwargs(kwargs: dict[str, Any] | None) -> dict[str, Any]:
    """The device, dtype and memory format among a constructor's arguments, for `torch.empty` and
    the like. A dict under the name "factory_kwargs" is opened.

    Raises:
        TypeError: anything else, or one given twice.

    >>> torch.nn.factory_kwargs({"dtype": torch.float64})
    {'dtype': torch.float64}
    """
    if kwargs is None:
        return {}
    unknown = sorted(kwargs.keys() - _KNOWN - {"factory_kwargs"})
    if unknown:
        raise TypeError(f"unexpected kwargs {unknown}: a module's tensors are made with "
                        f"{', '.join(sorted(_KNOWN))}")
    made = dict(kwargs.get("factory_kwargs", {}))
    unknown = sorted(made.keys() - _KNOWN)
    if unknown:
        raise TypeError(f"unexpected factory_kwargs {unknown}")
    for name in sorted(_KNOWN & kwargs.keys()):
        if name in made:
            raise TypeError(f"{name} specified twice, in **kwargs and in factory_kwargs")
        made[name] = kwargs[name]
    return made
