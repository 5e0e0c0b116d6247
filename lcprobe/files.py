"""Files that are either whole or absent: write beside the target, fsync, rename; digests say what was written."""

import hashlib
import json
import os
import re
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lcprobe.errors import ConfigError, LockedError

SAFE_NAME = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._+-]{0,99}$")
MANIFEST = "manifest.json"


def check_name(key: str, name: str) -> str:
    """A name that may become a file or folder name. Raises ConfigError for anything that could leave its folder."""
    if not isinstance(name, str) or not SAFE_NAME.match(name):
        raise ConfigError(key, name, "letters, digits and . _ + - (at most 100, starting with a letter or digit)")
    return name


def digest_bytes(*parts: bytes) -> str:
    """SHA-256 over the parts, each preceded by its length, as hex."""
    whole = hashlib.sha256()
    for part in parts:
        whole.update(len(part).to_bytes(8, "little"))
        whole.update(part)
    return whole.hexdigest()


def digest_json(value: Any) -> str:
    """Digest of a JSON-able value, independent of key order."""
    return digest_bytes(json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode())


def digest_file(path: Path) -> str:
    """SHA-256 of a file's bytes."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest_source(*packages: str) -> str:
    """Digest of the Python source of packages, by file name and content: the code version in a record."""
    import importlib.util

    parts: list[bytes] = []
    for package in packages:
        spec = importlib.util.find_spec(package)
        for folder in (spec.submodule_search_locations or []) if spec else []:
            for path in sorted(Path(folder).rglob("*.py")):
                parts += [path.relative_to(folder).as_posix().encode(), path.read_bytes()]
    return digest_bytes(*parts)


def sync_folder(folder: Path) -> None:
    """Make renames in a folder durable."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_atomic(path: Path, content: bytes | str) -> None:
    """Write a file whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    data = content.encode() if isinstance(content, str) else content
    try:
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    sync_folder(path.parent)


def write_json(path: Path, value: Any) -> None:
    """`write_atomic` of indented JSON."""
    write_atomic(path, json.dumps(value, indent=1, sort_keys=False, ensure_ascii=False) + "\n")


def read_json(path: Path) -> Any:
    """A JSON file's value."""
    return json.loads(path.read_text(encoding="utf-8"))


def publish_folder(temporary: Path, final: Path, facts: dict[str, Any]) -> None:
    """Turn a finished temporary folder into `final`: manifest with a digest per file written last, fsync, rename.

    `facts` joins the manifest. An existing `final` is replaced.
    """
    files = {}
    for path in sorted(p for p in temporary.rglob("*") if p.is_file()):
        with open(path, "rb+") as file:
            os.fsync(file.fileno())
        files[path.relative_to(temporary).as_posix()] = {"bytes": path.stat().st_size, "sha256": digest_file(path)}
    write_json(temporary / MANIFEST, {**facts, "files": files})
    sync_folder(temporary)
    if final.exists():
        shutil.rmtree(final)
    os.rename(temporary, final)
    sync_folder(final.parent)


def verify_folder(folder: Path) -> tuple[dict[str, Any], str | None]:
    """A published folder's manifest and, when the folder is not what the manifest says, the reason."""
    try:
        manifest = read_json(folder / MANIFEST)
        files = manifest["files"]
        for name, fact in files.items():
            path = folder / name
            if not path.is_file():
                return manifest, f"{name} is missing"
            if path.stat().st_size != fact["bytes"]:
                return manifest, f"{name} has {path.stat().st_size} bytes, the manifest says {fact['bytes']}"
            if digest_file(path) != fact["sha256"]:
                return manifest, f"{name} does not match its digest"
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return {}, f"manifest unreadable ({type(error).__name__})"
    return manifest, None


@contextmanager
def owned(folder: Path) -> Iterator[None]:
    """Own a folder while the block runs, by an exclusively created file.

    Raises LockedError when a living process owns it; takes over from a dead one on the same host.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = folder / ".owner"
    me = {"host": socket.gethostname(), "pid": os.getpid()}
    for _ in range(3):
        try:
            handle = os.open(lock, os.O_CREAT | os.O_EXCL | os.O_WRONLY)
        except FileExistsError:
            try:
                owner = read_json(lock)
            except (OSError, ValueError):
                owner = {}
            if owner.get("host", me["host"]) != me["host"] or _alive(owner.get("pid")):
                raise LockedError(
                    f"{folder}: owned by process {owner.get('pid')} on {owner.get('host')}; "
                    f"allowed: one process a folder (delete {lock.name} if that process is gone)"
                ) from None
            lock.unlink(missing_ok=True)
            continue
        with os.fdopen(handle, "w") as file:
            json.dump(me, file)
        break
    else:
        raise LockedError(f"{folder}: could not be owned; allowed: one process a folder")
    try:
        yield
    finally:
        lock.unlink(missing_ok=True)


def _alive(pid: object) -> bool:
    if not isinstance(pid, int) or pid == os.getpid():
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
