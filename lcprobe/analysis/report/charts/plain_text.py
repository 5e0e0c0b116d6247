"""Figures of plain text: loss by position, size of the state, and remembrance, one line per model."""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from lcprobe.analysis.findings.results import Results
from lcprobe.analysis.findings.text_curves import TextCurves
from lcprobe.analysis.report.charts.drawing import (
    INK,
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
from lcprobe.analysis.report.charts.picture import Picture
from lcprobe.analysis.stats.estimates import Estimate

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

CurvePoints = Mapping[float, Estimate]
BANDS = "Bands: 95 % bootstrap over windows of text."
DASHED = " Dashed: training length."


def text_charts(results: Results) -> "Iterator[tuple[Picture, Figure]]":
    """Loss, state, and remembrance at the training length and the longest."""
    styles, curves = model_styles(results), results.text
    if not curves:
        return
    losses = [(t, {float(np.sqrt(b.low * b.high)): b.loss for b in t.bins}) for t in curves]
    text = f"Loss of held-out text by position, in half octaves. {_counts(curves)} {BANDS}{DASHED}"
    yield _drawn(losses, styles, "loss", "Loss by position", "tokens read", "nats per token", text)
    norms = [(t, {float(at): mean for at, mean in t.state_rms.items()}) for t in curves]
    text = f"Root mean square of the state's values by the number of tokens read. {_counts(curves)} {BANDS}{DASHED}"
    yield _drawn(norms, styles, "state", "Size of the state", "tokens read", "root mean square", text, log=True)
    for length in _shown_lengths(curves):
        points = [(t, {float(k): mean for (at, k), mean in t.remembrance.items() if at == length}) for t in curves]
        if any(distances for _, distances in points):
            text = f"Total-variation distance between the predictions after {length:,} tokens and after the last of "
            text += f"them alone: 0 where earlier tokens have no effect left. {_counts(curves)} {BANDS}"
            title, x = f"Remembrance at {length:,} tokens", "last tokens kept"
            yield _drawn(points, styles, f"remembrance_{length}", title, x, "total variation", text, share=True)


def _shown_lengths(curves: list[TextCurves]) -> list[int]:
    """The training length, where it was measured, and the longest."""
    lengths = sorted({length for t in curves for length in t.lengths})
    return sorted({*lengths[-1:], *(x for x in lengths if x in {t.context_length for t in curves})})


def _drawn(
    lines: Sequence[tuple[TextCurves, CurvePoints]],
    styles: Mapping[str, Style],
    name: str,
    title: str,
    x: str,
    y: str,
    caption: str,
    log: bool = False,
    share: bool = False,
) -> "tuple[Picture, Figure]":
    figure, axes = panel()
    for curves, points in lines:
        _line(axes, points, styles[curves.model], figure_text(curves.model))
    if not share:
        for length in sorted({curves.context_length for curves, _ in lines}):
            axes.axvline(
                np.log2(length), color=INK, linestyle="--", linewidth=1.2, label=f"training length {length:,}"
            )
    if log:
        axes.set_yscale("log")
    if share:
        share_axis(axes)
    tokens = [at for _, points in lines for at in points]
    distance_axis(axes, min(tokens, default=1), max(tokens, default=2))
    set_titles(axes, title, x, y)
    legend(figure, axes)
    return Picture(file_name("context", name), "context", "", "", title, caption), figure


def _line(axes: "Axes", points: CurvePoints, style: Style, label: str) -> None:
    if not points:
        return
    at, means = np.log2(list(points)), list(points.values())
    low, high = [m.low for m in means], [m.high for m in means]
    if np.isfinite([*low, *high]).all():
        band(axes, at, low, high, style)
    axes.plot(at, [m.value for m in means], style.line, marker=style.marker, ms=4.5, color=style.colour, label=label)


def _counts(curves: list[TextCurves]) -> str:
    low, high = min(t.windows for t in curves), max(t.windows for t in curves)
    return f"n = {low} windows." if low == high else f"n = {low} to {high} windows."
