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
    """Files as addresses, in the order of `written`: the first have room first, compressed if that is smaller. What
    is left of the budget makes files that need no unpacking, the smallest first. Too large even compressed, a file is
    named alone."""
    made: list[Download] = []
    for path in written:
        content = path.read_bytes()
        forms = [
            _link(path.name, len(content), "text/csv", content),
            _link(f"{path.name}.gz", len(content), "application/gzip", gzip.compress(content, mtime=0), path.name),
        ]
        small = min(forms, key=lambda form: len(form.link))
        fits = len(small.link) <= budget
        budget -= len(small.link) if fits else 0
        made.append(small if fits else Download(path.name, len(content)))
    for i in sorted(range(len(made)), key=lambda i: (made[i].bytes, made[i].file)):
        if made[i].link and made[i].saved_as != made[i].file:
            whole = _link(made[i].file, made[i].bytes, "text/csv", written[i].read_bytes())
            if (more := len(whole.link) - len(made[i].link)) <= budget:
                made[i], budget = whole, budget - more
    return made


def _link(saved_as: str, n_bytes: int, kind: str, data: bytes, file: str = "") -> Download:
    link = f"data:{kind};base64,{base64.b64encode(data).decode()}"
    return Download(file or saved_as, n_bytes, saved_as, link)
