"""Small models of flash-linear-attention with random weights, saved by `save_pretrained`.

They compute without Triton: what the package has kernels for is replaced by the plain functions that it tests them
against.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from validation.checkpoints.cases import VOCAB, Case, Logits
from validation.checkpoints.hybrid_models import louder
from validation.oracles.delta_rule import naive_fla
from validation.oracles.mixers import perturbed

SIZES: dict[str, Any] = {
    "vocab_size": VOCAB, "hidden_size": 24, "num_hidden_layers": 3, "intermediate_size": 40, "fuse_norm": False,
    "fuse_swiglu": False, "fuse_cross_entropy": False, "pad_token_id": None,
}  # fmt: skip
HEADS: dict[str, Any] = {"num_heads": 2, "head_dim": 8}
ATTENTION = {"layers": [1], "num_heads": 4, "num_kv_heads": 2, "window_size": 7, "qkv_bias": True, "rope_theta": 1e4}
GLA: dict[str, Any] = {**SIZES, "fuse_norm": True}
RWKV = {key: value for key, value in SIZES.items() if key != "fuse_swiglu"}
MODELS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "GLA": ("gla", "GLA", {**GLA, "num_heads": 2}),
    "GLA, attention in layer 1": ("gla", "GLA", {**GLA, "num_heads": 3, "attn": ATTENTION, "expand_v": 1.5}),
    "Gated DeltaNet": ("gated_deltanet", "GatedDeltaNet", {**SIZES, **HEADS, "tie_word_embeddings": True}),
    "Gated DeltaNet, more heads of values": (
        "gated_deltanet", "GatedDeltaNet",
        {**SIZES, **HEADS, "num_v_heads": 4, "expand_v": 1.0, "allow_neg_eigval": True},
    ),
    "Gated DeltaProduct": (
        "gated_deltaproduct", "GatedDeltaProduct",
        {**SIZES, **HEADS, "num_householder": 2, "use_forget_gate": True, "allow_neg_eigval": True},
    ),
    "Transformer++": ("transformer", "Transformer", {**SIZES, "num_heads": 3}),
    "Transformer++, norms, biases, a window": (
        "transformer", "Transformer",
        {**SIZES, "num_heads": 4, "num_kv_heads": 2, "qk_norm": True, "qkv_bias": True, "window_size": 9},
    ),
    "RWKV-6": (
        "rwkv6", "RWKV6",
        {**RWKV, "num_heads": 2, "expand_k": 1.0, "proj_low_rank_dim": 4, "gate_low_rank_dim": 6},
    ),
    "RWKV-7": (
        "rwkv7", "RWKV7",
        {**RWKV, "head_dim": 12, "decay_low_rank_dim": 5, "gate_low_rank_dim": 7, "a_low_rank_dim": 6,
         "v_low_rank_dim": 4},
    ),
}  # fmt: skip
"""By name: the package's module of models, the prefix of its classes, and settings."""


def saved(folder: Path, name: str) -> Logits:
    """Save a model, with noise on all weights."""
    kind, prefix, settings = MODELS[name]
    models = import_module(f"fla.models.{kind}")
    torch.manual_seed(0)
    with patch("fla.layers.attn.flash_attn_func", _attention):
        model = perturbed(getattr(models, f"{prefix}ForCausalLM")(getattr(models, f"{prefix}Config")(**settings)))
    with torch.no_grad():
        for name_, p in model.named_parameters():
            if name_.endswith("A_log"):
                p.uniform_(-6.0, 0.0)  # decays that last
    louder(model)
    model.save_pretrained(folder)  # type: ignore[operator]

    def logits(tokens: Tensor) -> Tensor:
        with plain(model):
            return model(tokens, use_cache=False).logits

    return logits


@contextmanager
def plain(model: nn.Module) -> Iterator[None]:
    """The package's models run without Triton, one document a row and without a cache."""
    found = {name: import_module(f"fla.{path}") for name, path in {
        "gdn": "layers.gated_deltanet", "rwkv6": "layers.rwkv6", "rwkv7": "layers.rwkv7",
        "model6": "models.rwkv6.modeling_rwkv6", "model7": "models.rwkv7.modeling_rwkv7", "mlp": "modules.mlp",
        "attn": "layers.attn", "modules": "modules", "rotary": "modules.rotary.ops", "shift": "modules.token_shift",
        "addcmul": "ops.rwkv7.fused_addcmul", "k": "ops.rwkv7.fused_k_update",
        "gate": "ops.rwkv7.gate_output_correction",
    }.items()}  # fmt: skip
    replaced: list[tuple[str, str, Any]] = [
        ("gdn", "chunk_gated_delta_rule", _delta_rule),
        ("gdn", "fused_recurrent_gated_delta_rule", _delta_rule),
        *(("rwkv6", f"{name}_rwkv6", _rwkv6) for name in ("chunk", "fused_recurrent")),
        *(("rwkv7", name, _rwkv7) for name in ("chunk_rwkv7", "fused_mul_recurrent_rwkv7")),
        ("rwkv7", "fused_addcmul_rwkv7", found["addcmul"].torch_addcmul_rwkv7),
        ("rwkv7", "fused_k_rwkv7", found["k"].k_update_ref),
        ("rwkv7", "gate_output_correction", found["gate"].gate_output_correction_ref),
        *((where, "token_shift", _token_shift) for where in ("rwkv6", "rwkv7", "model6", "model7")),
        ("mlp", "swiglu", lambda gate, up: F.silu(gate) * up),
        ("attn", "flash_attn_func", _attention),
    ]
    activations = {"gate_fn": F.silu, "act_fn": lambda x: F.relu(x).square()}
    with ExitStack() as stack:
        stack.enter_context(naive_fla())
        for where, name, value in replaced:
            stack.enter_context(patch.object(found[where], name, value))
        for cls, forward in (("GroupNorm", _group_norm), ("RMSNorm", _rms_norm), ("RotaryEmbedding", _rotary)):
            stack.enter_context(patch.object(getattr(found["modules"], cls), "forward", forward))
        stack.enter_context(patch.object(found["gdn"].GatedDeltaNet, "_use_fused_qkv_conv", lambda *_, **__: False))
        for module in model.modules():
            for name, value in activations.items():
                if name in vars(module):
                    stack.enter_context(patch.object(module, name, value))
        yield


def _delta_rule(q, k, v, g, beta, A_log, dt_bias, allow_neg_eigval, **_):
    naive = import_module("fla.ops.gated_delta_rule.naive").naive_recurrent_gated_delta_rule
    q, k = (t / (t.square().sum(-1, keepdim=True) + 1e-6).sqrt() for t in (q, k))
    q, k = (t.repeat_interleave(v.shape[2] // t.shape[2], 2) for t in (q, k))
    rate = beta.sigmoid() * (2 if allow_neg_eigval else 1)
    return naive(q, k, v, rate, -A_log.exp() * F.softplus(g + dt_bias))


def _rwkv6(r: Tensor, k: Tensor, v: Tensor, w: Tensor, u: Tensor, **_: Any) -> tuple[Tensor, Any]:
    naive = import_module("fla.ops.rwkv6.recurrent_naive").naive_recurrent_rwkv6
    out, state = naive(*(t.transpose(1, 2) for t in (r, k, v, w)), u, scale=1.0)
    return out.transpose(1, 2), state


def _rwkv7(
    r: Tensor, w: Tensor, k: Tensor, v: Tensor, a: Tensor, b: Tensor | None = None, kk: Tensor | None = None, **_: Any
) -> tuple[Tensor, Any]:
    """a, b: what is removed, and what it is replaced by; or, of decoding, kk and the rate a."""
    naive = import_module("fla.ops.generalized_delta_rule.dplr.naive").dplr_recurrence
    removed, added = (a, b) if b is not None else (-kk, kk * a)  # type: ignore[operator]
    out, state = naive(*(t.transpose(1, 2) for t in (r * r.shape[-1] ** 0.5, k, v, removed, added, w)))
    return out.transpose(1, 2), state


def _token_shift(x: Tensor, cu_seqlens: Any = None, cache: Any = None, output_cache: bool = False) -> Any:
    delta = F.pad(x, (0, 0, 1, -1)) - x
    return (delta, x[:, -1:]) if output_cache else delta


def _attention(q: Tensor, k: Tensor, v: Tensor, causal: bool, window_size: tuple[int, int]) -> Tensor:
    """flash-attn's function: (batch, n, heads, d)."""
    n, (left, _) = q.shape[1], window_size
    distance = torch.arange(n)[:, None] - torch.arange(n)
    visible = (distance >= 0) & ((distance <= left) | (left < 0))
    heads = q.shape[2] // k.shape[2]
    k, v = (t.repeat_interleave(heads, 2) for t in (k, v))
    out = F.scaled_dot_product_attention(*(t.transpose(1, 2) for t in (q, k, v)), attn_mask=visible)
    return out.transpose(1, 2)


def _rotary(self: Any, q: Tensor, k: Tensor, **_: Any) -> tuple[Tensor, Tensor]:
    turn = import_module("fla.modules.rotary.ops").rotary_embedding_ref
    angles = torch.outer(torch.arange(q.shape[1], dtype=torch.float32), self._compute_inv_freq())
    return tuple(turn(t, angles.cos(), angles.sin(), interleaved=self.interleaved) for t in (q, k))  # type: ignore[return-value]


def _group_norm(self: Any, x: Tensor) -> Tensor:
    return F.group_norm(x.flatten(0, 1), self.num_groups, self.weight, self.bias, self.eps).view_as(x)


def _rms_norm(self: Any, x: Tensor, residual: Tensor | None = None, prenorm: bool = False) -> Any:
    x = x if residual is None else x + residual
    out = F.rms_norm(x, x.shape[-1:], self.weight, self.eps)
    return (out, x) if prenorm else out


FORMATS = {"rwkv6": "fla_rwkv", "rwkv7": "fla_rwkv"}
CASES = [
    Case(FORMATS.get(kind, "fla"), name, "flash-linear-attention", partial(saved, name=name))
    for name, (kind, *_) in MODELS.items()
]
