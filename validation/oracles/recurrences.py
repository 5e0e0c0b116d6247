"""A second implementation of recurrent mixers: one layer from its definition, token by token, without a state.

p: the layer's parameters, c: its settings, x: (batch, n, d_model) -> y of the same shape. Sources are cited in
lcprobe/models/mixers.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

Parameters = Mapping[str, Tensor]


def convolved(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Each channel of x (batch, n, channels) times its taps, (channels, width); zeros are before the first token."""
    width = weight.shape[1]
    padded = F.pad(x, (0, 0, width - 1, 0))
    taps = [padded[:, k : k + x.shape[1]] * weight[:, k] for k in range(width)]
    return torch.stack(taps).sum(0) + (0.0 if bias is None else bias)


def normed(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """RMS norm over the last dimension."""
    return x * (x.square().mean(-1, keepdim=True) + eps).rsqrt() * weight


def gated_deltanet(p: Parameters, c: Any, x: Tensor) -> Tensor:
    """One Gated DeltaNet layer."""
    heads, d_v = p["A_log"].shape[0], p["norm_weight"].shape[0]
    keys = heads // c.value_heads * c.head_dim
    u = x @ p["in_proj.weight"].T
    qkv, gate, beta, a = u.split([2 * keys + heads * d_v, heads * d_v, heads, heads], dim=-1)
    decay = (-p["A_log"].exp() * F.softplus(a + p["dt_bias"])).exp()[..., None].expand(-1, -1, -1, c.head_dim)
    return delta_rule(p, c, qkv, decay, beta) * F.silu(gate) @ p["out_proj.weight"].T


def kda(p: Parameters, c: Any, x: Tensor) -> Tensor:
    """One Kimi Delta Attention layer."""
    heads, d_v = p["A_log"].shape[0], p["norm_weight"].shape[0]
    keys, rank = heads // c.value_heads * c.head_dim, p["gate_proj.weight"].shape[1]
    u = x @ p["in_proj.weight"].T
    qkv, beta, f, g = u.split([2 * keys + heads * d_v, heads, rank, rank], dim=-1)
    dt = F.softplus(f @ p["decay_proj.weight"].T + p["dt_bias"]).unflatten(-1, (heads, c.head_dim))
    gate = (g @ p["gate_proj.weight"].T).sigmoid()
    return delta_rule(p, c, qkv, (-p["A_log"].exp()[:, None] * dt).exp(), beta) * gate @ p["out_proj.weight"].T


def delta_product(p: Parameters, c: Any, x: Tensor) -> Tensor:
    """One Gated DeltaProduct layer: a transition matrix I - beta k k^T per step, applied to the whole state."""
    n, heads, d_v = c.n_steps, p["A_log"].shape[0], p["norm_weight"].shape[0]
    keys = heads // c.value_heads * c.head_dim
    qkv, gate, beta, a = (x @ p["in_proj.weight"].T).split(
        [(1 + n) * keys + n * heads * d_v, heads * d_v, n * heads, heads], dim=-1
    )
    decay = (-p["A_log"].exp() * F.softplus(a + p["dt_bias"])).exp()
    qkv = F.silu(convolved(qkv, p["conv_weight"], p.get("conv_bias")))
    q, *parts = qkv.split([keys] * (1 + n) + [heads * d_v] * n, dim=-1)
    q, *k = (unit_keys(t, c) for t in (q, *parts[:n]))
    v, beta = [t.unflatten(-1, (heads, d_v)) for t in parts[n:]], rates(beta, c).chunk(n, dim=-1)
    s, rows = zero_state(q, d_v), []
    for t in range(q.shape[1]):
        s = decay[:, t, :, None, None] * s
        for k_i, v_i, beta_i in zip(k, v, beta, strict=True):
            moved = torch.eye(c.head_dim).to(s) - torch.einsum("bh,bhi,bhj->bhij", beta_i[:, t], k_i[:, t], k_i[:, t])
            s = moved @ s + torch.einsum("bh,bhk,bhv->bhkv", beta_i[:, t], k_i[:, t], v_i[:, t])
        rows.append(torch.einsum("bhk,bhkv->bhv", q[:, t], s) * c.head_dim**-0.5)
    o = normed(torch.stack(rows, 1), p["norm_weight"], c.norm_eps).flatten(2)
    return o * F.silu(gate) @ p["out_proj.weight"].T


def gdn2(p: Parameters, c: Any, x: Tensor) -> Tensor:
    """One Gated DeltaNet-2 layer."""
    keys, rank, d_v = p["dt_bias"].shape[0], p["gate_proj.weight"].shape[1], p["norm_weight"].shape[0]
    values = p["out_proj.weight"].shape[1]
    qkv, b, w, f, g = (x @ p["in_proj.weight"].T).split([2 * keys + values, keys, values, rank, rank], dim=-1)
    dt = F.softplus(f @ p["decay_proj.weight"].T + p["dt_bias"]).unflatten(-1, (-1, c.head_dim))
    decay = (-p["A_log"].exp()[:, None] * dt).exp().repeat_interleave(c.value_heads, 2)
    q, k, v = F.silu(convolved(qkv, p["conv_weight"], p.get("conv_bias"))).split([keys, keys, values], dim=-1)
    q, k, v = unit_keys(q, c), unit_keys(k, c), (v * w.sigmoid()).unflatten(-1, (-1, d_v))
    b = rates(b, c).unflatten(-1, (-1, c.head_dim)).repeat_interleave(c.value_heads, 2)
    s, rows = zero_state(q, d_v), []
    for t in range(q.shape[1]):
        moved = torch.eye(c.head_dim).to(s) - torch.einsum("bhi,bhj->bhij", k[:, t], b[:, t] * k[:, t])
        s = moved @ (decay[:, t, :, :, None] * s) + torch.einsum("bhk,bhv->bhkv", k[:, t], v[:, t])
        rows.append(torch.einsum("bhk,bhkv->bhv", q[:, t], s) * c.head_dim**-0.5)
    gate = (g @ p["gate_proj.weight"].T + p["gate_proj.bias"]).sigmoid()
    return normed(torch.stack(rows, 1), p["norm_weight"], c.norm_eps).flatten(2) * gate @ p["out_proj.weight"].T


def delta_rule(p: Parameters, c: Any, qkv: Tensor, decay: Tensor, beta: Tensor) -> Tensor:
    """Normed outputs of all heads side by side, before the gate. decay: (batch, n, heads, head_dim)."""
    heads, d_v = p["A_log"].shape[0], p["norm_weight"].shape[0]
    keys = heads // c.value_heads * c.head_dim
    q, k, v = F.silu(convolved(qkv, p["conv_weight"], p.get("conv_bias"))).split([keys, keys, heads * d_v], dim=-1)
    q, k = unit_keys(q, c), unit_keys(k, c)
    v, beta = v.unflatten(-1, (heads, d_v)), rates(beta, c)
    s, rows = zero_state(q, d_v), []
    for t in range(q.shape[1]):
        s = decay[:, t, :, :, None] * s
        held = torch.einsum("bhk,bhkv->bhv", k[:, t], s)
        s = s + torch.einsum("bh,bhk,bhv->bhkv", beta[:, t], k[:, t], v[:, t] - held)
        rows.append(torch.einsum("bhk,bhkv->bhv", q[:, t], s) * c.head_dim**-0.5)
    return normed(torch.stack(rows, 1), p["norm_weight"], c.norm_eps).flatten(2)


def unit_keys(x: Tensor, c: Any) -> Tensor:
    """Keys or queries of every head of values, of unit length: (batch, n, keys) -> (batch, n, heads, head_dim)."""
    x = x.unflatten(-1, (-1, c.head_dim)).repeat_interleave(c.value_heads, 2)
    return x / (x.square().sum(-1, keepdim=True) + 1e-6).sqrt()


def rates(x: Tensor, c: Any) -> Tensor:
    """How much of what a key holds is replaced, from logits."""
    return x.sigmoid() * (2 if c.negative_eigenvalues else 1)


def zero_state(q: Tensor, d_v: int) -> Tensor:
    """The state before the first token, for queries (batch, n, heads, d_k)."""
    return q.new_zeros(q.shape[0], q.shape[2], q.shape[3], d_v)


def gla(p: Parameters, c: Any, x: Tensor) -> Tensor:
    """One layer of gated linear attention."""
    d_v, keys = p["norm_weight"].shape[0], p["decay_proj.weight"].shape[0]
    values, heads = p["out_proj.weight"].shape[1], keys // c.head_dim
    q, k, v, gate, low = (x @ p["in_proj.weight"].T).split([keys, keys, values, values, c.rank], dim=-1)
    decay = torch.sigmoid(low @ p["decay_proj.weight"].T + p["decay_proj.bias"]) ** (1 / c.tau)
    q, k, decay = (t.unflatten(-1, (heads, c.head_dim)) for t in (q, k, decay))
    o = linear_attention(q, k, v.unflatten(-1, (heads, d_v)), decay) * c.head_dim**-0.5
    return normed(o, p["norm_weight"], c.norm_eps).flatten(2) * F.silu(gate) @ p["out_proj.weight"].T


def lightning(p: Parameters, c: Any, x: Tensor) -> Tensor:
    """One layer of lightning attention, the only one of its model."""
    heads = p["norm_weight"].shape[0] // c.head_dim
    q, k, v, gate = (x @ p["in_proj.weight"].T).chunk(4, dim=-1)
    q, k, v = (F.silu(t).unflatten(-1, (heads, c.head_dim)) for t in (q, k, v))
    fixed = {
        "minimax": [math.exp(-(2 ** (-8 * h / heads)) * (1 + 1e-5)) for h in range(1, heads + 1)],
        "retnet": [1 - 2 ** (-5 - h) for h in range(heads)],
    }
    decay = x.new_tensor(fixed[c.decays])[:, None].expand(q.shape)
    o = normed(linear_attention(q, k, v, decay).flatten(2), p["norm_weight"], c.norm_eps)
    return o * gate.sigmoid() @ p["out_proj.weight"].T


def mlstm(p: Parameters, c: Any, x: Tensor) -> Tensor:
    """One mLSTM layer, with the state divided by exp(m)."""
    heads, values = p["gate_proj.bias"].shape[0] // 2, p["norm_weight"].shape[0]
    keys = heads * c.head_dim
    q, k, v, gate = (x @ p["in_proj.weight"].T).split([keys, keys, values, values], dim=-1)
    q, k, v = (t.unflatten(-1, (heads, -1)) for t in (q * c.head_dim**-0.5, k, v))
    i, f = (
        c.gate_soft_cap * torch.tanh((x @ p["gate_proj.weight"].T + p["gate_proj.bias"]) / c.gate_soft_cap)
    ).split(heads, dim=-1)
    s, n, m, rows = zero_state(q, v.shape[3]), torch.zeros_like(q[:, 0]), torch.zeros_like(i[:, 0]), []
    for t in range(x.shape[1]):
        before, m = m + F.logsigmoid(f[:, t]), torch.maximum(F.logsigmoid(f[:, t]) + m, i[:, t])
        kept, written = (before - m).exp()[..., None], (i[:, t] - m).exp()[..., None]
        s = kept[..., None] * s + torch.einsum("bhk,bhv->bhkv", written * k[:, t], v[:, t])
        n = kept * n + written * k[:, t]
        least = torch.maximum((n * q[:, t]).sum(-1).abs(), (-m).exp()) + c.eps
        rows.append(torch.einsum("bhk,bhkv->bhv", q[:, t], s) / least[..., None])
    h = torch.stack(rows, 1)
    h = F.layer_norm(h, h.shape[-1:], eps=c.norm_eps).flatten(2) * p["norm_weight"]
    return h * gate.sigmoid() @ p["out_proj.weight"].T


def linear_attention(q: Tensor, k: Tensor, v: Tensor, decay: Tensor) -> Tensor:
    """Outputs of all heads, (batch, n, heads, d_v); q, k, decay: (batch, n, heads, d_k)."""
    s, rows = zero_state(q, v.shape[3]), []
    for t in range(q.shape[1]):
        s = decay[:, t, :, :, None] * s + torch.einsum("bhk,bhv->bhkv", k[:, t], v[:, t])
        rows.append(torch.einsum("bhk,bhkv->bhv", q[:, t], s))
    return torch.stack(rows, 1)


def rg_lru(p: Parameters, c: Any, x: Tensor) -> Tensor:
    """One recurrent block of Griffin."""
    gate, u = (x @ p["in_proj.weight"].T + p["in_proj.bias"]).chunk(2, dim=-1)
    u = convolved(u, p["conv_weight"], p["conv_bias"])
    w_i, w_r = (torch.block_diag(*w) for w in p["gate_weight"].chunk(2, dim=2))
    b_i, b_r = (b.flatten() for b in p["gate_bias"].view(c.n_blocks, -1).chunk(2, dim=1))
    i, r = (u @ w_i + b_i).sigmoid(), (u @ w_r + b_r).sigmoid()
    a = (-8 * F.softplus(p["a_param"]) * r).exp()
    h, rows = torch.zeros_like(u[:, 0]), []
    for t in range(x.shape[1]):
        h = a[:, t] * h + (1.0 if t == 0 else (1 - a[:, t].square()).sqrt()) * i[:, t] * u[:, t]
        rows.append(h)
    y = torch.stack(rows, 1) * F.gelu(gate, approximate="tanh")
    return y @ p["out_proj.weight"].T + p["out_proj.bias"]


def mamba1(p: Parameters, c: Any, x: Tensor) -> Tensor:
    """One Mamba layer. h: (batch, channels, d_state)."""
    u, z = (x @ p["in_proj.weight"].T + p.get("in_proj.bias", 0.0)).chunk(2, dim=-1)
    u = F.silu(convolved(u, p["conv_weight"], p.get("conv_bias")))
    rank = p["dt_proj.weight"].shape[1]
    r, b, readout = (u @ p["x_proj.weight"].T).split([rank, c.d_state, c.d_state], dim=-1)
    if c.input_norm_eps is not None:
        r, b, readout = (t / (t.square().mean(-1, keepdim=True) + c.input_norm_eps).sqrt() for t in (r, b, readout))
    dt, a = F.softplus(r @ p["dt_proj.weight"].T + p["dt_proj.bias"]), -p["A_log"].exp()
    h, rows = u.new_zeros(*u[:, 0].shape, c.d_state), []
    for t in range(x.shape[1]):
        h = (dt[:, t, :, None] * a).exp() * h + torch.einsum("bc,bn->bcn", dt[:, t] * u[:, t], b[:, t])
        rows.append(torch.einsum("bcn,bn->bc", h, readout[:, t]))
    y = (torch.stack(rows, 1) + p["D"] * u) * F.silu(z)
    return y @ p["out_proj.weight"].T + p.get("out_proj.bias", 0.0)


def mamba3(p: Parameters, c: Any, x: Tensor) -> Tensor:
    """One Mamba-3 layer. Rotations are products of complex numbers. s: (batch, heads, head_dim, d_state)."""
    heads, groups, n_angles = p["D"].shape[0], c.n_groups, int(c.d_state * c.rope_fraction) // 2
    z, v, b, readout, dd_dt, dd_a, trap, angles = (x @ p["in_proj.weight"].T).split(
        [heads * c.head_dim] * 2 + [groups * c.d_state] * 2 + [heads] * 3 + [n_angles], dim=-1
    )
    dt, v = F.softplus(dd_dt + p["dt_bias"]), v.unflatten(-1, (heads, c.head_dim))
    minus_a = F.softplus(dd_a) if c.definition == "softplus" else torch.where(dd_a < 0, 1 / (1 - dd_a), 1 + dd_a)
    alpha = torch.exp(-torch.maximum(minus_a, torch.tensor(c.A_floor, dtype=x.dtype)) * dt)
    gamma, beta = trap.sigmoid() * dt, (1 - trap.sigmoid()) * dt * alpha
    k, q = (
        normed(part.unflatten(-1, (groups, -1)), p[f"{name}_norm_weight"], c.norm_eps).repeat_interleave(
            heads // groups, 2
        )
        + p[f"{name}_bias"]
        for name, part in (("B", b), ("C", readout))
    )
    theta, s = x.new_zeros(x.shape[0], heads, n_angles), x.new_zeros(x.shape[0], heads, c.head_dim, c.d_state)
    last_k, last_v, rows = torch.zeros_like(k[:, 0]), torch.zeros_like(v[:, 0]), []
    for t in range(x.shape[1]):
        theta = theta + math.pi * torch.tanh(angles[:, t, None]) * dt[:, t, :, None]
        q_t, k_t = _turned(q[:, t], theta), _turned(k[:, t], theta)
        a, g, d = (w[:, t, :, None, None] for w in (alpha, gamma, beta))
        s = a * s + d * last_v[..., None] * last_k[:, :, None] + g * v[:, t, :, :, None] * k_t[:, :, None]
        rows.append(torch.einsum("bhvn,bhn->bhv", s, q_t) + p["D"][:, None] * v[:, t])
        last_k, last_v = k_t, v[:, t]
    y = torch.stack(rows, 1)
    if c.output_norm:
        y = normed(y, p["norm_weight"].view(heads, c.head_dim), c.norm_eps)
    return (y.flatten(2) * F.silu(z)) @ p["out_proj.weight"].T


def _turned(x: Tensor, theta: Tensor) -> Tensor:
    """Neighbouring channels of x (..., n) as complex numbers times exp(i theta); channels beyond stay."""
    n = 2 * theta.shape[-1]
    z = torch.view_as_complex(x[..., :n].unflatten(-1, (-1, 2)).contiguous())
    turned = torch.view_as_real(z * torch.polar(torch.ones_like(theta), theta)).flatten(-2)
    return torch.cat([turned, x[..., n:]], -1)


def rwkv6(p: Parameters, c: Any, x: Tensor) -> Tensor:
    """One RWKV-6 layer."""
    change = F.pad(x, (0, 0, 1, -1)) - x
    low = torch.tanh((x + change * p["mix_x"]) @ p["mix_down"]).chunk(5, dim=-1)
    ups = zip(p["mix"], low, p["mix_up"], strict=True)
    w, k, v, r, g = (x + change * (m + part @ up) for m, part, up in ups)
    w = torch.exp(-torch.exp(p["decay_base"] + torch.tanh(w @ p["decay.down"]) @ p["decay.up"]))
    r, k, v = (t @ p[f"{name}.weight"].T for name, t in (("receptance", r), ("key", k), ("value", v)))
    r, k, v, w = (t.unflatten(-1, (-1, c.head_dim)) for t in (r, k, v, w))
    s, rows = zero_state(r, c.head_dim), []
    for t in range(x.shape[1]):
        written = torch.einsum("bhk,bhv->bhkv", k[:, t], v[:, t])
        rows.append(torch.einsum("bhk,bhkv->bhv", r[:, t], s + p["bonus"][..., None] * written))
        s = w[:, t, :, :, None] * s + written
    return head_norm(p, c, torch.stack(rows, 1)) * F.silu(g @ p["gate.weight"].T) @ p["out_proj.weight"].T


def rwkv7(p: Parameters, c: Any, x: Tensor, first: Tensor | None = None) -> Tensor:
    """One RWKV-7 layer. first: v of the first layer, (batch, n, d_model); None: this is it. S: (d_v, d_k)."""

    def low_rank(t: Tensor, name: str, change: Callable[[Tensor], Tensor] = lambda t: t) -> Tensor:
        return change(t @ p[f"{name}.down"]) @ p[f"{name}.up"]

    r, w, k, v, a, g = (x + (F.pad(x, (0, 0, 1, -1)) - x) * m for m in p["mix"])
    # the decay as the release's training code has it
    w = torch.exp(-torch.exp(-F.softplus(-(p["decay_base"] + low_rank(w, "decay", torch.tanh))) - 0.5))
    a, base = torch.sigmoid(p["rate_base"] + low_rank(a, "rate")), v
    r, k, v = (t @ p[f"{name}.weight"].T for name, t in (("receptance", r), ("key", k), ("value", v)))
    if first is not None:
        v = v + (first - v) * torch.sigmoid(p["first_base"] + low_rank(base, "first"))
    removal, k = k * p["removal_key"], k * (1 + (a - 1) * p["key_rate"])
    r, w, k, v, a, removal = (t.unflatten(-1, (-1, c.head_dim)) for t in (r, w, k, v, a, removal))
    kappa = removal / removal.norm(dim=-1, keepdim=True)
    s, rows = zero_state(r, c.head_dim), []
    for t in range(x.shape[1]):
        move = torch.diag_embed(w[:, t]) - torch.einsum("bhi,bhj->bhij", kappa[:, t], a[:, t] * kappa[:, t])
        s = s @ move + torch.einsum("bhv,bhk->bhvk", v[:, t], k[:, t])
        rows.append(torch.einsum("bhvk,bhk->bhv", s, r[:, t]))
    bonus = (r * p["bonus"] * k).sum(-1, keepdim=True) * v
    y = head_norm(p, c, torch.stack(rows, 1)) + bonus.flatten(2)
    return y * low_rank(g, "gate", torch.sigmoid) @ p["out_proj.weight"].T


def head_norm(p: Parameters, c: Any, o: Tensor) -> Tensor:
    """RWKV's GroupNorm with a group for each head, (batch, n, heads, d_v) -> (batch, n, heads x d_v)."""
    flat = o.flatten(0, 1).flatten(1)
    return F.group_norm(flat, o.shape[2], p["norm_weight"], p["norm_bias"], c.norm_eps).view(*o.shape[:2], -1)


RECURRENCES: dict[str, Callable[[Parameters, Any, Tensor], Tensor]] = {
    "delta_product": delta_product,
    "gated_deltanet": gated_deltanet,
    "gdn2": gdn2,
    "gla": gla,
    "kda": kda,
    "lightning": lightning,
    "mamba1": mamba1,
    "mamba3": mamba3,
    "mlstm": mlstm,
    "rg_lru": rg_lru,
    "rwkv6": rwkv6,
    "rwkv7": rwkv7,
}
"""By the name of the mixer."""
