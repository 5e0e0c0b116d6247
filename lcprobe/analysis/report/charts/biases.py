"""Biases that attention adds to scores by distance alone: one figure per model, one line per head."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from lcprobe.analysis.findings.results import Results
from lcprobe.analysis.inputs import RunFacts
from lcprobe.analysis.report.charts.drawing import (
    INK,
    distance_axis,
    figure_text,
    file_name,
    legend,
    panel,
    set_titles,
    styles_of,
)
from lcprobe.analysis.report.charts.picture import Picture
from lcprobe.analysis.report.charts.seed_groups import architectures, has_several_lengths

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MAX_HEADS = 12


def bias_charts(results: Results) -> "Iterator[tuple[Picture, Figure]]":
    """One figure per model that has any bias; with several training lengths, of the first seed of each group."""
    if not has_several_lengths(results):
        yield from (_curves(run) for run in results.study.runs if run.biases)
        return
    for group in (group for groups in architectures(results).values() for group in groups):
        if group.runs[0].biases:
            yield _curves(group.runs[0], f" The first of {len(group.runs)} training seeds.")


def _curves(run: RunFacts, which: str = "") -> "tuple[Picture, Figure]":
    heads: dict[str, list[tuple[int, float]]] = {}
    for row in run.biases:
        heads.setdefault(f"layer {row['layer']}, head {row['head']}", []).append((row["distance"], row["bias"]))
    figure, axes = panel()
    for name, style in styles_of(list(heads)[:MAX_HEADS]).items():
        distances, biases = zip(*heads[name], strict=True)
        axes.plot(np.log2(np.array(distances) + 1), biases, style.line, color=style.colour, label=name, lw=1.3)
    axes.axvline(np.log2(run.own_context_length or run.context_length), color=INK, lw=0.8, ls="--")
    distance_axis(
        axes, 1, max(run.own_context_length or run.context_length, *(row["distance"] + 1 for row in run.biases))
    )
    encodings = ", ".join(dict.fromkeys(str(row["encoding"]) for row in run.biases))
    set_titles(axes, figure_text(f"{run.name}: {encodings}"), "distance + 1 (tokens)", "added to scores")
    legend(figure, axes)
    text = (
        f"Bias added to a score by distance, before the softmax; {min(len(heads), MAX_HEADS)} of {len(heads)} heads. "
    )
    text += f"Dashed: training length.{which}"
    return Picture(file_name("bias", run.name), "bias", run.name, "", f"Bias by distance, {run.name}", text), figure
