"""JSON that others wrote: prompts, outputs and logs, of which anything may be wrong. A line is the same thing in
every such file."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lcprobe.errors import DataError, read_error, shown

SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
"""An escape of half a character; a pair of them is one."""


def parse_json(text: str) -> Any:
    """The value of a text. Raises ValueError, in words, for what is no JSON or nested too deep to be read, and for
    strings with half a character, which could be neither encoded nor written."""
    try:
        value = json.loads(text)
        if SURROGATE.search(text):
            json.dumps(value, ensure_ascii=False).encode()
    except RecursionError:
        raise ValueError("nested too deep") from None
    except UnicodeEncodeError:
        raise ValueError("half a character, a lone surrogate") from None
    return value


def read_text(path: Path, allowed: str) -> str:
    """The text of a file. Raises ReadError for one that cannot be read, and DataError where it is not UTF-8."""
    try:
        return path.read_bytes().decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: a byte at {error.start} that is not UTF-8; allowed: {allowed}") from None
    except OSError as error:
        raise read_error(path, error, allowed) from None


def json_rows(path: Path, allowed: str = "one JSON object a line") -> Iterator[tuple[int, dict[str, Any]]]:
    """The objects of a file of JSON lines with the numbers of their lines, blank ones left out. Raises DataError
    naming file and line."""
    # not splitlines: a JSON string may have U+2028 and its like as they are
    for number, line in enumerate(read_text(path, allowed).split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = parse_json(line)
        except ValueError as error:
            raise DataError(f"{path}:{number}: no JSON ({error}); allowed: {allowed}") from None
        if not isinstance(row, dict):
            raise DataError(f"{path}:{number}: given {shown(row)}; allowed: {allowed}")
        yield number, row
