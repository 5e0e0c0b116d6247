"""Exact match by depth of the needle: length x depth heatmaps, and depth profiles with their intervals."""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import numpy as np

from lcprobe.analysis.findings.cells import Cell, PanelKey
from lcprobe.analysis.findings.extrapolation import reference_length
from lcprobe.analysis.findings.results import Results
from lcprobe.analysis.inputs import RunFacts
from lcprobe.analysis.report.charts.depth_axis import AT_REALISED_DEPTHS, realised_depth, strata_ticks
from lcprobe.analysis.report.charts.depth_by_length import profiles_by_training_length
from lcprobe.analysis.report.charts.drawing import (
    Style,
    figure_text,
    file_name,
    heatmap,
    heatmaps,
    legend,
    model_styles,
    panel,
    set_titles,
    share_axis,
)
from lcprobe.analysis.report.charts.picture import Picture, counts_text, drawn_formats
from lcprobe.analysis.report.charts.seed_groups import SeedGroup, architectures, has_several_lengths
from lcprobe.analysis.report.wording import AT_THE_ENDS, at_an_end, stratum_text
from lcprobe.tasks.episode import Formats

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def length_by_depth(results: Results) -> "Iterator[tuple[Picture, Figure]]":
    """One heatmap per task, format and model.

    With several training lengths: one figure per task, format and architecture, a heatmap per group of seeds.
    """
    for task, format in drawn_formats(results):
        if has_several_lengths(results):
            for name, groups in architectures(results).items():
                yield _heatmaps(results, name, groups, task, format)
            continue
        for run in results.study.runs:
            yield _heatmap(results, run, task, format)


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


def _heatmap(results: Results, run: RunFacts, task: str, format: Formats) -> "tuple[Picture, Figure]":
    where = PanelKey(run.name, task, format)
    plan = results.data.planned[task, format, "none"]
    lengths, strata = sorted(plan), _strata(plan)
    cells = [[_cell_at(results, where, x, stratum) for x in lengths] for stratum in strata]
    values = np.array([[_complete_accuracy(cell) for cell in row] for row in cells])
    edge = sum(length <= run.context_length for length in lengths)
    title = figure_text(f"{run.name}: {task}, {format}")
    rows, columns = [stratum_text(*stratum) for stratum in strata], [f"{x:,}" for x in lengths]
    figure = heatmap(values, rows, columns, title, "length (tokens)", "depth (0 first, 1 last)", edge)
    counts = [cell.n for row in cells for cell in row if cell is not None and cell.n]
    text = (
        f"{run.name}: exact match by length and depth of the needle, {task}, {format}. {counts_text(counts, 'cell')} "
    )
    text += f"Right of the dashed line: past the training length ({run.context_length:,}). "
    text += "Hatched: not planned or incomplete. Intervals are in the table of all cells."
    text += f" {AT_THE_ENDS}" if any(at_an_end(cell) for row in cells for cell in row if cell is not None) else ""
    name = file_name("heatmap", task, format, run.name)
    return Picture(name, "heatmap", task, str(format), title, text), figure


def _heatmaps(
    results: Results, name: str, groups: list[SeedGroup], task: str, format: Formats
) -> "tuple[Picture, Figure]":
    plan = results.data.planned[task, format, "none"]
    lengths, strata = sorted(plan), _strata(plan)
    counts: list[int] = []
    heats: dict[str, tuple[np.ndarray, float]] = {}
    any_at_an_end = False
    for group in groups:
        keys = [PanelKey(run.name, task, format) for run in group.runs]
        cells = [[[_cell_at(results, key, x, stratum) for key in keys] for x in lengths] for stratum in strata]
        values = np.array([[np.mean([*map(_complete_accuracy, seeds)]) for seeds in row] for row in cells])
        known = [[cell for cell in seeds if cell is not None] for row in cells for seeds in row]
        counts += [n for n in (sum(cell.n for cell in seeds) for seeds in known) if n]
        any_at_an_end |= any(at_an_end(cell) for seeds in known for cell in seeds)
        heats[group.label] = values, sum(length <= group.context_length for length in lengths)
    title = f"{name}: {task}, {format}"
    rows, columns = [stratum_text(*stratum) for stratum in strata], [f"{x:,}" for x in lengths]
    figure = heatmaps(heats, rows, columns, title, "length (tokens)", "depth (0 first, 1 last)")
    text = f"{name}: exact match by length and depth of the needle, {task}, {format}, mean over training seeds. "
    text += f"{counts_text(counts, 'cell')} Right of the dashed line: past the training length. "
    text += "Hatched: not planned or incomplete. Intervals are in the table of all cells."
    text += f" {AT_THE_ENDS}" if any_at_an_end else ""
    return Picture(file_name("heatmap", task, format, name), "heatmap", task, str(format), title, text), figure


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
