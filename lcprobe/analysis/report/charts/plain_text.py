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
    outer_titles,
    panel,
    panels,
    set_titles,
    share_axis,
)
from lcprobe.analysis.report.charts.picture import Picture
from lcprobe.analysis.report.charts.seed_groups import architectures, has_several_lengths, length_styles
from lcprobe.analysis.stats.estimates import Estimate

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

CurvePoints = Mapping[float, Estimate]
BANDS = "Bands: 95 % bootstrap over windows of text."
DASHED = " Dashed: training length."
MARKED = " Dashed: training lengths, in the colour of their curve."


def text_charts(results: Results) -> "Iterator[tuple[Picture, Figure]]":
    """Loss, state, and remembrance at the training length and the longest."""
    curves = results.text
    if not curves:
        return
    losses = [(t, {float(np.sqrt(b.low * b.high)): b.loss for b in t.bins}) for t in curves]
    text = f"Loss of held-out text by position, in half octaves. {_counts(curves)} {BANDS}{DASHED}"
    yield _drawn(results, losses, "loss", "Loss by position", "tokens read", "nats per token", text)
    norms = [(t, {float(at): mean for at, mean in t.state_rms.items()}) for t in curves]
    text = f"Root mean square of the state's values by the number of tokens read. {_counts(curves)} {BANDS}{DASHED}"
    yield _drawn(results, norms, "state", "Size of the state", "tokens read", "root mean square", text, log=True)
    for length in _shown_lengths(curves, has_several_lengths(results)):
        points = [(t, {float(k): mean for (at, k), mean in t.remembrance.items() if at == length}) for t in curves]
        if any(distances for _, distances in points):
            text = f"Total-variation distance between the predictions after {length:,} tokens and after the last of "
            text += f"them alone: 0 where earlier tokens have no effect left. {_counts(curves)} {BANDS}"
            title, x = f"Remembrance at {length:,} tokens", "last tokens kept"
            yield _drawn(results, points, f"remembrance_{length}", title, x, "total variation", text, share=True)


def _shown_lengths(curves: list[TextCurves], only_longest: bool) -> list[int]:
    """The training length, or only the longest of several, where it was measured, and the longest."""
    lengths = sorted({length for t in curves for length in t.lengths})
    trained = [x for x in lengths if x in {t.context_length for t in curves}]
    return sorted({*lengths[-1:], *(trained[-1:] if only_longest else trained)})


def _drawn(
    results: Results,
    lines: Sequence[tuple[TextCurves, CurvePoints]],
    name: str,
    title: str,
    x: str,
    y: str,
    caption: str,
    log: bool = False,
    share: bool = False,
) -> "tuple[Picture, Figure]":
    if has_several_lengths(results):
        figure = _panels(results, {t.model: points for t, points in lines}, title, x, y, log, share)
        caption = caption.replace(BANDS, "Thick: mean over training seeds; thin: each seed.").replace(DASHED, MARKED)
        return Picture(file_name("context", name), "context", "", "", title, caption), figure
    figure, axes = panel()
    styles = model_styles(results)
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


def _panels(
    results: Results, lines: Mapping[str, CurvePoints], title: str, x: str, y: str, log: bool, share: bool
) -> "Figure":
    """A panel per architecture; the mean of each group of seeds, and its runs as thin lines."""
    families, styles = architectures(results), length_styles(results)
    figure, axes = panels([*families], title)
    for one, groups in zip(axes, families.values(), strict=True):
        for group in groups:
            style, own = group.style(styles), [lines[run.name] for run in group.runs if lines.get(run.name)]
            shared = [at for at in own[0] if all(at in points for points in own)] if own else []
            for points in own[: len(own) if len(own) > 1 else 0]:
                one.plot(np.log2(shared), [points[at].value for at in shared], color=style.colour, lw=0.7, alpha=0.5)
            if shared:
                means = [float(np.mean([points[at].value for points in own])) for at in shared]
                one.plot(np.log2(shared), means, style.line, color=style.colour, lw=1.8, label=group.label)
            if not share:
                one.axvline(np.log2(group.context_length), color=style.colour, ls="--", lw=1.2)
    if log:
        axes[0].set_yscale("log")
    if share:
        share_axis(axes[0])
    tokens = [at for points in lines.values() for at in points]
    distance_axis(axes[0], min(tokens, default=1), max(tokens, default=2))
    outer_titles(figure, axes, x, y)
    legend(figure, *axes)
    return figure


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
