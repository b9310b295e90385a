"""Hostile files: none may run code, read memory that is not its own, or exhaust the machine."""

from __future__ import annotations

import argparse
import io
import os
import pickle
import struct
import time
import zipfile

import numpy as np
import pytest
from serialization.numpy_tensors import FakeParameter, FakeTensor, tensor

from flambeau import serialization
from flambeau.serialization.archive import ArchiveWriter
from flambeau.serialization.errors import CheckpointError, CorruptError, UnsafeError


def archive(data: bytes, **records: bytes) -> io.BytesIO:
    """A checkpoint around a pickle; records by key of their storage."""
    file = io.BytesIO()
    writer = ArchiveWriter(file, "archive")
    writer.add("data.pkl", data)
    for key, record in records.items():
        writer.add(f"data/{key.removeprefix('s')}", record)
    writer.close()
    file.seek(0)
    return file


class Calls:
    def __init__(self, function, *arguments):
        self.reduced = function, arguments

    def __reduce__(self):
        return self.reduced


def name(text: str) -> bytes:
    module, _, attribute = text.rpartition(".")
    return b"c" + module.encode() + b"\n" + attribute.encode() + b"\n"


FORBIDDEN = ["os.system", "posix.system", "nt.system", "builtins.eval", "builtins.exec",
             "builtins.getattr", "builtins.__import__", "builtins.open", "subprocess.Popen",
             "importlib.import_module", "runpy.run_path", "sys.exit", "torch.load", "numpy.load",
             "torch.hub.load", "torch._utils._import_dotted_name", "torch.storage._load_from_bytes",
             "operator.attrgetter", "functools.partial", "types.FunctionType", "codecs.encode",
             "flambeau.serialization.save", "builtins.type", "torch.nn.modules.linear.Linear"]


@pytest.mark.parametrize("target", FORBIDDEN)
def test_forbidden_names(target):
    with pytest.raises(UnsafeError, match=target.replace("builtins.", "")):
        serialization.load(archive(b"\x80\x02" + name(target) + b"X\x01\x00\x00\x00a\x85R."))


@pytest.mark.parametrize("target", ["os.system", "builtins.eval", "posix.system", "sys.exit"])
def test_some_names_cannot_be_allowed(target):
    module, attribute = target.split(".")
    function = getattr(__import__(module), attribute)
    allowed = serialization.safe_globals([(function, target)])
    with allowed, pytest.raises(UnsafeError, match="never"):
        serialization.load(archive(b"\x80\x02" + name(target) + b")R."))


@pytest.mark.parametrize("protocol", range(6))
def test_pickled_calls_do_not_run(protocol, tmp_path):
    trace = tmp_path / "trace"
    data = pickle.dumps(Calls(os.system, f"touch {trace}"), protocol)
    with pytest.raises(CheckpointError):
        serialization.load(archive(data))
    with pytest.raises(CheckpointError):
        serialization.load(io.BytesIO(data))
    assert not trace.exists()


def test_old_opcodes_that_call_are_refused():
    for data in (b"(S'ls'\nios\nsystem\n.", b"(cos\nsystem\nS'ls'\no.", b"\x82\x01."):
        with pytest.raises(CheckpointError, match=r"opcode|GLOBAL|asks for"):
            serialization.load(archive(data))


def test_only_names_may_be_called():
    for top in (b"]", b"}", b"X\x01\x00\x00\x00a", b"K\x01", b"ccollections\nOrderedDict\n)R",
                b"cbuiltins\nlist\n", b"ctorch\nfloat32\n", b"ctorch\nFloatStorage\n"):
        with pytest.raises(UnsafeError, match="may not be called"):
            serialization.load(archive(b"\x80\x02" + top + b")R."))


def test_only_known_types_may_get_state():
    for top in (b"]", b"}", b"K\x01", b"cbuiltins\nlist\n", b"ccollections\nOrderedDict\n",
                b"cdatetime\ntimedelta\n)R", b"ctorch\nfloat32\n"):
        with pytest.raises(UnsafeError, match="sets the state"):
            serialization.load(archive(b"\x80\x02" + top + b"}b."))


def test_state_may_not_hide_methods():
    made = b"\x80\x02ccollections\nOrderedDict\n)R}X\x05\x00\x00\x00itemsK\x01sb."
    with pytest.raises(UnsafeError, match="hide its 'items'"):
        serialization.load(archive(made))
    made = b"\x80\x02cargparse\nNamespace\n)\x81}X\x09\x00\x00\x00__class__K\x01sb."
    with pytest.raises(UnsafeError, match="hide its '__class__'"):
        serialization.load(archive(made))


@pytest.mark.parametrize("attribute", ["method", "__class__", "storage", "_part"])
def test_tensor_attributes_may_not_replace_what_tensors_have(attribute):
    """A forged storage, {ptr: anywhere, nbytes: everything}, would open all memory."""
    for value in (tensor(np.ones(2)), FakeParameter(tensor(np.ones(2)))):
        vars(value)[attribute] = argparse.Namespace(ptr=4096, nbytes=2**40)
        file = io.BytesIO()
        serialization.save(value, file)
        data = zipfile.ZipFile(file).read("archive/data.pkl")
        # "_parts" is where the instance itself keeps its storage.
        data = data.replace(b"X\x05\x00\x00\x00_part", b"X\x06\x00\x00\x00_parts")
        with pytest.raises(UnsafeError, match=attribute):
            serialization.load(archive(data, s0=bytes(16)))


class Allowed(FakeTensor):
    pass


def test_allowed_tensor_classes_get_no_forged_state():
    target = name(f"{__name__}.Allowed")
    forged = b"}X\x06\x00\x00\x00_partsK\x01sb."
    with serialization.safe_globals([Allowed]):
        for data in (target + b")\x81" + forged, target + b")R" + forged):
            with pytest.raises(UnsafeError, match="Allowed"):
                serialization.load(archive(b"\x80\x02" + data))


def test_expanded_views_are_not_copied_without_bound():
    base = tensor(np.ones(1, np.complex64))
    for count, allowed in ((100, True), (2**40, False)):
        view = FakeTensor(base.storage, base.dtype, (count,), (0,), 0, conj=True)
        file = io.BytesIO()
        serialization.save(view, file)
        file.seek(0)
        if allowed:
            assert serialization.load(file).shape == (count,)
        else:
            with pytest.raises(CorruptError, match="copied"):
                serialization.load(file)


def test_items_only_for_containers():
    for data, text in ((b"}K\x01a.", "append"), (b"}(K\x01e.", "append"),
                       (b"](K\x01K\x02u.", "set"),
                       (b"cargparse\nNamespace\n)RK\x01K\x02s.", "set"),
                       (b"](K\x01\x90.", "added")):
        with pytest.raises(UnsafeError, match=text):
            serialization.load(archive(b"\x80\x04" + data))


def test_restricted_constructors():
    for data in (b"cbuiltins\nbytearray\nJ\xff\xff\xff\x7f\x85R.",  # 2 GiB of zeros
                 b"c_codecs\nencode\nX\x01\x00\x00\x00aX\x05\x00\x00\x00utf-7\x86R.",
                 b"cbuiltins\nset\nX\x01\x00\x00\x00a\x85R.",
                 b"ccollections\ndefaultdict\nccollections\ndeque\n\x85R.",
                 b"cnumpy\ndtype\nX\x01\x00\x00\x00O\x85R.",
                 b"cnumpy\ndtype\nX\x05\x00\x00\x00i4,i4\x85R.",
                 b"cpathlib\nPath\nK\x01\x85R.",
                 b"ctorch\nSize\n]X\x01\x00\x00\x00aa\x85R."):
        with pytest.raises(CheckpointError):
            serialization.load(archive(b"\x80\x02" + data))


def test_numpy_arrays_with_fields_that_are_objects_are_refused():
    for value in (np.array([(1, {})], "i4,O"), np.array([(1, (2, None))], "i4,(2,)O")):
        with pytest.raises(UnsafeError):
            serialization.load(archive(pickle.dumps(value, 2)))


def tensor_pickle(shape: tuple, strides: tuple, offset: int = 0, count: int = 4,
                  kind: bytes = b"ctorch\nFloatStorage\n") -> bytes:
    body = io.BytesIO()
    pickler = pickle._Pickler(body, 2)
    body.write(b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n((X\x07\x00\x00\x00storage" + kind
               + b"X\x01\x00\x00\x000X\x03\x00\x00\x00cpu")
    pickler.write = body.write
    pickler.save(count)
    body.write(b"tQ")
    for value in (offset, shape, strides):
        pickler.save(value)
    body.write(b"\x89}tR.")
    return body.getvalue()


@pytest.mark.parametrize("shape, strides, offset", [
    ((5,), (1,), 0), ((4,), (1,), 1), ((2, 2), (3, 1), 0), ((2,), (2**40,), 0), ((1,), (1,), 4),
    ((-1,), (1,), 0), ((2,), (-1,), 1), ((2,), (1,), -1), ((2**62, 2**62), (0, 0), 0),
    ((2,), (1, 1), 0), ((1.5,), (1,), 0), ((True,), (1,), 0), ((2**63,), (0,), 0), (3, (1,), 0),
    ((2,), "a", 0), ((1,) * 70, (1,) * 70, 0),
])
def test_tensors_must_lie_inside_their_storage(shape, strides, offset):
    with pytest.raises(CorruptError):
        serialization.load(archive(tensor_pickle(shape, strides, offset), s0=bytes(16)))


def test_valid_geometry_is_accepted():
    for shape, strides, offset in (((4,), (1,), 0), ((0,), (1,), 10), ((2, 2), (0, 3), 0),
                                   ((), (), 3), ((1,), (2**40,), 3)):
        loaded = serialization.load(archive(tensor_pickle(shape, strides, offset), s0=bytes(16)))
        assert loaded.shape == shape


@pytest.mark.parametrize("count", [5, 2**40, 2**61, 2**62, 2**64, -1])
def test_storages_must_lie_inside_their_record(count):
    with pytest.raises(CorruptError, match=r"record|elements"):
        serialization.load(archive(tensor_pickle((1,), (1,), 0, count), s0=bytes(16)))


def test_persistent_ids_must_be_storages():
    for ident in (b"K\x01", b"(X\x06\x00\x00\x00modulecbuiltins\nlist\nNNK\x01t",
                  b"(X\x07\x00\x00\x00storagecbuiltins\nlist\nX\x01\x00\x00\x000NK\x01t"):
        with pytest.raises(CheckpointError):
            serialization.load(archive(b"\x80\x02" + ident + b"Q.", s0=b""))


def test_nested_tensors_need_their_parts():
    with pytest.raises(CheckpointError, match="damaged"):
        serialization.load(archive(b"\x80\x02ctorch._utils\n_rebuild_nested_tensor\nNN\x86R."))


# -- exhaustion -----------------------------------------------------------------------------------

def test_copies_of_copies_are_bounded():
    """One long string, encoded again and again: 20 000 x 1 MB if nothing stopped it."""
    text = b"a" * 1_000_000
    data = b"\x80\x02X" + struct.pack("<I", len(text)) + text + b"q\x000c_codecs\nencode\nq\x01" \
        b"0X\x06\x00\x00\x00latin1q\x020]" + 20_000 * b"h\x01h\x00h\x02\x86Ra" + b"."
    started = time.perf_counter()
    with pytest.raises(CorruptError, match="exhaust"):
        serialization.load(archive(data))
    assert time.perf_counter() - started < 5


def test_deep_keys_are_bounded():
    data = b"\x80\x02}" + b")" + 200 * b"2\x86" + b"K\x01s."  # t = (t, t): 2^200 parts
    with pytest.raises(CorruptError, match="key"):
        serialization.load(archive(data))


def test_a_pickle_may_not_promise_more_than_it_holds():
    for opcode in (b"X\xff\xff\xff\x7f", b"B\xff\xff\xff\x7f", b"\x8d" + b"\xff" * 7 + b"\x7f",
                   b"\x8b\xff\xff\xff\x7f", b"\x96" + b"\xff" * 7 + b"\x7f"):
        with pytest.raises(CheckpointError, match="promises"):
            serialization.load(archive(b"\x80\x05" + opcode + b"abc."))


def test_deep_nesting_loads():
    depth = 50_000
    loaded = serialization.load(archive(b"\x80\x02" + b"]" * depth + b"a" * (depth - 1) + b"."))
    assert type(loaded) is list


def test_decompression_bombs():
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("archive/data.pkl", tensor_pickle((1,), (1,)))
        packed.writestr("archive/data/0", bytes(50_000_000))
    file.seek(0)
    with pytest.raises(CorruptError, match=r"bomb.*zip -0"):
        serialization.load(file)


def test_compressed_checkpoints_load():
    file = io.BytesIO()
    values = np.random.default_rng(0).standard_normal(4).astype(np.float32)
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("archive/data.pkl", tensor_pickle((4,), (1,)))
        packed.writestr("archive/data/0", values.tobytes())
    file.seek(0)
    np.testing.assert_array_equal(serialization.load(file).numpy(), values)


def test_overlapping_records():
    """Two directory entries for the same bytes."""
    data = archive(tensor_pickle((1,), (1,)), s0=bytes(1000), s1=bytes(1000)).getvalue()
    first = data.index(b"archive/data/0") - 30
    entry = data.rindex(b"archive/data/1") - 46
    patched = bytearray(data)
    struct.pack_into("<I", patched, entry + 42, first)
    with pytest.raises(CorruptError, match="overlap"):
        serialization.load(io.BytesIO(bytes(patched)))


def test_duplicate_records():
    file = io.BytesIO()
    writer = ArchiveWriter(file, "archive")
    writer.add("data.pkl", b"\x80\x02N.")
    writer.add("data.pkl", b"\x80\x02N.")
    writer.close()
    file.seek(0)
    with pytest.raises(CorruptError, match="two records"):
        serialization.load(file)
