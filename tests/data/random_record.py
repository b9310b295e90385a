"""Record random_kernels.json and random_generator.json from PyTorch (run where it is installed).

    python tests/data/random_record.py
"""

from __future__ import annotations

import hashlib
import json
import pathlib

import torch

HERE = pathlib.Path(__file__).parent
SIZES = (0, 1, 2, 15, 16, 17)
LONG = 1701  # three blocks of the engine, no multiple of any vector
FLOATING = ("float32", "float64", "float16", "bfloat16")
INTEGERS = ("uint8", "int8", "int16", "int32", "int64", "bool")


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:20]


def probabilities(n: int, dtype: torch.dtype) -> torch.Tensor:
    return ((torch.arange(n) * 37 % 101).double() / 101).to(dtype)


def fills() -> list[tuple]:
    """(kind, dtypes, slots, fill of a fresh tensor)."""
    def filled(method, *args):
        def fill(n, dtype):
            return getattr(torch.empty(n, dtype=dtype), method)(*args)
        return fill

    def strided(mean, std):
        def fill(n, dtype):
            made = torch.empty(n, 2, dtype=dtype)[:, 0].normal_(mean, std)
            return torch.empty(n, dtype=dtype).copy_(made)
        return fill

    def each(p_dtype):
        def fill(n, dtype):
            return torch.empty(n, dtype=dtype).bernoulli_(probabilities(n, p_dtype))
        return fill

    def categories(p_dtype):
        def fill(n, dtype):
            return torch.multinomial(probabilities(300, p_dtype), n, replacement=True)
        return fill

    def permutation(n, dtype):
        return torch.randperm(n, dtype=dtype)

    return [
        ("uniform", FLOATING, (0.0, 1.0), filled("uniform_")),
        ("uniform", FLOATING, (-0.3, 2.7), filled("uniform_", -0.3, 2.7)),
        ("normal", FLOATING, (0.0, 1.0), filled("normal_")),
        ("normal", ("float32", "float16", "bfloat16"), (0.3, 2.1), filled("normal_", 0.3, 2.1)),
        ("normal_scalar", FLOATING, (0.0, 1.0), strided(0.0, 1.0)),
        ("normal_scalar", ("float32", "bfloat16"), (0.3, 2.1), strided(0.3, 2.1)),
        ("log_normal", FLOATING, (0.1, 0.5), filled("log_normal_", 0.1, 0.5)),
        ("exponential", FLOATING, (1.7,), filled("exponential_", 1.7)),
        ("cauchy", FLOATING, (0.0, 2.1), filled("cauchy_", 0.0, 2.1)),
        ("geometric", ("float32", "float64", "int64", "uint8"), (0.3,), filled("geometric_", 0.3)),
        ("bernoulli", FLOATING + INTEGERS, (0.3,), filled("bernoulli_", 0.3)),
        ("bernoulli_float32", FLOATING + INTEGERS, (), each(torch.float32)),
        ("bernoulli_float64", FLOATING + INTEGERS, (), each(torch.float64)),
        ("random", FLOATING + INTEGERS, (), filled("random_")),
        ("random", ("float32", "bfloat16", "int16", "int64", "uint32"), (2, 101),
         filled("random_", 2, 101)),
        ("random", ("float32", "float64", "int64"), (-2**40, 2**41 + 1),
         filled("random_", -2**40, 2**41 + 1)),
        ("random", ("float16", "int32"), (-7, None), filled("random_", -7, None)),
        ("random", ("float32", "int64"), (-2**63, None), filled("random_", -2**63, None)),
        ("randperm", ("float32", "float64", "int16", "int32", "int64"), (), permutation),
        ("multinomial_float32", ("int64",), (), categories(torch.float32)),
        ("multinomial_float64", ("int64",), (), categories(torch.float64)),
    ]


def record_kernels() -> list[dict]:
    cases = []
    for kind, names, slots, fill in fills():
        for name in names:
            for n in (*SIZES, LONG):
                # Fewer normals, and a single category, are drawn in another way.
                if n < {"normal": 16}.get(kind, 2 if kind.startswith("multinomial") else 0):
                    continue
                torch.manual_seed(1234 + n)
                torch.rand(n % 3)  # so that streams do not all begin at an even word
                values = fill(n, getattr(torch, name))
                data = values.view(torch.uint8).numpy().tobytes() if n else b""
                state = torch.get_rng_state().numpy().tobytes()
                case = {"kind": kind, "dtype": name, "n": n, "slots": list(slots),
                        "values": digest(data), "words": digest(state[:5016])}
                if n <= 2 or name == "float64" and n <= 17:
                    case["bytes"] = data.hex()
                cases.append(case)
    return cases


def record_generator() -> dict:
    states = []
    for seed in (0, 5, -1, -2**63, 2**64 - 1):
        generator = torch.Generator().manual_seed(seed)
        for drawn in (0, 3, 621, 1, 7):
            torch.rand(drawn, generator=generator)
            state = generator.get_state().numpy().tobytes()
            states.append({"seed": seed, "drawn": drawn, "initial_seed": generator.initial_seed(),
                           "head": state[:40].hex(), "state": digest(state)})
    generator = torch.Generator().manual_seed(3)
    first = torch.randn(3, generator=generator, dtype=torch.float32)
    saved = generator.get_state().numpy().tobytes()
    rest = torch.randn(4, generator=generator, dtype=torch.float32)
    return {"default_seed": torch.Generator().initial_seed(), "states": states,
            "normal": {"seed": 3, "first": first.tolist(), "tail": saved[5016:].hex(),
                       "rest": rest.tolist()}}


if __name__ == "__main__":
    for name, made in (("kernels", record_kernels()), ("generator", record_generator())):
        text = json.dumps({"torch": torch.__version__, name: made})
        text = text.replace("}, {", "},\n{").replace("[{", "[\n{")  # one case a line
        (HERE / f"random_{name}.json").write_text(text + "\n")
