"""Training curves: losses and the scores of the small probes that run while a model trains."""

from collections.abc import Iterator, Mapping
from math import isfinite
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from lcprobe.analysis.findings.results import Results
from lcprobe.analysis.inputs import RunFacts
from lcprobe.analysis.report.charts.axes import amount_axis, number_axis, share_axis
from lcprobe.analysis.report.charts.grammar import (
    HEIGHT,
    Row,
    curves,
    figure,
    file_name,
    legend_note,
    panel,
    shown_number,
    shown_word,
)
from lcprobe.analysis.report.charts.picture import Picture
from lcprobe.analysis.report.charts.seed_groups import (
    SEEDS,
    SeedGroup,
    architectures,
    group_styles,
    has_several_lengths,
    length_styles,
    seed_groups,
)

if TYPE_CHECKING:
    import altair as alt

Points: TypeAlias = dict[float, float]
"""Values by tokens."""
MAX_POINTS, MIN_POINTS = 120, 30
"""Points of one curve."""
ALL_POINTS = 1500
"""About as many points has a figure in all: curves of many runs have fewer, so that the page stays small."""
LOSSES = {"train/loss": "Training loss", "train/answer_loss": "Loss on answers"}
"""Metrics that have a curve, with the title of their figure."""


def training_curves(results: Results) -> "Iterator[tuple[Picture, alt.ConcatChart]]":
    """One figure per loss and per probe of metrics.csv: the mean of each group of seeds, and each seed.

    With several training lengths: a panel per architecture; of each probe the values at the run's training length.
    """
    names = dict.fromkeys(name for run in results.study.runs for row in run.metrics for name in row)
    probes = [name for name in names if name.startswith("probe/") and "@" in name and "/depth" not in name]
    if has_several_lengths(results):
        probes = sorted({name.split("@")[0] for name in probes})
    titles = LOSSES | {name: f"While training: {name.removeprefix('probe/')}" for name in probes}
    for name, title in titles.items():
        drawing = _curves(results, name, title, is_probe=name in probes)
        if drawing is not None:
            yield drawing


def _curves(results: Results, metric: str, title: str, is_probe: bool) -> "tuple[Picture, alt.ConcatChart] | None":
    several, groups = has_several_lengths(results), seed_groups(results)
    points = {
        run.name: _points(run, f"{metric}@{group.context_length}" if several and is_probe else metric)
        for group in groups
        for run in group.runs
    }
    n_drawn = sum(bool(own) for own in points.values())
    if not n_drawn:
        return None
    most = max(MIN_POINTS, min(MAX_POINTS, ALL_POINTS // (n_drawn + len(groups))))
    rows = {
        group.name: _rows(group, points, group.label if several else group.name, MAX_POINTS if is_probe else most)
        for group in groups
    }
    everything = [row for part in rows.values() for each in part for row in each]
    x = amount_axis("tokens", "tokens trained on", [row["tokens"] for row in everything])
    unit = "exact match" if is_probe else "nats per token"
    y = share_axis() if is_probe else number_axis("value", unit, [row["value"] for row in everything])
    tooltip = [
        shown_word("model", "model"),
        shown_number("tokens", "tokens", ",.0f"),
        shown_number("value", unit, ".3f"),
    ]
    panels = []
    for name, own in (architectures(results) if several else {"": groups}).items():
        shades = length_styles(results)
        styles = {g.label: g.style(shades) for g in own} if several else group_styles(results)
        means, seeds = ([row for group in own for row in rows[group.name][i]] for i in (0, 1))
        field = "series" if several else "model"
        layers = curves(means, styles, x, y, tooltip, field=field, seeds=seeds, bands=False, points=is_probe)
        panels.append(panel(layers, title=name, height=150 if several else HEIGHT))
    models = [] if several else [group.name for group in groups]
    chart = figure(panels, title, models=models)
    text = f"{title} against tokens, {n_drawn} of {len(results.study.runs)} runs"
    if is_probe:
        text += f"{', each at its training length' if several else ''}; small samples, not for conclusions."
    else:
        text += f" (averaged to at most {most} points each)."
    text += f" {SEEDS}" if any(len(group.runs) > 1 for group in groups) else ""
    note = "" if several else legend_note(group_styles(results)).strip()
    text += f" {note}" if note else ""
    file = file_name("training", metric.replace("/", "-").replace("@", "-at-"))
    return Picture(file, "training", "", "", title, text), chart


def _points(run: RunFacts, metric: str) -> Points:
    """Finite values of a metric by the tokens trained on."""
    found = {row["tokens"]: row[metric] for row in run.metrics if metric in row and "tokens" in row}
    return {tokens: value for tokens, value in found.items() if isfinite(tokens) and isfinite(value)}


def _rows(group: SeedGroup, points: Mapping[str, Points], series: str, most: int) -> tuple[list[Row], list[Row]]:
    """Means of a group, where all of its seeds have a value, and the points of each seed where there are several.

    most: points per curve, neighbours are averaged.
    """
    own = {run.name: points[run.name] for run in group.runs if points[run.name]}
    shared = [at for at in next(iter(own.values()), {}) if all(at in each for each in own.values())]
    means = {at: float(np.mean([each[at] for each in own.values()])) for at in shared}
    place: Row = {"model": group.name, "series": series}
    seeds = own if len(own) > 1 else {}
    return (
        _curve_rows(place, means, most),
        [row for name, each in seeds.items() for row in _curve_rows({**place, "seed": name}, each, most)],
    )


def _curve_rows(place: Row, points: Points, most: int) -> list[Row]:
    """Rows of one curve, of `most` at most."""
    parts = np.array_split(np.array([*points.items()]).reshape(-1, 2), max(1, min(most, len(points))))
    means = [part.mean(axis=0) for part in parts if len(part)]
    return [{**place, "tokens": float(at), "value": float(value)} for at, value in means]
