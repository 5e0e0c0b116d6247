"""Counts with their nouns."""

PLURALS = {"is": "are", "has": "have", "study": "studies", "this": "these", "finding": "findings"}
"""Plurals that are not the word and an s."""


def plural(word: str, n: int) -> str:
    """The word for n of something: `run` or `runs`; of several words the last one."""
    if n == 1:
        return word
    before, space, last = word.rpartition(" ")
    return before + space + PLURALS.get(last, last + "s")


def counted(n: int, noun: str) -> str:
    """`1 run`, `3 runs`, `12,000 training tokens`."""
    return f"{n:,} {plural(noun, n)}"
