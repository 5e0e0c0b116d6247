"""Tables as lines of text, within a width where there is one.

A table that is too wide wraps its headers at words, then folds its key columns a little, then gives what is equal in
all rows in one line and comes in several parts, each with the key columns; only then are other cells folded. Nothing
is left out.
"""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

from rich.cells import cell_len

GAP = "  "
"""Between columns."""
LEAST = 8
"""Characters that a folded column keeps."""
LEAST_KEY = 16
"""Characters that key columns keep before a table comes in parts."""


@dataclass(frozen=True)
class Column:
    """A column of a table. number: set right."""

    title: str
    cells: Sequence[str]
    number: bool = False

    @property
    def natural(self) -> int:
        """Width with the title on one line."""
        return max(cell_len(self.title), self.content)

    @property
    def content(self) -> int:
        """Width of the longest cell."""
        return max((cell_len(cell) for cell in self.cells), default=0)

    @property
    def narrow(self) -> int:
        """Width with the title wrapped at words."""
        return max(self.content, *(cell_len(word) for word in self.title.split()), 1)


def table_lines(columns: Sequence[Column], width: int | None = None, keys: int = 1) -> list[str]:
    """The lines of a table of at most `width` characters; None: as wide as it is. keys: first columns that every part
    repeats."""
    if width is None or _total([column.natural for column in columns]) <= width:
        return render(columns, [column.natural for column in columns])
    if _total([column.narrow for column in columns]) <= width:
        return render(columns, [column.narrow for column in columns])
    narrow = [column.narrow for column in columns]
    rest = _total(narrow[keys:]) + len(GAP)
    if width - rest >= LEAST_KEY * keys and len(columns) > keys:
        return render(columns, [*_folded(narrow[:keys], width - rest), *narrow[keys:]])
    columns, same = _without_equal(columns, keys)
    lines = [] if not same else _wrapped(f"in every row: {', '.join(same)}", width)
    heads = list(columns[:keys])
    widths = _folded([column.narrow for column in heads], width // 2)
    parts: list[list[Column]] = [[]]
    for column in columns[keys:]:
        if parts[-1] and _total([*widths, *(c.narrow for c in [*parts[-1], column])]) > width:
            parts.append([])
        parts[-1].append(column)
    for part in parts:
        room = width - _total(widths) - len(GAP)
        own = _folded([column.narrow for column in part], room)
        lines += [*([""] if lines else []), *render([*heads, *part], [*widths, *own])]
    return lines


def _without_equal(columns: Sequence[Column], keys: int) -> tuple[list[Column], list[str]]:
    """The columns that differ between rows, and the others in words. Of one row, all differ."""
    if len(columns[0].cells) < 2:
        return list(columns), []
    equal = [column for i, column in enumerate(columns) if i >= keys and len(set(column.cells)) == 1]
    same = [f"{column.title} {column.cells[0]}".strip() for column in equal if column.cells[0]]
    return [column for column in columns if column not in equal], same


def _folded(widths: list[int], width: int) -> list[int]:
    """Widths within a total, the widest columns narrowed first."""
    widths = list(widths)
    while widths and _total(widths) > width and max(widths) > LEAST:
        widths[widths.index(max(widths))] -= 1
    return widths


def _total(widths: Sequence[int]) -> int:
    return sum(widths) + len(GAP) * max(0, len(widths) - 1)


def render(columns: Sequence[Column], widths: Sequence[int]) -> list[str]:
    """The lines of a table whose columns have these widths: longer cells and titles are folded."""
    titles = [_fold(column.title, width) for column, width in zip(columns, widths, strict=True)]
    height = max(map(len, titles))
    titles = [[""] * (height - len(title)) + title for title in titles]  # headers stand on the rule
    lines = _beside(titles, columns, widths)
    lines.append(GAP.join("─" * width for width in widths))
    for i in range(len(columns[0].cells)):
        cells = [_fold(column.cells[i], width) for column, width in zip(columns, widths, strict=True)]
        lines += _beside(cells, columns, widths)
    return lines


def _beside(cells: Sequence[list[str]], columns: Sequence[Column], widths: Sequence[int]) -> list[str]:
    """Folded cells as the lines of one row."""
    lines = []
    for i in range(max(map(len, cells))):
        texts = [cell[i] if i < len(cell) else "" for cell in cells]
        pads = [" " * (width - cell_len(text)) for text, width in zip(texts, widths, strict=True)]
        parts = [
            pad + text if column.number else text + pad
            for text, pad, column in zip(texts, pads, columns, strict=True)
        ]
        lines.append(GAP.join(parts).rstrip())
    return lines


def _fold(text: str, width: int) -> list[str]:
    """A cell as lines of at most `width` characters; its own line breaks are kept."""
    lines: list[str] = []
    for line in text.split("\n"):
        lines += [line] if cell_len(line) <= width else textwrap.wrap(line, width, break_on_hyphens=True) or [""]
    return lines


def _wrapped(text: str, width: int) -> list[str]:
    return textwrap.wrap(text, width, subsequent_indent="  ", break_on_hyphens=False)
