"""The width that text is for."""

import os
import sys
from typing import TextIO

LEAST_WIDTH = 40
"""Columns of a terminal that lines are wrapped for at least."""


def width_of(stream: TextIO | None = None) -> int | None:
    """Columns of the terminal that a stream (default: stdout) goes to; None for pipes and files. COLUMNS overrides
    what the terminal says of itself."""
    stream = sys.stdout if stream is None else stream
    if stream is None or not stream.isatty():
        return None
    given = os.environ.get("COLUMNS", "")
    try:
        columns = int(given) if given.isdigit() else os.get_terminal_size(stream.fileno()).columns
    except OSError:
        columns = 80
    return max(columns or 80, LEAST_WIDTH)
