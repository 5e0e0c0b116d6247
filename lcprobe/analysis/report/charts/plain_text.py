"""Figures of plain text: loss by position, size of the state, and remembrance, one line per model."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import TYPE_CHECKING

import numpy as np

from lcprobe.analysis.findings.results import Results
from lcprobe.analysis.findings.text_curves import TextCurves
from lcprobe.analysis.report.charts.axes import number_axis, share_axis, tokens_axis
from lcprobe.analysis.report.charts.grammar import (
    HEIGHT,
    Row,
    curves,
    figure,
    file_name,
    legend_note,
    panel,
    shown_number,
    shown_word,
    trained_at,
)
from lcprobe.analysis.report.charts.picture import Picture
from lcprobe.analysis.report.charts.seed_groups import (
    SEEDS,
    SeedGroup,
    architectures,
    group_styles,
    has_several_lengths,
    length_styles,
    seed_groups,
)
from lcprobe.analysis.stats.estimates import Estimate

if TYPE_CHECKING:
    import altair as alt

CurvePoints = Mapping[float, Estimate]
BANDS = "Bands: 95 % bootstrap over windows of text"
TRAINED = "Dashed: training lengths."


@dataclass(frozen=True)
class _Subject:
    """One quantity of text. points: by model; marked: whether its axis is of positions, where training ends."""

    name: str
    title: str
    x: str
    y: str
    text: str
    points: Mapping[str, CurvePoints]
    marked: bool = True
    log: bool = False
    share: bool = False


def text_charts(results: Results) -> "Iterator[tuple[Picture, alt.ConcatChart]]":
    """Loss, state, and remembrance at the training length and the longest."""
    measured = results.text
    if not measured:
        return
    losses = {t.model: {float(np.sqrt(b.low * b.high)): b.loss for b in t.bins} for t in measured}
    text = "Loss of held-out text by position, in half octaves."
    yield _drawn(results, _Subject("loss", "Loss by position", "tokens read", "nats per token", text, losses))
    norms = {t.model: {float(at): mean for at, mean in t.state_rms.items()} for t in measured}
    if any(norms.values()):
        text = "Root mean square of the state's values by the number of tokens read."
        y = "root mean square"
        yield _drawn(results, _Subject("state", "Size of the state", "tokens read", y, text, norms, log=True))
    for length in _shown_lengths(measured, has_several_lengths(results)):
        points = {
            t.model: {float(k): mean for (at, k), mean in t.remembrance.items() if at == length} for t in measured
        }
        if any(points.values()):
            text = f"Total-variation distance between the predictions after {length:,} tokens and after the last of "
            text += "them alone: 0 where earlier tokens have no effect left."
            title, y = f"Remembrance at {length:,} tokens", "total variation"
            name, x = f"remembrance_{length}", "last tokens kept"
            yield _drawn(results, _Subject(name, title, x, y, text, points, marked=False, share=True))


def _shown_lengths(measured: list[TextCurves], only_longest: bool) -> list[int]:
    """The training length, or only the longest of several, where it was measured, and the longest."""
    lengths = sorted({length for t in measured for length in t.lengths})
    trained = [x for x in lengths if x in {t.context_length for t in measured}]
    return sorted({*lengths[-1:], *(trained[-1:] if only_longest else trained)})


def _drawn(results: Results, subject: _Subject) -> "tuple[Picture, alt.ConcatChart]":
    several = has_several_lengths(results)
    by_panel = architectures(results) if several else {"": seed_groups(results)}
    rows = {
        name: [_rows(group, subject.points, group.label if several else group.name) for group in groups]
        for name, groups in by_panel.items()
    }
    everything = [row for parts in rows.values() for part in parts for each in part for row in each]
    places = [row["at"] for row in everything]
    x = tokens_axis("at", subject.x, places)
    if subject.share:
        y = share_axis(title=subject.y)
    else:
        ends = (row.get(name) for row in everything for name in ("value", "low", "high"))
        y = number_axis("value", subject.y, [end for end in ends if end is not None], log=subject.log)
    tooltip = [
        shown_word("model", "model"),
        shown_number("at", subject.x, ",.0f"),
        shown_number("value", subject.y, ".3g"),
        shown_word("interval", "interval"),
    ]
    panels = []
    for name, groups in by_panel.items():
        shades = length_styles(results)
        styles = {g.label: g.style(shades) for g in groups} if several else group_styles(results)
        means, seeds = ([row for part in rows[name] for row in part[i]] for i in (0, 1))
        field = "series" if several else "model"
        layers = curves(means, styles, x, y, tooltip, field=field, seeds=seeds)
        marks = trained_at([group.context_length for group in groups]) if subject.marked else []
        panels.append(panel([*marks, *layers], title=name, height=150 if several else HEIGHT))
    models = [] if several else [group.name for group in seed_groups(results)]
    chart = figure(panels, subject.title, models=models)
    name = file_name("context", subject.name)
    return Picture(name, "context", "", "", subject.title, _caption(results, subject)), chart


def _rows(group: SeedGroup, lines: Mapping[str, CurvePoints], series: str) -> tuple[list[Row], list[Row]]:
    """Points of a group, and of each of its seeds where there are several; where all of them have a value."""
    own = {run.name: lines[run.name] for run in group.runs if lines.get(run.name)}
    means: list[Row] = []
    seeds: list[Row] = []
    for at in next(iter(own.values()), {}):
        if not all(at in points for points in own.values()):
            continue
        place: Row = {"model": group.name, "series": series, "at": at}
        estimates = [points[at] for points in own.values()]
        if len(estimates) == 1:
            means.append(place | _one_seed(estimates[0]))
            continue
        values = [estimate.value for estimate in estimates]
        span = f"of {len(values)} seeds: {min(values):.3g}–{max(values):.3g}"
        means.append({**place, "value": float(np.mean(values)), "interval": span})
        seeds += [{**place, "seed": name, "value": points[at].value} for name, points in own.items()]
    return means, seeds


def _one_seed(estimate: Estimate) -> Row:
    if not (isfinite(estimate.low) and isfinite(estimate.high)):
        return {"value": estimate.value, "interval": "n/a"}
    interval = f"95 %: {estimate.low:.3g}–{estimate.high:.3g}"
    return {"value": estimate.value, "low": estimate.low, "high": estimate.high, "interval": interval}


def _caption(results: Results, subject: _Subject) -> str:
    groups = seed_groups(results)
    seeds = [len(group.runs) for group in groups if any(subject.points.get(run.name) for run in group.runs)]
    bands = f"{BANDS}{', of models with one training seed' if max(seeds, default=1) > 1 else ''}."
    parts = [subject.text, _counts(results.text)]
    note = "" if has_several_lengths(results) else legend_note(group_styles(results)).strip()
    parts += [note] if note else []
    parts += [SEEDS] if max(seeds, default=1) > 1 else []
    parts += [bands] if 1 in seeds else []
    return " ".join([*parts, *([TRAINED] if subject.marked else [])])


def _counts(measured: Sequence[TextCurves]) -> str:
    low, high = min(t.windows for t in measured), max(t.windows for t in measured)
    return f"n = {low} windows." if low == high else f"n = {low} to {high} windows."
