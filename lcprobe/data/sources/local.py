"""Local files: text, JSON and Parquet; one file, a folder of them, or a pattern such as `shards/*.parquet`."""

import glob
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from lcprobe.data.documents import Document
from lcprobe.data.sources.contract import Place, Source, SourceConfig
from lcprobe.data.sources.file_kinds import ENDINGS, Meter, check_beginning, documents_of, kind_of_file
from lcprobe.data.sources.listing import Listing, file_facts, list_folder, refuse_irregular, refuse_twice, sort_out
from lcprobe.errors import ConfigError
from lcprobe.files import check_path


@dataclass(frozen=True)
class FilesConfig(SourceConfig):
    """Settings of local files."""

    path: str
    """Path of a file that ends in .txt .md .jsonl .json .parquet (all but .parquet may be compressed: .gz .zst .bz2
    .xz), of a folder that is searched for such files, or a pattern such as shards/*.parquet."""

    def check(self, at: str) -> None:
        """Raises ConfigError for an empty path, and for one that no file system can have."""
        super().check(at)
        check_path(f"{at}.path", self.path)


class Files(Source[FilesConfig]):
    """A file, or the files of a folder or pattern in order of their paths."""

    Config = FilesConfig

    def __init__(self, config: FilesConfig):
        super().__init__(config)
        self._meter, self._sizes, self._number = Meter(), [0], 0

    def check(self, field: str) -> None:
        """Raises ConfigError for a path with no such file; DataError for links to nothing, for text that is there
        twice, and where the beginning of a file cannot be read or its first row has no text under `field`."""
        for path in self._listing().files:
            check_beginning(path, field)

    def fingerprint(self) -> list[list[str | int]]:
        """Path, size and modification time of each file."""
        return file_facts(self._listing().files)

    def documents(self, field: str) -> Iterator[Document]:
        """A text file is one document; every row of the other kinds is one."""
        return self.documents_from(field, [])

    def documents_from(self, field: str, place: Place) -> Iterator[Document]:
        """See Source. A place is the number of a file and of the rows that are done in it: files before it are not
        opened."""
        first, skip = place or (0, 0)
        files = self._listing().files
        self._sizes = [path.stat().st_size for path in files]
        for self._number in range(first, len(files)):
            done = skip if self._number == first else 0
            place[:] = [self._number, done]
            for document in documents_of(files[self._number], field, done, self._meter):
                place[1] += 1
                yield document
        self._number = len(files)

    def size(self) -> int:
        """Of the files."""
        return sum(path.stat().st_size for path in self._listing().files)

    def share_read(self) -> float:
        """Of the bytes on the disk."""
        read = sum(self._sizes[: self._number])
        if self._number < len(self._sizes):
            read += self._meter.share * self._sizes[self._number]
        return read / max(sum(self._sizes), 1)

    def notes(self) -> list[str]:
        """The files that are passed over, by reason."""
        return self._listing().notes(self.config.path)

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
            found = sort_out([match for match in matches if not match.is_dir()], _fixed_part(name))
            if not found.files:
                raise ConfigError("data.corpus", name, f"a pattern of files that end in {ENDINGS}")
        else:
            if os.path.lexists(path):
                refuse_irregular(path)
            raise ConfigError("data.corpus", name, f"sotu, an existing folder or file ({ENDINGS}), or hf:name")
        refuse_twice(found.files)
        return found


def _fixed_part(pattern: str) -> Path:
    """The folder of a pattern above its first wildcard."""
    parts = Path(pattern).parts
    return Path(*parts[: next(i for i, part in enumerate(parts) if glob.has_magic(part))])
