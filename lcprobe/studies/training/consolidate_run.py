"""`lcprobe consolidate`: the newest checkpoint of runs, or checkpoints, in the form that one process writes."""

from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

from lcprobe.errors import CheckpointError
from lcprobe.files import has_weights
from lcprobe.locks import folder_lock
from lcprobe.training.checkpoint import damage_of, latest
from lcprobe.training.tensors.consolidate import consolidate, weights_digest


def consolidate_folders(folders: Sequence[Path]) -> list[str]:
    """Consolidate one after the other, in place, and return a line on each. Raises CheckpointError for a damaged
    checkpoint or none, LockedError for a run that is being trained, OSError where there is no room."""
    return [_consolidated(folder) for folder in folders]


def _consolidated(folder: Path) -> str:
    run = folder if (folder / "checkpoints").is_dir() else None
    if run is None and folder.parent.name == "checkpoints":
        run = folder.parent.parent
    with nullcontext() if run is None else folder_lock(run):
        checkpoint = folder if has_weights(folder) else latest(folder / "checkpoints")
        if checkpoint is None:
            raise CheckpointError(f"{folder}: no checkpoint; allowed: a run's folder, or a checkpoint's")
        damage = damage_of(checkpoint)
        if damage is not None:
            raise CheckpointError(f"{checkpoint}: {damage}")
        said = "consolidated" if consolidate(checkpoint) else "is in one file already"
        return f"{checkpoint}: {said} (weights {weights_digest(checkpoint)[:16]})"
