"""What a no-retrieval policy observes of a question: the values in the text, in order, and nothing else.

Which strings are values is given: the candidates of the question, as a set, in an order decided by a digest of the
text. Where a question has more values than a record keeps candidates, or the answer is the only candidate, values are
recognised by their surroundings (the characters around them) and their pattern of letters and digits.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np

from lcprobe.files import digest_bytes
from lcprobe.probing.scoring import Item
from lcprobe.seeds import Stream
from lcprobe.tasks.episode import MAX_CANDIDATES
from lcprobe.tasks.text.haystack import TokenStream
from lcprobe.tasks.text.tokenizer import Tokenizer

ITEM_SEPARATOR = re.compile(r" and |, ")
"""Separates the items of an answer that is a list."""
WORD = re.compile(r"[\w-]+")
LINE_ENDS, MAX_LINE_CHARS = (".", ";", "?", "\n"), 120
"""What ends a line, and the most characters of a line that are read before its value."""
WORDING_SHARE = 0.08
"""A word of a question is wording if at least this share of other questions has it at that place; else it is
masked."""
QUESTION_WORDS, MAX_MASKED_RUN = 24, 3
"""Words read of a question, from its end, and masked words in a row that end it: a name has fewer."""
CHARS_BEFORE, CHARS_AFTER = 2, 1
"""Characters around a value by which other values are recognised."""


@dataclass(frozen=True)
class ObservedValue:
    """A value in the text. places: the characters where it occurs; line: the words of the line of its first
    occurrence.
    """

    text: str
    places: tuple[int, ...]
    line: tuple[str, ...] = ()

    @property
    def first(self) -> int:
        """Where it first occurs."""
        return self.places[0]

    @property
    def last(self) -> int:
        """Where it last occurs."""
        return self.places[-1]

    @property
    def count(self) -> int:
        """How often it occurs."""
        return len(self.places)


@dataclass(frozen=True)
class Observation:
    """values: those in the text, in order of first appearance. items: the same with lists split into their items.
    pool: everything that may be the answer, in no order. number: which question of the episode. key: a digest of the
    text and the number. question: its wording; the words that few other samples have in theirs, such as the target
    key, are masked. characters: of the text. tokens_left: of the episode's length, where the answer begins. tokens:
    of each value and each string of the pool as an answer.
    """

    values: tuple[ObservedValue, ...]
    items: tuple[ObservedValue, ...]
    pool: tuple[str, ...]
    number: int
    key: str
    question: str = ""
    characters: int = 0
    tokens_left: int = 0
    tokens: Mapping[str, int] = field(default_factory=dict)


@dataclass
class TaskStatistics:
    """Statistics of other samples of a task, by the number of the question: their answers, and the ranks of these
    among the values, counted from the front and from the back. items: how many an answer has. patterns: of answers.
    rests: of the tokens that are left of the length where an answer begins, those that are not its own. words: how
    many other contexts have each word; question_words: how many other questions have it at that place from
    their end, n_questions: of how many. By number and masked question: ranks and answers. strata: of depth, over
    which the questions are spread. corpus: the text that haystacks are cut from, known as a whole.
    """

    answers: dict[int, Counter[str]] = field(default_factory=dict)
    from_front: dict[int, Counter[int]] = field(default_factory=dict)
    from_back: dict[int, Counter[int]] = field(default_factory=dict)
    items: int = 1
    patterns: set[str] = field(default_factory=set)
    rests: dict[int, Counter[int]] = field(default_factory=dict)
    words: Counter[str] = field(default_factory=Counter)
    question_words: Counter[tuple[int, str]] = field(default_factory=Counter)
    n_questions: int = 0
    ranks_by_question: dict[tuple[int, str], Counter[int]] = field(default_factory=dict)
    answers_by_question: dict[tuple[int, str], Counter[str]] = field(default_factory=dict)
    strata: int = 1
    corpus: TokenStream | None = None

    def in_text(self, string: str) -> int:
        """How often a string, or the items of a list, occur in the corpus, inside words too."""
        return 0 if self.corpus is None else sum(map(self.corpus.count, ITEM_SEPARATOR.split(string)))


def collect_statistics(
    items: Iterable[Item], tokenizer: Tokenizer, strata: int = 1, corpus: TokenStream | None = None
) -> TaskStatistics:
    """Statistics of questions whose answers are known."""
    stats, known = TaskStatistics(strata=strata, corpus=corpus), list(items)
    for item in known:
        answer = item.query.answer
        stats.answers.setdefault(item.number, Counter())[answer] += 1
        stats.patterns.add(pattern_of(answer))
        stats.rests.setdefault(item.number, Counter())[_tokens_left(item) - len(item.answer)] += 1
        stats.items = max(stats.items, len(ITEM_SEPARATOR.split(answer)))
        stats.question_words.update(_last_words(tokenizer.decode(item.prompt)))
        stats.n_questions += 1
        if item.number == 0:
            stats.words.update(set(WORD.findall(tokenizer.decode(item.prompt))))
    for item in known:  # observations need the patterns and question words of all items
        number, answer = item.number, item.query.answer
        obs = observe(item, tokenizer, stats)
        values, question = [value.text for value in obs.values], (number, obs.question)
        stats.answers_by_question.setdefault(question, Counter())[answer] += 1
        if answer in values:
            rank = values.index(answer)
            stats.from_front.setdefault(number, Counter())[rank] += 1
            stats.ranks_by_question.setdefault(question, Counter())[rank] += 1
            stats.from_back.setdefault(number, Counter())[len(values) - 1 - rank] += 1
    return stats


def observe(item: Item, tokenizer: Tokenizer, stats: TaskStatistics, without_needle: bool = False) -> Observation:
    """The observation of one question. without_needle: the target needle is cut out of the text."""
    ids, number, needle = item.prompt, item.number, item.query.needle
    key = f"{digest_bytes(ids.astype('<i4').tobytes())}/{number}"
    cut = without_needle and needle is not None
    if without_needle and needle is not None:
        spans = ((start, stop) for start, stop in item.episode.needles if start <= needle < stop)
        start, stop = next(spans, (needle, needle + len(item.answer)))
        ids = np.concatenate([ids[:start], ids[stop:]])
    text = tokenizer.decode(ids)
    names = list(dict.fromkeys(tokenizer.decode(c).strip() for c in item.query.candidates))
    if len(names) == 1 and item.query.chance < 1:
        names = []  # a single candidate would give away the answer
    else:
        names = [names[i] for i in Stream("cheating", key).permutation(len(names))]
    values = _observed(names, text)
    incomplete = not names or len(item.query.candidates) == MAX_CANDIDATES
    if incomplete:
        values |= _similar(text, values, stats.patterns)
    if incomplete or cut:
        names = list(values)  # candidates always contain the answer: only the text shows which values there are
    items = _observed((part for name in values for part in ITEM_SEPARATOR.split(name)), text)
    pool = tuple(names or list(stats.answers.get(number, ())))
    return Observation(
        values=_by_appearance(values),
        items=_by_appearance(items),
        pool=pool,
        number=number,
        key=key,
        question=_masked_question(text, stats),
        characters=len(text),
        tokens_left=_tokens_left(item),
        tokens=_tokens(item, tokenizer, [*values, *pool]),
    )


def _tokens_left(item: Item) -> int:
    """Tokens from the first of the answer to the end of the episode: a model that knows the length can count them."""
    return len(item.episode.ids) - item.query.start


def _tokens(item: Item, tokenizer: Tokenizer, names: Iterable[str]) -> dict[str, int]:
    """Tokens of strings as answers."""
    known = {tokenizer.decode(c).strip(): len(c) for c in item.query.candidates}
    given = list(dict.fromkeys(names))
    others = [name for name in given if name not in known]
    known |= dict(zip(others, map(len, tokenizer.pieces([" " + name for name in others])), strict=True))
    return {name: known[name] for name in given}


def pattern_of(text: str) -> str:
    """The pattern of a string: `9999` for a number of four digits, `x-x` for hex or words with a hyphen, `x` for the
    rest.
    """
    return "9" * len(text) if text.isdigit() else re.sub(r"[0-9A-Za-z]+", "x", text)


def _observed(names: Iterable[str], text: str) -> dict[str, ObservedValue]:
    """Those of the names that occur in a text."""
    values = {}
    for name in names:
        value = _find(name, text)
        if value is not None:
            values[name] = value
    return values


def _by_appearance(values: dict[str, ObservedValue]) -> tuple[ObservedValue, ...]:
    return tuple(sorted(values.values(), key=lambda value: value.first))


def _find(name: str, text: str) -> ObservedValue | None:
    """Where a value occurs as words of its own; a list that does not occur in one piece is where its first item
    is."""
    places, parts = _places(name, text), ITEM_SEPARATOR.split(name)
    if not places and len(parts) > 1:
        places = _places(parts[0], text)
    return ObservedValue(name, tuple(places), _line(text, places[0], len(name))) if places else None


def _places(name: str, text: str) -> list[int]:
    places, at = [], text.find(name) if name else -1
    while at >= 0:
        end = at + len(name)
        if not _is_word_char(text, at - 1) and not _is_word_char(text, end):
            places.append(at)
        at = text.find(name, end)
    return places


def _is_word_char(text: str, at: int) -> bool:
    return 0 <= at < len(text) and (text[at].isalnum() or text[at] in "-_")


def _similar(text: str, values: dict[str, ObservedValue], patterns: set[str]) -> dict[str, ObservedValue]:
    """Words with the pattern of a value and, where some values are known, with the same characters around them."""
    frames = {_frame(text, v.first, len(v.text)) for v in values.values()}
    patterns = {pattern_of(name) for name in values} or patterns
    places: dict[str, list[int]] = {}
    for match in WORD.finditer(text):
        word, at = match.group(), match.start()
        if pattern_of(word) in patterns and (not frames or _frame(text, at, len(word)) in frames):
            places.setdefault(word, []).append(at)
    return {word: ObservedValue(word, tuple(at), _line(text, at[0], len(word))) for word, at in places.items()}


def _line(text: str, at: int, size: int) -> tuple[str, ...]:
    """The words from the last end of a sentence, line or entry before a value up to the end of the value."""
    earliest = max(0, at - MAX_LINE_CHARS)
    begin = max(text.rfind(end, earliest, at) for end in LINE_ENDS) + 1
    return tuple(WORD.findall(text[max(begin, at - MAX_LINE_CHARS) : at + size]))


def _last_words(text: str) -> list[tuple[int, str]]:
    """The last words of a text, numbered from its end."""
    return list(enumerate(reversed(WORD.findall(text[-20 * QUESTION_WORDS :])[-QUESTION_WORDS:])))


def _masked_question(text: str, stats: TaskStatistics) -> str:
    """The question at the end of a text: read backwards until some words in a row are rare in other samples'
    endings."""
    words: list[str] = []
    for place in _last_words(text):
        words.append(place[1] if stats.question_words[place] > WORDING_SHARE * stats.n_questions else "_")
        if words[-MAX_MASKED_RUN:] == ["_"] * MAX_MASKED_RUN:
            break
    while words and words[-1] == "_":
        words.pop()
    return " ".join(reversed(words))


def _frame(text: str, at: int, size: int) -> tuple[str, str]:
    return text[max(0, at - CHARS_BEFORE) : at], text[at + size : at + size + CHARS_AFTER]
