"""Parameters as one vector, and back."""

from __future__ import annotations

from collections.abc import Iterable

import flambeau
from flambeau.tensor import Tensor
from flambeau.utils.naming import typename

__all__ = ["parameters_to_vector", "vector_to_parameters"]


def _common_device(parameters: list[Tensor]) -> None:
    devices = {parameter.device for parameter in parameters}
    if len(devices) > 1:
        raise TypeError("Found two parameters on different devices, this is currently not "
                        "supported.")


def parameters_to_vector(parameters: Iterable[Tensor]) -> Tensor:
    """All parameters flattened and joined into one vector.

    Raises:
        TypeError: they lie on different devices.
    """
    parameters = list(parameters)
    _common_device(parameters)
    return flambeau.cat([parameter.view(-1) for parameter in parameters])


def vector_to_parameters(vec: Tensor, parameters: Iterable[Tensor]) -> None:
    """Let the parameters' data be views of the slices of `vec`, in order.

    Raises:
        TypeError: `vec` is no tensor, or the parameters lie on different devices.
    """
    if not isinstance(vec, Tensor):
        raise TypeError(f"expected torch.Tensor, but got: {typename(vec)}")
    parameters = list(parameters)
    _common_device(parameters)
    position = 0
    for parameter in parameters:
        count = parameter.numel()
        parameter.data = vec[position:position + count].view_as(parameter).data
        position += count
