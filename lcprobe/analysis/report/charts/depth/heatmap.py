"""Exact match by length and depth of the needle: heatmaps."""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from lcprobe.analysis.findings.cells import Cell, PanelKey
from lcprobe.analysis.findings.results import Results
from lcprobe.analysis.report.charts.grammar import Row, file_name, shown_word
from lcprobe.analysis.report.charts.heatmaps import heatmaps, parts_of
from lcprobe.analysis.report.charts.picture import Picture, counts_text, drawn_formats
from lcprobe.analysis.report.charts.seed_groups import SeedGroup, architectures, has_several_lengths, seed_groups
from lcprobe.analysis.report.wording import AT_THE_ENDS, at_an_end, stratum_text
from lcprobe.tasks.episode import Formats

if TYPE_CHECKING:
    import altair as alt


def length_by_depth(results: Results) -> "Iterator[tuple[Picture, alt.ConcatChart]]":
    """One figure per task and format, the models side by side; of many models several figures.

    With several training lengths: one figure per task, format and architecture.
    """
    for task, format in drawn_formats(results):
        if has_several_lengths(results):
            for name, groups in architectures(results).items():
                yield _heatmaps(results, f"{name}: {task}, {format}", groups, task, format, name)
            continue
        for part, groups in parts_of(seed_groups(results)):
            title = f"{task}, {format}" + "".join(f" ({k})" for k in part)
            yield _heatmaps(results, title, groups, task, format, *part)


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
    chart = heatmaps(panels, rows_of, columns, title, "length (tokens)", "depth", tooltip)
    text = f"Exact match by length and depth of the needle, {task}, {format}"
    text += ", mean over training seeds. " if any(len(group.runs) > 1 for group in groups) else ". "
    text += f"{counts_text(counts, 'cell')} Depth: 0 % first, 100 % last. "
    text += "Right of the dashed line: past the training length. Grey: not planned or incomplete."
    text += f" {AT_THE_ENDS}" if any_at_an_end else ""
    return Picture(file_name("heatmap", task, format, *name), "heatmap", task, str(format), title, text), chart


def _interval(cells: Sequence[Cell]) -> str:
    """The interval of one cell; of several seeds those of each."""
    return "; ".join(
        f"{cell.low:.2f}–{cell.high:.2f}" for cell in cells if cell.low is not None and cell.high is not None
    )


def _strata(plan: Mapping[int, Mapping[float, int]]) -> list[tuple[float, int]]:
    """The strata of a plan, by centre and how many there are at that length: lengths may be divided differently."""
    return sorted({(depth, len(cells)) for cells in plan.values() for depth in cells})


def _cell_at(results: Results, where: PanelKey, length: int, stratum: tuple[float, int]) -> Cell | None:
    cell = results.cell_at.get((where, length, stratum[0]))
    return cell if cell is not None and cell.strata == stratum[1] else None


def _complete_accuracy(cell: Cell | None) -> float:
    """Accuracy of a cell that has all of its planned samples, else NaN."""
    if cell is None or cell.accuracy is None or cell.n_failed or cell.samples != cell.planned:
        return float("nan")
    return cell.accuracy
