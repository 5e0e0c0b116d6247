"""What a policy that never looks up what is asked may see of a question: the values in the text, in order, and no more.

Which strings are values is given: the candidates of the question, as a set, in an order that a digest of the text decides.
Where a question has more values than a record keeps candidates, or none but the answer, values are known by their looks: the
characters around them, and the pattern of letters and digits.
"""

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from lcprobe.files import digest_bytes
from lcprobe.probing.scoring import Item
from lcprobe.seeds import Stream
from lcprobe.tasks.episode import MAX_CANDIDATES
from lcprobe.tasks.text.tokenizer import Tokenizer

ITEMS = re.compile(r" and |, ")
"""What stands between the items of an answer that is a list."""
WORDS = re.compile(r"[\w-]+")
ENDS, LINE = (".", ";", "?", "\n"), 120
"""What ends a line, and the most characters of one before its value."""
KNOWN = 0.08
"""Words that a smaller share of questions have at that place are what is asked for, or text before it, and not wording."""
ASKED, NAME = 24, 3
"""Words of a question looked at, and words of text in a row that end it: a name has fewer."""
BEFORE, AFTER = 2, 1
"""Characters around a value that show where others stand."""


@dataclass(frozen=True)
class Found:
    """A value of the text and the characters at which it stands. line: the words of the sentence or line it first stands in."""

    text: str
    places: tuple[int, ...]
    line: tuple[str, ...] = ()

    @property
    def first(self) -> int:
        """Its first place."""
        return self.places[0]

    @property
    def last(self) -> int:
        """Its last place."""
        return self.places[-1]

    @property
    def count(self) -> int:
        """How often it stands there."""
        return len(self.places)


@dataclass(frozen=True)
class Observation:
    """values: those that the text holds, in order of appearance. items: the same with lists taken apart. pool: everything
    that may be the answer, in no order. number: which question of the episode. key: a digest of the text and the number.
    question: its wording, without the words that few other samples have in theirs: what is asked for is masked.
    """

    values: tuple[Found, ...]
    items: tuple[Found, ...]
    pool: tuple[str, ...]
    number: int
    key: str
    question: str = ""


@dataclass
class TaskStatistics:
    """What other samples of the task teach, by the question's number: their answers, and the places of these among the values,
    counted from the front and from the back. items: how many an answer has. looks: patterns of answers. words: in how many other
    contexts each word stands; asked: in how many other questions it stands at that place from their end, n_asked: of how many. By
    number and masked question: places and answers.
    """

    answers: dict[int, Counter[str]] = field(default_factory=dict)
    from_front: dict[int, Counter[int]] = field(default_factory=dict)
    from_back: dict[int, Counter[int]] = field(default_factory=dict)
    items: int = 1
    looks: set[str] = field(default_factory=set)
    words: Counter[str] = field(default_factory=Counter)
    asked: Counter[tuple[int, str]] = field(default_factory=Counter)
    n_asked: int = 0
    places_by_question: dict[tuple[int, str], Counter[int]] = field(default_factory=dict)
    answers_by_question: dict[tuple[int, str], Counter[str]] = field(default_factory=dict)


def collect_statistics(items: Iterable[Item], tokenizer: Tokenizer) -> TaskStatistics:
    """Lessons from questions whose answers are seen."""
    lessons = TaskStatistics()
    taught = list(items)
    for item in taught:
        number, answer = _number(item), item.query.answer
        lessons.answers.setdefault(number, Counter())[answer] += 1
        lessons.looks.add(look_alike(answer))
        lessons.items = max(lessons.items, len(ITEMS.split(answer)))
        lessons.asked.update(_ending(tokenizer.decode(item.prompt)))
        lessons.n_asked += 1
        if number == 0:
            lessons.words.update(set(WORDS.findall(tokenizer.decode(item.prompt))))
    for item in taught:  # only now are looks and masks known
        number, answer = _number(item), item.query.answer
        sight = observe(item, tokenizer, lessons)
        values, asked = [value.text for value in sight.values], (number, sight.question)
        lessons.answers_by_question.setdefault(asked, Counter())[answer] += 1
        if answer in values:
            place = values.index(answer)
            lessons.from_front.setdefault(number, Counter())[place] += 1
            lessons.places_by_question.setdefault(asked, Counter())[place] += 1
            lessons.from_back.setdefault(number, Counter())[len(values) - 1 - place] += 1
    return lessons


def observe(item: Item, tokenizer: Tokenizer, lessons: TaskStatistics, without_needle: bool = False) -> Observation:
    """The sight of one question. without_needle: the asked needle is cut out of the text."""
    ids, number = item.prompt, _number(item)
    key = f"{digest_bytes(ids.astype('<i4').tobytes())}/{number}"
    cut = without_needle and item.query.needle is not None
    if cut:
        at = item.query.needle
        assert at is not None
        lo, hi = next(((a, b) for a, b in item.episode.needles if a <= at < b), (at, at + len(item.answer)))
        ids = np.concatenate([ids[:lo], ids[hi:]])
    text = tokenizer.decode(ids)
    names = list(dict.fromkeys(tokenizer.decode(c).strip() for c in item.query.candidates))
    if len(names) == 1 and item.query.chance < 1:
        names = []  # to be told the only candidate is to be told the answer
    else:
        names = [names[i] for i in Stream("cheating", key).permutation(len(names))]
    values = {name: found for name in names if (found := _found(name, text))}
    partial = not names or len(item.query.candidates) == MAX_CANDIDATES
    if partial:
        values |= _alike(text, values, lessons.looks)
    if partial or cut:
        names = list(values)  # candidates always hold the answer: only the text says what there is
    parts = {part: found for name in values for part in ITEMS.split(name) if (found := _found(part, text))}
    ranked = sorted(values.values(), key=lambda found: found.first)
    pool = names or list(lessons.answers.get(number, ()))
    in_order = tuple(sorted(parts.values(), key=lambda found: found.first))
    return Observation(tuple(ranked), in_order, tuple(pool), number, key, _masked(text, lessons))


def look_alike(text: str) -> str:
    """The pattern of a string: `9999` for a number of four digits, `x-x` for hex or words with a hyphen, `x` for the rest."""
    return "9" * len(text) if text.isdigit() else re.sub(r"[0-9A-Za-z]+", "x", text)


def _found(name: str, text: str) -> Found | None:
    """Where a value stands as words of its own; a list that does not stand in one piece is where its first item is."""
    places = _places(name, text)
    if not places and len(parts := ITEMS.split(name)) > 1:
        places = _places(parts[0], text)
    return Found(name, tuple(places), _line(text, places[0], len(name))) if places else None


def _places(name: str, text: str) -> list[int]:
    found, at = [], text.find(name) if name else -1
    while at >= 0:
        end = at + len(name)
        if not _inside(text, at - 1) and not _inside(text, end):
            found.append(at)
        at = text.find(name, end)
    return found


def _inside(text: str, at: int) -> bool:
    return 0 <= at < len(text) and (text[at].isalnum() or text[at] in "-_")


def _alike(text: str, values: dict[str, Found], known: set[str]) -> dict[str, Found]:
    """Words that look like values and, where some values are known, stand between the same characters."""
    frames = {_frame(text, v.first, len(v.text)) for v in values.values()}
    patterns = {look_alike(name) for name in values} or known
    places: dict[str, list[int]] = {}
    for match in WORDS.finditer(text):
        word, at = match.group(), match.start()
        if look_alike(word) in patterns and (not frames or _frame(text, at, len(word)) in frames):
            places.setdefault(word, []).append(at)
    return {word: Found(word, tuple(at), _line(text, at[0], len(word))) for word, at in places.items()}


def _line(text: str, at: int, size: int) -> tuple[str, ...]:
    """The words from the last end of a sentence, line or entry before a value up to its own end."""
    begin = max(text.rfind(end, max(0, at - LINE), at) for end in ENDS) + 1
    return tuple(WORDS.findall(text[max(begin, at - LINE) : at + size]))


def _ending(text: str) -> list[tuple[int, str]]:
    """The last words of a text, numbered from its end."""
    return list(enumerate(reversed(WORDS.findall(text[-20 * ASKED :])[-ASKED:])))


def _masked(text: str, lessons: TaskStatistics) -> str:
    """The question that a text ends with: back from its end until some words in a row are in few other samples' endings."""
    words: list[str] = []
    for place in _ending(text):
        words.append(place[1] if lessons.asked[place] > KNOWN * lessons.n_asked else "_")
        if words[-NAME:] == ["_"] * NAME:
            break
    while words and words[-1] == "_":
        words.pop()
    return " ".join(reversed(words))


def _frame(text: str, at: int, size: int) -> tuple[str, str]:
    return text[max(0, at - BEFORE) : at], text[at + size : at + size + AFTER]


def _number(item: Item) -> int:
    return next(i for i, query in enumerate(item.episode.queries) if query is item.query)
