"""Damaged and hostile checkpoints: each gives an error of ours or the right data.

    python tests/fuzz_checkpoints.py 100000 [--seed 7] [--kinds zip,legacy,...]

Files of every kind are mutated: bytes and blocks changed, cut, repeated and spliced, numbers in
headers and pickles replaced by others, records repacked, compressed and made to lie. A case fails
if loading takes longer than SECONDS, grows the process by more than MEMORY beyond ten times
the file, ends the process, raises what is no CheckpointError, or gives something else than what was
saved although the file's checksums hold. Cases follow from the seed and their number: a failing
one is shown as `--only NUMBER`.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import random
import resource
import signal
import struct
import subprocess
import sys
import tempfile
import time
import zipfile
from collections import Counter, OrderedDict
from pathlib import Path
from typing import Any

import numpy as np

SECONDS, MEMORY, BATCH = 5.0, 64 << 20, 2000
_ODD = (0, 1, 2, 3, 7, 8, 63, 64, 127, 128, 255, 256, 2**15, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 1,
        2**40, 2**62, 2**63 - 1, 2**63, 2**64 - 1)


# -- what is saved --------------------------------------------------------------------------------

def values(torch: Any) -> list[Any]:
    """Objects that use everything the format has."""
    torch.manual_seed(1)
    base = torch.arange(48, dtype=torch.float32)
    model = torch.nn.Sequential(torch.nn.Linear(5, 4), torch.nn.BatchNorm1d(4))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    model(torch.randn(3, 5)).sum().backward()
    optimizer.step()
    everything = {
        "views": [base, base[3:9], base.view(6, 8).t(), base[::5], base[2].expand(3, 4), base[:0]],
        "dtypes": [torch.zeros(3, dtype=dtype) for dtype in (
            torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.int8, torch.uint16,
            torch.bool, torch.complex64)],
        "sparse": torch.eye(3).to_sparse(), "rows": torch.eye(4).to_sparse_csr(),
        "nested": torch.nested.nested_tensor([torch.ones(2), torch.ones(3)]),
        "jagged": torch.nested.nested_tensor([torch.ones(2), torch.ones(3)], layout=torch.jagged),
        "parameter": torch.nn.Parameter(torch.ones(2, 2)),
        "storage": torch.ones(3).untyped_storage(), "meta": torch.empty(2, 3, device="meta"),
        "float8": torch.ones(5).to(torch.float8_e5m2),
        "quantized": torch.quantize_per_tensor(torch.ones(6), 0.5, 1, torch.qint8),
        "generator": torch.Generator().manual_seed(5), "size": torch.Size([1, 2]),
        "numpy": [np.array(["2024-05-06", "NaT"], "M8[D]"), np.timedelta64(3, "25s"),
                  np.array([(1, 2.5)], [("a", ">i4"), ("b", "f8")]), np.array([None, "x"], object),
                  np.arange(3, dtype=">i2")],
        "plain": [1, -5, 2**70, 1.5, True, None, "text", b"bytes", (1, 2), {3, 4}, 1 + 2j,
                  OrderedDict(a=1), range(3), torch.float32, torch.device("cpu")],
    }
    training = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "epoch": 3,
                "rng": torch.get_rng_state()}
    return [everything, training, torch.randn(700), model]


def described(torch: Any, value: Any) -> Any:
    """Something that can be compared, every element looked at."""
    if isinstance(value, torch.Tensor):
        if value.device.type == "meta":
            return str(value)
        if getattr(value, "is_nested", False):
            return [described(torch, part) for part in value.unbind()]
        if value.layout is not torch.strided or value.is_quantized:
            return str(value)
        last = value[tuple(-1 for _ in value.shape)] if value.numel() else None
        small = value.numel() < 10_000
        return (str(value.dtype), tuple(value.shape), value.stride(), str(last),
                str(value.tolist()) if small else None)
    if isinstance(value, torch.nn.Module):
        return repr(value), described(torch, value.state_dict())
    if isinstance(value, dict):
        return {str(key): described(torch, each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [described(torch, each) for each in value[:1000]]
    if isinstance(value, torch.Generator):
        return value.initial_seed()
    if isinstance(value, torch.TypedStorage | torch.UntypedStorage):
        return value.nbytes(), value.untyped().tolist()[:100] if value.nbytes() < 10_000 else None
    return str(value)[:2000] if not isinstance(value, int) else hex(value)[:2000]


class Originals:
    """Files of every format, with what they hold."""

    def __init__(self, torch: Any):
        self.zips, self.legacy = [], []
        for value in values(torch):
            for new, kept in ((True, self.zips), (False, self.legacy)):
                file = io.BytesIO()
                torch.save(value, file, _use_new_zipfile_serialization=new)
                kept.append((file.getvalue(), described(torch, value)))
        state = {name: part.clone() for name, part in values(torch)[1]["model"].items()}
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "a.safetensors")
            torch.serialization.safetensors.save_file(state, path, {"note": "text"})
            self.safetensors = [(Path(path).read_bytes(), described(torch, state))]


# -- mutations ------------------------------------------------------------------------------------

def raw(rng: random.Random, data: bytes, other: bytes) -> bytes:
    """Bytes changed without knowing what they mean."""
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 5, 20))):
        way, at = rng.randrange(9), rng.randrange(len(changed)) if changed else 0
        if not changed:
            break
        if way == 0:
            changed[at] ^= 1 << rng.randrange(8)
        elif way == 1:
            changed[at] = rng.choice((0, 1, 127, 128, 255, rng.randrange(256)))
        elif way == 2:
            del changed[at:]
        elif way == 3:
            del changed[at:at + rng.choice((1, 4, 8, 64, 1000))]
        elif way == 4:
            start = rng.randrange(len(changed))
            changed[at:at] = changed[start:start + rng.choice((1, 8, 100, 2000))]
        elif way == 5:
            start = rng.randrange(len(other))
            changed[at:] = other[start:]
        elif way == 6:
            lie(rng, changed, at)
        elif way == 7:
            start, size = rng.randrange(len(other)), rng.choice((2, 8, 50, 500))
            changed[at:at + size] = other[start:start + size]
        else:
            changed[at:at] = bytes(rng.randrange(256) for _ in range(rng.choice((1, 3, 16))))
    return bytes(changed)


def lie(rng: random.Random, data: bytearray, at: int) -> None:
    """Another number in place of one."""
    size = rng.choice((1, 2, 4, 8))
    number = rng.choice((*_ODD, rng.getrandbits(8 * size), len(data)))
    data[at:at + size] = (number % 256**size).to_bytes(size, "little")


def pickle_lie(rng: random.Random, data: bytes) -> bytes:
    """A pickle with other numbers or other opcodes in it."""
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 4))):
        places = [at for at, byte in enumerate(changed[:-9]) if byte in b"KMJ\x8a"]
        if places and rng.random() < 0.7:  # an integer becomes one of up to 8 bytes
            at = rng.choice(places)
            old = {75: 2, 77: 3, 74: 5}.get(changed[at], 2 + changed[at + 1])
            number = rng.choice((*_ODD, -1, -2**31, rng.getrandbits(20)))
            changed[at:at + old] = b"\x8a\x09" + number.to_bytes(9, "little", signed=True)
        else:
            changed = bytearray(raw(rng, bytes(changed), data))
    return bytes(changed)


def repacked(rng: random.Random, data: bytes) -> bytes:
    """A zip archive with true checksums around records that lie, are missing, or compressed."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(out, "w") as new:
        names = old.namelist()
        victim = rng.choice([name for name in names if name.endswith("data.pkl")] * 6 + names)
        for name in names:
            record = old.read(name)
            if name == victim:
                way = rng.randrange(8)
                if way == 0:
                    continue
                if way == 1:
                    record = bytes(rng.choice((10**5, 10**6, 10**7)))  # shrinks a thousandfold
                elif name.endswith("data.pkl"):
                    record = pickle_lie(rng, record)
                else:
                    record = raw(rng, record or b"x", data)
            packed = rng.choice((zipfile.ZIP_STORED, zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))
            new.writestr(name, record, packed)
    return out.getvalue()


def directory_lie(rng: random.Random, data: bytes) -> bytes:
    """A zip archive whose headers say something else."""
    changed = bytearray(data)
    marks = [at for mark in (b"PK\x01\x02", b"PK\x05\x06", b"PK\x06\x06", b"PK\x03\x04")
             for at in _places(data, mark)]
    for _ in range(rng.choice((1, 1, 2, 3))):
        lie(rng, changed, rng.choice(marks) + rng.randrange(4, 50))
    return bytes(changed)


def _places(data: bytes, mark: bytes) -> list[int]:
    found, at = [], data.find(mark)
    while at >= 0:
        found.append(at)
        at = data.find(mark, at + 1)
    return found


def header_lie(rng: random.Random, data: bytes) -> bytes:
    """A safetensors file with another header."""
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8:8 + length])
    name = rng.choice([key for key in header if key != "__metadata__"])
    entry = header[name]
    number = rng.choice((*_ODD, -1, 1.5, None, "1", [], True, len(data)))
    way = rng.randrange(6)
    if way == 0:
        entry["dtype"] = rng.choice(("F64", "F4", "BOOL", "I8", "U64", "", 3, None, "C64"))
    elif way == 1:
        entry["shape"] = rng.choice(([number], [number] * 3, number, [2] * 70, [2**31, 2**31, 0]))
    elif way == 2:
        entry["data_offsets"] = rng.choice(([0, number], [number, 4], [number], number))
    elif way == 3:
        header[rng.choice(("", "a" * 10**5, "__metadata__", "\u0000"))] = rng.choice((entry, 3, {}))
    elif way == 4:
        del entry[rng.choice(list(entry))]
    else:
        header = rng.choice(([], [header], 3, "x", {}, {name: header}))
    text = json.dumps(header).encode()
    size = number if type(number) is int and 0 <= number < 2**64 else 9
    return struct.pack("<Q", rng.choice((len(text), len(text), size))) + text + data[8 + length:]


KINDS = ("zip", "records", "directory", "legacy", "safetensors")


def case(originals: Originals, seed: int, number: int, kinds: list[str]) -> tuple:
    """(kind, bytes, what must come back or None, how it is loaded) of a case."""
    rng = random.Random(f"{seed} {number}")
    kind = kinds[number % len(kinds)]
    files = {"legacy": originals.legacy, "safetensors": originals.safetensors}.get(
        kind, originals.zips)
    data, expected = rng.choice(files)
    other = rng.choice([*originals.zips, *originals.legacy])[0]
    ways = rng.choice(({}, {}, {"mmap": True}, {"weights_only": False}, {"names": True}))
    if kind == "zip":
        return kind, raw(rng, data, other), None if "mmap" in ways else expected, ways
    if kind == "directory":
        return kind, directory_lie(rng, data), None if "mmap" in ways else expected, ways
    if kind == "records":
        return kind, repacked(rng, data), None, ways
    if kind == "safetensors":
        lying = rng.random() < 0.6
        return kind, header_lie(rng, data) if lying else raw(rng, data, other), None, {}
    return kind, raw(rng, data, other) if rng.random() < 0.5 else pickle_lie(rng, data), None, ways


# -- running --------------------------------------------------------------------------------------

def attempt(torch: Any, path: str, kind: str, expected: Any, ways: dict) -> str | None:
    """What is wrong with how a file was loaded, or None."""
    errors = torch.serialization.CheckpointError
    try:
        if kind == "safetensors":
            loaded = torch.load(path)
        elif "names" in ways:
            torch.serialization.get_unsafe_globals_in_checkpoint(path)
            return None
        else:
            loaded = torch.load(path, **ways)
    except errors:
        return None
    except Exception as error:
        return f"{type(error).__name__}: {str(error)[:300]}"
    try:
        found = described(torch, loaded)
    except Exception:
        if expected is not None:
            raise
        return None  # other data, which nothing in the file forbids
    return None if expected is None or found == expected else "other data, without an error"


def _too_long(*_: Any) -> None:
    raise TimeoutError(f"longer than {SECONDS} s")


def run_batch(seed: int, numbers: range, kinds: list[str], folder: str) -> None:
    """Run cases in this process; failures go to standard output, the current one to a file."""
    import flambeau as torch

    originals = Originals(torch)
    signal.signal(signal.SIGALRM, _too_long)
    path = os.path.join(folder, "case.pt")
    for number in numbers:
        kind, data, expected, ways = case(originals, seed, number, kinds)
        Path(folder, "number").write_text(f"{number} {kind} {ways}")
        path = os.path.join(folder, "case.safetensors" if kind == "safetensors" else "case.pt")
        Path(path).write_bytes(data)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        signal.setitimer(signal.ITIMER_REAL, SECONDS)
        try:
            wrong = attempt(torch, path, kind, expected, ways)
        except TimeoutError as error:
            wrong = str(error)
        signal.setitimer(signal.ITIMER_REAL, 0)
        grown = 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
        if grown > MEMORY + 10 * len(data):
            wrong = f"{grown >> 20} MiB for a file of {len(data)} bytes"
        if wrong:
            print(json.dumps([number, kind, str(ways), wrong]), flush=True)


def run(cases: int, seed: int, kinds: list[str], first: int = 0) -> list[list]:
    """Run all cases in processes of their own; the failures."""
    failures: list[list] = []
    with tempfile.TemporaryDirectory() as folder:
        start = first
        while start < first + cases:
            stop = min(start + BATCH, first + cases)
            command = [sys.executable, __file__, "--batch", str(start), str(stop), "--seed",
                       str(seed), "--kinds", ",".join(kinds), "--folder", folder]
            done = subprocess.run(command, capture_output=True, text=True, check=False,
                                  env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)})
            failures += [json.loads(line) for line in done.stdout.splitlines()]
            start = stop
            if done.returncode:
                number, kind, ways = Path(folder, "number").read_text().split(" ", 2)
                why = f"process ended ({done.returncode}): {done.stderr[-300:]}"
                failures.append([int(number), kind, ways, why])
                start = int(number) + 1
    return failures


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("cases", type=int, nargs="?", default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kinds", default=",".join(KINDS))
    parser.add_argument("--only", type=int)
    parser.add_argument("--batch", type=int, nargs=2)
    parser.add_argument("--folder")
    options = parser.parse_args()
    kinds = options.kinds.split(",")
    if options.batch:
        run_batch(options.seed, range(*options.batch), kinds, options.folder)
        return 0
    began, first = time.perf_counter(), options.only or 0
    failures = run(1 if options.only is not None else options.cases, options.seed, kinds, first)
    for failure in failures[:40]:
        print(*failure)
    print(f"{options.cases} files, {len(failures)} failures "
          f"{dict(Counter(failure[1] for failure in failures))}, "
          f"{time.perf_counter() - began:.0f} s")
    return bool(failures)


if __name__ == "__main__":
    sys.exit(main())
