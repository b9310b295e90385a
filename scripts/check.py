"""All gates, one after the other: `make check`; `scripts/check.py layers ops` runs those two.

Every gate is a program of its own beside this one, which prints what it measured and exits 1 on a
violation.
"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

SCRIPTS = Path(__file__).resolve().parent

# From the fastest to the slowest, so that a mistake shows early.
GATES = {
    "lint": [sys.executable, "-m", "ruff", "check", "--quiet", "."],
    "sizes": [sys.executable, str(SCRIPTS / "check_sizes.py")],
    "layers": [sys.executable, str(SCRIPTS / "check_layers.py")],
    "dependencies": [sys.executable, str(SCRIPTS / "check_dependency_size.py")],
    "exports": [sys.executable, str(SCRIPTS / "check_exports.py")],
    "ops": [sys.executable, str(SCRIPTS / "check_ops.py")],
    "docs": [sys.executable, str(SCRIPTS / "make_docs.py"), "--check"],
    "stubs": [sys.executable, str(SCRIPTS / "make_stubs.py"), "--check"],
    "import": [sys.executable, str(SCRIPTS / "check_import_time.py")],
    "types": [sys.executable, "-m", "mypy", "--no-error-summary"],
}


def main(names: list[str]) -> int:
    """Run the named gates, or all; returns 1 if any failed."""
    unknown = [name for name in names if name not in GATES]
    if unknown:
        print(f"no gate {', '.join(unknown)}; there are {', '.join(GATES)}")
        return 2
    failed = []
    for name in names or GATES:
        print(f"-- {name}", flush=True)
        started = time.perf_counter()
        status = subprocess.run(GATES[name], cwd=SCRIPTS.parent, check=False).returncode
        if status:
            failed.append(name)
        verdict = "FAILED" if status else "ok"
        print(f"   {verdict} ({time.perf_counter() - started:.1f} s)", flush=True)
    print(f"failed: {', '.join(failed)}" if failed else "all gates hold")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
