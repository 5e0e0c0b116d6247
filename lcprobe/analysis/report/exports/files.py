"""Files of a report beside its page: every table as CSV and LaTeX, and folders with the files of one report only."""

import csv
import io
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path

from lcprobe.analysis.report.blocks import Table
from lcprobe.analysis.report.exports.latex import latex_table
from lcprobe.analysis.report.exports.tables import PAGE, number_table
from lcprobe.analysis.report.tables import TableRows, safe, write_csv
from lcprobe.files import write_atomic

WRITTEN = (".csv", ".tex", ".png", ".svg", ".pdf", ".json")
"""Suffixes of what reports write."""
MAX_TYPESET = 200
"""Rows of a table that is written as LaTeX: no paper prints more, and a study of many models has 100,000."""


def write_tables(folder: Path, numbers: Mapping[str, TableRows], page: Mapping[str, Table]) -> list[Path]:
    """Write tables of numbers, and those of the page below PAGE, each as CSV and, up to MAX_TYPESET rows, as LaTeX;
    returns the files."""
    written: list[Path] = []
    for name, rows in numbers.items():
        if rows:
            write_csv(folder / f"{name}.csv", rows)
            written.append(folder / f"{name}.csv")
            if len(rows) <= MAX_TYPESET:
                label = f"{name.replace('_', '-')}-numbers"
                written.append(_typeset(folder / f"{name}.tex", number_table(name, rows), label))
    for name, table in page.items():
        path = folder / PAGE / f"{name}.csv"
        write_atomic(path, table_csv(table))
        written.append(path)
        if len(table.rows) <= MAX_TYPESET:
            written.append(_typeset(path.with_name(f"{name}.tex"), table, name))
    return written


def _typeset(path: Path, table: Table, label: str) -> Path:
    write_atomic(path, latex_table(table, label))
    return path


def table_csv(table: Table) -> str:
    """A table of texts as CSV."""
    table = table.in_csv or table
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows([safe(value) for value in row] for row in [table.columns, *table.rows])
    return text.getvalue()


def keep_only(folder: Path, written: Iterable[Path]) -> None:
    """Delete what earlier reports wrote below a folder, and folders that are empty then. What has another suffix than
    reports write, and what another process is writing, is left."""
    kept = {path.resolve() for path in written}
    for path in sorted(folder.rglob("*"), reverse=True):
        if path.is_dir() and not path.is_symlink():
            with suppress(OSError):  # not empty
                path.rmdir()
        elif path.suffix in WRITTEN and path.resolve() not in kept:
            path.unlink(missing_ok=True)
