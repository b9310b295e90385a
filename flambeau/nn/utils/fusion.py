"""Batch normalization folded into the convolution or linear layer before it, for inference."""

from __future__ import annotations

import copy
from typing import TypeVar

import flambeau
from flambeau.nn.modules.module import Module
from flambeau.nn.parameter import Parameter
from flambeau.tensor import Tensor

__all__ = ["fuse_conv_bn_eval", "fuse_conv_bn_weights", "fuse_linear_bn_eval",
           "fuse_linear_bn_weights"]

M = TypeVar("M", bound=Module)


def _folded(weight: Tensor, bias: Tensor | None, dim: int, mean: Tensor, var: Tensor, eps: float,
            scale: Tensor | None, shift: Tensor | None) -> tuple[Parameter, Parameter]:
    """(weight, bias) with the normalization of dimension `dim`, that of outputs, in them."""
    bias = flambeau.zeros_like(mean) if bias is None else bias
    scale = flambeau.ones_like(mean) if scale is None else scale
    shift = flambeau.zeros_like(mean) if shift is None else shift
    factor = scale * flambeau.rsqrt(var + eps)
    shape = [1] * weight.ndim
    shape[dim] = -1
    return (Parameter((weight * factor.reshape(shape)).to(weight.dtype), weight.requires_grad),
            Parameter(((bias - mean) * factor + shift).to(bias.dtype), bias.requires_grad))


def fuse_conv_bn_weights(conv_w: Tensor, conv_b: Tensor | None, bn_rm: Tensor, bn_rv: Tensor,
                         bn_eps: float, bn_w: Tensor | None, bn_b: Tensor | None,
                         transpose: bool = False) -> tuple[Parameter, Parameter]:
    """(weight, bias) of the convolution that does what a convolution and then a batch normalization
    with these running statistics do; `transpose`: it is a transposed one."""
    return _folded(conv_w, conv_b, 1 if transpose else 0, bn_rm, bn_rv, bn_eps, bn_w, bn_b)


def fuse_linear_bn_weights(linear_w: Tensor, linear_b: Tensor | None, bn_rm: Tensor, bn_rv: Tensor,
                           bn_eps: float, bn_w: Tensor, bn_b: Tensor
                           ) -> tuple[Parameter, Parameter]:
    """(weight, bias) of the linear layer that does what a linear layer and then a batch
    normalization with these running statistics do."""
    return _folded(linear_w, linear_b, 0, bn_rm, bn_rv, bn_eps, bn_w, bn_b)


def _check_eval(layer: Module, norm: Module) -> None:
    if layer.training or norm.training:
        raise AssertionError("Fusion only for eval!")
    if norm.running_mean is None or norm.running_var is None:
        raise AssertionError("Only support fusing BatchNorm with tracked running statistics")


def fuse_conv_bn_eval(conv: M, bn: Module, transpose: bool = False) -> M:
    """A copy of a convolution that also does the batch normalization that follows it. Both must be
    in evaluation mode.

    Raises:
        AssertionError: one is not.
    """
    _check_eval(conv, bn)
    fused = copy.deepcopy(conv)
    fused.weight, fused.bias = fuse_conv_bn_weights(
        fused.weight, fused.bias, bn.running_mean, bn.running_var, bn.eps, bn.weight, bn.bias,
        transpose)
    return fused


def fuse_linear_bn_eval(linear: M, bn: Module) -> M:
    """A copy of a linear layer that also does the batch normalization that follows it. Both must be
    in evaluation mode.

    Raises:
        AssertionError: one is not, or their features differ in number.
    """
    _check_eval(linear, bn)
    if bn.num_features not in (linear.out_features, 1):
        raise AssertionError("To fuse, linear.out_features == bn.num_features or "
                             f"bn.num_features == 1; got {linear.out_features} and "
                             f"{bn.num_features}")
    fused = copy.deepcopy(linear)
    fused.weight, fused.bias = fuse_linear_bn_weights(
        fused.weight, fused.bias, bn.running_mean, bn.running_var, bn.eps, bn.weight, bn.bias)
    return fused
