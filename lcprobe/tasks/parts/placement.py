"""Placing needles in a haystack: their parts, strings that occur nowhere else, and cuts in text or between lines for
them.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np

from lcprobe.errors import EpisodeError
from lcprobe.seeds import Stream
from lcprobe.tasks.names import Distance
from lcprobe.tasks.text.formats import StringFormat, draw_strings, freest
from lcprobe.tasks.text.haystack import MAX_SHIFT, Occurrences, TokenStream
from lcprobe.tasks.text.tokenizer import Tokenizer

FEWER = "fewer needles or another haystack"
MAX_JOINTS = 8
"""Places inside one piece that are checked: the cost must not grow with length."""
MAX_GUARD = (1 << 17) + (1 << 12)
"""Tokens of text in which strings do not occur if possible, so that they are the same at every length up to 128K."""
RECENT = 0.25
"""Share of the haystack, at its end, in which `recent` places needles."""

Part = tuple[np.ndarray, int | None]
"""A piece of the context, and which needle it is (None: haystack)."""


@dataclass(frozen=True)
class Needle:
    """Token ids of one key-value pair: `whole` is ask + value + tail. text: the value. inner: further places at which
    it is joined.
    """

    whole: np.ndarray
    ask: np.ndarray
    value: np.ndarray
    text: str
    inner: tuple[int, ...] = ()

    @property
    def joints(self) -> tuple[int, ...]:
        """Where its parts join, from its first token on."""
        return len(self.ask), len(self.ask) + len(self.value), *self.inner

    def evidence(self, index: int) -> tuple[int, int, int]:
        """Where needle number `index` has its value: the number, the value's first token and its tokens."""
        return index, len(self.ask), len(self.value)


class Cut(NamedTuple):
    """A needle, its number, and its depth: 0 before all of the haystack .. 1 after it; above 1 after other needles at
    1.
    """

    index: int
    depth: float
    needle: Needle


class TextPlace(NamedTuple):
    """A token of a text, from which on strings shall not occur."""

    stream: TokenStream
    offset: int

    def free(self, string: str) -> int:
        """Tokens from here on that do not contain a string; MAX_GUARD where all that count do not."""
        tokens = self.stream.free_run(string, self.offset)
        return MAX_GUARD if tokens >= min(MAX_GUARD, len(self.stream)) else tokens


class UniqueStrings:
    """Draws strings that occur nowhere else: not in `length` tokens of haystack, not in the wording, not in one
    another.

    The choice depends neither on the length nor, where it can, on the haystack: strings that occur nowhere in
    MAX_GUARD tokens of the haystack and of the corpus, whichever haystack it is; so a sample has the same strings
    everywhere. Strings of few characters are in all such texts, and then the freest are chosen. Either way they are
    rarer in texts than others of their format, so that all strings that compete in an episode are chosen together,
    or from what `barred` leaves.
    """

    def __init__(self, tokenizer: Tokenizer, places: Sequence[TextPlace], length: int, wording: str):
        """places: of the haystack, where no string may occur in `length` tokens, then of other texts, where it would
        differ from another cell's."""
        self._tokenizer, self._places, self._wording = tokenizer, places, tokenizer.expressed(wording)
        self._least = min(length + MAX_SHIFT, len(places[0].stream))
        """Tokens of the haystack that must not have a string."""
        self.taken: list[str] = []

    def draw(self, form: StringFormat, n: int, draw: Stream, key: str, tail: str = "") -> list[str]:
        """n strings of a format whose ids `tail` does not change. Raises EpisodeError at `key` when there are
        fewer."""

        def free(string: str) -> int:
            return -1 if tail and not self._tokenizer.keeps_apart(string, tail) else self.free(string)

        strings = draw_strings(form, n, draw, self._tokenizer, free, MAX_GUARD, key)
        self.taken += strings
        return strings

    def choose(self, names: list[str], n: int, draw: Stream, key: str) -> list[str]:
        """n strings of a closed set, as the tokenizer expresses them. Raises EpisodeError at `key` when there are
        fewer."""
        return self.first(
            (self._tokenizer.expressed(names[i]) for i in draw.permutation(len(names))),
            n,
            EpisodeError(key, f"{n} of {len(names)} names", FEWER),
        )

    def first(self, source: Iterator[str], n: int, error: EpisodeError) -> list[str]:
        """The first n strings that are free. Raises `error` when there are fewer."""
        return self._took(freest(source, n, self.free, MAX_GUARD), error)

    def next(self, source: Iterator[str], n: int, error: EpisodeError) -> list[str]:
        """The first n strings, of those that `barred` leaves, that are not inside another or another in them. Raises
        `error` when there are fewer."""

        def apart(string: str) -> int:
            return -1 if self._is_used(string) else MAX_GUARD

        return self._took(freest(source, n, apart, MAX_GUARD), error)

    def barred(self, occurrences: Callable[[TokenStream], Occurrences], n_strings: int, enough: int) -> np.ndarray:
        """Which of n strings stand nowhere in an episode, by number: those that occur in MAX_GUARD tokens of one of
        the texts; where these leave fewer than `enough`, all but the freest `enough`. Always those that are in the
        haystack.

        occurrences: of the strings in a text.
        """
        found = [occurrences(place.stream) for place in self._places]
        numbers = np.unique(np.concatenate([own.numbers for own in found]))
        free, hidden = np.full(len(numbers), MAX_GUARD), np.zeros(len(numbers), dtype=bool)
        for i, (place, own) in enumerate(zip(self._places, found, strict=True)):
            at, runs = np.searchsorted(numbers, own.numbers), own.free_runs(place.offset)
            if i == 0:
                hidden[at] = runs < self._least
            runs[runs >= min(MAX_GUARD, len(place.stream))] = MAX_GUARD
            free[at] = np.minimum(free[at], runs)
        limit = MAX_GUARD
        lacking = enough - (n_strings - len(numbers)) - np.count_nonzero(free[~hidden] >= MAX_GUARD)
        if lacking > 0:
            scarce = np.sort(free[~hidden & (free < MAX_GUARD)])
            limit = scarce[-min(lacking, len(scarce))] if len(scarce) else MAX_GUARD
        return numbers[hidden | (free < limit)]

    def _took(self, strings: list[str] | None, error: EpisodeError) -> list[str]:
        if strings is None:
            raise error
        self.taken += strings
        return strings

    def _is_used(self, string: str) -> bool:
        return string in self._wording or any(string in t or t in string for t in self.taken)

    def free(self, string: str) -> int:
        """Tokens of text without the string (of a name: the surname), up to MAX_GUARD; -1 where it is used already or
        occurs in the haystack.
        """
        if self._is_used(string):
            return -1
        word, haystack = string.split()[-1], self._places[0]
        if haystack.stream.free_run(word, haystack.offset) < self._least:
            return -1
        return min(place.free(word) for place in self._places)


def depths_of(distance: Distance, uniform: np.ndarray, length: int) -> np.ndarray:
    """Depths of needles from uniform draws in [0, 1), all by the same rule, so that no place tells the target.

    log: distances from the end are log-uniform between 1 / length and 1, with `length` in tokens.
    """
    if distance == "recent":
        return 1 - RECENT * (1 - uniform)
    if distance == "log":
        return 1 - float(length) ** (uniform - 1)
    return uniform


def make_needles(tokenizer: Tokenizer, asks: Sequence[str], values: Sequence[str], tail: str) -> list[Needle]:
    """Needles from their parts, each of which begins with a space or is punctuation; every episode is checked as a
    whole.
    """
    parts, end = tokenizer.pieces([*asks, *(" " + value for value in values)]), tokenizer.piece(tail)
    each = zip(parts[: len(asks)], parts[len(asks) :], values, strict=True)
    return [Needle(np.concatenate((ask, value, end)), ask, value, text) for ask, value, text in each]


def gather_units(units: list[np.ndarray], order: np.ndarray) -> np.ndarray:
    """Token ids of units in the order of their numbers; vectorised, for hundreds of thousands of units."""
    sizes = np.array([len(unit) for unit in units])
    if sizes.min() == sizes.max():
        return np.take(np.stack(units), order, axis=0).reshape(-1)  # a tenth of the cost of indexing by rows
    table = np.zeros((len(units), int(sizes.max())), dtype=np.int32)
    used = np.arange(table.shape[1]) < sizes[:, None]
    table[used] = np.concatenate(units)
    return table[order][used[order]]


def in_text(stream: TokenStream, start: int, room: int, cuts: Sequence[Cut]) -> list[Part]:
    """The window of `room` tokens with every needle at the word boundary nearest to its depth, a fraction of the
    window.

    The same rule for all, the target too: a place that compensated for the needles before it would be next to one of
    them more often than others are, and a guess could exploit that. Needles at the same boundary are in order of
    depth.
    """
    text = stream.take(start, room)
    parts: list[Part] = []
    done = 0
    for cut in sorted(cuts, key=lambda c: c.depth):
        place = stream.cut_near(start, room, round(min(cut.depth, 1) * room))
        if place > done:
            parts.append((text[done:place], None))
        parts.append((cut.needle.whole, cut.index))
        done = place
    if done < room:
        parts.append((text[done:], None))
    return parts


class Lines(Protocol):
    """Pre-tokenised units, by number, between which needles are placed."""

    def size(self, lines: np.ndarray) -> np.ndarray:
        """(n,) tokens of each unit."""
        ...

    def pieces(self, lines: np.ndarray) -> list[np.ndarray]:
        """The units' ids, neighbours in one piece where possible."""
        ...


class Filled(NamedTuple):
    """Units of one sample, concatenated. ends: (n + 1,) where each begins and the last ends. values: ids of the
    values of the first units, as many as a question has candidates.
    """

    ids: np.ndarray
    ends: np.ndarray
    values: tuple[np.ndarray, ...] = ()

    def __len__(self) -> int:
        """The number of units."""
        return len(self.ends) - 1

    def size(self, lines: np.ndarray) -> np.ndarray:
        """(n,) tokens of each unit."""
        return self.ends[lines + 1] - self.ends[lines]

    def pieces(self, lines: np.ndarray) -> list[np.ndarray]:
        """Neighbouring units as one piece."""
        return [self.ids[self.ends[lines[0]] : self.ends[lines[-1] + 1]]] if len(lines) else []


def in_lines(bank: Lines, lines: np.ndarray, filler: np.ndarray, cuts: Sequence[Cut], target: int) -> list[Part]:
    """A few common words, then the lines with needles before, between and after them.

    Words after the lines would reveal whether a needle is the last of all, and so which line it may be.
    """
    parts: list[Part] = [(filler, None)] if len(filler) else []
    done = 0
    for number, cut in among_lines(cuts, target, len(lines)):
        parts.extend((piece, None) for piece in bank.pieces(lines[done:number]))
        parts.append((cut.needle.whole, cut.index))
        done = number
    parts.extend((piece, None) for piece in bank.pieces(lines[done:]))
    return parts


def among_lines(cuts: Sequence[Cut], target: int, n_lines: int) -> list[tuple[int, Cut]]:
    """Needles in order of appearance, each with the number of lines before it.

    Among all lines and needles, which look alike, the target has the rank of its depth, and the others have
    independent ranks, none twice: over an even spread of depths no rank is likelier than another. The others keep
    their places wherever the target is.
    """
    # depths above 1 come last
    others = sorted((c for c in cuts if c.index != target), key=lambda c: (min(-c.depth, -1), c.index))
    total = n_lines + len(others)
    ranks: dict[int, Cut] = {}
    for number, cut in enumerate(others):
        rank = min(int(cut.depth * (total - number)), total - number - 1)
        for taken in sorted(ranks):  # drawn among the ranks that are left
            rank += taken <= rank
        ranks[rank] = cut
    mine = next((c for c in cuts if c.index == target), None)
    if mine is not None:
        at = min(int(mine.depth * (total + 1)), total)
        ranks = {rank + (rank >= at): cut for rank, cut in ranks.items()} | {at: mine}
    return [(rank - before, ranks[rank]) for before, rank in enumerate(sorted(ranks))]
