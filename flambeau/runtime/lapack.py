"""LAPACK: the library that NumPy has loaded, found by its symbols.

NumPy's wheels bring OpenBLAS (names like `scipy_dgetrf_64_`, integers of 64 bits), or use Apple's
Accelerate (`dgetrf$NEWLAPACK$ILP64`); distributions link one with plain names (`dgetrf_`, integers
of 32 bits). Whatever it is, it is a dependency of NumPy's own extension module, through which the
loader finds symbols.
"""

from __future__ import annotations

import ctypes
import functools

from flambeau.compiler.factorizations.step import provide

__all__ = ["address_of"]

# what a function's name is wrapped in -> bytes of the library's integers
_SPELLINGS = {"scipy_{}_64_": 8, "{}_64_": 8, "{}64_": 8, "{}$NEWLAPACK$ILP64": 8,
              "scipy_{}_": 4, "{}_": 4, "{}$NEWLAPACK": 4}
_PROBE = "dgetrf"


@functools.cache
def _library() -> tuple[ctypes.CDLL, str]:
    """(NumPy's extension module as a library, how names are spelled)."""
    from numpy.linalg import _umath_linalg

    library = ctypes.CDLL(_umath_linalg.__file__)
    for spelling in _SPELLINGS:
        if _find(library, spelling.format(_PROBE)):
            return library, spelling
    raise NotImplementedError("linear algebra needs LAPACK, and the one that NumPy uses was not "
                              f"found by the symbols of {_umath_linalg.__file__}: install NumPy "
                              "from PyPI (its wheels bring OpenBLAS)")


def _find(library: ctypes.CDLL, name: str) -> int:
    try:
        return ctypes.cast(getattr(library, name), ctypes.c_void_p).value or 0
    except AttributeError:
        return 0


@functools.cache
def address_of(name: str) -> int:
    """The address of a function of BLAS or LAPACK ("dgetrf"); for "int_bytes" the bytes of the
    library's integers.

    Raises:
        NotImplementedError: the library lacks it.
    """
    library, spelling = _library()
    if name == "int_bytes":
        return _SPELLINGS[spelling]
    found = _find(library, spelling.format(name))
    if not found:
        raise NotImplementedError(f"the LAPACK that NumPy uses has no function {name!r}: install "
                                  "NumPy from PyPI (its wheels bring all of LAPACK)")
    return found


provide(address_of)
