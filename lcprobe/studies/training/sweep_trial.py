"""A trial that an agent of a W&B sweep has started: it is one run, and its folder is named after the agent's."""

from collections.abc import Mapping
from typing import Any

from lcprobe.errors import ConfigError
from lcprobe.studies.planning.axes import axes_of
from lcprobe.studies.tracking.wandb_tracker import agent_run_id


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
