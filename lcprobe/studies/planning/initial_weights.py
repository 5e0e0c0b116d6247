"""Initial weights that do not come from the seed: `train.from`, a folder or another run of the same study.

In a grid, `train: {from: base}` under one label of an axis names another label of it: the run starts from the one
that differs in that label only, which is trained first.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch

from lcprobe.config import Config
from lcprobe.errors import CheckpointError, ConfigError
from lcprobe.files import has_weights
from lcprobe.studies.planning.axes import Axis, Labels
from lcprobe.training.build import build_model
from lcprobe.training.checkpoint import check_weights, latest

START_LEFT_OUT = "no run to start from"


def initial_checkpoint(config: Config) -> Path | None:
    """The checkpoint that a run starts from. Raises ConfigError where train.from has none, or one of another
    model."""
    if config.train.from_ is None:
        return None
    checkpoint = initial_checkpoint_of(Path(config.train.from_))
    if checkpoint is None:
        raise ConfigError("train.from", config.train.from_, "a run folder with a checkpoint, or a checkpoint folder")
    with torch.device("meta"):
        model = build_model(config.model, config.train)
    try:
        check_weights(checkpoint, model)
    except CheckpointError as error:
        raise ConfigError("train.from", str(error), "a checkpoint of a model with the same parameters") from None
    return checkpoint


def initial_checkpoint_of(folder: Path) -> Path | None:
    """A checkpoint's folder itself, or the newest checkpoint of a run's folder; None where there is none."""
    return folder if has_weights(folder) else latest(folder / "checkpoints")


def source_run(config: Config, labels: Labels, axes: Sequence[Axis]) -> Labels | None:
    """Labels of the run of the study that `train.from` names; None where it does not name one."""
    wanted = config.train.from_
    for place, axis in enumerate(axes):
        if wanted is not None and axis.written and wanted in axis.levels and labels[place] != wanted:
            return (*labels[:place], wanted, *labels[place + 1 :])
    return None


def topological_order(sources: Mapping[Labels, Labels | None]) -> list[Labels]:
    """Labels of the runs in an order in which they can be trained: each after the one that it starts from, else
    unchanged.

    Raises ConfigError for runs that start from each other.
    """
    depth: dict[Labels, int] = {}
    for labels in sources:
        path: list[Labels] = []
        at: Labels | None = labels
        while at is not None and at not in depth:
            if at in path:
                cycle = " from ".join("-".join(filter(None, one)) for one in [*path[path.index(at) :], at])
                raise ConfigError(
                    f"grid ({', '.join(filter(None, at))}): train.from",
                    cycle,
                    "a run that does not start from itself",
                )
            path.append(at)
            at = sources.get(at)
        below = -1 if at is None else depth[at]
        for i, one in enumerate(reversed(path)):
            depth[one] = below + 1 + i
    return sorted(sources, key=lambda labels: depth[labels])


def starting_from(config: Config, name: str) -> Config:
    """The config with the folder of the study's run `name` as train.from."""
    folder = Path(config.study.folder) / config.study.name / name
    return replace(config, train=replace(config.train, from_=str(folder)))
