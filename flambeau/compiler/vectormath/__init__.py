"""Vector mathematics: elementary and special functions, emitted inline into a kernel.

`FUNCTIONS[name](f, x)` (`f, x, y` for those in BINARY) appends the code of one function of a float
or double Value, scalar or vector of any width, to the Function `f` and returns the result. No
function of the C library is ever called, so the same code serves every target; the only shared
parts are read-only tables (lgamma, digamma) and one internal routine (far arguments of sin, cos,
tan), which go into f.module once.

NaN, infinities, signed zeros and denormals behave as in C99's Annex F, without fast-math flags.
`fma` must be an instruction of the target: elsewhere LLVM turns it into a call of libm.

Largest errors found, in units of the last place, over the whole domain (every finite argument, also
of sin, cos and tan); `MAX_ULP` holds what the tests enforce:

              float double              float double              float double
    exp        1.03  1.01     sin        0.90  0.84     asinh      1.60  1.48
    exp2       1.04  1.25     cos        0.89  0.85     acosh      1.43  1.41
    expm1      1.22  1.66     tan        1.19  1.07     atanh      1.60  1.49
    log        0.87  0.84     asin       1.16  1.18     erf        1.08  1.06
    log2       0.99  0.99     acos       1.11  1.14     erfc       0.66  1.34
    log10      0.95  0.89     atan       1.46  1.85     erfinv     1.40  1.61
    log1p      1.44  1.36     atan2      1.65  1.96     lgamma     0.51  1.77  (x > 0)
    pow        0.50  1.31     sinh       1.58  1.54     digamma    0.51  1.34  (x > 0)
    sigmoid    1.47  1.44     cosh       1.44  1.42     fmod          exact
    silu       1.79  1.49     tanh       1.74  1.91     mish       1.74  1.27
    softplus   1.97  1.64
"""

from __future__ import annotations

from collections.abc import Callable

from flambeau.compiler.vectormath.basic import ceil, floor, fmod, remainder, rint, trunc
from flambeau.compiler.vectormath.exp_log import (
    exp,
    exp2,
    expm1,
    log,
    log1p,
    log2,
    log10,
    mish,
    pow,
    sigmoid,
    silu,
    softplus,
)
from flambeau.compiler.vectormath.hyperbolic import acosh, asinh, atanh, cosh, sinh, tanh
from flambeau.compiler.vectormath.special import digamma, erf, erfc, erfinv, lgamma
from flambeau.compiler.vectormath.trig import acos, asin, atan, atan2, cos, sin, tan

_NAMED = (exp, exp2, expm1, log, log2, log10, log1p, sigmoid, silu, mish, softplus, sin, cos, tan,
          asin, acos, atan, sinh, cosh, tanh, asinh, acosh, atanh, erf, erfc, erfinv, lgamma,
          digamma, floor, ceil, trunc, rint)
_NAMED_BINARY = (pow, atan2, fmod, remainder)

BINARY: dict[str, Callable] = {function.__name__: function for function in _NAMED_BINARY}
FUNCTIONS: dict[str, Callable] = {function.__name__: function for function in _NAMED} | BINARY

_EXACT = ("floor", "ceil", "trunc", "rint", "fmod")
MAX_ULP: dict[str, float] = {name: 0.5 if name in _EXACT else 2.0 for name in FUNCTIONS}

__all__ = [
    "BINARY", "FUNCTIONS", "MAX_ULP", "acos", "acosh", "asin", "asinh", "atan", "atan2", "atanh",
    "ceil", "cos", "cosh", "digamma", "erf", "erfc", "erfinv", "exp", "exp2", "expm1", "floor",
    "fmod", "lgamma", "log", "log10", "log1p", "log2", "mish", "pow", "remainder", "rint",
    "sigmoid", "silu", "sin", "sinh", "softplus", "tan", "tanh", "trunc"]
