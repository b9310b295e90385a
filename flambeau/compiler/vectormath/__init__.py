"""Vector mathematics: elementary and special functions, emitted inline into a kernel.

`FUNCTIONS[name](f, x)` (`f, x, y` for those in BINARY) appends the code of one function of a float
or double Value, scalar or vector of any width, to the Function `f` and returns the result. No
function of the C library is ever called, so the same code serves every target; the only shared
parts are read-only tables (lgamma, digamma) and one internal routine (far arguments of sin, cos,
tan), which go into f.module once.

NaN, infinities, signed zeros and denormals behave as in C99's Annex F, without fast-math flags; the
errors that the tests hold the functions to are in MAX_ULP.
"""

from __future__ import annotations

from collections.abc import Callable

from flambeau.compiler.vectormath.basic import ceil, floor, fmod, remainder, rint, trunc
from flambeau.compiler.vectormath.exp_log import (
    exp, exp2, expm1, log, log1p, log2, log10, pow, sigmoid)
from flambeau.compiler.vectormath.hyperbolic import acosh, asinh, atanh, cosh, sinh, tanh
from flambeau.compiler.vectormath.special import digamma, erf, erfc, erfinv, lgamma
from flambeau.compiler.vectormath.trig import acos, asin, atan, atan2, cos, sin, tan

_NAMED = (exp, exp2, expm1, log, log2, log10, log1p, sigmoid, sin, cos, tan, asin, acos, atan, sinh,
          cosh, tanh, asinh, acosh, atanh, erf, erfc, erfinv, lgamma, digamma, floor, ceil, trunc,
          rint)
_NAMED_BINARY = (pow, atan2, fmod, remainder)

BINARY: dict[str, Callable] = {function.__name__: function for function in _NAMED_BINARY}
FUNCTIONS: dict[str, Callable] = {function.__name__: function for function in _NAMED} | BINARY

__all__ = ["FUNCTIONS", "BINARY", *FUNCTIONS]
