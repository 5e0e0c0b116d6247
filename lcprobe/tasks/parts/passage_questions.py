"""Questions from a file over its own paragraphs: the gold one at its depth among others, cut to an exact length.

    ... Other paragraph. Gold paragraph with the answer. Other paragraph. ... Question: Who built it? Answer:
    -> " Hugo Ashwick"

Two hops (HotpotQA): the gold paragraph without the answer has an independent place, and so do both of every other
question.

Training and probing take different documents of a file (question_pool.py). Every sample draws its question and
samples the other paragraphs of its half without replacement: for a given context each answer of its paragraphs is as
likely to be the target as any other, whatever the contexts of other samples contain. So chance is 1 / these answers;
a question's words, who or when, say more. The rest of the length is a piece of one more paragraph, cut at words,
before the others.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from lcprobe.errors import ConfigError, EpisodeError
from lcprobe.files import digest_json
from lcprobe.seeds import LazyPermutation
from lcprobe.tasks.episode import MAX_CANDIDATES
from lcprobe.tasks.parts.layout import EMPTY, NO_HAYSTACK, Context, HaystackWindow, Layout, Question, Sample
from lcprobe.tasks.parts.placement import Cut, Needle, in_lines
from lcprobe.tasks.parts.qa_files import read_entries
from lcprobe.tasks.parts.question_pool import MAX_ANSWER, SPLITS, PooledQuestion, QuestionPool, divided
from lcprobe.tasks.text.paragraphs import Paragraphs
from lcprobe.tasks.text.tokenizer import Tokenizer


class Filling(NamedTuple):
    """What surrounds the gold paragraphs. units: those that are whole; lines: their paragraphs, and perhaps more;
    pieces: parts of others, placed before them.
    """

    units: np.ndarray
    lines: np.ndarray
    pieces: list[np.ndarray]


class Passages:
    """Layouts over the paragraphs of one file."""

    def __init__(self, source: str, path: str, tokenizer: Tokenizer):
        """Raises ConfigError or DataError for a file that is missing, not of the form, or without questions to probe
        with.
        """
        self._source, self._path, self._tokenizer = source, path, tokenizer
        entries, content_digest = read_entries(source, path)
        self.text_digest = digest_json([source, content_digest])
        self._entries = divided(entries)
        self._halves: dict[str, QuestionPool] = {}
        self.half(SPLITS[0])

    def half(self, split: str) -> QuestionPool:
        """The questions of a split. Raises ConfigError where there are none."""
        if split not in self._halves:
            half = QuestionPool(self._entries[split], self._tokenizer)
            if len(half.units) < 2:
                allowed = f"a {self._source} file with {split} questions about two paragraphs "
                allowed += "that alone contain the answers"
                if split != SPLITS[0]:
                    allowed += "; training takes other documents than probing"
                raise ConfigError("path", self._path, allowed)
            self._halves[split] = half
        return self._halves[split]

    def layout(self, sample: Sample) -> Layout:
        """See Task."""
        control, draw = sample.factors.control, sample.draw
        half = self.half(sample.factors.split)
        numbers = half.pair(draw("asked"))
        target, other = (draw("question", i).pick(half.answers[number]) for i, number in enumerate(numbers))
        question = _question(half, target, other if control == "wrong_key" else target)
        unit = half.units[int(half.unit_of[numbers[0]])]
        gold = [*target.gold, *(line for line in unit if line not in target.gold)]
        wholes = [half.paragraphs.whole(line) for line in gold]
        needles = [Needle(whole, whole[:0], whole[:0], "") for whole in wholes]
        depths, targets = sample.depths(len(needles)), range(len(target.gold))
        cuts = sample.cuts(needles, depths, targets[::-1], removed=range(len(needles)))
        layout = Layout(cuts, [question], f"question {sample.factors.index} of {self._path} with its paragraphs")
        room = max(sample.factors.length - sample.fixed_tokens(layout), 0)  # of query_only what there would be

        def fill(_: int) -> Context:
            return self._fill(sample, half, numbers, question, cuts, room)

        return replace(layout, fill=fill)

    def _fill(
        self,
        sample: Sample,
        half: QuestionPool,
        numbers: tuple[int, int],
        question: Question,
        cuts: Sequence[Cut],
        room: int,
    ) -> Context:
        """Other paragraphs around the gold ones, and the answers in them as candidates. query_only: those there would
        be.
        """
        draw = sample.draw
        mine, absent = (int(half.unit_of[number]) for number in numbers)
        order = LazyPermutation(draw("others", sample.attempt), len(half.units))(np.arange(len(half.units)))
        filling = self._filling(half, order[~np.isin(order, (mine, absent))], room, sample.factors.split)
        answers = half.answers_of(np.append(filling.units, mine))
        answers = answers[answers != numbers[0]]
        near = answers[draw("candidates").permutation(len(answers))[: MAX_CANDIDATES - 1]]
        others = [half.answers[i][0].answer for i in near.tolist()]
        question = question._replace(others=others, chance=1 / (1 + len(answers)))
        if sample.factors.control == "query_only":
            return Context([], NO_HAYSTACK, [question])
        lines = filling.lines[draw("places").permutation(len(filling.lines))]
        parts = [*((piece, None) for piece in filling.pieces), *in_lines(half.paragraphs, lines, EMPTY, cuts, 0)]
        # paragraphs are in no order of their own: the offset is that of the words that fill the answer's room
        window = HaystackWindow(sample.offset, room, room / len(half.paragraphs.tokens))
        return Context(parts, window, [question])

    def _filling(self, half: QuestionPool, order: np.ndarray, room: int, split: str) -> Filling:
        """Units in the given order, as many as fit, with a piece `room` tokens together.

        Some paragraphs of the next unit may still fit; without the others they are the answer to no question.
        Raises EpisodeError where the file has less, or no such piece.
        """
        used = np.cumsum(half.sizes[order])
        fit = int(np.searchsorted(used, room, side="right"))
        lines = [line for unit in order[:fit].tolist() for line in half.units[unit]]
        left = room - (int(used[fit - 1]) if fit else 0)
        rest = [line for unit in order[fit:].tolist() for line in half.units[unit]]
        for line in half.units[order[fit]] if fit < len(order) else []:
            size = int(half.paragraphs.size(np.array(line)))
            if size <= left:
                lines.append(line)
                rest.remove(line)
                left -= size
        pieces = _cut(half.paragraphs, rest, left)
        if pieces is None:
            have = int(used[-1]) if len(used) else 0
            allowed = f"about as many as the {have} that the {self._source} file has for {split} samples"
            raise EpisodeError("length", f"{room} tokens of other paragraphs, and a piece of {left}", allowed)
        return Filling(order[:fit], np.array(lines, dtype=np.int64), pieces)


def _question(half: QuestionPool, target: PooledQuestion, shown: PooledQuestion) -> Question:
    """The words of `shown` with the answer of `target`."""
    text, answer = target.entry.gold[0], target.entry.answer
    at = -1
    for _ in range(target.entry.nth + 1):
        at = text.find(answer, at + 1)
    at = at if at >= 0 else text.find(answer)  # the file counts characters differently
    return Question(
        key=shown.entry.question,
        text=answer,
        ask=shown.ask,
        asked=shown.asked,
        answer=target.answer,
        longest=MAX_ANSWER,
        evidence=(0, *half.paragraphs.tokens_of(target.gold[0], at, len(answer))),
        via=tuple(range(1, len(target.gold))),
    )


def _cut(paragraphs: Paragraphs, lines: list[int], n: int) -> list[np.ndarray] | None:
    """n tokens as a piece of a paragraph, or as pieces of two where none can be cut so; None where those cannot
    either.
    """
    if not n:
        return []
    whole = paragraphs.cut(lines, n)
    if whole is not None:
        return [whole[0]]
    for first in range(n // 2, n):
        one = paragraphs.cut(lines, first)
        two = None if one is None else paragraphs.cut([line for line in lines if line != one[1]], n - first)
        if one is not None and two is not None:
            return [one[0], two[0]]
    return None
