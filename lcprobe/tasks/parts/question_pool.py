"""From the questions of a file to what a sample may ask: one half of the documents, and every answer there once.

Training and probing take different documents, so that no paragraph is in samples of both. Of a half is kept what makes a guess
no better than one of the answers of the paragraphs that stand in the context:

    an answer occurs in one paragraph of the half alone, and not in its own question
    no answer of a unit begins another: printing the longer one would be right for both
    a unit is the paragraphs that are needed together; those of no question that can be asked are left out
"""

from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from lcprobe.seeds import Stream, seed_of
from lcprobe.tasks.episode import SUITE
from lcprobe.tasks.parts.qa_files import Entry
from lcprobe.tasks.text.paragraphs import Paragraphs, pieces_or_none
from lcprobe.tasks.text.tokenizer import Tokenizer

CHARS = 1_000_000
"""Paragraphs of a half beyond this much text are left out, and questions that need them."""
MAX_ANSWER = 16
"""Tokens of an answer at most."""
TOGETHER = 4
"""Paragraphs of a unit at most: a question that would join more is left out."""
ASK = " Question: {question} Answer:"
SPLITS = ("probe", "train")


class PooledQuestion(NamedTuple):
    """A question that can be asked. gold: numbers of its paragraphs, that with the answer first; ask, answer: ids."""

    entry: Entry
    gold: tuple[int, ...]
    ask: np.ndarray
    answer: np.ndarray


class QuestionPool:
    """units: numbers of the paragraphs of each; sizes: (n_units,) their tokens. answers: the questions that have each answer, in
    order of units; unit_of: (n_answers,) the unit of each; first: (n_units + 1,) where those of each unit begin and the last end.
    """

    def __init__(self, entries: Sequence[Entry], tokenizer: Tokenizer):
        """entries: of one half. Without any that can be asked all of it is empty."""
        order = Stream("passages", SUITE).permutation(len(entries))
        kept, texts = _pool([entries[i] for i in order], tokenizer)
        self.paragraphs = Paragraphs(texts, tokenizer)
        found = _checked(kept, self.paragraphs, tokenizer)
        self.units: list[list[int]] = []
        self.answers: list[list[PooledQuestion]] = []
        first = [0]
        for gold, asked in _units(found):
            by_answer: dict[str, list[PooledQuestion]] = {}
            for one in asked:
                by_answer.setdefault(one.entry.answer, []).append(one)
            for answer, questions in by_answer.items():
                if not any(other != answer and other.startswith(answer) for other in by_answer):
                    self.answers.append(questions)
            self.units.append(gold)
            first.append(len(self.answers))
        self.first = np.array(first)
        self.unit_of = np.repeat(np.arange(len(self.units)), np.diff(self.first))
        self.sizes = np.array(
            [int(self.paragraphs.size(np.array(unit)).sum()) for unit in self.units], dtype=np.int64
        )

    def pair(self, draw: Stream) -> tuple[int, int]:
        """An answer and another one of another unit; of all such pairs any."""
        while True:
            one, other = draw.integer(len(self.answers)), draw.integer(len(self.answers))
            if (
                self.unit_of[one] != self.unit_of[other]
            ):  # both anew: the first alone would favour units of many answers
                return one, other

    def answers_of(self, units: np.ndarray) -> np.ndarray:
        """(n,) numbers of the answers of some units."""
        counts = self.first[units + 1] - self.first[units]
        ends = np.cumsum(counts)
        return np.arange(ends[-1] if len(ends) else 0) + np.repeat(self.first[units] - ends + counts, counts)


def divided(entries: Sequence[Entry]) -> Mapping[str, list[Entry]]:
    """The questions of each split, which share no document and no paragraph.

    What belongs together goes, in order of a hash of its documents' names, to the split that has less text so far.
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


def _pool(entries: list[Entry], tokenizer: Tokenizer) -> tuple[list[Entry], list[str]]:
    """Questions and paragraphs without characters that the tokenizer changes, as many as CHARS allows, in order."""
    lost = tokenizer.lost("".join({c for entry in entries for text in (entry.question, *entry.gold) for c in text}))
    texts: dict[str, None] = {}
    kept, size = [], 0
    for entry in entries:
        new = [text for text in entry.gold if text not in texts]
        n = sum(map(len, new))
        needed = " ".join((entry.question, entry.answer, *entry.gold))
        if any(c in needed for c in lost) or (size and n and size + n > CHARS):
            continue
        texts |= dict.fromkeys(new)
        size += n
        kept.append(entry)
    return kept, list(texts)


def _checked(entries: list[Entry], paragraphs: Paragraphs, tokenizer: Tokenizer) -> list[PooledQuestion]:
    """Questions that looking at the gold paragraph is needed for, and that the tokenizer gives back."""
    # bytes: in a string with letters outside of Latin a search takes longer
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
    asks = [ASK.format(question=entry.question) for entry in left]
    answers = [" " + entry.answer for entry in left]
    wholes = [ask + answer for ask, answer in zip(asks, answers, strict=True)]
    ids = [pieces_or_none(texts, tokenizer) for texts in (asks, answers, wholes)]
    found = []
    for entry, text, ask, answer, whole in zip(left, wholes, *ids, strict=True):
        if ask is None or answer is None or whole is None or len(answer) > MAX_ANSWER:
            continue
        if np.array_equal(np.concatenate([ask, answer]), whole) and tokenizer.decode(whole).strip() == text.strip():
            found.append(PooledQuestion(entry, tuple(number[text] for text in entry.gold), ask, answer))
    return found


def _units(found: list[PooledQuestion]) -> list[tuple[list[int], list[PooledQuestion]]]:
    """Paragraphs that are needed together, and the questions about them."""
    label = _labels([one.gold for one in found], TOGETHER)
    units: dict[int, tuple[dict[int, None], list[PooledQuestion]]] = {}
    for one, number in zip(found, label, strict=True):
        if number >= 0:
            paragraphs, asked = units.setdefault(number, ({}, []))
            paragraphs |= dict.fromkeys(one.gold)
            asked.append(one)
    return [([*paragraphs], asked) for paragraphs, asked in units.values()]


def _labels(groups: Sequence[Iterable[Hashable]], most: int | None = None) -> list[int]:
    """A number for each group, the same for two that are linked by members in common (union-find); -1 for a group that would
    link more than `most` members."""
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
