"""Which transform leads from unconstrained numbers into a region.

`biject_to(region)` is bijective: good for sampling. `transform_to(region)` need not be: good for
optimisation.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from flambeau.distributions import constraints, transforms

__all__ = ["ConstraintRegistry", "biject_to", "transform_to"]


class ConstraintRegistry:
    """Factories of transforms by class of constraint; call it with a constraint."""

    def __init__(self) -> None:
        self._registry: dict[type, Callable] = {}
        super().__init__()

    def register(self, constraint: Any, factory: Callable | None = None) -> Callable:
        """Let `factory(constraint)` make the transforms for a class of constraints (given itself
        or as an instance); a decorator without `factory`.

        Raises:
            TypeError: not a constraint.
        """
        if factory is None:

            def decorated(made: Callable) -> Callable:
                return self.register(constraint, made)

            return decorated
        if isinstance(constraint, constraints.Constraint):
            constraint = type(constraint)
        if not isinstance(constraint, type) or not issubclass(constraint, constraints.Constraint):
            raise TypeError("Expected constraint to be either a Constraint subclass or instance, "
                            f"but got {constraint}")
        self._registry[constraint] = factory
        return factory

    def __call__(self, constraint: Any) -> transforms.Transform:
        try:
            factory = self._registry[type(constraint)]
        except KeyError:
            raise NotImplementedError(f"Cannot transform {type(constraint).__name__} "
                                      "constraints") from None
        return factory(constraint)


biject_to = ConstraintRegistry()
transform_to = ConstraintRegistry()


def _both(*regions: Any) -> Callable:
    """Register for both registries."""

    def decorated(factory: Callable) -> Callable:
        for region in regions:
            biject_to.register(region, factory)
            transform_to.register(region, factory)
        return factory

    return decorated


@_both(constraints.real)
def _to_real(region: Any) -> transforms.Transform:
    return transforms.identity_transform


@biject_to.register(constraints.independent)
def _biject_to_independent(region: Any) -> transforms.Transform:
    return transforms.IndependentTransform(biject_to(region.base_constraint),
                                           region.reinterpreted_batch_ndims)


@transform_to.register(constraints.independent)
def _transform_to_independent(region: Any) -> transforms.Transform:
    return transforms.IndependentTransform(transform_to(region.base_constraint),
                                           region.reinterpreted_batch_ndims)


@_both(constraints.positive, constraints.nonnegative)
def _to_positive(region: Any) -> transforms.Transform:
    return transforms.ExpTransform()


@_both(constraints.greater_than, constraints.greater_than_eq)
def _to_above(region: Any) -> transforms.Transform:
    return transforms.ComposeTransform([transforms.ExpTransform(),
                                        transforms.AffineTransform(region.lower_bound, 1)])


@_both(constraints.less_than)
def _to_below(region: Any) -> transforms.Transform:
    return transforms.ComposeTransform([transforms.ExpTransform(),
                                        transforms.AffineTransform(region.upper_bound, -1)])


@_both(constraints.interval, constraints.half_open_interval)
def _to_interval(region: Any) -> transforms.Transform:
    low, high = region.lower_bound, region.upper_bound
    if isinstance(low, (int, float)) and low == 0 and isinstance(high, (int, float)) and high == 1:
        return transforms.SigmoidTransform()
    return transforms.ComposeTransform([transforms.SigmoidTransform(),
                                        transforms.AffineTransform(low, high - low)])


@biject_to.register(constraints.simplex)
def _biject_to_simplex(region: Any) -> transforms.Transform:
    return transforms.StickBreakingTransform()


@transform_to.register(constraints.simplex)
def _transform_to_simplex(region: Any) -> transforms.Transform:
    return transforms.SoftmaxTransform()


@transform_to.register(constraints.lower_cholesky)
def _transform_to_lower_cholesky(region: Any) -> transforms.Transform:
    return transforms.LowerCholeskyTransform()


@transform_to.register(constraints.positive_definite)
@transform_to.register(constraints.positive_semidefinite)
def _transform_to_positive_definite(region: Any) -> transforms.Transform:
    return transforms.PositiveDefiniteTransform()


@_both(constraints.corr_cholesky)
def _to_corr_cholesky(region: Any) -> transforms.Transform:
    return transforms.CorrCholeskyTransform()


@biject_to.register(constraints.cat)
def _biject_to_cat(region: Any) -> transforms.Transform:
    return transforms.CatTransform([biject_to(c) for c in region.cseq], region.dim, region.lengths)


@transform_to.register(constraints.cat)
def _transform_to_cat(region: Any) -> transforms.Transform:
    return transforms.CatTransform([transform_to(c) for c in region.cseq], region.dim,
                                   region.lengths)


@biject_to.register(constraints.stack)
def _biject_to_stack(region: Any) -> transforms.Transform:
    return transforms.StackTransform([biject_to(c) for c in region.cseq], region.dim)


@transform_to.register(constraints.stack)
def _transform_to_stack(region: Any) -> transforms.Transform:
    return transforms.StackTransform([transform_to(c) for c in region.cseq], region.dim)
