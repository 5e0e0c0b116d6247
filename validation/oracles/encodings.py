"""A second implementation of every positional encoding: dense, from its paper's equation, in plain PyTorch, without
project code.

`equations` and the tests compare the encodings with it. Nothing is optimised, cached or chunked: each score has its
query and its key, products over tokens are computed token by token, and everything is float64 where the inputs are.
Papers and numbers of equations are cited in the encodings' own files.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True)
class EquationInputs:
    """One layer's inputs. q, k, v: (batch, n, n_heads, head_dim), keys and values repeated for their `group` of query
    heads; x: (batch, n, d_model); at: (n,) positions; p: parameters by name; c: the settings; length: the training
    length; window: keys that a query attends to, None for all.
    """

    q: Tensor
    k: Tensor
    v: Tensor
    x: Tensor
    at: Tensor
    p: Mapping[str, Tensor]
    c: Any
    length: int
    group: int
    window: int | None = None

    @property
    def distance(self) -> Tensor:
        """i - j: (n, n), in the inputs' dtype."""
        return (self.at[:, None] - self.at).to(self.q.dtype)

    @property
    def visible(self) -> Tensor:
        """The causal mask, restricted to the window: (n, n) bool."""
        n = torch.arange(self.q.shape[1])
        back = n[:, None] - n
        return (back >= 0) & (back < (self.window or len(n)))

    @property
    def scores(self) -> Tensor:
        """q_i . k_j / sqrt(head_dim): (batch, n_heads, n, n)."""
        return torch.einsum("bihd,bjhd->bhij", self.q, self.k) * self.q.shape[3] ** -0.5

    def per_query_head(self, t: Tensor, dim: int) -> Tensor:
        """A tensor of key heads, repeated for their query heads."""
        return t.repeat_interleave(self.group, dim)


def attend(g: EquationInputs, scores: Tensor, visible: Tensor | None = None) -> Tensor:
    """Softmax attention: scores (batch, n_heads, n, n) -> outputs (batch, n, n_heads, head_dim)."""
    weights = scores.masked_fill(~(g.visible if visible is None else visible), -math.inf).softmax(-1)
    return torch.einsum("bhij,bjhd->bihd", weights, g.v)


def geometric(base: float, dim: int, step: int = 2) -> Tensor:
    """base^(-m / dim), m = 0, step, 2 step .. < dim."""
    return base ** (-torch.arange(0, dim, step, dtype=torch.float64) / dim)


def as_complex(t: Tensor, pairs: int) -> Tensor:
    """The first 2 * pairs entries as complex numbers, halves as real and imaginary parts."""
    return torch.complex(t[..., :pairs], t[..., pairs : 2 * pairs])


def rotary_scores(
    g: EquationInputs, theta: Tensor, weight: Tensor | None = None, distance: Tensor | None = None
) -> Tensor:
    """Scores Re(q_m conj(k_m) exp(i theta_m distance)), times `weight` (n, n, pairs); entries without a pair give a
    plain product.
    """
    pairs, angle = len(theta), (g.distance if distance is None else distance)[..., None] * theta
    turns = torch.polar(torch.ones_like(angle) if weight is None else weight, angle)
    rotary = torch.einsum("bihm,bjhm,ijm->bhij", as_complex(g.q, pairs), as_complex(g.k, pairs).conj(), turns).real
    plain = torch.einsum("bihd,bjhd->bhij", g.q[..., 2 * pairs :], g.k[..., 2 * pairs :])
    return (rotary + plain) * g.q.shape[3] ** -0.5


def rope(g: EquationInputs) -> Tensor:
    return attend(g, rotary_scores(g, geometric(g.c.base, int(g.q.shape[3] * g.c.fraction))))


def prope(g: EquationInputs) -> Tensor:
    theta = geometric(g.c.base, g.q.shape[3])
    theta[int(g.c.fraction * len(theta)) :] = 0
    return attend(g, rotary_scores(g, theta))


def hope(g: EquationInputs) -> Tensor:
    theta = geometric(g.c.base, g.q.shape[3])
    theta[2 * math.pi / theta > g.length] = 0
    return attend(g, rotary_scores(g, theta))


def xpos(g: EquationInputs) -> Tensor:
    d = g.q.shape[3]
    zeta = (torch.arange(0, d, 2).double() / d + g.c.gamma) / (1 + g.c.gamma)
    return attend(g, rotary_scores(g, geometric(g.c.base, d), zeta ** (g.distance[..., None] / g.c.scale)))


def fope(g: EquationInputs) -> Tensor:
    theta = geometric(g.c.base, g.q.shape[3])
    kept = theta[2 * math.pi / theta <= g.length]
    mixed = (
        torch.zeros(len(g.at), len(theta), dtype=torch.complex128) + 1
    )  # pairs without a frequency stay as they are
    for pair in range(len(kept)):
        cos, sin = (g.p[name][:, pair] / g.p[name][:, pair].sum() for name in ("cos_mix", "sin_mix"))
        angle = g.at[:, None] * kept
        mixed[:, pair] = torch.complex((angle.cos() * cos).sum(1), (angle.sin() * sin).sum(1))
    q, k = (as_complex(t, len(theta)) * mixed[:, None] for t in (g.q, g.k))
    return attend(g, torch.einsum("bihm,bjhm->bhij", q, k.conj()).real * g.q.shape[3] ** -0.5)


def pope(g: EquationInputs) -> Tensor:
    d = g.q.shape[3]
    angle = -g.distance[..., None] * geometric(g.c.base, d, 1)
    phase = g.per_query_head(g.p["phase"].clamp(-2 * math.pi, 0), 0)
    cos = (angle + phase[:, None, None]).cos()  # (n_heads, n, n, d)
    return attend(g, torch.einsum("bihm,bjhm,hijm->bhij", F.softplus(g.q), F.softplus(g.k), cos) * d**-0.5)


def selective_rope(g: EquationInputs) -> Tensor:
    theta = geometric(g.c.base, g.q.shape[3])
    step = theta * (1 + (g.x @ g.p["phases"].T).unflatten(-1, (-1, len(theta))))
    angle = g.per_query_head(step.cumsum(1), 2)
    q, k = (as_complex(t, len(theta)) * torch.polar(torch.ones_like(angle), angle) for t in (g.q, g.k))
    return attend(g, torch.einsum("bihm,bjhm->bhij", q, k.conj()).real * g.q.shape[3] ** -0.5)


def heads(g: EquationInputs) -> Tensor:
    """1 .. n_heads, with two trailing axes for positions."""
    return torch.arange(1, g.q.shape[2] + 1, dtype=g.q.dtype)[:, None, None]


def alibi_bias(g: EquationInputs) -> Tensor:
    """ALiBi for a power of two of heads; learned slopes where there are any."""
    slope = g.p["log_slopes"].exp()[:, None, None] if "log_slopes" in g.p else 2 ** (-8 * heads(g) / len(heads(g)))
    return -slope * g.distance


def t5_bias(g: EquationInputs) -> Tensor:
    half, d = g.c.n_buckets // 2, g.distance.clamp_min(0)
    far = sum((d >= half * (g.c.max_distance / half) ** (m / half)).long() for m in range(1, half))
    return g.p["weight"][:, torch.where(d < half, d.long(), half + far)]


def kerple_bias(g: EquationInputs, at: str = "", kernel: str = "log") -> Tensor:
    raw1, raw2 = (g.p[f"{at}{name}"][:, None, None] for name in ("raw1", "raw2"))
    d = g.distance.clamp_min(0)
    return -raw1.exp() * (torch.log(1 + raw2.exp() * d) if kernel == "log" else d ** (2 / (1 + torch.exp(-raw2))))


def sandwich_bias(g: EquationInputs, width: int = 128, base: float = 10000.0) -> Tensor:
    return (g.distance[..., None] * geometric(base, width)).cos().sum(-1) * len(heads(g)) / (8 * heads(g))


def fire_bias(g: EquationInputs) -> Tensor:
    edge = g.length if "threshold_factor" not in g.p else abs(g.p["threshold_factor"] * g.c.initial_threshold)
    d, place = g.distance.clamp_min(0), g.at - g.at[0]
    top, bottom = torch.log(1 + abs(g.p["c"] * d)), torch.log(1 + abs(g.p["c"] * place.clamp_min(edge)))
    hidden = (top / (bottom[:, None] + 1e-6))[..., None] * g.p["in_weight"] + g.p["in_bias"]
    return (hidden.relu() @ g.p["out_weight"].T + g.p["out_bias"]).movedim(-1, 0)


def gate_bias(g: EquationInputs, log_gate: Callable[[Tensor], Tensor]) -> Tensor:
    """sum of log_gate over the tokens after the key, up to the query: (batch, n_heads, n, n)."""
    each, n = log_gate(g.x @ g.p["gate_weight"].T + g.p["gate_bias"]), len(g.at)
    bias = g.q.new_zeros(len(g.q), each.shape[2], n, n)
    for i in range(n):
        for j in range(i):
            bias[:, :, i, j] = each[:, j + 1 : i + 1].sum(1)
    return bias


def fox_bias(g: EquationInputs) -> Tensor:
    return gate_bias(g, lambda z: torch.log(1 / (1 + torch.exp(-z))))


def cable_bias(g: EquationInputs) -> Tensor:
    return gate_bias(g, lambda z: -torch.log(1 + torch.exp(z)))


def cope(g: EquationInputs) -> Tensor:
    last = g.c.max_position - 1
    gates = g.scores.sigmoid().masked_fill(~g.visible, 0)
    extra = torch.zeros_like(gates)
    for i in range(len(g.at)):
        for j in range(i + 1):
            count = gates[:, :, i, j : i + 1].sum(-1).clamp(max=last)
            low = count.floor().long()
            ends = [(g.q[:, i] * g.p["embedding"][at]).sum(-1) for at in (low, (low + 1).clamp(max=last))]
            extra[:, :, i, j] = (1 - (count - low)) * ends[0] + (count - low) * ends[1]
    return attend(g, g.scores + extra)


def stick_breaking(g: EquationInputs) -> Tensor:
    share, out = g.scores.sigmoid(), torch.zeros_like(g.v)
    for i in range(len(g.at)):
        left = torch.ones_like(share[:, :, i, 0])
        for j in range(i if g.c.attend_current else i - 1, -1, -1):
            if g.visible[i, j]:
                out[:, i] += (left * share[:, :, i, j])[..., None] * g.v[:, j]
                left = left * (1 - share[:, :, i, j])
        if g.c.remainder:
            out[:, i] += left[..., None] * g.v[:, i]
    return out


def directions(g: EquationInputs) -> tuple[Tensor, Tensor]:
    """w (batch, n, n_kv_heads, head_dim) and beta (batch, n, n_kv_heads) of PaTH."""
    n, taps = len(g.at), g.c.d_conv
    padded = F.pad(g.x @ g.p["down"].T @ g.p["up"].T, (0, 0, taps - 1, 0))
    w = F.silu(sum((padded[:, t : t + n] * g.p["conv_weight"][:, t] for t in range(taps)), torch.zeros(())))
    w = w.unflatten(-1, (-1, g.q.shape[3]))
    return w / (w.square().sum(-1, keepdim=True) + 1e-6).sqrt(), 2 * torch.sigmoid(
        g.x @ g.p["beta_weight"].T + g.p["beta_bias"]
    )


def path(g: EquationInputs) -> Tensor:
    w, beta = (g.per_query_head(t, 2) for t in directions(g))
    scores = torch.zeros_like(g.scores)
    for i in range(len(g.at)):
        at = g.q[:, i]
        for j in range(i, -1, -1):
            scores[:, :, i, j] = (at * g.k[:, j]).sum(-1) * g.q.shape[3] ** -0.5
            at = at - (beta[:, j] * (at * w[:, j]).sum(-1))[..., None] * w[:, j]
    return attend(g, scores)


def dape(g: EquationInputs) -> Tensor:
    bases = {"alibi": alibi_bias, "kerple": lambda g: kerple_bias(g, "base."), "sandwich": sandwich_bias}
    bias = bases[g.c.base](g).expand_as(g.scores)
    both = torch.cat([g.scores, bias], dim=1).movedim(1, -1)
    hidden = F.leaky_relu(both @ g.p["in_weight"].T + g.p["in_bias"], 0.01)
    return attend(g, g.scores + bias + (hidden @ g.p["out_weight"].T + g.p["out_bias"]).movedim(-1, 1))


def tape(g: EquationInputs) -> Tensor:
    """Two layers with the same inputs: the second reads the carry of the first. (c, s) of a pair are one complex
    number.
    """
    theta, out = geometric(g.c.base, int(g.q.shape[3] * g.c.fraction)), g.q
    pairs, angle = len(theta), g.at[:, None] * theta
    e = torch.polar(torch.ones_like(angle), angle)[None, :, None].expand(len(g.q), -1, g.q.shape[2], -1)
    a, plain = e, torch.einsum("bihd,bjhd->bhij", g.q[..., 2 * pairs :], g.k[..., 2 * pairs :])
    for _ in range(2):
        e = e + g.p["mix"][:, None] * a
        hidden = torch.einsum("wg,bigm->biwm", g.p["up"].to(e.dtype), e) * F.silu(g.x @ g.p["gate"].T)[..., None]
        e = e + torch.einsum("hw,biwm->bihm", g.p["down"].to(e.dtype), hidden)
        scores = (
            torch.einsum("bihm,bjhm->bhij", as_complex(g.q, pairs) * e, (as_complex(g.k, pairs) * e).conj()).real
            + plain
        )
        weights = (scores * g.q.shape[3] ** -0.5).masked_fill(~g.visible, -math.inf).softmax(-1)
        out, a = (
            torch.einsum("bhij,bjhd->bihd", weights, g.v),
            torch.einsum("bhij,bjhm->bihm", weights.to(e.dtype), e),
        )
    return out


def learned(g: EquationInputs) -> Tensor:
    return g.x + g.p["rows"][g.at.long()]


def sinusoidal(g: EquationInputs) -> Tensor:
    angle = g.at[:, None] * geometric(g.c.base, g.x.shape[2])
    return g.x + g.p["scale"] * torch.cat([angle.sin(), angle.cos()], dim=1)


BIASES: dict[str, Callable[[EquationInputs], Tensor]] = {
    "alibi": alibi_bias,
    "t5": t5_bias,
    "kerple": lambda g: kerple_bias(g, kernel=g.c.kernel),
    "sandwich": lambda g: sandwich_bias(g, g.c.width, g.c.base),
    "fire": fire_bias,
    "fox": fox_bias,
    "cable": cable_bias,
}
"""Score biases: (n_heads, n, n) or (batch, n_heads, n, n)."""
FORMULAS: dict[str, Callable[[EquationInputs], Tensor]] = {
    "none": lambda g: attend(g, g.scores),
    "learned": learned,
    "sinusoidal": sinusoidal,
    "rope": rope,
    "prope": prope,
    "hope": hope,
    "xpos": xpos,
    "fope": fope,
    "pope": pope,
    "selective_rope": selective_rope,
    **{name: lambda g, bias=bias: attend(g, g.scores + bias(g)) for name, bias in BIASES.items()},
    "cope": cope,
    "stick_breaking": stick_breaking,
    "path": path,
    "dape": dape,
    "tape": tape,
}
"""Outputs of attention, (batch, n, n_heads, head_dim); for the two absolute encodings the embedding with positions,
like x."""
