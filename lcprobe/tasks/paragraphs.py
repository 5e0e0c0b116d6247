"""Paragraphs of a file as pre-tokenised units: any number of tokens of them, whole but for the last one, without those named."""

import numpy as np

from lcprobe.errors import EpisodeError
from lcprobe.tasks.assembly import EMPTY
from lcprobe.tasks.haystack import TokenStream
from lcprobe.tasks.tokenizer import Tokenizer

MOST_ROUNDS = 32
"""How often few paragraphs may go round; every time is a joint to certify."""
LEAD, END = " Paragraphs", " end"
"""A stream is trimmed to begin and end at words: these two are what may be lost."""


class Paragraphs:
    """Texts in a fixed circular order, tokenised as one. starts, ends: (n,) tokens of each in the stream."""

    def __init__(self, name: str, texts: list[str], tokenizer: Tokenizer):
        """texts: distinct, without white space other than single spaces."""
        self.texts = texts
        self.stream = TokenStream.from_text(name, LEAD + "".join(" " + text for text in texts) + END, tokenizer)
        self._chars = len(LEAD) + np.cumsum([0, *(1 + len(text) for text in texts)])
        bounds = [self.stream.cut_at(int(char)) for char in self._chars[:-1]] + [len(self.stream)]
        starts, ends, after = [], [], len(self.stream)
        for bound in reversed(
            bounds[:-1]
        ):  # what does not begin at a word belongs to the paragraph before it: 0 tokens of its own
            ends.append(after)
            after = after if bound is None else bound
            starts.append(after)
        self.starts, self.ends = np.array(starts[::-1]), np.array(ends[::-1])
        self._begins = np.array([bound is not None for bound in bounds])

    def whole(self, number: int) -> np.ndarray:
        """Ids of one paragraph."""
        return self.stream.ids[self.starts[number] : self.ends[number]]

    def stands_alone(self, number: int) -> bool:
        """Whether a paragraph's tokens are its own: it and the next begin at a word."""
        return bool(self._begins[number] and self._begins[number + 1])

    def only_in(self, number: int, string: str) -> bool:
        """Whether a string occurs in this paragraph and nowhere else."""
        low = self.stream.text_at(int(self._chars[number]))
        high = self.stream.text_at(int(self._chars[number + 1]))
        text = self.stream.text
        return low <= text.find(string) < high and text.find(string, high - len(string) + 1) < 0

    def tokens_of(self, number: int, at: int, length: int) -> tuple[int, int]:
        """Characters of a paragraph -> its first token that holds them, and how many do."""
        char = int(self._chars[number]) + 1 + at
        first, last = self.stream.token_at(char), self.stream.token_at(char + length - 1)
        return first - int(self.starts[number]), last + 1 - first

    def size(self, lines: np.ndarray) -> np.ndarray:
        """(n,) tokens of each paragraph."""
        return self.ends[lines] - self.starts[lines]

    def pieces(self, lines: np.ndarray) -> list[np.ndarray]:
        """The paragraphs' ids, neighbours in one piece."""
        if not len(lines):
            return []
        runs = np.split(lines, np.flatnonzero(self.starts[lines[1:]] != self.ends[lines[:-1]]) + 1)
        return [self.stream.ids[self.starts[run[0]] : self.ends[run[-1]]] for run in runs]

    def fill(self, first: int, room: int, leave_out: set[int]) -> tuple[np.ndarray, np.ndarray]:
        """Paragraphs from number `first` on without some, and a piece of the next one: `room` tokens together.

        Raises EpisodeError for more than MOST_ROUNDS times what there is, or where no such piece exists.
        """
        n = len(self.texts)
        lines = (first + np.arange(n)) % n
        lines = lines[~np.isin(lines, list(leave_out)) & (self.size(lines) > 0)]
        there = int(self.size(lines).sum())
        if room > MOST_ROUNDS * there:
            given = f"{room} tokens of other paragraphs"
            raise EpisodeError("length", given, f"<= {MOST_ROUNDS} times the {there} that the {self.stream.name} file has")
        many = np.tile(lines, 1 + room // there) if room else lines[:0]
        used = np.cumsum(self.size(many))
        fit = int(np.searchsorted(used, room, side="right"))
        left = room - (int(used[fit - 1]) if fit else 0)
        return many[:fit], self._piece(np.roll(lines, -fit)[:32], left, leave_out)

    def _piece(self, lines: np.ndarray, n: int, leave_out: set[int]) -> np.ndarray:
        """n tokens that begin and end at words, from the first of the paragraphs that has them outside of `leave_out`."""
        if not n:
            return EMPTY
        for line in lines:
            start = self.stream.window(int(self.starts[line]), n)
            inside = start >= self.starts[line] and start + n <= len(self.stream)
            if inside and not any(start < self.ends[i] and self.starts[i] < start + n for i in leave_out):
                return self.stream.take(start, n)
        raise EpisodeError("length", f"{n} tokens of a last paragraph", "a length at which they begin and end at words")
