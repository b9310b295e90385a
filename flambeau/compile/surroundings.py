"""What Python takes from, or does to, the world outside of a program: clocks, dice, output.

A replay would repeat neither. While a run is captured, the functions below report that the user's
code has called them; the run is then no whole program, and such a function runs in parts.
"""

from __future__ import annotations

import builtins
import contextlib
import datetime
import functools
import io
import logging
import os
import random
import secrets
import sys
import threading
import time
import uuid
import warnings
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import numpy as np

from flambeau.autograd import engine
from flambeau.autograd.tape import AccumulateGrad
from flambeau.runtime import generator
from flambeau.tensor.dispatch import host_action

__all__ = ["backward_within", "origin_of", "reporting", "unrepeatable"]

_FOREIGN = frozenset(sys.stdlib_module_names) | {
    "numpy", "scipy", "ml_dtypes", "llvmlite", "pytest", "_pytest", "tqdm", "matplotlib",
    "pandas", "sklearn", "PIL", "rich", "wandb", "tensorboard"}

_CLOCKS = ("time", "time_ns", "perf_counter", "perf_counter_ns", "monotonic", "monotonic_ns",
           "process_time", "process_time_ns", "thread_time", "sleep")
_DICE = ("random", "uniform", "randint", "randrange", "choice", "choices", "sample", "shuffle",
         "gauss", "normalvariate", "betavariate", "expovariate", "triangular", "getrandbits",
         "lognormvariate", "vonmisesvariate", "gammavariate", "seed", "setstate")
_NUMPY_DICE = ("rand", "randn", "randint", "random", "random_sample", "choice", "normal",
               "uniform", "permutation", "shuffle", "seed", "beta", "binomial", "poisson",
               "exponential", "multinomial", "standard_normal", "set_state")
_CALLS: tuple[tuple[Any, tuple[str, ...]], ...] = (
    (builtins, ("print", "input", "open")), (time, _CLOCKS), (random, _DICE),
    (np.random, _NUMPY_DICE), (os, ("getenv", "urandom", "system")), (uuid, ("uuid1", "uuid4")),
    (secrets, ("token_hex", "token_bytes", "randbelow", "choice")))


def origin_of(module: str | None) -> str:
    """"ours", "foreign" (holds no state of the user's program) or "user"."""
    parts = (module or "").split(".")
    if parts[0] == "flambeau":
        return "user" if parts[1:2] == ["cli"] else "ours"
    return "foreign" if parts[0] in _FOREIGN and parts[0] != "__main__" else "user"


def _reporter(name: str, function: Callable) -> Callable:
    @functools.wraps(function)
    def reported(*args: Any, **kwargs: Any) -> Any:
        if origin_of(sys._getframe(1).f_globals.get("__name__")) == "user":
            host_action(f"calling {name}()")
        return function(*args, **kwargs)

    return reported


@contextlib.contextmanager
def backward_within(entered: int) -> Iterator[None]:
    """Report backward passes that go through what was recorded before a function was entered, as a
    node of order `entered` would have been: what that was is not part of the function."""
    def told(node: Any) -> None:
        if node.tape_order >= entered and not isinstance(node, AccumulateGrad):
            host_action("a backward through what was recorded before the function was called")

    engine.listeners.append(told)
    try:
        yield
    finally:
        engine.listeners.remove(told)


def _seeds(stream: Any) -> None:
    host_action("setting a random stream to another place")


def _logged(handle: Callable) -> Callable:
    @functools.wraps(handle)
    def reported(self: Any, record: Any) -> Any:
        host_action("writing to a log")
        return handle(self, record)

    return reported


@functools.cache
def _reporters() -> list[tuple[Any, str, Callable, Callable]]:
    """(module or class, attribute, original, reporter)."""
    found = []
    for module, names in _CALLS:
        prefix = "" if module is builtins else f"{module.__name__}."
        for name in names:
            original = getattr(module, name, None)
            if original is not None:
                found.append((module, name, original, _reporter(prefix + name, original)))
    found.append((logging.Logger, "handle", logging.Logger.handle, _logged(logging.Logger.handle)))
    return found


@contextlib.contextmanager
def reporting(places: list) -> Iterator[list[str]]:
    """Let those functions report, also where `places` hold them under names of the user's own.

    What is yielded fills with what the next run might not do again: warnings that were shown, which
    filters mostly let through once.
    """
    by_id = {id(original): reporter for _, _, original, reporter in _reporters()}
    # random.random and the like are bound methods: a look-up gives the module's own object
    borrowed = [place for place in places if id(place.before) in by_id and place.settable]
    replaced = []
    for holder, name, _, reporter in _reporters():
        replaced.append((holder, name, getattr(holder, name), reporter))
        setattr(holder, name, reporter)
    for place in borrowed:
        place.put(by_id[id(place.before)])
    shown: list[str] = []
    show = warnings._showwarnmsg  # type: ignore[attr-defined]
    thread = threading.get_ident()

    def note(message: Any) -> None:
        if threading.get_ident() == thread:
            shown.append(f"a warning ({message.category.__name__})")
        show(message)

    warnings._showwarnmsg = note  # type: ignore[attr-defined]
    generator.watchers.append(_seeds)
    try:
        yield shown
    finally:
        generator.watchers.remove(_seeds)
        warnings._showwarnmsg = show  # type: ignore[attr-defined]
        for holder, name, before, reporter in replaced:
            if getattr(holder, name) is reporter:
                setattr(holder, name, before)
        for place in borrowed:
            if place.now() is by_id[id(place.before)]:
                place.put(place.before)


def unrepeatable(item: Any, names: set[str]) -> str | None:
    """What an object is whose use a replay would not repeat, or None."""
    if isinstance(item, (random.Random, np.random.Generator, np.random.RandomState)):
        return "drawing from a random generator that is not torch's"
    if isinstance(item, io.IOBase):
        return "using a file"
    if item in (datetime.datetime, datetime.date) if isinstance(item, type) else False:
        return "asking for the time" if names & {"now", "utcnow", "today"} else None
    kind = type(item)
    if hasattr(kind, "__next__") and origin_of(kind.__module__) == "foreign" and not isinstance(
            item, ModuleType):
        return "advancing an iterator"
    return None
