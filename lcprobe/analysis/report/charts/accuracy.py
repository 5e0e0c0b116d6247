"""Exact match of the models: against length, by format and length, and skill at the training length."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from lcprobe.analysis.findings.cells import PanelKey, Slice
from lcprobe.analysis.findings.results import Results
from lcprobe.analysis.inputs import RunFacts
from lcprobe.analysis.report.charts.drawing import (
    GREY,
    INK,
    figure_text,
    file_name,
    heatmap,
    heatmaps,
    legend,
    length_axis,
    model_styles,
    outer_titles,
    panel,
    panels,
    set_titles,
    share_axis,
    styles_of,
)
from lcprobe.analysis.report.charts.picture import Picture, counts_text, drawn_formats
from lcprobe.analysis.report.charts.seed_groups import (
    SeedGroup,
    architectures,
    group_mean,
    has_several_lengths,
    training_lengths,
)
from lcprobe.analysis.stats.estimates import Proportion
from lcprobe.tasks.episode import Formats

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def format_matrix(results: Results) -> "Iterator[tuple[Picture, Figure]]":
    """One heatmap per task and model, format x length; none for tasks with a single format.

    With several training lengths: one figure per task and architecture, a heatmap per group of seeds.
    """
    for task in results.data.tasks:
        formats = results.data.formats(task.name)
        if len(formats) > 1 and has_several_lengths(results):
            for name, groups in architectures(results).items():
                yield _format_matrices(results, name, groups, task.name, formats)
        elif len(formats) > 1:
            for run in results.study.runs:
                yield _format_matrix(results, run, task.name, formats)


def _format_matrix(results: Results, run: RunFacts, task: str, formats: list[Formats]) -> "tuple[Picture, Figure]":
    lengths = sorted({length for format in formats for length in results.data.lengths(task, format)})
    parts = [
        [results.data.slice(PanelKey(run.name, task, format), length) for length in lengths] for format in formats
    ]
    values = np.array([[part.value if isinstance(part, Slice) else np.nan for part in row] for row in parts])
    edge = sum(length <= run.context_length for length in lengths)
    title = figure_text(f"{run.name}: {task} by format")
    rows = [figure_text(format, 28) for format in formats]
    figure = heatmap(values, rows, [f"{x:,}" for x in lengths], title, "length (tokens)", "haystack/key/value", edge)
    counts = [int(part.trials.sum()) for row in parts for part in row if isinstance(part, Slice)]
    text = f"{run.name}: exact match on {task} by haystack/key/value format and length, mean over all depths. "
    text += f"{counts_text(counts, 'slice')} Hatched: not planned or incomplete. "
    text += "Right of the dashed line: past the training length."
    return Picture(file_name("formats", task, run.name), "formats", task, "", title, text), figure


def _format_matrices(
    results: Results, name: str, groups: list[SeedGroup], task: str, formats: list[Formats]
) -> "tuple[Picture, Figure]":
    lengths = sorted({length for format in formats for length in results.data.lengths(task, format)})
    counts: list[int] = []
    heats: dict[str, tuple[np.ndarray, float]] = {}
    for group in groups:
        means = [[group_mean(results, group, task, format, length) for length in lengths] for format in formats]
        values = np.array([[m.value if isinstance(m, Proportion) else np.nan for m in row] for row in means])
        counts += [m.n for row in means for m in row if isinstance(m, Proportion)]
        heats[group.label] = values, sum(length <= group.context_length for length in lengths)
    title, rows = f"{name}: {task} by format", [figure_text(format, 28) for format in formats]
    figure = heatmaps(heats, rows, [f"{x:,}" for x in lengths], title, "length (tokens)", "haystack/key/value")
    text = f"{name}: exact match on {task} by haystack/key/value format and length, mean over all depths and "
    text += f"training seeds. {counts_text(counts, 'slice')} Hatched: not planned or incomplete. "
    text += "Right of the dashed line: past the training length."
    return Picture(file_name("formats", task, name), "formats", task, "", title, text), figure


def skill_bars(results: Results) -> "Iterator[tuple[Picture, Figure]]":
    """One figure: bars at the reference length, skill where there is a chance level, else exact match.

    With several training lengths: skill against training length, a panel per task and format.
    """
    if has_several_lengths(results):
        yield from _skill_by_training_length(results)
        return
    styles, pairs = model_styles(results), list(drawn_formats(results))
    models = [run.name for run in results.study.runs]
    if not pairs:
        return
    figure, axes = panel(5.6, 1.5 + 0.17 * len(pairs) * (len(models) + 1))
    counts, height = [], 1 / (len(models) + 1)
    for gate in results.gates:
        if not isinstance(gate.accuracy, Proportion) or (gate.where.task, gate.where.format) not in pairs:
            continue
        a, style, place = gate.accuracy, styles[gate.where.model], models.index(gate.where.model)
        skill = gate.skill
        value, low, high = (a.value, a.low, a.high) if skill is None else (skill.value, skill.low, skill.high)
        y = pairs.index((gate.where.task, gate.where.format)) + (place - (len(models) - 1) / 2) * height
        name = figure_text(gate.where.model)
        label = name if gate.where.model not in axes.get_legend_handles_labels()[1] else None
        axes.barh(y, value, height * 0.86, color=style.colour, alpha=0.75, label=label)
        axes.plot([low, high], [y, y], color=INK, linewidth=1.4)
        counts.append(a.n)
    chance = {(g.where.task, g.where.format) for g in results.gates if g.chance is not None}
    names = [figure_text(f"{t} {f} ({'skill' if (t, f) in chance else 'exact match'})", 60) for t, f in pairs]
    axes.set_yticks(range(len(pairs)), names)
    axes.axvline(0, color=GREY, linewidth=1)
    axes.set_xlim(min(-0.05, axes.get_xlim()[0]), 1.03)
    axes.set_ylim(len(pairs) - 0.5, -0.5)
    set_titles(axes, "At the training length", "skill or exact match", "")
    legend(figure, axes)
    text = (
        "Skill = (accuracy - chance) / (1 - chance) at the reference length, mean over depths; exact match where the "
    )
    text += f"context has one value only, so that no chance level is defined. {counts_text(counts, 'bar')} "
    text += "Lines: 95 % intervals over samples."
    yield Picture("skill", "skill", "", "", "At the training length", text), figure


def _skill_by_training_length(results: Results) -> "Iterator[tuple[Picture, Figure]]":
    pairs, families = list(drawn_formats(results)), architectures(results)
    if not pairs:
        return
    scores = {
        g.where: (g.skill.value if g.skill else g.accuracy.value, g.accuracy.n)
        for g in results.gates
        if isinstance(g.accuracy, Proportion)
    }
    has_chance = {(g.where.task, g.where.format) for g in results.gates if g.chance is not None}
    titles = [f"{t}, {f}: {'skill' if (t, f) in has_chance else 'exact match'}" for t, f in pairs]
    figure, axes = panels(titles, "At the training length", height=2.0 if len(titles) > 1 else 2.8)
    counts: list[int] = []
    for one, (task, format) in zip(axes, pairs, strict=True):
        for i, (style, groups) in enumerate(zip(styles_of([*families]).values(), families.values(), strict=True)):
            shift, means = 0.05 * (i - (len(families) - 1) / 2), []
            for group in groups:
                known = [scores[key] for run in group.runs if (key := PanelKey(run.name, task, format)) in scores]
                values, counts = [value for value, _ in known], [*counts, *(n for _, n in known)]
                at = float(np.log2(group.context_length)) + shift
                one.plot([at] * len(values), values, style.marker, ms=4, color=style.colour, alpha=0.5)
                means += [(at, float(np.mean(values)))] if values else []
            label = figure_text([*families][i])
            one.plot([x for x, _ in means], [y for _, y in means], style.line, color=style.colour, label=label)
    share_axis(axes[0])
    length_axis(axes[0], training_lengths(results))
    outer_titles(figure, axes, "training length (tokens)", "skill or exact match")
    legend(figure, *axes)
    text = "Skill = (accuracy - chance) / (1 - chance) at the training length, mean over depths; exact match where "
    text += f"the context has one value only. {counts_text(counts)} A point per run; lines: mean over training seeds."
    yield Picture("skill", "skill", "", "", "At the training length", text), figure
