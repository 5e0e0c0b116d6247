"""What studies print on the terminal."""

from typing import Any

from rich.console import Console
from rich.table import Table

from lcprobe.analysis.report.blocks import value_text


def terminal(quiet: bool = False, width: int | None = None) -> Console:
    """A console that prints text as it is: layouts such as [mamba2 x 3, attention] are no markup."""
    return Console(quiet=quiet, width=width, markup=False)


def print_rows(rows: list[dict[str, Any]], title: str) -> None:
    """Print rows with equal keys as a table."""
    table = Table(title=title, title_justify="left")
    for name in rows[0]:
        table.add_column(name, justify="right" if isinstance(rows[0][name], int | float) else "left", overflow="fold")
    for row in rows:
        table.add_row(*(value_text(value, digits=4) for value in row.values()))
    terminal(width=None if terminal().is_terminal else 200).print(table)
