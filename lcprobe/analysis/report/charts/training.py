"""Training curves: losses and the scores of the small probes that run while a model trains."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from lcprobe.analysis.findings.results import Results
from lcprobe.analysis.inputs import RunFacts
from lcprobe.analysis.report.charts.drawing import (
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

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MAX_POINTS = 300
LOSSES = {"train/loss": "Training loss", "train/answer_loss": "Loss on answers"}
"""Metrics that have a curve, with the title of their figure."""


def training_curves(results: Results) -> "Iterator[tuple[Picture, Figure]]":
    """One figure per loss and per probe of metrics.csv, one line per run.

    With several training lengths: a panel per architecture; of each probe the values at the run's training length.
    """
    if has_several_lengths(results):
        yield from _panels(results)
        return
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
        points = _points(run, metric, is_probe)
        if not len(points):
            continue
        style, n_drawn = styles[run.name], n_drawn + 1
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
    text += "; small samples, not for conclusions." if is_probe else _averaged()
    file = file_name("training", metric.replace("/", "-").replace("@", "-at-"))
    return Picture(file, "training", "", "", title, text), figure


def _panels(results: Results) -> "Iterator[tuple[Picture, Figure]]":
    metrics = dict(LOSSES)
    rows = [row for run in results.study.runs for row in run.metrics]
    probed = {name.split("@")[0] for row in rows for name in row if name.startswith("probe/") and "@" in name}
    metrics |= {name: f"While training: {name.removeprefix('probe/')}" for name in sorted(probed)}
    families, styles = architectures(results), length_styles(results)
    for metric, title in metrics.items():
        is_probe, n_drawn = metric in probed, 0
        figure, axes = panels([*families], title, height=1.8)
        for one, groups in zip(axes, families.values(), strict=True):
            for group in groups:
                style = group.style(styles)
                name = f"{metric}@{group.context_length}" if is_probe else metric
                lines = [_points(run, name, is_probe) for run in group.runs]
                for i, points in enumerate(points for points in lines if len(points)):
                    label, n_drawn = None if i else group.label, n_drawn + 1
                    at, values = points[:, 0] / 1e6, points[:, 1]
                    one.plot(at, values, style.line, color=style.colour, lw=1.1, alpha=0.85, label=label)
        if not n_drawn:
            continue
        if is_probe:
            share_axis(axes[0])
        y = "exact match" if is_probe else "nats per token"
        outer_titles(figure, axes, "tokens trained on (millions)", y)
        legend(figure, *axes)
        text = f"{title} against tokens, {n_drawn} of {len(results.study.runs)} runs, one line per run"
        text += ", at its training length; small samples, not for conclusions." if is_probe else _averaged()
        file = file_name("training", metric.replace("/", "-"))
        yield Picture(file, "training", "", "", title, text), figure


def _points(run: RunFacts, metric: str, is_probe: bool) -> np.ndarray:
    """(n_points, 2) tokens and finite values of a metric."""
    points = np.array([(row["tokens"], row[metric]) for row in run.metrics if metric in row and "tokens" in row])
    points = points[np.isfinite(points).all(axis=1)] if len(points) else points
    return points if is_probe or not len(points) else _thinned(points)


def _averaged() -> str:
    return f" (averaged to at most {MAX_POINTS} points)."


def _thinned(points: np.ndarray) -> np.ndarray:
    return np.array([part.mean(axis=0) for part in np.array_split(points, min(MAX_POINTS, len(points)))])
