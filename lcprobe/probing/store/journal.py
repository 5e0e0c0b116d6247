"""Journals: batches of records that are scored and belong to no finished unit yet, one JSON line each with its
checksum."""

import json
import logging
import os
import zlib
from contextlib import suppress
from pathlib import Path

from lcprobe.records import Record

log = logging.getLogger(__name__)


def checked_line(value: object) -> bytes:
    """A JSON value as a line that ends with the checksum of the rest."""
    text = json.dumps(value, ensure_ascii=True).encode()
    return text + f" {zlib.crc32(text):08x}\n".encode()


def checked_value(line: bytes) -> object:
    """The value of such a line. Raises ValueError where the line is not what was written."""
    text, _, checksum = line.removesuffix(b"\n").rpartition(b" ")
    if not line.endswith(b"\n") or f"{zlib.crc32(text):08x}".encode() != checksum:
        raise ValueError("a damaged line")
    return json.loads(text)


def read_batches(path: Path) -> list[list[Record]]:
    """The batches of a journal up to the first damaged line; the file is truncated there."""
    if not path.is_file():
        return []
    batches, good = [], 0
    raw = path.read_bytes()
    for line in raw.splitlines(keepends=True):
        try:
            batches.append(checked_value(line))
        except ValueError:
            break
        good += len(line)
    if good < len(raw):
        log.warning("%s: dropped %d bytes of an interrupted batch, which is scored again", path, len(raw) - good)
        with open(path, "rb+") as file:
            file.truncate(good)
            os.fsync(file.fileno())
    return batches


def append_batch(path: Path, records: list[Record]) -> None:
    """Add a batch, durably. Where the disk is full, nothing of it stays."""
    path.parent.mkdir(parents=True, exist_ok=True)
    line = checked_line(records)
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    written = 0
    try:
        while written < len(line):
            written += os.write(handle, line[written:])
        os.fsync(handle)
    except OSError as error:
        size = os.fstat(handle).st_size
        with suppress(OSError):
            os.ftruncate(handle, max(0, size - written))
        raise OSError(error.errno, error.strerror, str(path)) from None
    finally:
        os.close(handle)
