"""What is wrong with the arguments of a call, in the caller's terms."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from inspect import Parameter
from typing import Any

__all__ = ["NUMPY_NAMES", "conversion", "explain", "kind_of", "near", "need_number", "need_tensor",
           "refuse_foreign", "renamed", "unexpected_keyword"]

NUMPY_NAMES = {"axis": "dim", "keepdims": "keepdim", "x": "input", "a": "input", "x1": "input",
               "x2": "other"}
"""NumPy's names of arguments, which PyTorch's functions also take."""


def near(word: str, known: Iterable[str]) -> str:
    """"; did you mean 'dim'?" if a known word is close to `word`, else nothing."""
    found = difflib.get_close_matches(word, list(known), 1, 0.6)
    return f"; did you mean {found[0]!r}?" if found else ""


def unexpected_keyword(name: str, word: str, known: Sequence[str]) -> TypeError:
    """The error for `name(word=...)`, with the nearest name that exists."""
    return TypeError(f"{name}() got an unexpected keyword argument {word!r}"
                     f"{near(word, known) or '; it takes ' + ', '.join(known)}")


def renamed(name: str, extra: Mapping[str, Any], given: dict[str, Any],
            defaults: Mapping[str, Any]) -> None:
    """Take keywords under NumPy's names into `given` (argument -> value).

    Raises:
        TypeError: a name that the function does not know, or an argument given twice.
    """
    for word, value in extra.items():
        own = NUMPY_NAMES.get(word, word)
        if own not in given:
            own = {"dim": "dims"}.get(own, own)
        if own == word or own not in given:
            raise unexpected_keyword(name, word, list(given))
        if given[own] is not defaults[own]:
            raise TypeError(f"{name}() got multiple values for argument {own!r} (as {word!r} too)")
        given[own] = value


def kind_of(value: Any) -> str:
    """The type of an argument as messages name it: "int", "numpy.ndarray"."""
    cls = type(value)
    plain = cls.__module__ in ("builtins", "flambeau") or cls.__module__.startswith("flambeau.")
    return cls.__name__ if plain else f"{cls.__module__}.{cls.__name__}"


def need_tensor(name: str, argument: str, value: Any) -> None:
    """Raise if `value` is no tensor.

    Raises:
        TypeError: names the function, the argument, what was given, and how to convert it.
    """
    if not hasattr(value, "_meta"):
        raise TypeError(f"{name}(): argument {argument!r} must be Tensor, not {kind_of(value)}"
                        f"{conversion(value)}")


def conversion(value: Any) -> str:
    """"; convert it with ...", if `value` could be a tensor."""
    if type(value).__module__ == "numpy" and hasattr(value, "dtype"):
        return "; convert it with torch.from_numpy(array) (shares memory) or torch.tensor(array)"
    if isinstance(value, (list, tuple, bool, int, float)):
        return "; convert it with torch.tensor(...)"
    if hasattr(type(value), "__dlpack__") and not hasattr(value, "_meta"):
        return ("; it is another library's: take it in with flambeau.from_dlpack(tensor) (shares "
                "memory) or flambeau.tensor(tensor) (copies)")
    return ""


def refuse_foreign(value: Any) -> None:
    """Raise if `value` is a tensor of PyTorch's own, which no operation takes.

    Raises:
        TypeError: says how to take it in.
    """
    cls = type(value)
    if cls.__module__.partition(".")[0] == "torch" and hasattr(cls, "__dlpack__"):
        raise TypeError(f"unsupported operand type(s): 'flambeau.Tensor' and '{kind_of(value)}'"
                        f"{conversion(value)}")


def explain(error: Exception, name: str, params: Sequence[Parameter], given: dict) -> None:
    """Raise instead of an error that a call ended in, if the cause is the type of an argument.

    PyTorch looks at the types of all arguments before anything else. Here types are what a
    function's annotations say, and they are looked at when something has gone wrong.

    Args:
        name: of the function that was called.
        params: its parameters, and `given` the value of each.

    Raises:
        TypeError: names the first argument whose type does not fit.
    """
    if isinstance(error, TypeError) and str(error).startswith(f"{name}("):
        return
    others = next((given[p.name] for p in params if p.kind is p.VAR_KEYWORD), ())
    for place, param in enumerate(params):
        value, kinds = given[param.name], str(param.annotation).split(" | ")
        if param.kind is param.VAR_POSITIONAL and not value and param.name in _SIZES and (
                param.name not in others):
            raise TypeError(f'{name}() missing 1 required positional arguments: "{param.name}"'
                            ) from None
        if param.kind is param.VAR_POSITIONAL and param.name in _MANY:
            for at, item in enumerate(value[0] if _is_list(value) else value):
                if not _is_tensor(item):
                    raise TypeError(f"expected Tensor as element {at} in argument {place} of "
                                    f"{name}(), but got {kind_of(item)}{conversion(item)}"
                                    ) from None
        if value is param.default or value is None and "None" in kinds:
            continue
        if param.name == "reduction":  # any type will do, says PyTorch: it is the value that is off
            continue
        if kinds == ["TensorBase"] or place == 0 and param.name in _TENSORS and kinds == ["Any"]:
            kinds = ["Tensor"]
        kinds = [kind for kind in kinds if kind != "None"]
        if any(kind not in _FITS or _FITS[kind](value) for kind in kinds):
            continue
        where = "" if param.kind is param.KEYWORD_ONLY else f" (position {place + 1})"
        raise TypeError(f"{name}(): argument {param.name!r}{where} must be "
                        f"{' or '.join(kinds).replace(*_INTS)}{_but(value, kinds)}") from None


def _but(value: Any, kinds: Sequence[str]) -> str:
    """What an argument is instead."""
    if "Sequence[int]" in kinds and isinstance(value, (list, tuple)):
        place = next(place for place, item in enumerate(value) if not _is_integer(item))
        return f", but found element of type {kind_of(value[place])} at pos {place}"
    return f", not {kind_of(value)}{conversion(value) if 'Tensor' in kinds else ''}"


def _is_list(value: tuple) -> bool:
    return len(value) == 1 and isinstance(value[0], (list, tuple))


def _is_integer(value: Any) -> bool:
    if hasattr(value, "_meta"):
        return value._meta.numel == 1 and value._meta.dtype.kind in "iu"
    return hasattr(value, "__index__") and not isinstance(value, bool)


def _is_truth(value: Any) -> bool:
    return "bool" in type(value).__name__.lower()


def _is_real(value: Any) -> bool:
    if hasattr(value, "_meta"):
        return value._meta.numel == 1
    return hasattr(value, "__float__")


def _is_ints(value: Any) -> bool:
    return isinstance(value, (list, tuple)) and all(_is_integer(item) for item in value)


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_tensor(value: Any) -> bool:
    return hasattr(value, "_meta")


_FITS = {"int": _is_integer, "bool": _is_truth, "float": _is_real, "str": _is_text,
         "Tensor": _is_tensor, "Sequence[int]": _is_ints}
"""What an annotation accepts."""

_INTS = ("Sequence[int]", "tuple of ints")

_TENSORS = ("input", "self", "A", "LU_data", "mat1", "v")
"""Names under which the first argument is a tensor."""

_MANY = ("tensors", "matrices")
"""Names of arguments that are tensors, given one by one or as one list."""

_SIZES = ("size", "shape", "dims", "sizes", "repeats")
"""Names of arguments that may be written out, but must be there."""


def need_number(name: str, argument: str, value: Any) -> None:
    """Raise TypeError if `value` is no real number (a tensor of one element counts as one)."""
    if not hasattr(value, "__float__") or isinstance(value, str):
        raise TypeError(f"{name}(): argument {argument!r} must be Number, not {kind_of(value)}")
