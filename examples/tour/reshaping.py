"""Views: another shape over the same memory."""

import flambeau as torch

torch.manual_seed(0)

x = torch.randn(4, 4)
y = x.view(16)
z = x.view(-1, 8)              # the -1 is worked out from the other sizes
print(x.size(), y.size(), z.size())

y[0] = 100                     # a view shares its memory
print(x[0, 0], z[0, 0])
print(x.data_ptr() == y.data_ptr(), x.stride(), y.stride(), z.stride())

t = x.t()
print(t.shape, t.stride(), t.is_contiguous(), t.contiguous().stride())
try:
    t.view(16)
except RuntimeError:
    print("a transposed tensor has no view(16)")
print(t.reshape(16).shape, t.flatten().shape)

a = torch.arange(24).reshape(2, 3, 4)
print(a.permute(2, 0, 1).shape, a.transpose(0, 1).shape, a.unsqueeze(0).shape)
print(a[:, None].squeeze().shape, a.expand(5, 2, 3, 4).stride(), a.unbind(0)[1])
print([part.shape for part in a.split(2, dim=2)], [part.shape for part in a.chunk(3, dim=1)])
print(a.select(1, 0), a.narrow(2, 1, 2), a[..., ::2], sep="\n")
