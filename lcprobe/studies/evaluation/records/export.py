"""A table of records as a file: CSV, Parquet or JSON lines, written atomically, a batch at a time."""

# pyright: reportAttributeAccessIssue=false
# pyarrow.compute makes its functions when it is imported

import json
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from lcprobe.analysis.report.tables import safe
from lcprobe.errors import ConfigError, Said
from lcprobe.files import atomic_file, finite

BATCH_ROWS = 1 << 16
PLAIN = r"^[0-9A-Za-z]"
"""Beginning of a text that no spreadsheet takes for a formula; `safe` decides about the others."""


def write_records(path: Path, table: pa.Table, suffix: str) -> None:
    """Write a table. suffix: a key of FORMATS. Raises OSError where it cannot be written, and ConfigError for a
    column of a type that such a file does not have; nothing stays then."""
    try:
        with atomic_file(path) as file:
            FORMATS[suffix](table, file)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        reason = next(iter(str(error).splitlines()), "")
        raise ConfigError(
            f"--{suffix}", Said(reason), "types that such a file has (column::varchar in --sql)"
        ) from None


def _csv(table: pa.Table, file: BinaryIO) -> None:
    """Texts in quotes, an empty field for null; what a spreadsheet would take for a formula as `safe` has it."""
    with pa.csv.CSVWriter(file, _safe_columns(table.slice(0, 0)).schema) as writer:
        for start in range(0, len(table), BATCH_ROWS):
            writer.write_table(_safe_columns(table.slice(start, BATCH_ROWS)))


def _safe_columns(table: pa.Table) -> pa.Table:
    for at, field in enumerate(table.schema):
        if pa.types.is_string(field.type) or pa.types.is_large_string(field.type):
            column = table[at].combine_chunks()
            odd = pc.invert(pc.match_substring_regex(pc.fill_null(column, "0"), PLAIN))
            if pc.any(odd).as_py():
                texts = [safe(text) for text in column.filter(odd).to_pylist()]
                column = pc.replace_with_mask(column, odd, pa.array(texts, field.type))
                table = table.set_column(at, field, column)
        elif pa.types.is_nested(field.type):  # of a query in SQL
            texts = [safe(json.dumps(value, default=str)) for value in table[at].to_pylist()]
            table = table.set_column(at, field.name, pa.array(texts, pa.string()))
    return table


def _parquet(table: pa.Table, file: BinaryIO) -> None:
    pq.write_table(table, file, compression="zstd", write_page_checksum=True)


def _jsonl(table: pa.Table, file: BinaryIO) -> None:
    """One object a line; what is no finite number is null, as JSON has no other word for it."""
    nested = [field.name for field in table.schema if pa.types.is_nested(field.type)]  # of a query in SQL
    for at, field in enumerate(table.schema):
        if pa.types.is_floating(field.type):
            column = table[at]
            table = table.set_column(
                at, field.name, pc.if_else(pc.is_finite(column), column, pa.scalar(None, field.type))
            )
    for batch in table.to_batches(BATCH_ROWS):
        rows = batch.to_pylist()
        for row in rows if nested else ():
            row |= {name: finite(row[name]) for name in nested}
        lines = [json.dumps(row, ensure_ascii=False, default=str, allow_nan=False) for row in rows]
        file.write("".join(f"{line}\n" for line in lines).encode())


FORMATS: dict[str, Callable[[pa.Table, BinaryIO], None]] = {"csv": _csv, "parquet": _parquet, "jsonl": _jsonl}
