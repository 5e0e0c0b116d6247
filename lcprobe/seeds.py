"""Random numbers as a pure function of names: the same names give the same numbers on any machine and version.

Numbers come from SHAKE-256 over the names, not from a library's generator, which may change between releases. There
is no state that a checkpoint would have to save.
"""

import hashlib
from collections.abc import Iterator, Sequence
from typing import TypeVar

import numpy as np

T = TypeVar("T")


def _bytes(high: int) -> int:
    """Number of bytes to draw for an integer in [0, high)."""
    return max(8, (high.bit_length() + 7) // 8 + 8)


def _key(parts: Sequence[object]) -> bytes:
    return repr(tuple(parts)).encode()


def seed_of(*parts: str | int | float) -> int:
    """A 63-bit seed from any names, for generators that need one (torch)."""
    return int.from_bytes(hashlib.shake_256(_key(parts)).digest(8), "little") >> 1


class Stream:
    """A random stream of 64-bit words under one key. It is never saved or shared: it is created again from its
    names."""

    def __init__(self, *parts: str | int | float):
        self._key, self._block = _key(parts), 0

    def words(self, n: int) -> np.ndarray:
        """(n,) uint64, uniform."""
        self._block += 1
        raw = hashlib.shake_256(self._key + self._block.to_bytes(8, "little")).digest(8 * n)
        return np.frombuffer(raw, dtype="<u8")

    def uniform(self, n: int) -> np.ndarray:
        """(n,) float64 in [0, 1)."""
        return (self.words(n) >> np.uint64(11)) * 2.0**-53

    def integers(self, high: int, n: int) -> np.ndarray:
        """(n,) int64 in [0, high), `high` at most 2^53."""
        return np.minimum((self.uniform(n) * high).astype(np.int64), high - 1)

    def integer(self, high: int) -> int:
        """One integer in [0, high), for any `high` (bias below 2^-64)."""
        size = _bytes(high)
        self._block += 1
        raw = hashlib.shake_256(self._key + self._block.to_bytes(8, "little")).digest(size)
        return int.from_bytes(raw, "little") * high >> (8 * size)

    def rounds(self, *highs: int) -> Iterator[list[int]]:
        """Endless lists with `integer(high)` of each of `highs`, at half the cost."""
        key, shake, number = self._key, hashlib.shake_256, int.from_bytes
        each = [(high, _bytes(high)) for high in highs]
        while True:
            drawn = []
            for high, size in each:
                self._block += 1
                drawn.append(
                    number(shake(key + self._block.to_bytes(8, "little")).digest(size), "little") * high >> (8 * size)
                )
            yield drawn

    def small(self, high: int, n: int) -> np.ndarray:
        """(n,) int64 in [0, high), `high` at most 2^16 (bias below 2^-16), at half the cost of `integers`; for 2, 4,
        .. 256 without bias at an eighth of the cost. A shorter draw is a prefix of a longer one.
        """
        if high in (2, 4, 8, 16, 32, 64, 128, 256):
            return (self.words((n + 7) // 8).view(np.uint8)[:n] & np.uint8(high - 1)).astype(np.int64)
        halves = self.words((n + 1) // 2).view("<u4")[:n].astype(np.uint64)
        return (halves * np.uint64(high) >> np.uint64(32)).astype(np.int64)

    def distinct(self, high: int, n: int) -> list[int]:
        """n distinct integers in [0, high) in random order, n at most `high`, in n steps (Floyd's algorithm)."""
        chosen: list[int] = []
        for last in range(high - n, high):
            at = self.integer(last + 1)
            chosen.append(last if at in chosen else at)
        return [chosen[i] for i in self.permutation(n)]

    def permutation(self, n: int) -> np.ndarray:
        """(n,) int64, a uniform permutation."""
        return np.argsort(self.words(n), kind="stable")

    def shuffle(self, n: int) -> np.ndarray:
        """(n,) int64, a permutation at a quarter of the cost, for n items that are in random order already.

        Sort keys have 16 bits, and items with equal keys keep their order.
        """
        keys = self.words((n + 3) // 4).view("<u2")[:n]
        return np.argsort(keys, kind="stable")

    def pick(self, items: Sequence[T]) -> T:
        """One item, uniformly."""
        return items[self.integer(len(items))]


class Draws:
    """Named streams under one key: `draw("value")` does not depend on what is drawn from other names."""

    def __init__(self, *parts: str | int | float):
        self._parts = parts

    def __call__(self, *names: str | int | float) -> Stream:
        return Stream(*self._parts, "/", *names)


class LazyPermutation:
    """A uniform permutation of range(n) that can be evaluated at any positions without the others.

    Rounds of multiplication and shift on the least number of bits, repeated until the result is below n (cycle
    walking, Black & Rogaway 2002); small n are permuted explicitly. One object, drawn from `draw`, is one
    permutation.
    """

    ROUNDS, MAX_EXPLICIT = 4, 1 << 12

    def __init__(self, draw: Stream, n: int):
        """n: at most 2^31."""
        self.n = n
        self._all = draw.permutation(n) if n <= self.MAX_EXPLICIT else None
        bits = max(2, (n - 1).bit_length())
        self._mask, self._shift = np.uint32((1 << bits) - 1), np.uint32((bits + 1) // 2)
        self._factors = draw.words(2 * self.ROUNDS).astype(np.uint32).reshape(self.ROUNDS, 2) & self._mask

    def __call__(self, positions: np.ndarray) -> np.ndarray:
        """(k,) positions -> (k,) int64, the permutation's values there."""
        if self._all is not None:
            return self._all[positions]
        values = self._mixed(positions.astype(np.uint32))
        while self.n <= self._mask and len(out := np.flatnonzero(values >= self.n)):
            values[out] = self._mixed(values[out])
        return values.astype(np.int64)

    def _mixed(self, x: np.ndarray) -> np.ndarray:
        """Apply all rounds, in place. Only the low bits of a product matter, so 32 bits are enough, at half the cost
        of 64."""
        for factor, addend in self._factors:
            x *= factor | np.uint32(1)
            x += addend
            x &= self._mask
            x ^= x >> self._shift
        return x


def permuted(index: int, n: int, *key: str | int | float) -> int:
    """The image of `index` under a keyed permutation of range(n): a four-round Feistel network with cycle walking.

    Stateless, O(1) memory, a bijection for every n (Black & Rogaway 2002, "Ciphers with arbitrary finite domains").
    """
    if not 0 <= index < n:
        raise ValueError(f"index {index} outside range({n})")
    half = max(1, (max(n - 1, 1).bit_length() + 1) // 2)
    mask, prefix = (1 << half) - 1, _key(key)
    while True:
        left, right = index >> half, index & mask
        for number in range(4):
            raw = hashlib.blake2b(right.to_bytes(8, "little") + bytes([number]), key=_short(prefix), digest_size=8)
            left, right = right, left ^ (int.from_bytes(raw.digest(), "little") & mask)
        index = left << half | right
        if index < n:
            return index


def _short(key: bytes) -> bytes:
    return key if len(key) <= 64 else hashlib.blake2b(key).digest()
