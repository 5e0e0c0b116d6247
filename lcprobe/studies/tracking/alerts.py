"""Alerts, each once, whichever process comes to it first: a file in the study's folder says that it was sent, and is
what is left of it offline."""

import contextlib
import json
import time
from collections.abc import Mapping
from pathlib import Path

from lcprobe.config import TrackConfig, load, parse
from lcprobe.errors import LcprobeError
from lcprobe.files import digest_json
from lcprobe.studies.tracking.modes import wandb_mode
from lcprobe.studies.tracking.wandb_tracker import WandbRun, WandbTracker
from lcprobe.tracking import Tracker

ALERTS = "alerts"
"""In a study's folder: a file for each alert."""


def alert_once(tracker: Tracker, study: Path, title: str, text: str) -> None:
    """Alert by the tracker of a run, unless the study has done so."""
    if _is_first(study, title, text):
        tracker.alert(title, text)


def study_alert(config: TrackConfig, study: Path, title: str, text: str) -> None:
    """Alert of what is of no run that goes on: online in a run of job type `alert`."""
    if config.alerts and _is_first(study, title, text) and wandb_mode(config, study) == "online":
        run = WandbRun(str(study), "", f"{study.name}/alerts", study.name, "alert")
        tracker = WandbTracker(config, run, study, goes_on=True)
        tracker.alert(title, text)
        tracker.finish()


def alert_of_given_up(study: Path, why: Mapping[str, object]) -> None:
    """Alert of units of work that are not tried again. why: by their names."""
    try:
        config = parse(load([str(study / "study.yaml")], []))
    except LcprobeError:  # a study without one sends nothing
        return
    for name, reason in why.items():
        study_alert(config.track, study, f"{study.name}/{name}: given up", str(reason))


def _is_first(study: Path, title: str, text: str) -> bool:
    """Whether no process has said this of a study yet; False where that cannot be written down."""
    with contextlib.suppress(OSError):
        (study / ALERTS).mkdir(parents=True, exist_ok=True)
        with open(study / ALERTS / f"{digest_json([title, text])[:16]}.json", "x", encoding="utf-8") as file:
            json.dump({"title": title, "text": text, "time": time.strftime("%Y-%m-%d %H:%M:%S")}, file)
        return True
    return False
