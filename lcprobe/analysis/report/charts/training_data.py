"""What training asked and what its text could see: distances of needles beside those of the probe, lengths of the
pieces of documents. Cumulative shares; a model that was never asked far back has not been trained on its length.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from lcprobe.analysis.findings.results import Results
from lcprobe.analysis.inputs import RunFacts
from lcprobe.analysis.report.charts.axes import share_axis, tokens_axis
from lcprobe.analysis.report.charts.grammar import (
    COLOURS,
    DASHED,
    DOTTED,
    INK,
    SOLID,
    SYMBOLS,
    WIDTH,
    Row,
    Style,
    curves,
    figure,
    panel,
    shown_number,
    shown_word,
    trained_at,
    vertical,
)
from lcprobe.analysis.report.charts.picture import Picture
from lcprobe.analysis.report.charts.seed_groups import architectures, length_styles
from lcprobe.models.extend.config import AS_TRAINED

if TYPE_CHECKING:
    import altair as alt

MAX_PANELS = 8
"""Distributions of needle distances that are drawn."""
FIRST_SEED = "The first training seed is drawn, and models with the same data once."
TRAINING, PROBE_THERE, PROBE = "training", "probe at the training length", "probe at all lengths"
NEEDLES = {
    TRAINING: Style(COLOURS[0], SYMBOLS[0], SOLID),
    PROBE_THERE: Style(INK, SYMBOLS[0], DASHED),
    PROBE: Style(INK, SYMBOLS[0], DOTTED),
}
N_PROBED = 41
"""Points of a curve of the probe."""
Quantiles = Sequence[float]


@dataclass(frozen=True)
class _Data:
    """Runs with the same distribution at one training length: its quantiles, and the first of the runs."""

    context_length: int
    quantiles: Quantiles
    run: RunFacts
    names: list[str]


def training_data_charts(results: Results) -> "Iterator[tuple[Picture, alt.ConcatChart]]":
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


def _needles(results: Results, asked: list[_Data]) -> "tuple[Picture, alt.ConcatChart]":
    drawn = asked[:MAX_PANELS]
    lengths = [data.context_length for data in drawn]
    rows: list[list[Row]] = []
    counts: list[int] = []
    for data in drawn:
        rows.append(_cumulative(data.quantiles, {"series": TRAINING}))
        for name, which in ((PROBE_THERE, data.context_length), (PROBE, None)):
            distances = _probed(results, data.run, which)
            if len(distances):
                quantiles = np.quantile(distances, np.linspace(0, 1, N_PROBED), method="inverted_cdf")
                rows[-1] += _cumulative(quantiles, {"series": name})
                counts.append(len(distances))
    columns = min(2, len(drawn))
    x = tokens_axis("at", "distance to the needle (tokens)", [row["at"] for own in rows for row in own])
    width, height = (215, 150) if columns > 1 else (WIDTH, 220)
    panels = []
    for data, own in zip(drawn, rows, strict=True):
        alone = lengths.count(data.context_length) == 1
        title = f"trained at {data.context_length:,}{'' if alone else ': ' + ', '.join(data.names)}"
        lines = _lines(own, NEEDLES, x)
        panels.append(panel([*vertical({float(data.context_length): ""}), *lines], width, height, title))
    title = "Distances of needles in training and in the probe"
    text = f"{title}: share of questions whose needle is at most so far back. {FIRST_SEED} "
    text += "Dashed: the probe at the training length; dotted: at all lengths. Vertical line: the training length. "
    text += f"n = {min(counts)} to {max(counts)} questions of the probe." if counts else "The probe has no needles."
    text += f" The first {MAX_PANELS} of {len(asked)} distributions." if len(asked) > MAX_PANELS else ""
    return Picture("training_data_needles", "training_data", "", "", title, text), figure(panels, title, columns)


def _text(results: Results, parts: dict[str, list[_Data]]) -> "tuple[Picture, alt.ConcatChart]":
    shades, title = length_styles(results), "What a token of text could see in training"
    rows = {
        name: [
            row
            for data in found
            for row in _cumulative(data.quantiles, {"series": f"trained at {data.context_length:,}"})
        ]
        for name, found in parts.items()
    }
    places = [row["at"] for own in rows.values() for row in own]
    x = tokens_axis("at", "tokens", places)
    styles = {f"trained at {length:,}": style for length, style in shades.items()}
    panels = [
        panel(
            [*trained_at([data.context_length for data in parts[name]]), *_lines(own, styles, x)],
            height=150,
            title=name,
        )
        for name, own in rows.items()
    ]
    text = (
        "Share of the tokens of text whose piece of a document within its sequence is at most so long, and that can "
    )
    text += f"see at most so many tokens before them. {FIRST_SEED} Dashed: training lengths. "
    text += f"Of {len(results.study.runs)} runs."
    return Picture("training_data_text", "training_data", "", "", title, text), figure(panels, title)


def _lines(rows: Sequence[Row], styles: Mapping[str, Style], x: "alt.X") -> "list[alt.Chart]":
    tooltip = [
        shown_word("series", "of"),
        shown_number("at", "tokens", ",.0f"),
        shown_number("value", "cumulative share"),
    ]
    y = share_axis(title="cumulative share")
    return curves(rows, styles, x, y, tooltip, field="series", bands=False, points=False)


def _probed(results: Results, run: RunFacts, length: int | None) -> np.ndarray:
    """Distances of the probe's needles for a run, at one length or at all, over tasks and formats."""
    found = [np.empty(0)]
    for where, own in results.data.panels.items():
        if where.model == run.name and where.control == "none":
            distance, _, _, cell = own.needle_trials
            at = np.array(own.lengths)[cell // len(own.depths)]
            found.append(distance if length is None else distance[at == length])
    return np.concatenate(found)


def _cumulative(quantiles: Quantiles | np.ndarray, place: Row) -> list[Row]:
    """Points of a cumulative distribution from evenly spaced quantiles."""
    values = np.maximum(np.asarray(quantiles, float), 1)
    shares = np.linspace(0, 1, len(values))
    return [{**place, "at": float(at), "value": float(share)} for at, share in zip(values, shares, strict=True)]
