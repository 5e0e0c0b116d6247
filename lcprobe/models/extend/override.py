"""An attention layer's trained encoding, wrapped by an extension: unchanged at factor 1, changed above.

All keys are cached, also those that an extension hides, since another call may make them visible again.
"""

from abc import ABC, abstractmethod
from collections.abc import Hashable
from dataclasses import replace

from lcprobe_kernels.attention import attention
from torch import Tensor, nn

from lcprobe.models.extend.contract import ExtensionContext
from lcprobe.models.extend.layers import EncodedLayer
from lcprobe.models.positional.contract import Attend, Keys, PositionalEncoding
from lcprobe.models.positional.rope import Rotary
from lcprobe.models.token_context import TokenContext


class EncodingOverride(PositionalEncoding, ABC):
    """Base of wrapped encodings: forwards everything to the trained encoding. Subclasses implement
    `attend_extended`."""

    mergeable = False
    inner: PositionalEncoding

    def __init__(self, inner: PositionalEncoding, context: ExtensionContext):
        nn.Module.__init__(self)
        self.config, self.shape = inner.config, inner.shape
        # share the trained encoding's own tables: names in state_dict, dtypes and devices stay the same
        vars(self).update({name: inner.__dict__[name] for name in ("_parameters", "_buffers", "_modules")})
        vars(self)["inner"] = inner
        self.context = context
        self.needs_length = inner.needs_length or context.factor is None
        self.caches_raw_keys, self.max_length = inner.caches_raw_keys, inner.max_length

    @property
    def caches_all_terms(self) -> bool:  # type: ignore[override]
        """As the trained encoding."""
        return self.inner.caches_all_terms

    @property
    def linear(self) -> bool:  # type: ignore[override]
        """As the trained encoding."""
        return self.inner.linear

    def token_terms(self, x: Tensor, where: TokenContext, last: Tensor | None) -> Tensor | None:
        """As the trained encoding."""
        return self.inner.token_terms(x, where, last)

    @property
    def carry_name(self) -> Hashable | None:  # type: ignore[override]
        """As the trained encoding."""
        return self.inner.carry_name

    def read_carry(self, x: Tensor, where: TokenContext, carry: Tensor | None) -> Tensor:
        """As the trained encoding."""
        return self.inner.read_carry(x, where, carry)

    def write_carry(self, o: Tensor, keys: Keys) -> tuple[Tensor, Tensor]:
        """As the trained encoding."""
        return self.inner.write_carry(o, keys)

    def on_qk(self, q: Tensor, k: Tensor, where: TokenContext, terms: Tensor | None) -> tuple[Tensor, Tensor]:
        """As the trained encoding."""
        return self.inner.on_qk(q, k, where, terms)

    def attend(
        self, q: Tensor, keys: Keys, op: Attend = attention, return_lse: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """See PositionalEncoding."""
        s = self.context.factor_at(keys.where.length)
        if s == 1:
            return self.inner.attend(q, keys, op, return_lse)
        return self.attend_extended(q, keys, s, op, return_lse)

    @abstractmethod
    def attend_extended(
        self, q: Tensor, keys: Keys, s: float, op: Attend, return_lse: bool
    ) -> tuple[Tensor, Tensor | None]:
        """`attend` at factor s > 1."""


class RereadEncoding(EncodingOverride):
    """Base of extensions that read keys at other positions, in several calls. Keys are cached unrotated. With NoPE
    there is no rotation, so that only masks have an effect."""

    def __init__(self, inner: PositionalEncoding, context: ExtensionContext):
        super().__init__(inner, context)
        self.caches_raw_keys = True

    def attend(
        self, q: Tensor, keys: Keys, op: Attend = attention, return_lse: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """See PositionalEncoding; at their own positions and by the trained encoding where nothing is extended."""
        s = self.context.factor_at(keys.where.length)
        if s == 1 or keys.k.shape[1] <= self.near(s):
            return self.inner.attend(*self.at_own_positions(q, keys), op, return_lse)
        return self.attend_extended(q, keys, s, op, return_lse)

    def attend_extended(
        self, q: Tensor, keys: Keys, s: float, op: Attend, return_lse: bool
    ) -> tuple[Tensor, Tensor | None]:
        """See EncodingOverride: the attention calls of this encoding, merged."""
        return PositionalEncoding.attend(self, q, keys, op, return_lse)

    @abstractmethod
    def near(self, s: float) -> int:
        """Sequence length up to which tokens are read as trained."""

    def at_own_positions(self, q: Tensor, keys: Keys) -> tuple[Tensor, Keys]:
        """Queries and keys, rotated by their own positions."""
        rotated_q = self.rotated(q, keys.positions[-q.shape[1] :], keys, "queries")
        return rotated_q, replace(keys, k=self.rotated(keys.k, keys.positions, keys, "keys"))

    def rotated(self, x: Tensor, positions: Tensor, keys: Keys, name: str) -> Tensor:
        """x: (batch, n, heads, head_dim) rotated by positions (n,), int64 or float64. name: identifies the positions
        in the cache of tables, which all layers share."""
        if not isinstance(self.inner, Rotary):
            return x
        return self.inner.rotated(x, positions, keys.where, name)


def rereadable(layer: EncodedLayer) -> bool:
    """Whether a layer's keys can be read at other positions: they are rotated or not encoded, and all are cached."""
    encoding = layer.encoding
    plain = isinstance(encoding, Rotary) and type(encoding).on_qk is Rotary.on_qk
    plain = (plain and not encoding.caches_raw_keys) or encoding.family == "none"
    return plain and layer.window is None
