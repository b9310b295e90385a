"""Nested tensors: batches of tensors of different shapes, their numbers one after the other.

structure.py    which numbers belong to which part
tensor.py       `NestedTensor`, and how histories pass between it and its numbers
construct.py    what users make nested tensors with
shaping.py      rules of operations that move, choose, join and reduce
rules.py        operations: elementwise ones of the table as they are, others by rules of their own
"""

from flambeau.tensor.nested import rules

__all__: list[str] = []

del rules
