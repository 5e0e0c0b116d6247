"""Paragraphs of a file as pre-tokenised units, in any order, and pieces of them that are cut at words."""

from collections.abc import Iterable

import numpy as np

from lcprobe.errors import EpisodeError
from lcprobe.tasks.text.tokenizer import Tokenizer


class Paragraphs:
    """Texts by number. tokens: ids of all, concatenated; ends: (n + 1,) where each begins and the last ends."""

    def __init__(self, texts: list[str], tokenizer: Tokenizer):
        """texts: distinct, with single spaces as their only white space."""
        self.texts, self._tokenizer = texts, tokenizer
        pieces = pieces_or_none([" " + text for text in texts], tokenizer)
        self.known = np.array([piece is not None for piece in pieces], dtype=bool)
        """(n,) whether a paragraph is a piece: it does not merge with what precedes it."""
        whole = [np.zeros(0, dtype=np.int32) if piece is None else piece for piece in pieces]
        self.ends = np.cumsum([0, *map(len, whole)])
        self.tokens = np.concatenate([np.zeros(0, dtype=np.int32), *whole])
        opens, blank = tokenizer.opens_word[self.tokens], tokenizer.is_blank[self.tokens]
        self._cuts = np.append(opens & ~np.concatenate([[False], blank[:-1]]), True)
        self._cuts[self.ends] = True
        self._offsets: dict[int, np.ndarray] = {}

    def whole(self, number: int) -> np.ndarray:
        """Ids of one paragraph."""
        return self.tokens[self.ends[number] : self.ends[number + 1]]

    def tokens_of(self, number: int, at: int, length: int) -> tuple[int, int]:
        """Characters of a paragraph -> the first token of them, and the number of tokens."""
        if number not in self._offsets:
            _, offsets = self._tokenizer.encode_with_offsets("a " + self.texts[number])  # as a piece: after a word
            self._offsets[number] = offsets[len(offsets) - len(self.whole(number)) :]
        first, last = np.searchsorted(self._offsets[number], [at + 2, at + 1 + length], side="right") - 1
        return int(first), int(last + 1 - first)

    def size(self, lines: np.ndarray) -> np.ndarray:
        """(n,) tokens of each paragraph."""
        return self.ends[lines + 1] - self.ends[lines]

    def pieces(self, lines: np.ndarray) -> list[np.ndarray]:
        """The ids of each: neighbours differ in every sample, and every joint is checked."""
        return [self.whole(line) for line in lines.tolist()]

    def cut(self, lines: Iterable[int], n: int) -> tuple[np.ndarray, int] | None:
        """n tokens from word to word, a part of the first paragraph that has such a part, and its number; None where
        none has.
        """
        for line in lines:
            if self.ends[line + 1] - self.ends[line] == n:  # whole paragraphs are those with questions
                continue
            first = np.arange(self.ends[line], self.ends[line + 1] - n + 1)
            fits = first[self._cuts[first] & self._cuts[first + n]]
            if len(fits):
                return self.tokens[fits[0] : fits[0] + n], line
        return None


def pieces_or_none(texts: list[str], tokenizer: Tokenizer) -> list[np.ndarray] | list[np.ndarray | None]:
    """The pieces of texts; None for one that merges with what precedes it."""
    try:
        return tokenizer.pieces(texts)
    except EpisodeError:
        return [_piece(text, tokenizer) for text in texts]


def _piece(text: str, tokenizer: Tokenizer) -> np.ndarray | None:
    try:
        return tokenizer.piece(text)
    except EpisodeError:
        return None
