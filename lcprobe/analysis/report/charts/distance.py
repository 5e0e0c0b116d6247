"""Exact match against the distance in tokens from the value to the answer, with the effective reach."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from lcprobe.analysis.findings.cells import PanelKey
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
    outer_titles,
    panel,
    panels,
    set_titles,
    share_axis,
)
from lcprobe.analysis.report.charts.picture import Picture, counts_text, drawn_formats
from lcprobe.analysis.report.charts.seed_groups import architectures, has_several_lengths, length_styles
from lcprobe.analysis.stats.distance_bins import DistanceBin, distance_bins

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def accuracy_by_distance(results: Results) -> "Iterator[tuple[Picture, Figure]]":
    """One figure per task and format: one line per model over all lengths and depths.

    With several training lengths: a panel per architecture and one line per group of seeds.
    """
    if has_several_lengths(results):
        yield from _panels(results)
        return
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


def _panels(results: Results) -> "Iterator[tuple[Picture, Figure]]":
    families, styles = architectures(results), length_styles(results)
    for task, format in drawn_formats(results):
        reaches = {r.where.model: r for r in results.reaches if (r.where.task, r.where.format) == (task, format)}
        pooled = {
            group.name: _pooled_bins(results, [PanelKey(run.name, task, format) for run in group.runs])
            for groups in families.values()
            for group in groups
        }
        drawn = [b for bins in pooled.values() for b in bins]
        if not drawn:
            continue
        figure, axes = panels([*families], f"{task}, {format}")
        for one, groups in zip(axes, families.values(), strict=True):
            for group in groups:
                style, bins = group.style(styles), pooled[group.name]
                at = np.log2([max(b.distance, 1) for b in bins])
                values = [b.estimate.value for b in bins]
                band(one, at, [b.estimate.low for b in bins], [b.estimate.high for b in bins], style)
                one.plot(at, values, style.line, marker=style.marker, ms=3.5, color=style.colour, label=group.label)
                ends = [r.tokens for r in (reaches[run.name] for run in group.runs) if not r.refused and r.tokens]
                one.plot(np.log2(ends), [1.0] * len(ends), "|", ms=9, mew=1.6, color=style.colour)
        distance_axis(axes[0], min(b.distance for b in drawn), max(b.distance for b in drawn))
        share_axis(axes[0])
        outer_titles(figure, axes, "distance from value to answer (tokens)", "exact match")
        legend(figure, *axes)
        text = f"Exact match against token distance, all lengths and depths of {task}, {format}, in half octaves, "
        text += f"training seeds together. {counts_text([b.estimate.n for b in drawn], 'bin')} Bands: 95 % Wilson "
        text += "intervals over samples. Marks at the top: effective reach of each run, where there is one."
        name = file_name("distance", task, format)
        yield Picture(name, "distance", task, str(format), f"{task}, {format}", text), figure


def _pooled_bins(results: Results, keys: list[PanelKey]) -> tuple[DistanceBin, ...]:
    """Bins over the trials of several runs, which share their samples."""
    panels_of = [results.data.panels[key] for key in keys if key in results.data.panels]
    if not any(len(p.needle_trials.distance) for p in panels_of):
        return ()
    distance = np.concatenate([p.needle_trials.distance for p in panels_of])
    hit = np.concatenate([p.needle_trials.hit for p in panels_of])
    index = np.concatenate([p.index[p.needle_trials.sample] for p in panels_of])
    samples, sample = np.unique(index, return_inverse=True)
    return distance_bins(distance, sample, hit, len(samples))


def _curve(axes: "Axes", reach: Reach, style: Style) -> None:
    at = np.log2([max(b.distance, 1) for b in reach.bins])
    band(axes, at, [b.estimate.low for b in reach.bins], [b.estimate.high for b in reach.bins], style)
    values, label = [b.estimate.value for b in reach.bins], figure_text(reach.where.model)
    axes.plot(at, values, style.line, marker=style.marker, ms=4.5, color=style.colour, label=label)
    if reach.refused is None and reach.tokens is not None:
        x = float(np.log2(reach.tokens))
        axes.axvline(x, color=style.colour, linestyle="-.", linewidth=1.3)
        axes.annotate(f" {reach.tokens:.0f}", (x, 1.0), color=style.colour, fontsize=9, va="top", ha="left")
