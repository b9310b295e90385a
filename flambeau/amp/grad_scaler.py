"""Scaling of the loss, so that small gradients survive in float16 (Micikevicius et al. 2018)."""

from __future__ import annotations

import enum
import warnings
from collections.abc import Iterable
from typing import Any

import flambeau
from flambeau.tensor import Tensor
from flambeau.tensor.dispatch import ACTIVE
from flambeau.tensor.functions import ops
from flambeau.tensor.launches import fresh_dense
from flambeau.tensor.lists import MUTATE, over_lists

__all__ = ["GradScaler", "OptState"]


class OptState(enum.Enum):
    """Where an optimizer is between two calls of `update`."""

    READY = 0
    UNSCALED = 1
    STEPPED = 2


def _unscale(grads: list[Tensor], inverse: Tensor) -> Tensor:
    """Multiply gradients by `inverse`; gives 1 if one was not finite, else 0."""
    if ACTIVE:  # one after the other, so that no list is captured
        found = flambeau.zeros(())
        for grad in grads:
            ops.unscale_step_(grad, found, inverse)
        return found
    flags = [fresh_dense(flambeau.float32, ()) for _ in grads]
    over_lists("unscale_step", MUTATE)(grads, flags, inverse, True)
    return flambeau.stack(flags).amax()


class GradScaler:
    """Multiplies the loss by a factor that grows until gradients overflow.

    `scale(loss).backward()`, then `step(optimizer)`, which divides the gradients by the factor and
    leaves the step out if one of them is not finite, then `update()`, which shrinks the factor
    after such a step and lets it grow after `growth_interval` good ones in a row.

    Args:
        device: "cpu" or "cuda".
        init_scale: the factor at the beginning.
        growth_factor, backoff_factor: what it is multiplied by.
        enabled: False makes every method pass its argument on.
    """

    def __init__(self, device: str = "cuda", init_scale: float = 2.0**16,
                 growth_factor: float = 2.0, backoff_factor: float = 0.5,
                 growth_interval: int = 2000, enabled: bool = True):
        self._device = str(device)
        self._enabled = enabled
        if enabled and self._device == "cuda":
            warnings.warn("torch.cuda.amp.GradScaler is enabled, but CUDA is not available. "
                          "Disabling. On the CPU, use GradScaler('cpu').", stacklevel=2)
            self._enabled = False
        if self._enabled:
            if growth_factor <= 1.0:
                raise AssertionError("The growth factor must be > 1.0, but got "
                                     f"{growth_factor}.")
            if backoff_factor >= 1.0:
                raise AssertionError("The backoff factor must be < 1.0, but got "
                                     f"{backoff_factor}.")
        self._init_scale = init_scale
        self._growth_factor, self._backoff_factor = growth_factor, backoff_factor
        self._growth_interval = growth_interval
        self._init_growth_tracker = 0
        self._scale: Tensor | None = None
        self._growth_tracker: Tensor | None = None
        self._stages: dict[int, tuple[OptState, Tensor | None]] = {}

    # ------------------------------------------------------------------ the loss
    def scale(self, outputs: Any) -> Any:
        """A tensor, or those of an iterable, times the factor."""
        if not self._enabled:
            return outputs
        if isinstance(outputs, Tensor):
            return outputs * self._factor()
        if isinstance(outputs, Iterable):
            scaled = [self.scale(item) for item in outputs]
            return scaled if isinstance(outputs, list) else tuple(scaled)
        raise ValueError("outputs must be a Tensor or an iterable of Tensors, not "
                         f"{type(outputs).__name__}")

    def _factor(self) -> Tensor:
        if self._scale is None:
            self._scale = flambeau.full((), self._init_scale, dtype=flambeau.float32)
            self._growth_tracker = flambeau.full((), self._init_growth_tracker,
                                                 dtype=flambeau.int32)
        return self._scale

    # ------------------------------------------------------------------ the step
    def unscale_(self, optimizer: Any) -> None:
        """Divide the gradients of the optimizer's parameters by the factor, for clipping.

        Raises:
            RuntimeError: it has been called since the last `update`, or after `step`.
        """
        if not self._enabled:
            return
        stage, _ = self._stage(optimizer)
        if stage is OptState.UNSCALED:
            raise RuntimeError("unscale_() has already been called on this optimizer since the "
                               "last update().")
        if stage is OptState.STEPPED:
            raise RuntimeError("unscale_() is being called after step().")
        self._stages[id(optimizer)] = OptState.UNSCALED, self._unscaled(optimizer, False)

    def _stage(self, optimizer: Any) -> tuple[OptState, Tensor | None]:
        return self._stages.get(id(optimizer), (OptState.READY, None))

    def _unscaled(self, optimizer: Any, allow_half: bool) -> Tensor | None:
        """Unscale all gradients; gives 1 if one is not finite, 0 if all are, None if there are
        none."""
        if self._scale is None:
            raise AssertionError("Attempted unscale_ but _scale is None. Call scale(loss) and "
                                 "backward() first.")
        inverse = self._scale.double().reciprocal().float()
        grads = [param.grad for group in optimizer.param_groups for param in group["params"]
                 if param.grad is not None]
        if not allow_half and any(grad.dtype is flambeau.float16 for grad in grads):
            raise ValueError("Attempting to unscale FP16 gradients: keep the parameters in "
                             "float32 and use autocast.")
        with flambeau.no_grad():
            return _unscale(grads, inverse) if grads else None

    def step(self, optimizer: Any, *args: Any, **kwargs: Any) -> Any:
        """`optimizer.step(...)`, unless a gradient is not finite; gives its result or None.

        Raises:
            RuntimeError: it has been called since the last `update`.
            AssertionError: no parameter has a gradient.
        """
        if not self._enabled:
            return optimizer.step(*args, **kwargs)
        if "closure" in kwargs:
            raise RuntimeError("Closure use is not currently supported if GradScaler is enabled.")
        stage, found = self._stage(optimizer)
        if stage is OptState.STEPPED:
            raise RuntimeError("step() has already been called since the last update().")
        if stage is OptState.READY:
            found = self._unscaled(optimizer, False)
        if found is None:
            raise AssertionError("No inf checks were recorded for this optimizer: none of its "
                                 "parameters has a gradient.")
        result = None
        if not found.item():
            result = optimizer.step(*args, **kwargs)
        self._stages[id(optimizer)] = OptState.STEPPED, found
        return result

    def update(self, new_scale: Any = None) -> None:
        """Shrink or grow the factor, or set it to `new_scale` (a float or a 0-d tensor)."""
        if not self._enabled:
            return
        if self._scale is None:
            raise AssertionError("Attempted update but _scale is None. Call scale(loss) first.")
        if new_scale is not None:
            self._scale.fill_(new_scale)
            return
        checks = [found for _, found in self._stages.values() if found is not None]
        if not checks:
            raise AssertionError("No inf checks were recorded prior to update.")
        self._stages = {}
        if any(found.item() for found in checks):
            self._scale.mul_(self._backoff_factor)
            self._growth_tracker.zero_()
            return
        good = int(self._growth_tracker.item()) + 1
        if good == self._growth_interval:
            grown = self._scale * self._growth_factor
            if flambeau.isfinite(grown):
                self._scale.copy_(grown)
            good = 0
        self._growth_tracker.fill_(good)

    # ------------------------------------------------------------------ settings and state
    def get_scale(self) -> float:
        """The factor, 1.0 if scaling is off."""
        if not self._enabled:
            return 1.0
        return self._init_scale if self._scale is None else self._scale.item()

    def get_growth_factor(self) -> float:
        """What the factor grows by."""
        return self._growth_factor

    def set_growth_factor(self, new_factor: float) -> None:
        """Set what the factor grows by."""
        self._growth_factor = new_factor

    def get_backoff_factor(self) -> float:
        """What the factor shrinks by."""
        return self._backoff_factor

    def set_backoff_factor(self, new_factor: float) -> None:
        """Set what the factor shrinks by."""
        self._backoff_factor = new_factor

    def get_growth_interval(self) -> int:
        """How many good steps in a row let the factor grow."""
        return self._growth_interval

    def set_growth_interval(self, new_interval: int) -> None:
        """Set how many good steps in a row let the factor grow."""
        self._growth_interval = new_interval

    def _get_growth_tracker(self) -> int:
        if self._growth_tracker is None:
            return self._init_growth_tracker
        return int(self._growth_tracker.item())

    def is_enabled(self) -> bool:
        """Does it scale at all?"""
        return self._enabled

    def __getstate__(self) -> dict[str, Any]:
        """Between two steps: what `state_dict` has, and the settings.

        Raises:
            AssertionError: gradients have been unscaled since the last `update`.
        """
        if self._stages:
            raise AssertionError("A GradScaler instance may only be pickled at the beginning of "
                                 "an iteration, or at the end after scaler.update().")
        state = self.__dict__.copy()
        if self._enabled:
            state.update(_init_scale=self.get_scale(), _scale=None, _growth_tracker=None,
                         _init_growth_tracker=self._get_growth_tracker())
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self.__dict__.pop("_per_optimizer_states", None)
        self.__dict__.setdefault("_stages", {})

    def state_dict(self) -> dict[str, Any]:
        """The factor, its settings, and the number of good steps; empty if scaling is off."""
        if not self._enabled:
            return {}
        return {"scale": self.get_scale(), "growth_factor": self._growth_factor,
                "backoff_factor": self._backoff_factor, "growth_interval": self._growth_interval,
                "_growth_tracker": self._get_growth_tracker()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over what `state_dict` gave.

        Raises:
            RuntimeError: the state is empty, that of a scaler that was off.
        """
        if not self._enabled:
            return
        if not state_dict:
            raise RuntimeError("The source state dict is empty, possibly because it was saved "
                               "from a disabled instance of GradScaler.")
        self._init_scale = state_dict["scale"]
        if self._scale is not None:
            self._scale.fill_(state_dict["scale"])
        self._growth_factor = state_dict["growth_factor"]
        self._backoff_factor = state_dict["backoff_factor"]
        self._growth_interval = state_dict["growth_interval"]
        self._init_growth_tracker = state_dict["_growth_tracker"]
        if self._growth_tracker is not None:
            self._growth_tracker.fill_(state_dict["_growth_tracker"])
