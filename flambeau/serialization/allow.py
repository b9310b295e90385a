"""What one loading may name: the built-in rules, what rebuilds tensors, the user's additions."""

from __future__ import annotations

from collections.abc import Callable

from flambeau.serialization.errors import UnsafeError
from flambeau.serialization.globals import is_blocked, plain_builders, plain_rules, user_rule
from flambeau.serialization.pickle_reader import Rule, names_in_pickle
from flambeau.serialization.rebuild import Rebuilder, parameter_rule
from flambeau.serialization.tensors import TensorAdapter
from flambeau.serialization.trusted import trusted_rule

__all__ = ["AllowList"]

_TENSORS = ("torch.Tensor", "torch._tensor.Tensor")
_PARAMETERS = ("torch.nn.parameter.Parameter", "torch.nn.Parameter")


class AllowList:
    """Looks up names for a PickleMachine.

    Args:
        tensors: the tensor library.
        read_pickle: the bytes of the pickles, read again only to explain a refusal.
        trusting: allow classes that the program has imported, too (`weights_only=False`).

    Attributes:
        rebuilder: what makes the tensors.
    """

    def __init__(self, tensors: TensorAdapter, read_pickle: Callable[[], bytes],
                 trusting: bool = False):
        self._tensors, self._read_pickle, self._trusting = tensors, read_pickle, trusting
        self.rebuilder = Rebuilder(tensors)
        self._rules = {**plain_rules(tensors), **self.rebuilder.rules()}
        self.builders = plain_builders()

    def find(self, name: str) -> Rule:
        """The rule of `name`.

        Raises:
            UnsafeError: nothing allows it; the message lists all that the file needs.
        """
        rule = self._lookup(name)
        if rule is None:
            raise UnsafeError(self._explain(name))
        return rule

    def _lookup(self, name: str) -> Rule | None:
        rule = self._rules.get(name)
        if rule is not None:
            return rule
        if name in _TENSORS:
            return Rule(self._tensors.tensor_type)
        if name in _PARAMETERS:
            return parameter_rule(self.rebuilder)
        rule = None if is_blocked(name) else user_rule(name)
        if rule is None and self._trusting:
            return trusted_rule(name, self._tensors)
        if rule is not None and isinstance(rule.value, type) and issubclass(
                rule.value, self._tensors.tensor_type):
            # Tensors of it come from the rebuilding functions only: giving an instance any state
            # would let the file choose which memory it reads.
            return Rule(rule.value)
        return rule

    def refused_names(self) -> list[str]:
        """All names in the file that are not allowed, in order."""
        data, start, names = self._read_pickle(), 0, {}
        for _ in range(4):  # the old format: magic number, version, system, object
            found, end = names_in_pickle(data, start)
            names.update(dict.fromkeys(found))
            if end is None or end >= len(data):
                break
            start = end
        return [name for name in names if self._lookup(name) is None]

    def _explain(self, name: str) -> str:
        if is_blocked(name):
            return (f"it asks for {name}, which reaches the machine rather than data and is never "
                    "allowed. Do not trust this file")
        names = list(dict.fromkeys([name, *self.refused_names()]))
        listed = ", ".join(names)
        short = ", ".join(other.rpartition(".")[2] for other in names)
        if self._trusting:
            return (
                f"it needs {listed}. With weights_only=False, load() makes instances of classes "
                "that the program has imported before, and calls nothing: import their modules; "
                "functions, and classes that build themselves, have to be allowed by "
                f"torch.serialization.add_safe_globals([{short}])"
            )
        return (
            f"Unsupported global: GLOBAL {name} is not allowed by default. The file needs {listed}."
            " If you trust them with any state that the file may give them, import them and call "
            f"torch.serialization.add_safe_globals([{short}]) before loading, or load inside "
            f"`with torch.serialization.safe_globals([{short}]):`. Otherwise save only tensors, "
            "numbers, strings and containers, such as a state_dict"
        )
