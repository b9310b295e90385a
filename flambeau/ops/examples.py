"""Examples of the operations that tables define: their docstrings are one line of a table.

All other operations have theirs in their docstrings. Each is run by tests/test_reference.py.
"""

from __future__ import annotations

__all__ = ["EXAMPLES", "described", "parsed", "without_example"]

TEXT = """
acos
>>> torch.acos(torch.tensor([-1., 0., 1.]))
tensor([3.1416, 1.5708, 0.0000])

acosh
>>> torch.acosh(torch.tensor([1., 2., 3.]))
tensor([0.0000, 1.3170, 1.7627])

airy_ai
>>> torch.special.airy_ai(torch.tensor([-1., 0., 1.]))
tensor([0.5356, 0.3550, 0.1353])

alias_copy
>>> torch.alias_copy(torch.tensor([1, 2]))
tensor([1, 2])

all
>>> torch.all(torch.tensor([True, False]))
tensor(False)
>>> torch.all(torch.tensor([[1, 0], [1, 1]]), dim=1)
tensor([False,  True])

any
>>> torch.any(torch.tensor([True, False]))
tensor(True)
>>> torch.any(torch.tensor([[0, 0], [1, 0]]), dim=1)
tensor([False,  True])

asin
>>> torch.asin(torch.tensor([-1., 0., 1.]))
tensor([-1.5708,  0.0000,  1.5708])

asinh
>>> torch.asinh(torch.tensor([-1., 0., 1.]))
tensor([-0.8814,  0.0000,  0.8814])

atan
>>> torch.atan(torch.tensor([-1., 0., 1.]))
tensor([-0.7854,  0.0000,  0.7854])

atanh
>>> torch.atanh(torch.tensor([-0.5, 0., 0.5]))
tensor([-0.5493,  0.0000,  0.5493])

bessel_j0
>>> torch.special.bessel_j0(torch.tensor([0., 1., 2.]))
tensor([1.0000, 0.7652, 0.2239])

bessel_j1
>>> torch.special.bessel_j1(torch.tensor([0., 1., 2.]))
tensor([0.0000, 0.4401, 0.5767])

bessel_y0
>>> torch.special.bessel_y0(torch.tensor([0., 1., 2.]))
tensor([  -inf, 0.0883, 0.5104])

bessel_y1
>>> torch.special.bessel_y1(torch.tensor([0., 1., 2.]))
tensor([   -inf, -0.7812, -0.1070])

bitwise_and
>>> torch.bitwise_and(torch.tensor([12, 7]), torch.tensor([10, 2]))
tensor([8, 2])

bitwise_left_shift
>>> torch.bitwise_left_shift(torch.tensor([1, 3]), torch.tensor([4, 1]))
tensor([16,  6])

bitwise_or
>>> torch.bitwise_or(torch.tensor([12, 7]), torch.tensor([10, 8]))
tensor([14, 15])

bitwise_right_shift
>>> torch.bitwise_right_shift(torch.tensor([16, -7]), torch.tensor([4, 1]))
tensor([ 1, -4])

bitwise_xor
>>> torch.bitwise_xor(torch.tensor([12, 7]), torch.tensor([10, 2]))
tensor([6, 5])

chebyshev_polynomial_t
>>> torch.special.chebyshev_polynomial_t(torch.tensor([0.5, 2.]), 3)  # 4 x^3 - 3 x
tensor([-1., 26.])

chebyshev_polynomial_u
>>> torch.special.chebyshev_polynomial_u(torch.tensor([0.5, 2.]), 2)  # 4 x^2 - 1
tensor([ 0., 15.])

chebyshev_polynomial_v
>>> torch.special.chebyshev_polynomial_v(torch.tensor([0.5, 2.]), 1)  # 2 x - 1
tensor([0., 3.])

chebyshev_polynomial_w
>>> torch.special.chebyshev_polynomial_w(torch.tensor([0.5, 2.]), 1)  # 2 x + 1
tensor([2., 5.])

cos
>>> torch.cos(torch.tensor([0., torch.pi / 3, torch.pi]))
tensor([ 1.0000,  0.5000, -1.0000])

cosh
>>> torch.cosh(torch.tensor([-1., 0., 1.]))
tensor([1.5431, 1.0000, 1.5431])

diagonal_copy
>>> torch.diagonal_copy(torch.tensor([[1, 2], [3, 4]]))
tensor([1, 4])

digamma
>>> torch.digamma(torch.tensor([1., 0.5, 10.]))
tensor([-0.5772, -1.9635,  2.2518])

dstack
>>> torch.dstack((torch.tensor([1, 2]), torch.tensor([3, 4])))
tensor([[[1, 3],
         [2, 4]]])

eq
>>> torch.eq(torch.tensor([1, 2, 3]), torch.tensor([1, 0, 3]))
tensor([ True, False,  True])

erf
>>> torch.erf(torch.tensor([-1., 0., 1.]))
tensor([-0.8427,  0.0000,  0.8427])

erfc
>>> torch.erfc(torch.tensor([-1., 0., 10.]))
tensor([1.8427e+00, 1.0000e+00, 1.4013e-45])

erfcx
>>> torch.special.erfcx(torch.tensor([-1., 0., 100.]))
tensor([5.0090, 1.0000, 0.0056])

erfinv
>>> torch.erfinv(torch.tensor([-0.5, 0., 1.]))
tensor([-0.4769,  0.0000,     inf])

exp
>>> torch.exp(torch.tensor([0., 1., -float("inf")]))
tensor([1.0000, 2.7183, 0.0000])

exp2
>>> torch.exp2(torch.tensor([0., 3., -1.]))
tensor([1.0000, 8.0000, 0.5000])

expand_copy
>>> torch.expand_copy(torch.tensor([[1], [2]]), (2, 3))
tensor([[1, 1, 1],
        [2, 2, 2]])

expm1
>>> torch.expm1(torch.tensor([0., 1., 1e-10]))
tensor([0.0000e+00, 1.7183e+00, 1.0000e-10])

fft.fft
>>> torch.fft.fft(torch.tensor([1., 2., 3., 4.]))
tensor([10.+0.j, -2.+2.j, -2.+0.j, -2.-2.j])

fft.fft2
>>> torch.fft.fft2(torch.ones(2, 2))
tensor([[4.+0.j, 0.+0.j],
        [0.+0.j, 0.+0.j]])

fft.fftn
>>> torch.fft.fftn(torch.ones(2, 2))
tensor([[4.+0.j, 0.+0.j],
        [0.+0.j, 0.+0.j]])

fft.hfft
>>> torch.fft.hfft(torch.tensor([1 + 0j, 2 + 0j, 1 + 0j]))
tensor([ 6.,  0., -2.,  0.])

fft.hfft2
>>> torch.fft.hfft2(torch.ones(2, 2, dtype=torch.complex64))
tensor([[4., 0.],
        [0., 0.]])

fft.hfftn
>>> torch.fft.hfftn(torch.ones(2, 2, dtype=torch.complex64))
tensor([[4., 0.],
        [0., 0.]])

fft.ifft
>>> torch.fft.ifft(torch.fft.fft(torch.tensor([1., 2., 3., 4.])))
tensor([1.+0.j, 2.+0.j, 3.+0.j, 4.+0.j])

fft.ifft2
>>> torch.fft.ifft2(torch.ones(2, 2))
tensor([[1.+0.j, 0.+0.j],
        [0.+0.j, 0.+0.j]])

fft.ifftn
>>> torch.fft.ifftn(torch.ones(2, 2))
tensor([[1.+0.j, 0.+0.j],
        [0.+0.j, 0.+0.j]])

fft.ihfft
>>> torch.fft.ihfft(torch.tensor([1., 2., 3., 4.]))
tensor([ 2.5000-0.0000j, -0.5000-0.5000j, -0.5000-0.0000j])

fft.ihfft2
>>> torch.fft.ihfft2(torch.ones(2, 2))
tensor([[1.-0.j, 0.-0.j],
        [0.+0.j, 0.+0.j]])

fft.ihfftn
>>> torch.fft.ihfftn(torch.ones(2, 2))
tensor([[1.-0.j, 0.-0.j],
        [0.+0.j, 0.+0.j]])

fft.irfft
>>> torch.fft.irfft(torch.fft.rfft(torch.tensor([1., 2., 3., 4.])), n=4)
tensor([1., 2., 3., 4.])

fft.irfft2
>>> torch.fft.irfft2(torch.fft.rfft2(torch.tensor([[1., 2.], [3., 4.]])))
tensor([[1., 2.],
        [3., 4.]])

fft.irfftn
>>> torch.fft.irfftn(torch.fft.rfftn(torch.tensor([[1., 2.], [3., 4.]])))
tensor([[1., 2.],
        [3., 4.]])

fft.rfft
>>> torch.fft.rfft(torch.tensor([1., 2., 3., 4.]))
tensor([10.+0.j, -2.+2.j, -2.+0.j])

fft.rfft2
>>> torch.fft.rfft2(torch.ones(2, 2))
tensor([[4.+0.j, 0.+0.j],
        [0.+0.j, 0.+0.j]])

fft.rfftn
>>> torch.fft.rfftn(torch.ones(2, 2))
tensor([[4.+0.j, 0.+0.j],
        [0.+0.j, 0.+0.j]])

ge
>>> torch.ge(torch.tensor([1, 2, 3]), 2)
tensor([False,  True,  True])

grid_sampler
>>> x = torch.tensor([[[[1., 2.], [3., 4.]]]])
>>> torch.grid_sampler(x, torch.zeros(1, 1, 1, 2), 0, 0, True)
tensor([[[[2.5000]]]])

grid_sampler_2d
>>> x = torch.tensor([[[[1., 2.], [3., 4.]]]])
>>> torch.grid_sampler_2d(x, torch.zeros(1, 1, 1, 2), 0, 0, True)
tensor([[[[2.5000]]]])

grid_sampler_3d
>>> torch.grid_sampler_3d(torch.ones(1, 1, 2, 2, 2), torch.zeros(1, 1, 1, 1, 3), 0, 0, True)
tensor([[[[[1.]]]]])

gt
>>> torch.gt(torch.tensor([1, 2, 3]), 2)
tensor([False, False,  True])

hermite_polynomial_h
>>> torch.special.hermite_polynomial_h(torch.tensor([0.5, 2.]), 2)  # 4 x^2 - 2
tensor([-1., 14.])

hermite_polynomial_he
>>> torch.special.hermite_polynomial_he(torch.tensor([0.5, 2.]), 2)  # x^2 - 1
tensor([-0.7500,  3.0000])

hstack
>>> torch.hstack((torch.tensor([1, 2]), torch.tensor([3])))
tensor([1, 2, 3])

i0
>>> torch.i0(torch.tensor([0., 1., 2.]))
tensor([1.0000, 1.2661, 2.2796])

i0e
>>> torch.special.i0e(torch.tensor([0., 1., 100.]))
tensor([1.0000, 0.4658, 0.0399])

i1
>>> torch.special.i1(torch.tensor([0., 1., 2.]))
tensor([0.0000, 0.5652, 1.5906])

i1e
>>> torch.special.i1e(torch.tensor([0., 1., 100.]))
tensor([0.0000, 0.2079, 0.0397])

laguerre_polynomial_l
>>> torch.special.laguerre_polynomial_l(torch.tensor([0.5, 2.]), 1)  # 1 - x
tensor([ 0.5000, -1.0000])

le
>>> torch.le(torch.tensor([1, 2, 3]), 2)
tensor([ True,  True, False])

legendre_polynomial_p
>>> torch.special.legendre_polynomial_p(torch.tensor([0.5, 2.]), 2)  # (3 x^2 - 1) / 2
tensor([-0.1250,  5.5000])

lgamma
>>> torch.lgamma(torch.tensor([1., 5., 0.5]))
tensor([0.0000, 3.1781, 0.5724])

log
>>> torch.log(torch.tensor([1., 10., 0.]))
tensor([0.0000, 2.3026,   -inf])

log10
>>> torch.log10(torch.tensor([1., 1000., 0.1]))
tensor([ 0.,  3., -1.])

log1p
>>> torch.log1p(torch.tensor([0., 1., 1e-10]))
tensor([0.0000e+00, 6.9315e-01, 1.0000e-10])

log2
>>> torch.log2(torch.tensor([1., 8., 0.5]))
tensor([ 0.,  3., -1.])

log_ndtr
>>> torch.special.log_ndtr(torch.tensor([-100., 0., 10.]))
tensor([-5.0055e+03, -6.9315e-01, -7.6199e-24])

logical_and
>>> torch.logical_and(torch.tensor([True, True]), torch.tensor([True, False]))
tensor([ True, False])

logical_or
>>> torch.logical_or(torch.tensor([False, True]), torch.tensor([False, False]))
tensor([False,  True])

logical_xor
>>> torch.logical_xor(torch.tensor([True, True]), torch.tensor([True, False]))
tensor([False,  True])

lt
>>> torch.lt(torch.tensor([1, 2, 3]), 2)
tensor([ True, False, False])

modified_bessel_i0
>>> torch.special.modified_bessel_i0(torch.tensor([0., 1., 2.]))
tensor([1.0000, 1.2661, 2.2796])

modified_bessel_i1
>>> torch.special.modified_bessel_i1(torch.tensor([0., 1., 2.]))
tensor([0.0000, 0.5652, 1.5906])

modified_bessel_k0
>>> torch.special.modified_bessel_k0(torch.tensor([0., 1., 2.]))
tensor([   inf, 0.4210, 0.1139])

modified_bessel_k1
>>> torch.special.modified_bessel_k1(torch.tensor([0., 1., 2.]))
tensor([   inf, 0.6019, 0.1399])

narrow_copy
>>> torch.narrow_copy(torch.tensor([1, 2, 3, 4]), 0, 1, 2)
tensor([2, 3])

ndtri
>>> torch.special.ndtri(torch.tensor([0., 0.5, 0.975]))
tensor([  -inf, 0.0000, 1.9600])

ne
>>> torch.ne(torch.tensor([1, 2, 3]), torch.tensor([1, 0, 3]))
tensor([False,  True, False])

permute_copy
>>> torch.permute_copy(torch.zeros(2, 3, 4), (2, 0, 1)).shape
torch.Size([4, 2, 3])

scaled_modified_bessel_k0
>>> torch.special.scaled_modified_bessel_k0(torch.tensor([0., 1., 100.]))
tensor([   inf, 1.1445, 0.1252])

scaled_modified_bessel_k1
>>> torch.special.scaled_modified_bessel_k1(torch.tensor([0., 1., 100.]))
tensor([   inf, 1.6362, 0.1258])

select_copy
>>> torch.select_copy(torch.tensor([[1, 2], [3, 4]]), 0, 1)
tensor([3, 4])

shifted_chebyshev_polynomial_t
>>> torch.special.shifted_chebyshev_polynomial_t(torch.tensor([0.5, 1.]), 2)  # T(2 x - 1)
tensor([-1.,  1.])

shifted_chebyshev_polynomial_u
>>> torch.special.shifted_chebyshev_polynomial_u(torch.tensor([0.5, 1.]), 2)  # U(2 x - 1)
tensor([-1.,  3.])

shifted_chebyshev_polynomial_v
>>> torch.special.shifted_chebyshev_polynomial_v(torch.tensor([0.5, 1.]), 2)  # V(2 x - 1)
tensor([-1.,  1.])

shifted_chebyshev_polynomial_w
>>> torch.special.shifted_chebyshev_polynomial_w(torch.tensor([0.5, 1.]), 2)  # W(2 x - 1)
tensor([-1.,  5.])

sigmoid
>>> torch.sigmoid(torch.tensor([-1., 0., 1.]))
tensor([0.2689, 0.5000, 0.7311])

sin
>>> torch.sin(torch.tensor([0., torch.pi / 6, torch.pi / 2]))
tensor([0.0000, 0.5000, 1.0000])

sinh
>>> torch.sinh(torch.tensor([-1., 0., 1.]))
tensor([-1.1752,  0.0000,  1.1752])

slice_copy
>>> torch.slice_copy(torch.tensor([0, 1, 2, 3, 4]), 0, 1, 5, 2)
tensor([1, 3])

spherical_bessel_j0
>>> torch.special.spherical_bessel_j0(torch.tensor([0., 1., 2.]))
tensor([1.0000, 0.8415, 0.4546])

sqrt
>>> torch.sqrt(torch.tensor([4., 2., -1.]))
tensor([2.0000, 1.4142,    nan])

squeeze_copy
>>> torch.squeeze_copy(torch.zeros(1, 2, 1)).shape
torch.Size([2])

t_copy
>>> torch.t_copy(torch.tensor([[1, 2], [3, 4]]))
tensor([[1, 3],
        [2, 4]])

tan
>>> torch.tan(torch.tensor([0., torch.pi / 4]))
tensor([0., 1.])

tanh
>>> torch.tanh(torch.tensor([-1., 0., 1.]))
tensor([-0.7616,  0.0000,  0.7616])

transpose_copy
>>> torch.transpose_copy(torch.tensor([[1, 2], [3, 4]]), 0, 1)
tensor([[1, 3],
        [2, 4]])

unfold_copy
>>> torch.unfold_copy(torch.arange(4), 0, 2, 1)
tensor([[0, 1],
        [1, 2],
        [2, 3]])

unsqueeze_copy
>>> torch.unsqueeze_copy(torch.tensor([1, 2]), 1)
tensor([[1],
        [2]])

vstack
>>> torch.vstack((torch.tensor([1, 2]), torch.tensor([3, 4])))
tensor([[1, 2],
        [3, 4]])

zero
>>> torch.ones(2).zero_()
tensor([0., 0.])
"""


def parsed(text: str) -> dict[str, str]:
    """What follows each name: blocks are parted by empty lines, and begin with a name."""
    parts = (block.partition("\n") for block in text.strip().split("\n\n"))
    return {name: rest for name, _, rest in parts}


EXAMPLES = parsed(TEXT)


def described(name: str, doc: str, examples: dict[str, str] = EXAMPLES) -> str:
    """The docstring with the example of that name, if there is one."""
    shown = examples.get(name)
    return f"{doc}\n\n{shown}" if shown else doc


def without_example(doc: str) -> str:
    """What comes before the example."""
    return doc.partition("\n\n>>> ")[0]
