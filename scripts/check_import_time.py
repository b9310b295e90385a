"""`import flambeau` stays fast and imports nothing heavy before it is used."""

from __future__ import annotations

import json
import subprocess
import sys

BUDGET_SECONDS = 0.25
RUNS = 7
# Each is imported by the first function that needs it.
FORBIDDEN = ("llvmlite", "scipy", "sklearn", "matplotlib", "tqdm", "torch", "argparse",
             "multiprocessing")

PROGRAM = """
import time
started = time.perf_counter()
import flambeau
seconds = time.perf_counter() - started
import json, sys
print(json.dumps([seconds, [name for name in sys.argv[1:] if name in sys.modules]]))
"""


def measure() -> tuple[float, list[str]]:
    """Seconds of one import in a fresh interpreter, and the forbidden modules it brought along."""
    command = [sys.executable, "-c", PROGRAM, *FORBIDDEN]
    result = subprocess.run(command, check=True, capture_output=True, text=True)
    seconds, loaded = json.loads(result.stdout)
    return seconds, loaded


def main() -> int:
    """Print the least of several times; returns 1 beyond the budget or with a forbidden module."""
    measured = [measure() for _ in range(RUNS)]
    seconds = min(seconds for seconds, _ in measured)
    loaded = measured[0][1]
    print(f"   import flambeau: {seconds:.3f} s of at most {BUDGET_SECONDS} s")
    for name in loaded:
        print(f"   import flambeau also imports {name}")
    return 1 if loaded or seconds > BUDGET_SECONDS else 0


if __name__ == "__main__":
    sys.exit(main())
