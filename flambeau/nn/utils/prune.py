"""Pruning: entries of a parameter set to zero, by a mask.

    l1_unstructured(layer, "weight", amount=0.3)

`layer.weight_orig` is then the parameter, `layer.weight_mask` a buffer of zeros and ones, and
`layer.weight` their product, computed before each forward by a hook, which is an object of a
`BasePruningMethod`. Pruning again prunes what is left; `remove` makes it permanent.
"""

from __future__ import annotations

import numbers
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from typing import Any

import flambeau
from flambeau.nn.modules.module import Module
from flambeau.nn.parameter import Parameter
from flambeau.tensor import Tensor

__all__ = ["BasePruningMethod", "CustomFromMask", "Identity", "L1Unstructured", "LnStructured",
           "PruningContainer", "RandomStructured", "RandomUnstructured", "custom_from_mask",
           "global_unstructured", "identity", "is_pruned", "l1_unstructured", "ln_structured",
           "random_structured", "random_unstructured", "remove"]


# ---------------------------------------------------------------------- amounts
def _check_amount(amount: Any) -> None:
    """Is this a number of entries, or a share of them?"""
    if not isinstance(amount, numbers.Real):
        raise TypeError(f"Invalid type for amount: {amount}. Must be int or float.")
    whole = isinstance(amount, numbers.Integral)
    if whole and amount < 0 or not whole and not 0.0 <= float(amount) <= 1.0:
        raise ValueError(f"amount={amount} should either be a float in the range [0, 1] or a "
                         "non-negative integer")


def _count(amount: Any, size: int) -> int:
    """How many of `size` entries `amount` means.

    Raises:
        ValueError: more than there are.
    """
    if not isinstance(amount, numbers.Integral):
        return round(amount * size)
    if amount > size:
        raise ValueError(f"amount={amount} should be smaller than the number of parameters to "
                         f"prune={size}")
    return int(amount)


def _check_channels(t: Tensor) -> None:
    if t.dim() <= 1:
        raise ValueError("Structured pruning can only be applied to multidimensional tensors. "
                         f"Found tensor of shape {tuple(t.shape)} with {t.dim()} dims")


def _check_dim(t: Tensor, dim: int) -> None:
    if dim >= t.dim():
        raise IndexError(f"Invalid index {dim} for tensor of size {tuple(t.shape)}")


# ---------------------------------------------------------------------- methods
class BasePruningMethod(ABC):
    """A way to choose what is pruned; its objects are the hooks that apply masks.

    A subclass says in `PRUNING_TYPE` what a second pruning takes place among: "unstructured" the
    entries that are left, "structured" the channels that are left, "global" all entries.
    """

    _tensor_name: str
    PRUNING_TYPE = ""

    def __call__(self, module: Module, inputs: Any) -> None:
        setattr(module, self._tensor_name, self.apply_mask(module))

    @abstractmethod
    def compute_mask(self, t: Tensor, default_mask: Tensor) -> Tensor:
        """The mask after pruning `t`, which has `default_mask` so far."""

    def apply_mask(self, module: Module) -> Tensor:
        """The original times the mask."""
        name = getattr(self, "_tensor_name", None)
        if name is None:
            raise AssertionError(f"Module {module} has to be pruned first: call apply()")
        mask, original = getattr(module, name + "_mask"), getattr(module, name + "_orig")
        return mask.to(dtype=original.dtype) * original

    @classmethod
    def apply(cls, module: Module, name: str, *args: Any, importance_scores: Tensor | None = None,
              **kwargs: Any) -> BasePruningMethod:
        """Prune a parameter of a module and put a hook on it.

        Args:
            args, kwargs: what the method is made with.
            importance_scores: what to judge the entries by, instead of the parameter itself.
        """
        method: BasePruningMethod = cls(*args, **kwargs)
        method._tensor_name = name
        hook = _after_earlier(module, method)
        original = getattr(module, name)
        _check_scores(importance_scores, original)
        fresh = not hasattr(module, name + "_orig")
        if fresh:
            _check_parameter(module, name, original)
            module.register_parameter(name + "_orig", module._parameters.pop(name))
            old_mask = flambeau.ones_like(original)
        else:
            old_mask = getattr(module, name + "_mask").detach().clone()
        try:
            scores = original if importance_scores is None else importance_scores
            mask = hook.compute_mask(scores, default_mask=old_mask)
            module.register_buffer(name + "_mask", mask)
            setattr(module, name, hook.apply_mask(module))
            module.register_forward_pre_hook(hook)
        except Exception:
            if fresh:  # as it was
                module.register_parameter(name, module._parameters.pop(name + "_orig"))
            raise
        return hook

    def prune(self, t: Tensor, default_mask: Tensor | None = None,
              importance_scores: Tensor | None = None) -> Tensor:
        """`t`, pruned; no module is involved."""
        _check_scores(importance_scores, t)
        mask = flambeau.ones_like(t) if default_mask is None else default_mask
        scores = t if importance_scores is None else importance_scores
        return t * self.compute_mask(scores, default_mask=mask)

    def remove(self, module: Module) -> None:
        """Make the pruned values the parameter, without mask and hook's name."""
        name = self._tensor_name
        if name is None:
            raise AssertionError(f"Module {module} has to be pruned before pruning can be removed")
        pruned = self.apply_mask(module)
        if hasattr(module, name):
            delattr(module, name)
        original = module._parameters.pop(name + "_orig")
        original.data = pruned.data
        del module._buffers[name + "_mask"]
        setattr(module, name, original)


def _after_earlier(module: Module, method: BasePruningMethod) -> BasePruningMethod:
    """`method`, in a container with the method that the tensor has, which loses its hook."""
    name = method._tensor_name
    for key, hook in list(module._forward_pre_hooks.items()):
        if isinstance(hook, BasePruningMethod) and hook._tensor_name == name:
            del module._forward_pre_hooks[key]
            container = hook if isinstance(hook, PruningContainer) else PruningContainer(hook)
            container.add_pruning_method(method)
            return container
    return method


def _check_parameter(module: Module, name: str, original: Any) -> None:
    if not isinstance(original, Parameter):
        raise AttributeError(f"'{name}' of {type(module).__name__} is no parameter")


def _check_scores(scores: Tensor | None, t: Tensor) -> None:
    if scores is not None and scores.shape != t.shape:
        raise AssertionError("importance_scores should have the same shape as the tensor: "
                             f"{tuple(scores.shape)} != {tuple(t.shape)}")


class PruningContainer(BasePruningMethod):
    """Methods that were applied to one tensor one after another."""

    def __init__(self, *args: Any) -> None:
        self._pruning_methods: tuple[BasePruningMethod, ...] = ()
        methods = list(args[0]) if len(args) == 1 and isinstance(args[0], Iterable) else args
        if methods:
            self._tensor_name = methods[0]._tensor_name
        for method in methods:
            self.add_pruning_method(method)

    def add_pruning_method(self, method: BasePruningMethod | None) -> None:
        """Let `method` be the next.

        Raises:
            TypeError: it is no method; ValueError: it prunes another tensor.
        """
        if not isinstance(method, BasePruningMethod) and method is not None:
            raise TypeError(f"{type(method)} is not a BasePruningMethod subclass")
        if method is not None and self._tensor_name != method._tensor_name:
            raise ValueError("Can only add pruning methods acting on the parameter named "
                             f"'{self._tensor_name}' to PruningContainer {self}. Found "
                             f"'{method._tensor_name}'")
        self._pruning_methods += (method,)

    def __len__(self) -> int:
        return len(self._pruning_methods)

    def __iter__(self) -> Iterator[BasePruningMethod]:
        return iter(self._pruning_methods)

    def __getitem__(self, index: Any) -> Any:
        return self._pruning_methods[index]

    def compute_mask(self, t: Tensor, default_mask: Tensor) -> Tensor:
        """The last method's mask, computed among what its type says is left."""
        method = self._pruning_methods[-1]
        mask = default_mask.to(dtype=t.dtype)
        if method.PRUNING_TYPE == "unstructured":
            chosen: Any = mask == 1
        elif method.PRUNING_TYPE == "structured":
            dim = method.dim % t.dim()
            others = [d for d in range(t.dim()) if d != dim]
            alive = mask.sum(dim=others) != 0
            chosen = (slice(None),) * dim + (alive,)
        elif method.PRUNING_TYPE == "global":
            chosen = (slice(None),) * t.dim()
        else:
            raise ValueError(f"Unrecognized PRUNING_TYPE {method.PRUNING_TYPE}")
        result = mask.clone()
        result[chosen] = method.compute_mask(t[chosen], default_mask=mask[chosen]).to(t.dtype)
        return result


class Identity(BasePruningMethod):
    """Prunes nothing."""

    PRUNING_TYPE = "unstructured"

    def compute_mask(self, t: Tensor, default_mask: Tensor) -> Tensor:
        return default_mask


class _Amount(BasePruningMethod):
    """Prunes a number of entries, or a share of them."""

    PRUNING_TYPE = "unstructured"

    def __init__(self, amount: float) -> None:
        _check_amount(amount)
        self.amount = amount

    def _scores(self, t: Tensor) -> tuple[Tensor, bool]:
        """(what to order the entries by, are the largest pruned?)."""
        raise NotImplementedError

    def compute_mask(self, t: Tensor, default_mask: Tensor) -> Tensor:
        count = _count(self.amount, t.nelement())
        mask = default_mask.clone(memory_format=flambeau.contiguous_format)
        if count:
            scores, largest = self._scores(t)
            mask.view(-1)[flambeau.topk(scores, k=count, largest=largest).indices] = 0
        return mask


class RandomUnstructured(_Amount):
    """Prunes entries at random."""

    def _scores(self, t: Tensor) -> tuple[Tensor, bool]:
        return flambeau.rand_like(t).view(-1), True


class L1Unstructured(_Amount):
    """Prunes the entries that are smallest in size."""

    def _scores(self, t: Tensor) -> tuple[Tensor, bool]:
        return flambeau.abs(t).view(-1), False


class _Channels(BasePruningMethod):
    """Prunes whole channels along `dim`."""

    PRUNING_TYPE = "structured"

    def __init__(self, amount: float, dim: int = -1) -> None:
        _check_amount(amount)
        self.amount, self.dim = amount, dim

    def _kept(self, t: Tensor, count: int) -> Tensor:
        """Which channels stay: a mask, or their numbers."""
        raise NotImplementedError

    def compute_mask(self, t: Tensor, default_mask: Tensor) -> Tensor:
        _check_channels(t)
        _check_dim(t, self.dim)
        count = _count(self.amount, t.shape[self.dim])
        if count == 0:
            return default_mask
        mask = flambeau.zeros_like(t)
        mask[(slice(None),) * (self.dim % t.dim()) + (self._kept(t, count),)] = 1
        return mask * default_mask.to(dtype=mask.dtype)


class RandomStructured(_Channels):
    """Prunes channels at random."""

    def _kept(self, t: Tensor, count: int) -> Tensor:
        drawn = flambeau.rand(t.shape[self.dim])
        return drawn > flambeau.kthvalue(drawn, k=count).values


class LnStructured(_Channels):
    """Prunes the channels of the smallest n-norm."""

    def __init__(self, amount: float, n: Any, dim: int = -1) -> None:
        super().__init__(amount, dim)
        self.n = n

    def _kept(self, t: Tensor, count: int) -> Tensor:
        others = [d for d in range(t.dim()) if d != self.dim % t.dim()]
        norms = flambeau.norm(t, p=self.n, dim=others)
        return flambeau.topk(norms, k=t.shape[self.dim] - count, largest=True).indices


class CustomFromMask(BasePruningMethod):
    """Prunes where a given mask is 0."""

    PRUNING_TYPE = "global"

    def __init__(self, mask: Tensor) -> None:
        self.mask = mask

    def compute_mask(self, t: Tensor, default_mask: Tensor) -> Tensor:
        if default_mask.shape != self.mask.shape:
            raise AssertionError(f"a mask of shape {tuple(self.mask.shape)} for a tensor of shape "
                                 f"{tuple(default_mask.shape)}")
        return default_mask * self.mask.to(dtype=default_mask.dtype)


# ---------------------------------------------------------------------- functions
def identity(module: Module, name: str) -> Module:
    """Give a parameter mask and hook, with nothing pruned; gives the module, as all of these."""
    Identity.apply(module, name)
    return module


def random_unstructured(module: Module, name: str, amount: float) -> Module:
    """Prune entries at random; `amount` is a number of them or a share."""
    RandomUnstructured.apply(module, name, amount=amount)
    return module


def l1_unstructured(module: Module, name: str, amount: float,
                    importance_scores: Tensor | None = None) -> Module:
    """Prune the entries that are smallest in size."""
    L1Unstructured.apply(module, name, amount=amount, importance_scores=importance_scores)
    return module


def random_structured(module: Module, name: str, amount: float, dim: int) -> Module:
    """Prune channels along `dim` at random."""
    RandomStructured.apply(module, name, amount=amount, dim=dim)
    return module


def ln_structured(module: Module, name: str, amount: float, n: Any, dim: int,
                  importance_scores: Tensor | None = None) -> Module:
    """Prune the channels along `dim` that have the smallest n-norm."""
    LnStructured.apply(module, name, amount=amount, n=n, dim=dim,
                       importance_scores=importance_scores)
    return module


def global_unstructured(parameters: Iterable[tuple[Module, str]],
                        pruning_method: type[BasePruningMethod],
                        importance_scores: dict | None = None, **kwargs: Any) -> None:
    """Prune (module, name) parameters as if they were one tensor.

    Args:
        pruning_method: an unstructured one; `kwargs` is what it is made with.
        importance_scores: (module, name) -> what to judge the entries by.

    Raises:
        TypeError: no iterable, no dictionary, or a method that is structured.
    """
    if not isinstance(parameters, Iterable):
        raise TypeError("global_unstructured(): parameters is not an Iterable")
    parameters = list(parameters)
    scores = {} if importance_scores is None else importance_scores
    if not isinstance(scores, dict):
        raise TypeError("global_unstructured(): importance_scores must be of type dict")
    values = [getattr(module, name) for module, name in parameters]
    judged = flambeau.cat([scores.get(each, value).reshape(-1)
                           for each, value in zip(parameters, values, strict=True)])
    masks = flambeau.cat([getattr(module, name + "_mask", flambeau.ones_like(value)).reshape(-1)
                          for (module, name), value in zip(parameters, values, strict=True)])
    container = PruningContainer()
    container._tensor_name = "temp"
    method = pruning_method(**kwargs)
    method._tensor_name = "temp"
    container.add_pruning_method(method)
    if method.PRUNING_TYPE != "unstructured":
        raise TypeError('Only "unstructured" PRUNING_TYPE supported for the `pruning_method`. '
                        f"Found method {pruning_method} of type {method.PRUNING_TYPE}")
    final = container.compute_mask(judged, masks)
    start = 0
    for (module, name), value in zip(parameters, values, strict=True):
        custom_from_mask(module, name, mask=final[start:start + value.numel()].view_as(value))
        start += value.numel()


def custom_from_mask(module: Module, name: str, mask: Tensor) -> Module:
    """Prune where `mask` is 0."""
    CustomFromMask.apply(module, name, mask)
    return module


def remove(module: Module, name: str) -> Module:
    """Make pruning permanent: the parameter holds the pruned values, mask and hook go.

    Raises:
        ValueError: the parameter is not pruned.
    """
    for key, hook in module._forward_pre_hooks.items():
        if isinstance(hook, BasePruningMethod) and hook._tensor_name == name:
            hook.remove(module)
            del module._forward_pre_hooks[key]
            return module
    raise ValueError(f"Parameter '{name}' of module {module} has to be pruned before pruning can "
                     "be removed")


def is_pruned(module: Module) -> bool:
    """Has the module, or one within it, a pruned parameter?"""
    return any(isinstance(hook, BasePruningMethod) for each in module.modules()
               for hook in each._forward_pre_hooks.values())
