"""Every figure of a report as altair charts, for the report's files and for notebooks.

`all_figures(results)` gives them by file name; `draw(results)` gives them one at a time with their captions, so that
a report of hundreds of figures never has more than one in memory.
"""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from lcprobe.analysis.findings.results import Results
from lcprobe.analysis.findings.tokenizers import length_note, own_tokens_note
from lcprobe.analysis.report.charts.biases import bias_charts
from lcprobe.analysis.report.charts.by_length import accuracy_by_length, accuracy_by_multiple
from lcprobe.analysis.report.charts.depth.effects import depth_effect_charts
from lcprobe.analysis.report.charts.depth.heatmap import length_by_depth
from lcprobe.analysis.report.charts.depth.profiles import depth_profiles
from lcprobe.analysis.report.charts.distance import accuracy_by_distance
from lcprobe.analysis.report.charts.effective_length import effective_length_charts
from lcprobe.analysis.report.charts.formats import format_matrix
from lcprobe.analysis.report.charts.picture import Chart, Picture
from lcprobe.analysis.report.charts.plain_text import text_charts
from lcprobe.analysis.report.charts.skill import skill_bars
from lcprobe.analysis.report.charts.training import training_curves
from lcprobe.analysis.report.charts.training_data import training_data_charts

if TYPE_CHECKING:
    import altair as alt

CHARTS: dict[str, Chart] = {
    "skill": skill_bars,
    "length": accuracy_by_length,
    "effective_length": effective_length_charts,
    "multiple": accuracy_by_multiple,
    "heatmap": length_by_depth,
    "depth": depth_profiles,
    "depth_by_length": depth_effect_charts,
    "distance": accuracy_by_distance,
    "formats": format_matrix,
    "training": training_curves,
    "training_data": training_data_charts,
    "context": text_charts,
    "bias": bias_charts,
}
"""Charts by name; a new one is a function in `charts` and one line here."""

IN_OWN_TOKENS = ("distance", "context", "bias")
"""Charts of tokens that a model itself reads, whatever a length counts."""


def all_figures(results: Results, charts: Iterable[str] = tuple(CHARTS)) -> "dict[str, alt.TopLevelMixin]":
    """Figures of some charts, or of all, by the name of their file (without its suffix).

    results: `findings.results.analyse(study, records, context)`. charts: keys of CHARTS; `("context",)` has the
    curves of plain text and `("bias",)` those of attention biases. Charts without data draw nothing. Raises KeyError
    for an unknown chart. Show them in a notebook, change them, or save them with `chart.save(path)`.
    """
    return {picture.name: figure for picture, figure in draw(results, charts)}


def draw(results: Results, charts: Iterable[str] = tuple(CHARTS)) -> "Iterator[tuple[Picture, alt.TopLevelMixin]]":
    """The same figures one at a time, each with its name and caption, chart by chart."""
    for name in charts:
        note = own_tokens_note(results.study) if name in IN_OWN_TOKENS else length_note(results.study)
        note = "" if name == "training" else note
        for picture, figure in _unchecked(CHARTS[name](results)):
            yield replace(picture, caption=f"{picture.caption} {note}".strip()), figure


def _unchecked(
    drawn: "Iterator[tuple[Picture, alt.TopLevelMixin]]",
) -> "Iterator[tuple[Picture, alt.TopLevelMixin]]":
    """The same without altair's check of every part as it is made, which is most of the time. A test checks the whole
    charts."""
    from altair.utils.schemapi import debug_mode

    while True:
        with debug_mode(False):
            pair = next(drawn, None)
        if pair is None:
            return
        yield pair
