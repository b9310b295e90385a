"""Kernels for sums over segments: products of compressed sparse matrices with dense ones."""

__all__: list[str] = []
