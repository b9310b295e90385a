"""Memory and threads: what a compiled kernel needs in order to run on this machine.

    object_cache    compiled objects on disk
    loader          IR text in, address of native code out
    pool            the thread pool
    launch          programs (lists of kernels) and the native call that runs them
    executable      the compiler's plans as programs
    memory          the caching allocator; storage_types: its native types
    generator       the state of random streams
    native          Python functions and types made of JIT-compiled code

Here live addresses, bytes and threads. What does not: dtypes, shapes, operators, tensors, gradients
(those are above), and the making of IR for kernels (that is the compiler's). llvmlite is imported
with the first kernel, not with this package.
"""

__all__: list[str] = []
