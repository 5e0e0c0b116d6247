"""From the questions of a file to those of a split: one half of the documents, in which every answer occurs once.

Training and probing take different documents, so that no paragraph is in samples of both. Questions are filtered so
that a guess is no better than picking one of the answers of the paragraphs in the context:

    an answer occurs in only one paragraph of the half, and not in its own question
    no answer of a unit is a prefix of another: printing the longer one would be right for both
    a unit is the paragraphs that are needed together; paragraphs without a question are left out
"""

from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from lcprobe.seeds import Stream, seed_of
from lcprobe.tasks.episode import SUITE
from lcprobe.tasks.parts.qa_files import Entry
from lcprobe.tasks.text.paragraphs import Paragraphs, pieces_or_none
from lcprobe.tasks.text.tokenizer import Tokenizer

MAX_CHARS = 1_000_000
"""Characters of the paragraphs of a half; those beyond are left out, and questions that need them."""
MAX_ANSWER = 16
"""Tokens of an answer at most."""
MAX_UNIT = 4
"""Paragraphs of a unit at most: a question that would join more is left out."""
ASK_QUESTION, ANSWER = " Question: {question}", " Answer:"
SPLITS = ("probe", "train")


class PooledQuestion(NamedTuple):
    """A question of the pool. gold: numbers of its paragraphs, the one with the answer first; ask, answer: ids;
    asked: tokens of `ask` before the words that begin the answer."""

    entry: Entry
    gold: tuple[int, ...]
    ask: np.ndarray
    answer: np.ndarray
    asked: int


class QuestionPool:
    """The questions of one half of a file, by unit and answer.

    units: paragraph numbers of each; sizes: (n_units,) their tokens. answers: the questions of each answer, in order
    of units; unit_of: (n_answers,) the unit of each; first: (n_units + 1,) where those of each unit begin and the
    last end.
    """

    def __init__(self, entries: Sequence[Entry], tokenizer: Tokenizer):
        """entries: of one half. The pool is empty where none passes the filters."""
        order = Stream("passages", SUITE).permutation(len(entries))
        kept, texts = _pool([_expressed(entries[i], tokenizer) for i in order], tokenizer)
        self.paragraphs = Paragraphs(texts, tokenizer)
        questions = _checked(kept, self.paragraphs, tokenizer)
        self.units: list[list[int]] = []
        self.answers: list[list[PooledQuestion]] = []
        first = [0]
        for gold, about_unit in _units(questions):
            by_answer: dict[str, list[PooledQuestion]] = {}
            for question in about_unit:
                by_answer.setdefault(question.entry.answer, []).append(question)
            for answer, same_answer in by_answer.items():
                if not any(other != answer and other.startswith(answer) for other in by_answer):
                    self.answers.append(same_answer)
            self.units.append(gold)
            first.append(len(self.answers))
        self.first = np.array(first)
        self.unit_of = np.repeat(np.arange(len(self.units)), np.diff(self.first))
        self.sizes = np.array(
            [int(self.paragraphs.size(np.array(unit)).sum()) for unit in self.units], dtype=np.int64
        )

    def pair(self, draw: Stream) -> tuple[int, int]:
        """An answer and one of another unit; all such pairs are equally likely."""
        while True:
            one, other = draw.integer(len(self.answers)), draw.integer(len(self.answers))
            # on a miss both are drawn again: redrawing the second alone would favour units of many answers
            if self.unit_of[one] != self.unit_of[other]:
                return one, other

    def answers_of(self, units: np.ndarray) -> np.ndarray:
        """(n,) numbers of the answers of some units."""
        counts = self.first[units + 1] - self.first[units]
        ends = np.cumsum(counts)
        return np.arange(ends[-1] if len(ends) else 0) + np.repeat(self.first[units] - ends + counts, counts)


def divided(entries: Sequence[Entry]) -> Mapping[str, list[Entry]]:
    """The questions of each split; splits share no document and no paragraph.

    Linked questions go together, in order of a hash of their documents' names, to the split that has less text so
    far.
    """
    label = _labels([(*(("document", name) for name in entry.documents), *entry.gold) for entry in entries])
    together: dict[int, list[Entry]] = {}
    for entry, number in zip(entries, label, strict=True):
        together.setdefault(number, []).append(entry)
    halves: dict[str, list[Entry]] = {split: [] for split in SPLITS}
    chars = dict.fromkeys(SPLITS, 0)
    for group in sorted(
        together.values(), key=lambda group: seed_of("document", min(min(e.documents) for e in group))
    ):
        split = min(SPLITS, key=chars.__getitem__)
        halves[split] += group
        chars[split] += sum(map(len, {text for entry in group for text in entry.gold}))
    return halves


def _expressed(entry: Entry, tokenizer: Tokenizer) -> Entry:
    """A question as the tokenizer expresses it."""
    if not tokenizer.folds:
        return entry
    text, at = entry.gold[0], -1
    for _ in range(entry.nth + 1):
        at = text.find(entry.answer, at + 1)
    question, answer, before = map(tokenizer.expressed, (entry.question, entry.answer, text[: max(at, 0)]))
    gold = tuple(map(tokenizer.expressed, entry.gold))
    return Entry(question, answer, gold, entry.documents, before.count(answer) if answer else 0)


def _pool(entries: list[Entry], tokenizer: Tokenizer) -> tuple[list[Entry], list[str]]:
    """Questions and paragraphs without characters that the tokenizer changes, as many as MAX_CHARS allows, in
    order."""
    lost = tokenizer.lost("".join({c for entry in entries for text in (entry.question, *entry.gold) for c in text}))
    texts: dict[str, None] = {}
    kept, size = [], 0
    for entry in entries:
        new = [text for text in entry.gold if text not in texts]
        n = sum(map(len, new))
        needed = " ".join((entry.question, entry.answer, *entry.gold))
        if any(c in needed for c in lost) or (size and n and size + n > MAX_CHARS):
            continue
        texts |= dict.fromkeys(new)
        size += n
        kept.append(entry)
    return kept, list(texts)


def _checked(entries: list[Entry], paragraphs: Paragraphs, tokenizer: Tokenizer) -> list[PooledQuestion]:
    """Questions that need their gold paragraph, and that survive a round trip."""
    # bytes: searching a string with letters outside of Latin takes longer
    texts = [text.encode() for text in paragraphs.texts]
    ends = np.cumsum([len(text) + 1 for text in texts])
    number, everything = {text: i for i, text in enumerate(paragraphs.texts)}, b"\n".join(texts)

    def once(entry: Entry) -> bool:
        gold, answer = number[entry.gold[0]], entry.answer.encode()
        first = everything.find(answer)
        inside = ends[gold] - 1 - len(texts[gold]) <= first < ends[gold]
        return bool(answer) and inside and everything.find(answer, ends[gold]) < 0

    left = [
        entry
        for entry in entries
        if all(paragraphs.known[number[text]] for text in entry.gold)
        and entry.answer not in entry.question
        and once(entry)
    ]
    asks = [ASK_QUESTION.format(question=entry.question) + ANSWER for entry in left]
    answers = [" " + entry.answer for entry in left]
    wholes = [ask + answer for ask, answer in zip(asks, answers, strict=True)]
    ids = [pieces_or_none(texts, tokenizer) for texts in (asks, answers, wholes)]
    questions = []
    for entry, text, ask, answer, whole in zip(left, wholes, *ids, strict=True):
        if ask is None or answer is None or whole is None or len(answer) > MAX_ANSWER:
            continue
        given_back = tokenizer.decode(whole).strip() == tokenizer.expressed(text).strip()
        if np.array_equal(np.concatenate([ask, answer]), whole) and given_back:
            gold = tuple(number[text] for text in entry.gold)
            questions.append(PooledQuestion(entry, gold, ask, answer, len(ask) - len(tokenizer.piece(ANSWER))))
    return questions


def _units(questions: list[PooledQuestion]) -> list[tuple[list[int], list[PooledQuestion]]]:
    """Paragraphs that are needed together, and the questions about them."""
    label = _labels([question.gold for question in questions], MAX_UNIT)
    units: dict[int, tuple[dict[int, None], list[PooledQuestion]]] = {}
    for question, number in zip(questions, label, strict=True):
        if number >= 0:
            paragraphs, about_unit = units.setdefault(number, ({}, []))
            paragraphs |= dict.fromkeys(question.gold)
            about_unit.append(question)
    return [([*paragraphs], about_unit) for paragraphs, about_unit in units.values()]


def _labels(groups: Sequence[Iterable[Hashable]], most: int | None = None) -> list[int]:
    """A number for each group, the same for groups that are linked by common members (union-find); -1 for a group
    that would link more than `most` members.
    """
    parent: dict[Hashable, Hashable] = {}
    size: dict[Hashable, int] = {}

    def root(member: Hashable) -> Hashable:
        while parent.setdefault(member, member) != member:
            parent[member] = member = parent[parent[member]]
        return member

    linked = []
    for group in groups:
        roots = list(dict.fromkeys(map(root, group)))
        n = sum(size.get(one, 1) for one in roots)
        if most is not None and n > most:
            linked.append(None)
            continue
        for one in roots:
            parent[one] = roots[0]
        size[roots[0]] = n
        linked.append(roots[0])
    number: dict[Hashable, int] = {}
    return [-1 if one is None else number.setdefault(root(one), len(number)) for one in linked]
