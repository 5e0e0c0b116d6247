"""The grammar of the figures: Vega-Lite through altair, so that one description gives the page's interactive chart
and its SVG, PDF and PNG.

Every chart is layers over rows of plain data. Rows about a model have the field `model`, which the page's choice of
models filters. Colours are those of Okabe & Ito (2008), which colour-blind readers can distinguish, each with a
symbol of its own; accuracy is always drawn from 0 to 1, heatmaps in cividis. INK is used for text, axes and rules
alone: on the page it becomes the text colour, in the dark too. altair generates no names (`view_1`), so that the same
data give the same specification.
"""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import floor, isfinite
from typing import TYPE_CHECKING, Any, TypeAlias

from lcprobe.files import digest_bytes

if TYPE_CHECKING:
    import altair as alt

Row: TypeAlias = dict[str, Any]
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7F7F7F")
SYMBOLS = ("circle", "square", "diamond", "triangle-up", "cross", "triangle-down", "triangle-right")
SOLID, DASHED, DOTTED, DASH_DOTTED = [1, 0], [7, 3], [2, 3], [7, 3, 2, 3]
DASHES = (SOLID, DASHED, DOTTED, DASH_DOTTED)
INK = "#1b1f24"
WIDTH, HEIGHT = 420, 250
"""Of a panel that is alone, in CSS pixels, without axes and legend."""
MISSING = "#c9ced6"
MAX_BANDS = 8
"""Series of one panel that have bands and bars of their intervals; those of more would cover each other."""
LEGEND_ROWS = 6
"""Most rows of a legend; a longer one would be larger than the panels, so that there is none."""
LABEL_LIMIT = 380
"""CSS pixels of a name in a legend; the rest is cut."""
SHOWN = "shown"
"""Parameter of every chart with rows of models: the names of those that are drawn. The page sets it."""


@dataclass(frozen=True)
class Style:
    """Colour, symbol and dashes of one series."""

    colour: str
    symbol: str
    dash: list[int]


def styles_of(names: Sequence[str]) -> dict[str, Style]:
    """A style per name, by its place in the list: no two of the first 49 have both their colour and their symbol in
    common, and no two of the first 28 their colour and their dashes."""
    n = len(COLOURS)
    return {
        name: Style(COLOURS[i % n], SYMBOLS[(i + i // n) % n], DASHES[i // n % len(DASHES)])
        for i, name in enumerate(names)
    }


def file_name(*parts: object) -> str:
    """A file name from names: letters, digits and -; a digest is appended where characters had to be replaced."""
    text = "_".join(str(part).replace("/", "-") for part in parts)
    clean = re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-.")[:80]
    return clean if clean == text else f"{clean or 'figure'}-{digest_bytes(text.encode())[:8]}"


def figure_text(text: object, limit: int = 48) -> str:
    """Data as figure text: one line, cut to `limit` characters."""
    line = " ".join("".join(c if c.isprintable() else " " for c in str(text)).split())
    return line if len(line) <= limit else line[: limit - 1] + "…"


def data(rows: Sequence[Row]) -> "alt.Chart":
    """A chart without a mark over rows of plain values; numbers are kept to five significant digits, NaN as null.

    Layers of the same rows share one data set of the specification.
    """
    import altair as alt

    values = tuple({key: _plain(value) for key, value in row.items()} for row in rows)  # altair copies lists, often
    return alt.Chart(alt.InlineData(values))


def of_shown_models(chart: "alt.Chart") -> "alt.Chart":
    """Only rows of models that the reader chose; the whole figure needs `choosing`."""
    return chart.transform_filter(f"indexof({SHOWN}, datum.model) >= 0")


def has_bands(styles: Mapping[str, Style]) -> bool:
    """Whether the intervals of so many series are drawn: captions say it."""
    return len(styles) <= MAX_BANDS


def legend_note(styles: Mapping[str, Style]) -> str:
    """What a caption says where there are too many series for a legend."""
    told = f"Without a legend, as there are {len(styles)} lines: point at one for its name. "
    return "" if _legend_rows([*styles])[1] <= LEGEND_ROWS else told


def beside(i: int, n: int) -> float:
    """The place of the ith of n series that share one point of an axis: -0.5 .. 0.5."""
    return (i - (n - 1) / 2) / n


def colour(
    styles: Mapping[str, Style],
    field: str = "model",
    title: str | None = None,
    *,
    as_lines: bool = False,
    legend: bool = True,
) -> "alt.Color":
    """The colours of the series named in a field, with one legend below the figure, or without.

    as_lines: the legend shows lines; what merges with it must show them, too.
    """
    import altair as alt

    scale = alt.Scale(domain=[*styles], range=[style.colour for style in styles.values()])
    return alt.Color(f"{field}:N", scale=scale, legend=_legend(title, [*styles], as_lines) if legend else None)


def own_stroke(field: str = "colour") -> "alt.Stroke":
    """Strokes in the colour that a field holds, for what an axis names already. A channel of its own, which has no
    legend: `colour` would share that of the other layers."""
    import altair as alt

    return alt.Stroke(f"{field}:N", scale=None)


def own_fill(field: str = "fill") -> "alt.Fill":
    """Fills in the colour that a field holds, as `own_stroke`."""
    import altair as alt

    return alt.Fill(f"{field}:N", scale=None)


def symbol(
    styles: Mapping[str, Style],
    field: str = "model",
    title: str | None = None,
    *,
    as_lines: bool = False,
    legend: bool = True,
) -> "alt.Shape":
    """The symbols of the series; merged with the legend of their colours."""
    import altair as alt

    scale = alt.Scale(domain=[*styles], range=[style.symbol for style in styles.values()])
    return alt.Shape(f"{field}:N", scale=scale, legend=_legend(title, [*styles], as_lines) if legend else None)


def dashes(styles: Mapping[str, Style], field: str = "model", title: str | None = None) -> "alt.StrokeDash":
    """The dashes of the series; merged with the legend of their colours, which must show lines."""
    import altair as alt

    scale = alt.Scale(domain=[*styles], range=[style.dash for style in styles.values()])
    return alt.StrokeDash(f"{field}:N", scale=scale, legend=_legend(title, [*styles], True))


def curves(
    rows: Sequence[Row],
    styles: Mapping[str, Style],
    x: "alt.X",
    y: "alt.Y",
    tooltip: Sequence["alt.Tooltip"],
    *,
    field: str = "model",
    seeds: Sequence[Row] = (),
    bands: bool = True,
    points: bool = True,
) -> "list[alt.Chart]":
    """Layers of lines with 95 % bands, unless there are more than MAX_BANDS series, and thin lines of single seeds.

    rows: the fields of x and y, `low` and `high` where there are bands, and the series in `field`. seeds: rows with
    `seed` besides. Rows without `low` have no band; where a series is one point its interval is a bar.
    """
    import altair as alt

    is_model = field == "model"
    base = of_shown_models(data(rows)) if is_model else data(rows)
    hue = colour(styles, field, as_lines=not points)
    layers = []
    counts = Counter(row[field] for row in rows)
    alone = [row for row in rows if counts[row[field]] == 1 and row.get("low") is not None]
    if bands and has_bands(styles) and alone:
        layers += [error_bars(alone, styles, x, field)]
    if bands and has_bands(styles) and len(alone) < len(rows):
        low = alt.Y("low:Q", title=y["title"])
        layers += [base.mark_area(opacity=0.18, line=False).encode(x=x, y=low, y2="high:Q", color=hue)]
    if seeds:
        thin = of_shown_models(data(seeds)) if is_model else data(seeds)
        lines = thin.mark_line(strokeWidth=0.8, opacity=0.6, aria=False)
        layers += [lines.encode(x=x, y=y, color=hue, detail="seed:N")]
    encoded = {"x": x, "y": y, "color": hue}
    few = len(styles) <= 12
    width = 2 if few else 1.2
    if points:  # dashes are no part of a legend of symbols, whose outlines they would be
        for dash in {tuple(style.dash): style.dash for style in styles.values()}.values():
            own = [row for row in rows if styles[row[field]].dash == dash]
            part = of_shown_models(data(own)) if is_model else data(own)
            layers += [part.mark_line(strokeWidth=width, strokeDash=dash).encode(**encoded)] if own else []
        marks = base.mark_point(size=55 if few else 40, filled=True, opacity=1)
        layers += [marks.encode(**encoded, shape=symbol(styles, field), tooltip=[*tooltip])]
    else:  # wide invisible points: something to point at
        dashed = dashes(styles, field)
        layers += [base.mark_line(strokeWidth=width).encode(**encoded, strokeDash=dashed)]
        layers += [base.mark_point(size=120, opacity=0, aria=False).encode(**encoded, tooltip=[*tooltip])]
    return layers


def error_bars(rows: Sequence[Row], styles: Mapping[str, Style], x: "alt.X", field: str = "model") -> "alt.Chart":
    """Vertical bars from `low` to `high`."""
    base = of_shown_models(data(rows)) if field == "model" else data(rows)
    return base.mark_rule(strokeWidth=1.4).encode(x=x, y="low:Q", y2="high:Q", color=colour(styles, field))


def vertical(
    values: Mapping[float, str], dash: Sequence[int] = (7, 3), colour: str | Sequence[str] = INK
) -> "list[alt.Chart]":
    """Vertical lines at values of the x axis, of one colour or of one each, with their text above the panel, where
    no curve is; those outside of the axis are not drawn."""
    import altair as alt

    colours = [colour] * len(values) if isinstance(colour, str) else colour
    rows = [{"at": at, "text": text, "ink": ink} for (at, text), ink in zip(values.items(), colours, strict=True)]
    rule = data(rows).mark_rule(clip=True, strokeDash=[*dash], strokeWidth=1.2)
    layers = [rule.encode(x="at:Q", stroke=own_stroke("ink"))]
    if named := [row for row in rows if row["text"]]:
        text = data(named).mark_text(align="center", baseline="bottom", dy=-1, fontSize=10)
        layers += [text.encode(x="at:Q", y=alt.value(0), text="text:N", fill=own_fill("ink"))]
    return layers


def trained_at(lengths: Sequence[int]) -> "list[alt.Chart]":
    """Vertical lines at training lengths on `tokens_axis`: of one its number, of several one text."""
    ascending = sorted({*lengths})
    text = "training lengths" if len(ascending) > 1 else f"trained at {ascending[0]:,}"
    return vertical({float(n): text if n == ascending[-1] else "" for n in ascending})


def horizontal(value: float, text: str, dash: Sequence[int] = (2, 3), colour: str = INK) -> "list[alt.Chart]":
    """A horizontal line with its text, if any, at the left end."""
    import altair as alt

    base = data([{"at": value, "text": text}])
    rule = base.mark_rule(color=colour, strokeDash=[*dash], strokeWidth=1.2).encode(y="at:Q")
    if not text:
        return [rule]
    words = base.mark_text(color=colour, align="left", baseline="bottom", dx=2, dy=-2, fontSize=10)
    return [rule, words.encode(y="at:Q", x=alt.value(2), text="text:N")]


def shown_number(field: str, title: str, format: str = ".2f") -> "alt.Tooltip":
    """A number in the box beside the pointer."""
    import altair as alt

    return alt.Tooltip(f"{field}:Q", title=title, format=format)


def shown_word(field: str, title: str) -> "alt.Tooltip":
    """A word in the box beside the pointer."""
    import altair as alt

    return alt.Tooltip(f"{field}:N", title=title)


def panel(
    layers: Sequence["alt.Chart"],
    width: int = WIDTH,
    height: int = HEIGHT,
    title: str = "",
    below: Sequence[str] = (),
) -> "alt.LayerChart":
    """Layers over each other; the title is that of a panel among several, with more lines below it."""
    import altair as alt

    chart = alt.LayerChart(layer=[*layers], width=width, height=height)
    if title:
        limit = max(width, 150)  # a longer one would reach into the panel beside it
        chart.title = alt.TitleParams(figure_text(title, 60), limit=limit, subtitle=[*below] or alt.Undefined)
    return chart


def figure(
    panels: Sequence["alt.LayerChart"],
    title: str,
    columns: int = 1,
    *,
    models: Sequence[str] = (),
) -> "alt.ConcatChart":
    """Panels side by side under one title, with one legend: their scales of colours and symbols are shared.

    models: names that the reader can choose from; needed where a layer is `of_shown_models`.
    """
    import altair as alt

    heading = alt.TitleParams(figure_text(title, 70), fontSize=13, offset=8 if len(panels) > 1 else 6)
    chart = alt.concat(*panels, columns=columns, title=heading, spacing=14)
    if models:  # add_params and configure would copy all panels
        chart.params = [alt.VariableParameter(name=SHOWN, value=[*models])]
    chart.config = alt.Config(
        background="transparent",
        font="Liberation Sans, Arial, Helvetica, sans-serif",
        axis=alt.AxisConfig(
            labelColor=INK,
            titleColor=INK,
            titleFontWeight="normal",
            tickColor=INK,
            domainColor=INK,
            gridColor=INK,
            gridOpacity=0.12,
            domainOpacity=0.5,
        ),
        legend=alt.LegendConfig(
            labelColor=INK, titleColor=INK, labelLimit=LABEL_LIMIT, symbolOpacity=1, columnPadding=18
        ),
        title=alt.TitleConfig(color=INK, subtitleColor=INK, anchor="start", fontSize=11.5, subtitleFontSize=11),
        view=alt.ViewConfig(stroke=None),
    )
    return chart


def _legend(title: str | None, names: Sequence[str], as_lines: bool) -> "alt.Legend | None":
    """Below the figure; none where it would have more than LEGEND_ROWS rows."""
    import altair as alt

    columns, rows = _legend_rows(names)
    if rows > LEGEND_ROWS:
        return None
    return alt.Legend(
        title=title,
        orient="bottom",
        columns=columns,
        symbolLimit=0,
        symbolStrokeWidth=2,
        symbolType="stroke" if as_lines else alt.Undefined,
        symbolSize=400 if as_lines else 70,
    )


def _legend_rows(names: Sequence[str]) -> tuple[int, int]:
    """Columns, as many as the longest name leaves room for, and rows of a legend."""
    longest = min(LABEL_LIMIT, 5.2 * max((len(name) for name in names), default=1)) + 28
    columns = max(1, min(4 if len(names) > 12 else 3, floor((WIDTH + 30) / longest)))
    return columns, -(-len(names) // columns)


def _plain(value: Any) -> Any:
    if isinstance(value, str | bool | int | None):
        return value
    number = float(value)
    return float(f"{number:.5g}") if isfinite(number) else None
