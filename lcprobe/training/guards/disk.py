"""Room on the disk for checkpoints."""

import errno
import shutil
from pathlib import Path

from lcprobe.training.checkpoint import checkpoints

BYTES_OF_PARAMETER = 12
"""A weight and two moments, in float32."""
MARGIN = 1.2


def require_room(folder: Path, parameters: int, keep: int) -> None:
    """Raises OSError where there is no room for `keep` checkpoints in a folder of them and one that is being written;
    those that are there already take none."""
    count = max(1, keep + 1 - len(checkpoints(folder)))
    needed, free = count * bytes_of_checkpoint(parameters), free_bytes(folder)
    if free < needed:
        allowed = f"{_size(needed)} for {count} checkpoints of {parameters:,} parameters"
        remedy = "a smaller train.keep, or a study.folder on another disk"
        raise OSError(errno.ENOSPC, f"{_size(free)} free on the disk; allowed: >= {allowed} ({remedy})", str(folder))


def require_room_to_save(folder: Path, parameters: int) -> None:
    """Raises OSError where there is no room for one checkpoint."""
    needed, free = bytes_of_checkpoint(parameters), free_bytes(folder)
    if free < needed:
        raise OSError(
            errno.ENOSPC, f"{_size(free)} free on the disk, a checkpoint takes {_size(needed)}", str(folder)
        )


def bytes_of_checkpoint(parameters: int) -> int:
    """Of a checkpoint, with a margin."""
    return int(parameters * BYTES_OF_PARAMETER * MARGIN)


def free_bytes(folder: Path) -> int:
    """Free for this user where a folder is or will be."""
    there = next(path for path in (folder.resolve(), *folder.resolve().parents) if path.exists())
    return shutil.disk_usage(there).free


def _size(count: int) -> str:
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000  # type: ignore[assignment]
    return f"{count:,.3g} GB" if count < 1000 else f"{count / 1000:,.3g} TB"
