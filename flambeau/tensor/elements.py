"""Methods and functions that look at a tensor as memory, or at its elements one by one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from flambeau.core import dtypes
from flambeau.core.arguments import kind_of, need_tensor
from flambeau.core.device import as_device
from flambeau.core.dtypes import DType
from flambeau.tensor import creation
from flambeau.tensor.functions import ops

__all__ = ["apply_", "map_", "map2_", "fill_diagonal_", "hash_tensor", "to_dlpack",
           "is_inference", "dim_order", "is_set_to",
           "is_pinned", "attach"]


# ---------------------------------------------------------------------- Python at each element
def _needs_no_grad(name: str, tensors: Sequence) -> None:
    if any(t.requires_grad for t in tensors):
        raise RuntimeError(f"Can't call {name}() on Variable that requires grad. Use "
                           f"var.detach().{name}() instead.")


def apply_(self: Any, callable: Callable) -> Any:
    """Replace each element by what `callable` makes of it. Python runs for each: slow.

    >>> torch.tensor([1., 2.]).apply_(lambda x: 10 * x)
    tensor([10., 20.])
    """
    _needs_no_grad("apply_", [self])
    results = [callable(item) for item in self.reshape(-1).tolist()]
    return self.copy_(_like(results, self))


def map_(self: Any, other: Any, callable: Callable) -> Any:
    """Replace each element x by callable(x, y), where y is `other`'s element beside it.

    >>> torch.tensor([1., 2.]).map_(torch.tensor([10., 20.]), lambda x, y: x + y)
    tensor([11., 22.])
    """
    return _mapped("map_", self, [other], callable)


def map2_(self: Any, x: Any, y: Any, callable: Callable) -> Any:
    """Replace each element by `callable` of it and of those of x and y beside it.

    >>> a, b = torch.tensor([10., 20.]), torch.tensor([1., 1.])
    >>> torch.tensor([1., 2.]).map2_(a, b, lambda x, y, z: x + y + z)
    tensor([12., 23.])
    """
    return _mapped("map2_", self, [x, y], callable)


def _mapped(name: str, self: Any, others: list, function: Callable) -> Any:
    for other in others:
        need_tensor(name, "tensor", other)
        if other.dtype is not self.dtype:
            raise TypeError(f"{name}(): the tensors must have one dtype, got {self.dtype!r} and "
                            f"{other.dtype!r}")
    _needs_no_grad(name, [self, *others])
    columns = [ops.expand(t, tuple(self.shape)).reshape(-1).tolist() for t in (self, *others)]
    return self.copy_(_like([function(*items) for items in zip(*columns, strict=True)], self))


def _like(numbers: list, tensor: Any) -> Any:
    return creation.tensor(numbers, dtype=tensor.dtype).reshape(tensor.shape)


# ---------------------------------------------------------------------- diagonals
def fill_diagonal_(self: Any, fill_value: Any, wrap: bool = False) -> Any:
    """Write `fill_value` on the main diagonal, in place.

    Args:
        wrap: below the square part of a tall matrix the diagonal starts anew, one row further on.

    Raises:
        RuntimeError: fewer than 2 dimensions; or more, of different sizes.

    >>> torch.zeros(2, 3).fill_diagonal_(7)
    tensor([[7., 0., 0.],
            [0., 7., 0.]])
    """
    shape = tuple(self.shape)
    if len(shape) < 2:
        raise RuntimeError("dimensions must larger than 1")
    if len(shape) > 2 and len(set(shape)) > 1:
        raise RuntimeError("all dimensions of input must be of equal length")
    step = sum(self.stride())
    length = min(shape)
    ops.as_strided(self, (length,), (step,), 0).fill_(fill_value)
    if wrap and len(shape) == 2 and shape[0] > shape[1] + 1:
        row, column = self.stride()
        for first in range(shape[1] + 1, shape[0], shape[1] + 1):
            part = min(shape[1], shape[0] - first)
            ops.as_strided(self, (part,), (row + column,), first * row).fill_(fill_value)
    return self


# ---------------------------------------------------------------------- one number of all
def hash_tensor(input: Any, dim: Any = (), *, keepdim: bool = False, mode: int = 0,
                out: Any = None) -> Any:
    """The exclusive or of the elements' bits along `dim` (all by default), as uint64. Floats count
    as doubles, integers as int64.

    >>> torch.hash_tensor(torch.tensor([1., 2.])) == torch.hash_tensor(torch.tensor([1., 2.]))
    tensor(True)
    """
    need_tensor("hash_tensor", "input", input)
    if mode != 0:
        raise RuntimeError(f"hash_tensor(): mode must be 0 (exclusive or), got {mode}")
    if input.dtype.is_complex:
        raise NotImplementedError("hash_tensor(): complex numbers are not supported; hash "
                                  "torch.view_as_real(input)")
    if not input.numel() and dim == ():
        raise RuntimeError("hash_tensor: Expected reduction dim to be specified for input.numel() "
                           "== 0. Specify the reduction dim with the 'dim' argument.")
    dims = (dim,) if isinstance(dim, int) else tuple(dim or range(input.ndim))
    dims = tuple(sorted(d % max(1, input.ndim) for d in dims)) if input.ndim else ()
    rest = [d for d in range(input.ndim) if d not in dims]
    wide = dtypes.float64 if input.dtype.kind == "f" else dtypes.int64
    bits = input.detach().to(wide).permute(*dims, *rest).contiguous().view(dtypes.int64)
    kept = [input.shape[d] for d in rest]
    bits = bits.reshape(-1, *kept) if bits.numel() else bits.new_zeros(1, *kept)
    while bits.shape[0] > 1:
        half = bits.shape[0] // 2
        folded = ops.bitwise_xor(bits[:half], bits[half:2 * half])
        if bits.shape[0] % 2:
            folded[:1].bitwise_xor_(bits[-1:])
        bits = folded
    shape = [1 if d in dims else n for d, n in enumerate(input.shape)] if keepdim else kept
    result = bits.reshape(shape).view(dtypes.uint64)
    return result if out is None else out.resize_(result.shape).copy_(result)


# ---------------------------------------------------------------------- memory
def to_dlpack(tensor: Any) -> Any:
    """A DLPack capsule of the tensor, which shares its memory; for `from_dlpack`.

    >>> torch.from_dlpack(torch.to_dlpack(torch.tensor([1, 2])))
    tensor([1, 2])
    """
    need_tensor("to_dlpack", "tensor", tensor)
    return tensor.__dlpack__()


def is_inference(input: Any) -> bool:
    """Was the tensor made in inference mode?

    >>> torch.is_inference(torch.ones(2))
    False
    """
    need_tensor("is_inference", "input", input)
    return input.is_inference()


def _by_stride(strides: Sequence[int]) -> list[int]:
    """The dimensions from the largest stride to the smallest; those that repeat (stride 0) have no
    place of their own and stay where they are."""
    order = list(range(len(strides)))
    for last in range(1, len(order)):
        for at in range(last, 0, -1):
            before, own = strides[order[at - 1]], strides[order[at]]
            if not before or not own or before >= own:
                break
            order[at - 1], order[at] = order[at], order[at - 1]
    return order


def dim_order(self: Any, *, ambiguity_check: bool | Sequence = False) -> tuple[int, ...]:
    """The dimensions in the order in which they lie in memory, the outermost first.

    Raises:
        RuntimeError: `ambiguity_check`, and several orders describe the memory.

    >>> torch.zeros(2, 3).t().dim_order()
    (1, 0)
    """
    shape, strides = tuple(self.shape), self.stride()
    order = _by_stride(strides)
    if ambiguity_check is True and self.numel() and any(n == 1 for n in shape):
        raise RuntimeError("The tensor does not have unique dim order, or cannot map to exact one "
                           "of the given memory formats.")
    if isinstance(ambiguity_check, (list, tuple)):
        fitting = [f for f in ambiguity_check if self.is_contiguous(memory_format=f)]
        if len(fitting) != 1:
            raise RuntimeError("The tensor does not have unique dim order, or cannot map to exact "
                               "one of the given memory formats.")
    elif not isinstance(ambiguity_check, bool):
        raise TypeError("The ambiguity_check argument must be a bool or a list of memory formats.")
    return tuple(order)


def is_set_to(self: Any, tensor: Any) -> bool:
    """Do both tensors look at the same memory in the same way?"""
    need_tensor("is_set_to", "tensor", tensor)
    return self._ptr == tensor._ptr and self._meta is tensor._meta and (
        self._storage.ptr == tensor._storage.ptr)


def is_pinned(self: Any, device: Any = None) -> bool:
    """False: page-locked memory serves copies to an accelerator, and there is none."""
    return False


def _reversed(self: Any) -> Any:
    """The elements of dimension 0 from the last to the first."""
    return self if self.ndim == 0 else ops.flip(self, (0,))


def _delitem(self: Any, key: Any) -> None:
    """Raises: tensors have a fixed size."""
    raise TypeError("Tensor does not support deleting items: select what remains instead, for "
                    "example with a mask")


def _setstate(self: Any, state: tuple) -> None:
    """What unpickling calls: with the attributes that a user has set; in pickles of old PyTorch
    versions with (storage, offset, size, stride)."""
    if isinstance(state, dict):
        self.__dict__.update(state)
    elif len(state) == 4:
        self.set_(*state)
    elif len(state) == 5:
        self.data = state[0]
        self.requires_grad_(state[3])
    else:
        self.requires_grad_(state[0])


def _module_load(self: Any, other: Any, assign: bool = False) -> Any:
    """`other` as `Module.load_state_dict` puts it in the place of this parameter or buffer.

    >>> torch.tensor([1.]).module_load(torch.tensor([2.]))
    tensor([2.])
    """
    return other.detach() if assign else self.detach().copy_(other).detach()


def _record_stream(self: Any, s: Any) -> None:
    """Raises: streams belong to accelerators, and this tensor is on the CPU.

    >>> x = torch.ones(2)
    >>> x.record_stream(torch.cuda.current_stream()) if x.is_cuda else "not on a GPU"
    'not on a GPU'
    """
    raise RuntimeError("record_stream() needs a tensor on an accelerator; this one is on the CPU")


def _on(kind: str) -> Callable:
    def move(self: Any, device: Any = None, non_blocking: bool = False,
             memory_format: Any = None) -> Any:
        as_device(kind if device is None else device)
        return self

    move.__name__ = kind
    move.__doc__ = f"The tensor on a device of kind {kind!r}. Raises: there is none."
    return move


def _grad_dtype(self: Any) -> Any:
    """The dtype of `.grad`, to which the gradients of this leaf are converted: its own by default;
    None lets any dtype in.

    Raises:
        RuntimeError: not a leaf; or set to something else than a dtype, or to another one than the
            gradient that is there has.

    >>> x = torch.ones(2, requires_grad=True)
    >>> x.grad_dtype = torch.float64
    >>> (3 * x).sum().backward()
    >>> x.grad
    tensor([3., 3.], dtype=torch.float64)
    """
    if not self.is_leaf:
        raise RuntimeError("grad_dtype can only be accessed on leaf tensors.")
    return self.dtype if self._grad_dtype is False else self._grad_dtype


def _set_grad_dtype(self: Any, dtype: DType | None) -> None:
    if not self.is_leaf:
        raise RuntimeError("grad_dtype can only be set on leaf tensors.")
    if dtype is not None and not isinstance(dtype, DType):
        raise RuntimeError(f"grad_dtype must be a torch.dtype or None, but got {kind_of(dtype)}")
    held = self._grad
    if held is not None and dtype is not None and held.dtype is not dtype:
        raise RuntimeError(f"Cannot set grad_dtype to {dtype!r} because there is already a "
                           f"gradient of dtype {held.dtype!r}. Please clear the gradient "
                           "(.grad = None) before changing grad_dtype, or choose the gradient's "
                           "dtype.")
    self._grad_dtype = dtype


def _never(place: str) -> Any:
    def is_there(self: Any) -> bool:
        return False

    return property(is_there, doc=f"Does it lie on {place}? Never here.\n\n>>> "
                    f"torch.ones(1).is_{place.lower().split()[-1]}\nFalse")


def _name(self: Any) -> None:
    """None: tensors have no names.

    >>> torch.ones(2).name is None
    True
    """


def _volatile(self: Any) -> bool:
    """False; what the flag once did, `torch.no_grad` does.

    >>> torch.ones(2).volatile
    False
    """
    return False


def _to_padded_tensor(self: Any, padding: float, output_size: Any = None) -> Any:
    """The tensors of a nested tensor in one, filled up with `padding`; see
    `torch.nested.to_padded_tensor`.

    >>> x = torch.nested.nested_tensor([torch.ones(2), torch.ones(1)])
    >>> x.to_padded_tensor(0.0)
    tensor([[1., 1.],
            [1., 0.]])
    """
    if not self.is_nested:
        raise NotImplementedError("to_padded_tensor() needs a nested tensor; this one is dense")
    return type(self).to_padded_tensor(self, padding, output_size)


def _cuda_array_interface(self: Any) -> Any:
    """The description of a GPU's memory for other libraries.

    Raises:
        AttributeError: the tensor is not on a GPU.

    >>> hasattr(torch.ones(2), "__cuda_array_interface__")
    False
    """
    raise AttributeError("Can't get __cuda_array_interface__ on non-CUDA tensor type: "
                         f"{self.type()}: there is no GPU here; use numpy() or DLPack")


def attach(cls: type) -> None:
    """Give the class of tensors the methods that live here."""
    cls._grad_dtype = False  # its own dtype
    cls.grad_dtype = property(_grad_dtype, _set_grad_dtype)
    for place in ("an IPU", "XLA", "Vulkan", "a MAIA", "an MTIA"):
        setattr(cls, f"is_{place.lower().split()[-1]}", _never(place))
    cls.name, cls.volatile = property(_name), property(_volatile)
    cls.to_padded_tensor = _to_padded_tensor
    _to_padded_tensor.__name__ = "to_padded_tensor"
    cls.__cuda_array_interface__ = property(_cuda_array_interface)
    for function in (apply_, map_, map2_, fill_diagonal_, dim_order, is_set_to,
                     is_pinned):
        setattr(cls, function.__name__, function)
    cls.__reversed__, cls.__delitem__, cls.__setstate__ = _reversed, _delitem, _setstate
    cls.module_load, cls.record_stream = _module_load, _record_stream
    cls.const_data_ptr = cls.data_ptr
    cls.__nonzero__, cls.__long__ = cls.__bool__, cls.__int__
    for kind in ("xpu", "ipu", "mtia"):
        setattr(cls, kind, _on(kind))
