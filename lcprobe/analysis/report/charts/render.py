"""A chart as files and for the page: SVG, PDF and PNG through vl-convert, without a browser or a network."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lcprobe.analysis.report.charts.grammar import INK
from lcprobe.errors import ConfigError
from lcprobe.files import write_atomic

if TYPE_CHECKING:
    import altair as alt

SUFFIXES = (".svg", ".pdf", ".png", ".json")
SCALE = 2.0
"""Pixels of a PNG per CSS pixel."""
IDS = re.compile(r'(?<=\bid=")[^"]+|(?<=url\(#)[^)]+|(?<=href="#)[^"]+')
"""Names of elements of an SVG, and references to them."""
NOT_ON_PAGE = re.compile(r' (?:aria-[a-z]+|role|class)="[^"]*"| pointer-events="none"| (?:stroke-)?opacity="1"')
"""Attributes that a figure on the page does without: the page has one label for the whole figure."""
DECIMALS = re.compile(r"(\d+\.\d{2})\d+")
"""Numbers with more digits than a picture shows."""
FAMILY = re.compile(r' font-family="([^"]*)"')


@dataclass(frozen=True)
class Rendered:
    """One chart. spec: its Vega-Lite specification as JSON. svg: the same as a picture, for light paper."""

    spec: str
    svg: str

    def for_page(self, prefix: str) -> "Rendered":
        """The chart with the page's own text colour, and with ids that are those of no other chart; safe inside
        <script type="application/json">."""
        svg = IDS.sub(lambda name: f"{prefix}-{name[0]}", _in_text_colour(_short(self.svg)))
        return Rendered(_in_text_colour(self.spec).replace("<", "\\u003c"), svg)


def render(chart: "alt.TopLevelMixin") -> Rendered:
    """Draw a chart once. A test validates the charts of the report, which takes as long as to draw them."""
    return render_spec(chart.to_dict(validate=False))


def render_spec(specification: Mapping[str, Any]) -> Rendered:
    """Draw a Vega-Lite specification."""
    import vl_convert

    spec = json.dumps(specification, ensure_ascii=False, separators=(",", ":"))
    return Rendered(spec, _renumbered(vl_convert.vegalite_to_svg(spec)))


def save(rendered: Rendered, path: Path) -> None:
    """Write a chart atomically in the format of the path's suffix. Raises ConfigError for one not in SUFFIXES."""
    import vl_convert

    match path.suffix.lower():
        case ".svg":
            content: str | bytes = rendered.svg
        case ".pdf":
            content = vl_convert.svg_to_pdf(rendered.svg)
        case ".png":
            content = vl_convert.svg_to_png(_on_white(rendered.svg), scale=SCALE)
        case ".json":
            content = rendered.spec
        case other:
            raise ConfigError("figure", other or path.name, " | ".join(SUFFIXES))
    write_atomic(path, content)


def script_bundle() -> str:
    """Vega, Vega-Lite and vega-embed as one script, with the expression interpreter: no `eval` is needed."""
    import vl_convert

    return vl_convert.javascript_bundle()  # type: ignore[call-arg]  # its default is not in its types


def _in_text_colour(text: str) -> str:
    return text.replace(INK, "currentColor")


def _short(svg: str) -> str:
    """The same picture with about half of the bytes: what its elements have in common once, no digits that cannot be
    seen, and nothing that scripts alone use."""
    families = dict.fromkeys(FAMILY.findall(svg))
    if len(families) == 1:
        svg = FAMILY.sub("", svg).replace("<svg ", f'<svg font-family="{next(iter(families))}" ', 1)
    text = re.compile(r"(<[^>]*>)|([^<]+)")  # words of data stay as they are
    return text.sub(lambda part: DECIMALS.sub(r"\1", NOT_ON_PAGE.sub("", part[1])) if part[1] else part[2], svg)


def _renumbered(svg: str) -> str:
    """vl-convert counts ids on from chart to chart: those of each are counted from 0, so that they are the same."""
    names = {name: f"d{i}" for i, name in enumerate(dict.fromkeys(IDS.findall(svg)))}
    return IDS.sub(lambda name: names[name[0]], svg)


def _on_white(svg: str) -> str:
    """A picture alone is read on unknown backgrounds."""
    return re.sub(r"(<svg[^>]*>)", r'\1<rect width="100%" height="100%" fill="white"/>', svg, count=1)
