"""What attention adds to scores by distance alone: one figure a model whose encoding is a bias, one line a head."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from lcprobe.analysis.findings.results import Results
from lcprobe.analysis.report.drawing import INK, distance_axis, legend, panel, plain, slug, styles, titled
from lcprobe.analysis.report.figures import Picture

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST_LINES = 12


def bias_figures(results: Results) -> "Iterator[tuple[Picture, Figure]]":
    """Every figure of biases, one at a time; none where no model has any."""
    for run in results.study.runs:
        lines: dict[str, list[tuple[int, float]]] = {}
        for row in run.biases:
            lines.setdefault(f"layer {row['layer']}, head {row['head']}", []).append((row["distance"], row["bias"]))
        if not lines:
            continue
        figure, axes = panel()
        look = styles(list(lines)[:MOST_LINES])
        for name, style in look.items():
            points = lines[name]
            axes.plot(
                [d + 1 for d, _ in points], [b for _, b in points], style.line, color=style.colour, label=name, lw=1.3
            )
        axes.axvline(run.context_length, color=INK, lw=0.8, ls="--")
        longest = max(d for points in lines.values() for d, _ in points)
        distance_axis(axes, 1, longest + 1)
        encodings = ", ".join(dict.fromkeys(str(row["encoding"]) for row in run.biases))
        titled(axes, plain(f"{run.name}: {encodings}"), "distance + 1 (tokens)", "added to scores")
        legend(figure, axes)
        text = f"What is added to a score by distance, before the softmax; {min(len(lines), MOST_LINES)} of {len(lines)} heads. "
        text += "Dashed: training length."
        yield Picture(slug("bias", run.name), "bias", run.name, "", f"Bias by distance, {run.name}", text), figure
