"""Which files of a folder are data: the others are passed over by name and reason, or refused."""

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from lcprobe.data.sources.file_kinds import COMPRESSED, JSON, PARQUET, TEXT, kind_of_file
from lcprobe.errors import DataError, ReadError, read_error

ABOUT_DATA = ("readme", "license", "licence", "notice", "citation", "changelog", "contributing", "authors", "copying")
"""Names of text files that are about data, where rows lie beside them."""
METADATA = ("dataset_info", "dataset_infos", "dataset_dict", "state")
"""Names of JSON files that `datasets` writes beside data."""
SHOWN_NAMES = 3
SYSTEM_FOLDERS = ("__macosx", "@eadir", "$recycle.bin", "system volume information", "lost+found", "_temporary")
"""Folders, in lower case, in which archivers, disks and unfinished jobs keep copies and parts of files."""


@dataclass
class Listing:
    """What is at a path. files: to be read, in order; passed_over: names by the reason why they are not."""

    files: list[Path] = field(default_factory=list)
    passed_over: dict[str, list[str]] = field(default_factory=dict)

    def pass_over(self, reason: str, name: str) -> None:
        """Note a file that is not read."""
        self.passed_over.setdefault(reason, []).append(name)

    def notes(self, where: str) -> list[str]:
        """What is passed over, by reason, in a line; none where everything is read."""
        reasons = []
        for reason, names in self.passed_over.items():
            more = ", ..." if len(names) > SHOWN_NAMES else ""
            reasons.append(f"{len(names)} {reason} ({', '.join(names[:SHOWN_NAMES])}{more})")
        return [f"{where}: passed over {'; '.join(reasons)}"] if reasons else []


def list_folder(folder: Path) -> Listing:
    """The files below a folder; links to folders are followed. Raises DataError as `files_below` and `sort_out`."""
    return sort_out(sorted(files_below(folder)), folder)


def files_below(folder: Path) -> Iterator[Path]:
    """Every file below a folder, those in linked folders included, each folder once. Raises DataError for a folder
    that cannot be read."""

    def stop(error: OSError) -> None:
        raise _unreadable(Path(error.filename), error) from None

    seen: set[str] = set()
    for inside, folders, names in os.walk(folder, onerror=stop, followlinks=True):
        real = os.path.realpath(inside)
        if real in seen:  # a link to a folder above
            folders.clear()
            continue
        seen.add(real)
        yield from (Path(inside, name) for name in names)


def sort_out(paths: list[Path], folder: Path) -> Listing:
    """Which of the files are data. Raises DataError for a link to nothing and for a pipe, socket or device among
    them."""
    found = Listing()
    rows_beside = any(kind_of_file(path) in (*JSON, *PARQUET) and _no_data(path, folder) is None for path in paths)
    for path in paths:
        name, stem = _relative(path, folder).as_posix(), path.name.split(".")[0].lower()
        if (reason := _no_data(path, folder)) is not None:
            found.pass_over(reason, name)
        elif (kind := kind_of_file(path)) is None:
            found.pass_over("with another ending", name)
        elif (kind in JSON and stem in METADATA) or (kind in TEXT and rows_beside and stem in ABOUT_DATA):
            found.pass_over("about the data", name)
        else:
            refuse_irregular(path)
            found.files.append(path)
    return found


def refuse_irregular(path: Path) -> None:
    """Raises DataError for what is there and is no file."""
    if not path.is_file():
        nothing = path.is_symlink() and not path.exists()
        what = "a link that leads to nothing" if nothing else "a pipe, socket or device"
        raise DataError(f"{path}: {what}; allowed: files, and links to files")


def refuse_twice(paths: list[Path]) -> None:
    """Raises DataError for text that would be read twice: a file beside its own compressed copy, as an interrupted
    gunzip leaves it, or beside another one, and two names of one file."""
    seen: dict[Path | tuple[int, int], Path] = {}
    for path in paths:
        stat = _stat(path)
        bare = path.with_suffix("") if path.suffix.lower() in COMPRESSED else path
        for key, how in ((bare, "lies beside"), ((stat.st_dev, stat.st_ino), "is the same file as")):
            other = seen.setdefault(key, path)
            if other is not path:
                shown = other.name if other.parent == path.parent else other
                raise DataError(f"{path}: {how} {shown}; allowed: one of them, or text is read twice")


def file_facts(paths: list[Path]) -> list[list[str | int]]:
    """Path, size and modification time of each file. Raises DataError for one that is not there any more."""
    stats = [(path, _stat(path)) for path in paths]
    return [[path.resolve().as_posix(), stat.st_size, stat.st_mtime_ns] for path, stat in stats]


def _stat(path: Path) -> os.stat_result:
    try:
        return path.stat()
    except OSError as error:
        raise _unreadable(path, error) from None


def _unreadable(path: Path, error: OSError) -> ReadError:
    return read_error(path, error, "files and folders that this user can read")


def _no_data(path: Path, folder: Path) -> str | None:
    """Why a file's name, or one of the folders that it is in, says that it is no data: .a, ~$a, #a#, a~,
    a-checkpoint, __MACOSX/a; None where it does not."""
    parts = _relative(path, folder).parts
    autosaved = path.name.endswith(("~", "#")) or path.name.split(".")[0].endswith("-checkpoint")
    if autosaved or any(part.startswith((".", "~$", "#")) for part in parts):
        return "hidden or autosaved"
    return "in a system's folder" if any(part.lower() in SYSTEM_FOLDERS for part in parts[:-1]) else None


def _relative(path: Path, folder: Path) -> Path:
    return path.relative_to(folder) if path.is_relative_to(folder) else path
