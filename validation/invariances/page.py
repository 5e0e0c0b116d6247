"""The tables of docs/explanation/invariances.md, from the results: `python -m validation.invariances.page`."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from validation.invariances import NOT_OFFERED, OURS, REFUSES, WRONG_SHAPE, is_right
from validation.invariances.checks import COLUMNS

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "validation" / "results" / "invariances-cpu.json"
PAGE = ROOT / "docs" / "explanation" / "invariances.md"
BLOCK = re.compile(r"(<!-- begin (\w+) -->\n).*?(<!-- end \2 -->)", re.DOTALL)


def with_tables(page: str, results: dict[str, Any]) -> str:
    """The page with its blocks (`<!-- begin NAME -->` to `<!-- end NAME -->`) made anew."""
    blocks = {
        "ours": lambda: _our_table(results["rows"]),
        "peers": lambda: _peer_table(results["rows"]),
        "refusals": lambda: _refusals(results["rows"]),
        "counts": lambda: (f"- {note}" for note in results["notes"]),
    }
    made = lambda match: "".join(  # noqa: E731
        [match.group(1), *(line + "\n" for line in blocks[match.group(2)]()), match.group(3)]
    )
    return BLOCK.sub(made, page)


def _our_table(rows: list[dict[str, Any]]) -> Iterator[str]:
    yield from _header("model", "dtype")
    ours = (row for row in rows if row["whose"] == OURS)
    for row in sorted(ours, key=lambda row: row["model"].startswith("configs/")):  # mixers first
        yield _line(row, row["dtype"])


def _peer_table(rows: list[dict[str, Any]]) -> Iterator[str]:
    yield from _header("class", "call")
    for row in rows:
        if row["whose"] != OURS:
            yield _line(row, row["call"])


def _header(*first: str) -> Iterator[str]:
    columns = [*first, *COLUMNS, "right"]
    yield f"| {' | '.join(columns)} |"
    yield "|---" * len(columns) + "|"


def _line(row: dict[str, Any], second: str) -> str:
    cells = [_cell(row[column], row["dtype"]) for column in COLUMNS]
    return f"| {' | '.join(['`' + row['model'] + '`', second, *cells, row['right']])} |"


def _cell(cell: float | str, dtype: str) -> str:
    if not isinstance(cell, str):
        return f"{cell:.0e}" if is_right(cell, dtype) else f"**{cell:.2g}**"
    if cell.startswith(WRONG_SHAPE):
        return "**wrong shape**"
    return cell if cell == NOT_OFFERED else cell.removeprefix(REFUSES).partition(":")[0]


def _refusals(rows: list[dict[str, Any]]) -> Iterator[str]:
    """What is said, once for each class, column and message."""
    told: dict[str, dict[str, None]] = {}
    for row in rows:
        for column in COLUMNS:
            cell = row[column]
            if isinstance(cell, str) and cell != NOT_OFFERED:
                told.setdefault(cell.removeprefix(REFUSES), {})[f"{row['model']}, {column}"] = None
    for message, where in told.items():
        yield f"- `{message.replace('`', '')}`: {'; '.join(where)}"


if __name__ == "__main__":
    text = with_tables(PAGE.read_text(encoding="utf-8"), json.loads(RESULTS.read_text(encoding="utf-8")))
    PAGE.write_text(text, encoding="utf-8")
    print(f"written: {PAGE.relative_to(ROOT)}")
