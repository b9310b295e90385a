"""nn: the same programs under Flambeau and PyTorch - reprs, draws, state dicts, errors, values."""

from __future__ import annotations

import copy
import inspect
import warnings

import numpy as np
import pytest
import torch as pytorch

import flambeau

BOTH = (flambeau, pytorch)

MODULES = """
Linear(2, 3)
Linear(2, 3, bias=False)
Linear(4, 2, dtype=torch.float64)
Bilinear(2, 3, 4)
Identity(3, unused=1)
Conv1d(2, 4, 3, padding='same')
Conv1d(2, 4, 4, padding='same', dilation=2, padding_mode='reflect')
Conv2d(3, 6, 3, padding=1, groups=3, bias=False, padding_mode='circular', dilation=2)
Conv2d(3, 6, (3, 5), stride=(2, 1), padding=(1, 2))
Conv3d(2, 2, 3)
ConvTranspose1d(2, 4, 3)
ConvTranspose2d(4, 6, 3, stride=2, output_padding=1, groups=2)
ConvTranspose3d(2, 2, 3, bias=False)
MaxPool1d(2, 1, return_indices=True)
MaxPool2d(2)
MaxPool3d((1, 2, 2), padding=(0, 1, 1), ceil_mode=True)
MaxUnpool2d(2)
AvgPool1d(2)
AvgPool2d(2, divisor_override=3)
AvgPool3d(2)
LPPool2d(2, 3)
AdaptiveAvgPool2d((1, None))
AdaptiveAvgPool1d(3)
AdaptiveMaxPool1d(3)
BatchNorm1d(3)
BatchNorm1d(3, bias=False)
BatchNorm2d(3, affine=False, momentum=None)
BatchNorm3d(3, track_running_stats=False)
InstanceNorm1d(3)
InstanceNorm2d(3, affine=True, track_running_stats=True)
LayerNorm(3)
LayerNorm((2, 3), bias=False)
LayerNorm([2, 3], elementwise_affine=False)
GroupNorm(1, 3)
GroupNorm(3, 6, affine=False)
RMSNorm(3)
LocalResponseNorm(2)
Dropout()
Dropout(0.3, True)
Dropout1d()
Dropout2d()
Dropout3d()
AlphaDropout()
FeatureAlphaDropout()
Embedding(3, 4)
Embedding(3, 4, padding_idx=-1)
Embedding(3, 4, max_norm=1.0, norm_type=1, scale_grad_by_freq=True, sparse=True)
Embedding(2, 2, _weight=torch.ones(2, 2), _freeze=True)
Embedding.from_pretrained(torch.ones(3, 2))
EmbeddingBag(3, 4)
EmbeddingBag(3, 4, mode='max', padding_idx=1)
Flatten()
Unflatten(1, (2, 3))
ReLU()
ReLU(True)
ReLU6(True)
RReLU()
LeakyReLU(0.1, True)
ELU()
CELU(inplace=True)
SELU(True)
GELU()
GELU('tanh')
GLU()
SiLU(True)
Mish()
Hardswish(True)
Hardsigmoid()
Hardtanh(-2, 2, True)
Hardshrink()
Softshrink(0.2)
Sigmoid()
Tanh()
Tanhshrink()
LogSigmoid()
Softplus(2)
Softsign()
Threshold(0.1, 2)
PReLU(3, 0.1)
Softmax(1)
LogSoftmax(dim=-1)
Softmin(1)
Softmax2d()
L1Loss()
MSELoss(reduction='sum')
SmoothL1Loss(beta=0.5)
HuberLoss()
KLDivLoss(reduction='batchmean')
NLLLoss(weight=torch.ones(3))
CrossEntropyLoss(label_smoothing=0.1)
BCELoss()
BCEWithLogitsLoss(pos_weight=torch.ones(2))
PoissonNLLLoss()
GaussianNLLLoss()
HingeEmbeddingLoss()
MultiLabelMarginLoss()
MultiLabelSoftMarginLoss()
MultiMarginLoss()
SoftMarginLoss()
CosineEmbeddingLoss()
MarginRankingLoss()
TripletMarginLoss()
TripletMarginWithDistanceLoss()
CTCLoss()
ConstantPad1d(2, 3.0)
ZeroPad2d(1)
ReflectionPad2d((1, 2, 0, 1))
ReplicationPad1d(2)
CircularPad3d(1)
PixelShuffle(2)
PixelUnshuffle(2)
ChannelShuffle(2)
Fold((4, 5), 2)
Unfold(2)
Upsample(scale_factor=2)
Upsample((3, 4), mode='bilinear')
UpsamplingNearest2d(scale_factor=2)
UpsamplingBilinear2d((4, 4))
CosineSimilarity()
PairwiseDistance()
ParameterList([Parameter(torch.ones(2, 3)), torch.ones(1), 'a', 3.5])
ParameterDict({'a': Parameter(torch.ones(2)), 'b': torch.ones(1, 1), 'c': 3})
ModuleList([Linear(2, 2), Linear(2, 2), ReLU()])
ModuleList()
ModuleDict({'q': Linear(2, 3), 'r': ModuleList([ReLU(), Sequential(Tanh())])})
Sequential()
Sequential(Linear(2, 2), Sequential(ReLU(), Linear(2, 2)), Dropout())
Sequential(ReLU()) + Sequential(Tanh(), Linear(1, 1))
Sequential(ReLU(), Linear(1, 2)) * 2
Sequential(Linear(1, 1), ReLU(), Tanh())[1:]
""".strip().splitlines()


def make(torch, text, seed=0):
    torch.manual_seed(seed)
    names = {name: getattr(torch.nn, name) for name in torch.nn.modules.__all__
             if hasattr(torch.nn, name)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return eval(text, {"torch": torch, "Parameter": torch.nn.Parameter, **names})


def array(tensor):
    return tensor.detach().to("cpu").numpy()


def state(module):
    return [(key, str(value.dtype), value.requires_grad, array(value))
            for key, value in module.state_dict(keep_vars=True).items()]


def assert_same(ours, theirs):
    """Equal structure; arrays equal bit for bit."""
    assert type(ours) is type(theirs), (ours, theirs)
    if isinstance(ours, np.ndarray):
        assert ours.dtype == theirs.dtype
        assert ours.shape == theirs.shape
        assert ours.tobytes() == theirs.tobytes(), (ours, theirs)
    elif isinstance(ours, (list, tuple)):
        assert len(ours) == len(theirs), (ours, theirs)
        for one, other in zip(ours, theirs, strict=True):
            assert_same(one, other)
    elif isinstance(ours, dict):
        assert list(ours) == list(theirs)
        for key in ours:
            assert_same(ours[key], theirs[key])
    else:
        assert ours == theirs


def compare(program):
    ours, theirs = program(flambeau), program(pytorch)
    assert_same(ours, theirs)
    return ours


@pytest.mark.parametrize("text", MODULES)
def test_construction(text):
    """repr, names, dtypes and, under one seed, every bit of every parameter and buffer."""
    def program(torch):
        module = make(torch, text)
        return (repr(module), state(module), [name for name, _ in module.named_parameters()],
                [name for name, _ in module.named_modules()],
                dict(module.state_dict()._metadata))
    compare(program)


@pytest.mark.parametrize("name", sorted(set(flambeau.nn.modules.__all__)))
def test_signature(name):
    def program(torch):
        parameters = inspect.signature(getattr(torch.nn, name).__init__).parameters.values()
        return [(p.name, str(p.kind), "" if callable(p.default) else str(p.default))
                for p in parameters]
    compare(program)


@pytest.mark.parametrize("name", flambeau.nn.functional._DEFINED)
def test_functional_signature(name):
    if inspect.isbuiltin(getattr(pytorch.nn.functional, name)):
        pytest.skip("PyTorch's function shows no signature")

    def program(torch):
        parameters = inspect.signature(getattr(torch.nn.functional, name)).parameters.values()
        return [(p.name, str(p.kind), str(p.default)) for p in parameters]
    compare(program)


INITS = """
uniform_(t, -1, 3)
normal_(t, 1.0, 0.5)
trunc_normal_(t)
trunc_normal_(t, std=0.02)
trunc_normal_(t, 0.5, 2.0, -1.0, 1.5)
trunc_normal_(t, 0.0, 9.0, -1.0, 1.5)
trunc_normal_(t, 0.0, 1.0, 1.0, 3.0)
constant_(t, 0.3)
ones_(t)
zeros_(t)
eye_(t)
xavier_uniform_(t, gain=1.5)
xavier_normal_(t)
kaiming_uniform_(t, a=0.2)
kaiming_uniform_(t, mode='fan_out', nonlinearity='relu')
kaiming_normal_(t, nonlinearity='tanh')
orthogonal_(t)
orthogonal_(t, 2.0)
sparse_(t, 0.4)
""".strip().splitlines()


@pytest.mark.parametrize("shape", [(5, 3), (3, 7), (4, 4)])
@pytest.mark.parametrize("text", INITS)
def test_init(text, shape):
    values = []
    for torch in BOTH:
        torch.manual_seed(3)
        tensor = torch.empty(shape)
        result = eval("init." + text, {"init": torch.nn.init, "t": tensor})
        assert result is tensor
        values.append((array(tensor), float(torch.rand(()))))
    (ours, after), (theirs, after_theirs) = values
    exact = not text.startswith(("trunc", "orthogonal"))  # these compute with erfinv and qr
    np.testing.assert_allclose(ours, theirs, rtol=0 if exact else 2e-6, atol=0 if exact else 1e-6)
    assert after == after_theirs, "the generators differ afterwards"


@pytest.mark.parametrize("text", ["dirac_(t)", "dirac_(t, 2)", "kaiming_normal_(t)",
                                  "xavier_uniform_(t)", "uniform_(t, generator=g)"])
def test_init_of_kernels(text):
    def program(torch):
        torch.manual_seed(3)
        tensor = torch.empty(4, 3, 3, 5)
        eval("init." + text, {"init": torch.nn.init, "t": tensor,
                              "g": torch.Generator().manual_seed(5)})
        return array(tensor)
    compare(program)


def test_gain():
    names = ["linear", "conv1d", "sigmoid", "tanh", "relu", "leaky_relu", "selu"]
    compare(lambda torch: [torch.nn.init.calculate_gain(name) for name in names])
    compare(lambda torch: torch.nn.init.calculate_gain("leaky_relu", 0.3))


# Constructor, then shapes of the inputs ("i5:2,3" for indices below 5).
FORWARDS = """
Linear(3, 4) | 2,3
Linear(3, 4) | 3
Linear(3, 4, bias=False) | 2,5,3
Bilinear(2, 3, 4) | 5,2 | 5,3
Conv1d(2, 4, 3, padding='same', dilation=2) | 2,2,7
Conv2d(3, 6, 3, padding=1, groups=3, padding_mode='circular') | 2,3,5,5
Conv2d(3, 6, (3, 1), stride=(2, 1), padding=(1, 0)) | 2,3,5,5
Conv2d(2, 2, 3, padding=1, padding_mode='reflect') | 2,4,4
Conv3d(2, 2, 2) | 1,2,3,3,3
ConvTranspose2d(4, 6, 3, stride=2, output_padding=1, groups=2) | 2,4,3,3
MaxPool1d(2) | 2,3,6
MaxPool2d(3, 2, 1) | 2,3,6,6
AvgPool2d(2) | 2,3,6,6
AvgPool1d(3, 1, 1) | 2,3,6
AdaptiveAvgPool2d((2, 3)) | 2,3,5,7
BatchNorm1d(3) | 5,3
BatchNorm1d(3) | 5,3,2
BatchNorm2d(3, momentum=None) | 2,3,4,4
BatchNorm2d(3, affine=False) | 2,3,4,4
InstanceNorm2d(3) | 2,3,4,4
LayerNorm(4) | 2,3,4
LayerNorm((3, 4)) | 2,3,4
GroupNorm(2, 4) | 2,4,3,3
RMSNorm(4) | 2,3,4
LocalResponseNorm(2) | 2,4,3
Embedding(5, 3, padding_idx=1) | i5:2,4
Embedding(5, 3, max_norm=1.0) | i5:2,4
Flatten() | 2,3,4
Unflatten(1, (2, 3)) | 2,6,2
ReLU() | 3,4
ReLU6() | 3,4
LeakyReLU(0.1) | 3,4
ELU() | 3,4
CELU(0.5) | 3,4
SELU() | 3,4
GELU() | 3,4
GELU('tanh') | 3,4
GLU() | 3,4
SiLU() | 3,4
Mish() | 3,4
Hardswish() | 3,4
Hardsigmoid() | 3,4
Hardtanh() | 3,4
Hardshrink() | 3,4
Softshrink() | 3,4
Sigmoid() | 3,4
Tanh() | 3,4
Tanhshrink() | 3,4
LogSigmoid() | 3,4
Softplus(2) | 3,4
Softsign() | 3,4
Threshold(0.1, 2) | 3,4
PReLU(4) | 3,4
Softmax(1) | 3,4
LogSoftmax(dim=-1) | 3,4
Softmin(1) | 3,4
Dropout(0.4) | 3,4
Dropout1d(0.4) | 2,3,4
Dropout1d(0.4) | 3,4
Dropout2d(0.4) | 2,3,4,4
Dropout3d(0.4) | 3,2,2,2
AlphaDropout(0.4) | 3,4
FeatureAlphaDropout(0.4) | 3,4,2
L1Loss() | 3,4 | 3,4
MSELoss() | 3,4 | 3,4
MSELoss(reduction='none') | 3,4 | 3,4
SmoothL1Loss(beta=0.5) | 3,4 | 3,4
HuberLoss(reduction='sum') | 3,4 | 3,4
KLDivLoss(reduction='batchmean', log_target=True) | 3,4 | 3,4
NLLLoss() | 5,3 | i3:5
NLLLoss(ignore_index=1, reduction='sum') | 5,3 | i3:5
CrossEntropyLoss() | 5,3 | i3:5
CrossEntropyLoss(label_smoothing=0.1, weight=torch.tensor([1.0, 2.0, 3.0])) | 5,3 | i3:5
CrossEntropyLoss() | 2,3,4 | i3:2,4
BCEWithLogitsLoss(pos_weight=torch.tensor([1.0, 2.0, 3.0, 1.0])) | 3,4 | u3,4
BCELoss() | u3,4 | u3,4
TripletMarginWithDistanceLoss(swap=True, margin=0.5) | 3,4 | 3,4 | 3,4
RReLU() | 3,4
PixelShuffle(2) | 1,8,3,3
ZeroPad2d(1) | 1,2,3,3
ConstantPad1d((1, 2), 3.0) | 2,3
CosineSimilarity() | 3,4 | 3,4
Sequential(Linear(3, 4), ReLU(), BatchNorm1d(4), Linear(4, 2), LogSoftmax(1)) | 5,3
""".strip().splitlines()


def inputs_of(torch, shapes):
    values = []
    for position, text in enumerate(shapes):
        rng = np.random.default_rng(position)
        kind, limit = "normal", 0
        if text.startswith("i"):
            limit, text = int(text[1:text.index(":")]), text[text.index(":") + 1:]
            kind = "index"
        elif text.startswith("u"):
            kind, text = "uniform", text[1:]
        shape = tuple(int(n) for n in text.split(","))
        if kind == "index":
            values.append(torch.tensor(rng.integers(0, limit, shape)))
        elif kind == "uniform":
            values.append(torch.tensor(rng.uniform(0.1, 0.9, shape).astype(np.float32)))
        else:
            value = torch.tensor(rng.standard_normal(shape).astype(np.float32))
            values.append(value.requires_grad_(position == 0))
    return values


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("line", FORWARDS)
@pytest.mark.filterwarnings("ignore")
def test_forward_and_gradients(line, training):
    text, *shapes = (part.strip() for part in line.split("|"))

    def program(torch):
        module = make(torch, text).train(training)
        inputs = inputs_of(torch, shapes)
        torch.manual_seed(1)
        out = module(*inputs)
        result = {"out": array(out)}
        if out.requires_grad:
            weights = np.random.default_rng(9).standard_normal(tuple(out.shape))
            out.backward(torch.tensor(weights.astype(np.float32)))
        for position, value in enumerate(inputs):
            if value.requires_grad:
                result[f"grad {position}"] = array(value.grad)
        for name, parameter in module.named_parameters():
            result["grad " + name] = None if parameter.grad is None else array(parameter.grad)
        for name, value in module.state_dict().items():
            result["state " + name] = array(value)
        return result

    ours, theirs = program(flambeau), program(pytorch)
    assert list(ours) == list(theirs)
    for key, expected in theirs.items():
        if expected is None:
            assert ours[key] is None
            continue
        assert ours[key].shape == expected.shape
        assert ours[key].dtype == expected.dtype
        np.testing.assert_allclose(ours[key], expected, rtol=2e-5, atol=2e-6, err_msg=key)


def net(torch):
    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.features = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4))
            self.heads = torch.nn.ModuleDict({"a": torch.nn.Linear(4, 2),
                                              "b": torch.nn.Linear(4, 1, bias=False)})
            self.scale = torch.nn.Parameter(torch.ones(2))
            self.register_buffer("seen", torch.zeros(3))
            self.register_buffer("cache", torch.zeros(2), persistent=False)
            self.shadow = torch.nn.Buffer(torch.ones(1), persistent=False)
            self.tied = self.heads["a"]

        def forward(self, x):
            x = self.features(x)
            return self.heads["a"](x) * self.scale, self.heads["b"](x)

    torch.manual_seed(4)
    return Net()


def test_tree():
    def program(torch):
        module = net(torch)
        return (repr(module), state(module), [n for n, _ in module.named_parameters()],
                [n for n, _ in module.named_parameters(remove_duplicate=False)],
                [n for n, _ in module.named_buffers(prefix="p")],
                [n for n, _ in module.named_children()],
                [n for n, _ in module.named_modules(remove_duplicate=False)],
                sorted(name for name in dir(module) if name in (
                    "features", "scale", "seen", "forward", "tied")),
                module.get_submodule("features.0").in_features,
                list(module.get_parameter("heads.a.weight").shape),
                [type(m).__name__ for m in module.modules()],
                len(list(module.heads.parameters())), list(module.heads.keys()))
    compare(program)


def test_state_dict_roundtrip_and_prefix():
    def program(torch):
        module, other = net(torch), net(torch)
        with torch.no_grad():
            for parameter in module.parameters():
                parameter.add_(1)
        saved = module.state_dict(prefix="model.")
        keys = list(saved)
        torch.nn.modules.utils.consume_prefix_in_state_dict_if_present(saved, "model.")
        message = repr(other.load_state_dict(saved))
        partial = dict(list(saved.items())[:2])
        partial["extra"] = torch.ones(1)
        result = other.load_state_dict(partial, strict=False)
        return (keys, list(saved._metadata), message, state(other), result.missing_keys,
                result.unexpected_keys, repr(result))
    compare(program)


def test_load_assign_and_hooks():
    def program(torch):
        log = []
        module = torch.nn.Linear(2, 1)
        module.register_state_dict_pre_hook(lambda m, p, k: log.append(("pre", p, k)))
        module.register_state_dict_post_hook(
            lambda m, d, p, meta: log.append(("post", sorted(d), p, dict(meta))))
        module.register_load_state_dict_pre_hook(
            lambda m, d, p, meta, strict, *lists: log.append(("load pre", sorted(d), strict)))
        module.register_load_state_dict_post_hook(
            lambda m, keys: log.append(("load post", keys.missing_keys)))
        saved = copy.copy(module.state_dict())
        weight = torch.zeros(1, 2)
        saved["weight"] = weight
        before = module.weight
        module.load_state_dict(saved, assign=True)
        log.append((module.weight is before, module.weight.data_ptr() == weight.data_ptr(),
                    type(module.weight).__name__, module.weight.requires_grad))
        return log
    compare(program)


def test_batchnorm_loads_version_one():
    def program(torch):
        module = torch.nn.BatchNorm1d(2)
        saved = {key: value for key, value in module.state_dict().items()
                 if key != "num_batches_tracked"}
        module.num_batches_tracked.fill_(5)
        module.load_state_dict(saved)
        return state(module)
    compare(program)


def test_conversion_keeps_identity():
    def program(torch):
        module = net(torch)
        before = list(module.parameters())
        module(torch.ones(2, 3))[0].sum().backward()
        result = [module.double() is module, module.features[0].weight.dtype == torch.float64,
                  module.features[0].weight.grad.dtype == torch.float64,
                  module.features[1].num_batches_tracked.dtype == torch.int64]
        result.append(all(a is b for a, b in zip(before, module.parameters(), strict=True)))
        module.to(torch.bfloat16)
        result.append(str(module.scale.dtype))
        module.to("cpu", torch.float32).half().float()
        result.append(str(module.scale.dtype))
        module.to(torch.ones(1, dtype=torch.float64))
        result.append(str(module.scale.dtype))
        module.type(torch.float32)
        result.append(str(module.features[1].num_batches_tracked.dtype))
        return result
    compare(program)


@pytest.mark.filterwarnings("ignore")
def test_modes_and_gradients():
    def program(torch):
        module = net(torch)
        out = []
        module.eval()
        out.append([m.training for m in module.modules()])
        module.train()
        module.features.eval()
        out.append([m.training for m in module.modules()])
        module.features.requires_grad_(False)
        out.append([p.requires_grad for p in module.parameters()])
        module(torch.ones(2, 3))[0].sum().backward()
        out.append([p.grad is None for p in module.parameters()])
        module.zero_grad(set_to_none=False)
        out.append([None if p.grad is None else array(p.grad) for p in module.parameters()])
        module.zero_grad()
        out.append([p.grad is None for p in module.parameters()])
        order = []
        module.apply(lambda m: order.append(type(m).__name__))
        return [*out, order]
    compare(program)


def test_forward_hooks():
    def program(torch):
        log = []
        module = torch.nn.Sequential(torch.nn.Identity(), torch.nn.Identity())

        def pre(m, args):
            log.append(("pre", array(args[0])))
            return args[0] + 1

        def pre_kwargs(m, args, kwargs):
            log.append(("pre kwargs", sorted(kwargs)))
            return args, {}

        def post(m, args, out):
            log.append(("post", array(out)))
            return out * 2

        def post_kwargs(m, args, kwargs, out):
            log.append(("post kwargs", sorted(kwargs), array(out)))

        inner = module[0]
        handles = [inner.register_forward_pre_hook(pre),
                   inner.register_forward_pre_hook(pre_kwargs, with_kwargs=True, prepend=True),
                   inner.register_forward_hook(post),
                   inner.register_forward_hook(post_kwargs, with_kwargs=True, prepend=True)]
        total = torch.nn.modules.module.register_module_forward_hook(
            lambda m, args, out: log.append(("global", type(m).__name__)))
        log.append(array(module(torch.ones(1))))
        total.remove()
        for handle in handles[:2]:
            handle.remove()
        log.append(array(module(torch.ones(1))))
        return log
    compare(program)


def test_hook_that_is_always_called():
    def program(torch):
        log = []

        class Fails(torch.nn.Module):
            def forward(self, x):
                raise ValueError("no")

        module = Fails()
        module.register_forward_hook(lambda m, args, out: log.append("plain"))
        module.register_forward_hook(lambda m, args, out: log.append(("always", out)),
                                     always_call=True)
        try:
            module(torch.ones(1))
        except ValueError as error:
            log.append(str(error))
        return log
    compare(program)


@pytest.mark.filterwarnings("ignore")
def test_backward_hooks():
    def program(torch):
        log = []

        class Two(torch.nn.Module):
            def forward(self, x, y, flag):
                return x * y, y * 2

        module = Two()

        def hook(m, grad_input, grad_output):
            log.append(("post", [None if g is None else array(g) for g in grad_input],
                        [None if g is None else array(g) for g in grad_output]))
            return tuple(None if g is None else g * 2 for g in grad_input)

        def pre(m, grad_output):
            log.append(("pre", [None if g is None else array(g) for g in grad_output]))
            return tuple(None if g is None else g + 1 for g in grad_output)

        handle = module.register_full_backward_hook(hook)
        module.register_full_backward_pre_hook(pre)
        x, y = torch.ones(2).requires_grad_(), torch.ones(2)
        module(x, y, "text")[0].sum().backward()
        log.append(array(x.grad))
        x.grad = None
        handle.remove()
        module(x, y.requires_grad_(), 3)[0].sum().backward()
        log.append((array(x.grad), array(y.grad)))
        return log
    compare(program)


def test_copy_and_pickle():
    import pickle
    for torch in BOTH:
        module = net(torch)
        twin = copy.deepcopy(module)
        assert twin.tied is twin.heads["a"]
        assert twin.scale is not module.scale
        assert isinstance(twin.scale, torch.nn.Parameter)
        assert_same(state(twin), state(module))
        if torch is pytorch:
            continue
        linear = torch.nn.Linear(2, 2)
        back = pickle.loads(pickle.dumps(linear))
        assert_same(state(back), state(linear))
        assert isinstance(back.weight, torch.nn.Parameter)


def test_clipping():
    def program(torch):
        def parameters():
            values = [torch.nn.Parameter(torch.ones(3)), torch.nn.Parameter(torch.ones(2, 2)),
                      torch.nn.Parameter(torch.ones(1))]
            values[0].grad = torch.tensor([1.0, -2.0, 3.0])
            values[1].grad = torch.full((2, 2), -0.5)
            return values

        out = []
        for norm, limit in ((2.0, 1.0), (1, 2.0), (float("inf"), 1.5), (2, 100.0)):
            values = parameters()
            total = torch.nn.utils.clip_grad_norm_(values, limit, norm)
            out.append((round(float(total), 5), [array(v.grad).round(5) for v in values[:2]]))
        values = parameters()
        torch.nn.utils.clip_grad_value_(values, 0.7)
        out.append([array(v.grad) for v in values[:2]])
        vector = torch.nn.utils.parameters_to_vector(values)
        out.append(array(vector))
        torch.nn.utils.vector_to_parameters(vector * 2, values)
        out.append([array(v) for v in values])
        return out
    compare(program)


def test_warnings():
    def program(torch):
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            torch.nn.MSELoss()(torch.ones(2, 1), torch.ones(2))
            torch.nn.MSELoss(size_average=False)
            torch.nn.Softmax()(torch.ones(2, 2))
            torch.nn.KLDivLoss()(torch.ones(2, 2), torch.ones(2, 2))
            torch.nn.init.uniform(torch.ones(2))
            torch.nn.Linear(0, 2)
        return [(w.category.__name__, str(w.message)) for w in seen]
    compare(program)
