"""Activation checkpointing: what a function saves for its gradient is computed again instead.

`checkpoint(function, *args)` gives what the function gives. Its saved tensors are let go, and the
function runs once more when the backward needs them (Chen et al. 2016): memory for time. The second
run draws the same random numbers, under the same autocast settings.

Without reentrance, every tensor that the function would save is replaced by a number
(`saved_tensors_hooks`); the first one that is asked for makes the function run again, up to the
last tensor that was saved. With reentrance, the function is one node of the tape, whose backward
runs function and backward inside of the outer backward.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import flambeau
from flambeau.autograd import engine
from flambeau.autograd.function import Function
from flambeau.autograd.grad_mode import enable_grad, no_grad
from flambeau.autograd.saved import saved_tensors_hooks
from flambeau.core.errors import caller_location, describe
from flambeau.random import fork_rng
from flambeau.tensor import Tensor, autocast, dispatch
from flambeau.utils._selective import (
    SAC_IGNORED_OPS,
    CheckpointPolicy,
    GraphExecGroup,
    SelectiveCheckpointContext,
    create_selective_checkpoint_contexts,
)

__all__ = ["SAC_IGNORED_OPS", "CheckpointError", "CheckpointFunction", "CheckpointPolicy",
           "DefaultDeviceType", "GraphExecGroup", "SelectiveCheckpointContext",
           "check_backward_validity", "checkpoint", "checkpoint_sequential",
           "create_selective_checkpoint_contexts", "detach_variable", "get_device_states",
           "noop_context_fn", "set_checkpoint_debug_enabled", "set_checkpoint_early_stop",
           "set_device_states"]


class CheckpointError(RuntimeError):
    """The second run was not like the first."""


class _Enough(Exception):
    """Everything that was saved has been computed again."""


class _Settings:
    """What the `set_checkpoint_*` contexts change."""

    def __init__(self) -> None:
        self.early_stop = True
        self.debug: bool | None = None


_settings = _Settings()


@contextlib.contextmanager
def set_checkpoint_early_stop(enable: bool) -> Iterator[None]:
    """Inside, second runs stop once everything that was saved is there, or (False) never."""
    before, _settings.early_stop = _settings.early_stop, enable
    try:
        yield
    finally:
        _settings.early_stop = before


@contextlib.contextmanager
def set_checkpoint_debug_enabled(enabled: bool | None) -> Iterator[None]:
    """Inside, `checkpoint(debug=...)` is this for all calls; None: each call says it."""
    before, _settings.debug = _settings.debug, enabled
    try:
        yield
    finally:
        _settings.debug = before


def noop_context_fn() -> tuple[Any, Any]:
    """Contexts for the two runs that do nothing."""
    return contextlib.nullcontext(), contextlib.nullcontext()


# ---------------------------------------------------------------------- the same surroundings
class _Surroundings:
    """Random state and autocast settings of the first run."""

    def __init__(self, random: bool) -> None:
        self.random = flambeau.get_rng_state() if random else None
        self.casts = autocast.current()

    @contextlib.contextmanager
    def again(self) -> Iterator[None]:
        """Inside they are as they were."""
        before = autocast.enter(self.casts, dispatch.ACTIVE)
        try:
            with fork_rng(enabled=self.random is not None):
                if self.random is not None:
                    flambeau.set_rng_state(self.random)
                yield
        finally:
            autocast.leave(before, dispatch.ACTIVE)


# ---------------------------------------------------------------------- without reentrance
def _facts(tensor: Tensor) -> dict[str, Any]:
    return {"shape": tensor.shape, "dtype": tensor.dtype, "device": tensor.device}


def _no_facts(tensor: Tensor) -> None:
    return None


_CHECKS: dict[str, Callable[[Tensor], Any]] = {"default": _facts, "none": _no_facts}


class _Frame:
    """One checkpointed call.

    Attributes:
        noted: of each tensor that the first run would have saved, what it is checked by.
        found: number -> the tensor, computed again and not yet asked for.
        lines: where each was saved, in the first run and in the second; only for debugging.
    """

    runs_again = True  # to look at what was saved runs the user's function

    def __init__(self, run: Callable[[], Any], check: Callable[[Tensor], Any], early_stop: bool,
                 surroundings: _Surroundings, context: Any, debug: bool) -> None:
        self.run, self.check, self.early_stop = run, check, early_stop
        self.surroundings, self.context, self.debug = surroundings, context, debug
        self.noted: list[Any] = []
        self.found: dict[int, Tensor] = {}
        self.lines: tuple[list, list] = [], []

    def pack(self, tensor: Tensor) -> int:
        """In the first run: a number in place of the tensor."""
        self.noted.append(self.check(tensor))
        if self.debug:
            self.lines[0].append(caller_location())
        return len(self.noted) - 1

    def unpack(self, number: int) -> Tensor:
        """In the backward: the tensor."""
        if number not in self.found:
            self._run_again()
        return self.found.pop(number)

    def _run_again(self) -> None:
        self.found = found = {}
        self.lines[1].clear()
        differences: list[tuple[int, Any, Any]] = []
        count = 0

        def pack(tensor: Tensor) -> Tensor:
            nonlocal count
            number, count = count, count + 1
            if self.debug:
                self.lines[1].append(caller_location())
            if number < len(self.noted):
                facts = self.check(tensor)
                if facts != self.noted[number]:
                    differences.append((number, self.noted[number], facts))
                found[number] = tensor.detach()
            if self.early_stop and count == len(self.noted):
                raise _Enough
            return tensor.detach()

        with contextlib.suppress(_Enough), enable_grad(), self.surroundings.again(), \
                self.context, saved_tensors_hooks(pack, _itself):
            self.run()
        if count < len(self.noted) or not self.early_stop and count > len(self.noted):
            raise CheckpointError(
                "torch.utils.checkpoint: A different number of tensors was saved during the "
                "original forward and recomputation.\nNumber of tensors saved during forward: "
                f"{len(self.noted)}\nNumber of tensors saved during recomputation: {count}.\n"
                + self._advice())
        if differences:
            told = "\n".join(f"tensor at position {number}:\nsaved metadata: {before}\nrecomputed "
                             f"metadata: {after}" for number, before, after in differences)
            raise CheckpointError(
                "torch.utils.checkpoint: Recomputed values for the following tensors have "
                f"different metadata than during the forward pass.\n{told}\n" + self._advice())

    def _advice(self) -> str:
        if not self.debug:
            return ("The function must do the same when it runs again: it may not depend on what "
                    "changes between forward and backward. debug=True tells the lines that saved "
                    "the tensors.")
        told = []
        for title, lines in zip(("forward", "recomputation"), self.lines, strict=True):
            told += [f"saved in the {title}:"]
            told += [f"  {i}: {describe(line)}"
                     for i, line in enumerate(lines)]
        return "\n".join(told)


def _itself(tensor: Tensor) -> Tensor:
    return tensor


def _without_reentrance(function: Callable, preserve: bool, context_fn: Callable,
                        determinism_check: str, debug: bool, early_stop: bool, args: Sequence,
                        kwargs: dict) -> Any:
    if determinism_check not in _CHECKS:
        raise ValueError("determinism_check must be one of "
                         f"{', '.join(map(repr, _CHECKS))}, got {determinism_check!r}")
    first, second = context_fn()
    surroundings = _Surroundings(preserve)

    def run() -> Any:
        return function(*args, **kwargs)

    if not flambeau.is_grad_enabled():
        with first:
            return run()
    frame = _Frame(run, _CHECKS[determinism_check], early_stop and _settings.early_stop,
                   surroundings, second, debug if _settings.debug is None else _settings.debug)
    with saved_tensors_hooks(frame.pack, frame.unpack), first:
        return run()


# ---------------------------------------------------------------------- with reentrance
def detach_variable(inputs: tuple) -> tuple:
    """The inputs, tensors among them without their history but with their `requires_grad`."""
    if not isinstance(inputs, tuple):
        raise RuntimeError("Only tuple of tensors is supported. Got Unsupported input type: "
                           f"{type(inputs).__name__}")
    made = []
    for each in inputs:
        if isinstance(each, Tensor):
            bare = each.detach()
            bare.requires_grad = each.requires_grad
            each = bare
        made.append(each)
    return tuple(made)


def check_backward_validity(inputs: Iterable[Any]) -> None:
    """Warn if no input needs a gradient: then nothing inside gets one."""
    if not any(each.requires_grad for each in inputs if isinstance(each, Tensor)):
        warnings.warn("None of the inputs have requires_grad=True. Gradients will be None",
                      stacklevel=2)


class CheckpointFunction(Function):
    """The node of a checkpointed call with reentrance."""

    @staticmethod
    def forward(ctx: Any, run_function: Callable, preserve_rng_state: bool, *args: Any) -> Any:
        check_backward_validity(args)
        ctx.run_function = run_function
        ctx.surroundings = _Surroundings(preserve_rng_state)
        ctx.places = [i for i, arg in enumerate(args) if isinstance(arg, Tensor)]
        ctx.others = [None if isinstance(arg, Tensor) else arg for arg in args]
        ctx.save_for_backward(*[args[i] for i in ctx.places])
        with no_grad():
            return run_function(*args)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        running = engine._CURRENT.get()
        if running is not None and running.needed is not None:
            raise RuntimeError(
                "When use_reentrant=True, torch.utils.checkpoint is incompatible with .grad() or "
                "passing an `inputs` parameter to .backward(). To resolve this error, you can "
                "either set use_reentrant=False, or call .backward() without passing the `inputs` "
                "argument.")
        inputs = list(ctx.others)
        for place, tensor in zip(ctx.places, ctx.saved_tensors, strict=True):
            inputs[place] = tensor
        bare = detach_variable(tuple(inputs))
        with ctx.surroundings.again(), enable_grad():
            outputs = ctx.run_function(*bare)
        if isinstance(outputs, Tensor):
            outputs = (outputs,)
        wanted = [(out, grad) for out, grad in zip(outputs, grads, strict=True)
                  if isinstance(out, Tensor) and out.requires_grad]
        if not wanted:
            raise RuntimeError("none of output has requires_grad=True, this checkpoint() is not "
                               "necessary")
        flambeau.autograd.backward([out for out, _ in wanted], [grad for _, grad in wanted])
        return (None, None, *[each.grad if isinstance(each, Tensor) else None for each in bare])


# ---------------------------------------------------------------------- what users call
def checkpoint(function: Callable, *args: Any, use_reentrant: bool | None = None,
               context_fn: Callable[[], tuple[Any, Any]] = noop_context_fn,
               determinism_check: str = "default", debug: bool = False, early_stop: bool = True,
               **kwargs: Any) -> Any:
    """`function(*args, **kwargs)`, whose saved tensors are computed again in the backward.

    Args:
        use_reentrant: False is the better way; True (the default, with a warning, as in PyTorch)
            takes no keyword arguments, needs an input that requires grad and a whole `backward()`.
        context_fn: gives two contexts, for the first run and for the second.
        determinism_check: "default" compares shape and dtype of what the runs save; "none" does
            not.
        debug: errors tell the lines that saved the tensors.
        early_stop: the second run ends with the last tensor that is needed.
        kwargs: `preserve_rng_state` (default True): the second run draws the same numbers; the
            rest goes to the function.

    Raises:
        ValueError: an argument that reentrance does not take.
        CheckpointError: in the backward: the second run saved other tensors than the first.
    """
    if use_reentrant is None:
        warnings.warn("torch.utils.checkpoint: the use_reentrant parameter should be passed "
                      "explicitly. use_reentrant=False is recommended; the default is True.",
                      stacklevel=2)
        use_reentrant = True
    preserve = kwargs.pop("preserve_rng_state", True)
    if not use_reentrant:
        return _without_reentrance(function, preserve, context_fn, determinism_check, debug,
                                   early_stop, args, kwargs)
    if kwargs:
        raise ValueError("Unexpected keyword arguments: " + ",".join(kwargs))
    if context_fn is not noop_context_fn or debug:
        raise ValueError("Passing `context_fn` or `debug` is only supported when "
                         "use_reentrant=False.")
    return CheckpointFunction.apply(function, preserve, *args)


def checkpoint_sequential(functions: Any, segments: int, input: Any,
                          use_reentrant: bool | None = None, **kwargs: Any) -> Any:
    """A `Sequential`, or a list of functions, in `segments` parts of which all but the last are
    checkpointed.

    Raises:
        ValueError: more segments than functions, or less than one; an unknown argument.
    """
    preserve = kwargs.pop("preserve_rng_state", True)
    if kwargs:
        raise ValueError("Unexpected keyword arguments: " + ",".join(kwargs))
    if use_reentrant is None:
        warnings.warn("torch.utils.checkpoint.checkpoint_sequential: the use_reentrant parameter "
                      "should be passed explicitly. use_reentrant=False is recommended; the "
                      "default is True.", stacklevel=2)
        use_reentrant = True
    if isinstance(functions, flambeau.nn.Sequential):
        functions = list(functions.children())
    if not 1 <= segments <= len(functions):
        raise ValueError(f"segments={segments}: {len(functions)} functions can be parted into 1 to "
                         f"{len(functions)} segments")
    size = len(functions) // segments
    starts = [i * size for i in range(segments)]
    for start in starts[:-1]:
        input = checkpoint(_chain(functions[start:start + size]), input,
                           use_reentrant=use_reentrant, preserve_rng_state=preserve)
    return _chain(functions[starts[-1]:])(input)


def _chain(functions: Sequence[Callable]) -> Callable:
    def run(value: Any) -> Any:
        for function in functions:
            value = function(value)
        return value

    return run


# ---------------------------------------------------------------------- devices
class DefaultDeviceType:
    """The device whose random state is kept besides the CPU's."""

    _device_type = "cuda"

    @staticmethod
    def set_device_type(device: str = "cuda") -> None:
        """Set it."""
        DefaultDeviceType._device_type = device

    @staticmethod
    def get_device_type() -> str:
        """Its name."""
        return DefaultDeviceType._device_type


def get_device_states(*args: Any) -> tuple[list[int], list[Tensor]]:
    """(numbers, random states) of the devices that tensors among `args` lie on, but the CPU."""
    return [], []


def set_device_states(devices: Sequence[int], states: Sequence[Tensor], *,
                      device_type: str | None = None) -> None:
    """Set what `get_device_states` gave.

    Raises:
        RuntimeError: there are states of devices, which this machine has not.
    """
    if len(devices):
        raise RuntimeError(f"no random state can be set on devices {list(devices)}: tensors live "
                           "on the CPU")
