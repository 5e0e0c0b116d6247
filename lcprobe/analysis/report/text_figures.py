"""Figures of plain text: loss by position, size of the state, and remembrance, one line a model."""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from lcprobe.analysis.findings.results import Results
from lcprobe.analysis.findings.text_curves import Mean, TextCurves
from lcprobe.analysis.report.drawing import (
    INK,
    Style,
    distance_axis,
    legend,
    panel,
    plain,
    share_axis,
    slug,
    styles,
    titled,
)
from lcprobe.analysis.report.figures import Picture

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Points = Mapping[float, Mean]
BANDS = "Bands: 95 % bootstrap over windows of text."
DASHED = " Dashed: training length."


def text_figures(results: Results) -> "Iterator[tuple[Picture, Figure]]":
    """Every figure of plain text, one at a time; none where it was not measured."""
    look, curves = styles([run.name for run in results.study.runs]), results.text
    if not curves:
        return
    losses = [(t, {float(np.sqrt(b.low * b.high)): b.loss for b in t.bins}) for t in curves]
    text = f"Loss of held-out text by position, in half octaves. {_counts(curves)} {BANDS}{DASHED}"
    yield _drawn(losses, look, "loss", "Loss by position", "tokens read", "nats a token", text)
    norms = [(t, {float(at): mean for at, mean in t.state_rms.items()}) for t in curves]
    text = f"Root mean square of the state's values after so many tokens. {_counts(curves)} {BANDS}{DASHED}"
    yield _drawn(norms, look, "state", "Size of the state", "tokens read", "root mean square", text, log=True)
    for length in _shown_lengths(curves):
        far = [(t, {float(k): mean for (at, k), mean in t.remembrance.items() if at == length}) for t in curves]
        if any(points for _, points in far):
            text = f"Total-variation distance between the predictions after {length:,} tokens and after the last of them alone: "
            text += f"0 where what came before is forgotten. {_counts(curves)} {BANDS}"
            title, x = f"Remembrance at {length:,} tokens", "last tokens kept"
            yield _drawn(far, look, f"remembrance_{length}", title, x, "total variation", text, share=True)


def _shown_lengths(curves: list[TextCurves]) -> list[int]:
    """The training length, where it was measured, and the longest."""
    lengths = sorted({length for t in curves for length in t.lengths})
    return sorted({*lengths[-1:], *(x for x in lengths if x in {t.context_length for t in curves})})


def _drawn(
    lines: Sequence[tuple[TextCurves, Points]],
    look: Mapping[str, Style],
    name: str,
    title: str,
    x: str,
    y: str,
    text: str,
    log: bool = False,
    share: bool = False,
) -> "tuple[Picture, Figure]":
    figure, axes = panel()
    for curves, points in lines:
        _line(axes, points, look[curves.model], plain(curves.model))
    if not share:
        for length in sorted({curves.context_length for curves, _ in lines}):
            axes.axvline(
                np.log2(length), color=INK, linestyle="--", linewidth=1.2, label=f"training length {length:,}"
            )
    if log:
        axes.set_yscale("log")
    if share:
        share_axis(axes)
    places = [at for _, points in lines for at in points]
    distance_axis(axes, min(places, default=1), max(places, default=2))
    titled(axes, title, x, y)
    legend(figure, axes)
    return Picture(slug("context", name), "context", "", "", title, text), figure


def _line(axes: Any, points: Points, style: Style, label: str) -> None:
    if not points:
        return
    at, means = np.log2(list(points)), list(points.values())
    low, high = [m.low for m in means], [m.high for m in means]
    if np.isfinite([*low, *high]).all():
        axes.fill_between(at, low, high, color=style.colour, alpha=0.18, lw=0)
    axes.plot(at, [m.value for m in means], style.line, marker=style.marker, ms=4.5, color=style.colour, label=label)


def _counts(curves: list[TextCurves]) -> str:
    low, high = min(t.windows for t in curves), max(t.windows for t in curves)
    return f"n = {low} windows." if low == high else f"n = {low} to {high} windows."
