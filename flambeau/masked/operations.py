"""What operations make of masked tensors: which rule is for which, by name.

Elementwise operations keep the mask, movements move it, reductions leave out what does not count
and give a result that counts where anything did.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from flambeau import masked
from flambeau.core.dtypes import bool_
from flambeau.masked.tensor import MaskedTensor, with_mask
from flambeau.tensor import Tensor, creation
from flambeau.tensor.functions import ops

__all__: list[str] = []

_UNARY = ("abs", "absolute", "acos", "arccos", "acosh", "arccosh", "angle", "positive", "asin",
    "arcsin", "asinh", "arcsinh", "atan", "arctan", "atanh", "arctanh", "bitwise_not", "ceil",
    "clamp", "clip", "conj_physical", "cos", "cosh", "deg2rad", "digamma", "erf", "erfc", "erfinv",
    "exp", "exp2", "expm1", "fix", "floor", "frac", "lgamma", "log", "log10", "log1p", "log2",
    "logit", "i0", "isnan", "isinf", "isfinite", "logical_not", "nan_to_num", "neg", "negative",
    "pow", "rad2deg", "reciprocal", "relu", "round", "rsqrt", "sigmoid", "sign", "sgn", "signbit",
    "sin", "sinc", "sinh", "sqrt", "square", "tan", "tanh", "trunc")
_BINARY = ("add", "atan2", "arctan2", "bitwise_and", "bitwise_or", "bitwise_xor",
    "bitwise_left_shift", "bitwise_right_shift", "div", "divide", "floor_divide", "fmod",
    "logaddexp", "logaddexp2", "mul", "multiply", "nextafter", "remainder", "sub", "subtract",
    "rsub", "true_divide", "eq", "ne", "le", "ge", "greater", "greater_equal", "gt", "less_equal",
    "lt", "less", "maximum", "minimum", "fmax", "fmin", "not_equal", "logical_and", "logical_or",
    "logical_xor")
_MOVES = ("__getitem__", "select", "transpose", "t", "view", "reshape", "expand", "expand_as",
    "unsqueeze", "squeeze", "permute", "flatten", "ravel", "split", "chunk", "unbind",
    "tensor_split", "cat", "concat", "concatenate", "stack", "hstack", "vstack", "movedim",
    "moveaxis", "narrow", "swapaxes", "swapdims", "unflatten", "repeat", "tile", "flip", "roll",
    "index_select", "view_as", "reshape_as")
_KEEPS_MASK = ("clone", "contiguous", "detach", "float", "double", "half", "bfloat16", "int",
    "long", "short", "char", "byte", "bool", "ones_like", "zeros_like", "full_like", "empty_like",
    "rand_like", "randn_like", "requires_grad_", "to_dense")
_PLAIN = ("__get__", "__set__", "__len__", "__hash__", "size", "stride", "dim", "numel",
    "nelement", "element_size", "is_contiguous", "storage_offset", "data_ptr", "backward",
    "register_hook", "register_post_accumulate_grad_hook", "retain_grad", "is_floating_point",
    "is_complex", "is_signed", "get_device", "is_shared", "is_same_size", "type",
    "untyped_storage", "is_inference", "is_pinned")
_TURNED = {Tensor.__dict__[name] for name in ("T", "mT", "H", "mH")}


def _name(function: Callable) -> str:
    name = getattr(function, "__name__", "")
    return name[1:] if name.startswith("_") and not name.startswith("__") else name


def _apply(function: Callable, args: tuple, kwargs: dict) -> Any:
    name = _name(function)
    rule = _RULES.get(name) or _RULES.get(name.removesuffix("_"))
    if name.startswith("to_sparse"):
        raise NotImplementedError("masked tensors are dense here; .to_tensor(0).to_sparse() has no "
                                  "mask, but as few elements")
    if rule is None:
        raise TypeError(f"Multiple dispatch failed for 'torch.{name}': there is no rule for "
                        "MaskedTensor. Work on .get_data(), or on .to_tensor(value)")
    return rule(function, args, kwargs)


# ---------------------------------------------------------------------- rules
def _masks(args: tuple, kwargs: dict) -> list:
    return [a._masked_mask for a in (*args, *kwargs.values()) if isinstance(a, MaskedTensor)]


def _elementwise(function: Callable, args: tuple, kwargs: dict) -> Any:
    mask, *others = _masks(args, kwargs)
    for other in others:
        if other is not mask and not (other.shape == mask.shape and bool((other == mask).all())):
            raise ValueError("Input masks must match. If you need support for this, please open an "
                             "issue on Github.")
    result = function(*args, **kwargs)
    if result is args[0]:
        if not isinstance(result, MaskedTensor):
            raise TypeError("a plain tensor cannot take the elements of a MaskedTensor in place")
        return result
    return with_mask(result, ops.expand(mask, tuple(result.shape)))


def _for_mask(value: Any) -> Any:
    """An argument as it goes with masks: a masked tensor's mask, a plain tensor's is all True."""
    if isinstance(value, MaskedTensor):
        return value._masked_mask
    if isinstance(value, (list, tuple)) and any(isinstance(v, MaskedTensor) for v in value):
        return type(value)(creation.ones_like(v, dtype=bool_)
                           if type(v) is Tensor else _for_mask(v) for v in value)
    return value


def _moved(function: Callable, args: tuple, kwargs: dict) -> Any:
    result = function(*args, **kwargs)
    mask = function(*map(_for_mask, args), **{k: _for_mask(v) for k, v in kwargs.items()})
    if isinstance(result, (tuple, list)):
        return type(result)(with_mask(r, m) for r, m in zip(result, mask, strict=True))
    return with_mask(result, mask)


def _kept(function: Callable, args: tuple, kwargs: dict) -> Any:
    result = function(*args, **kwargs)
    return result if result is args[0] else with_mask(result, args[0]._masked_mask)


def _to(function: Callable, args: tuple, kwargs: dict) -> Any:
    result = function(*args, **kwargs)
    return with_mask(result, args[0]._masked_mask.to(result.device))


def _plain(function: Callable, args: tuple, kwargs: dict) -> Any:
    result = function(*args, **kwargs)
    if type(result) is not Tensor:
        return result
    if getattr(function, "__self__", None) in _TURNED:
        return with_mask(result, function(args[0]._masked_mask, *args[1:]))
    mask = args[0]._masked_mask
    return with_mask(result, mask) if result.shape == mask.shape else result


def _iter(function: Callable, args: tuple, kwargs: dict) -> Any:
    return iter(_moved(ops.unbind, args, {}))


def _where(function: Callable, args: tuple, kwargs: dict) -> Any:
    data = function(*args, **kwargs)
    named = {k: _counted(v) if k in ("input", "self", "other") else v for k, v in kwargs.items()}
    if function is Tensor.where:  # (self, condition, other)
        first, condition, *rest = args
        mask = function(_counted(first), condition, *map(_counted, rest), **named)
    else:
        mask = function(args[0], *map(_counted, args[1:]), **named)
    return with_mask(data, ops.expand(mask, tuple(data.shape)))


def _counted(value: Any) -> Any:
    """Which elements of an operand of `where` count."""
    return value._masked_mask if isinstance(value, MaskedTensor) else True


# ---------------------------------------------------------------------- reductions
_PARAMETERS = {"var": ("dim", "unbiased", "keepdim"), "std": ("dim", "unbiased", "keepdim"),
               "norm": ("ord", "dim", "keepdim", "dtype")}


def _reduced(name: str) -> Callable:
    def rule(function: Callable, args: tuple, kwargs: dict) -> Any:
        input, *rest = args
        options = dict(zip(_PARAMETERS.get(name, ("dim", "keepdim", "dtype")), rest, strict=False))
        options |= {"ord" if key == "p" else key: value for key, value in kwargs.items()}
        if options.get("ord") == "fro":
            options["ord"] = 2.0
        mask = input._masked_mask
        reduce = getattr(masked, name)
        result = reduce(input.get_data(), mask=mask, **options)
        return with_mask(result, _any(mask, options.get("dim"), options.get("keepdim", False)))

    rule.__name__ = rule.__qualname__ = name
    return rule


def _any(mask: Tensor, dim: Any, keepdim: bool) -> Tensor:
    return ops.any(mask, masked._dims(mask, dim), keepdim) if mask.ndim else mask


def _truth(name: str) -> Callable:
    """`all` and `any`: what does not count is as if True, or False."""

    def rule(function: Callable, args: tuple, kwargs: dict) -> Any:
        input, *rest = args
        options = dict(zip(("dim", "keepdim"), rest, strict=False)) | kwargs
        filled = input.get_data().masked_fill(~input._masked_mask, name == "all")
        result = getattr(ops, name)(filled, masked._dims(filled, options.get("dim")),
                                    options.get("keepdim", False))
        return with_mask(result, _any(input._masked_mask, options.get("dim"),
                                      options.get("keepdim", False)))

    rule.__name__ = rule.__qualname__ = name
    return rule


def _along(name: str) -> Callable:
    """Functions along a dimension that keep the shape."""

    def rule(function: Callable, args: tuple, kwargs: dict) -> Any:
        input, *rest = args
        options = dict(zip(("dim", "dtype"), rest, strict=False)) | kwargs
        mask = input._masked_mask
        return with_mask(getattr(masked, name)(input.get_data(), mask=mask, **options), mask)

    rule.__name__ = rule.__qualname__ = name
    return rule


_RULES: dict[str, Callable] = {
    **dict.fromkeys(_UNARY, _elementwise), **dict.fromkeys(_BINARY, _elementwise),
    **dict.fromkeys(_MOVES, _moved), **dict.fromkeys(_KEEPS_MASK, _kept),
    **dict.fromkeys(_PLAIN, _plain), "to": _to, "where": _where, "__iter__": _iter,
    **{name: _reduced(name) for name in ("sum", "mean", "prod", "amax", "amin", "argmax", "argmin",
                                         "var", "std", "norm", "logsumexp")},
    **{name: _truth(name) for name in ("all", "any")},
    **{name: _along(name) for name in ("softmax", "log_softmax", "softmin", "cumsum", "cumprod")},
}

MaskedTensor.apply = staticmethod(_apply)
