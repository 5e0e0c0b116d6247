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
from lcprobe.tasks.assembly import MAX_CANDIDATES
from lcprobe.tasks.tokenizer import Tokenizer

ITEMS = re.compile(r" and |, ")
"""What stands between the items of an answer that is a list."""
WORDS = re.compile(r"[\w-]+")
BEFORE, AFTER = 2, 1
"""Characters around a value that show where others stand."""


@dataclass(frozen=True)
class Found:
    """A value of the text: its first and its last place, in characters, and how often it stands there."""

    text: str
    first: int
    last: int
    count: int


@dataclass(frozen=True)
class Sight:
    """values: those that the text holds, in order of appearance. items: the same with lists taken apart. pool: everything
    that may be the answer, in no order. number: which question of the episode. key: a digest of the text and the number.
    """

    values: tuple[Found, ...]
    items: tuple[Found, ...]
    pool: tuple[str, ...]
    number: int
    key: str


@dataclass
class Lessons:
    """What other samples of the task teach, by the question's number: their answers, and the places of these among the values,
    counted from the front and from the back. items: how many an answer has. looks: patterns of answers.
    """

    answers: dict[int, Counter[str]] = field(default_factory=dict)
    from_front: dict[int, Counter[int]] = field(default_factory=dict)
    from_back: dict[int, Counter[int]] = field(default_factory=dict)
    items: int = 1
    looks: set[str] = field(default_factory=set)


def learned(items: Iterable[Item], tokenizer: Tokenizer) -> Lessons:
    """Lessons from questions whose answers are seen."""
    lessons = Lessons()
    taught = list(items)
    for item in taught:
        number, answer = _number(item), item.query.answer
        lessons.answers.setdefault(number, Counter())[answer] += 1
        lessons.looks.add(looks(answer))
        lessons.items = max(lessons.items, len(ITEMS.split(answer)))
    for item in taught:  # only now are looks known
        number, answer = _number(item), item.query.answer
        values = [value.text for value in seen(item, tokenizer, lessons).values]
        if answer in values:
            place = values.index(answer)
            lessons.from_front.setdefault(number, Counter())[place] += 1
            lessons.from_back.setdefault(number, Counter())[len(values) - 1 - place] += 1
    return lessons


def seen(item: Item, tokenizer: Tokenizer, lessons: Lessons, without_needle: bool = False) -> Sight:
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
    return Sight(tuple(ranked), tuple(sorted(parts.values(), key=lambda found: found.first)), tuple(pool), number, key)


def looks(text: str) -> str:
    """The pattern of a string: `9999` for a number of four digits, `x-x` for hex or words with a hyphen, `x` for the rest."""
    return "9" * len(text) if text.isdigit() else re.sub(r"[0-9A-Za-z]+", "x", text)


def _found(name: str, text: str) -> Found | None:
    """Where a value stands as words of its own; a list that does not stand in one piece is where its first item is."""
    places = _places(name, text)
    if not places and len(parts := ITEMS.split(name)) > 1:
        places = _places(parts[0], text)
    return Found(name, places[0], places[-1], len(places)) if places else None


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
    patterns = {looks(name) for name in values} or known
    places: dict[str, list[int]] = {}
    for match in WORDS.finditer(text):
        word, at = match.group(), match.start()
        if looks(word) in patterns and (not frames or _frame(text, at, len(word)) in frames):
            places.setdefault(word, []).append(at)
    return {word: Found(word, at[0], at[-1], len(at)) for word, at in places.items()}


def _frame(text: str, at: int, size: int) -> tuple[str, str]:
    return text[max(0, at - BEFORE) : at], text[at + size : at + size + AFTER]


def _number(item: Item) -> int:
    return next(i for i, query in enumerate(item.episode.queries) if query is item.query)
