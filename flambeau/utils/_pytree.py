"""Nested containers ("pytrees"): taken apart into leaves and a structure, and put together again.

Containers are lists, tuples, named tuples, dicts, OrderedDicts, defaultdicts and deques, and the
types given to `register_pytree_node`. Everything else, None included, is a leaf.
"""

from __future__ import annotations

import collections
import importlib
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

__all__ = ["PyTree", "TreeSpec", "LeafSpec", "register_pytree_node", "tree_all", "tree_any",
           "tree_flatten", "tree_iter", "tree_leaves", "tree_map", "tree_map_", "tree_map_only",
           "tree_structure", "tree_unflatten", "treespec_pprint"]

PyTree = Any


class _Node(NamedTuple):
    """How a container comes apart: (children, context), and back from them."""

    flatten: Callable[[Any], tuple[list, Any]]
    unflatten: Callable[[Iterable, Any], Any]


def _flatten_sequence(tree: Any) -> tuple[list, Any]:
    return list(tree), None


def _flatten_mapping(tree: Any) -> tuple[list, Any]:
    return list(tree.values()), tuple(tree)


def _flatten_namedtuple(tree: Any) -> tuple[list, Any]:
    return list(tree), type(tree)


def _flatten_defaultdict(tree: Any) -> tuple[list, Any]:
    return list(tree.values()), (tree.default_factory, tuple(tree))


def _flatten_deque(tree: Any) -> tuple[list, Any]:
    return list(tree), tree.maxlen


def _make_list(items: Iterable, context: Any) -> list:
    return list(items)


def _make_tuple(items: Iterable, context: Any) -> tuple:
    return tuple(items)


def _make_dict(items: Iterable, context: Any) -> dict:
    return dict(zip(context, items, strict=True))


def _make_ordered(items: Iterable, context: Any) -> Any:
    return collections.OrderedDict(zip(context, items, strict=True))


def _make_namedtuple(items: Iterable, context: Any) -> Any:
    return context._make(items) if hasattr(context, "_make") else context(items)


def _make_defaultdict(items: Iterable, context: Any) -> Any:
    factory, keys = context
    return collections.defaultdict(factory, zip(keys, items, strict=True))


def _make_deque(items: Iterable, context: Any) -> Any:
    return collections.deque(items, maxlen=context)


SUPPORTED_NODES: dict[type, _Node] = {
    list: _Node(_flatten_sequence, _make_list),
    tuple: _Node(_flatten_sequence, _make_tuple),
    dict: _Node(_flatten_mapping, _make_dict),
    collections.OrderedDict: _Node(_flatten_mapping, _make_ordered),
    collections.defaultdict: _Node(_flatten_defaultdict, _make_defaultdict),
    collections.deque: _Node(_flatten_deque, _make_deque),
}
_NAMED = _Node(_flatten_namedtuple, _make_namedtuple)


KEYED: dict[type, Callable] = {}
"""Of registered classes, what gives their children with keys: tree -> ([(key, child)], context)."""


def register_pytree_node(cls: type, flatten_fn: Callable, unflatten_fn: Callable, *,
                         flatten_with_keys_fn: Callable | None = None, **options: Any) -> None:
    """Let instances of `cls` count as containers.

    Args:
        flatten_fn: tree -> (children, context); unflatten_fn: (children, context) -> tree.
        flatten_with_keys_fn: tree -> ([(key, child), ...], context), for paths.
        options: what PyTorch takes for serialisation; accepted and not needed.

    Raises:
        ValueError: the class is registered already.
    """
    if cls in SUPPORTED_NODES:
        raise ValueError(f"{cls} is already registered as pytree node.")

    def flatten(tree: Any) -> tuple[list, Any]:
        children, context = flatten_fn(tree)
        return list(children), context

    SUPPORTED_NODES[cls] = _Node(flatten, unflatten_fn)
    if flatten_with_keys_fn is not None:
        KEYED[cls] = flatten_with_keys_fn


_register_pytree_node = register_pytree_node


def _node_of(tree: Any) -> _Node | None:
    found = SUPPORTED_NODES.get(type(tree))
    if found is None and isinstance(tree, tuple) and hasattr(tree, "_fields"):
        return _NAMED
    return found


class TreeSpec:
    """The structure of a tree: its type, its context and the structures of its children."""

    __slots__ = ("type", "context", "children_specs", "num_leaves")

    def __init__(self, type: Any, context: Any, children_specs: list[TreeSpec]):
        self.type = type
        self.context = context
        self.children_specs = children_specs
        self.num_leaves = 1 if type is None else sum(c.num_leaves for c in children_specs)

    def is_leaf(self) -> bool:
        return self.type is None

    @property
    def num_children(self) -> int:
        return len(self.children_specs)

    @property
    def num_nodes(self) -> int:
        return 1 + sum(child.num_nodes for child in self.children_specs)

    def children(self) -> list[TreeSpec]:
        return list(self.children_specs)

    def child(self, index: int) -> TreeSpec:
        return self.children_specs[index]

    def unflatten(self, leaves: Iterable) -> Any:
        """The tree of this structure with these leaves."""
        return tree_unflatten(leaves, self)

    def flatten_up_to(self, tree: Any) -> list:
        """The subtrees of `tree` that stand where this structure has leaves.

        Raises:
            ValueError: the tree is not at least as deep as this structure.
        """
        if self.is_leaf():
            return [tree]
        node = _node_of(tree)
        children, context = node.flatten(tree) if node is not None else ([], None)
        if node is None or type(tree) is not self.type or len(children) != self.num_children or (
                context != self.context):
            raise ValueError(f"Type mismatch: expected a tree of structure {self}, but got "
                             f"{type(tree).__name__}")
        return [leaf for spec, child in zip(self.children_specs, children, strict=True)
                for leaf in spec.flatten_up_to(child)]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, TreeSpec) and (
            self.type is other.type and self.context == other.context
            and self.children_specs == other.children_specs)

    def __hash__(self) -> int:
        return hash((self.type, repr(self.context), tuple(self.children_specs)))

    def __repr__(self) -> str:
        if self.is_leaf():
            return "*"
        inside = ", ".join(map(repr, self.children_specs))
        return f"TreeSpec({self.type.__name__}, {self.context}, [{inside}])"


_LEAF = TreeSpec(None, None, [])


def LeafSpec() -> TreeSpec:
    """The structure of a leaf."""
    return _LEAF


def tree_flatten(tree: Any, is_leaf: Callable[[Any], bool] | None = None
                 ) -> tuple[list, TreeSpec]:
    """(leaves, structure) of a tree; what `is_leaf` says so of is not looked into."""
    leaves: list = []
    return leaves, _flatten_into(tree, leaves, is_leaf)


def _flatten_into(tree: Any, leaves: list, is_leaf: Callable | None) -> TreeSpec:
    node = None if is_leaf is not None and is_leaf(tree) else _node_of(tree)
    if node is None:
        leaves.append(tree)
        return _LEAF
    children, context = node.flatten(tree)
    return TreeSpec(type(tree), context, [_flatten_into(c, leaves, is_leaf) for c in children])


def tree_unflatten(leaves: Iterable, treespec: TreeSpec) -> Any:
    """The tree of a structure with these leaves.

    Raises:
        TypeError: not a TreeSpec. ValueError: another number of leaves.
    """
    if not isinstance(treespec, TreeSpec):
        raise TypeError("tree_unflatten(leaves, treespec): Expected `treespec` to be instance of "
                        f"TreeSpec but got item of type {type(treespec)}.")
    items = list(leaves)
    if len(items) != treespec.num_leaves:
        raise ValueError(f"tree_unflatten(leaves, treespec): `leaves` has length {len(items)} but "
                         f"the spec refers to a pytree that holds {treespec.num_leaves} items "
                         f"({treespec}).")
    return _unflatten_from(treespec, iter(items))


def _unflatten_from(spec: TreeSpec, leaves: Any) -> Any:
    if spec.is_leaf():
        return next(leaves)
    children = [_unflatten_from(child, leaves) for child in spec.children_specs]
    node = SUPPORTED_NODES.get(spec.type, _NAMED)
    return node.unflatten(children, spec.context)


def tree_leaves(tree: Any, is_leaf: Callable[[Any], bool] | None = None) -> list:
    """The leaves of a tree, in order."""
    return tree_flatten(tree, is_leaf)[0]


tree_iter = tree_leaves


def tree_structure(tree: Any, is_leaf: Callable[[Any], bool] | None = None) -> TreeSpec:
    """The structure of a tree."""
    return tree_flatten(tree, is_leaf)[1]


def tree_map(func: Callable, tree: Any, *rests: Any,
             is_leaf: Callable[[Any], bool] | None = None) -> Any:
    """The tree with `func` applied to each leaf (and what stands there in the other trees)."""
    leaves, spec = tree_flatten(tree, is_leaf)
    columns = [leaves, *[spec.flatten_up_to(rest) for rest in rests]]
    return tree_unflatten([func(*row) for row in zip(*columns, strict=True)], spec)


def tree_map_(func: Callable, tree: Any, *rests: Any,
              is_leaf: Callable[[Any], bool] | None = None) -> Any:
    """`tree_map` for what `func` does; returns the tree itself."""
    tree_map(func, tree, *rests, is_leaf=is_leaf)
    return tree


def tree_map_only(kinds: Any, func: Callable, tree: Any,
                  is_leaf: Callable[[Any], bool] | None = None) -> Any:
    """The tree with `func` applied to leaves of the given types (or for which they say so)."""
    wanted = kinds if callable(kinds) and not isinstance(kinds, type) else None

    def apply(leaf: Any) -> Any:
        hit = wanted(leaf) if wanted is not None else isinstance(leaf, kinds)
        return func(leaf) if hit else leaf

    return tree_map(apply, tree, is_leaf=is_leaf)


def tree_all(pred: Callable[[Any], bool], tree: Any) -> bool:
    """Does `pred` hold for all leaves?"""
    return all(map(pred, tree_leaves(tree)))


def tree_any(pred: Callable[[Any], bool], tree: Any) -> bool:
    """Does `pred` hold for a leaf?"""
    return any(map(pred, tree_leaves(tree)))


def treespec_pprint(treespec: TreeSpec) -> str:
    """The structure as text."""
    return repr(treespec)


def _broadcast_to_and_flatten(tree: Any, treespec: TreeSpec,
                              is_leaf: Callable[[Any], bool] | None = None) -> list | None:
    """`tree`, a prefix of the structure, with each of its leaves repeated for all leaves of the
    structure that lie below it; None if it is no prefix."""
    node = None if is_leaf is not None and is_leaf(tree) else _node_of(tree)
    if node is None:
        return [tree] * treespec.num_leaves
    if treespec.is_leaf() or type(tree) is not treespec.type:
        return None
    children, context = node.flatten(tree)
    if len(children) != treespec.num_children or context != treespec.context:
        return None
    result: list = []
    for child, spec in zip(children, treespec.children_specs, strict=True):
        flat = _broadcast_to_and_flatten(child, spec, is_leaf)
        if flat is None:
            return None
        result += flat
    return result


def __getattr__(name: str) -> Any:
    paths = importlib.import_module("flambeau.utils._pytree_paths")  # which needs this module
    if name in paths.__all__:
        return getattr(paths, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
