"""NumPy both ways: the two sides share their memory."""

import flambeau as torch
import numpy as np

a = torch.ones(5)
b = a.numpy()
print(a, b, type(b).__name__, b.dtype)
a.add_(1)                      # seen through b
print(a, b)
b *= 3                         # and the other way round
print(a, b)

c = np.ones((2, 3))
d = torch.from_numpy(c)
print(d.dtype, d.shape)
np.add(c, 1, out=c)
print(c, d, sep="\n")
d[0, 0] = -1
print(c[0, 0])

e = torch.tensor(c)            # a copy
c[0, 0] = 99
print(e[0, 0], d[0, 0], torch.as_tensor(c)[0, 0])

f = d.t()
print(f.numpy().strides, np.asarray(f).shape, np.from_dlpack(a), torch.from_dlpack(c).shape)
print(torch.from_numpy(np.arange(4, dtype=np.int16)), torch.tensor(np.float64(2.5)))

w = torch.ones(2, requires_grad=True)
try:
    w.numpy()
except RuntimeError:
    print(w.detach().numpy())
