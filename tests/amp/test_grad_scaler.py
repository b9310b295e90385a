"""GradScaler: scaling, skipping of steps that overflowed, growth, errors, state."""

import pytest

import flambeau as torch


def setup(**options):
    param = torch.nn.Parameter(torch.ones(2))
    optimizer = torch.optim.SGD([param], lr=0.1)
    return param, optimizer, torch.amp.GradScaler("cpu", **options)


def backward(param, scaler):
    scaler.scale((param * 2).sum()).backward()


def test_a_good_step_equals_one_without_scaling():
    param, optimizer, scaler = setup()
    backward(param, scaler)
    assert param.grad.tolist() == [131072.0, 131072.0]
    scaler.step(optimizer)
    scaler.update()
    assert param.grad.tolist() == [2.0, 2.0]
    torch.testing.assert_close(param.detach(), torch.tensor([0.8, 0.8]))
    assert scaler.get_scale() == 65536.0 and scaler._get_growth_tracker() == 1


@pytest.mark.parametrize("bad", [float("inf"), -float("inf"), float("nan")])
def test_a_step_that_overflowed_is_left_out(bad):
    param, optimizer, scaler = setup()
    backward(param, scaler)
    param.grad[1] = bad
    assert scaler.step(optimizer) is None
    scaler.update()
    assert param.tolist() == [1.0, 1.0]
    assert scaler.get_scale() == 32768.0


def test_the_factor_grows_after_good_steps():
    param, optimizer, scaler = setup(growth_interval=2, init_scale=4.0)
    for expected in (4.0, 8.0, 8.0, 16.0):
        optimizer.zero_grad()
        backward(param, scaler)
        scaler.step(optimizer)
        scaler.update()
        assert scaler.get_scale() == expected


def test_the_factor_does_not_become_infinite():
    param, optimizer, scaler = setup(growth_interval=1, init_scale=2.0**127)
    param.grad = torch.zeros(2)
    scaler.scale(torch.ones(()))
    scaler.step(optimizer)
    scaler.update()
    assert scaler.get_scale() == 2.0**127


def test_unscaled_gradients_can_be_clipped():
    param, optimizer, scaler = setup()
    backward(param, scaler)
    scaler.unscale_(optimizer)
    norm = torch.nn.utils.clip_grad_norm_([param], 1.0)
    assert norm.item() == pytest.approx(8 ** 0.5)
    scaler.step(optimizer)
    scaler.update()


def test_calls_in_the_wrong_order_are_refused():
    param, optimizer, scaler = setup()
    for early in (lambda: scaler.unscale_(optimizer), lambda: scaler.step(optimizer),
                  scaler.update):
        with pytest.raises(AssertionError, match="_scale is None"):
            early()
    backward(param, scaler)
    scaler.unscale_(optimizer)
    with pytest.raises(RuntimeError, match="already been called"):
        scaler.unscale_(optimizer)
    scaler.step(optimizer)
    with pytest.raises(RuntimeError, match="after step"):
        scaler.unscale_(optimizer)
    with pytest.raises(RuntimeError, match="already been called"):
        scaler.step(optimizer)
    scaler.update()
    optimizer.zero_grad()
    with pytest.raises(AssertionError, match="gradient"):
        scaler.step(optimizer)


def test_half_gradients_are_refused():
    param = torch.nn.Parameter(torch.ones(2, dtype=torch.float16))
    optimizer, scaler = torch.optim.SGD([param], lr=0.1), torch.amp.GradScaler("cpu")
    scaler.scale(param.float().sum()).backward()
    with pytest.raises(ValueError, match="FP16"):
        scaler.unscale_(optimizer)


def test_nested_outputs_are_scaled():
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0)
    a, (b,) = scaler.scale((torch.ones(1), [torch.ones(2)]))
    assert a.tolist() == [2.0] and b.tolist() == [2.0, 2.0]
    with pytest.raises(ValueError, match="int"):
        scaler.scale(3)


def test_state_round_trip():
    param, optimizer, scaler = setup()
    backward(param, scaler)
    scaler.step(optimizer)
    scaler.update(128.0)
    other = torch.amp.GradScaler("cpu")
    other.load_state_dict(scaler.state_dict())
    assert other.state_dict() == scaler.state_dict()
    with pytest.raises(RuntimeError, match="empty"):
        other.load_state_dict({})


def test_a_disabled_scaler_passes_everything_on():
    param, optimizer, scaler = setup(enabled=False)
    backward(param, scaler)
    scaler.unscale_(optimizer)
    scaler.step(optimizer)
    scaler.update()
    assert scaler.state_dict() == {} and scaler.get_scale() == 1.0
    torch.testing.assert_close(param.detach(), torch.tensor([0.8, 0.8]))
    with pytest.warns(UserWarning, match="CUDA"):
        assert not torch.amp.GradScaler().is_enabled()


@pytest.mark.parametrize("settings", [{"growth_factor": 1.0}, {"backoff_factor": 1.0}])
def test_settings_are_checked(settings):
    with pytest.raises(AssertionError, match="factor"):
        torch.amp.GradScaler("cpu", **settings)
