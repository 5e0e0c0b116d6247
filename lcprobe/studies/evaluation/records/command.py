"""What `lcprobe records` does: count records, ask SQL of them, write them to a file, and compact a store."""

from collections.abc import Sequence
from importlib import import_module
from itertools import count
from pathlib import Path
from typing import Any

import pyarrow as pa

from lcprobe.errors import ConfigError, DataError, Said, require
from lcprobe.files import check_new_file
from lcprobe.probing.store import compact
from lcprobe.studies.console import print_rows, say
from lcprobe.studies.evaluation.records.counts import COLUMNS, count_rows
from lcprobe.studies.evaluation.records.export import write_records
from lcprobe.studies.evaluation.records.query import RecordQuery, find_records, store_of
from lcprobe.words import counted

MAX_SHOWN = 200
"""Rows of a query in SQL that are printed."""
QUERIES = ("SELECT", "EXPLAIN", "MULTI")
"""Kinds of DuckDB's statements that ask. MULTI: pivot."""
AS_TEXT = ("INTERVAL", "TIME WITH TIME ZONE", "BIT", "BLOB", "UUID")
"""Its types that are printed and written as texts."""


def show_records(folders: Sequence[Path], query: RecordQuery, sql: str | None, out: tuple[str, Path] | None) -> None:
    """Print counts or the answer to a query in SQL, or write them to a file. out: its format and path; with one, the
    records themselves are written where no SQL is given. What is whole is shown where some records are not: then
    raises DataError afterwards, and otherwise as `find_records` and `ask`."""
    if out is not None:
        check_new_file(f"--{out[0]}", str(out[1]))
    needed = None if sql is not None or out is not None else COLUMNS
    found = find_records(folders, query, needed)
    records = found.table
    table = records if sql is None else ask(records, sql)
    if out is not None:
        write_records(out[1], table, out[0])
        say(f"{out[1]}: {counted(len(table), 'row')}, {counted(table.num_columns, 'column')}")
    elif sql is not None:
        rows = table.slice(0, MAX_SHOWN).to_pylist()
        if rows:
            print_rows(rows, f"{counted(len(table), 'row')}")
        else:
            say("0 rows")
        if len(table) > MAX_SHOWN:
            say(f"and {counted(len(table) - MAX_SHOWN, 'row')} more: --csv FILE writes all")
    else:
        rows = count_rows(records)
        if rows:
            print_rows(rows, counted(len(records), "record"), keys=2)
        else:
            say("0 records")
    if found.lost:
        raise DataError("; ".join(found.lost))


def ask(records: pa.Table, sql: str) -> pa.Table:
    """The answer to a query in SQL over the table `records`; it can read no file, and write none. Raises ConfigError
    without duckdb, and for a query that duckdb refuses."""
    try:
        duckdb = import_module("duckdb")
    except ImportError:
        raise ConfigError("--sql", Said("duckdb is not installed"), "pip install 'lcprobe[query]'") from None
    with duckdb.connect(":memory:", config={"enable_external_access": "false"}) as connection:
        connection.register("records", records)
        try:
            statements = connection.extract_statements(sql)
            kinds = [str(one.type).rpartition(".")[2] for one in statements]
            require(
                "--sql", sql, len(kinds) == 1 and kinds[0] in QUERIES, "one query, such as select ... from records"
            )
            answer = connection.sql(sql)
            return (
                pa.table({}) if answer is None else _plain_numbers(answer.project(_columns(answer)).to_arrow_table())
            )
        except duckdb.Error as error:
            reason = str(error).splitlines()[0]
            raise ConfigError(
                "--sql", sql, f"a query that DuckDB can run over the table records ({reason})"
            ) from None


def _columns(answer: Any) -> str:
    """The columns of DuckDB's answer, each with a name of its own, and as text where neither Arrow's files nor JSON
    have its type."""
    names: list[str] = []
    for name in answer.columns:
        more = (f"{name}_{number}" for number in count(1))
        names.append(name if name not in names else next(one for one in more if one not in (*names, *answer.columns)))
    kinds = ["::varchar" if str(kind) in AS_TEXT else "" for kind in answer.types]
    quoted = [name.replace('"', '""') for name in names]
    return ", ".join(f'#{at}{kind} AS "{name}"' for at, (kind, name) in enumerate(zip(kinds, quoted, strict=True), 1))


def _plain_numbers(table: pa.Table) -> pa.Table:
    """DuckDB sums whole numbers into ones of 128 bits, which Arrow has as decimals, and files as texts."""
    for at, field in enumerate(table.schema):
        if pa.types.is_decimal(field.type):
            plain = pa.int64() if field.type.scale == 0 else pa.float64()
            try:
                column = table[at].cast(plain)
            except pa.ArrowInvalid:  # beyond 64 bits: to the last digit, as text
                column = table[at].cast(pa.string())
            table = table.set_column(at, field.name, column)
    return table


def compact_records(folders: Sequence[Path]) -> None:
    """Compact the stores of studies, one after another, with a line for each. Raises as `compact`."""
    for folder in folders:
        if not folder.is_dir():
            raise DataError(f"{folder}: no such folder; allowed: the folder of a study")
        done = compact(store_of(folder))
        size = " -> ".join(f"{n / 1e6:.1f} MB" for n in done.bytes)
        files = f"{done.files[0]:,} -> {counted(done.files[1], 'file')}"
        say(f"{folder}: {counted(done.units, 'unit')} in packs, {files}, {size}")
