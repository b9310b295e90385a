"""Scaled dot product attention, forward and backward, without a matrix of scores in memory."""

__all__: list[str] = []
