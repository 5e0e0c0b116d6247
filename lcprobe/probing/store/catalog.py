"""_catalog.jsonl: the summaries of the units in a folder, so that a query, and a process that begins, opens the files
that it needs and no others.

A cache, and nothing more: what it lacks is looked up in the files and added, a line that is damaged is lacking, and a
line of a unit that is gone counts for nothing. Two processes that add at once do no harm.
"""

import os
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

from lcprobe.probing.store.journal import checked_line, checked_value
from lcprobe.probing.store.summary import Summary, summary_from_json, summary_to_json

CATALOG = "_catalog.jsonl"
"""Readers of a folder of Parquet files pass over names that begin so."""


def add_summaries(folder: Path, summaries: dict[str, Summary]) -> None:
    """Add units to the catalog, in one write. A folder that cannot be written stays without."""
    lines = b"".join(checked_line([unit, summary_to_json(s)]) for unit, s in summaries.items())
    with suppress(OSError):
        handle = os.open(folder / CATALOG, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            os.write(handle, lines)
        finally:
            os.close(handle)


def catalogued(folder: Path, units: Iterable[str], look: Callable[[str], Summary | None]) -> dict[str, Summary]:
    """The summaries of some units. look: into a unit's file, for what the catalog lacks; None where it cannot be
    read, and such a unit is left out."""
    known: dict[str, Summary] = {}
    with suppress(OSError):
        for line in (folder / CATALOG).read_bytes().splitlines(keepends=True):
            with suppress(ValueError, TypeError):
                unit, summary = checked_value(line)  # type: ignore[misc]
                known[unit] = summary_from_json(summary)
    found, new = dict[str, Summary](), dict[str, Summary]()
    for unit in units:
        summary = known.get(unit)
        if summary is None:
            summary = look(unit)
            if summary is None:
                continue
            new[unit] = summary
        found[unit] = summary
    if new:
        add_summaries(folder, new)
    return found
