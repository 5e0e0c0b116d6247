"""Where a run's weights come from when not from its seed: `train.from`, a folder, or a sibling run of the same study.

In a grid, `train: {from: base}` under one label of an axis names another label of it: the run that is alike but for that label,
which is trained first.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from lcprobe.config import Config
from lcprobe.errors import CheckpointError, ConfigError
from lcprobe.models.language_model import LanguageModel
from lcprobe.training.checkpoint import latest, load_model


def source_of(config: Config) -> Path | None:
    """The checkpoint that a run starts from. Raises ConfigError where train.from is none, or of another model."""
    if config.train.from_ is None:
        return None
    folder = Path(config.train.from_)
    found = folder if (folder / "model.safetensors").is_file() else latest(folder / "checkpoints")
    if found is None:
        raise ConfigError("train.from", config.train.from_, "a run folder with a checkpoint, or a checkpoint folder")
    try:
        load_model(found, LanguageModel(config.model))
    except CheckpointError as error:
        raise ConfigError("train.from", str(error), "a checkpoint of a model with the same parameters") from None
    return found


def sibling(config: Config, labels: Sequence[str], axes: Sequence[Mapping[str, object] | Sequence[object]]) -> list[str] | None:
    """Labels of the run of the same study that `train.from` names; None where it names none. axes: each axis's levels."""
    wanted = config.train.from_
    for place, levels in enumerate(axes):
        if wanted is not None and isinstance(levels, Mapping) and wanted in levels and labels[place] != wanted:
            return [wanted if i == place else label for i, label in enumerate(labels)]
    return None


def from_sibling(config: Config, name: str) -> Config:
    """The config with the folder of its sibling `name` as train.from."""
    folder = Path(config.study.folder) / config.study.name / name
    return replace(config, train=replace(config.train, from_=str(folder)))
