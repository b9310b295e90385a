"""Printing: golden texts made with PyTorch 2.13, and what must hold beyond them."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

from flambeau.core import dtypes
from flambeau.tensor import display

# data, dtype name, arguments of tensor_repr, printing options, the text
GOLDEN = [
    (np.float32(1.5), "float32", {}, {},
     "tensor(1.5000)"),
    (np.float32(-0.0), "float32", {}, {},
     "tensor(-0.)"),
    (np.float32(np.nan), "float32", {}, {},
     "tensor(nan)"),
    (np.float32(1e-9), "float32", {}, {},
     "tensor(1.0000e-09)"),
    (np.float32(123456792.0), "float32", {}, {},
     "tensor(1.2346e+08)"),
    (np.int64(7), "int64", {}, {},
     "tensor(7)"),
    (np.int32(7), "int32", {}, {},
     "tensor(7, dtype=torch.int32)"),
    (np.bool_(True), "bool", {}, {},
     "tensor(True)"),
    (np.complex64(1 - 2j), "complex64", {}, {},
     "tensor(1.-2.j)"),
    (np.complex128(complex(-0.0, -0.0)), "complex128", {}, {},
     "tensor(-0.-0.j, dtype=torch.complex128)"),
    (np.zeros((0,)), "float32", {}, {},
     "tensor([])"),
    (np.zeros((0,)), "int64", {}, {},
     "tensor([], dtype=torch.int64)"),
    (np.zeros((0, 3)), "float32", {}, {},
     "tensor([], size=(0, 3))"),
    (np.zeros((2, 0, 3)), "bool", {}, {},
     "tensor([], size=(2, 0, 3), dtype=torch.bool)"),
    (np.array([1, 2, 3]), "float32", {}, {},
     "tensor([1., 2., 3.])"),
    (np.array([1, 2.5, -3]), "float32", {}, {},
     "tensor([ 1.0000,  2.5000, -3.0000])"),
    (np.array([1, 1000]), "float32", {}, {},
     "tensor([   1., 1000.])"),
    (np.array([1, 1001]), "float32", {}, {},
     "tensor([1.0000e+00, 1.0010e+03])"),
    (np.array([1e-5, 1]), "float32", {}, {},
     "tensor([1.0000e-05, 1.0000e+00])"),
    (np.array([1e8, 1.5e8]), "float32", {}, {},
     "tensor([1.0000e+08, 1.5000e+08])"),
    (np.array([1e8, 100000001.0]), "float64", {}, {},
     "tensor([1.0000e+08, 1.0000e+08], dtype=torch.float64)"),
    (np.array([0.0, -0.0, np.nan, np.inf, -np.inf]), "float32", {}, {},
     "tensor([0., -0., nan, inf, -inf])"),
    (np.array([1.0, np.nan, np.inf, -np.inf]), "float32", {}, {},
     "tensor([1., nan, inf, -inf])"),
    (np.array([0.25, np.nan, -np.inf]), "float32", {}, {},
     "tensor([0.2500,    nan,   -inf])"),
    (np.array([1e-10, np.nan, -np.inf, 0]), "float32", {}, {},
     "tensor([1.0000e-10,        nan,       -inf, 0.0000e+00])"),
    (np.array([0.1, 65504]), "float16", {}, {},
     "tensor([9.9976e-02, 6.5504e+04], dtype=torch.float16)"),
    (np.array([0.1, 3.14159]), "bfloat16", {}, {},
     "tensor([0.1001, 3.1406], dtype=torch.bfloat16)"),
    (np.array([0.1, 3.14159]), "float64", {}, {},
     "tensor([0.1000, 3.1416], dtype=torch.float64)"),
    (np.array([1, -128, 127]), "int8", {}, {},
     "tensor([   1, -128,  127], dtype=torch.int8)"),
    (np.array([0, 2**64 - 1], dtype=np.uint64), "uint64", {}, {},
     "tensor([                   0, 18446744073709551615], dtype=torch.uint64)"),
    (np.array([True, False]), "bool", {}, {},
     "tensor([ True, False])"),
    (np.array([1 + 2j, -0.5 - 1e3j]), "complex64", {}, {},
     "tensor([ 1.0000+2.j, -0.5000-1000.j])"),
    (np.array([complex(np.nan, -np.inf), 1e-6j]), "complex64", {}, {},
     "tensor([nan-infj, 0.+1.0000e-06j])"),
    (np.arange(6).reshape(2, 3), "float32", {"requires_grad": True}, {},
     "tensor([[0., 1., 2.],\n        [3., 4., 5.]], requires_grad=True)"),
    (np.arange(6).reshape(2, 3), "float32", {"grad_fn": "AddBackward0"}, {},
     "tensor([[0., 1., 2.],\n        [3., 4., 5.]], grad_fn=<AddBackward0>)"),
    (np.arange(12).reshape(2, 2, 3), "int64", {}, {},
     "tensor([[[ 0,  1,  2],\n         [ 3,  4,  5]],\n\n        [[ 6,  7,  8],\n"
     "         [ 9, 10, 11]]])"),
    (np.arange(40) / 7, "float32", {}, {},
     "tensor([0.0000, 0.1429, 0.2857, 0.4286, 0.5714, 0.7143, 0.8571, 1.0000, 1.1429,\n"
     "        1.2857, 1.4286, 1.5714, 1.7143, 1.8571, 2.0000, 2.1429, 2.2857, 2.4286,\n"
     "        2.5714, 2.7143, 2.8571, 3.0000, 3.1429, 3.2857, 3.4286, 3.5714, 3.7143,\n"
     "        3.8571, 4.0000, 4.1429, 4.2857, 4.4286, 4.5714, 4.7143, 4.8571, 5.0000,\n"
     "        5.1429, 5.2857, 5.4286, 5.5714])"),
    (np.arange(18) / 7, "float64", {"grad_fn": "MulBackward0"}, {},
     "tensor([0.0000, 0.1429, 0.2857, 0.4286, 0.5714, 0.7143, 0.8571, 1.0000, 1.1429,\n"
     "        1.2857, 1.4286, 1.5714, 1.7143, 1.8571, 2.0000, 2.1429, 2.2857, 2.4286],\n"
     "       dtype=torch.float64, grad_fn=<MulBackward0>)"),
    (np.arange(1001), "int64", {}, {},
     "tensor([   0,    1,    2,  ...,  998,  999, 1000])"),
    (np.arange(1001) / 10, "float32", {}, {},
     "tensor([  0.0000,   0.1000,   0.2000,  ...,  99.8000,  99.9000, 100.0000])"),
    (np.arange(10000).reshape(100, 100), "float32", {}, {},
     "tensor([[0.0000e+00, 1.0000e+00, 2.0000e+00,  ..., 9.7000e+01, 9.8000e+01,\n"
     "         9.9000e+01],\n"
     "        [1.0000e+02, 1.0100e+02, 1.0200e+02,  ..., 1.9700e+02, 1.9800e+02,\n"
     "         1.9900e+02],\n"
     "        [2.0000e+02, 2.0100e+02, 2.0200e+02,  ..., 2.9700e+02, 2.9800e+02,\n"
     "         2.9900e+02],\n        ...,\n"
     "        [9.7000e+03, 9.7010e+03, 9.7020e+03,  ..., 9.7970e+03, 9.7980e+03,\n"
     "         9.7990e+03],\n"
     "        [9.8000e+03, 9.8010e+03, 9.8020e+03,  ..., 9.8970e+03, 9.8980e+03,\n"
     "         9.8990e+03],\n"
     "        [9.9000e+03, 9.9010e+03, 9.9020e+03,  ..., 9.9970e+03, 9.9980e+03,\n"
     "         9.9990e+03]])"),
    (np.arange(2000).reshape(2, 10, 100), "int64", {}, {},
     "tensor([[[   0,    1,    2,  ...,   97,   98,   99],\n"
     "         [ 100,  101,  102,  ...,  197,  198,  199],\n"
     "         [ 200,  201,  202,  ...,  297,  298,  299],\n         ...,\n"
     "         [ 700,  701,  702,  ...,  797,  798,  799],\n"
     "         [ 800,  801,  802,  ...,  897,  898,  899],\n"
     "         [ 900,  901,  902,  ...,  997,  998,  999]],\n\n"
     "        [[1000, 1001, 1002,  ..., 1097, 1098, 1099],\n"
     "         [1100, 1101, 1102,  ..., 1197, 1198, 1199],\n"
     "         [1200, 1201, 1202,  ..., 1297, 1298, 1299],\n         ...,\n"
     "         [1700, 1701, 1702,  ..., 1797, 1798, 1799],\n"
     "         [1800, 1801, 1802,  ..., 1897, 1898, 1899],\n"
     "         [1900, 1901, 1902,  ..., 1997, 1998, 1999]]])"),
    (np.arange(6).reshape(2, 3).T, "int64", {}, {},
     "tensor([[0, 3],\n        [1, 4],\n        [2, 5]])"),
    (np.arange(6), "float32", {"is_parameter": True, "requires_grad": True}, {},
     "Parameter containing:\ntensor([0., 1., 2., 3., 4., 5.], requires_grad=True)"),
    (np.array([1 / 3, 2 / 3]), "float32", {}, {"precision": 8},
     "tensor([0.33333334, 0.66666669])"),
    (np.array([1 / 3, 2 / 3]), "float32", {}, {"sci_mode": True},
     "tensor([3.3333e-01, 6.6667e-01])"),
    (np.array([1e-10, 1e10]), "float32", {}, {"sci_mode": False},
     "tensor([          0.0000, 10000000000.0000])"),
    (np.arange(20), "int64", {}, {"threshold": 5},
     "tensor([ 0,  1,  2,  ..., 17, 18, 19])"),
    (np.arange(20), "int64", {}, {"threshold": 5, "edgeitems": 0},
     "tensor([...], size=(20,))"),
    (np.arange(20), "int64", {}, {"threshold": 5, "edgeitems": 1},
     "tensor([ 0,  ..., 19])"),
    (np.arange(30).reshape(5, 6) / 4, "float32",
     {}, {"threshold": 5, "edgeitems": 2, "linewidth": 20},
     "tensor([[0.0000,\n         0.2500,\n          ...,\n         1.0000,\n"
     "         1.2500],\n        [1.5000,\n         1.7500,\n          ...,\n"
     "         2.5000,\n         2.7500],\n        ...,\n        [4.5000,\n"
     "         4.7500,\n          ...,\n         5.5000,\n         5.7500],\n"
     "        [6.0000,\n         6.2500,\n          ...,\n         7.0000,\n"
     "         7.2500]])"),
    (np.arange(30) / 4, "float32", {}, {"linewidth": 40},
     "tensor([0.0000, 0.2500, 0.5000, 0.7500,\n        1.0000, 1.2500, 1.5000, 1.7500,\n"
     "        2.0000, 2.2500, 2.5000, 2.7500,\n        3.0000, 3.2500, 3.5000, 3.7500,\n"
     "        4.0000, 4.2500, 4.5000, 4.7500,\n        5.0000, 5.2500, 5.5000, 5.7500,\n"
     "        6.0000, 6.2500, 6.5000, 6.7500,\n        7.0000, 7.2500])"),
    (np.arange(1005) / 4, "float32", {}, {"profile": "short"},
     "tensor([0.00e+00, 2.50e-01,  ..., 2.51e+02, 2.51e+02])"),
]


@pytest.fixture(autouse=True)
def restore_options():
    yield
    display.set_printoptions(profile="default")


@pytest.mark.parametrize("data, name, arguments, options, text", GOLDEN)
def test_golden(data, name, arguments, options, text):
    dtype = dtypes.by_name(name)
    array = np.asarray(data).astype(dtype.numpy)
    with display.printoptions(**options):
        assert display.tensor_repr(array, dtype, **arguments) == text


def test_summary_reads_only_the_edges():
    huge = np.broadcast_to(np.float32(1.5), (10**6, 10**6, 10**6))  # 10^18 virtual elements
    with display.printoptions(edgeitems=1):
        text = display.tensor_repr(huge, dtypes.float32)
    assert text.count("1.5000") == 8
    assert text.count("...") == 4 + 2 + 1


def test_printing_does_not_write():
    array = np.arange(5.0)
    array.flags.writeable = False
    display.tensor_repr(array, dtypes.float64)


def test_options_context_restores_after_an_error():
    before = display.get_printoptions()
    with pytest.raises(KeyError), display.printoptions(precision=1, sci_mode=True):
        assert display.get_printoptions()["precision"] == 1
        raise KeyError
    assert display.get_printoptions() == before


def test_sci_mode_returns_to_automatic():
    display.set_printoptions(sci_mode=True)
    display.set_printoptions(precision=4)
    assert display.get_printoptions()["sci_mode"] is None


def test_unknown_profile_is_refused():
    with pytest.raises(ValueError, match="'default', 'short' and 'full', but got 'tiny'"):
        display.set_printoptions(profile="tiny")


def test_device_contents_and_further_suffixes():
    array = np.ones(2, np.float32)
    text = display.tensor_repr(array, dtypes.float32, device="cuda:0", contents="[...]",
                               requires_grad=True, suffixes=["tangent=0"])
    assert text == "tensor([...], device='cuda:0', requires_grad=True, tangent=0)"


def test_default_dtype():
    array = np.ones(2)
    assert display.tensor_repr(array, dtypes.float64,
                               default_dtype=dtypes.float64) == "tensor([1., 1.])"


def test_subclasses_and_parameters():
    array = np.ones(2, np.float32)
    text = display.tensor_repr(array, dtypes.float32, prefix="Marked(")
    assert text == "Marked([1., 1.])"
    text = display.tensor_repr(array, dtypes.float32, prefix="Marked(", is_parameter=True,
                               requires_grad=True)
    assert text == "Parameter containing:\nParameter(Marked([1., 1.], requires_grad=True))"
    text = display.tensor_repr(array, dtypes.float32, prefix="Marked(", is_parameter=True,
                               requires_grad=True, header=False)
    assert text == "Parameter(Marked([1., 1.], requires_grad=True))"


def test_meta():
    assert display.meta_repr((2, 3), dtypes.float32) == "tensor(..., device='meta', size=(2, 3))"
    text = "tensor(..., device='meta', size=(), dtype=torch.int64)"
    assert display.meta_repr((), dtypes.int64) == text


@pytest.mark.parametrize("value, name, spec, text", [
    (1.23456, "float32", ".3f", "1.235"), (1.23456, "bfloat16", ".3f", "1.234"),
    (0.1, "float32", "", "0.10000000149011612"), (7, "int64", "05d", "00007"),
    (True, "bool", "", "True"), (1 + 2j, "complex64", ".1f", "1.0+2.0j"),
])
def test_format_scalar(value, name, spec, text):
    dtype = dtypes.by_name(name)
    assert display.format_scalar(np.asarray(value, dtype.numpy), dtype, spec) == text


def test_bfloat16_arrays_are_ml_dtypes():
    array = np.asarray([1, 2, 3], ml_dtypes.bfloat16)
    assert display.array_body(array, dtypes.bfloat16) == "[1., 2., 3.]"
