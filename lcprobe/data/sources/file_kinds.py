"""What is in a file, read in pieces: text, JSON (one object per line, one array, or printed over several lines) and
Parquet, compressed or not."""

import bz2
import codecs
import gzip
import io
import json
import lzma
import re
import zlib
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from lcprobe.data.documents import LONG_CHARS, Document, LongText
from lcprobe.data.sources.rows import not_text, text_of_row
from lcprobe.errors import DataError, listed, read_error

TEXT, JSON, PARQUET = (".txt", ".md"), (".jsonl", ".json"), (".parquet",)
COMPRESSED = {".gz": "gzip", ".zst": "zstandard", ".bz2": "bzip2", ".xz": "xz"}
"""Endings that may follow those of text and JSON, and what they stand for."""
SUFFIXES = (*TEXT, *JSON, *PARQUET)
ENDINGS = f"{' '.join(SUFFIXES)}, and {' '.join(COMPRESSED)} after all but .parquet"
"""For messages."""
CHECKED_BYTES = 1 << 16
"""Bytes of a text file that are looked at before it is read."""
MAX_ROW_CHARS = 1 << 26
"""Characters of one row of JSON, which is in memory as a whole, at most; of a line, bytes."""
PIECES = "a longer text in a .txt, which is read in pieces"
BYTE_ORDER_MARK = codecs.BOM_UTF8
SEPARATORS = re.compile(r"[\s,]*")


def kind_of_file(path: Path) -> str | None:
    """The ending that says what is in a file, in lower case; None for a file of another kind."""
    suffix, inner = path.suffix.lower(), Path(path.stem).suffix.lower()
    if suffix in COMPRESSED:
        return inner if inner in (*TEXT, *JSON) else None
    return suffix if suffix in SUFFIXES else None


@dataclass
class Meter:
    """How much of a file is read. file: open, as it lies on the disk, of `size` bytes."""

    file: Any = None
    size: int = 0

    def begin(self, file: Any, size: int) -> None:
        """Another file is read."""
        self.file, self.size = file, size

    @property
    def share(self) -> float:
        """0 to 1; 0 for a file that is closed."""
        return 0.0 if self.file is None or self.file.closed else self.file.tell() / max(self.size, 1)


def documents_of(path: Path, field: str, skip: int = 0, meter: Meter | None = None) -> Iterator[Document]:
    """A text file is one document; every row of the other kinds is one. skip: documents at the beginning that are
    left out, at the cost of reading them. Raises DataError for what cannot be read, and ReadError for what the system
    does not give."""
    kind, meter = kind_of_file(path), meter or Meter()
    if kind in TEXT:
        if not skip:
            yield text_document(path, meter)
    elif kind in JSON:
        yield from _json_rows(path, field, skip, meter)
    else:
        yield from _parquet_rows(path, field, skip, meter)


def check_beginning(path: Path, field: str) -> None:
    """Raises DataError where a file cannot be opened, its first bytes are no text, or its first row has no text under
    `field`."""
    kind = kind_of_file(path)
    if kind in TEXT:
        next(text_pieces(path, CHECKED_BYTES), None)
    elif kind in JSON:
        next(_json_rows(path, field), None)
    else:
        _check_column(path, field)


def text_document(path: Path, meter: Meter | None = None) -> Document:
    """A whole text file: in memory if it is short."""
    head, n, pieces = [], 0, text_pieces(path)
    for piece in pieces:
        head.append(piece)
        n += len(piece)
        if n > LONG_CHARS:
            return LongText(lambda: text_pieces(path, meter=meter))
    return "".join(head)


def text_pieces(path: Path, size: int | None = None, meter: Meter | None = None) -> Iterator[str]:
    """The text of a UTF-8 file in pieces of up to `size` (LONG_CHARS) bytes, without a byte-order mark, line breaks
    as \\n."""
    inner = codecs.getincrementaldecoder("utf-8")()
    decoder, done = io.IncrementalNewlineDecoder(inner, translate=True), 0
    with _opened(path, meter or Meter()) as file:
        while True:
            block = file.read(size or LONG_CHARS)
            begun = len(inner.getstate()[0])  # bytes of a character that the last block cut
            marked = done == 0 and block.startswith(BYTE_ORDER_MARK)
            try:
                text = decoder.decode(block[len(BYTE_ORDER_MARK) :] if marked else block, final=not block)
            except UnicodeDecodeError as error:
                at = done - begun + error.start + (len(BYTE_ORDER_MARK) if marked else 0)
                raise DataError(f"{path}: byte {at} is not UTF-8; allowed: UTF-8 text") from None
            if text:
                yield text
            if not block:
                return
            done += len(block)


def _json_rows(path: Path, field: str, skip: int = 0, meter: Meter | None = None) -> Iterator[str]:
    """One object per line; where the first line is no JSON, or begins an array, the values of the whole file."""
    if not _begins_array(path) and (yield from _rows_of_lines(path, field, skip, meter or Meter())):
        return
    for number, row in json_values(text_pieces(path, meter=meter), path):
        if number > skip:
            yield text_of_row(row, field, f"{path}: row {number}")


def _begins_array(path: Path) -> bool:
    """Whether an array is seen to begin, without reading it as a line, which it may be as a whole."""
    with _opened(path, Meter()) as file:
        return file.read(CHECKED_BYTES).removeprefix(BYTE_ORDER_MARK).lstrip().startswith(b"[")


def _rows_of_lines(path: Path, field: str, skip: int, meter: Meter) -> Generator[str, None, bool]:
    """One object per line; returns False, before any, where the file is none of these."""
    first, done = True, 0
    with _opened(path, meter) as file:
        for number, line in _lines(file):
            is_long = len(line) > MAX_ROW_CHARS
            if first and (is_long or line.removeprefix(BYTE_ORDER_MARK).lstrip().startswith(b"[")):
                return False
            if is_long:
                what = f"line {number} has more than {MAX_ROW_CHARS >> 20} MiB"
                raise DataError(f"{path}: {what}; allowed: shorter rows, {PIECES}")
            if not first and done < skip:
                done += not line.isspace()
                continue
            text = _line(path, line, number).strip()
            if not text:
                continue
            row = _parsed(text)
            if first and row is BROKEN:
                return False
            first, done = False, done + 1
            if done <= skip:
                continue
            if row is BROKEN:
                raise DataError(f"{path}: line {number} is no JSON; allowed: one JSON object per line, or one array")
            value = row.get(field) if type(row) is dict else None
            # the words of an error cost more than the row
            yield value if type(value) is str else text_of_row(row, field, f"{path}: line {number}")
    return True


def _lines(file: BinaryIO) -> Iterator[tuple[int, bytes]]:
    """Lines with their numbers from 1; of one that is too long, the beginning and no more."""
    number = 0
    while line := file.readline(MAX_ROW_CHARS + 1):
        number += 1
        yield number, line


BROKEN = object()


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return BROKEN


def _line(path: Path, line: bytes, number: int) -> str:
    try:
        return (line.removeprefix(BYTE_ORDER_MARK) if number == 1 else line).decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: line {number}, byte {error.start} is not UTF-8; allowed: UTF-8 text") from None


def json_values(pieces: Iterator[str], path: Path) -> Iterator[tuple[int, Any]]:
    """The elements of one array, or values that follow each other, each with its number from 1. Raises DataError for
    broken JSON."""
    decode = json.JSONDecoder().raw_decode
    text, at, number, in_array = "", 0, 0, False
    while True:
        between = SEPARATORS.match(text, at)
        at = at if between is None else between.end()
        if at == len(text):
            piece = next(pieces, None)
            if piece is None:
                break
            text, at = piece, 0
            continue
        if text[at] == "[" and number == 0 and not in_array:
            in_array, at = True, at + 1
            continue
        if text[at] == "]" and in_array:
            in_array, at = False, at + 1
            continue
        try:
            value, at = decode(text, at)
        except (ValueError, RecursionError):  # broken, or it goes on in the next piece: twice as much is tried
            more = _at_least(pieces, len(text) - at) if len(text) - at < MAX_ROW_CHARS else ""
            if not more:
                what = f"row {number + 1} is broken or has more than {MAX_ROW_CHARS >> 20} Mi characters"
                raise DataError(f"{path}: {what}; allowed: JSON, one object per row, {PIECES}") from None
            text, at = text[at:] + more, 0
            continue
        number += 1
        yield number, value
    if in_array:
        raise DataError(f"{path}: the array ends after row {number} without ]; allowed: complete JSON")


def _at_least(pieces: Iterator[str], n: int) -> str:
    found: list[str] = []
    size = 0
    while size < n and (piece := next(pieces, None)) is not None:
        found.append(piece)
        size += len(piece)
    return "".join(found)


def _check_column(path: Path, field: str) -> None:
    """Raises DataError where a Parquet file has no column of text called `field`."""
    import pyarrow as pa
    import pyarrow.parquet as pq
    from pyarrow import types

    def is_text(kind: pa.DataType) -> bool:
        inner = kind.value_type if types.is_dictionary(kind) else kind
        return types.is_string(inner) or types.is_large_string(inner) or types.is_string_view(inner)

    with _readable(path, "parquet"):
        schema = pq.read_schema(path)
    texts = [column.name for column in schema if is_text(column.type)]
    if field not in schema.names:
        columns = listed(texts or schema.names)
        raise DataError(f"{path}: no column {field!r}; allowed: {columns} (data.text_field)")
    column = schema.field(field)
    if not is_text(column.type) and not types.is_null(column.type):
        raise not_text(str(path), field, f"a column of {column.type}", texts)


def _parquet_rows(path: Path, field: str, skip: int, meter: Meter) -> Iterator[str]:
    import pyarrow.parquet as pq

    _check_column(path, field)
    # read page by page: a row group, of up to gigabytes, is not loaded as a whole
    with (
        open(path, "rb") as raw,
        _readable(path, "parquet"),
        pq.ParquetFile(raw, buffer_size=1 << 20, pre_buffer=False) as file,
    ):
        meter.begin(raw, path.stat().st_size)
        groups, sizes = 0, [file.metadata.row_group(i).num_rows for i in range(file.metadata.num_row_groups)]
        while groups < len(sizes) and sizes[groups] <= skip:
            skip, groups = skip - sizes[groups], groups + 1
        left = range(groups, len(sizes))
        for batch in file.iter_batches(columns=[field], batch_size=256, row_groups=left) if left else ():
            texts = batch.column(0).to_pylist()
            for text in texts[skip:]:
                yield text or ""
            skip = max(0, skip - len(texts))


@contextmanager
def _opened(path: Path, meter: Meter) -> Iterator[BinaryIO]:
    """A file's bytes, decompressed. Raises DataError where they cannot be read."""
    suffix = path.suffix.lower()
    with _readable(path, COMPRESSED.get(suffix, "")), open(path, "rb") as raw:
        size = path.stat().st_size
        meter.begin(raw, size)
        if suffix not in COMPRESSED:
            yield raw
            return
        if not size:  # some libraries take it for a file without text
            raise ValueError("an empty file")
        with _decompressed(raw, suffix) as file:
            yield file


def _decompressed(raw: BinaryIO, suffix: str) -> Any:
    if suffix == ".zst":
        import pyarrow as pa

        return io.BufferedReader(pa.CompressedInputStream(pa.PythonFile(raw, "r"), "zstd"), 1 << 20)  # type: ignore[arg-type]
    return {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}[suffix](raw, "rb")


@contextmanager
def _readable(path: Path, what: str = "") -> Iterator[None]:
    """Errors of the system become ReadErrors, those of a format's reader DataErrors. what: the format, where it has a
    reader."""
    of_format = (EOFError, ValueError, zlib.error, lzma.LZMAError) if what else ()
    try:
        yield
    except (OSError, *of_format) as error:
        if isinstance(error, OSError) and error.errno is not None:  # readers' own about the form have no number
            raise read_error(path, error) from None
        reason = next(iter(str(error).splitlines()), "") or type(error).__name__
        raise DataError(f"{path}: not readable{what and f' as {what}'} ({reason})") from None
