"""Random programs over PyTorch's API: statements over variables t1, t2, ..., one at a time."""

from __future__ import annotations

import random

FLOATS = ["torch.float32", "torch.float64"]
ALL = FLOATS * 3 + [
    "torch.int64",
    "torch.int32",
    "torch.bool",
    "torch.float16",
    "torch.uint8",
    "torch.bfloat16",
]

# Kinds of views; the more often one stands here, the more often it is drawn.
VIEWS = (
    "view", "view", "reshape", "transpose", "t", "permute", "expand", "select", "slice",
    "unsqueeze", "squeeze", "split", "chunk", "unbind", "narrow", "diagonal", "unfold",
    "as_strided", "detach", "alias", "flatten", "movedim", "T", "getitem", "getitem", "getitem",
    "view_as", "unflatten", "expand_as", "broadcast_to", "swapaxes", "tensor_split", "real",
    "viewdtype", "data",
)


def nested(rng, shape, kind):
    if not shape:
        if kind == "b":
            return rng.choice(["True", "False"])
        if kind == "i":
            return str(rng.randint(-3, 4))
        if kind == "u":
            return str(rng.randint(0, 5))
        if kind == "c":
            return f"{rng.randint(-4, 4) / 2}+{rng.randint(0, 4) / 2}j"
        return str(
            rng.choice([rng.randint(-8, 8) / 4, rng.randint(1, 9) / 8, rng.randint(-3, 3) * 1.0])
        )
    return "[" + ", ".join(nested(rng, shape[1:], kind) for _ in range(shape[0])) + "]"


def kind_of(dtype):
    name = str(dtype)
    if "complex" in name:
        return "c"
    if "float" in name:
        return "f"
    if "uint" in name:
        return "u"
    if "int" in name:
        return "i"
    return "b"


class Gen:
    """Makes statements; `env` is the oracle's namespace (name -> tensor)."""

    def __init__(self, seed, compiled=False):
        self.rng = random.Random(seed)
        self.count = 0
        self.env = {}
        self.compiled = compiled
        self.simple = self.rng.random() < 0.6  # floats only

    # -- picking
    def names(self, cond=None):
        out = []
        for n, t in self.env.items():
            try:
                if n[0] == "t" and n[1:].isdigit() and (cond is None or cond(t)):
                    out.append(n)
            except RuntimeError:
                pass
        return out

    def pick(self, cond=None):
        names = self.names(cond)
        if not names:
            return None
        if self.rng.random() < 0.5:
            names = names[-4:]
        return self.rng.choice(names)

    def new(self):
        self.count += 1
        return f"t{self.count}"

    def isf(self, t):
        return kind_of(t.dtype) in "fc"

    def shape(self):
        r = self.rng
        return tuple(
            r.choice([1, 2, 2, 3, 3, 4, 4, 0 if r.random() < 0.15 else 2])
            for _ in range(r.choice([0, 1, 1, 2, 2, 2, 3, 3]))
        )

    def dim(self, t):
        nd = t.dim()
        if self.rng.random() < 0.03:
            return self.rng.choice([nd, -nd - 1])
        return self.rng.randrange(-nd, nd) if nd else self.rng.choice([0, -1])

    # -- statements
    def create(self):
        r = self.rng
        shape = self.shape()
        dtype = r.choice(FLOATS[:1] * 3 + FLOATS[1:] if self.simple else ALL)
        kind = kind_of(dtype)
        rg = kind in "fc" and r.random() < 0.5 and not self.compiled
        how = r.random()
        name = self.new()
        extra = ", requires_grad=True" if rg else ""
        if how < 0.15:
            f = r.choice(["zeros", "ones"])
            return f"{name} = torch.{f}({shape}, dtype={dtype}{extra})"
        if 0.15 < how < 0.25 and kind not in "bc":
            n = 1
            for s in shape:
                n *= s
            return f"{name} = torch.arange({n}, dtype={dtype}).reshape({shape})"
        if how < 0.3 and self.env and not self.compiled:
            x = self.pick()
            f = r.choice(
                [
                    "zeros_like({x})",
                    "ones_like({x})",
                    "full_like({x}, 2)",
                    "{x}.new_zeros((2, 3))",
                    "{x}.new_tensor([1, 2])",
                    "zeros_like({x}, dtype=torch.float32)",
                ]
            )
            f = f.format(x=x)
            return f"{name} = {'torch.' if f[0] in 'zof' and not f.startswith('t') else ''}{f}"
        data = nested(r, shape, kind)
        if 0 in shape:
            return f"{name} = torch.zeros({shape}, dtype={dtype}{extra})"
        return f"{name} = torch.tensor({data}, dtype={dtype}{extra})"

    def scalar(self):
        return self.rng.choice(["2", "-1", "0.5", "3.0", "True", "1", "-2.5"])

    def unary(self):
        x = self.pick()
        f = self.rng.choice(
            [
                "-{x}",
                "{x}.abs()",
                "{x}.sin()",
                "{x}.tanh()",
                "torch.sigmoid({x})",
                "{x}.relu()",
                "{x}.square()",
                "{x}.clamp(-1, 1)",
                "{x}.clamp(min=0.25)",
                "{x}.sign()",
                "{x}.floor()",
                "{x}.float()",
                "{x}.double()",
                "{x}.clone()",
                "{x}.contiguous()",
                "{x} ** 2",
                "{x}.clamp(-3, 3).exp()",
                "{x}.abs().sqrt()",
                "{x}.abs().log1p()",
                "{x}.isnan()",
                "{x}.bool()",
                "{x}.cos()",
                "{x}.erf()",
                "torch.nn.functional.silu({x})",
                "torch.nn.functional.leaky_relu({x}, 0.1)",
                "torch.nn.functional.softplus({x})",
                "{x}.to(torch.float64)",
                "{x}.round()",
                "{x}.roll(1, 0)",
                "{x}.triu()",
                "{x}.tril(-1)",
                "{x}.repeat(2, 1, 1)",
                "{x}.logical_not()",
                "{x}.to({x}.dtype)",
                "{x}.to(torch.float32, copy=True)",
                "+{x}",
                "{x}.reciprocal()",
                "{x}.type_as(t1)",
                "{x}.rsqrt()",
                "{x}.half()",
            ]
        )
        return f"{self.new()} = {f.format(x=x)}"

    def binary(self):
        x, y = self.pick(), self.pick()
        r = self.rng
        if r.random() < 0.3:
            y = self.scalar()
            if r.random() < 0.3:
                x, y = y, x
        f = r.choice(
            [
                "{x} + {y}",
                "{x} - {y}",
                "{x} * {y}",
                "{x} / {y}",
                "{x} * {y}",
                "{x} + {y}",
                "{x} < {y}",
                "{x} == {y}",
                "{x} % {y}",
                "{x} >= {y}",
                "torch.maximum({a}, {b})",
                "torch.minimum({a}, {b})",
                "torch.where({a} > 0, {a}, {b})",
                "torch.add({a}, {b}, alpha=2)",
                "torch.sub({a}, {b}, alpha=0.5)",
                "torch.addcmul({a}, {b}, {b}, value=0.5)",
                "torch.where({a} > 0, {a}, 1.5)",
                "torch.atan2({a}, {b})",
                "torch.fmod({a}, {b})",
                "torch.true_divide({a}, {b})",
                "torch.pow({a}.abs() + 1, {b}.clamp(-2, 2))",
                "torch.logical_and({a}, {b})",
                "torch.outer({a}, {b})",
                "torch.equal({a}, {b})",
            ]
        )
        return f"{self.new()} = " + f.format(x=x, y=y, a=self.pick(), b=self.pick())

    def view(self):
        r = self.rng
        x = self.pick()
        t = self.env[x]
        nd, n = t.dim(), t.numel()
        d = self.dim(t)
        size = t.shape[d] if -nd <= d < nd else 1
        kind = r.choice(VIEWS)
        new = self.new()
        if kind in ("view", "reshape"):
            return f"{new} = {x}.{kind}({self.factor(n)})"
        if kind in ("transpose", "swapaxes"):
            return f"{new} = {x}.{kind}({d}, {self.dim(t)})"
        if kind == "t":
            return f"{new} = {x}.t()"
        if kind == "T":
            if nd == 2 or r.random() < 0.05:
                return f"{new} = {x}.{r.choice(['T', 'mT'])}"
            return f"{new} = {x}.permute({list(range(nd))[::-1]})"
        if kind == "permute":
            p = list(range(nd))
            r.shuffle(p)
            return f"{new} = {x}.permute({p})"
        if kind in ("expand", "broadcast_to"):
            s = [r.choice([2, 3]) if q == 1 and r.random() < 0.7 else q for q in t.shape]
            if r.random() < 0.3:
                s = [2] + s
            return f"{new} = {x}.{kind}({s})"
        if kind == "expand_as":
            return f"{new} = {x}.expand_as({self.pick()})"
        if kind == "select":
            return f"{new} = {x}.select({d}, {r.randrange(-size, size) if size else 0})"
        if kind == "slice":
            return f"{new} = {x}[{r.choice(['1:', ':2', '::2', ':-1', '1:3', '2:1', '-2:'])}]"
        if kind == "unsqueeze":
            return f"{new} = {x}.unsqueeze({r.randrange(-nd - 1, nd + 1)})"
        if kind == "squeeze":
            return f"{new} = {x}.squeeze({r.choice(['', str(d)])})"
        if kind in ("split", "chunk", "tensor_split"):
            k = r.choice([1, 2, 2, 3])
            new2 = self.new()
            if r.random() < 0.5:
                return f"{new} = {x}.{kind}({k}, {d})[0]"
            return f"{new}, {new2} = {x}.{kind}({k}, {d})[:2]"
        if kind == "unbind":
            return (
                f"{new}, {self.new()} = {x}.unbind({d})[:2]"
                if r.random() < 0.5
                else f"{new} = {x}.unbind({d})[-1]"
            )
        if kind == "narrow":
            a = r.randrange(size + 1)
            return f"{new} = {x}.narrow({d}, {a}, {r.randrange(size - a + 1)})"
        if kind == "diagonal":
            return f"{new} = {x}.diagonal({r.choice([0, 0, 1, -1])})"
        if kind == "unfold":
            return f"{new} = {x}.unfold({d}, {r.choice([1, 2])}, {r.choice([1, 2])})"
        if kind == "as_strided":
            if n < 2:
                return None
            size, step = r.choice([1, 2]), r.choice([1, 2 if n > 2 else 1])
            where = r.choice(["", f", {x}.storage_offset()"])
            return f"{new} = {x}.as_strided(({size},), ({step},){where})"
        if kind == "data":
            if self.compiled:
                return None
            return f"{new} = {x}.data"
        if kind == "detach":
            return f"{new} = {x}.detach()"
        if kind == "alias":
            return f"{new} = {x}[...]"
        if kind == "flatten":
            return f"{new} = {x}.flatten({r.choice(['', '0, 1' if nd > 1 else ''])})"
        if kind == "movedim":
            return f"{new} = {x}.movedim({d}, {self.dim(t)})"
        if kind == "view_as":
            return f"{new} = {x}.view_as({self.pick(lambda o: o.numel() == n) or x})"
        if kind == "unflatten":
            return f"{new} = {x}.unflatten({d}, ({size}, 1))" if nd else None
        if kind == "view":
            return f"{new} = {x}.ravel()"
        if kind == "real":
            if t.is_complex():
                return f"{new} = {x}.{r.choice(['real', 'imag', 'conj().resolve_conj()'])}"
            return f"{new} = {x}.real" if r.random() < 0.1 else None
        if kind == "viewdtype":
            plain = str(t.dtype) == "torch.float32" and not t.requires_grad
            wanted = plain and r.random() < 0.15 and not self.compiled
            return f"{new} = {x}.view(torch.int32)" if wanted else None
        return f"{new} = {x}[{self.index(t)}]"

    def factor(self, n):
        r = self.rng
        opts = [(n,), (-1,), (1, n), (n, 1)]
        for a in (2, 3, 4):
            if n and n % a == 0:
                opts += [(a, n // a), (n // a, a), (a, -1)]
                if (n // a) % 2 == 0:
                    opts += [(a, 2, n // a // 2)]
        if r.random() < 0.02:
            opts.append((n + 1,))
        return str(r.choice(opts))

    def index(self, t, advanced=True):
        r = self.rng
        items = []
        for size in t.shape[: r.randint(0, t.dim()) if t.dim() else 0]:
            k = r.random()
            if k < 0.25 and size:
                items.append(str(r.randrange(-size, size)))
            elif k < 0.55:
                items.append(r.choice([":", "1:", ":-1", "::2", ":", "0:2"]))
            elif k < 0.62:
                items.append("None")
            elif k < 0.66 and "..." not in items:
                items.append("...")
            elif k < 0.85 and advanced and size:
                items.append(
                    r.choice(
                        [
                            "[0]",
                            f"torch.tensor([{r.randrange(-size, size)}, {r.randrange(size)}])",
                            f"[{r.randrange(size)}, {r.randrange(size)}]",
                            f"torch.tensor([[{r.randrange(size)}], [0]])",
                            f"torch.tensor({r.randrange(size)})",
                        ]
                    )
                )
            elif k < 0.9 and advanced and size:
                items.append(f"torch.tensor({[r.random() < 0.5 for _ in range(size)]})")
            else:
                items.append(":")
        if r.random() < 0.01:
            items.append(str(r.choice([9, -9])))
        if not items:
            return (
                r.choice(["...", "None", ":", "..., None"])
                if t.dim()
                else r.choice(["...", "None", "()"])
            )
        return ", ".join(items)

    def inplace(self):
        r = self.rng
        x = self.pick()
        t = self.env[x]
        y = (
            self.pick(
                lambda o: (
                    o.shape == t.shape
                    or o.dim() == 0
                    or tuple(o.shape) == tuple(t.shape[-o.dim() :])
                )
            )
            or x
        )
        if r.random() < 0.05:
            y = self.pick()
        if r.random() < 0.4:
            y = self.scalar()
        T = y if y[0] == "t" else x
        f = r.choice(
            [
                "{x}.add_({y})",
                "{x}.mul_({y})",
                "{x}.sub_({y})",
                "{x}.div_({y})",
                "{x} += {y}",
                "{x} *= {y}",
                "{x} -= {y}",
                "{x}.copy_({T})",
                "{x}.copy_({T})",
                "{x}.fill_({s})",
                "{x}.clamp_(-1, 1)",
                "{x}[{i}] = {s}",
                "{x}[{i}] = {s}",
                "{x}[{i}] += {y}",
                "{x}[{i}] *= {s}",
                "{x}.zero_()",
                "{x}.relu_()",
                "{x}.clamp_(-2, 2).exp_()",
                "{x}.neg_()",
                "{x}.sigmoid_()",
                "{x}.tanh_()",
                "{x}.add_({T}, alpha=2)",
                "{x}.addcmul_({T}, {T})",
                "{x}[{x} > 0] = {s}",
                "{x}[{x} < 0] = 0",
                "{x}.square_()",
                "{x}.t_()",
                "{x}.unsqueeze_(0)",
                "{x}.squeeze_()",
                "{x}.transpose_(0, -1)",
                "torch.add({x}, {y}, out={x})",
                "{x}.index_add_(0, torch.tensor([0]), {x}[:1].clone())",
                "{x}.scatter_(0, torch.zeros({x}.shape, dtype=torch.int64), {x}.clone())",
                "{x}.index_copy_(0, torch.tensor([0]), {x}[-1:].clone())",
                "{x}.pow_(2)",
                "{x}.masked_scatter_({x} > 0, {x}.clone())",
                "{x}.diagonal().add_(1)",
                "{x}.T.mul_(2)",
                "{x}[0].add_({y})",
                "{x}.view(-1)[0:1].mul_(3)",
                "{x}.where({x} > 0, {x}).add_(1)",
                "{x}.detach().add_(1)",
                "{x}.floor_()",
                "torch.nn.functional.relu({x}, inplace=True)",
            ]
        )
        if self.compiled and ("out=" in f or "t_()" in f or "squeeze_" in f or "transpose_" in f):
            return None
        return f.format(x=x, y=y, T=T, s=self.scalar(), i=self.index(t))

    def reduction(self):
        r = self.rng
        x = self.pick()
        t = self.env[x]
        d = self.dim(t)
        k = r.choice(["", ", keepdim=True"])
        f = r.choice(
            [
                "{x}.sum()",
                "{x}.mean()",
                "{x}.max()",
                "{x}.sum({d}{k})",
                "{x}.mean({d}{k})",
                "{x}.amax({d}{k})",
                "{x}.max({d}{k})[0]",
                "{x}.min({d}{k}).values",
                "{x}.argmax({d}{k})",
                "{x}.prod()",
                "{x}.prod({d}{k})",
                "{x}.any()",
                "{x}.all({d}{k})",
                "{x}.cumsum({d})",
                "{x}.var({d}{k})",
                "{x}.norm()",
                "{x}.logsumexp({d}{k})",
                "{x}.softmax({d})",
                "{x}.log_softmax({d})",
                "{x}.cumprod({d})",
                "{x}.argmin()",
                "{x}.norm(dim={d})",
                "{x}.aminmax()[1]",
                "{x}.min()",
            ]
        )
        return f"{self.new()} = " + f.format(x=x, d=d, k=k)

    def join(self):
        r = self.rng
        x = self.pick()
        t = self.env[x]
        same = [self.pick(lambda o: o.shape == t.shape) or x for _ in range(r.randint(1, 3))]
        f = r.choice(
            [
                "torch.cat([{s}], {d})",
                "torch.stack([{s}], {d})",
                "torch.cat([{s}])",
                "torch.stack([{s}])",
                "torch.hstack([{s}])",
            ]
        )
        return f"{self.new()} = " + f.format(s=", ".join(same), d=self.dim(t))

    def matmul(self):
        x = self.pick(lambda o: o.dim() >= 1)
        if x is None:
            return None
        t = self.env[x]
        y = (
            self.pick(lambda o: o.dim() >= 1 and o.shape[-2 if o.dim() > 1 else -1] == t.shape[-1])
            or x
        )
        f = self.rng.choice(
            [
                "{x} @ {y}",
                "{x} @ {y}",
                "{x} @ {x}.mT",
                "torch.matmul({x}, {y})",
                "{x}.mm({y})",
                "torch.nn.functional.linear({x}, {x})",
            ]
        )
        return f"{self.new()} = " + f.format(x=x, y=y)

    def gather(self):
        r = self.rng
        x = self.pick(lambda o: o.dim() >= 1 and o.numel() > 0)
        if x is None:
            return None
        t = self.env[x]
        d = r.randrange(t.dim())
        size = t.shape[d]
        i = f"torch.tensor([{r.randrange(size)}, {r.randrange(size)}])"
        f = r.choice(
            [
                "{x}.index_select({d}, {i})",
                "{x}.gather({d}, torch.zeros({x}.shape, dtype=torch.int64))",
                "{x}.masked_select({x} > 0)",
                "{x}[{x} > 0]",
                "{x}.take({i})",
                "{x}.scatter({d}, torch.zeros({x}.shape, dtype=torch.int64), 2.0)",
                "{x}.scatter_add({d}, torch.zeros({x}.shape, dtype=torch.int64), {x})",
                "{x}.index_add({d}, torch.tensor([0]), {x}.narrow({d}, 0, 1))",
                "torch.take_along_dim({x}, {x}.argsort(dim={d}, stable=True), {d})",
                "{x}.masked_scatter({x} > 0, {x})",
                "{x}.scatter_reduce({d}, torch.zeros({x}.shape, dtype=torch.int64), {x}, 'amax')",
            ]
        )
        if self.compiled and ("masked_s" in f or "> 0]" in f):
            return None
        return f"{self.new()} = " + f.format(
            x=x, d=d, i=i, i0=f"torch.tensor([{r.randrange(t.shape[0])}])"
        )

    def autograd(self):
        r = self.rng
        x = self.pick(self.isf)
        if x is None:
            return None
        w = self.pick(lambda o: o.requires_grad) or x
        leaf = self.pick(lambda o: o.requires_grad and o.is_leaf) or w
        f = r.choice(
            [
                "{x}.requires_grad_()",
                "{x}.requires_grad_()",
                "{w}.retain_grad()",
                "{w}.register_hook(double_grad)",
                "{x}.requires_grad_(False)",
                "{x}.detach_()",
                "{n} = {w}.detach().requires_grad_()",
                "total({w}).backward(retain_graph=True)",
                "total({w}).backward(retain_graph=True)",
                "total({w}).backward()",
                "{leaf}.grad = None",
                "grads = torch.autograd.grad(total({w}), [{leaf}], retain_graph=True, "
                "allow_unused=True)\n{n} = grads[0]",
                "grads = torch.autograd.grad(total({w}), [{leaf}, {x}], "
                "create_graph=True, allow_unused=True)\n{n} = grads[0]",
                "total({w}).backward(create_graph=True)",
                "{n} = {leaf}.grad",
                "{w}.backward(torch.ones_like({w}), retain_graph=True)",
                "total({w}).backward(inputs=[{leaf}], retain_graph=True)",
                "{w}.data.mul_(2)",
                "{w}.requires_grad = True",
            ]
        )
        return f.format(x=x, w=w, leaf=leaf, n=self.new())

    KINDS = [
        "create",
        "unary",
        "binary",
        "view",
        "view",
        "view",
        "inplace",
        "inplace",
        "inplace",
        "reduction",
        "join",
        "matmul",
        "gather",
        "autograd",
        "autograd",
    ]

    def statement(self):
        if len(self.names()) < 2:
            return self.create()
        kinds = self.KINDS
        for _ in range(50):
            text = getattr(self, self.rng.choice(kinds))()
            if text is None:
                continue
            roll = self.rng.random()
            if self.compiled:
                return text
            if roll < 0.12 and "backward" not in text:
                text = "with torch.no_grad():\n    " + text.replace("\n", "\n    ")
            elif roll < 0.14 and "backward" not in text:
                text = "with torch.no_grad(), torch.enable_grad():\n    " + text.replace(
                    "\n", "\n    "
                )
            return text
        return self.create()
