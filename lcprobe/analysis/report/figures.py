"""The figures that the field expects, each with a caption that says what is drawn, n, and the interval.

Per task and format: accuracy against length with bands and the training length; length x depth heatmap per model; depth
profile; accuracy against distance with the reach. Per task and model: format matrix. Per study: skill, training curves.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from lcprobe.analysis.findings.cells import Cell, Estimate, Format, PanelKey, Slice
from lcprobe.analysis.findings.extrapolation import base_length
from lcprobe.analysis.findings.results import Results
from lcprobe.analysis.inputs import RunFacts
from lcprobe.analysis.report.drawing import (
    GREY,
    INK,
    Style,
    distance_axis,
    heatmap,
    legend,
    length_axis,
    panel,
    plain,
    share_axis,
    slug,
    styles,
    titled,
)
from lcprobe.analysis.report.wording import AT_THE_ENDS, at_an_end

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST_POINTS = 300
MOST_FORMATS = 6
"""Formats of a task that are drawn one by one; all of them are in the format matrix and in the tables."""


@dataclass(frozen=True)
class Picture:
    """What a figure is: `name` is its file name, `section` its place in the report, `task` and `format` what it shows."""

    name: str
    section: str
    task: str
    format: str
    title: str
    caption: str


def all_figures(results: Results) -> "Iterator[tuple[Picture, Figure]]":
    """Every figure of a study, one at a time."""
    look = styles([run.name for run in results.study.runs])
    yield from _skill(results, look)
    for task in results.data.tasks:
        formats = results.data.formats(task.name)
        for format in formats[:MOST_FORMATS]:
            yield _length(results, task.name, format, look)
            for run in results.study.runs:
                yield _depth_map(results, run, task.name, format)
            yield from _profiles(results, task.name, format, look)
            yield from _distance(results, task.name, format, look)
        if len(formats) > 1:
            for run in results.study.runs:
                yield _format_matrix(results, run, task.name, formats)
    yield from _training(results, look)


def _length(results: Results, task: str, format: Format, look: dict[str, Style]) -> "tuple[Picture, Figure]":
    figure, axes = panel()
    found = [e for e in results.extrapolations if e.where.task == task and e.where.format == format]
    counts, gaps, lengths = [], [], results.data.lengths(task, format)
    for e in found:
        name, style = e.where.model, look[e.where.model]
        points = [(length, x) for length, x, _ in e.by_length if isinstance(x, Estimate)]
        gaps += [f"{name} at {length}: {x}" for length, x, _ in e.by_length if not isinstance(x, Estimate)]
        if points:
            at = np.log2([length for length, _ in points])
            counts += [x.n for _, x in points]
            axes.fill_between(
                at, [x.low for _, x in points], [x.high for _, x in points], color=style.colour, alpha=0.18, lw=0
            )
            values = [x.value for _, x in points]
            axes.plot(at, values, style.line, marker=style.marker, ms=5, color=style.colour, label=plain(name))
    for length in sorted({e.context_length for e in found}):
        axes.axvline(np.log2(length), color=INK, linestyle="--", linewidth=1.2, label=f"training length {length:,}")
    chances = [c for c in (_chance(results, task, format, length) for length in lengths) if c is not None]
    if chances:
        axes.axhline(
            float(np.mean(chances)), color=GREY, linestyle=":", linewidth=1.4, label=f"chance {np.mean(chances):.2f}"
        )
    length_axis(axes, lengths)
    share_axis(axes)
    titled(axes, plain(f"{task}, {format}"), "length (tokens)", "exact match")
    legend(figure, axes)
    text = f"Exact match against length for {task}, {format}, mean over all depths. {_counts(counts)} "
    text += "Bands: 95 % intervals over samples. Dashed: training length."
    text += " Dotted: choosing a value of the context without looking at the key." if chances else ""
    text += f" Not drawn: {'; '.join(gaps)}." if gaps else ""
    return Picture(slug("length", task, format), "length", task, str(format), f"{task}, {format}", text), figure


def _depth_map(results: Results, run: RunFacts, task: str, format: Format) -> "tuple[Picture, Figure]":
    where = PanelKey(run.name, task, format)
    plan = results.data.planned[task, format, "none"]
    lengths, depths = sorted(plan), sorted({depth for cells in plan.values() for depth in cells})
    cells = [[results.cell_at.get((where, length, depth)) for length in lengths] for depth in depths]
    values = np.array([[_whole(cell) for cell in row] for row in cells])
    edge = sum(length <= run.context_length for length in lengths)
    title = plain(f"{run.name}: {task}, {format}")
    labels = [f"{depth:g}" for depth in depths]
    figure = heatmap(
        values, labels, [f"{x:,}" for x in lengths], title, "length (tokens)", "depth (0 first, 1 last)", edge
    )
    counts = [cell.n for row in cells for cell in row if cell is not None and cell.n]
    text = f"{run.name}: exact match by length and depth of the needle, {task}, {format}. {_counts(counts, 'cell')} "
    text += f"Right of the dashed line: past the training length ({run.context_length:,}). Hatched: not measured as planned. "
    text += "Intervals are in the table of all cells."
    text += f" {AT_THE_ENDS}" if any(at_an_end(cell) for row in cells for cell in row if cell is not None) else ""
    return Picture(slug("heatmap", task, format, run.name), "heatmap", task, str(format), title, text), figure


def _profiles(
    results: Results, task: str, format: Format, look: dict[str, Style]
) -> "Iterator[tuple[Picture, Figure]]":
    """At the base of the first model and at the next longer length."""
    lengths = results.data.lengths(task, format)
    base = base_length(lengths, results.study.runs[0].context_length)
    for length in [base, *[x for x in lengths if x > base][:1]]:
        figure, axes = panel()
        counts: list[int] = []
        for i, run in enumerate(results.study.runs):
            style, where = look[run.name], PanelKey(run.name, task, format)
            cells = [
                results.cell_at.get((where, length, d)) for d in results.data.planned[task, format, "none"][length]
            ]
            whole = [cell for cell in cells if cell is not None and not np.isnan(_whole(cell))]
            shift = 0.012 * (i - (len(results.study.runs) - 1) / 2)  # bars side by side
            _whiskers(axes, [(cell.depth + shift, cell) for cell in whole], style, plain(run.name))
            counts += [cell.n for cell in whole]
        share_axis(axes)
        axes.set_xticks([0, 0.25, 0.5, 0.75, 1])
        titled(
            axes,
            plain(f"{task}, {format}: {length:,} tokens"),
            "depth of the needle (0 first, 1 last)",
            "exact match",
        )
        legend(figure, axes)
        text = f"Depth profile at {length:,} tokens, {task}, {format}. {_counts(counts)} Bars: 95 % Wilson intervals."
        yield (
            Picture(slug("depth", task, format, length), "depth", task, str(format), f"{task}, {format}", text),
            figure,
        )


def _distance(
    results: Results, task: str, format: Format, look: dict[str, Style]
) -> "Iterator[tuple[Picture, Figure]]":
    found = [r for r in results.reaches if r.where.task == task and r.where.format == format and r.bins]
    if not found:
        return
    figure, axes = panel()
    for r in found:
        style = look[r.where.model]
        at = np.log2([max(one.distance, 1) for one in r.bins])
        axes.fill_between(
            at,
            [b.estimate.low for b in r.bins],
            [b.estimate.high for b in r.bins],
            color=style.colour,
            alpha=0.18,
            lw=0,
        )
        values = [b.estimate.value for b in r.bins]
        axes.plot(at, values, style.line, marker=style.marker, ms=4.5, color=style.colour, label=plain(r.where.model))
        if r.refused is None and r.tokens is not None:
            axes.axvline(np.log2(r.tokens), color=style.colour, linestyle="-.", linewidth=1.3)
            axes.annotate(
                f" {r.tokens:.0f}",
                (float(np.log2(r.tokens)), 1.0),
                color=style.colour,
                fontsize=9,
                va="top",
                ha="left",
            )
    low, high = min(r.bins[0].distance for r in found), max(r.bins[-1].distance for r in found)
    distance_axis(axes, low, high)
    share_axis(axes)
    titled(axes, plain(f"{task}, {format}"), "distance from value to answer (tokens)", "exact match")
    legend(figure, axes)
    counts = [b.estimate.n for r in found for b in r.bins]
    text = f"Exact match against token distance, all lengths and depths of {task}, {format}, in half octaves. "
    text += (
        f"{_counts(counts, 'bin')} Bands: 95 % Wilson intervals. Dash-dotted: effective reach, where there is one."
    )
    yield Picture(slug("distance", task, format), "distance", task, str(format), f"{task}, {format}", text), figure


def _format_matrix(results: Results, run: RunFacts, task: str, formats: list[Format]) -> "tuple[Picture, Figure]":
    lengths = sorted({length for format in formats for length in results.data.lengths(task, format)})
    parts = [
        [results.data.slice(PanelKey(run.name, task, format), length) for length in lengths] for format in formats
    ]
    values = np.array([[part.value if isinstance(part, Slice) else np.nan for part in row] for row in parts])
    edge = sum(length <= run.context_length for length in lengths)
    title = plain(f"{run.name}: {task} by format")
    rows = [plain(format, 28) for format in formats]
    figure = heatmap(values, rows, [f"{x:,}" for x in lengths], title, "length (tokens)", "haystack/key/value", edge)
    counts = [int(part.trials.sum()) for row in parts for part in row if isinstance(part, Slice)]
    text = f"{run.name}: exact match on {task} by haystack/key/value format and length, mean over all depths. "
    text += f"{_counts(counts, 'slice')} Hatched: not planned or incomplete. Right of the dashed line: past the training length."
    return Picture(slug("formats", task, run.name), "formats", task, "", title, text), figure


def _skill(results: Results, look: dict[str, Style]) -> "Iterator[tuple[Picture, Figure]]":
    """Bars at the base length: skill where there is a chance level, else exact match."""
    pairs = [(task.name, f) for task in results.data.tasks for f in results.data.formats(task.name)[:MOST_FORMATS]]
    models = [run.name for run in results.study.runs]
    if not pairs:
        return
    figure, axes = panel(5.6, 1.5 + 0.17 * len(pairs) * (len(models) + 1))
    counts, height = [], 1 / (len(models) + 1)
    for gate in results.gates:
        if not isinstance(gate.accuracy, Estimate) or (gate.where.task, gate.where.format) not in pairs:
            continue
        a, style, place = gate.accuracy, look[gate.where.model], models.index(gate.where.model)
        value, low, high = gate.skill or (a.value, a.low, a.high)
        y = pairs.index((gate.where.task, gate.where.format)) + (place - (len(models) - 1) / 2) * height
        label = plain(gate.where.model) if gate.where.model not in axes.get_legend_handles_labels()[1] else None
        axes.barh(y, value, height * 0.86, color=style.colour, alpha=0.75, label=label)
        axes.plot([low, high], [y, y], color=INK, linewidth=1.4)
        counts.append(a.n)
    chance = {(g.where.task, g.where.format) for g in results.gates if g.chance is not None}
    names = [plain(f"{t} {f} ({'skill' if (t, f) in chance else 'exact match'})", 60) for t, f in pairs]
    axes.set_yticks(range(len(pairs)), names)
    axes.axvline(0, color=GREY, linewidth=1)
    axes.set_xlim(min(-0.05, axes.get_xlim()[0]), 1.03)
    axes.set_ylim(len(pairs) - 0.5, -0.5)
    titled(axes, "At the training length", "skill or exact match", "")
    legend(figure, axes)
    text = "Skill = (accuracy - chance) / (1 - chance) at the base length, mean over depths; exact match where one value stands "
    text += f"in the context and chance is not defined. {_counts(counts, 'bar')} Lines: 95 % intervals over samples."
    yield Picture("skill", "skill", "", "", "At the training length", text), figure


def _training(results: Results, look: dict[str, Style]) -> "Iterator[tuple[Picture, Figure]]":
    names = [name for run in results.study.runs for row in run.metrics for name in row]
    probes = [
        name for name in dict.fromkeys(names) if name.startswith("probe/") and "@" in name and "/depth" not in name
    ]
    wanted = [
        ("train/loss", "Training loss", "nats a token"),
        ("train/answer_loss", "Loss on answers", "nats a token"),
    ]
    wanted += [(name, f"While training: {name.removeprefix('probe/')}", "exact match") for name in probes]
    for name, title, y in wanted:
        figure, axes = panel()
        drawn = 0
        for run in results.study.runs:
            points = np.array([(row["tokens"], row[name]) for row in run.metrics if name in row and "tokens" in row])
            points = points[np.isfinite(points).all(axis=1)] if len(points) else points
            if not len(points):
                continue
            style, drawn = look[run.name], drawn + 1
            marker = {"marker": style.marker, "ms": 5} if name in probes else {}
            thin = _thinned(points) if name not in probes else points
            axes.plot(
                thin[:, 0] / 1e6, thin[:, 1], style.line, color=style.colour, label=plain(run.name), lw=1.5, **marker
            )
        if not drawn:
            continue
        if name in probes:
            share_axis(axes)
        titled(axes, plain(title), "tokens trained on (millions)", y)
        legend(figure, axes)
        text = f"{title} against tokens, {drawn} of {len(results.study.runs)} runs, one line a run"
        text += (
            f" (means of at most {MOST_POINTS} stretches)."
            if name not in probes
            else "; small samples, not for conclusions."
        )
        yield (
            Picture(slug("training", name.replace("/", "-").replace("@", "-at-")), "training", "", "", title, text),
            figure,
        )


def _whiskers(axes: Any, points: list[tuple[float, Cell]], style: Style, label: str) -> None:
    if not points:
        return
    at, values = [x for x, _ in points], [cell.accuracy or 0.0 for _, cell in points]
    axes.plot(at, values, style.line, marker=style.marker, ms=5, color=style.colour, label=label)
    axes.vlines(at, [cell.low for _, cell in points], [cell.high for _, cell in points], color=style.colour, lw=1.4)


def _thinned(points: np.ndarray) -> np.ndarray:
    return np.array([part.mean(axis=0) for part in np.array_split(points, min(MOST_POINTS, len(points)))])


def _whole(cell: Cell | None) -> float:
    """Accuracy of a cell that holds all of its planned samples, else NaN."""
    if cell is None or cell.accuracy is None or cell.n_failed or cell.samples != cell.planned:
        return float("nan")
    return cell.accuracy


def _chance(results: Results, task: str, format: Format, length: int) -> float | None:
    facts = next(t for t in results.data.tasks if t.name == task)
    parts = [results.data.slice(PanelKey(run.name, task, format), length) for run in results.study.runs]
    known = [part.chance for part in parts if isinstance(part, Slice) and part.chance < 1]
    return known[0] if facts.needs_lookup and known else None


def _counts(counts: list[int], what: str = "point") -> str:
    if not counts:
        return "No complete data."
    low, high = min(counts), max(counts)
    return f"n = {low} answers a {what}." if low == high else f"n = {low} to {high} answers a {what}."
