"""Pooling over one, two and three dimensions."""

from __future__ import annotations

from typing import Any

from flambeau.nn import functional as F
from flambeau.nn.modules.module import Module
from flambeau.nn.modules.utils import ntuple
from flambeau.tensor import Tensor

__all__ = [
    "MaxPool1d", "MaxPool2d", "MaxPool3d", "MaxUnpool1d", "MaxUnpool2d", "MaxUnpool3d",
    "AvgPool1d", "AvgPool2d", "AvgPool3d", "LPPool1d", "LPPool2d", "LPPool3d",
    "AdaptiveMaxPool1d", "AdaptiveMaxPool2d", "AdaptiveMaxPool3d", "AdaptiveAvgPool1d",
    "AdaptiveAvgPool2d", "AdaptiveAvgPool3d", "FractionalMaxPool2d", "FractionalMaxPool3d",
]


class _MaxPoolNd(Module):
    """Maximum over windows.

    Args:
        kernel_size: size of the window.
        stride: step between windows; the kernel size by default.
        padding: positions of -inf added on both sides.
        dilation: distance between the window's elements.
        return_indices: whether the positions of the maxima are returned too.
        ceil_mode: whether a window that only starts inside counts.
    """

    __constants__ = ["kernel_size", "stride", "padding", "dilation", "return_indices", "ceil_mode"]
    _function: str

    def __init__(self, kernel_size: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1,
                 return_indices: bool = False, ceil_mode: bool = False) -> None:
        super().__init__()
        self.kernel_size = kernel_size
        self.stride = stride if stride is not None else kernel_size
        self.padding = padding
        self.dilation = dilation
        self.return_indices = return_indices
        self.ceil_mode = ceil_mode

    def forward(self, input: Tensor) -> Any:
        return getattr(F, self._function)(
            input, self.kernel_size, self.stride, self.padding, self.dilation,
            ceil_mode=self.ceil_mode, return_indices=self.return_indices)

    def extra_repr(self) -> str:
        return (f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}, "
                f"dilation={self.dilation}, ceil_mode={self.ceil_mode}")


class MaxPool1d(_MaxPoolNd):
    """Maximum over windows of (N, C, L) or (C, L).

    Args:
        kernel_size: size of the window.
        stride: step between windows; the kernel size by default.
        padding: positions of -inf added on both sides.
        dilation: distance between the window's elements.
        return_indices: whether the positions of the maxima are returned too.
        ceil_mode: whether a window that only starts inside counts.
    """

    _function = "max_pool1d"


class MaxPool2d(_MaxPoolNd):
    """Maximum over windows of (N, C, H, W) or (C, H, W); arguments as of `MaxPool1d`."""

    _function = "max_pool2d"


class MaxPool3d(_MaxPoolNd):
    """Maximum over windows of (N, C, D, H, W) or (C, D, H, W); arguments as of `MaxPool1d`."""

    _function = "max_pool3d"


class _MaxUnpoolNd(Module):
    """Puts maxima back where they were found; all other positions are zero.

    Args:
        kernel_size: as of the pooling.
        stride: as of the pooling; the kernel size by default.
        padding: as of the pooling.
    """

    _dims: int

    def __init__(self, kernel_size: Any, stride: Any = None, padding: Any = 0) -> None:
        super().__init__()
        self.kernel_size = ntuple(kernel_size, self._dims)
        self.stride = ntuple(stride if stride is not None else kernel_size, self._dims)
        self.padding = ntuple(padding, self._dims)

    def forward(self, input: Tensor, indices: Tensor,
                output_size: Any = None) -> Tensor:
        unpool = getattr(F, f"max_unpool{self._dims}d")
        return unpool(input, indices, self.kernel_size, self.stride, self.padding, output_size)

    def extra_repr(self) -> str:
        return f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}"


class MaxUnpool1d(_MaxUnpoolNd):
    """Puts the maxima of `MaxPool1d` back where they were found; zeros elsewhere.

    Args:
        kernel_size: as of the pooling.
        stride: as of the pooling; the kernel size by default.
        padding: as of the pooling.
    """

    _dims = 1


class MaxUnpool2d(_MaxUnpoolNd):
    """Puts the maxima of `MaxPool2d` back where they were found; zeros elsewhere.

    Args:
        kernel_size: as of the pooling.
        stride: as of the pooling; the kernel size by default.
        padding: as of the pooling.
    """

    _dims = 2


class MaxUnpool3d(_MaxUnpoolNd):
    """Puts the maxima of `MaxPool3d` back where they were found; zeros elsewhere.

    Args:
        kernel_size: as of the pooling.
        stride: as of the pooling; the kernel size by default.
        padding: as of the pooling.
    """

    _dims = 3


class _AvgPoolNd(Module):
    """What average pooling modules share."""

    __constants__ = ["kernel_size", "stride", "padding", "ceil_mode", "count_include_pad"]

    def extra_repr(self) -> str:
        return f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}"


class AvgPool1d(_AvgPoolNd):
    """Mean over windows of (N, C, L) or (C, L).

    Args:
        kernel_size: size of the window.
        stride: step between windows; the kernel size by default.
        padding: zeros added on both sides.
        ceil_mode: whether a window that only starts inside counts.
        count_include_pad: whether the zeros count in the mean.
    """

    def __init__(self, kernel_size: Any, stride: Any = None, padding: Any = 0,
                 ceil_mode: bool = False, count_include_pad: bool = True) -> None:
        super().__init__()
        self.kernel_size = ntuple(kernel_size, 1)
        self.stride = ntuple(stride if stride is not None else kernel_size, 1)
        self.padding = ntuple(padding, 1)
        self.ceil_mode = ceil_mode
        self.count_include_pad = count_include_pad

    def forward(self, input: Tensor) -> Tensor:
        return F.avg_pool1d(input, self.kernel_size, self.stride, self.padding, self.ceil_mode,
                            self.count_include_pad)


class _AvgPoolNdWithDivisor(_AvgPoolNd):
    """Mean over windows.

    Args:
        kernel_size: size of the window.
        stride: step between windows; the kernel size by default.
        padding: zeros added on both sides.
        ceil_mode: whether a window that only starts inside counts.
        count_include_pad: whether the zeros count in the mean.
        divisor_override: divide by this instead of the number of elements.
    """

    __constants__ = [*_AvgPoolNd.__constants__, "divisor_override"]
    _function: str

    def __init__(self, kernel_size: Any, stride: Any = None, padding: Any = 0,
                 ceil_mode: bool = False, count_include_pad: bool = True,
                 divisor_override: int | None = None) -> None:
        super().__init__()
        self.kernel_size = kernel_size
        self.stride = stride if stride is not None else kernel_size
        self.padding = padding
        self.ceil_mode = ceil_mode
        self.count_include_pad = count_include_pad
        self.divisor_override = divisor_override

    def forward(self, input: Tensor) -> Tensor:
        return getattr(F, self._function)(
            input, self.kernel_size, self.stride, self.padding, self.ceil_mode,
            self.count_include_pad, self.divisor_override)


class AvgPool2d(_AvgPoolNdWithDivisor):
    """Mean over windows of (N, C, H, W) or (C, H, W).

    Args:
        kernel_size: size of the window.
        stride: step between windows; the kernel size by default.
        padding: zeros added on both sides.
        ceil_mode: whether a window that only starts inside counts.
        count_include_pad: whether the zeros count in the mean.
        divisor_override: divide by this instead of the number of elements.
    """

    _function = "avg_pool2d"


class AvgPool3d(_AvgPoolNdWithDivisor):
    """Mean over windows of (N, C, D, H, W) or (C, D, H, W).

    Args:
        kernel_size: size of the window.
        stride: step between windows; the kernel size by default.
        padding: zeros added on both sides.
        ceil_mode: whether a window that only starts inside counts.
        count_include_pad: whether the zeros count in the mean.
        divisor_override: divide by this instead of the number of elements.
    """

    _function = "avg_pool3d"


class _LPPoolNd(Module):
    """Power-average: (sum of x^p over the window)^(1/p).

    Args:
        norm_type: p.
        kernel_size: size of the window.
        stride: step between windows; the kernel size by default.
        ceil_mode: whether a window that only starts inside counts.
    """

    __constants__ = ["norm_type", "kernel_size", "stride", "ceil_mode"]
    _function: str

    def __init__(self, norm_type: float, kernel_size: Any, stride: Any = None,
                 ceil_mode: bool = False) -> None:
        super().__init__()
        self.norm_type = norm_type
        self.kernel_size = kernel_size
        self.stride = stride
        self.ceil_mode = ceil_mode

    def forward(self, input: Tensor) -> Tensor:
        return getattr(F, self._function)(input, float(self.norm_type), self.kernel_size,
                                          self.stride, self.ceil_mode)

    def extra_repr(self) -> str:
        return (f"norm_type={self.norm_type}, kernel_size={self.kernel_size}, "
                f"stride={self.stride}, ceil_mode={self.ceil_mode}")


class LPPool1d(_LPPoolNd):
    """(sum of x^p)^(1/p) over windows of (N, C, L) or (C, L).

    Args:
        norm_type: p.
        kernel_size: size of the window.
        stride: step between windows; the kernel size by default.
        ceil_mode: whether a window that only starts inside counts.
    """

    _function = "lp_pool1d"


class LPPool2d(_LPPoolNd):
    """(sum of x^p)^(1/p) over windows of (N, C, H, W) or (C, H, W).

    Args:
        norm_type: p.
        kernel_size: size of the window.
        stride: step between windows; the kernel size by default.
        ceil_mode: whether a window that only starts inside counts.
    """

    _function = "lp_pool2d"


class LPPool3d(_LPPoolNd):
    """(sum of x^p)^(1/p) over windows of (N, C, D, H, W) or (C, D, H, W).

    Args:
        norm_type: p.
        kernel_size: size of the window.
        stride: step between windows; the kernel size by default.
        ceil_mode: whether a window that only starts inside counts.
    """

    _function = "lp_pool3d"


class _AdaptivePoolNd(Module):
    """What adaptive pooling modules share: the output size is given, windows follow from it."""

    _function: str

    def extra_repr(self) -> str:
        return f"output_size={self.output_size}"


class _AdaptiveAvgPoolNd(_AdaptivePoolNd):
    """Mean over as many windows as the output has positions.

    Args:
        output_size: one number or one per dimension; None keeps the input's.
    """

    __constants__ = ["output_size"]

    def __init__(self, output_size: Any) -> None:
        super().__init__()
        self.output_size = output_size

    def forward(self, input: Tensor) -> Tensor:
        return getattr(F, self._function)(input, self.output_size)


class AdaptiveAvgPool1d(_AdaptiveAvgPoolNd):
    """Mean over windows of (N, C, L) or (C, L) that follow from the output size.

    Args:
        output_size: one number or one per dimension; None keeps the input's.
    """

    _function = "adaptive_avg_pool1d"


class AdaptiveAvgPool2d(_AdaptiveAvgPoolNd):
    """Mean over windows of (N, C, H, W) or (C, H, W) that follow from the output size.

    Args:
        output_size: one number or one per dimension; None keeps the input's.
    """

    _function = "adaptive_avg_pool2d"


class AdaptiveAvgPool3d(_AdaptiveAvgPoolNd):
    """Mean over windows of (N, C, D, H, W) or (C, D, H, W) that follow from the output size.

    Args:
        output_size: one number or one per dimension; None keeps the input's.
    """

    _function = "adaptive_avg_pool3d"


class _AdaptiveMaxPoolNd(_AdaptivePoolNd):
    """Maximum over as many windows as the output has positions.

    Args:
        output_size: one number or one per dimension; None keeps the input's.
        return_indices: whether the positions of the maxima are returned too.
    """

    __constants__ = ["output_size", "return_indices"]

    def __init__(self, output_size: Any, return_indices: bool = False) -> None:
        super().__init__()
        self.output_size = output_size
        self.return_indices = return_indices

    def forward(self, input: Tensor) -> Any:
        return getattr(F, self._function)(input, self.output_size,
                                          return_indices=self.return_indices)


class AdaptiveMaxPool1d(_AdaptiveMaxPoolNd):
    """Maximum over windows of (N, C, L) or (C, L) that follow from the output size.

    Args:
        output_size: one number or one per dimension; None keeps the input's.
        return_indices: whether the positions of the maxima are returned too.
    """

    _function = "adaptive_max_pool1d"


class AdaptiveMaxPool2d(_AdaptiveMaxPoolNd):
    """Maximum over windows of (N, C, H, W) or (C, H, W) that follow from the output size.

    Args:
        output_size: one number or one per dimension; None keeps the input's.
        return_indices: whether the positions of the maxima are returned too.
    """

    _function = "adaptive_max_pool2d"


class AdaptiveMaxPool3d(_AdaptiveMaxPoolNd):
    """Maximum over windows of (N, C, D, H, W) or (C, D, H, W) that follow from the output size.

    Args:
        output_size: one number or one per dimension; None keeps the input's.
        return_indices: whether the positions of the maxima are returned too.
    """

    _function = "adaptive_max_pool3d"


class _FractionalMaxPoolNd(Module):
    """What both fractional max pools share.

    Args:
        kernel_size: size of the windows.
        output_size: number of windows, or
        output_ratio: as a share of the input's size, between 0 and 1.
        return_indices: whether the positions of the maxima are returned too.
        _random_samples: (n, c, dimensions) numbers that decide where windows begin.
    """

    __constants__ = ["kernel_size", "return_indices", "output_size", "output_ratio"]
    _dims: int

    def __init__(self, kernel_size: Any, output_size: Any = None, output_ratio: Any = None,
                 return_indices: bool = False, _random_samples: Tensor | None = None) -> None:
        super().__init__()
        self.kernel_size = ntuple(kernel_size, self._dims)
        self.return_indices = return_indices
        self.register_buffer("_random_samples", _random_samples)
        self.output_size = None if output_size is None else ntuple(output_size, self._dims)
        self.output_ratio = None if output_ratio is None else ntuple(output_ratio, self._dims)
        name = f"FractionalMaxPool{self._dims}d"
        if output_size is None and output_ratio is None:
            raise ValueError(f"{name} requires specifying either an output size, or a pooling "
                             "ratio")
        if output_size is not None and output_ratio is not None:
            raise ValueError(f"only one of output_size and output_ratio may be specified ({name})")
        if self.output_ratio is not None and not all(0 < r < 1 for r in self.output_ratio):
            raise ValueError(f"output_ratio must be between 0 and 1 (got {output_ratio})")

    def forward(self, input: Tensor) -> Any:
        return getattr(F, f"fractional_max_pool{self._dims}d")(
            input, self.kernel_size, self.output_size, self.output_ratio, self.return_indices,
            _random_samples=self._random_samples)


class FractionalMaxPool2d(_FractionalMaxPoolNd):
    """Maximum over (N, C, H, W) of windows at pseudo-random steps; arguments of the base class."""

    _dims = 2


class FractionalMaxPool3d(_FractionalMaxPoolNd):
    """Maximum over (N, C, D, H, W) of windows at pseudo-random steps; arguments as of 2d."""

    _dims = 3
