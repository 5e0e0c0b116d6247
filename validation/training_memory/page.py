"""The tables of docs/explanation/costs.md that say how far estimates of memory are from what is measured, from the
results: `python -m validation.training_memory.page`."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from validation.training_memory.sizes import ARCHITECTURES

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "validation" / "results" / "memory-cpu.json"
PAGE = ROOT / "docs" / "explanation" / "costs.md"
BLOCK = re.compile(r"(<!-- python -m validation memory -->\n).*?(<!-- end of memory -->)", re.DOTALL)
HOW = {"computed": "1 process, computed", "without values": "1 process, without values"}
"""How a peak was found, in the table's words."""


def with_tables(page: str, results: dict[str, Any]) -> str:
    """The page with its tables made anew."""
    rows = results["rows"]
    of_architectures = [row for row in rows if row["model"] in ARCHITECTURES]
    of_mixers = [row for row in rows if row["model"] not in ARCHITECTURES]
    made = "\n".join([*table(of_architectures), "", *table_of_mixers(of_mixers)])
    return BLOCK.sub(lambda match: f"{match.group(1)}\n{made}\n\n{match.group(2)}", page)


def table(rows: list[dict[str, Any]]) -> Iterator[str]:
    """A line for each size and setting, with its models: estimated and measured, and the farthest of them."""
    names = list(dict.fromkeys(row["model"] for row in rows))
    yield f"| model | settings | how | estimated, measured MB: {'; '.join(names)} | farthest |"
    yield "|---|---|---|---|---|"
    for size, setting in dict.fromkeys((row["size"], row["setting"]) for row in rows):
        own = {row["model"]: row for row in rows if (row["size"], row["setting"]) == (size, setting)}
        both = {name: f"{row['estimated MB']:.0f}, {row['peak MB']:.0f}" for name, row in own.items()}
        cells = "; ".join(both.get(name, "") for name in names)
        first = next(iter(own.values()))
        farthest = max((row["off %"] for row in own.values()), key=abs)
        how = HOW.get(first["how"], first["how"])
        yield f"| {size} | {setting} | {how} | {cells} | {farthest:+.1f} % |"


def table_of_mixers(rows: list[dict[str, Any]]) -> Iterator[str]:
    """A line for each mixer, with its sizes and settings: estimated and measured, and the farthest of them."""
    columns = sorted({(row["size"], row["setting"]) for row in rows}, key=lambda one: (one[0] != "small", one[1]))
    yield f"| mixer | {' | '.join(f'{size}, {setting}'.rstrip(', ') for size, setting in columns)} | farthest |"
    yield "|---" * (len(columns) + 2) + "|"
    for name in dict.fromkeys(row["model"] for row in rows):
        own = [row for row in rows if row["model"] == name]
        both = {(row["size"], row["setting"]): f"{row['estimated MB']:.0f}, {row['peak MB']:.0f}" for row in own}
        cells = [both.get(column, "") for column in columns]
        farthest = max((row["off %"] for row in own), key=abs)
        yield f"| {name} | {' | '.join(cells)} | {farthest:+.1f} % |"


if __name__ == "__main__":
    text = with_tables(PAGE.read_text(encoding="utf-8"), json.loads(RESULTS.read_text(encoding="utf-8")))
    PAGE.write_text(text, encoding="utf-8")
    print(f"written: {PAGE.relative_to(ROOT)}")
