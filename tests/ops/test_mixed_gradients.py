"""Gradients of operands of different dtypes: those of the operands converted beforehand."""

from __future__ import annotations

import itertools

import pytest

NAMES = ("remainder", "fmod", "pow", "hypot", "atan2", "xlogy", "logaddexp", "logaddexp2", "fmax",
         "fmin", "maximum", "div", "mul", "copysign")
DTYPES = ("float16", "bfloat16", "float32", "float64", "int64", "number")


def gradients(torch, name, dtypes, common=None):
    """The result's dtype and the gradients of the operands that have one, as lists."""
    operands = []
    for dtype, values in zip(dtypes, ([2.0, 3.0, 1.0], [1.0, 2.0, 3.0]), strict=True):
        if dtype == "number":
            operands.append(3)
            continue
        tensor = torch.tensor(values, dtype=getattr(torch, dtype))
        operands.append(tensor.requires_grad_() if "float" in dtype else tensor)
    used = [x.to(common) if common and isinstance(x, torch.Tensor) else x for x in operands]
    result = getattr(torch, name)(*used)
    result.sum().backward()
    found = [x.grad for x in operands if isinstance(x, torch.Tensor) and x.requires_grad]
    assert all(g.dtype is x.dtype for g, x in zip(found, (
        x for x in operands if isinstance(x, torch.Tensor) and x.requires_grad), strict=True))
    return result.dtype, [g.double().tolist() for g in found]


@pytest.mark.parametrize("name", NAMES)
def test_mixed_dtypes(torch, name):
    for dtypes in itertools.product(DTYPES, repeat=2):
        if not any("float" in dtype for dtype in dtypes) or "number" in dtypes and name in (
                "hypot", "atan2", "logaddexp", "logaddexp2", "fmax", "fmin", "maximum") or (
                dtypes[0] == "number" and name in ("fmod", "copysign")):
            continue
        dtype, found = gradients(torch, name, dtypes)
        _, expected = gradients(torch, name, dtypes, dtype)
        for ours, theirs in zip(found, expected, strict=True):
            assert ours == pytest.approx(theirs, rel=1e-2, abs=1e-3), dtypes
