"""The tutorial in CONTRIBUTING.md.

Its block, added under another name to a copy of the package, gives all that the tutorial says.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from programs import ROOT

FAMILY = Path("flambeau") / "ops" / "activation.py"

CHECKS = '''
import numpy as np
import flambeau as torch
from flambeau.autograd import gradcheck, gradgradcheck

F = torch.nn.functional
expected = lambda x: x * np.clip(x + 3, 0, 6) / 6
x = torch.linspace(-5, 5, 41, dtype=torch.float64)

y = F.hardswish_tutorial(x)                                              # function
assert np.allclose(y.numpy(), expected(x.numpy()))
assert F.hardswish_tutorial.__doc__.startswith("input * min(max(input + 3, 0), 6) / 6.\\n\\n>>> ")
assert not hasattr(torch, "hardswish_tutorial") and not hasattr(torch.Tensor, "hardswish_tutorial")

assert np.allclose(torch.hardswish_flagged(x).numpy(), y.numpy())        # the same, flagged
assert np.allclose(x.hardswish_flagged().numpy(), y.numpy())             # method
out = torch.empty(0, dtype=torch.float64)
assert torch.hardswish_flagged(x, out=out) is out and torch.equal(out, y)

z = x.clone()                                                            # in place
assert F.hardswish_tutorial_(z) is z and torch.equal(z, y)
assert x.clone().hardswish_flagged_().equal(y)

p = torch.tensor([-4.0, -3.0, -1.0, 0.5, 3.0, 4.0], requires_grad=True)  # gradients
F.hardswish_tutorial(p).sum().backward()
assert torch.allclose(p.grad, torch.tensor([0, 0, 1 / 6, 2 / 3, 1, 1]))
q = torch.tensor([-4.1, -1.0, 0.5, 4.1], dtype=torch.float64, requires_grad=True)
assert F.hardswish_tutorial(q).grad_fn.name() == "HardswishTutorialBackward0"
assert gradcheck(F.hardswish_tutorial, (q,)) and gradgradcheck(F.hardswish_tutorial, (q,))

half = x.to(torch.bfloat16)                                              # kernels for other dtypes
assert F.hardswish_tutorial(half).dtype is torch.bfloat16
compiled = torch.compile(F.hardswish_tutorial)                           # compiled
assert torch.equal(compiled(x), y) and torch.equal(compiled(x), y)
assert "program" in compiled.explain()

for call, word in ((lambda: F.hardswish_tutorial([1.0]), "must be Tensor, not list"),
                   (lambda: F.hardswish_tutorial(x, inplace_=True), "unexpected keyword"),
                   (lambda: F.hardswish_tutorial(torch.arange(3)), "not implemented for 'Long'")):
    try:
        call()
    except (TypeError, NotImplementedError) as error:                    # errors
        assert word in str(error), error
    else:
        raise AssertionError(word)
print("all there")
'''


def blocks() -> list[str]:
    """The Python blocks of the section on adding an operation."""
    text = (ROOT / "CONTRIBUTING.md").read_text()
    section = text.split("## Add an operation")[1].split("\n## ")[0]
    return re.findall(r"```python\n(.*?)```", section, re.DOTALL)


def test_the_tutorial_shows_the_code_as_it_is():
    (block,) = blocks()
    assert block.strip() in (ROOT / FAMILY).read_text()


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the package and its scripts, with the block added under two other names: once as it
    is, once with all forms."""
    folder = tmp_path_factory.mktemp("tutorial")
    skip = shutil.ignore_patterns("__pycache__")
    for part in ("flambeau", "scripts", "tests", "docs"):
        shutil.copytree(ROOT / part, folder / part, ignore=skip)
    (block,) = blocks()
    flagged = block.replace("method=False, out=False, public=FUNCTIONAL, ", "")
    assert flagged != block
    with (folder / FAMILY).open("a") as file:
        file.write("\n\n" + re.sub(r"\bhardswish\b", "hardswish_tutorial", block))
        file.write("\n\n" + re.sub(r"\bhardswish\b", "hardswish_flagged", flagged))
    return folder


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, (folder, folder / "tests"))),
                                "PYTHONDONTWRITEBYTECODE": "1"}
    result = subprocess.run([sys.executable, *arguments], cwd=folder, env=environment, text=True,
                            capture_output=True, check=False)
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]
    return result


def test_the_block_gives_the_forms(copy: Path):
    assert "all there" in run(copy, "-c", CHECKS).stdout


def test_the_block_gives_docs_and_stub(copy: Path):
    run(copy, "scripts/make_docs.py")
    run(copy, "scripts/make_stubs.py")
    docs = (copy / "docs" / "ops.md").read_text()
    row = r"`hardswish_{}\(input\)`\]\(reference/activation.md#.*\) \| {}"
    assert re.search(row.format("tutorial", r"input \* .* \| F \| _ \| rule \|"), docs)
    assert re.search(row.format("flagged", r".* \| torch \. \| _ out \| rule \|"), docs)
    page = (copy / "docs" / "reference" / "activation.md").read_text()
    assert "## torch.nn.functional.hardswish_tutorial" in page
    stub = (copy / "flambeau" / "__init__.pyi").read_text()
    assert "def hardswish_flagged(input: Tensor, *, out: Any = None) -> Tensor: ..." in stub
    assert "    def hardswish_flagged(self) -> Tensor: ..." in stub
    assert "    def hardswish_flagged_(self) -> Tensor: ..." in stub


def test_the_block_gives_tests(copy: Path):
    result = run(copy, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-o", "pythonpath=tests",
                 "--import-mode=importlib", "tests/ops", "-k", "hardswish_flagged")
    assert int(re.search(r"(\d+) passed", result.stdout)[1]) >= 10


@pytest.mark.parametrize("script", ["make_docs.py", "make_stubs.py"])
def test_generated_files_are_up_to_date(script: str):
    result = subprocess.run([sys.executable, str(ROOT / "scripts" / script), "--check"], cwd=ROOT,
                            env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True,
                            text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
