"""Exact match against the distance in tokens from value to answer, at each length, with the effective reach."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from lcprobe.analysis.findings.cells import PanelKey
from lcprobe.analysis.findings.extrapolation import reference_length
from lcprobe.analysis.findings.results import Results
from lcprobe.analysis.report.charts.axes import share_axis, tokens_axis
from lcprobe.analysis.report.charts.grammar import (
    DASH_DOTTED,
    Row,
    Style,
    colour,
    curves,
    data,
    figure,
    file_name,
    has_bands,
    legend_note,
    of_shown_models,
    panel,
    shown_number,
    shown_word,
)
from lcprobe.analysis.report.charts.picture import Picture, counts_text, drawn_formats, interval_row
from lcprobe.analysis.report.charts.seed_groups import (
    SeedGroup,
    architectures,
    group_styles,
    has_several_lengths,
    length_styles,
    seed_groups,
)
from lcprobe.analysis.stats.distance_bins import DistanceBin, distance_bins
from lcprobe.tasks.episode import Formats
from lcprobe.words import counted

if TYPE_CHECKING:
    import altair as alt

FLAT_FROM = 0.995
"""Exact match that is drawn as 1.00: panels of nothing else are left out where another one has a fall."""
MOST_LENGTHS = 6
"""Lengths that have panels."""
X = "distance from value to answer (tokens)"


@dataclass
class _Panel:
    """One panel: the models of one length, or the training lengths of one architecture over all lengths. reaches:
    those up to its longest distance."""

    title: str
    styles: dict[str, Style]
    rows: list[Row] = field(default_factory=list)
    reaches: list[Row] = field(default_factory=list)


def accuracy_by_distance(results: Results) -> "Iterator[tuple[Picture, alt.ConcatChart]]":
    """One figure per task and format: a panel per length, and in it one line per model over all depths.

    With several training lengths: a panel per architecture and one line per group of seeds, over all lengths.
    """
    for task, format in drawn_formats(results):
        if has_several_lengths(results):
            panels = _by_architecture(results, task, format)
        else:
            panels = _by_length(results, task, format)
        if any(one.rows for one in panels):
            falling = [one for one in panels if not _is_flat(one)] or panels[-1:]
            kept = panels if has_several_lengths(results) else falling
            yield _figure(results, task, format, kept, len(panels) - len(kept))


def _is_flat(one: _Panel) -> bool:
    return all(row["value"] >= FLAT_FROM for row in one.rows)


def _by_length(results: Results, task: str, format: Formats) -> list[_Panel]:
    lengths = results.data.lengths(task, format)
    reference = reference_length(lengths, results.study.runs[0].context_length)
    panels = []
    for length in chosen_lengths(lengths, reference):
        one = _Panel(f"{length:,} tokens", group_styles(results))
        for group in seed_groups(results):
            _add(one, results, group, group.name, task, format, length)
        panels += [one] if one.rows else []
    return panels


def _by_architecture(results: Results, task: str, format: Formats) -> list[_Panel]:
    panels, shades = [], length_styles(results)
    for name, groups in architectures(results).items():
        one = _Panel(name, {group.label: group.style(shades) for group in groups})
        for group in groups:
            _add(one, results, group, group.label, task, format, None)
        panels.append(one)
    return panels


def chosen_lengths(lengths: Sequence[int], reference: int) -> list[int]:
    """At most MOST_LENGTHS of ascending lengths: the reference length, the longest, and others evenly between."""
    if len(lengths) <= MOST_LENGTHS:
        return [*lengths]
    at = {round(i * (len(lengths) - 1) / (MOST_LENGTHS - 1)) for i in range(MOST_LENGTHS)}
    own = lengths.index(reference)
    if own not in at:
        at.remove(min(at - {len(lengths) - 1}, key=lambda i: abs(i - own)))
        at.add(own)
    return [lengths[i] for i in sorted(at)]


def _add(
    one: _Panel, results: Results, group: SeedGroup, series: str, task: str, format: Formats, length: int | None
) -> None:
    place: Row = {"model": group.name, "series": series}
    for bin in bins_of(results, [PanelKey(run.name, task, format) for run in group.runs], length):
        between = f"{bin.low:,}–{bin.high:,}"
        row = {**place, "at": max(bin.distance, 1.0), "between": between, "n": bin.estimate.n}
        one.rows.append({**row, **interval_row(bin.estimate)})
    longest = max((row["at"] for row in one.rows if row["model"] == group.name), default=0.0)
    own = {PanelKey(run.name, task, format) for run in group.runs}
    for reach in results.reaches:
        if reach.is_found and reach.where in own and (reach.tokens or 0.0) <= longest:
            interval = "" if reach.low is None or reach.high is None else f"{reach.low:.0f}–{reach.high:.0f}"
            words = {"run": reach.where.model, "interval": interval}
            one.reaches.append({**place, **words, "at": reach.tokens})


def bins_of(results: Results, keys: Sequence[PanelKey], length: int | None = None) -> tuple[DistanceBin, ...]:
    """Bins over the trials of several runs, which share their samples; of one length, or of all."""
    distances, hits, indices = [], [], []
    for key in keys:
        panel = results.data.panels.get(key)
        if panel is None or (length is not None and length not in panel.lengths):
            continue
        trials = panel.needle_trials
        kept = np.ones(len(trials.distance), bool)
        if length is not None:
            kept = trials.cell // len(panel.depths) == panel.lengths.index(length)
        distances.append(trials.distance[kept])
        hits.append(trials.hit[kept])
        indices.append(panel.index[trials.sample[kept]])
    if not any(len(one) for one in distances):
        return ()
    samples, sample = np.unique(np.concatenate(indices), return_inverse=True)
    return distance_bins(np.concatenate(distances), sample, np.concatenate(hits), len(samples))


def _figure(
    results: Results, task: str, format: Formats, panels: Sequence[_Panel], n_flat: int
) -> "tuple[Picture, alt.ConcatChart]":
    several = has_several_lengths(results)
    rows = [row for one in panels for row in one.rows]
    reaches = [row for one in panels for row in one.reaches]
    places = [row["at"] for row in (*rows, *reaches)]
    drawn = []
    for one in panels:
        x = tokens_axis("at", X, places, labels=one is panels[-1])
        marks = _reaches(one.reaches, one.styles, x, "series" if several else "model")
        height = 250 if len(panels) == 1 else 150 if len(panels) <= 3 else 110
        heading = one.title if several or len(panels) > 1 else ""
        drawn.append(panel([*marks, *_lines(one, x, several)], height=height, title=heading))
    title = f"{task}, {format}" + ("" if several or len(panels) > 1 else f": {panels[0].title}")
    chart = figure(
        drawn,
        title,
        models=[] if several else [group.name for group in seed_groups(results)],
    )
    lengths = results.data.lengths(task, format)
    of = "all lengths and depths" if several else "all depths, at each length"
    text = f"Exact match against token distance, {of}, {task}, {format}, in half octaves"
    text += ", training seeds together. " if any(len(g.runs) > 1 for g in seed_groups(results)) else ". "
    text += f"{counts_text([row['n'] for row in rows], 'bin')} "
    text += legend_note(panels[0].styles)
    text += "Bands: 95 % Wilson intervals over samples. " if has_bands(panels[0].styles) else ""
    if n_flat:
        text += f"Not drawn: {counted(n_flat, 'length')} at which every point is 1.00. "
    if not several and len(panels) + n_flat < len(lengths):
        text += f"{len(panels) + n_flat} of {len(lengths)} lengths were chosen. "
    text += (
        "Dash-dotted: effective reach of each run, over all lengths, in the panels with needles that far away."
        if reaches
        else ""
    )
    return Picture(file_name("distance", task, format), "distance", task, str(format), title, text.strip()), chart


def _lines(one: _Panel, x: "alt.X", several: bool) -> "list[alt.Chart]":
    tooltip = [
        shown_word("model", "model"),
        shown_number("at", "median distance (tokens)", ",.0f"),
        shown_word("between", "distances"),
        shown_number("value", "exact match"),
        shown_word("interval", "95 % interval"),
        shown_word("count", "correct"),
    ]
    return curves(one.rows, one.styles, x, share_axis(), tooltip, field="series" if several else "model")


def _reaches(rows: Sequence[Row], styles: Mapping[str, Style], x: "alt.X", by: str) -> "list[alt.Chart]":
    if not rows:
        return []
    base = data(rows) if by == "series" else of_shown_models(data(rows))
    tooltip = [
        shown_word("run", "effective reach of"),
        shown_number("at", "tokens", ",.0f"),
        shown_word("interval", "95 % interval"),
    ]
    rule = base.mark_rule(strokeDash=DASH_DOTTED, strokeWidth=1.3)
    return [rule.encode(x=x, color=colour(styles, by), tooltip=tooltip)]
