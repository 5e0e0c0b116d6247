"""The records store on disk: a folder of Parquet files, one per finished unit of work, each written atomically and
once.

    <unit-id>.parquet    finished: the unit is done if the file exists, or a pack has it
    packed/*.parquet     units that `lcprobe records compact` put together
    _catalog.jsonl       which model, task and length each unit is of: a cache
    <id>.journal         in progress, one unit or several that share prompts: one JSON line per batch with its
                         checksum; a rerun resumes from the valid prefix
    <id>.claim           of the process that writes that journal; see lcprobe.locks

The id is a digest of everything that the records depend on, so a rerun does only what is missing, and a unit written
twice has one name. Whoever writes a unit at whatever moment writes the same records: that a process which lost its
claim may still be writing, as no file system can rule out, costs time and no record.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from lcprobe.errors import DataError
from lcprobe.files import write_atomic
from lcprobe.locks import Claim, Claims, Process
from lcprobe.probing.store.catalog import add_summaries, catalogued
from lcprobe.probing.store.journal import append_batch, read_batches
from lcprobe.probing.store.packs import AGAIN, Packs, Place, set_aside
from lcprobe.probing.store.summary import Summary, summary_of
from lcprobe.probing.store.unit_file import Damaged, encode, open_unit, read_all
from lcprobe.probing.store.versions import CONTEXT, RECORDS, Kind
from lcprobe.records import Record, joined, table_of

TRIES = 5
"""How often a unit is looked for that a compaction moves at the same moment."""


class Store:
    """A RecordStore on disk: the finished units of one folder, all of one kind."""

    def __init__(self, folder: Path, kind: Kind = RECORDS, claims: Claims | None = None):
        self.folder, self.kind = folder, kind
        self.packs = Packs(folder, kind)
        self._claims = Claims(folder) if claims is None else claims

    def has(self, unit: str) -> bool:
        """Whether a unit is finished."""
        return self.path(unit).is_file() or self.packs.find(unit) is not None

    def finish(self, unit: str, records: list[Record], facts: dict[str, Any]) -> None:
        """Write a unit atomically, with its facts in the metadata, and delete its journal. Raises OSError where it
        cannot be written; nothing of it counts then."""
        table = table_of(records, self.kind.schema)
        write_atomic(self.path(unit), encode([table], facts, self.kind))
        add_summaries(self.folder, {unit: summary_of(facts, len(table))})
        self.discard(unit)

    def read(self, units: Iterable[str], columns: Sequence[str] | None = None) -> pa.Table:
        """The records of finished units as one table, in the order of `units`. columns: some of them, in this order;
        None: all.

        Raises DataError naming a damaged file, which is set aside, a unit that is not there, and a file of a newer
        version.
        """
        wanted = list(units)
        found: dict[str, pa.Table] = {}
        for _ in range(TRIES):
            found |= self._read(dict.fromkeys(unit for unit in wanted if unit not in found), columns)
            missing = next((unit for unit in wanted if unit not in found), None)
            if missing is None:
                break
        else:
            path = self.path(missing or "")
            raise DataError(f"{path}: missing; allowed: {AGAIN}, which redoes it")
        schema = self.kind.schema
        if columns is not None:
            schema = pa.schema([schema.field(name) for name in columns])
        return joined([found[unit] for unit in wanted], schema)

    def _read(self, units: Iterable[str], columns: Sequence[str] | None) -> dict[str, pa.Table]:
        """Of those units that are there."""
        found: dict[str, pa.Table] = {}
        places: dict[str, Place] = {}
        for unit in units:
            path = self.path(unit)
            try:
                found[unit] = read_all(path, self.kind, columns)
            except FileNotFoundError:
                place = self.packs.find(unit)
                if place is not None:
                    places[unit] = place
            except Damaged as error:
                raise set_aside(path, str(error), "it") from None
        try:
            return found | self.packs.read(places, columns)
        except FileNotFoundError:
            self.packs.look()
            return found

    def units(self) -> list[str]:
        """The ids of all finished units, each once."""
        return sorted({*self.loose(), *self.packs.places()})

    def loose(self) -> list[str]:
        """The ids of units with a file of their own."""
        return sorted(path.stem for path in self.folder.glob("*.parquet"))

    def summaries(self) -> dict[str, Summary]:
        """What the records of each finished unit are of; without damaged files, which `read` names."""
        packed = {unit: place.summary for unit, place in self.packs.places().items()}
        return packed | catalogued(self.folder, self.loose(), self._look)

    def facts_of(self, unit: str) -> dict[str, Any]:
        """What the records of a unit with a file of its own depend on. Raises DataError as `read`."""
        path = self.path(unit)
        try:
            return open_unit(path, pa.BufferReader(path.read_bytes()), self.kind).facts
        except Damaged as error:
            raise set_aside(path, str(error), "it") from None

    def _look(self, unit: str) -> Summary | None:
        path = self.path(unit)
        try:
            opened = open_unit(path, pa.BufferReader(path.read_bytes()), self.kind)
        except (Damaged, DataError, OSError):
            return None
        return summary_of(opened.facts, opened.metadata.num_rows)

    def claim(self, journal: str) -> Claim | Process:
        """See RecordStore."""
        return self._claims.take(journal)

    def claims(self) -> dict[str, Process]:
        """See RecordStore."""
        return self._claims.live()

    def journal(self, name: str) -> Path:
        """A journal's file."""
        return self.folder / f"{name}.journal"

    def resume(self, journal: str) -> list[list[Record]]:
        """The batches of a journal up to the first damaged line; the file is truncated there."""
        return read_batches(self.journal(journal))

    def append(self, journal: str, records: list[Record]) -> None:
        """Add a scored batch to a journal, durably."""
        append_batch(self.journal(journal), records)

    def discard(self, journal: str) -> None:
        """Delete a journal whose units are finished."""
        self.journal(journal).unlink(missing_ok=True)

    def discard_all(self) -> None:
        """Delete every journal that no process writes, and the claims of dead ones: what is left when all units are
        finished was begun with other settings."""
        for journal in self.folder.glob("*.journal"):
            claim = self.claim(journal.stem)
            if not isinstance(claim, Process):
                journal.unlink(missing_ok=True)
                claim.release()
        self._claims.remove_dead()

    def path(self, unit: str) -> Path:
        """The file of a unit's own."""
        return self.folder / f"{unit}.parquet"


def text_store(folder: Path) -> Store:
    """The store of measurements on plain text in a study's folder."""
    return Store(folder / "context", CONTEXT)
