"""Tables of numbers inside the page, to be saved from it without the folder that it was written to."""

import base64
import gzip
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

BUDGET = 600_000
"""Most bytes of all of them on the page."""


@dataclass(frozen=True)
class Download:
    """A table of numbers. file: its name; bytes: its size; saved_as: the name that a browser saves it under, with
    `.gz` where it is compressed; link: a data address, empty where the page has no room for it."""

    file: str
    bytes: int
    saved_as: str = ""
    link: str = ""


def downloads(written: Sequence[Path], budget: int = BUDGET) -> list[Download]:
    """Files as addresses, the smallest first: as they are, or compressed where they are too large for what is left of
    the budget; too large even then, they are named alone. The result is in the order of `written`."""
    made: dict[Path, Download] = {}
    for path in sorted(written, key=lambda p: (p.stat().st_size, p.name)):
        content = path.read_bytes()
        made[path] = Download(path.name, len(content))
        for saved_as, kind, data in (
            (path.name, "text/csv", content),
            (f"{path.name}.gz", "application/gzip", gzip.compress(content, mtime=0)),
        ):
            link = f"data:{kind};base64,{base64.b64encode(data).decode()}"
            if len(link) <= budget:
                made[path] = Download(path.name, len(content), saved_as, link)
                budget -= len(link)
                break
    return [made[path] for path in written]
