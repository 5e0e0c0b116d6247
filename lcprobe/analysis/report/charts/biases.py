"""Biases that attention adds to scores by distance alone: one figure per model, one line per head."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from lcprobe.analysis.findings.results import Results
from lcprobe.analysis.inputs import RunFacts
from lcprobe.analysis.report.charts.axes import number_axis, tokens_axis
from lcprobe.analysis.report.charts.grammar import (
    Row,
    curves,
    figure,
    figure_text,
    file_name,
    panel,
    shown_number,
    shown_word,
    styles_of,
    trained_at,
)
from lcprobe.analysis.report.charts.picture import Picture
from lcprobe.analysis.report.charts.seed_groups import seed_groups

if TYPE_CHECKING:
    import altair as alt

MAX_HEADS = 12


def bias_charts(results: Results) -> "Iterator[tuple[Picture, alt.ConcatChart]]":
    """One figure per model that has any bias: of the first of its training seeds."""
    for group in seed_groups(results):
        first, *others = group.runs
        if first.biases:
            yield _curves(first, f" The first of {len(group.runs)} training seeds." if others else "")


def _curves(run: RunFacts, which: str) -> "tuple[Picture, alt.ConcatChart]":
    names = [f"layer {row['layer']}, head {row['head']}" for row in run.biases]
    heads = list(dict.fromkeys(names))
    shown = heads[:MAX_HEADS]
    rows: list[Row] = [
        {
            "model": run.name,
            "head": name,
            "distance": row["distance"],
            "at": row["distance"] + 1,
            "value": row["bias"],
        }
        for name, row in zip(names, run.biases, strict=True)
        if name in shown
    ]
    trained = run.own_context_length or run.context_length
    places = [1, trained, *(row["at"] for row in rows)]
    x = tokens_axis("at", "distance + 1 (tokens)", places)
    y = number_axis("value", "added to scores", [row["value"] for row in rows])
    tooltip = [
        shown_word("head", "head"),
        shown_number("distance", "distance (tokens)", ",d"),
        shown_number("value", "added", ".3~g"),
    ]
    lines = curves(rows, styles_of(shown), x, y, tooltip, field="head", bands=False, points=False)
    encodings = ", ".join(dict.fromkeys(str(row["encoding"]) for row in run.biases))
    chart = figure([panel([*trained_at([trained]), *lines])], figure_text(f"{run.name}: {encodings}"))
    text = f"Bias added to a score by distance, before the softmax; {len(shown)} of {len(heads)} heads. "
    text += f"Dashed: training length.{which}"
    return Picture(file_name("bias", run.name), "bias", run.name, "", f"Bias by distance, {run.name}", text), chart
