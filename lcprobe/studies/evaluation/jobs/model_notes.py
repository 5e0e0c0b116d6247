"""What the report says of a model that only a loaded one can tell, kept so that a rerun need not load it."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lcprobe.files import read_json, write_json
from lcprobe.models.bias_curves import bias_curves
from lcprobe.studies.evaluation.sources import Loaded


@dataclass(frozen=True)
class ModelNotes:
    """biases: of attention by distance, as `bias_curves` gives them. engine: how its engine reads, empty where that
    is not worth a line."""

    biases: list[dict[str, Any]]
    engine: str


def notes_of(loaded: Loaded, longest: int, more: Sequence[str]) -> ModelNotes:
    """The notes of a model that has read what it had to. longest: of the lengths; more: what else is said."""
    curves = [] if loaded.module is None else bias_curves(loaded.module, longest)
    return ModelNotes(curves, "; ".join(note for note in (loaded.note(), *more) if note))


def write_notes(path: Path, notes: ModelNotes) -> None:
    """Write notes atomically."""
    write_json(path, asdict(notes))


def read_notes(path: Path) -> ModelNotes:
    """Notes as they were written."""
    return ModelNotes(**read_json(path))
