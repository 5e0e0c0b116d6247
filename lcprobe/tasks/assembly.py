"""From pieces to an episode: what every task shares once it knows its context and its questions.

A task lays out `[BOS, opening] context questions`; here the pieces are joined, spans and distances are read off, and the result
is certified: text encoded again at every joint gives the same ids, or the task is asked for another layout.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Protocol

import numpy as np

from lcprobe.errors import EpisodeError, require, unknown_name
from lcprobe.tasks.episode import Episode, Factors, Formats, Query
from lcprobe.tasks.names import CONTROLS, HAYSTACKS, KINDS
from lcprobe.tasks.text.round_trip import certified
from lcprobe.tasks.text.tokenizer import Tokenizer

EMPTY = np.array([], dtype=np.int32)
MAX_CANDIDATES = 32
"""Values that a rank is taken among, the true one included."""
MAX_JOINTS = 8
"""Places inside one piece, or between many equal ones, that are certified: the cost must not grow with length."""

Part = tuple[np.ndarray, int | None]
"""A piece of the context, and which needle it is (None: haystack)."""
Built = tuple[Episode, list[int]]
"""An episode and the tokens at which its pieces join."""


@dataclass(frozen=True)
class Axes:
    """Levels of the grid's factors that a task takes. A factor with one level does not vary: the grid collapses to it.

    depth: whether there is an asked needle that can be put somewhere.
    """

    haystack: tuple[str, ...] = HAYSTACKS
    key: tuple[str, ...] = KINDS
    value: tuple[str, ...] = KINDS
    controls: tuple[str, ...] = CONTROLS
    depth: bool = True

    def check(self, factors: Factors) -> None:
        """Raise ConfigError for a factor outside its set: a mistake, where an EpisodeError is one sample that does not fit."""
        require("depth", factors.depth, 0 <= factors.depth <= 1, "0 .. 1")
        require("length", factors.length, factors.length >= 1, ">= 1")
        f = factors.formats
        given = {"control": factors.control, "haystack": f.haystack, "key": f.key, "value": f.value}
        for name, level in given.items():
            if level not in self.levels(name):
                raise unknown_name(name if name == "control" else f"formats.{name}", level, self.levels(name))

    def fitted(self, formats: Formats) -> Formats:
        """The same formats, with the one level there is of every factor that does not vary."""
        one = {name: self.levels(name)[0] for name in ("haystack", "key", "value") if len(self.levels(name)) == 1}
        return replace(formats, **one)

    def levels(self, factor: str) -> tuple[str, ...]:
        """Levels of haystack, key, value or control."""
        return {"haystack": self.haystack, "key": self.key, "value": self.value, "control": self.controls}[factor]


class Task(Protocol):
    """A generator of episodes. Registered by name in `tasks/__init__.py`; made from its `Config` and the materials."""

    config: Any
    axes: Axes

    @property
    def needs_lookup(self) -> bool:
        """Whether a model that ignores what is asked for cannot score 1."""
        ...

    def episode(self, factors: Factors) -> Episode:
        """One episode of exactly `factors.length` tokens, a pure function of config, materials and factors.

        Raises EpisodeError for a length that is too short (naming the least), ConfigError for factors outside `axes`.
        """
        ...

    def shortest(self, factors: Factors) -> int:
        """The least length at which this sample exists. Raises EpisodeError for impossible formats."""
        ...


class Question(NamedTuple):
    """One question as ids: `ask`, then `answer`, then `tail`, which separates it from the next one.

    key, text: what is asked for, and the answer, as strings. evidence: (part of the context, first token of the asked value
    in it, tokens of the value), None when no single place holds the answer. others: the values that a guess would choose from
    beside the answer. chance: score of choosing one of them without looking at what is asked for. via: needles that lead to the
    one with the answer, where several facts are needed.
    """

    key: str
    text: str
    ask: np.ndarray
    answer: np.ndarray
    tail: np.ndarray
    evidence: tuple[int, int, int] | None
    others: Sequence[np.ndarray]
    chance: float
    via: tuple[int, ...] = ()


class Haystack(NamedTuple):
    """The window: its first token in the stream, its tokens, and how often its stream went round."""

    start: int
    tokens: int
    rounds: float


NO_HAYSTACK = Haystack(0, 0, 0.0)


class TooShort(EpisodeError):
    """The pieces alone are longer than the episode. needed: the least length."""

    def __init__(self, length: int, needed: int, what: str):
        self.needed = needed
        super().__init__("length", length, f">= {needed} tokens for {what}")


def assemble(
    before: Sequence[np.ndarray],
    context: Sequence[Part],
    questions: Sequence[Question],
    haystack: Haystack = NO_HAYSTACK,
    inner: Mapping[int, Sequence[int]] | None = None,
    asked: int = 0,
    separate: bool = False,
) -> Built:
    """Join the pieces. before: BOS and opening. inner: where the parts of a needle join, counted from its first token.

    asked: the needle whose place is the episode's realised depth, if the context has it. separate: every question directly
    after the context; the longest is in the episode's ids, the others have ends of their own.
    """
    pieces, at = list(before), 0
    joints: list[int] = []
    for piece in before:
        at += len(piece)
        joints.append(at)
    first, placed, spans = at, {}, []
    for part, index in context:
        joints.append(at)
        if index is not None:
            placed[index] = at
            spans.append((at, at + len(part)))
            joints += [at + joint for joint in (inner or {}).get(index, ())]
        pieces.append(part)
        at += len(part)
    depth = _realised(placed, {i: len(p) for p, i in context if i is not None}, asked, first, at)
    queries: list[Query] = []
    longest = max(range(len(questions)), key=lambda i: len(questions[i].ask) + len(questions[i].answer))
    for number, q in enumerate(questions):
        begin, stop = at + len(q.ask), at + len(q.ask) + len(q.answer)
        value_at = distance = None
        if q.evidence is not None and q.evidence[0] in placed:
            value_at = placed[q.evidence[0]] + q.evidence[1]
            distance = begin - value_at - q.evidence[2]
        via = tuple(placed[i] for i in q.via if i in placed)
        choice = (q.answer, *list(q.others)[: MAX_CANDIDATES - 1])
        own = np.concatenate([q.ask, q.answer]) if separate and number != longest else None
        queries.append(Query(q.key, q.text, begin, stop, value_at, distance, choice, q.chance, own, via))
        if own is not None:
            continue
        pieces += [q.ask, q.answer, q.tail]
        joints += [at, begin, *range(begin + 16, stop, max(16, len(q.answer) // MAX_JOINTS)), stop]
        at = at if separate else stop + len(q.tail)
    episode = Episode(
        ids=np.concatenate(pieces),
        queries=tuple(queries),
        needles=tuple(spans),
        haystack_start=haystack.start,
        haystack_tokens=haystack.tokens,
        rounds=haystack.rounds,
        realised_depth=depth,
    )
    return episode, joints


def certify(build: Callable[[int], Built], factors: Factors, tokenizer: Tokenizer) -> Episode:
    """The first layout of `build(attempt)` whose text encodes to the same ids: nearly always attempt 0.

    Training episodes are taken as they are: what is measured is certified one by one. Raises EpisodeError after four attempts.
    """
    for attempt in range(4):
        episode, joints = build(attempt)
        if factors.split == "train" or (
            certified(episode.ids, joints, tokenizer) and _own_ends_certified(episode, tokenizer)
        ):
            return episode
    raise EpisodeError("data.tokenizer", "a tokenizer that merges across word boundaries", "one that does not")


def least_length(build: Callable[[], object]) -> int:
    """What `build` says it needs when asked for an episode of one token."""
    try:
        build()
    except TooShort as error:
        return error.needed
    return 1


def bos_piece(tokenizer: Tokenizer) -> np.ndarray:
    """(1,) BOS, or nothing where the vocabulary has none."""
    return EMPTY if tokenizer.bos_id is None else np.array([tokenizer.bos_id], dtype=np.int32)


def fixed_tokens(
    before: Sequence[np.ndarray], needles: Sequence[np.ndarray], questions: Sequence[Question], separate: bool = False
) -> int:
    """Tokens of everything but the haystack; of separate questions the longest counts."""
    asked = [len(q.ask) + len(q.answer) + len(q.tail) for q in questions]
    return sum(map(len, before)) + sum(map(len, needles)) + (max(asked) if separate else sum(asked))


def _own_ends_certified(episode: Episode, tokenizer: Tokenizer) -> bool:
    return all(
        certified(
            episode.sequence(q), [q.stop - len(q.own), q.start, *range(q.start + 16, q.stop, 16), q.stop], tokenizer
        )
        for q in episode.queries
        if q.own is not None
    )


def _realised(placed: dict[int, int], sizes: dict[int, int], asked: int, first: int, end: int) -> float:
    span = end - first - sizes.get(asked, 0)
    return (placed[asked] - first) / span if asked in placed and span > 0 else 0.0
