"""A chunk of text -> tokens. Words that were encoded before are looked up: several times as fast as the tokenizer,
and the same ids, where a tokenizer's ids of a text are those of its words."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import NamedTuple

import numpy as np

from lcprobe.data.near_duplicates import NearDuplicates
from lcprobe.tasks.text.tokenizer import LONE, OPENS, Tokenizer

MAX_KNOWN_WORDS, MAX_WORD = 1 << 18, 64
"""Words that are kept, and characters of the longest."""
JOINED_WORDS = 64
"""New words that are encoded as one text: a call costs several times as much as a word."""


class Part(NamedTuple):
    """A document, or a part of a long one. after: whether it continues a document."""

    text: str
    after: bool


@dataclass(frozen=True)
class EncodedChunk:
    """ids: (n,), of all parts; ends: (parts,) where each ends; left_out: (parts,) bool, near-duplicates, whose ids
    are not there."""

    ids: np.ndarray
    ends: np.ndarray
    left_out: np.ndarray


def dtype_of(tokenizer: Tokenizer) -> str:
    """What tokens are stored as."""
    return "uint16" if tokenizer.vocab_size <= 1 << 16 else "uint32"


class ChunkEncoder:
    """Encodes parts of documents. by_words: whether the tokenizer's ids of a text are those of its words."""

    def __init__(self, tokenizer: Tokenizer, by_words: bool, near_duplicates: NearDuplicates | None = None):
        self._tokenizer, self._near_duplicates = tokenizer, near_duplicates
        self._words = WordEncoder(tokenizer) if by_words else None
        self._dtype = np.dtype(dtype_of(tokenizer))

    def encode(self, parts: Sequence[Part]) -> EncodedChunk:
        """The tokens of parts, without BOS."""
        near = self._near_duplicates
        texts = [part.text for part in parts]
        left_out = np.zeros(len(parts), dtype=bool) if near is None else near.which(texts)
        kept = [part for part, out in zip(parts, left_out.tolist(), strict=True) if not out]
        texts, after = [part.text for part in kept], [part.after for part in kept]
        sizes = np.zeros(len(parts), dtype=np.int64)
        if self._words is None:
            ids, sizes[~left_out] = _joined_ids(self._tokenizer.encode_parts(texts, after))
        else:
            ids, sizes[~left_out] = self._words.encode_joined(texts, after)
        return EncodedChunk(ids.astype(self._dtype), np.cumsum(sizes), left_out)


class WordEncoder:
    """Encodes texts word by word: a word begins with a space that follows a character."""

    def __init__(self, tokenizer: Tokenizer):
        self._tokenizer = tokenizer
        self._known: dict[str, bytes] = {}
        self._begins = np.frombuffer(tokenizer.edges, dtype=np.uint8) & (OPENS | LONE) > 0

    def encode_parts(self, parts: Sequence[str], after_word: Sequence[bool]) -> list[np.ndarray]:
        """As `Tokenizer.encode_parts`."""
        ids, sizes = self.encode_joined(parts, after_word)
        return np.split(ids, np.cumsum(sizes)[:-1]) if len(parts) else []

    def encode_joined(self, parts: Sequence[str], after_word: Sequence[bool]) -> tuple[np.ndarray, np.ndarray]:
        """`encode_parts` as one, (n,) int32, and (parts,) how many are of each."""
        words, new = self._split(parts)
        firsts = self._tokenizer.encode_parts([own[0] for own in words], after_word)
        if len(self._known) + len(new) > MAX_KNOWN_WORDS:
            self._known.clear()
            new = set(chain.from_iterable(own[1:] for own in words))
        ids_of = self._encoded(new)
        kept = {word: ids for word, ids in ids_of.items() if 0 < len(word) <= MAX_WORD and not word[-1].isspace()}
        self._known |= kept
        known = self._known if len(kept) == len(ids_of) else {**self._known, **ids_of}
        each = [
            b"".join([first.tobytes(), *map(known.__getitem__, own[1:])])
            for first, own in zip(firsts, words, strict=True)
        ]
        sizes = np.array(list(map(len, each)), dtype=np.int64) // np.dtype(np.int32).itemsize
        return np.frombuffer(b"".join(each), dtype=np.int32), sizes

    def _encoded(self, words: set[str]) -> dict[str, bytes]:
        """The ids of words, with the space before each: of many as one text, cut where tokens begin with a space."""
        found: dict[str, bytes] = {}
        together = [word for word in words if word and " " not in word and not word[-1].isspace()]
        groups = [together[i : i + JOINED_WORDS] for i in range(0, len(together), JOINED_WORDS)]
        texts = [" " + " ".join(group) for group in groups]
        for group, ids in zip(groups, self._tokenizer.encode_parts(texts, [True] * len(texts)), strict=True):
            starts = np.flatnonzero(self._begins[ids])
            if len(starts) == len(group) and starts[0] == 0:
                ends, data = (starts[1:] * ids.itemsize).tolist(), ids.tobytes()
                cuts = zip(group, [0, *ends], [*ends, len(data)], strict=True)
                found |= {word: data[start:end] for word, start, end in cuts}
        others = list(words - found.keys())
        alone = self._tokenizer.encode_parts([" " + word for word in others], [True] * len(others))
        return found | {word: ids.tobytes() for word, ids in zip(others, alone, strict=True)}

    def _split(self, parts: Sequence[str]) -> tuple[list[list[str]], set[str]]:
        """Texts, each cut before every space that follows another character than white space, and the words that are
        not known. Of all but the first piece that space is left out."""
        words = [part.split(" ") for part in parts]
        new = set(chain.from_iterable(words)).difference(self._known)
        opens = {word for word in new if not word or word[-1].isspace()}  # no word that is known does
        if not opens:
            return words, new
        words = [own if opens.isdisjoint(own) else _joined(own, opens) for own in words]
        return words, set(chain.from_iterable(own[1:] for own in words)).difference(self._known)


def _joined_ids(each: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """(n,) ids of all, and (texts,) how many are of each."""
    return np.concatenate([np.empty(0, dtype=np.int32), *each]), np.array(list(map(len, each)), dtype=np.int64)


def _joined(words: list[str], opens: set[str]) -> list[str]:
    """Words in which one of `opens` and what follows it are one."""
    at, found = 0, []
    places = [i for i, word in enumerate(words[:-1]) if word in opens]
    for first in places:
        if first < at:
            continue
        last = first + 1
        while words[last] in opens and last < len(words) - 1:
            last += 1
        found += [*words[at:first], " ".join(words[first : last + 1])]
        at = last + 1
    return found + words[at:]


def ids_are_those_of_words(tokenizer: Tokenizer, texts: Sequence[str]) -> bool:
    """Whether these texts have the same ids word by word, as is expected of a tokenizer that splits at spaces."""
    if not tokenizer.splits_at_spaces:
        return False
    alone = [False] * len(texts)
    pairs = zip(WordEncoder(tokenizer).encode_parts(texts, alone), tokenizer.encode_parts(texts, alone), strict=True)
    return all(np.array_equal(a, b) for a, b in pairs)
