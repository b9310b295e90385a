"""Random sizes and tensors to time statements with: `Fuzzer` draws parameters and makes tensors.

    fuzzer = Fuzzer(
        parameters=[FuzzedParameter("n", 4, 1024, "loguniform")],
        tensors=[FuzzedTensor("x", size=("n",), probability_contiguous=0.5)], seed=0)
    for tensors, properties, parameters in fuzzer.take(10):
        ...
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

import flambeau

__all__ = ["FuzzedParameter", "FuzzedTensor", "Fuzzer", "ParameterAlias"]

_UNIFORM, _LOGARITHMIC = "uniform", "loguniform"
_TRIES = 1000


class ParameterAlias:
    """Another parameter's name: the value is the other's. Where a parameter's choices hold one, it
    follows the other with that probability."""

    def __init__(self, alias_to: str):
        self.alias_to = alias_to

    def __repr__(self) -> str:
        return f"ParameterAlias[alias_to: {self.alias_to}]"


class FuzzedParameter:
    """A number (or anything else) to draw.

    Args:
        name: what tensors and constraints call it.
        minval, maxval: the limits, both inclusive; integers draw integers.
        distribution: "uniform", "loguniform" (each order of magnitude is as likely), or a dict
            {value: probability}.
        strict: do not take values of a dict whose probabilities do not sum to 1.

    Raises:
        ValueError: limits or a distribution that do not go together.
    """

    def __init__(self, name: str, minval: float | None = None, maxval: float | None = None,
                 distribution: str | dict[Any, float] | None = None, strict: bool = False):
        self._name, self._minval, self._maxval, self.strict = name, minval, maxval, strict
        self._distribution = distribution
        if isinstance(distribution, dict):
            total = sum(distribution.values())
            if total <= 0 or strict and abs(total - 1) > 1e-6:
                raise ValueError(f"FuzzedParameter({name!r}): the probabilities sum to {total}")
            self._chances = [chance / total for chance in distribution.values()]
            self._values = list(distribution)
            return
        if distribution not in (_UNIFORM, _LOGARITHMIC):
            raise ValueError(f"FuzzedParameter({name!r}): the distribution is 'uniform', "
                             f"'loguniform' or a dict, not {distribution!r}")
        if minval is None or maxval is None or minval > maxval or (
                distribution == _LOGARITHMIC and minval <= 0):
            raise ValueError(f"FuzzedParameter({name!r}): no {distribution} distribution from "
                             f"{minval} to {maxval}")

    @property
    def name(self) -> str:
        return self._name

    def sample(self, state: np.random.RandomState) -> Any:
        """A value drawn from the stream `state`."""
        if isinstance(self._distribution, dict):
            return self._values[state.choice(len(self._values), p=self._chances)]
        low, high = self._minval, self._maxval
        whole = isinstance(low, int) and isinstance(high, int)
        if self._distribution == _UNIFORM:
            return int(state.randint(low, high + 1)) if whole else state.uniform(low, high)
        drawn = 2.0 ** state.uniform(np.log2(low), np.log2(high))
        return min(max(round(drawn), low), high) if whole else float(drawn)


class FuzzedTensor:
    """A tensor to make of drawn parameters.

    Args:
        name: what the statement calls it.
        size: for each dimension a number or a parameter's name.
        steps: for each dimension the step with which it lies in a larger tensor.
        probability_contiguous: how often dimensions keep their order in memory.
        min_elements, max_elements: other tensors are drawn anew.
        max_allocation_bytes: of the memory behind it.
        dim_parameter: the parameter that says how many of `size` are used.
        roll_parameter: the parameter that says by how much the order of dimensions is turned.
        dtype: of the tensor; cuda: on a GPU.
        tensor_constructor: a function of `size`, `dtype` and the parameters, instead of random
            numbers.
    """

    def __init__(self, name: str, size: tuple[str | int, ...],
                 steps: tuple[str | int, ...] | None = None, probability_contiguous: float = 0.5,
                 min_elements: int | None = None, max_elements: int | None = None,
                 max_allocation_bytes: int | None = None, dim_parameter: str | None = None,
                 roll_parameter: str | None = None, dtype: Any = None, cuda: bool = False,
                 tensor_constructor: Callable | None = None):
        self._name, self._size, self._steps = name, size, steps
        self._probability_contiguous = probability_contiguous
        self._min_elements, self._max_elements = min_elements, max_elements
        self._max_allocation_bytes = max_allocation_bytes
        self._dim_parameter, self._roll_parameter = dim_parameter, roll_parameter
        self._dtype = flambeau.float32 if dtype is None else dtype
        self._device = "cuda" if cuda else "cpu"
        self._constructor = tensor_constructor

    @property
    def name(self) -> str:
        return self._name

    def sizes(self, params: dict[str, Any]) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """(sizes, those of the memory behind them)."""
        dim = len(self._size) if self._dim_parameter is None else params[self._dim_parameter]
        size = tuple(params.get(s, s) for s in self._size)[:dim]
        steps = tuple(params.get(s, s) for s in self._steps or ())[:dim]
        steps += (1,) * (dim - len(steps))
        return size, tuple(s * step for s, step in zip(size, steps, strict=True))

    def fits(self, params: dict[str, Any]) -> bool:
        """Is a tensor of these parameters within the limits?"""
        size, room = self.sizes(params)
        count = int(np.prod(size, dtype=np.int64))
        nbytes = int(np.prod(room, dtype=np.int64)) * self._dtype.itemsize
        return not (self._min_elements is not None and count < self._min_elements
                    or self._max_elements is not None and count > self._max_elements
                    or self._max_allocation_bytes is not None and nbytes
                    > self._max_allocation_bytes)

    def make(self, params: dict[str, Any], state: np.random.RandomState
             ) -> tuple[Any, dict[str, Any]]:
        """(the tensor, what is known of it)."""
        size, room = self.sizes(params)
        contiguous = state.rand() < self._probability_contiguous or len(size) < 2
        order = list(range(len(size)))
        if not contiguous:
            while order == list(range(len(size))):
                order = state.permutation(len(size)).tolist()
        if self._roll_parameter is not None:
            turn = params[self._roll_parameter] % max(len(order), 1)
            order = order[turn:] + order[:turn]
        behind = self._drawn(tuple(room[d] for d in order), params)
        made = behind.permute(sorted(range(len(order)), key=order.__getitem__))
        made = made[tuple(slice(None, None, big // s if s else 1)
                          for s, big in zip(size, room, strict=True))]
        known = {"numel": made.numel(), "order": order, "steps": tuple(
            big // s if s else 1 for s, big in zip(size, room, strict=True)),
            "is_contiguous": made.is_contiguous(), "dtype": str(self._dtype)}
        return made, known

    def _drawn(self, size: tuple[int, ...], params: dict[str, Any]) -> Any:
        if self._constructor is not None:
            return self._constructor(size=size, dtype=self._dtype, **params)
        if self._dtype.is_floating_point or self._dtype.is_complex:
            return flambeau.randn(size, dtype=self._dtype, device=self._device)
        most = 2 if self._dtype is flambeau.bool else 127
        return flambeau.randint(0, most, size, dtype=self._dtype, device=self._device)


class Fuzzer:
    """Draws parameters until constraints and tensors are content, and makes the tensors.

    Args:
        parameters: (lists of) `FuzzedParameter`s; tensors: (lists of) `FuzzedTensor`s.
        constraints: functions of parameters by name; False draws anew.
        seed: of both random streams.
    """

    def __init__(self, parameters: Sequence[Any], tensors: Sequence[Any],
                 constraints: Sequence[Callable] | None = None, seed: int | None = None):
        self._parameters, self._tensors = _flat(parameters), _flat(tensors)
        names = [one.name for one in (*self._parameters, *self._tensors)]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"Fuzzer: {twice} stand for several parameters or tensors")
        self._constraints = list(constraints or ())
        self._seed = int(np.random.RandomState().randint(2**31)) if seed is None else seed
        self._accepted = self._rejected = 0

    @property
    def rejection_rate(self) -> float:
        """Which part of the draws was refused."""
        return self._rejected / max(self._accepted + self._rejected, 1)

    def take(self, n: int) -> Iterator[tuple[dict, dict, dict]]:
        """n times (tensors by name, what is known of each, parameters by name).

        Raises:
            ValueError: the constraints refused 1000 draws in a row.
        """
        state = np.random.RandomState(self._seed)
        flambeau.manual_seed(int(state.randint(2**31)))
        for _ in range(n):
            params = self._draw(state)
            made = {one.name: one.make(params, state) for one in self._tensors}
            yield ({name: tensor for name, (tensor, _) in made.items()},
                   {name: known for name, (_, known) in made.items()}, params)

    def _draw(self, state: np.random.RandomState) -> dict[str, Any]:
        for _ in range(_TRIES):
            params = {one.name: one.sample(state) for one in self._parameters}
            for name in params:
                params[name] = self._followed(params, name)
            if all(check(**params) for check in self._constraints) and all(
                    one.fits(params) for one in self._tensors):
                self._accepted += 1
                return params
            self._rejected += 1
        raise ValueError(f"Fuzzer: {_TRIES} draws in a row were refused; loosen the constraints")

    @staticmethod
    def _followed(params: dict[str, Any], name: str) -> Any:
        value, seen = params[name], {name}
        while isinstance(value, ParameterAlias):
            if value.alias_to in seen:
                raise ValueError(f"Fuzzer: the aliases of {name!r} go round in a circle")
            seen.add(value.alias_to)
            value = params[value.alias_to]
        return value


def _flat(items: Sequence[Any]) -> list[Any]:
    """Lists of lists as one list."""
    return functools.reduce(lambda whole, one: whole + (
        list(one) if isinstance(one, (list, tuple)) else [one]), items, [])
