"""A store in memory, for notebooks and tests."""

from collections.abc import Iterable
from typing import Any

import pyarrow as pa

from lcprobe.locks import Alone, Claim, Process
from lcprobe.probing.store.summary import Summary, summary_of
from lcprobe.records import SCHEMA, Record, joined, table_of


class MemoryStore:
    """Records in memory: nothing is written, and nothing survives the process."""

    def __init__(self, schema: pa.Schema = SCHEMA):
        self.schema = schema
        self._tables: dict[str, pa.Table] = {}
        self._facts: dict[str, dict[str, Any]] = {}

    def has(self, unit: str) -> bool:
        """Whether a unit is finished."""
        return unit in self._tables

    def finish(self, unit: str, records: list[Record], facts: dict[str, Any]) -> None:
        """Keep a unit."""
        self._tables[unit], self._facts[unit] = table_of(records, self.schema), facts

    def read(self, units: Iterable[str]) -> pa.Table:
        """The records of finished units as one table."""
        return joined([self._tables[unit] for unit in units], self.schema)

    def summaries(self) -> dict[str, Summary]:
        """What the records of each unit are of."""
        return {unit: summary_of(facts, len(self._tables[unit])) for unit, facts in self._facts.items()}

    def claim(self, journal: str) -> Claim | Process:
        """Memory is not shared."""
        return Alone()

    def claims(self) -> dict[str, Process]:
        """Nobody else's."""
        return {}

    def resume(self, journal: str) -> list[list[Record]]:
        """No batch: a process that is killed leaves nothing behind."""
        return []

    def append(self, journal: str, records: list[Record]) -> None:
        """Nothing to write."""

    def discard(self, journal: str) -> None:
        """Nothing to delete."""
