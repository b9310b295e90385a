"""The profiler: what ran is there with names, nesting and shapes, and nothing is left behind."""

from __future__ import annotations

import gzip
import json
import os
import sys
import threading

import pytest

import flambeau as torch
from flambeau import nn
from flambeau.profiler import (
    ProfilerAction,
    ProfilerActivity,
    profile,
    record_function,
    schedule,
    tensorboard_trace_handler,
)
from flambeau.tensor.launches import late


@pytest.fixture(autouse=True)
def doors_are_restored():
    torch.ones(2) + 1
    before = late.launch, late.checked, late.at_once
    yield
    assert (late.launch, late.checked, late.at_once) == before


def work():
    x = torch.randn(16, 16, requires_grad=True)
    with record_function("forward pass", "x"):
        y = (x @ x).relu().sum()
    y.backward()


def test_operations_gradients_and_ranges():
    work()
    with profile(record_shapes=True) as prof:
        work()
    events = prof.events()
    names = [event.name for event in events]
    assert "matmul" in names
    assert any(name.endswith("_backward") for name in names)
    around = next(event for event in events if event.name == "forward pass")
    product = next(event for event in events if event.name == "matmul")
    assert product.cpu_parent is around
    assert product in around.cpu_children
    assert product.input_shapes == [[16, 16], [16, 16]]
    assert 0 < product.cpu_time_total < around.cpu_time_total
    assert around.self_cpu_time_total == pytest.approx(
        around.cpu_time_total - sum(c.cpu_time_total for c in around.cpu_children))
    assert events[0].time_range.start >= 0


def test_sums_and_tables():
    with profile(record_shapes=True, profile_memory=True) as prof:
        for n in (2, 2, 3):
            torch.ones(n, 1000).sin().cos()
    sums = {event.key: event for event in prof.key_averages()}
    assert sums["sin"].count == 3
    assert sums["sin"].cpu_time == pytest.approx(sums["sin"].cpu_time_total / 3)
    by_shape = prof.key_averages(group_by_input_shape=True)
    assert sorted(e.count for e in by_shape if e.key == "sin") == [1, 2]
    text = prof.key_averages().table(sort_by="self_cpu_time_total", row_limit=2, header="Title")
    assert text.startswith("Title")
    assert "Self CPU %" in text
    assert "# of Calls" in text
    assert "CPU Mem" in text
    assert len(text.splitlines()) == 1 + 3 + 2 + 2
    with pytest.raises(AttributeError, match="cpu_time_total"):
        prof.key_averages().table(sort_by="colour")
    assert prof.key_averages().total_average().count == len(prof.events())


def test_compiled_programs_are_events():
    compiled = torch.compile(lambda x: (x.sin() * 2).sum())
    for _ in range(3):
        compiled(torch.ones(5))
    with profile() as prof:
        compiled(torch.ones(5))
    assert "compiled program" in [event.name for event in prof.events()]


def test_lines_and_modules():
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU())
    with profile(with_stack=True, with_modules=True) as prof:
        model(torch.ones(2, 4))
    events = prof.events()
    names = [event.name for event in events if event.is_user_annotation]
    assert names[0].startswith("nn.Module: Sequential")
    assert {name.split("_")[0] for name in names[1:]} == {"nn.Module: Linear", "nn.Module: ReLU"}
    linear = next(event for event in events if event.name == "linear")
    assert linear.cpu_parent.name.startswith("nn.Module: Linear")
    assert "test_profiler.py" in linear.stack[0]


def test_traces(tmp_path):
    with profile(record_shapes=True, with_stack=True) as prof:
        prof.add_metadata("run", "first")
        prof.add_metadata_json("numbers", "[1, 2]")
        work()
    prof.export_chrome_trace(str(tmp_path / "trace.json"))
    trace = json.loads((tmp_path / "trace.json").read_text())
    assert trace["run"] == "first"
    assert trace["numbers"] == [1, 2]
    assert len(trace["traceEvents"]) == len(prof.events())
    product = next(e for e in trace["traceEvents"] if e["name"] == "matmul")
    assert product["ph"] == "X"
    assert product["dur"] > 0
    assert product["args"]["Input Dims"] == [[16, 16], [16, 16]]
    prof.export_chrome_trace(str(tmp_path / "trace.json.gz"))
    with gzip.open(tmp_path / "trace.json.gz", "rt") as file:
        assert json.load(file)["trace_id"] == prof.get_trace_id()
    prof.export_stacks(str(tmp_path / "stacks"))
    assert "test_profiler.py" in (tmp_path / "stacks").read_text()
    with pytest.raises(ValueError, match="metric"):
        prof.export_stacks(str(tmp_path / "stacks"), "weight")


def test_schedule_says_what_each_step_is():
    action = schedule(wait=1, warmup=1, active=2, repeat=2, skip_first=1)
    A = ProfilerAction
    cycle = [A.NONE, A.WARMUP, A.RECORD, A.RECORD_AND_SAVE]
    assert [action(i) for i in range(11)] == [A.NONE, *cycle, *cycle, A.NONE, A.NONE]
    with pytest.raises(AssertionError, match="active"):
        schedule(wait=0, warmup=0, active=0)


def test_steps_are_kept_as_scheduled(tmp_path):
    ready = []
    with profile(schedule=schedule(wait=1, warmup=1, active=2, repeat=2),
                 on_trace_ready=lambda prof: ready.append(
                     [e.name for e in prof.events() if e.name.startswith("ProfilerStep")])
                 ) as prof:
        for _ in range(10):
            work()
            prof.step()
    assert ready == [["ProfilerStep#2", "ProfilerStep#3"], ["ProfilerStep#6", "ProfilerStep#7"]]
    with profile(schedule=schedule(wait=0, warmup=0, active=1),
                 on_trace_ready=tensorboard_trace_handler(str(tmp_path), "me")) as prof:
        for _ in range(2):
            work()
            prof.step()
    assert [p.name.startswith("me.") for p in tmp_path.iterdir()] == [True] * 3  # the last: empty


def test_pauses_threads_and_exceptions():
    with profile() as prof:
        torch.ones(3).sin()
        prof.toggle_collection_dynamic(False, [ProfilerActivity.CPU])
        torch.ones(3).cos()
        prof.toggle_collection_dynamic(True, [ProfilerActivity.CPU])
        other = threading.Thread(target=lambda: torch.ones(3).tan())
        other.start()
        other.join()
    found = {event.name: event.thread for event in prof.events()}
    assert {"sin", "tan"} <= set(found)
    assert "cos" not in found
    assert found["sin"] != found["tan"]
    with pytest.raises(ZeroDivisionError), profile() as prof, record_function("inner"):
        1 / 0  # noqa: B018 - what the block raises
    assert [e.name for e in prof.events()] == ["inner"]


def test_ranges_as_decorators_and_without_a_profile():
    @record_function("named")
    def function(x):
        return x + 1

    assert function(1) == 2
    with profile() as prof:
        function(1)
    assert [e.name for e in prof.events()] == ["named"]


def test_what_is_not_there_is_refused():
    with pytest.raises(ValueError, match="CPU"):
        profile(activities=[ProfilerActivity.CUDA])
    with pytest.raises(NotImplementedError, match="with_flops"):
        profile(with_flops=True)


def test_the_older_face():
    older = torch.autograd.profiler
    with older.profile(record_shapes=True) as prof:
        work()
    assert "matmul" in [event.name for event in prof.function_events]
    assert prof.self_cpu_time_total > 0
    assert "Self CPU" in prof.table(row_limit=3)
    assert prof.total_average().count == len(prof.function_events)
    with older.profile(enabled=False) as prof, older.emit_nvtx(False), older.emit_itt(False):
        work()
    assert not prof.function_events
    assert older.record_function is record_function
    with pytest.raises(NotImplementedError, match="GPU"), older.emit_nvtx():
        pass


# ---------------------------------------------------------------------- memory over time
def test_memory_over_time(tmp_path):
    with profile(profile_memory=True) as watched:
        big = torch.ones(1 << 20)
        del big
        torch.ones(1 << 10) + 1
    for name in ("a.json", "a.json.gz", "a.raw.json.gz", "a.html"):
        watched.export_memory_timeline(str(tmp_path / name), "cpu")
    times, rows = json.loads((tmp_path / "a.json").read_bytes())
    assert len(times) == len(rows) and times == sorted(times) and {len(row) for row in rows} == {9}
    sizes = [row[8] for row in rows]
    assert max(sizes) - sizes[0] >= 4 << 20 and max(sizes) - sizes[-1] >= 3 << 20
    assert json.loads(gzip.decompress((tmp_path / "a.json.gz").read_bytes())) == [times, rows]
    raw = json.loads(gzip.decompress((tmp_path / "a.raw.json.gz").read_bytes()))
    assert [size for _, size in raw] == sizes
    assert f"{max(sizes) / 2**20:.2f} MiB" in (tmp_path / "a.html").read_text()
    with pytest.raises(ValueError, match="cuda"):
        watched.export_memory_timeline(str(tmp_path / "b.json"), "cuda:0")
    with profile() as plain:
        torch.ones(3)
    with pytest.raises(ValueError, match="profile_memory=True"):
        plain.export_memory_timeline(str(tmp_path / "b.json"))


# -- execution traces ------------------------------------------------------------------------------

def _trace(path):
    opened = gzip.open if str(path).endswith(".gz") else open
    with opened(path, "rt") as file:
        return json.load(file)


@pytest.mark.parametrize("ending", [".json", ".json.gz"])
def test_an_execution_trace_shows_who_reads_what(tmp_path, ending):
    path = tmp_path / f"trace{ending}"
    observer = torch.profiler.ExecutionTraceObserver().register_callback(str(path))
    assert observer.is_registered and not observer.is_running()
    model, x = torch.nn.Linear(3, 2), torch.ones(4, 3)
    model(x).sum().backward()  # not watched
    observer.start()
    with torch.profiler.record_function("my block"):
        y = model(x).relu()
        y.sum().backward()
    observer.stop()
    (x + 1).exp()
    observer.unregister_callback()
    trace = _trace(path)
    assert trace["schema"].startswith("1.1.1") and trace["finish_ts"] >= trace["start_ts"] > 0
    nodes = {node["name"]: node for node in trace["nodes"]}
    assert {"aten::linear", "aten::relu", "aten::linear_backward", "my block"} <= set(nodes)
    assert "aten::exp" not in nodes
    made, read = nodes["aten::linear"]["outputs"], nodes["aten::relu"]["inputs"]
    assert made["values"][0] == read["values"][0]
    assert read["shapes"] == [[4, 2]] and read["types"] == ["Tensor(float)"]
    assert nodes["aten::relu"]["ctrl_deps"] == nodes["my block"]["id"]
    ids = [node["id"] for node in trace["nodes"]]
    assert len(set(ids)) == len(ids) and all(n["ctrl_deps"] in ids for n in trace["nodes"])


def test_an_execution_trace_of_the_steps_that_a_profile_keeps(tmp_path):
    observer = torch.profiler.ExecutionTraceObserver().register_callback(str(tmp_path / "a.json"))
    x = torch.ones(3)
    with torch.profiler.profile(schedule=torch.profiler.schedule(wait=1, warmup=1, active=2),
                                execution_trace_observer=observer) as prof:
        for act in (x.sin, x.cos, x.exp, x.tanh, x.sqrt):
            act()
            prof.step()
    observer.unregister_callback()
    names = [node["name"] for node in _trace(tmp_path / "a.json")["nodes"]]
    assert [n for n in names if n.startswith("aten")] == ["aten::exp", "aten::tanh"]
    assert any("exp" in event.key for event in prof.key_averages())


def test_an_execution_trace_of_several_threads_at_once(tmp_path):
    observer = torch.profiler.ExecutionTraceObserver().register_callback(str(tmp_path / "a.json"))

    def work():
        for _ in range(500):
            torch.ones(3).exp()

    threads = [threading.Thread(target=work) for _ in range(4)]
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        observer.start()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(before)
    observer.unregister_callback()
    found = [n["inputs"]["shapes"] for n in _trace(tmp_path / "a.json")["nodes"]
             if n["name"] == "aten::exp"]
    assert found == [[[3]]] * 2000


def test_an_observer_without_a_place_to_write_says_so(tmp_path, monkeypatch):
    observer = torch.profiler.ExecutionTraceObserver()
    observer.start()
    assert not observer.is_running() and observer.get_output_file_path() is None
    observer.register_callback(str(tmp_path / "none" / "a.json"))
    with pytest.warns(UserWarning, match="could not be written"):
        observer.unregister_callback()
    monkeypatch.delenv("ENABLE_PYTORCH_EXECUTION_TRACE", raising=False)
    build = torch.profiler.ExecutionTraceObserver.build_execution_trace_obs_from_env
    assert build() is None
    monkeypatch.setenv("ENABLE_PYTORCH_EXECUTION_TRACE", "1")
    made = build()
    path = made.get_output_file_path()
    made.unregister_callback()
    assert _trace(path)["nodes"]
    os.unlink(path)
