"""What differential fuzzing of single operations against PyTorch has found: one test a cause."""

from __future__ import annotations

import math

import pytest

import flambeau as torch

F = torch.nn.functional
inf, nan = math.inf, math.nan


# ------------------------------------------------------------- sizes as one argument with a name
@pytest.mark.parametrize(("name", "word", "value", "shape"), [
    ("view", "size", (2, 2), (2, 2)), ("reshape", "shape", [2, -1], (2, 2)),
    ("permute", "dims", (0,), (4,)), ("expand", "size", (3, 4), (3, 4)),
    ("broadcast_to", "size", (3, 4), (3, 4)), ("repeat", "repeats", (2, 1), (2, 4)),
    ("tile", "dims", (2,), (8,)), ("flip", "dims", [0], (4,)), ("sum_to_size", "size", (1,), (1,))])
def test_sizes_by_name(name, word, value, shape):
    method = getattr(torch.arange(4.0), name)
    assert method(**{word: value}).shape == shape
    with pytest.raises(TypeError, match=r"multiple values|unexpected"):
        method(4, **{word: value})
    with pytest.raises(TypeError, match="unexpected keyword argument 'wrong'"):
        method(wrong=value)


def test_sizes_by_name_of_other_functions():
    assert torch.empty(size=(2, 0)).shape == torch.ones(1).new_empty(size=(2, 0)).shape == (2, 0)
    assert torch.ones(2).view(dtype=torch.int32).dtype == torch.int32
    assert torch.tensor(1.0).view(size=(1, 1)).shape == (1, 1)
    parts = torch.arange(4.0).hsplit(indices=(1, 3))
    assert [part.shape[0] for part in parts] == [1, 2, 1]


# -------------------------------------------------------------------------------- channels_last
def last(*shape, **options):
    return torch.arange(math.prod(shape), dtype=torch.float32, **options).view(shape).to(
        memory_format=torch.channels_last if len(shape) == 4 else torch.channels_last_3d)


def test_channels_last_3d():
    x = last(2, 3, 4, 5, 6)
    assert x.stride() == (360, 1, 90, 18, 3)
    assert x.is_contiguous(memory_format=torch.channels_last_3d) and not x.is_contiguous()
    assert not x.is_contiguous(memory_format=torch.channels_last)
    assert x.dim_order() == (0, 2, 3, 4, 1)
    assert torch.equal(x.flatten(), torch.arange(720.0))
    for shape in ((2, 3, 4, 5), (3, 4)):
        with pytest.raises(RuntimeError, match="required rank 5 tensor to use channels_last_3d"):
            torch.zeros(shape).contiguous(memory_format=torch.channels_last_3d)
    made = torch.empty(2, 3, 4, 5, 6, memory_format=torch.channels_last_3d)
    for like in (made, torch.empty_like(x), x.clone(), x + 1, torch.relu(x)):
        assert like.stride() == x.stride()


@pytest.mark.parametrize("layer", [
    lambda: torch.nn.Conv3d(3, 4, 2), lambda: torch.nn.ConvTranspose3d(3, 4, 2),
    lambda: torch.nn.BatchNorm3d(3), lambda: torch.nn.MaxPool3d(2),
    lambda: torch.nn.GroupNorm(3, 3), lambda: torch.nn.Upsample(scale_factor=2),
    lambda: torch.nn.Upsample(scale_factor=2, mode="trilinear")])
def test_layers_keep_channels_last_3d(layer):
    layer, x = layer(), last(2, 3, 4, 5, 6) / 720
    found, wanted = layer(x), layer(x.contiguous())
    assert found.is_contiguous(memory_format=torch.channels_last_3d)
    assert torch.allclose(found, wanted, atol=1e-5)


def test_cat_of_channels_last_is_channels_last():
    x = last(2, 3, 4, 5)
    for dim in (0, 1, 2, 3):
        joined = torch.cat([x, x], dim)
        assert joined.is_contiguous(memory_format=torch.channels_last)
        assert torch.equal(joined, torch.cat([x.contiguous()] * 2, dim))
    assert torch.cat([x, x.contiguous()], 1).is_contiguous()


# ------------------------------------------------------------- recurrent networks as functions
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize(("name", "module"), [
    ("lstm", torch.nn.LSTM), ("gru", torch.nn.GRU), ("rnn_tanh", torch.nn.RNN)])
def test_recurrent_functions(name, module, bidirectional):
    net = module(3, 4, num_layers=2, bidirectional=bidirectional, batch_first=True)
    x = torch.randn(2, 5, 3)
    h = torch.randn(4 if bidirectional else 2, 2, 4)
    state = (h, h * 2) if name == "lstm" else h
    found = getattr(torch, name)(x, state, list(net.parameters()), True, 2, 0.0, False,
                                 bidirectional, True)
    result, last_state = net(x, state)
    wanted = (result, *(last_state if name == "lstm" else (last_state,)))
    assert len(found) == len(wanted) and all(map(torch.equal, found, wanted))


def test_recurrent_functions_of_packed_data():
    net, x = torch.nn.GRU(3, 4), torch.randn(5, 2, 3)
    packed = torch.nn.utils.rnn.pack_padded_sequence(x, [5, 3])
    h = torch.zeros(1, 2, 4)
    data, state = torch.gru(packed.data, packed.batch_sizes, h, list(net.parameters()), True, 1,
                            0.0, False, False)
    wanted, wanted_state = net(packed, h)
    assert torch.equal(data, wanted.data) and torch.equal(state, wanted_state)


def test_recurrent_cells():
    cell = torch.nn.LSTMCell(3, 4)
    x, h, c = torch.randn(2, 3), torch.randn(2, 4), torch.randn(2, 4)
    assert all(map(torch.equal, torch.lstm_cell(x, (h, c), *cell.parameters()), cell(x, (h, c))))
    gru = torch.nn.GRUCell(3, 4)
    assert torch.equal(torch.gru_cell(x, h, *gru.parameters()), gru(x, h))
    with pytest.raises(RuntimeError, match="inconsistent input_size"):
        torch.gru_cell(x[:, :2], h, *gru.parameters())


@pytest.mark.parametrize(("place", "shape"), [
    (0, (15, 2)), (0, (12, 3)), (1, (15, 4)), (1, (12, 5)), (2, (14,)), (3, (14,)), (3, (1,))])
def test_recurrent_weights_must_fit(place, shape):
    """The kernel takes its sizes from one operand: others would be read beyond their end."""
    weights = [torch.ones(15, 3), torch.ones(15, 5), torch.ones(15), torch.ones(15)]
    weights[place] = torch.ones(shape)
    with pytest.raises(RuntimeError, match="gru: "):
        torch.gru(torch.ones(4, 2, 3), torch.ones(1, 2, 5), weights, True, 1, 0.0, False, False,
                  False)
    net = torch.nn.GRU(3, 5)
    name = [name for name, _ in net.named_parameters()][place]
    setattr(net, name, torch.nn.Parameter(torch.ones(shape)))
    with pytest.raises(RuntimeError, match="gru: "):
        net(torch.ones(4, 2, 3))


def test_recurrent_states_and_dtypes_must_fit():
    weights = [torch.ones(15, 3), torch.ones(15, 5)]
    for h in (torch.ones(1, 1, 5), torch.ones(1, 2, 4), torch.ones(2, 2, 5), torch.ones(2, 5),
              torch.ones(1, 2, 5, dtype=torch.float64)):
        with pytest.raises(RuntimeError, match=r"hx|same dtype"):
            torch.gru(torch.ones(4, 2, 3), h, weights, False, 1, 0.0, False, False, False)


# ----------------------------------------------------------------------------------- gradients
def grad_of(function, x):
    x = x.clone().requires_grad_()
    function(x).backward()
    return x.grad


def test_a_batch_without_targets_has_no_gradient():
    ignored = torch.tensor([-100, -100])
    for loss in (F.nll_loss, F.cross_entropy):
        assert not grad_of(lambda x, loss=loss: loss(x, ignored), torch.ones(2, 3)).any()


def test_infinite_inputs_do_not_reach_the_slope_of_prelu():
    x = torch.tensor([inf, 1.0, -2.0])
    assert grad_of(lambda w: (F.prelu(x, w) ** 2).sum(), torch.ones(1)).tolist() == [8.0]


def test_hardtanh_passes_nan_on():
    slope = grad_of(lambda x: (F.hardtanh(x) * 3).sum(), torch.tensor([inf, nan, 0.5]))
    assert slope.tolist() == [0.0, 3.0, 3.0]


def test_logdet_of_negative_determinants():
    matrices = torch.stack([torch.eye(2), torch.tensor([[0.0, 1.0], [1.0, 0.0]])])
    found = torch.logdet(matrices)
    assert found[0] == 0 and found[1].isnan()
    assert grad_of(lambda x: torch.logdet(x).sum(), matrices).tolist() == [
        [[1.0, 0.0], [0.0, 1.0]], [[0.0, 0.0], [0.0, 0.0]]]


def test_norms_computed_in_another_dtype():
    x = torch.tensor([[1.0, -2.0], [3.0, 4.0]])
    for order in (1, 2, 3, inf, 0):
        slope = grad_of(lambda x, p=order: torch.norm(x, p, 1, dtype=torch.float64).sum(), x)
        assert slope.dtype == torch.float32
        assert torch.allclose(slope, grad_of(lambda x, p=order: torch.norm(x, p, 1).sum(), x))
    for given, wanted in ((x, torch.bfloat16), (x, torch.int64), (x, torch.complex64),
                          (x.cfloat(), torch.float32)):
        with pytest.raises(RuntimeError, match="dtype"):
            torch.linalg.vector_norm(given, dtype=wanted)


def test_factorizations_without_derivative_say_so():
    x = torch.eye(2).requires_grad_()
    for factors in (torch.linalg.ldl_factor_ex(x)[:2], torch.geqrf(x)):
        assert factors[0].requires_grad
        with pytest.raises((RuntimeError, NotImplementedError), match="derivative"):
            factors[0].sum().backward()
    assert not torch.linalg.ldl_factor_ex(x).pivots.requires_grad


# ---------------------------------------------------------------------------- values and shapes
def test_dimensions_repeated_on_a_tensor_without_any():
    x = torch.tensor(3.0)
    for call in (lambda: x.sum((0, -1)), lambda: x.flip((0, 0)), lambda: x.squeeze((0, -1)),
                 lambda: x.movedim((0, -1), (0, -1)), lambda: x.all((0, -1))):
        with pytest.raises(RuntimeError, match=r"multiple times|repeated dim"):
            call()
    assert x.sum(0) == 3 and x.flip(0) == 3
    with pytest.raises(RuntimeError, match="no dimensions"):
        x.unflatten(0, (1, 1))


def test_power_means_of_infinite_order():
    x = torch.tensor([[[1.0, -2.0, 3.0, -4.0]]])
    assert F.lp_pool1d(x, inf, 2).tolist() == [[[2.0, 4.0]]]
    slope = grad_of(lambda x: F.lp_pool1d(x, inf, 2).sum(), x)
    assert slope.tolist() == [[[0.0, -1.0, 0.0, -1.0]]]
    assert F.lp_pool2d(x[None].view(1, 1, 2, 2), inf, 2).item() == 4


def test_order_zero_counts():
    x = torch.tensor([[3.0, 0.0, 5.0]])
    assert F.pairwise_distance(x, torch.zeros(3), p=0, eps=0).tolist() == [2.0]
    assert torch.equal(F.normalize(x, p=0), x / 2)
    table = torch.ones(2, 4)
    assert F.embedding(torch.tensor([0]), table, max_norm=1.0, norm_type=0.0).tolist() == [
        [0.25] * 4]


def test_mixed_dtypes_of_cdist_and_complex_tables():
    with pytest.raises(RuntimeError, match="expected scalar type Float but found Double"):
        torch.cdist(torch.ones(2, 3), torch.ones(2, 3, dtype=torch.float64), 1.0)
    table = torch.full((2, 4), 3 + 4j)
    row = F.embedding(torch.tensor([0]), table, max_norm=1.0)
    assert torch.allclose(row, torch.full((1, 4), 0.3 + 0.4j))


def test_vecdot_broadcasts_its_dimension():
    assert torch.linalg.vecdot(torch.ones(3, 1), torch.ones(3, 4)).tolist() == [4.0] * 3
    assert torch.linalg.vecdot(torch.ones(2, 3, 0), torch.ones(0), dim=1).shape == (2, 0)
    with pytest.raises(RuntimeError, match="must match"):
        torch.linalg.vecdot(torch.ones(3, 2), torch.ones(3, 4))


def test_output_size_of_repeat_interleave_is_checked():
    x = torch.ones(3)
    for repeats in (2, torch.tensor([1, 2, 3])):
        assert x.repeat_interleave(repeats, output_size=6).shape == (6,)
        with pytest.raises(RuntimeError, match="output_size"):
            x.repeat_interleave(repeats, output_size=3)
    with pytest.raises(IndexError, match="no dimensions"):
        torch.tensor(1.0).repeat_interleave(torch.tensor([2]), 0)


def test_scatters_into_strided_memory():
    """Offsets count from the start of the memory, and elements between those of a view are hit."""
    memory = torch.arange(8)
    view = memory[2::2]  # places 2, 4, 6
    two = torch.tensor([70, 80])
    assert torch.as_strided_scatter(view, two, (2,), (2,), 4).tolist() == [2, 70, 80]
    assert torch.as_strided_scatter(view, two, (2,), (1,), 3).tolist() == [2, 80, 6]
    assert torch.as_strided_scatter(view, two, (2,), (1,), 0).tolist() == [2, 4, 6]
    assert memory.tolist() == list(range(8))


def test_small_things():
    assert torch.view_copy(torch.arange(4).expand(3, 4), (6, 2)).shape == (6, 2)
    assert torch.zeros(2, 4, 3).expand(5, 2, 4, 3).dim_order() == (0, 1, 2, 3)
    assert torch.fft.fftfreq(3, d=0.0).isinf().tolist() == [False, True, True]
    with pytest.raises(RuntimeError, match="floating point or complex dtype"):
        torch.fft.fftfreq(4, dtype=torch.int64)
    with pytest.raises(RuntimeError, match="same dtype"):
        torch.meshgrid(torch.ones(2), torch.ones(2, dtype=torch.float64), indexing="ij")
    with pytest.raises(RuntimeError, match="non-empty"):
        torch.meshgrid(indexing="ij")
    out = tuple(torch.empty(0, dtype=d) for d in (torch.float32, torch.float32, torch.int64,
                                                   torch.float32))
    found = torch.linalg.lstsq(torch.eye(2), torch.ones(2, 1), out=out)
    assert found.solution is out[0] and out[0].tolist() == [[1.0], [1.0]]


def test_dropout_of_channels_without_a_batch():
    with pytest.warns(UserWarning, match="3-D input"):
        dropped = F.dropout3d(torch.ones(50, 3, 2), 0.5)  # 50 channels of (3, 2)
    assert {len(set(channel.flatten().tolist())) for channel in dropped} == {1}


@pytest.mark.parametrize("call", [
    lambda x, w: F.instance_norm(x, weight=w),
    lambda x, w: F.batch_norm(x, None, None, weight=w, training=True),
    lambda x, w: F.batch_norm(x, torch.zeros(3), torch.ones(3), bias=w)])
def test_normalizations_refuse_mixed_widths(call):
    with pytest.raises(RuntimeError, match="mixed dtype"):
        call(torch.ones(2, 3, 4), torch.ones(3, dtype=torch.float64))


def test_a_wrong_reduction_is_a_wrong_value():
    for wrong in (1, None, "all", (0,)):
        with pytest.raises(ValueError, match="not a valid value for reduction"):
            F.l1_loss(torch.ones(2), torch.ones(2), reduction=wrong)
