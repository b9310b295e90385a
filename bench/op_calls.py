"""Calls on about a million elements that cannot be derived from the op table's samples, because
sizes are written in other arguments too, or because they are compositions of several ops.

An entry is an expression over `torch`, `F` (torch.nn.functional) and operands a to d. An operand
is a shape (values in [-2, 2)), or `of(shape, ...)` for other values.
"""

from __future__ import annotations

import dataclasses

__all__ = ["Call", "CALLS", "Operand", "of"]


@dataclasses.dataclass(frozen=True)
class Operand:
    """A random array to make; `dtype` None means the dtype under test.

    Attributes:
        kind: "uniform"; "normal" (symmetric, positive definite); "rows" (each sums to 1).
    """

    shape: tuple[int, ...]
    dtype: str | None = None
    low: float = -2.0
    high: float = 2.0
    kind: str = "uniform"


@dataclasses.dataclass(frozen=True)
class Call:
    """One expression and its operands by name."""

    text: str
    operands: dict[str, Operand]


def of(*shape: int, dtype: str | None = None, low: float = -2.0, high: float = 2.0,
       kind: str = "uniform") -> Operand:
    """An operand that is not just a shape."""
    return Operand(shape, dtype, low, high, kind)


def whole(high: int, *shape: int) -> Operand:
    """Integers from 0 to below `high`."""
    return Operand(shape, "int64", 0, high)


def _call(text: str, **operands: tuple[int, ...] | Operand) -> Call:
    return Call(text, {name: item if isinstance(item, Operand) else Operand(item)
                       for name, item in operands.items()})


IMAGE, VOLUME, SIGNAL = (8, 32, 64, 64), (2, 16, 32, 32, 32), (8, 64, 2048)
FLAT, SQUARE, CUBE = (1_000_000,), (1000, 1000), (100, 100, 100)
PROBABILITY = of(1000, 1000, low=0.05, high=0.95)
SMALL_MATRICES, MATRIX = of(1000, 32, 32, kind="normal"), of(200, 200, kind="normal")

CONVOLUTIONS = [
    _call("F.conv1d(a, b, c, padding=1)", a=(8, 64, 2048), b=(64, 64, 3), c=(64,)),
    _call("F.conv2d(a, b, c, padding=1)", a=IMAGE, b=(64, 32, 3, 3), c=(64,)),
    _call("F.conv2d(a, b, stride=2)", a=IMAGE, b=(64, 32, 1, 1)),
    _call("F.conv2d(a, b, stride=2, padding=2)", a=IMAGE, b=(32, 32, 5, 5)),
    _call("F.conv2d(a, b, padding=2, dilation=2)", a=IMAGE, b=(32, 32, 3, 3)),
    _call("F.conv2d(a, b, padding=1, groups=4)", a=IMAGE, b=(32, 8, 3, 3)),
    _call("F.conv2d(a, b, padding=1, groups=32)", a=IMAGE, b=(32, 1, 3, 3)),
    _call("F.conv3d(a, b, padding=1)", a=VOLUME, b=(16, 16, 3, 3, 3)),
    _call("F.conv_transpose1d(a, b, stride=2)", a=(8, 64, 1024), b=(64, 32, 4)),
    _call("F.conv_transpose2d(a, b, stride=2, padding=1)", a=IMAGE, b=(32, 16, 4, 4)),
    _call("F.conv_transpose3d(a, b, stride=2)", a=VOLUME, b=(16, 8, 2, 2, 2)),
    _call("F.unfold(a, 3, padding=1)", a=(4, 8, 64, 64)),
    _call("F.fold(a, (64, 64), 3, padding=1)", a=(4, 72, 4096)),
]

POOLS = [
    _call("F.max_pool1d(a, 2)", a=SIGNAL), _call("F.max_pool2d(a, 2)", a=IMAGE),
    _call("F.max_pool2d(a, 3, 2, 1)", a=IMAGE), _call("F.max_pool3d(a, 2)", a=VOLUME),
    _call("F.max_pool2d(a, 2, return_indices=True)", a=IMAGE),
    _call("F.avg_pool1d(a, 2)", a=SIGNAL), _call("F.avg_pool2d(a, 2)", a=IMAGE),
    _call("F.avg_pool2d(a, 3, 2, 1)", a=IMAGE), _call("F.avg_pool3d(a, 2)", a=VOLUME),
    _call("F.lp_pool2d(a, 2, 2)", a=IMAGE), _call("F.adaptive_avg_pool2d(a, 7)", a=IMAGE),
    _call("F.adaptive_avg_pool2d(a, 1)", a=IMAGE), _call("F.adaptive_max_pool2d(a, 7)", a=IMAGE),
    _call("F.adaptive_avg_pool3d(a, 5)", a=VOLUME), _call("F.adaptive_max_pool1d(a, 9)", a=SIGNAL),
    _call("F.fractional_max_pool2d(a, 2, output_ratio=0.5)", a=IMAGE),
    _call("F.max_unpool2d(a, torch.arange(0, 4096, 4).view(32, 32).expand(8, 32, 32, 32), 2)",
          a=(8, 32, 32, 32)),
]

RESAMPLING = [
    _call(f"F.interpolate(a, scale_factor={factor}, mode='{mode}')", a=IMAGE)
    for mode in ("nearest", "nearest-exact", "bilinear", "bicubic", "area")
    for factor in (2, 0.4)
] + [
    _call("F.interpolate(a, scale_factor=0.4, mode='bilinear', antialias=True)", a=IMAGE),
    _call("F.interpolate(a, scale_factor=2, mode='linear')", a=SIGNAL),
    _call("F.interpolate(a, scale_factor=2, mode='trilinear')", a=VOLUME),
    _call("F.interpolate(a, scale_factor=2, mode='bilinear', align_corners=True)", a=IMAGE),
    *(_call(f"F.grid_sample(a, b, mode='{mode}', padding_mode='{edge}', align_corners=False)",
            a=IMAGE, b=of(8, 64, 64, 2, low=-1.1, high=1.1))
      for mode in ("bilinear", "nearest", "bicubic") for edge in ("zeros", "border")),
    _call("F.affine_grid(a, (16, 3, 256, 256), align_corners=False)", a=(16, 2, 3)),
    *(_call(f"F.pad(a, (1, 2, 1, 2), mode='{mode}')", a=IMAGE)
      for mode in ("constant", "reflect", "replicate", "circular")),
    _call("F.pixel_shuffle(a, 2)", a=IMAGE), _call("F.pixel_unshuffle(a, 2)", a=IMAGE),
    _call("F.channel_shuffle(a, 4)", a=IMAGE),
]

NORMS = [
    _call("F.batch_norm(a, None, None, b, c, training=True)", a=IMAGE, b=(32,), c=(32,)),
    _call("F.batch_norm(a, b, c)", a=IMAGE, b=of(32, low=0, high=1), c=of(32, low=0.5, high=1)),
    _call("F.instance_norm(a)", a=IMAGE), _call("F.group_norm(a, 4, b, c)", a=IMAGE, b=(32,),
                                                c=(32,)),
    _call("F.layer_norm(a, (1000,), b, c)", a=SQUARE, b=(1000,), c=(1000,)),
    _call("F.layer_norm(a, (7,))", a=(150000, 7)),
    _call("F.rms_norm(a, (1000,), b)", a=SQUARE, b=(1000,)),
    _call("F.local_response_norm(a, 5)", a=IMAGE), _call("F.normalize(a)", a=SQUARE),
    _call("F.normalize(a, dim=0)", a=SQUARE), _call("F.softmax(a, 1)", a=SQUARE),
    _call("F.softmax(a, 0)", a=SQUARE), _call("F.log_softmax(a, 1)", a=(100000, 10)),
    _call("F.softmin(a, 1)", a=SQUARE), _call("F.gumbel_softmax(a, dim=1)", a=SQUARE),
    _call("F.cosine_similarity(a, b)", a=SQUARE, b=SQUARE),
    _call("F.pairwise_distance(a, b)", a=SQUARE, b=SQUARE),
    _call("F.pdist(a)", a=(1000, 30)), _call("torch.cdist(a, b)", a=(1000, 30), b=(1000, 30)),
    _call("torch.cdist(a, b, 1.0)", a=(1000, 30), b=(1000, 30)),
    _call("torch.renorm(a, 2, 0, 5.0)", a=SQUARE),
    *(_call(f"torch.linalg.vector_norm(a, {order}, dim={dim})", a=SQUARE)
      for order in (0, 1, 2, 3, "float('inf')") for dim in (0, 1, None)),
    _call("torch.linalg.matrix_norm(a, 'fro')", a=CUBE), _call("a.norm()", a=SQUARE),
    _call("torch.linalg.matrix_norm(a, 1)", a=CUBE), _call("torch.dist(a, b)", a=FLAT, b=FLAT),
]

_TWO = ("mse_loss", "l1_loss", "smooth_l1_loss", "huber_loss", "kl_div", "poisson_nll_loss",
        "soft_margin_loss", "hinge_embedding_loss")
_SIGNS = of(1000, low=1, high=2)
LOSSES = [
    *(_call(f"F.{name}(a, b)", a=SQUARE, b=of(1000, 1000, low=0.1, high=1)) for name in _TWO),
    *(_call(f"F.{name}(a, b, reduction='none')", a=SQUARE, b=of(1000, 1000, low=0.1, high=1))
      for name in ("mse_loss", "smooth_l1_loss")),
    _call("F.binary_cross_entropy(a, b)", a=PROBABILITY, b=PROBABILITY),
    _call("F.binary_cross_entropy_with_logits(a, b)", a=SQUARE, b=PROBABILITY),
    _call("F.gaussian_nll_loss(a, b, c)", a=SQUARE, b=SQUARE, c=PROBABILITY),
    _call("F.cross_entropy(a, b)", a=SQUARE, b=whole(1000, 1000)),
    _call("F.cross_entropy(a, b)", a=(100000, 10), b=whole(10, 100000)),
    _call("F.cross_entropy(a, b, label_smoothing=0.1)", a=SQUARE, b=whole(1000, 1000)),
    _call("F.cross_entropy(a, b)", a=(8, 20, 80, 80), b=whole(20, 8, 80, 80)),
    _call("F.cross_entropy(a, b)", a=SQUARE, b=of(1000, 1000, low=0, high=1e-3)),
    _call("F.nll_loss(a, b)", a=SQUARE, b=whole(1000, 1000)),
    _call("F.nll_loss(a, b)", a=(8, 20, 80, 80), b=whole(20, 8, 80, 80)),
    _call("F.multi_margin_loss(a, b)", a=SQUARE, b=whole(1000, 1000)),
    _call("F.multilabel_margin_loss(a, b)", a=SQUARE, b=whole(1000, 1000, 1000)),
    _call("F.multilabel_margin_loss(a, b)", a=(50000, 20), b=whole(20, 50000, 20)),
    _call("F.multilabel_soft_margin_loss(a, b)", a=SQUARE, b=PROBABILITY),
    _call("F.cosine_embedding_loss(a, b, c)", a=SQUARE, b=SQUARE, c=_SIGNS),
    _call("F.margin_ranking_loss(a, b, c)", a=FLAT, b=FLAT, c=FLAT),
    _call("F.triplet_margin_loss(a, b, c)", a=SQUARE, b=SQUARE, c=SQUARE),
    _call("F.ctc_loss(a, b, (100,) * 100, (30,) * 100)", a=(100, 100, 100),
          b=of(100, 30, dtype="int64", low=1, high=100)),
]

_MATRICES = ("cholesky", "inv", "det", "slogdet", "eigvalsh", "svdvals", "qr", "eigh", "svd",
             "pinv", "matrix_exp", "lu_factor")
LINALG = [
    *(_call(f"torch.linalg.{name}(a)", a=a) for name in _MATRICES
      for a in (of(1000, 16, 16, kind="normal"), of(150, 150, kind="normal"))),
    _call("torch.linalg.solve(a, b)", a=SMALL_MATRICES, b=(1000, 32, 4)),
    _call("torch.linalg.solve(a, b)", a=MATRIX, b=(200, 50)),
    _call("torch.linalg.solve_triangular(a, b, upper=False)", a=SMALL_MATRICES, b=(1000, 32, 4)),
    _call("torch.linalg.lstsq(a, b).solution", a=(500, 50), b=(500, 5)),
    _call("torch.cholesky_solve(a, b)", a=(1000, 32, 4), b=SMALL_MATRICES),
    _call("torch.linalg.matrix_power(a, 5)", a=(200, 64, 64)),
    _call("torch.linalg.multi_dot([a, b, c])", a=(1000, 100), b=(100, 1000), c=(1000, 10)),
    _call("torch.linalg.cross(a, b)", a=(300000, 3), b=(300000, 3)),
    _call("torch.linalg.householder_product(a, b)", a=(500, 32, 16), b=(500, 16)),
    _call("torch.trace(a)", a=SQUARE), _call("torch.kron(a, b)", a=(30, 40), b=(30, 30)),
    _call("torch.matmul(a, b)", a=SQUARE, b=(1000, 100)), _call("torch.mv(a, b)", a=SQUARE,
                                                                b=(1000,)),
    _call("torch.bmm(a, b)", a=CUBE, b=CUBE), _call("torch.outer(a, b)", a=(1000,), b=(1000,)),
    _call("torch.dot(a, b)", a=FLAT, b=FLAT), _call("torch.addmv(c, a, b)", a=SQUARE, b=(1000,),
                                                    c=(1000,)),
    _call("torch.addr(a, b, c)", a=SQUARE, b=(1000,), c=(1000,)),
    _call("torch.einsum('bij,bjk->bik', a, b)", a=CUBE, b=CUBE),
    _call("torch.einsum('ijk,ijk->i', a, b)", a=CUBE, b=CUBE),
    _call("torch.tensordot(a, b, dims=2)", a=CUBE, b=(100, 100, 10)),
    _call("F.bilinear(a, b, c)", a=(1000, 50), b=(1000, 40), c=(20, 50, 40)),
    _call("F.linear(a, b, c)", a=SQUARE, b=(100, 1000), c=(100,)),
    _call("F.scaled_dot_product_attention(a, b, c)", a=(4, 8, 512, 64), b=(4, 8, 512, 64),
          c=(4, 8, 512, 64)),
    _call("torch.vander(a, N=100)", a=(10000,)), _call("torch.cov(a)", a=(100, 10000)),
    _call("torch.corrcoef(a)", a=(100, 10000)),
]

ORDER = [
    *(_call(f"torch.{name}(a, dim={dim})", a=SQUARE) for dim in (0, 1) for name in
      ("sort", "argsort", "median", "mode", "cumsum", "cumprod", "cummax", "logcumsumexp",
       "nanmedian", "argmax", "amax", "diff", "logsumexp", "prod",
       "std", "var_mean", "any", "count_nonzero", "unique_consecutive")),
    *(_call(f"torch.{name}(a)", a=FLAT) for name in
      ("sort", "median", "unique", "cumsum", "cumprod", "argmax", "aminmax", "prod", "std",
       "nansum", "nanmean", "count_nonzero", "nonzero", "msort")),
    *(_call(f"torch.{name}(a, {k}, dim={dim})", a=SQUARE) for dim in (0, 1) for name, k in
      (("topk", 5), ("topk", 100), ("kthvalue", 500), ("quantile", 0.3))),
    _call("torch.topk(a, 10)", a=FLAT), _call("torch.topk(a, 1000)", a=FLAT),
    _call("torch.topk(a, 3)", a=(100000, 10)), _call("torch.sort(a)", a=(100000, 10)),
    _call("torch.cumsum(a, 1)", a=(150000, 7)), _call("torch.cumsum(a, 1)", a=(30000, 33)),
    _call("torch.cumprod(a, 1)", a=(150000, 7)), _call("torch.quantile(a, b)", a=FLAT,
                                                       b=of(5, low=0, high=1)),
    _call("torch.histc(a, 100)", a=FLAT), _call("torch.bincount(a)", a=whole(1000, 1000000)),
    _call("torch.histogram(a, 100)", a=FLAT),
    _call("torch.searchsorted(b.sort().values, a)", a=FLAT, b=(1000,)),
    _call("torch.bucketize(a, b.sort().values)", a=FLAT, b=(1000,)),
    _call("torch.isin(a, b)", a=whole(10000, 1000000), b=whole(10000, 1000)),
    _call("torch.cartesian_prod(a, b)", a=(1000,), b=(1000,)),
    _call("torch.combinations(a)", a=(1400,)), _call("torch.trapezoid(a)", a=SQUARE),
    _call("torch.cumulative_trapezoid(a)", a=SQUARE), _call("torch.gradient(a)", a=SQUARE),
]

INDEXING = [
    _call("a[b]", a=SQUARE, b=whole(1000, 1000)), _call("a[:, b]", a=SQUARE, b=whole(1000, 1000)),
    _call("a[b, c]", a=SQUARE, b=whole(1000, 1000000), c=whole(1000, 1000000)),
    _call("a[a > 0]", a=SQUARE), _call("a.masked_fill(a > 0, 1.5)", a=SQUARE),
    _call("torch.masked_select(a, a > 0)", a=SQUARE), _call("torch.where(a > 0, a, b)", a=SQUARE,
                                                            b=SQUARE),
    _call("a.masked_scatter(a > 0, b)", a=SQUARE, b=SQUARE),
    _call("torch.gather(a, 1, b)", a=SQUARE, b=whole(1000, 1000, 1000)),
    _call("torch.gather(a, 0, b)", a=SQUARE, b=whole(1000, 1000, 1000)),
    _call("torch.take(a, b)", a=SQUARE, b=whole(1000000, 1000, 1000)),
    _call("torch.take_along_dim(a, b, 1)", a=SQUARE, b=whole(1000, 1000, 1000)),
    _call("torch.index_select(a, 0, b)", a=SQUARE, b=whole(1000, 1000)),
    _call("torch.index_select(a, 1, b)", a=SQUARE, b=whole(1000, 1000)),
    *(_call(f"a.scatter_add({dim}, b, c)", a=SQUARE, b=whole(1000, 1000, 1000), c=SQUARE)
      for dim in (0, 1)),
    *(_call(f"a.scatter({dim}, b, c)", a=SQUARE, b=whole(1000, 1000, 1000), c=SQUARE)
      for dim in (0, 1)),
    *(_call(f"a.scatter_reduce({dim}, b, c, '{how}')", a=SQUARE, b=whole(1000, 1000, 1000),
            c=SQUARE) for dim in (0, 1) for how in ("sum", "mean", "amax", "prod")),
    *(_call(f"a.index_add({dim}, b, c)", a=SQUARE, b=whole(1000, 1000), c=SQUARE)
      for dim in (0, 1)),
    *(_call(f"a.index_copy({dim}, b, c)", a=SQUARE, b=whole(1000, 1000), c=SQUARE)
      for dim in (0, 1)),
    _call("a.index_fill(1, b, 1.0)", a=SQUARE, b=whole(1000, 300)),
    _call("a.index_put((b,), c)", a=SQUARE, b=whole(1000, 1000), c=SQUARE),
    _call("a.index_put((b,), c, accumulate=True)", a=SQUARE, b=whole(1000, 1000), c=SQUARE),
    _call("F.embedding(a, b)", a=whole(10000, 10000), b=(10000, 100)),
    _call("F.embedding_bag(a, b)", a=whole(10000, 1000, 10), b=(10000, 100)),
    _call("F.one_hot(a, 100)", a=whole(100, 10000)), _call("torch.repeat_interleave(a, 3, 0)",
                                                           a=(1000, 300)),
    _call("torch.roll(a, (3, 5), (0, 1))", a=SQUARE), _call("torch.flip(a, (0, 1))", a=SQUARE),
    _call("torch.rot90(a)", a=SQUARE), _call("torch.tril(a)", a=SQUARE),
    _call("torch.triu(a, 3)", a=SQUARE), _call("torch.diag_embed(a)", a=(100, 100)),
    _call("torch.cat([a, b, a])", a=SQUARE, b=SQUARE), _call("torch.cat([a, b], 1)", a=SQUARE,
                                                             b=SQUARE),
    _call("torch.stack([a, b], 2)", a=SQUARE, b=SQUARE), _call("torch.tile(a, (3, 3))",
                                                               a=(300, 400)),
    _call("a.repeat(2, 3)", a=(400, 400)), _call("torch.block_diag(a, b)", a=(500, 500),
                                                 b=(500, 500)),
    _call("a.t().contiguous()", a=SQUARE), _call("a.permute(2, 0, 1).contiguous()", a=CUBE),
    _call("a.to(torch.bfloat16)", a=FLAT), _call("a.to(torch.int64)", a=FLAT),
    _call("a.unfold(1, 5, 3).contiguous()", a=SQUARE), _call("a.clone()", a=FLAT),
]

RANDOM = [
    *(_call(f"torch.{name}(a)", a=of(1_000_000, low=0.1, high=0.9)) for name in
      ("rand_like", "randn_like", "bernoulli", "poisson")),
    _call("torch.randint(0, 1000, (1000000,))"), _call("torch.randperm(1000000)"),
    _call("torch.normal(a, b)", a=FLAT, b=of(1_000_000, low=0.1)), _call("F.dropout(a)", a=FLAT),
    _call("F.alpha_dropout(a, training=True)", a=FLAT), _call("F.dropout2d(a)", a=IMAGE),
    _call("F.rrelu(a, training=True)", a=FLAT), _call("torch.multinomial(a, 100)",
                                                      a=of(100, 10000, low=0.1)),
    _call("torch.multinomial(a, 100, replacement=True)", a=of(100, 10000, low=0.1)),
    _call("a.exponential_()", a=FLAT), _call("a.geometric_(0.3)", a=FLAT),
    _call("a.cauchy_()", a=FLAT), _call("a.log_normal_()", a=FLAT),
    _call("torch.distributions.Gamma(a, b).rsample()", a=of(100_000, low=0.5), b=of(100_000,
                                                                                    low=0.5)),
    _call("torch.distributions.Dirichlet(a).rsample()", a=of(10_000, 10, low=0.5)),
    _call("torch.distributions.Beta(a, b).rsample()", a=of(100_000, low=0.5),
          b=of(100_000, low=0.5)),
]

CREATION = [
    _call("torch.arange(1000000)"), _call("torch.linspace(0, 1, 1000000)"),
    _call("torch.eye(1000)"), _call("torch.logspace(0, 1, 1000000)"),
    _call("torch.full((1000, 1000), 3.0)"),
    _call("torch.tril_indices(1000, 1000)"), _call("torch.hann_window(1000000)"),
    _call("torch.kaiser_window(1000000)"), _call("torch.zeros(1000, 1000)"),
    _call("torch.complex(a, b)", a=FLAT, b=FLAT), _call("torch.polar(a, b)", a=FLAT, b=FLAT),
]

SPECTRA = [
    *(_call(f"torch.fft.{name}(a)", a=SQUARE) for name in
      ("fft", "rfft", "fft2", "rfft2", "hfft", "fftshift")),
    _call("torch.stft(a, 512, window=b, return_complex=True)", a=(4, 100000), b=(512,)),
    _call("torch.fft.fft(a, dim=0)", a=SQUARE), _call("torch.fft.rfft(a)", a=(2**20,)),
]

POINTWISE = [
    *(_call(f"a ** {power}", a=FLAT) for power in (2, 3, -1, 0.5, 4, 5, 2.5)),
    _call("a % 0.7", a=FLAT), _call("a // 0.7", a=FLAT), _call("torch.clamp(a, -1, 1)", a=FLAT),
    _call("torch.lerp(a, b, 0.3)", a=FLAT, b=FLAT), _call("torch.addcdiv(a, b, c)", a=FLAT, b=FLAT,
                                                          c=of(1_000_000, low=0.5)),
    _call("a + b", a=SQUARE, b=(1000, 1)), _call("a * b", a=SQUARE, b=(1000,)),
    _call("a / b", a=(1000, 1), b=of(1, 1000, low=0.5)), _call("a > b", a=SQUARE, b=(1000, 1)),
    _call("F.gelu(a, approximate='tanh')", a=FLAT), _call("F.glu(a)", a=SQUARE),
    _call("F.prelu(a, b)", a=IMAGE, b=(32,)), _call("torch.nan_to_num(a)", a=FLAT),
    _call("torch.bitwise_and(a, b)", a=whole(1000, 1000000), b=whole(1000, 1000000)),
    _call("a // b", a=whole(1000, 1000000), b=of(1000000, dtype="int64", low=1, high=50)),
    _call("a % b", a=whole(1000, 1000000), b=of(1000000, dtype="int64", low=1, high=50)),
    _call("a + b", a=whole(1000, 1000000), b=whole(1000, 1000000)),
    _call("torch.gcd(a, b)", a=whole(1000, 1000000), b=whole(1000, 1000000)),
    _call("a.sum()", a=FLAT), _call("a.sum(0)", a=SQUARE), _call("a.sum(1)", a=SQUARE),
    _call("a.sum((0, 2))", a=CUBE), _call("a.mean(1)", a=(100000, 10)),
    _call("a.amax(0)", a=SQUARE), _call("a.prod(1)", a=(100000, 10)),
    _call("a.std(1)", a=(100000, 10)),
    _call("torch.special.i0e(a)", a=FLAT), _call("torch.special.log_ndtr(a)", a=FLAT),
]

CALLS: dict[str, list[Call]] = {
    "convolution": CONVOLUTIONS, "pool": POOLS, "resample": RESAMPLING, "norm": NORMS,
    "loss": LOSSES, "linalg": LINALG, "order": ORDER, "index": INDEXING, "random": RANDOM,
    "creation": CREATION, "spectra": SPECTRA, "pointwise": POINTWISE,
}
