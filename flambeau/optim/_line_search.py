"""A line search for the strong Wolfe conditions, by bracketing and cubic interpolation.

Nocedal and Wright, Numerical optimization, 2006, algorithms 3.5 and 3.6; the safeguards are those
of Schmidt's minFunc.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from flambeau.tensor import Tensor

__all__ = ["strong_wolfe"]

DECREASE, CURVATURE = 1e-4, 0.9
MOST_STEPS = 25


@dataclasses.dataclass
class _Point:
    """What is known at one step along the direction.

    Attributes:
        step: how far.
        loss: the value there.
        grad: the gradient there, flat.
        slope: the derivative along the direction.
    """

    step: float
    loss: float
    grad: Tensor
    slope: float


def _cubic_minimum(a: _Point, b: _Point, bounds: tuple[float, float] | None = None) -> float:
    """Where the cubic through two values and slopes is least, within bounds."""
    low, high = bounds or (min(a.step, b.step), max(a.step, b.step))
    first = a.slope + b.slope - 3 * (a.loss - b.loss) / (a.step - b.step)
    square = first ** 2 - a.slope * b.slope
    if square < 0:
        return (low + high) / 2.0
    root = square ** 0.5
    if a.step > b.step:
        a, b = b, a
    place = b.step - (b.step - a.step) * (
        (b.slope + root - first) / (b.slope - a.slope + 2 * root))
    return min(max(place, low), high)


class _Search:
    """One line search from `start`; `evaluate(step)` gives (loss, gradient)."""

    def __init__(self, evaluate: Callable, start: _Point, direction: Tensor, tolerance: float):
        self.evaluate, self.start, self.direction = evaluate, start, direction
        self.tolerance = tolerance
        self.reach = direction.abs().max().item()
        self.evaluations = self.steps = 0

    def at(self, step: float) -> _Point:
        """Evaluate."""
        loss, grad = self.evaluate(step)
        self.evaluations += 1
        return _Point(step, loss, grad, grad.dot(self.direction).item())

    def too_high(self, point: _Point) -> bool:
        return point.loss > self.start.loss + DECREASE * point.step * self.start.slope

    def flat_enough(self, point: _Point) -> bool:
        return abs(point.slope) <= -CURVATURE * self.start.slope

    def bracket(self, step: float) -> list[_Point]:
        """Two points with an acceptable one between them; or one that is acceptable."""
        before, new = self.start, self.at(step)
        while self.steps < MOST_STEPS:
            if self.too_high(new) or self.steps > 1 and new.loss >= before.loss:
                return [before, new]
            if self.flat_enough(new):
                return [new]
            if new.slope >= 0:
                return [before, new]
            bounds = (new.step + 0.01 * (new.step - before.step), new.step * 10)
            step = _cubic_minimum(before, new, bounds)
            before, new = new, self.at(step)
            self.steps += 1
        return [self.start, new]

    def zoom(self, ends: list[_Point]) -> _Point:
        """The best point found by narrowing a bracket."""
        stuck = False
        low, high = _ordered(ends)
        while self.steps < MOST_STEPS:
            left, right = sorted((ends[0].step, ends[1].step))
            if (right - left) * self.reach < self.tolerance:
                break
            step = _cubic_minimum(ends[0], ends[1])
            margin = 0.1 * (right - left)
            if min(right - step, step - left) < margin:
                if stuck or step >= right or step <= left:
                    step = right - margin if abs(step - right) < abs(step - left) else (
                        left + margin)
                    stuck = False
                else:
                    stuck = True
            else:
                stuck = False
            new = self.at(step)
            self.steps += 1
            if self.too_high(new) or new.loss >= ends[low].loss:
                ends[high] = new
                low, high = _ordered(ends)
                continue
            done = self.flat_enough(new)
            if not done and new.slope * (ends[high].step - ends[low].step) >= 0:
                ends[high] = ends[low]
            ends[low] = new
            if done:
                break
        return ends[low]


def _ordered(ends: list[_Point]) -> tuple[int, int]:
    """(number of the lower end, of the higher one)"""
    return (0, 1) if ends[0].loss <= ends[-1].loss else (1, 0)


def strong_wolfe(evaluate: Callable, step: float, direction: Tensor, loss: float, grad: Tensor,
                 slope: float, tolerance: float = 1e-9) -> tuple[float, Tensor, float, int]:
    """(loss, gradient, step, number of evaluations) at an acceptable step along `direction`.

    Args:
        evaluate: step -> (loss, flat gradient).
        step: to try first.
        loss, grad, slope: at step 0.
        tolerance: how far apart steps must make parameters.
    """
    search = _Search(evaluate, _Point(0.0, loss, grad.clone(), slope), direction, tolerance)
    ends = search.bracket(step)
    best = ends[0] if len(ends) == 1 else search.zoom(ends)
    return best.loss, best.grad, best.step, search.evaluations
