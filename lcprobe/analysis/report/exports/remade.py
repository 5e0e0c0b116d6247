"""One figure of a report again, with other sizes and another title; the panels and rows are those of the chart."""

from collections.abc import Iterator
from typing import Any

from lcprobe.analysis.findings.results import Results
from lcprobe.analysis.report.charts.picture import Picture
from lcprobe.analysis.report.exports.choices import FigureChoices
from lcprobe.analysis.report.exports.selection import selected
from lcprobe.analysis.report.figures import CHARTS, draw
from lcprobe.errors import ConfigError, nearest_name


def figure_list(results: Results, choices: FigureChoices) -> dict[str, list[Picture]]:
    """Every figure of a selection, by its chart."""
    found: dict[str, list[Picture]] = {}
    for picture, _ in draw(selected(results, choices.selection)):
        found.setdefault(picture.chart, []).append(picture)
    return found


def remade(results: Results, name: str, choices: FigureChoices) -> Iterator[tuple[Picture, dict[str, Any]]]:
    """The figures of a chart, or the one of this name, of a selection of the results, as Vega-Lite.

    Raises ConfigError for an unknown name, and for a selection of which the chart draws nothing.
    """
    kept = selected(results, choices.selection)
    if name in CHARTS:
        made = list(draw(kept, [name]))
        if not made:
            raise ConfigError("figure", name, "one of which there are figures here (without a name they are listed)")
    else:
        charts = [key for key in CHARTS if name.startswith(f"{key}_")]
        drawn = list(draw(kept, charts))
        made = [one for one in drawn if one[0].name == name]
        if not made:
            allowed = f"{' | '.join(CHARTS)}, or the name of a figure (without any name they are listed)"
            known = [*CHARTS, *(picture.name for picture, _ in drawn)]
            raise ConfigError("figure", name, allowed, nearest_name(name, known))
    for picture, figure in made:
        yield picture, resized(figure.to_dict(validate=False), choices)


def resized(spec: dict[str, Any], choices: FigureChoices) -> dict[str, Any]:
    """A figure with the sizes and the title that are chosen; sizes that follow the number of rows stay."""
    for view in _views(spec):
        for side, wanted in (("width", choices.width), ("height", choices.height)):
            if wanted is not None and isinstance(view.get(side), int | float):
                view[side] = wanted
    if choices.title is not None:
        title = spec.pop("title", {})
        style = title if isinstance(title, dict) else {}
        if choices.title:
            spec["title"] = {**style, "text": choices.title}
    return spec


def _views(spec: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Every view that has a size, from the outside in."""
    yield spec
    for key in ("concat", "hconcat", "vconcat", "layer"):
        for part in spec.get(key, ()):
            yield from _views(part)
    if isinstance(spec.get("spec"), dict):
        yield from _views(spec["spec"])
