"""The tables of a report by the names of their files, as texts: those of the page, and those of numbers."""

import re
from collections.abc import Mapping, Sequence

from lcprobe.analysis.findings.cells import Unavailable
from lcprobe.analysis.report.answer.headline import HeadlineTable, Score
from lcprobe.analysis.report.blocks import Table, decimal_text, value_text
from lcprobe.analysis.stats.estimates import Proportion

PAGE = "page"
"""Folder of the page's tables, in that of the tables of numbers."""
TRAINED = " †"
"""Behind the training length of a headline table."""
DIGITS = 4
"""Significant digits of a number in a typeset table; its CSV has all."""
BOUNDS = (("low", "high", "interval"), ("skill_low", "skill_high", "interval of skill"),
          ("ratio_low", "ratio_high", "interval of ratio"), ("first_low", "first_high", "first interval"),
          ("second_low", "second_high", "second interval"), ("seeds_low", "seeds_high", "over seeds"),
          ("half_life_low", "half_life_high", "half-life interval"))  # fmt: skip
"""Columns with the bounds of one interval, and the column that has both."""


def page_tables(tables: Sequence[Table], headline: Sequence[HeadlineTable]) -> dict[str, Table]:
    """Tables of the page by the name of their file, `effective-length`."""
    named: dict[str, Table] = {}
    for table in [*map(headline_table, headline), *tables]:
        if table.rows:
            name = re.sub(r"[^a-z0-9]+", "-", table.title.lower()).strip("-") or "table"
            again = sum(known == name or known.startswith(f"{name}.") for known in named)
            named[f"{name}.{again + 1}" if again else name] = table
    return named


def headline_table(given: HeadlineTable) -> Table:
    """Models by lengths, each score with its interval; † is the training length. Its CSV has a row per score."""
    lengths = [f"{n:,}{TRAINED if n == given.context_length else ''}" for n in given.lengths]
    rows = [
        [row.model, f"{row.context_length:,}", str(row.seeds), *map(_score, row.scores), row.effective, row.reach]
        for row in given.rows
    ]
    chance = "" if given.chance is None else f" Chance {decimal_text(given.chance)}."
    caption = f"By length in tokens, {given.format}, over all depths, with 95 % intervals.{chance}"
    caption += " †: training length." if given.context_length is not None else ""
    caption += " Effective reach with ≥: its lower bound, beyond the longest distance tested."
    columns = ["model", "trained at", "seeds", *lengths, "effective length", "effective reach"]
    title = f"Exact match on {given.task}"
    return Table(title, caption, columns, rows, in_csv=raw_table(title, _score_rows(given)))


def _score_rows(given: HeadlineTable) -> list[dict[str, object]]:
    """A row per model and length; what is not available is empty."""
    rows: list[dict[str, object]] = []
    empty: dict[str, object] = {name: None for name in ("value", "low", "high", "k", "n")}  # noqa: C420
    for row in given.rows:
        for score in row.scores:
            e = score.estimate if isinstance(score.estimate, Proportion) else None
            place: dict[str, object] = {"model": row.model, "task": given.task, "format": given.format}
            rows.append(
                place
                | {"seeds": row.seeds}
                | {"training_length": row.context_length, "length": score.length}
                | (empty if e is None else {"value": e.value, "low": e.low, "high": e.high, "k": e.k, "n": e.n})
                | {"effective_length": row.effective, "effective_reach": row.reach}
            )
    return rows


def number_table(name: str, rows: Sequence[Mapping[str, object]]) -> Table:
    """Rows of a CSV file as a table of texts: bounds together, numbers with DIGITS digits."""
    columns = list(dict.fromkeys(column for row in rows for column in row))
    shown: list[tuple[str, list[str]]] = []
    highs = {high: (low, title) for low, high, title in BOUNDS if low in columns and high in columns}
    lows = {low for low, _ in highs.values()}
    for column in columns:
        if column in highs:
            low, title = highs[column]
            shown.append((title, [_interval(row.get(low), row.get(column)) for row in rows]))
        elif column not in lows:
            shown.append((column.replace("_", " "), [value_text(row.get(column), DIGITS) for row in rows]))
    texts = [[values[i] for _, values in shown] for i in range(len(rows))]
    return Table(name.replace("_", " ").capitalize(), "", [title for title, _ in shown], texts)


def raw_table(name: str, rows: Sequence[Mapping[str, object]]) -> Table:
    """Rows of a CSV file as they are."""
    columns = list(dict.fromkeys(column for row in rows for column in row))
    values = [["" if row.get(column) is None else str(row[column]) for column in columns] for row in rows]
    return Table(name, "", columns, values)


def _score(score: Score) -> str:
    if isinstance(score.estimate, Proportion):
        e = score.estimate
        return f"{e.value:.2f} ({e.low:.2f}–{e.high:.2f})"
    return "n/a" if isinstance(score.estimate, Unavailable) else ""


def _interval(low: object, high: object) -> str:
    return "" if low is None and high is None else f"{value_text(low, DIGITS)} to {value_text(high, DIGITS)}"
