"""The contract of positional encodings: one object per layer, with a hook for each place where position can enter.

    on_embedding   the embedding, once before the first block (absolute encodings; set for the whole model)
    token_terms    what depends on a token's content: cumulative gates, phases; cached with the keys
    on_qk          queries and keys, before keys are cached (with `caches_raw_keys`: not called)
    bias           a number per head and distance: T[h, d] of the attention op
    gates          F of the attention op, computed from the token terms
    calls          one call of the op over all keys, or several over disjoint keys, merged by their log-sum-exp
    attend         all of the above; overridden only where the op's algebra is not enough (CoPE, stick-breaking, PaTH,
                   DAPE, TAPE)
    carry          tensors passed from layer to layer alongside the residual stream (TAPE): `read_carry` reads them in
                   place of token_terms, `write_carry` returns them for the next layer with the same `carry_name`

Class attributes declare an encoding's properties, which tests, extensions and reports read. Parameters of encodings
have no weight decay; angles and sums are float32 or wider whatever the model's dtype.
"""

from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from typing import ClassVar, Generic, Literal, TypeVar

import torch
from lcprobe_kernels.attention import DocumentNumbers, Mask, attention, blockwise, merge
from lcprobe_kernels.attention.reference import weighted
from lcprobe_kernels.backends import without_autocast
from torch import Tensor

from lcprobe.errors import ConfigError, require
from lcprobe.models.parameters import Parametrised
from lcprobe.models.token_context import TokenContext

ConfigT = TypeVar("ConfigT")
Attend = Callable[..., tuple[Tensor, Tensor | None]]
Weigh = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class HeadShape:
    """The layer that an encoding is built for. context_length: the training length, None if unknown."""

    n_heads: int
    n_kv_heads: int
    head_dim: int
    d_model: int
    context_length: int | None = None

    def training_length(self, key: str, given: object, alternative: str) -> int:
        """context_length. Raises ConfigError where it is unknown: setting `key`, its value, and what it could be
        instead."""
        if self.context_length is None:
            raise ConfigError(key, given, f"{alternative}, or a model whose training context length is known")
        return self.context_length

    def check_even_head_dim(self) -> None:
        """Raises ConfigError where dimensions of a head cannot be paired."""
        require("head_dim", self.head_dim, self.head_dim % 2 == 0, "an even number")


@contextmanager
def inside_layer(at: str) -> Iterator[None]:
    """Prefix the key of errors: an encoding's own setting becomes `<at>.positional.fraction`, a layer's
    `<at>.head_dim`."""
    try:
        yield
    except ConfigError as error:
        key = error.key if error.key in {f.name for f in fields(HeadShape)} else f"positional.{error.key}"
        raise ConfigError(f"{at}.{key}" if at else key, error.given, error.allowed, error.near) from None


@dataclass(frozen=True)
class Keys:
    """The keys and values of everything cached and of this chunk, oldest first, and what goes with them.

    k: (batch, n_keys, n_kv_heads, d_qk), v: (batch, n_keys, n_kv_heads, d_v). positions: (n_keys,) int64; the queries
    are the last seqlen of them. terms: (batch, n_keys, width) from `token_terms`, or those of the queries only, or
    None. documents: of queries and keys, or None. window, sinks: the layer's visible
    range. consecutive: positions are consecutive integers, so that differences of key indices are distances. factor:
    (1 or batch, 1 or seqlen, 1 or n_heads), float32 or wider, multiplies content scores q . k, not the biases and
    gates that are added to them; None: 1. soft_cap: c, where content scores x are c tanh(x / c); None: x.
    """

    k: Tensor
    v: Tensor
    positions: Tensor
    where: TokenContext
    terms: Tensor | None = None
    documents: DocumentNumbers | None = None
    window: int | None = None
    sinks: int = 0
    consecutive: bool = True
    factor: Tensor | None = None
    soft_cap: float | None = None

    def mask(self, seqlen: int, **changes: int) -> Mask:
        """The layer's mask for the last `seqlen` tokens as queries, with the given fields changed."""
        high = -1 if self.window is None else self.window
        mask = Mask(self.k.shape[1] - seqlen, high=high, sinks=self.sinks)
        return replace(mask, **changes) if changes else mask

    def for_queries(self, lo: int, hi: int, seqlen: int) -> "Keys":
        """The keys for queries lo .. hi - 1 of `seqlen`: those up to the last of these queries."""
        end = self.k.shape[1] - seqlen + hi
        documents = None if self.documents is None else self.documents.part(lo, hi, end)
        factor = self.factor if self.factor is None or self.factor.shape[1] == 1 else self.factor[:, lo:hi]
        kept = {"k": self.k[:, :end], "v": self.v[:, :end], "positions": self.positions[:end]}
        return replace(self, **kept, documents=documents, factor=factor)

    def distances(self, rows: Tensor, seqlen: int) -> Tensor:
        """Distances from the queries at rows (n,) of `seqlen` to all keys: (n, n_keys) int64, 0 for later keys."""
        return (self.positions[-seqlen:][rows][:, None] - self.positions).clamp_min(0)

    def scaled_by(self, factor: Tensor) -> "Keys":
        """The same keys with content scores multiplied by factor (1 or batch, 1 or seqlen, 1 or n_heads)."""
        return replace(self, factor=factor if self.factor is None else self.factor * factor)

    def scale_queries(self, q: Tensor) -> Tensor:
        """q: (batch, seqlen, n_heads, d_qk) -> q times the factor, in q's dtype: content scores are linear in q."""
        if self.factor is None:
            return q
        return (q * self.factor[..., None].to(torch.promote_types(q.dtype, torch.float32))).to(q.dtype)


@dataclass(frozen=True)
class AttentionCall:
    """The arguments of one call of the attention op."""

    q: Tensor
    k: Tensor
    v: Tensor
    mask: Mask
    table: Tensor | None = None
    cumulative: tuple[Tensor, Tensor] | None = None
    documents: DocumentNumbers | None = None
    scale: float | None = None
    slopes: Tensor | None = None


Family = Literal["none", "rotary", "fourier", "polar", "bias", "gate", "absolute", "path"]


class PositionalEncoding(Parametrised, Generic[ConfigT]):
    """Base of all encodings. Its defaults are NoPE: every hook does nothing."""

    Config: ClassVar[type]
    family: ClassVar[Family] = "none"
    """The kind of encoding, which extensions depend on."""
    relative: ClassVar[bool] = True
    """Outputs depend on differences of positions only: shifting all positions changes nothing."""
    reads_positions: ClassVar[bool] = True
    """Whether positions are used; False: order enters through the mask or the content, and drawn positions change
    nothing."""
    needs_length: bool = False
    """Outputs depend on the length of the whole sequence, which must be declared in advance: not causal by design."""
    caches_raw_keys: bool = False
    """Keys are cached before any rotation, because a key is read at more than one position."""
    caches_all_terms: ClassVar[bool] = False
    """Token terms are cached for every key; otherwise only the last token's."""
    term_bytes: ClassVar[int] = 4
    """Bytes per number of `token_terms`: 8 where sums are float64."""
    softmax: ClassVar[bool] = True
    """Attention weights are a softmax, so that a sink logit can take part in it."""
    same_for_heads: ClassVar[bool] = False
    """Every head is encoded alike, without parameters, so that an encoding built for some of them serves any."""
    carry_name: Hashable | None = None
    """Name of the carry that layers with this encoding share; None: no carry."""
    mergeable: ClassVar[bool] = True
    """Attention over several disjoint sets of keys can be merged by their log-sum-exp: no score depends on other
    keys."""
    linear: ClassVar[bool] = True
    """Scores are q . k plus terms that do not depend on it, under a softmax, so that a temperature on q . k is well
    defined."""
    max_length: int | None = None
    """Positions must be below this: the size of the encoding's table; None: no limit."""

    def __init__(self, config: ConfigT, shape: HeadShape):
        super().__init__()
        self.config, self.shape = config, shape

    @property
    def no_decay(self) -> list[str]:  # type: ignore[override]
        """Names of parameters without weight decay: all of them."""
        return [name for name, _ in self.named_parameters(recurse=False)]

    @staticmethod
    def params(config: ConfigT, shape: HeadShape) -> int:
        """Number of trainable parameters of one layer's encoding; a test compares it with the built module."""
        return 0

    @staticmethod
    def flops(config: ConfigT, shape: HeadShape, visible: float, length: int) -> float:
        """Forward FLOPs per token of one layer in addition to those of attention without an encoding: own
        projections, wider products, functions of each query-key pair. Rotations and one addition to scores are not
        counted, like the softmax. visible: number of keys that a query sees, mean over a sequence of `length`
        tokens."""
        return 0.0

    @staticmethod
    def term_width(config: ConfigT, shape: HeadShape) -> int:
        """Width of `token_terms`: numbers per token."""
        return 0

    def on_embedding(self, x: Tensor, where: TokenContext) -> Tensor:
        """x: (batch, seqlen, d_model) embeddings -> the same with the encoding of their positions added."""
        return x

    def token_terms(self, x: Tensor, where: TokenContext, last: Tensor | None) -> Tensor | None:
        """x: (batch, seqlen, d_model), the layer's input. last: (batch, width), terms of the previous token, for
        running sums. -> (batch, seqlen, width), float32 or wider, or None."""
        return None

    def read_carry(self, x: Tensor, where: TokenContext, carry: Tensor | None) -> Tensor:
        """Token terms of an encoding with a carry. x: as in `token_terms`. carry: (batch, seqlen, any width) from the
        previous layer with this carry, None in the first. -> (batch, seqlen, width), float32 or wider."""
        raise NotImplementedError

    def write_carry(self, o: Tensor, keys: Keys) -> tuple[Tensor, Tensor]:
        """Split the output of `attend`, in which each head's columns are followed by those of the carry: o (batch,
        seqlen, n_heads, d_v), and the carry (batch, seqlen, any width) for the next layer."""
        raise NotImplementedError

    def on_qk(self, q: Tensor, k: Tensor, where: TokenContext, terms: Tensor | None) -> tuple[Tensor, Tensor]:
        """q: (batch, seqlen, n_heads, head_dim), k: (batch, seqlen, n_kv_heads, head_dim) of this chunk -> the same,
        encoded."""
        return q, k

    def bias(self, distance: Tensor) -> Tensor | None:
        """distance: any shape, >= 0, int64 -> (n_heads, *shape), float32 or wider, added to scores; None: no bias."""
        return None

    def slopes(self, device: torch.device) -> Tensor | None:
        """m (n_heads,) where the bias is -m_h d: kernels that know ALiBi need no table of it. None: another bias, or
        none."""
        return None

    def gates(self, terms: Tensor) -> Tensor | None:
        """terms: (batch, n, width) -> F (batch, n, n_heads), of which F_i - F_j is added to scores; None: no
        gates."""
        return None

    def table(self, n: int, keys: Keys) -> Tensor | None:
        """The bias T[h, d] for distances d < n: (n_heads, n)."""
        return self.bias(torch.arange(n, device=keys.positions.device))

    def calls(self, q: Tensor, keys: Keys) -> list[AttentionCall]:
        """Calls of the attention op over disjoint keys which together are attention with this encoding."""
        mask = keys.mask(q.shape[1])
        farthest = keys.k.shape[1] if keys.window is None or keys.sinks else min(keys.window, keys.k.shape[1])
        slopes, cumulative = self.slopes(keys.positions.device), self.cumulative(q.shape[1], keys)
        table = self.table(farthest, keys) if slopes is None else None
        return [AttentionCall(q, keys.k, keys.v, mask, table, cumulative, keys.documents, slopes=slopes)]

    def cumulative(self, seqlen: int, keys: Keys) -> tuple[Tensor, Tensor] | None:
        """F of the queries and of the keys, relative to the first query, so that long sums keep their precision."""
        gates = None if keys.terms is None else self.gates(keys.terms)
        if gates is None:
            return None
        gates = gates - gates[:, -seqlen : gates.shape[1] - seqlen + 1].detach()
        acc_dtype = torch.promote_types(keys.k.dtype, torch.float32)
        return gates[:, -seqlen:].to(acc_dtype), gates.to(acc_dtype)

    def attend(
        self, q: Tensor, keys: Keys, op: Attend = attention, return_lse: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """q: (batch, seqlen, n_heads, d_qk) -> o (batch, seqlen, n_heads, d_v), and lse (batch, seqlen, n_heads) if
        return_lse.

        op: the attention op, or its reference in tests.
        """
        if not keys.consecutive and self.bias(keys.positions[:1]) is not None:
            return self.attend_at_gaps(q, keys)
        calls = self.calls(q, keys)
        options: dict[str, bool] = {"return_lse": return_lse or len(calls) > 1} if op is attention else {}
        parts = []
        for c in calls:
            terms = {"table": c.table, "cumulative": c.cumulative, "documents": c.documents, "mask": c.mask}
            terms |= {"slopes": c.slopes, "soft_cap": keys.soft_cap}
            scale = q.shape[3] ** -0.5 if c.scale is None else c.scale
            parts.append(op(keys.scale_queries(c.q), c.k, c.v, scale=scale, **terms, **options))
        return parts[0] if len(parts) == 1 else merge(parts)

    def attend_at_gaps(self, q: Tensor, keys: Keys) -> tuple[Tensor, Tensor]:
        """`attend` with biases by distance where positions are not consecutive (randomised positions): by blocks of
        queries."""
        return self.attend_with_bias(q, keys, lambda rows: self.bias(keys.distances(rows, q.shape[1])), q.shape[2])

    def attend_with_bias(
        self, q: Tensor, keys: Keys, bias_of: Callable[[Tensor], Tensor | None], heads: int
    ) -> tuple[Tensor, Tensor]:
        """Attention with any bias, by blocks of queries.

        bias_of: query indices (n,) -> (n_heads, n, n_keys). Returns o (batch, seqlen, n_heads, d_v), and lse.
        """

        def biased(rows: Tensor, scores: Tensor, visible: Tensor) -> Tensor:
            extra = bias_of(rows)
            return scores if extra is None else scores + extra.to(scores.dtype)

        return self.attend_with_scores(q, keys, biased, heads)

    @torch.compiler.disable(reason="loops over blocks of queries, whose number depends on the length")
    def attend_with_scores(
        self,
        q: Tensor,
        keys: Keys,
        change: Callable[[Tensor, Tensor, Tensor], Tensor],
        heads: int,
        weigh: Weigh = weighted,
    ) -> tuple[Tensor, Tensor]:
        """Attention with any scores, by blocks of queries.

        change: query indices (n,), scores (batch, n_heads, n, n_keys), visible (bool, broadcasts) -> scores. weigh:
        scores, visible and values -> o (batch, seqlen, n_heads, d_v) and one number per row (batch, seqlen, n_heads),
        which are returned; by default the softmax and its lse.
        """
        seqlen, acc_dtype = q.shape[1], torch.promote_types(q.dtype, torch.float32)
        group, mask = heads // keys.k.shape[2], keys.mask(seqlen)
        k, v = (t.to(acc_dtype).repeat_interleave(group, 2) for t in (keys.k, keys.v))
        key_index, scaled_q = torch.arange(k.shape[1], device=k.device), keys.scale_queries(q)

        def attend_rows(rows: Tensor, first: int) -> Tensor:
            visible = self.visible(rows, key_index, mask, keys)
            with without_autocast(q.device):
                scores = torch.einsum("bihd,bjhd->bhij", scaled_q[:, rows].to(acc_dtype), k) * q.shape[3] ** -0.5
                if keys.soft_cap is not None:
                    scores = keys.soft_cap * torch.tanh(scores / keys.soft_cap)
                o, lse = weigh(change(rows, scores, visible), visible, v)
            return torch.cat([o, lse[..., None]], dim=3)

        both = blockwise(attend_rows, seqlen, k.shape[1], q.shape[0] * heads, q.device)
        return both[..., :-1].to(q.dtype), both[..., -1]

    @staticmethod
    def visible(rows: Tensor, key_index: Tensor, mask: Mask, keys: Keys) -> Tensor:
        """(n, n_keys) or (batch, 1, n, n_keys) bool: which of the keys at key_index (n_keys,) the queries at rows
        (n,) see."""
        visible = mask.visible(rows, key_index)
        if keys.documents is None:
            return visible
        of_queries, of_keys, _ = keys.documents
        return visible & (of_queries[:, rows][:, :, None] == of_keys[:, None])[:, None]
