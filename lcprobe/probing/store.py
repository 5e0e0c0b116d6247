"""The records store: a folder of Parquet files, one a finished unit of work, whole or absent, never twice.

    <unit-id>.parquet    finished: existence is the fact
    <id>.journal         in flight, one unit or several that share prompts: one JSON line a batch with its checksum; the valid
                         prefix is taken up again

The id is a digest of everything that the records depend on, so a rerun does only what is missing, and a unit written twice
has one name.
"""

import io
import json
import logging
import os
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from lcprobe.errors import DataError
from lcprobe.files import digest_json, write_atomic
from lcprobe.records import SCHEMA, Record, table_of

log = logging.getLogger(__name__)


class Store:
    """Finished units of one folder, all of one schema."""

    def __init__(self, folder: Path, schema: pa.Schema = SCHEMA):
        self.folder, self.schema = folder, schema

    @staticmethod
    def unit_id(facts: dict[str, Any]) -> str:
        """First 16 hex digits of the digest of what a unit's records depend on."""
        return digest_json(facts)[:16]

    def has(self, unit: str) -> bool:
        """Whether a unit is finished."""
        return self._path(unit).is_file()

    def finish(self, unit: str, records: list[Record], facts: dict[str, Any]) -> None:
        """Write a unit whole, with page checksums and its facts in the metadata, and drop its journal."""
        table = table_of(records, self.schema).replace_schema_metadata({"lcprobe": json.dumps(facts, sort_keys=True)})
        buffer = io.BytesIO()
        pq.write_table(table, buffer, compression="zstd", write_page_checksum=True)
        write_atomic(self._path(unit), buffer.getvalue())
        self.journal(unit).unlink(missing_ok=True)

    def read(self, units: Iterable[str]) -> pa.Table:
        """The records of finished units as one table. Raises DataError naming a damaged file, which is set aside."""
        tables = [self._read(self._path(unit)) for unit in units]
        return pa.concat_tables(tables) if tables else self.schema.empty_table()

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
                f"{path}: damaged ({reason}), set aside as {aside.name}; allowed: the same command again, which redoes it"
            ) from None

    def journal(self, unit: str) -> Path:
        """The unit's journal file."""
        return self.folder / f"{unit}.journal"

    def resume(self, unit: str) -> list[list[Record]]:
        """Batches of an unfinished unit whose lines are whole; a torn end is cut off."""
        path = self.journal(unit)
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
            log.warning("%s: %d bytes of an interrupted batch are dropped", path.name, len(raw) - good)
            with open(path, "rb+") as file:
                file.truncate(good)
        return batches

    def append(self, unit: str, records: list[Record]) -> None:
        """Add a scored batch to the unit's journal, durably."""
        self.folder.mkdir(parents=True, exist_ok=True)
        text = json.dumps(records, ensure_ascii=True).encode()
        with open(self.journal(unit), "ab") as file:
            file.write(text + f" {zlib.crc32(text):08x}\n".encode())
            file.flush()
            os.fsync(file.fileno())

    def _path(self, unit: str) -> Path:
        return self.folder / f"{unit}.parquet"
