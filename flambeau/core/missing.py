"""Names of what is not there: they can be imported and asked about, and refuse to work."""

from __future__ import annotations

from typing import Any

__all__ = ["missing_class", "missing_function"]


def missing_function(name: str, module: str, message: str, doc: str) -> Any:
    """A function that raises NotImplementedError(message)."""
    def refuse(*args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError(message)

    refuse.__name__ = refuse.__qualname__ = name
    refuse.__module__, refuse.__doc__ = module, doc
    return refuse


def missing_class(name: str, module: str, message: str, doc: str) -> type:
    """A class of which there are no instances: making one raises NotImplementedError(message)."""
    def refuse(self: Any, *args: Any, **kwargs: Any) -> None:
        raise NotImplementedError(message)

    return type(name, (), {"__init__": refuse, "__module__": module, "__doc__": doc})
