"""Effective length against training length, of every run, with the line of its architecture: is it the ceiling?"""

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from lcprobe.analysis.findings.results import Results
from lcprobe.analysis.findings.training_length.effective_lengths import EffectiveLength
from lcprobe.analysis.findings.training_length.length_fits import LengthFit
from lcprobe.analysis.report.charts.axes import tokens_axis, tokens_up_axis
from lcprobe.analysis.report.charts.grammar import (
    COLOURS,
    DASH_DOTTED,
    DASHED,
    DOTTED,
    INK,
    SOLID,
    SYMBOLS,
    WIDTH,
    Row,
    Style,
    colour,
    dashes,
    data,
    figure,
    figure_text,
    file_name,
    own_fill,
    own_stroke,
    panel,
    shown_number,
    shown_word,
)
from lcprobe.analysis.report.charts.picture import Picture, drawn_formats
from lcprobe.analysis.report.charts.seed_groups import length_styles
from lcprobe.analysis.report.training_length import bounds_text
from lcprobe.tasks.episode import Formats

if TYPE_CHECKING:
    import altair as alt

FIT, LEVEL, EQUAL, LONGEST = (
    "fit, with its 95 % band",
    "slope 0: a fixed reach",
    "1 x the training length",
    "longest length tested",
)
LINES = {
    FIT: Style(COLOURS[1], SYMBOLS[0], SOLID),
    LEVEL: Style(COLOURS[1], SYMBOLS[0], DASH_DOTTED),
    EQUAL: Style(INK, SYMBOLS[0], DASHED),
    LONGEST: Style(INK, SYMBOLS[0], DOTTED),
}
MARGIN_X = 0.45
"""Room beside the first and last training length, in octaves."""
ARROW = 0.5
"""Length in octaves of the arrow of a run that is not seen to fall."""


def effective_length_charts(results: Results) -> "Iterator[tuple[Picture, alt.ConcatChart]]":
    """One figure per task and format, a panel per architecture that has several training lengths."""
    for task, format in drawn_formats(results):
        fits = [fit for fit in results.length_fits if (fit.task, fit.format) == (task, format)]
        if any(run.tokens is not None for fit in fits for run in _all_runs(fit)):
            yield _figure(results, fits, task, format)


def _all_runs(fit: LengthFit) -> list[EffectiveLength]:
    return [*fit.runs, *fit.continued]


def _figure(results: Results, fits: list[LengthFit], task: str, format: Formats) -> "tuple[Picture, alt.ConcatChart]":
    shown = [run for fit in fits for run in _all_runs(fit) if run.tokens is not None]
    trained = sorted({run.context_length for fit in fits for run in _all_runs(fit)})
    left, right = trained[0] * 2**-MARGIN_X, trained[-1] * 2**MARGIN_X
    ends = [end for run in shown for end in (run.low or run.tokens, _upper_end(run)) if end]
    ends += [left, right, *(float(fit.longest) for fit in fits)]
    x = tokens_axis("at", "training length (tokens)", [left, right], trained)
    y = tokens_up_axis("value", "effective length (tokens)", ends)
    panels = [_panel(results, fit, x, y, (left, right), narrow=len(fits) > 1) for fit in fits]
    title = f"{task}, {format}"
    chart = figure(panels, title, min(2, len(fits)))
    refused = [run for fit in fits for run in fit.runs if run.refused]
    text = f"Effective length against training length for {task}, {format}, both on log2 scales: a point per run, "
    text += f"with its 95 % interval over samples; n = {len(shown)} runs. Arrows: not seen to fall, so that the "
    text += "effective length is at least so long. Line: fit with its 95 % band, where it is bounded. Slope 1: "
    text += "the training length is the ceiling, in proportion; slope 0: a fixed reach, dash-dotted."
    if any(fit.continued for fit in fits):
        text += " Squares: runs that continued from others, not in the fit."
    text += f" {len(refused)} runs without an effective length are not drawn." if refused else ""
    name = file_name("effective_length", task, format)
    return Picture(name, "effective_length", task, str(format), title, text), chart


def _panel(
    results: Results, fit: LengthFit, x: "alt.X", y: "alt.Y", sides: tuple[float, float], narrow: bool
) -> "alt.LayerChart":
    slope = "no slope"
    if fit.slope is not None:
        is_bounded = math.isfinite(fit.slope.low) or math.isfinite(fit.slope.high)
        slope = f"slope {bounds_text(fit.slope)}" if is_bounded else "slope not bounded"
    verdict = "grows, less than in proportion" if fit.grows_less else fit.verdict
    layers = [*_lines(fit, x, y, sides), *_points(results, fit, x, y)]
    width, height = (225, 210) if narrow else (WIDTH, 260)
    return panel(layers, width, height, title=figure_text(fit.architecture, 34), below=[slope, verdict])


def _lines(fit: LengthFit, x: "alt.X", y: "alt.Y", sides: tuple[float, float]) -> "list[alt.Chart]":
    """What the points are compared with: their training length, the longest length tested, and the fit."""
    rows: list[Row] = [
        row
        for side in sides
        for row in (
            {"line": EQUAL, "at": side, "value": side},
            {"line": LONGEST, "at": side, "value": float(fit.longest)},
        )
    ]
    band = _band(fit, sides)
    if band and fit.multiple is not None and fit.centre is not None:
        rows += [{"line": LEVEL, "at": side, "value": fit.multiple.value * fit.centre} for side in sides]
        rows += [{"line": FIT, "at": row["at"], "value": row["value"]} for row in band]
    hue = colour(LINES, "line", as_lines=True)
    lines = data(rows).mark_line(strokeWidth=1.6, clip=True)
    layers = [lines.encode(x=x, y=y, color=hue, strokeDash=dashes(LINES, "line"))]
    if band:
        area = data(band).mark_area(opacity=0.15, clip=True)
        layers.insert(0, area.encode(x=x, y="low:Q", y2="high:Q", color=hue))
    return layers


def _band(fit: LengthFit, sides: tuple[float, float]) -> list[Row]:
    """The fit with its bounds; nothing where the slope or the level is not bounded."""
    x = np.linspace(math.log2(sides[0]), math.log2(sides[1]), 41)
    points = [fit.at(float(2.0**at)) for at in x]
    if fit.slope is None or fit.multiple is None or fit.centre is None or any(p is None for p in points):
        return []
    if not np.isfinite([*fit.slope, *fit.multiple]).all() or fit.multiple.low <= 0:
        return []
    y = np.log2([p for p in points if p])
    from_centre = x - math.log2(fit.centre)
    level, low, high = np.log2(fit.multiple)
    down = _half(level - low, fit.slope.value - fit.slope.low, fit.slope.high - fit.slope.value, from_centre)
    up = _half(high - level, fit.slope.high - fit.slope.value, fit.slope.value - fit.slope.low, from_centre)
    curves = np.exp2(np.stack([x, y, y - down, y + up], axis=1)).tolist()
    return [{"line": FIT, "at": at, "value": value, "low": low, "high": high} for at, value, low, high in curves]


def _half(level: float, right: float, left: float, from_centre: np.ndarray) -> np.ndarray:
    """Half-width of the band on one side: of the level at the centre, and of the slope on either side of it."""
    return np.hypot(level, np.where(from_centre > 0, right, left) * from_centre)


def _points(results: Results, fit: LengthFit, x: "alt.X", y: "alt.Y") -> "list[alt.Chart]":
    """Runs in the colour of their training length, side by side; hollow where at least so long."""
    import altair as alt

    rows = [*_run_rows(results, fit.runs, "circle"), *_run_rows(results, fit.continued, "square")]
    tooltip = [
        shown_word("model", "model"),
        shown_number("trained", "training length", ",d"),
        shown_word("effective", "effective length"),
        shown_word("interval", "95 % interval"),
        shown_number("multiple", "x training length"),
    ]
    runs, stroke = data(rows), own_stroke()
    bars = runs.mark_rule(strokeWidth=1.4, clip=True).encode(x=x, y="low:Q", y2="high:Q", stroke=stroke)
    heads = runs.transform_filter("datum.at_least").mark_point(shape="triangle-up", size=40, filled=True, opacity=1)
    marks = runs.mark_point(size=45, opacity=1, strokeWidth=1.6)
    return [
        bars,
        heads.encode(x=x, y="high:Q", fill=own_fill("colour")),
        marks.encode(
            x=x,
            y=y,
            stroke=stroke,
            fill=own_fill(),
            shape=alt.Shape("shape:N", scale=None),
            tooltip=tooltip,
        ),
    ]


def _run_rows(results: Results, runs: Sequence[EffectiveLength], shape: str) -> Iterator[Row]:
    styles = length_styles(results)
    for context_length in dict.fromkeys(run.context_length for run in runs):
        own = [run for run in runs if run.context_length == context_length and run.tokens is not None]
        shade = styles[context_length].colour
        for run, shift in zip(own, _shifts(len(own)), strict=True):
            known = f"{run.tokens or 0:,.0f}"
            interval = f"{run.low:,.0f}–{run.high:,.0f}" if run.low and run.high else "n/a"
            yield {
                "model": run.where.model,
                "trained": context_length,
                "at": context_length * 2**shift,
                "value": run.tokens,
                "low": run.tokens if run.at_least else run.low,
                "high": _upper_end(run),
                "at_least": run.at_least,
                "effective": f"at least {known}" if run.at_least else known,
                "interval": "not seen to fall" if run.at_least else interval,
                "multiple": run.multiple,
                "colour": shade,
                "fill": "white" if run.at_least else shade,
                "shape": shape,
            }


def _upper_end(run: EffectiveLength) -> float | None:
    """End of the bar, or of the arrow."""
    return (run.tokens or 1) * 2**ARROW if run.at_least else run.high


def _shifts(n: int) -> Sequence[float]:
    return [0.11 * (i - (n - 1) / 2) for i in range(n)]
