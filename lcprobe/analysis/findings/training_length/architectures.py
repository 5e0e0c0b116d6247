"""Architectures with several training lengths, and their runs."""

from collections.abc import Sequence

from lcprobe.analysis.inputs import RunFacts
from lcprobe.models.extend.config import AS_TRAINED

ByLength = dict[int, list[RunFacts]]
"""Runs by training length, ascending."""


def architecture_of(run: RunFacts) -> str:
    """The architecture of a run, the group where none is known."""
    return run.architecture or run.group


def by_training_length(runs: Sequence[RunFacts]) -> dict[str, ByLength]:
    """Architectures with at least two training lengths, in the order of the runs.

    Runs as trained, from random weights: training seeds are the runs of one length.
    """
    grouped: dict[str, ByLength] = {}
    for run in runs:
        if run.extension == AS_TRAINED and not run.started_from:
            grouped.setdefault(architecture_of(run), {}).setdefault(run.context_length, []).append(run)
    several = {name: lengths for name, lengths in grouped.items() if len(lengths) > 1}
    return {name: dict(sorted(lengths.items())) for name, lengths in several.items()}


def continued(runs: Sequence[RunFacts], architecture: str) -> list[RunFacts]:
    """Runs of an architecture as trained that started from another run's weights, ascending in training length."""
    own = [run for run in runs if run.started_from and architecture_of(run) == architecture]
    return sorted((run for run in own if run.extension == AS_TRAINED), key=lambda run: run.context_length)
