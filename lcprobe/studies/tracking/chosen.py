"""The trackers that a config chooses: W&B, and those of `track.also`."""

import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path

from lcprobe.config import TrackConfig
from lcprobe.errors import ConfigError, Said
from lcprobe.studies.tracking.modes import wandb_mode
from lcprobe.studies.tracking.trackers import Trackers
from lcprobe.studies.tracking.wandb_tracker import WandbRun, WandbTracker
from lcprobe.tracking import Tracker

Rows = Sequence[Mapping[str, float | int]]


def require_trackers(config: TrackConfig) -> None:
    """Raises ConfigError for a tracker whose package is not installed."""
    for name in config.also:
        if importlib.util.find_spec(name) is None:
            raise ConfigError("track.also", Said(f"{name} is not installed"), f"after: pip install 'lcprobe[{name}]'")


def is_tracked(config: TrackConfig, study: Path) -> bool:
    """Whether anything but files is wanted."""
    return bool(config.also) or wandb_mode(config, study) != "off"


def open_run(config: TrackConfig, run: WandbRun, folder: Path, *, goes_on: bool = False, rows: Rows = ()) -> Tracker:
    """A run in all chosen trackers. folder, goes_on, rows: as for `WandbTracker`."""
    chosen: list[Tracker] = []
    if wandb_mode(config, Path(run.study)) != "off":
        chosen.append(WandbTracker(config, run, folder, goes_on=goes_on, rows=rows))
    if "tensorboard" in config.also:
        from lcprobe.studies.tracking.also.tensorboard import TensorBoardTracker

        chosen.append(TensorBoardTracker(run, rows))
    if "trackio" in config.also:
        from lcprobe.studies.tracking.also.trackio import TrackioTracker

        chosen.append(TrackioTracker(config, run, rows))
    return Trackers(chosen)
