"""What random programs for `fuzz_compile.py` are made of: statements with holes.

One statement a line; indented lines, `else:` and the like go on with it, and `& ` begins another
line of the same. Holes: {x}, {y} any tensors, {f} one of floats, {r} one that requires grad, {n} a
new name, {p} parameters.
"""

from __future__ import annotations

_MORE = (" ", "else", "except", "finally", "& ")


def _templates(text: str) -> list[str]:
    found: list[str] = []
    for line in text.strip("\n").split("\n"):
        if found and line.startswith(_MORE):
            found[-1] += "\n" + line.removeprefix("& ")
        else:
            found.append(line)
    return found


WORLD = _templates("""
alpha = 0.5
beta = 2
gain = 1.25
state = {'count': 0, 'names': ['a', 'b']}
cfg = Config()
table = [0.5, 1.5, 2.5]
history = []
cache = {}
g1 = torch.ones(3)
g2 = torch.arange(6.0).reshape(2, 3)
w1 = torch.full((2, 3), 0.5, requires_grad=True)
w2 = torch.linspace(-1, 1, 3, requires_grad=True)
gen = torch.Generator().manual_seed(5)
arr = np.arange(3.0, dtype=np.float32)
base = torch.arange(12.0).reshape(3, 4)
part = base[1:]
inner = WRAP(double_grad)
class Box:
    def __init__(self):
        self.value, self.log = 1.0, []
    def bump(self):
        self.value += 0.5
        return self.value
& box = Box()
""")

PYTHON = _templates("""
state['count'] += 1
cfg.steps += 1
history.append(state['count'])
history.append({x}.detach())
cache['last'] = {x}
cfg.last = {x}
beta = beta + 1
alpha = alpha * 0.9
{n} = {x} * alpha
{n} = {x} + beta
{n} = {x} * cfg.scale
{n} = {x} * state['count']
{n} = {x} + len(history)
if cfg.flag:
    {x} = {x} * 1
for k_ in range(cfg.loops):
    {n} = {x} * (k_ + 1)
{n} = {x} * table[state['count'] % 3]
table.append(alpha)
table[0] += 1
{n} = {x} * box.bump()
box.log.append(box.value)
{n} = {x} / box.value
{n} = torch.from_numpy(arr) + 1
{n} = {x} * float(arr[0])
arr[0] += 1
{n} = g1 + 1
g1.add_(1)
g1[0] = 3.0
g1 = g1 * 1.5
g2[:, 0] += 1
{n} = g2[0] * g1
part.mul_(0.5)
{n} = base + 1
{n} = part
{n} = base[0]
{n} = w1 * 2
{n} = (w1 * w2).sum()
{n} = w2[1:]
{n} = inner({x})
{n} = Pair({x}, alpha).first
cfg.rate *= 0.5
{n} = {x} * cfg.rate
{n} = {x}.shape[0] + g1
{n} = g1 * {x}.numel()
{n} = torch.ones({x}.shape)
del history[:1]
{n} = {x} if isinstance({x}, torch.Tensor) else g1
{n} = {x}.clone(); {n}.mark = 5
notes.append(len(notes))
{n} = torch.tensor(alpha)
{n} = torch.tensor([beta, 1.0])
{n} = torch.tensor(table)
{n} = torch.full((2,), gain)
{n} = torch.arange(beta)
{n} = max(alpha, 0.3) * g1
{n} = {x} * (1 if alpha > 0.4 else 2)
{n} = {x} ** beta
{n} = round(alpha, 1) * g1
{n} = int(alpha * 10) * g1
{n} = g1 * min(beta, 3)
{n} = {x} * (beta // 2)
{n} = str(alpha)
{n} = f'{alpha}'
{n} = [alpha, {x}]
{n} = (beta, alpha * 2)
{n} = beta
{n} = alpha
{n} = history
{n} = cfg
{n} = g1
{n} = w1
{n} = {x}.requires_grad
{n} = {x}.dtype
{n} = {x}.shape
{n} = {x}.stride()
{n} = torch.is_grad_enabled()
{n} = {x}.is_contiguous()
{n} = {x}._version > 0
g1.data = torch.zeros(3)
w1.data.mul_(0.9)
{n} = w1.detach()
{n} = w1.data
""")

RANDOM = _templates("""
{n} = torch.rand(2, 3)
{n} = torch.randn_like({f})
{n} = F.dropout({f}, 0.5)
{n} = torch.bernoulli(torch.full((3,), 0.5))
{n} = torch.randint(0, 5, (3,))
{n} = torch.randperm(4)
{n} = torch.rand(3, generator=gen)
{n} = torch.randn(3, generator=gen)
torch.manual_seed(3)
gen.manual_seed(4)
{n} = torch.multinomial(torch.ones(4), 2)
{n} = torch.empty(3).uniform_()
{n} = {f} * _random.random()
{n} = torch.normal(0.0, 1.0, (3,))
{n} = torch.empty(3).exponential_()
g1.normal_()
{n} = torch.rand(0)
{n} = torch.initial_seed()
{n} = np.random.rand()
{n} = F.dropout({f}, cfg.rate, training=cfg.flag)
{n} = torch.rand(3, dtype=torch.float64)
with torch.random.fork_rng():
    {n} = torch.rand(2)
{n} = F.gumbel_softmax({f}, dim=0)
""")

LOOKS = _templates("""
{n} = {x}.sum().item()
print({x}.sum())
print('count', state['count'])
{n} = {x}.tolist()
{n} = bool(({x} > 0).any())
warnings.warn('odd')
if {x}.sum() > 0:
    g1.add_(1)
else:
    g1.sub_(1)
history.append({x}.sum().item())
{n} = {f}.detach().numpy().sum()
while g1.sum() < 10:
    g1.add_(1)
{n} = {x}.nonzero()
{n} = {x}[{x} > 0]
if torch.isnan({x}).any():
    return {x}
{n} = repr({x})
{n} = float({x}.sum()) * 2
{n} = torch.unique({x})
{n} = len({x})
{n} = [row.sum() for row in {x}]
{n} = {x}.sum().item() * {x}
""")

ERRORS = _templates("""
if state['count'] == 3:
    raise ValueError('three')
assert state['count'] != 2, 'two'
if {x}.sum() > 1e3:
    raise RuntimeError('large')
raise KeyError('k')
try:
    {x} @ torch.ones(77, 5)
except RuntimeError as error:
    notes.append(str(error))
try:
    {n} = {x} + g1
except Exception as error:
    notes.append(type(error).__name__)
try:
    raise ValueError('v')
finally:
    g1.mul_(2)
{n} = {x}[7]
{n} = g1[torch.tensor([9])]
{n} = torch.ones(2) + torch.ones(5)
{n} = g1.view(7)
{n} = torch.zeros(3, dtype=torch.int64) // torch.tensor(0)
if cfg.steps > 2:
    return {x}
if state['count'] == 2:
    return {x}, state['count']
{n} = undefined_name
{n} = {x}.nothing
{n} = F.embedding(torch.tensor([2, 9]), w1)
try:
    {n} = g1[torch.tensor([9])]
except IndexError as error:
    notes.append('I')
{n} = torch.linalg.cholesky(-torch.eye(2))
""")

MODES = _templates("""
with torch.no_grad():
    {body}
with torch.enable_grad():
    {body}
with torch.set_grad_enabled(cfg.flag):
    {body}
with torch.inference_mode():
    {body}
with torch.autocast('cpu', dtype=torch.bfloat16):
    {body}
if cfg.flag:
    {body}
if beta > 2:
    {body}
for _ in range(2):
    {body}
try:
    {body}
except RuntimeError as error:
    notes.append('R')
if state['count'] % 2:
    {body}
if torch.is_grad_enabled():
    {body}
def nested():
    {body}
& nested()
if g1.sum() > 2:
    {body}
""")

TAPE = _templates("""
{f}.requires_grad_()
{n} = {f}.detach().requires_grad_()
total({r}).backward()
total({r}).backward(retain_graph=True)
{r}.retain_grad()
{r}.register_hook(double_grad)
{r}.register_hook(note)
{n} = Double.apply({f})
w1.grad = None
w2.grad = None
{n}, = torch.autograd.grad(total(w1), [w1])
{n} = torch.autograd.grad(total({f}), [w2], allow_unused=True)
{n} = torch.autograd.grad(total(w1 * {f}.sum()), [w1], create_graph=True)[0]
total(w1 * w2).backward()
total(w1 * {f}.mean()).backward()
if w1.grad is not None:
    w1.grad.zero_()
w1.grad = torch.ones(2, 3)
{n} = w1.grad
with torch.no_grad():
    w1.sub_(0.1 * w1)
with torch.no_grad():
    w2.add_(1)
w1.requires_grad_(False)
w2.requires_grad_(True)
{n} = torch.func.grad(total)({f})
{n} = torch.func.vmap(double_grad)({x})
{n} = torch.func.vmap(torch.sin)(g2)
{n} = torch.func.jacrev(double_grad)(g1)
{n} = torch.func.jvp(total, (g1,), (g1,))[1]
{n} = torch.utils.checkpoint.checkpoint(torch.sin, {f}, use_reentrant=False)
{n} = torch.utils.checkpoint.checkpoint(torch.nn.functional.dropout, w1, use_reentrant=False)
torch.nn.utils.clip_grad_norm_([w1, w2], 0.5)
{n} = torch.no_grad()(total)({f})
w1.grad = None if w1.grad is None else w1.grad * 2
{n} = {r}.is_leaf
{n} = {r}.detach()
{n} = {r}.detach_() if not {r}.is_leaf else g1
for w_ in (w1, w2):
    if w_.grad is not None:
        w_.data.sub_(w_.grad * 0.1)
torch.autograd.backward([total({r}), total(w1)])
""")

ARGUMENTS = _templates("""
if d:
    {n} = d['k'] * 2
lst.append({x})
{n} = lst[0] + lst[-1]
d['new'] = {x}
lst[0].add_(1)
{n} = {x} * k
{n} = {x} * k if k else {x}
for t_ in lst:
    t_.mul_(0.5)
lst[0] = {x}
d['k'].mul_(2)
{n} = sum(t_.sum() for t_ in lst)
k = k + 1
{n} = k
{n} = {x} ** k
{n} = torch.from_numpy(a) * 2
{n} = g1 * a[0]
a[0] += 1
{n} = lst
{n} = d
{n} = d.get('zz', 3)
if name == 'x':
    {n} = g1 * 2
lst.reverse()
{n} = list(d)
d.pop('new', None)
{n} = lst.pop() if len(lst) > 2 else g1
{n} = {x}.sum(k)
{n} = torch.zeros(k)
{n} = torch.arange(k) * 2
{n} = g1[:k]
""")

BETWEEN = _templates("""
alpha = 0.7
beta = 3
beta += 1
cfg.flag = not cfg.flag
cfg.loops = 3
cfg.scale = 2.5
Config.scale = 0.5
state['count'] = 0
history.clear()
g1 = torch.zeros(3)
g1.add_(0.5)
w1.grad = None
w1.requires_grad_(False)
w1.requires_grad_()
w2.data.mul_(0.5)
base = torch.ones(3, 4)
part = base[1:]
table[0] = 9.0
arr[1] = 5
gen.manual_seed(1)
torch.manual_seed(1)
box.value = 3
total(w1).backward()
w2.grad = torch.ones(3)
g2 = g2.t().contiguous().t()
cache.clear()
cfg.rate = 0.125
gain = 2
gain = 0.75
g1 = g1.double()
w1 = torch.ones(2, 3, requires_grad=True)
state['names'].append('c')
cfg = Config()
double_grad = total
torch.set_grad_enabled(True)
beta = True
beta = 1.0
""")

AFTER = _templates("""
total(out[0]).backward()
out[0].sum().backward()
sum(t.sum() for t in out if isinstance(t, torch.Tensor) and t.requires_grad).backward()
out[0].add_(1)
out[0].mul_(2)
saved = out
torch.autograd.grad(out[0].sum(), [w1])
out[0][0] = 5
sum(t.sum() for t in out if getattr(t, 'requires_grad', False)).backward(retain_graph=True)
del out
""")

OPTIMIZERS = _templates("""
SGD({p}, lr=0.1)
SGD({p}, lr=0.1, momentum=0.9)
SGD({p}, lr=0.1, nesterov=True, momentum=0.9, weight_decay=0.01)
Adam({p}, lr=0.01)
AdamW({p}, lr=0.01, amsgrad=True)
RMSprop({p}, lr=0.01)
RMSprop({p}, lr=0.01, centered=True, momentum=0.5)
Adagrad({p}, lr=0.05)
Adamax({p}, lr=0.01)
NAdam({p}, lr=0.01)
RAdam({p}, lr=0.01)
Adadelta({p})
ASGD({p}, lr=0.01)
Rprop({p}, lr=0.01)
Adam({p}, lr=torch.tensor(0.01), capturable=True)
Adam({p}, lr=0.01, maximize=True, betas=(0.5, 0.9))
Adafactor({p}, lr=0.01)
SGD({p}, lr=0.1, foreach=False)
Adam({p}, lr=0.01, fused=True)
LBFGS({p}, lr=0.1, max_iter=3)
Muon([v for v in ({p}) if v.ndim == 2], lr=0.01)
""")

PARAMS = _templates("""
model.parameters()
list(model.parameters())
[{'params': model.layers[0].parameters()}, {'params': model.layers[1].parameters(), 'lr': 0.02}]
[p for p in model.parameters() if p.requires_grad]
""")

SCHEDULERS = _templates("""
StepLR(opt, 2, 0.5)
CosineAnnealingLR(opt, 5)
ExponentialLR(opt, 0.9)
LambdaLR(opt, lambda n: 1 / (n + 1))
OneCycleLR(opt, 0.1, total_steps=20)
ReduceLROnPlateau(opt, patience=0)
LinearLR(opt, total_iters=3)
CyclicLR(opt, 0.01, 0.1, step_size_up=2, cycle_momentum=False)
MultiStepLR(opt, [2, 3])
""")

MODELS = _templates("""
Net()
Net(norm=False)
Net(drop=0.0)
Net(norm=False, drop=0.0)
nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 4))
nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.5), nn.LayerNorm(4))
nn.Sequential(nn.Unflatten(1, (1, 4)), nn.Conv1d(1, 2, 3, padding=1), nn.BatchNorm1d(2), \\
  nn.ReLU(), nn.Flatten(), nn.Linear(8, 4))
nn.utils.parametrizations.weight_norm(nn.Linear(4, 4))
nn.utils.parametrizations.spectral_norm(nn.Linear(4, 4))
nn.TransformerEncoderLayer(4, 2, 8, dropout=0.1, batch_first=True)
nn.Sequential(nn.Linear(4, 4), nn.GELU(), nn.GroupNorm(2, 4))
nn.Sequential(nn.Unflatten(1, (1, 2, 2)), nn.Conv2d(1, 3, 2, padding=1), \\
  nn.InstanceNorm2d(3, affine=True, track_running_stats=True), nn.AdaptiveAvgPool2d(1), \\
  nn.Flatten(), nn.Linear(3, 4))
""")

TRAIN_BETWEEN = _templates("""
model.eval()
model.train()
sched.step()
opt.param_groups[0]['lr'] *= 0.5
opt.zero_grad()
opt.zero_grad(set_to_none=False)
model.load_state_dict(saved)
saved = {k: v.clone() for k, v in model.state_dict().items()}
opt.load_state_dict(opt_saved)
opt_saved = copy.deepcopy(opt.state_dict())
next(model.parameters()).requires_grad_(False)
next(model.parameters()).requires_grad_(True)
model.zero_grad()
opt.param_groups[0]['weight_decay'] = 0.01
model(x).sum().backward()
x, y = x[:2], y[:2]
x, y = torch.cat([x, x]), torch.cat([y, y])
model = copy.deepcopy(model)
[p.data.mul_(0.9) for p in model.parameters()]
clip = 0.5
clip = 2.0
flag = not flag
model.requires_grad_(False)
model.requires_grad_(True)
opt.state.clear()
x = x.double().float() * 1.5
model.double(); x = x.double(); y = y.double()
handle = model.register_forward_hook(lambda m, a, o: o * 2)
handle.remove()
decay = 0.5
model = swa.module if hasattr(swa, 'module') else model
opt.add_param_group({'params': [extra]})
next(model.parameters()).register_hook(double_grad)
next(model.parameters()).register_post_accumulate_grad_hook(lambda p: p.grad.mul_(0.5))
next(model.parameters()).grad = None
torch.manual_seed(7)
scaler.update(4.0)
x = x.t().contiguous().t()
model.to(torch.bfloat16); x = x.bfloat16(); y = y.bfloat16()
model.float(); x = x.float(); y = y.float()
opt.param_groups[-1]['lr'] = torch.tensor(0.05) if flag else 0.05
""")

SIZED = _templates("""
{n} = {x} * 2
{n} = {x}.relu()
{n} = {x} + {y}
{n} = {x}.sum(0)
{n} = {x}.sum(-1, keepdim=True)
{n} = {x} @ {x}.mT
{n} = {x}.mT @ {x}
{n} = lin({x})
{n} = {x}.softmax(-1)
{n} = {x}.softmax(0)
{n} = {x}.reshape(-1)
{n} = {x}.view({x}.shape[0] * {x}.shape[1])
{n} = {x}.reshape(2, -1)
{n} = torch.cat([{x}, {y}])
{n} = torch.stack([{x}, {x}])
{n} = {x}[1:]
{n} = {x}[:-1]
{n} = {x}[::2]
{n} = {x}[{x}.shape[0] // 2]
{n} = {x}.t()
{n} = {x}.t().contiguous()
{n} = {x}.mean()
{n} = {x}.var(0)
{n} = {x} / {x}.shape[0]
{n} = torch.arange({x}.shape[0])
{n} = torch.zeros({x}.shape[0], 3)
{n} = torch.ones({x}.shape) * {x}
{n} = {x}.cumsum(0)
{n} = {x}.flip(0)
{n} = {x}.chunk(2)[0]
{n} = {x}.split(2)[0]
{n} = {x}.unsqueeze(0).expand(2, -1, -1)
{n} = torch.tril(torch.ones({x}.shape[0], {x}.shape[0]))
{n} = F.layer_norm({x}, ({x}.shape[-1],))
{n} = F.pad({x}, (1, 1))
{n} = {x}.repeat(2, 1)
if {x}.shape[0] > 4:
    {x} = {x} * 2
if {x}.shape[0] % 2:
    {x} = {x} + 1
for i_ in range({x}.shape[0]):
    {x}2 = {x}[i_] * 2
{n} = {x}.shape[0]
{n} = tuple({x}.shape)
{n} = {x}.numel() * 2
{n} = F.one_hot(torch.arange({x}.shape[0]), 12)[:, :4] * 1.0
{n} = {x}.topk(1, 0)[0]
{n} = {x}.sort(0)[0]
{n} = {x}.argmax(0)
{n} = {x}.max(0).values
{n} = emb({x}.long().clamp(0, 5))
{n} = bn({x})
{n} = F.dropout({x}, 0.3)
{n} = torch.rand({x}.shape[0], 2)
{n} = torch.randn_like({x})
{x}.add_(1)
{x}[0] = 5
{x}[:, 0] = 1
{n} = {x}.clone().mul_(2)
{n} = F.scaled_dot_product_attention({x}[None], {x}[None], {x}[None], is_causal=True)
{n} = {x}.index_select(0, torch.tensor([0, 0]))
{n} = {x}[torch.arange({x}.shape[0]) % 2]
{n} = {x}.roll(1, 0)
{n} = torch.where({x} > 0, {x}, {y})
{n} = {x}.norm()
{n} = F.conv1d({x}[None], k3)
{n} = F.avg_pool1d({x}[None], 2)
{n} = {x}.unfold(0, 2, 1)
{n} = torch.nn.functional.cross_entropy({x}, torch.zeros({x}.shape[0], dtype=torch.int64))
{n} = {x}.as_strided((2,), (1,))
{n} = {x}.diagonal()
{n} = torch.einsum('ij,kj->ik', {x}, {x})
{n} = F.interpolate({x}[None, None], scale_factor=2)[0, 0]
{n} = {x}.tolist()
{n} = {x}.sum().item()
{n} = len({x})
{n} = {x}.size(0) - 1
{n} = {x}.nonzero()
{n} = {x}[{x} > 0]
cache.append({x}.shape[0])
big[:{x}.shape[0]] = {x}.detach()
{n} = big[:{x}.shape[0]] * {x}
{n} = torch.cumsum({x}, 1)[:, -1]
{n} = {x}.unflatten(1, (2, -1))
{n} = torch.linspace(0, 1, {x}.shape[0])
{n} = {x} * ({x}.shape[0] ** 0.5)
{n} = torch.full(({x}.shape[0],), {x}.shape[1] / 2)
{n} = float({x}.shape[0])
{n} = {x}.new_zeros({x}.shape[0] + 1)
{n} = {x}[:3]
{n} = {x}[-2:]
{n} = {x}.bfloat16() @ {x}.bfloat16().mT
{n} = {x}.double().mean(0)
{n} = torch.meshgrid(torch.arange({x}.shape[0]), torch.arange(3), indexing='ij')[0]
{n} = {x}.transpose(0, 1).reshape(-1, 2)
""")

BLOCKS = {
    "zero": _templates("""
opt.zero_grad()
opt.zero_grad(set_to_none=False)
model.zero_grad()
for p in model.parameters():
    p.grad = None
pass
"""),
    "forward": _templates("""
loss = F.mse_loss(model(x), y)
with torch.autocast('cpu', dtype=torch.bfloat16):
    loss = F.mse_loss(model(x), y)
loss = F.cross_entropy(model(x), y.argmax(1))
loss = F.mse_loss(torch.utils.checkpoint.checkpoint(model, x, use_reentrant=False), y)
loss = sum(F.mse_loss(model(x), y) for _ in range(2)) / 2
loss = F.mse_loss(model(x + 0.1 * torch.randn_like(x)), y)
loss = F.mse_loss(torch.func.functional_call(model, dict(model.named_parameters()), (x,)), y)
loss = F.mse_loss(Double.apply(model(x)), y)
x.requires_grad_()
& loss = model(x).square().mean()
& g, = torch.autograd.grad(loss, x, create_graph=True)
& loss = loss + g.square().sum()
hidden = []
& h_ = model.register_forward_hook(lambda m, a, o: hidden.append(o))
& loss = F.mse_loss(model(x), y) + hidden[0].abs().mean()
& h_.remove()
def closure():
    opt.zero_grad()
    loss = F.mse_loss(model(x), y)
    loss.backward()
    return loss
& loss = closure()
"""),
    "backward": _templates("""
loss.backward()
scaler.scale(loss).backward()
loss.backward(retain_graph=True)
& loss.backward()
for p, g in zip(model.parameters(), torch.autograd.grad(loss, list(model.parameters()))):
    p.grad = g
(loss / 2).backward()
& (F.mse_loss(model(x), y) / 2).backward()
loss.backward(create_graph=False, inputs=list(model.parameters()))
pass
"""),
    "between": _templates("""
torch.nn.utils.clip_grad_norm_(model.parameters(), clip)
torch.nn.utils.clip_grad_value_(model.parameters(), clip)
pass
pass
pass
norm = torch.nn.utils.clip_grad_norm_(model.parameters(), clip)
& if norm > 1:
    history.append(1)
for p in model.parameters():
    if p.grad is not None:
        p.grad.add_(0.01)
scaler.unscale_(opt)
if loss.item() > 100:
    return loss
norms = torch._foreach_norm([p.grad for p in model.parameters() if p.grad is not None])
"""),
    "step": _templates("""
opt.step()
scaler.step(opt)
& scaler.update()
opt.step()
& sched.step(*([loss.item()] if 'Plateau' in type(sched).__name__ else []))
with torch.no_grad():
    for p in model.parameters():
        if p.grad is not None:
            p -= 0.1 * p.grad
state['count'] += 1
& if state['count'] % 2 == 0:
    opt.step()
    opt.zero_grad()
pass
opt.step(closure) if 'closure' in locals() else opt.step()
"""),
    "after": _templates("""
pass
pass
swa.update_parameters(model)
with torch.no_grad():
    for e, p in zip(ema.values(), model.parameters()):
        e.mul_(decay).add_(p, alpha=1 - decay)
opt.zero_grad()
history.append(loss.item())
history.append(loss.detach())
state['count'] += 1
cache['loss'] = loss
for b in model.buffers():
    b.clone()
"""),
}

TRAIN_WORLD = _templates("""
saved = {k: v.clone() for k, v in model.state_dict().items()}
opt_saved = copy.deepcopy(opt.state_dict())
ema = {n: p.detach().clone() for n, p in model.named_parameters()}
swa = torch.optim.swa_utils.AveragedModel(model)
scaler = torch.amp.GradScaler('cpu', init_scale=8.0, growth_interval=2)
extra = torch.ones(3, requires_grad=True)
history, state, cache = [], {'count': 0}, {}
clip, decay, flag = 1.0, 0.9, True
x = torch.arange(12.0).reshape(3, 4) / 7
y = torch.arange(12.0).flip(0).reshape(3, 4) / 9
""")

TRAIN_AFTER = ["out.sum().backward()", "loss_ = out", "out.backward()", "opt.step()"]

SIZED_WORLD = _templates("""
lin, bn, emb = nn.Linear(4, 3), nn.BatchNorm1d(4), nn.Embedding(6, 3)
cache = []
big = torch.zeros(32, 4)
k3 = torch.ones(2, 4, 1)
""")
