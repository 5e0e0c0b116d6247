"""A trial that an agent of a W&B sweep has started: it is one run, and its folder is named after the agent's. The
trials in a folder are a study with one axis, `trial`, whichever processes trained them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lcprobe.config import load, to_yaml
from lcprobe.errors import ConfigError
from lcprobe.files import write_atomic
from lcprobe.locks import waited_claim
from lcprobe.merging import merge
from lcprobe.studies.planning.axes import axes_of
from lcprobe.studies.tracking.wandb_tracker import agent_run_id

TRIAL = "trial"
"""The axis of trials."""


def in_sweep(mapping: Mapping[str, Any]) -> Mapping[str, Any]:
    """The config of a study, where an agent runs it with its run's name. Raises ConfigError for a grid of more than
    one run: a trial has one metric."""
    if not (id := agent_run_id()):
        return mapping
    return one_run(mapping, id)


def one_run(mapping: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """The config of a trial, under a name. Raises ConfigError for a grid."""
    axes = [axis.name for axis in axes_of(mapping.get("grid") or {})]
    if axes:
        allowed = "no grid in a sweep, since a trial is one run (grid=_drop_, and model.layout)"
        raise ConfigError("grid", ", ".join(axes), allowed)
    study = mapping.get("study") or {}
    return {**mapping, "study": {**study, "run": study.get("run") or name}}


def add_trial(folder: Path, mapping: Mapping[str, Any]) -> None:
    """Add a trial to the study.yaml of its folder, so that all of them are probed as one study; several agents may do
    so at once. The study.yaml of a study that is no sweep stays as it is. mapping: as of `in_sweep`."""
    file = folder / "study.yaml"
    with waited_claim(folder, "study.yaml", str(folder), wait="adds a trial to the study"):
        trials: dict[str, Mapping[str, Any]] = {}
        if file.is_file():
            written = load([str(file)], [])
            if {*(written.get("grid") or {})} != {TRIAL}:
                return
            base = {key: value for key, value in written.items() if key != "grid"}
            trials = {name: merge(base, changes) for name, changes in written["grid"][TRIAL].items()}
        write_atomic(file, to_yaml(study_of(trials | {mapping["study"]["run"]: mapping})))


def study_of(trials: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The config of a sweep as a study: the first trial's, and an axis with what each has other than that one.

    trials: configs by name."""
    configs = {
        name: {**mapping, "study": {k: v for k, v in mapping["study"].items() if k != "run"}}
        for name, mapping in trials.items()
    }
    first = next(iter(configs.values()))
    return {**first, "grid": {TRIAL: {name: _changes(first, own) for name, own in configs.items()}}}


def _changes(base: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """What one mapping has that another has not, mappings within them alike; lists as a whole."""
    changes = {}
    for key, value in own.items():
        before = base.get(key)
        if isinstance(value, Mapping) and isinstance(before, Mapping):
            changes |= {key: inner} if (inner := _changes(before, value)) else {}
        elif key not in base or before != value:
            changes[key] = value
    return changes
