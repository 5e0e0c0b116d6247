"""From the folders that a command is given to the checkpoints that it probes."""

import re
from dataclasses import dataclass, replace
from pathlib import Path

from lcprobe.config import Config, parse
from lcprobe.errors import CheckpointError, ConfigError
from lcprobe.files import MANIFEST, verify_folder
from lcprobe.studies.status import read_run_config
from lcprobe.training.checkpoint import latest


@dataclass(frozen=True)
class ProbeTarget:
    """A checkpoint to probe, and the run that it comes from (run_folder None: not in a run's folder)."""

    name: str
    checkpoint: Path
    config: Config
    run_folder: Path | None


def find_targets(folders: list[Path]) -> list[ProbeTarget]:
    """Targets of study, run and checkpoint folders. Raises ConfigError for another folder, CheckpointError for a
    damaged one."""
    targets: list[ProbeTarget] = []
    for folder in folders:
        if (folder / "model.safetensors").is_file():
            run_folder = folder.parent.parent if folder.parent.name == "checkpoints" else None
            targets.append(_target(folder, run_folder))
        elif (folder / "checkpoints").is_dir():
            checkpoint = latest(folder / "checkpoints")
            if checkpoint is None:
                raise CheckpointError(f"{folder}: no checkpoint yet; allowed: a run that was trained")
            targets.append(_target(checkpoint, folder))
        elif (folder / "study.yaml").is_file():
            found = (p.parent for p in folder.glob("*/config.yaml") if (p.parent / "checkpoints").is_dir())
            runs = sorted(found, key=_natural)
            if not runs:
                raise CheckpointError(
                    f"{folder}: no trained run yet; allowed: train.py {folder / 'study.yaml'} first"
                )
            targets += find_targets(runs)
        else:
            raise ConfigError(
                "command line", str(folder), "a config, a study folder, a run folder, or a checkpoint folder"
            )
    names = [t.name for t in targets]
    ambiguous = {n for n in names if names.count(n) > 1}
    if ambiguous:  # runs of two studies: their folders tell them apart
        targets = [replace(t, name=_long_name(t)) if t.name in ambiguous else t for t in targets]
    return targets


def _long_name(target: ProbeTarget) -> str:
    folder = target.run_folder or target.checkpoint
    tail = f"@{target.checkpoint.name}" if target.run_folder is None else ""
    return f"{folder.parent.name}.{folder.name}{tail}"


def _target(checkpoint: Path, run_folder: Path | None) -> ProbeTarget:
    damage = verify_folder(checkpoint)[1] if (checkpoint / MANIFEST).is_file() else "no manifest.json"
    if damage:
        raise CheckpointError(f"{checkpoint}: {damage}; allowed: a checkpoint as train.py wrote it")
    config = parse(read_run_config(checkpoint))
    return ProbeTarget(config.study.run or (run_folder or checkpoint).name, checkpoint, config, run_folder)


def _natural(folder: Path) -> list[tuple[int, str]]:
    """Sorts L64 before L128: the parts of a name, numbers by their value."""
    return [(int(part), "") if part.isdigit() else (0, part) for part in re.split(r"(\d+)", folder.name)]
