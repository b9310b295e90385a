"""Factorizations of matrices: kernels that walk a batch and call LAPACK for every matrix of it.

`room.py` is what the kernels are written with, `triangular.py`, `spectral.py`, `least_squares.py`
and `exponential.py` hold one routine after the other, `step.py` makes kernel calls of library
steps. Addresses of LAPACK's functions are slots, not text: a kernel serves every process and every
width of LAPACK's integers.
"""

__all__: list[str] = []
