"""PaTH: a product of Householder-like matrices, one per token, between key and query
(Yang et al. 2025, arXiv 2505.16381).

    scores_ij = q_i^T H_i H_{i-1} ... H_{j+1} k_j / sqrt(head_dim)        H_t = I - beta_t w_t w_t^T
    w_t = unit(silu(conv(W2 W1 x_t)))        beta_t = 2 sigmoid(b . x_t + b0)        one pair for each key head

W2 W1 is of low rank, conv is causal over d_conv tokens. Computed in chunks of KEYS_PER_CHUNK keys (the paper's sec.
3.2, with its UT transform): W are the w of a chunk, S(.) is the strictly lower part, (I + S(beta W W^T)) A = beta S(W
K^T), X likewise of beta W,

    scores within a chunk            lower(Q K^T) - lower(Q W^T) A
    keys at the end of their chunk   K - A^T W              across a whole chunk      I - W^T X
    queries at its start             Q - lower(Q W^T) X

With `backend: fla`, whole 16-bit sequences on a GPU without window, documents or lse use flash-linear-attention's
kernels; all else uses the form above, so that a model trained with them can be probed on any machine.
"""

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Literal

import torch
from lcprobe_kernels.attention import attention, blockwise
from lcprobe_kernels.attention.reference import weighted
from lcprobe_kernels.backends import without_autocast
from lcprobe_kernels.causal_conv1d import causal_conv1d
from torch import Tensor, nn
from torch.nn import functional as F

from lcprobe.errors import ConfigError, require
from lcprobe.models.positional.contract import Attend, HeadShape, Keys, PositionalEncoding
from lcprobe.models.token_context import TokenContext

KEYS_PER_CHUNK = 64


@dataclass(frozen=True)
class PaTHConfig:
    """How PaTH computes a token's Householder vector."""

    rank: int = 32
    """Rank of the map from a token to its Householder vectors."""
    d_conv: int = 3
    """Width of the causal convolution over Householder vectors, tokens."""
    backend: Literal["torch", "fla"] = "torch"
    """fla: flash-linear-attention's kernels where they apply, on a GPU; head_dim 16, 32, 64 or 128."""

    def check(self, at: str) -> None:
        """Raises ConfigError for a rank below 1 and a d_conv below 2."""
        require(f"{at}.rank", self.rank, self.rank >= 1, ">= 1")
        require(f"{at}.d_conv", self.d_conv, self.d_conv >= 2, ">= 2")


class PaTH(PositionalEncoding[PaTHConfig]):
    """Accumulated data-dependent Householder transformations."""

    Config = PaTHConfig
    family = "path"
    mergeable = False
    reads_positions = False
    caches_all_terms = True

    def __init__(self, config: PaTHConfig, shape: HeadShape):
        super().__init__(config, shape)
        if config.backend == "fla":
            require(
                "head_dim", shape.head_dim, shape.head_dim in (16, 32, 64, 128), "16 | 32 | 64 | 128 with backend fla"
            )
        width = shape.n_kv_heads * shape.head_dim
        self.down = nn.Parameter(torch.empty(config.rank, shape.d_model))
        self.up = nn.Parameter(torch.empty(width, config.rank))
        self.conv_weight = nn.Parameter(torch.empty(width, config.d_conv))
        self.beta_weight = nn.Parameter(torch.empty(shape.n_kv_heads, shape.d_model))
        self.beta_bias = nn.Parameter(torch.empty(shape.n_kv_heads))

    @staticmethod
    def params(config: PaTHConfig, shape: HeadShape) -> int:
        """The low-rank map, the convolution, and beta."""
        width = shape.n_kv_heads * shape.head_dim
        return config.rank * (shape.d_model + width) + width * config.d_conv + shape.n_kv_heads * (shape.d_model + 1)

    @staticmethod
    def flops(config: PaTHConfig, shape: HeadShape, visible: float, length: int) -> float:
        """The maps to w and beta; within a chunk, products with w and the solve; across chunks, queries times each
        product."""
        c, d, width = KEYS_PER_CHUNK, shape.head_dim, shape.n_kv_heads * shape.head_dim
        maps = 2 * config.rank * (shape.d_model + width) + 2 * config.d_conv * width
        maps += 2 * shape.n_kv_heads * shape.d_model
        of_keys = 2 * c * 3 * d  # w w^T, w k^T, own^T w
        of_keys += c * (c + d) + 2 * d * d  # the solve; w^T through
        of_queries = 2 * c * (2 * d + c)  # with w, own and through
        of_queries += 2 * d * d * visible / c  # over earlier chunks
        return maps + shape.n_kv_heads * of_keys + shape.n_heads * of_queries

    @staticmethod
    def term_width(config: PaTHConfig, shape: HeadShape) -> int:
        """w and beta of each key head, and the convolution's inputs that the next token needs."""
        return shape.n_kv_heads * (shape.head_dim + 1) + (config.d_conv - 1) * config.rank

    def init_parameter(self, name: str, value: Tensor, generator: torch.Generator) -> None:
        """As PyTorch's linear layers and convolutions; the bias of beta 0, so that beta is near 1."""
        if name == "beta_bias":
            value.zero_()
        else:
            value.uniform_(-(value.shape[1] ** -0.5), value.shape[1] ** -0.5, generator=generator)

    def token_terms(self, x: Tensor, where: TokenContext, last: Tensor | None) -> Tensor:
        """(w, beta, history) of each token: (batch, seqlen, term_width), float32 or wider."""
        batch, seqlen, before = x.shape[0], x.shape[1], self.config.d_conv - 1
        acc_dtype = torch.promote_types(x.dtype, torch.float32)
        down, up, b, b0 = (p.to(acc_dtype) for p in (self.down, self.up, self.beta_weight, self.beta_bias))
        with without_autocast(x.device):
            x = x.to(acc_dtype)
            past = x.new_zeros(batch, before, self.config.rank)
            if last is not None:
                past = last[:, -before * self.config.rank :].to(acc_dtype).view(past.shape)
            low = torch.cat([past, F.linear(x, down)], dim=1)
            raw = F.linear(low, up)
            w, _ = causal_conv1d(
                raw[:, before:],
                self.conv_weight.to(acc_dtype),
                silu=True,
                initial_state=raw[:, :before],
                starts=where.starts,
            )
            w = w.unflatten(-1, (-1, self.shape.head_dim))
            w = w * (w.square().sum(-1, keepdim=True) + 1e-6).rsqrt()
            beta = 2 * F.linear(x, b, b0).sigmoid()
        history = low.unfold(1, before, 1)[:, 1:].transpose(2, 3)
        if where.documents is not None:  # the convolution does not cross document boundaries
            documents = F.pad(where.documents, (before, 0)).unfold(1, before, 1)[:, 1:]
            history = history.masked_fill((documents != where.documents[..., None])[..., None], 0.0)
        return torch.cat([w.flatten(2), beta, history.reshape(batch, seqlen, -1)], dim=2)

    def attend(
        self, q: Tensor, keys: Keys, op: Attend = attention, return_lse: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """See PositionalEncoding.attend."""
        assert keys.terms is not None
        q = keys.scale_queries(q)  # scores are linear in q
        n_keys, n_kv_heads, head_dim = keys.k.shape[1:]
        w = keys.terms[..., : n_kv_heads * head_dim].unflatten(-1, (n_kv_heads, head_dim))
        beta = keys.terms[..., n_kv_heads * head_dim :][..., :n_kv_heads]
        whole = q.shape[1] == n_keys and keys.window is None and keys.documents is None and not return_lse
        if self.config.backend == "fla" and whole and q.is_cuda and q.dtype in (torch.float16, torch.bfloat16):
            options = {"w": w.contiguous(), "beta": beta.contiguous(), "scale": head_dim**-0.5}
            return _peer()(q=q, k=keys.k, v=keys.v, **options)[0], None
        with without_autocast(q.device):
            return self._chunked(q, keys, w, beta)

    @torch.compiler.disable(reason="loops over blocks of queries and of keys, whose number depends on the length")
    def _chunked(self, q: Tensor, keys: Keys, w: Tensor, beta: Tensor) -> tuple[Tensor, Tensor]:
        seqlen, n_keys, heads = q.shape[1], keys.k.shape[1], q.shape[2]
        group, offset, acc_dtype = heads // w.shape[2], n_keys - seqlen, torch.promote_types(q.dtype, torch.float32)
        first = offset // KEYS_PER_CHUNK  # the first chunk with a query
        lead, end = offset - first * KEYS_PER_CHUNK, -n_keys % KEYS_PER_CHUNK
        k, w, b = (
            _chunks(t.to(acc_dtype), 0, end) for t in (keys.k, w, beta[..., None])
        )  # (batch, n_kv_heads, chunks, KEYS_PER_CHUNK, d)
        v = keys.v.to(acc_dtype).repeat_interleave(group, 2)
        queries = _chunks(q.to(acc_dtype), lead, end).unflatten(1, (-1, group))
        solved = torch.linalg.solve_triangular(
            torch.eye(KEYS_PER_CHUNK, dtype=acc_dtype, device=q.device) + (b * (w @ w.mT)).tril(-1),
            torch.cat([(b * (w @ k.mT)).tril(-1), b * w], dim=-1),
            upper=False,
            unitriangular=True,
        )
        own, through = solved[..., :KEYS_PER_CHUNK], solved[..., KEYS_PER_CHUNK:]
        at_end = k - own.mT @ w
        over = torch.eye(w.shape[-1], dtype=acc_dtype, device=q.device) - w.mT @ through
        here = (queries @ w[:, :, None, first:].mT).tril()
        local = (queries @ k[:, :, None, first:].mT).tril() - here @ own[:, :, None, first:]
        start = queries - here @ through[:, :, None, first:]
        local, start = (
            t.flatten(3, 4)[:, :, :, lead:] for t in (local, start)
        )  # (..., queries, KEYS_PER_CHUNK or d)
        key_index, mask = torch.arange(n_keys, device=q.device), keys.mask(seqlen)

        def attend_rows(rows: Tensor, low: int) -> Tensor:
            n = len(rows)
            late, parts = start[:, :, :, :0], []
            for c in range((low + n - 1 + offset) // KEYS_PER_CHUNK, -1, -1):
                begin, stop = (
                    min(max(edge - offset - low, 0), n) for edge in (c * KEYS_PER_CHUNK, (c + 1) * KEYS_PER_CHUNK)
                )
                ahead = local.new_zeros(*local.shape[:3], begin, KEYS_PER_CHUNK)
                mine = slice(low + begin, low + stop)
                parts.append(torch.cat([ahead, local[:, :, :, mine], late @ at_end[:, :, None, c].mT], dim=3))
                late = torch.cat([start[:, :, :, mine], late @ over[:, :, None, c]], dim=3)
            scores = torch.cat(parts[::-1], dim=4).flatten(1, 2) * q.shape[3] ** -0.5
            scores = F.pad(scores, (0, max(n_keys - scores.shape[3], 0)))[..., :n_keys]
            o, lse = weighted(scores, self.visible(rows, key_index, mask, keys), v)
            return torch.cat([o, lse[..., None]], dim=3)

        both = blockwise(attend_rows, seqlen, n_keys, q.shape[0] * heads, q.device)
        return both[..., :-1].to(q.dtype), both[..., -1]


def _chunks(t: Tensor, lead: int, end: int) -> Tensor:
    """(batch, n, heads, d) -> (batch, heads, chunks, KEYS_PER_CHUNK, d), with zeros before and after."""
    return F.pad(t, (0, 0, 0, 0, lead, end)).transpose(1, 2).unflatten(2, (-1, KEYS_PER_CHUNK))


def _peer() -> Callable[..., tuple[Tensor, object]]:
    """flash-linear-attention's kernel. Raises ConfigError where it is not installed."""
    try:
        return import_module("fla.ops.path_attn.parallel").parallel_path_attn
    except ImportError:
        raise ConfigError("positional.backend", "fla", "torch, or flash-linear-attention installed") from None
