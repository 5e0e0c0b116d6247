"""The style of the figures: one panel per figure, so that a page can place them in one column or in several; small
multiples where lines of many models would cover each other.

Colours are those of Okabe & Ito (2008), which colour-blind readers can distinguish, each with a marker of its own;
accuracy is always drawn from 0 to 1, heatmaps in cividis. matplotlib is used through its objects with the Agg canvas:
no pyplot, no global state, and imported only when a figure is drawn.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from lcprobe.analysis.findings.results import Results
from lcprobe.files import digest_bytes

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.collections import QuadMesh
    from matplotlib.figure import Figure

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = "osD^vPX"
DASHES = ("-", "--", ":", "-.")
INK, GREY = "#1b1f24", "#6b7280"
DPI = 200


@dataclass(frozen=True)
class Style:
    """Colour, marker and line style of one model."""

    colour: str
    marker: str
    line: str


def styles_of(names: Sequence[str]) -> dict[str, Style]:
    """A style per name, by its place in the list."""
    n = len(COLOURS)
    return {name: Style(COLOURS[i % n], MARKERS[i % n], DASHES[i // n % len(DASHES)]) for i, name in enumerate(names)}


def model_styles(results: Results) -> dict[str, Style]:
    """A style per model, the same in every figure of a study."""
    return styles_of([run.name for run in results.study.runs])


def figure_text(text: object, limit: int = 48) -> str:
    """Data as figure text: no mathematics, one line, cut to `limit` characters."""
    line = " ".join("".join(c if c.isprintable() else " " for c in str(text)).split())
    line = line if len(line) <= limit else line[: limit - 1] + "…"
    return line.replace("$", r"\$")


def file_name(*parts: object) -> str:
    """A file name from names: letters, digits and -; a digest is appended where characters had to be replaced."""
    text = "_".join(str(part).replace("/", "-") for part in parts)
    clean = re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-.")[:80]
    return clean if clean == text else f"{clean or 'figure'}-{digest_bytes(text.encode())[:8]}"


def panel(width: float = 5.6, height: float = 3.7) -> "tuple[Figure, Axes]":
    """An empty figure of width x height inches, and its axes."""
    figure = _empty(width, height)
    axes = figure.add_subplot()
    _clean(axes)
    return figure, axes


def panels(
    titles: Sequence[str], title: str, columns: int = 1, height: float = 2.0, share_x: bool = True
) -> "tuple[Figure, list[Axes]]":
    """Small multiples: a panel per title, `columns` side by side, with one y axis and, by `share_x`, one x axis.

    height: of one panel in inches; the legend has its place below all of them.
    """
    rows = -(-len(titles) // columns)
    figure = _empty(5.6, rows * height + 1.2)
    grid = figure.subplots(rows, columns, sharex="all" if share_x else "col", sharey=True, squeeze=False)
    axes = list(grid.flat)
    for unused in axes[len(titles) :]:
        unused.set_visible(False)
    for i, (one, name) in enumerate(zip(axes, titles, strict=False)):
        _clean(one)
        one.tick_params(labelsize=9, labelbottom=i + columns >= len(titles))
        one.set_title(figure_text(name), loc="left", fontsize=10, color=INK)
    figure.suptitle(figure_text(title, 58), x=0.02, ha="left", fontsize=11, color=INK, fontweight="bold")
    return figure, axes[: len(titles)]


def outer_titles(figure: "Figure", axes: "Sequence[Axes]", x: str, y: str) -> None:
    """Label the y axis of small multiples once, and the x axis below the lowest panels."""
    for one in axes:
        if one.xaxis.get_tick_params()["labelbottom"]:
            one.set_xlabel(x, fontsize=10, color=INK)
    figure.supylabel(y, fontsize=10, color=INK)


def _empty(width: float, height: float) -> "Figure":
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=DPI, layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    figure.get_layout_engine().set(w_pad=0.1, h_pad=0.1)  # type: ignore[union-attr,call-arg]
    return figure


def _clean(axes: "Axes") -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(GREY)
    axes.tick_params(colors=INK, labelsize=9.5)
    axes.grid(True, color="#e5e7eb", linewidth=0.7)
    axes.set_axisbelow(True)


def set_titles(axes: "Axes", title: str, x: str, y: str) -> None:
    """Set the title, at the left, and the axis labels."""
    axes.set_title(title, loc="left", fontsize=11, color=INK, fontweight="bold")
    axes.set_xlabel(x, fontsize=10, color=INK)
    axes.set_ylabel(y, fontsize=10, color=INK)


def share_axis(axes: "Axes") -> None:
    """Set the y axis to 0 .. 1 with a margin, so that markers at the ends are not clipped."""
    axes.set_ylim(-0.03, 1.03)
    axes.set_yticks([0, 0.25, 0.5, 0.75, 1])


def length_axis(axes: "Axes", lengths: Sequence[int]) -> None:
    """Label the x axis, which is in log2 of tokens, with the lengths themselves."""
    axes.set_xticks([float(np.log2(length)) for length in lengths], [f"{length:,}" for length in lengths])


def multiple_axis(axes: "Axes", low: float, high: float, ticks: int = 12) -> None:
    """Label the x axis, which is in log2 of length / training length, at powers of two, at about so many of them:
    `1/2x`, `1x`, `2x`."""
    powers = range(int(np.floor(np.log2(low) + 1e-6)), int(np.ceil(np.log2(high) - 1e-6)) + 1)
    shown = [p for p in powers if p % -(-len(powers) // ticks) == 0]
    axes.set_xticks(shown, [f"{2**p}x" if p >= 0 else f"1/{2**-p}x" for p in shown])


def distance_axis(axes: "Axes", low: float, high: float, ticks: int = 8) -> None:
    """Label the x axis, which is in log2 of tokens, at powers of two, at about so many of them."""
    powers = range(int(np.ceil(np.log2(max(low, 1)))), int(np.log2(max(high, 2))) + 1)
    step = max(1, len(powers) // ticks)
    axes.set_xticks(list(powers)[::step], [f"{2**p:,}" for p in list(powers)[::step]])


def band(axes: "Axes", x: np.ndarray, low: Sequence[float], high: Sequence[float], style: Style) -> None:
    """Shade an interval around a curve."""
    axes.fill_between(x, low, high, color=style.colour, alpha=0.18, lw=0)


def legend(figure: "Figure", *axes: "Axes", columns: int = 3) -> None:
    """Add the legend below the axes, where it covers no data; what several panels have in common once."""
    handles: dict[str, Artist] = {}
    for one in axes:
        for handle, label in zip(*one.get_legend_handles_labels(), strict=True):
            handles.setdefault(label, handle)
    if len(axes) > 1 and len(handles) == 4:
        columns = 2
    if handles:
        place = "outside lower center"
        figure.legend([*handles.values()], [*handles], loc=place, ncols=columns, fontsize=9, frameon=False)


def heatmap(
    values: np.ndarray, rows: Sequence[str], columns: Sequence[str], title: str, x: str, y: str, edge: float | None
) -> "Figure":
    """Heatmap of (n_rows, n_columns) proportions on the scale 0 .. 1, NaN hatched.

    edge: number of columns up to the training length, where a dashed line is drawn.
    """
    figure, axes = panel(5.6, max(3.2, 1.5 + 0.38 * len(rows)))
    mesh = _heat(axes, values, rows, columns, edge)
    axes.invert_yaxis()
    set_titles(axes, title, x, y)
    _scale(figure, mesh, [axes])
    return figure


def heatmaps(
    panels_of: Mapping[str, tuple[np.ndarray, float | None]],
    rows: Sequence[str],
    columns: Sequence[str],
    title: str,
    x: str,
    y: str,
) -> "Figure":
    """Heatmaps of the same rows and columns below each other: title -> values and edge, as in `heatmap`."""
    figure, axes = panels([*panels_of], title, height=0.55 + 0.27 * len(rows))
    for one, (values, edge) in zip(axes, panels_of.values(), strict=True):
        mesh = _heat(one, values, rows, columns, edge, font=8)
    _scale(figure, mesh, axes)
    axes[0].invert_yaxis()  # the y axis is one for all
    outer_titles(figure, axes, x, y)
    return figure


def _heat(
    axes: "Axes",
    values: np.ndarray,
    rows: Sequence[str],
    columns: Sequence[str],
    edge: float | None,
    font: float = 9,
) -> "QuadMesh":
    n_rows, n_columns = values.shape
    axes.grid(False)
    mesh = axes.pcolormesh(
        np.ma.masked_invalid(values), cmap="cividis", vmin=0, vmax=1, edgecolors="white", linewidth=1.2
    )
    for (i, j), value in np.ndenumerate(values):
        if np.isnan(value):
            axes.fill_between(
                [j, j + 1], i, i + 1, facecolor="#f3f4f6", hatch="////", edgecolor="#c4c9d1", linewidth=0
            )
        shown = "n/a" if np.isnan(value) else f"{value:.2f}"
        colour = INK if np.isnan(value) or value > 0.55 else "white"
        axes.text(j + 0.5, i + 0.5, shown, ha="center", va="center", fontsize=font, color=colour)
    if edge is not None:
        axes.axvline(edge, color="#D55E00", linestyle="--", linewidth=2)
    axes.set_xticks(np.arange(n_columns) + 0.5, columns)
    axes.set_yticks(np.arange(n_rows) + 0.5, rows)
    axes.tick_params(length=0)
    return mesh


def _scale(figure: "Figure", mesh: "QuadMesh", axes: "list[Axes]") -> None:
    bar = figure.colorbar(mesh, ax=axes, fraction=0.05, pad=0.02, ticks=[0, 0.5, 1])
    bar.ax.tick_params(labelsize=9)
    bar.outline.set_visible(False)  # type: ignore[operator]
