"""State tracking: every symbol of the context changes a state, and the final state is the answer. Nothing is looked
up.

Source: Merrill et al. 2024, The Illusion of State, arXiv 2404.08819 (word problems of groups: parity is S2; S3 is
solvable; S5 is not, and neither transformers nor Mamba, both in TC0, compute it at every length unless TC0 = NC1).
Differs from it: words of text in any tokenizer, and the question is about one place of the composed permutation
instead of the whole, with each answer equally often. RULER's variable tracking mixes following a state with looking
names up; this does not, and is no retrieval.

    parity   Bits: 1 0 1 1 0 1. The number of ones is                 -> " even"
    s3, s5   Moves: 21345 23451 52341. The ball in 2 ends in          -> " 3"      (digit i: where the ball in i goes)

Where a tokenizer has more tokens for odd than for even, the question of parity is on which side a switch is that
every 1 turns. The number of symbols does not depend on the answer.

`has_keys` is false, so that reports keep it apart from retrieval: no mean goes over tasks, and no key look-up is
claimed. Guessing scores 1 / 2, 1 / 3, 1 / 5, and so does everything that leaves out one symbol.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import permutations
from typing import Literal

import numpy as np

from lcprobe.errors import require
from lcprobe.seeds import Draws
from lcprobe.tasks.assembly import Axes, Task
from lcprobe.tasks.episode import SUITE
from lcprobe.tasks.names import NOTHING
from lcprobe.tasks.parts.layout import Context, HaystackWindow, Layout, Question, Sample
from lcprobe.tasks.parts.placement import MAX_JOINTS, Cut, Needle, gather_units, in_text
from lcprobe.tasks.text.formats import token_count
from lcprobe.tasks.text.haystack import Materials
from lcprobe.tasks.text.tokenizer import Tokenizer

PARITY = (
    (" The number of ones is", ("even", "odd")),
    (" A switch on the left that every 1 turns is now on the", ("left", "right")),
)
"""Questions of parity with their answers: the first whose answers have equally many tokens, or the first of all."""
PLACES = {"parity": 2, "s3": 3, "s5": 5}


@dataclass(frozen=True)
class StateTrackingConfig:
    """The group, and the number of symbols. Length is a factor of the grid."""

    group: Literal["parity", "s3", "s5"] = "parity"
    """Bits, or permutations of three or five places."""
    steps: int | None = None
    """Symbols; common words before them fill the rest. null: as many as fit in the length."""

    def check(self, at: str) -> None:
        """Raises ConfigError for less than one symbol."""
        require(f"{at}.steps", self.steps, self.steps is None or self.steps >= 1, ">= 1 or null")


class StateTracking(Task[StateTrackingConfig]):
    """The generator. No haystack, no formats, no depth and no controls: all of the context is signal."""

    Config = StateTrackingConfig
    name = "state_tracking"
    axes = Axes(
        haystack=(NOTHING,), key=(NOTHING,), value=(NOTHING,), controls=("none",), depth=False, distance=False
    )

    def __init__(self, config: StateTrackingConfig, materials: Materials):
        super().__init__(config, materials)
        self.elements, self.product, self.pairs = _group(PLACES[config.group])
        self.symbols = ["0", "1"]
        if config.group != "parity":
            self.symbols = ["".join(map(str, element)) for element in (self.elements + 1).tolist()]
        self._units: list[np.ndarray] = []

    @property
    def has_keys(self) -> bool:
        """See Task: False, nothing is looked up."""
        return False

    @property
    def seed_names(self) -> tuple[str, ...]:
        """Each group is a task of its own."""
        return (self.name, self.config.group, SUITE)

    def layout(self, sample: Sample) -> Layout:
        """See Task."""
        tok, draw, group, k = sample.tokenizer, sample.draw, self.config.group, PLACES[self.config.group]
        end = sample.balanced(k)
        if group == "parity":
            start, opening, (ask, answers) = 0, tok.piece(" Bits:"), _parity(tok)
        else:
            start, opening = draw("place").integer(k), tok.piece(" Moves:")
            ask, answers = f" The ball in {start + 1} ends in", tuple(str(i + 1) for i in range(k))
        self._units = self._units or [tok.piece(" " + symbol) for symbol in self.symbols]
        close, pieces = tok.piece("."), [tok.piece(" " + answer) for answer in answers]
        question = Question(
            key=str(start + 1),
            text=answers[end],
            ask=tok.piece(ask),
            answer=pieces[end],
            longest=max(map(len, pieces)),
            others=[piece for i, piece in enumerate(pieces) if i != end],
            chance=1 / k,
        )
        fixed = sample.fixed_tokens(Layout([], [question], opening=opening)) + len(close)
        codes = self._codes(sample.factors.length - fixed, self._units, draw)
        # the last symbol is any of those that lead to the answer: all words with this answer stay equally likely
        leads = np.flatnonzero(self.elements[self.product[self._composed(codes)], start] == end)
        codes = np.append(codes, leads[draw("last").integer(len(leads))])
        symbols = gather_units(self._units, codes)
        signal = np.concatenate([opening, symbols, close])
        every = max(16, len(signal) // MAX_JOINTS)
        cuts = [Cut(0, 1.0, Needle(signal, opening, symbols, "", tuple(range(every, len(signal), every))))]
        return Layout(cuts, [question], f"{len(codes)} symbols", fill=lambda room: self._fill(sample, cuts, room))

    def _fill(self, sample: Sample, cuts: Sequence[Cut], room: int) -> Context:
        """Common words before the symbols."""
        start = sample.stream.window(sample.offset_of("filler"), room) if room else 0
        parts = in_text(sample.stream, start, room, cuts)
        return Context(parts, HaystackWindow(start, room, room / len(sample.stream)))

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
        """The product of the symbols of a word, pair by pair."""
        codes = codes.astype(np.uint8)
        while len(codes) > 1:
            even = codes[: len(codes) // 2 * 2]
            codes = np.concatenate([self.pairs.take(even.view("<u2")), codes[len(even) :]])
        return int(codes[0]) if len(codes) else 0


def _parity(tokenizer: Tokenizer) -> tuple[str, tuple[str, ...]]:
    """The question and its answers, none and then one more than an even number of ones."""
    equal = (one for one in PARITY if len({token_count(tokenizer, answer) for answer in one[1]}) == 1)
    return next(equal, PARITY[0])


@lru_cache
def _group(k: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Permutations of k places (k!, k), the identity first, and their products (k!, k!): first the row's, then the
    column's.

    Then the products again (2^16,) by two neighbouring bytes of a word, read as one little-endian number.
    """
    elements = np.array(list(permutations(range(k))))
    number = {tuple(e): i for i, e in enumerate(elements.tolist())}
    product = [[number[tuple(after[before].tolist())] for after in elements] for before in elements]
    pairs = np.zeros((256, 256), dtype=np.uint8)
    pairs[: len(product), : len(product)] = np.array(product).T
    return elements, np.array(product), pairs.ravel()
