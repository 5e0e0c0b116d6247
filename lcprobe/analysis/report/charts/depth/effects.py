"""Ends - middle of depths in a study with several training lengths: at equal length and at equal multiple."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from lcprobe.analysis.findings.cells import PanelKey, Unavailable
from lcprobe.analysis.findings.place import place_skills
from lcprobe.analysis.findings.results import Results
from lcprobe.analysis.findings.skill import skill_test
from lcprobe.analysis.inputs import RunFacts
from lcprobe.analysis.report.charts.axes import multiple_axis, tokens_axis
from lcprobe.analysis.report.charts.grammar import (
    Row,
    Style,
    beside,
    curves,
    error_bars,
    figure,
    file_name,
    has_bands,
    horizontal,
    panel,
    shown_number,
    shown_word,
)
from lcprobe.analysis.report.charts.picture import Picture, counts_text, drawn_formats, interval_row
from lcprobe.analysis.report.charts.seed_groups import (
    SeedGroup,
    architectures,
    has_several_lengths,
    intervals_text,
    length_styles,
    seeds_text,
)
from lcprobe.analysis.stats.estimates import Estimate
from lcprobe.tasks.episode import Formats

if TYPE_CHECKING:
    import altair as alt

WIDTH, HEIGHT = 190, 150
"""Of a panel; two are side by side."""
Y = "ends − middle (skill)"


def depth_effect_charts(results: Results) -> "Iterator[tuple[Picture, alt.ConcatChart]]":
    """One figure per task and format: ends - middle at equal length and at equal multiple, a row per architecture.

    Nothing for a study of one training length, or without depths at the start, the middle and the end.
    """
    if not has_several_lengths(results):
        return
    for task, format in drawn_formats(results):
        families = architectures(results)
        found = {name: _rows(results, groups, task, format) for name, groups in families.items()}
        if any(means for means, _ in found.values()):
            yield _figure(results, task, format, found)


def _rows(results: Results, groups: Sequence[SeedGroup], task: str, format: Formats) -> tuple[list[Row], list[Row]]:
    """Rows of the groups of one architecture, and of their seeds; `multiple` is length / training length. The points
    of one length are drawn beside each other."""
    means, seeds = [], []
    for i, group in enumerate(groups):
        shift = 2 ** (0.24 * beside(i, len(groups)))
        for length in results.data.lengths(task, format):
            effect = ends_minus_middle(results, group.runs, task, format, length)
            if effect is None:
                continue
            row: Row = {"model": group.name, "series": group.label, "length": length, "at": length * shift}
            row["multiple"] = length / group.context_length
            row["multiple_at"] = row["multiple"] * shift
            means.append({**row, **interval_row(effect), "n": effect.n})
            for run in group.runs if len(group.runs) > 1 else ():
                own = ends_minus_middle(results, [run], task, format, length)
                seeds += [] if own is None else [{**row, "seed": run.name, "value": own.value}]
    return means, seeds


def _figure(
    results: Results, task: str, format: Formats, found: dict[str, tuple[list[Row], list[Row]]]
) -> "tuple[Picture, alt.ConcatChart]":
    import altair as alt

    shades, styles, panels = length_styles(results), {}, []
    rows = [row for means, _ in found.values() for row in means]
    bounds = [0.0, *(bound for row in rows for bound in (row["low"], row["high"]))]
    y = alt.Y("value:Q", title=Y, scale=alt.Scale(domain=[min(bounds) - 0.03, max(bounds) + 0.03]))
    lengths, multiples = [row["at"] for row in rows], [row["multiple_at"] for row in rows]
    tooltip = [
        shown_word("model", "model"),
        shown_number("length", "length (tokens)", ",d"),
        shown_number("multiple", "length / training length", ".3~g"),
        shown_number("value", "ends − middle"),
        shown_word("interval", "95 % interval"),
        shown_word("count", "answers"),
    ]
    for name, groups in architectures(results).items():
        own: dict[str, Style] = {group.label: group.style(shades) for group in groups}
        styles.update(own)
        means, seeds = found[name]
        for x, where in (
            (tokens_axis("at", "length (tokens)", lengths, most=4), "equal length"),
            (multiple_axis("multiple_at", "length / training length", multiples, most=4), "equal multiple"),
        ):
            lines = curves(means, own, x, y, tooltip, field="series", seeds=seeds, bands=False)
            bars = [error_bars(means, own, x, "series")] if has_bands(own) else []
            panels.append(panel([*horizontal(0.0, ""), *bars, *lines], WIDTH, HEIGHT, f"{name}: {where}"))
    title = f"{task}, {format}: ends − middle"
    chart = figure(panels, title, 2)
    effects = [e for e in results.depth_effects if (e.task, e.format) == (task, format)]
    effects = [e for e in effects if e.effect == "lost in the middle" and e.refused is None]
    text = f"Skill: mean of start and end minus the middle of depths, {task}, {format}, against length (left) and "
    text += f"length / training length (right). {seeds_text(results)}{counts_text([row['n'] for row in rows])} "
    text += f"Bars: {intervals_text(results)} " if has_bands(styles) else ""
    text += "Not drawn where all depths are at the floor or the ceiling. "
    text += f"Of {len(effects)} tested differences between two training lengths "
    text += f"{sum(e.resolved for e in effects)} are resolved."
    name = file_name("depth_by_length", task, format)
    return Picture(name, "depth_by_length", task, str(format), title, text), chart


def ends_minus_middle(
    results: Results, runs: Sequence[RunFacts], task: str, format: Formats, length: int
) -> Estimate | None:
    """Mean of start and end minus the middle, in skill as the declared contrasts, mean over runs and samples as
    clusters; None where it is not testable. n: answers of all runs."""
    facts = next(t for t in results.data.tasks if t.name == task)
    found = [place_skills(results.data, facts, PanelKey(run.name, task, format), length) for run in runs]
    skills = [one for one in found if not isinstance(one, Unavailable)]
    if len(skills) < len(found):
        return None
    test = skill_test([(w / len(skills), s) for one in skills for w, s in one.effect(one.start, one.end)])
    if isinstance(test, Unavailable):
        return None
    return Estimate(test.value, test.low, test.high, int(sum(one.whole.trials.sum() for one in skills)), ".2f")
