"""A tensor of a hundred lines on NumPy, with just what the autograd layer asks of one.

It lets the tape be tested without the rest of the package. Views share a `Storage`; in-place writes
raise its version. No broadcasting rule beyond NumPy's, no rebasing of views.
"""

from __future__ import annotations

import functools
from collections import namedtuple

import numpy as np

from flambeau.autograd import graph, hooks, saved
from flambeau.autograd.function import Function
from flambeau.autograd.grad_mode import RECORD, mode
from flambeau.core import dtypes, errors

Meta = namedtuple("Meta", "shape dtype strides strided", defaults=(True,))
intern_meta = functools.cache(Meta)


class Storage:
    __slots__ = ("version", "owner")

    def __init__(self):
        self.version = 0


class Tensor:
    _grad_fn = None
    _output_nr = 0
    _rg = False
    _grad = None
    _accumulator = None
    _hooks = None
    _retains_grad = False

    def __init__(self, data, requires_grad=False, storage=None):
        self.data = data = np.asarray(data)
        self._storage = storage or Storage()
        strides = tuple(s // data.itemsize for s in data.strides)
        self._meta = intern_meta(data.shape, dtypes.by_numpy(data.dtype), strides)
        if requires_grad:
            self._rg = True

    shape = property(lambda self: self._meta.shape)
    dtype = property(lambda self: self._meta.dtype)
    device = None
    is_meta = False
    _grad_dtype = None
    grad_fn = property(lambda self: self._grad_fn)
    requires_grad = property(lambda self: self._rg)
    is_leaf = property(lambda self: self._grad_fn is None)

    @property
    def grad(self):
        return self._grad

    @grad.setter
    def grad(self, value):
        self._grad = value

    def is_contiguous(self):
        return self.data.flags.c_contiguous

    def numel(self):
        return self.data.size
    register_hook = hooks.register_tensor_hook
    retain_grad = hooks.enable_retain_grad

    def requires_grad_(self, value=True):
        self._rg = value
        return self

    def backward(self, *args, **kwargs):
        from flambeau.autograd import api
        api.tensor_backward(self, *args, **kwargs)

    def detach(self):
        return Tensor(self.data, storage=self._storage)

    def clone(self):
        return record("CloneBackward0", Tensor(self.data.copy()), (self,), lambda g, s: (g,))

    def copy_(self, other):
        return self._write(other.data)

    def _write(self, value):
        self.data[...] = value
        self._storage.version += 1
        errors.note_write(self._storage, errors.caller_location())
        return self

    def add_(self, other):
        return self._write(self.data + getattr(other, "data", other))

    def __add__(self, other):
        if not isinstance(other, Tensor):
            other = Tensor(np.asarray(other, self.data.dtype))
        return record("AddBackward0", Tensor(np.add(self.data, other.data)), (self, other),
                      lambda g, s: (g, g))

    __radd__ = __add__

    def __mul__(self, other):
        if not isinstance(other, Tensor):
            other = Tensor(np.asarray(other, self.data.dtype))
        return record("MulBackward0", Tensor(np.multiply(self.data, other.data)), (self, other),
                      lambda g, s: (g * s[1].conj(), g * s[0].conj()), keep=(self, other))

    __rmul__ = __mul__

    def __neg__(self):
        return self * -1.0

    def __sub__(self, other):
        return self + -other

    def exp(self):
        out = Tensor(np.exp(self.data))
        return record("ExpBackward0", out, (self,), lambda g, s: (g * s[0].conj(),), keep=(out,),
                      outputs=1)

    def sum(self):
        shape = self.shape
        return record("SumBackward0", Tensor(self.data.sum()), (self,),
                      lambda g, s: (g.expand(shape),))

    def expand(self, shape):
        before = self.shape
        out = Tensor(np.broadcast_to(self.data, shape), storage=self._storage)
        return record("ExpandBackward0", out, (self,), lambda g, s: (g.sum_to_size(before),))

    def sum_to_size(self, shape):
        before, data = self.shape, self.data
        data = data.sum(axis=tuple(range(data.ndim - len(shape))))
        axes = tuple(i for i, n in enumerate(shape) if n == 1)
        out = Tensor(data.sum(axis=axes, keepdims=True) if axes else data)
        return record("SumBackward1", out, (self,), lambda g, s: (g.expand(before),))

    def reshape(self, *shape):
        before = self.shape
        if shape and isinstance(shape[0], tuple):
            shape = shape[0]
        out = Tensor(self.data.reshape(shape), storage=self._storage)
        return record("ViewBackward0", out, (self,), lambda g, s: (g.reshape(before),))

    def view_as(self, other):
        return self.reshape(other.shape)

    def unbind(self, dim=0):
        """Several outputs of one node."""
        outs = tuple(Tensor(row.copy()) for row in self.data)
        zero = Tensor(np.zeros(self.shape[1:], self.data.dtype))

        def backward(grads, s):
            grads = grads if isinstance(grads, list) else [grads]
            return (stack([zero if g is None else g for g in grads]),)

        return record("UnbindBackward0", outs, (self,), backward)

    def conj(self):
        return record("ConjBackward0", Tensor(self.data.conj()), (self,), lambda g, s: (g.conj(),))

    @property
    def real(self):
        return record("RealBackward0", Tensor(self.data.real.copy()), (self,),
                      lambda g, s: (Tensor(g.data + 0j),))

    def cpu(self):
        return self

    def numpy(self):
        return self.data

    def item(self):
        return self.data.item()

    def __getitem__(self, index):
        return Tensor(self.data[index], storage=self._storage)

    def __setitem__(self, index, value):
        data = self.data.copy()
        data[index] = getattr(value, "data", value)
        self._write(data)

    def to(self, dtype):
        return Tensor(self.data.astype(dtype.numpy))

    def __ne__(self, other):
        return Tensor(self.data != other.data)

    __hash__ = object.__hash__

    def any(self):
        return self.data.any()

    def tolist(self):
        return self.data.tolist()


class FakeNode(graph.Node):
    __slots__ = ("rule",)

    def apply(self, grads):
        saved_tensors = saved.unpack(self) if self.tape_saved else ()
        return self.rule(grads if len(self.output_metas) > 1 else grads[0], saved_tensors)


def record(name, outs, inputs, rule, keep=(), outputs=0):
    if mode() & 3 != RECORD or not any(t._rg for t in inputs):
        return outs
    many = outs if isinstance(outs, tuple) else (outs,)
    node = graph.node_type(name, FakeNode)(tuple(graph.edge_of(t) for t in inputs),
                                           tuple(t._meta for t in many))
    node.rule = rule
    for number, out in enumerate(many):
        out._grad_fn, out._output_nr, out._rg = node, number, True
    if keep:
        saved.save(node, keep, outputs, errors.caller_location())
    if mode() & 4:
        graph.note_stack(node)
    return outs


def stack(tensors):
    """Along a new first dimension."""
    def backward(grad, s):
        return grad.unbind()

    return record("StackBackward0", Tensor(np.stack([t.data for t in tensors])), tuple(tensors),
                  backward)


class make:
    """The factories that `register_tensor_class` wants."""

    @staticmethod
    def zeros(shape, dtype, device=None):
        return Tensor(np.zeros(shape, dtype.numpy))

    @staticmethod
    def ones_like(tensor):
        return Tensor(np.ones_like(tensor.data))

    @staticmethod
    def tensor(array):
        return Tensor(array)

    @staticmethod
    def zeros_like(tensor):
        return Tensor(np.zeros_like(tensor.data))


def tensor(data, requires_grad=False):
    return Tensor(np.array(data, dtype=np.float64), requires_grad)


class forward:
    """What the Jacobians ask of the tensor layer."""

    @staticmethod
    def stacked(rows):
        return _Stack.apply(*rows)


class _Stack(Function):
    """Tensors of one shape, along a new first dimension."""

    @staticmethod
    def forward(ctx, *rows):
        result = make.zeros((len(rows), *rows[0].shape), rows[0].dtype)
        for index, row in enumerate(rows):
            result[index] = row
        return result

    @staticmethod
    def backward(ctx, grad):
        return tuple(grad.unbind(0))


def install():
    graph.register_tensor_class(Tensor, make, lambda: forward)
