"""The meta device: tensors with a shape, strides and a history, but without memory."""

from __future__ import annotations

import copy
import pickle
import resource
import threading
from typing import Any

import numpy as np
import pytest
from op_cases import RECORDS, cases, function_of, inplace_of, leaves, tensors

import flambeau as torch
from flambeau import nn

ALL = sorted(RECORDS)
NO_DATA = "Cannot copy out of meta tensor; no data!"


def meta(*size: int, **options: Any) -> Any:
    return torch.empty(*size, device="meta", **options)


def shadow(value: Any) -> Any:
    """The same tensors, in the same order in memory, on the meta device."""
    if isinstance(value, torch.Tensor):
        made = torch.empty_strided(value.shape, value.stride(), dtype=value.dtype, device="meta")
        return made.requires_grad_(value.requires_grad)
    if isinstance(value, (tuple, list)):
        return type(value)(shadow(item) for item in value)
    if isinstance(value, dict):
        return {key: shadow(item) for key, item in value.items()}
    return value


def facts(tensor: Any) -> tuple:
    node = tensor.grad_fn
    return (tuple(tensor.shape), tensor.dtype, tensor.stride(), tensor.storage_offset(),
            tensor.requires_grad, None if node is None else node.name())


def found(value: Any) -> list:
    return [item for item in leaves(value) if isinstance(item, torch.Tensor)]


def outcome(function: Any, args: tuple, kwargs: dict) -> Any:
    try:
        result = function(*args, **kwargs)
    except (RuntimeError, TypeError, ValueError, IndexError, NotImplementedError) as error:
        return error
    return found(result if isinstance(result, tuple) else (result,))


def compare(label: str, real: Any, stand_in: Any) -> bool:
    """Are both errors, or both tensors of the same layouts and histories?"""
    if isinstance(real, Exception):
        assert isinstance(stand_in, Exception), f"{label}: only the CPU raises {real}"
        return False
    assert not isinstance(stand_in, Exception), f"{label}: {stand_in!r}"
    for one, other in zip(real, stand_in, strict=True):
        assert other.is_meta, label
        assert facts(one) == facts(other), label
    return True


def gradients(outs: list, inputs: list) -> Any:
    outs = [out for out in outs if out.requires_grad]
    wanted = [t for t in inputs if t.requires_grad]
    if not outs or not wanted:
        return []
    ones = [torch.ones_like(out) for out in outs]
    return outcome(torch.autograd.grad, (outs, wanted, ones), {"allow_unused": True})


def check(record: Any, case: Any) -> None:
    """Everything that an op does with a case, on the CPU and on the meta device."""
    args, kwargs = tensors(torch, case.args), tensors(torch, case.kwargs)
    inputs = found((args, tuple(kwargs.values())))
    for tensor, floating in zip(inputs, case.floating, strict=False):
        if floating and record.differentiable:
            tensor.requires_grad_()
    others = shadow(args), shadow(kwargs)
    other_inputs = found((others[0], tuple(others[1].values())))
    if not inputs:
        return
    real = outcome(function_of(record), args, kwargs)
    stand_in = outcome(function_of(record), *others)
    if compare(case.label, real, stand_in):
        compare(f"gradients of {case.label}", gradients(real, inputs),
                gradients(stand_in, other_inputs))


def check_forms(record: Any, case: Any) -> None:
    """In-place and `out=` forms."""
    args, kwargs = tensors(torch, case.args), tensors(torch, case.kwargs)
    if not found((args, tuple(kwargs.values()))):
        return
    if record.inplace and isinstance(args[0], torch.Tensor):
        one, other = outcome(inplace_of(record), args, kwargs), outcome(
            inplace_of(record), *(shadow(args), shadow(kwargs)))
        compare(f"in place: {case.label}", one, other)
    if record.out:
        made = outcome(function_of(record), args, kwargs)
        if isinstance(made, Exception) or len(made) != 1:
            return
        target = torch.empty(0, dtype=made[0].dtype, device="meta")
        into = outcome(function_of(record), shadow(args), {**shadow(kwargs), "out": target})
        assert not isinstance(into, Exception), f"out=: {case.label}: {into!r}"
        assert into[0] is target
        assert target.shape == made[0].shape


@pytest.mark.parametrize("name", ALL[::7])
def test_ops_give_what_they_give_on_the_cpu(name: str):
    record = RECORDS[name]
    for case in list(cases(record))[:2]:
        check(record, case)
        check_forms(record, case)


@pytest.mark.slow
@pytest.mark.parametrize("name", ALL)
def test_every_op_gives_what_it_gives_on_the_cpu(name: str):
    record = RECORDS[name]
    for dtype in ("float32", "int64", "bfloat16", "complex64"):
        for case in cases(record, dtype):
            check(record, case)
            check_forms(record, case)


# --------------------------------------------------------------------------- making tensors
FACTORIES = [
    ("empty", ((2, 3),)), ("zeros", (2, 3)), ("ones", ((2,),)), ("full", ((2, 3), 7)),
    ("rand", (2,)), ("randn", (2, 3)), ("randint", (5, (2, 3))), ("randperm", (4,)),
    ("arange", (2, 9, 2)), ("linspace", (0, 1, 5)), ("logspace", (0, 1, 5)), ("eye", (3, 2)),
    ("tensor", ([[1, 2], [3, 4]],)), ("as_tensor", ([1.0],)), ("asarray", ([1.0],)),
    ("scalar_tensor", (3.0,)), ("empty_strided", ((2, 3), (1, 2))),
    ("empty_permuted", ((2, 3), (1, 0))), ("tril_indices", (3, 3)), ("triu_indices", (3, 3)),
    ("hann_window", (5,)), ("kaiser_window", (5,)), ("normal", (0.0, 1.0, (2, 3)))]


@pytest.mark.parametrize(("name", "args"), FACTORIES)
def test_factories(name: str, args: tuple):
    before = torch.get_rng_state()
    made = getattr(torch, name)(*args, device="meta")
    assert torch.equal(before, torch.get_rng_state()), "nothing is drawn"
    real = getattr(torch, name)(*args)
    assert made.is_meta and real.is_cpu
    assert facts(made) == facts(real)
    if name == "normal":
        return
    with torch.device("meta"):
        assert getattr(torch, name)(*args).is_meta
        assert getattr(torch, name)(*args, device="cpu").is_cpu
        with torch.device("cpu"):
            assert getattr(torch, name)(*args).is_cpu
    assert getattr(torch, name)(*args).is_cpu


def test_like_and_new_stay_where_their_tensor_is():
    x, real = meta(2, 3).t(), torch.ones(2, 3)
    for name in ("empty", "zeros", "ones", "rand", "randn"):
        made = getattr(torch, name + "_like")(x)
        assert made.is_meta and made.stride() == x.stride()
        assert getattr(torch, name + "_like")(real, device="meta").is_meta
        assert getattr(torch, name + "_like")(x, device="cpu").is_cpu
    for made in (x.new_zeros(2), x.new_empty((2,)), x.new_full((2,), 1), x.new_tensor([1]),
                 x.new_ones(2), x.new(2), x.new([1.0])):
        assert made.is_meta and made.dtype is torch.float32
    with torch.device("meta"):
        assert real.new_zeros(2).is_cpu and torch.zeros_like(real).is_cpu
        assert torch.from_numpy(np.ones(2)).is_cpu
        assert torch.as_tensor(real).is_meta


def test_default_device_of_a_thread():
    torch.set_default_device("meta")
    try:
        assert torch.get_default_device() == torch.device("meta")
        assert torch.zeros(2).is_meta and nn.Linear(2, 2).weight.is_meta
        seen: list = []
        worker = threading.Thread(target=lambda: seen.append(torch.zeros(2).device))
        worker.start()
        worker.join()
        assert seen == [torch.device("cpu")]
    finally:
        torch.set_default_device(None)
    assert torch.zeros(2).is_cpu and torch.get_default_device() == torch.device("cpu")


# --------------------------------------------------------------------------- moving
def test_moving():
    x = torch.ones(3, 4).t()
    there = x.to("meta")
    assert there.stride() == x.stride() and there.device.type == "meta"
    assert there.to("meta") is there and there.to(there) is there
    assert x.to(device="meta", dtype=torch.float64).dtype is torch.float64
    assert torch.ones(2, dtype=torch.int64).to(there).dtype is torch.float32
    assert x[:, :1].expand(4, 3).to("meta").stride() == torch.empty_like(
        x[:, :1].expand(4, 3)).stride()
    for copy_out in (there.cpu, lambda: there.to("cpu"), lambda: x.clone().copy_(there),
                     lambda: there.to(x), there.tolist,
                     lambda: torch.as_tensor(there, device="cpu")):
        with pytest.raises(NotImplementedError, match=NO_DATA):
            copy_out()
    assert there.copy_(x) is there
    there[0] = torch.ones(3)
    assert there._version == 2


def test_there_are_no_values():
    x = meta(())
    for read in (x.item, lambda: bool(x), lambda: float(x), lambda: int(x), x.__complex__,
                 lambda: x in meta(3), lambda: torch.allclose(x, x), lambda: torch.equal(x, x)):
        with pytest.raises(RuntimeError, match=r"Tensor.item\(\) cannot be called on meta tensors"):
            read()
    with pytest.raises(TypeError, match="can't convert meta device type tensor to numpy"):
        x.numpy()
    with pytest.raises(TypeError, match="can't convert meta"):
        np.asarray(x)
    with pytest.raises(BufferError, match="meta"):
        x.__dlpack__()
    with pytest.raises(RuntimeError, match="ambiguous"):
        bool(meta(2))
    y = meta(3, 4)
    for dependent in (y.nonzero, y.unique, lambda: y.masked_select(y > 0), lambda: y[y > 0],
                      lambda: torch.where(y), lambda: torch.argwhere(y)):
        with pytest.raises(NotImplementedError, match="meta tensor"):
            dependent()
    with pytest.raises(RuntimeError, match="without output_size"):
        torch.repeat_interleave(y, meta(3, dtype=torch.int64), 0)
    assert torch.repeat_interleave(y, meta(3, dtype=torch.int64), 0, output_size=7).shape == (7, 4)
    assert x.data_ptr() == 0 and y.untyped_storage().data_ptr() == 0
    assert y.untyped_storage().nbytes() == 48 and y.get_device() == -1
    assert y.type() == "torch.meta.FloatTensor"


def test_repr():
    assert repr(meta(3, 4)) == "tensor(..., device='meta', size=(3, 4))"
    assert repr(meta(3, dtype=torch.int64)) == (
        "tensor(..., device='meta', size=(3,), dtype=torch.int64)")
    assert repr(meta(2, requires_grad=True) * 2) == (
        "tensor(..., device='meta', size=(2,), grad_fn=<MulBackward0>)")
    assert repr(nn.Parameter(meta(2))) == (
        "Parameter containing:\ntensor(..., device='meta', size=(2,), requires_grad=True)")
    assert repr(meta(2).untyped_storage()).startswith("...\n[torch.storage.UntypedStorage(device=m")


def test_devices_do_not_mix():
    x, y = meta(3, 4), torch.ones(3, 4)
    mixed = (lambda: x + y, lambda: y + x, lambda: y @ x.t(), lambda: torch.cat([x, y]),
             lambda: torch.where(x > 0, y, 0.0), lambda: torch.add(y, y, out=meta(3, 4)),
             lambda: y.add_(x), lambda: x.add_(y), lambda: nn.functional.linear(y, x),
             lambda: x.gather(0, torch.zeros(1, 1, dtype=torch.int64)), lambda: y + meta(()),
             lambda: y[meta(2, dtype=torch.int64)], lambda: torch.addcmul(x, x, y))
    for call in (*mixed, *mixed):  # known calls too
        with pytest.raises(RuntimeError, match="Expected all tensors to be on the same device"):
            call()
    two = torch.tensor(2.0)
    for made in (x + two, two * x, x.masked_fill(x > 0, two), x.lerp(x, two), x.clamp(two),
                 x[torch.tensor([0, 2])], x[[0, 2]], torch.where(x > 0, x, two)):
        assert made.is_meta
    x[torch.tensor([0, 2])] = 1.0
    assert x.mul_(two) is x


# --------------------------------------------------------------------------- gradients
def test_gradients():
    x = meta(3, 4, requires_grad=True)
    ((x * 2).relu() @ meta(4, 5)).sum().backward()
    assert facts(x.grad)[:3] == ((3, 4), torch.float32, (4, 1)) and x.grad.is_meta
    first, = torch.autograd.grad((x.exp() * x).sum(), x, create_graph=True)
    second, = torch.autograd.grad(first.sum(), x)
    assert second.is_meta and second.shape == x.shape
    y = x * 1
    y[0] = 5
    y[1:].mul_(2)
    assert torch.autograd.grad(y.sum(), x)[0].is_meta
    with pytest.raises(RuntimeError, match="device type 'cpu' to a tensor with device type 'meta'"):
        x.grad = torch.ones(3, 4)
    with pytest.raises(RuntimeError, match="incompatible tensor type"):
        x.data = torch.ones(3, 4)
    real = torch.ones(3, requires_grad=True)
    with pytest.raises(NotImplementedError, match=NO_DATA):
        real.to("meta").sum().backward()


def test_views_and_memory():
    x = meta(4, 6)
    assert x[1:, ::2].storage_offset() == 6 and x[1:, ::2].stride() == (6, 2)
    assert x.t()._base is x and x.view(-1).untyped_storage() == x.untyped_storage()
    assert x.view(torch.int32).dtype is torch.int32
    assert meta(2).resize_(100).shape == (100,)
    part, whole = x[:, 1:], x[:, :-1]
    part.copy_(whole)  # overlapping, as on the CPU
    with pytest.raises(RuntimeError, match="single memory location"):
        meta(3).expand(2, 3).add_(1)
    with pytest.raises(RuntimeError, match="devices must match"):
        x.set_(torch.ones(2))
    with pytest.raises(RuntimeError, match="only available on CPU"):
        x.share_memory_()


def test_copies_and_pickles():
    x = meta(3, 4).t()
    a, b = copy.deepcopy([x, x.t()])
    assert a.is_meta and a.untyped_storage() == b.untyped_storage() != x.untyped_storage()
    again = pickle.loads(pickle.dumps(nn.Parameter(x)))
    assert isinstance(again, nn.Parameter) and again.is_meta and again.stride() == x.stride()


# --------------------------------------------------------------------------- modules
def test_modules_are_made_without_memory():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    state = torch.get_rng_state()
    with torch.device("meta"):
        model = nn.Transformer(4096, 32, 12, 12, 16384)
    assert sum(p.numel() for p in model.parameters()) > 4e9
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # of 17 GB, in KB
    assert torch.equal(state, torch.get_rng_state())
    assert all(v.is_meta for v in model.state_dict().values())
    model.to(torch.bfloat16).apply(lambda module: None)
    assert next(model.parameters()).dtype is torch.bfloat16


def test_a_training_step():
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2),
                          nn.Flatten(), nn.Dropout(), nn.Linear(8 * 49, 10)).to("meta")
    for kind in (torch.optim.SGD, torch.optim.AdamW, torch.optim.NAdam, torch.optim.ASGD):
        optimizer = kind(model.parameters(), lr=0.1)
        for _ in range(2):
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(meta(2, 3, 16, 16)),
                                               meta(2, dtype=torch.int64))
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
        assert loss.is_meta and all(p.grad.is_meta for p in model.parameters())


def test_recurrent_and_attention_modules():
    x = meta(5, 2, 8)
    assert nn.LSTM(8, 4, 2, bidirectional=True, device="meta")(x)[0].shape == (5, 2, 8)
    assert nn.MultiheadAttention(8, 2, device="meta")(x, x, x)[0].shape == (5, 2, 8)
    layer = nn.TransformerEncoderLayer(8, 2, 16, device="meta")
    mask = nn.Transformer.generate_square_subsequent_mask(5, device="meta")
    assert layer(x, mask).shape == (5, 2, 8)


def test_from_meta_to_memory():
    model = nn.Linear(3, 4, device="meta")
    with pytest.raises(NotImplementedError, match=r"use torch.nn.Module.to_empty\(\) instead"):
        model.to("cpu")
    state = nn.Linear(3, 4).state_dict()
    model.load_state_dict(state)  # nothing happens
    assert model.weight.is_meta
    model.load_state_dict(state, assign=True)
    assert torch.equal(model(torch.ones(1, 3)), nn.functional.linear(
        torch.ones(1, 3), state["weight"], state["bias"]))
    assert isinstance(model.weight, nn.Parameter) and model.weight.requires_grad
    with pytest.raises(RuntimeError, match="no data"):
        nn.Linear(3, 4).load_state_dict(nn.Linear(3, 4, device="meta").state_dict())
    empty = nn.Linear(3, 4, device="meta").to_empty(device="cpu")
    assert empty.weight.is_cpu and empty.to("meta").weight.is_meta
    made = nn.utils.skip_init(nn.Linear, 3, 4, dtype=torch.float64)
    assert made.weight.is_cpu and made.weight.dtype is torch.float64
    assert nn.utils.skip_init(nn.Linear, 3, 4, device="meta").bias.is_meta
    output = torch.func.functional_call(nn.Linear(3, 4, device="meta"), state, torch.ones(1, 3))
    assert output.is_cpu


@pytest.mark.parametrize("name", ["uniform_", "normal_", "ones_", "zeros_", "trunc_normal_", "eye_",
                                  "xavier_uniform_", "kaiming_normal_", "orthogonal_"])
def test_initialisation_does_nothing(name: str):
    x, state = meta(4, 6), torch.get_rng_state()
    assert getattr(nn.init, name)(x) is x
    assert torch.equal(state, torch.get_rng_state())


# --------------------------------------------------------------------------- around it
def test_transforms():
    x = meta(3, 4)
    assert torch.vmap(torch.sin)(x).is_meta
    assert torch.func.grad(lambda z: (z * z).sum())(x).is_meta
    assert torch.func.jacrev(torch.sin)(x).shape == (3, 4, 3, 4)
    assert torch.func.jvp(torch.sin, (x,), (x,))[1].is_meta
    assert torch.func.hessian(lambda z: (z ** 3).sum())(meta(4)).shape == (4, 4)


def test_checkpoint_profiler_autocast():
    layer = nn.Linear(4, 4, device="meta")
    for reentrant in (True, False):
        x = meta(2, 4, requires_grad=True)
        torch.utils.checkpoint.checkpoint(layer, x, use_reentrant=reentrant).sum().backward()
        assert x.grad.is_meta
    with torch.profiler.profile() as profile:
        layer(meta(2, 4))
    assert any("linear" in event.name or "addmm" in event.name for event in profile.events())
    with torch.autocast("cpu"):
        assert layer(meta(2, 4)).dtype is torch.bfloat16
    with pytest.warns(UserWarning, match="Anomaly"), torch.autograd.detect_anomaly():
        layer(meta(2, 4, requires_grad=True)).sum().backward()


def test_compiled_functions_leave_meta_tensors_to_python():
    layer = nn.Linear(4, 4, device="meta")
    compiled = torch.compile(layer)
    for _ in range(3):
        assert compiled(meta(2, 4)).is_meta

    def reads(a: Any, b: Any) -> Any:
        double = b * 2
        return (double + 1, a + 1) if a.sum().item() > 0 else (double, a)

    beside = torch.compile(reads)
    for _ in range(4):
        stand_in, real = beside(torch.ones(3), meta(3))
        assert stand_in.is_meta and real.tolist() == [2.0, 2.0, 2.0]
    with pytest.raises(NotImplementedError, match="meta device"):
        torch.compile(lambda a: a * 2, fullgraph=True)(meta(3))


def test_subclasses_keep_their_class():
    class Mine(torch.Tensor):
        pass

    x = meta(3).as_subclass(Mine)
    assert type(x + 1) is Mine and (x + 1).is_meta
    assert repr(x) == "Mine(..., device='meta', size=(3,))"
