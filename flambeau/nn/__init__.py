"""Neural network modules, as in torch.nn.

Lives here: module classes, parameters, initialization, the functional names. May not live here:
kernels, gradients, dispatch; those are ops, reached through `flambeau.nn.functional`.
"""

from flambeau.nn import attention, functional, init, parallel, utils
from flambeau.nn import modules as modules
from flambeau.nn._factory import factory_kwargs
from flambeau.nn._linear_loss import LinearCrossEntropyOptions
from flambeau.nn.modules import *  # noqa: F403 - the module classes, listed in modules.__all__
from flambeau.nn.modules import __all__ as _module_names
from flambeau.nn.parallel import DataParallel
from flambeau.nn.parameter import (
    Buffer,
    Parameter,
    UninitializedBuffer,
    UninitializedParameter,
)

__all__ = [*_module_names, "Buffer", "DataParallel", "LinearCrossEntropyOptions", "Parameter",
           "UninitializedBuffer", "UninitializedParameter", "attention", "factory_kwargs",
           "functional", "init",
           "modules", "parallel", "utils"]
