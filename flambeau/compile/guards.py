"""Guards: when a captured program may be used again, and which numbers it reads anew.

A program depends on layouts of tensors and on Python state (`reach.py`). Each program has one
generated function that looks at all of it, and one that computes its numbers; both are in
linecache.
"""

from __future__ import annotations

import itertools
import linecache
import operator
import weakref
from collections.abc import Callable
from typing import Any, NamedTuple

from flambeau.compile.reach import Place, Reach, is_plain, unchanged
from flambeau.core.followed import Followed, Readings
from flambeau.core.generated import define
from flambeau.core.symbolic import is_symbolic
from flambeau.tensor.meta import TensorBase

__all__ = ["Following", "Guard", "Sharing"]

_serial = itertools.count()
_FAULTS = (KeyError, IndexError, ValueError, AttributeError, TypeError, ArithmeticError)


class Names:
    """Objects by the names that generated code knows them under."""

    def __init__(self) -> None:
        self.space: dict[str, Any] = {"unchanged": unchanged, "Tensor": TensorBase}
        self._known: dict[int, str] = {}

    def of(self, item: Any) -> str:
        """The name of an object."""
        name = self._known.get(id(item))
        if name is None:
            name = self._known[id(item)] = f"o{len(self._known)}"
            self.space[name] = item  # keeps it alive, and so its id
        return name

    def reader(self, place: Place) -> str:
        """Source text that reads a place."""
        owner = self.of(place.owner)
        if place.kind == "item":
            simple = type(place.key) in (str, int)
            return f"{owner}[{place.key!r}]" if simple else f"{owner}[{self.of(place.key)}]"
        if place.kind == "cell":
            return f"{owner}.cell_contents"
        if place.kind == "attribute":
            return f"{owner}.{place.key}"
        return f"len({owner})" if place.kind == "size" else f"{self.of(place.now)}()"


class Following:
    """The numbers that are followed through one run, put in the place of plain ones.

    Attributes:
        names: of what the expressions read.
        readings: what became of the numbers.
        effects: (place, expression) of what the run has assigned to places.
    """

    def __init__(self) -> None:
        self.names = Names()
        self.readings = Readings()
        self.effects: list[tuple[Place, str]] = []
        self._put: list[tuple[Place, Followed]] = []

    def argument(self, position: int, value: Any) -> Followed:
        """A number among the arguments."""
        return Followed(value, f"numbers[{position}]", self.readings)

    def substitute(self, place: Place) -> None:
        """Follow the number at a place."""
        followed = Followed(place.before, self.names.reader(place), self.readings)
        self._put.append((place, followed))
        place.put(followed)

    def restore(self) -> None:
        """Put plain numbers back."""
        for place, followed in self._put:
            found = place.now()
            if found is followed:
                place.put(place.before)
            elif type(found) is Followed:
                place.put(found.value)
                self.effects.append((place, found.text))

    def settle(self, reach: Reach) -> list[str]:
        """Note what else the run has done to places; returns the paths of changes that a replay
        cannot repeat."""
        assigned = {id(place) for place, _ in self.effects}
        lost = []
        for path, space, name in reach.added():
            space[name] = _scrubbed(space[name], set())
            lost.append(path)
        lost += reach.used()
        for place in reach.places:
            now = place.now()
            if id(place) in assigned or not place.differs(now):
                continue
            if type(now) is Followed:
                place.put(now.value)
                self.effects.append((place, now.text))
            elif is_plain(now) and is_plain(place.before) and place.settable:
                self.effects.append((place, self.names.of(now)))
            else:
                clean = _scrubbed(place.owner if place.kind == "size" else now, set())
                if type(now) is tuple and place.settable:
                    place.put(clean)
                lost.append(place.path)
        return lost

    @property
    def followed(self) -> list[Place]:
        """The places whose numbers are inputs or conditions."""
        return [place for place, _ in self._put]


class Sharing(NamedTuple):
    """How arguments share memory with what a function reaches by itself.

    Attributes:
        owners: the storages that the function reaches.
        pinned: (argument, storage, bytes from its start) of arguments in those.
        apart: the other arguments.
    """

    owners: list[Any]
    pinned: list[tuple[int, Any, int]]
    apart: list[int]


class Guard:
    """What must be unchanged for a program to be valid.

    Attributes:
        holds: function of a call's (leaves, numbers, ids of their storages): may the program run?
        compute: function of the numbers: what the program reads, [...].
        finish: function of the numbers that repeats what the run did to Python state, or None.
    """

    def __init__(self, following: Following, places: list[Place], expressions: list[str],
                 computed: list[str], sources: list, memory: Sharing, used: set[int],
                 held: list, leaves: list):
        """`sources`: (tensor, spot, layout) of the program's inputs; `used`: ids of the
        tensors whose memory the program touches; `held`: (leaf, had it a gradient?); `leaves`:
        what the function reaches that requires grad."""
        self.sources = sources
        self.leaves = leaves
        self.used = used
        self.held = held
        self.names = following.names
        followed = {place.identity for place in following.followed}
        self.checked = [place for place in places if place.identity not in followed]
        self.conditions = dict(following.readings.conditions)
        self.kinds = [(place, type(place.before)) for place in following.followed]
        self.memory = memory
        number = next(_serial)
        self.holds = self._define("holds", number, self._checks())
        texts = dict.fromkeys([*expressions, *computed])
        self.compute = self._define("compute", number, [
            f"    return [{', '.join(expressions)}]"], "numbers")
        self.computed = None if not computed else self._define("computed", number, [
            "    return {" + ", ".join(f"{t!r}: {t}" for t in texts) + "}"], "numbers")
        self.finish = self._finisher(following, number) if following.effects else None

    def _define(self, name: str, number: int, body: list[str],
                arguments: str = "leaves, numbers, owners") -> Callable:
        source = "\n".join([f"def {name}({arguments}):", *body])
        filename = f"<flambeau {name} {number}>"
        weakref.finalize(self, linecache.cache.pop, filename, None)  # a program's text goes with it
        return define(name, source, filename, self.names.space)

    def _checks(self) -> list[str]:
        lines = ["    try:"]
        known = set()
        for tensor in self.leaves:
            known.add(id(tensor))
            lines.append(self._tensor_check(self.names.of(tensor), tensor, tensor._meta))
        for tensor, spot, meta in self.sources:
            if spot is None and id(tensor) not in known:
                lines.append(self._tensor_check(self.names.of(tensor), tensor, meta))
            elif spot.__class__ is tuple and spot[0] == "grad":
                owner = self._owner(spot[1])
                lines.append(f"        if {owner}._grad._meta is not {self.names.of(meta)}: "
                             "return False")
        for leaf, had in self.held:
            lines.append(f"        if {self._owner(leaf)}._grad is {'' if had else 'not '}None: "
                         "return False")
        for position, owner, offset in self.memory.pinned:
            name = self.names.of(owner)
            lines.append(f"        if owners[{position}] != {id(owner)} or "
                         f"leaves[{position}]._ptr - {name}.ptr != {offset}: return False")
        if self.memory.apart:
            self.names.space["own"] = frozenset(map(id, self.memory.owners))
            self.names.space["kept"] = self.memory.owners  # so that ids stay theirs
            among = "owners" if not self.memory.pinned else (
                f"[owners[i] for i in {self.memory.apart}]")
            lines.append(f"        if not own.isdisjoint({among}): return False")
        lines += map(self._place_check, self.checked)
        for place, kind in self.kinds:
            lines.append(f"        if {self.names.reader(place)}.__class__ is not "
                         f"{kind.__name__}: return False")
        for text, value in self.conditions.items():
            wanted = str(value) if isinstance(value, (bool, int)) else self.names.of(value)
            test = f"not unchanged({text}, {wanted})" if type(value) is float else (
                f"({text}) != {wanted}")
            lines.append(f"        if {test}: return False")
        lines += ["    except faults:", "        return False", "    return True"]
        self.names.space["faults"] = _FAULTS
        return lines

    def _owner(self, spot: Any) -> str:
        return f"leaves[{spot}]" if spot.__class__ is int else self.names.of(spot)

    def _tensor_check(self, name: str, tensor: Any, meta: Any) -> str:
        hooks = f" or {name}._hooks is not {self.names.of(tensor._hooks)}" if tensor._rg else ""
        return (f"        if {name}._meta is not {self.names.of(meta)} or {name}._rg is not "
                f"{tensor._rg}{hooks}: return False")

    def _place_check(self, place: Place) -> str:
        reader, value = self.names.reader(place), place.before
        if place.kind == "size":
            return f"        if {reader} != {value}: return False"
        if value is None or value is True or value is False:
            return f"        if {reader} is not {value}: return False"
        if isinstance(value, TensorBase) and id(value) not in self.used:
            return (f"        if {reader}._meta is not {self.names.of(value._meta)} or "
                    f"{reader}._rg is not {value._rg}: return False")
        name = self.names.of(value)
        if is_plain(value):
            return (f"        if {reader} is not {name} and not unchanged({reader}, {name}): "
                    "return False")
        if place.kind == "content":
            return f"        if {reader} != {name}: return False"
        return f"        if {reader} is not {name}: return False"

    def _finisher(self, following: Following, number: int) -> Callable:
        """All right sides are computed before anything is assigned."""
        values = [f"    v{i} = {text}" for i, (_, text) in enumerate(following.effects)]
        puts = [f"    {self.names.of(place.put)}(v{i})"
                for i, (place, _) in enumerate(following.effects)]
        return self._define("finish", number, values + puts, "numbers")

    def changed(self, leaves: list, numbers: list) -> tuple[str, list[Place]]:
        """(what has changed in plain words, the places that hold another number)."""
        found: list[Place] = []
        reason = ""
        for place in self.checked:
            now = place.now()
            if place.differs(now):
                reason = reason or _described(place, now)
                if type(now) in (int, float) and type(place.before) in (int, float):
                    found.append(place)
        if reason:
            return reason, found
        for tensor, spot, meta in self.sources:
            if spot is None and tensor._meta is not meta:
                return f"the layout of a tensor of shape {list(meta.shape)}", found
            if spot.__class__ is tuple and spot[0] == "grad" and _gradient(
                    spot[1], leaves) is not meta:
                return f"the gradient of a tensor of shape {list(meta.shape)}", found
        for leaf, had in self.held:
            if (_gradient(leaf, leaves) is not None) is not had:
                return "whether a tensor has a gradient", found
        for text, value in self.conditions.items():
            try:
                now = eval(text, self.names.space, {"numbers": numbers})
            except _FAULTS:
                return "a number that decides what is computed", found
            if not unchanged(now, value):
                return f"{self._readable(text)}, which was {value!r} and is {now!r},", found
        return "requires_grad, hooks or memory of a tensor", found

    def _readable(self, text: str) -> str:
        """An expression with the user's names of places."""
        readers = {self.names.reader(place): place.path for place, _ in self.kinds}
        for reader in sorted(readers, key=len, reverse=True):
            text = text.replace(reader, readers[reader])
        return text


def _scrubbed(item: Any, seen: set[int]) -> Any:
    """`item` with plain numbers instead of followed and symbolic ones, also in what the run has put
    into it: the same object, unless it is a number or a tuple."""
    kind = type(item)
    if kind is Followed:
        return item.value
    if is_symbolic(item):
        return item.env.pin(item)
    if kind is tuple:
        items = tuple([_scrubbed(each, seen) for each in item])
        return item if all(map(operator.is_, items, item)) else items
    if id(item) in seen or len(seen) > _MOST_SCRUBBED or isinstance(item, (TensorBase, type)):
        return item
    held = item if isinstance(item, (list, dict)) else getattr(item, "__dict__", None)
    if type(held) is list or isinstance(held, dict):
        seen.add(id(item))
        for key, each in enumerate(held) if type(held) is list else list(held.items()):
            clean = _scrubbed(each, seen)
            if clean is not each:
                held[key] = clean
    return item


_MOST_SCRUBBED = 10_000  # objects that are looked through for numbers that are still followed


def _gradient(spot: Any, leaves: list) -> Any:
    """The layout of a tensor's gradient, or None."""
    grad = (leaves[spot] if spot.__class__ is int else spot)._grad
    return None if grad is None else grad._meta


def _described(place: Place, now: Any) -> str:
    if is_plain(place.before) and is_plain(now):
        return f"{place.path!r}, which was {place.before!r} and is {now!r},"
    if place.kind == "size":
        return f"{place.path!r}, which was {place.before}"
    return f"{place.path!r}"
