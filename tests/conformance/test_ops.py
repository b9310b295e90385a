"""Every public op on all its samples, Flambeau beside PyTorch in one process on the same data."""

from __future__ import annotations

import importlib
import re
import warnings
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from op_cases import (
    RECORDS,
    Case,
    cases,
    family,
    leaves,
    private,
    short_name,
    tensors,
    to_array,
    to_tensor,
    widened,
)

import flambeau

pytorch = pytest.importorskip("torch")

DTYPES = ("float32", "float64", "int64", "bool", "bfloat16", "float16", "int32", "complex64")

# rtol and atol by dtype, as torch.testing.assert_close has them.
TOLERANCE = {"float16": (1e-3, 1e-5), "bfloat16": (1.6e-2, 1e-5), "float32": (1.3e-6, 1e-5),
             "float64": (1e-7, 1e-7), "complex64": (1.3e-6, 1e-5), "complex128": (1e-7, 1e-7)}

# Public places of ops, and the records that PyTorch reaches through an overload of another name.
OVERLOADS = {"max_dim": "max", "min_dim": "min", "max_all": "max", "min_all": "min"}

PUBLIC = {name: record for name, record in RECORDS.items()
          if name in OVERLOADS or not private(record)}

DIFFERENTIABLE = [name for name, record in PUBLIC.items() if record.differentiable]

# Where Flambeau knowingly differs: (op, dtype or None for all of them) -> the reason.
KNOWN = {
    ("bessel_j0", "float64"): "PyTorch's error is up to 1e-6 near 7, ours 1e-15",
    ("bessel_j1", "float64"): "PyTorch's error is up to 1e-6 near 7, ours 1e-15",
    ("bessel_y0", "float64"): "PyTorch's error is up to 1e-6 near 7, ours 1e-15",
    ("bessel_y1", "float64"): "PyTorch's error is up to 1e-6 near 7, ours 1e-15",
    ("tanhshrink", "bool"): "computes; PyTorch subtracts, which it refuses for bool",
    ("pairwise_distance", "bool"): "computes; PyTorch subtracts, which it refuses for bool",
    ("pairwise_distance", "complex64"): "gives complex64; PyTorch the real dtype",
    ("cosine_similarity", "int64"): "integers become floats, as in other floating functions",
    ("cosine_similarity", "int32"): "integers become floats, as in other floating functions",
    ("cosine_similarity", "bool"): "integers become floats, as in other floating functions",
    ("triplet_margin_loss", "bool"): "computes; PyTorch subtracts, which it refuses for bool",
    ("local_response_norm", "int64"): "refuses integers; PyTorch divides them",
    ("topk", "bool"): "computes; PyTorch refuses bool",
    ("mm", "bool"): "refuses bool also where there is nothing to multiply",
    ("l1_loss", "int64"): "a weighted mean of integers is refused",
    ("l1_loss", "int32"): "sums of int32 stay int32",
    ("hinge_embedding_loss", "int32"): "the result has the dtype of the target",
    ("cross_entropy", "int64"): "the error about a 1-D target comes before the one about its dtype",
    ("cross_entropy", "int32"): "the error about a 1-D target comes before the one about its dtype",
}
# The same for gradients.
KNOWN_GRADIENTS = {
    "scatter": "reduce='add' has a gradient; PyTorch has none",
    "native_layer_norm": "mean and rstd have gradients; PyTorch ignores theirs",
    "pixel_shuffle": "works on empty tensors too, where PyTorch's backward fails",
    "polar": "right for a negative radius too, where PyTorch's has the wrong sign",
}
# Errors of another class, with a reason.
KNOWN_ERRORS = {
    "cross_entropy": "a target of the wrong dtype is reported before one of the wrong size",
    "gaussian_nll_loss": "shapes that do not broadcast are reported as such, before var's size",
}
# Families that compute every dtype that PyTorch computes.
CORE = {"elementwise", "arithmetic", "reduce", "views", "rearrange", "matmul", "index", "scan",
        "sort", "creation", "statistics", "products", "diagonals"}
# Families whose complex forms are not implemented: they raise NotImplementedError and say so.
NOT_COMPLEX = {"conv", "loss", "norm", "pool", "activation", "distance", "resample", "margin",
               "attention", "unpool", "embedding"}


def places(record: Any) -> list[tuple[str, str]]:
    """(namespace, name) of every public function and method of the op."""
    if record.name in OVERLOADS:
        return [("torch", OVERLOADS[record.name])]
    names = (short_name(record), *record.aliases)
    spaces = sorted(record.public, key="nn.functional".__ne__)  # F first: it takes more arguments
    found = [(space, name) for space in spaces for name in names]
    if record.method:
        found += [("Tensor", name) for name in names]
    return found


def function_in(torch: ModuleType, space: str, name: str) -> Callable | None:
    """The function, or None if the framework has none of that name."""
    if space == "Tensor":
        return getattr(torch.Tensor, name, None)
    try:
        module = torch if space == "torch" else importlib.import_module(f"{torch.__name__}.{space}")
    except ModuleNotFoundError:
        return None
    return getattr(module, name, None)


def functions(record: Any) -> tuple[str, Callable, Callable]:
    """(name, Flambeau's function, PyTorch's) at the op's first public place."""
    space, name = places(record)[0]
    return f"{space}.{name}", function_in(flambeau, space, name), function_in(pytorch, space, name)


@pytest.mark.parametrize("name", PUBLIC)
def test_the_names_exist_in_both(name: str):
    for space, public in places(PUBLIC[name]):
        assert callable(function_in(pytorch, space, public)), f"PyTorch has no {space}.{public}"
        assert callable(function_in(flambeau, space, public)), f"Flambeau has no {space}.{public}"
        if PUBLIC[name].inplace and space != "nn.functional" and name not in OVERLOADS:
            assert hasattr(pytorch.Tensor, public + "_") or hasattr(pytorch, public + "_"), (
                f"PyTorch has no {public}_")


# --------------------------------------------------------------------------- comparison
def outcome(function: Callable, args: tuple, kwargs: dict) -> Any:
    """The result as a flat list, or the exception."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            result = function(*args, **kwargs)
    except Exception as error:
        return error
    return list(leaves(result))


def call(torch: ModuleType, function: Callable, case: Case) -> Any:
    return outcome(function, tensors(torch, case.args), tensors(torch, case.kwargs))


def difference(found: Any, expected: Any, strides: bool = False) -> str | None:
    """How two outcomes differ, or None."""
    if isinstance(found, Exception) or isinstance(expected, Exception):
        return error_difference(found, expected)
    if len(found) != len(expected):
        return f"{len(found)} results instead of {len(expected)}"
    for mine, theirs in zip(found, expected, strict=True):
        text = value_difference(mine, theirs, strides)
        if text:
            return text
    return None


def error_difference(found: Any, expected: Any) -> str | None:
    if not isinstance(found, Exception):
        if "not implemented for" in str(expected):
            return None  # a dtype that PyTorch's kernels lack: computing it is no difference
        return f"no error; PyTorch raises {type(expected).__name__}: {first_line(expected)}"
    if not isinstance(expected, Exception):
        empty = any(isinstance(t, pytorch.Tensor) and not t.numel() for t in expected)
        if empty and "not implemented for" in str(found):
            return None  # PyTorch looks at the dtype only when there is something to compute
        return f"raises {type(found).__name__}: {first_line(found)}"
    if isinstance(expected, AttributeError) and isinstance(found, TypeError):
        return None  # PyTorch stumbles over a missing method; Flambeau names the argument
    if isinstance(found, RuntimeError) and "not implemented for" in str(expected):
        return None
    if not isinstance(found, type(expected)):
        return (f"raises {type(found).__name__} ({first_line(found)}) instead of "
                f"{type(expected).__name__} ({first_line(expected)})")
    return None


def first_line(error: Exception) -> str:
    return str(error).split("\n")[0][:160]


def value_difference(mine: Any, theirs: Any, strides: bool = False) -> str | None:
    if not isinstance(theirs, pytorch.Tensor):
        return None if mine == theirs else f"{mine!r} instead of {theirs!r}"
    if repr(mine.dtype) != repr(theirs.dtype):
        return f"dtype {mine.dtype} instead of {theirs.dtype}"
    if tuple(mine.shape) != tuple(theirs.shape):
        return f"shape {tuple(mine.shape)} instead of {tuple(theirs.shape)}"
    if strides and tuple(mine.stride()) != tuple(theirs.stride()):
        return f"strides {mine.stride()} instead of {theirs.stride()}"
    a, b = to_array(flambeau, mine), to_array(pytorch, theirs)
    rtol, atol = TOLERANCE.get(repr(mine.dtype).removeprefix("torch."), (0, 0))
    close = np.isclose(a, b, rtol=rtol, atol=atol, equal_nan=True)
    if close.all():
        return None
    where = tuple(int(i) for i in np.argwhere(~close)[0])
    return (f"{(~close).sum()} of {close.size} values differ, first at {where}: {a[where]!r} "
            f"instead of {b[where]!r}")


def exact_difference(found: Any, function: Callable, case: Case, dtype: str) -> str | None:
    """How 16-bit results differ from PyTorch's float32 results, rounded: where PyTorch computes in
    several steps it rounds each, Flambeau only the last."""
    wide = Case(case.label, widened(case.args), widened(case.kwargs), case.floating)
    expected = call(pytorch, function, wide)
    if isinstance(found, Exception) or isinstance(expected, Exception):
        return error_difference(found, expected)
    rounded = [e.to(getattr(pytorch, dtype)) if isinstance(e, pytorch.Tensor)
               and e.dtype is pytorch.float32 else e for e in expected]
    return difference(found, rounded)


def assert_none(problems: list[str]) -> None:
    assert not problems, f"{len(problems)} differences\n" + "\n".join(problems[:12])


def problems_of(record: Any, dtype: str) -> Iterator[str]:
    """The differences on all samples in one dtype."""
    name, mine, theirs = functions(record)
    for case in cases(record, dtype):
        found, expected = call(flambeau, mine, case), call(pytorch, theirs, case)
        if family(record) == "sort" and dtype not in ("float32", "float64"):
            found, expected = without_indices(found), without_indices(expected)
        text = difference(found, expected)
        if text and dtype in ("bfloat16", "float16"):
            text = exact_difference(found, theirs, case, dtype)
        if text and dtype.startswith("complex") and isinstance(found, NotImplementedError):
            continue  # said so clearly
        if text and family(record) not in CORE and (
                isinstance(found, NotImplementedError) and "not implemented for" in str(found)):
            continue  # functions of floats that PyTorch happens to compute for integers
        if text:
            yield f"{name}: {case.label}: {text}"


def without_indices(results: Any) -> Any:
    """Where there are ties, positions are PyTorch's choice; the values are not."""
    if isinstance(results, Exception):
        return results
    return results[:1] if len(results) > 1 else []


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", PUBLIC)
def test_forward(name: str, dtype: str):
    if (name, dtype) in KNOWN:
        pytest.skip(f"known difference: {KNOWN[name, dtype]}")
    if dtype == "complex64" and family(PUBLIC[name]) in NOT_COMPLEX:
        pytest.skip("complex activations, losses, norms, pools and convolutions come later")
    assert_none(list(problems_of(PUBLIC[name], dtype)))


# --------------------------------------------------------------------------- gradients
def with_gradients(torch: ModuleType, function: Callable, case: Case) -> Any:
    """[results, gradients of the floating inputs], or the exception; a fixed cotangent."""
    args, kwargs = tensors(torch, case.args), tensors(torch, case.kwargs)
    given = [a for a in leaves([*args, *kwargs.values()]) if isinstance(a, torch.Tensor)]
    inputs = [t.requires_grad_() for t, floating in zip(given, case.floating, strict=True)
              if floating]
    results = outcome(function, args, kwargs)
    if isinstance(results, Exception):
        return results
    wanted = [r for r in results if isinstance(r, torch.Tensor) and r.requires_grad]
    if not wanted or not inputs:
        return [], []
    rng = np.random.default_rng(3)
    weights = [torch.from_numpy(np.asarray(rng.uniform(0.5, 1.5, tuple(r.shape)))).to(r.dtype)
               for r in wanted]
    found = outcome(torch.autograd.grad, (wanted, inputs, weights), {"allow_unused": True})
    if isinstance(found, Exception):
        return found
    zeros = [torch.zeros_like(t) if g is None else g for t, g in zip(inputs, found, strict=True)]
    return [r.grad_fn and r.grad_fn.name() for r in wanted], zeros


@pytest.mark.parametrize("name", DIFFERENTIABLE)
def test_gradients(name: str):
    if name in KNOWN_GRADIENTS:
        pytest.skip(f"known difference: {KNOWN_GRADIENTS[name]}")
    public, mine, theirs = functions(PUBLIC[name])
    problems = []
    for case in cases(PUBLIC[name], "float64"):
        found = with_gradients(flambeau, mine, case)
        expected = with_gradients(pytorch, theirs, case)
        failed = isinstance(found, Exception) or isinstance(expected, Exception)
        text = error_difference(found, expected) if failed else difference(found[1], expected[1])
        if text:
            problems.append(f"{public}: {case.label}: {text}")
    assert_none(problems)


@pytest.mark.parametrize("name", DIFFERENTIABLE)
def test_names_of_nodes(name: str):
    """What `grad_fn` prints, in simple calls."""
    if name in KNOWN_GRADIENTS:
        pytest.skip(f"known difference: {KNOWN_GRADIENTS[name]}")
    public, mine, theirs = functions(PUBLIC[name])
    case = next(cases(PUBLIC[name], "float64"))
    found = with_gradients(flambeau, mine, case)
    expected = with_gradients(pytorch, theirs, case)
    assert found[0] == expected[0], public


# --------------------------------------------------------------------------- layouts and views
def permuted(value: Any) -> Any:
    """Arrays in column-major order, as a transposed tensor lies in memory."""
    if isinstance(value, np.ndarray):
        return np.array(value, order="F")
    return tuple(permuted(item) for item in value) if isinstance(value, tuple) else value


# masked_fill is left out: PyTorch's result is always row-major, ours follows the input.
ELEMENTWISE = [name for name, record in PUBLIC.items()
               if family(record) == "elementwise" and name != "masked_fill"]


@pytest.mark.parametrize("name", ELEMENTWISE)
def test_strides_of_elementwise_results(name: str):
    public, mine, theirs = functions(PUBLIC[name])
    problems = []
    for case in cases(PUBLIC[name], "float32"):
        if any(isinstance(a, np.ndarray) and not a.size for a in leaves([*case.args])):
            continue
        turned = Case(case.label, permuted(case.args), case.kwargs, case.floating)
        text = difference(call(flambeau, mine, turned), call(pytorch, theirs, turned), strides=True)
        if text:
            problems.append(f"{public}: {case.label}: {text}")
    assert_none(problems)


def shares(torch: ModuleType, function: Callable, case: Case) -> list[bool]:
    """For each result, whether it shares memory with the first tensor."""
    args, kwargs = tensors(torch, case.args), tensors(torch, case.kwargs)
    base = next(a for a in leaves([*args]) if isinstance(a, torch.Tensor))
    results = outcome(function, args, kwargs)
    assert not isinstance(results, Exception), f"{case.label}: {results}"
    memory = base.numpy(force=True)
    return [np.shares_memory(r.numpy(force=True), memory) for r in results
            if isinstance(r, torch.Tensor) and r.numel()]


@pytest.mark.parametrize("name", [n for n in PUBLIC if family(PUBLIC[n]) == "views"])
def test_which_results_are_views(name: str):
    _, mine, theirs = functions(PUBLIC[name])
    for case in cases(PUBLIC[name], "float32"):
        assert shares(flambeau, mine, case) == shares(pytorch, theirs, case), case.label


@pytest.mark.parametrize("name", [n for n in PUBLIC if RECORDS[n].kind == "view"])
def test_strides_of_views(name: str):
    _, mine, theirs = functions(PUBLIC[name])
    for case in cases(PUBLIC[name], "float32"):
        assert difference(call(flambeau, mine, case), call(pytorch, theirs, case), True) is None


# --------------------------------------------------------------------------- errors
def reshaped(case: Case, number: int) -> Case | None:
    """The same call with one array given another shape."""
    count = [0]

    def changed(value: Any) -> Any:
        if isinstance(value, np.ndarray):
            count[0] += 1
            if count[0] == number:
                return np.ones((7, 6, 5)[:max(value.ndim, 1)], value.dtype)
            return value
        return tuple(changed(item) for item in value) if isinstance(value, tuple) else value

    args = changed(case.args)
    kwargs = {key: changed(value) for key, value in case.kwargs.items()}
    return Case(f"{case.label} with tensor {number} reshaped", args, kwargs, []) if (
        count[0] >= number) else None


BAD_DIMENSIONS = (99, -99, "a", 1.5)


def with_bad_arguments(record: Any, case: Case) -> Iterator[Case]:
    """Calls that are wrong: other shapes, dimensions out of range, words for numbers, too many."""
    for number in (1, 2, 3):
        changed = reshaped(case, number)
        if changed is not None:
            yield changed
    for place, param in enumerate(record.params[:len(case.args)]):
        if re.fullmatch(r"dim\d?", param.name):
            for bad in BAD_DIMENSIONS:
                args = (*case.args[:place], bad, *case.args[place + 1:])
                yield Case(f"{case.label} with {param.name}={bad!r}", args, case.kwargs, [])
    for place, value in enumerate(case.args):
        if isinstance(value, np.ndarray):
            for bad in (None, "a", [1.0]):
                args = (*case.args[:place], bad, *case.args[place + 1:])
                yield Case(f"{case.label} with argument {place} {bad!r}", args, case.kwargs, [])
    yield Case(f"{case.label} without arguments", (), {}, [])
    yield Case(f"{case.label} with an unknown keyword", case.args, {"unheard_of": 1}, [])
    yield Case(f"{case.label} with surplus arguments", (*case.args, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10),
               {}, [])


@pytest.mark.parametrize("name", PUBLIC)
def test_errors(name: str):
    """Wrong calls raise the class that PyTorch raises (or a subclass)."""
    if name in KNOWN_ERRORS:
        pytest.skip(f"known difference: {KNOWN_ERRORS[name]}")
    public, mine, theirs = functions(PUBLIC[name])
    problems = []
    for case in list(cases(PUBLIC[name], "float32"))[-2:]:
        for wrong in with_bad_arguments(PUBLIC[name], case):
            found, expected = call(flambeau, mine, wrong), call(pytorch, theirs, wrong)
            if isinstance(expected, Exception):
                text = error_difference(found, expected)
                if text:
                    problems.append(f"{public}: {wrong.label}: {text}")
    assert_none(problems)


def test_bfloat16_bits_survive():
    array = np.array([1.5, -2.25, 3e38, np.nan], ml_dtypes.bfloat16)
    for torch in (flambeau, pytorch):
        np.testing.assert_array_equal(to_array(torch, to_tensor(torch, array)),
                                      array.astype(np.float32))
