"""Atomic files and folders: written next to the target, fsynced, renamed; a manifest has their digests."""

import hashlib
import json
import math
import os
import re
import shutil
import time
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from lcprobe.errors import ConfigError, require
from lcprobe.locks import is_tag_gone, process_tag

SAFE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+=-]{0,99}")
MANIFEST = "manifest.json"
WEIGHTS, INDEX = "model.safetensors", "{}.index.json"
"""Files of a checkpoint: all weights in one, or the index of `model` or `optimizer`, divided over several."""
MAX_NAME_BYTES, MAX_PATH_BYTES = 255, 3500
"""Of a file's or folder's name, and of a path, which has room for what is put below it: file systems take 4,096."""
TAG_BYTES = 60
"""What is put behind a file's name while it is written, at most."""
DAY_SECONDS = 24 * 3600


def check_name(key: str, name: str) -> str:
    """Return a name that is safe as a file or folder name. Raises ConfigError for any other."""
    if not isinstance(name, str) or not SAFE_NAME.fullmatch(name):
        raise ConfigError(key, name, "letters, digits and . _ + = - (at most 100, starting with a letter or digit)")
    return name


def check_path(key: str, path: str, written: bool = False) -> None:
    """Raises ConfigError for an empty path, and for one that no file system can have. written: whether a file is
    written there, under a longer name first."""
    require(key, path, bool(path.strip()), "a path (. is the working directory)")
    longest = MAX_NAME_BYTES - TAG_BYTES * written
    try:
        names = [len(os.fsencode(name)) for name in path.split(os.sep)]
    except UnicodeEncodeError:
        raise ConfigError(key, path, "a path of valid characters") from None
    require(key, path, "\0" not in path, "a path without NUL characters")
    fits = max(names) <= longest and sum(names) + len(names) <= MAX_PATH_BYTES
    require(key, path, fits, f"a path of at most {MAX_PATH_BYTES} bytes, of names of at most {longest}")


def check_new_file(key: str, path: str) -> None:
    """As `check_path` for a file that is written, and raises ConfigError for a folder."""
    check_path(key, path, written=True)
    require(key, path, not os.path.isdir(path), "the name of a file, and no folder's")


def digest_bytes(*parts: bytes) -> str:
    """SHA-256 over the parts, each preceded by its length, as hex."""
    return _digest(parts).hexdigest()


def digest_pieces(*before: bytes, size: int, pieces: Iterable[bytes]) -> str:
    """`digest_bytes(*before, whole)` of a whole that comes in pieces. size: its bytes."""
    digest = _digest(before)
    digest.update(size.to_bytes(8, "little"))
    for piece in pieces:
        digest.update(piece)
    return digest.hexdigest()


def _digest(parts: Iterable[bytes]) -> "hashlib._Hash":
    whole = hashlib.sha256()
    for part in parts:
        whole.update(len(part).to_bytes(8, "little"))
        whole.update(part)
    return whole


def digest_json(value: Any) -> str:
    """Digest of a JSON-serialisable value, independent of the order of keys."""
    return digest_bytes(json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode())


def digest_file(path: Path) -> str:
    """SHA-256 of a file's bytes."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest_source(*packages: str) -> str:
    """Digest of the Python source of packages, over file names and contents: identifies the version of the code."""
    import importlib.util

    parts: list[bytes] = []
    for package in packages:
        spec = importlib.util.find_spec(package)
        for folder in (spec.submodule_search_locations or []) if spec else []:
            for path in sorted(Path(folder).rglob("*.py")):
                parts += [path.relative_to(folder).as_posix().encode(), path.read_bytes()]
    return digest_bytes(*parts)


def sync_folder(folder: Path) -> None:
    """Fsync a folder, so that renames in it are durable."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_atomic(path: Path, content: bytes | str) -> None:
    """Write a file atomically."""
    with atomic_file(path) as file:
        file.write(content.encode() if isinstance(content, str) else content)


@contextmanager
def atomic_file(path: Path) -> Iterator[BinaryIO]:
    """A file to write to, which appears under its name when the block has ended without an error."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{process_tag()}.tmp")
    try:
        with open(temporary, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    sync_folder(path.parent)


def remove_leftovers(folder: Path, below: bool = True) -> None:
    """Delete the files that killed processes were writing when they ended, in a folder and (below) in those inside;
    what another machine wrote is left for a day."""
    for path in folder.rglob(".*.tmp") if below else folder.glob(".*.tmp"):
        gone = is_tag_gone(path.name.removesuffix(".tmp").rpartition(".")[2])
        with suppress(OSError):  # deleted by another process, or not ours
            if path.is_file() and (gone or (gone is None and time.time() - path.stat().st_mtime > DAY_SECONDS)):
                path.unlink()


def write_json(path: Path, value: Any) -> None:
    """Write indented JSON atomically."""
    write_atomic(path, json.dumps(value, indent=1, sort_keys=False, ensure_ascii=False) + "\n")


def finite(value: Any) -> Any:
    """A value as JSON has it, which knows neither NaN nor infinity: null, in lists and mappings too."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, list | tuple):
        return [finite(one) for one in value]
    return {key: finite(one) for key, one in value.items()} if isinstance(value, dict) else value


def read_json(path: Path) -> Any:
    """The value of a JSON file."""
    return json.loads(path.read_text(encoding="utf-8"))


def has_weights(folder: Path) -> bool:
    """Whether a folder is a checkpoint that train.py wrote, in one file or several."""
    return (folder / WEIGHTS).is_file() or (folder / INDEX.format("model")).is_file()


def publish_folder(
    temporary: Path,
    final: Path,
    facts: dict[str, Any],
    written: Mapping[str, Mapping[str, Any]] | None = None,
    drop: Collection[str] = (),
) -> None:
    """Rename a finished temporary folder to `final`, after fsyncing it and writing a manifest with one digest per
    file.

    facts: added to the manifest; written: bytes and digests of files that others wrote durably, by name; drop: names
    of files that are deleted right before. An existing `final` is replaced.
    """
    files = dict(written or {})
    for path in sorted(p for p in temporary.rglob("*") if p.is_file() and p.name not in drop):
        name = path.relative_to(temporary).as_posix()
        if name in files:
            continue
        with open(path, "rb+") as file:
            os.fsync(file.fileno())
        files[name] = {"bytes": path.stat().st_size, "sha256": digest_file(path)}
    write_json(temporary / MANIFEST, {**facts, "files": files})
    for name in drop:
        (temporary / name).unlink(missing_ok=True)
    sync_folder(temporary)
    if final.exists():
        shutil.rmtree(final)
    os.rename(temporary, final)
    sync_folder(final.parent)


NOT_A_FILE = (FileNotFoundError, NotADirectoryError, IsADirectoryError)
"""What a system says of a file that is not there."""


def verify_folder(folder: Path, without: Collection[str] = ()) -> tuple[dict[str, Any], str | None]:
    """The manifest of a published folder, and why the folder does not match it; None where it does. without: names
    of files that may be other ones. Raises OSError where a file is there and cannot be read now (too many open
    files, a stale handle): what may be whole is not called damaged."""
    try:
        manifest = read_json(folder / MANIFEST)
        files = manifest["files"]
        for name, fact in files.items():
            if name in without:
                continue
            path = folder / name
            if not path.is_file():
                return manifest, f"{name} is missing"
            if path.stat().st_size != fact["bytes"]:
                return manifest, f"{name} has {path.stat().st_size} bytes instead of {fact['bytes']}"
            if digest_file(path) != fact["sha256"]:
                return manifest, f"{name} does not match its digest"
    except (*NOT_A_FILE, ValueError, KeyError, TypeError, AttributeError) as error:
        return {}, f"manifest unreadable ({type(error).__name__})"
    return manifest, None
