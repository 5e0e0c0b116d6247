"""The interface between a task and the frame: a task maps a `Sample` to its `Layout`; `Context` is the haystack with
its needles.

    [BOS, opening] [text] [context] [question, answer, tail] [question, answer, tail] ... [text]

A prompt template comes between BOS and the opening, and inside the first question: where its words end and those
begin that force the answer's form (`Question.asked`). Later questions in a row are part of that answer; separate ones
have the template each. It takes its room from the haystack.

Every answer has the room of the longest that any candidate has, every question that of the longest that another key
would have: which is the target changes neither what is in the context nor the token at which an answer begins. Text
of the haystack fills what is left of these rooms: of the first question's before the context, of all others' at the
end, or before the question where each is separate.

All randomness comes from the sample: its random streams, whose keys have suite, split and index, and its offset in
the haystack. A stream has a name, so the order in which a task draws does not matter.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

import numpy as np

from lcprobe.errors import EpisodeError
from lcprobe.seeds import Draws, permuted
from lcprobe.tasks.episode import Factors
from lcprobe.tasks.names import NOTHING
from lcprobe.tasks.parts.placement import (
    Cut,
    Filled,
    Needle,
    Part,
    TextPlace,
    UniqueStrings,
    depths_of,
    in_lines,
    in_text,
)
from lcprobe.tasks.text.haystack import Materials, TokenStream
from lcprobe.tasks.text.templates import Frame

EMPTY = np.array([], dtype=np.int32)
ATTEMPT_SHIFT = 101
"""Tokens by which every further attempt at a sample moves its haystack window."""


class TooShort(EpisodeError):
    """The pieces alone are longer than the episode. needed: the least length."""

    def __init__(self, length: int, needed: int, what: str):
        self.needed = needed
        super().__init__("length", length, f">= {needed} tokens for {what}")


class Question(NamedTuple):
    """One question as token ids: `ask`, then `answer`, then `tail`, which separates it from the next one (after the
    last one comes a new word, which no tokenizer merges with the answer).

    key, text: the queried key and the answer, as strings. longest: tokens of the longest answer that any candidate
    has, from all of them and not from `others`, of which there may be fewer: the same whichever is the target. asked:
    tokens of `ask` that are the question's words, and not the answer's prefix. longest_ask: likewise of the longest
    ask that a question about another key would have; 0 where its tokens tell nothing. evidence: (needle, first token
    of the target value in it, tokens of the value), None when no single needle has the answer. others: the values
    that a guess would choose from besides the answer. chance: score of choosing one of them without reading the key.
    via: needles that lead to the one with the answer, where several facts are needed.
    """

    key: str
    text: str
    ask: np.ndarray
    answer: np.ndarray
    longest: int
    tail: np.ndarray = EMPTY
    evidence: tuple[int, int, int] | None = None
    others: Sequence[np.ndarray] = ()
    chance: float = 1.0
    via: tuple[int, ...] = ()
    longest_ask: int = 0
    asked: int = 0

    @property
    def before(self) -> int:
        """Tokens of text, before it where it is separate, that the longest ask would need."""
        return max(self.longest_ask - len(self.ask), 0)

    @property
    def room(self) -> int:
        """Tokens that are reserved for it, whichever candidate is its answer."""
        return self.before + len(self.ask) + self.longest + len(self.tail)


class HaystackWindow(NamedTuple):
    """A window of a haystack: its first token in the stream, its tokens, and how often its stream went round."""

    start: int
    tokens: int
    rounds: float


NO_HAYSTACK = HaystackWindow(0, 0, 0.0)


class Context(NamedTuple):
    """Everything between the opening and the questions. parts: in order of appearance. questions: replace those of
    the layout where they depend on how the haystack was filled. joints: places within parts that are checked too,
    from the context's start on.
    """

    parts: Sequence[Part]
    window: HaystackWindow
    questions: Sequence[Question] | None = None
    joints: Sequence[int] = ()


@dataclass(frozen=True)
class Layout:
    """The pieces of one sample."""

    cuts: Sequence[Cut]
    """The needles in the context, each with its depth."""
    questions: Sequence[Question]
    """The questions in order."""
    what: str = "its pieces"
    """The pieces in words, for the error where the length is too short for them."""
    opening: np.ndarray = field(default_factory=lambda: EMPTY)
    """Tokens before the context."""
    longest_opening: int = 0
    """Tokens of the longest opening that another key would have; 0: as many as this one."""
    reserved: int = 0
    """Tokens of the context, besides its needles, that `fill` always adds."""
    target: int = 0
    """The needle whose place gives the realised depth."""
    separate: bool = False
    """Every question directly after the context, as if it were the only one."""
    fill: Callable[[int], Context] | None = None
    """Builds the context from the number of tokens that are left for the haystack; None: a window of text around the
    needles."""


class Sample:
    """One sample of a task at one attempt: its factors, its random streams and its place in the haystack."""

    def __init__(self, names: Sequence[str], factors: Factors, attempt: int, materials: Materials):
        """names: before split and index in the key of every draw."""
        self.factors, self.attempt, self.materials = factors, attempt, materials
        self.tokenizer = materials.tokenizer
        self.names = (*names, factors.split)
        self.draw = Draws(*self.names, factors.index)

    @property
    def bos(self) -> np.ndarray:
        """(1,) BOS, or nothing where the vocabulary has none."""
        bos_id = self.tokenizer.bos_id
        return EMPTY if bos_id is None else np.array([bos_id], dtype=np.int32)

    @property
    def frame(self) -> Frame:
        """The prompt template in tokens."""
        return self.materials.frame

    @cached_property
    def stream(self) -> TokenStream:
        """The text of the haystack; common words where it is no running text."""
        haystack = self.factors.formats.haystack
        name = "words" if haystack in (NOTHING, "needles") else haystack
        return self.materials.stream(name, self.factors.split)

    @cached_property
    def offset(self) -> int:
        """The token of the stream at which windows begin, or soon after which they do."""
        return self.offset_of("haystack")

    def offset_of(self, name: str) -> int:
        """An offset drawn from the stream of this name."""
        return (self.draw(name).integer(len(self.stream)) + ATTEMPT_SHIFT * self.attempt) % len(self.stream)

    @cached_property
    def places(self) -> list[TextPlace]:
        """Where the haystack begins at the first attempt, and where it would in the corpus if it were that: the same
        strings in every haystack are for what is measured, and training has the more of them without."""
        own, streams = self.stream, [self.stream]
        if self.factors.split == "probe" and self.factors.formats.haystack != NOTHING:
            corpus = self.materials.corpus_to_cut
            streams += [] if corpus is None or corpus is own else [corpus]
        return [TextPlace(stream, self.draw("haystack").integer(len(stream))) for stream in streams]

    def window(self, tokens: int) -> HaystackWindow:
        """A window of this many tokens at the sample's offset."""
        start = self.stream.window(self.offset, tokens) if tokens else self.offset
        return HaystackWindow(start, tokens, tokens / len(self.stream))

    def unique(self, wording: str) -> UniqueStrings:
        """A source of strings that occur neither in the sample's haystack nor in the wording, the same ones at every
        attempt, length and, as far as possible, haystack."""
        tokens = self.factors.length + ATTEMPT_SHIFT * self.attempt
        return UniqueStrings(self.tokenizer, self.places, tokens, wording)

    def depths(self, n: int) -> list[float]:
        """Depths of n needles: the sample's for the first, draws for the others."""
        return [self.factors.depth, *self.drawn_depths(n)[1:].tolist()]

    def drawn_depths(self, n: int) -> np.ndarray:
        """(n,) depths, drawn as the factor `distance` says."""
        return depths_of(self.factors.distance, self.draw("depth").uniform(n), self.factors.length)

    def balanced(self, n: int) -> int:
        """A number below n: every block of n samples has each number once."""
        block, at = divmod(self.factors.index, n)
        return permuted(at, n, *self.names, block)

    def cuts(
        self,
        needles: Sequence[Needle],
        depths: Sequence[float],
        targets: Sequence[int],
        removed: Sequence[int] | None = None,
    ) -> list[Cut]:
        """The needles that are in the context under the sample's control, each at its depth.

        targets: needles that `zero_distance` places after all others, in this order. removed: those that `no_needle`
        leaves out; None: the targets.
        """
        control, shown = self.factors.control, range(len(needles))
        if control == "query_only":
            return []
        if control == "no_needle":
            gone = targets if removed is None else removed
            shown = [i for i in shown if i not in gone]
        past = {i: 2.0 + rank for rank, i in enumerate(targets)} if control == "zero_distance" else {}
        return [Cut(i, past[i] if i in past else depths[i], needles[i]) for i in shown]

    def fixed_tokens(self, layout: Layout) -> int:
        """Tokens of everything but the haystack, rooms of answers and the template included; of separate questions
        only the one with the most counts."""
        rooms = [question.room for question in layout.questions]
        needles = sum(len(cut.needle.whole) for cut in layout.cuts)
        questions = max(rooms) if layout.separate else sum(rooms)
        opening = max(len(layout.opening), layout.longest_opening)
        template = len(self.frame.before) + (len(self.frame.between) if rooms else 0)
        return len(self.bos) + template + opening + needles + layout.reserved + questions


def fill_with_text(sample: Sample, cuts: Sequence[Cut], room: int) -> Context:
    """A window of `room` tokens with the needles at their depths."""
    window = sample.window(room)
    return Context(in_text(sample.stream, window.start, room, cuts), window)


def fill_with_lines(sample: Sample, cuts: Sequence[Cut], room: int, lines: Filled) -> Context:
    """Lines that look like the needles, after common words where no line fits; needle 0 has the rank of its depth
    among all.
    """
    words = sample.window(room - len(lines.ids))
    text = sample.stream.take(words.start, words.tokens)
    parts = in_lines(lines, np.arange(len(lines)), text, cuts, 0)
    return Context(parts, HaystackWindow(words.start, room, room / len(sample.stream)))
