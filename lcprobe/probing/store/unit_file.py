"""The file of a unit: a Parquet file that any reader of Parquet reads, and that notices any changed byte.

    pages | seal | footer, its length, PAR1

Page checksums, which other readers can verify, say nothing about a page's header or about the footer: of 4,000 files
with one bit flipped, 1 was read as other records without an error. The seal stands where no reader of Parquet looks,
between the last page and the footer, and has CRC-32s of the footer and of each part of what is before it: the whole,
or a row group, so that one can be read alone. Arrow is given nothing that does not match its checksum: where it then
has no memory, memory is too little, and the file is as it was written.
"""

import io
import json
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from lcprobe.errors import MemoryLimitError
from lcprobe.probing.store.versions import VERSION, Kind

FACTS = b"lcprobe"
"""Key of the Parquet metadata: JSON of what the records depend on."""
SEAL = b"LCPSEAL1"
PARQUET = b"PAR1"
END = len(PARQUET) + 4
SEAL_END = 16 + len(SEAL)
"""Bytes of a seal behind its JSON: checksum and length of it in 8 hexadecimal digits each, and the word SEAL."""
MOST_BYTES_OF_ONE = 100
"""In memory, of a byte of a file: records repeat themselves."""


class Damaged(Exception):
    """A file is not what was written. Its text says why, in a few words."""


class Part(NamedTuple):
    """Bytes start to stop of a file, and their CRC-32."""

    start: int
    stop: int
    crc: int


@dataclass(frozen=True)
class Opened:
    """A file with a footer as it was written. parts: one for each row group, or one for all; empty: no seal, as
    before versions were written. version: of the columns; facts: as they were written."""

    path: Path
    metadata: pq.FileMetaData
    parts: tuple[Part, ...]
    version: int
    facts: Any


def encode(tables: Sequence[pa.Table], facts: object, kind: Kind) -> bytes:
    """A file with a row group for each table, sealed. tables: of the kind's schema, none empty but a single one."""
    own = {FACTS: json.dumps(facts, sort_keys=True).encode(), VERSION: str(kind.version).encode()}
    buffer = io.BytesIO()
    schema = kind.schema.with_metadata(own)
    with pq.ParquetWriter(buffer, schema, compression="zstd", write_page_checksum=True) as writer:
        for table in tables:
            writer.write_table(table.replace_schema_metadata(own), row_group_size=max(1, len(table)))
    raw = buffer.getvalue()
    cut = len(raw) - END - int.from_bytes(raw[-END : -len(PARQUET)], "little")
    footer = pq.read_metadata(io.BytesIO(raw))
    edges = [0, *(_start(footer.row_group(i)) for i in range(1, footer.num_row_groups)), cut]
    parts = [[a, b, zlib.crc32(raw[a:b])] for a, b in zip(edges[:-1], edges[1:], strict=True)]
    text = json.dumps({"footer": zlib.crc32(raw[cut:]), "parts": parts}, separators=(",", ":")).encode()
    seal = text + f"{zlib.crc32(text):08x}{len(text):08x}".encode() + SEAL
    return raw[:cut] + seal + raw[cut:]


def _start(group: pq.RowGroupMetaData) -> int:
    columns = [group.column(i) for i in range(group.num_columns)]
    return min(min(c.dictionary_page_offset or c.data_page_offset, c.data_page_offset) for c in columns)


def open_unit(path: Path, file: pa.NativeFile, kind: Kind) -> Opened:
    """The footer and the seal of an open file. Raises Damaged, MemoryLimitError, and DataError as
    `Kind.version_of`."""
    size = file.size()
    with _reading(path) as read:
        end = _bytes(file, size - END, END)
        cut = size - END - int.from_bytes(end[:4], "little")
        if end[4:] != PARQUET or cut < 0:
            raise Damaged("not a whole Parquet file")
        tail = _bytes(file, cut, size - cut)
        parts = _seal(file, cut, tail)
        read.unchecked = not parts
        metadata = pq.read_metadata(pa.BufferReader(PARQUET + tail))
        schema = metadata.schema.to_arrow_schema()
        own = schema.metadata or {}
        facts = json.loads(own.get(FACTS, b"{}"))
    if VERSION in own and not parts:
        raise Damaged("no seal")
    return Opened(path, metadata, parts, kind.version_of(schema, str(path)), facts)


def read_group(
    opened: Opened, file: pa.NativeFile, kind: Kind, number: int, columns: Sequence[str] | None
) -> pa.Table:
    """A row group as a table of today's columns, or of some of them. Raises Damaged, and MemoryLimitError."""
    with _reading(opened.path) as read:
        read.unchecked = not opened.parts
        if opened.parts:
            part = opened.parts[number]
            if zlib.crc32(_bytes(file, part.start, part.stop - part.start)) != part.crc:
                raise Damaged("a checksum that does not match")
        own = None if columns is None or opened.version != kind.version else list(columns)
        source = pq.ParquetFile(file, metadata=opened.metadata, page_checksum_verification=True)
        table = source.read_row_group(number, columns=own, use_threads=False).replace_schema_metadata(None)
        if own is not None:
            return table.select(own)
        table = kind.today(table, opened.version)
        return table if columns is None else table.select(list(columns))


def read_all(path: Path, kind: Kind, columns: Sequence[str] | None = None) -> pa.Table:
    """The records of a file. Raises Damaged, FileNotFoundError, MemoryLimitError, and DataError as
    `Kind.version_of`."""
    with _reading(path):
        file = pa.BufferReader(path.read_bytes())  # a unit is small
    opened = open_unit(path, file, kind)
    tables = [read_group(opened, file, kind, i, columns) for i in range(opened.metadata.num_row_groups)]
    if not tables:
        empty = kind.schema.empty_table()
        return empty if columns is None else empty.select(list(columns))
    return pa.concat_tables(tables)


@dataclass
class _Read:
    """unchecked: whether Arrow is given bytes that no checksum is known of: of a file without a seal."""

    unchecked: bool = False


@contextmanager
def _reading(path: Path) -> Iterator[_Read]:
    """What is raised in the block, as an error of the file: Damaged; or MemoryLimitError where memory is too little.
    What the system says passes: nothing is known of the file then."""
    read = _Read()
    try:
        yield read
    except MemoryError as error:  # before the others: Arrow's is of both kinds
        if not read.unchecked or not _has_memory(path):
            allowed = "more memory for this process, or fewer processes; the file stays as it is"
            raise MemoryLimitError(f"{path}: out of memory while it is read; allowed: {allowed}") from error
        raise Damaged(_reason(error)) from None
    except (OSError, pa.ArrowException, ValueError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # the system's; Arrow's own about the form of a file have no number
        raise Damaged(_reason(error)) from None


def _has_memory(path: Path) -> bool:
    """Whether there is memory for what a file can hold: then it has a length that nobody wrote."""
    try:
        bytearray(MOST_BYTES_OF_ONE * path.stat().st_size)
    except MemoryError:
        return False
    return True


def _bytes(file: pa.NativeFile, start: int, count: int) -> bytes:
    if start < 0:
        raise Damaged("not a whole Parquet file")
    file.seek(start)
    found = file.read(count)
    if len(found) != count:
        raise Damaged("not a whole Parquet file")
    return found


def _seal(file: pa.NativeFile, cut: int, tail: bytes) -> tuple[Part, ...]:
    """The parts of a file whose footer is `tail`, from `cut` on; none where the file has no seal."""
    if cut < SEAL_END:
        return ()
    end = _bytes(file, cut - SEAL_END, SEAL_END)
    if not end.endswith(SEAL):
        return ()
    length = int(end[8:16], 16)
    text = _bytes(file, cut - SEAL_END - length, length)
    if f"{zlib.crc32(text):08x}".encode() != end[:8]:
        raise Damaged("a seal that does not match")
    seal = json.loads(text)
    if zlib.crc32(tail) != seal["footer"]:
        raise Damaged("a footer that does not match its checksum")
    return tuple(Part(*part) for part in seal["parts"])


def _reason(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
