"""Questions from a file over its own paragraphs: the gold one at the asked depth among others, cut to an exact length.

    ... Other paragraph. Gold paragraph with the answer. Other paragraph. ... Question: Who built it? Answer:   -> " Hugo Ashwick"

Two hops (HotpotQA): the gold paragraph without the answer stands at a place of its own, and so do both of every other question.

Training and probing take different documents of a file (askable.py). Every sample draws its question anew, and deals the other
paragraphs of its half anew from the same pool: for a given context each answer of its paragraphs is as likely to be the asked
one as any other, whatever other samples hold. So chance is 1 / these answers; a question's words, who or when, say more. What
remains of the length is a piece of one more paragraph, cut at words, before the others. An answer and the words after it have
ANSWER tokens together, so that an exact length does not tell the answer's.
"""

from typing import NamedTuple

import numpy as np

from lcprobe.errors import ConfigError, EpisodeError
from lcprobe.files import digest_json
from lcprobe.seeds import Draws, LazyPermutation
from lcprobe.tasks.assembly import (
    EMPTY,
    MAX_CANDIDATES,
    Built,
    Haystack,
    Question,
    TooShort,
    assemble,
    bos_piece,
    fixed_tokens,
)
from lcprobe.tasks.episode import SUITE, Factors
from lcprobe.tasks.parts.placement import Cut, Needle, in_lines
from lcprobe.tasks.parts.qa_files import read_entries
from lcprobe.tasks.parts.question_pool import ANSWER, SPLITS, PooledQuestion, QuestionPool, divided
from lcprobe.tasks.text.paragraphs import Paragraphs
from lcprobe.tasks.text.tokenizer import Tokenizer


class Filling(NamedTuple):
    """What surrounds the gold paragraphs. units: those that are whole; lines: their paragraphs, and perhaps more; pieces: of
    others, to stand before them; after: a piece to follow the answer."""

    units: np.ndarray
    lines: np.ndarray
    pieces: list[np.ndarray]
    after: np.ndarray


class Passages:
    """Episodes over the paragraphs of one file."""

    def __init__(self, source: str, path: str, tokenizer: Tokenizer):
        """Raises ConfigError or DataError for a file that is missing or not of the form, or has no questions to probe with."""
        self._source, self._path, self._tokenizer = source, path, tokenizer
        entries, read = read_entries(source, path)
        self.digest = digest_json([source, read])
        self._entries = divided(entries)
        self._halves: dict[str, QuestionPool] = {}
        self.half(SPLITS[0])

    def half(self, split: str) -> QuestionPool:
        """What can be asked in a split. Raises ConfigError where that is nothing."""
        if split not in self._halves:
            half = QuestionPool(self._entries[split], self._tokenizer)
            if len(half.units) < 2:
                allowed = (
                    f"a {self._source} file with {split} questions about two paragraphs that alone hold the answers"
                )
                if split != SPLITS[0]:
                    allowed += "; training takes other documents than probing"
                raise ConfigError("path", self._path, allowed)
            self._halves[split] = half
        return self._halves[split]

    def build(self, factors: Factors, attempt: int) -> Built:
        """The episode and where its pieces join."""
        control, draw = factors.control, Draws("qa", SUITE, self._source, factors.split, factors.index)
        half = self.half(factors.split)
        numbers = half.pair(draw("asked"))
        asked, other = (draw("question", i).pick(half.answers[number]) for i, number in enumerate(numbers))
        mine, absent = (int(half.unit_of[number]) for number in numbers)
        shown = other if control == "wrong_key" else asked
        question = self._question(half, asked, shown)

        gold = [*asked.gold, *(line for line in half.units[mine] if line not in asked.gold)]
        wholes = [half.paragraphs.whole(line) for line in gold]
        needles = [Needle(whole, whole[:0], whole[:0], "") for whole in wholes]
        order = [] if control in ("no_needle", "query_only") else list(range(len(needles)))
        depths = [factors.depth, *draw("depth").uniform(len(needles))[1:].tolist()]
        if control == "zero_distance":  # past 1: after all the others
            depths[: len(asked.gold)] = [3.0 - hop for hop in range(len(asked.gold))]
        cuts = [Cut(i, depths[i], needles[i]) for i in order]

        before, spare = [bos_piece(self._tokenizer)], ANSWER - len(asked.answer)
        fixed = spare + fixed_tokens(before, [needles[i].whole for i in order], [question])
        room = factors.length - fixed
        if room < 0 and control != "query_only":
            raise TooShort(factors.length, fixed, f"question {factors.index} of {self._path} with its paragraphs")
        dealt = LazyPermutation(draw("others", attempt), len(half.units))(np.arange(len(half.units)))
        filling = self._fill(half, dealt[~np.isin(dealt, (mine, absent))], max(room, 0), spare, factors.split)
        there = half.answers_of(np.append(filling.units, mine))
        there = there[there != numbers[0]]
        near = there[draw("candidates").permutation(len(there))[: MAX_CANDIDATES - 1]]
        question = question._replace(
            others=[half.answers[i][0].answer for i in near.tolist()], chance=1 / (1 + len(there))
        )
        if control == "query_only":
            return assemble(before, [], [question])
        lines = filling.lines[draw("places").permutation(len(filling.lines))]
        context = [*((piece, None) for piece in filling.pieces), *in_lines(half.paragraphs, lines, EMPTY, cuts, 0)]
        start = int(half.paragraphs.ends[lines[0]]) if len(lines) else 0
        haystack = Haystack(start, room, room / len(half.paragraphs.tokens))
        return assemble(before, context, [question._replace(tail=filling.after)], haystack)

    def _question(self, half: QuestionPool, asked: PooledQuestion, shown: PooledQuestion) -> Question:
        text, answer = asked.entry.gold[0], asked.entry.answer
        at = -1
        for _ in range(asked.entry.nth + 1):
            at = text.find(answer, at + 1)
        at = at if at >= 0 else text.find(answer)  # the file counts characters otherwise
        return Question(
            key=shown.entry.question,
            text=answer,
            ask=shown.ask,
            answer=asked.answer,
            tail=EMPTY,
            evidence=(0, *half.paragraphs.tokens_of(asked.gold[0], at, len(answer))),
            others=(),
            chance=1.0,
            via=tuple(range(1, len(asked.gold))),
        )

    def _fill(self, half: QuestionPool, dealt: np.ndarray, room: int, spare: int, split: str) -> Filling:
        """Units in dealt order, as many as fit, `room` tokens of them and a piece together, and `spare` tokens more.

        Where the next one has several paragraphs some of them may still fit; without the others they cannot be asked about.
        Raises EpisodeError where the file has less, or no such piece.
        """
        used = np.cumsum(half.sizes[dealt])
        fit = int(np.searchsorted(used, room, side="right"))
        lines = [line for unit in dealt[:fit].tolist() for line in half.units[unit]]
        left = room - (int(used[fit - 1]) if fit else 0)
        rest = [line for unit in dealt[fit:].tolist() for line in half.units[unit]]
        for line in half.units[dealt[fit]] if fit < len(dealt) else []:
            size = int(half.paragraphs.size(np.array(line)))
            if size <= left:
                lines.append(line)
                rest.remove(line)
                left -= size
        pieces, after = _cut(half.paragraphs, rest, left), _cut(half.paragraphs, rest[::-1], spare, parts=1)
        if pieces is None or after is None:
            have = int(used[-1]) if len(used) else 0
            allowed = f"about as many as the {have} that the {self._source} file has for {split} samples"
            raise EpisodeError(
                "length", f"{room} tokens of other paragraphs, and pieces of {left} and {spare}", allowed
            )
        return Filling(dealt[:fit], np.array(lines, dtype=np.int64), pieces, np.concatenate([EMPTY, *after]))


def _cut(paragraphs: Paragraphs, lines: list[int], n: int, parts: int = 2) -> list[np.ndarray] | None:
    """n tokens as a piece of a paragraph, or as pieces of two where words nowhere end so; None where there are no such."""
    if not n:
        return []
    whole = paragraphs.cut(lines, n)
    if whole is not None:
        return [whole[0]]
    for first in range(n // 2, n) if parts > 1 else ():
        one = paragraphs.cut(lines, first)
        two = None if one is None else paragraphs.cut([line for line in lines if line != one[1]], n - first)
        if one is not None and two is not None:
            return [one[0], two[0]]
    return None
