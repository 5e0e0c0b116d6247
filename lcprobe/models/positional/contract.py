"""The contract of positional encodings: one object a layer, with a hook for each place where position can enter.

    on_embedding   the embedding, once before the first block (absolute encodings; set for the whole model)
    token_terms    what a token's content adds: cumulative gates, phases; cached with the keys
    on_qk          queries and keys, before keys are cached (or, with `caches_raw_keys`, not at all)
    bias           a number for each head and distance: T[h, d] of the attention op
    gates          F of the attention op, out of the token terms
    calls          one call of the op over all keys, or several over disjoint keys, merged by their log-sum-exp
    attend         all of the above; replaced whole only where the op's algebra does not reach (CoPE, stick-breaking, PaTH, DAPE,
                   TAPE)
    carry          tensors that a layer hands on beside the residual stream (TAPE): `read_carry` takes them in place of token_terms,
                   `write_carry` gives them to the next layer that names the same carry; other layers do not touch them

An encoding says what it is in class attributes, which tests and reports read; its parameters never decay, and its angles and
sums are float32 or wider whatever the model's dtype.
"""

from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar

import torch
from lcprobe_kernels.attention import Mask, attention, blockwise, merge
from lcprobe_kernels.attention.reference import weighted
from torch import Tensor

from lcprobe.errors import ConfigError
from lcprobe.models.parameters import Parametrised
from lcprobe.models.token_context import TokenContext

Attend = Callable[..., tuple[Tensor, Tensor | None]]
Weigh = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class HeadShape:
    """What an encoding may know of the layer it is built for. context_length: what the model is trained on, None if unknown."""

    n_heads: int
    n_kv_heads: int
    head_dim: int
    d_model: int
    context_length: int | None = None


@contextmanager
def inside_layer(at: str) -> Iterator[None]:
    """Errors of an encoding name its own setting, `<at>.positional.fraction`, or the layer's that is wrong, `<at>.head_dim`."""
    try:
        yield
    except ConfigError as error:
        key = error.key if error.key in {f.name for f in fields(HeadShape)} else f"positional.{error.key}"
        raise ConfigError(f"{at}.{key}" if at else key, error.given, error.allowed, error.near) from None


@dataclass(frozen=True)
class Keys:
    """What queries meet: keys and values of everything cached and of this chunk, oldest first.

    k: (batch, n_keys, n_kv_heads, d_qk), v: (batch, n_keys, n_kv_heads, d_v). positions: (n_keys,) int64; the queries are the
    last seqlen of them. terms: (batch, n_keys, width) of `token_terms`, or the queries' own alone, or None. documents: numbers
    (batch, seqlen) and (batch, n_keys), or None. window, sinks: what the layer lets a query see; consecutive: positions are
    neighbours, so that places among the keys give distances. factor: (1 or batch, 1 or seqlen, 1 or n_heads) float32 or wider, on
    the content score of each query and key: a bias or a gate that is added to it stays as it is. None: 1.
    """

    k: Tensor
    v: Tensor
    positions: Tensor
    where: TokenContext
    terms: Tensor | None = None
    documents: tuple[Tensor, Tensor] | None = None
    window: int | None = None
    sinks: int = 0
    consecutive: bool = True
    factor: Tensor | None = None

    def mask(self, seqlen: int, **changes: int) -> Mask:
        """The layer's mask for the last `seqlen` places, with the given fields changed."""
        high = -1 if self.window is None else self.window
        return replace(Mask(self.k.shape[1] - seqlen, high=high, sinks=self.sinks), **changes)

    def of_queries(self, lo: int, hi: int, seqlen: int) -> "Keys":
        """What queries lo .. hi - 1 of `seqlen` meet: the keys up to the last of them."""
        end = self.k.shape[1] - seqlen + hi
        documents = None if self.documents is None else (self.documents[0][:, lo:hi], self.documents[1][:, :end])
        factor = self.factor if self.factor is None or self.factor.shape[1] == 1 else self.factor[:, lo:hi]
        kept = {"k": self.k[:, :end], "v": self.v[:, :end], "positions": self.positions[:end]}
        return replace(self, **kept, documents=documents, factor=factor)

    def times(self, factor: Tensor) -> "Keys":
        """The same with a factor (1 or batch, 1 or seqlen, 1 or n_heads) more on content scores."""
        return replace(self, factor=factor if self.factor is None else self.factor * factor)

    def sharpened(self, q: Tensor) -> Tensor:
        """q: (batch, seqlen, n_heads, d_qk), as the attention op gets it -> times the factor, in q's dtype."""
        if self.factor is None:
            return q
        return (q * self.factor[..., None].to(torch.promote_types(q.dtype, torch.float32))).to(q.dtype)


@dataclass(frozen=True)
class Call:
    """One call of the attention op: queries, keys, values and what stands beside them."""

    q: Tensor
    k: Tensor
    v: Tensor
    mask: Mask
    table: Tensor | None = None
    cumulative: tuple[Tensor, Tensor] | None = None
    documents: tuple[Tensor, Tensor] | None = None
    scale: float | None = None


class PositionalEncoding(Parametrised):
    """Base of all encodings, and NoPE as it stands: every hook does nothing."""

    Config: ClassVar[type]
    family: ClassVar[str] = "none"
    """none | rotary | bias | gate | absolute | path: what post-hoc extensions ask for."""
    relative: ClassVar[bool] = True
    """Only differences of positions matter: outputs do not change when all positions are shifted."""
    reads_positions: ClassVar[bool] = True
    """Positions are read at all; False: order enters through the mask or content alone, and drawn positions change nothing."""
    needs_length: bool = False
    """Depends on the length of the whole sequence, which must be declared in advance: not causal by design."""
    caches_raw_keys: bool = False
    """Keys are cached as they come, because one key is read at more than one position."""
    caches_all_terms: ClassVar[bool] = False
    """Token terms of every key are cached; otherwise only the last token's."""
    term_bytes: ClassVar[int] = 4
    """Bytes of a token term: 8 where sums run in float64."""
    softmax: ClassVar[bool] = True
    """Weights are a softmax's, so that a sink's logit can take part."""
    carry_name: Hashable | None = None
    """Name of the carry that layers of this encoding share; layers with another name have their own. None: no carry."""
    linear: ClassVar[bool] = True
    """Weights are a softmax of content scores q . k and of terms that do not depend on them: a factor on the first is clear."""
    max_length: int | None = None
    """No position at or beyond this one, where a table of the encoding ends."""

    def __init__(self, config: Any, shape: HeadShape):
        super().__init__()
        self.config, self.shape = config, shape

    @property
    def no_decay(self) -> list[str]:  # type: ignore[override]
        """Parameters without weight decay: all of them."""
        return [name for name, _ in self.named_parameters(recurse=False)]

    @staticmethod
    def params(config: Any, shape: HeadShape) -> int:
        """Trainable numbers of one layer's encoding; a test compares them with what is built."""
        return 0

    @staticmethod
    def flops(config: Any, shape: HeadShape, visible: float, length: int) -> float:
        """Forward FLOPs a token of one layer beside those of attention without positions: projections of its own, wider products,
        functions of each query and key. A rotation or one addition to scores counts as little as the softmax: nothing. visible:
        keys that a query sees, the mean over a sequence of `length` tokens."""
        return 0.0

    @staticmethod
    def term_width(config: Any, shape: HeadShape) -> int:
        """Numbers of `token_terms` a token."""
        return 0

    def on_embedding(self, x: Tensor, where: TokenContext) -> Tensor:
        """x: (batch, seqlen, d_model) embeddings -> the same with what belongs to their positions."""
        return x

    def token_terms(self, x: Tensor, where: TokenContext, last: Tensor | None) -> Tensor | None:
        """x: (batch, seqlen, d_model), the layer's input. last: (batch, width), terms of the token before, for sums that run on.
        -> (batch, seqlen, width), float32 or wider, or None."""
        return None

    def read_carry(self, x: Tensor, where: TokenContext, carry: Tensor | None) -> Tensor:
        """Token terms of an encoding with a carry. x: as in `token_terms`. carry: (batch, seqlen, any width), what the layer
        before wrote, None in the first. -> (batch, seqlen, width), float32 or wider."""
        raise NotImplementedError

    def write_carry(self, o: Tensor, keys: Keys) -> tuple[Tensor, Tensor]:
        """What `attend` made, with a carry's columns behind each head's own, in two: o (batch, seqlen, n_heads, d_v), and the
        carry (batch, seqlen, any width) for the next layer."""
        raise NotImplementedError

    def on_qk(self, q: Tensor, k: Tensor, where: TokenContext, terms: Tensor | None) -> tuple[Tensor, Tensor]:
        """q: (batch, seqlen, n_heads, head_dim), k: (batch, seqlen, n_kv_heads, head_dim), this chunk's."""
        return q, k

    def bias(self, distance: Tensor) -> Tensor | None:
        """distance: any shape, >= 0, int64 -> (n_heads, *shape), float32 or wider, added to scores; None: nothing is."""
        return None

    def gates(self, terms: Tensor) -> Tensor | None:
        """terms: (batch, n, width) -> F (batch, n, n_heads): F_i - F_j is added to scores. None: nothing is."""
        return None

    def table(self, n: int, keys: Keys) -> Tensor | None:
        """T[h, d] for d < n: (n_heads, n)."""
        return self.bias(torch.arange(n, device=keys.positions.device))

    def calls(self, q: Tensor, keys: Keys) -> list[Call]:
        """Calls over disjoint keys which together are attention with this encoding."""
        mask = keys.mask(q.shape[1])
        farthest = keys.k.shape[1] if keys.window is None or keys.sinks else min(keys.window, keys.k.shape[1])
        return [
            Call(
                q, keys.k, keys.v, mask, self.table(farthest, keys), self.cumulative(q.shape[1], keys), keys.documents
            )
        ]

    def cumulative(self, seqlen: int, keys: Keys) -> tuple[Tensor, Tensor] | None:
        """F of the queries and of the keys, counted from the first query so that long sums keep their digits."""
        gates = None if keys.terms is None else self.gates(keys.terms)
        if gates is None:
            return None
        gates = gates - gates[:, -seqlen : gates.shape[1] - seqlen + 1].detach()
        acc_dtype = torch.promote_types(keys.k.dtype, torch.float32)
        return gates[:, -seqlen:].to(acc_dtype), gates.to(acc_dtype)

    def attend(
        self, q: Tensor, keys: Keys, op: Attend = attention, return_lse: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """q: (batch, seqlen, n_heads, d_qk) -> o (batch, seqlen, n_heads, d_v), and lse (batch, seqlen, n_heads) where asked for.

        op: the attention op, or its reference in tests.
        """
        if not keys.consecutive and self.bias(keys.positions[:1]) is not None:
            return self.scattered(q, keys)
        calls = self.calls(q, keys)
        options: dict[str, Any] = {"return_lse": return_lse or len(calls) > 1} if op is attention else {}
        parts = []
        for c in calls:
            terms = {"table": c.table, "cumulative": c.cumulative, "documents": c.documents, "mask": c.mask}
            parts.append(
                op(
                    keys.sharpened(c.q),
                    c.k,
                    c.v,
                    scale=q.shape[3] ** -0.5 if c.scale is None else c.scale,
                    **terms,
                    **options,
                )
            )
        return parts[0] if len(parts) == 1 else merge(parts)

    def scattered(self, q: Tensor, keys: Keys) -> tuple[Tensor, Tensor]:
        """Biases where places among the keys do not give distances (randomised positions): by blocks of queries."""
        seqlen, heads = q.shape[1], q.shape[2]
        asked = keys.positions[-seqlen:]
        return self.by_blocks(
            q, keys, lambda rows: self.bias((asked[rows][:, None] - keys.positions).clamp_min(0)), heads
        )

    def by_blocks(
        self, q: Tensor, keys: Keys, bias_of: Callable[[Tensor], Tensor | None], heads: int
    ) -> tuple[Tensor, Tensor]:
        """Attention with any bias: bias_of(rows (n,)) -> (n_heads, n, n_keys). o: (batch, seqlen, n_heads, d_v), and lse."""

        def biased(rows: Tensor, scores: Tensor, seen: Tensor) -> Tensor:
            extra = bias_of(rows)
            return scores if extra is None else scores + extra.to(scores.dtype)

        return self.rescored(q, keys, biased, heads)

    def rescored(
        self,
        q: Tensor,
        keys: Keys,
        change: Callable[[Tensor, Tensor, Tensor], Tensor],
        heads: int,
        weigh: Weigh = weighted,
    ) -> tuple[Tensor, Tensor]:
        """Attention with any scores: change(rows (n,), scores (batch, n_heads, n, n_keys), seen, that broadcasts) -> scores.

        weigh: scores, seen and values to o (batch, seqlen, n_heads, d_v) and a number a row (batch, seqlen, n_heads), which are
        returned; the softmax and its lse unless given.
        """
        seqlen, acc_dtype = q.shape[1], torch.promote_types(q.dtype, torch.float32)
        group, mask = heads // keys.k.shape[2], keys.mask(seqlen)
        k, v = (t.to(acc_dtype).repeat_interleave(group, 2) for t in (keys.k, keys.v))
        places, asked = torch.arange(k.shape[1], device=k.device), keys.sharpened(q)

        def some(rows: Tensor) -> Tensor:
            seen = self.seen(rows, places, mask, keys)
            with torch.autocast(q.device.type, enabled=False):
                scores = torch.einsum("bihd,bjhd->bhij", asked[:, rows].to(acc_dtype), k) * q.shape[3] ** -0.5
                o, lse = weigh(change(rows, scores, seen), seen, v)
            return torch.cat([o, lse[..., None]], dim=3)

        both = blockwise(some, seqlen, k.shape[1], q.shape[0] * heads, q.device)
        return both[..., :-1].to(q.dtype), both[..., -1]

    @staticmethod
    def seen(rows: Tensor, places: Tensor, mask: Mask, keys: Keys) -> Tensor:
        """(n, n_keys) or (batch, 1, n, n_keys) bool: which keys the queries at `rows` see."""
        seen = mask.visible(rows, places)
        if keys.documents is None:
            return seen
        asked, held = keys.documents
        return seen & (asked[:, rows][:, :, None] == held[:, None])[:, None]
