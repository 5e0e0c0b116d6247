"""What every chart yields besides its figure: a file name, a caption, and the task and format that it shows."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from lcprobe.analysis.findings.results import Results
from lcprobe.analysis.report.charts.grammar import Row
from lcprobe.analysis.stats.estimates import Estimate, Proportion
from lcprobe.tasks.episode import Formats

if TYPE_CHECKING:
    import altair as alt

Chart: TypeAlias = "Callable[[Results], Iterator[tuple[Picture, alt.TopLevelMixin]]]"
MAX_FORMATS = 6
"""Formats per task that have figures of their own; all of them are in the format matrix and in the tables."""


@dataclass(frozen=True)
class Picture:
    """Description of one figure. task and format are empty where a figure shows the whole study."""

    name: str
    """Unique; the file name without its suffix."""
    chart: str
    """Key of `report.figures.CHARTS`."""
    task: str
    format: str
    title: str
    caption: str
    folded: str = ""
    """Why the page folds it, in a few words; empty: it is open."""


def drawn_formats(results: Results) -> Iterator[tuple[str, Formats]]:
    """(task, format) of every figure that shows one format, in the order of the plan."""
    for task in results.data.tasks:
        for format in results.data.formats(task.name)[:MAX_FORMATS]:
            yield task.name, format


def counts_text(counts: Sequence[int], unit: str = "point") -> str:
    """`n = 100 answers per point.`, or a range."""
    if not counts:
        return "No complete data."
    low, high = min(counts), max(counts)
    return f"n = {low} answers per {unit}." if low == high else f"n = {low} to {high} answers per {unit}."


def interval_row(estimate: Estimate | Proportion) -> Row:
    """Fields of a point with its interval: `value`, `low`, `high`, and as words `interval` and `count`."""
    count = f"{estimate.k}/{estimate.n}" if isinstance(estimate, Proportion) else f"n = {estimate.n}"
    interval = f"{estimate.low:.2f}–{estimate.high:.2f}"
    return {"value": estimate.value, "low": estimate.low, "high": estimate.high, "interval": interval, "count": count}
