"""Orthogonal polynomials: `torch.special.*_polynomial_*`."""

from __future__ import annotations

import math

from flambeau.ir.graph import Value
from flambeau.ops import elementwise as e
from flambeau.ops import primitives as p
from flambeau.ops.primitives.polynomials import POLYNOMIALS
from flambeau.ops.record import Op, Operand, op
from flambeau.ops.samples import Arr, sample

HERMITE_LIMIT = {4: 128, 8: 512}
"""By itemsize: from this degree on PyTorch gives NaN for the polynomials H."""


def _samples():
    yield sample(Arr((3, 4), None, -1.2, 1.2), Arr((4,), "int64", -1, 5))
    yield sample(Arr((7,), None, -1.2, 1.2), 3)
    yield sample(0.5, Arr((5,), None, 0, 5))


def _defined(name: str, family: str, doc: str, shifted: bool = False) -> Op:
    def body(input: Operand, n: Operand):
        x, degree = e.broadcast(input, n)
        if shifted:
            x = p.sub(p.add(x, x), e.like(1, x))
        result = POLYNOMIALS[family](x, degree)
        return _limited(result, degree) if family == "hermite_polynomial_h" else result

    body.__name__, body.__doc__ = name, doc
    body.__annotations__ = {"input": "Operand", "n": "Operand"}
    return op(promote="float", refuses="c", public=("special",), method=False, samples=_samples,
              differentiable=False, check=e.some_tensor(name))(body)


def _limited(result: Value, degree: Value) -> Value:
    limit = e.like(HERMITE_LIMIT.get(degree.dtype.itemsize, 128), degree)
    return p.where(p.gt(degree, limit), e.like(math.nan, result), result)


_CHEBYSHEV = {"t": "first", "u": "second", "v": "third", "w": "fourth"}

for _letter, _kind in _CHEBYSHEV.items():
    _name = f"chebyshev_polynomial_{_letter}"
    _defined(_name, _name, f"Chebyshev's polynomials of the {_kind} kind, of degree n at input.")
    _defined(f"shifted_{_name}", _name,
             f"Chebyshev's polynomials of the {_kind} kind on [0, 1], of degree n at input.", True)

for _name, _words in (("hermite_polynomial_h", "Hermite's polynomials (of the physicists)"),
                      ("hermite_polynomial_he", "Hermite's polynomials (of probability theory)"),
                      ("laguerre_polynomial_l", "Laguerre's polynomials"),
                      ("legendre_polynomial_p", "Legendre's polynomials")):
    _defined(_name, _name, f"{_words}, of degree n at input.")
