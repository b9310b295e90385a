"""Timing statements: `Timer` runs them, `Measurement` is what came out, `Compare` makes a table."""

from flambeau.utils.benchmark.compare import Compare
from flambeau.utils.benchmark.fuzzing import (
    FuzzedParameter,
    FuzzedTensor,
    Fuzzer,
    ParameterAlias,
)
from flambeau.utils.benchmark.measurement import (
    Measurement,
    TaskSpec,
    select_unit,
    trim_sigfig,
)
from flambeau.utils.benchmark.timer import Timer

__all__ = ["Compare", "FuzzedParameter", "FuzzedTensor", "Fuzzer", "Measurement",
           "ParameterAlias", "TaskSpec", "Timer", "select_unit", "trim_sigfig"]
