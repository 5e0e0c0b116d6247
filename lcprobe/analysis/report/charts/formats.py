"""Exact match by format and length: heatmaps, the models side by side."""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from lcprobe.analysis.findings.cells import Unavailable
from lcprobe.analysis.findings.results import Results
from lcprobe.analysis.report.charts.grammar import Row, file_name, shown_word
from lcprobe.analysis.report.charts.heatmaps import heatmaps, parts_of
from lcprobe.analysis.report.charts.picture import Picture, counts_text, interval_row
from lcprobe.analysis.report.charts.seed_groups import (
    SeedGroup,
    architectures,
    group_mean,
    has_several_lengths,
    seed_groups,
)
from lcprobe.tasks.episode import Formats

if TYPE_CHECKING:
    import altair as alt


def format_matrix(results: Results) -> "Iterator[tuple[Picture, alt.ConcatChart]]":
    """One figure per task, a heatmap of format x length per model, at the lengths that two formats have or more; of
    many models several figures. None for tasks with a single format.

    With several training lengths: one figure per task and architecture, a heatmap per training length.
    """
    for task in results.data.tasks:
        formats = results.data.formats(task.name)
        if len(formats) < 2:
            continue
        if has_several_lengths(results):
            for name, groups in architectures(results).items():
                yield _figure(results, f"{name}: {task.name} by format", groups, task.name, formats, name)
            continue
        for part, groups in parts_of(seed_groups(results)):
            title = f"{task.name} by format" + "".join(f" ({k})" for k in part)
            yield _figure(results, title, groups, task.name, formats, *part)


def _figure(
    results: Results, title: str, groups: Sequence[SeedGroup], task: str, formats: Sequence[Formats], *name: object
) -> "tuple[Picture, alt.ConcatChart]":
    planned = Counter(length for format in formats for length in results.data.lengths(task, format))
    lengths = sorted(length for length, n in planned.items() if n > 1) or sorted(planned)
    panels: dict[str, tuple[list[Row], int]] = {}
    counts: list[int] = []
    for group in groups:
        label = group.label if has_several_lengths(results) else group.name
        rows: list[Row] = []
        for format in formats:
            for length in lengths:
                mean = group_mean(results, group, task, format, length)
                place = {"row": str(format), "column": f"{length:,}", "model": label}
                if isinstance(mean, Unavailable):
                    rows.append({**place, "value": None, "count": str(mean), "interval": ""})
                else:
                    rows.append({**place, **interval_row(mean)})
                    counts.append(mean.n)
        panels[label] = rows, sum(length <= group.context_length for length in lengths)
    tooltip = [shown_word("model", "model"), shown_word("row", "format"), shown_word("column", "length (tokens)")]
    tooltip += [shown_word("count", "correct"), shown_word("interval", "95 % interval")]
    rows_of, columns = [str(format) for format in formats], [f"{x:,}" for x in lengths]
    chart = heatmaps(panels, rows_of, columns, title, "length (tokens)", "", tooltip)
    text = f"Exact match on {task} by haystack/key/value format and length, mean over all depths"
    text += " and training seeds. " if any(len(group.runs) > 1 for group in groups) else ". "
    text += f"{counts_text(counts, 'slice')} Right of the dashed line: past the training length. "
    text += "Grey: not planned or incomplete."
    return Picture(file_name("formats", task, *name), "formats", task, "", title, text), chart
