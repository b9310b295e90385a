"""What nodes of the tape show of what they keep: `grad_fn._saved_self`, `grad_fn._saved_result`.

Names are PyTorch's: the first argument of an operation is "self", its results are "result",
"result1", ...; other arguments have the names of their parameters. There is an attribute for what
the gradient needs (which PyTorch's formulas may take from elsewhere: its `_saved_result` may be a
`_saved_self` here) and for the arguments that are no tensors.
"""

from __future__ import annotations

from typing import Any

from flambeau.autograd import saved as saving
from flambeau.autograd.tape import RELEASED
from flambeau.tensor.meta import TensorBase

__all__ = ["names_of", "saved_value"]


def names_of(node: Any) -> dict[str, Any]:
    """name -> place among the saved tensors, or ("static", value)."""
    call, plan = node.tape_launch.call, node.tape_plan
    record = getattr(call, "record", None)
    found: dict[str, Any] = {}
    if record is None or plan is None:
        return found
    places = {number: place for place, number in enumerate(plan.saved_inputs)}
    for position, (param, (kind, value)) in enumerate(zip(record.params, call.structure,
                                                          strict=False)):
        name = "self" if position == 0 and param.name == "input" else param.name
        if kind == "input" and value in places:
            found[name] = places[value]
        elif kind == "static":
            found[name] = kind, value
    first = len(plan.saved_inputs)
    for place, number in enumerate(plan.saved_outputs):
        found[f"result{number or ''}"] = first + place
    return found


def saved_value(node: Any, attribute: str) -> Any:
    """The value of `_saved_<name>`, or the box of `_raw_saved_<name>`, which takes hooks.

    Raises:
        AttributeError: the node keeps nothing of this name.
        RuntimeError: what it kept was freed.
    """
    raw = attribute.startswith("_raw")
    name = attribute.removeprefix("_raw").removeprefix("_saved_")
    place = names_of(node).get(name)
    if place is None or raw and isinstance(place, tuple):
        raise AttributeError(f"{node.name()!r} object has no attribute {attribute!r}: it keeps "
                             f"{sorted(names_of(node)) or 'nothing'}")
    if isinstance(place, tuple):
        return place[1]
    if node.tape_saved is RELEASED:
        raise RuntimeError(saving.BACKWARD_TWICE)
    kept = node.tape_saved[place]
    if not isinstance(kept, TensorBase) and kept.__class__ is not saving.SavedTensor:
        return kept
    if raw:
        return _boxed(node, place)
    value = node._unpacked()[place]
    return value if kept.__class__ is saving.SavedTensor else node._with_history(
        node.tape_plan, node.tape_saved)[place]


def _boxed(node: Any, place: int) -> saving.SavedTensor:
    """The box of a saved tensor, which is put into one if it was kept without."""
    kept = node.tape_saved[place]
    if kept.__class__ is saving.SavedTensor:
        return kept
    first = len(node.tape_plan.saved_inputs)
    output = place >= first
    if output:
        kept._rg, kept._output_nr = True, node.tape_plan.saved_outputs[place - first]
    box = saving.SavedTensor(kept, output, node.tape_versions[place], node.tape_where)
    node.tape_saved = [box if n == place else item for n, item in enumerate(node.tape_saved)]
    node.tape_versions = [None if n == place else v for n, v in enumerate(node.tape_versions)]
    return box
