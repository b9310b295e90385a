"""`import flambeau` stays fast and imports nothing heavy before it is used.

Names are resolved when they are first used, so a second figure tells what a program pays that
goes on to use tensors, modules and optimizers. Both have to stay within the budget. Measured is the
processor's time: on an idle machine that is the time on the clock, on a busy one it still is ours.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys

BUDGET_SECONDS = {"import flambeau": 0.25, "... and its tensors, nn and optim": 0.6}
RUNS = 7
# Each is imported by the first function that needs it.
FORBIDDEN = ("llvmlite", "scipy", "sklearn", "matplotlib", "tqdm", "torch", "multiprocessing")
STATEMENTS = {
    "import flambeau": "import flambeau",
    "... and its tensors, nn and optim":
        "import flambeau; flambeau.Tensor, flambeau.nn.Module, flambeau.optim.Adam",
}

PROGRAM = """
import time
started = time.process_time()
{statement}
seconds = time.process_time() - started
import json, sys
print(json.dumps([seconds, [name for name in sys.argv[1:] if name in sys.modules]]))
"""


def measure(statement: str) -> tuple[float, list[str]]:
    """Seconds of a statement in a fresh interpreter, and the forbidden modules it brought along."""
    command = [sys.executable, "-c", PROGRAM.format(statement=statement), *FORBIDDEN]
    # warm means: with bytecode on disk, whatever the environment says of writing it
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": ""}
    result = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    seconds, loaded = json.loads(result.stdout)
    return seconds, loaded


def main() -> int:
    """Print the least of several times; returns 1 beyond the budget or with a forbidden module."""
    status = 0
    for name, statement in STATEMENTS.items():
        measured = [measure(statement) for _ in range(RUNS)]
        seconds = min(seconds for seconds, _ in measured)
        print(f"   {name}: {seconds:.3f} s of at most {BUDGET_SECONDS[name]} s")
        if seconds > BUDGET_SECONDS[name]:
            status = 1
        for heavy in measured[0][1]:
            print(f"   {name} also imports {heavy}")
            status = 1
    return status


if __name__ == "__main__":
    sys.exit(main())
