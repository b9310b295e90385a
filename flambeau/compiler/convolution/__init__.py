"""Convolutions: how each direction and memory format maps onto tiles.

`geometry` is the common description; `plan`, `winograd_plan`, `pointwise`, `unfolded`, `patches`,
`gradient_plan` and `grouped` make steps of it.
"""

__all__: list[str] = []
