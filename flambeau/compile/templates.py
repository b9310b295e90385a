"""Plans of one captured function for sizes that vary: of the function, and of its backward."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

from flambeau.compile.differentiable import Backward, Part, Pattern
from flambeau.compile.interface import Interface
from flambeau.compiler.program import Plan
from flambeau.compiler.target import host
from flambeau.compiler.template import Template
from flambeau.core.symbolic import Environment, Unfit, Valuation
from flambeau.ir.graph import Graph, Value
from flambeau.ir.settle import Settler
from flambeau.runtime import pool
from flambeau.tensor.meta import Meta, contiguous_meta, meta_of

__all__ = ["BackwardTemplates", "Templates", "plain_meta"]

LIMIT = 8  # templates of one program after which each size is planned for itself


def plain_meta(settler: Settler, meta: Meta) -> Meta:
    """A layout for given sizes."""
    return meta_of(meta.dtype, settler.tree(tuple(meta.shape)), settler.tree(meta.strides),
                   meta.device)


class Templates:
    """The templates of one graph. Conditions of a plan differ with the sizes it was made for, so
    there may be several."""

    def __init__(self, env: Environment, graph: Graph, face: Interface,
                 effects: Sequence[Value] = ()):
        self.environment, self.graph, self.face, self.effects = env, graph, face, effects
        self.made: list[Template] = []

    def plan(self, valuation: Valuation) -> Plan | None:
        """The plan for given sizes, if a template serves them or can be made."""
        for template in self.made:
            try:
                return template.plan(valuation)
            except Unfit:
                continue
        if len(self.made) >= LIMIT:
            return None
        try:
            with self.environment.at(valuation.sizes):
                made = Template(self.environment, self.graph, self.face.inputs,
                                self.face.outputs, host(), pool.get_num_threads(),
                                self.face.aliases, self.effects)
            planned = made.plan(Valuation(self.environment, valuation.sizes))
        except Unfit:
            return None
        self.made.append(made)
        return planned


class BackwardTemplates:
    """The templates of a backward: some for each pattern of gradients.

    Args:
        make: gives the backward with symbolic sizes, and the layouts of the results that it starts
            from; called when it is first needed.
    """

    def __init__(self, env: Environment, make: Callable[[], tuple[Backward, list[Meta]]]):
        self.environment, self._make = env, make
        self._made: dict[tuple, tuple[Part, Templates]] = {}

    @functools.cached_property
    def _backward(self) -> tuple[Backward, list[Meta]]:
        return self._make()

    def plan(self, valuation: Valuation, pattern: Pattern, part: Part) -> Plan | None:
        """The plan for given sizes; None if it has to be made for them alone.

        Args:
            pattern, part: what is asked for, with plain sizes.
        """
        settler = Settler(valuation.number)
        backward, roots = self._backward
        wanted, *layouts = pattern
        likes = [_likeness(settler, meta, root)
                 for meta, root in zip(layouts, roots, strict=True)]
        key = (wanted, *likes)
        if OTHER in likes:
            return None
        if key not in self._made:
            symbolic = [None if like is None else LIKENESSES[like](root)
                        for like, root in zip(likes, roots, strict=True)]
            found = backward.part((wanted, *symbolic))
            self._made[key] = found, Templates(self.environment, found.graph, found.interface)
        found, templates = self._made[key]
        if not _fits(settler, found.interface, part.interface):
            return None
        return templates.plan(valuation)


def _row_major(root: Meta) -> Meta:
    return contiguous_meta(root.dtype, tuple(root.shape), root.device)


def _same(root: Meta) -> Meta:
    return root


def _expanded(root: Meta) -> Meta:
    return meta_of(root.dtype, tuple(root.shape), (0,) * root.ndim, root.device)


LIKENESSES = {"row-major": _row_major, "as the result": _same, "one number": _expanded}
"""How gradients mostly lie in memory: a function of the layout of the result."""

OTHER = "otherwise"


def _likeness(settler: Settler, meta: Meta | None, root: Meta) -> str | None:
    """How a gradient lies in memory; None if there is none."""
    if meta is None:
        return None
    for like, layout in LIKENESSES.items():
        if plain_meta(settler, layout(root)) is meta:
            return like
    return OTHER


def _fits(settler: Settler, symbolic: Interface, plain: Interface) -> bool:
    """Is an interface with symbolic sizes this one?"""
    layouts = zip([*symbolic.given, *symbolic.results], [*plain.given, *plain.results], strict=True)
    return all(plain_meta(settler, one) is other for one, other in layouts)
