"""State tracking: every symbol of the context changes a state, and the last state is asked for. Nothing is looked up.

Source: Merrill et al. 2024, The Illusion of State, arXiv 2404.08819 (word problems of groups: parity is S2; S3 is solvable; S5 is
not, and neither transformers nor Mamba, both in TC0, compute it at every length unless TC0 = NC1). Differs from it: words of text
in any tokenizer, and one place of the composed permutation is asked for instead of the whole, with each answer equally often.
RULER's variable tracking mixes following a state with looking names up; this does not, and is no retrieval.

    parity   Bits: 1 0 1 1 0 1. The number of ones is                 -> " even"
    s3, s5   Moves: 21345 23451 52341. The ball in 2 ends in          -> " 3"      (digit i: where the ball in i goes)

`needs_lookup` is false, so that reports keep it apart from retrieval: no mean goes over tasks, and no key look-up is claimed.
Guessing scores 1 / 2, 1 / 3, 1 / 5, and so does everything that leaves out one symbol.
"""

from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import permutations
from typing import Literal

import numpy as np

from lcprobe.errors import require
from lcprobe.seeds import Draws, permuted
from lcprobe.tasks.assembly import (
    EMPTY,
    MAX_JOINTS,
    Axes,
    Built,
    Haystack,
    Part,
    Question,
    TooShort,
    assemble,
    bos_piece,
    certify,
    least_length,
)
from lcprobe.tasks.episode import SUITE, Episode, Factors
from lcprobe.tasks.names import NOTHING
from lcprobe.tasks.parts.placement import joined
from lcprobe.tasks.text.haystack import Materials

PLACES = {"parity": 2, "s3": 3, "s5": 5}


@dataclass(frozen=True)
class StateTrackingConfig:
    """Which group, and how many symbols. Length is a factor of the grid."""

    group: Literal["parity", "s3", "s5"] = "parity"
    """Bits, or permutations of three or five places."""
    steps: int | None = None
    """Symbols; common words before them fill the rest. null: as many as the length holds."""

    def check(self, at: str) -> None:
        """Raises ConfigError for less than one symbol."""
        require(f"{at}.steps", self.steps, self.steps is None or self.steps >= 1, ">= 1 or null")


class StateTracking:
    """The generator. No haystack, no formats, no depth and no controls: all of the context is signal."""

    Config = StateTrackingConfig
    axes = Axes(haystack=(NOTHING,), key=(NOTHING,), value=(NOTHING,), controls=("none",), depth=False)
    needs_lookup = False

    def __init__(self, config: StateTrackingConfig, materials: Materials):
        self.config, self.materials = config, materials
        self.elements, self.product, self.pairs = _group(PLACES[config.group])
        self.symbols = (
            ["0", "1"] if config.group == "parity" else ["".join(map(str, e)) for e in (self.elements + 1).tolist()]
        )
        self._units: list[np.ndarray] = []

    def episode(self, factors: Factors) -> Episode:
        """One episode of exactly `factors.length` tokens. Raises EpisodeError for a length below the least, which it names."""
        self.axes.check(factors)
        return certify(lambda attempt: self._build(factors, attempt), factors, self.materials.tokenizer)

    def shortest(self, factors: Factors) -> int:
        """The least length at which this sample exists."""
        self.axes.check(factors)
        return least_length(lambda: self._build(replace(factors, length=1), 0))

    def _build(self, factors: Factors, attempt: int) -> Built:
        cfg, tok, k = self.config, self.materials.tokenizer, PLACES[self.config.group]
        draw = Draws("state_tracking", cfg.group, SUITE, factors.split, factors.index)
        # blocks of k samples have every answer once
        block, at = divmod(factors.index, k)
        end = permuted(at, k, "state_tracking", cfg.group, SUITE, factors.split, block)
        if cfg.group == "parity":
            begin, opening, ask, answers = 0, " Bits:", " The number of ones is", ["even", "odd"]
        else:
            begin, opening = draw("place").integer(k), " Moves:"
            ask, answers = f" The ball in {begin + 1} ends in", [str(i + 1) for i in range(k)]
        self._units = self._units or [tok.piece(" " + symbol) for symbol in self.symbols]
        units = self._units
        before, close, question = [bos_piece(tok)], tok.piece("."), tok.piece(ask)
        pieces = [tok.piece(" " + name) for name in answers]
        others = [piece for i, piece in enumerate(pieces) if i != end]
        asked = Question(str(begin + 1), answers[end], question, pieces[end], EMPTY, None, others, 1 / k)

        fixed = len(before[0]) + len(tok.piece(opening)) + len(close) + len(question) + len(pieces[end])
        codes = self._codes(factors.length - fixed, units, draw)
        # the last symbol is any of those that lead to the answer: all words with this answer stay equally likely
        leads = np.flatnonzero(self.elements[self.product[self._composed(codes)], begin] == end)
        codes = np.append(codes, leads[draw("last").integer(len(leads))])
        symbols = joined(units, codes)
        room = factors.length - fixed - len(symbols)
        if room < 0:
            raise TooShort(factors.length, factors.length - room, f"{len(codes)} symbols")
        stream = self.materials.stream("words")
        start = (
            stream.window((draw("filler").integer(len(stream)) + 101 * attempt) % len(stream), room) if room else 0
        )
        signal = np.concatenate([tok.piece(opening), symbols, close])
        context: list[Part] = [(stream.take(start, room), None), (signal, 0)] if room else [(signal, 0)]
        every = max(16, len(signal) // MAX_JOINTS)
        inner = {0: [*range(every, len(signal), every), len(tok.piece(opening)), len(signal) - 1]}
        return assemble(before, context, [asked], Haystack(start, room, room / len(stream)), inner)

    def _codes(self, tokens: int, units: list[np.ndarray], draw: Draws) -> np.ndarray:
        """All symbols but the last; a longer word begins with a shorter one."""
        sizes = np.array([len(unit) for unit in units])
        if self.config.steps is not None:
            return draw("symbols").small(len(units), self.config.steps - 1)
        most = int(sizes.max())
        codes = draw("symbols").small(len(units), max(0, tokens // int(sizes.min())))
        if most == sizes.min():
            return codes[: max(0, (tokens - most) // most)]
        fit = int(np.searchsorted(np.cumsum(sizes[codes]), tokens - most, side="right"))
        return codes[:fit]

    def _composed(self, codes: np.ndarray) -> int:
        """The product of a word, pair by pair."""
        codes = codes.astype(np.uint8)
        while len(codes) > 1:
            even = codes[: len(codes) // 2 * 2]
            codes = np.concatenate([self.pairs.take(even.view("<u2")), codes[len(even) :]])
        return int(codes[0]) if len(codes) else 0


@lru_cache
def _group(k: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Permutations of k places (k!, k), the identity first, and their products (k!, k!): first the row's, then the column's.

    Then the products again (2^16,) by two neighbouring bytes of a word, read as one little-endian number.
    """
    elements = np.array(list(permutations(range(k))))
    number = {tuple(e): i for i, e in enumerate(elements.tolist())}
    product = [[number[tuple(after[before].tolist())] for after in elements] for before in elements]
    pairs = np.zeros((256, 256), dtype=np.uint8)
    pairs[: len(product), : len(product)] = np.array(product).T
    return elements, np.array(product), pairs.ravel()
