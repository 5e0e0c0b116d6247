"""Runs of a study with several training lengths, by architecture and group: figures of it have a panel per
architecture, a colour per training length, and the runs of a group that differ in their seed in one line.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from lcprobe.analysis.findings.cells import PanelKey, Unavailable
from lcprobe.analysis.findings.results import Results
from lcprobe.analysis.findings.slice_tests import pooled
from lcprobe.analysis.inputs import RunFacts
from lcprobe.analysis.report.charts.drawing import MARKERS, Style
from lcprobe.analysis.stats.estimates import Proportion
from lcprobe.models.extend.config import AS_TRAINED
from lcprobe.tasks.episode import Formats

LIGHTEST, DARKEST = 0.8, 0.05
"""Part of viridis from the shortest training length to the longest: its yellow end is hard to see on white."""
LINES = {"trained at": "-", "continued at": "--", "schedule up to": "-."}
SEEDS = "Thick: mean over training seeds; thin: each seed."
OVER_SAMPLES = "95 % intervals over samples, of these seeds: how far seeds differ is seen in each of them."


@dataclass(frozen=True)
class SeedGroup:
    """Runs that differ in their seed alone. name: their group, with its extension at evaluation, if any."""

    name: str
    context_length: int
    runs: tuple[RunFacts, ...]

    @property
    def label(self) -> str:
        """How the group was trained, for a legend."""
        return f"{self._kind} {self.context_length:,}"

    def style(self, styles: Mapping[int, Style]) -> Style:
        """That of its training length, with a line of its own unless it was trained at one length from the start."""
        return replace(styles[self.context_length], line=LINES[self._kind])

    @property
    def _kind(self) -> str:
        first = self.runs[0]
        return "continued at" if first.started_from else "schedule up to" if first.length_schedule else "trained at"


def has_several_lengths(results: Results) -> bool:
    """Whether some architecture was trained at more than one length."""
    return any(len({group.context_length for group in groups}) > 1 for groups in architectures(results).values())


def architectures(results: Results) -> dict[str, list[SeedGroup]]:
    """Groups by architecture, in the order of the study; the groups of one by their training length."""
    found: dict[str, dict[str, list[RunFacts]]] = {}
    for run in results.study.runs:
        extension = "" if run.extension == AS_TRAINED else f" {run.extension}"
        groups = found.setdefault(f"{run.architecture or run.group}{extension}", {})
        groups.setdefault(f"{run.group}{extension}", []).append(run)
    return {
        architecture: sorted(
            (SeedGroup(name, runs[0].context_length, tuple(runs)) for name, runs in groups.items()),
            key=lambda group: group.context_length,
        )
        for architecture, groups in found.items()
    }


def length_styles(results: Results) -> dict[int, Style]:
    """A style per training length, the same in every figure: the longer, the darker."""
    from matplotlib import colormaps
    from matplotlib.colors import to_hex

    lengths = training_lengths(results)
    shades = np.linspace(LIGHTEST, DARKEST, len(lengths))
    return {
        length: Style(to_hex(colormaps["viridis"](float(shade))), MARKERS[i % len(MARKERS)], "-")
        for i, (length, shade) in enumerate(zip(lengths, shades, strict=True))
    }


def training_lengths(results: Results) -> list[int]:
    """Training lengths of the study in tokens, ascending."""
    return sorted({run.context_length for run in results.study.runs})


def group_mean(
    results: Results, group: SeedGroup, task: str, format: Formats, length: int, depths: Sequence[float] = ()
) -> Proportion | Unavailable:
    """Exact match of a group at a length, over all or some depths: its seeds together, samples as clusters."""
    whole = pooled([results.data.slice(PanelKey(run.name, task, format), length) for run in group.runs])
    if isinstance(whole, Unavailable):
        return whole
    return (whole.at_depths(depths) if depths else whole).estimate
