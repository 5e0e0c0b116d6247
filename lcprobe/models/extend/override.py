"""An attention layer's encoding with a method in front of it: as trained at factor 1, changed above.

Keys are cached whole, also where a method hides them: what is hidden may come into view again in another call.
"""

from collections.abc import Hashable
from dataclasses import replace

from lcprobe_kernels.attention import attention
from torch import Tensor, nn

from lcprobe.models.extend.contract import ExtensionContext
from lcprobe.models.extend.layers import EncodedLayer
from lcprobe.models.positional.contract import Attend, Keys, PositionalEncoding
from lcprobe.models.positional.rope import Rotary
from lcprobe.models.token_context import TokenContext


class EncodingOverride(PositionalEncoding):
    """Base: passes everything on to the trained encoding. A method overrides `changed`."""

    inner: PositionalEncoding

    def __init__(self, inner: PositionalEncoding, context: ExtensionContext):
        nn.Module.__init__(self)
        self.config, self.shape = inner.config, inner.shape
        # the inner one's own tables, under its names: state_dict, dtype and device stay those of the trained encoding
        self.__dict__.update({name: inner.__dict__[name] for name in ("_parameters", "_buffers", "_modules")})
        self.__dict__["inner"] = inner
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
        """See the contract."""
        s = self.context.factor_at(keys.where.length)
        if s == 1:
            return self.inner.attend(q, keys, op, return_lse)
        return self.attend_extended(q, keys, s, op, return_lse)

    def attend_extended(
        self, q: Tensor, keys: Keys, s: float, op: Attend, return_lse: bool
    ) -> tuple[Tensor, Tensor | None]:
        """`attend` at factor s > 1."""
        raise NotImplementedError


class RereadEncoding(EncodingOverride):
    """Base of methods that read keys at positions of their own, in several calls. Keys are cached unrotated; NoPE has no
    rotation, and only the masks act."""

    def __init__(self, inner: PositionalEncoding, context: ExtensionContext):
        super().__init__(inner, context)
        self.caches_raw_keys = True

    def attend(
        self, q: Tensor, keys: Keys, op: Attend = attention, return_lse: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """At their own positions by the trained encoding, where nothing else is to be done."""
        s = self.context.factor_at(keys.where.length)
        if s == 1 or keys.k.shape[1] <= self.near(s):
            return self.inner.attend(*self.at_own_positions(q, keys), op, return_lse)
        return PositionalEncoding.attend(self, q, keys, op, return_lse)

    def near(self, s: float) -> int:
        """Tokens up to which a sequence is read as trained."""
        raise NotImplementedError

    def at_own_positions(self, q: Tensor, keys: Keys) -> tuple[Tensor, Keys]:
        """Queries and keys rotated by their own positions."""
        asked = keys.positions[-q.shape[1] :]
        return self.rotated(q, asked, keys, "queries"), replace(
            keys, k=self.rotated(keys.k, keys.positions, keys, "keys")
        )

    def rotated(self, x: Tensor, positions: Tensor, keys: Keys, name: str) -> Tensor:
        """x: (batch, n, heads, head_dim) by positions (n,), int64 or float64; name: tells them apart among all layers."""
        if not isinstance(self.inner, Rotary):
            return x
        return self.inner.rotated(x, positions, keys.where, name)


def rereadable(layer: EncodedLayer) -> bool:
    """Whether keys of a layer can be read at other positions: plainly rotated or not at all, and all of them cached."""
    encoding = layer.encoding
    plain = isinstance(encoding, Rotary) and type(encoding).on_qk is Rotary.on_qk
    plain = (plain and not encoding.caches_raw_keys) or encoding.family == "none"
    return plain and layer.window is None
