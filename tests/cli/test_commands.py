"""`flambeau info`, `flambeau bench`, help, and the progress bar."""

from __future__ import annotations

import io
import subprocess
import sys

import pytest

from flambeau.cli import bench, progress
from flambeau.cli.errors import UserError
from flambeau.cli.main import main


def test_info(capsys):
    assert main(["info"]) == 0
    lines = capsys.readouterr().out.splitlines()
    pairs = (line.partition(":") for line in lines)
    facts = {name: value.strip() for name, _, value in pairs}
    assert {"flambeau", "python", "numpy", "target", "kernel cache"} <= set(facts)
    assert facts["devices"] == "cpu"
    assert int(facts["threads"]) >= 1


def test_help_is_quick_and_needs_no_framework():
    program = ("import sys\nfrom flambeau.cli.main import main\n"
               "try: main(['--help'])\nexcept SystemExit: pass\n"
               "print([name for name in ('numpy', 'llvmlite') if name in sys.modules])")
    result = subprocess.run([sys.executable, "-c", program],
                            capture_output=True, text=True, check=True)
    assert "train" in result.stdout and result.stdout.endswith("[]\n")


def test_no_command_is_a_usage_error(capsys):
    with pytest.raises(SystemExit) as error:
        main([])
    assert error.value.code == 2
    assert "COMMAND" in capsys.readouterr().err


def test_bench_measures_every_case(torch):
    timings = bench.compare(torch, None, rounds=2)
    assert [timing.name for timing in timings] == [case.name for case in bench.cases(torch)]
    assert all(timing.ours > 0 and timing.ratio is None for timing in timings)


def test_bench_ratio_and_bound():
    assert bench.Timing("add", 3.0, 2.0, 1.5).ratio == 1.5
    assert not bench.Timing("add", 3.0, 2.0, 1.5).passes_bound
    assert bench.Timing("add", 3.1, 2.0, 1.5).passes_bound
    assert not bench.Timing("add", 3.1, None, 1.5).passes_bound


def test_bench_refuses_an_unknown_peer():
    with pytest.raises(UserError, match="no module nonsense"):
        bench.find_peer("nonsense")
    assert bench.find_peer("none") is None


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_plain_bar_draws_on_terminals_only():
    terminal, log = Terminal(), io.StringIO()
    for stream in (terminal, log):
        bar = progress.PlainBar("epoch 1/2", 4, stream)
        bar.set_postfix_str("loss 0.5")
        bar.update(2)
        bar.close()
    assert "epoch 1/2 [###############               ] 2/4 loss 0.5" in terminal.getvalue()
    assert log.getvalue() == ""
