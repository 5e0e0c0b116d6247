"""Skill at the training length: a panel per task and format, with the models below each other."""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from lcprobe.analysis.findings.cells import PanelKey, Unavailable
from lcprobe.analysis.findings.gates import Gate
from lcprobe.analysis.findings.results import Results
from lcprobe.analysis.findings.skill import guessed_at, skill_of, skill_test
from lcprobe.analysis.report.charts.axes import tokens_axis
from lcprobe.analysis.report.charts.grammar import (
    WIDTH,
    Row,
    Style,
    beside,
    colour,
    curves,
    data,
    error_bars,
    figure,
    file_name,
    of_shown_models,
    panel,
    shown_number,
    shown_word,
    styles_of,
    symbol,
)
from lcprobe.analysis.report.charts.picture import Picture, counts_text, drawn_formats, interval_row
from lcprobe.analysis.report.charts.seed_groups import (
    SeedGroup,
    architectures,
    group_mean,
    group_styles,
    has_several_lengths,
    intervals_text,
    seed_groups,
    seeds_text,
    training_lengths,
)
from lcprobe.analysis.stats.estimates import Estimate
from lcprobe.tasks.episode import Formats

if TYPE_CHECKING:
    import altair as alt

STEP, STEP_OF_MANY = 18, 12
"""CSS pixels from model to model."""
LABELS = 150
"""Width of the names, with room for a font that is wider than the one that they were measured in."""
MOST_ROWS = 60
"""Models x formats of one figure."""
TITLE = "At the training length"
SCORE, SCORES = "skill or exact match", [0, 0.25, 0.5, 0.75, 1]
MEANING = (
    "Skill = (accuracy - chance) / (1 - chance) at the reference length, mean over depths; exact match where the "
    "context has one value only, so that no chance level is defined."
)


def skill_bars(results: Results) -> "Iterator[tuple[Picture, alt.ConcatChart]]":
    """One figure: points at the reference length, skill where there is a chance level, else exact match.

    With several training lengths: skill against training length, a line per architecture.
    """
    pairs = list(drawn_formats(results))
    if pairs:
        yield from (_by_training_length if has_several_lengths(results) else _by_model)(results, pairs)


def _by_model(results: Results, pairs: Sequence[tuple[str, Formats]]) -> "Iterator[tuple[Picture, alt.ConcatChart]]":
    """One figure; of many models and formats one per task and format."""
    if len(pairs) > 1 and len(pairs) * len(seed_groups(results)) > MOST_ROWS:
        for task, format in pairs:
            yield _models(results, [(task, format)], file_name("skill", task, format), task, str(format))
    else:
        yield _models(results, pairs, "skill", "", "")


def _models(
    results: Results, pairs: Sequence[tuple[str, Formats]], name: str, task: str, format: str
) -> "tuple[Picture, alt.ConcatChart]":
    groups, styles = seed_groups(results), group_styles(results)
    found = [_scores(results, groups, *pair) for pair in pairs]
    rows = [row for _, means, _ in found for row in means]
    names = [group.name for group in groups]
    step = STEP if len(names) <= 12 else STEP_OF_MANY
    panels = [
        panel(
            _dots(means, seeds, styles, names, _score_axis(rows, last=i == len(pairs) - 1)),
            WIDTH - LABELS,
            step * len(names) + 6,
            f"{pair[0]}, {pair[1]}: {measure}",
        )
        for i, (pair, (measure, means, seeds)) in enumerate(zip(pairs, found, strict=True))
    ]
    title = f"{TITLE}: {task}, {format}" if task else TITLE
    text = f"{MEANING} {counts_text([row['n'] for row in rows])} Lines: 95 % intervals over samples."
    text += " Small points: each training seed." if any(seeds for _, _, seeds in found) else ""
    return Picture(name, "skill", task, format, title, text), figure(panels, title, models=names)


def _dots(
    means: Sequence[Row], seeds: Sequence[Row], styles: Mapping[str, Style], names: Sequence[str], x: "alt.X"
) -> "list[alt.Chart]":
    """A row per model: a point with its interval, and small points of its seeds."""
    import altair as alt

    axis = alt.Axis(ticks=False, domain=False, labelLimit=LABELS - 20, labelPadding=6, minExtent=LABELS)
    y = alt.Y("model:N", title=None, sort=[*names], axis=axis)
    hue = colour(styles, legend=False)
    base = of_shown_models(data(means))
    tooltip = [
        shown_word("model", "model"),
        shown_word("measure", "measure"),
        shown_number("value", "value"),
        shown_word("interval", "95 % interval"),
        shown_word("count", "answers"),
    ]
    layers = [base.mark_rule(strokeWidth=1.8).encode(x=alt.X("low:Q"), x2="high:Q", y=y, color=hue)]
    if seeds:
        small = of_shown_models(data(seeds)).mark_point(size=14, filled=True, opacity=0.6)
        layers += [
            small.encode(x=x, y=y, color=hue, tooltip=[shown_word("seed", "run"), shown_number("value", "value")])
        ]
    points = base.mark_point(size=60, filled=True, opacity=1)
    layers += [points.encode(x=x, y=y, color=hue, shape=symbol(styles, legend=False), tooltip=tooltip)]
    return layers


def _by_training_length(
    results: Results, pairs: Sequence[tuple[str, Formats]]
) -> "Iterator[tuple[Picture, alt.ConcatChart]]":
    families, trained = architectures(results), training_lengths(results)
    styles = styles_of([*families])
    found = []
    for task, format in pairs:
        means, seeds = [], []
        for i, (name, groups) in enumerate(families.items()):
            measure, own, own_seeds = _scores(results, groups, task, format)
            for rows, to in ((own, means), (own_seeds, seeds)):
                to += [
                    {**row, "series": name, "at": row["trained"] * 1.15 ** beside(i, len(families))} for row in rows
                ]
        found.append((f"{task}, {format}: {measure}", means, seeds))
    rows = [row for _, means, _ in found for row in means]
    tooltip = [
        shown_word("model", "model"),
        shown_number("trained", "training length", ",d"),
        shown_number("value", "value"),
        shown_word("interval", "95 % interval"),
        shown_word("count", "answers"),
    ]
    panels = []
    for i, (title, means, seeds) in enumerate(found):
        x = tokens_axis("at", "training length (tokens)", trained, trained, labels=i == len(found) - 1)
        y = _score_up_axis(rows)
        lines = curves(means, styles, x, y, tooltip, field="series", seeds=seeds, bands=False)
        layers = [error_bars(means, styles, x, "series"), *lines]
        panels.append(panel(layers, height=250 if len(found) == 1 else 150, title=title))
    text = f"{MEANING} {seeds_text(results)}{counts_text([row['n'] for row in rows])} Bars: {intervals_text(results)}"
    yield Picture("skill", "skill", "", "", TITLE, text), figure(panels, TITLE)


def _scores(
    results: Results, groups: Sequence[SeedGroup], task: str, format: Formats
) -> tuple[str, list[Row], list[Row]]:
    """What is measured, rows of the groups, and rows of their seeds. Where no group has a skill it is exact match;
    else a group without is left out, as the two do not compare."""
    gates = {gate.where: gate for gate in results.gates if (gate.where.task, gate.where.format) == (task, format)}
    of = {group.name: [gates[PanelKey(run.name, task, format)] for run in group.runs] for group in groups}
    measure = "skill" if any(gate.skill for own in of.values() for gate in own) else "exact match"
    means, seeds = [], []
    for group in groups:
        own = of[group.name]
        mean = _skill(results, own) if measure == "skill" else group_mean(results, group, task, format, own[0].length)
        if mean is None or isinstance(mean, Unavailable):
            continue
        row: Row = {"model": group.name, "measure": measure, "trained": group.context_length}
        means.append({**row, **interval_row(mean), "n": mean.n})
        for gate in own if len(own) > 1 else ():
            score = gate.skill if measure == "skill" else gate.accuracy
            if score is not None and not isinstance(score, Unavailable):
                seeds.append({**row, "seed": gate.where.model, "value": score.value})
    return measure, means, seeds


def _skill(results: Results, gates: Sequence[Gate]) -> Estimate | None:
    """Mean skill of the runs of a group with its interval over samples; None where one of them has none."""
    skills, n = [], 0
    for gate in gates:
        answers = results.data.slice(gate.where, gate.length)
        task = next(t for t in results.data.tasks if t.name == gate.where.task)
        guesses = guessed_at(results.data, task, gate.where, gate.length)
        if gate.skill is None or isinstance(answers, Unavailable) or isinstance(guesses, Unavailable):
            return None
        skill = skill_of(answers, guesses, answers.chance)
        if isinstance(skill, Unavailable):
            return None
        skills, n = [*skills, skill], n + int(answers.trials.sum())
    test = skill_test([(1 / len(skills), skill) for skill in skills])
    return None if isinstance(test, Unavailable) else Estimate(test.value, test.low, test.high, n, ".2f")


def _score_axis(rows: Sequence[Row], *, last: bool) -> "alt.X":
    """From 0, or from the lowest bound below it, to 1. last: labelled, of panels below each other."""
    import altair as alt

    axis = alt.Axis(values=SCORES, format=".2f", labels=last, ticks=last)
    return alt.X("value:Q", title=SCORE if last else None, scale=_score_scale(rows), axis=axis)


def _score_up_axis(rows: Sequence[Row]) -> "alt.Y":
    import altair as alt

    return alt.Y("value:Q", title=SCORE, scale=_score_scale(rows), axis=alt.Axis(values=SCORES, format=".2f"))


def _score_scale(rows: Sequence[Row]) -> "alt.Scale":
    import altair as alt

    return alt.Scale(domain=[min([-0.02, *(row["low"] for row in rows)]), 1.02], nice=False)
