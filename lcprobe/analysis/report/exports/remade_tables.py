"""One table of a report again, with other rows and columns."""

from collections.abc import Sequence
from dataclasses import replace

from lcprobe.analysis.findings.results import Results
from lcprobe.analysis.report.answer.headline import headline_tables
from lcprobe.analysis.report.blocks import Table
from lcprobe.analysis.report.exports.choices import TableChoices
from lcprobe.analysis.report.exports.selection import selected
from lcprobe.analysis.report.exports.tables import BOUNDS, PAGE, TRAINED, number_table, page_tables, raw_table
from lcprobe.analysis.report.page.chapters import sections
from lcprobe.analysis.report.tables import all_tables
from lcprobe.errors import unknown_name


def table_list(results: Results, choices: TableChoices) -> dict[str, int]:
    """Rows of every table of a selection, by its name: `reach`, `page/effective-length`."""
    return {name: len(table.rows) for name, table in _tables(results, choices, True).items()}


def remade_table(results: Results, name: str, choices: TableChoices, typeset: bool) -> Table:
    """A table of a selection of the results, with the columns and the caption that are chosen. typeset: numbers short
    and bounds in one column; otherwise as in the CSV files. A column has the names of both: `interval` is `low` and
    `high` in a CSV file, and these are `interval` elsewhere. Raises ConfigError for an unknown table or column."""
    tables = _tables(results, choices, typeset)
    key = name if name in tables else f"{PAGE}/{name}"
    if key not in tables:
        raise unknown_name("table", name, tables)
    table = tables[key]
    if not typeset and table.in_csv is not None:
        table = table.in_csv
    if choices.columns:
        at = list(dict.fromkeys(i for name in choices.columns for i in _places(name, table.columns)))
        rows = [[row[i] for i in at] for row in table.rows]
        table = replace(table, columns=[table.columns[i] for i in at], rows=rows, in_csv=None)
    return table if choices.title is None else replace(table, title=choices.title, caption="")


def _places(name: str, columns: Sequence[str]) -> list[int]:
    """The places of what a column is called here: one, or those of two bounds."""
    if (at := _place(name, columns)) is not None:
        return [at]
    for low, high, both in BOUNDS:
        lows, whole = [_place(low, columns), _place(high, columns)], _place(both, columns)
        if _bare(name) == _bare(both) and None not in lows:
            return [i for i in lows if i is not None]
        if _bare(name) in (_bare(low), _bare(high)) and whole is not None:
            return [whole]
    raise unknown_name("columns", name, columns)


def _place(name: str, columns: Sequence[str]) -> int | None:
    """The place of a column, however its spaces, commas and marks are written."""
    if name in columns:
        return list(columns).index(name)
    return next((i for i, column in enumerate(columns) if _bare(column) == _bare(name)), None)


def _bare(text: str) -> str:
    return text.replace(TRAINED, "").replace("_", " ").replace(",", "").strip()


def _tables(results: Results, choices: TableChoices, typeset: bool) -> dict[str, Table]:
    kept = selected(results, choices.selection)
    made = number_table if typeset else raw_table
    numbers = {name: made(name, rows) for name, rows in all_tables(kept).items() if rows}
    chapters = sections(kept, [])
    page = page_tables([table for chapter in chapters for table in chapter.tables], headline_tables(kept))
    return numbers | {f"{PAGE}/{name}": table for name, table in page.items()}
