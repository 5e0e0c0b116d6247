"""Exact match against length, and against length / training length: a line per model, its seeds thin beside it."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import numpy as np

from lcprobe.analysis.findings.cells import PanelKey, Slice, Unavailable
from lcprobe.analysis.findings.results import Results
from lcprobe.analysis.report.charts.axes import multiple_axis, share_axis, tokens_axis
from lcprobe.analysis.report.charts.grammar import (
    HEIGHT,
    Row,
    Style,
    beside,
    curves,
    figure,
    file_name,
    has_bands,
    horizontal,
    legend_note,
    panel,
    shown_number,
    shown_word,
    trained_at,
    vertical,
)
from lcprobe.analysis.report.charts.picture import Picture, counts_text, drawn_formats, interval_row
from lcprobe.analysis.report.charts.seed_groups import (
    SeedGroup,
    architectures,
    group_mean,
    group_styles,
    has_several_lengths,
    intervals_text,
    length_styles,
    seed_groups,
    seeds_text,
    training_lengths,
)
from lcprobe.tasks.episode import Formats

if TYPE_CHECKING:
    import altair as alt

Unit = Literal["length", "multiple"]
TEXTS: dict[Unit, tuple[str, str, str]] = {
    "length": (
        "Exact match against length",
        "length (tokens)",
        "Vertical lines: training lengths.",
    ),
    "multiple": (
        "Exact match against length / training length",
        "length / training length",
        "Vertical line: the training length. Where the training length is the ceiling the curves of an architecture "
        "collapse onto one; where reach is fixed they collapse in tokens.",
    ),
}
"""Start of the caption, x axis, and how to read the vertical lines."""


@dataclass
class _Drawn:
    """Rows of one panel, and of what the caption speaks."""

    means: list[Row] = field(default_factory=list)
    seeds: list[Row] = field(default_factory=list)
    counts: list[int] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)


def accuracy_by_length(results: Results) -> "Iterator[tuple[Picture, alt.ConcatChart]]":
    """One figure per task and format. With several training lengths a panel per architecture and a colour per
    length, otherwise one panel with a line per model."""
    for task, format in drawn_formats(results):
        yield _figure(results, task, format, "length")


def accuracy_by_multiple(results: Results) -> "Iterator[tuple[Picture, alt.ConcatChart]]":
    """The curves over length / training length; nothing for a study of one training length."""
    if has_several_lengths(results):
        for task, format in drawn_formats(results):
            yield _figure(results, task, format, "multiple")


def _figure(results: Results, task: str, format: Formats, unit: Unit) -> "tuple[Picture, alt.ConcatChart]":
    several, chance = has_several_lengths(results), chance_of(results, task, format)
    drawn, panels, styles = _Drawn(), [], group_styles(results)
    by_panel = architectures(results) if several else {"": seed_groups(results)}
    shades = length_styles(results)
    for name, groups in by_panel.items():
        if several:
            styles = {g.label: g.style(shades) for g in groups}
        layers = _layers(results, groups, task, format, unit, styles, drawn, chance)
        panels.append(panel(layers, height=170 if several else HEIGHT, title=name))
    start, _, lines = TEXTS[unit]
    models = [] if several else [group.name for group in seed_groups(results)]
    title = f"{task}, {format}"
    chart = figure(panels, title, models=models)
    text = f"{start} for {task}, {format}, mean over all depths. {seeds_text(results)}{counts_text(drawn.counts)} "
    text += legend_note(styles)
    text += f"Bands: {intervals_text(results)} {lines}" if has_bands(styles) else lines
    text += " Dotted: chance, the score of picking one of the values without reading the key." if chance else ""
    text += f" Not drawn: {'; '.join(drawn.missing)}." if drawn.missing else ""
    return Picture(file_name(unit, task, format), unit, task, str(format), title, text), chart


def _layers(
    results: Results,
    groups: Sequence[SeedGroup],
    task: str,
    format: Formats,
    unit: Unit,
    styles: Mapping[str, Style],
    drawn: _Drawn,
    chance: float | None,
) -> "list[alt.Chart]":
    """One panel; what it shows is added to `drawn`."""
    several, own = has_several_lengths(results), _Drawn()
    lengths = results.data.lengths(task, format)
    for i, group in enumerate(groups):
        shift = beside(i, len(groups)) if len(lengths) == 1 else 0.0
        _add(own, results, group, task, format, unit, group.label if several else group.name, shift)
    if unit == "length":
        x = tokens_axis("at", TEXTS[unit][1], lengths, lengths)
        trained = sorted({group.context_length for group in groups})
        shades = length_styles(results)  # with several lengths the legend names them
        marks = trained_at(trained)
        if several:
            marks = vertical(dict.fromkeys(map(float, trained), ""), colour=[shades[n].colour for n in trained])
    else:
        ratios = [length / trained for length in lengths for trained in training_lengths(results)]
        x, marks = multiple_axis("at", TEXTS[unit][1], ratios), vertical({1.0: "training length"})
    tooltip = [
        shown_word("model", "model"),
        shown_number("length", "length (tokens)", ",d"),
        shown_number("value", "exact match"),
        shown_word("interval", "95 % interval"),
        shown_word("count", "correct"),
    ]
    layers = curves(
        own.means, styles, x, share_axis(), tooltip, field="series" if several else "model", seeds=own.seeds
    )
    drawn.counts += own.counts
    drawn.missing += own.missing
    return [*marks, *(horizontal(chance, f"chance {chance:.2f}") if chance is not None else []), *layers]


def _add(
    drawn: _Drawn,
    results: Results,
    group: SeedGroup,
    task: str,
    format: Formats,
    unit: Unit,
    name: str,
    shift: float,
) -> None:
    """shift: -0.5 .. 0.5, of the points of a figure of one length."""
    zero = (1 if unit == "length" else group.context_length) / 1.2**shift
    for length in results.data.lengths(task, format):
        mean = group_mean(results, group, task, format, length)
        place: Row = {"model": group.name, "series": name, "length": length, "at": length / zero}
        if isinstance(mean, Unavailable):
            drawn.missing.append(f"{group.name} at {length}: {mean}")
            continue
        drawn.means.append({**place, **interval_row(mean)})
        drawn.counts.append(mean.n)
        for run in group.runs if len(group.runs) > 1 else ():
            part = results.data.slice(PanelKey(run.name, task, format), length)
            if isinstance(part, Slice):
                drawn.seeds.append({**place, "seed": run.name, "value": part.value})


def chance_of(results: Results, task: str, format: Formats) -> float | None:
    """Mean chance level over the lengths of a task, None where there is none."""
    keys = [PanelKey(run.name, task, format) for run in results.study.runs]
    by_length = []
    for length in results.data.lengths(task, format):
        parts = (results.data.slice(key, length) for key in keys)
        known = next((part.chance for part in parts if isinstance(part, Slice) and part.chance < 1), None)
        by_length += [] if known is None else [known]
    return float(np.mean(by_length)) if by_length else None
