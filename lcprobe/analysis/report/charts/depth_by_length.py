"""Depth of the needle in a study with several training lengths: profiles, and ends - middle, of groups of seeds."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from lcprobe.analysis.findings.cells import PanelKey, Unavailable
from lcprobe.analysis.findings.extrapolation import reference_length
from lcprobe.analysis.findings.place import place_skills
from lcprobe.analysis.findings.results import Results
from lcprobe.analysis.findings.skill import skill_test
from lcprobe.analysis.inputs import RunFacts
from lcprobe.analysis.report.charts.depth_axis import AT_REALISED_DEPTHS, realised_depth, strata_ticks
from lcprobe.analysis.report.charts.drawing import (
    INK,
    distance_axis,
    file_name,
    legend,
    multiple_axis,
    outer_titles,
    panels,
    share_axis,
)
from lcprobe.analysis.report.charts.picture import Picture, counts_text, drawn_formats
from lcprobe.analysis.report.charts.seed_groups import (
    OVER_SAMPLES,
    architectures,
    group_mean,
    has_several_lengths,
    length_styles,
    training_lengths,
)
from lcprobe.analysis.stats.estimates import Estimate
from lcprobe.tasks.episode import Formats

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def profiles_by_training_length(results: Results) -> "Iterator[tuple[Picture, Figure]]":
    """Two figures per task and format: each group at its own training length, and all at the longest of them."""
    for task, format in drawn_formats(results):
        lengths, trained = results.data.lengths(task, format), training_lengths(results)
        own = {context: reference_length(lengths, context) for context in trained}
        longest = reference_length(lengths, trained[-1])
        yield _profiles(results, task, format, own, "at the training length", "own")
        yield _profiles(results, task, format, dict.fromkeys(trained, longest), f"at {longest:,} tokens", longest)


def _profiles(
    results: Results, task: str, format: Formats, length_at: dict[int, int], where: str, suffix: int | str
) -> "tuple[Picture, Figure]":
    """length_at: training length -> length of the profile."""
    families, styles = architectures(results), length_styles(results)
    figure, axes = panels([*families], f"{task}, {format}: {where}", height=1.9)
    counts: list[int] = []
    for one, groups in zip(axes, families.values(), strict=True):
        for i, group in enumerate(groups):
            length, style = length_at[group.context_length], group.style(styles)
            depths = results.data.planned[task, format, "none"][length]
            shift = 0.008 * (i - (len(groups) - 1) / 2)  # error bars side by side
            places = [realised_depth(results, group.runs, task, format, length, depth) + shift for depth in depths]
            means = [group_mean(results, group, task, format, length, [depth]) for depth in depths]
            points = [(x, mean) for x, mean in zip(places, means, strict=True) if not isinstance(mean, Unavailable)]
            at, values = [x for x, _ in points], [mean.value for _, mean in points]
            one.plot(at, values, style.line, marker=style.marker, ms=4.5, color=style.colour, label=group.label)
            low, high = [mean.low for _, mean in points], [mean.high for _, mean in points]
            one.vlines(at, low, high, color=style.colour, lw=1.2, alpha=0.7)
            for run in group.runs[: len(group.runs) if len(group.runs) > 1 else 0]:
                alone = replace(group, runs=(run,))
                own = [group_mean(results, alone, task, format, length, [depth]) for depth in depths]
                seeds = [
                    (x, mean.value) for x, mean in zip(places, own, strict=True) if not isinstance(mean, Unavailable)
                ]
                one.plot([x for x, _ in seeds], [y for _, y in seeds], ".", ms=3, color=style.colour, alpha=0.6)
            counts += [mean.n for _, mean in points]
    share_axis(axes[0])
    strata_ticks(axes[0], len(results.data.planned[task, format, "none"][max(length_at.values())]))
    outer_titles(figure, axes, "depth of the needle (0 first, 1 last)", "exact match")
    legend(figure, *axes)
    text = f"Depth profiles {where}, {task}, {format}, mean over training seeds. {counts_text(counts)} "
    text += f"{AT_REALISED_DEPTHS} Small points: each seed. Bars: {OVER_SAMPLES}"
    name = file_name("depth", task, format, suffix)
    return Picture(name, "depth", task, str(format), f"{task}, {format}", text), figure


def depth_effect_charts(results: Results) -> "Iterator[tuple[Picture, Figure]]":
    """One figure per task and format: ends - middle at equal length and at equal multiple, a row per architecture.

    Nothing for a study of one training length, or without depths at the start, the middle and the end.
    """
    if not has_several_lengths(results):
        return
    for task, format in drawn_formats(results):
        families = architectures(results)
        found = {
            group.name: [
                (length, effect)
                for length in results.data.lengths(task, format)
                if (effect := ends_minus_middle(results, group.runs, task, format, length)) is not None
            ]
            for groups in families.values()
            for group in groups
        }
        if any(found.values()):
            yield _effects(results, task, format, found)


def _effects(
    results: Results, task: str, format: Formats, found: dict[str, list[tuple[int, Estimate]]]
) -> "tuple[Picture, Figure]":
    families, styles = architectures(results), length_styles(results)
    titles = [f"{name}: {where}" for name in families for where in ("equal length", "equal multiple")]
    figure, axes = panels(titles, f"{task}, {format}: ends − middle", 2, height=1.9, share_x=False)
    lengths = [length for points in found.values() for length, _ in points]
    ratios = []
    for row, groups in enumerate(families.values()):
        for column, one in enumerate(axes[2 * row : 2 * row + 2]):
            one.axhline(0, color=INK, lw=1.0)
            for i, group in enumerate(groups):
                points, style = found[group.name], group.style(styles)
                zero = group.context_length if column else 1
                ratios += [length / zero for length, _ in points] if column else []
                at = np.log2([length / zero for length, _ in points]) + 0.08 * (i - (len(groups) - 1) / 2)
                low, high = [e.low for _, e in points], [e.high for _, e in points]
                one.vlines(at, low, high, color=style.colour, lw=1.0, alpha=0.7)
                values = [e.value for _, e in points]
                one.plot(at, values, style.line, marker=style.marker, ms=4, color=style.colour, label=group.label)
                for run in group.runs[: len(group.runs) if len(group.runs) > 1 else 0]:
                    alone = [ends_minus_middle(results, [run], task, format, length) for length, _ in points]
                    own = [(x, e.value) for x, e in zip(at, alone, strict=True) if e is not None]
                    one.plot([x for x, _ in own], [y for _, y in own], ".", ms=3, color=style.colour, alpha=0.6)
    distance_axis(axes[0], min(lengths), max(lengths), 4)
    multiple_axis(axes[1], min(ratios), max(ratios), 4)
    for one, x in zip(axes[-2:], ("length (tokens)", "length / training length"), strict=True):
        one.set_xlabel(x, fontsize=10, color=INK)
    figure.supylabel("skill, ends − middle", fontsize=10, color=INK)
    legend(figure, *axes)
    effects = [e for e in results.depth_effects if (e.task, e.format) == (task, format)]
    effects = [e for e in effects if e.effect == "lost in the middle" and e.refused is None]
    counts = counts_text([e.n for points in found.values() for _, e in points])
    text = f"Skill: mean of start and end minus the middle of depths, {task}, {format}, against length (left) and "
    text += f"length / training length (right), mean over training seeds. {counts} Small points: "
    text += f"each seed. Bars: {OVER_SAMPLES} Not drawn where all depths are at the floor or the "
    text += f"ceiling. Of {len(effects)} tested differences between two training lengths "
    text += f"{sum(e.resolved for e in effects)} are resolved."
    name = file_name("depth_by_length", task, format)
    return Picture(name, "depth_by_length", task, str(format), f"{task}, {format}", text), figure


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
