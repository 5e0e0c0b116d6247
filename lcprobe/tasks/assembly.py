"""The one frame of all tasks: seeding, attempts, room, placement, the least length and the round-trip check.

A task describes the pieces of a sample (`layout`); the frame fills the rest of the length, joins the pieces, computes
spans and distances, and checks the result: text encoded again at every joint gives the same ids, or the sample is
laid out again at another place of the haystack. A new task is a subclass of `Task` in one file, and one line in
`tasks/__init__.py`.

An episode that ended with its answer would tell it: a model that knows the length counts the tokens that are left. So
every question and answer has the room of the longest that there may be, and text fills what is left of it.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import ClassVar, Generic, Literal, TypeVar

import numpy as np

from lcprobe.errors import EpisodeError, require, unknown_name
from lcprobe.tasks.episode import MAX_CANDIDATES, SUITE, Episode, Factors, Formats, Query
from lcprobe.tasks.names import CONTROLS, HAYSTACKS, KINDS, NOTHING
from lcprobe.tasks.parts.layout import EMPTY, Context, Layout, Sample, TooShort, fill_with_text
from lcprobe.tasks.parts.placement import MAX_JOINTS
from lcprobe.tasks.text.formats import StringFormat, check_format
from lcprobe.tasks.text.haystack import Materials
from lcprobe.tasks.text.round_trip import round_trips

ATTEMPTS = 4
"""Layouts of a sample that are tried until one passes the round-trip check: nearly always the first does."""
ConfigT = TypeVar("ConfigT")


@dataclass(frozen=True)
class Axes:
    """Levels of the grid's factors that a task supports. A factor with one level does not vary: the grid collapses to
    it.

    depth: whether there is a target needle with a place of its own. distance: whether needles are at drawn depths, so
    that training may draw them by another rule.
    """

    haystack: tuple[str, ...] = HAYSTACKS
    key: tuple[str, ...] = KINDS
    value: tuple[str, ...] = KINDS
    controls: tuple[str, ...] = CONTROLS
    depth: bool = True
    distance: bool = True

    def check(self, factors: Factors) -> None:
        """Raise ConfigError for a factor outside its set: a mistake, where an EpisodeError is one sample that does
        not fit.
        """
        require("depth", factors.depth, 0 <= factors.depth <= 1, "0 .. 1")
        require("length", factors.length, factors.length >= 1, ">= 1")
        f = factors.formats
        given = {"control": factors.control, "haystack": f.haystack, "key": f.key, "value": f.value}
        for name, level in given.items():
            if level not in self.levels(name):
                raise unknown_name(name if name == "control" else f"formats.{name}", level, self.levels(name))

    def fitted(self, formats: Formats) -> Formats:
        """The same formats, with the only level of every factor that does not vary."""
        one = {name: self.levels(name)[0] for name in ("haystack", "key", "value") if len(self.levels(name)) == 1}
        return replace(formats, **one)

    def levels(self, factor: str) -> tuple[str, ...]:
        """Levels of haystack, key, value or control."""
        return {"haystack": self.haystack, "key": self.key, "value": self.value, "control": self.controls}[factor]


class Task(ABC, Generic[ConfigT]):
    """A generator of episodes, registered by name in `tasks/__init__.py`.

    A subclass has a `Config`, its `name`, its `axes` and a `layout`; everything else has a default.
    """

    Config: ClassVar[type]
    """The settings: a frozen dataclass with a docstring under each field, which `--help` prints."""
    name: ClassVar[str]
    """Part of the key of every draw: tasks with different names share no random number."""
    axes: Axes = Axes()
    """Formats, haystacks and controls that the task supports."""
    solved_by: tuple[str, ...] = ()
    """No-retrieval policies that solve the task by design: the leakage check reports but does not judge them."""
    text_digest: str = ""
    """Digest of the file that the task takes its text from, for one that brings its own."""

    def __init__(self, config: ConfigT, materials: Materials):
        self.config, self.materials = config, materials

    @property
    def has_keys(self) -> bool:
        """Whether its questions name a key. Whether it has to be looked up is up to the cell: not where its value has
        no rival, which is where chance is 1."""
        return True

    @property
    def seed_names(self) -> tuple[str, ...]:
        """Names in the key of every draw, before split and index: the task's, and the version of the suite."""
        return (self.name, SUITE)

    def references(self, answer: str) -> tuple[str, ...]:
        """The parts of an answer that count one by one where a text is searched for it: by default the whole."""
        return (answer,)

    @abstractmethod
    def layout(self, sample: Sample) -> Layout:
        """The pieces of one sample: a pure function of config, materials and sample. Raises EpisodeError where there
        are none.
        """

    def string_format(self, kind: str, role: str) -> StringFormat:
        """How strings of a kind (words, numbers, ...) look in a role, `key` or `value`."""
        return StringFormat(kind)

    def episode(self, factors: Factors) -> Episode:
        """One episode of exactly `factors.length` tokens (query_only: as long as its questions and answers).

        Raises ConfigError for factors outside `axes`, EpisodeError for a length that is too short (naming the least),
        or formats that the tokenizer cannot join exactly. Nothing is ever cut to make it fit.
        """
        for episode in self.attempts(factors, ATTEMPTS):
            return episode
        raise EpisodeError("data.tokenizer", "a tokenizer that merges across word boundaries", "one that does not")

    def attempts(self, factors: Factors, n: int) -> Iterator[Episode]:
        """The episodes of a sample at n places of the haystack, those that pass the round-trip check. Raises as
        `episode`."""
        self.axes.check(factors)
        for attempt in range(n):
            episode, joints = self._build(factors, attempt)
            # training episodes are not checked: only what is measured is, one by one
            if factors.split == "train" or _all_round_trip(episode, joints, self.materials):
                yield episode

    def shortest(self, factors: Factors) -> int:
        """The least length at which this sample exists. Raises EpisodeError for impossible formats."""
        self.axes.check(factors)
        self.check_format("key", factors.formats.key)
        self.check_format("value", factors.formats.value)
        try:
            self._build(replace(factors, length=1), 0)
        except TooShort as error:
            return error.needed
        return 1

    def check_format(self, role: Literal["key", "value"], kind: str) -> None:
        """Raises EpisodeError for a format of keys or values that the tokenizer does not give back."""
        if kind != NOTHING:
            check_format(f"formats.{role}", self.string_format(kind, role), self.materials.tokenizer)

    def _build(self, factors: Factors, attempt: int) -> tuple[Episode, list[int]]:
        """The episode and the tokens at which its pieces join."""
        sample = Sample(self.seed_names, factors, attempt, self.materials)
        layout = self.layout(sample)
        fixed = sample.fixed_tokens(layout)
        room = 0 if factors.control == "query_only" else factors.length - fixed
        if room < 0:
            raise TooShort(factors.length, fixed, layout.what)
        context = fill_with_text(sample, layout.cuts, room) if layout.fill is None else layout.fill(room)
        return _join(sample, layout, context, fixed + room)


def _join(sample: Sample, layout: Layout, context: Context, length: int) -> tuple[Episode, list[int]]:
    """Concatenate the pieces, `length` tokens in all, and compute spans, distances and the tokens at which pieces
    join."""
    questions = layout.questions if context.questions is None else context.questions
    # what the first question leaves of its room is haystack before all else: between, it would show its tokens; what
    # others in a row leave comes at the end, so that they follow one another
    front = 0 if layout.separate else questions[0].before
    filler, frame = _Text(sample, context), sample.frame
    pieces = [sample.bos, frame.before, layout.opening]
    pieces.append(filler.next(max(layout.longest_opening - len(layout.opening), 0) + front))
    first = sum(map(len, pieces))
    joints = [*accumulate(map(len, pieces)), first]
    joints += [first + joint for joint in context.joints]
    at, placed, spans = first, {}, []
    within = {cut.index: cut.needle.joints for cut in layout.cuts}
    for part, index in context.parts:
        joints.append(at)
        if index is not None:
            placed[index] = at
            spans.append((at, at + len(part)))
            joints += [at + joint for joint in within[index]]
        pieces.append(part)
        at += len(part)
    end = at
    queries: list[Query] = []
    done = at
    for number, q in enumerate(questions):
        before = filler.next(q.before if layout.separate else 0)
        turn = frame.between if layout.separate or not number else EMPTY
        ask = np.concatenate([q.ask[: q.asked], turn, q.ask[q.asked :]]) if len(turn) else q.ask
        start, stop = at + len(before) + len(ask), at + len(before) + len(ask) + len(q.answer)
        if len(q.answer) > q.longest:
            raise ValueError(f"{q.text!r} has {len(q.answer)} tokens, more than the longest answer ({q.longest})")
        value_at = distance = None
        if q.evidence is not None and q.evidence[0] in placed:
            value_at = placed[q.evidence[0]] + q.evidence[1]
            distance = start - value_at - q.evidence[2]
        via = tuple(placed[i] for i in q.via if i in placed)
        candidates = (q.answer, *list(q.others)[: MAX_CANDIDATES - 1])
        own = np.concatenate([before, ask, q.answer]) if layout.separate and number else None
        key, text = map(sample.tokenizer.expressed, (q.key, q.text))
        queries.append(Query(key, text, start, stop, value_at, distance, candidates, q.chance, own, via))
        if own is not None:
            continue
        pieces += [before, ask, q.answer, q.tail]
        if len(turn):
            joints += [at + len(before) + q.asked, at + len(before) + q.asked + len(turn)]
        joints += [at, at + len(before), start, *range(start + 16, stop, max(16, len(q.answer) // MAX_JOINTS)), stop]
        done = stop + len(q.tail)
        at = at if layout.separate else done
    pieces.append(filler.next(length - done))
    joints += [done, length]
    sizes = {cut.index: len(cut.needle.whole) for cut in layout.cuts}
    episode = Episode(
        ids=np.concatenate(pieces),
        queries=tuple(queries),
        needles=tuple(spans),
        haystack_start=context.window.start,
        haystack_tokens=context.window.tokens,
        rounds=context.window.rounds,
        realised_depth=_realised_depth(placed, sizes, layout.target, first, end),
    )
    return episode, joints


class _Text:
    """The haystack's text behind its window, in pieces that begin and end at words; common words where it has no such
    piece, as in code none may have a single token."""

    def __init__(self, sample: Sample, context: Context):
        self._sample, self._at = sample, context.window.start + context.window.tokens

    def next(self, n: int) -> np.ndarray:
        """The next n tokens."""
        if not n:
            return EMPTY
        streams = self._sample.stream, self._sample.materials.stream("words", self._sample.factors.split)
        try:
            start = streams[0].window(self._at, n)
        except EpisodeError:
            return streams[1].take(streams[1].window(self._at, n), n)
        self._at = start + n
        return streams[0].take(start, n)


def _realised_depth(placed: dict[int, int], sizes: dict[int, int], target: int, first: int, end: int) -> float:
    span = end - first - sizes.get(target, 0)
    return (placed[target] - first) / span if target in placed and span > 0 else 0.0


def _all_round_trip(episode: Episode, joints: list[int], materials: Materials) -> bool:
    """Whether the text, and that of each separate question, encodes to the same ids again."""
    tokenizer, marks = materials.tokenizer, materials.frame.marks
    if not round_trips(episode.ids, joints, tokenizer, marks):
        return False
    return all(
        round_trips(episode.sequence(q), [*range(q.stop - len(q.own), q.stop + 1)], tokenizer, marks)
        for q in episode.queries
        if q.own is not None
    )
