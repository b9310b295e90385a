"""The gates of `make check` notice what they are there for, and the quick ones hold."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import types
from pathlib import Path
from types import ModuleType

import pytest
from programs import ROOT

sys.path.insert(0, str(ROOT / "scripts"))  # they import one another


def script(name: str) -> ModuleType:
    """A module of scripts/, which is no package."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "scripts" / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A function that writes a small package, {file: text}, and puts it on the path."""
    def write(name: str, files: dict[str, str]) -> str:
        for file, text in files.items():
            path = tmp_path / name / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
            (path.parent / "__init__.py").touch()
        (tmp_path / name / "__init__.py").touch()
        monkeypatch.syspath_prepend(tmp_path)
        return name

    return write


class TestLayers:
    layers = (frozenset({"low"}), frozenset({"high"}), frozenset({""}))

    @pytest.fixture(autouse=True)
    def grimp(self):
        pytest.importorskip("grimp")

    def violations(self, package: str, lazy=None) -> list[str]:
        return script("check_layers").violations(package, self.layers, lazy or {})

    def test_downward_is_fine(self, package):
        name = package("downward", {"low/a.py": "", "high/b.py": "from downward.low import a\n"})
        assert self.violations(name) == []

    @pytest.mark.parametrize("text", ["from upward.high import b\n",
                                      "def late():\n    from upward.high import b\n"])
    def test_upward_is_found_also_inside_functions(self, package, text):
        name = package("upward", {"low/a.py": text, "high/b.py": ""})
        (found,) = self.violations(name)
        assert found.startswith("upward: upward.low.a:") and "from upward.high import b" in found
        assert self.violations(name, {("upward.low.a", "upward.high.b"): "a reason"}) == []

    def test_type_checking_imports_do_not_count(self, package):
        name = package("typed", {"high/b.py": "", "low/a.py": (
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from typed.high import b\n")})
        assert self.violations(name) == []

    def test_cycles_are_found(self, package):
        name = package("cyclic", {"low/a.py": "from cyclic.low import b\n",
                                  "low/b.py": "def late():\n    from cyclic.low import a\n"})
        assert self.violations(name) == ["modules in a cycle: cyclic.low.a, cyclic.low.b"]

    def test_unknown_parts_and_stale_exceptions_are_found(self, package):
        name = package("strange", {"low/a.py": "", "attic/b.py": ""})
        found = self.violations(name, {("strange.low.a", "strange.high.b"): "gone"})
        assert found[0].startswith("strange.attic has no layer")
        assert "no longer exists" in found[1]


class TestExports:
    def problems(self, **members: object) -> list[str]:
        module = types.ModuleType("example")
        module.__dict__.update(members)
        return list(script("check_exports").problems(module))

    def test_right(self):
        assert self.problems(__all__=["a"], a=1) == []

    def test_wrong(self):
        assert self.problems() == ["example has no __all__"]
        assert "lists b, which does not exist" in self.problems(__all__=["b"])[0]
        assert self.problems(__all__=["a", "a"], a=1) == ["example.__all__ lists a twice"]


class TestOps:
    def problems(self, doc: str | None, samples: object) -> list[str]:
        op = types.SimpleNamespace(name="relu", doc=doc, samples=samples)
        return list(script("check_ops").problems({"relu": op}))

    def test_right(self):
        assert self.problems("max(x, 0), element by element.", list) == []

    def test_wrong(self):
        assert self.problems(None, None) == ["relu has no docstring", "relu has no samples"]
        assert list(script("check_ops").problems({})) == ["the op table is empty"]

    def test_examples(self):
        bare = types.SimpleNamespace(title="torch.relu", doc="max(x, 0), element by element.")
        shown = types.SimpleNamespace(title="torch.exp", doc=">>> torch.exp(x)\n1")
        found = list(script("check_ops").undescribed([bare, shown]))
        assert [line.split(":")[0] for line in found] == ["torch.relu has no example",
                                                          "torch.exp has no docstring"]


def test_sizes(tmp_path: Path):
    sizes = script("check_sizes")
    path = tmp_path / "a.py"
    path.write_text("def long():\n" + "    pass\n" * 70)
    found = {size.name: size.lines for size in sizes.sizes(path, "a.py")}
    assert found == {"a.py": 71, "a.py:1 long": 71}


def test_dependency_closure_leaves_extras_out():
    size = script("check_dependency_size")
    assert size.name_of("numpy>=2.0; python_version > '3'") == "numpy"
    assert "pluggy" in size.closure("pytest") and "hypothesis" not in size.closure("pytest")


def test_check_refuses_an_unknown_gate():
    command = [sys.executable, str(ROOT / "scripts" / "check.py"), "nonsense"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 2 and "no gate nonsense" in result.stdout


def test_layers_hold():
    pytest.importorskip("grimp")
    assert script("check_layers").violations() == []


def test_exports_hold():
    checks = script("check_exports")
    assert [line for module in checks.modules("flambeau") for line in checks.problems(module)] == []


def test_ops_hold():
    checks = script("check_ops")
    assert list(checks.problems(checks.registry())) == []
    assert list(checks.undescribed(checks.entries())) == []
