"""Versions of the columns of records, and how records of an earlier one become today's.

A file names its version in its Parquet metadata. A version n is read through the steps n -> n + 1 -> ... of its kind,
in memory; the file stays as it is. Files from before versions were written are told apart by their columns.

To add a column: append a Step here, and raise nothing else. Finished units stay finished, as COLUMNS_IN_IDS does not
change; where a setting decides what is in the column, `unit_facts` has a fact of its own for it, so that units with
that setting are new ones. Where nothing can be said about earlier records, the suite gets another number instead.
"""

from collections.abc import Callable
from dataclasses import dataclass

import pyarrow as pa

from lcprobe.errors import DataError, listed
from lcprobe.records import CONTEXT_SCHEMA, SCHEMA

VERSION = b"lcprobe.schema"
"""Key of the Parquet metadata. Files that have it are sealed, see unit_file.py."""
COLUMNS_IN_IDS = "088605d1b6a9d4938515ddb5211afbfded9d0b359c0f33d2a01f8aca179bab67"
"""Part of every unit's id: digest of the names of the columns of version 4. It stays what it is."""


@dataclass(frozen=True)
class Step:
    """From one version to the next. adds: columns that the earlier one lacks. change: a table of the earlier version
    -> one of the next, in any order of columns; a pure function."""

    adds: tuple[str, ...]
    change: Callable[[pa.Table], pa.Table]


@dataclass(frozen=True)
class Kind:
    """A kind of records: today's columns, and the steps from version 1 to today's. unnamed: how many of the first
    versions were written without their number."""

    what: str
    schema: pa.Schema
    steps: tuple[Step, ...] = ()
    unnamed: int = 1

    @property
    def version(self) -> int:
        """Today's."""
        return len(self.steps) + 1

    def names(self, version: int) -> list[str]:
        """The columns of a version."""
        later = {name for step in self.steps[version - 1 :] for name in step.adds}
        return [name for name in self.schema.names if name not in later]

    def version_of(self, written: pa.Schema, where: str) -> int:
        """The version of a file. Raises DataError for one that a newer lcprobe wrote, and for columns of none."""
        given = (written.metadata or {}).get(VERSION)
        if given is None:
            for version in range(self.unnamed, 0, -1):
                if set(written.names) == set(self.names(version)):
                    return version
            missing = [name for name in self.names(1) if name not in written.names]
            lacks = f" (without {listed(missing, ', ')})" if missing else ""
            raise DataError(
                f"{where}: {self.what} of a form before version 1{lacks}; allowed: versions 1 to {self.version}"
            )
        if not given.isdigit() or not 1 <= int(given) <= self.version:
            text = given.decode("ascii", "backslashreplace")
            raise DataError(
                f"{where}: {self.what} of version {text}, this lcprobe reads 1 to {self.version}; allowed: the newer "
                "lcprobe that wrote them"
            )
        return int(given)

    def today(self, table: pa.Table, version: int) -> pa.Table:
        """A table of a version as one of today's. Raises pyarrow.ArrowInvalid where its types are other ones."""
        for step in self.steps[version - 1 :]:
            table = step.change(table)
        table = table.select(self.schema.names).replace_schema_metadata(None)
        if not table.schema.equals(self.schema):
            raise pa.ArrowInvalid(f"types of columns that are not those of version {version}")
        return table


def _constant(name: str, value: str) -> Callable[[pa.Table], pa.Table]:
    return lambda table: table.append_column(name, pa.repeat(pa.scalar(value, pa.string()), len(table)))


def _empty(**columns: pa.DataType) -> Callable[[pa.Table], pa.Table]:
    def change(table: pa.Table) -> pa.Table:
        for name, kind in columns.items():
            table = table.append_column(name, pa.nulls(len(table), kind))
        return table

    return change


RECORDS = Kind(
    "records",
    SCHEMA,
    (
        Step(("engine",), _constant("engine", "native")),  # before 2, lcprobe's own code ran every model
        Step(("continuation", "substring"), _empty(continuation=pa.string(), substring=pa.float64())),
        Step(("template",), _constant("template", "none")),  # before 4, no prompt had one
    ),
    unnamed=4,
)
"""Of `records/`. Version 1 has what records had when depth was first drawn inside strata (suite 5)."""
CONTEXT = Kind("measurements", CONTEXT_SCHEMA)
"""Of `context/`."""
