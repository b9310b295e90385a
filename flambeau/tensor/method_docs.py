"""Examples of Tensor's own methods and attributes, and of functions that tables define.

The class and the tables stay readable without them; `attach` adds them to the docstrings. Each is
run by tests/test_reference.py.
"""

from __future__ import annotations

from typing import Any

from flambeau.ops.examples import described, parsed

__all__ = ["FUNCTIONS", "attach", "shown"]

METHODS = parsed("""
H
The matrix transposed and conjugated.
>>> torch.tensor([[1 + 1j, 2j]]).H
tensor([[1.-1.j],
        [0.-2.j]])

T
All dimensions in the opposite order: a matrix transposed.
>>> torch.tensor([[1, 2], [3, 4]]).T
tensor([[1, 3],
        [2, 4]])

as_subclass
>>> type(torch.tensor([1.]).as_subclass(torch.nn.Parameter)).__name__
'Parameter'

backward
>>> x = torch.tensor([1., 2.]).requires_grad_()
>>> (x ** 2).sum().backward()
>>> x.grad
tensor([2., 4.])

bfloat16
>>> torch.tensor([1.0, 3.14159]).bfloat16()
tensor([1.0000, 3.1406], dtype=torch.bfloat16)

bool
>>> torch.tensor([0., 0.5]).bool()
tensor([False,  True])

byte
>>> torch.tensor([1., 2.9]).byte()
tensor([1, 2], dtype=torch.uint8)

cdouble
>>> torch.tensor([1., 2.]).cdouble()
tensor([1.+0.j, 2.+0.j], dtype=torch.complex128)

cfloat
>>> torch.tensor([1., 2.]).cfloat()
tensor([1.+0.j, 2.+0.j])

chalf
>>> torch.tensor([1., 2.]).chalf().dtype
torch.complex32

char
>>> torch.tensor([1., -2.9]).char()
tensor([ 1, -2], dtype=torch.int8)

contiguous
>>> torch.zeros(2, 3).t().contiguous().stride()
(2, 1)

copy_
>>> torch.zeros(2, dtype=torch.int32).copy_(torch.tensor([1.9, 2.]))
tensor([1, 2], dtype=torch.int32)

cpu
>>> torch.tensor([1.]).cpu()
tensor([1.])

cuda
>>> torch.zeros(1).cuda() if torch.cuda.is_available() else "no GPU here"
'no GPU here'

data
>>> x = torch.zeros(2, requires_grad=True)
>>> x.data.requires_grad
False

data_ptr
>>> x = torch.zeros(4)
>>> x[1:].data_ptr() - x.data_ptr()  # bytes
4

device
>>> torch.tensor([1.]).device
device(type='cpu')

dim
How many dimensions it has.
>>> torch.zeros(2, 3).dim()
2

double
>>> torch.tensor([1, 2]).double()
tensor([1., 2.], dtype=torch.float64)

dtype
The type of its elements.
>>> torch.tensor([1]).dtype
torch.int64

element_size
Bytes of an element.
>>> torch.tensor([1.]).element_size()
4

expand
>>> torch.tensor([[1], [2]]).expand(-1, 3)
tensor([[1, 1, 1],
        [2, 2, 2]])

expand_as
Broadcast to the shape of `other` without copying.
>>> torch.tensor([[1], [2]]).expand_as(torch.zeros(2, 3))
tensor([[1, 1, 1],
        [2, 2, 2]])

float
>>> torch.tensor([1, 2]).float()
tensor([1., 2.])

grad
>>> x = torch.ones(2, requires_grad=True)
>>> (3 * x).sum().backward()
>>> x.grad
tensor([3., 3.])

grad_fn
>>> x = torch.ones(2, requires_grad=True)
>>> x.exp().grad_fn.name()
'ExpBackward0'

half
>>> torch.tensor([1., 70000.]).half()
tensor([1., inf], dtype=torch.float16)

int
>>> torch.tensor([1.9, -1.9]).int()
tensor([ 1, -1], dtype=torch.int32)

is_contiguous
>>> torch.zeros(2, 3).t().is_contiguous()
False

is_cpu
Does it lie in the memory of the CPU?
>>> torch.tensor([1.]).is_cpu
True

is_cuda
Does it lie on a GPU of NVIDIA?
>>> torch.tensor([1.]).is_cuda
False

is_leaf
Was it made by the user, or without a record of how? Leaves get `.grad`.
>>> x = torch.ones(2, requires_grad=True)
>>> x.is_leaf, x.exp().is_leaf
(True, False)

is_meta
Does it have no memory, only a shape and a dtype?
>>> torch.tensor([1.]).is_meta
False

is_mkldnn
Is it in a layout of oneDNN? Never here.
>>> torch.tensor([1.]).is_mkldnn
False

is_mps
Does it lie on a GPU of Apple?
>>> torch.tensor([1.]).is_mps
False

is_nested
Is it a tensor of tensors?
>>> torch.tensor([1.]).is_nested
False

is_quantized
Are its elements quantized?
>>> torch.tensor([1.]).is_quantized
False

is_sparse
Is it sparse, in coordinates?
>>> torch.tensor([1.]).is_sparse, torch.tensor([1.]).to_sparse().is_sparse
(False, True)

is_sparse_csr
Is it sparse, in compressed rows?
>>> torch.eye(2).to_sparse_csr().is_sparse_csr
True

is_xpu
Does it lie on a GPU of Intel?
>>> torch.tensor([1.]).is_xpu
False

item
>>> torch.tensor([2.5]).item()
2.5

itemsize
Bytes of an element.
>>> torch.tensor([1.]).itemsize
4

layout
How its elements are stored: strided, or one of the sparse layouts.
>>> torch.eye(2).to_sparse().layout
torch.sparse_coo

long
>>> torch.tensor([1.9, -1.9]).long()
tensor([ 1, -1])

mH
Each matrix of a batch transposed and conjugated.
>>> torch.tensor([[[1 + 1j, 2j]]]).mH
tensor([[[1.-1.j],
         [0.-2.j]]])

mT
Each matrix of a batch transposed.
>>> torch.zeros(5, 2, 3).mT.shape
torch.Size([5, 3, 2])

names
The names of the dimensions: none.
>>> import warnings
>>> warnings.simplefilter("ignore")  # named dimensions are a prototype
>>> torch.zeros(2, 3).names
(None, None)

nbytes
>>> torch.zeros(2, 3).nbytes
24

ndim
How many dimensions it has.
>>> torch.zeros(2, 3).ndim
2

nelement
>>> torch.zeros(2, 3).nelement()
6

new_empty
>>> torch.ones(1, dtype=torch.int32).new_empty(2).dtype
torch.int32

new_ones
>>> torch.zeros(1, dtype=torch.int32).new_ones(2)
tensor([1, 1], dtype=torch.int32)

new_zeros
>>> torch.ones(1, dtype=torch.int32).new_zeros(2)
tensor([0, 0], dtype=torch.int32)

numpy
>>> torch.tensor([1, 2]).numpy()
array([1, 2])

output_nr
Which result of its `grad_fn` it is.
>>> torch.ones(4, requires_grad=True).chunk(2)[1].output_nr
1

register_hook
>>> x = torch.ones(2, requires_grad=True)
>>> handle = x.register_hook(lambda g: 10 * g)
>>> (3 * x).sum().backward()
>>> x.grad
tensor([30., 30.])

register_post_accumulate_grad_hook
>>> x = torch.ones(2, requires_grad=True)
>>> handle = x.register_post_accumulate_grad_hook(lambda p: print(p.grad))
>>> (3 * x).sum().backward()
tensor([3., 3.])

repeat
>>> torch.tensor([1, 2]).repeat(2, 2)
tensor([[1, 2, 1, 2],
        [1, 2, 1, 2]])

requires_grad
>>> torch.ones(2).requires_grad, torch.ones(2).requires_grad_().requires_grad
(False, True)

reshape_as
The elements in the shape of `other`.
>>> torch.arange(4).reshape_as(torch.zeros(2, 2))
tensor([[0, 1],
        [2, 3]])

retain_grad
>>> x = torch.ones(2, requires_grad=True)
>>> y = 2 * x
>>> y.retain_grad()
>>> (3 * y).sum().backward()
>>> y.grad
tensor([3., 3.])

retains_grad
Will it, not being a leaf, get `.grad`?
>>> y = 2 * torch.ones(2, requires_grad=True)
>>> y.retain_grad()
>>> y.retains_grad
True

shape
>>> torch.zeros(2, 3).shape
torch.Size([2, 3])

short
>>> torch.tensor([1.9, -1.9]).short()
tensor([ 1, -1], dtype=torch.int16)

size
>>> torch.zeros(2, 3).size(), torch.zeros(2, 3).size(-1)
(torch.Size([2, 3]), 3)

storage_offset
>>> torch.zeros(4)[1:].storage_offset()
1

stride
>>> torch.zeros(2, 3).stride()
(3, 1)

swapdims_
>>> torch.zeros(2, 3).swapdims_(0, 1).shape
torch.Size([3, 2])

to
>>> torch.tensor([1.9]).to(torch.int64)
tensor([1])

tolist
>>> torch.tensor([[1, 2], [3, 4]]).tolist()
[[1, 2], [3, 4]]

type
>>> torch.tensor([1.]).type(), torch.tensor([1.5]).type(torch.int64)
('torch.FloatTensor', tensor([1]))

type_as
The tensor converted to the dtype of `other`.
>>> torch.tensor([1.5]).type_as(torch.tensor([1]))
tensor([1])

view
>>> torch.arange(4).view(2, 2)
tensor([[0, 1],
        [2, 3]])
>>> torch.tensor([1.]).view(torch.int32)  # the same bits
tensor([1065353216], dtype=torch.int32)

view_as
A view in the shape of `other`.
>>> torch.arange(4).view_as(torch.zeros(2, 2))
tensor([[0, 1],
        [2, 3]])
""")

FUNCTIONS = parsed("""
ccol_indices
>>> torch.eye(2).to_sparse_csc().ccol_indices()
tensor([0, 1, 2])

ccol_indices_copy
>>> torch.ccol_indices_copy(torch.eye(2).to_sparse_csc())
tensor([0, 1, 2])

col_indices
>>> torch.eye(2).to_sparse_csr().col_indices()
tensor([0, 1])

col_indices_copy
>>> torch.col_indices_copy(torch.eye(2).to_sparse_csr())
tensor([0, 1])

crow_indices
>>> torch.eye(2).to_sparse_csr().crow_indices()
tensor([0, 1, 2])

crow_indices_copy
>>> torch.crow_indices_copy(torch.eye(2).to_sparse_csr())
tensor([0, 1, 2])

dsplit
>>> [part.shape for part in torch.dsplit(torch.zeros(1, 1, 4), 2)]
[torch.Size([1, 1, 2]), torch.Size([1, 1, 2])]

hsplit
>>> torch.hsplit(torch.arange(4), 2)
(tensor([0, 1]), tensor([2, 3]))

indices_copy
>>> torch.indices_copy(torch.eye(2).to_sparse())
tensor([[0, 1],
        [0, 1]])

masked.amax
>>> torch.masked.amax(torch.tensor([1., 9., 3.]), mask=torch.tensor([True, False, True]))
tensor(3.)

masked.amin
>>> torch.masked.amin(torch.tensor([1., -9., 3.]), mask=torch.tensor([True, False, True]))
tensor(1.)

nn.functional.adaptive_max_pool1d_with_indices
>>> F.adaptive_max_pool1d_with_indices(torch.tensor([[1., 5., 3., 4.]]), 2)
(tensor([[5., 4.]]), tensor([[1, 3]]))

nn.functional.adaptive_max_pool2d_with_indices
>>> F.adaptive_max_pool2d_with_indices(torch.arange(16.).reshape(1, 4, 4), 2)[1]
tensor([[[ 5,  7],
         [13, 15]]])

nn.functional.adaptive_max_pool3d_with_indices
>>> F.adaptive_max_pool3d_with_indices(torch.arange(8.).reshape(1, 2, 2, 2), 1)[1]
tensor([[[[7]]]])

nn.functional.max_pool2d_with_indices
>>> F.max_pool2d_with_indices(torch.arange(16.).reshape(1, 4, 4), 2)[1]
tensor([[[ 5,  7],
         [13, 15]]])

nn.functional.max_pool3d_with_indices
>>> F.max_pool3d_with_indices(torch.arange(8.).reshape(1, 2, 2, 2), 2)[1]
tensor([[[[7]]]])

row_indices
>>> torch.eye(2).to_sparse_csc().row_indices()
tensor([0, 1])

row_indices_copy
>>> torch.row_indices_copy(torch.eye(2).to_sparse_csc())
tensor([0, 1])

std
>>> torch.std(torch.tensor([1., 3., 5.]))
tensor(2.)

std_mean
>>> torch.std_mean(torch.tensor([1., 3., 5.]))
(tensor(2.), tensor(3.))

to_sparse_bsc
>>> torch.eye(4).to_sparse_bsc((2, 2)).values().shape
torch.Size([2, 2, 2])

to_sparse_bsr
>>> torch.eye(4).to_sparse_bsr((2, 2)).values().shape
torch.Size([2, 2, 2])

to_sparse_csc
>>> torch.tensor([[0., 5.], [6., 0.]]).to_sparse_csc().row_indices()
tensor([1, 0])

to_sparse_csr
>>> torch.tensor([[0., 5.], [6., 0.]]).to_sparse_csr().col_indices()
tensor([1, 0])

values_copy
>>> torch.values_copy(torch.eye(2).to_sparse())
tensor([1., 1.])

var
>>> torch.var(torch.tensor([1., 3., 5.]))
tensor(4.)
>>> torch.var(torch.tensor([1., 3., 5.]), correction=0)
tensor(2.6667)

var_mean
>>> torch.var_mean(torch.tensor([1., 3., 5.]))
(tensor(4.), tensor(3.))

vsplit
>>> torch.vsplit(torch.arange(4).reshape(2, 2), 2)
(tensor([[0, 1]]), tensor([[2, 3]]))
""")


def shown(name: str, doc: str) -> str:
    """The docstring of a function that a table defines, with its example."""
    return described(name, doc, FUNCTIONS)


def attach(cls: Any) -> None:
    """Give the methods and attributes of a class their examples."""
    for name, text in METHODS.items():
        member = cls.__dict__.get(name)
        doc = (member.__doc__ or "").strip()
        whole = f"{doc}\n\n{text}" if doc else text.replace("\n>>>", "\n\n>>>", 1)
        if isinstance(member, property):  # some names share one: each gets its own
            setattr(cls, name, property(member.fget, member.fset, member.fdel, whole))
        else:
            member.__doc__ = whole
