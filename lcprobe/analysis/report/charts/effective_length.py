"""Effective length against training length, of every run, with the line of its architecture: is it the ceiling?"""

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from lcprobe.analysis.findings.results import Results
from lcprobe.analysis.findings.training_length.effective_lengths import EffectiveLength
from lcprobe.analysis.findings.training_length.length_fits import LengthFit
from lcprobe.analysis.report.charts.drawing import (
    GREY,
    INK,
    figure_text,
    file_name,
    legend,
    length_axis,
    outer_titles,
    panels,
)
from lcprobe.analysis.report.charts.picture import Picture, drawn_formats
from lcprobe.analysis.report.charts.seed_groups import length_styles
from lcprobe.analysis.report.training_length import bounds_text
from lcprobe.tasks.episode import Formats

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LINE = "#D55E00"
MARGIN_X = 0.45
"""Room beside the first and last training length, in octaves."""


def effective_length_charts(results: Results) -> "Iterator[tuple[Picture, Figure]]":
    """One figure per task and format, a panel per architecture that has several training lengths."""
    for task, format in drawn_formats(results):
        fits = [fit for fit in results.length_fits if (fit.task, fit.format) == (task, format)]
        if any(run.tokens is not None for fit in fits for run in _all_runs(fit)):
            yield _figure(results, fits, task, format)


def _all_runs(fit: LengthFit) -> list[EffectiveLength]:
    return [*fit.runs, *fit.continued]


def _figure(results: Results, fits: list[LengthFit], task: str, format: Formats) -> "tuple[Picture, Figure]":
    columns = min(2, len(fits))
    figure, axes = panels([fit.architecture for fit in fits], f"{task}, {format}", columns, height=2.8)
    shown = [run for fit in fits for run in _all_runs(fit) if run.tokens is not None]
    trained = sorted({run.context_length for fit in fits for run in _all_runs(fit)})
    left, right = math.log2(trained[0]) - MARGIN_X, math.log2(trained[-1]) + MARGIN_X
    for one, fit in zip(axes, fits, strict=True):
        name, slope = figure_text(fit.architecture, 34), "no slope"
        if fit.slope is not None:
            is_bounded = math.isfinite(fit.slope.low) or math.isfinite(fit.slope.high)
            slope = f"slope {bounds_text(fit.slope)}" if is_bounded else "slope not bounded"
        verdict = "grows, less than in proportion" if fit.grows_less else fit.verdict
        one.set_title(f"{name}\n{slope}\n{verdict}", loc="left", fontsize=9.5, color=INK)
        one.plot([left, right], [left, right], color=GREY, ls="--", lw=1.2, label="1 x the training length")
        one.axhline(math.log2(fit.longest), color=GREY, ls=":", lw=1.2, label="longest length tested")
        _line(one, fit, left, right)
        _points(one, results, fit)
    ends = [math.log2(x) for run in shown for x in (run.low or run.tokens, run.high or run.tokens) if x]
    longest = max(fit.longest for fit in fits)
    low, high = min(*ends, left), max(*ends, math.log2(longest))
    axes[0].set_xlim(left, right)
    axes[0].set_ylim(low - 0.4, high + 0.6)
    length_axis(axes[0], trained)
    _power_ticks(axes[0], low, high)
    outer_titles(figure, axes, "training length (tokens)", "effective length (tokens)")
    legend(figure, *axes, columns=2)
    refused = [run for fit in fits for run in fit.runs if run.refused]
    text = f"Effective length against training length for {task}, {format}, both on log2 scales: a point per run, "
    text += f"with its 95 % interval over samples; n = {len(shown)} runs. Arrows: not seen to fall, so that the "
    text += "effective length is at least so long. Line: fit with its 95 % band, where it is bounded. Slope 1: "
    text += "the training length is the ceiling, in proportion; slope 0: a fixed reach, dash-dotted."
    if any(fit.continued for fit in fits):
        text += " Squares: runs that continued from others, not in the fit."
    text += f" {len(refused)} runs without an effective length are not drawn." if refused else ""
    name = file_name("effective_length", task, format)
    return Picture(name, "effective_length", task, str(format), f"{task}, {format}", text), figure


def _line(axes: "Axes", fit: LengthFit, left: float, right: float) -> None:
    """The fit with its band, and the same level with slope 0; nothing where the slope or the level is not bounded."""
    x = np.linspace(left, right, 41)
    points = [fit.at(float(2.0**at)) for at in x]
    if fit.slope is None or fit.multiple is None or fit.centre is None or any(p is None for p in points):
        return
    if not np.isfinite([*fit.slope, *fit.multiple]).all() or fit.multiple.low <= 0:
        return
    y = np.log2([p for p in points if p])
    axes.plot(x, y, color=LINE, lw=1.6, label="fit, with its 95 % band")
    middle = math.log2(fit.multiple.value * fit.centre)
    axes.axhline(middle, color=LINE, ls="-.", lw=0.9, alpha=0.8, label="slope 0: a fixed reach")
    from_centre = x - math.log2(fit.centre)
    level, low, high = np.log2(fit.multiple)
    down = _half(level - low, fit.slope.value - fit.slope.low, fit.slope.high - fit.slope.value, from_centre)
    up = _half(high - level, fit.slope.high - fit.slope.value, fit.slope.value - fit.slope.low, from_centre)
    axes.fill_between(x, y - down, y + up, color=LINE, alpha=0.15, lw=0)


def _half(level: float, right: float, left: float, from_centre: np.ndarray) -> np.ndarray:
    """Half-width of the band on one side: of the level at the centre, and of the slope on either side of it."""
    return np.hypot(level, np.where(from_centre > 0, right, left) * from_centre)


def _points(axes: "Axes", results: Results, fit: LengthFit) -> None:
    styles = length_styles(results)
    for runs, marker, face in ((fit.runs, "o", True), (fit.continued, "s", False)):
        for context_length in dict.fromkeys(run.context_length for run in runs):
            own = [run for run in runs if run.context_length == context_length and run.tokens is not None]
            colour = styles[context_length].colour
            for run, shift in zip(own, _shifts(len(own)), strict=True):
                at, y = math.log2(context_length) + shift, math.log2(run.tokens or 1)
                if run.low and run.high and not run.at_least:
                    axes.vlines(at, math.log2(run.low), math.log2(run.high), color=colour, lw=1.2, alpha=0.8)
                if run.at_least:
                    arrow = {"arrowstyle": "-|>", "color": colour, "lw": 1.3, "shrinkA": 0, "shrinkB": 0}
                    axes.annotate("", (at, y + 0.55), (at, y), arrowprops=arrow)
                fill = colour if face and not run.at_least else "white"
                axes.plot([at], [y], marker, ms=4.5, color=colour, markerfacecolor=fill, zorder=3)


def _shifts(n: int) -> Sequence[float]:
    return [0.11 * (i - (n - 1) / 2) for i in range(n)]


def _power_ticks(axes: "Axes", low: float, high: float) -> None:
    powers = range(math.ceil(low - 0.4), math.floor(high + 0.6) + 1)
    axes.set_yticks([*powers], [f"{2**p:,}" for p in powers])
