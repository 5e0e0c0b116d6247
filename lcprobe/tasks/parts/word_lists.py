"""Lists of words to be counted: how often each occurs is a fixed multiple of a pass, in an order of its own for every sample.

    lead of common words   List: falcon acorn falcon ... almond. In this list, questions

RULER's lists (Hsieh et al. 2024, arXiv 2404.06654; cwe, fwe) hold fixed counts in a longer list (common words are 45 % of it
at 4K and 1.2 % at 128K) and have three or four layouts for all samples. Here a pass holds every word at its rate, a list is as
many passes as fit, so the share of every word is the same at every length, and all of it is shuffled for each sample. The
tokens that are no whole pass are common words before the list.

All words of a list have the same number of tokens: none is told by its size, and a list is one gather of rows.
"""

from collections.abc import Sequence
from dataclasses import replace
from itertools import islice
from typing import Any

import numpy as np

from lcprobe.errors import EpisodeError
from lcprobe.seeds import Draws, Stream
from lcprobe.tasks.assembly import (
    Axes,
    Built,
    Haystack,
    Question,
    TooShort,
    assemble,
    bos_piece,
    certify,
    fixed_tokens,
    least_length,
)
from lcprobe.tasks.episode import SUITE, Episode, Factors
from lcprobe.tasks.text.formats import StringFormat, candidates, check_format
from lcprobe.tasks.text.haystack import Materials
from lcprobe.tasks.text.tokenizer import Tokenizer

OPENING, END, CLOSING = " List:", ".", " In this list,"
CONTROLS = ("none", "no_needle", "query_only")
"""no_needle: every word is in the list equally often. query_only: no list."""
ENOUGH = 64
"""Strings of one token count among which a sample's are drawn, if there are as many."""
CONSIDERED = 1001
SHOWN = 1 << 16
"""Tokens of strings in random order that are shown, once, to stand side by side without merging."""
WINDOWS = 4
"""Places of a list that are certified in every sample, beside its ends."""


class Words:
    """Strings of one format with equally many tokens, as units that stand side by side. `ids`: (n, tokens) int32."""

    def __init__(self, tokenizer: Tokenizer, kind: str, role: str, wording: str, *names: str):
        """wording: text that no string may be a part of. Raises EpisodeError for a format that the tokenizer cannot give."""
        form = StringFormat(kind)
        check_format(f"formats.{role}", form, tokenizer)
        by_size: dict[int, list[str]] = {}
        considered = islice(candidates(form, Stream("words", kind, *names), tokenizer), CONSIDERED)
        strings = [string for string in considered if string not in wording]
        for string, ids in zip(strings, tokenizer.pieces([" " + string for string in strings]), strict=True):
            by_size.setdefault(len(ids), []).append(string)
        sizes = [size for size, found in by_size.items() if len(found) >= ENOUGH]
        size = min(sizes) if sizes else max(by_size, key=lambda size: len(by_size[size]))
        self.kind, self.role, self.strings = kind, role, by_size[size]
        self.ids = np.stack(tokenizer.pieces([" " + string for string in self.strings]))
        shown = Stream("shown", kind).integers(len(self.ids), SHOWN // size)
        if not tokenizer.same_after_round_trip(self.ids[shown].ravel()):
            raise EpisodeError("data.tokenizer", "one that merges neighbouring words", "one that keeps words apart")

    def chosen(self, n: int, draw: Stream) -> np.ndarray:
        """(n,) different strings by number. Raises EpisodeError when there are not as many."""
        if n > len(self.strings):
            given = f"{n} different {self.kind} of {self.ids.shape[1]} tokens"
            raise EpisodeError(f"formats.{self.role}", given, f"at most {len(self.strings)} with this tokenizer")
        return draw.permutation(len(self.strings))[:n]

    def listed(self, chosen: np.ndarray, rates: np.ndarray, passes: int, draw: Draws) -> np.ndarray:
        """(passes * sum(rates) * tokens,) a list in which string chosen[i] occurs passes * rates[i] times.

        The first shuffle gives every word the same chance of every place of a pass, the second mixes the passes.
        """
        one = np.repeat(chosen, rates)
        one = one[draw("pass").permutation(len(one))]
        order = draw("layout").shuffle(len(one) * passes)
        return np.take(self.ids, np.tile(one, passes)[order], axis=0).ravel()


class Counting:
    """What tasks with a list share. A subclass says in which `role` its words vary in format, and builds its questions."""

    axes: Axes
    role: str
    wording: str
    needs_lookup = True

    def __init__(self, config: Any, materials: Materials):
        self.config, self.materials = config, materials
        self._words: dict[str, Words] = {}

    def episode(self, factors: Factors) -> Episode:
        """One episode of exactly `factors.length` tokens (query_only: as long as its questions and answers).

        Raises EpisodeError for a length that is too short (naming the least) and for formats with too few strings.
        """
        self.axes.check(factors)
        return certify(lambda attempt: self._build(factors, attempt), factors, self.materials.tokenizer)

    def shortest(self, factors: Factors) -> int:
        """The least length at which this sample exists. Raises EpisodeError for impossible formats."""
        self.axes.check(factors)
        return least_length(lambda: self._build(replace(factors, length=1), 0))

    def words(self, kind: str) -> Words:
        """The strings of a format, tokenised when first asked for."""
        if kind not in self._words:
            self._words[kind] = Words(
                self.materials.tokenizer, kind, self.role, self.wording, type(self).__name__.lower(), SUITE
            )
        return self._words[kind]

    def _build(self, factors: Factors, attempt: int) -> Built:
        raise NotImplementedError


def counted(
    materials: Materials, factors: Factors, draw: Draws, attempt: int, words: Words, chosen: np.ndarray, rates: Sequence[int],
    questions: list[Question],
) -> Built:  # fmt: skip
    """The episode: as many passes as fit. Raises TooShort where not one does."""
    tok, per_pass = materials.tokenizer, sum(rates) * words.ids.shape[1]
    before, opening, end, closing = [bos_piece(tok)], tok.piece(OPENING), tok.piece(END), tok.piece(CLOSING)
    if factors.control == "query_only":
        return assemble([*before, closing], [], questions)
    fixed = fixed_tokens([*before, opening, end, closing], [], questions)
    room = factors.length - fixed
    if room < per_pass:
        raise TooShort(factors.length, fixed + per_pass, f"a list of {sum(rates)} {words.kind}")
    stream = materials.stream("words")
    offset = (draw("haystack").integer(len(stream)) + 101 * attempt) % len(stream)
    passes = room // per_pass
    left = room - passes * per_pass
    try:
        start = stream.window(offset, left) if left else offset
    except EpisodeError:  # no word has so few tokens
        if passes == 1:
            raise
        passes, left = passes - 1, left + per_pass
        start = stream.window(offset, left)
    units = words.listed(chosen, np.array(rates), passes, draw)
    lead = [(stream.take(start, left), None)] if left else []
    context = [*lead, (opening, None), (units, None), (end, None), (closing, None)]
    episode, joints = assemble(before, context, questions, Haystack(start, left, left / len(stream)))
    first = len(before[0]) + left + len(opening)
    places = draw("windows", attempt).integers(sum(rates) * passes, WINDOWS) * words.ids.shape[1]
    return episode, [*joints, *(first + places).tolist()]
