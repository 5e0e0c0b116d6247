"""Exact match by depth of the needle at one length: a line per model, its seeds thin beside it."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from lcprobe.analysis.findings.cells import Unavailable
from lcprobe.analysis.findings.extrapolation import reference_length
from lcprobe.analysis.findings.results import Results
from lcprobe.analysis.report.charts.axes import share_axis
from lcprobe.analysis.report.charts.depth.axis import AT_REALISED_DEPTHS, depth_axis, realised_depth
from lcprobe.analysis.report.charts.grammar import (
    HEIGHT,
    Row,
    Style,
    beside,
    curves,
    figure,
    file_name,
    has_bands,
    legend_note,
    panel,
    shown_number,
    shown_word,
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


@dataclass
class _Drawn:
    """Rows of one panel."""

    means: list[Row] = field(default_factory=list)
    seeds: list[Row] = field(default_factory=list)


def depth_profiles(results: Results) -> "Iterator[tuple[Picture, alt.ConcatChart]]":
    """Two figures per task and format: at the first length past the reference length of the first model where
    something is lost, and at the reference length.

    With several training lengths: of each group of seeds at its own, and of all at the longest, a panel per
    architecture.
    """
    for task, format in drawn_formats(results):
        lengths, trained = results.data.lengths(task, format), training_lengths(results)
        if has_several_lengths(results):
            own = {context: reference_length(lengths, context) for context in trained}
            longest = reference_length(lengths, trained[-1])
            yield _figure(results, task, format, own, "at the training length", "own")
            yield _figure(results, task, format, dict.fromkeys(trained, longest), f"at {longest:,} tokens", longest)
            continue
        first = reference_length(lengths, results.study.runs[0].context_length)
        for length in [*_first_loss(results, task, format, lengths, first), first]:
            yield _figure(results, task, format, dict.fromkeys(trained, length), f"at {length:,} tokens", length)


def _first_loss(results: Results, task: str, format: Formats, lengths: Sequence[int], after: int) -> list[int]:
    """The first length longer than `after` that is the first past the effective length of some model; else the next
    longer one, if any."""
    lost = []
    for one in results.extrapolations:
        if (one.where.task, one.where.format) == (task, format) and one.effective is not None:
            lost += [length for length in lengths if length > one.effective][:1]
    return sorted(length for length in lost if length > after)[:1] or [x for x in lengths if x > after][:1]


def _figure(
    results: Results, task: str, format: Formats, length_at: Mapping[int, int], where: str, suffix: int | str
) -> "tuple[Picture, alt.ConcatChart]":
    """length_at: training length -> length of the profile."""
    several = has_several_lengths(results)
    by_panel = architectures(results) if several else {"": seed_groups(results)}
    shades, styles, panels, rows = length_styles(results), group_styles(results), [], []
    for name, groups in by_panel.items():
        if several:
            styles = {group.label: group.style(shades) for group in groups}
        drawn = _Drawn()
        for i, group in enumerate(groups):
            _add(drawn, results, group, task, format, length_at[group.context_length], beside(i, len(groups)))
        strata = len(results.data.planned[task, format, "none"][max(length_at[g.context_length] for g in groups)])
        panels.append(panel(_layers(drawn, styles, strata, several), height=170 if several else HEIGHT, title=name))
        rows += drawn.means
    title = f"{task}, {format}: {where}"
    chart = figure(
        panels,
        title,
        models=[] if several else [group.name for group in seed_groups(results)],
    )
    text = (
        f"Depth profiles {where}, {task}, {format}. {seeds_text(results)}{counts_text([row['n'] for row in rows])} "
    )
    text += legend_note(styles)
    text += f"{AT_REALISED_DEPTHS} " + (f"Bands: {intervals_text(results)}" if has_bands(styles) else "")
    name = file_name("depth", task, format, suffix)
    return Picture(name, "depth", task, str(format), title, text.strip()), chart


def _add(
    drawn: _Drawn, results: Results, group: SeedGroup, task: str, format: Formats, length: int, place: float
) -> None:
    """place: of the group among those of one point."""
    depths = [*results.data.planned[task, format, "none"].get(length, {})]
    for depth in depths:
        mean = group_mean(results, group, task, format, length, [depth])
        if isinstance(mean, Unavailable):
            continue
        at = realised_depth(results, group.runs, task, format, length, depth)
        at += 0.1 * place if len(depths) == 1 else 0.0
        row: Row = {"model": group.name, "series": group.label, "length": length, "depth": depth, "at": at}
        drawn.means.append({**row, **interval_row(mean), "n": mean.n})
        for run in group.runs if len(group.runs) > 1 else ():
            own = group_mean(results, replace(group, runs=(run,)), task, format, length, [depth])
            if not isinstance(own, Unavailable):
                drawn.seeds.append({**row, "seed": run.name, "value": own.value})


def _layers(drawn: _Drawn, styles: Mapping[str, Style], strata: int, several: bool) -> "list[alt.Chart]":
    tooltip = [
        shown_word("model", "model"),
        shown_number("length", "length (tokens)", ",d"),
        shown_number("at", "mean depth"),
        shown_number("value", "exact match"),
        shown_word("interval", "95 % interval"),
        shown_word("count", "correct"),
    ]
    by = "series" if several else "model"
    return curves(drawn.means, styles, depth_axis(strata), share_axis(), tooltip, field=by, seeds=drawn.seeds)
