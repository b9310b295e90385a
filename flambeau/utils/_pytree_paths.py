"""Paths through nested containers: where each leaf of a tree lies, as keys one inside the other."""

from __future__ import annotations

import collections
import dataclasses
import json
from collections.abc import Callable, Iterable
from typing import Any

from flambeau.utils import _pytree
from flambeau.utils._pytree import TreeSpec, tree_leaves, tree_unflatten

__all__ = ["GetAttrKey", "MappingKey", "SequenceKey", "arg_tree_leaves", "key_get", "keystr",
           "register_dataclass", "tree_all_only", "tree_any_only", "tree_flatten_with_path",
           "tree_is_leaf", "tree_leaves_with_path", "tree_map_with_path", "treespec_dumps",
           "treespec_loads"]


@dataclasses.dataclass(frozen=True)
class SequenceKey:
    """The place of an item in a list or tuple."""

    idx: int

    def __str__(self) -> str:
        return f"[{self.idx!r}]"

    def get(self, sequence: Any) -> Any:
        return sequence[self.idx]


@dataclasses.dataclass(frozen=True)
class MappingKey:
    """The key of a value in a dict."""

    key: Any

    def __str__(self) -> str:
        return f"[{self.key!r}]"

    def get(self, mapping: Any) -> Any:
        return mapping[self.key]


@dataclasses.dataclass(frozen=True)
class GetAttrKey:
    """The name of an attribute that is a child."""

    name: str

    def __str__(self) -> str:
        return f".{self.name}"

    def get(self, obj: Any) -> Any:
        return getattr(obj, self.name)


def keystr(kp: Iterable) -> str:
    """A path as one writes it in Python, without the name in front."""
    return "".join(map(str, kp))


def key_get(obj: Any, kp: Iterable) -> Any:
    """What lies at the end of a path through `obj`."""
    for key in kp:
        obj = key.get(obj)
    return obj


def _keys(tree: Any, count: int) -> list:
    """The keys of a container's children.

    Raises:
        ValueError: its class was registered without `flatten_with_keys_fn`.
    """
    if isinstance(tree, dict):
        return [MappingKey(key) for key in tree]
    if isinstance(tree, tuple) and hasattr(tree, "_fields"):
        return [GetAttrKey(name) for name in tree._fields]
    if isinstance(tree, (list, tuple, collections.deque)):
        return [SequenceKey(place) for place in range(count)]
    named = _pytree.KEYED.get(type(tree))
    if named is None:
        raise ValueError(f"Did not find a flatten_with_keys_fn for type: {type(tree)}. Please pass "
                         "a flatten_with_keys_fn argument to register_pytree_node.")
    return [key for key, _ in named(tree)[0]]


def tree_flatten_with_path(tree: Any, is_leaf: Callable[[Any], bool] | None = None
                           ) -> tuple[list, TreeSpec]:
    """([(path, leaf), ...], structure) of a tree."""
    found: list = []
    _walk(tree, (), found, is_leaf)
    return found, _pytree.tree_structure(tree, is_leaf)


def _walk(tree: Any, path: tuple, found: list, is_leaf: Callable | None) -> None:
    node = None if is_leaf is not None and is_leaf(tree) else _pytree._node_of(tree)
    if node is None:
        found.append((path, tree))
        return
    children = node.flatten(tree)[0]
    for key, child in zip(_keys(tree, len(children)), children, strict=True):
        _walk(child, (*path, key), found, is_leaf)


def tree_leaves_with_path(tree: Any, is_leaf: Callable[[Any], bool] | None = None) -> list:
    """The leaves of a tree, each with its path."""
    return tree_flatten_with_path(tree, is_leaf)[0]


def tree_map_with_path(func: Callable, tree: Any, *rests: Any,
                       is_leaf: Callable[[Any], bool] | None = None) -> Any:
    """The tree with `func(path, leaf, *leaves of rests)` in place of its leaves."""
    found, spec = tree_flatten_with_path(tree, is_leaf)
    others = [spec.flatten_up_to(rest) for rest in rests]
    return tree_unflatten([func(path, leaf, *more) for (path, leaf), *more in
                           zip(found, *others, strict=True)], spec)


def tree_is_leaf(tree: Any, is_leaf: Callable[[Any], bool] | None = None) -> bool:
    """Is it no container?"""
    return is_leaf is not None and is_leaf(tree) or _pytree._node_of(tree) is None


def tree_all_only(kinds: Any, pred: Callable[[Any], bool], tree: Any,
                  is_leaf: Callable[[Any], bool] | None = None) -> bool:
    """Does `pred` hold for all leaves of the given types?"""
    return all(pred(leaf) for leaf in tree_leaves(tree, is_leaf) if isinstance(leaf, kinds))


def tree_any_only(kinds: Any, pred: Callable[[Any], bool], tree: Any,
                  is_leaf: Callable[[Any], bool] | None = None) -> bool:
    """Does `pred` hold for a leaf of the given types?"""
    return any(pred(leaf) for leaf in tree_leaves(tree, is_leaf) if isinstance(leaf, kinds))


def arg_tree_leaves(*args: Any, **kwargs: Any) -> list:
    """The leaves of the arguments of a call."""
    return [leaf for arg in (*args, *kwargs.values()) for leaf in tree_leaves(arg)]


def register_dataclass(cls: type, *, field_names: Iterable[str] | None = None,
                       drop_field_names: Iterable[str] | None = None,
                       serialized_type_name: str | None = None) -> None:
    """Let instances of a dataclass count as containers of their fields.

    Args:
        field_names: those that are children, by default all that `__init__` takes.
        drop_field_names: those that are left out, and have defaults.

    Raises:
        ValueError: names that are no fields, or a class that is registered already.
    """
    known = [field.name for field in dataclasses.fields(cls) if field.init]
    dropped = set(drop_field_names or ())
    names = list(field_names) if field_names is not None else [n for n in known if n not in dropped]
    if wrong := {*names, *dropped} - set(known):
        raise ValueError(f"register_dataclass: {sorted(wrong)} are no fields of {cls}, which has "
                         f"{known}")

    def flatten(obj: Any) -> tuple[list, list]:
        present = [name for name in names if getattr(obj, name) is not None]
        missing = [name for name in names if name not in present]
        return [getattr(obj, name) for name in present], [present, missing]

    def unflatten(values: Iterable, context: list) -> Any:
        present, missing = context
        return cls(**dict(zip(present, values, strict=True)), **dict.fromkeys(missing))

    def with_keys(obj: Any) -> tuple[list, list]:
        values, context = flatten(obj)
        return [(GetAttrKey(name), value)
                for name, value in zip(context[0], values, strict=True)], context

    _pytree.register_pytree_node(cls, flatten, unflatten, flatten_with_keys_fn=with_keys,
                                 serialized_type_name=serialized_type_name)


# -- structures as text ---------------------------------------------------------------------------
_PROTOCOL = 1
_PLAIN = {f"{cls.__module__}.{cls.__qualname__}": cls for cls in (list, tuple, dict,
                                                                 collections.OrderedDict)}


def treespec_dumps(treespec: TreeSpec, protocol: int | None = None) -> str:
    """A structure of lists, tuples and dicts as JSON.

    Raises:
        NotImplementedError: a structure with other containers.
        ValueError: another protocol than 1.
    """
    if protocol not in (None, _PROTOCOL):
        raise ValueError(f"Unknown protocol {protocol}. Available protocols: [{_PROTOCOL}]")
    return json.dumps((_PROTOCOL, _described(treespec)))


def _described(spec: TreeSpec) -> dict:
    if spec.is_leaf():
        return {"type": None, "context": None, "children_spec": []}
    name = f"{spec.type.__module__}.{spec.type.__qualname__}"
    if _PLAIN.get(name) is not spec.type:
        raise NotImplementedError(f"Serializing {spec.type} in pytree is not registered: lists, "
                                  "tuples and dicts can be written down")
    return {"type": name, "context": json.dumps(spec.context),
            "children_spec": [_described(child) for child in spec.children_specs]}


def treespec_loads(serialized: str) -> TreeSpec:
    """The structure that `treespec_dumps` has written down."""
    protocol, described = json.loads(serialized)
    if protocol != _PROTOCOL:
        raise ValueError(f"Unknown protocol {protocol}. Available protocols: [{_PROTOCOL}]")
    return _rebuilt(described)


def _rebuilt(described: dict) -> TreeSpec:
    if described["type"] is None:
        return _pytree.LeafSpec()
    if described["type"] not in _PLAIN:
        raise NotImplementedError(f"Deserializing {described['type']} in pytree is not registered.")
    cls = _PLAIN[described["type"]]
    context = json.loads(described["context"])
    return TreeSpec(cls, tuple(context) if isinstance(context, list) else context,
                    [_rebuilt(child) for child in described["children_spec"]])
