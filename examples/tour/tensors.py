"""Making tensors: shapes, data types, and the like-functions."""

import flambeau as torch

torch.manual_seed(0)

print(torch.empty(2, 3).shape)
print(torch.zeros(2, 3))
print(torch.ones(2, 2, dtype=torch.int32))
print(torch.full((2, 2), 7.5))
print(torch.tensor([2.5, 0.1]))
print(torch.tensor([[1, 2], [3, 4]]).dtype, torch.tensor([1.0]).dtype, torch.tensor([True]).dtype)
print(torch.arange(10), torch.arange(1, 2, 0.25), torch.linspace(0, 1, 5))
print(torch.eye(3))

x = torch.rand(5, 3)
print(x)
print(x.size(), x.size(0), x.dim(), x.numel(), x.dtype, x.device)
print(torch.randn(3), torch.randn(4, 5))
print(torch.randint(0, 10, (2, 4)), torch.randperm(8))
print(torch.zeros_like(x).shape, torch.ones_like(x, dtype=torch.int64).sum(),
      torch.rand_like(x) < 2)

for dtype in (torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64,
              torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.complex64):
    y = torch.ones(2, dtype=dtype)
    print(dtype, y.element_size(), y.dtype.is_floating_point, (y + y).dtype, (y + 0.5).dtype)

print(torch.tensor([1.7, -1.7]).to(torch.int64), torch.tensor([0, 3]).bool(), x.double().dtype)
print(torch.tensor(3.0).item(), torch.tensor([[1, 2], [3, 4]]).tolist())
