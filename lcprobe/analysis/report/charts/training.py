"""Training curves: losses and the scores of the small probes that run while a model trains."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from lcprobe.analysis.findings.results import Results
from lcprobe.analysis.report.charts.drawing import (
    figure_text,
    file_name,
    legend,
    model_styles,
    panel,
    set_titles,
    share_axis,
)
from lcprobe.analysis.report.charts.picture import Picture

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MAX_POINTS = 300
LOSSES = {"train/loss": "Training loss", "train/answer_loss": "Loss on answers"}
"""Metrics that have a curve, with the title of their figure."""


def training_curves(results: Results) -> "Iterator[tuple[Picture, Figure]]":
    """One figure per loss and per probe of metrics.csv, one line per run."""
    names = dict.fromkeys(name for run in results.study.runs for row in run.metrics for name in row)
    probes = [name for name in names if name.startswith("probe/") and "@" in name and "/depth" not in name]
    titles = LOSSES | {name: f"While training: {name.removeprefix('probe/')}" for name in probes}
    for name, title in titles.items():
        drawing = _curves(results, name, title, is_probe=name in probes)
        if drawing is not None:
            yield drawing


def _curves(results: Results, metric: str, title: str, is_probe: bool) -> "tuple[Picture, Figure] | None":
    styles, n_drawn = model_styles(results), 0
    figure, axes = panel()
    for run in results.study.runs:
        points = np.array([(row["tokens"], row[metric]) for row in run.metrics if metric in row and "tokens" in row])
        points = points[np.isfinite(points).all(axis=1)] if len(points) else points
        if not len(points):
            continue
        style, n_drawn = styles[run.name], n_drawn + 1
        points = points if is_probe else _thinned(points)
        marker = style.marker if is_probe else None
        axes.plot(
            points[:, 0] / 1e6,
            points[:, 1],
            style.line,
            color=style.colour,
            label=figure_text(run.name),
            lw=1.5,
            marker=marker,
            ms=5,
        )
    if not n_drawn:
        return None
    if is_probe:
        share_axis(axes)
    set_titles(
        axes, figure_text(title), "tokens trained on (millions)", "exact match" if is_probe else "nats per token"
    )
    legend(figure, axes)
    text = f"{title} against tokens, {n_drawn} of {len(results.study.runs)} runs, one line per run"
    text += "; small samples, not for conclusions." if is_probe else f" (averaged to at most {MAX_POINTS} points)."
    file = file_name("training", metric.replace("/", "-").replace("@", "-at-"))
    return Picture(file, "training", "", "", title, text), figure


def _thinned(points: np.ndarray) -> np.ndarray:
    return np.array([part.mean(axis=0) for part in np.array_split(points, min(MAX_POINTS, len(points)))])
