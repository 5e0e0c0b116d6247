"""Local files: text, JSON lines and Parquet, one file or a folder of them."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from lcprobe.data.sources.contract import Source, non_empty
from lcprobe.errors import ConfigError, DataError

SUFFIXES = (".txt", ".md", ".jsonl", ".json", ".parquet")


@dataclass(frozen=True)
class FilesConfig:
    """Settings of local files."""

    path: str
    """Path of a file that ends in .txt .md .jsonl .json .parquet, or of a folder that is searched for such files."""


class Files(Source[FilesConfig]):
    """A file, or the files of a folder in order of their paths."""

    Config = FilesConfig

    def check(self) -> None:
        """Raises ConfigError for a path that is neither such a file nor a folder with one."""
        self.paths()

    def paths(self) -> list[Path]:
        """The files in reading order. Raises ConfigError as `check` does."""
        name, path = self.config.path, Path(self.config.path)
        if path.is_dir():
            inside = sorted(p for p in path.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file())
            if not inside:
                raise ConfigError("data.corpus", name, f"a folder with files that end in {' '.join(SUFFIXES)}")
            return inside
        if path.is_file() and path.suffix.lower() in SUFFIXES:
            return [path]
        allowed = f"sotu, an existing folder or {' '.join(SUFFIXES)} file, or hf:name"
        raise ConfigError("data.corpus", name, allowed)

    def fingerprint(self) -> list[list[str | int]]:
        """Path, size and modification time of each file."""
        stats = [(path, path.stat()) for path in self.paths()]
        return [[path.resolve().as_posix(), stat.st_size, stat.st_mtime_ns] for path, stat in stats]

    def documents(self, field: str) -> Iterator[str]:
        """A text file is one document; every row of the other kinds is one."""
        for path in self.paths():
            if path.suffix.lower() in (".txt", ".md"):
                yield from non_empty(_text(path))
            elif path.suffix.lower() in (".jsonl", ".json"):
                yield from _json_rows(path, field)
            else:
                yield from _parquet_rows(path, field)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: byte {error.start} is not UTF-8; allowed: UTF-8 text") from None


def _json_rows(path: Path, field: str) -> Iterator[str]:
    for number, line in enumerate(_text(path).split("\n"), 1):
        if not line.strip():
            continue
        try:
            text = json.loads(line)[field]
        except (ValueError, KeyError, TypeError):
            text = None
        if not isinstance(text, str):
            raise DataError(f"{path}: line {number} has no text under {field!r}; allowed: one JSON object per line")
        yield from non_empty(text)


def _parquet_rows(path: Path, field: str) -> Iterator[str]:
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(path)
        names = file.schema_arrow.names
        if field not in names:
            raise DataError(f"{path}: no column {field!r}; allowed: {' | '.join(names)} (data.text_field)")
        for batch in file.iter_batches(columns=[field], batch_size=256):
            for text in batch.column(0).to_pylist():
                yield from non_empty(text or "")
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: not readable as parquet ({type(error).__name__})") from None
