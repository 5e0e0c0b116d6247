"""Exact match against the distance in tokens from the value to the answer, with the effective reach."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from lcprobe.analysis.findings.reach import Reach
from lcprobe.analysis.findings.results import Results
from lcprobe.analysis.report.charts.drawing import (
    Style,
    band,
    distance_axis,
    figure_text,
    file_name,
    legend,
    model_styles,
    panel,
    set_titles,
    share_axis,
)
from lcprobe.analysis.report.charts.picture import Picture, counts_text, drawn_formats

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def accuracy_by_distance(results: Results) -> "Iterator[tuple[Picture, Figure]]":
    """One figure per task and format: one line per model over all lengths and depths."""
    styles = model_styles(results)
    for task, format in drawn_formats(results):
        curves = [r for r in results.reaches if r.where.task == task and r.where.format == format and r.bins]
        if not curves:
            continue
        figure, axes = panel()
        for reach in curves:
            _curve(axes, reach, styles[reach.where.model])
        low, high = min(r.bins[0].distance for r in curves), max(r.bins[-1].distance for r in curves)
        distance_axis(axes, low, high)
        share_axis(axes)
        set_titles(axes, figure_text(f"{task}, {format}"), "distance from value to answer (tokens)", "exact match")
        legend(figure, axes)
        counts = counts_text([b.estimate.n for r in curves for b in r.bins], "bin")
        text = f"Exact match against token distance, all lengths and depths of {task}, {format}, in half octaves. "
        text += f"{counts} Bands: 95 % Wilson intervals. Dash-dotted: effective reach, where there is one."
        name = file_name("distance", task, format)
        yield Picture(name, "distance", task, str(format), f"{task}, {format}", text), figure


def _curve(axes: "Axes", reach: Reach, style: Style) -> None:
    at = np.log2([max(b.distance, 1) for b in reach.bins])
    band(axes, at, [b.estimate.low for b in reach.bins], [b.estimate.high for b in reach.bins], style)
    values, label = [b.estimate.value for b in reach.bins], figure_text(reach.where.model)
    axes.plot(at, values, style.line, marker=style.marker, ms=4.5, color=style.colour, label=label)
    if reach.refused is None and reach.tokens is not None:
        x = float(np.log2(reach.tokens))
        axes.axvline(x, color=style.colour, linestyle="-.", linewidth=1.3)
        axes.annotate(f" {reach.tokens:.0f}", (x, 1.0), color=style.colour, fontsize=9, va="top", ha="left")
