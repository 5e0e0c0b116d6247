"""Heatmaps of proportions: one panel per model, the number in each cell, the training length marked."""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, TypeVar

from lcprobe.analysis.report.charts.grammar import INK, MISSING, Row, data, figure, figure_text, panel

if TYPE_CHECKING:
    import altair as alt

CELL, CELL_HEIGHT = 52, 26
COLUMNS = 3
"""Panels side by side."""
LIGHT_BELOW = 0.48
"""Values below have light text: its contrast with the shade is then larger than that of dark text."""
MAX_PANELS = 12
"""Panels of one figure."""
T = TypeVar("T")


def parts_of(groups: Sequence[T]) -> Iterator[tuple[list[int], Sequence[T]]]:
    """At most MAX_PANELS groups at a time, each time with the number of the part, if there are several."""
    for i in range(0, len(groups), MAX_PANELS):
        yield [] if len(groups) <= MAX_PANELS else [i // MAX_PANELS + 1], groups[i : i + MAX_PANELS]


def heatmaps(
    panels: Mapping[str, tuple[Sequence[Row], int]],
    rows: Sequence[str],
    columns: Sequence[str],
    title: str,
    x: str,
    y: str,
    tooltip: "Sequence[alt.Tooltip]",
) -> "alt.ConcatChart":
    """Panels of the same rows and columns side by side: title -> its cells, and the number of columns up to the
    training length, after which a dashed line is drawn.

    A cell has `row`, `column`, `value` (None: not planned or incomplete, drawn grey), and what the tooltip names.
    """
    n = min(COLUMNS, len(panels))
    drawn = [_panel(name, cells, edge, rows, columns, x, y, tooltip) for name, (cells, edge) in panels.items()]
    chart = figure(drawn, title, n)
    if not y:  # a browser's font may be wider than the one in which the SVG was measured: a title would leave room
        chart.padding = {"left": 5 + max(map(len, rows), default=0), "top": 5, "right": 5, "bottom": 5}
    return chart


def _panel(
    name: str,
    cells: Sequence[Row],
    edge: int,
    rows: Sequence[str],
    columns: Sequence[str],
    x: str,
    y: str,
    tooltip: "Sequence[alt.Tooltip]",
) -> "alt.LayerChart":
    import altair as alt

    across = alt.X("column:O", title=x, sort=[*columns], scale=alt.Scale(domain=[*columns]), axis=_axis(0))
    down = alt.Y("row:O", title=y, sort=[*rows], scale=alt.Scale(domain=[*rows]), axis=_axis(180))
    base = data([{**cell, "shown": _number(cell["value"])} for cell in cells]).encode(x=across, y=down)
    shade = alt.Color(
        "value:Q",
        scale=alt.Scale(scheme="cividis", domain=[0, 1]),
        legend=alt.Legend(
            title="exact match",
            orient="bottom",
            direction="horizontal",
            gradientLength=120,
            values=[0, 0.5, 1],
            format=".1f",
        ),
    )
    known, missing = "isValid(datum.value)", "!isValid(datum.value)"
    layers = [
        base.transform_filter(missing).mark_rect(color=MISSING, opacity=0.35).encode(tooltip=[*tooltip]),
        base.transform_filter(known).mark_rect(stroke="white", strokeWidth=1).encode(color=shade, tooltip=[*tooltip]),
        *(
            base.transform_filter(which)
            .mark_text(fontSize=11, color=colour)
            .encode(text="shown:N", tooltip=[*tooltip])
            for which, colour in (
                (missing, INK),
                (f"{known} && datum.value < {LIGHT_BELOW}", "#ffffff"),
                (f"{known} && datum.value >= {LIGHT_BELOW}", "#000000"),
            )
        ),
    ]
    if 0 < edge < len(columns):
        last = data([{"column": columns[edge - 1]}])
        place = alt.X("column:O", sort=[*columns], bandPosition=1)
        layers += [last.mark_rule(color="#D55E00", strokeDash=[6, 3], strokeWidth=2).encode(x=place)]
    return panel(layers, CELL * len(columns), CELL_HEIGHT * len(rows), figure_text(name))


def _axis(limit: int) -> "alt.Axis":
    import altair as alt

    if limit:
        return alt.Axis(grid=False, domain=False, ticks=False, labelLimit=limit)
    return alt.Axis(grid=False, domain=False, ticks=False, labelAngle=0)


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"
