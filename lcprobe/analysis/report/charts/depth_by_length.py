"""Depth of the needle in a study with several training lengths: profiles of every group of seeds."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from lcprobe.analysis.findings.cells import Unavailable
from lcprobe.analysis.findings.extrapolation import reference_length
from lcprobe.analysis.findings.results import Results
from lcprobe.analysis.report.charts.drawing import file_name, legend, outer_titles, panels, share_axis
from lcprobe.analysis.report.charts.picture import Picture, counts_text, drawn_formats
from lcprobe.analysis.report.charts.seed_groups import (
    architectures,
    group_mean,
    length_styles,
    training_lengths,
)
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
            means = [(depth, group_mean(results, group, task, format, length, [depth])) for depth in depths]
            points = [(depth, mean) for depth, mean in means if not isinstance(mean, Unavailable)]
            shift = 0.008 * (i - (len(groups) - 1) / 2)  # error bars side by side
            at, values = [depth + shift for depth, _ in points], [mean.value for _, mean in points]
            one.plot(at, values, style.line, marker=style.marker, ms=4.5, color=style.colour, label=group.label)
            low, high = [mean.low for _, mean in points], [mean.high for _, mean in points]
            one.vlines(at, low, high, color=style.colour, lw=1.2, alpha=0.7)
            counts += [mean.n for _, mean in points]
    share_axis(axes[0])
    axes[0].set_xticks([0, 0.25, 0.5, 0.75, 1])
    outer_titles(figure, axes, "depth of the needle (0 first, 1 last)", "exact match")
    legend(figure, *axes)
    text = f"Depth profiles {where}, {task}, {format}, mean over training seeds. {counts_text(counts)} "
    text += "Bars: 95 % intervals over training seeds (Student's t), never narrower than over samples."
    name = file_name("depth", task, format, suffix)
    return Picture(name, "depth", task, str(format), f"{task}, {format}", text), figure
