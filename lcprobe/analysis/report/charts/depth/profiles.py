"""Exact match by depth of the needle at one length: a line per model, its seeds thin beside it."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from lcprobe.analysis.findings.cells import PanelKey, Slice, Unavailable
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


MAX_PROFILES = 2
"""Lengths of a task and format where a place is found, longest first, that are drawn."""


@dataclass
class _Drawn:
    """Rows of one panel."""

    means: list[Row] = field(default_factory=list)
    seeds: list[Row] = field(default_factory=list)


def depth_profiles(results: Results) -> "Iterator[tuple[Picture, alt.ConcatChart]]":
    """Figures per task and format: at lengths where a place makes a difference that is a finding, or where depth
    changes most, and at the reference length. None where depth has one stratum; what is flat, as no place makes
    a difference that is a finding, is folded.

    With several training lengths: of each group of seeds at its own, and of all at the longest, a panel per
    architecture.
    """
    for task, format in drawn_formats(results):
        lengths, trained = results.data.lengths(task, format), training_lengths(results)
        if all(len(depths) == 1 for depths in results.data.planned[task, format, "none"].values()):
            continue
        if has_several_lengths(results):
            own = {context: reference_length(lengths, context) for context in trained}
            longest = reference_length(lengths, trained[-1])
            yield _figure(results, task, format, own, "at the training length", "own")
            yield _figure(results, task, format, dict.fromkeys(trained, longest), f"at {longest:,} tokens", longest)
            continue
        first = reference_length(lengths, results.study.runs[0].context_length)
        for length in dict.fromkeys([*_telling_lengths(results, task, format, lengths, first), first]):
            yield _figure(results, task, format, dict.fromkeys(trained, length), f"at {length:,} tokens", length)


def _telling_lengths(
    results: Results, task: str, format: Formats, lengths: Sequence[int], reference: int
) -> list[int]:
    """The longest MAX_PROFILES lengths at which some place is found to differ; without any, the length other than
    the reference at which accuracy spreads most over depth, if possible of a model neither at floor nor at
    ceiling."""
    trained = training_lengths(results)
    found = [x for x in lengths if _finds_a_place(results, task, format, dict.fromkeys(trained, x))]
    if found:
        return sorted(found, reverse=True)[:MAX_PROFILES]
    others = [length for length in lengths if length != reference]
    return [max(others, key=lambda length: _spread(results, task, format, length))] if others else []


def _spread(results: Results, task: str, format: Formats, length: int) -> tuple[bool, float]:
    """Whether some run is neither at floor nor at ceiling, and the largest spread over depth of such runs, else of
    any."""
    inside, spreads = False, [0.0]
    for run in results.study.runs:
        whole = results.data.slice(PanelKey(run.name, task, format), length)
        if not isinstance(whole, Slice):
            continue
        values = [whole.at_depths([depth]).value for depth in whole.depths]
        free = whole.limit is None
        if free and not inside:
            inside, spreads = True, [0.0]
        spreads += [max(values) - min(values)] if free or not inside else []
    return inside, max(spreads)


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
    flat = "" if _finds_a_place(results, task, format, length_at) else f"Depth profile {where}: no place differs"
    return Picture(name, "depth", task, str(format), title, text.strip(), flat), chart


def _finds_a_place(results: Results, task: str, format: Formats, length_at: Mapping[int, int]) -> bool:
    """Whether some place is found to differ from the middle. length_at: as of `_figure`."""
    at = {run.name: length_at.get(run.context_length) for run in results.study.runs}
    tests = results.of("primacy", "recency", "lost in the middle")
    return any(c.resolved for c in tests if (c.task, c.format, c.length) == (task, str(format), at[c.subject]))


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
