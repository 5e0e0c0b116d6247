"""Reads charts back as readers see them: the rows of each layer, after the specification's own data sets."""

from collections.abc import Iterator
from typing import Any


def layers(chart: Any) -> Iterator[dict[str, Any]]:
    """Every layer of a chart: its mark, encoding and `rows`, and in `panel` the title of its panel."""
    spec = chart.to_dict()
    for panel in spec["concat"]:
        title = panel.get("title", "")
        for layer in panel["layer"]:
            name = (layer.get("data") or panel.get("data") or spec["data"])["name"]
            yield {
                **layer,
                "rows": spec["datasets"][name],
                "panel": title["text"] if isinstance(title, dict) else title,
            }


def rows_of(chart: Any, mark: str, panel: str | None = None) -> list[dict[str, Any]]:
    """The rows of the layers with a mark (`line`, `area`, `point`, `rect`, `rule`, `text`, `bar`), of one panel or
    of all."""
    found = []
    for layer in layers(chart):
        kind = layer["mark"] if isinstance(layer["mark"], str) else layer["mark"]["type"]
        if kind == mark and panel in (None, layer["panel"]):
            found += layer["rows"]
    return found


def panels_of(chart: Any) -> list[str]:
    """Titles of the panels."""
    return list(dict.fromkeys(layer["panel"] for layer in layers(chart)))
