"""A second implementation of every extension method, dense and from its definition.

Attention: RoPE's scores with other frequencies, at other distances, between other pairs, or scaled. Mamba2: the
recurrence token by token. Sources are cited in lcprobe/models/extend.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from validation.oracles.encodings import EquationInputs, attend, geometric, rotary_scores

Pair = tuple[float, bool]
BASE = 10000.0


def turns(g: EquationInputs) -> Tensor:
    """The number of full rotations of each pair within the training length."""
    return g.length * geometric(BASE, g.q.shape[3]) / (2 * math.pi)


def by_parts(g: EquationInputs, s: float, kept: Tensor) -> Tensor:
    theta = geometric(BASE, g.q.shape[3])
    return kept * theta + (1 - kept) * theta / s


def ntk(g: EquationInputs, s: float) -> Tensor:
    d = g.q.shape[3]
    return geometric(BASE * s ** (d / (d - 2)), d)


def ntk_dynamic(g: EquationInputs, s: float) -> Tensor:
    ratio = max(1.0, len(g.at) / g.length)
    return ntk(g, ratio if g.c.variant == "length" else s * ratio - (s - 1))


def parts(g: EquationInputs, s: float) -> Tensor:
    return by_parts(g, s, ((turns(g) - g.c.a) / (g.c.b - g.c.a)).clamp(0, 1))


def yarn(g: EquationInputs, s: float) -> Tensor:
    """YaRN with the paper's ramp, or with the released code's: linear in the index of the pair, by default between
    whole pairs.
    """
    if g.c.ramp == "rotations":
        return parts(g, s)
    d = g.q.shape[3]
    low, high = (d * math.log(g.length / (t * 2 * math.pi)) / (2 * math.log(BASE)) for t in (g.c.b, g.c.a))
    low, high = (math.floor(low), math.ceil(high)) if g.c.truncate else (low, high)
    low, high = max(low, 0), min(high, d - 1)
    return by_parts(g, s, 1 - ((torch.arange(d // 2).double() - low) / (high - low)).clamp(0, 1))


def on_cos_and_sin(name: str, g: EquationInputs, s: float) -> float:
    """The factor by which a method multiplies both cos and sin."""
    return {"yarn": 0.1 * math.log(s) + 1, "longrope": math.sqrt(1 + math.log(s) / math.log(g.length))}.get(name, 1.0)


def resonance(g: EquationInputs, s: float) -> Tensor:
    return 2 * math.pi / (2 * math.pi / geometric(BASE, g.q.shape[3])).round()


FREQUENCIES: dict[str, Callable[[EquationInputs, float], Tensor]] = {
    "pi": lambda g, s: geometric(BASE, g.q.shape[3]) / s,
    "ntk": ntk,
    "ntk_dynamic": ntk_dynamic,
    "ntk_by_parts": parts,
    "llama3": parts,
    "yarn": yarn,
    "longrope": lambda g, s: geometric(BASE, g.q.shape[3]) / torch.tensor(g.c.long, dtype=torch.float64),
    "resonance": resonance,
    "drop": lambda g, s: geometric(BASE, g.q.shape[3]) * 0,
}
"""Radians per token of each pair at factor s."""


def self_extend(g: EquationInputs, s: float, i: int, j: int) -> Pair:
    w = g.c.window or g.length // 4
    last = math.ceil(s * g.length) - 1  # the farthest pair: the last token and the first
    step = g.c.group or next(k for k in range(1, last + 2) if last // k + w - w // k < g.length)
    return (i - j if i - j < w else i // step - j // step + w - w // step), True


def rerope(g: EquationInputs, s: float, i: int, j: int) -> Pair:
    return min(i - j, g.c.window or g.length // 2), True


def leaky_rerope(g: EquationInputs, s: float, i: int, j: int) -> Pair:
    w = g.c.window or g.length // 2
    k = g.c.k or (s * g.length - w) / (g.length - w)
    return (i - j if i - j < w else w + (i - j - w) / k), True


def dca(g: EquationInputs, s: float, i: int, j: int) -> Pair:
    c = g.c.chunk or 3 * g.length // 4
    if i // c == j // c:
        return i - j, True
    if i // c == j // c + 1:
        return min(c + i % c, g.length - 1) - j % c, True
    return g.length - 1 - j % c, True


def lm_infinite(g: EquationInputs, s: float, i: int, j: int) -> Pair:
    w = g.c.window or g.length
    return min(i - j, w), i - j < w or j < g.c.sinks


def streaming(g: EquationInputs, s: float, i: int, j: int) -> Pair:
    w = g.c.window or g.length - g.c.sinks
    cache = [t for t in range(i + 1) if t < g.c.sinks or t > i - w]  # the cache when token i is read, in order
    return (cache.index(i) - cache.index(j), True) if j in cache else (0, False)


def sliding_window(g: EquationInputs, s: float, i: int, j: int) -> Pair:
    return i - j, i - j < (g.c.window or g.length)


PAIRS: dict[str, Callable[[EquationInputs, float, int, int], Pair]] = {
    "self_extend": self_extend,
    "rerope": rerope,
    "leaky_rerope": leaky_rerope,
    "dca": dca,
    "lm_infinite": lm_infinite,
    "streaming": streaming,
    "window": sliding_window,
}
"""The distance between query i and key j, and whether the query attends to the key."""
SCORE_FACTORS: dict[str, Callable[[EquationInputs, float], float | Tensor]] = {
    "temperature": lambda g, s: g.c.value or (0.1 * math.log(s) + 1) ** 2,
    "logn": lambda g, s: ((g.at + 1).log() / math.log(g.c.length or g.length)).clamp_min(1)[:, None],
}
"""The factor on the scores of a query."""


def attention_under(name: str, g: EquationInputs, s: float, rotary: bool = True) -> Tensor:
    """Outputs (batch, n, n_heads, head_dim) of a rotary layer, or of one without an encoding, under a method at
    factor s.
    """
    theta = FREQUENCIES[name](g, s) if name in FREQUENCIES else geometric(BASE, g.q.shape[3]) * rotary
    scores, visible = rotary_scores(g, theta) * on_cos_and_sin(name, g, s) ** 2, g.visible
    if name in PAIRS:
        distance = torch.zeros(len(g.at), len(g.at), dtype=g.q.dtype)
        visible = visible.clone()
        for i in range(len(g.at)):
            for j in range(i + 1):
                distance[i, j], visible[i, j] = PAIRS[name](g, s, i, j)
        scores = rotary_scores(g, theta, distance=distance)
    return attend(g, scores * SCORE_FACTORS[name](g, s) if name in SCORE_FACTORS else scores, visible)


RECURRENT: dict[str, Callable[[Any], Mapping[str, Any]]] = {
    "dt_scale": lambda c: {"decay": c.scale, "gain": c.scale},
    "a_scale": lambda c: {"power": c.scale} if c.mode == "log" else {"decay": c.scale},
    "stuffed": lambda c: {"decay": c.retention, "gain": c.insertion},
    "state_window": lambda c: {"window": c.window},
    "decimamba": lambda c: {"kept": lambda dt, threshold: dt.mean(-1, keepdim=True) >= threshold},
    "longmamba": lambda c: {"kept": lambda dt, threshold: dt >= threshold},
}
"""The arguments of `recurrence` that a method changes."""


def recurrence(
    p: Mapping[str, Tensor],
    c: Any,
    x: Tensor,
    decay: float = 1.0,
    power: float = 1.0,
    gain: float = 1.0,
    window: int | None = None,
    kept: Callable[[Tensor, Tensor], Tensor] | None = None,
    threshold: Tensor | None = None,
) -> Tensor:
    """One Mamba2 layer, x and y (batch, n, d_model): p its parameters, c its settings; decay on A, power on its
    logarithm, gain on what is written; window: tokens in a state; kept(Delta, threshold): tokens that write and
    decay.
    """
    inner, heads = p["norm_weight"].shape[0], p["A_log"].shape[0]
    z, xbc, dt = (x @ p["in_proj.weight"].T).split([inner, inner + 2 * c.d_state, heads], dim=-1)
    padded = F.pad(xbc, (0, 0, c.d_conv - 1, 0))
    taps = [padded[:, t : t + x.shape[1]] * p["conv_weight"][:, t] for t in range(c.d_conv)]
    u, b, read = F.silu(torch.stack(taps).sum(0) + p["conv_bias"]).split([inner, c.d_state, c.d_state], dim=-1)
    u, dt = u.unflatten(-1, (heads, -1)), F.softplus(dt + p["dt_bias"])
    dt = dt if kept is None or threshold is None else dt * kept(dt, threshold)
    fade, rows = (-(power * p["A_log"]).exp() * decay * dt).exp(), []
    for t in range(x.shape[1]):
        h = torch.zeros(())
        for s in range(0 if window is None else max(0, t - window + 1), t + 1):
            wrote = torch.einsum("bh,bhp,bn->bhpn", dt[:, s], u[:, s], b[:, s]) * gain
            h = h + fade[:, s + 1 : t + 1].prod(1)[..., None, None] * wrote
        rows.append(torch.einsum("bhpn,bn->bhp", h, read[:, t]) + p["D"][:, None] * u[:, t])
    y = torch.stack(rows, 1).flatten(2) * F.silu(z)
    return y * (y.square().mean(-1, keepdim=True) + c.norm_eps).rsqrt() * p["norm_weight"] @ p["out_proj.weight"].T
