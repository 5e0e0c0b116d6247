"""What killed preparations left beside prepared corpora."""

import logging
import re
import shutil
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from lcprobe.data.preparing.writing import STATE
from lcprobe.errors import LockedError
from lcprobe.files import DAY_SECONDS, read_json, remove_leftovers
from lcprobe.locks import file_lock

DIGEST_NAME = re.compile(r"\.[0-9a-f]{16}\.(tmp|owner)")
"""What a preparation in progress has beside the folder that it makes."""
KEPT_DAYS = 7
"""How long what a killed preparation wrote is kept for the same command to go on from."""
log = logging.getLogger(__name__)


def remove_unfinished(folder: Path) -> None:
    """Delete what killed preparations left that cannot be gone on from, or was not for a week: of those that no
    process holds the lock of."""
    for name in {
        path.name.removesuffix(".tmp").removesuffix(".owner")
        for path in folder.glob(".*")
        if DIGEST_NAME.fullmatch(path.name)
    }:
        # OSError: the data may be somebody else's, and read-only
        with suppress(LockedError, OSError), file_lock(folder / f"{name}.owner", name):
            state = folder / f"{name}.tmp" / STATE
            if not state.is_file() or time.time() - state.stat().st_mtime > KEPT_DAYS * DAY_SECONDS:
                shutil.rmtree(folder / f"{name}.tmp", ignore_errors=True)
    for inside in (folder, folder / "episodes"):  # not all below: data.folder may be a disk
        remove_leftovers(inside, below=False)


def drop_changed(temporary: Path, about: Mapping[str, Any]) -> None:
    """Delete what a killed preparation left of these sources as they were before they changed."""
    for state in temporary.parent.glob(f".*.tmp/{STATE}"):
        if state.parent == temporary:
            continue
        with suppress(LockedError, OSError, ValueError):
            left = read_json(state)
            if all(left.get(key) == value for key, value in about.items()):
                with file_lock(state.parent.with_suffix(".owner"), state.parent.name):
                    log.info("%s: changed since preparing began: it starts over", " ".join(about["corpus"]))
                    shutil.rmtree(state.parent)
