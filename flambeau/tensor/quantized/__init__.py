"""Quantized tensors: integers, and the scale and zero point by which they stand for numbers.

schemes.py    how integers stand for numbers: schemes, quantizers, dynamic ranges
tensor.py     `QuantizedTensor`: levels (an ordinary tensor of integers) and a quantizer
rules.py      what operations of the table do with quantized tensors
construct.py  what users make them with, and functions of quantized tensors only

Views of a quantized tensor are views of its levels, so memory is shared as everywhere. What keeps
the order of numbers works on levels; everything else goes through float32, or is refused. Nothing
here is differentiable (as in PyTorch): training plays quantisation through in floating point.
"""

from flambeau.tensor.quantized import rules

__all__: list[str] = []

del rules
