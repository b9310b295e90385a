"""Every function of one argument on all float32 numbers (`make slow`; on a sample by default).

The reference is the same function in double, which stands on its own feet: test_vectormath.py
compares it with mpmath and wider types, and here it is compared with SciPy where SciPy has it.
"""

from __future__ import annotations

import numpy as np
import pytest
from float_walk import op_emitter, op_graph, walk
from scipy import special

import flambeau.tensor.functions  # noqa: F401  (fills the op table)
from flambeau.compiler.vectormath import BINARY, FUNCTIONS, MAX_ULP
from flambeau.core import dtypes
from flambeau.ops.record import REGISTRY
from flambeau.tensor.launches import is_elementwise

SAMPLE = 4093  # a prime: the sample meets every exponent with many mantissas
UNARY = [name for name in FUNCTIONS if name not in BINARY]

# Ops whose definition loses digits in some region, as PyTorch's does: not functions to 2 ulp.
ILL_CONDITIONED = {"gelu": "1 + erf(x) has no digits left far below 0"}
# The largest finite number, which this puts in place of inf, depends on the dtype.
# Where it underflows, log(sigmoid(x)) is 0 and not -0, as in PyTorch: other signs in other dtypes.
NOT_ONE_FUNCTION = {"logsigmoid", "nan_to_num"}


def _elementwise_ops() -> list[str]:
    """Names of the ops of one tensor that are functions of one float and no plain primitive."""
    found = []
    for name, record in sorted(REGISTRY.items()):
        required = [p for p in record.params if p.required]
        if record.kind == "view" or len(required) != 1 or required[0].role != "tensor":
            continue
        try:
            graph = op_graph(record, dtypes.float32)
        except (RuntimeError, IndexError, NotImplementedError):
            continue  # takes more dimensions than one, or no floats
        if name not in FUNCTIONS and len(graph.outputs) == 1 and is_elementwise(graph) and (
                graph.outputs[0].dtype is dtypes.float32):
            found.append(name)
    return sorted(set(found) - set(ILL_CONDITIONED) - NOT_ONE_FUNCTION)


OPS = _elementwise_ops()


def check_function(name: str, step: int) -> None:
    worst = walk(FUNCTIONS[name], FUNCTIONS[name], step)
    assert worst.ulp <= MAX_ULP[name], f"{name}: {worst}"


# In float32 throughout, where double would cost three to five times as much; PyTorch computes
# x - tanh(x) and log(x / (1 - x)) as they stand and loses all digits near their zeros.
OP_ULP = {"i0e": 4.0, "i1e": 4.0, "logit": 3.0, "ndtri": 3.0, "tanhshrink": 3.0}


def check_op(name: str, step: int) -> None:
    emit = op_emitter(REGISTRY[name])
    worst = walk(emit, emit, step)
    assert worst.ulp <= OP_ULP.get(name, 2.0), f"{name}: {worst}"


@pytest.mark.parametrize("name", UNARY)
def test_functions_on_a_sample(name):
    check_function(name, SAMPLE)


@pytest.mark.parametrize("name", OPS)
def test_ops_on_a_sample(name):
    check_op(name, SAMPLE)


@pytest.mark.slow
@pytest.mark.parametrize("name", UNARY)
def test_functions_on_all_floats(name):
    check_function(name, 1)


@pytest.mark.slow
@pytest.mark.parametrize("name", OPS)
def test_ops_on_all_floats(name):
    check_op(name, 1)


# Far arguments, where SciPy's own reduction fails, are left out.
SCIPY = {"bessel_j0": (special.j0, 1e3), "bessel_j1": (special.j1, 1e3),
         "bessel_y0": (special.y0, 1e3), "bessel_y1": (special.y1, 1e3),
         "erfcx": (special.erfcx, 1e38), "i0": (special.i0, 1e38), "i0e": (special.i0e, 1e38),
         "i1": (special.i1, 1e38), "i1e": (special.i1e, 1e38), "logit": (special.logit, 1e38),
         "log_ndtr": (special.log_ndtr, 1e38), "ndtr": (special.ndtr, 1e38),
         "ndtri": (special.ndtri, 1e38), "modified_bessel_k0": (special.k0, 1e38),
         "modified_bessel_k1": (special.k1, 1e38), "entr": (special.entr, 1e38),
         "erfc": (special.erfc, 1e38), "erfinv": (special.erfinv, 1e38),
         "digamma": (special.digamma, 1e5), "lgamma": (special.gammaln, 1e5)}


@pytest.mark.parametrize("name", SCIPY)
def test_ops_against_scipy(torch, name):
    function, limit = SCIPY[name]
    x = np.arange(0, 1 << 32, 40009, dtype=np.uint64).astype(np.uint32).view(np.float32)
    x = x[np.abs(x) <= limit]
    ours = (getattr(torch.special, name, None) or getattr(torch, name))(torch.from_numpy(x))
    with np.errstate(all="ignore"):
        exact = function(x.astype(np.float64))
        rounded = exact.astype(np.float32)
        size = np.where(np.isfinite(rounded), np.abs(rounded), np.finfo(np.float32).max)
        ulp = np.spacing(np.maximum(size, np.finfo(np.float32).tiny))
        error = np.abs(ours.numpy() - exact) / ulp
    agree = (ours.numpy() == rounded) | np.isnan(rounded) & np.isnan(ours.numpy())
    error = np.where(agree, 0, np.where(np.isnan(error), np.inf, error))
    worst = int(error.argmax())
    assert error[worst] <= OP_ULP.get(name, 2), (
        f"{name}({x[worst]!r}) = {ours[worst].item()!r}, {exact[worst]!r}")
