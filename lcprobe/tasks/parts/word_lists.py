"""Lists of words to be counted: how often each occurs is a fixed multiple of a pass, in a different order for every
sample.

    lead of common words   List: falcon acorn falcon ... almond. In this list, questions

RULER's lists (Hsieh et al. 2024, arXiv 2404.06654; cwe, fwe) have fixed counts in a longer list (common words are 45
% of it at 4K and 1.2 % at 128K) and three or four layouts for all samples. Here a pass has every word at its rate and
a list is as many passes as fit, so the share of every word is the same at every length, and all of it is shuffled for
each sample. The tokens that are no whole pass are common words before the list.

All words of a list have the same number of tokens: none stands out by its size, and a list is one gather of rows.
"""

from collections.abc import Sequence
from functools import lru_cache
from itertools import islice

import numpy as np

from lcprobe.errors import EpisodeError
from lcprobe.seeds import Draws, Stream
from lcprobe.tasks.parts.layout import NO_HAYSTACK, Context, Layout, Question, Sample
from lcprobe.tasks.text.formats import StringFormat, candidates, check_format
from lcprobe.tasks.text.tokenizer import Tokenizer

OPENING, END, CLOSING = " List:", ".", " In this list,"
LIST_CONTROLS = ("none", "no_needle", "query_only")
"""no_needle: every word is in the list equally often. query_only: no list."""
MIN_STRINGS = 64
"""Strings of one token count among which a sample's are drawn, if there are as many."""
MAX_STRINGS = 1001
"""Strings of a format that are considered."""
CHECKED_TOKENS = 1 << 16
"""Tokens of strings in random order that are checked, once, not to merge with their neighbours."""
WINDOWS = 4
"""Places of a list that are checked in every sample, besides its ends."""


class Words:
    """Strings of one format with equally many tokens, as units that can be neighbours. `ids`: (n, tokens) int32."""

    def __init__(self, tokenizer: Tokenizer, kind: str, role: str, wording: str, *names: str):
        """wording: text that no string may be a part of. Raises EpisodeError for a format that the tokenizer cannot
        give.
        """
        form = StringFormat(kind)
        check_format(f"formats.{role}", form, tokenizer)
        by_size: dict[int, list[str]] = {}
        considered = islice(candidates(form, Stream("words", kind, *names), tokenizer), MAX_STRINGS)
        strings = [string for string in considered if string not in wording]
        for string, ids in zip(strings, tokenizer.pieces([" " + string for string in strings]), strict=True):
            by_size.setdefault(len(ids), []).append(string)
        sizes = [size for size, same_size in by_size.items() if len(same_size) >= MIN_STRINGS]
        size = min(sizes) if sizes else max(by_size, key=lambda size: len(by_size[size]))
        self.kind, self.role, self.strings = kind, role, by_size[size]
        self.ids = np.stack(tokenizer.pieces([" " + string for string in self.strings]))
        neighbours = Stream("shown", kind).integers(len(self.ids), CHECKED_TOKENS // size)
        if not tokenizer.same_after_round_trip(self.ids[neighbours].ravel()):
            raise EpisodeError("data.tokenizer", "one that merges neighbouring words", "one that keeps words apart")

    def choose(self, n: int, draw: Stream) -> np.ndarray:
        """(n,) different strings by number. Raises EpisodeError when there are not as many."""
        if n > len(self.strings):
            given = f"{n} different {self.kind} of {self.ids.shape[1]} tokens"
            raise EpisodeError(f"formats.{self.role}", given, f"at most {len(self.strings)} with this tokenizer")
        return draw.permutation(len(self.strings))[:n]

    def shuffled(self, chosen: np.ndarray, rates: np.ndarray, passes: int, draw: Draws) -> np.ndarray:
        """(passes * sum(rates) * tokens,) a list in which string chosen[i] occurs passes * rates[i] times.

        The first shuffle gives every word the same chance of every place of a pass, the second mixes the passes.
        """
        one = np.repeat(chosen, rates)
        one = one[draw("pass").permutation(len(one))]
        order = draw("layout").shuffle(len(one) * passes)
        return np.take(self.ids, np.tile(one, passes)[order], axis=0).ravel()


words_of = lru_cache(maxsize=64)(Words)
"""The strings of a format, tokenised once."""


def list_layout(
    sample: Sample, words: Words, chosen: np.ndarray, rates: Sequence[int], questions: list[Question]
) -> Layout:
    """The layout of a task about a list of words, at least one pass of it."""
    tok, per_pass = sample.tokenizer, sum(rates) * words.ids.shape[1]
    first_ask = np.concatenate([tok.piece(CLOSING), questions[0].ask])  # of the answer's sentence, not of the list
    questions = [questions[0]._replace(ask=first_ask), *questions[1:]]
    opening, end = tok.piece(OPENING), tok.piece(END)
    if sample.factors.control == "query_only":
        return Layout([], questions, fill=lambda room: Context([], NO_HAYSTACK))

    def fill(room: int) -> Context:
        passes, left = 1 + room // per_pass, room % per_pass
        try:
            window = sample.window(left)
        except EpisodeError:  # no word has so few tokens
            if passes == 1:
                raise
            passes, left = passes - 1, left + per_pass
            window = sample.window(left)
        units = words.shuffled(chosen, np.array(rates), passes, sample.draw)
        lead = [(sample.stream.take(window.start, left), None)] if left else []
        first, width = left + len(opening), words.ids.shape[1]
        checked = sample.draw("windows", sample.attempt).integers(sum(rates) * passes, WINDOWS) * width
        parts = [*lead, (opening, None), (units, None), (end, None)]
        return Context(parts, window, joints=(first + checked).tolist())

    return Layout(
        cuts=[],
        questions=questions,
        what=f"a list of {sum(rates)} {words.kind}",
        reserved=len(opening) + len(end) + per_pass,
        fill=fill,
    )
