"""Ids of W&B runs. An id is that of the study, then a digest of the run's place in the study's folder and of its job
type, so that a run that is resumed, requeued or probed again, on whatever machine, is the same run in W&B.

The id of a study is drawn once and kept in its folder (wandb_study.json), with the folder's place. Two studies of one
name have different ids. A folder that was moved keeps its id; a copy beside its original gets its own, since both may
go on. Where the file is lost, the id is read from the names of the W&B folders in the study.
"""

import os
import re
import secrets
from pathlib import Path
from typing import Any

from lcprobe.files import digest_json, read_json, write_json
from lcprobe.locks import process_tag

IDENTITY = "wandb_study.json"
DIGITS = 10
_RUN = re.compile(rf"(?:offline-)?run-(\d{{8}}_\d{{6}})-([0-9a-f]{{{DIGITS}}})-[0-9a-f]{{{DIGITS}}}")
"""Name of a W&B folder: when it was begun, and the ids of study and run."""


def run_id(study: Path, run: str, job_type: str) -> str:
    """The id of a run. run: its folder within that of the study, `mamba2` or `sweep/mamba2-lr0.01-s0`; empty: what is
    of the whole study."""
    return f"{study_id(study)}-{digest_json([run, job_type])[:DIGITS]}"


def study_id(study: Path) -> str:
    """The id of the study in a folder, drawn at the first call."""
    place, known = str(study.resolve()), _read(study)
    if not known:
        _create(study, {"id": _from_folders(study) or secrets.token_hex(DIGITS // 2), "place": place})
        known = _read(study)
    if known["place"] != place:
        own = digest_json([known["id"], place])[:DIGITS] if _is_copy(study, known) else known["id"]
        known = {"id": own, "place": place}
        write_json(study / IDENTITY, known)
    return known["id"]


def _create(study: Path, facts: dict[str, str]) -> None:
    """Write the file, unless another process has just done so: runs of a study may begin at once."""
    study.mkdir(parents=True, exist_ok=True)
    path, temporary = study / IDENTITY, study / f".{IDENTITY}.{secrets.token_hex(4)}.{process_tag()}.tmp"
    if path.exists():
        if not _read(study):  # it is broken, and not of a process that was faster
            write_json(path, facts)
        return
    write_json(temporary, facts)
    try:
        os.link(temporary, path)
    except FileExistsError:
        pass
    except OSError:  # a file system without links
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _read(study: Path) -> dict[str, Any]:
    """What the study's file says; empty where it says nothing."""
    try:
        known = read_json(study / IDENTITY)
        return known if isinstance(known["id"], str) and isinstance(known["place"], str) else {}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def _is_copy(study: Path, known: dict[str, Any]) -> bool:
    """Whether the folder that the file was written for is still there, as another one with the same id."""
    original = Path(known["place"])
    return _read(original).get("id") == known["id"] and not original.samefile(study)


def _from_folders(study: Path) -> str | None:
    """The id of the study in the name of its newest W&B folder; None where it has none."""
    names = [path.name for depth in ("", "*/", "*/*/") for path in study.glob(f"{depth}wandb/*run-*")]
    found = [match.groups() for name in names if (match := _RUN.fullmatch(name))]
    return max(found)[1] if found else None
