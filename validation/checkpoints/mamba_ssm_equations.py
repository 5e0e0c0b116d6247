"""state-spaces/mamba's models from their equations, token by token, by the names in their checkpoints; in float64.

A second implementation, of models/mixer_seq_simple.py and modules/{block,mamba_simple,mamba2,mha,mlp}.py there.
"""

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from validation.oracles.recurrences import convolved, mamba1, mamba3, normed

Tensors = Mapping[str, Tensor]
EPS = 1e-5


def shapes_of(config: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the tensors, but for a tied head."""
    d, multiple = config["d_model"], config["pad_vocab_size_multiple"]
    rows = -(-config["vocab_size"] // multiple) * multiple
    norm = {"weight": (d,)} if config["rms_norm"] else {"weight": (d,), "bias": (d,)}
    found: dict[str, tuple[int, ...]] = {"backbone.embedding.weight": (rows, d)}
    for i in range(config["n_layer"]):
        layer = f"backbone.layers.{i}."
        own = _attention_shapes(config) if i in config["attn_layer_idx"] else _ssm_shapes(config)
        found |= {f"{layer}norm.{name}": shape for name, shape in norm.items()}
        found |= {f"{layer}mixer.{name}": shape for name, shape in own.items()}
        if config["d_intermediate"]:
            width = -(-config["d_intermediate"] // 128) * 128
            found |= {f"{layer}norm2.{name}": shape for name, shape in norm.items()}
            found |= {f"{layer}mlp.fc1.weight": (2 * width, d), f"{layer}mlp.fc2.weight": (d, width)}
    found |= {f"backbone.norm_f.{name}": shape for name, shape in norm.items()}
    return found if config["tie_embeddings"] else {**found, "lm_head.weight": (rows, d)}


def _attention_shapes(config: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    d, c = config["d_model"], config["attn_cfg"]
    q, k = (n * _head_dim(config) for n in (c["num_heads"], c.get("num_heads_kv", c["num_heads"])))
    found: dict[str, tuple[int, ...]] = {"in_proj.weight": (q + 2 * k, d), "out_proj.weight": (d, q)}
    if c.get("qkv_proj_bias", True):
        found["in_proj.bias"] = (q + 2 * k,)
    if c.get("out_proj_bias", True):
        found["out_proj.bias"] = (d,)
    if c.get("d_conv", 0):
        found |= {"conv1d.weight": (q + 2 * k, 1, c["d_conv"]), "conv1d.bias": (q + 2 * k,)}
    return found


def _ssm_shapes(config: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    d, c = config["d_model"], config["ssm_cfg"]
    kind, inner, n, width = c.get("layer", "Mamba1"), 2 * d, c["d_state"], c.get("d_conv", 4)
    found: dict[str, tuple[int, ...]] = {"out_proj.weight": (d, inner)}
    if kind == "Mamba1":
        rank, conv = -(-d // 16), inner
        found |= {"in_proj.weight": (2 * inner, d), "x_proj.weight": (rank + 2 * n, inner), "A_log": (inner, n)}
        found |= {"dt_proj.weight": (inner, rank), "dt_proj.bias": (inner,), "D": (inner,)}
    elif kind == "Mamba2":
        heads, groups = inner // c["headdim"], c.get("ngroups", 1)
        conv = inner + 2 * groups * n
        found |= {"in_proj.weight": (inner + conv + heads, d), "norm.weight": (inner,)}
        found |= {"A_log": (heads,), "D": (heads,), "dt_bias": (heads,)}
    else:
        heads = inner // c["headdim"]
        found |= {"in_proj.weight": (2 * inner + 2 * n + 3 * heads + n // 4, d), "D": (heads,), "dt_bias": (heads,)}
        found |= {f"{name}_bias": (heads, 1, n) for name in "BC"}
        return found | {f"{name}_norm.weight": (n,) for name in "BC"}
    if c.get("bias", False):
        found |= {"in_proj.bias": found["in_proj.weight"][:1], "out_proj.bias": (d,)}
    return found | {"conv1d.weight": (conv, 1, width), "conv1d.bias": (conv,)}


def logits_of(tensors: Tensors, config: Mapping[str, Any], definition: str | None, tokens: Tensor) -> Tensor:
    """(batch, seqlen, padded vocabulary). definition: of Mamba-3."""
    x = tensors["backbone.embedding.weight"][tokens]
    for i in range(config["n_layer"]):
        layer = f"backbone.layers.{i}."
        p = {name.removeprefix(layer): t for name, t in tensors.items() if name.startswith(layer)}
        own = {name.removeprefix("mixer."): t for name, t in p.items() if name.startswith("mixer.")}
        u = _norm(p, "norm", x)
        if i in config["attn_layer_idx"]:
            x = x + _attention(own, config["attn_cfg"], _head_dim(config), u)
        else:
            x = x + _ssm(own, config["ssm_cfg"], definition, u)
        if config["d_intermediate"]:
            value, gate = (_norm(p, "norm2", x) @ p["mlp.fc1.weight"].T).chunk(2, dim=-1)
            x = x + (value * F.silu(gate)) @ p["mlp.fc2.weight"].T
    return _norm(tensors, "backbone.norm_f", x) @ tensors["lm_head.weight"].T


def _head_dim(config: Mapping[str, Any]) -> int:
    return config["attn_cfg"].get("head_dim", config["d_model"] // config["attn_cfg"].get("num_heads", 1))


def _norm(p: Tensors, name: str, x: Tensor) -> Tensor:
    if f"{name}.bias" not in p:
        return normed(x, p[f"{name}.weight"], EPS)
    centred = x - x.mean(-1, keepdim=True)
    return normed(centred, p[f"{name}.weight"], EPS) + p[f"{name}.bias"]


def _attention(p: Tensors, c: Mapping[str, Any], head_dim: int, u: Tensor) -> Tensor:
    heads, n = c["num_heads"], u.shape[1]
    kv_heads = c.get("num_heads_kv", heads)
    qkv = u @ p["in_proj.weight"].T + p.get("in_proj.bias", 0.0)
    if c.get("d_conv", 0):
        qkv = convolved(qkv, p["conv1d.weight"].squeeze(1), p["conv1d.bias"])
    q, k, v = qkv.unflatten(-1, (-1, head_dim)).split([heads, kv_heads, kv_heads], dim=2)
    q, k = (_turned(t, c.get("rotary_emb_dim", 0)) for t in (q, k))
    k, v = (t.repeat_interleave(heads // kv_heads, dim=2) for t in (k, v))
    scores = torch.einsum("bihd,bjhd->bhij", q, k) / head_dim**0.5
    scores = scores.masked_fill(torch.ones(n, n, dtype=torch.bool).triu(1), -torch.inf)
    y = torch.einsum("bhij,bjhd->bihd", scores.softmax(-1), v).flatten(2)
    return y @ p["out_proj.weight"].T + p.get("out_proj.bias", 0.0)


def _turned(x: Tensor, width: int) -> Tensor:
    """Rotated by position, as complex numbers of channels m and m + width / 2."""
    half = width // 2
    angles = torch.outer(torch.arange(x.shape[1]).double(), 10000.0 ** (-torch.arange(half).double() * 2 / width))
    z = torch.complex(x[..., :half], x[..., half:width]) * torch.polar(torch.ones_like(angles), angles)[:, None]
    return torch.cat([z.real, z.imag, x[..., width:]], dim=-1) if width else x


def _ssm(p: Tensors, c: Mapping[str, Any], definition: str | None, u: Tensor) -> Tensor:
    kind = c.get("layer", "Mamba1")
    if kind == "Mamba2":
        return _mamba2(p, c, u)
    renamed = {name.replace("conv1d.", "conv_").replace("norm.", "norm_"): t for name, t in p.items()}
    renamed = {name: t.squeeze(1) if t.dim() == 3 else t for name, t in renamed.items()}
    if kind == "Mamba1":
        return mamba1(renamed, SimpleNamespace(d_state=c["d_state"], input_norm_eps=None), u)
    settings = {"n_groups": 1, "rope_fraction": 0.5, "A_floor": 1e-4, "norm_eps": EPS, "output_norm": False}
    own = SimpleNamespace(d_state=c["d_state"], head_dim=c["headdim"], definition=definition, **settings)
    return mamba3(renamed, own, u)


def _mamba2(p: Tensors, c: Mapping[str, Any], u: Tensor) -> Tensor:
    inner, groups, n = p["norm.weight"].shape[0], c.get("ngroups", 1), c["d_state"]
    heads = inner // c["headdim"]
    z, xbc, dt = (u @ p["in_proj.weight"].T + p.get("in_proj.bias", 0.0)).split(
        [inner, inner + 2 * groups * n, heads], -1
    )
    xbc = F.silu(convolved(xbc, p["conv1d.weight"].squeeze(1), p["conv1d.bias"]))
    x, b, readout = xbc.split([inner, groups * n, groups * n], dim=-1)
    x, dt = x.unflatten(-1, (heads, -1)), F.softplus(dt + p["dt_bias"])
    b, readout = (t.unflatten(-1, (groups, n)).repeat_interleave(heads // groups, dim=2) for t in (b, readout))
    decay = torch.exp(-p["A_log"].exp() * dt)
    h, rows = u.new_zeros(len(u), heads, c["headdim"], n), []
    for t in range(u.shape[1]):
        h = decay[:, t, :, None, None] * h + torch.einsum("bh,bhp,bhn->bhpn", dt[:, t], x[:, t], b[:, t])
        rows.append(torch.einsum("bhpn,bhn->bhp", h, readout[:, t]) + p["D"][:, None] * x[:, t])
    y = (torch.stack(rows, 1).flatten(2) * F.silu(z)).unflatten(-1, (groups, -1))
    y = normed(y, p["norm.weight"].view(groups, -1), EPS).flatten(2)
    return y @ p["out_proj.weight"].T + p.get("out_proj.bias", 0.0)
