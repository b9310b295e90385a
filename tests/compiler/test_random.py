"""Random kernels and generators against values that PyTorch drew (tests/data/random_*.json)."""

from __future__ import annotations

import ctypes
import hashlib
import json
import pathlib
import pickle
import struct

import numpy as np
import pytest

from flambeau.compiler.emitter import Module
from flambeau.compiler.random import fills as streams
from flambeau.compiler.random import math as random_math
from flambeau.compiler.random.engine import INDEX_OFFSET
from flambeau.compiler.target import Target, host
from flambeau.core import dtypes
from flambeau.runtime.generator import SAVED_STATE_BYTES, Generator, default_generator
from flambeau.runtime.loader import load_kernel

DATA = pathlib.Path(__file__).parent.parent / "data"
KERNELS = json.loads((DATA / "random_kernels.json").read_text())["kernels"]
RECORDED = json.loads((DATA / "random_generator.json").read_text())["generator"]
Entry = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int, ctypes.c_int, ctypes.c_int)

# Values in double that pass through log, sin, cos, tan or exp: near PyTorch's, not bit for bit.
ROUNDED = {"normal", "normal_scalar", "log_normal", "exponential", "cauchy"}


def seeded(seed):
    return Generator().manual_seed(seed)


def digest(data):
    return hashlib.sha256(data).hexdigest()[:20]


def packed(slot):
    if isinstance(slot, np.ndarray):
        return slot.ctypes.data
    if isinstance(slot, float):
        return struct.unpack("<Q", struct.pack("<d", slot))[0]
    return slot % 2**64


def fill(generator, kind, dtype, n, *slots):
    """n numbers of `dtype` from the kernel of `kind`; nothing beside them may change."""
    entry = Entry(load_kernel(*streams.random_kernel(kind, dtype, host())))
    memory = np.full((n + 32) * dtype.itemsize, 0xA5, np.uint8)
    edge = 16 * dtype.itemsize
    args = np.array([generator.address, memory.ctypes.data + edge, n, *map(packed, slots)],
                    np.uint64)
    entry(args.ctypes.data, 0, 1, 0)
    assert (memory[:edge] == 0xA5).all()
    assert (memory[edge + n * dtype.itemsize:] == 0xA5).all()
    return memory[edge:edge + n * dtype.itemsize].copy().view(dtype.numpy)


def probabilities(n, numpy_type):
    return ((np.arange(n) * 37 % 101) / 101).astype(numpy_type)


def as_drawn(case, dtype):
    """The kernel and the slots of a recorded case."""
    kind, n, slots = case["kind"], case["n"], case["slots"]
    if kind == "random":
        plan = streams.plan_random(dtype, *slots)
        return plan.kind, plan.slots
    if kind.startswith("bernoulli_"):
        return kind, (probabilities(n, kind.removeprefix("bernoulli_")), np.zeros(2, np.int64))
    if kind.startswith("multinomial_"):
        weights = probabilities(300, kind.removeprefix("multinomial_"))
        return kind, (weights, len(weights), np.empty_like(weights))
    return kind, slots


def name_of(case):
    slots = ",".join(map(str, case["slots"]))
    return f"{case['kind']}({slots})-{case['dtype']}-{case['n']}"


@pytest.mark.parametrize("case", KERNELS, ids=name_of)
def test_kernel_draws_what_pytorch_draws(case):
    dtype, n = dtypes.by_name(case["dtype"]), case["n"]
    generator = seeded(1234 + n)
    fill(generator, "uniform", dtypes.float32, n % 3, 0.0, 1.0)
    kind, slots = as_drawn(case, dtype)
    values = fill(generator, kind, dtype, n, *slots)
    assert digest(generator.state_bytes()[:5016]) == case["words"]
    if dtype is dtypes.float64 and kind in ROUNDED:
        if "bytes" in case:
            expected = np.frombuffer(bytes.fromhex(case["bytes"]), np.float64)
            # log_normal's exp multiplies the last bit of its argument, here up to about 2.
            bound = 4 if kind == "log_normal" else 2
            assert ulps_apart(values, expected) <= bound
        return
    if "bytes" in case:
        assert values.tobytes().hex() == case["bytes"]
    assert digest(values.tobytes()) == case["values"]


def ulps_apart(a, b):
    if not len(a):
        return 0
    assert (np.signbit(a) == np.signbit(b)).all()
    return int(np.abs(a.view(np.int64) - b.view(np.int64)).max())


# ------------------------------------------------------------------ properties
@pytest.mark.parametrize("dtype", [dtypes.float32, dtypes.float64], ids=str)
@pytest.mark.parametrize("parts", [(1, 623, 2), (311, 1, 2000), (625, 625, 3)])
def test_a_stream_does_not_depend_on_how_it_is_cut(dtype, parts):
    once = fill(seeded(7), "uniform", dtype, sum(parts), 0.0, 1.0)
    generator = seeded(7)
    cut = [fill(generator, "uniform", dtype, n, 0.0, 1.0) for n in parts]
    assert np.array_equal(once, np.concatenate(cut))


def test_pairs_that_straddle_two_blocks_of_words():
    generator = seeded(11)
    fill(generator, "uniform", dtypes.float32, 1, 0.0, 1.0)
    wide = fill(generator, "random64_full", dtypes.int64, 1000).view(np.uint64)
    plain = fill(seeded(11), "random32", dtypes.int64, 2001, 2**16, 0)[1:]
    assert np.array_equal((wide >> np.uint64(32)) % 2**16, plain[::2].astype(np.uint64))
    assert np.array_equal(wide % 2**16, plain[1::2].astype(np.uint64))


def test_words_are_numpys():
    state = np.random.RandomState(99)
    drawn = fill(seeded(99), "random64_full", dtypes.int64, 5000).view(np.uint64)
    words = np.frombuffer(state.bytes(40000), "<u4").astype(np.uint64)
    assert np.array_equal(drawn, (words[::2] << np.uint64(32)) | words[1::2])


@pytest.mark.parametrize("count", [1, 2, 3, 10, 255, 65537, 2**28 - 1, 2**31 - 1, 2**31])
def test_remainders_by_way_of_doubles_are_exact(count):
    words = np.frombuffer(np.random.RandomState(5).bytes(40000), "<u4").astype(np.int64)
    drawn = fill(seeded(5), "random32", dtypes.int64, 10000, count, -17)
    assert np.array_equal(drawn, words % count - 17)


@pytest.mark.parametrize("dtype", [dtypes.float16, dtypes.bfloat16], ids=str)
def test_uniform_never_returns_its_upper_bound(dtype):
    values = fill(seeded(0), "uniform", dtype, 100_000, -0.3, 2.7).astype(np.float32)
    assert values.max() < dtype.numpy.type(2.7) and values.min() >= dtype.numpy.type(-0.3)


def test_uniform_of_an_empty_interval_is_its_bound():
    assert (fill(seeded(0), "uniform", dtypes.float32, 40, 1.5, 1.5) == 1.5).all()


@pytest.mark.parametrize("kind", ["randperm", "randperm64"])
@pytest.mark.parametrize("n", [0, 1, 2, 17, 5000])
def test_randperm_is_a_permutation(kind, n):
    assert np.array_equal(np.sort(fill(seeded(1), kind, dtypes.int64, n)), np.arange(n))


@pytest.mark.parametrize(("p", "value"), [(0.0, 0), (1.0, 1)])
def test_bernoulli_of_certainty(p, value):
    assert (fill(seeded(0), "bernoulli", dtypes.uint8, 3000, p) == value).all()


def test_the_second_normal_of_a_pair_waits_for_the_next_call():
    generator = seeded(2)
    pieces = [fill(generator, "normal_scalar", dtypes.float64, n, 0.0, 1.0)
              for n in (1, 3, 0, 2, 17, 5)]
    once = fill(seeded(2), "normal_scalar", dtypes.float64, 28, 0.0, 1.0)
    assert np.array_equal(np.concatenate(pieces), once)


def test_moments():
    normal = fill(seeded(4), "normal", dtypes.float64, 200_000, 1.0, 2.0)
    assert abs(normal.mean() - 1) < 0.02 and abs(normal.std() - 2) < 0.02
    assert abs(fill(seeded(4), "exponential", dtypes.float64, 200_000, 4.0).mean() - 0.25) < 0.005
    trials = fill(seeded(4), "geometric", dtypes.int64, 200_000, 0.2)
    assert trials.min() >= 1 and abs(trials.mean() - 5) < 0.1


# ------------------------------------------------------------------ plans and errors
def test_kinds_and_dtypes_are_checked():
    with pytest.raises(ValueError, match="no random kernel 'zeta'; there are uniform"):
        streams.random_kernel("zeta", dtypes.float32, host())
    with pytest.raises(NotImplementedError, match="not implemented for 'Long': it draws float16"):
        streams.random_kernel("uniform", dtypes.int64, host())


@pytest.mark.parametrize(("dtype", "low", "high", "plan"), [
    (dtypes.int64, 0, 2**28 - 1, ("random32", 2**28 - 1, 0)),
    (dtypes.int64, 0, 2**28, ("random64", 2**28, 0)),
    (dtypes.int64, -2**63, 2**63 - 1, ("random64", 2**64 - 1, -2**63)),
    (dtypes.int64, -2**63, None, ("random64_full", 0, 0)),
    (dtypes.int64, None, None, ("random64", 2**63, 0)),
    (dtypes.bool_, None, None, ("random32", 2, 0)),
    (dtypes.float32, None, None, ("random32", 2**24 + 1, 0)),
    (dtypes.float32, -10, 2**25, ("random32", 2**25 + 8, -10)),
    (dtypes.float16, -1000, None, ("random32", 3049, -1000)),
])
def test_plan_random(dtype, low, high, plan):
    made = streams.plan_random(dtype, low, high)
    assert (made.kind, made.range, made.base) == plan
    assert len(made.slots) == len(streams.KINDS[made.kind].slots)


@pytest.mark.parametrize(("dtype", "low", "high", "message"), [
    (dtypes.int64, 3, 3, "'from' to be less than 'to', but got from=3 >= to=3"),
    (dtypes.int8, -200, 4, "from is out of bounds for int8"),
    (dtypes.int8, 0, 200, "to - 1 is out of bounds for int8"),
    (dtypes.float16, -200_000, 4, "from is out of bounds for float16"),
    (dtypes.int32, -2**63, None, "handles only int64"),
])
def test_plan_random_refuses(dtype, low, high, message):
    with pytest.raises(RuntimeError, match=message):
        streams.plan_random(dtype, low, high)


def test_normal_kind():
    assert streams.normal_kind(15) == streams.normal_kind(16, contiguous=False) == "normal_scalar"
    assert streams.normal_kind(16) == "normal"


def test_large_permutations_draw_64_bits():
    assert streams.randperm_kind(214_748_363) == "randperm"
    assert streams.randperm_kind(214_748_364) == "randperm64"


@pytest.mark.parametrize("lanes", [128, 256])
@pytest.mark.parametrize("kind", ["uniform", "normal", "bernoulli", "random32"])
def test_vector_width_does_not_matter(kind, lanes):
    machine = host()
    narrow = Target(machine.triple, machine.cpu, machine.features, lanes, 16)
    slots = (10, 3) if kind == "random32" else (0.25, 0.75)
    name, text = streams.random_kernel(kind, dtypes.float32, narrow)
    out = np.zeros(1701, np.float32)
    generator = seeded(8)
    args = np.array([generator.address, out.ctypes.data, len(out), *map(packed, slots)], np.uint64)
    Entry(load_kernel(name, text))(args.ctypes.data, 0, 1, 0)
    assert np.array_equal(out, fill(seeded(8), kind, dtypes.float32, len(out), *slots))


# ------------------------------------------------------------------ the mathematics
def apply(function, x, pick=None):
    module = Module(host().attributes)
    f = module.function("apply", [("ptr", "x"), ("ptr", "y"), ("i64", "n")])
    with f.loop(0, f.args["n"], 8) as i:
        result = function(f, f.load("<8 x double>", f.args["x"], i))
        f.store(result if pick is None else result[pick], f.args["y"], i)
    address = load_kernel("apply", module.text())
    y = np.empty_like(x)
    ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64)(address)(
        x.ctypes.data, y.ctypes.data, len(x))
    return y


@pytest.mark.skipif(np.finfo(np.longdouble).nmant < 63, reason="needs a wider type to compare with")
@pytest.mark.parametrize(("function", "pick", "exact", "low", "high", "bound"), [
    (random_math.log_double, None, np.log, 2.0**-53, 1.0, 0.505),
    (random_math.fdlibm_log1p, None, np.log1p, -0.9999999, 0.0, 0.85),
    (random_math.sincos_double, 0, np.sin, 0.0, 2 * np.pi, 0.505),
    (random_math.sincos_double, 1, np.cos, 0.0, 2 * np.pi, 0.505),
    (random_math.tan_double, None, np.tan, -np.pi / 2, np.pi / 2, 0.51),
    (random_math.exp_double, None, np.exp, -700.0, 700.0, 0.70),
], ids=["log", "log1p", "sin", "cos", "tan", "exp"])
def test_double_functions(function, pick, exact, low, high, bound):
    x = low + (high - low) * np.random.RandomState(0).random_sample(1 << 16)
    expected = exact(x.astype(np.longdouble))
    error = np.abs((apply(function, x, pick).astype(np.longdouble) - expected)
                   / np.spacing(np.abs(expected.astype(np.float64))))
    assert error.max() < bound


def test_double_functions_at_their_ends():
    x = np.array([0.0, 1.0, 2.0**-53, 0.5, 0.25, 0.75, 1.0, 1.0])
    assert np.array_equal(apply(random_math.log_double, x)[:3], [-np.inf, 0.0, np.log(2.0**-53)])
    x = np.array([-np.inf, -1000.0, -745.0, 0.0, 709.7, 710.0, np.inf, np.nan])
    with np.errstate(over="ignore", under="ignore"):
        assert np.allclose(apply(random_math.exp_double, x), np.exp(x), rtol=1e-15, equal_nan=True)


# ------------------------------------------------------------------ generators
def test_default_generator():
    assert str(default_generator.device) == "cpu"
    assert Generator().initial_seed() == RECORDED["default_seed"]


def test_states_are_pytorchs():
    generators = {}
    for record in RECORDED["states"]:
        seed = record["seed"]
        generator = generators.setdefault(seed, seeded(seed))
        fill(generator, "uniform", dtypes.float32, record["drawn"], 0.0, 1.0)
        state = generator.state_bytes()
        assert len(state) == SAVED_STATE_BYTES
        assert generator.initial_seed() == record["initial_seed"]
        assert state[:40].hex() == record["head"]
        assert digest(state) == record["state"]


def test_a_saved_normal_is_continued():
    record = RECORDED["normal"]
    generator = seeded(record["seed"])
    first = fill(generator, "normal_scalar", dtypes.float32, 3, 0.0, 1.0)
    assert first.tolist() == record["first"]
    state = generator.state_bytes()
    assert state[5016:].hex() == record["tail"]
    other = Generator()
    other.load_state_bytes(state)
    assert fill(other, "normal_scalar", dtypes.float32, 4, 0.0, 1.0).tolist() == record["rest"]


@pytest.mark.parametrize("drawn", [0, 1, 623, 624, 625])
def test_states_round_trip(drawn):
    generator = seeded(6)
    fill(generator, "uniform", dtypes.float32, drawn, 0.0, 1.0)
    state = generator.state_bytes()
    restored = Generator()
    restored.load_state_bytes(np.frombuffer(state, np.uint8))
    copies = [restored, generator.clone_state(), pickle.loads(pickle.dumps(generator)), generator]
    assert {copy.state_bytes() for copy in copies} == {state}
    drawn = {fill(copy, "uniform", dtypes.float32, 700, 0.0, 1.0).tobytes() for copy in copies}
    assert len(drawn) == 1


def test_manual_seed_starts_over():
    generator = seeded(2)
    fill(generator, "normal_scalar", dtypes.float32, 3, 0.0, 1.0)
    assert generator.manual_seed(2) is generator
    assert generator.state_bytes() == seeded(2).state_bytes()


def test_seed_is_unforeseeable_and_known_afterwards():
    generator = Generator()
    chosen = {generator.seed() for _ in range(4)}
    assert len(chosen) == 4 and generator.initial_seed() in chosen


@pytest.mark.parametrize("seed", [1.5, True, "a", None])
def test_seeds_are_integers(seed):
    with pytest.raises(RuntimeError, match=f"expected a long, but got {type(seed).__name__}"):
        Generator().manual_seed(seed)


@pytest.mark.parametrize("seed", [2**64, -2**63 - 1])
def test_seeds_fit_64_bits(seed):
    with pytest.raises(ValueError, match="Overflow when unpacking long long"):
        Generator().manual_seed(seed)


def test_states_are_checked():
    generator = Generator()
    with pytest.raises(RuntimeError, match=r"size 5056 but found .* size to be 5055"):
        generator.load_state_bytes(bytes(5055))
    for at, value in ((8, 700), (12, 0), (16, 700)):
        state = bytearray(generator.state_bytes())
        struct.pack_into("<i", state, at, value)
        with pytest.raises(RuntimeError, match="Invalid mt19937 state"):
            generator.load_state_bytes(state)


def test_only_the_cpu_has_a_generator():
    with pytest.raises(NotImplementedError, match="use Generator\\('cpu'\\)"):
        Generator("cuda:0")


def test_the_state_block_is_aligned():
    assert Generator().address % 64 == 0 and INDEX_OFFSET % 64 == 0
