"""How tensors print: PyTorch's text, character for character, from a NumPy array on the host.

Nothing here knows the Tensor class. The caller hands over an array that views (never copies) the
tensor's data, its dtype, and what autograd says about it. A tensor with more elements than the
threshold is summarised, and then only the printed elements are read.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np

from flambeau.core.dtypes import DType, bool_, float32, int64

__all__ = [
    "PRINT_OPTS", "PrintOptions", "set_printoptions", "get_printoptions", "printoptions",
    "tensor_repr", "meta_repr", "array_body", "autograd_suffixes", "format_scalar",
    "join_suffixes",
]


@dataclasses.dataclass
class PrintOptions:
    """Printing options; the meaning of each is given at `set_printoptions`."""

    precision: int = 4
    threshold: float = 1000
    edgeitems: int = 3
    linewidth: int = 80
    sci_mode: bool | None = None


PRINT_OPTS = PrintOptions()

_PROFILES = {
    "default": {"precision": 4, "threshold": 1000, "edgeitems": 3, "linewidth": 80},
    "short": {"precision": 2, "threshold": 1000, "edgeitems": 2, "linewidth": 80},
    "full": {"precision": 4, "threshold": math.inf, "edgeitems": 3, "linewidth": 80},
}


def set_printoptions(
    precision: int | None = None,
    threshold: float | None = None,
    edgeitems: int | None = None,
    linewidth: int | None = None,
    profile: str | None = None,
    sci_mode: bool | None = None,
) -> None:
    """Change how tensors print from now on. What is None stays as it is, except `sci_mode`.

    Args:
        precision: digits after the decimal point.
        threshold: number of elements above which a tensor is summarised.
        edgeitems: how many items a summary shows at both ends of each dimension.
        linewidth: characters per line.
        profile: "default", "short" or "full"; applied before the other arguments.
        sci_mode: True and False force and forbid scientific notation; None lets the values decide.

    Raises:
        ValueError: there is no such profile.

    >>> torch.set_printoptions(precision=2)
    >>> torch.tensor([torch.pi])
    tensor([3.14])
    >>> torch.set_printoptions(profile="default")
    """
    wanted = {"precision": precision, "threshold": threshold, "edgeitems": edgeitems,
              "linewidth": linewidth}
    changes = {name: value for name, value in wanted.items() if value is not None}
    if profile is not None:
        if profile not in _PROFILES:
            raise ValueError(f"set_printoptions(): profile must be one of 'default', 'short' and "
                             f"'full', but got {profile!r}")
        changes = {**_PROFILES[profile], **changes}
    for name, value in changes.items():
        setattr(PRINT_OPTS, name, value)
    PRINT_OPTS.sci_mode = sci_mode


def get_printoptions() -> dict[str, object]:
    """The current options as keyword arguments for `set_printoptions`."""
    return dataclasses.asdict(PRINT_OPTS)


@contextmanager
def printoptions(**options: object) -> Iterator[None]:
    """Change the options (those of `set_printoptions`) inside a `with` block only."""
    before = get_printoptions()
    set_printoptions(**options)
    try:
        yield
    finally:
        set_printoptions(**before)


class _IntegerFormat:
    """Integers and bools, right-aligned to the widest."""

    def __init__(self, array: np.ndarray):
        self.width = max((len(str(value)) for value in array.ravel().tolist()), default=1)

    def __call__(self, value: int | bool) -> str:
        return str(value).rjust(self.width)


class _FloatFormat:
    """Floats: whole numbers print as `1.`, a wide range of magnitudes in scientific notation.

    The notation and the width come from the finite values other than zero; NaN, infinities and
    zeros are then fitted into it, even where they need more room than the width (as in PyTorch).
    """

    def __init__(self, array: np.ndarray):
        values = array.astype(np.float64).ravel()
        values = values[np.isfinite(values) & (values != 0)]
        self.width, self.suffix, self.spec = 1, ".", ".0f"
        if not values.size:
            return
        whole = bool((values == np.ceil(values)).all())
        if self._is_scientific(np.abs(values)):
            self.spec, self.suffix = f".{PRINT_OPTS.precision}e", ""
        elif not whole:
            self.spec, self.suffix = f".{PRINT_OPTS.precision}f", ""
        spec = self.spec
        self.width = max(len(format(value, spec)) for value in values.tolist()) + len(self.suffix)

    @staticmethod
    def _is_scientific(magnitudes: np.ndarray) -> bool:
        if PRINT_OPTS.sci_mode is not None:
            return PRINT_OPTS.sci_mode
        low, high = float(magnitudes.min()), float(magnitudes.max())
        return high / low > 1e3 or high > 1e8 or low < 1e-4

    def __call__(self, value: float) -> str:
        text = format(value, self.spec)
        if self.suffix and math.isfinite(value):
            text += self.suffix
        return text.rjust(self.width)


class _ComplexFormat:
    """Complex numbers: the two parts choose their notation each on its own."""

    def __init__(self, array: np.ndarray):
        self.real = _FloatFormat(array.real)
        self.imag = _FloatFormat(array.imag)
        self.width = self.real.width + self.imag.width + 1  # + 1: the "j"

    def __call__(self, value: complex) -> str:
        imag = self.imag(value.imag).lstrip()
        sign = "" if imag[0] in "+-" else "+"
        return f"{self.real(value.real)}{sign}{imag}j"


_FORMATS = {"b": _IntegerFormat, "u": _IntegerFormat, "i": _IntegerFormat, "V": _IntegerFormat,
            "c": _ComplexFormat}


def _edges(array: np.ndarray) -> np.ndarray:
    """The elements of `array` that a summary prints: both ends of each long dimension."""
    edge = PRINT_OPTS.edgeitems
    kept = [np.r_[:edge, size - edge:size] if size > 2 * edge else np.arange(size)
            for size in array.shape]
    return array[np.ix_(*kept)]


def _vector_text(items: list, shortened: bool, indent: int, number: object) -> str:
    texts = [number(item) for item in items]
    if shortened:
        texts.insert(PRINT_OPTS.edgeitems, " ...")
    per_line = max(1, math.floor((PRINT_OPTS.linewidth - indent) / (number.width + 2)))
    lines = [", ".join(texts[i:i + per_line]) for i in range(0, len(texts), per_line)]
    return "[" + (",\n" + " " * (indent + 1)).join(lines) + "]"


def _nested_text(items: list, shortened: Sequence[bool], indent: int, number: object) -> str:
    """`items` nested as deep as `shortened` is long; shortened[d]: dimension d lost its middle."""
    if len(shortened) == 1:
        return _vector_text(items, shortened[0], indent, number)
    texts = [_nested_text(item, shortened[1:], indent + 1, number) for item in items]
    if shortened[0]:
        texts.insert(PRINT_OPTS.edgeitems, "...")
    separator = "," + "\n" * (len(shortened) - 1) + " " * (indent + 1)
    return "[" + separator.join(texts) + "]"


def array_body(array: np.ndarray, dtype: DType, indent: int = 0) -> str:
    """The numbers and brackets alone, without `tensor(` and suffixes.

    Args:
        array: any shape and strides, of NumPy type `dtype.numpy`.
        indent: column at which the text will start; further lines are indented to match.
    """
    if array.size == 0:
        return "[]"
    summarise = array.size > PRINT_OPTS.threshold and array.ndim > 0
    shortened = [summarise and size > 2 * PRINT_OPTS.edgeitems for size in array.shape]
    if summarise and not PRINT_OPTS.edgeitems:
        return "[...]"
    if summarise:
        array = _edges(array)
    if dtype.is_floating_point:
        with np.errstate(invalid="ignore"):  # NaN of 8 bits
            array = array.astype(np.float64)  # exact, and ml_dtypes scalars become Python floats
    number = (_FloatFormat if dtype.is_floating_point else _FORMATS[dtype.kind])(array)
    if array.ndim == 0:
        return number(array.item())
    return _nested_text(array.tolist(), shortened, indent, number)


def join_suffixes(text: str, suffixes: Sequence[str], indent: int, broken: bool = False) -> str:
    """Append `, suffix` for each, on a new line where the present one would get too long; the
    first one always on a new line if `broken`."""
    parts = [text]
    column = len(text) - text.rfind("\n") + 1
    for suffix in suffixes:
        if broken and len(parts) == 1 or column + len(suffix) + 2 > PRINT_OPTS.linewidth:
            parts.append(",\n" + " " * indent + suffix)
            column = indent + len(suffix)
        else:
            parts.append(", " + suffix)
            column += len(suffix) + 2
    return "".join(parts) + ")"


def autograd_suffixes(requires_grad: bool, grad_fn: str | None) -> list[str]:
    """What the text of a tensor says about its history."""
    if grad_fn is not None:
        return [f"grad_fn=<{grad_fn}>"]
    return ["requires_grad=True"] if requires_grad else []


def _as_parameter(text: str, prefix: str, is_parameter: bool, header: bool) -> str:
    if not is_parameter:
        return text
    if prefix != "tensor(":  # a subclass says twice that it is a parameter
        text = f"Parameter({text})"
    return "Parameter containing:\n" + text if header else text


def tensor_repr(
    array: np.ndarray,
    dtype: DType,
    *,
    requires_grad: bool = False,
    grad_fn: str | None = None,
    device: str = "cpu",
    prefix: str = "tensor(",
    suffixes: Sequence[str] = (),
    is_parameter: bool = False,
    header: bool = True,
    default_dtype: DType = float32,
    contents: str | None = None,
) -> str:
    """The repr of a strided tensor.

    Args:
        array: the data, any shape and strides, of NumPy type `dtype.numpy`; only read.
        requires_grad: prints `requires_grad=True` unless there is a `grad_fn`.
        grad_fn: name of the node that computed the tensor, for example "AddBackward0".
        device: printed unless it is "cpu".
        prefix: the class name of a subclass with an opening parenthesis.
        suffixes: further suffixes, after autograd's (for example `tangent=...`).
        is_parameter: the tensor is an nn.Parameter.
        header: False leaves out the `Parameter containing:` line of a parameter.
        default_dtype: `get_default_dtype()`: this dtype is not named.
        contents: text to print in place of the numbers.
    """
    indent = len(prefix)
    found = [] if device == "cpu" else [f"device='{device}'"]
    size = f"size={tuple(array.shape)}"
    if array.size == 0:
        # An empty list shows neither its shape, unless that is (0,), nor that it holds integers.
        found += [size] if array.ndim != 1 else []
        found += [f"dtype={dtype}"] if dtype is not default_dtype else []
    else:
        unnamed = (default_dtype, default_dtype.to_complex(), int64, bool_)
        found += [size] if not PRINT_OPTS.edgeitems else []
        found += [f"dtype={dtype}"] if dtype not in unnamed else []
    if contents is None:
        contents = array_body(array, dtype, indent)
    found += autograd_suffixes(requires_grad, grad_fn)
    text = join_suffixes(prefix + contents, [*found, *suffixes], indent)
    return _as_parameter(text, prefix, is_parameter, header)


def meta_repr(
    shape: Sequence[int],
    dtype: DType,
    *,
    requires_grad: bool = False,
    grad_fn: str | None = None,
    prefix: str = "tensor(",
    suffixes: Sequence[str] = (),
    is_parameter: bool = False,
    header: bool = True,
    default_dtype: DType = float32,
) -> str:
    """The repr of a tensor without data (device "meta"): `tensor(..., device='meta', size=(2,))`.

    The arguments are those of `tensor_repr`.
    """
    found = ["device='meta'", f"size={tuple(shape)}"]
    found += [f"dtype={dtype}"] if dtype is not default_dtype else []
    found += autograd_suffixes(requires_grad, grad_fn)
    text = join_suffixes(prefix + "...", [*found, *suffixes], len(prefix))
    return _as_parameter(text, prefix, is_parameter, header)


def format_scalar(array: np.ndarray, dtype: DType, spec: str) -> str:
    """`f"{t:{spec}}"` of a plain 0-d tensor: that of the Python number it holds.

    Tensors with dimensions, parameters and subclasses take `object.__format__` instead, which
    accepts only the empty spec.
    """
    value = array.item()
    return format(float(value) if dtype.kind == "f" else value, spec)
