"""Strata of depth on an axis: points are at the depths where needles were placed, ticks between strata."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from lcprobe.analysis.findings.cells import PanelKey
from lcprobe.analysis.findings.results import Results
from lcprobe.analysis.inputs import RunFacts
from lcprobe.tasks.episode import Formats

if TYPE_CHECKING:
    from matplotlib.axes import Axes

AT_REALISED_DEPTHS = "Points are at the mean realised depth of a stratum, ticks between strata."
MOST_TICKS = 10
"""Strata that are all marked; of more, the quarters are."""


def realised_depth(
    results: Results, runs: Sequence[RunFacts], task: str, format: Formats, length: int, depth: float
) -> float:
    """Mean depth at which the target needles of a stratum are, for these runs; its centre where there are none."""
    cells = [results.cell_at.get((PanelKey(run.name, task, format), length, depth)) for run in runs]
    known = [x for cell in cells if cell is not None and (x := cell.means["realised_depth"]) is not None]
    return float(np.mean(known)) if known else depth


def strata_ticks(axes: "Axes", strata: int) -> None:
    """Ticks at the edges of strata."""
    axes.set_xticks([k / strata for k in range(strata + 1)] if strata <= MOST_TICKS else [0, 0.25, 0.5, 0.75, 1])
    axes.xaxis.set_major_formatter(lambda x, _: f"{x:.2g}")
