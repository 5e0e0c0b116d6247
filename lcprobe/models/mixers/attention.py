"""Causal multi-head attention with grouped keys and values, optional short convolution and optional sliding window.

Vaswani et al. 2017 (arXiv 1706.03762); grouped-query: Ainslie et al. 2023 (arXiv 2305.13245). The convolution over the
joint q, k, v (with bias, without activation) is Mamba2Attention's (state-spaces/mamba, modules/mha.py). Unlike that
release, the convolution's history in the state is what went *into* it, so decoding equals the full forward pass.
"""

from dataclasses import dataclass, field
from typing import Any

import torch
from lcprobe_kernels.causal_conv1d import causal_conv1d
from torch import Tensor, nn
from torch.nn import functional as F

from lcprobe.choices import choose
from lcprobe.errors import ConfigError, inside, require
from lcprobe.models.cost import Cost
from lcprobe.models.positional import POSITIONAL
from lcprobe.models.state import State
from lcprobe.models.where import Where


@dataclass(frozen=True)
class AttentionConfig:
    """Shape of the heads and what they may see."""

    n_heads: int | None = None
    """Query heads; null: d_model / head_dim."""
    n_kv_heads: int | None = None
    """Key and value heads, a divisor of n_heads; null: n_heads."""
    head_dim: int = 64
    """Width of a head; n_heads x head_dim may differ from d_model."""
    d_conv: int = 0
    """Width of a causal convolution over q, k, v; 0: none."""
    window: int | None = None
    """A token sees itself and the window - 1 tokens before it; null: everything before it."""
    bias: bool = False
    """Biases in the projections."""
    positional: dict[str, Any] = field(default_factory=lambda: {"type": "rope"})
    """Positional encoding: `{type: rope, base: 10000}`, `{type: none}`."""

    def check(self, at: str) -> None:
        """Raises ConfigError for counts below 1 and heads that do not divide."""
        require(f"{at}.head_dim", self.head_dim, self.head_dim >= 1, ">= 1")
        require(f"{at}.d_conv", self.d_conv, self.d_conv >= 0, ">= 0")
        require(f"{at}.window", self.window, self.window is None or self.window >= 1, ">= 1 or null")
        require(f"{at}.n_heads", self.n_heads, self.n_heads is None or self.n_heads >= 1, ">= 1 or null")
        kv = self.n_kv_heads
        require(f"{at}.n_kv_heads", kv, kv is None or kv >= 1, ">= 1 or null")
        if kv is not None and self.n_heads is not None:
            require(f"{at}.n_kv_heads", kv, self.n_heads % kv == 0, f"a divisor of n_heads ({self.n_heads})")
        encoding = choose(POSITIONAL, self.positional, f"{at}.positional")
        with inside(f"{at}.positional"):
            encoding.made_by(encoding.config, self.head_dim)

    def heads(self, d_model: int) -> tuple[int, int]:
        """(n_heads, n_kv_heads) at this width. Raises ConfigError when head_dim does not divide d_model."""
        n_heads = self.n_heads
        if n_heads is None:
            if d_model % self.head_dim:
                raise ConfigError("head_dim", self.head_dim, f"a divisor of d_model ({d_model}), or set n_heads")
            n_heads = d_model // self.head_dim
        n_kv_heads = n_heads if self.n_kv_heads is None else self.n_kv_heads
        if n_heads % n_kv_heads:
            raise ConfigError("n_kv_heads", n_kv_heads, f"a divisor of n_heads ({n_heads})")
        return n_heads, n_kv_heads


@dataclass(frozen=True)
class AttentionState(State):
    """k, v: (batch, n_kv_heads, n, head_dim), rotated keys of the n tokens still visible; alive: (batch, n) bool,
    False for tokens of finished documents (None: all alive); conv: (batch, d_conv - 1, width)."""

    k: Tensor
    v: Tensor
    alive: Tensor | None
    conv: Tensor | None


class Attention(nn.Module):
    """softmax(q k^T / sqrt(head_dim)) v over what a token may see."""

    Config = AttentionConfig

    def __init__(self, config: AttentionConfig, d_model: int):
        super().__init__()
        self.n_heads, self.n_kv_heads = config.heads(d_model)
        self.head_dim, self.window, self.d_conv = config.head_dim, config.window, config.d_conv
        self.width = (self.n_heads + 2 * self.n_kv_heads) * self.head_dim
        self.in_proj = nn.Linear(d_model, self.width, bias=config.bias)
        if config.d_conv:
            self.conv_weight = nn.Parameter(torch.empty(self.width, config.d_conv))
            self.conv_bias = nn.Parameter(torch.empty(self.width))
        self.out_proj = nn.Linear(self.n_heads * self.head_dim, d_model, bias=config.bias)
        encoding = choose(POSITIONAL, config.positional, "positional")
        self.positional = encoding.made_by(encoding.config, config.head_dim)

    def forward(self, x: Tensor, where: Where, state: AttentionState | None = None) -> tuple[Tensor, AttentionState | None]:
        """x: (batch, seqlen, d_model) -> y of the same shape and dtype. Without a state in, none comes out."""
        seqlen = x.shape[1]
        qkv, conv = self.in_proj(x), None
        if self.d_conv:
            initial = None if state is None else state.conv
            qkv, conv = causal_conv1d(
                qkv,
                self.conv_weight,
                self.conv_bias,
                initial_state=initial,
                starts=where.starts,
                return_state=state is not None,
            )
        qk, v = qkv.unflatten(-1, (-1, self.head_dim)).split([self.n_heads + self.n_kv_heads, self.n_kv_heads], dim=2)
        q, k = self.positional.on_qk(qk, where).split([self.n_heads, self.n_kv_heads], dim=2)
        q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)  # (batch, heads, seqlen, head_dim)
        n_past = 0
        if state is not None:
            n_past = state.k.shape[2]
            k, v = torch.cat([state.k.to(k.dtype), k], dim=2), torch.cat([state.v.to(v.dtype), v], dim=2)
        mask = self._mask(where, n_past, seqlen, None if state is None else state.alive)
        y = F.scaled_dot_product_attention(
            q, k, v, attn_mask=mask, is_causal=mask is None and seqlen > 1, enable_gqa=self.n_heads != self.n_kv_heads
        )
        y = self.out_proj(y.transpose(1, 2).flatten(2))
        return y, None if state is None else self._next_state(k, v, conv, where, state)

    def _mask(self, where: Where, n_past: int, seqlen: int, alive: Tensor | None) -> Tensor | None:
        """True where a query may see a key: (seqlen, n_past + seqlen) or (batch, 1, seqlen, n_past + seqlen).

        None where the plain causal triangle (or, for one token, everything) says the same.
        """
        windowed = self.window is not None and n_past + seqlen > self.window
        if where.starts is None and alive is None and not windowed and (n_past == 0 or seqlen == 1):
            return None

        def make() -> Tensor:
            device = where.positions.device
            query = torch.arange(n_past, n_past + seqlen, device=device)[:, None]
            key = torch.arange(n_past + seqlen, device=device)
            mask = key <= query
            if self.window is not None:
                mask &= key > query - self.window
            documents = where.documents
            if documents is None:
                documents = torch.zeros(1, seqlen, dtype=torch.int64, device=device)
                if alive is None:
                    return mask
            past = torch.zeros(documents.shape[0], n_past, dtype=documents.dtype, device=device)
            if alive is not None:
                past = past.expand(alive.shape[0], -1) - (~alive).to(documents.dtype)  # -1: a finished document
                documents = documents.expand(alive.shape[0], -1)
            keys = torch.cat([past, documents], dim=1)
            return (mask & (keys[:, None, :] == documents[:, :, None]))[:, None]

        if alive is not None:
            return make()
        return where.once(("attention mask", n_past, seqlen, self.window), make)

    def _next_state(self, k: Tensor, v: Tensor, conv: Tensor | None, where: Where, state: AttentionState) -> AttentionState:
        alive, documents, n_past = state.alive, where.documents, state.k.shape[2]
        if documents is not None or alive is not None:
            if alive is None:
                alive = torch.ones(k.shape[0], n_past, dtype=torch.bool, device=k.device)
            if documents is None:
                fresh = torch.ones(k.shape[0], k.shape[2] - n_past, dtype=torch.bool, device=k.device)
            else:
                alive = alive & (documents[:, -1:] == 0)
                fresh = documents == documents[:, -1:]
            alive = torch.cat([alive, fresh], dim=1)
        if self.window is not None and k.shape[2] > self.window - 1:
            keep = slice(k.shape[2] - (self.window - 1), None)
            k, v = k[:, :, keep].clone(), v[:, :, keep].clone()
            alive = None if alive is None else alive[:, keep]
        return AttentionState(k, v, alive, conv)

    def new_state(self, batch: int) -> AttentionState:
        """The state before a sequence's first token."""
        weight = self.out_proj.weight
        empty = weight.new_zeros(batch, self.n_kv_heads, 0, self.head_dim)
        conv = weight.new_zeros(batch, self.d_conv - 1, self.width) if self.d_conv else None
        return AttentionState(empty, empty, None, conv)

    @staticmethod
    def cost(config: AttentionConfig, d_model: int, length: int) -> Cost:
        """Parameters, forward FLOPs a token (mean over positions) and bytes of one layer."""
        n_heads, n_kv_heads = config.heads(d_model)
        width, inner = (n_heads + 2 * n_kv_heads) * config.head_dim, n_heads * config.head_dim
        matrices = d_model * width + inner * d_model
        params = matrices + ((width + d_model) if config.bias else 0)
        params += width * (config.d_conv + 1) if config.d_conv else 0
        window = length if config.window is None else min(config.window, length)
        visible = window - window * (window - 1) / (2 * length)  # mean over positions 1..length of min(position, window)
        flops = 2 * matrices + 4 * visible * inner + 2 * config.d_conv * width
        cached = window if config.window is None else min(config.window - 1, length)
        fixed = 4 * max(config.d_conv - 1, 0) * width
        return Cost(params, flops, fixed, 4 * 2 * cached * n_kv_heads * config.head_dim)
