"""Recipes of arguments for random calls: what both frameworks build their own objects from.

A recipe says how an argument comes about (numbers, dtype, a chain of views, whether it requires
grad), so that the same tensor, memory layout included, can be made in either framework, as often
as wanted. `Draw` makes recipes at random, from the samples of op records or from the names of
parameters, and disturbs them.
"""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import numpy as np

from flambeau.ops.samples import Arr

__all__ = ["Alias", "Array", "Draw", "Dtype", "TensorRecipe", "build"]

DTYPES = {"float32": 10, "float64": 6, "int64": 6, "int32": 3, "bool": 4, "uint8": 3, "int8": 2,
          "int16": 2, "float16": 3, "bfloat16": 3, "complex64": 3, "complex128": 2}
"""Dtypes and how often they come."""

FINE = (0, 1, 2, -1, 3, 0.5, -1.5, 2.5, True, False, 1j, 2.5 - 1j, -0.0, float("nan"),
        float("inf"), -float("inf"), 1e10, 300, -129, 7, -7, 1.0, 100)
ODD = (np.float32(1.5), np.int64(2), np.bool_(True), np.float64(0.25), np.complex64(1 + 2j),
       np.uint8(3), 5e-324, 1e39, 65520, 3e38, 2**31, 2**53 + 1)
HUGE = (2**63 - 1, 2**63, 2**64 - 1, 2**64, -2**63, -2**63 - 1, 2**70, -2**70, 10**30)
WRONG = (None, "a", "mean", (), (0,), (0, 1), (-1,), [1, 0], [], (0, 0), (2, 3), Fraction(1, 2))
WORDS = ("none", "sum", "mean", "amax", "amin", "prod", "floor", "trunc", "xx", "left", "right",
         "linear", "lower", "nearest", "midpoint", "tanh", "ij", "xy")


@dataclasses.dataclass
class Dtype:
    """A dtype by name."""

    name: str

    def __repr__(self) -> str:
        return f"torch.{self.name}"


@dataclasses.dataclass
class Array:
    """A NumPy array as it is."""

    data: np.ndarray

    def __repr__(self) -> str:
        return f"np.{self.data!r}"


@dataclasses.dataclass
class Alias:
    """Another view of the memory of argument `place`."""

    place: int
    views: tuple = ()

    def __repr__(self) -> str:
        return f"<base of {self.place}>{shown(self.views)}"


@dataclasses.dataclass
class TensorRecipe:
    """A tensor: numbers, then views of them.

    Attributes:
        data: float32 stands for 16-bit floats, which NumPy lacks or rounds elsewhere.
        views: (method, *arguments), applied in order.
        grad: whether the tensor under the views requires grad.
    """

    data: np.ndarray
    dtype: str
    views: tuple = ()
    grad: bool = False

    @property
    def floating(self) -> bool:
        return "float" in self.dtype or "complex" in self.dtype

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape after the views."""
        found = self.data
        for view in self.views:
            found = _VIEWED[view[0]](found, *view[1:])
        return found.shape

    @property
    def overlapping(self) -> bool:
        """May several elements lie in one place, in a way that nobody checks?"""
        return any(view[0] == "as_strided" for view in self.views)

    def make(self, torch: Any) -> tuple[Any, Any]:
        """(The tensor, the leaf under its views.)"""
        leaf = torch.from_numpy(self.data.copy()).to(getattr(torch, self.dtype))
        if self.grad:
            leaf.requires_grad_(True)
        return viewed(leaf, self.views), leaf

    def __repr__(self) -> str:
        text = np.array2string(self.data, threshold=8, separator=",").replace("\n", "")
        body = text if self.data.size <= 12 else "..."
        letter = "g" if self.grad else ""
        return f"<{self.dtype}{list(self.data.shape)}{letter} {body}>{shown(self.views)}"


def shown(views: Sequence) -> str:
    return "".join(f".{view[0]}({', '.join(map(repr, view[1:]))})" for view in views)


def viewed(tensor: Any, views: Sequence) -> Any:
    for method, *args in views:
        tensor = getattr(tensor, method)(*args)
    return tensor


_VIEWED = {
    "transpose": np.swapaxes,
    "expand": lambda a, *shape: np.broadcast_to(a, shape),
    "flip": np.flip,
    "clone": np.copy,
    "as_strided": lambda a, shape, strides, start: np.empty(shape),
    "select": lambda a, dim, place: a.take(place, dim),
    "narrow": lambda a, dim, start, size: a.take(range(start, start + size), dim),
    "unfold": lambda a, dim, size, step: np.empty(
        (*a.shape[:dim], (a.shape[dim] - size) // step + 1, *a.shape[dim + 1:], size)),
}
"""What each view does to a shape."""


def build(recipe: Any, torch: Any, made: list) -> Any:
    """The object of a recipe in a framework; `made` collects (tensor, leaf, recipe) in order."""
    if isinstance(recipe, TensorRecipe):
        tensor, leaf = recipe.make(torch)
        made.append((tensor, leaf, recipe))
        return tensor
    if isinstance(recipe, Alias):
        tensor = viewed(made[recipe.place][1], recipe.views)
        made.append((tensor, made[recipe.place][1], recipe))
        return tensor
    if isinstance(recipe, Dtype):
        return getattr(torch, recipe.name)
    if isinstance(recipe, Array):
        return recipe.data.copy()
    if isinstance(recipe, (list, tuple)):
        return type(recipe)(build(item, torch, made) for item in recipe)
    return recipe


class Draw:
    """Draws recipes. `wrong`: how often (0-1) arguments are of a kind that no function takes."""

    def __init__(self, seed: Any, wrong: float):
        self.random = random.Random(seed)
        self.wrong = wrong

    # ------------------------------------------------------------------ tensors
    def chance(self, share: float) -> bool:
        return self.random.random() < share

    def dtype(self) -> str:
        return self.random.choices(list(DTYPES), list(DTYPES.values()))[0]

    def shape(self) -> tuple[int, ...]:
        rank = self.random.choice((0, 1, 1, 2, 2, 3, 4))
        return tuple(self.random.choice((0, 1, 2, 3, 4, 5, 17)) if self.chance(0.3)
                     else self.random.choice((2, 3, 4)) for _ in range(rank))

    def data(self, shape: Sequence[int], dtype: str, low: float = -3, high: float = 4,
             special: bool = False) -> np.ndarray:
        """Numbers in an interval; `special`: some are NaN, infinite, huge or zeros."""
        numbers = np.random.Generator(np.random.PCG64(self.random.getrandbits(60)))
        shape = tuple(shape)
        if dtype == "bool":
            return np.asarray(numbers.integers(0, 2, shape)).astype(bool)
        if "int" in dtype:
            low = max(0, int(np.floor(low))) if dtype == "uint8" else int(np.floor(low))
            found = np.array(numbers.integers(low, max(int(np.ceil(high)), low + 1), shape))
            found = found.astype(dtype)
            values: tuple = (np.iinfo(dtype).min, np.iinfo(dtype).max, 0)
        else:
            found = numbers.uniform(low, high, shape)
            if "complex" in dtype:
                found = found + 1j * numbers.uniform(low, high, shape)
            found = np.array(found).astype(
                "float32" if dtype in ("float16", "bfloat16") else dtype)
            values = (np.nan, np.inf, -np.inf, 0.0, -0.0, 1e-40, 1e30, 0.5, 1.0)
            if "complex" in dtype:
                values += (complex(np.nan, 1), complex(np.inf, 1), complex(0, -0.0),
                           complex(1, np.inf), 1j)
        if special and found.size:
            for _ in range(self.random.choice((1, 1, 2, 4))):
                found.flat[self.random.randrange(found.size)] = self.random.choice(values)
        return found

    def tensor(self, shape: Sequence[int] | None = None, dtype: str | None = None, low: float = -3,
               high: float = 4, grad: bool | None = None, plain: bool = False) -> TensorRecipe:
        """A tensor of a shape (any if None), in any memory layout unless `plain`."""
        shape = list(self.shape() if shape is None else shape)
        dtype = dtype or self.dtype()
        floating = "float" in dtype or "complex" in dtype
        grad = floating and (self.chance(0.25) if grad is None else grad)
        stored, views = (shape, ()) if plain else self.layout(shape)
        data = self.data(stored, dtype, low, high, self.chance(0.12))
        return TensorRecipe(data, dtype, views, grad)

    def layout(self, shape: list[int]) -> tuple[list[int], tuple]:
        """(The shape of the memory, the views that lead to `shape`.)"""
        share, rank, stored = self.random.random(), len(shape), list(shape)
        if share < 0.5 or rank == 0 and share < 0.94:
            return stored, ()
        if share < 0.65 and rank >= 2:
            i, j = self.random.sample(range(rank), 2)
            stored[i], stored[j] = stored[j], stored[i]
            return stored, (("transpose", i, j),)
        if share >= 0.94:
            return [2, *shape], (("select", 0, self.random.choice((0, 1))),)
        i = self.random.randrange(rank)
        if share < 0.75:  # every second element
            stored[i] = 2 * stored[i] + 1
            return stored, (("narrow", i, 1, 2 * shape[i]), ("unfold", i, 2, 2), ("select", -1, 0)
                            ) if shape[i] else (("narrow", i, 0, 0),)
        if share < 0.83 and shape[i]:
            stored[i] = 1
            return stored, (("expand", *shape),)
        if share < 0.88:
            return stored, (("flip", (i,)),)
        if not all(shape):
            return stored, ()
        strides = tuple(self.random.choice((0, 1, 2)) for _ in shape)
        start = self.random.choice((0, 1))
        size = sum((n - 1) * step for n, step in zip(shape, strides, strict=True)) + 1 + start
        return [size], (("as_strided", tuple(shape), strides, start),)

    # ------------------------------------------------------------------ other arguments
    def number(self) -> Any:
        share = self.random.random()
        if share < self.wrong * 0.3:
            return self.random.choice(WRONG)
        return self.random.choice(HUGE if share > 0.97 else ODD if share > 0.9 else FINE)

    def from_sample(self, value: Any, dtype: str | None) -> Any:
        """The recipe of an argument of a sample; `dtype`: what tensors without one take."""
        if isinstance(value, Arr):
            own = value.dtype and str(getattr(value.dtype, "name", value.dtype))
            grad = None if value.requires_grad else False
            return self.tensor(value.shape, own or dtype or self.dtype(), value.low, value.high,
                               grad)
        if type(value) in (list, tuple):
            return type(value)(self.from_sample(item, dtype) for item in value)
        return Dtype(value.name) if type(value).__name__ == "DType" else value

    def named(self, name: str, first: TensorRecipe | None, annotation: str = "Any") -> Any:
        """An argument for a parameter of a function without samples, by its name and annotation."""
        choice = self.random.choice
        if name in ("dim", "dim0", "dim1", "axis0", "axis1", "diagonal", "offset"):
            return choice((0, 1, -1, -2))
        if name in ("dims", "shape", "size", "sizes", "shifts", "repeats", "split_sizes", "pad"):
            return tuple(choice((0, 1, 2, -1) if name != "size" else (0, 1, 2, 3))
                         for _ in range(choice((1, 2, 3))))
        if name in ("index", "indices", "index1", "mask", "condition"):
            dtype, high = ("bool", 2) if name in ("mask", "condition") else ("int64", 3)
            return self.tensor(None if first is None else first.shape, dtype, -1, high, False)
        if name in ("tensors", "matrices"):
            return [self.tensor((2, 3)) for _ in range(choice((1, 2, 3)))]
        if name == "dtype":
            return Dtype(self.dtype())
        kind = annotation.partition(" | ")[0]
        if kind in ("bool", "int", "float", "str"):
            return {"bool": choice((True, False)), "int": choice((0, 1, 2, 3, -1)),
                    "float": choice((0.5, 2.0, -1.0, 0.0, 1)), "str": choice(WORDS)}[kind]
        if first is not None and self.chance(0.7) and name not in ("alpha", "value", "min", "max",
                                                                  "fill_value", "start", "end"):
            return self.tensor(first.shape if self.chance(0.8) else None,
                               first.dtype if self.chance(0.6) else None)
        return self.number()

    # ------------------------------------------------------------------ disturbing
    def mutated(self, value: Any) -> Any:
        """A relative of an argument."""
        if isinstance(value, TensorRecipe):
            return self._mutated_tensor(value)
        if isinstance(value, Dtype):
            return Dtype(self.dtype())
        if isinstance(value, (list, tuple)) and value and self.chance(0.85):
            items = list(value)
            place, share = self.random.randrange(len(items)), self.random.random()
            if share < 0.6:
                items[place] = self.mutated(items[place])
            elif share < 0.8:
                items.pop(place)
            else:
                items.insert(place, items[place])
            return type(value)(items)
        if self.chance(self.wrong):
            return self.tensor((), None, grad=False) if self.chance(0.2) else self.random.choice(
                FINE + ODD + WRONG + HUGE)
        if isinstance(value, bool):
            return not value
        if isinstance(value, int):
            return value + self.random.choice((-1, 1, -2, 2, -5))
        if isinstance(value, float):
            return self.random.choice((0.0, -value, value * 2, value + 1, 1, 2, -1, True, -0.0))
        if isinstance(value, str):
            return self.random.choice(WORDS)
        return self.number()

    def _mutated_tensor(self, value: TensorRecipe) -> Any:
        share, shape = self.random.random(), list(value.shape)
        if share < 0.3:
            return self.tensor(shape, value.dtype)
        if share < 0.65:
            return self.tensor(shape)
        if share < 0.85:
            return self.tensor(self._mutated_shape(shape), value.dtype)
        if share < 0.93:
            return self.number()
        if self.chance(self.wrong):
            return Array(self.data(shape, self.random.choice(("float32", "int64"))))
        return self.tensor(())

    def _mutated_shape(self, shape: list[int]) -> list[int]:
        place = self.random.randrange(len(shape)) if shape else 0
        kind = self.random.choice(("drop", "add", "empty", "one", "none", "any", "grow"))
        if kind == "add":
            shape.insert(place, self.random.choice((1, 1, 2)))
        elif kind == "none":
            shape = []
        elif kind == "any":
            shape = list(self.shape())
        elif shape and kind == "drop":
            shape.pop(place)
        elif shape:
            shape[place] = {"empty": 0, "one": 1}.get(kind, shape[place] + 1)
        return shape
