"""Exact match by depth of the needle: length x depth heatmaps, and depth profiles with their intervals."""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from lcprobe.analysis.findings.cells import Cell, PanelKey
from lcprobe.analysis.findings.extrapolation import reference_length
from lcprobe.analysis.findings.results import Results
from lcprobe.analysis.report.charts.depth_axis import AT_REALISED_DEPTHS, realised_depth, strata_ticks
from lcprobe.analysis.report.charts.depth_by_length import profiles_by_training_length
from lcprobe.analysis.report.charts.drawing import (
    Style,
    figure_text,
    legend,
    model_styles,
    panel,
    set_titles,
    share_axis,
)
from lcprobe.analysis.report.charts.grammar import Row, file_name, shown_word
from lcprobe.analysis.report.charts.heatmaps import heatmaps
from lcprobe.analysis.report.charts.picture import Picture, counts_text, drawn_formats
from lcprobe.analysis.report.charts.seed_groups import SeedGroup, architectures, has_several_lengths, seed_groups
from lcprobe.analysis.report.wording import AT_THE_ENDS, at_an_end, stratum_text
from lcprobe.tasks.episode import Formats

if TYPE_CHECKING:
    import altair as alt
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MAX_PANELS = 12
"""Models side by side in one figure."""


def length_by_depth(results: Results) -> "Iterator[tuple[Picture, alt.ConcatChart]]":
    """One figure per task and format, the models side by side; of many models several figures.

    With several training lengths: one figure per task, format and architecture.
    """
    for task, format in drawn_formats(results):
        if has_several_lengths(results):
            for name, groups in architectures(results).items():
                yield _heatmaps(results, f"{name}: {task}, {format}", groups, task, format, name)
            continue
        groups = seed_groups(results)
        for i in range(0, len(groups), MAX_PANELS):
            part = [] if len(groups) <= MAX_PANELS else [i // MAX_PANELS + 1]
            title = f"{task}, {format}" + "".join(f" ({k})" for k in part)
            yield _heatmaps(results, title, groups[i : i + MAX_PANELS], task, format, *part)


def depth_profiles(results: Results) -> "Iterator[tuple[Picture, Figure]]":
    """Two figures per task and format: at the reference length of the first model, and at the next longer length.

    With several training lengths: of each group of seeds at its own, and of all at the longest, in panels.
    """
    if has_several_lengths(results):
        yield from profiles_by_training_length(results)
        return
    styles = model_styles(results)
    for task, format in drawn_formats(results):
        lengths = results.data.lengths(task, format)
        first = reference_length(lengths, results.study.runs[0].context_length)
        for length in [first, *[x for x in lengths if x > first][:1]]:
            yield _profile(results, task, format, length, styles)


def _heatmaps(
    results: Results, title: str, groups: Sequence[SeedGroup], task: str, format: Formats, *name: object
) -> "tuple[Picture, alt.ConcatChart]":
    plan = results.data.planned[task, format, "none"]
    lengths, strata = sorted(plan), _strata(plan)
    labels = [group.label if has_several_lengths(results) else group.name for group in groups]
    panels: dict[str, tuple[list[Row], int]] = {}
    counts: list[int] = []
    any_at_an_end = False
    for group, label in zip(groups, labels, strict=True):
        rows = []
        for stratum in strata:
            for length in lengths:
                seeds = [_cell_at(results, PanelKey(run.name, task, format), length, stratum) for run in group.runs]
                known = [cell for cell in seeds if cell is not None and not np.isnan(_complete_accuracy(cell))]
                hits, n = sum(cell.k for cell in known), sum(cell.n for cell in known)
                value = float(np.mean([cell.k / cell.n for cell in known])) if len(known) == len(seeds) else None
                place = {"row": stratum_text(*stratum), "column": f"{length:,}", "model": label}
                rows.append({**place, "value": value, "count": f"{hits}/{n}", "interval": _interval(known)})
                counts += [n] if n else []
                any_at_an_end |= any(at_an_end(cell) for cell in known)
        panels[label] = rows, sum(length <= group.context_length for length in lengths)
    tooltip = [shown_word("model", "model"), shown_word("column", "length (tokens)"), shown_word("row", "depth")]
    tooltip += [shown_word("count", "correct"), shown_word("interval", "95 % interval")]
    rows_of, columns = [stratum_text(*stratum) for stratum in strata], [f"{x:,}" for x in lengths]
    chart = heatmaps(panels, rows_of, columns, title, "length (tokens)", "depth (0 first, 1 last)", tooltip)
    text = f"Exact match by length and depth of the needle, {task}, {format}"
    text += ", mean over training seeds. " if any(len(group.runs) > 1 for group in groups) else ". "
    text += f"{counts_text(counts, 'cell')} Right of the dashed line: past the training length. "
    text += "Grey: not planned or incomplete."
    text += f" {AT_THE_ENDS}" if any_at_an_end else ""
    return Picture(file_name("heatmap", task, format, *name), "heatmap", task, str(format), title, text), chart


def _interval(cells: Sequence[Cell]) -> str:
    """The interval of one cell; of several seeds those of each."""
    return "; ".join(
        f"{cell.low:.2f}–{cell.high:.2f}" for cell in cells if cell.low is not None and cell.high is not None
    )


def _profile(
    results: Results, task: str, format: Formats, length: int, styles: dict[str, Style]
) -> "tuple[Picture, Figure]":
    figure, axes = panel()
    counts: list[int] = []
    depths = results.data.planned[task, format, "none"][length]
    for i, run in enumerate(results.study.runs):
        cells = [results.cell_at.get((PanelKey(run.name, task, format), length, depth)) for depth in depths]
        complete = [cell for cell in cells if cell is not None and not np.isnan(_complete_accuracy(cell))]
        shift = 0.012 * (i - (len(results.study.runs) - 1) / 2)  # error bars side by side
        places = [realised_depth(results, [run], task, format, length, cell.depth) + shift for cell in complete]
        _error_bars(axes, [*zip(places, complete, strict=True)], styles[run.name], figure_text(run.name))
        counts += [cell.n for cell in complete]
    share_axis(axes)
    strata_ticks(axes, len(depths))
    title = figure_text(f"{task}, {format}: {length:,} tokens")
    set_titles(axes, title, "depth of the needle (0 first, 1 last)", "exact match")
    legend(figure, axes)
    text = (
        f"Depth profile at {length:,} tokens, {task}, {format}. {counts_text(counts)} Bars: 95 % Wilson intervals. "
    )
    text += AT_REALISED_DEPTHS
    name = file_name("depth", task, format, length)
    return Picture(name, "depth", task, str(format), f"{task}, {format}", text), figure


def _strata(plan: Mapping[int, Mapping[float, int]]) -> list[tuple[float, int]]:
    """The strata of a plan, by centre and how many there are at that length: lengths may be divided differently."""
    return sorted({(depth, len(cells)) for cells in plan.values() for depth in cells})


def _cell_at(results: Results, where: PanelKey, length: int, stratum: tuple[float, int]) -> Cell | None:
    cell = results.cell_at.get((where, length, stratum[0]))
    return cell if cell is not None and cell.strata == stratum[1] else None


def _error_bars(axes: "Axes", points: list[tuple[float, Cell]], style: Style, label: str) -> None:
    if not points:
        return
    at, values = [x for x, _ in points], [cell.accuracy or 0.0 for _, cell in points]
    axes.plot(at, values, style.line, marker=style.marker, ms=5, color=style.colour, label=label)
    low, high = [cell.low or 0.0 for _, cell in points], [cell.high or 0.0 for _, cell in points]
    axes.vlines(at, low, high, color=style.colour, lw=1.4)


def _complete_accuracy(cell: Cell | None) -> float:
    """Accuracy of a cell that has all of its planned samples, else NaN."""
    if cell is None or cell.accuracy is None or cell.n_failed or cell.samples != cell.planned:
        return float("nan")
    return cell.accuracy
