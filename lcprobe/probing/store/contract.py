"""What the runner asks of a store of records."""

from collections.abc import Iterable
from typing import Any, Protocol

import pyarrow as pa

from lcprobe.files import digest_json
from lcprobe.locks import Claim, Process
from lcprobe.probing.store.summary import Summary
from lcprobe.records import Record


def unit_id(facts: dict[str, Any]) -> str:
    """First 16 hex digits of the digest of what a unit's records depend on."""
    return digest_json(facts)[:16]


class RecordStore(Protocol):
    """Where the runner puts records: finished units by id, and journals of those in progress."""

    def has(self, unit: str) -> bool:
        """Whether a unit is finished."""
        ...

    def finish(self, unit: str, records: list[Record], facts: dict[str, Any]) -> None:
        """Add a finished unit with the facts that its records depend on."""
        ...

    def read(self, units: Iterable[str]) -> pa.Table:
        """The records of finished units as one table, in the order of `units`."""
        ...

    def summaries(self) -> dict[str, Summary]:
        """What the records of each finished unit are of, by its id."""
        ...

    def claim(self, journal: str) -> Claim | Process:
        """Claim a journal and its units; the process that has them where another one does."""
        ...

    def claims(self) -> dict[str, Process]:
        """The processes that have journals, by the journal."""
        ...

    def resume(self, journal: str) -> list[list[Record]]:
        """The batches that a journal has."""
        ...

    def append(self, journal: str, records: list[Record]) -> None:
        """Add a scored batch to a journal."""
        ...

    def discard(self, journal: str) -> None:
        """Delete a journal whose units are finished."""
        ...
