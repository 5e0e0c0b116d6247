"""Counts with their nouns, and lists."""

from collections.abc import Iterable, Sequence

PLURALS = {
    "is": "are",
    "has": "have",
    "study": "studies",
    "process": "processes",
    "this": "these",
    "finding": "findings",
}
"""Plurals that are not the word and an s."""


def plural(word: str, n: int) -> str:
    """The word for n of something: `run` or `runs`; of several words the last one."""
    if n == 1:
        return word
    before, space, last = word.rpartition(" ")
    return before + space + PLURALS.get(last, last + "s")


def span(values: Iterable[int]) -> str:
    """`256`, or `256 to 1,024` of several."""
    low, high = min(values := [*values]), max(values)
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def counted(n: int, noun: str) -> str:
    """`1 run`, `3 runs`, `12,000 training tokens`."""
    return f"{n:,} {plural(noun, n)}"


def and_list(names: Sequence[str], most: int | None = None) -> str:
    """`a, b and c`; of more names than `most` only so many: `a, b and 7 more`."""
    if most is not None and len(names) > most:
        names = [*names[:most], f"{len(names) - most:,} more"]
    return " and ".join(part for part in (", ".join(names[:-1]), *names[-1:]) if part)
