"""The kernel for margins between the targets of a row and its other classes."""

__all__: list[str] = []
