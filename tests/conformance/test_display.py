"""Printing against real PyTorch: thousands of random arrays, dtypes, layouts and options.

Needs torch; FLAMBEAU_DISPLAY_CASES sets the number of random cases (default 4000).
"""

from __future__ import annotations

import os

import ml_dtypes
import numpy as np
import pytest

torch = pytest.importorskip("torch")

from flambeau.core import dtypes  # noqa: E402
from flambeau.tensor import display  # noqa: E402

CASES = int(os.environ.get("FLAMBEAU_DISPLAY_CASES", "4000"))


def view_of(tensor: torch.Tensor) -> np.ndarray:
    tensor = tensor.detach()
    if tensor.dtype is torch.bfloat16:
        return tensor.view(torch.int16).numpy().view(ml_dtypes.bfloat16)
    return tensor.resolve_conj().resolve_neg().numpy()


def ours(tensor: torch.Tensor, **more: object) -> str:
    dtype = dtypes.by_name(str(tensor.dtype).removeprefix("torch."))
    grad_fn = None if tensor.grad_fn is None else type(tensor.grad_fn).__name__
    default = dtypes.by_name(str(torch.get_default_dtype()).removeprefix("torch."))
    return display.tensor_repr(view_of(tensor), dtype, requires_grad=tensor.requires_grad,
                               grad_fn=grad_fn, default_dtype=default, **more)


def random_reals(rng: np.random.Generator, n: int) -> np.ndarray:
    kind = rng.integers(9)
    x = rng.standard_normal(n)
    if kind == 0:
        x = np.round(x * 10.0 ** rng.integers(0, 6))
    elif kind == 1:
        x = x * 10.0 ** rng.integers(-12, 13)
    elif kind == 2:
        x = x * 10.0 ** rng.uniform(-4, 4, n)
    elif kind == 3:
        x = np.round(x * 4) / 4
    elif kind == 4:
        x = np.zeros(n)
    elif kind == 5:
        x = x * 10.0 ** rng.uniform(-40, 40, n)
    elif kind == 6:
        x = rng.choice([1e-4, 9.9999e-5, 1e8, 1e3, 1.0, 1001.0, 0.99995, 99.99995, 1e5], n)
    elif kind == 7:
        x = rng.choice([1.0, 1000.0, 1000.5, -1.0, 12345678.0, 1e8, 100000001.0], n)
    share = rng.choice([0.0, 0.0, 0.2, 0.9])
    special = rng.random(n) < share
    return np.where(special, rng.choice([np.nan, np.inf, -np.inf, 0.0, -0.0], n), x)


def random_tensor(rng: np.random.Generator) -> torch.Tensor:
    ndim = int(rng.choice([0, 1, 1, 2, 2, 3, 4]))
    limit = {0: 1, 1: 60, 2: 14, 3: 9, 4: 8}[ndim]
    shape = [int(s) for s in rng.integers(0 if rng.random() < 0.1 else 1, limit + 1, ndim)]
    if ndim and rng.random() < 0.15:
        shape[int(rng.integers(ndim))] = int(rng.integers(100, 1500 if ndim < 3 else 120))
    n = int(np.prod(shape, dtype=np.int64))
    name = str(rng.choice([d.name for d in dtypes.ALL_DTYPES]))
    dtype = dtypes.by_name(name)
    with np.errstate(all="ignore"):
        if dtype.kind == "c":
            flat = (random_reals(rng, n) + 1j * random_reals(rng, n)).astype(dtype.numpy)
            tensor = torch.from_numpy(flat)
        elif dtype.kind == "f":
            tensor = torch.from_numpy(random_reals(rng, n)).to(getattr(torch, name))
        elif dtype.kind == "b":
            tensor = torch.from_numpy(rng.random(n) < 0.5)
        else:
            info = np.iinfo(dtype.numpy)
            top = min(info.max, 10 ** int(rng.integers(1, 19)))
            flat = rng.integers(max(info.min, -top), top, n, dtype=dtype.numpy)
            tensor = torch.from_numpy(flat)
    tensor = tensor.reshape(shape)
    if ndim >= 2 and rng.random() < 0.3:
        tensor = tensor.transpose(0, 1)
    if ndim and rng.random() < 0.2:
        tensor = tensor[::2]
    return tensor


def random_options(rng: np.random.Generator) -> dict:
    if rng.random() < 0.4:
        return {}
    options = {"precision": int(rng.integers(0, 9)), "threshold": int(rng.choice([0, 5, 50, 1000])),
               "edgeitems": int(rng.integers(0, 5)), "linewidth": int(rng.integers(5, 140)),
               "sci_mode": [None, True, False][rng.integers(3)],
               "profile": ["default", "short", "full"][rng.integers(3)]}
    return {k: v for k, v in options.items() if rng.random() < 0.5}


@pytest.fixture(autouse=True)
def restore_options():
    yield
    torch.set_printoptions(profile="default")
    display.set_printoptions(profile="default")


@pytest.mark.parametrize("block", range(8))
def test_random_tensors_print_the_same(block):
    rng = np.random.default_rng(block)
    for case in range(CASES // 8):
        tensor = random_tensor(rng)
        options = random_options(rng)
        with torch._tensor_str.printoptions(**options), display.printoptions(**options):
            assert display.get_printoptions() == torch._tensor_str.get_printoptions()
            if tensor.is_floating_point() or tensor.is_complex():
                mode = rng.integers(4)
                if mode == 1:
                    tensor = tensor.detach().requires_grad_()
                elif mode == 2:
                    tensor = tensor.detach().requires_grad_() * 1
                elif mode == 3:
                    parameter = torch.nn.Parameter(tensor.detach(), bool(rng.integers(2)))
                    assert ours(parameter, is_parameter=True) == repr(parameter)
            assert ours(tensor) == repr(tensor), (case, options, tensor.dtype, tensor.shape)


class Marked(torch.Tensor):
    pass


class MarkedParameter(torch.nn.Parameter):
    pass


def test_subclasses():
    marked = torch.arange(2000.0).as_subclass(Marked)
    assert ours(marked, prefix="Marked(") == repr(marked)
    parameter = torch.nn.Parameter(torch.arange(3.0).as_subclass(Marked))
    assert ours(parameter, prefix="Marked(", is_parameter=True, header=False) == repr(parameter)
    parameter = MarkedParameter(torch.arange(3.0))
    assert ours(parameter, prefix="MarkedParameter(", is_parameter=True) == repr(parameter)


def test_default_dtype_is_not_named():
    for name in ("float64", "float32", "float16", "bfloat16"):
        old = torch.get_default_dtype()
        torch.set_default_dtype(getattr(torch, name))
        try:
            for dtype in dtypes.ALL_DTYPES:
                for shape in ((), (0,), (2,), (0, 2)):
                    tensor = torch.ones(shape, dtype=getattr(torch, dtype.name))
                    assert ours(tensor) == repr(tensor)
        finally:
            torch.set_default_dtype(old)


def test_meta():
    for name in ("float32", "int64", "float64"):
        for shape in ((), (3,), (2, 0)):
            meta = torch.empty(shape, dtype=getattr(torch, name), device="meta")
            assert display.meta_repr(shape, dtypes.by_name(name)) == repr(meta)


def test_format_of_scalars():
    rng = np.random.default_rng(3)
    for spec in ("", ".3f", "10.2e", "g", ">12", "+.1%", "05d", "x", ",", "s", "bad"):
        for dtype in dtypes.ALL_DTYPES:
            tensor = torch.tensor(rng.integers(0, 2) + 0.37 * (dtype.kind in "fc"))
            tensor = tensor.to(getattr(torch, dtype.name))
            try:
                want = format(tensor, spec)
            except (ValueError, TypeError) as error:
                with pytest.raises(type(error)) as caught:
                    display.format_scalar(view_of(tensor), dtype, spec)
                assert str(caught.value) == str(error)
            else:
                assert display.format_scalar(view_of(tensor), dtype, spec) == want
