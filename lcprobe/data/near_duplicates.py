"""Text that is held out for probing and stands in other documents too: found by its sequences of N_WORDS words.

What is held out has `haystack_chars` characters at most, so all of its sequences fit into memory, and nothing is
estimated: a document with at least the asked share of them is found whatever else it has (recall 1), but for two
different sequences with one 64-bit hash. Words are compared without case and punctuation. 13 words as in GPT-3 (arXiv
2005.14165, appendix C): with one word in twenty changed, half of a copy's sequences are still there.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b
from itertools import chain

import numpy as np

N_WORDS = 13
LEAST_SEQUENCES = 64
"""A held-out document with fewer sequences is short enough to be quoted: a text that has it all is no copy of it."""
MAX_KNOWN_WORDS = 1 << 18
FILTER_BITS = 22
"""Of the table that most sequences are found not to be in."""
MULTIPLIER = 0x9E3779B97F4A7C15
"""Odd, so that it has an inverse modulo 2^64."""
NO_WORD = re.compile(r"\W+")


@dataclass(frozen=True)
class HeldOutText:
    """The sequences of what is held out. hashes: (n,) uint64, ascending; documents: (n,) int32, one that each is of;
    sizes: (n_documents,) int32, sequences of each."""

    hashes: np.ndarray
    documents: np.ndarray
    sizes: np.ndarray


class Words:
    """Hashes of the words of texts; those of words seen before are looked up."""

    def __init__(self) -> None:
        self._known: dict[str, bytes] = {}

    def hashes(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """(n,) uint64: hashes of the words of all texts, in order; and (texts,) how many are of each."""
        each, known = [text.lower().split() for text in texts], self._known
        new = set(chain.from_iterable(each)).difference(known)
        if new:
            if len(known) + len(new) > MAX_KNOWN_WORDS:
                known.clear()
                new = set(chain.from_iterable(each))
            known |= {word: _hash(word) for word in new}
        data = [b"".join(map(known.__getitem__, words)) for words in each]
        return np.frombuffer(b"".join(data), dtype="<u8"), np.array(list(map(len, data)), dtype=np.int64) // 8

    def sequences(self, text: str) -> np.ndarray:
        """(n,) uint64: hashes of the sequences of N_WORDS words of a text, in order."""
        return sequences_of(self.hashes([text])[0])


def sequences_of(words: np.ndarray) -> np.ndarray:
    """Hashes of words, (n,) uint64 -> of each N_WORDS in a row, (n - N_WORDS + 1,) uint64 or none: the same ones
    wherever they stand."""
    n = len(words) - N_WORDS + 1
    if n <= 0:
        return np.empty(0, dtype=np.uint64)
    power, inverse = _powers(len(words))
    sums = np.cumsum(words * power)  # modulo 2^64, as all of this
    found = sums[N_WORDS - 1 :].copy()
    found[1:] -= sums[: n - 1]
    found *= inverse[:n]
    return found ^ (found >> np.uint64(29))


def _powers(n: int) -> tuple[np.ndarray, np.ndarray]:
    """(n,) uint64: powers of MULTIPLIER and of its inverse."""
    size = 1 << max(12, (n - 1).bit_length())
    power, inverse = _table(size)
    return power[:n], inverse[:n]


@lru_cache(maxsize=2)
def _table(size: int) -> tuple[np.ndarray, np.ndarray]:
    each = (np.full(size, base, dtype=np.uint64) for base in (MULTIPLIER, pow(MULTIPLIER, -1, 1 << 64)))
    first, second = (np.cumprod(np.concatenate([np.ones(1, dtype=np.uint64), one[1:]])) for one in each)
    return first, second


def _hash(word: str) -> bytes:
    bare = NO_WORD.sub("", word)
    return blake2b(bare.encode("utf-8", "surrogatepass"), digest_size=8).digest() if bare else b""


def index_of(texts: Iterable[str]) -> HeldOutText:
    """The sequences of held-out documents."""
    words = Words()
    each = [np.unique(words.sequences(text)) for text in texts]
    sizes = np.array([len(own) for own in each], dtype=np.int32)
    owners = np.repeat(np.arange(len(each), dtype=np.int32), sizes)
    hashes, first = np.unique(np.concatenate([np.empty(0, dtype=np.uint64), *each]), return_index=True)
    return HeldOutText(hashes, owners[first], sizes)


class NearDuplicates:
    """Tells which texts are near-duplicates of what is held out."""

    def __init__(self, held_out: HeldOutText, share: float):
        self._held_out, self._share, self._words = held_out, share, Words()
        self._may_be = np.zeros(1 << FILTER_BITS, dtype=bool)
        self._may_be[_slots(held_out.hashes)] = True

    def which(self, texts: Sequence[str]) -> np.ndarray:
        """(texts,) bool: whether `share` of a text's sequences are held out, or it has `share` of those of a held-out
        document. Texts are judged together, which costs a third of one by one where they are short."""
        words, sizes = self._words.hashes(texts)
        held_out, sequences, last = self._held_out, sequences_of(words), N_WORDS - 1
        places = np.flatnonzero(self._may_be[_slots(sequences)])
        text_of = np.repeat(np.arange(len(sizes)), sizes)
        places = places[text_of[places] == text_of[places + last]]  # the others reach over the end of a text
        at = np.searchsorted(held_out.hashes, sequences[places])
        at[at == len(held_out.hashes)] = 0
        same = held_out.hashes[at] == sequences[places] if len(at) else np.empty(0, dtype=bool)
        at, owners = at[same], text_of[places[same]]
        counts = np.bincount(owners, minlength=len(sizes))
        found = (counts > 0) & (counts >= self._share * np.maximum(sizes - last, 0))
        for text in np.flatnonzero((counts > 0) & ~found):
            first, end = np.searchsorted(owners, [text, text + 1])
            found[text] = self._has_most_of_one(at[first:end])
        return found

    def _has_most_of_one(self, at: np.ndarray) -> bool:
        """Whether sequences, by their place among those held out, are `share` of those of a document."""
        documents, counts = np.unique(self._held_out.documents[np.unique(at)], return_counts=True)
        sizes = self._held_out.sizes[documents]
        return bool(np.any((sizes >= LEAST_SEQUENCES) & (counts >= self._share * sizes)))


def _slots(hashes: np.ndarray) -> np.ndarray:
    return hashes >> np.uint64(64 - FILTER_BITS)
