"""Exact match of a study with several training lengths: against length, and against length / training length."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal

import numpy as np

from lcprobe.analysis.findings.cells import PanelKey, Slice, Unavailable
from lcprobe.analysis.findings.results import Results
from lcprobe.analysis.report.charts.drawing import (
    GREY,
    INK,
    Style,
    band,
    file_name,
    legend,
    length_axis,
    multiple_axis,
    outer_titles,
    panels,
    share_axis,
)
from lcprobe.analysis.report.charts.picture import Picture, counts_text, drawn_formats
from lcprobe.analysis.report.charts.seed_groups import (
    OVER_SAMPLES,
    SEEDS,
    SeedGroup,
    architectures,
    group_mean,
    has_several_lengths,
    length_styles,
    training_lengths,
)
from lcprobe.tasks.episode import Formats

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Unit = Literal["length", "multiple"]
TEXTS: dict[Unit, tuple[str, str, str]] = {
    "length": (
        "Exact match against length",
        "length (tokens)",
        "Vertical lines: training lengths, in the colour of their curve.",
    ),
    "multiple": (
        "Exact match against length / training length",
        "length / training length",
        "Vertical line: the training length. Where the training length is the ceiling the curves of an architecture "
        "collapse onto one; where reach is fixed they collapse in tokens.",
    ),
}
"""Start of the caption, x axis, and how to read the vertical lines."""


def panels_by_length(results: Results, unit: Unit) -> "Iterator[tuple[Picture, Figure]]":
    """One figure per task and format, a panel per architecture and a colour per training length."""
    for task, format in drawn_formats(results):
        yield _panels(results, task, format, unit)


def accuracy_by_multiple(results: Results) -> "Iterator[tuple[Picture, Figure]]":
    """The curves over length / training length; nothing for a study of one training length."""
    if has_several_lengths(results):
        yield from panels_by_length(results, "multiple")


def _panels(results: Results, task: str, format: Formats, unit: Unit) -> "tuple[Picture, Figure]":
    families, styles, lengths = architectures(results), length_styles(results), results.data.lengths(task, format)
    figure, axes = panels([*families], f"{task}, {format}")
    counts: list[int] = []
    missing: list[str] = []
    for one, groups in zip(axes, families.values(), strict=True):
        for group in groups:
            found = _curve(one, results, group, task, format, unit, group.style(styles))
            counts += found[0]
            missing += found[1]
        if unit == "length":
            for length in sorted({group.context_length for group in groups}):
                one.axvline(np.log2(length), color=styles[length].colour, ls="--", lw=1.3, alpha=0.9)
        else:
            one.axvline(0, color=INK, ls="--", lw=1.2)
    chance = chance_of(results, task, format)
    if chance is not None:
        for one in axes:
            one.axhline(chance, color=GREY, linestyle=":", linewidth=1.4, label=f"chance {chance:.2f}")
    share_axis(axes[0])
    if unit == "length":
        length_axis(axes[0], lengths)
    else:
        ratios = [length / trained for length in lengths for trained in training_lengths(results)]
        multiple_axis(axes[0], min(ratios), max(ratios))
    start, x, lines = TEXTS[unit]
    outer_titles(figure, axes, x, "exact match")
    legend(figure, *axes)
    text = f"{start} for {task}, {format}, mean over all depths, by architecture. {SEEDS} {counts_text(counts)} "
    text += f"Bands: {OVER_SAMPLES} {lines}"
    text += " Dotted: chance level." if chance is not None else ""
    text += f" Not drawn: {'; '.join(missing)}." if missing else ""
    name = file_name(unit, task, format)
    return Picture(name, unit, task, str(format), f"{task}, {format}", text), figure


def _curve(
    axes: "Axes", results: Results, group: SeedGroup, task: str, format: Formats, unit: Unit, style: Style
) -> tuple[list[int], list[str]]:
    """Draw one group; the number of answers of each point, and what is not drawn."""
    lengths, zero = results.data.lengths(task, format), 1 if unit == "length" else group.context_length
    means = [(length, group_mean(results, group, task, format, length)) for length in lengths]
    missing = [f"{group.name} at {length}: {mean}" for length, mean in means if isinstance(mean, Unavailable)]
    points = [(length, mean) for length, mean in means if not isinstance(mean, Unavailable)]
    for run in group.runs[: len(group.runs) if len(group.runs) > 1 else 0]:
        parts = [(length, results.data.slice(PanelKey(run.name, task, format), length)) for length in lengths]
        own = [(length / zero, part.value) for length, part in parts if isinstance(part, Slice)]
        axes.plot(np.log2([x for x, _ in own]), [y for _, y in own], color=style.colour, lw=0.8, alpha=0.5)
    if points:
        at = np.log2([length / zero for length, _ in points])
        band(axes, at, [mean.low for _, mean in points], [mean.high for _, mean in points], style)
        values = [mean.value for _, mean in points]
        axes.plot(at, values, style.line, color=style.colour, marker=style.marker, ms=4.5, label=group.label)
    return [mean.n for _, mean in points], missing


def chance_of(results: Results, task: str, format: Formats) -> float | None:
    """Mean chance level over the lengths of a task, None where there is none."""
    keys = [PanelKey(run.name, task, format) for run in results.study.runs]
    by_length = []
    for length in results.data.lengths(task, format):
        parts = (results.data.slice(key, length) for key in keys)
        known = next((part.chance for part in parts if isinstance(part, Slice) and part.chance < 1), None)
        by_length += [] if known is None else [known]
    return float(np.mean(by_length)) if by_length else None
