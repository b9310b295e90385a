"""NumPy's scalars, arrays and dtypes in checkpoints, and states of them that lie."""

from __future__ import annotations

import io
import pickle

import numpy as np
import pytest

from flambeau import serialization
from flambeau.serialization.errors import CheckpointError, UnsafeError
from flambeau.serialization.numpy_values import numpy_builders

VALUES = [
    np.datetime64("2024-05-06T07:08:09", "ns"), np.timedelta64(5, "D"), np.datetime64("NaT"),
    np.array(["2024-01-01", "NaT"], "M8[D]"), np.arange(6).astype("m8[25s]").reshape(2, 3),
    np.asfortranarray(np.array([[1, 2], [3, 4]], ">m8[h]")), np.arange(4, dtype=">i4"),
    np.array([(1, 2.5, "ab")], [("a", "i4"), ("b", ">f8"), ("c", "U2")]),
    np.array([(1, [2, 3])], np.dtype([("a", "i1"), ("b", "i8", (2,))], align=True)),
    np.zeros(2, np.dtype([(("title", "n"), "M8[us]")])), np.array([None, "x", (1, 2)], object),
    np.array([1.5], np.longdouble), np.array([[1, None]], object), np.float16(2),
]


def _loaded(value, **options):
    file = io.BytesIO()
    serialization.save({"it": value}, file)
    file.seek(0)
    return serialization.load(file, **options)["it"]


@pytest.mark.parametrize("value", VALUES, ids=lambda v: str(np.asarray(v).dtype))
def test_round_trip(value):
    found = _loaded(value)
    assert type(found) is type(value) and np.asarray(found).shape == np.asarray(value).shape
    assert found.dtype.newbyteorder("=") == value.dtype.newbyteorder("=")
    assert pickle.dumps(np.asarray(found).tolist()) == pickle.dumps(np.asarray(value).tolist())


@pytest.mark.parametrize("dtype", ["M8[ns]", "m8", [("a", "i4"), ("b", "S3")], ">f4", "O"])
def test_dtypes(dtype):
    assert _loaded(np.dtype(dtype)) == np.dtype(dtype)


STATES = {
    "a field outside": ("V8", (3, "|", None, ("a",), {"a": (np.dtype("i4"), 6)}, 8, 1, 16)),
    "a field before": ("V8", (3, "|", None, ("a",), {"a": (np.dtype("i4"), -4)}, 8, 1, 16)),
    "far outside": ("V8", (3, "|", None, ("a",), {"a": (np.dtype("i4"), 2**31 - 1)}, 8, 1, 16)),
    "negative element": ("V8", (3, "|", (np.dtype("i4"), (-1, -2)), None, None, 8, 4, 0)),
    "another size": ("V8", (3, "|", None, ("a",), {"a": (np.dtype("i4"), 0)}, 4000, 1, 16)),
    "objects": ("V8", (3, "|", None, ("a",), {"a": (np.dtype("O"), 0)}, 8, 1, 63)),
    "no field": ("V8", (3, "|", None, ("a", "b"), {"a": (np.dtype("i4"), 0)}, 8, 1, 16)),
    "large element": ("V8", (3, "|", (np.dtype("i4"), (1 << 20,)), None, None, 8, 4, 0)),
    "no unit": ("M8", (4, "<", None, None, None, -1, -1, 0, (None, (b"parsec", 1, 1, 1)))),
    "no metadata": ("M8", (4, "<", None, None, None, -1, -1, 0)),
    "short": ("i4", (3, ">")),
}


@pytest.mark.parametrize("name", STATES)
def test_states_that_lie(name):
    text, state = STATES[name]
    dtype = np.dtype(text).newbyteorder("|")
    build = numpy_builders()[type(dtype)]
    try:
        build(dtype, state)
    except UnsafeError:
        pass
    else:
        assert name == "another size"  # what the state says about it is not looked at
    assert dtype.itemsize == np.dtype(text).itemsize and dtype.names in (None, ("a",))


def test_a_dtype_does_not_get_itself_for_a_field():
    dtype = np.dtype("V4").newbyteorder("|")
    numpy_builders()[type(dtype)](dtype, (3, "|", None, ("a",), {"a": (dtype, 0)}, 4, 1, 16))
    assert dtype["a"] == np.dtype("V4")


@pytest.mark.parametrize("state", [
    (1, (1 << 40, 0), np.dtype("i4"), False, b""), (1, (3,), np.dtype("i4"), False, b"1234"),
    (1, (1 << 70, 0), np.dtype("i4"), False, b""), (1, (2,), np.dtype("O"), False, [1]),
    (1, (2,), np.dtype("O"), False, b"1234567812345678"), (1, [2], np.dtype("i1"), False, b"ab"),
    (1, (2,), np.dtype("i1"), False, [1, 2]), (1, (-1, -2), np.dtype("i1"), False, b"ab")])
def test_arrays_that_lie(state):
    array = np.empty(0, np.int8)
    try:
        numpy_builders()[np.ndarray](array, state)
    except CheckpointError:
        assert array.shape == (0,)
    else:
        assert array.nbytes == len(state[4])
