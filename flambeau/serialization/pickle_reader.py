"""A machine for pickle's opcodes that cannot run code.

It never imports. A name in the pickle is looked up in a table of rules and yields what the rule
says or an error; REDUCE, NEWOBJ and BUILD, the opcodes through which pickles execute, work on rules
alone. What a hostile file could use to fill memory or burn time (copies of copies, huge keys) is
bounded by the size of the file.
"""

from __future__ import annotations

import dataclasses
import io
import pickle
import pickletools
import struct
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable, Mapping
from typing import Any

from flambeau.serialization.errors import CheckpointError, CorruptError, TruncatedError, UnsafeError

__all__ = ["PickleMachine", "Rule", "names_in_pickle"]

_MAPPINGS = (dict, OrderedDict, Counter, defaultdict)
_MOST_KEY_NODES = 1000
_OLD_MODULES = {"__builtin__": "builtins", "copy_reg": "copyreg"}


@dataclasses.dataclass(frozen=True)
class Rule:
    """What a global name stands for and what may be done with it.

    Attributes:
        value: what the name yields.
        call: what REDUCE runs on it; None: it cannot be called.
        new: what NEWOBJ runs, given the arguments without the class; None: not allowed.
        build: what BUILD runs on (instance, state), if `value` is the exact type of the instance.
        costs: whether arguments count as copied (see `PickleMachine._spend`).
    """

    value: Any
    call: Callable[..., Any] | None = None
    new: Callable[..., Any] | None = None
    build: Callable[[Any, Any], None] | None = None
    costs: bool = True


class PickleMachine:
    """Runs one pickle.

    Args:
        data: the bytes; the pickle starts at `start`.
        find: rule of a dotted name, or an UnsafeError.
        builders: what BUILD runs on (instance, state), by the exact type of the instance.
        persistent_load: what BINPERSID yields for an id.
        encoding: of byte strings written by Python 2; "bytes" leaves them as bytes.
    """

    def __init__(self, data: bytes, find: Callable[[str], Rule],
                 persistent_load: Callable[[Any], Any], *,
                 builders: Mapping[type, Callable[[Any, Any], None]] | None = None,
                 start: int = 0, encoding: str = "utf-8"):
        self.data, self.at = data, start
        self.find, self.persistent_load, self.encoding = find, persistent_load, encoding
        self.stack: list[Any] = []
        self.marks: list[list[Any]] = []
        self.memo: dict[int, Any] = {}
        self.rules: dict[int, Rule] = {}  # by id(rule.value); the rules keep the values alive
        self.builders = dict(builders or {})
        self._budget = 1_000_000 + 16 * len(data)

    def run(self) -> Any:
        """The unpickled object; afterwards `at` is the position after the pickle.

        Raises:
            TruncatedError, CorruptError, UnsafeError: as their docstrings say.
        """
        data, steps = self.data, _STEPS
        try:
            while True:
                opcode = data[self.at]
                self.at += 1
                step = steps[opcode]
                if step is not None:
                    step(self)
                elif opcode == 0x2E:  # STOP
                    return self._pop()
                else:
                    self._refuse(opcode)
        except CheckpointError:
            raise
        except (IndexError, struct.error) as error:
            if self.at >= len(data) - 8:
                raise TruncatedError(f"the pickle ends in the middle, after {len(data)} bytes; "
                                     "get the file again") from None
            raise self._damaged(error) from error
        except (LookupError, ValueError, TypeError, AttributeError, OverflowError) as error:
            raise self._damaged(error) from error

    def _damaged(self, error: Exception) -> CorruptError:
        return CorruptError(f"damaged pickle at byte {self.at}: {type(error).__name__}: {error}")

    def _refuse(self, opcode: int) -> None:
        known = pickletools.code2op.get(chr(opcode))
        name = known.name if known else hex(opcode)
        raise CorruptError(
            f"pickle opcode {name} at byte {self.at - 1} is not one that checkpoints use. Save "
            "with pickle protocol 2 (the default of torch.save)"
        )

    # -- reading -------------------------------------------------------------------------------

    def _take(self, count: int) -> bytes:
        end = self.at + count
        if end > len(self.data):
            raise TruncatedError(f"the pickle promises {count} more bytes at byte {self.at}, but "
                                 f"only {len(self.data) - self.at} are left")
        taken = self.data[self.at:end]
        self.at = end
        return taken

    def _number(self, layout: struct.Struct) -> Any:
        (value,) = layout.unpack_from(self.data, self.at)
        self.at += layout.size
        return value

    def _line(self) -> str:
        end = self.data.find(b"\n", self.at)
        if end < 0:
            raise TruncatedError("the pickle ends in the middle of a name")
        line = self.data[self.at:end].decode("utf-8")
        self.at = end + 1
        return line

    def _pop(self) -> Any:
        return self.stack.pop()

    def _pop_mark(self) -> list[Any]:
        items = self.stack
        self.stack = self.marks.pop()
        return items

    def _spend(self, amount: int) -> None:
        """Count work that a memoized argument lets a small file ask for again and again."""
        self._budget -= amount
        if self._budget < 0:
            raise CorruptError("the pickle asks for far more work than its size allows; it looks "
                               "made to exhaust memory or time")

    def _spend_for(self, arguments: tuple) -> None:
        for argument in arguments:
            if isinstance(argument, str | bytes | bytearray | list | tuple | dict | set):
                self._spend(len(argument))
            if type(argument) in (list, tuple):
                for item in argument:
                    self._check_key(item)

    # -- constants -----------------------------------------------------------------------------

    def _protocol(self) -> None:
        protocol = self._take(1)[0]
        if protocol > 5:
            raise CorruptError(f"pickle protocol {protocol} does not exist (yet); save with "
                               "protocol 2")

    def _frame(self) -> None:
        self.at += 8

    def _text(self, count: int) -> None:
        self.stack.append(str(self._take(count), "utf-8", "surrogatepass"))

    def _bytes(self, count: int) -> None:
        self.stack.append(bytes(self._take(count)))

    def _python2_string(self, count: int) -> None:
        raw = self._take(count)
        self.stack.append(raw if self.encoding == "bytes" else raw.decode(self.encoding))

    def _long(self, count: int) -> None:
        if count < 0:
            raise CorruptError(f"an integer of {count} bytes at byte {self.at}")
        self.stack.append(int.from_bytes(self._take(count), "little", signed=True))

    # -- memo ----------------------------------------------------------------------------------

    def _put(self, index: int) -> None:
        self.memo[index] = self.stack[-1]

    def _get(self, index: int) -> None:
        if index not in self.memo:
            raise CorruptError(f"memo {index} is read before it is written, at byte {self.at}")
        self.stack.append(self.memo[index])

    # -- containers ----------------------------------------------------------------------------

    def _mark(self) -> None:
        self.marks.append(self.stack)
        self.stack = []

    def _tuple(self, count: int) -> None:
        items = tuple(self.stack[-count:])
        if len(items) != count:
            raise IndexError("stack")
        self.stack[-count:] = [items]

    def _append(self) -> None:
        value = self._pop()
        self._list_on_top().append(value)

    def _appends(self) -> None:
        items = self._pop_mark()
        self._list_on_top().extend(items)

    def _list_on_top(self) -> list[Any] | deque[Any]:
        if type(self.stack[-1]) not in (list, deque):
            raise UnsafeError(f"items are appended to a {type(self.stack[-1]).__name__}, which is "
                              "no list")
        return self.stack[-1]

    def _set_item(self) -> None:
        value, key = self._pop(), self._pop()
        self._set_pairs([key, value])

    def _set_items(self) -> None:
        self._set_pairs(self._pop_mark())

    def _set_pairs(self, pairs: list[Any]) -> None:
        target = self.stack[-1]
        put = self._set_item_of(target)
        if put is None:
            raise UnsafeError(f"items are set on a {type(target).__name__}, which is no dict, "
                              "OrderedDict, defaultdict or Counter")
        if len(pairs) % 2:
            raise CorruptError(f"a dict key without value at byte {self.at}")
        for i in range(0, len(pairs), 2):
            self._check_key(pairs[i])
            put(target, pairs[i], pairs[i + 1])

    def _set_item_of(self, target: Any) -> Callable[[Any, Any, Any], None] | None:
        """How items are set on a mapping; subclasses of dict get them as plain dicts do."""
        kind = type(target)
        if kind in _MAPPINGS:
            return kind.__setitem__
        return dict.__setitem__ if isinstance(target, dict) and kind in self.builders else None

    def _add_items(self) -> None:
        items = self._pop_mark()
        if type(self.stack[-1]) is not set:
            raise UnsafeError(f"items are added to a {type(self.stack[-1]).__name__}, which is no "
                              "set")
        for item in items:
            self._check_key(item)
        self.stack[-1].update(items)

    def _frozenset(self) -> None:
        items = self._pop_mark()
        for item in items:
            self._check_key(item)
        self.stack.append(frozenset(items))

    def _check_key(self, key: Any) -> None:
        """Bound the work of hashing: tuples may nest deeply and share their parts."""
        if type(key) is int:
            self._spend(key.bit_length() >> 6)
        elif type(key) in (tuple, frozenset):
            nodes, waiting = 0, [key]
            while waiting:
                nodes += 1
                if nodes > _MOST_KEY_NODES:
                    raise CorruptError("a dict key is a tuple of more than "
                                       f"{_MOST_KEY_NODES} parts; the file looks made to mislead")
                part = waiting.pop()
                if isinstance(part, tuple | frozenset):
                    waiting.extend(part)
            self._spend(nodes)

    # -- globals and objects -------------------------------------------------------------------

    def _global(self) -> None:
        module, name = self._line(), self._line()
        self._push_global(module, name)

    def _stack_global(self) -> None:
        name, module = self._pop(), self._pop()
        if type(name) is not str or type(module) is not str:
            raise CorruptError(f"a global's name is no string, at byte {self.at}")
        self._push_global(module, name)

    def _push_global(self, module: str, name: str) -> None:
        rule = self.find(f"{_OLD_MODULES.get(module, module)}.{name}")
        self.rules[id(rule.value)] = rule
        if rule.build is not None:
            self.builders[rule.value] = rule.build
        self.stack.append(rule.value)

    def _arguments(self) -> tuple:
        arguments = self._pop()
        if type(arguments) is not tuple:
            raise CorruptError(f"arguments are no tuple, at byte {self.at}")
        return arguments

    def _reduce(self) -> None:
        arguments = self._arguments()
        rule = self.rules.get(id(self.stack[-1]))
        if rule is None or rule.call is None:
            raise UnsafeError(f"the file calls {_kind(self.stack[-1])}, which may not be called")
        if rule.costs:
            self._spend_for(arguments)
        self.stack[-1] = rule.call(*arguments)

    def _new_object(self) -> None:
        arguments = self._arguments()
        self._make_new(arguments, {})

    def _new_object_ex(self) -> None:
        keywords = self._pop()
        self._make_new(self._arguments(), keywords)

    def _make_new(self, arguments: tuple, keywords: dict) -> None:
        rule = self.rules.get(id(self.stack[-1]))
        if rule is None or rule.new is None:
            raise UnsafeError(f"the file creates an instance of {_kind(self.stack[-1])}, which is "
                              "not allowed")
        if rule.costs:
            self._spend_for(arguments)
        self.stack[-1] = rule.new(*arguments, **keywords)

    def _build(self) -> None:
        state = self._pop()
        instance = self.stack[-1]
        build = self.builders.get(type(instance))
        if build is None:
            raise UnsafeError(f"the file sets the state of {_kind(instance)}, which is not allowed")
        build(instance, state)

    def _persistent(self) -> None:
        self.stack.append(self.persistent_load(self._pop()))


def _kind(value: Any) -> str:
    if isinstance(value, type):
        return f"{value.__module__}.{value.__qualname__}"
    named = getattr(value, "__qualname__", None)
    return named if isinstance(named, str) else f"a {type(value).__name__}"


def _constant(value: Any) -> Callable[[PickleMachine], None]:
    def push_constant(machine: PickleMachine) -> None:
        machine.stack.append(value)
    return push_constant


def _fresh(factory: Callable[[], Any]) -> Callable[[PickleMachine], None]:
    def push_fresh(machine: PickleMachine) -> None:
        machine.stack.append(factory())
    return push_fresh


def _number(layout: str) -> Callable[[PickleMachine], None]:
    packed = struct.Struct(layout)

    def push_number(machine: PickleMachine) -> None:
        machine.stack.append(machine._number(packed))
    return push_number


def _counted(layout: str, use: Callable[[PickleMachine, int], None]) -> Callable:
    """A step whose argument is a length or an index in front."""
    packed = struct.Struct(layout)

    def read_counted(machine: PickleMachine) -> None:
        use(machine, machine._number(packed))
    return read_counted


def _tuple_of(count: int) -> Callable[[PickleMachine], None]:
    def make_tuple(machine: PickleMachine) -> None:
        machine._tuple(count)
    return make_tuple


def _tuple_from_mark(machine: PickleMachine) -> None:
    items = machine._pop_mark()
    machine.stack.append(tuple(items))


def _memoize(machine: PickleMachine) -> None:
    machine.memo[len(machine.memo)] = machine.stack[-1]


def _pop(machine: PickleMachine) -> None:
    if machine.stack:
        machine.stack.pop()
    else:
        machine._pop_mark()


def _pop_to_mark(machine: PickleMachine) -> None:
    machine._pop_mark()


def _duplicate(machine: PickleMachine) -> None:
    machine.stack.append(machine.stack[-1])


def _bytearray(machine: PickleMachine, count: int) -> None:
    machine.stack.append(bytearray(machine._take(count)))


_M = PickleMachine
_BY_OPCODE: Mapping[bytes, Callable[[PickleMachine], None]] = {
    pickle.PROTO: _M._protocol, pickle.FRAME: _M._frame,
    pickle.NONE: _constant(None),
    pickle.NEWTRUE: _constant(True), pickle.NEWFALSE: _constant(False),
    pickle.EMPTY_TUPLE: _constant(()),
    pickle.EMPTY_LIST: _fresh(list), pickle.EMPTY_DICT: _fresh(dict), pickle.EMPTY_SET: _fresh(set),
    pickle.BININT: _number("<i"), pickle.BININT1: _number("<B"), pickle.BININT2: _number("<H"),
    pickle.BINFLOAT: _number(">d"),
    pickle.LONG1: _counted("<B", _M._long), pickle.LONG4: _counted("<i", _M._long),
    pickle.BINUNICODE: _counted("<I", _M._text), pickle.SHORT_BINUNICODE: _counted("<B", _M._text),
    pickle.BINUNICODE8: _counted("<Q", _M._text),
    pickle.BINBYTES: _counted("<I", _M._bytes), pickle.SHORT_BINBYTES: _counted("<B", _M._bytes),
    pickle.BINBYTES8: _counted("<Q", _M._bytes), pickle.BYTEARRAY8: _counted("<Q", _bytearray),
    pickle.SHORT_BINSTRING: _counted("<B", _M._python2_string),
    pickle.BINSTRING: _counted("<I", _M._python2_string),
    pickle.BINPUT: _counted("<B", _M._put), pickle.LONG_BINPUT: _counted("<I", _M._put),
    pickle.BINGET: _counted("<B", _M._get), pickle.LONG_BINGET: _counted("<I", _M._get),
    pickle.MEMOIZE: _memoize, pickle.POP: _pop, pickle.POP_MARK: _pop_to_mark,
    pickle.DUP: _duplicate, pickle.MARK: _M._mark,
    pickle.TUPLE: _tuple_from_mark, pickle.TUPLE1: _tuple_of(1), pickle.TUPLE2: _tuple_of(2),
    pickle.TUPLE3: _tuple_of(3),
    pickle.APPEND: _M._append, pickle.APPENDS: _M._appends,
    pickle.SETITEM: _M._set_item, pickle.SETITEMS: _M._set_items,
    pickle.ADDITEMS: _M._add_items, pickle.FROZENSET: _M._frozenset,
    pickle.GLOBAL: _M._global, pickle.STACK_GLOBAL: _M._stack_global,
    pickle.REDUCE: _M._reduce, pickle.NEWOBJ: _M._new_object, pickle.NEWOBJ_EX: _M._new_object_ex,
    pickle.BUILD: _M._build, pickle.BINPERSID: _M._persistent,
}
_STEPS: list[Callable[[PickleMachine], None] | None] = [
    _BY_OPCODE.get(bytes([code])) for code in range(256)
]


def names_in_pickle(data: bytes, start: int = 0) -> tuple[list[str], int | None]:
    """The dotted names of all globals in a pickle, in order, and where it ends; runs nothing.

    A damaged pickle yields the names up to the damage, and None.
    """
    names: dict[str, None] = {}
    recent: list[str] = []  # the strings that STACK_GLOBAL takes, also through the memo
    memo: dict[int, str] = {}
    file = io.BytesIO(data)
    file.seek(start)
    try:
        for opcode, argument, _ in pickletools.genops(file):
            if opcode.name == "GLOBAL":
                module, _, name = argument.partition(" ")
                names[f"{_OLD_MODULES.get(module, module)}.{name}"] = None
            elif opcode.name == "STACK_GLOBAL" and len(recent) >= 2:
                names[f"{_OLD_MODULES.get(recent[-2], recent[-2])}.{recent[-1]}"] = None
            elif "UNICODE" in opcode.name:
                recent.append(argument)
            elif opcode.name == "MEMOIZE":
                memo[len(memo)] = recent[-1] if recent else ""
            elif opcode.name in ("BINPUT", "LONG_BINPUT"):
                memo[argument] = recent[-1] if recent else ""
            elif opcode.name in ("BINGET", "LONG_BINGET"):
                recent.append(memo.get(argument, ""))
    except (ValueError, IndexError, struct.error):
        return list(names), None
    return list(names), file.tell()
