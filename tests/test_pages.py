"""The blocks of docs/compile.md run, and print what the page says."""

from __future__ import annotations

import os
import subprocess
import sys

from programs import ROOT


def test_compile_page_is_what_is_printed():
    result = subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "make_printed.py"),
         str(ROOT / "docs" / "compile.md"), "--check"], cwd=ROOT, text=True, capture_output=True,
        env=os.environ | {"PYTHONPATH": str(ROOT), "FLAMBEAU_NUM_THREADS": "2"}, check=False)
    assert result.returncode == 0, result.stdout[-6000:] + result.stderr[-3000:]
