"""Kernels for sums over segments: products of compressed sparse matrices with dense ones."""
