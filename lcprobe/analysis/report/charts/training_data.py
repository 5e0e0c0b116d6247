"""What training asked and what its text could see: distances of needles beside those of the probe, lengths of the
pieces of documents. Cumulative shares; a model that was never asked far back has not been trained on its length.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from lcprobe.analysis.findings.results import Results
from lcprobe.analysis.inputs import RunFacts
from lcprobe.analysis.report.charts.drawing import (
    GREY,
    INK,
    distance_axis,
    legend,
    outer_titles,
    panels,
    share_axis,
)
from lcprobe.analysis.report.charts.picture import Picture
from lcprobe.analysis.report.charts.seed_groups import architectures, length_styles
from lcprobe.models.extend.config import AS_TRAINED

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MAX_PANELS = 8
"""Distributions of needle distances that are drawn."""
FIRST_SEED = "The first training seed is drawn, and models with the same data once."
Quantiles = Sequence[float]


@dataclass(frozen=True)
class _Data:
    """Runs with the same distribution at one training length: its quantiles, and the first of the runs."""

    context_length: int
    quantiles: Quantiles
    run: RunFacts
    names: list[str]


def training_data_charts(results: Results) -> "Iterator[tuple[Picture, Figure]]":
    """Distances of needles in training and in the probe; lengths of pieces of text. Nothing where no run has any."""
    asked = _distinct(results, "needle_distances")
    if asked:
        yield _needles(results, asked)
    pieces, before = _distinct(results, "visible"), _distinct(results, "visible_before")
    if pieces:
        yield _text(results, {"length of its piece of a document": pieces, "tokens before it": before})


def _distinct(results: Results, name: str) -> list[_Data]:
    """Distributions of the first seed of each group, those that differ, by training length."""
    found: dict[tuple[int, Quantiles], _Data] = {}
    for architecture, groups in architectures(results).items():
        for run in (group.runs[0] for group in groups if group.runs[0].extension == AS_TRAINED):
            data = run.training_data
            if data is None:
                continue
            by_name = {"needle_distances": data.needle_distances, "visible": data.visible}
            values = (by_name | {"visible_before": data.visible_before})[name]
            if values:
                place = run.context_length, tuple(values)
                found.setdefault(place, _Data(*place, run, [])).names.append(architecture)
    return sorted(found.values(), key=lambda data: data.context_length)


def _needles(results: Results, asked: list[_Data]) -> "tuple[Picture, Figure]":
    drawn, styles = asked[:MAX_PANELS], length_styles(results)
    lengths = [data.context_length for data in drawn]
    titles = [
        f"trained at {data.context_length:,}" + (f": {', '.join(data.names)}" if lengths.count(length) > 1 else "")
        for data, length in zip(drawn, lengths, strict=True)
    ]
    title = "Distances of needles in training and in the probe"
    figure, axes = panels(titles, title, columns=min(2, len(drawn)), height=2.2)
    most, counts = 2.0, []
    for one, data in zip(axes, drawn, strict=True):
        colour, length = styles[data.context_length].colour, data.context_length
        one.plot(*_cumulative(data.quantiles), color=colour, lw=2.4, label=None if len(drawn) > 1 else "training")
        for which, dashes in ((length, "--"), (None, ":")):
            distances = _probed(results, data.run, which)
            if len(distances):
                where = "at all lengths" if which is None else "at the training length"
                quantiles = np.quantile(distances, np.linspace(0, 1, 201), method="inverted_cdf")
                one.plot(*_cumulative(quantiles), dashes, color=INK, lw=1.2, label=f"probe {where}")
                most, counts = max(most, float(distances.max())), [*counts, len(distances)]
        most = max(most, data.quantiles[-1])
        one.axvline(np.log2(length), color=GREY, lw=1.0)
    if len(drawn) > 1:
        axes[0].plot([], [], color=GREY, lw=2.4, label="training, in the colour of its length")
    least = min(max(1.0, data.quantiles[0]) for data in drawn)
    share_axis(axes[0])
    distance_axis(axes[0], least, most, 8 // min(2, len(drawn)))
    outer_titles(figure, axes, "distance to the needle (tokens)", "cumulative share")
    legend(figure, *axes, columns=2)
    text = f"{title}: share of questions whose needle is at most so far back. {FIRST_SEED} "
    text += "Dashed: the probe at the training length; dotted: at all lengths. Vertical line: the training length. "
    text += f"n = {min(counts)} to {max(counts)} questions of the probe." if counts else "The probe has no needles."
    text += f" The first {MAX_PANELS} of {len(asked)} distributions." if len(asked) > MAX_PANELS else ""
    return Picture("training_data_needles", "training_data", "", "", title, text), figure


def _text(results: Results, parts: dict[str, list[_Data]]) -> "tuple[Picture, Figure]":
    styles, title = length_styles(results), "What a token of text could see in training"
    figure, axes = panels([*parts], title)
    for one, found in zip(axes, parts.values(), strict=True):
        for data in found:
            style, label = styles[data.context_length], f"trained at {data.context_length:,}"
            one.plot(*_cumulative(data.quantiles), color=style.colour, lw=1.8, label=label)
            one.axvline(np.log2(data.context_length), color=style.colour, ls="--", lw=1.2)
    tokens = [
        value for found in parts.values() for data in found for value in (data.quantiles[0], data.quantiles[-1])
    ]
    share_axis(axes[0])
    distance_axis(axes[0], min(tokens), max(tokens))
    outer_titles(figure, axes, "tokens", "cumulative share")
    legend(figure, *axes)
    text = (
        "Share of the tokens of text whose piece of a document within its sequence is at most so long, and that can "
    )
    text += f"see at most so many tokens before them. {FIRST_SEED} Dashed: training lengths, in the colour of their "
    text += f"curve. Of {len(results.study.runs)} runs."
    return Picture("training_data_text", "training_data", "", "", title, text), figure


def _probed(results: Results, run: RunFacts, length: int | None) -> np.ndarray:
    """Distances of the probe's needles for a run, at one length or at all, over tasks and formats."""
    found = [np.empty(0)]
    for where, panel in results.data.panels.items():
        if where.model == run.name and where.control == "none":
            distance, _, _, cell = panel.needle_trials
            at = np.array(panel.lengths)[cell // len(panel.depths)]
            found.append(distance if length is None else distance[at == length])
    return np.concatenate(found)


def _cumulative(quantiles: Quantiles | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """log2 of evenly spaced quantiles, and their shares."""
    values = np.maximum(np.asarray(quantiles, float), 1)
    return np.log2(values), np.linspace(0, 1, len(values))
