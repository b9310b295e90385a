"""Reading and writing by index, against NumPy: hundreds of generated expressions, then the places
where PyTorch goes its own way. These tests also run under PyTorch
(tests/conformance/test_tensor.py).
"""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest

SHAPE = (4, 3, 5)


def generated(seed: int, count: int) -> list[tuple]:
    """Random index expressions for a tensor of SHAPE, as NumPy takes them."""
    rng = random.Random(seed)
    found = []
    while len(found) < count:
        items, dim, lists = [], 0, rng.random() < 0.5
        shape = (2,) if rng.random() < 0.7 else (2, 1)
        dots = rng.random() < 0.3
        while dim < len(SHAPE) and rng.random() < 0.85:
            if dots and rng.random() < 0.4:
                items.append(Ellipsis)
                dots, dim = False, max(dim, len(SHAPE) - rng.randint(0, 1))
                continue
            kind = rng.choice(("int", "slice", "slice", "none", "list", "mask") if lists
                              else ("int", "slice", "slice", "none"))
            item, taken = one_item(rng, kind, dim, shape)
            items.append(item)
            dim += taken
        found.append(tuple(items))
    return found


def one_item(rng: random.Random, kind: str, dim: int, shape: tuple) -> tuple[Any, int]:
    """(index, how many dimensions it takes)."""
    size = SHAPE[dim]
    if kind == "int":
        return rng.randrange(-size, size), 1
    if kind == "none":
        return None, 0
    if kind == "slice":
        bounds = [rng.choice((None, rng.randint(-size - 1, size + 1))) for _ in range(2)]
        return slice(*bounds, rng.choice((None, 1, 2, 3))), 1
    if kind == "mask":
        mask = np.zeros(size, bool)
        mask[rng.sample(range(size), 2)] = True  # two, so that it broadcasts with lists of two
        return mask, 1
    values = np.array([rng.randrange(-size, size) for _ in range(2)]).reshape(shape)
    return values, 1


EXPRESSIONS = generated(1, 400)


def for_framework(torch: Any, index: tuple) -> tuple:
    return tuple(torch.from_numpy(item.copy()) if isinstance(item, np.ndarray) else item
                 for item in index)


def numbers() -> np.ndarray:
    return np.arange(np.prod(SHAPE), dtype=np.float32).reshape(SHAPE)


def integers_first(index: tuple) -> tuple[tuple, tuple]:
    """The index in two steps: PyTorch takes integers first, NumPy counts them as index arrays."""
    used = sum(item is not None and item is not Ellipsis for item in index)
    items: list = []
    for item in index:
        items += [slice(None)] * (len(SHAPE) - used) if item is Ellipsis else [item]
    first = [item if isinstance(item, int) else slice(None) for item in items if item is not None]
    return (*first, Ellipsis), tuple(item for item in items if not isinstance(item, int))


def numpy_gets(index: tuple) -> np.ndarray | None:
    """What is read, by NumPy, or None where the index is wrong."""
    first, second = integers_first(index)
    try:
        return numbers()[first][second]
    except IndexError:
        return None


def numpy_puts(index: tuple, value: Any) -> np.ndarray | None:
    """All numbers after the writing, by NumPy, or None where the index is wrong."""
    first, second = integers_first(index)
    array = numbers()
    try:
        array[first][second] = value
    except IndexError:
        return None
    return array


def test_reading(torch):
    x, wrong = torch.from_numpy(numbers()), []
    for index in EXPRESSIONS:
        expected = numpy_gets(index)
        if expected is None:
            continue
        found = x[for_framework(torch, index)].numpy()
        if found.shape != expected.shape or not np.array_equal(found, expected):
            wrong.append((index, found.shape, expected.shape))
    assert not wrong


def test_reading_a_transposed_tensor(torch):
    x = torch.from_numpy(numbers().transpose(2, 0, 1).copy()).permute(1, 2, 0)
    assert not x.is_contiguous()
    for index in EXPRESSIONS[:120]:
        expected = numpy_gets(index)
        if expected is not None:
            np.testing.assert_array_equal(x[for_framework(torch, index)].numpy(), expected)


def test_basic_indices_are_views(torch):
    for index in EXPRESSIONS:
        advanced = any(isinstance(item, np.ndarray) for item in index)
        expected = numpy_gets(index)
        if expected is None or not expected.size:
            continue
        array = numbers()
        x = torch.from_numpy(array)
        found = x[for_framework(torch, index)]
        assert np.shares_memory(found.numpy(), array) == (not advanced), index


def test_writing_a_number(torch):
    wrong = []
    for index in EXPRESSIONS:
        expected = numpy_puts(index, -1.0)
        if expected is None:
            continue
        x = torch.from_numpy(numbers())
        x[for_framework(torch, index)] = -1.0
        if not np.array_equal(x.numpy(), expected):
            wrong.append(index)
    assert not wrong


def test_writing_a_tensor(torch):
    """Values are broadcast to the selection. (Places that are named twice are left out: which value
    stays there is not defined.)"""
    wrong = []
    for index in EXPRESSIONS:
        selected = numpy_gets(index)
        if selected is None or len(np.unique(selected)) != selected.size:
            continue
        for value in (-1.0 - np.arange(selected.size, dtype=np.float32).reshape(selected.shape),
                      -np.ones(selected.shape[-1:], np.float32)):
            expected = numpy_puts(index, value)
            x = torch.from_numpy(numbers())
            x[for_framework(torch, index)] = torch.from_numpy(np.asarray(value))
            if not np.array_equal(x.numpy(), expected):
                wrong.append((index, value.shape))
    assert not wrong


def test_gradients_of_reading(torch):
    """Each element receives as many ones as times it is read."""
    for index in EXPRESSIONS[:150]:
        if numpy_gets(index) is None:
            continue
        first, second = integers_first(index)
        expected = np.zeros(SHAPE, np.float32)
        np.add.at(expected[first], second, 1.0)
        x = torch.from_numpy(numbers()).requires_grad_()
        x[for_framework(torch, index)].sum().backward()
        np.testing.assert_array_equal(x.grad.numpy(), expected, err_msg=str(index))


def test_gradients_of_writing(torch):
    x = torch.ones(4, 3, requires_grad=True)
    value = torch.full((2,), 2.0, requires_grad=True)
    y = x * 1.0
    y[1:3, 0] = value
    y[torch.tensor([0, 3]), torch.tensor([1, 2])] = 5.0
    (y * torch.arange(12.0).reshape(4, 3)).sum().backward()
    assert x.grad.tolist() == [[0, 0, 2], [0, 4, 5], [0, 7, 8], [9, 10, 0]]
    assert value.grad.tolist() == [3, 6]


# --------------------------------------------------------------------------- kinds of indices
def test_integers_of_all_kinds(torch):
    x = torch.arange(6).reshape(2, 3)
    for index in (1, np.int64(1), torch.tensor(1), True + 0):
        assert x[index].tolist() == [3, 4, 5]
    assert x[torch.tensor([1], dtype=torch.int32)].tolist() == [[3, 4, 5]]


def test_lists_and_arrays(torch):
    x = torch.arange(12).reshape(3, 4)
    assert x[[0, 2]].tolist() == [[0, 1, 2, 3], [8, 9, 10, 11]]
    assert x[[0, 2], [1, 3]].tolist() == [1, 11]
    assert x[np.array([0, 2])].shape == (2, 4)
    assert x[:, [True, False, True, False]].shape == (3, 2)
    assert x[[]].shape == (0, 4)


def test_masks(torch):
    x = torch.arange(12).reshape(3, 4)
    assert x[x > 8].tolist() == [9, 10, 11]
    assert x[x[:, 0] > 0].shape == (2, 4)
    assert x[torch.zeros(3, 4, dtype=torch.bool)].shape == (0,)
    assert x[True].shape == (1, 3, 4) and x[False].shape == (0, 3, 4)
    assert x[torch.tensor(True)].shape == (1, 3, 4)
    y = x.clone()
    y[y % 2 == 0] = -1
    assert y.tolist() == [[-1, 1, -1, 3], [-1, 5, -1, 7], [-1, 9, -1, 11]]
    y[y < 0] = torch.arange(6)
    assert y[:, 0].tolist() == [0, 2, 4]


def test_zero_dimensional(torch):
    x = torch.tensor(5)
    assert x[()].item() == x[...].item() == 5
    assert x[None].shape == (1,)
    assert x[torch.tensor(True)].shape == (1,)
    with pytest.raises(IndexError, match="invalid index of a 0-dim tensor"):
        x[0]
    x[()] = 7
    x[...] = x + 1
    assert x.item() == 8


def test_values_are_converted(torch):
    x = torch.zeros(3, dtype=torch.int32)
    x[0] = 2.7
    x[1] = torch.tensor(3.9)
    x[2:] = torch.tensor([4], dtype=torch.int64)
    assert x.tolist() == [2, 3, 4]
    y = torch.zeros(2, 3)
    y[0] = torch.arange(3)
    y[:, 1] = np.float64(9)
    assert y.tolist() == [[0, 9, 2], [0, 9, 0]]
    with pytest.raises(RuntimeError, match="Index put requires the source and destination dtypes"):
        y[torch.tensor([0])] = torch.zeros(1, 3, dtype=torch.float64)


def test_leading_dimensions_of_size_one_are_dropped(torch):
    x = torch.zeros(2, 3)
    x[0] = torch.ones(1, 1, 3)
    assert x.tolist() == [[1, 1, 1], [0, 0, 0]]
    with pytest.raises(RuntimeError):
        x[0] = torch.ones(2, 1, 3)


def test_overlapping_assignment_reads_first(torch):
    x = torch.arange(6)
    x[1:] = x[:-1].clone()
    assert x.tolist() == [0, 0, 1, 2, 3, 4]


def test_augmented_assignment_writes_through(torch):
    x = torch.zeros(3, 3)
    x[1] += 1
    x[:, 2] *= 5
    x[[0, 0]] += 1  # read once, written twice: 1, not 2
    assert x.tolist() == [[1, 1, 1], [1, 1, 5], [0, 0, 0]]


def test_length_and_iteration(torch):
    x = torch.arange(6).reshape(3, 2)
    assert len(x) == 3 and [row.tolist() for row in x] == [[0, 1], [2, 3], [4, 5]]
    a, b = x[0]
    assert (a.item(), b.item()) == (0, 1)
    assert 5 in x and 9 not in x
    for call in (len, iter):
        with pytest.raises(TypeError, match="0-d tensor"):
            call(torch.tensor(1))


# --------------------------------------------------------------------------- errors
@pytest.mark.parametrize(("index", "error", "text"), [
    ((0, 0, 0, 0), IndexError, "too many indices for tensor of dimension 3"),
    (4, IndexError, "index 4 is out of bounds for dimension 0 with size 4"),
    ((0, -4), IndexError, "index -4 is out of bounds for dimension"),
    ((slice(None, None, -1),), ValueError, "step must be greater than zero"),
    ("a", TypeError, "invalid data type .str."),
    (1.5, IndexError, "only integers, slices"),
    ([9], IndexError, "out of"),
])
def test_wrong_indices(torch, index: Any, error: Any, text: str):
    x = torch.from_numpy(numbers())
    with pytest.raises(error, match=text):
        x[index]
    with pytest.raises(error, match=text):
        x[index] = 0.0


def test_wrong_index_tensors(torch):
    x = torch.from_numpy(numbers())
    with pytest.raises(IndexError, match="tensors used as indices must be long, int, byte or bool"):
        x[torch.tensor([1.0])]
    with pytest.raises(IndexError, match="The shape of the mask"):
        x[torch.ones(4, 4, dtype=torch.bool)]
    with pytest.raises(IndexError, match="shape mismatch: indexing tensors could not be broadcast"):
        x[torch.tensor([0, 1]), torch.tensor([0, 1, 2])]
    with pytest.raises(IndexError, match=r"out of bounds|out of range"):
        x[torch.tensor([0, 4])]
    with pytest.raises(IndexError, match=r"out of bounds|out of range"):
        x[torch.tensor([-5])] = 1.0


def test_wrong_values(torch):
    x = torch.zeros(4, 3)
    with pytest.raises(RuntimeError):
        x[0] = torch.zeros(2)
    with pytest.raises(RuntimeError):
        x[torch.tensor([0, 1])] = torch.zeros(3, 3)
    with pytest.raises((TypeError, RuntimeError, ValueError)):
        x[0] = "a"
    assert x.sum().item() == 0
