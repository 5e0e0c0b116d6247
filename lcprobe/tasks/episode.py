"""Episode: one sequence of exactly the given length, with everything that varied as plain fields."""

from dataclasses import dataclass, field

import numpy as np

from lcprobe.files import digest_bytes
from lcprobe.tasks.names import Distance, Split

SUITE = "5"
"""Version of the suite: part of the key of every draw, so that results of different versions never mix."""
MAX_CANDIDATES = 32
"""Values among which the true one is ranked, itself included."""


@dataclass(frozen=True, order=True)
class Formats:
    """The three format factors of a cell; as text, haystack/key/value."""

    haystack: str
    key: str
    value: str

    def __str__(self) -> str:
        return f"{self.haystack}/{self.key}/{self.value}"


@dataclass(frozen=True)
class Factors:
    """The arguments of an episode, which is a pure function of these, the task's config and the materials.

    depth: 0 the target needle comes first .. 1 last. index: sample number; equal index means the same key, value and
    question at every depth, length, haystack and model, in any other formats too, and a window that begins within a
    few words of the same offset; not so for strings that every text contains, such as short numbers (UniqueStrings).
    split: "probe", or "train" for training episodes. distance: how the depths of the other needles are drawn; probing
    draws them uniformly.
    """

    formats: Formats
    length: int
    depth: float
    index: int
    control: str = "none"
    split: Split = "probe"
    distance: Distance = "uniform"


@dataclass(frozen=True)
class Query:
    """One question and its answer inside an episode.

    start, stop: the answer's tokens in the question's sequence (Episode.sequence), which is a prefix of `ids` unless
    the question has an `own` end: (n,) its ask and answer, in place of the question in `ids`. needle: where the
    target value begins, None when it is not in the context; distance: tokens from its end to the answer. candidates:
    token ids of the values to choose from, the true one first. chance: score of choosing one of them without reading
    the key. via: where the facts begin that lead to the one with the answer, for questions of several hops.
    """

    key: str
    answer: str
    start: int
    stop: int
    needle: int | None
    distance: int | None
    candidates: tuple[np.ndarray, ...] = field(repr=False)
    chance: float
    own: np.ndarray | None = field(default=None, repr=False)
    via: tuple[int, ...] = ()


@dataclass(frozen=True)
class Episode:
    """ids: (length,) int32, from BOS to the text after the last answer, which fills what longer candidates would have
    needed. haystack_start: the window's first token in its stream."""

    ids: np.ndarray = field(repr=False)
    queries: tuple[Query, ...]
    needles: tuple[tuple[int, int], ...]
    haystack_start: int
    haystack_tokens: int
    rounds: float
    realised_depth: float

    def sequence(self, query: Query) -> np.ndarray:
        """(query.stop,) int32: the prompt of this question and its answer."""
        if query.own is None:
            return self.ids[: query.stop]
        return np.concatenate([self.ids[: query.stop - len(query.own)], query.own])

    @property
    def reach(self) -> int:
        """Tokens that scoring reads at most: all of `ids`, or to the end of a candidate for which another tokenizer
        has more tokens than the room that is reserved."""
        return max([len(self.ids), *(q.start + len(c) for q in self.queries for c in q.candidates)])

    @property
    def digest(self) -> str:
        """First 128 bits of the digest of the ids: the prompt can be regenerated and need not be stored."""
        return digest_bytes(self.ids.astype("<i4").tobytes())[:32]
