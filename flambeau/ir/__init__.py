"""What a program is: typed values, primitives, rewriting, verification, printing.

Programs are directed acyclic graphs of `Value`s with concrete shapes. Nothing here knows machine
code (compiler/), memory (runtime/) or users' tensors (tensor/).
"""

__all__: list[str] = []
