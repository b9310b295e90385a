"""IR -> native code: scheduling into loop nests, code generation, vector maths, GEMM, LLVM.

A graph becomes a run-list of *nests*: native functions `void nest(ptr args, i32 chunk, i32 nchunks,
i32 thread)` whose sizes, strides and scalars are run-time parameters. Nothing here runs code or
owns memory: that is runtime/.
"""

__all__: list[str] = []
