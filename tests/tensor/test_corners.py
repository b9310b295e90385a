"""Corners of making, indexing, sharing and copying tensors, as PyTorch has them."""

import copy
import pickle

import numpy as np
import pytest

import flambeau as torch


# ---------------------------------------------------------------------- making
@pytest.mark.parametrize("make, error", [
    (lambda: torch.tensor(2**63), ValueError), (lambda: torch.tensor([2**70]), ValueError),
    (lambda: torch.tensor(2**64, dtype=torch.uint64), OverflowError),
    (lambda: torch.tensor(300, dtype=torch.uint8), RuntimeError),
    (lambda: torch.tensor([1, "a"]), TypeError), (lambda: torch.zeros(True), TypeError),
    (lambda: torch.full(2, 3), TypeError), (lambda: torch.eye(2.0), TypeError),
    (lambda: torch.arange(3, dtype=torch.bool), NotImplementedError),
    (lambda: torch.asarray(np.ones(2), dtype=torch.float32, copy=False), ValueError),
    (lambda: torch.asarray([1], copy=False), ValueError),
    (lambda: torch.frombuffer(bytearray(), dtype=torch.int32), ValueError),
    (lambda: torch.frombuffer(bytearray(4), dtype=torch.int32, offset=4), ValueError),
    (lambda: torch.Size([1.5]), TypeError), (lambda: torch.Size("ab"), TypeError)])
def test_what_cannot_be_made(make, error):
    with pytest.raises(error):
        make()


def test_what_can():
    assert torch.arange(end=3).tolist() == [0, 1, 2]
    assert torch.asarray(b"abc", dtype=torch.uint8).tolist() == [97, 98, 99]
    assert torch.tensor(2**63, dtype=torch.uint64).item() == 2**63
    size = torch.Size([torch.tensor(3), np.int64(2)])
    assert size == (3, 2) and all(type(n) is int for n in size)
    assert torch.tensor(1.0).mT.shape == () and torch.tensor(1.0).mH.shape == ()


# ---------------------------------------------------------------------- indexing
def test_lists_of_more_than_numbers_are_one_index_a_dimension():
    x = torch.arange(24).reshape(2, 3, 4)
    assert torch.equal(x[[[0, 1], [1, 0]]], x[[0, 1], [1, 0]])
    assert torch.equal(x[[torch.tensor(0), torch.tensor(1)]], x[0, 1])
    assert torch.equal(x[[0, slice(None)]], x[0]) and x[[None, 0]].shape == (1, 3, 4)
    assert torch.equal(x[[...]], x) and x[[0, 1]].shape == (2, 3, 4)
    y = x.clone()
    y[[[0, 1], [0, 1]]] = 0
    assert y[0, 0].sum() == 0 and y[1, 1].sum() == 0 and torch.equal(y[0, 1], x[0, 1])


def test_arrays_without_dimensions_are_numbers():
    x = torch.arange(6).reshape(2, 3)
    assert torch.equal(x[np.array(1)], x[1]) and x[np.array([1])].shape == (1, 3)


# ---------------------------------------------------------------------- NumPy and DLPack
def test_equality_with_arrays_is_elementwise():
    x = torch.arange(3.0)
    assert (x == np.array([0, 5, 2])).tolist() == [True, False, True]
    assert (np.array([0, 5, 2]) == x).tolist() == [True, False, True]
    assert (x != np.array([0, 5, 2])).tolist() == [False, True, False]


def test_dlpack_versions_and_requests():
    x = torch.arange(4.0)
    assert "dltensor_versioned" in str(x.__dlpack__(max_version=(1, 0)))
    assert "versioned" not in str(x.__dlpack__(max_version=(0, 8)))
    for t in (x, x.bfloat16()):
        assert torch.equal(torch.from_dlpack(t.__dlpack__(max_version=(1, 0))), t)
    with pytest.raises(AssertionError, match="stream"):
        x.__dlpack__(stream=1)
    with pytest.raises(NotImplementedError, match="device"):
        x.__dlpack__(dl_device=(2, 0))
    assert torch.utils.dlpack.DLDeviceType.kDLCPU == x.__dlpack_device__()[0]


# ---------------------------------------------------------------------- memory
def test_dense_views_that_overlap_in_another_order():
    a = torch.arange(9.0).reshape(3, 3)
    with pytest.raises(RuntimeError, match="single memory location"):
        a.add_(a.t())
    a.t().add_(a.t())
    assert a[0, 1] == 2


# ---------------------------------------------------------------------- copies
@pytest.mark.parametrize("make", [
    lambda: torch.ones(2), lambda: torch.ones(2, device="meta"),
    lambda: torch.nn.Parameter(torch.ones(2))])
def test_attributes_survive_pickling(make):
    x = make()
    x.note = {"a": 1}
    assert pickle.loads(pickle.dumps(x)).note == {"a": 1}
    assert copy.copy(x).note == {"a": 1}


def test_text_with_other_contents():
    assert torch.ones(2).__repr__(tensor_contents="abc") == "tensor(abc)"


def test_results_with_fields():
    result = torch.ones(2, 3).max(0)
    kind = type(result)
    assert (kind.n_fields, kind.n_sequence_fields, kind.n_unnamed_fields) == (2, 2, 0)
    assert kind.__match_args__ == ("values", "indices")
    with pytest.raises(TypeError, match="takes a 2-sequence"):
        torch.return_types.max([1])


# ---------------------------------------------------------------------- names
def test_attributes_that_say_no():
    x = torch.ones(1)
    assert not any((x.is_vulkan, x.is_maia, x.is_mtia, x.is_ipu, x.is_xla, x.volatile))
    assert x.name is None


def test_parameters_have_their_documented_names():
    x = torch.arange(4.0)
    assert len(torch.split(tensor=x, split_size_or_sections=2)) == 2
    assert torch.linalg.norm(input=x) > 3 and x.clone().map_(other=x, callable=max) is not None


def test_schemas_and_what_belongs_to_torchscript():
    schema = torch.parse_schema("aten::add.Tensor(Tensor a, *, int b=2) -> Tensor")
    assert (schema.name, schema.overload_name) == ("aten::add", "Tensor")
    assert [a.name for a in schema.arguments] == ["a", "b"] and schema.arguments[1].kwarg_only
    assert torch.AggregationType.AVG == torch.AVG == 1 and torch.compiled_with_cxx11_abi()
    assert not isinstance(len, torch.ScriptFunction) and torch.bit is torch.uint1
    for wrong in (lambda: torch.parse_ir(""), lambda: torch.import_ir_module(None, "f"),
                  torch.ScriptClass):
        with pytest.raises(NotImplementedError, match="TorchScript"):
            wrong()


def test_one_process_is_told_so():
    dist = torch.distributed
    assert not dist.is_available() and not dist.is_initialized() and not dist.is_nccl_available()
    assert dist.ReduceOp.SUM is not dist.ReduceOp.MAX and dist.group.WORLD is None
    for wrong in (dist.get_rank, dist.barrier, lambda: dist.init_process_group("gloo"),
                  dist.ProcessGroup):
        with pytest.raises(NotImplementedError, match="is_available"):
            wrong()
    assert not isinstance(torch.nn.Linear(1, 1), torch.nn.parallel.DistributedDataParallel)
    with pytest.raises(NotImplementedError, match="one process"):
        torch.nn.parallel.DistributedDataParallel(torch.nn.Linear(1, 1))
    with pytest.raises(AttributeError):
        _ = dist.no_such_name


def test_older_helpers_of_the_profiler():
    profiler = torch.autograd.profiler
    once = profiler.EnforceUnique()
    once.see("a", 1)
    with pytest.raises(RuntimeError, match="duplicate"):
        once.see("a", 1)
    steps = profiler.KinetoStepTracker
    steps.init_step_count("x")
    before = steps.current_step()
    assert steps.increment_step("x") == before + 1 and steps.erase_step_count("x")
    with pytest.raises(NotImplementedError):
        profiler.load_nvprof("x")
    with pytest.raises(ValueError):
        torch.autograd.graph.region_activation_memory_budget(2)
