"""Matrix products: packing, register tiles, the loops around them, 16-bit and 8-bit operands.

What knows of images, sequences or attention lives elsewhere and uses these tiles.
"""

__all__: list[str] = []
