"""Products of vectors and matrices, on the generated GEMM."""

from __future__ import annotations

import math

import numpy as np

from flambeau.core import dtypes
from flambeau.core.shapes import broadcast_shapes
from flambeau.ir.graph import Value
from flambeau.ops import elementwise as e
from flambeau.ops import primitives as p
from flambeau.ops.checks import vectors_alike
from flambeau.ops.primitives import convert
from flambeau.ops.record import Index, Number, Tensor, lift, op
from flambeau.ops.samples import Arr, sample


def _pairs(*shapes):
    return lambda: iter([sample(*(Arr(shape) for shape in pair)) for pair in shapes])


def _same_dtype(name: str, *values: Value) -> None:
    for value in values[1:]:
        if value.dtype is not values[0].dtype:
            raise RuntimeError(f"{name}: expected m1 and m2 to have the same dtype, but got: "
                               f"{c_name(values[0])} != {c_name(value)}. Convert one of them "
                               "with .to(dtype).")


def alike(name: str):
    """A check for op records: all tensors have one dtype (before 16-bit floats are widened)."""

    def check(*args: Value | None) -> None:
        _same_dtype(name, *(v for v in args if isinstance(v, Value) and not v.number))

    return check


def c_name(value: Value) -> str:
    return {"float64": "double", "float32": "float", "float16": "c10::Half",
            "bfloat16": "c10::BFloat16", "int64": "long int", "int32": "int"}.get(
                value.dtype.name, value.dtype.name)


def product(a: Value, b: Value) -> Value:
    """`dot`, by parts for complex values and in int8 for bool."""
    if a.dtype.kind == "b":
        raise NotImplementedError('"addmm_impl_cpu_" not implemented for \'Bool\': convert with '
                                  ".to(torch.float32) or .to(torch.int64)")
    if a.dtype.is_complex:
        ar, ai, br, bi = p.real(a), p.imag(a), p.real(b), p.imag(b)
        return p.complex_(p.sub(p.dot(ar, br), p.dot(ai, bi)), p.add(p.dot(ar, bi), p.dot(ai, br)))
    return p.dot(a, b)


@op(samples=_pairs(((3, 4), (4, 5)), ((1, 7), (7, 1)), ((0, 4), (4, 5)), ((3, 0), (0, 5)),
                   ((33, 40), (40, 35))), oracle=np.matmul,
    check=alike("mm"), float8=True)
def mm(input: Tensor, mat2: Tensor):
    """The product of two matrices (n, m) x (m, p) -> (n, p).

    >>> torch.mm(torch.tensor([[1, 2], [3, 4]]), torch.tensor([[0, 1], [1, 0]]))
    tensor([[2, 1],
            [4, 3]])
    """
    if input.ndim != 2 or mat2.ndim != 2:
        which, value = ("self", input) if input.ndim != 2 else ("mat2", mat2)
        raise RuntimeError(f"mm: {which} must be a matrix, got a tensor of shape "
                           f"{list(value.shape)}; use torch.matmul for vectors and batches")
    _check_inner(input.shape, mat2.shape)
    return product(input, mat2)


def _check_inner(a, b) -> None:
    if a[-1] != b[-2]:
        raise RuntimeError(f"mat1 and mat2 shapes cannot be multiplied ({a[-2]}x{a[-1]} and "
                           f"{b[-2]}x{b[-1]}): the columns of the first ({a[-1]}) must equal the "
                           f"rows of the second ({b[-2]})")


def _int_mm_samples():
    for left in ("int8", "uint8"):
        yield sample(Arr((3, 5), left, requires_grad=False),
                     Arr((5, 4), "int8", requires_grad=False))


@op(samples=_int_mm_samples, method=False, name="_int_mm")
def int_mm(input: Index, mat2: Index):
    """The product of two matrices of bytes in int32: int8 or uint8 (n, m) x int8 (m, p)."""
    for which, value, wanted in (("self", input, (dtypes.int8, dtypes.uint8)),
                                 ("mat2", mat2, (dtypes.int8,))):
        if value.dtype not in wanted:
            raise RuntimeError(f"_int_mm: {which} must be of dtype "
                               f"{' or '.join(d.name for d in wanted)}, got {value.dtype.name}")
        if value.ndim != 2:
            raise RuntimeError(f"_int_mm: {which} must be a matrix, got a tensor of shape "
                               f"{list(value.shape)}")
    _check_inner(input.shape, mat2.shape)
    return p.dot(convert(input, dtypes.int32), convert(mat2, dtypes.int32))


@op(samples=_pairs(((2, 3, 4), (2, 4, 5)), ((0, 3, 4), (0, 4, 5))), oracle=np.matmul,
    check=alike("bmm"), float8=True)
def bmm(input: Tensor, mat2: Tensor):
    """Products of matrices, batch by batch: (b, n, m) x (b, m, p) -> (b, n, p).

    >>> a, b = torch.tensor([[[1., 2.]], [[3., 4.]]]), torch.tensor([[[1.], [1.]], [[0.], [1.]]])
    >>> torch.bmm(a, b)
    tensor([[[3.]],
    <BLANKLINE>
            [[4.]]])
    """
    if input.ndim != 3 or mat2.ndim != 3:
        raise RuntimeError("batch1 must be a 3D tensor" if input.ndim != 3
                           else "batch2 must be a 3D tensor")
    if input.shape[0] != mat2.shape[0] or input.shape[2] != mat2.shape[1]:
        raise RuntimeError(f"Expected size for first two dimensions of batch2 tensor to be: "
                           f"[{input.shape[0]}, {input.shape[2]}] but got: "
                           f"[{mat2.shape[0]}, {mat2.shape[1]}].")
    return product(input, mat2)


@op(refuses="b", samples=_pairs(((4,), (4,)), ((0,), (0,))), oracle=np.dot,
    check=vectors_alike)
def dot(input: Tensor, tensor: Tensor):
    """The sum of products of two vectors.

    >>> torch.dot(torch.tensor([1, 2, 3]), torch.tensor([4, 5, 6]))
    tensor(32)
    """
    if input.ndim != 1 or tensor.ndim != 1:
        raise RuntimeError(f"1D tensors expected, but got {input.ndim}D and {tensor.ndim}D tensors")
    if input.shape != tensor.shape:
        raise RuntimeError(f"inconsistent tensor size, expected tensor [{input.shape[0]}] and src "
                           f"[{tensor.shape[0]}] to have the same number of elements, but got "
                           f"{input.shape[0]} and {tensor.shape[0]} elements respectively")
    return p.reduce_sum(p.mul(input, tensor), (0,))


@op(samples=_pairs(((3, 4), (4,))), oracle=np.matmul, check=alike("mv"), float8=True)
def mv(input: Tensor, vec: Tensor):
    """The product of a matrix and a vector.

    >>> torch.mv(torch.tensor([[1., 2.], [3., 4.]]), torch.tensor([1., 1.]))
    tensor([3., 7.])
    """
    if input.ndim != 2 or vec.ndim != 1:
        raise RuntimeError("vector + matrix @ vector expected, got "
                           f"{input.ndim}, {vec.ndim}")
    if input.shape[1] != vec.shape[0]:
        raise RuntimeError(f"size mismatch, got input ({input.shape[0]}), mat "
                           f"({input.shape[0]}x{input.shape[1]}), vec ({vec.shape[0]})")
    return p.reshape(product(input, p.reshape(vec, (vec.shape[0], 1))), (input.shape[0],))


def _matmul_grad(call) -> str:
    ranks = [len(a[0]) for a in call.avals]
    if ranks == [1, 1]:
        return "DotBackward0"
    if ranks == [2, 2]:
        return "MmBackward0"
    if ranks == [2, 1]:
        return "MvBackward0"
    return "UnsafeViewBackward0" if len(call.avals[1][0]) <= 2 else "BmmBackward0"


@op(samples=_pairs(((3, 4), (4, 5)), ((4,), (4,)), ((3, 4), (4,)), ((4,), (4, 5)),
                   ((2, 3, 4), (4, 5)), ((2, 1, 3, 4), (5, 4, 2)), ((2, 3, 4), (4,))),
    grad=_matmul_grad, oracle=np.matmul, check=alike("matmul"), float8=True)
def matmul(input: Tensor, other: Tensor):
    """Matrix product with NumPy's rules: vectors are rows or columns, batches broadcast.

    >>> torch.matmul(torch.tensor([[1., 2.], [3., 4.]]), torch.tensor([1., 1.]))
    tensor([3., 7.])
    >>> torch.matmul(torch.ones(5, 1, 2, 3), torch.ones(4, 3, 2)).shape
    torch.Size([5, 4, 2, 2])
    """
    if input.ndim == 0 or other.ndim == 0:
        raise RuntimeError("both arguments to matmul need to be at least 1D, but they are "
                           f"{input.ndim}D and {other.ndim}D")
    if input.ndim == 1 and other.ndim == 1:
        return dot(input, other)
    a = p.reshape(input, (1, input.shape[0])) if input.ndim == 1 else input
    b = p.reshape(other, (other.shape[0], 1)) if other.ndim == 1 else other
    _check_inner(a.shape, b.shape)
    rows, columns = a.shape[-2], b.shape[-1]
    if b.ndim == 2:  # one product of all rows
        flat = p.reshape(a, (math.prod(a.shape[:-1]), a.shape[-1]))
        result = p.reshape(product(flat, b), a.shape[:-1] + (columns,))
    else:
        batch = broadcast_shapes(a.shape[:-2], b.shape[:-2])
        a = p.expand(a, batch + a.shape[-2:])
        b = p.expand(b, batch + b.shape[-2:])
        result = product(a, b)
    batch = result.shape[:-2]
    shape = batch + ((rows,) if input.ndim > 1 else ()) + ((columns,) if other.ndim > 1 else ())
    return p.reshape(result, shape)


def _weighted(input: Value, result: Value, beta, alpha) -> Value:
    beta = lift(beta)
    result = e.scaled(result, alpha)
    if beta.prim.name == "constant" and beta.attrs[0] == 0:
        return result
    addend = e.scaled(input, beta)
    if addend is not input:  # at beta 0 not even NaN and infinity come through
        factor = p.expand(convert(beta, input.dtype), input.shape)
        addend = p.where(p.eq(factor, e.like(0, factor)), e.like(0, addend), addend)
    return e.elementwise(p.add, p.expand(addend, result.shape), result)


def _addmm_samples():
    yield sample(Arr((5,)), Arr((3, 4)), Arr((4, 5)))
    yield sample(Arr((3, 5)), Arr((3, 4)), Arr((4, 5)), beta=0.5, alpha=2.0)


@op(samples=_addmm_samples, inplace=True, check=alike("addmm"), float8=True)
def addmm(input: Tensor, mat1: Tensor, mat2: Tensor, *, beta: Number = 1, alpha: Number = 1):
    """beta * input + alpha * (mat1 @ mat2).

    >>> torch.addmm(torch.tensor([1., 2.]), torch.eye(2), torch.ones(2, 2), beta=10)
    tensor([[11., 21.],
            [11., 21.]])
    """
    return _weighted(input, mm(mat1, mat2), beta, alpha)


@op(samples=lambda: iter([sample(Arr((2, 3, 5)), Arr((2, 3, 4)), Arr((2, 4, 5)))]), inplace=True,
    check=alike("baddbmm"), float8=True)
def baddbmm(input: Tensor, batch1: Tensor, batch2: Tensor, *, beta: Number = 1,
            alpha: Number = 1):
    """beta * input + alpha * (batch1 @ batch2).

    >>> a, b = torch.tensor([[[1., 2.]]]), torch.tensor([[[3.], [4.]]])
    >>> torch.baddbmm(torch.ones(1, 1, 1), a, b)
    tensor([[[12.]]])
    """
    return _weighted(input, bmm(batch1, batch2), beta, alpha)


@op(samples=_pairs(((3,), (4,))), oracle=np.outer, aliases=("ger",), grad="MulBackward0",
    promote="match", float8=True)
def outer(input: Tensor, vec2: Tensor):
    """The products of all pairs of elements of two vectors.

    >>> torch.outer(torch.tensor([1, 2]), torch.tensor([10, 20, 30]))
    tensor([[10, 20, 30],
            [20, 40, 60]])
    """
    if input.ndim != 1 or vec2.ndim != 1:
        raise RuntimeError("outer: Expected 1-D arguments, got "
                           f"{input.ndim}D and {vec2.ndim}D tensors")
    return e.mul(p.reshape(input, (input.shape[0], 1)), vec2)


def _linear_grad(call) -> str:
    rank = len(call.avals[0][0])
    bias = len(call.avals) == 3
    if rank == 2:
        return "AddmmBackward0" if bias else "MmBackward0"
    return ("ViewBackward0" if bias else "UnsafeViewBackward0") if rank != 1 else (
        "ViewBackward0" if bias else "SqueezeBackward4")


def _linear_samples():
    yield sample(Arr((3, 4)), Arr((5, 4)), Arr((5,)))
    yield sample(Arr((2, 3, 4)), Arr((5, 4)))
    yield sample(Arr((4,)), Arr((5, 4)), Arr((5,)))


@op(samples=_linear_samples, method=False, public=("nn.functional",),
    grad=_linear_grad, check=alike("linear"), float8=True)
def linear(input: Tensor, weight: Tensor, bias: Tensor | None = None):
    """input @ weight.T + bias, on the last dimension.

    >>> weight = torch.tensor([[3., 4.], [5., 6.]])
    >>> F.linear(torch.tensor([[1., 2.]]), weight, torch.tensor([0.5, 0.5]))
    tensor([[11.5000, 17.5000]])
    """
    if input.ndim == 0 or weight.ndim == 0:
        raise RuntimeError("both arguments to linear need to be at least 1D, but they are "
                           f"{input.ndim}D and {weight.ndim}D")
    if weight.ndim > 2:
        raise RuntimeError(f"t() expects a tensor with <= 2 dimensions, but the weight of linear "
                           f"is {weight.ndim}D, of shape {list(weight.shape)}")
    if weight.ndim == 1 and input.shape[-1:] == weight.shape:  # one output, without a dimension
        result = linear(input, p.reshape(weight, (1, weight.shape[0])))
        result = p.reshape(result, input.shape[:-1])
        return result if bias is None else p.add(result, p.expand(bias, result.shape))
    if input.shape[-1:] != weight.shape[-1:]:
        rows = math.prod(input.shape[:-1])
        raise RuntimeError(
            f"mat1 and mat2 shapes cannot be multiplied ({rows}x{input.shape[-1]} and "
            f"{weight.shape[-1]}x{weight.shape[0]}): linear expects inputs with "
            f"{weight.shape[-1]} features (weight has shape {list(weight.shape)}), got "
            f"{list(input.shape)}")
    flat = p.reshape(input, (math.prod(input.shape[:-1]), input.shape[-1]))
    result = product(flat, p.transpose(weight))
    if bias is not None:
        result = p.add(result, p.expand(bias, result.shape))
    return p.reshape(result, input.shape[:-1] + (weight.shape[0],))
