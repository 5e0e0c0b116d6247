"""What commands print: the one place that knows whether a terminal reads it.

On a terminal, lines are wrapped at words and tables fit its width. In pipes and files nothing is ever wrapped: one
statement is one line, for grep, logs and mail.
"""

import re
import sys
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TextIO

from lcprobe.analysis.report.blocks import value_text
from lcprobe.errors import shorten
from lcprobe.studies.text_table import Column, table_lines
from lcprobe.words import counted, width_of

QUANTITY = re.compile(r"(> ?)?[-+−]?[\d,]*\.?\d+( ?(%|[A-Za-z]{1,4}))?[!*+-]?")
"""A cell that is set right: a number, perhaps with a unit and a mark."""
LONGEST_NOTE = 150
"""Characters of a note that is folded with others of its kind."""

NO_CONTROLS = {**dict.fromkeys((*range(32), *range(127, 160))), ord("\n"): " ", ord("\t"): " "}
"""What a terminal would obey instead of showing it."""


def say(*lines: str, indent: int = 0, to_stderr: bool = False) -> None:
    """Print statements, each on a line of its own; on a terminal wrapped at words, with what follows set in. A word
    that is longer than the terminal is wide, such as a path, stays whole, so that it can be copied."""
    stream = sys.stderr if to_stderr else sys.stdout
    width = width_of(stream)
    for line in lines:
        text = " " * indent + line
        _write([text] if width is None else (_wrapped(text, width, indent) or [""]), stream)


def say_lines(lines: Iterable[str]) -> None:
    """Print lines that fit the terminal already, such as a table's."""
    _write(lines, sys.stdout)


def print_rows(rows: list[dict[str, Any]], title: str, keys: int = 1) -> None:
    """Print rows with equal keys as a table. keys: first columns, which a table in several parts repeats."""
    columns = [
        Column(
            name,
            [value_text(row[name], digits=4) for row in rows],
            number=all(isinstance(row[name], int | float) or _is_quantity(row[name]) for row in rows),
        )
        for name in rows[0]
    ]
    say("", title)
    _write(table_lines(columns, width_of(sys.stdout), keys), sys.stdout)


def note_lines(notes: Mapping[str, Sequence[str]], everything: str, full: bool = False) -> list[str]:
    """Notes by what they are about, folded: the first of each kind and how many more there are; full: all of them,
    one a line. everything: what has the rest."""
    lines = []
    for about, given in notes.items():
        own = list(dict.fromkeys(given))
        if full:
            lines += [f"{about}: {note}" for note in own]
        elif own:
            more = f" (and {len(own) - 1} more: {everything})" if len(own) > 1 else ""
            lines.append(f"{counted(len(own), 'note')} on {about}: {shorten(own[0], LONGEST_NOTE)}{more}")
    return lines


def _write(lines: Iterable[str], stream: TextIO) -> None:
    """Lines as they are, without control characters: names come from configs and files."""
    text = "".join(line.translate(NO_CONTROLS) + "\n" for line in lines)
    try:
        text.encode(stream.encoding or "utf-8")
    except UnicodeEncodeError:
        text = text.replace("─", "-")
    stream.write(text)
    stream.flush()


def _is_quantity(value: object) -> bool:
    return value in ("", None) or bool(isinstance(value, str) and QUANTITY.fullmatch(value))


def _wrapped(text: str, width: int, indent: int) -> list[str]:
    return textwrap.wrap(
        text, width, subsequent_indent=" " * (indent + 2), break_long_words=False, break_on_hyphens=False
    )
