"""Strata of depth on an axis: points are at the depths where needles were placed, ticks between strata."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from lcprobe.analysis.findings.cells import PanelKey
from lcprobe.analysis.findings.results import Results
from lcprobe.analysis.inputs import RunFacts
from lcprobe.tasks.episode import Formats

if TYPE_CHECKING:
    import altair as alt

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


def depth_axis(strata: int) -> "alt.X":
    """The x axis of depths `at`: always 0 to 1, with ticks at the edges of strata."""
    import altair as alt

    ticks = [k / strata for k in range(strata + 1)] if strata <= MOST_TICKS else [0, 0.25, 0.5, 0.75, 1]
    scale = alt.Scale(domain=[-0.03, 1.03], nice=False)
    return alt.X(
        "at:Q", title="depth of the needle (0 first, 1 last)", scale=scale, axis=alt.Axis(values=ticks, format=".2~g")
    )
