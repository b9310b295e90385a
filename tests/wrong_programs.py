"""Programs with one mistake each: what a user may do wrong, one line apiece.

Nothing here imports PyTorch: `outcome` takes the framework as an argument. tests/errors checks the
class of every error against what PyTorch raised (tests/data/errors.json, recorded by
tests/conformance/test_errors.py).
"""

from __future__ import annotations

import copy  # noqa: F401 - the programs see what is here
import io
import json
import os
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np  # noqa: F401

__all__ = ["RECORDED", "WRONG", "outcome"]

RECORDED = Path(__file__).parent / "data" / "errors.json"
"""For each program the name of the class that PyTorch raised, and its message."""


def recorded() -> dict[str, list[str]]:
    return json.loads(RECORDED.read_text())


def outcome(torch: ModuleType, text: str) -> BaseException | None:
    """The exception that the program ends with under `torch`, or None."""
    names = globals() | {"torch": torch, "nn": torch.nn, "F": torch.nn.functional}
    try:
        eval(text, names)
    except Exception as error:
        return error
    return None


# ---------------------------------------------------------------------- what the programs call
def setitem(x: Any, index: Any, value: Any) -> None:
    x[index] = value


def if_(x: Any) -> None:
    if x:
        pass


def twice(loss: Any) -> None:
    loss.backward()
    loss.backward()


def changed(x: Any) -> None:
    """A tensor that the gradient needs is overwritten."""
    y = x * 2
    loss = (y * y).sum()
    y.add_(1)
    loss.backward()


def overlap(x: Any) -> None:
    x[1:].add_(x[:-1])


def uninitialised(torch: ModuleType) -> Any:
    """A module whose __init__ forgets super().__init__()."""

    class Forgetful(torch.nn.Module):
        def __init__(self) -> None:
            self.a = torch.nn.Linear(2, 2)

    return Forgetful()


def saved(torch: ModuleType, held: Any = None) -> io.BytesIO:
    file = io.BytesIO()
    torch.save({"a": torch.ones(2000) if held is None else held}, file)
    file.seek(0)
    return file


class Evil:
    """Pickles as a call of os.system."""

    def __reduce__(self) -> tuple:
        return os.system, ("echo a checkpoint has run code",)


def evil(torch: ModuleType) -> io.BytesIO:
    return saved(torch, Evil())


# ---------------------------------------------------------------------- the programs
WRONG = [line.strip() for line in r"""
# shapes
torch.ones(2, 3) @ torch.ones(4, 5)
torch.mm(torch.ones(2, 3), torch.ones(4, 5))
torch.mm(torch.ones(2, 3), torch.ones(3))
torch.mm(torch.ones(2), torch.ones(3))
torch.ones(2, 3) @ torch.ones(4)
torch.ones(3) @ torch.ones(4)
torch.ones(3) @ torch.ones(4, 5)
torch.matmul(torch.tensor(1.), torch.ones(2))
torch.ones(2, 3, 4) @ torch.ones(3, 4, 5)
torch.ones(2, 3, 4) @ torch.ones(5, 6)
torch.bmm(torch.ones(2, 3, 4), torch.ones(3, 4, 5))
torch.bmm(torch.ones(2, 3, 4), torch.ones(2, 5, 5))
torch.bmm(torch.ones(2, 3), torch.ones(2, 5, 5))
torch.addmm(torch.ones(3), torch.ones(2, 3), torch.ones(4, 5))
torch.addmm(torch.ones(7), torch.ones(2, 3), torch.ones(3, 5))
torch.dot(torch.ones(2), torch.ones(3))
torch.dot(torch.ones(2, 2), torch.ones(2))
torch.mv(torch.ones(2, 3), torch.ones(4))
torch.outer(torch.ones(2, 2), torch.ones(2))
torch.baddbmm(torch.ones(2, 3, 5), torch.ones(2, 3, 4), torch.ones(2, 5, 5))
torch.einsum('ij,jk->ik', torch.ones(2, 3), torch.ones(4, 5))
torch.tensordot(torch.ones(2, 3), torch.ones(4, 5), dims=1)
torch.ones(2, 3) + torch.ones(4)
torch.ones(2, 3) * torch.ones(3, 2)
torch.ones(2, 3).add_(torch.ones(4, 2, 3))
torch.ones(3).add_(torch.ones(2, 3))
torch.where(torch.ones(2) > 0, torch.ones(3), torch.ones(2))
torch.maximum(torch.ones(2), torch.ones(3))
torch.ones(2, 3).expand(4, 3)
torch.ones(2, 3).expand(2)
torch.ones(2, 3).expand(-1, 2, 3)
torch.broadcast_to(torch.ones(3), (2, 4))
torch.cat([torch.ones(2, 3), torch.ones(2, 4)])
torch.cat([torch.ones(2, 3), torch.ones(2)])
torch.cat([])
torch.cat([torch.ones(2, 3)], 5)
torch.cat(torch.ones(2, 3))
torch.cat([torch.ones(2), 3])
torch.cat([torch.tensor(1.), torch.tensor(2.)])
torch.stack([torch.ones(2), torch.ones(3)])
torch.stack([])
torch.stack([torch.ones(2)], 4)
torch.ones(2, 3).view(4)
torch.ones(2, 3).view(-1, 4)
torch.ones(2, 3).view(-1, -1)
torch.ones(2, 3).view(-2, 3)
torch.ones(2, 3).view(2.0, 3)
torch.ones(2, 3).view('a')
torch.ones(2, 3).view()
torch.ones(2, 3).t().view(6)
torch.ones(2, 3).reshape(4, 2)
torch.ones(2, 3).reshape(-1, 4)
torch.reshape(torch.ones(2, 3), 6)
torch.zeros(0).reshape(-1, 0)
torch.ones(2, 3).flatten(1, 0)
torch.ones(6).unflatten(0, (4, 2))
torch.ones(2, 3).permute(0)
torch.ones(2, 3).permute(0, 0)
torch.ones(2, 3).permute(0, 5)
torch.ones(2, 3).transpose(0, 2)
torch.ones(2, 3, 4).t()
torch.ones(2, 3).squeeze(3)
torch.ones(2, 3).unsqueeze(4)
torch.ones(2, 3).repeat(2)
torch.ones(2, 3).split(-1)
torch.ones(5).split([2, 2])
torch.ones(5).chunk(0)
torch.ones(5).narrow(0, 3, 4)
torch.ones(5).narrow(0, 6, 1)
torch.ones(5).select(0, 5)
torch.ones(5).unfold(0, 6, 1)
torch.ones(2, 3).diagonal(0, 0, 0)
torch.tril(torch.ones(3))
torch.diag(torch.ones(2, 2, 2))
torch.roll(torch.ones(3), (1, 2), 0)
torch.flip(torch.ones(3), (0, 0))
torch.ones(2, 3).movedim(0, 3)
torch.ones(4).as_strided((3, 3), (3, 1))
torch.atleast_2d(3)

# linear, conv and layers
F.linear(torch.ones(2, 3), torch.ones(5, 4))
F.linear(torch.ones(2, 3), torch.ones(5, 3), torch.ones(4))
nn.Linear(4, 5)(torch.ones(2, 3))
nn.Linear(4, 5)(torch.ones(2, 2, 3))
nn.Linear(4, 5)(torch.tensor(1.))
nn.Linear(4, 5)(torch.ones(2, 4).long())
nn.Linear(4, 5)(torch.ones(2, 4).double())
nn.Linear(4, 5)(np.ones((2, 4), 'float32'))
nn.Linear(4, 5)([[1., 2., 3., 4.]])
nn.Linear(4, 5)()
nn.Linear(4, 5)(torch.ones(2, 4), 3)
nn.Linear(4)
nn.Linear(4, 5, 6, 7, 8, 9)
nn.Linear(4, -5)
nn.Linear(4., 5)
nn.Linear('4', 5)
nn.Linear(4, 5, bais=False)
nn.Linear(4, 5, dtype=torch.int64)
nn.Conv2d(3, 4, 3)(torch.ones(2, 5, 8, 8))
nn.Conv2d(3, 4, 3)(torch.ones(8, 8))
nn.Conv2d(3, 4, 3)(torch.ones(2, 3, 2, 2))
nn.Conv2d(3, 4, 3)(torch.ones(2, 3, 8, 8).long())
nn.Conv2d(3, 4, 3)(torch.ones(2, 3, 8, 8).double())
nn.Conv2d(3, 4, 3)(torch.ones(2, 3, 8, 8).byte())
nn.Conv2d(3, 4, 3)(np.ones((2, 3, 8, 8), 'float32'))
nn.Conv2d(3, 4)
nn.Conv2d(3, 4, 3, stride=0)(torch.ones(2, 3, 8, 8))
nn.Conv2d(3, 4, 3, padding=-1)(torch.ones(2, 3, 8, 8))
nn.Conv2d(3, 4, 3, padding='sam')
nn.Conv2d(3, 4, 3, padding_mode='zero')
nn.Conv2d(3, 4, 3, dilation=0)(torch.ones(2, 3, 8, 8))
nn.Conv2d(3, 4, 'a')
nn.Conv2d(3, 4, (3, 3, 3))(torch.ones(2, 3, 8, 8))
F.conv2d(torch.ones(1, 3, 8, 8), torch.ones(4, 3, 3))
F.conv2d(torch.ones(1, 3, 8, 8), torch.ones(4, 2, 3, 3))
F.conv2d(torch.ones(1, 3, 8, 8), torch.ones(4, 3, 3, 3), torch.ones(5))
F.conv2d(torch.ones(1, 4, 8, 8), torch.ones(3, 2, 3, 3), groups=2)
F.conv2d(torch.ones(1, 3, 8, 8), torch.ones(4, 3, 3, 3), stride=(1, 1, 1))
F.conv2d(torch.ones(1, 3, 8, 8), torch.ones(4, 3, 3, 3), groups=0)
F.conv1d(torch.ones(1, 3, 8, 8), torch.ones(4, 3, 3))
F.conv_transpose2d(torch.ones(1, 3, 8, 8), torch.ones(4, 3, 3, 3))
F.max_pool2d(torch.ones(1, 1, 4, 4), 0)
F.max_pool2d(torch.ones(1, 1, 4, 4), 5)
F.max_pool2d(torch.ones(4), 2)
F.max_pool2d(torch.ones(1, 1, 4, 4), 2, padding=2)
F.max_pool2d(torch.ones(1, 1, 4, 4).long().bool(), 2)
F.avg_pool2d(torch.ones(1, 1, 4, 4), 5)
F.avg_pool2d(torch.ones(1, 1, 4, 4), 2, padding=2)
F.adaptive_avg_pool2d(torch.ones(4), 2)
F.adaptive_avg_pool2d(torch.ones(1, 1, 4, 4), (2, 2, 2))
nn.BatchNorm2d(3)(torch.ones(2, 4, 5, 5))
nn.BatchNorm1d(3)(torch.ones(2, 4))
nn.BatchNorm2d(3)(torch.ones(2, 3, 5, 5).long())
nn.LayerNorm(4)(torch.ones(2, 3))
nn.LayerNorm([2, 4])(torch.ones(2, 3))
F.layer_norm(torch.ones(2, 3), (3,), torch.ones(4))
F.layer_norm(torch.ones(2, 3), ())
nn.GroupNorm(2, 4)(torch.ones(2, 3, 5))
nn.Flatten()(3)
nn.ReLU()(3)
nn.ReLU()('a')
nn.ReLU()(np.ones(3))
nn.Dropout(0.5)(np.ones(3))
nn.Dropout(1.5)
nn.Dropout('a')
nn.Softmax(dim=3)(torch.ones(2, 2))
nn.Embedding(3, 4)(torch.tensor([3]))
nn.Embedding(3, 4)(torch.tensor([-1]))
nn.Embedding(3, 4)(torch.tensor([0.5]))
nn.Embedding(3, 4)([1, 2])
nn.Embedding(-3, 4)
nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(4, 5))(torch.ones(1, 2))
nn.Sequential(nn.Linear(2, 3))(torch.ones(1, 2), 3)
nn.Flatten()(torch.ones(3), 4)
nn.Sequential(nn.Linear)(torch.ones(3))

# losses
F.cross_entropy(torch.ones(4, 10), torch.tensor([1, 2, 3, 10]))
F.cross_entropy(torch.ones(4, 10), torch.tensor([1, 2, 3, -1]))
F.cross_entropy(torch.ones(4, 10), torch.tensor([1, 2, 3]))
F.cross_entropy(torch.ones(4, 10), torch.ones(4))
F.cross_entropy(torch.ones(4, 10), torch.ones(4).int())
F.cross_entropy(torch.ones(4, 10), torch.ones(4, 1).long())
F.cross_entropy(torch.ones(4, 10), torch.ones(4, 9))
F.cross_entropy(torch.ones(4, 10).long(), torch.ones(4).long())
F.cross_entropy(torch.ones(4, 10), [1, 2, 3, 4])
F.cross_entropy(torch.ones(4, 10), np.array([1, 2, 3, 4]))
F.cross_entropy(torch.ones(4, 10), torch.ones(4).long(), weight=torch.ones(3))
F.cross_entropy(torch.ones(4, 10), torch.ones(4).long(), reduction='avg')
F.cross_entropy(torch.ones(4, 10), torch.ones(4).long(), label_smoothing=2.)
F.cross_entropy(torch.ones(4, 10, 3), torch.ones(4, 4).long())
F.cross_entropy(torch.ones(4, 10))
F.nll_loss(torch.ones(4, 10), torch.tensor([1, 2, 3, 10]))
F.nll_loss(torch.ones(4, 10), torch.tensor([1, 2, 3, -5]))
F.nll_loss(torch.ones(4, 10), torch.ones(3).long())
F.nll_loss(torch.ones(4, 10), torch.ones(4))
F.nll_loss(torch.tensor(1.), torch.tensor(1))
F.mse_loss(torch.ones(4), torch.ones(3))
F.mse_loss(torch.ones(4).long(), torch.ones(4).long())
F.mse_loss(torch.ones(4), np.ones(4))
F.l1_loss(torch.ones(4), torch.ones(3))
F.binary_cross_entropy(torch.ones(4), torch.ones(3))
F.binary_cross_entropy(torch.ones(4) * 2, torch.ones(4))
F.binary_cross_entropy(torch.ones(4), torch.ones(4).long())
F.binary_cross_entropy_with_logits(torch.ones(4), torch.ones(3))
F.binary_cross_entropy_with_logits(torch.ones(4, 1), torch.ones(4))
F.binary_cross_entropy_with_logits(torch.ones(4), torch.ones(4), weight=torch.ones(3))
F.kl_div(torch.ones(4), torch.ones(3))
F.smooth_l1_loss(torch.ones(4), torch.ones(3))
F.cosine_similarity(torch.ones(4), torch.ones(3))
F.one_hot(torch.tensor([3]), 3)
F.one_hot(torch.tensor([-1]), 3)
F.one_hot(torch.tensor([1.]), 3)
F.one_hot(torch.tensor([1]), -3)
F.softmax(torch.ones(2), 1)
F.softmax(torch.ones(2), 'a')
F.softmax(torch.ones(2).long(), 0)
F.log_softmax(torch.ones(2).long(), 0)
F.gelu(torch.ones(2).long())
F.gelu(torch.ones(2), approximate='tan')
F.dropout(torch.ones(2), -1.)
F.pad(torch.ones(2, 2), (1, 1, 1))
F.pad(torch.ones(2, 2), (1, 1), mode='reflex')
F.pad(torch.ones(2, 2), (1, 1, 1, 1, 1, 1))
F.pad(torch.ones(1, 2, 2), (3, 3), mode='reflect')
F.interpolate(torch.ones(1, 1, 2, 2))
F.embedding(torch.tensor([1.]), torch.ones(3, 3))
F.embedding(torch.tensor([5]), torch.ones(3, 3))
F.embedding(torch.tensor([1]), torch.ones(3))
F.relu(3)
F.relu(None)
F.relu()
F.relu(torch.ones(2), inplce=True)

# dtypes
torch.mm(torch.ones(2, 2), torch.ones(2, 2).double())
torch.mm(torch.ones(2, 2), torch.ones(2, 2).long())
torch.ones(2, 2) @ torch.ones(2, 2).half()
torch.dot(torch.ones(2), torch.ones(2).long())
torch.addmm(torch.ones(2, 2).double(), torch.ones(2, 2), torch.ones(2, 2))
torch.ones(2).long().mean()
torch.ones(2).bool().mean()
torch.ones(2).long().var()
torch.ones(2).long().std()
torch.ones(2).long().add_(1.5)
torch.ones(2).long().div_(2)
torch.ones(2).long().mul_(torch.ones(2))
torch.ones(2).bool().add_(1)
torch.ones(2).bool() - torch.ones(2).bool()
torch.ones(2).bool() - True
torch.ones(2) - True
1 - torch.ones(2).bool()
-torch.ones(2).bool()
torch.ones(2) & torch.ones(2)
~torch.ones(2)
torch.ones(2) << torch.ones(2)
torch.ones(2) | 1
torch.ones(2).long() ** -1
torch.ones(2).long().softmax(0)
torch.ones(2).long().norm()
torch.sigmoid(torch.ones(2).long(), out=torch.ones(2).long())
torch.add(torch.ones(2), 1, out=torch.ones(2).long())
torch.add(torch.ones(2).long(), 1, alpha=1.5)
torch.ones(2).clamp()
torch.ones(2).clamp('a')
torch.complex(torch.ones(2), torch.ones(2).double())
torch.ones(2, dtype=torch.complex64) < 1
torch.ones(2, dtype=torch.complex64).max()
torch.ones(2, dtype=torch.complex64).floor()
torch.ones(2, dtype=torch.complex64).sort()
float(torch.tensor(1 + 2j))
int(torch.tensor(1 + 2j))
torch.arange(3, dtype=torch.float32)[torch.tensor([0.5])]
torch.ones(3)[1.5]
torch.ones(3)['a']
torch.ones(3)[None, 1.5]
torch.ones(2, dtype='float32')
torch.ones(2, dtype=np.float32)
torch.ones(2).to('float32')
torch.ones(2).to(np.float32)
torch.ones(2).to(1, 2, 3, 4, 5)
torch.ones(2).type('torch.Foo')
torch.ones(2).type(3)
torch.ones(2).copy_([1, 2])
torch.ones(2).copy_(torch.ones(3))
torch.bernoulli(torch.tensor([2.]))
torch.bernoulli(torch.tensor([1]))
torch.multinomial(torch.tensor([-1., 2.]), 1)
torch.multinomial(torch.ones(2), 3)
torch.multinomial(torch.zeros(2), 1)
torch.multinomial(torch.ones(2), 0)

# devices
torch.ones(2, device='cuda')
torch.ones(2).cuda()
torch.ones(2).to('cuda')
torch.ones(2).to('cuda:0')
torch.ones(2, device='gpu')
torch.ones(2, device='cpu:x')
torch.ones(2, device=3.5)
torch.device('cuda:-1')
torch.device('foo')
torch.device('')
torch.device(3.5)
torch.device('cpu', -2)
torch.tensor([1], device='cuda')
torch.tensor([1], device='mps')
nn.Linear(2, 2, device='cuda')
nn.Linear(2, 2).cuda()
nn.Linear(2, 2).to('cuda')
nn.Linear(2, 2).to('gpu')
torch.Generator('cuda')
torch.cuda.current_device()
torch.cuda.synchronize()
torch.cuda.get_device_name()
torch.ones(2).to(torch.device('cuda'))
torch.zeros(2).pin_memory()

# dims
torch.ones(2, 3).sum(2)
torch.ones(2, 3).sum(-3)
torch.ones(2, 3).sum((0, 0))
torch.ones(2, 3).sum((0, -2))
torch.ones(2, 3).sum('a')
torch.ones(2, 3).sum(1.5)
torch.ones(2, 3).mean(5)
torch.ones(2, 3).max(2)
torch.ones(2, 3).max('a')
torch.ones(2, 3).argmax(4)
torch.ones(2, 3).softmax(2)
torch.ones(2, 3).cumsum(2)
torch.ones(2, 3).cumsum()
torch.ones(2, 3).sort(2)
torch.ones(2, 3).topk(4)
torch.ones(2, 3).size(2)
torch.ones(2, 3).stride(2)
torch.ones(2, 3).shape[2]
torch.ones(2, 3).unbind(2)
torch.ones(2, 3).index_select(2, torch.tensor([0]))
torch.ones(2, 3).logsumexp(3)
torch.ones(2, 3).norm(dim=3)
torch.ones(2, 3).flatten(3)
torch.ones(2, 3).prod(3)
torch.ones(2, 3).any(3)
torch.ones(2, 3).all((0, 0))
torch.ones(2, 3).var(3)
torch.ones(2, 3).kthvalue(4)
torch.ones(2, 3).median(3)

# names and arguments
torch.ones(2, 3).sum(dims=1)
torch.sum()
torch.sum(torch.ones(2), 0, True, None, 5)
torch.softmax(torch.ones(2))
torch.relu(torch.ones(2), 3)
torch.ones(2).relu(3)
torch.zeros(2, dtpye=torch.float32)
torch.zeros(2, require_grad=True)
torch.randn(2, sed=3)
torch.tensor([1], requiers_grad=True)
torch.tensor()
torch.tensor([1], 2)
torch.add(torch.ones(2))
torch.add(torch.ones(2), torch.ones(2), apha=2)
torch.matmul(torch.ones(2))
torch.cat([torch.ones(2)], dm=0)
torch.nope
torch.sofmax
torch.nn.Liner
torch.nn.functional.rleu
torch.optim.Adma
torch.ones(2).nope
torch.ones(2).sofmax(0)
torch.ones(2).nope()
torch.float33
torch.clamp(torch.ones(2), mn=0)
torch.mean(torch.ones(2), dim=0, keepdm=True)
torch.ones(2).backward(gradiant=torch.ones(2))
torch.save()
F.cross_entropy(torch.ones(4, 10), torch.ones(4).long(), wieght=None)
F.conv2d(torch.ones(1, 3, 8, 8), torch.ones(4, 3, 3, 3), paddding=1)
torch.optim.SGD(nn.Linear(2, 2).parameters(), lr=-1)
torch.optim.SGD(nn.Linear(2, 2).parameters(), lr='a')
torch.optim.SGD(nn.Linear(2, 2).parameters(), momentm=0.9)
torch.optim.SGD(nn.Linear(2, 2).parameters(), nesterov=True)
torch.optim.SGD([], lr=0.1)
torch.optim.SGD(torch.ones(2), lr=0.1)
torch.optim.SGD([torch.ones(2) * torch.ones(2, requires_grad=True)], lr=0.1)
torch.optim.SGD([3], lr=0.1)
torch.optim.SGD(nn.Linear(2, 2), lr=0.1)
torch.optim.SGD(3, lr=0.1)
torch.optim.Adam(nn.Linear(2, 2).parameters(), betas=(1., 2.))
torch.optim.Adam(nn.Linear(2, 2).parameters(), eps=-1)
torch.optim.lr_scheduler.StepLR(3, 2)
torch.optim.SGD(nn.Linear(2, 2).parameters(), lr=0.1).load_state_dict({})
torch.optim.SGD([nn.Parameter(torch.ones(1))]).load_state_dict({'state': {}, 'param_groups': []})

# numpy and tensors
np.ones(2) + torch.ones(2)
torch.ones(2) + [1, 2]
[1, 2] + torch.ones(2)
torch.ones(2) + 'a'
torch.ones(2) + None
None + torch.ones(2)
torch.ones(2) < 'a'
torch.add(torch.ones(2), np.ones(2))
torch.add(np.ones(2), torch.ones(2))
torch.add([1, 2], torch.ones(2))
torch.exp(np.ones(2))
torch.exp([1., 2.])
torch.exp(2.)
torch.exp('a')
torch.exp(None)
torch.sum([1, 2])
torch.mean(3.)
torch.ones(2).add_(np.ones(2))
torch.ones(2).add_([1, 2])
torch.stack([np.ones(2), np.ones(2)])
torch.mm(np.ones((2, 2)), torch.ones(2, 2))
torch.where([True], torch.ones(1), torch.ones(1))
torch.from_numpy([1, 2])
torch.from_numpy(torch.ones(2))
torch.from_numpy(np.array(['a']))
torch.from_numpy(np.ones(2)[::-1])
torch.from_numpy(np.ones(2, '>f4'))
torch.from_numpy(np.ones(2, 'datetime64[s]'))
torch.tensor(np.array(['a']))
torch.tensor(np.array([1, None]))
torch.tensor('a')
torch.tensor(['a'])
torch.tensor(None)
torch.tensor([None])
torch.tensor({'a': 1})
torch.tensor({1, 2})
torch.tensor([[1, 2], [3]])
torch.tensor([[1, 2], 3])
torch.tensor([1, [2]])
torch.tensor([torch.ones(2)])
torch.tensor([torch.ones(2), torch.ones(2)])
torch.tensor(300, dtype=torch.uint8)
torch.tensor(float('inf'), dtype=torch.int64)
torch.tensor(float('nan'), dtype=torch.int64)
torch.tensor(1j, dtype=torch.float32)
torch.tensor([1], dtype=torch.nope)
torch.tensor(object())
torch.as_tensor('a')
torch.ones(2, requires_grad=True).numpy()
np.asarray(torch.ones(2, requires_grad=True))
torch.ones(2, dtype=torch.bfloat16).numpy()
torch.ones(2).numpy(3)
torch.full((2,), 'a')
torch.full((2,), None)
torch.full((2,))
torch.ones(2).fill_('a')
torch.ones(2).fill_(torch.ones(2))
torch.ones(2).masked_fill(torch.ones(2), 1.)
torch.ones(2).masked_fill(torch.ones(3) > 0, 1.)
torch.ones(2).masked_fill(torch.ones(2) > 0, torch.ones(2))
torch.ones(2).masked_fill([True, False], 1.)

# items, bools, lengths
torch.ones(2).item()
torch.ones(0).item()
bool(torch.ones(2))
bool(torch.ones(0))
float(torch.ones(2))
int(torch.ones(2))
len(torch.tensor(1.))
list(torch.tensor(1.))
range(torch.tensor(1.5))
[1, 2, 3][torch.tensor(1.)]
[1, 2, 3][torch.ones(2).long()]
if_(torch.ones(2))
hash(torch.ones(2)) and 0 / 0
'%d' % torch.ones(2)
'{:.2f}'.format(torch.ones(2))
round(torch.ones(2), 'a')
torch.ones(2) in [torch.ones(2), 3]
'a' in torch.ones(2)
torch.is_nonzero(torch.ones(2))
torch.ones(2).tolist(3)
torch.tensor(1.)()

# indexing
torch.ones(3)[3]
torch.ones(3)[-4]
torch.ones(3)[1, 1]
torch.ones(3, 4)[3, 0]
torch.ones(3, 4)[:, 4]
torch.ones(3)[::-1]
torch.ones(3)[::0]
torch.ones(3)[torch.tensor([3])]
torch.ones(3)[torch.tensor([-4])]
torch.ones(3)[[0, 5]]
torch.ones(3, 4)[torch.tensor([0, 3]), torch.tensor([0, 1])]
torch.ones(3, 4)[torch.tensor([0, 1]), torch.tensor([0, 1, 2])]
torch.ones(3)[torch.tensor([True, False])]
torch.ones(3)[torch.ones(3, 1).bool()]
torch.tensor(1.)[0]
torch.tensor(1.)[0, 0]
torch.tensor(1.)[torch.tensor([0])]
setitem(torch.ones(3), 3, 1.)
setitem(torch.ones(3), slice(0, 2), torch.ones(3))
setitem(torch.ones(3), 0, torch.ones(2))
setitem(torch.ones(3), 0, 'a')
setitem(torch.ones(3), 0, None)
setitem(torch.ones(3), [0, 5], 1.)
setitem(torch.ones(3), torch.tensor([0, 5]), torch.ones(2))
setitem(torch.ones(3), torch.tensor([0, 1]), torch.ones(3))
setitem(torch.ones(3), torch.tensor([0, 1]), torch.ones(2).double())
setitem(torch.ones(3), torch.tensor([True, False]), 1.)
setitem(torch.ones(3), 'a', 1)
setitem(torch.ones(3, requires_grad=True), 0, 1.)
torch.ones(3).gather(0, torch.tensor([3]))
torch.ones(3).gather(0, torch.tensor([-1]))
torch.ones(3).gather(0, torch.tensor([0.]))
torch.ones(3).gather(0, torch.tensor([[0]]))
torch.ones(3, 4).gather(1, torch.zeros(4, 1).long())
torch.ones(3).gather(1, torch.tensor([0]))
torch.ones(3).index_select(0, torch.tensor([3]))
torch.ones(3).index_select(0, torch.tensor([-1]))
torch.ones(3).index_select(0, torch.tensor([[1]]))
torch.ones(3).index_select(0, torch.tensor([1.]))
torch.ones(3).index_select(0, 1)
torch.ones(3).index_select(0, [1])
torch.ones(3).index_add(0, torch.tensor([3]), torch.ones(1))
torch.ones(3).index_add(0, torch.tensor([1]), torch.ones(2))
torch.ones(3).index_add(0, torch.tensor([1]), torch.ones(1).double())
torch.ones(3).index_copy(0, torch.tensor([3]), torch.ones(1))
torch.ones(3).index_fill(0, torch.tensor([3]), 1.)
torch.ones(3).scatter(0, torch.tensor([3]), 1.)
torch.ones(3).scatter(0, torch.tensor([-1]), 1.)
torch.ones(3).scatter(0, torch.tensor([1]), torch.ones(1).double())
torch.ones(3).scatter_add(0, torch.tensor([3]), torch.ones(1))
torch.ones(3).scatter_reduce(0, torch.tensor([1]), torch.ones(1), 'summ')
torch.ones(3).take(torch.tensor([3]))
torch.ones(3).take(torch.tensor([0.]))
torch.ones(3).masked_select(torch.ones(3))
torch.ones(3).masked_select(torch.ones(2) > 0)
torch.take_along_dim(torch.ones(3), torch.tensor([[1]]), 0)
torch.ones(3).index_put((torch.tensor([4]),), torch.tensor(1.))

# arithmetic, reductions, sizes
torch.tensor([1]) // torch.tensor([0])
torch.tensor([1]) // 0
torch.tensor([1]) % torch.tensor([0])
torch.tensor([1]) % 0
torch.fmod(torch.tensor([1]), torch.tensor([0]))
torch.div(torch.tensor([1]), torch.tensor([0]), rounding_mode='floor')
torch.div(torch.tensor([1]), torch.tensor([0]), rounding_mode='trunc')
torch.div(torch.tensor([1]), torch.tensor([0]), rounding_mode='round')
torch.tensor([1]).floor_divide_(0)
torch.ones(0).max()
torch.ones(0).min()
torch.ones(0).argmax()
torch.ones(0, 3).max(0)
torch.ones(0, 3).argmin(0)
torch.ones(0).amax()
torch.ones(0, 3).amax(0)
torch.ones(0).aminmax()
torch.zeros(-1)
torch.zeros(2, -3)
torch.empty(-1)
torch.empty((2, -1))
torch.ones(2.5)
torch.ones('a')
torch.ones(None)
torch.ones([2, 'a'])
torch.ones([[2, 3]])
torch.ones()
torch.rand(-1)
torch.randn(2, -2)
torch.randint(5, 5, (2,))
torch.randint(5, 2, (2,))
torch.randint(0, 5)
torch.randint(0, 5, 3)
torch.randperm(-1)
torch.randn(2, dtype=torch.int64)
torch.rand(2, dtype=torch.int64)
torch.eye(-1)
torch.eye(2, -2)
torch.arange(5, 0)
torch.arange(0, 5, 0)
torch.arange(0, 5, -1)
torch.arange('a')
torch.arange(float('inf'))
torch.linspace(0, 1, -1)
torch.linspace(0, 1)
torch.linspace(0, 1, 2.5)
torch.full((-2,), 1.)
torch.empty(1 << 45)
torch.zeros(1 << 62)
torch.empty(1 << 40, 1 << 40)
torch.ones(1 << 20, 1 << 20, 1 << 20)
torch.randn(1 << 45)
torch.ones(1).expand(1 << 45).clone()
torch.ones(1).expand(1 << 45) + 1
torch.empty_strided((2, 2), (-1, 1))
torch.empty_strided((2, 2), (1,))
torch.normal(0., -1., (2,))
torch.ones(2).normal_(0, -1)
torch.ones(2).uniform_(1, 0)
torch.ones(2).bernoulli_(2.)
torch.ones(2).exponential_(-1)
torch.ones(2).random_(5, 2)
torch.manual_seed('a')
torch.set_default_dtype(torch.int64)
torch.set_default_dtype('float32')
torch.set_num_threads(0)
torch.set_num_threads('a')
torch.frombuffer(b'abc', dtype=torch.float32)
torch.ones(2).resize_(-1)
torch.ones(2, requires_grad=True).resize_(3)
torch.ones(2).repeat(-1)
torch.ones(2).repeat_interleave(-1)
torch.trace(torch.ones(3))
torch.linalg.norm(torch.ones(3), ord='fro')
torch.meshgrid(torch.ones(2, 2), torch.ones(2), indexing='ij')
torch.meshgrid(torch.ones(2), torch.ones(2), indexing='ab')
torch.ones(2).swapaxes(0, 3)
torch.promote_types(3, torch.float32)
torch.allclose(torch.ones(2), torch.ones(3))
torch.allclose(torch.ones(2), [1., 1.])
torch.equal(torch.ones(2), [1., 1.])
torch.isclose(torch.ones(2), torch.ones(2).double())
torch.allclose(torch.ones(2), torch.ones(2).double())

# autograd
torch.ones(2, requires_grad=True).add_(1)
torch.ones(2, requires_grad=True)[0].fill_(1)
torch.ones(2, requires_grad=True).view(2).mul_(2)
torch.ones(2, dtype=torch.int64, requires_grad=True)
torch.tensor([1, 2], requires_grad=True)
torch.tensor([1, 2]).requires_grad_()
torch.arange(3, requires_grad=True)
torch.ones(2, dtype=torch.bool).requires_grad_(True)
setattr(torch.ones(2).long(), 'requires_grad', True)
setattr(torch.ones(2, requires_grad=True) * 2, 'requires_grad', False)
torch.ones(2).backward()
torch.tensor(1.).backward()
(torch.ones(2, requires_grad=True) * 2).backward()
(torch.ones(2, requires_grad=True) * 2).backward(torch.ones(3))
(torch.ones(2, requires_grad=True) * 2).backward(torch.ones(2, 1))
(torch.ones(2, requires_grad=True) * 2).backward(3)
(torch.ones(2, requires_grad=True) * 2).backward(np.ones(2))
(torch.ones(2, requires_grad=True) * 2).sum().detach().backward()
twice((torch.ones(2, requires_grad=True) ** 2).sum())
twice((torch.ones(2, requires_grad=True) * 2).exp().sum())
torch.autograd.grad(torch.ones(2), torch.ones(2))
torch.autograd.grad((torch.ones(2, requires_grad=True) * 2).sum(), torch.ones(2))
torch.autograd.grad(torch.ones(2, requires_grad=True).sum(), torch.ones(2, requires_grad=True))
torch.autograd.grad((torch.ones(2, requires_grad=True) * 2), torch.ones(2, requires_grad=True))
torch.autograd.grad((torch.ones(2, requires_grad=True) * 2).sum(), 3)
torch.autograd.grad((torch.ones(2, requires_grad=True) * 2).sum(), [])
setattr(torch.ones(2, requires_grad=True), 'grad', torch.ones(3))
setattr(torch.ones(2, requires_grad=True), 'grad', 3)
setattr(torch.ones(2, requires_grad=True), 'grad', torch.ones(2).double())
setattr(torch.ones(2), 'data', torch.ones(2).numpy())
setattr(torch.ones(2), 'data', 3)
setattr(torch.ones(2), 'shape', 3)
setattr(torch.ones(2), 'dtype', torch.float64)
setattr(torch.ones(2), 'grad_fn', 3)
setattr(torch.ones(2), 'is_leaf', 3)
changed(torch.ones(2, requires_grad=True))
(torch.ones(2, requires_grad=True) * 2).detach_().backward()
torch.ones(2).retain_grad()
torch.ones(2).register_hook(print)
torch.add(torch.ones(2, requires_grad=True), 1, out=torch.ones(2))
torch.ones(1).expand(3).add_(1)
overlap(torch.ones(4))
torch.ones(2, requires_grad=True).data.nope
nn.Parameter(torch.ones(2).long())
nn.Parameter(3)
nn.Parameter([1., 2.])
nn.Parameter(np.ones(2))
copy.deepcopy(torch.ones(2, requires_grad=True) * 2)

# modules
nn.Module()(3)
uninitialised(torch)()
nn.Linear(2, 2).load_state_dict({})
nn.Linear(1, 1).load_state_dict({'weight': torch.ones(1, 1), 'bias': torch.ones(1), 'wieght': 3})
nn.Linear(2, 2).load_state_dict({'weight': torch.ones(3, 2), 'bias': torch.ones(2)})
nn.Linear(2, 2).load_state_dict({'weight': np.ones((2, 2)), 'bias': torch.ones(2)})
nn.Linear(2, 2).load_state_dict([1])
nn.Sequential(nn.Linear(2, 2))[1]
nn.Sequential(nn.Linear(2, 2))['a']
nn.Sequential(nn.Linear(2, 2)).foo
nn.Linear(2, 2).wieght
nn.Linear(2, 2).to('float')
nn.ModuleList([nn.Linear(2, 2)])(torch.ones(2))
nn.utils.clip_grad_norm_(3, 1.)
nn.init.uniform_(3)

# data
torch.utils.data.TensorDataset(torch.ones(2), torch.ones(3))
torch.utils.data.DataLoader([1, 2], batch_size=0)
torch.utils.data.DataLoader([1, 2], batch_size=-1)
torch.utils.data.DataLoader([1, 2], batch_size='a')
torch.utils.data.DataLoader([1, 2], shufle=True)
torch.utils.data.DataLoader([], shuffle=True)
torch.utils.data.DataLoader([1, 2], num_workers=-1)
next(iter(torch.utils.data.DataLoader([torch.ones(2), torch.ones(3)], batch_size=2)))
next(iter(torch.utils.data.DataLoader([object(), object()], batch_size=2)))
next(iter(torch.utils.data.DataLoader([None, None], batch_size=2)))
torch.utils.data.random_split([1, 2, 3], [1, 1])
torch.utils.data.TensorDataset(torch.ones(2))[2]
torch.utils.data.Subset([1, 2], [5])[0]

# saving and loading
torch.load('/nonexistent/x.pt')
torch.save({}, '/nonexistent/x.pt')
torch.load(3)
torch.save({'a': 1})
torch.load(io.BytesIO(b''))
torch.load(io.BytesIO(b'PK\x03\x04' + b'0' * 99))
torch.load(evil(torch))
torch.load(saved(torch), map_location='cuda')
torch.load(saved(torch), map_location='foo')
torch.load(saved(torch), map_loction='cpu')
""".splitlines() if line.strip() and not line.startswith("#")]
