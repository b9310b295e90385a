"""The meta device beside PyTorch's: the same results, or errors of the same class."""

from __future__ import annotations

import io
import warnings
from types import ModuleType
from typing import Any

import pytest
import torch
from op_cases import RECORDS, cases, private, short_name, tensors

import flambeau

warnings.filterwarnings("ignore")
pytestmark = pytest.mark.filterwarnings("ignore")

CALLS = """
m.item() | z.item() | m.tolist() | m.numpy() | bool(z) | float(z) | [1, 2][i[0]] | m.__dlpack__()
m.__dlpack_device__() | len(m) | len(list(m)) | m.cpu() | m.to("cpu") | c.clone().copy_(m)
m.copy_(c) | c.to("meta") | c.t().to("meta") | c[:, :1].expand(3, 4).to("meta") | m.to("meta:0")
m + c | c + m | m + s | s + m | c + z | torch.cat([c, m]) | torch.where(m > 0, c, 0.)
torch.add(m, m, out=c.clone()) | torch.add(c, c, out=m.clone()) | torch.nonzero(m) | m.unique()
m.masked_select(m > 0) | m[m > 0] | torch.where(m) | torch.argwhere(m) | torch.equal(m, m)
torch.repeat_interleave(i) | torch.repeat_interleave(m, i, 0, output_size=7)
torch.allclose(m, m) | torch.histc(m) | torch.multinomial(m, 2) | F.one_hot(i) | F.one_hot(i, 5)
m.data_ptr() | m.untyped_storage().nbytes() | str(m.untyped_storage().device) | m.get_device()
m.type() | m.is_meta | m.is_cpu | m.new_zeros(2) | m.new(2) | m.new_tensor([1.]) | m.resize_(2, 2)
m.as_strided((2, 2), (1, 1)) | m.clone().set_(c) | m.share_memory_()
torch.zeros_like(m, device="cpu") | torch.rand_like(m) | torch.tensor([1, 2], device="meta")
torch.as_tensor(m) | m[5]
F.embedding(i, m) | F.cross_entropy(m, i) | F.dropout(m) | F.layer_norm(m, (4,)) | m.quantile(.5)
torch.linalg.svdvals(m) | torch.linalg.eigvals(m[:3, :3]) | torch.linalg.matrix_rank(m)
torch.fft.fft(m)
nn.LSTM(4, 5, device="meta")(m) | nn.MultiheadAttention(4, 2, device="meta")(m, m, m)
nn.Linear(3, 4, device="meta").to("cpu") | nn.Linear(3, 4, device="meta").cpu()
nn.Linear(3, 4, device="meta").to_empty(device="cpu").weight.device.type
repr(m) | repr(i) | repr(z)
repr(nn.Parameter(m)) | repr(m.clone().requires_grad_() * 2) | nn.Linear(3, 4).to("meta").weight
nn.Linear(3, 4).load_state_dict(nn.Linear(3, 4, device="meta").state_dict())
str(torch.empty(2, device="meta:1").device) | loaded(torch, m) | loaded(torch, c, "meta")
"""


def outcome(torch: ModuleType, source: str) -> Any:
    """What a call gives, in terms of no framework."""
    nn = torch.nn
    names = {"torch": torch, "nn": nn, "F": nn.functional, "c": torch.ones(3, 4),
             "m": torch.empty(3, 4, device="meta"), "z": torch.empty((), device="meta"),
             "i": torch.empty(3, dtype=torch.int64, device="meta"), "s": torch.tensor(2.0),
             "loaded": loaded}
    try:
        return plain(torch, eval(source, names))
    except Exception as error:
        return type(error)


def loaded(torch: ModuleType, value: Any, place: Any = None) -> Any:
    file = io.BytesIO()
    torch.save({"a": value, "b": value.t()}, file)
    file.seek(0)
    return list(torch.load(file, map_location=place).values())


def plain(torch: ModuleType, value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return (tuple(value.shape), value.stride(), str(value.dtype), str(value.device))
    if isinstance(value, (tuple, list)):
        return [plain(torch, item) for item in value]
    return value


@pytest.mark.parametrize("source", [one.strip() for one in CALLS.replace("\n", "|").split("|")
                                    if one.strip()])
def test_calls(source: str):
    theirs, ours = outcome(torch, source), outcome(flambeau, source)
    if isinstance(theirs, type) and isinstance(ours, type):
        assert issubclass(ours, theirs) or {ours, theirs} <= {RuntimeError, NotImplementedError}
    else:
        assert ours == theirs


PLACES = """
torch.empty(2) | torch.tensor([1.]) | torch.as_tensor(c) | torch.arange(3) | torch.zeros_like(c)
torch.Tensor(2) | torch.FloatTensor(2) | c.new_zeros(2) | torch.randn(2) | torch.randperm(3)
torch.scalar_tensor(1.) | torch.normal(0., 1., (2,)) | torch.hann_window(4) | torch.fft.fftfreq(3)
torch.tril_indices(3, 3) | torch.eye(2) | torch.vander(c) | torch.range(0, 3) | nn.Parameter()
torch.signal.windows.hann(4) | torch.full((2,), 1)
torch.stft(torch.ones(99, device="cpu"), 16, return_complex=True)
torch.svd_lowrank(torch.ones(4, 4, device="cpu"), 2)[0] | torch.combinations(c) | c[[0, 1]]
c[c > 0] | torch.Generator()
F.rrelu(c, training=True) | torch.autograd.functional.jacobian(torch.sin, c) | torch.quantile(c, .5)
nn.Transformer.generate_square_subsequent_mask(3) | nn.Linear(2, 2).weight | torch.get_rng_state()
"""


@pytest.mark.parametrize("source", [one.strip() for one in PLACES.replace("\n", "|").split("|")
                                    if one.strip()])
def test_device_contexts(source: str):
    found = []
    for framework in (torch, flambeau):
        c = framework.ones(3)
        names = {"torch": framework, "nn": framework.nn, "F": framework.nn.functional, "c": c}
        with framework.device("meta"):
            found.append(eval(source, names).device.type)
    assert found[0] == found[1]


def shadows(torch: ModuleType, value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return torch.empty_strided(value.shape, value.stride(), dtype=value.dtype, device="meta")
    if isinstance(value, tuple):
        return tuple(shadows(torch, item) for item in value)
    return value


SAME = [name for name, record in sorted(RECORDS.items()) if "torch" in record.public
        and not private(record) and callable(getattr(torch, short_name(record), None))]


@pytest.mark.parametrize("name", SAME)
def test_layouts_of_results(name: str):
    """Where PyTorch has a rule for the op on the meta device."""
    record = RECORDS[name]
    for case in list(cases(record))[:3]:
        results = []
        for framework in (torch, flambeau):
            args = shadows(framework, tensors(framework, case.args))
            kwargs = {k: shadows(framework, v) for k, v in
                      tensors(framework, case.kwargs).items()}
            try:
                made = getattr(framework, short_name(record))(*args, **kwargs)
            except Exception as error:
                results.append(error)
                continue
            made = made if isinstance(made, (tuple, list)) else (made,)
            results.append([(tuple(t.shape), str(t.dtype).removeprefix("torch."))
                            for t in made if isinstance(t, framework.Tensor)])
        if not isinstance(results[0], Exception):
            assert results[0] == results[1], case.label
