"""Convolution and transposed convolution in one, two and three dimensions."""

from __future__ import annotations

import math
from typing import Any

import flambeau
from flambeau.nn import functional as F
from flambeau.nn import init
from flambeau.nn.modules.module import Module
from flambeau.nn.modules.utils import ntuple, reverse_repeat
from flambeau.nn.parameter import Parameter
from flambeau.tensor import Tensor

__all__ = ["Conv1d", "Conv2d", "Conv3d", "ConvTranspose1d", "ConvTranspose2d", "ConvTranspose3d"]

_PADDING_MODES = ("zeros", "reflect", "replicate", "circular")


class _ConvNd(Module):
    """What all convolutions share: arguments, parameters, repr.

    Sizes may be one number or one per dimension.

    Attributes:
        weight: (out, in / groups, *kernel); (in, out / groups, *kernel) if transposed. Uniform on
            +-1/sqrt(fan_in).
        bias: (out,), the same distribution; or None.
    """

    __constants__ = ["stride", "padding", "dilation", "groups", "padding_mode", "output_padding",
                     "in_channels", "out_channels", "kernel_size"]
    _dims: int

    def _setup(self, in_channels: int, out_channels: int, kernel_size: Any, stride: Any,
               padding: Any, dilation: Any, transposed: bool, output_padding: Any, groups: int,
               bias: bool, padding_mode: str, device: Any, dtype: Any) -> None:
        if groups <= 0:
            raise ValueError("groups must be a positive integer")
        if in_channels % groups != 0:
            raise ValueError("in_channels must be divisible by groups")
        if out_channels % groups != 0:
            raise ValueError("out_channels must be divisible by groups")
        self.stride = ntuple(stride, self._dims)
        self._check_padding(padding, padding_mode)
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.kernel_size = ntuple(kernel_size, self._dims)
        self.padding = padding if isinstance(padding, str) else ntuple(padding, self._dims)
        self.dilation = ntuple(dilation, self._dims)
        self.transposed = transposed
        self.output_padding = ntuple(output_padding, self._dims)
        self.groups = groups
        self.padding_mode = padding_mode
        self._reversed_padding_repeated_twice = self._padding_for_pad()
        shape = (in_channels, out_channels) if transposed else (out_channels, in_channels)
        self.weight = Parameter(flambeau.empty(
            (shape[0], shape[1] // groups, *self.kernel_size), device=device, dtype=dtype))
        if bias:
            self.bias = Parameter(flambeau.empty(out_channels, device=device, dtype=dtype))
        else:
            self.register_parameter("bias", None)
        self.reset_parameters()

    def _check_padding(self, padding: Any, padding_mode: str) -> None:
        if isinstance(padding, str):
            if padding not in ("same", "valid"):
                raise ValueError(f"Invalid padding string {padding!r}, should be one of "
                                 "{'same', 'valid'}")
            if padding == "same" and any(stride != 1 for stride in self.stride):
                raise ValueError("padding='same' is not supported for strided convolutions")
        if padding_mode not in _PADDING_MODES:
            raise ValueError(f"padding_mode must be one of {set(_PADDING_MODES)}, but got "
                             f"padding_mode='{padding_mode}'")

    def _padding_for_pad(self) -> tuple[int, ...]:
        """The padding as `F.pad` takes it: (left, right) pairs from the last dimension on."""
        if not isinstance(self.padding, str):
            return reverse_repeat(self.padding, 2)
        pairs: list[int] = []
        for dilation, kernel in zip(reversed(self.dilation), reversed(self.kernel_size),
                                    strict=True):
            total = dilation * (kernel - 1) if self.padding == "same" else 0
            pairs += [total // 2, total - total // 2]
        return tuple(pairs)

    def reset_parameters(self) -> None:
        """Draw the parameters anew: first the weight, then the bias."""
        init.kaiming_uniform_(self.weight, a=math.sqrt(5))
        if self.bias is not None:
            fan_in, _ = init._calculate_fan_in_and_fan_out(self.weight)
            if fan_in != 0:
                bound = 1 / math.sqrt(fan_in)
                init.uniform_(self.bias, -bound, bound)

    def extra_repr(self) -> str:
        text = (f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, "
                f"stride={self.stride}")
        if self.padding != (0,) * self._dims:
            text += f", padding={self.padding}"
        if self.dilation != (1,) * self._dims:
            text += f", dilation={self.dilation}"
        if self.output_padding != (0,) * self._dims:
            text += f", output_padding={self.output_padding}"
        if self.groups != 1:
            text += f", groups={self.groups}"
        if self.bias is None:
            text += ", bias=False"
        if self.padding_mode != "zeros":
            text += f", padding_mode={self.padding_mode}"
        return text

    def __setstate__(self, state: dict) -> None:
        super().__setstate__(state)
        self.__dict__.setdefault("padding_mode", "zeros")


class _Conv(_ConvNd):
    """A convolution; `_function` names its functional form."""

    _function: str

    def __init__(self, in_channels: int, out_channels: int, kernel_size: Any, stride: Any = 1,
                 padding: Any = 0, dilation: Any = 1, groups: int = 1, bias: bool = True,
                 padding_mode: str = "zeros", device: Any = None, dtype: Any = None) -> None:
        super().__init__()
        self._setup(in_channels, out_channels, kernel_size, stride, padding, dilation, False, 0,
                    groups, bias, padding_mode, device, dtype)

    def _conv_forward(self, input: Tensor, weight: Tensor,
                      bias: Tensor | None) -> Tensor:
        conv = getattr(F, self._function)
        if self.padding_mode == "zeros":
            return conv(input, weight, bias, self.stride, self.padding, self.dilation, self.groups)
        padded = F.pad(input, self._reversed_padding_repeated_twice, mode=self.padding_mode)
        return conv(padded, weight, bias, self.stride, (0,) * self._dims, self.dilation,
                    self.groups)

    def forward(self, input: Tensor) -> Tensor:
        return self._conv_forward(input, self.weight, self.bias)


class Conv1d(_Conv):
    """Cross-correlation over (N, C, L) or (C, L).

    Args:
        in_channels: C of the input.
        out_channels: C of the output.
        kernel_size: length of the kernel.
        stride: step between positions.
        padding: positions added on both sides, or "same" or "valid".
        dilation: distance between the kernel's elements.
        groups: into how many independent convolutions the channels are split.
        bias: whether a learnt constant is added per output channel.
        padding_mode: "zeros", "reflect", "replicate" or "circular".
        device: where the parameters live.
        dtype: of the parameters.
    """

    _dims = 1
    _function = "conv1d"


class Conv2d(_Conv):
    """Cross-correlation over (N, C, H, W) or (C, H, W); arguments as of `Conv1d`, one number or
    a pair each."""

    _dims = 2
    _function = "conv2d"


class Conv3d(_Conv):
    """Cross-correlation over (N, C, D, H, W) or (C, D, H, W); arguments as of `Conv1d`, one number
    or a triple each."""

    _dims = 3
    _function = "conv3d"


class _ConvTransposeNd(_ConvNd):
    """A transposed convolution; `_function` names its functional form."""

    _function: str

    def __init__(self, in_channels: int, out_channels: int, kernel_size: Any, stride: Any = 1,
                 padding: Any = 0, output_padding: Any = 0, groups: int = 1, bias: bool = True,
                 dilation: Any = 1, padding_mode: str = "zeros", device: Any = None,
                 dtype: Any = None) -> None:
        if padding_mode != "zeros":
            raise ValueError('Only "zeros" padding mode is supported for '
                             f"{type(self).__name__}")
        super().__init__()
        self._setup(in_channels, out_channels, kernel_size, stride, padding, dilation, True,
                    output_padding, groups, bias, padding_mode, device, dtype)

    def _output_padding(self, input: Tensor, output_size: Any) -> tuple[int, ...]:
        """The output padding that gives `output_size` (spatial, or with batch and channels)."""
        if output_size is None:
            return self.output_padding
        dims, output_size = self._dims, list(output_size)
        batched = input.dim() == dims + 2
        leading = 2 if batched else 1
        if len(output_size) == leading + dims:
            output_size = output_size[leading:]
        if len(output_size) != dims:
            raise ValueError(f"ConvTranspose{dims}D: for {input.dim()}D input, output_size must "
                             f"have {dims} or {leading + dims} elements (got {len(output_size)})")
        smallest = [
            (input.size(d + leading) - 1) * self.stride[d] - 2 * self.padding[d]
            + self.dilation[d] * (self.kernel_size[d] - 1) + 1 for d in range(dims)
        ]
        largest = [size + self.stride[d] - 1 for d, size in enumerate(smallest)]
        for size, low, high in zip(output_size, smallest, largest, strict=True):
            if not low <= size <= high:
                raise ValueError(f"requested an output size of {output_size}, but valid sizes "
                                 f"range from {smallest} to {largest} (for an input of "
                                 f"{input.size()[2:]})")
        return tuple(size - low for size, low in zip(output_size, smallest, strict=True))

    def forward(self, input: Tensor, output_size: Any = None) -> Tensor:
        output_padding = self._output_padding(input, output_size)
        return getattr(F, self._function)(input, self.weight, self.bias, self.stride, self.padding,
                                          output_padding, self.groups, self.dilation)


class ConvTranspose1d(_ConvTransposeNd):
    """The gradient of Conv1d with respect to its input, as a module of its own.

    Args:
        in_channels: C of the input.
        out_channels: C of the output.
        kernel_size: length of the kernel.
        stride: distance at which the input's positions are laid out.
        padding: positions cut off on both sides.
        output_padding: positions added on one side.
        groups: into how many independent convolutions the channels are split.
        bias: whether a learnt constant is added per output channel.
        dilation: distance between the kernel's elements.
        padding_mode: only "zeros".
        device: where the parameters live.
        dtype: of the parameters.
    """

    _dims = 1
    _function = "conv_transpose1d"


class ConvTranspose2d(_ConvTransposeNd):
    """The gradient of Conv2d with respect to its input; arguments as of `ConvTranspose1d`."""

    _dims = 2
    _function = "conv_transpose2d"


class ConvTranspose3d(_ConvTransposeNd):
    """The gradient of Conv3d with respect to its input; arguments as of `ConvTranspose1d`."""

    _dims = 3
    _function = "conv_transpose3d"
