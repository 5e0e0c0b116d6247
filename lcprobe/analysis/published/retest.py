""" "Lost in the middle" tested again on the study's Table 4, which the study states as common to all models.

A triple is a model, length and format with any success: the counts of its three depths are rebuilt from the
percentages, the middle is compared with the start and with the end by the two-proportion z test, and Holm's
correction covers all comparisons of all triples.
"""

from dataclasses import dataclass
from typing import Literal

from lcprobe.analysis.published.tables import SAMPLES, PublishedCell, PublishedFormat, cells
from lcprobe.analysis.stats.intervals import two_proportions_p
from lcprobe.analysis.stats.multiplicity import ALPHA, holm

START, MIDDLE, END = 0, 50, 100
"""Depths of Table 4 in per cent."""
Pattern = Literal["below both ends", "below the end", "below the start", "below neither"]
PATTERNS: tuple[Pattern, ...] = ("below both ends", "below the end", "below the start", "below neither")
"""Where the middle is significantly below: both ends (lost in the middle), the end alone (recency), the start alone
(primacy)."""


@dataclass(frozen=True)
class Triple:
    """counts: successes of SAMPLES at start, middle and end. p_start, p_end: of the middle against each, after Holm's
    correction over all comparisons."""

    model: str
    length: int
    format: PublishedFormat
    counts: tuple[int, int, int]
    p_start: float
    p_end: float

    @property
    def pattern(self) -> Pattern:
        """Which ends the middle is significantly below."""
        start, middle, end = self.counts
        below_start, below_end = self.p_start < ALPHA and middle < start, self.p_end < ALPHA and middle < end
        if below_start and below_end:
            return "below both ends"
        return "below the end" if below_end else "below the start" if below_start else "below neither"


def retest() -> list[Triple]:
    """All triples of Table 4 that have a success at any depth, in the order of the table."""
    rows: dict[tuple[str, int, PublishedFormat], dict[int, int]] = {}
    for cell in cells():
        if cell.table == "4" and cell.depth is not None:
            rows.setdefault((cell.model, cell.length, cell.formats[0]), {})[cell.depth] = count(cell)
    triples = [(key, (row[START], row[MIDDLE], row[END])) for key, row in rows.items() if any(row.values())]
    pairs = [(middle, other) for _, (start, middle, end) in triples for other in (start, end)]
    corrected = holm([two_proportions_p(middle, SAMPLES, other, SAMPLES) for middle, other in pairs])
    return [
        Triple(*key, counts, p_start, p_end)
        for (key, counts), p_start, p_end in zip(triples, corrected[::2], corrected[1::2], strict=True)
    ]


def count(cell: PublishedCell) -> int:
    """Successes that a readable cell of one set of samples was computed from."""
    assert cell.percent is not None
    return round(cell.percent / 100 * SAMPLES * cell.references)
