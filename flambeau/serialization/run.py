"""A whole training run in one file: what an interrupted run needs to go on as if nothing had been.

    parts = dict(model=model, optimizer=optimizer, scheduler=scheduler, loader=loader)
    step = (torch.resume("run.pt", **parts) or {"step": 0})["step"]
    ...
    torch.checkpoint("run.pt", {"step": step}, **parts)

Besides the parts, the states of the default random stream, of Python's and of NumPy's are kept: a
run that goes on draws what it would have drawn. The file is replaced in one piece, so that a run
that is killed while it writes finds the one before.
"""

from __future__ import annotations

import os
import random
from typing import Any

import numpy as np

from flambeau.runtime.generator import Generator
from flambeau.serialization.api import load, save
from flambeau.serialization.errors import CorruptError
from flambeau.tensor.random import get_rng_state, set_rng_state

__all__ = ["checkpoint", "resume"]

FORMAT = "flambeau run, 1"


def checkpoint(path: str | os.PathLike, values: dict[str, Any] | None = None, /,
               **parts: Any) -> None:
    """Write a run's state to a file, which takes the place of the old one when it is complete.

    Args:
        path: of the file.
        values: numbers, texts, tensors and containers of them that `resume` gives back: the step,
            the epoch, losses so far.
        parts: what is to be restored: modules, optimizers, schedulers, scalers, data loaders, in
            short whatever has `state_dict` and `load_state_dict`; and random generators.

    Raises:
        TypeError: a part has neither; SaveError: the system refused, the old file is unchanged.

    >>> import tempfile
    >>> m = torch.nn.Linear(2, 1)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     torch.checkpoint(folder + "/run.pt", {"step": 7}, model=m)
    ...     print(torch.resume(folder + "/run.pt", model=m)["step"])
    7
    """
    states = {name: _state_of(name, part) for name, part in parts.items()}
    save({"format": FORMAT, "values": dict(values or {}), "parts": states,
          "random": _random_states()}, path)


def resume(path: str | os.PathLike, /, **parts: Any) -> dict[str, Any] | None:
    """Bring a run back to where `checkpoint` was called; gives the `values` it was given.

    Call it when the parts are made and before anything else is drawn from a random stream. Of a
    data loader the next pass goes on behind the batches that the run had taken.

    Args:
        path: of the file.
        parts: those that `checkpoint` was given, by the same names.

    Returns:
        None if there is no such file: the run begins.

    Raises:
        KeyError: the file has other parts. Nothing has been restored then.
        CheckpointError: the file is damaged, or no run's.

    >>> import tempfile
    >>> a, b = torch.nn.Linear(2, 1), torch.nn.Linear(2, 1)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     torch.checkpoint(folder + "/run.pt", model=a)
    ...     _ = torch.resume(folder + "/run.pt", model=b)
    >>> torch.equal(a.weight, b.weight)
    True
    """
    if not os.path.exists(path):
        return None
    state = load(path)
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise CorruptError(f"{os.fspath(path)} is no file that torch.checkpoint wrote; read it "
                           "with torch.load")
    kept = state["parts"]
    if kept.keys() != parts.keys():
        missing, unknown = sorted(kept.keys() - parts.keys()), sorted(parts.keys() - kept.keys())
        raise KeyError(f"{os.fspath(path)} is of a run with other parts: resume() was not given "
                       f"{missing or 'nothing that it has'}, and it has not {unknown or 'less'}")
    for name, part in parts.items():
        if isinstance(part, Generator):
            part.set_state(kept[name])
        else:
            part.load_state_dict(kept[name])
    _set_random_states(state["random"])
    return state["values"]


def _state_of(name: str, part: Any) -> Any:
    if isinstance(part, Generator):
        return part.get_state()
    if not hasattr(part, "state_dict") or not hasattr(part, "load_state_dict"):
        raise TypeError(f"checkpoint({name}=...): {type(part).__name__} has no state_dict() and "
                        "load_state_dict(); numbers and the like go into `values`, the second "
                        "argument")
    return part.state_dict()


def _random_states() -> dict[str, Any]:
    kind, keys, *rest = np.random.get_state(legacy=True)
    return {"default": get_rng_state(), "python": random.getstate(),
            "numpy": (kind, keys.tolist(), *rest)}


def _set_random_states(states: dict[str, Any]) -> None:
    set_rng_state(states["default"])
    version, keys, gauss = states["python"]
    random.setstate((version, tuple(keys), gauss))
    kind, keys, *rest = states["numpy"]
    np.random.set_state((kind, np.array(keys, np.uint32), *rest))
