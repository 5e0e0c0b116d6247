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

    Runs as trained, from random weights: training seeds are the runs of one length. Runs with a length schedule only
    in architectures that have no others.
    """
    grouped: dict[str, ByLength] = {}
    for run in runs:
        if run.extension == AS_TRAINED and _is_fitted(run, runs):
            grouped.setdefault(architecture_of(run), {}).setdefault(run.context_length, []).append(run)
    several = {name: lengths for name, lengths in grouped.items() if len(lengths) > 1}
    return {name: dict(sorted(lengths.items())) for name, lengths in several.items()}


def continued(runs: Sequence[RunFacts], architecture: str) -> list[RunFacts]:
    """The other runs of an architecture as trained, which saw several lengths, ascending in training length."""
    own = [run for run in runs if architecture_of(run) == architecture and not _is_fitted(run, runs)]
    return sorted((run for run in own if run.extension == AS_TRAINED), key=lambda run: run.context_length)


def _is_fitted(run: RunFacts, runs: Sequence[RunFacts]) -> bool:
    """Whether a run was trained at its training length alone, or no run of its architecture was."""
    if run.started_from or not run.length_schedule:
        return not run.started_from
    own = [other for other in runs if architecture_of(other) == architecture_of(run)]
    return all(other.started_from or other.length_schedule for other in own)
