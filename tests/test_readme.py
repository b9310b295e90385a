"""The README's program runs as it stands there."""

from __future__ import annotations

import re

from programs import ROOT


def test_readme_program_runs(tmp_path):
    (program,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    path = tmp_path / "readme.py"
    path.write_text(program)
    exec(compile(program, str(path), "exec"), {"__name__": "__main__"})
