"""Tables and sections of the report's page as plain strings, which the template escapes; and values as text."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from lcprobe.analysis.findings.cells import PanelKey
from lcprobe.analysis.report.charts.picture import Picture
from lcprobe.words import counted

LONG_TEXT = 44
"""Characters from which a column is set in several lines."""
NUMBER = re.compile(r"([^A-Za-z]|n/a|\bto\b|(?<=\d)e(?=[-+\d]))*")
OPEN_ROWS = 40
"""Tables with more rows are folded at first."""


@dataclass(frozen=True)
class Table:
    """A table of strings. file: the CSV with the same numbers in full, where there is one. in_csv: what its own CSV
    has in place of it, a value in each column."""

    title: str
    caption: str
    columns: Sequence[str]
    rows: list[list[str]]
    file: str = ""
    in_csv: "Table | None" = None

    @property
    def id(self) -> str:
        """Its anchor on the page."""
        return "table-" + re.sub(r"[^a-z0-9]+", "-", self.title.lower()).strip("-")

    @property
    def kinds(self) -> list[str]:
        """CSS class of each column: numbers are set right, words left, long texts in several lines."""
        return [_kind([row[i] for row in self.rows]) for i in range(len(self.columns))]

    @property
    def folded(self) -> bool:
        """Whether the table is folded at first."""
        return len(self.rows) > OPEN_ROWS


@dataclass(frozen=True)
class InlinedFigure:
    """A figure of the page. svg: its picture, with ids of its own and in the page's text colour. spec: the Vega-Lite
    specification that makes it interactive, as JSON that is safe inside <script>. Both are markup: not escaped."""

    picture: Picture
    svg: str
    spec: str


@dataclass(frozen=True)
class Section:
    """One chapter: paragraphs, open figures, folded galleries of figures, tables, and folded preformatted text.

    shown: figures of the chapter that are among the pictures. left_out: notes on what the page has no room for.
    """

    id: str
    title: str
    text: Sequence[str] = ()
    figures: Sequence[InlinedFigure] = ()
    folded: Sequence[tuple[str, Sequence[InlinedFigure]]] = ()
    tables: Sequence[Table] = ()
    blocks: Sequence[tuple[str, str]] = ()
    shown: Sequence[InlinedFigure] = ()
    left_out: Sequence[str] = ()

    @property
    def contents(self) -> str:
        """`3 figures, 2 tables`."""
        n_figures = len(self.figures) + len(self.shown) + sum(len(own) for _, own in self.folded)
        counts = [counted(n, noun) for n, noun in ((n_figures, "figure"), (len(self.tables), "table")) if n]
        return ", ".join(counts)


def panel_columns(where: PanelKey) -> tuple[str, str, str]:
    """Model, task and format."""
    return where.model, where.task, str(where.format)


def decimal_text(value: float | None) -> str:
    """Two decimals; empty for None."""
    return "" if value is None else f"{value:.2f}"


def value_text(value: object, digits: int = 6) -> str:
    """A value of a table: whole numbers with separators, others with so many significant digits, empty for None."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.{digits}g}" if isinstance(value, float) else str(value)


def _kind(values: list[str]) -> str:
    if max(map(len, values), default=0) > LONG_TEXT:
        return "long"
    return "number" if all(NUMBER.fullmatch(value) for value in values) else "word"
