"""Sparse tensors: a pattern (where elements are) and values, both made of dense tensors.

patterns.py     COO and compressed patterns, and what follows from them alone
tensor.py       `SparseTensor`, and the two nodes by which histories pass between it and its values
construct.py    what users make sparse tensors with, and the checks of their indices
convert.py      between layouts, dense tensors included
shaping.py elementwise.py products.py reductions.py
                rules: what operations of the table do with sparse tensors
rules.py        which rule is whose
methods.py      methods of Tensor that are about sparse tensors

Rules compute with operations of the table on indices and values, so derivatives of every order
follow. The gradient of a sparse tensor is always sparse, with its pattern.
"""

from flambeau.tensor.sparse import rules

__all__: list[str] = []

del rules
