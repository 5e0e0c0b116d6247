"""The text of a row, by one rule for JSON, Parquet and hub data sets: null is a row without text, everything
else that is not text is refused."""

from collections.abc import Mapping
from typing import Any

from lcprobe.errors import DataError, listed

NAMES = {dict: "an object", list: "a list", bool: "true or false", int: "a number", float: "a number", bytes: "bytes"}
"""JSON's words for values."""


def text_of_row(row: Any, field: str, where: str) -> str:
    """The text under `field`; "" for null. where: the row in words, as an error names it.

    Raises DataError for a row that has no such field, saying which it has, and for a field that is not text.
    """
    if not isinstance(row, Mapping):
        raise DataError(f"{where}: given {kind_of(row)}; allowed: an object with a field {field!r} (data.text_field)")
    if field not in row:
        raise DataError(f"{where}: no field {field!r}; allowed: {listed(row) or 'none'} (data.text_field)")
    value = row[field]
    if value is None:
        return ""
    if not isinstance(value, str):
        texts = [str(name) for name, other in row.items() if isinstance(other, str)]
        raise not_text(where, field, kind_of(value), texts)
    return value


def not_text(where: str, field: str, kind: str, texts: list[str]) -> DataError:
    """The error for a field that is not text. texts: the fields that are."""
    return DataError(
        f"{where}: {field!r} is {kind}; allowed: text, as in {listed(texts) or 'no field here'} (data.text_field)"
    )


def kind_of(value: Any) -> str:
    """The type of a JSON value in words."""
    return (
        "null"
        if value is None
        else "text"
        if isinstance(value, str)
        else NAMES.get(type(value), type(value).__name__)
    )
