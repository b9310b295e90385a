"""What PyTorch's files hold, each kind both ways and in both formats, with real tensors.

A value is made in both libraries, saved by one and loaded by the other. Where PyTorch loads its own
file, so must we; and what it finds in ours must be what it would find in its own.
"""

from __future__ import annotations

import collections
import copy
import dataclasses
import enum
import io
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import flambeau

pytorch = pytest.importorskip("torch")
pytestmark = pytest.mark.filterwarnings("ignore")  # PyTorch calls much of this a prototype

Point = collections.namedtuple("Point", "x y")


@dataclasses.dataclass
class Settings:
    rate: float = 0.1
    name: str = "x"


class Colour(enum.Enum):
    RED = 1


# -- comparison -----------------------------------------------------------------------------------

def dense(T: Any, value: Any) -> tuple:
    """A tensor with memory of its own, in words that both libraries share."""
    flat = value.detach().resolve_conj().resolve_neg().contiguous().reshape(-1)
    data = flat.view(T.uint8).numpy().tobytes() if flat.numel() else b""
    return (type(value).__name__, str(value.dtype), tuple(value.shape), value.stride(),
            value.requires_grad, data)


def composed(T: Any, value: Any) -> tuple:
    if getattr(value, "is_nested", False):
        return "nested", [dense(T, part) for part in value.unbind()]
    if value.layout is T.sparse_coo:
        return ("coo", tuple(value.shape), value.is_coalesced(), dense(T, value._indices()),
                dense(T, value._values()))
    rows = value.layout in (T.sparse_csr, T.sparse_bsr)
    names = ("crow_indices", "col_indices") if rows else ("ccol_indices", "row_indices")
    parts = [dense(T, getattr(value, name)()) for name in names]
    return str(value.layout), tuple(value.shape), parts, dense(T, value.values())


def neutral(T: Any, value: Any) -> Any:
    """A value in words that both libraries share."""
    if isinstance(value, T.Tensor):
        if value.device.type == "meta":
            return "meta", str(value.dtype), tuple(value.shape), value.stride()
        plain = value.layout is T.strided and not getattr(value, "is_nested", False)
        return dense(T, value) if plain else composed(T, value)
    if isinstance(value, T.nn.Module):
        return repr(value), value.training, neutral(T, dict(value.state_dict()))
    if isinstance(value, T.optim.Optimizer):
        return type(value).__name__, neutral(T, value.state_dict())
    if isinstance(value, T.Generator):
        return value.get_state().numpy().tobytes()
    if isinstance(value, T.TypedStorage):
        return str(value.dtype), value.tolist()
    if isinstance(value, dict):
        items = [(neutral(T, key), neutral(T, each)) for key, each in value.items()]
        return type(value).__name__, sorted(items, key=repr)
    if isinstance(value, list | tuple) and not hasattr(value, "_fields"):
        return type(value).__name__, [neutral(T, each) for each in value]
    if isinstance(value, np.ndarray):
        return str(value.dtype), value.shape, value.tobytes()
    if isinstance(value, Settings):
        return "Settings", vars(value)
    if callable(value):
        return value.__name__
    return str(value) if type(value).__module__.startswith(("torch", "flambeau")) else repr(value)


# -- values ---------------------------------------------------------------------------------------

VALUES: dict[str, Callable[[Any], Any]] = {}


def value(make: Callable[[Any], Any]) -> Callable[[Any], Any]:
    VALUES[make.__name__] = make
    return make


def _of_dtype(name: str) -> Callable[[Any], Any]:
    def make(T: Any) -> Any:
        if name == "bool":
            return [T.tensor([True, False]), T.zeros(0, 3, dtype=T.bool)]
        kind = getattr(T, name)
        return [T.arange(64, dtype=T.uint8).view(kind), T.zeros(0, 3, dtype=kind)]
    return make


for _name in ("float32", "float64", "float16", "bfloat16", "int64", "int32", "int16", "int8",
              "uint8", "uint16", "uint32", "uint64", "bool", "complex64", "complex128", "complex32",
              "float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz", "float8_e5m2fnuz",
              "float8_e8m0fnu"):
    VALUES[_name] = _of_dtype(_name)


@value
def views(T: Any) -> Any:
    base = T.arange(12.0)
    return [base, base[3:], base.view(3, 4).t(), base[::2], base.expand(2, 12), base[5], base[2:2]]


@value
def conjugated(T: Any) -> Any:
    return T.tensor([1 + 2j]).conj()


@value
def sparse(T: Any) -> Any:
    eye = T.arange(16.0).view(4, 4)
    hybrid = T.sparse_coo_tensor(T.tensor([[0, 1]]), T.tensor([[1.0, 2.0], [3.0, 4.0]]), (3, 2))
    return [eye.to_sparse(), hybrid, eye.to_sparse_csr(), eye.to_sparse_csc(),
            eye.to_sparse_bsr((2, 2)), eye.to_sparse_bsc((2, 2))]


@value
def nested(T: Any) -> Any:
    return T.nested.nested_tensor([T.arange(3.0), T.arange(5.0)])


@value
def jagged(T: Any) -> Any:
    return T.nested.nested_tensor([T.arange(3.0), T.arange(5.0)], layout=T.jagged)


@value
def meta(T: Any) -> Any:
    return [T.empty(3, 4, device="meta"), T.nn.Parameter(T.empty(2, device="meta"))]


@value
def special(T: Any) -> Any:
    noted = T.arange(3.0)
    noted.note = {"x": 1}
    return [T.nn.Parameter(T.arange(3.0)), T.nn.Parameter(T.arange(3), requires_grad=False),
            T.nn.Buffer(T.ones(2)), T.arange(3.0).requires_grad_(), noted]


@value
def storage(T: Any) -> Any:
    return T.TypedStorage([1.0, 2.0], dtype=T.float32)


@value
def plain(T: Any) -> Any:
    return {"a": [1.5, None, True, "é\U0001F600", b"bytes", b"", 2**70, -3, 1 + 2j, float("nan")],
            "t": (1, 2, 3, 4), 3: {1, 2}, "o": collections.OrderedDict(a=T.ones(2), b=2),
            (1, "k"): [T.float32, T.bool, T.uint16, T.Size([1, 2]), T.device("cuda:1"),
                       T.sparse_csr]}


@value
def objects(T: Any) -> Any:
    return [Point(T.ones(2), 3), Settings(0.2, "y"), Colour.RED, frozenset([1]), range(3), ...,
            slice(1, 2), bytearray(b"x"), T.nn.functional.relu, T.nn.functional.gelu]


@value
def arrays(T: Any) -> Any:
    return [np.arange(3.0), np.float32(2), np.zeros((2, 0)), np.asfortranarray(np.ones((2, 3)))]


@value
def generator(T: Any) -> Any:
    made = T.Generator().manual_seed(3)
    T.randn(3, generator=made)
    return made


@value
def random_state(T: Any) -> Any:
    return T.manual_seed(3).get_state()


def _module(name: str, *args: Any) -> Callable[[Any], Any]:
    def make(T: Any) -> Any:
        T.manual_seed(0)
        return getattr(T.nn, name)(*args)
    return make


MODULES = {
    "Linear": (2, 3), "Conv1d": (2, 3, 3, 1, 1, 1, 1, True, "circular"), "Conv2d": (2, 3, 3),
    "ConvTranspose2d": (2, 3, 3), "BatchNorm2d": (3,), "LayerNorm": (3,), "GroupNorm": (1, 3),
    "InstanceNorm1d": (3, True, True), "LSTM": (2, 3, 2), "GRU": (2, 3), "RNN": (2, 3),
    "LSTMCell": (2, 3), "Embedding": (4, 3, 1), "EmbeddingBag": (4, 3), "Dropout": (0.3,),
    "MultiheadAttention": (4, 2), "TransformerEncoderLayer": (4, 2, 8), "PReLU": (),
    "TransformerDecoderLayer": (4, 2, 8), "Transformer": (4, 2, 1, 1, 8), "Softmax": (1,),
    "MaxPool2d": (2,), "AdaptiveAvgPool2d": (1,), "CrossEntropyLoss": (), "Flatten": (),
    "Upsample": (None, 2), "PixelShuffle": (2,), "Bilinear": (2, 3, 4), "ZeroPad2d": (1,),
    "AdaptiveLogSoftmaxWithLoss": (4, 10, [3]), "SyncBatchNorm": (3,), "CTCLoss": (),
    "Unfold": (2,), "Fold": (4, 2), "Hardtanh": ()}
VALUES |= {f"nn.{name}": _module(name, *args) for name, args in MODULES.items()}


@value
def containers(T: Any) -> Any:
    T.manual_seed(0)
    parts = T.nn.ParameterList([T.nn.Parameter(T.ones(2))])
    named = T.nn.ParameterDict({"q": T.nn.Parameter(T.ones(2))})
    norm = T.nn.utils.weight_norm(T.nn.Linear(2, 3))
    return T.nn.ModuleDict({"s": T.nn.Sequential(T.nn.Linear(2, 3), T.nn.ReLU()), "p": parts,
                            "l": T.nn.ModuleList([T.nn.Tanh()]), "d": named, "n": norm})


def trained(T: Any, name: str) -> tuple:
    """A module and its optimizer after two steps."""
    T.manual_seed(0)
    model = T.nn.Linear(3, 2)
    options = {"SGD": {"lr": 0.1, "momentum": 0.9}, "Adam": {"amsgrad": True},
               "RMSprop": {"momentum": 0.1, "centered": True}}.get(name, {})
    optimizer = getattr(T.optim, name)(model.parameters(), **options)
    for _ in range(2):
        step(T, model, optimizer)
    return model, optimizer


def step(T: Any, model: Any, optimizer: Any) -> None:
    optimizer.zero_grad()
    model(T.ones(1, 3)).square().sum().backward()
    optimizer.step()


# -- tests ----------------------------------------------------------------------------------------

def saved(T: Any, one: Any, new: bool) -> bytes:
    file = io.BytesIO()
    T.save(one, file, _use_new_zipfile_serialization=new)
    return file.getvalue()


def loaded(T: Any, data: bytes, weights_only: bool) -> Any:
    """In neutral words; None if it is refused."""
    try:
        return neutral(T, T.load(io.BytesIO(data), weights_only=weights_only))
    except (pickle.UnpicklingError, RuntimeError, TypeError, AttributeError, ValueError,
            ImportError, SystemError) as error:
        assert not isinstance(error, ModuleNotFoundError), error
        return None


@pytest.mark.parametrize("weights_only", [True, False])
@pytest.mark.parametrize("new", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize("name", VALUES)
def test_both_ways(name, new, weights_only):
    theirs, ours = VALUES[name](pytorch), VALUES[name](flambeau)
    file = saved(pytorch, theirs, new)
    expected = loaded(pytorch, file, weights_only)
    if expected is None:
        return
    assert loaded(flambeau, file, weights_only) == expected
    if new or name not in ("sparse", "nested", "jagged", "generator"):
        # Of these, PyTorch looks at numbers before it has read them from a file of the old format.
        assert loaded(pytorch, saved(flambeau, ours, new), weights_only) == expected


@pytest.mark.parametrize("new", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize("name", ["SGD", "Adam", "AdamW", "RMSprop", "Adagrad", "Adadelta", "NAdam",
                                  "Adamax", "RAdam", "Rprop", "ASGD", "Adafactor"])
def test_training_goes_on_in_the_other(name, new):
    for one, other in ((pytorch, flambeau), (flambeau, pytorch)):
        model, optimizer = trained(one, name)
        file = io.BytesIO(saved(one, (model, optimizer), new))
        model2, optimizer2 = other.load(file, weights_only=False)
        assert optimizer2.param_groups[0]["params"][0] is model2.weight
        step(one, model, optimizer)
        step(other, model2, optimizer2)
        np.testing.assert_allclose(model2.weight.detach().numpy(), model.weight.detach().numpy(),
                                   rtol=1e-6, atol=1e-7)
        state = other.load(io.BytesIO(saved(one, optimizer.state_dict(), new)))
        trained(other, name)[1].load_state_dict(state)


INPUTS = {"Linear": [(4, 2)], "Conv2d": [(1, 2, 5, 5)], "Conv1d": [(1, 2, 5)], "LSTM": [(5, 1, 2)],
          "GRU": [(5, 1, 2)], "LSTMCell": [(5, 2)], "MultiheadAttention": [(5, 1, 4)] * 3,
          "TransformerEncoderLayer": [(5, 1, 4)], "TransformerDecoderLayer": [(5, 1, 4)] * 2,
          "BatchNorm2d": [(2, 3, 4, 4)], "Upsample": [(1, 1, 3, 3)], "Bilinear": [(2, 2), (2, 3)]}


@pytest.mark.parametrize("name", INPUTS)
def test_modules_work_in_the_other(name):
    rng = np.random.default_rng(0)
    arguments = [rng.standard_normal(shape).astype(np.float32) for shape in INPUTS[name]]

    def run(T: Any, module: Any) -> np.ndarray:
        with T.no_grad():
            out = module(*(T.from_numpy(each) for each in arguments))
        return (out[0] if isinstance(out, tuple) else out).numpy()
    for one, other in ((pytorch, flambeau), (flambeau, pytorch)):
        module = _module(name, *MODULES[name])(one).eval()
        found = other.load(io.BytesIO(saved(one, module, True)), weights_only=False)
        np.testing.assert_allclose(run(other, found), run(one, module), atol=1e-5)
        run(other, copy.deepcopy(found).train())


def test_safetensors_both_ways(tmp_path):
    theirs = pytest.importorskip("safetensors.torch")
    ours = flambeau.serialization.safetensors
    state = {name: [VALUES[name](T) for T in (pytorch, flambeau)] for name in (
        "float32", "float64", "float16", "bfloat16", "int64", "uint8", "uint16", "bool",
        "complex64", "float8_e4m3fn", "float8_e5m2", "float8_e8m0fnu")}
    one = {f"{name}.{i}": part for name, (made, _) in state.items() for i, part in enumerate(made)}
    other = {f"{name}.{i}": part for name, (_, made) in state.items()
             for i, part in enumerate(made)}
    theirs.save_file(one, tmp_path / "a", {"x": "y"})
    ours.save_file(other, tmp_path / "b", {"x": "y"})
    expected = neutral(pytorch, one)
    assert neutral(flambeau, ours.load_file(tmp_path / "a")) == expected
    assert neutral(pytorch, theirs.load_file(tmp_path / "b")) == expected
    with ours.safe_open(tmp_path / "a") as file:
        assert file.metadata() == {"x": "y"} and file.keys() == sorted(one)
