"""Running small programs under Flambeau or PyTorch and comparing what they print.

As a program, `python tests/programs.py FRAMEWORK FILE...` runs the files in one process and prints
a JSON object {file name: output}. With `torch`, `import flambeau` in the files means PyTorch: that
is the promise turned round.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import math
import re
import runpy
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

__all__ = ["ROOT", "TOUR", "run_file", "run_apart", "differences"]

ROOT = Path(__file__).resolve().parents[1]
TOUR = sorted((ROOT / "examples" / "tour").glob("*.py"))

# A number as Python, NumPy or a tensor prints it, with its sign or the space that stands in for
# one, so that spacing is compared too; `inf` and `nan` compare as text.
NUMBER = re.compile(r"[-+ ]?(?:\d+\.?\d*|\.\d+)(?:e[-+]?\d+)?")


def run_file(path: Path) -> str:
    """What the program prints to standard output, run in this process."""
    output = io.StringIO()
    with contextlib.redirect_stdout(output):
        runpy.run_path(str(path), run_name="__main__")
    return output.getvalue()


def run_apart(framework: str, paths: Iterable[Path]) -> dict[str, str]:
    """What each program prints under "flambeau" or "torch", in one process, by file name."""
    command = [sys.executable, str(Path(__file__).resolve()), framework, *map(str, paths)]
    result = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    if result.returncode:
        raise AssertionError(f"under {framework}:\n{result.stderr}")
    return json.loads(result.stdout)


def differences(expected: str, found: str,
                relative: float = 1e-4, absolute: float = 1e-6) -> list[str]:
    """The lines that differ, empty when none does.

    Text and spacing must be equal. Whole numbers must be equal; numbers with a point or an exponent
    may differ by `absolute + relative * |expected|`, or by one unit of the last digit that is
    printed.
    """
    expected_lines, found_lines = expected.splitlines(), found.splitlines()
    pairs = enumerate(zip(expected_lines, found_lines, strict=False), 1)
    wrong = [f"line {number}: expected {line!r}, found {other!r}" for number, (line, other) in pairs
             if not same_line(line, other, relative, absolute)]
    if len(expected_lines) != len(found_lines):
        wrong.append(f"expected {len(expected_lines)} lines, found {len(found_lines)}")
    return wrong


def same_line(expected: str, found: str, relative: float, absolute: float) -> bool:
    """Whether two lines are equal up to the tolerance in their numbers."""
    if expected == found:
        return True
    if NUMBER.sub("#", expected) != NUMBER.sub("#", found):
        return False
    return all(same_number(a, b, relative, absolute)
               for a, b in zip(NUMBER.findall(expected), NUMBER.findall(found), strict=True))


def same_number(expected: str, found: str, relative: float, absolute: float) -> bool:
    """Whether two printed numbers are equal up to the tolerance."""
    if expected == found:
        return True
    if not set(".e") & set(expected + found):
        return False
    unit = 1.01 * max(last_digit(expected), last_digit(found))
    allowed = max(unit, absolute + relative * abs(float(expected)))
    return math.isclose(float(expected), float(found), rel_tol=0.0, abs_tol=allowed)


def last_digit(text: str) -> float:
    """The value of one unit in the last printed place: "1.250e-3" -> 1e-6."""
    mantissa, _, exponent = text.partition("e")
    decimals = len(mantissa.partition(".")[2])
    return 10.0 ** (int(exponent or 0) - decimals)


def pretend(framework: str) -> None:
    """Let `import flambeau` and its submodules mean the loaded modules of `framework`."""
    for name in ("", ".nn.functional", ".optim.lr_scheduler", ".utils.data", ".autograd"):
        importlib.import_module(framework + name)
    for name, module in list(sys.modules.items()):
        if name == framework or name.startswith(framework + "."):
            sys.modules["flambeau" + name.removeprefix(framework)] = module


def main() -> None:
    """Run the files named on the command line and print their outputs as JSON."""
    framework, *paths = sys.argv[1:]
    if framework == "flambeau":
        sys.path.insert(0, str(ROOT))
    else:
        pretend(framework)
    print(json.dumps({Path(path).name: run_file(Path(path)) for path in paths}))


if __name__ == "__main__":
    main()
