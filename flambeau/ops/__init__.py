"""THE op table: each operation is defined once, here, one family a file.

`primitives/` holds what the compiler emits itself; every other op is a composite of those. Ops are
functions over `ir.Value`s: what users call on tensors is derived from these records by tensor/.
Nothing here may know tensors, memory or machine code (a primitive's `emit` is handed the
generator).
"""

__all__: list[str] = []
