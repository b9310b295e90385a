"""`torch.testing`: comparing tensors in tests."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from flambeau.core import dtypes
from flambeau.tensor import Tensor
from flambeau.tensor.creation import as_tensor
from flambeau.tensor.interop import array_of
from flambeau.testing.making import make_tensor

__all__ = ["assert_allclose", "assert_close", "make_tensor"]

_TOLERANCES = {dtypes.float16: (1e-3, 1e-5), dtypes.bfloat16: (1.6e-2, 1e-5),
               dtypes.float32: (1.3e-6, 1e-5), dtypes.float64: (1e-7, 1e-7),
               dtypes.complex64: (1.3e-6, 1e-5), dtypes.complex128: (1e-7, 1e-7)}

_OLD_TOLERANCES = {dtypes.float16: (1e-3, 1e-3), dtypes.float32: (1e-4, 1e-5),
                   dtypes.float64: (1e-5, 1e-8)}


def assert_close(actual: Any, expected: Any, *, allow_subclasses: bool = True,
                 rtol: float | None = None, atol: float | None = None, equal_nan: bool = False,
                 check_device: bool = True, check_dtype: bool = True, check_layout: bool = True,
                 check_stride: bool = False, msg: str | Callable[[str], str] | None = None) -> None:
    """Raise AssertionError unless |actual - expected| <= atol + rtol * |expected| everywhere.

    Numbers, tensors, sequences and mappings of them. The tolerances default to the dtype's.

    >>> torch.testing.assert_close(torch.ones(2), torch.tensor([1., 1.0000001]))
    """
    if (rtol is None) != (atol is None):
        raise ValueError("rtol and atol must both be specified or both be unspecified, but got "
                         f"rtol={rtol} and atol={atol} instead.")
    options = {"rtol": rtol, "atol": atol, "equal_nan": equal_nan, "check_dtype": check_dtype,
               "check_stride": check_stride}
    problem = _difference(actual, expected, "", options)
    if problem is not None:
        raise AssertionError(msg(problem) if callable(msg) else msg or problem)


def assert_allclose(actual: Any, expected: Any, rtol: float | None = None,
                    atol: float | None = None, equal_nan: bool = True, msg: str = "") -> None:
    """The old form of `assert_close`: dtypes may differ, and NaN equals NaN. Deprecated.

    >>> import warnings
    >>> warnings.simplefilter("ignore")
    >>> torch.testing.assert_allclose(torch.ones(2), [1.0, 1.0])
    """
    import warnings

    warnings.warn("`torch.testing.assert_allclose()` is deprecated: use "
                  "`torch.testing.assert_close()` instead.", FutureWarning, stacklevel=2)
    actual, expected = as_tensor(actual), as_tensor(expected)
    if rtol is None and atol is None:
        pairs = [_OLD_TOLERANCES.get(one.dtype, (0.0, 0.0)) for one in (actual, expected)]
        rtol, atol = (max(both) for both in zip(*pairs, strict=True))
    assert_close(actual, expected, rtol=rtol, atol=atol, equal_nan=equal_nan, check_dtype=False,
                 msg=msg or None)


def _difference(actual: Any, expected: Any, where: str, options: dict) -> str | None:
    suffix = f"\n\nThe failure occurred for item {where}" if where else ""
    if isinstance(actual, Mapping) and isinstance(expected, Mapping):
        if set(actual) != set(expected):
            return f"The keys of the mappings do not match: {set(actual) ^ set(expected)}{suffix}"
        return _first(_difference(actual[k], expected[k], f"{where}[{k!r}]", options)
                      for k in expected)
    if _is_sequence(actual) and _is_sequence(expected):
        if len(actual) != len(expected):
            return (f"The length of the sequences mismatch: {len(actual)} != {len(expected)}"
                    f"{suffix}")
        return _first(_difference(a, e, f"{where}[{i}]", options)
                      for i, (a, e) in enumerate(zip(actual, expected, strict=True)))
    problem = _tensors_differ(actual, expected, options)
    return None if problem is None else problem + suffix


def _is_sequence(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, (str, Tensor))


def _first(problems: Any) -> str | None:
    return next((p for p in problems if p is not None), None)


def _tensors_differ(actual: Any, expected: Any, options: dict) -> str | None:
    a, e = as_tensor(actual).detach(), as_tensor(expected).detach()
    if a.shape != e.shape:
        return (f"The values for attribute 'shape' do not match: {a.shape} != {e.shape}.")
    if options["check_dtype"] and a.dtype is not e.dtype:
        return f"The values for attribute 'dtype' do not match: {a.dtype!r} != {e.dtype!r}."
    if options["check_stride"] and a.stride() != e.stride():
        return f"The values for attribute 'stride()' do not match: {a.stride()} != {e.stride()}."
    rtol, atol = options["rtol"], options["atol"]
    if rtol is None:
        pairs = [_TOLERANCES.get(t.dtype, (0.0, 0.0)) for t in (a, e)]
        rtol, atol = max(p[0] for p in pairs), max(p[1] for p in pairs)
    kind = np.complex128 if a.dtype.is_complex or e.dtype.is_complex else np.float64
    x, y = array_of(a), array_of(e)
    if a.dtype.kind in "ui" and e.dtype.kind in "ui" and rtol == atol == 0:
        close = x == y
    else:
        x, y = x.astype(kind), y.astype(kind)
        with np.errstate(all="ignore"):
            close = (x == y) | (np.abs(x - y) <= atol + rtol * np.abs(y)) & np.isfinite(y)
        if options["equal_nan"]:
            close |= np.isnan(x) & np.isnan(y)
    if close.all():
        return None
    with np.errstate(all="ignore"):
        gap = np.abs(x.astype(kind) - y.astype(kind))
        relative = gap / np.abs(y.astype(kind))
    wrong = int((~close).sum())
    return (f"Tensor-likes are not close!\n\nMismatched elements: {wrong} / {close.size} "
            f"({100 * wrong / close.size:.1f}%)\nGreatest absolute difference: {np.nanmax(gap)} "
            f"(up to {atol} allowed)\nGreatest relative difference: {np.nanmax(relative)} (up to "
            f"{rtol} allowed)")
