"""The blocks that the report's page is made of: tables and sections of plain strings, which the template escapes."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

LONG = 44
NUMBER = re.compile(r"([^A-Za-z]|n/a|\bto\b|(?<=\d)e(?=[-+\d]))*")
OPEN_ROWS = 40
"""Tables with more rows start folded."""


@dataclass(frozen=True)
class Table:
    """Rows of text."""

    title: str
    caption: str
    columns: Sequence[str]
    rows: list[list[str]]

    @property
    def kinds(self) -> list[str]:
        """A CSS class a column: numbers stand right, words left, long words in lines of their own."""
        return [_kind([row[i] for row in self.rows]) for i in range(len(self.columns))]

    @property
    def folded(self) -> bool:
        """Whether it starts closed."""
        return len(self.rows) > OPEN_ROWS


@dataclass(frozen=True)
class Section:
    """One chapter: paragraphs, figures that are seen at once, figures behind a fold, tables, preformatted text."""

    id: str
    title: str
    text: Sequence[str] = ()
    figures: Sequence[Any] = ()
    folded: Sequence[tuple[str, Sequence[Any]]] = ()
    tables: Sequence[Table] = ()
    blocks: Sequence[tuple[str, str]] = field(default=())


def _kind(values: list[str]) -> str:
    if max(map(len, values), default=0) > LONG:
        return "long"
    return "number" if all(NUMBER.fullmatch(value) for value in values) else "word"
