"""Fast Fourier transforms: `plan.py` factors a length and computes its tables, `butterflies.py`
writes the transforms of a few points, `passes.py` the passes over a row or over rows side by side,
`ends.py` what comes before and after them (real transforms, lengths with large primes), `kernel.py`
the kernels, `step.py` the step of a program.

Which sums are formed depends on the length alone: not on strides, the number of rows or threads.
"""

__all__: list[str] = []
