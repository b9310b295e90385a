"""What kernels report that is not an index out of range: numbers, and the exceptions they become.

A kernel stores a code and a value in the status of its program. From `FIRST` on, codes stand for
an operation of linear algebra and what went wrong in it.
"""

from __future__ import annotations

__all__ = ["FIRST", "LinAlgError", "code_of", "failure"]

FIRST = 16


class LinAlgError(RuntimeError):
    """A matrix has no inverse, no factorization of the kind asked for, or an iteration did not
    converge. `torch.linalg.LinAlgError`.

    Fails:
        torch.linalg.inv(torch.zeros(2, 2))
    Works:
        torch.linalg.pinv(torch.zeros(2, 2))
    """

    def __reduce__(self) -> tuple:
        return _again, self.args


def _again(*args: object) -> LinAlgError:
    """An error that has been pickled: its class shows PyTorch's name, under which nobody finds it.
    """
    return LinAlgError(*args)


LinAlgError.__module__ = "torch._C"
LinAlgError.__qualname__ = LinAlgError.__name__ = "_LinAlgError"

_KINDS = {
    "inverse": "The diagonal element {info} is zero, the inversion could not be completed because "
               "the input matrix is singular.",
    "solve": "The solver failed because the input matrix is singular.",
    "cholesky": "The factorization could not be completed because the input is not "
                "positive-definite (the leading minor of order {info} is not positive-definite).",
    "eig": "The algorithm failed to converge because the input matrix is ill-conditioned or has "
           "too many repeated eigenvalues (error code: {info}).",
    "svd": "The algorithm failed to converge because the input matrix is ill-conditioned or has "
           "too many repeated singular values (error code: {info}).",
    "lstsq": "The least squares solution could not be computed because the input matrix does not "
             "have full rank (error code: {info}).",
    "lu_factor": "U[{info},{info}] is zero and using it on lu_solve would result in a division by "
                 "zero. If you still want to perform the factorization, consider calling "
                 "linalg.lu(A, pivot) or linalg.lu_factor_ex(A, pivot)",
    "ldl": "The factorization of the matrix gave a zero block D[{info},{info}]: it cannot be used "
           "to solve systems.",
}
_codes: dict[tuple[str, str], int] = {}


def code_of(name: str, kind: str) -> int:
    """The code with which kernels report that a matrix given to the operation `name` has no ...
    (see `failure`). Codes mean something within one process: they are slots, not text."""
    return _codes.setdefault((name, kind), FIRST + len(_codes))


def failure(code: int, value: int) -> Exception:
    """The exception for a status: `value` holds LAPACK's `info` in its lower 32 bits, and above
    them the number, counted from 1, of the matrix in its batch (0: there is none)."""
    name, kind = next(key for key, known in _codes.items() if known == code)
    info, member = value & 0xFFFFFFFF, value >> 32
    where = f"{name}: (Batch element {member - 1})" if member else name
    if info >= 1 << 31:
        return LinAlgError(f"{where}: The algorithm failed to converge because the input matrix "
                           "contained non-finite values.")
    return LinAlgError(f"{where}: {_KINDS[kind].format(info=info)}")
