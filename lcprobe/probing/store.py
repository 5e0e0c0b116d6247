"""The records store: a folder of Parquet files, one per finished unit of work, each written atomically and once.

    <unit-id>.parquet    finished: the unit is done if the file exists
    <id>.journal         in progress, one unit or several that share prompts: one JSON line per batch with its
                         checksum; a rerun resumes from the valid prefix
    <id>.claim           of the process that writes that journal; see lcprobe.locks

The id is a digest of everything that the records depend on, so a rerun does only what is missing, and a unit written
twice has one name.
"""

import io
import json
import logging
import os
import zlib
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.parquet as pq

from lcprobe.errors import DataError
from lcprobe.files import digest_json, write_atomic
from lcprobe.locks import Alone, Claim, Claims, Process
from lcprobe.records import CONTEXT_SCHEMA, SCHEMA, Record, table_of

log = logging.getLogger(__name__)


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

    def facts(self) -> list[dict[str, Any]]:
        """What the records of each finished unit depend on."""
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
        return _joined([self._tables[unit] for unit in units], self.schema)

    def facts(self) -> list[dict[str, Any]]:
        """What the records of each unit depend on."""
        return list(self._facts.values())

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


class Store:
    """A RecordStore on disk: the finished units of one folder, all of one schema."""

    def __init__(self, folder: Path, schema: pa.Schema = SCHEMA):
        self.folder, self.schema = folder, schema
        self._claims = Claims(folder)

    def has(self, unit: str) -> bool:
        """Whether a unit is finished."""
        return self._path(unit).is_file()

    def finish(self, unit: str, records: list[Record], facts: dict[str, Any]) -> None:
        """Write a unit atomically, with page checksums and its facts in the metadata, and delete its journal."""
        table = table_of(records, self.schema).replace_schema_metadata({"lcprobe": json.dumps(facts, sort_keys=True)})
        buffer = io.BytesIO()
        pq.write_table(table, buffer, compression="zstd", write_page_checksum=True)
        write_atomic(self._path(unit), buffer.getvalue())
        self.discard(unit)

    def read(self, units: Iterable[str]) -> pa.Table:
        """The records of finished units as one table. Raises DataError naming a damaged file, which is set aside."""
        return _joined([self._read(self._path(unit)) for unit in units], self.schema)

    def facts(self) -> list[dict[str, Any]]:
        """What the records of each finished unit depend on; without damaged files, which `read` names."""
        found = []
        for path in sorted(self.folder.glob("*.parquet")):
            with suppress(OSError, pa.ArrowException, ValueError):
                written = (pq.read_schema(path).metadata or {}).get(b"lcprobe")
                found += [] if written is None else [json.loads(written)]
        return found

    def _read(self, path: Path) -> pa.Table:
        try:
            table = pq.read_table(path, page_checksum_verification=True).replace_schema_metadata(None)
            if not table.schema.equals(self.schema):
                raise pa.ArrowInvalid("columns of another version")
            return table
        except (OSError, pa.ArrowException) as error:
            aside = path.with_suffix(".bad")
            if path.exists():
                path.replace(aside)
            reason = str(error).splitlines()[0]
            raise DataError(
                f"{path}: damaged ({reason}), set aside as {aside.name}; allowed: the same command again, which "
                "redoes it"
            ) from None

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
        path = self.journal(journal)
        if not path.is_file():
            return []
        batches, good = [], 0
        raw = path.read_bytes()
        for line in raw.splitlines(keepends=True):
            text, _, checksum = line.rstrip(b"\n").rpartition(b" ")
            if not line.endswith(b"\n") or f"{zlib.crc32(text):08x}".encode() != checksum:
                break
            batches.append(json.loads(text))
            good += len(line)
        if good < len(raw):
            log.warning("%s: dropped %d bytes of an interrupted batch", path.name, len(raw) - good)
            with open(path, "rb+") as file:
                file.truncate(good)
        return batches

    def append(self, journal: str, records: list[Record]) -> None:
        """Add a scored batch to a journal, durably."""
        self.folder.mkdir(parents=True, exist_ok=True)
        text = json.dumps(records, ensure_ascii=True).encode()
        with open(self.journal(journal), "ab") as file:
            file.write(text + f" {zlib.crc32(text):08x}\n".encode())
            file.flush()
            os.fsync(file.fileno())

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

    def _path(self, unit: str) -> Path:
        return self.folder / f"{unit}.parquet"


def text_store(folder: Path) -> Store:
    """The store of measurements on plain text in a study's folder."""
    return Store(folder / "context", CONTEXT_SCHEMA)


def _joined(tables: list[pa.Table], schema: pa.Schema) -> pa.Table:
    return pa.concat_tables(tables) if tables else schema.empty_table()
