"""`Tensor`: attributes, conversions, operators.

Methods that are ops come from the op table (methods.py).
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

import numpy as np

from flambeau.autograd import grad_mode
from flambeau.core import dtypes
from flambeau.core.arguments import conversion, kind_of, need_tensor
from flambeau.core.device import CPU, META, Device, as_device
from flambeau.core.dtypes import DType
from flambeau.core.shapes import Size
from flambeau.ops.record import dtypes_default
from flambeau.runtime import memory
from flambeau.tensor import (
    dispatch,
    dlpack,
    indexing,
    interop,
    launches,
    overriding,
    rewriting,
    tangents,
    tape,
)
from flambeau.tensor.devices import moved_to
from flambeau.tensor.display import meta_repr, tensor_repr
from flambeau.tensor.formats import (
    channels_last_strides,
    is_channels_last,
    lies_channels_last,
    preserve_format,
    strided,
)
from flambeau.tensor.functions import ops
from flambeau.tensor.meta import TensorBase, contiguous_meta, meta_of
from flambeau.tensor.sizes import named_shape, shape_of
from flambeau.tensor.viewing import make_view, pass_on

__all__ = ["Tensor"]


_index_of = operator.index
_view_plans = dispatch.FUNCTIONS["view"].cache
_select_plans = dispatch.FUNCTIONS["select"].cache
_ACTIVE = dispatch.ACTIVE
_NOT_OF_NUMPY = {dtypes.bfloat16, dtypes.complex32, *dtypes.FLOAT8, *dtypes.OPAQUE}


class Tensor(TensorBase):
    """A multi-dimensional array of one dtype, sharing PyTorch's semantics.

    Make tensors with `torch.tensor`, `torch.zeros`, `torch.from_numpy` and the like.
    """

    __array_priority__ = 1000

    # what most tensors never have; instances that do keep it in their __dict__
    _output_nr = 0
    _grad = None
    _accumulator = None
    _hooks = None
    _view_version = None
    _view_no_grad = False
    _views = None
    _inherits = False
    _view_of_many = None
    _retains_grad = False
    _level = None  # of a transform: the tensor stands for the examples of a batch
    _tangents = None  # its derivatives by level, see tangents.py

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        if not args and not kwargs:
            return object.__new__(cls)
        made = _construct(*args, **kwargs)
        return made if cls is Tensor else made.as_subclass(cls)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        if not args and not kwargs and not hasattr(self, "_meta"):  # an empty tensor
            _become(self, launches.fresh(contiguous_meta(dtypes.float32, (0,))))

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        overriding.door_class(cls, Tensor)

    @classmethod
    def __torch_function__(cls, func: Any, types: Sequence, args: tuple = (),
                           kwargs: dict | None = None) -> Any:
        """What an operation does with subclasses: compute, and give the results their type."""
        return overriding.default_torch_function(cls, func, types, args, kwargs)

    _from_storage = staticmethod(interop.from_storage)
    _refresh_view = staticmethod(rewriting.refresh_view)

    # ------------------------------------------------------------------ attributes
    @property
    def shape(self) -> Size:
        """The sizes of the dimensions."""
        return self._meta.shape

    @property
    def dtype(self) -> DType:
        return self._meta.dtype

    @property
    def device(self) -> Device:
        """Where its memory lies."""
        return self._meta.device

    @property
    def layout(self) -> Any:
        return strided

    @property
    def ndim(self) -> int:
        return self._meta.ndim

    @property
    def itemsize(self) -> int:
        return self._meta.dtype.itemsize

    @property
    def nbytes(self) -> int:
        """numel * itemsize."""
        return self._meta.nbytes

    is_cpu = property(lambda self: self._meta.device is CPU)
    is_meta = property(lambda self: self._meta.device is META)
    is_cuda = is_mps = is_xpu = property(lambda self: False)
    is_sparse = is_sparse_csr = is_quantized = is_mkldnn = is_nested = is_cuda
    names = property(lambda self: (None,) * self._meta.ndim)

    def size(self, dim: int | None = None) -> Size | int:
        """The shape, or one size of it."""
        if dim is None:
            return self._meta.shape
        if not self._meta.ndim:
            raise IndexError(f"Dimension specified as {dim} but tensor has no dimensions")
        return self._meta.shape[indexing.checked_dim(dim, self._meta.ndim)]

    def dim(self) -> int:
        return self._meta.ndim

    ndimension = dim

    def numel(self) -> int:
        """The number of elements."""
        return self._meta.numel

    nelement = numel

    def stride(self, dim: int | None = None) -> tuple[int, ...] | int:
        """The strides in elements, or one of them."""
        if dim is None:
            return self._meta.strides
        if not self._meta.ndim:
            raise IndexError(f"Dimension specified as {dim} but tensor has no dimensions")
        return self._meta.strides[indexing.checked_dim(dim, self._meta.ndim)]

    def storage_offset(self) -> int:
        """Elements from the storage's start to the first element."""
        return (self._ptr - self._storage.ptr) // self._meta.dtype.itemsize

    def data_ptr(self) -> int:
        """The address of the first element (0 for an empty tensor, and on the meta device)."""
        launches.share(None)
        return self._ptr if self._meta.numel and self._meta.device is CPU else 0

    def element_size(self) -> int:
        return self._meta.dtype.itemsize

    def is_contiguous(self, memory_format: Any = None) -> bool:
        """Row-major without gaps?"""
        if is_channels_last(memory_format):
            meta = self._meta
            return lies_channels_last(meta.shape, meta.strides, memory_format)
        return self._meta.contiguous

    def is_floating_point(self) -> bool:
        return self._meta.dtype.is_floating_point

    def is_complex(self) -> bool:
        return self._meta.dtype.is_complex

    def is_signed(self) -> bool:
        return self._meta.dtype.is_signed

    def is_conj(self) -> bool:
        return False

    is_neg = is_conj

    def is_inference(self) -> bool:
        """Was its memory taken in inference mode?"""
        return self._storage.version.__class__ is grad_mode.UncountedVersion

    def get_device(self) -> int:
        return -1

    @property
    def _version(self) -> int:
        if self.is_inference():
            raise RuntimeError("Inference tensors do not track version counter.")
        return self._storage.version

    # ------------------------------------------------------------------ autograd
    @property
    def requires_grad(self) -> bool:
        """Does autograd record what is done to this tensor?"""
        return self._rg

    @requires_grad.setter
    def requires_grad(self, value: bool) -> None:
        if not self.is_leaf:
            self.requires_grad_(False)  # says why not
        self.requires_grad_(value)

    def requires_grad_(self, requires_grad: bool = True) -> Tensor:
        """Ask autograd to record what is done to this leaf from now on.

        Raises:
            RuntimeError: not a leaf, or a dtype that has no gradients.
        """
        if self._grad_fn is not None:
            if requires_grad:
                return self
            raise RuntimeError("you can only change requires_grad flags of leaf variables. If you "
                               "want to use a computed variable in a subgraph that doesn't require "
                               "differentiation use var_no_grad = var.detach().")
        if requires_grad:
            _may_require_grad(self)
        changed, self._rg = self._rg is not bool(requires_grad), bool(requires_grad)
        if self._inherits:
            self._inherits = False
        if changed and self._views is not None:
            pass_on(self)
        return self

    @property
    def is_leaf(self) -> bool:
        return not self._rg or self.grad_fn is None

    @property
    def grad_fn(self) -> Any:
        """The node that computed this tensor, or None for leaves."""
        if self._base is not None and self._rg:
            rewriting.refresh_view(self)
        return self._grad_fn

    @property
    def output_nr(self) -> int:
        return self._output_nr

    @property
    def grad(self) -> Tensor | None:
        """The gradient that backward() accumulated, or None."""
        if self._grad is None and self._grad_fn is not None and not self._retains_grad:
            import warnings

            warnings.warn("The .grad attribute of a Tensor that is not a leaf Tensor is being "
                          "accessed. Its .grad attribute won't be populated during "
                          "autograd.backward(). If you indeed want the .grad field to be populated "
                          "for a non-leaf Tensor, use .retain_grad() on the non-leaf "
                          "Tensor.", stacklevel=2)
        if dispatch.observers:
            dispatch.observers[-1].asked(self)
        return self._grad

    @grad.setter
    def grad(self, value: Tensor | None) -> None:
        if value is not None:
            tape.check_gradient(self, value)
        elif dispatch.observers:
            dispatch.observers[-1].forgot(self)
        self._grad = value

    @grad.deleter
    def grad(self) -> None:
        self._grad = None

    @property
    def data(self) -> Tensor:
        """The same memory outside the graph, with a version counter of its own."""
        storage = memory.foreign(self._storage.ptr, self._storage.nbytes, self._storage)
        storage.version = self._storage.version if self.is_inference() else 0
        alias = interop.new_view(storage, self._ptr, self._meta)
        if dispatch.observers:
            dispatch.observers[-1].aliased(self, alias)
        return alias

    @data.setter
    def data(self, value: Tensor) -> None:
        if not isinstance(value, Tensor):
            raise TypeError(f"Variable data has to be a tensor, but got {type(value).__name__}")
        if (value.device is META) is not (self.device is META):
            raise RuntimeError("Attempted to call `variable.set_data(tensor)`, but `variable` and "
                               f"`tensor` have incompatible tensor type: {self.device} and "
                               f"{value.device}. A parameter is moved from the meta device by "
                               "Module.to_empty, or replaced by a new one.")
        if value._meta.dtype is not self._meta.dtype:  # its gradients will be others
            self._accumulator = None
        self._storage, self._ptr, self._meta = value._storage, value._ptr, value._meta

    def backward(self, gradient: Tensor | None = None, retain_graph: bool | None = None,
                 create_graph: bool = False, inputs: Any = None) -> None:
        """Compute the gradients of all leaves that this tensor depends on; add to their `.grad`."""
        from flambeau.autograd.api import tensor_backward

        tensor_backward(self, gradient, retain_graph, create_graph, inputs)

    def detach_(self) -> Tensor:
        """Take this tensor out of the graph; it becomes a leaf."""
        if self._base is not None:
            raise RuntimeError("Can't detach views in-place. Use detach() instead.")
        self._grad_fn, self._rg, self._output_nr, self._tangents = None, False, 0, None
        if self._views is not None:
            pass_on(self)
        return self

    def detach(self) -> Tensor:
        """The same memory outside the graph."""
        alias = tape.alias_of(self)
        if dispatch.observers:
            dispatch.observers[-1].aliased(self, alias)
        return alias

    def retain_grad(self) -> None:
        """Keep the gradient of this non-leaf in `.grad`."""
        from flambeau.autograd.hooks import enable_retain_grad

        enable_retain_grad(self)

    @property
    def retains_grad(self) -> bool:
        return self._retains_grad

    def register_hook(self, hook: Any) -> Any:
        """Call `hook(grad)` when the gradient of this tensor is known; it may return another."""
        from flambeau.autograd.hooks import register_tensor_hook

        return register_tensor_hook(self, hook)

    def register_post_accumulate_grad_hook(self, hook: Any) -> Any:
        """Call `hook(self)` after a gradient was added to `.grad` of this leaf."""
        from flambeau.autograd.hooks import register_post_accumulate_hook

        return register_post_accumulate_hook(self, hook)

    def _is_view(self) -> bool:
        return self._base is not None

    # ------------------------------------------------------------------ Python
    def item(self) -> bool | int | float | complex:
        """The only element as a Python number."""
        if dispatch.observers:
            dispatch.observers[-1].read(self)
        return interop.scalar_of(self)

    def tolist(self) -> Any:
        """Nested lists of Python numbers (a number for a 0-d tensor)."""
        if dispatch.observers:
            dispatch.observers[-1].read(self)
        return interop.plain(interop.array_of(self)).tolist()

    def __bool__(self) -> bool:
        if self._meta.numel != 1:
            if self._meta.numel == 0:
                raise RuntimeError("Boolean value of Tensor with no values is ambiguous")
            raise RuntimeError("Boolean value of Tensor with more than one value is ambiguous")
        return bool(self.item())

    def __float__(self) -> float:
        return float(self._real_item("double"))

    def __int__(self) -> int:
        return int(self._real_item("int64_t"))

    def _real_item(self, kind: str) -> bool | int | float:
        if self._meta.numel != 1:
            raise ValueError("only one element tensors can be converted to Python scalars, and "
                             f"this one has shape {list(self._meta.shape)}")
        value = self.item()
        if isinstance(value, complex):
            if value.imag:
                raise RuntimeError(f"value cannot be converted to type {kind} without overflow: "
                                   f"{value} is complex; take .real or .abs() first")
            return value.real
        return value

    def __complex__(self) -> complex:
        if self._meta.numel != 1:
            raise ValueError("only one element tensors can be converted to Python scalars, and "
                             f"this one has shape {list(self._meta.shape)}")
        return complex(self.item())

    def __index__(self) -> int:
        if self._meta.dtype.kind not in "iub" or self._meta.numel != 1:
            raise TypeError("only integer tensors of a single element can be converted to an index")
        return int(self.item())

    def __len__(self) -> int:
        if self._meta.ndim == 0:
            raise TypeError("len() of a 0-d tensor")
        return self._meta.shape[0]

    def __iter__(self) -> Any:
        if self._meta.ndim == 0:
            raise TypeError("iteration over a 0-d tensor")
        return iter(self.unbind(0))

    def __hash__(self) -> int:
        return id(self)

    def __contains__(self, element: Any) -> bool:
        if not isinstance(element, (Tensor, bool, int, float, complex)):
            raise RuntimeError("Tensor.__contains__ only supports Tensor or scalar, but you passed "
                               f"in a {type(element)}.")
        return bool((self == element).any())

    def __repr__(self, *, tensor_contents: Any = None) -> str:
        node = self.grad_fn
        plain = type(self) in dispatch.TENSOR_CLASSES
        told: dict = {"prefix": "tensor(" if plain else f"{type(self).__name__}(",
                      "requires_grad": self.requires_grad, "default_dtype": dtypes_default(),
                      "grad_fn": None if node is None else node.name(),
                      "suffixes": () if self._tangents is None else tangents.shown(self)}
        if self._meta.device is META:
            return meta_repr(tuple(self._meta.shape), self._meta.dtype, **told)
        if tensor_contents is not None:
            told["contents"] = tensor_contents
        if dispatch.observers:
            dispatch.observers[-1].read(self)
        array = interop.array_of(self)
        if self._meta.dtype is dtypes.complex32:
            array = interop.plain(array)
        return tensor_repr(array, self._meta.dtype, **told)

    def __format__(self, spec: str) -> str:
        if self._meta.ndim == 0 and self._meta.device is not META:
            return self.item().__format__(spec)
        return object.__format__(self, spec)

    def __reduce_ex__(self, protocol: int) -> Any:
        from flambeau.tensor.pickling import reduce_tensor

        return reduce_tensor(self)

    def __copy__(self) -> Tensor:
        if not self.is_leaf:
            return self.detach().requires_grad_()
        from flambeau.tensor.pickling import shallow_copy

        return shallow_copy(self)

    def __deepcopy__(self, memo: dict) -> Tensor:
        if id(self) in memo:
            return memo[id(self)]
        if not self.is_leaf:
            raise RuntimeError("Only Tensors created explicitly by the user (graph leaves) support "
                               "the deepcopy protocol at the moment.  If you were attempting to "
                               "deepcopy a module, this may be because of a "
                               "torch.nn.utils.weight_norm usage, see "
                               "https://github.com/pytorch/pytorch/pull/103001")
        from flambeau.tensor.pickling import deep_copy

        return deep_copy(self, memo)

    def __dir__(self) -> list[str]:
        return sorted(set(dir(type(self))) | set(self.__dict__))

    # ------------------------------------------------------------------ NumPy and others
    def numpy(self, *, force: bool = False) -> np.ndarray:
        """An array on the same memory: each sees what is written to the other.

        Raises:
            RuntimeError: the tensor requires grad (`detach()` it first, or pass force=True).
            TypeError: a dtype that NumPy has not.
        """
        if self._meta.device is META:
            raise TypeError("can't convert meta device type tensor to numpy. Use Tensor.cpu() to "
                            "copy the tensor to host memory first.")
        if self._rg and not force and grad_mode.is_recording():
            raise RuntimeError("Can't call numpy() on Tensor that requires grad. Use "
                               "tensor.detach().numpy() instead.")
        if self._meta.dtype in _NOT_OF_NUMPY:
            raise TypeError(f"Got unsupported ScalarType {self._meta.dtype.scalar_name}: NumPy has "
                            "no such dtype; convert with .float() or .cfloat() first, or look at "
                            "the bits with .view(torch.uint8)")
        if dispatch.observers:
            dispatch.observers[-1].read(self)
        array = interop.array_of(self)
        launches.share(array)
        return array

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        array = self.numpy()
        if dtype is not None:
            array = array.astype(dtype, copy=False)
        return array.copy() if copy else array

    def __array_wrap__(self, array: np.ndarray, context: Any = None, return_scalar: bool = False
                       ) -> Tensor:
        return interop.from_numpy(np.asarray(array))

    def __dlpack__(self, *, stream: Any = None, max_version: Any = None, dl_device: Any = None,
                   copy: bool | None = None) -> Any:
        if self._meta.device is META:
            raise BufferError("Cannot pack tensors on meta")
        if self._rg:
            raise BufferError("Can't export tensors that require gradient, use tensor.detach()")
        if stream is not None:
            raise AssertionError("stream should be None on cpu.")
        if dl_device not in (None, (1, 0)):
            raise NotImplementedError(f"__dlpack__: this tensor is on the CPU, device (1, 0), and "
                                      f"cannot be exported to {tuple(dl_device)}")
        launches.share(None)
        array = interop.array_of(self.clone() if copy else self)
        return dlpack.exported(array, self._meta.dtype, max_version is not None
                               and tuple(max_version) >= (1, 0))

    def __dlpack_device__(self) -> tuple[int, int]:
        if self._meta.device is META:
            raise ValueError("Unknown device type meta for Dlpack")
        return (1, 0)

    # ------------------------------------------------------------------ conversion
    def to(self, *args: Any, dtype: DType | None = None, device: Any = None, other: Any = None,
           non_blocking: bool = False, copy: bool = False, memory_format: Any = None) -> Tensor:
        """Convert dtype and device: `to(dtype)`, `to(device)`, `to(device, dtype)`, `to(other)`."""
        if other is not None:
            need_tensor("to", "other", other)
            dtype, device = other.dtype, other.device
        if len(args) > 4:
            raise TypeError(f"to() takes from 0 to 4 positional arguments but {len(args)} were "
                            "given")
        for arg in args:
            if isinstance(arg, DType):
                dtype = arg
            elif isinstance(arg, Tensor):
                dtype, device = arg.dtype, arg.device
            elif isinstance(arg, bool) or arg is None:
                copy = copy or (arg is True and arg is args[-1] and len(args) > 2)
            elif isinstance(arg, (str, Device, int)):
                device = arg
            else:
                raise TypeError("to() received an invalid combination of arguments - got "
                                f"({type(arg).__name__}), but expected a dtype, a device or a "
                                "tensor")
        result = self
        if device is not None and (device := as_device(device)) is not self._meta.device:
            result = moved_to(self, device)
        if dtype is not None and dtype is not self._meta.dtype:
            result = ops._to_dtype(result, dtype)
        elif copy and result is self:
            result = ops.clone(self)
        if _is_order(memory_format):
            return result.contiguous(memory_format=memory_format)
        return result

    def type(self, dtype: Any = None, non_blocking: bool = False) -> Any:
        """The legacy type name, or the tensor converted to a dtype (also given by such a name)."""
        if dtype is None:
            place = "" if self._meta.device is CPU else f"{self._meta.device}."
            return f"torch.{place}{self._meta.dtype.legacy}"
        if not isinstance(dtype, (str, DType, type)):
            raise TypeError(f"dtype must be a type, str, or dtype object, not {kind_of(dtype)}")
        if isinstance(dtype, str):
            name = dtype.removeprefix("torch.")
            dtype = next((d for d in dtypes.EVERY if d.legacy == name), None)
            if dtype is None:
                raise ValueError(f"invalid type: 'torch.{name}'")
        return self.to(getattr(dtype, "dtype", dtype) if not isinstance(dtype, DType) else dtype)

    def type_as(self, other: Tensor) -> Tensor:
        need_tensor("type_as", "other", other)
        return self.to(other.device, other.dtype)

    def cpu(self, *, memory_format: Any = None) -> Tensor:
        """The tensor on the CPU."""
        return self.to(CPU, memory_format=memory_format)

    def cuda(self, device: Any = None, non_blocking: bool = False,
             memory_format: Any = None) -> Tensor:
        """The tensor on a GPU. Raises: there is none."""
        return self.to(as_device("cuda" if device is None else device),
                       memory_format=memory_format)

    def clone(self, *, memory_format: Any = None) -> Tensor:
        """A copy with its own memory, in the same order unless a memory format is given."""
        copied = ops.clone(self)
        if _is_order(memory_format):
            return copied.contiguous(memory_format=memory_format)
        return copied

    def contiguous(self, *, memory_format: Any = None) -> Tensor:
        """The tensor itself if it is row-major, else a row-major copy."""
        if is_channels_last(memory_format):
            if self.is_contiguous(memory_format):
                return self
            channels_last_strides(self.shape, memory_format)  # or this raises
            return self.movedim(1, -1).contiguous().movedim(-1, 1)
        if self._meta.contiguous:
            return self
        return ops._reshape_copy(self, tuple(self._meta.shape))

    # ------------------------------------------------------------------ shape, with free arguments
    def view(self, *size: Any, **named: Any) -> Tensor:
        """The same elements in another shape (never copies), or reinterpreted as another dtype."""
        if not _ACTIVE and not named:
            try:  # in a shape that it was viewed in before
                plan, = _view_plans[self._meta, tuple(map(_index_of, size))]
            except (KeyError, TypeError, AttributeError):
                plan = None
            if plan is not None:
                return make_view(self, plan)
        size = size or (named.pop("dtype"),) if "dtype" in named else size
        if len(size) == 1 and isinstance(size[0], DType):
            return self._reinterpreted(size[0])
        if not size and not named:
            raise TypeError("view() received an invalid combination of arguments - got (), but "
                            "expected a shape (ints, or a tuple of ints) or a dtype")
        return ops.view(self, named_shape("view", "size", size, named))

    def _reinterpreted(self, dtype: DType) -> Tensor:
        old, meta = self._meta.dtype.itemsize, self._meta
        if dtype.itemsize == old:
            same = meta_of(dtype, meta.shape, meta.strides, meta.device)
            return interop.new_view(self._storage, self._ptr, same)
        if not meta.ndim or meta.strides[-1] != 1 or meta.shape[-1] * old % dtype.itemsize:
            raise RuntimeError(f"self.size(-1) must be divisible by {dtype.itemsize // old or 1} "
                               f"to view {meta.dtype!r} as {dtype!r} (different element sizes), "
                               "and the last stride must be 1")
        shape = (*meta.shape[:-1], meta.shape[-1] * old // dtype.itemsize)
        strides = tuple(s * old // dtype.itemsize for s in meta.strides[:-1]) + (1,)
        return interop.new_view(self._storage, self._ptr,
                                meta_of(dtype, shape, strides, meta.device))

    def view_as(self, other: Tensor) -> Tensor:
        need_tensor("view_as", "other", other)
        return ops.view(self, tuple(other.shape))

    def reshape(self, *shape: Any, **named: Any) -> Tensor:
        """The elements in another shape: a view if possible, else a copy."""
        if not _ACTIVE and not named:
            try:
                plan, = _view_plans[self._meta, tuple(map(_index_of, shape))]
            except (KeyError, TypeError, AttributeError):
                plan = None
            if plan is not None:
                return make_view(self, plan)
        return ops.reshape(self, named_shape("reshape", "shape", shape, named))

    def reshape_as(self, other: Tensor) -> Tensor:
        need_tensor("reshape_as", "other", other)
        return ops.reshape(self, tuple(other.shape))

    def permute(self, *dims: Any, **named: Any) -> Tensor:
        """Reorder the dimensions."""
        return ops.permute(self, named_shape("permute", "dims", dims, named))

    def expand(self, *size: Any, **named: Any) -> Tensor:
        """Broadcast to a larger shape without copying; -1 keeps a size."""
        return ops.expand(self, named_shape("expand", "size", size, named))

    def broadcast_to(self, *size: Any, **named: Any) -> Tensor:
        """Broadcast to a larger shape without copying."""
        return ops.broadcast_to(self, named_shape("broadcast_to", "size", size, named))

    def expand_as(self, other: Tensor) -> Tensor:
        need_tensor("expand_as", "other", other)
        return ops.expand(self, tuple(other.shape))

    def repeat(self, *repeats: Any, **named: Any) -> Tensor:
        """Tile the tensor."""
        return ops.repeat(self, named_shape("repeat", "repeats", repeats, named))

    def flip(self, *dims: Any, **named: Any) -> Tensor:
        """Reverse the order along dims."""
        return ops.flip(self, named_shape("flip", "dims", dims, named))

    T = property(lambda self: self._transposed("T"))
    mT = property(lambda self: self._transposed("mT"))
    H = property(lambda self: self._transposed("H"))
    mH = property(lambda self: self._transposed("mH"))

    def _transposed(self, name: str) -> Tensor:
        if name in ("mT", "mH") and self.ndim == 1:
            raise RuntimeError(f"tensor.{name} is only supported on matrices or batches of "
                               f"matrices. Got {self.ndim}-D tensor.")
        if name == "T":
            return ops.permute(self, tuple(range(self.ndim))[::-1])
        if name == "H" and self.ndim not in (0, 2):
            raise RuntimeError(f"tensor.H is only supported on matrices (2-D tensors). Got "
                               f"{self.ndim}-D tensor.")
        moved = self if self.ndim < 2 else ops.transpose(self, -2, -1)
        return moved.conj() if name in ("H", "mH") and self.is_complex() else moved

    # ------------------------------------------------------------------ in place
    def copy_(self, other: Any, non_blocking: bool = False) -> Tensor:
        """Copy elements of `other`, broadcast and converted, into this tensor."""
        if not isinstance(other, Tensor):
            if (answer := overriding.duck(Tensor.copy_, (self, other))) is not NotImplemented:
                return answer
            if not isinstance(other, (bool, int, float, complex)):
                raise TypeError(f"copy_(): argument 'other' (position 1) must be Tensor, not "
                                f"{kind_of(other)}{conversion(other)}")
            other = interop.from_data(other)
        return ops.copy_(self, other)

    # ------------------------------------------------------------------ indexing
    def __getitem__(self, key: Any) -> Tensor:
        if key.__class__ is int and not _ACTIVE:
            plans = _select_plans.get((self._meta, 0, key))
            if plans is not None:
                return make_view(self, plans[0])
        try:
            return indexing.get(self, key)
        except (TypeError, IndexError):
            if (answer := overriding.duck(Tensor.__getitem__, (self, key))) is NotImplemented:
                raise
            return answer

    def __setitem__(self, key: Any, value: Any) -> None:
        try:
            indexing.put(self, key, value)
        except (TypeError, IndexError):
            if overriding.duck(Tensor.__setitem__, (self, key, value)) is NotImplemented:
                raise

    # ------------------------------------------------------------------ subclasses
    def as_subclass(self, cls: type) -> Any:
        """The same tensor as an instance of a subclass of Tensor. What stands for the examples of a
        batch stays what it is."""
        if self._level is not None:
            return self
        if self._rg and self._grad_fn is None:  # its gradient arrives here all the same
            self = ops.expand(self, tuple(self._meta.shape))
        made = object.__new__(cls)
        _become(made, self)
        made._rg, made._grad_fn, made._base = self._rg, self._grad_fn, self._base
        if self._tangents is not None:
            made._tangents = self._tangents
        for name in ("_inherits", "_view_no_grad", "_view_of_many", "_view_version"):
            if name in self.__dict__:
                setattr(made, name, self.__dict__[name])
        if self._output_nr:
            made._output_nr = self._output_nr
        return made


def _may_require_grad(tensor: Tensor) -> None:
    if tensor._meta.dtype.kind not in "fc":
        raise not_differentiable(tensor._meta.dtype)
    if tensor.is_inference() and not grad_mode.is_inference_mode_enabled():
        raise RuntimeError("Setting requires_grad=True on inference tensor outside InferenceMode "
                           "is not allowed.")


def not_differentiable(dtype: DType) -> RuntimeError:
    """The error for asking for gradients of integers."""
    return RuntimeError("Only Tensors of floating point and complex dtype can require gradients, "
                        f"not {dtype!r}: convert with .to(torch.float32), or pass "
                        "requires_grad=False")


def _is_order(memory_format: Any) -> bool:
    return memory_format is not None and memory_format is not preserve_format


def _become(made: Any, other: Any) -> None:
    made._storage, made._ptr, made._meta = other._storage, other._ptr, other._meta
    made._rg, made._grad_fn, made._base = False, None, None


def _construct(*args: Any, dtype: Any = None, device: Any = None) -> Tensor:
    """`torch.Tensor(...)`: sizes, or data as float32."""
    if len(args) == 1 and isinstance(args[0], Tensor):
        return args[0].detach()
    if all(isinstance(a, int) and not isinstance(a, bool) for a in args) or (
            len(args) == 1 and isinstance(args[0], Size)):
        return launches.fresh(contiguous_meta(dtypes.float32, shape_of(args)))
    return interop.from_data(args[0], dtypes.float32)


dispatch.TENSOR_CLASSES.add(Tensor)
overriding.LAYOUT_CLASSES.add(Tensor)
overriding.keep_class(Tensor.grad)
launches.install(Tensor, tape.OpNode, tape.RefusingNode)
