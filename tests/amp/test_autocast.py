"""autocast: which operands are cast, the cache of weights, nesting, threads, custom functions."""

import threading
import warnings

import pytest

import flambeau as torch
import flambeau.nn.functional as F
from flambeau.ops.autocast import LOWER, SINGLE, WIDEST
from flambeau.ops.record import REGISTRY
from flambeau.tensor.dispatch import ACTIVE

bf16, f16, f32, f64 = torch.bfloat16, torch.float16, torch.float32, torch.float64


@pytest.fixture(autouse=True)
def state_is_restored():
    before = len(ACTIVE)
    yield
    assert len(ACTIVE) == before
    assert not torch.is_autocast_enabled("cpu")


def test_the_lists_name_operations_and_none_twice():
    assert set(REGISTRY) >= (LOWER | SINGLE | WIDEST)
    assert not LOWER & SINGLE and not LOWER & WIDEST and not SINGLE & WIDEST


@pytest.mark.parametrize("dtype", [bf16, f16])
def test_products_are_computed_in_the_lower_precision(dtype):
    a, b = torch.rand(4, 4), torch.rand(4, 4)
    with torch.autocast("cpu", dtype=dtype):
        results = [a @ b, torch.mm(a, b), F.linear(a, b, a[0]), torch.einsum("ij,jk", a, b),
                   F.conv2d(torch.rand(1, 2, 5, 5), torch.rand(3, 2, 3, 3)),
                   F.scaled_dot_product_attention(a[None], b[None], a[None])]
    assert [r.dtype for r in results] == [dtype] * 6
    assert torch.equal(results[0], a.to(dtype) @ b.to(dtype))


def test_other_operations_take_what_they_are_given():
    x, h = torch.rand(4, 4), torch.rand(4, 4).bfloat16()
    with torch.autocast("cpu"):
        assert (x + 1).dtype is f32 and torch.softmax(h, 1).dtype is bf16
        assert (x + h).dtype is f32 and torch.exp(x).dtype is f32
        assert F.layer_norm(h, (4,), torch.ones(4)).dtype is bf16


def test_losses_are_computed_in_single_precision():
    h, y = torch.rand(4, 4).bfloat16(), torch.randint(0, 4, (4,))
    with torch.autocast("cpu"):
        assert F.cross_entropy(h, y).dtype is f32
        assert F.mse_loss(h, h).dtype is f32
        assert torch.prod(h).dtype is f32
        assert F.pad(h[None], (1, 1), "reflect").dtype is f32
        assert F.pad(h[None], (1, 1)).dtype is bf16


def test_joined_tensors_meet_in_the_widest_dtype():
    with torch.autocast("cpu"):
        assert torch.cat([torch.rand(2), torch.rand(2).bfloat16()]).dtype is f32
        assert torch.stack([torch.rand(2).bfloat16()] * 2).dtype is bf16


def test_double_precision_and_integers_are_left_alone():
    with torch.autocast("cpu"):
        assert (torch.rand(2, 2, dtype=f64) @ torch.rand(2, 2, dtype=f64)).dtype is f64
        assert (torch.ones(2, 2, dtype=torch.int64) @ torch.ones(2, 2, dtype=torch.int64)
                ).dtype is torch.int64


def test_regions_nest_and_end_when_something_is_raised():
    a = torch.rand(2, 2)
    with torch.autocast("cpu"):
        with torch.autocast("cpu", enabled=False):
            assert (a @ a).dtype is f32
        with torch.autocast("cpu", dtype=f16):
            assert (a @ a).dtype is f16
        assert (a @ a).dtype is bf16 and torch.get_autocast_dtype("cpu") is bf16
    with pytest.raises(ZeroDivisionError), torch.autocast("cpu"):
        raise ZeroDivisionError
    assert (a @ a).dtype is f32


def test_as_a_decorator():
    @torch.autocast("cpu")
    def product(a):
        return a @ a

    assert product(torch.rand(2, 2)).dtype is bf16
    assert product.__name__ == "product"


def test_another_thread_is_not_in_the_region():
    found = []
    with torch.autocast("cpu"):
        thread = threading.Thread(target=lambda: found.append((torch.rand(2, 2)
                                                               @ torch.rand(2, 2)).dtype))
        thread.start()
        thread.join()
    assert found == [f32]


def test_gradients_reach_the_weights_in_their_own_dtype():
    w = torch.nn.Parameter(torch.rand(3, 3))
    x = torch.rand(5, 3)
    with torch.autocast("cpu"):
        loss = F.mse_loss(x @ w + x @ w, torch.zeros(5, 3))
    loss.backward()
    assert w.grad.dtype is f32
    wide = torch.nn.Parameter(w.detach().clone())
    F.mse_loss(x @ wide + x @ wide, torch.zeros(5, 3)).backward()
    torch.testing.assert_close(w.grad, wide.grad, rtol=0.05, atol=0.05)


def test_a_weight_is_cast_once_until_it_is_written_to():
    w = torch.nn.Parameter(torch.ones(2, 2))
    with torch.autocast("cpu"):
        first, second = torch.eye(2) @ w, torch.eye(2) @ w
        casts = {id(n[0]) for out in (first, second) for n in out.grad_fn.next_functions if n[0]}
        assert len(casts) == 1
        with torch.no_grad():
            w.mul_(3)
        assert (torch.eye(2) @ w).sum() == 12
    with torch.autocast("cpu", cache_enabled=False):
        first, second = torch.eye(2) @ w, torch.eye(2) @ w
        casts = {id(n[0]) for out in (first, second) for n in out.grad_fn.next_functions if n[0]}
        assert len(casts) == 2


def test_a_cast_made_without_recording_is_not_used_with_it():
    w = torch.nn.Parameter(torch.ones(2, 2))
    with torch.autocast("cpu"):
        with torch.no_grad():
            torch.eye(2) @ w
        (torch.eye(2) @ w).sum().backward()
    assert w.grad is not None


def test_settings_are_checked():
    with pytest.raises(RuntimeError, match="'tpu'"):
        torch.autocast("tpu")
    with pytest.raises(ValueError, match="device_type"):
        torch.autocast(3)
    with pytest.warns(UserWarning, match="float64"):
        region = torch.autocast("cpu", dtype=f64)
    with region:
        assert (torch.rand(2, 2) @ torch.rand(2, 2)).dtype is f32
    with pytest.warns(UserWarning, match="CUDA is not available"):
        torch.autocast("cuda")


def test_settings_as_functions():
    torch.set_autocast_enabled("cpu", True)
    try:
        assert torch.is_autocast_enabled("cpu") and not torch.is_autocast_enabled("cuda")
        assert (torch.rand(2, 2) @ torch.rand(2, 2)).dtype is bf16
    finally:
        torch.set_autocast_enabled("cpu", False)


def test_settings_of_another_device_cast_nothing_here():
    torch.set_autocast_enabled("cuda", True)
    try:
        assert torch.is_autocast_enabled("cuda") and not ACTIVE
        assert (torch.ones(2, 3) @ torch.ones(3, 2)).dtype is f32
        with torch.autocast("cpu"):
            assert (torch.ones(2, 3) @ torch.ones(3, 2)).dtype is bf16
        assert not ACTIVE
    finally:
        torch.set_autocast_enabled("cuda", False)


@pytest.mark.parametrize(("call", "said"), [
    (lambda: torch.set_autocast_dtype("cpu", "bf16"), "'dtype' .position 2. must be torch.dtype"),
    (lambda: torch.set_autocast_dtype(3, bf16), "'device_type' .position 1. must be str"),
    (lambda: torch.set_autocast_enabled("cpu", 3), "'enabled' .position 2. must be bool, not int"),
])
def test_settings_of_the_wrong_type_are_refused(call, said):
    with pytest.raises(TypeError, match=said):
        call()


def test_custom_functions_return_to_the_state_of_their_forward():
    seen = []

    class Product(torch.autograd.Function):
        @staticmethod
        @torch.amp.custom_fwd(device_type="cpu")
        def forward(ctx, a, b):
            ctx.save_for_backward(a, b)
            return a @ b

        @staticmethod
        @torch.amp.custom_bwd(device_type="cpu")
        def backward(ctx, grad):
            a, b = ctx.saved_tensors
            result = grad.float() @ b.t()
            seen.append(result.dtype)
            return result.float(), (a.t() @ grad.float()).float()

    a, b = (torch.rand(2, 2, requires_grad=True) for _ in range(2))
    with torch.autocast("cpu"):
        out = Product.apply(a, b)
    assert out.dtype is bf16
    out.sum().backward()
    assert seen == [bf16]


def test_custom_functions_may_ask_for_a_dtype():
    class Plain(torch.autograd.Function):
        @staticmethod
        @torch.amp.custom_fwd(device_type="cpu", cast_inputs=f32)
        def forward(ctx, a):
            assert not torch.is_autocast_enabled("cpu")
            return a @ a

        @staticmethod
        def backward(ctx, grad):
            return grad

    with torch.autocast("cpu"):
        assert Plain.apply(torch.rand(2, 2).bfloat16()).dtype is f32


@pytest.mark.parametrize("compiled", [False, True])
def test_training_converges_as_in_single_precision(compiled):
    def losses(lower):
        torch.manual_seed(0)
        model = torch.nn.Sequential(torch.nn.Linear(8, 32), torch.nn.ReLU(),
                                    torch.nn.Linear(32, 4))
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
        x = torch.randn(64, 8)
        y = (x[:, :4] + x[:, 4:]).argmax(1)

        def step():
            optimizer.zero_grad()
            with torch.autocast("cpu", enabled=lower):
                loss = F.cross_entropy(model(x), y)
            loss.backward()
            optimizer.step()
            return loss

        run = torch.compile(step) if compiled else step
        return [run().item() for _ in range(40)]

    lower, single = losses(True), losses(False)
    assert lower[-1] < 0.3 * lower[0]
    assert lower[-1] == pytest.approx(single[-1], rel=0.1)


def test_deprecated_spellings():
    with torch.cpu.amp.autocast():
        assert (torch.rand(2, 2) @ torch.rand(2, 2)).dtype is bf16
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with torch.cuda.amp.autocast():
            assert (torch.rand(2, 2) @ torch.rand(2, 2)).dtype is f32
