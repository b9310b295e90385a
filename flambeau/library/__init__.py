"""`torch.library`: operators of users beside those of the table.

A custom operator is a Python function over tensors with a schema: which arguments it takes, which
of them it writes to. It may have kernels for devices, a gradient, a rule for vmap, a description
of its results for tensors without elements. Lives here: schemas, the registry, `torch.ops`. May not
live here: operators of PyTorch itself, which are records of flambeau/ops.
"""

from __future__ import annotations

from flambeau.library.checking import opcheck
from flambeau.library.custom import CustomOpDef, custom_op, triton_op, wrap_triton
from flambeau.library.libraries import (
    Library,
    _scoped_library,  # noqa: F401 - the name under which scripts know a library for one block
    define,
    fallthrough_kernel,
    get_kernel,
    impl,
    impl_abstract,
    register_autocast,
    register_autograd,
    register_fake,
    register_kernel,
    register_torch_dispatch,
    register_vmap,
)
from flambeau.library.operators import OpOverload, get_ctx
from flambeau.library.schema import infer_schema

__all__ = ["CustomOpDef", "Library", "OpOverload", "custom_op", "define", "fallthrough_kernel",
           "get_ctx", "get_kernel", "impl", "impl_abstract", "infer_schema", "opcheck",
           "register_autocast", "register_autograd", "register_fake", "register_kernel",
           "register_torch_dispatch", "register_vmap", "triton_op", "wrap_triton"]
