"""Factorizations of matrices as primitives: LAPACK's routines, several results of one run each.

The last dimensions of operands and results are matrices, vectors or numbers, the dimensions before
them (the first `Form.lead`) are the same for all. What each routine computes is said where it is
called, in ops/factor.py; here is what shapes they have and how complex numbers become pairs.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

from flambeau.core import dtypes
from flambeau.core.dtypes import DType
from flambeau.ir.graph import Primitive, Value
from flambeau.ops.primitives.structure import expand, reshape

__all__ = ["FACTOR", "Form", "factor", "factor_rule", "is_paired", "operands_of", "paired",
           "results_of"]

INT = dtypes.int32


@dataclasses.dataclass(frozen=True)
class Form:
    """What a factorization is.

    Attributes:
        routine: its name in the compiler.
        dtype: of the matrices.
        lead: how many dimensions the batch has.
        flags: words that the routine knows.
        code: of the exception if the last result, `info`, is not 0 (core/failures.py); 0: none.
        unread: how many operands come first that the kernel does not read: what the others follow
            from, for the sake of gradients.
        real: operands (of those that are read) that are real though the dtype is complex.
        paired: complex elements are pairs of real ones, in a last dimension of their own.
    """

    routine: str
    dtype: DType
    lead: int
    flags: tuple[str, ...] = ()
    code: int = 0
    unread: int = 0
    real: tuple[int, ...] = ()
    paired: bool = False


Cores = list[tuple[tuple[int, ...], DType]]


def _cholesky(form: Form, cores: list) -> Cores:
    n = cores[0][-1]
    return [((n, n), form.dtype), ((), INT)]


def _triangular(form: Form, cores: list) -> Cores:
    return [(cores[1], form.dtype)]


def _lu(form: Form, cores: list) -> Cores:
    return [(cores[0], form.dtype), ((min(cores[0]),), INT), ((), INT)]


def _solution(form: Form, cores: list) -> Cores:
    return [(cores[2], form.dtype)]


def _permutation(form: Form, cores: list) -> Cores:
    return [(cores[0][:1], dtypes.int64)]


def _reflectors(form: Form, cores: list) -> Cores:
    return [(cores[0], form.dtype), ((min(cores[0]),), form.dtype)]


def _qr(form: Form, cores: list) -> Cores:
    m, n = cores[0]
    rows = m if "complete" in form.flags else min(m, n)
    results = [((m, rows), form.dtype), ((rows, n), form.dtype)]
    return results[1:] if "r" in form.flags else results


def _hermitian(form: Form, cores: list) -> Cores:
    n = cores[0][-1]
    vectors = [((n, n), form.dtype)] if "vectors" in form.flags else []
    return [((n,), form.dtype.to_real()), *vectors, ((), INT)]


def _singular(form: Form, cores: list) -> Cores:
    m, n = cores[0]
    k = min(m, n)
    values = ((k,), form.dtype.to_real())
    if "none" in form.flags:
        return [values, ((), INT)]
    rows, columns = (m, n) if "full" in form.flags else (k, k)
    return [((m, rows), form.dtype), values, ((columns, n), form.dtype), ((), INT)]


def _general(form: Form, cores: list) -> Cores:
    n = cores[0][-1]
    pair = () if form.dtype.is_complex else (2,)
    vectors = [((n, n, *pair), form.dtype)] if "vectors" in form.flags else []
    return [((n, *pair), form.dtype), *vectors, ((), INT)]


def _least_squares(form: Form, cores: list) -> Cores:
    (m, n), k = cores[0], cores[1][-1]
    return [((max(m, n), k), form.dtype), ((), dtypes.int64), ((min(m, n),), form.dtype.to_real()),
            ((), INT)]


def _same(form: Form, cores: list) -> Cores:
    return [(cores[0], form.dtype)]


SHAPES: dict[str, Callable[[Form, list], Cores]] = {
    "cholesky": _cholesky, "cholesky_solve": _triangular, "triangular": _triangular, "lu": _lu,
    "lu_of_transpose": _lu, "lu_solve": _solution, "inverse": _cholesky,
    "permutation": _permutation, "ldl": _lu, "ldl_solve": _solution, "reflectors": _reflectors,
    "qr": _qr, "hermitian": _hermitian, "singular": _singular, "general": _general,
    "least_squares": _least_squares, "exponential": _same,
}


def is_paired(form: Form, number: int, dtype: DType) -> bool:
    """Is an operand that is read (or, for -1, a result) of a paired form one of pairs?"""
    return form.paired and dtype.kind == "f" and number not in form.real


def _results(form: Form, operands: Sequence[Value]) -> Cores:
    """The (matrix shape, dtype) of every result, as the numbers that they are."""
    cores = []
    for place, value in enumerate(operands[form.unread:]):
        shape = value.shape[form.lead:]
        cores.append(shape[:-1] if is_paired(form, place, value.dtype) else shape)
    return SHAPES[form.routine](form, cores)


def _infer(inputs: tuple[Value, ...], attrs: tuple):
    form, number = attrs
    core, dtype = _results(form, inputs)[number]
    if form.paired and dtype.is_complex:
        core, dtype = (*core, 2), dtype.to_real()
    return (*inputs[-1].shape[:form.lead], *core), dtype


FACTOR = Primitive("factor", "factor", _infer)


def results_of(node: Value) -> list[Value]:
    """All results of the run that `node` is a result of."""
    return factor(node.attrs[0], *node.inputs)


def operands_of(node: Value) -> list[tuple[Value, int, bool]]:
    """What a kernel reads: (operand, dimensions of the batch, whether its elements are pairs)."""
    form = node.attrs[0]
    return [(value, form.lead, is_paired(form, place, value.dtype))
            for place, value in enumerate(node.inputs[form.unread:])]


def factor(form: Form, *operands: Value) -> list[Value]:
    """The results of a routine, in order."""
    count = len(_results(form, operands))
    return [FACTOR(*operands, attrs=(form, number)) for number in range(count)]


_rules: dict[str, Callable] = {}


def factor_rule(*routines: str) -> Callable:
    """Decorator: the gradient of routines, (node, results, gradients) -> one per operand, or None.
    Results and gradients are in order; None for a result that has none."""

    def define(rule: Callable) -> Callable:
        _rules.update(dict.fromkeys(routines, rule))
        return rule

    return define


@FACTOR.vjp
def factor_vjp(node, g):
    """By the routine's rule, with this result's gradient alone."""
    form, number = node.attrs
    rule = _rules.get(form.routine)
    if rule is None:
        raise NotImplementedError(f"the derivative of {form.routine!r} is not implemented, as in "
                                  "PyTorch: it is a factorization to solve systems with")
    results = results_of(node)
    results[number] = node
    return rule(node, results, [g if place == number else None for place in range(len(results))])


@FACTOR.batch
def factor_batch(node, inputs, flags, size):
    """The examples are one more dimension of the batch."""
    form, number = node.attrs
    many = [x if flag else expand(reshape(x, (1, *x.shape)), (size, *x.shape))
            for x, flag in zip(inputs, flags, strict=True)]
    return FACTOR(*many, attrs=(dataclasses.replace(form, lead=form.lead + 1), number))


def paired(form: Form) -> Form:
    """The form of a complex factorization whose elements are pairs of real numbers."""
    return dataclasses.replace(form, paired=form.dtype.is_complex)
