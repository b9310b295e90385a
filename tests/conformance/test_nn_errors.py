"""nn: the same wrong programs under Flambeau and PyTorch raise the same errors."""

from __future__ import annotations

import pytest
import torch as pytorch

import flambeau


def fails(torch, text):
    try:
        eval(text, {"torch": torch, "nn": torch.nn, "init": torch.nn.init, "F": torch.nn.functional,
                    "m": torch.nn.Linear(2, 2), "relu": torch.nn.Sequential(torch.nn.ReLU())})
    except Exception as error:
        return type(error).__name__, str(error).replace("flambeau.", "torch.")
    return None


ERRORS = r"""
m.register_buffer('a.b', torch.ones(1))
m.register_buffer('', torch.ones(1))
m.register_buffer('weight', torch.ones(1))
m.register_buffer(3, torch.ones(1))
m.register_buffer('q', 3)
m.register_parameter('a.b', None)
m.register_parameter('', None)
m.register_parameter('forward', None)
m.register_parameter(3, None)
m.register_parameter('q', torch.ones(1))
m.register_parameter('q', nn.Parameter(torch.ones(1)) * 2)
m.add_module('a.b', m)
m.add_module('', m)
m.add_module('forward', m)
m.add_module(3, m)
m.add_module('q', 3)
setattr(m, 'weight', torch.ones(2, 2))
setattr(m, 'weight', 3)
setattr(relu, '0', 3)
setattr(nn.BatchNorm1d(2), 'running_mean', 3)
m.nope
delattr(m, 'nope')
m.load_state_dict(3)
m.load_state_dict({'weight': torch.ones(3, 3), 'zz': torch.ones(1), 'bias': 3})
m.load_state_dict({'zz': torch.ones(1)})
m.load_state_dict({'weight': torch.ones(3, 3)}, strict=False)
relu.load_state_dict({'0.x': torch.ones(1), '1.y': torch.ones(1), 'z': torch.ones(1)})
m.get_submodule('a.b')
m.get_submodule('weight')
m.get_parameter('weight.x')
relu.get_parameter('0.weight')
relu.get_parameter('0')
m.get_parameter('qq')
m.get_buffer('weight')
m.set_submodule('', nn.Tanh())
m.set_submodule('x.y', nn.Tanh())
m.set_submodule('weight', nn.Tanh())
m.set_submodule('chx', nn.Tanh(), strict=True)
m.set_submodule('chx', 3)
m.to(torch.int32)
m.train('a')
nn.Module(3)
nn.Module(a=3)
nn.Module()(3)
nn.ModuleList()(3)
m.forward()
nn.Sequential(nn.ReLU())[3]
nn.ModuleList([nn.ReLU()])[3]
nn.ModuleList([nn.ReLU()])[-2]
nn.ModuleList(3)
nn.ModuleList([3])
nn.ModuleDict(3)
nn.ModuleDict([(1, 2, 3)])
nn.ModuleDict()['a']
nn.ParameterList()[0]
nn.ParameterList(3)
nn.ParameterDict({'b': torch.ones(2, dtype=torch.int32)})
nn.ParameterDict()['b']
nn.Sequential(3)
nn.Sequential() + 3
nn.Sequential() * 0
nn.Sequential() * 'a'
nn.Sequential().insert(9, nn.ReLU())
nn.Sequential().pop(0)
nn.Conv2d(3, 4, 3, groups=2)
nn.Conv2d(4, 3, 3, groups=2)
nn.Conv2d(4, 3, 3, groups=0)
nn.Conv2d(4, 4, 3, padding='same', stride=2)
nn.ConvTranspose2d(4, 4, 3, padding_mode='circular')
nn.Dropout(2)
nn.Embedding(3, 4, padding_idx=5)
nn.Embedding(3, 4, _weight=torch.ones(2, 2))
nn.GroupNorm(2, 3)
nn.BatchNorm1d(3)(torch.ones(3))
nn.BatchNorm2d(3)(torch.ones(3))
nn.BatchNorm3d(3)(torch.ones(3))
nn.BatchNorm1d(3)(torch.ones(1, 3))
nn.InstanceNorm2d(3)(torch.ones(3))
nn.InstanceNorm2d(3, affine=True)(torch.ones(2, 4, 3, 3))
nn.Unflatten(1, 3)
nn.Unflatten(1, ('a', 3))
nn.Unflatten(1, (3., 4))
nn.Bilinear(0, 1, 2)
nn.Softmax2d()(torch.ones(2, 2))
nn.SmoothL1Loss(beta=-1)(torch.ones(1), torch.ones(1))
nn.HuberLoss(delta=0)(torch.ones(1), torch.ones(1))
nn.MSELoss(reduction='x')(torch.ones(1), torch.ones(1))
nn.BCELoss()(torch.ones(2), torch.ones(3))
nn.BCEWithLogitsLoss()(torch.ones(2), torch.ones(3))
nn.Hardtanh(2, 1)
nn.MultiMarginLoss(p=3)
nn.TripletMarginLoss(margin=-1)
F.dropout(torch.ones(1), 2)
F.dropout1d(torch.ones(1))
F.hardtanh(torch.ones(1), 2, 1)
F.embedding(torch.tensor([0]), torch.ones(2, 2), padding_idx=3)
init.xavier_uniform_(torch.ones(3))
init.kaiming_uniform_(torch.ones(2, 2), mode='q')
init.calculate_gain('q')
init.calculate_gain('leaky_relu', 'a')
init.eye_(torch.ones(3))
init.dirac_(torch.ones(3))
init.dirac_(torch.ones(3, 2, 3), 2)
init.orthogonal_(torch.ones(3))
init.sparse_(torch.ones(3), .1)
nn.Parameter(torch.ones(2, dtype=torch.int64))
nn.utils.vector_to_parameters(3, [])
""".strip().splitlines()


@pytest.mark.parametrize("text", ERRORS)
def test_error(text):
    ours, theirs = fails(flambeau, text), fails(pytorch, text)
    assert ours is not None
    assert ours[0] == theirs[0]
    assert ours[1].startswith(theirs[1])  # ours may say more
