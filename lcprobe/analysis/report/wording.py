"""Phrases of the report: differences, p-values, and the joint reading of three contrasts of position."""

from collections.abc import Iterable
from dataclasses import dataclass, replace

from lcprobe.analysis.findings.cells import Cell, Measured, PanelKey
from lcprobe.analysis.findings.contrasts import Contrast
from lcprobe.words import counted

READ_FIRST = "Read this first"
"""Topic of what limits a study, before any finding."""
ACQUIRED, LENGTH = "Is the task acquired?", "Past the training length"
POSITION, DISTANCE = "Position in the context", "Distance"
PLAIN_TEXT, FORMATS = "Plain text", "Formats"
MODELS, EXTENSIONS = "Model comparisons", "Extensions"


@dataclass(frozen=True)
class Sentence:
    """One statement. warning: whether it limits the study. subject: its first words, if they are set in bold.

    task: the one that it is about, empty for the study. kind: of a warning, the few words that stand for all of its
    kind, such as `Learning rate not tuned`; about: what it applies to, counted as `unit`s where there is a unit.
    """

    topic: str
    text: str
    warning: bool = False
    subject: str = ""
    task: str = ""
    kind: str = ""
    about: tuple[str, ...] = ()
    unit: str = ""


def difference_text(contrast: Contrast) -> str:
    """`+0.12 (+0.05 to +0.19, n = 100, p = 0.003 in the report)`, or the reason for no test."""
    c = contrast
    if c.refused is not None or c.difference is None or c.p_report is None:
        return c.refused or "not tested"
    bounds = f"{span_text(c.low, c.high)}, n = {c.samples} samples"
    return f"{signed(c.difference)} ({bounds}, {p_text(c.p_report)} in the report)"


def signed(value: float | None) -> str:
    """`+0.12` or `−0.12`, with a minus as wide as the plus."""
    return "" if value is None else f"{value:+.2f}".replace("-", "−")


def span_text(low: float | None, high: float | None) -> str:
    """Bounds of a difference: `+0.05 to +0.19`."""
    return f"{signed(low)} to {signed(high)}"


def p_text(p: float) -> str:
    """`p < 0.001`, or p with three digits."""
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"


def found_text(found: int, tested: int) -> str:
    """`286 of 756 tested statements are findings`."""
    if not tested:
        return "nothing is tested"
    if tested == 1:
        return f"the one tested statement is {'a' if found else 'no'} finding"
    verb = "is a finding" if found == 1 else "are findings"
    if not found:
        return f"none of {counted(tested, 'tested statement')} is a finding"
    return f"{found:,} of {counted(tested, 'tested statement')} {verb}"


def position_state(contrasts: Iterable[Contrast]) -> str:
    """Joint reading of the three contrasts of one length; "lost in the middle" needs the middle below both ends."""
    by_kind = {contrast.kind: contrast for contrast in contrasts}
    ends, start, end = by_kind["lost in the middle"], by_kind["primacy"], by_kind["recency"]
    if start.refused is not None:
        return start.refused
    directions = start.direction, end.direction
    if directions == ("higher", "higher"):
        return "lost in the middle" if ends.direction == "higher" else f"both ends above the middle, {ends.refused}"
    if "lower" in directions:
        relations = {"higher": "above", "lower": "below", "": ""}
        sides = zip(("start", "end"), directions, strict=True)
        parts = [f"{side} {relations[direction]}" for side, direction in sides if direction]
        return f"{' and '.join(parts)} the middle"
    if "higher" in directions:
        return "primacy alone" if start.direction else "recency alone"
    return "no depth effect resolved"


def panel_subject(data: Measured, where: PanelKey) -> str:
    """Model and task, and the format where the task has several."""
    format = f" ({where.format})" if len(data.formats(where.task)) > 1 else ""
    return f"{where.model}, {where.task}{format}"


AT_THE_ENDS = (
    "In the first stratum of depth the target needle is often the first, in the last the last: printing the first or "
    "the last value scores more there than the stated chance, which is a mean over all strata."
)


def at_an_end(cell: Cell) -> bool:
    """Whether AT_THE_ENDS applies to a cell."""
    chance, last = cell.means["chance"], cell.strata - 1
    ends = last > 0 and stratum_of(cell.depth, cell.strata) in (0, last)
    return cell.where.control in ("none", "wrong_key") and ends and chance is not None and chance < 1


def stratum_of(depth: float, strata: int) -> int:
    """The number of a stratum, from 0, of which `depth` is the centre."""
    return min(int(depth * strata), strata - 1)


def stratum_text(depth: float, strata: int) -> str:
    """`0-20 %` for the first of five strata."""
    k = stratum_of(depth, strata)
    return f"{100 * k / strata:.0f}-{100 * (k + 1) / strata:.0f} %"


def listed(items: Iterable[str]) -> str:
    """Items joined by commas."""
    return ", ".join(items)


def one_line(text: str) -> str:
    """Printable characters only: names come from configs, and the sentences are also printed to terminals."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def printable(sentence: Sentence) -> Sentence:
    """A sentence of printable characters only."""
    s, about = sentence, tuple(map(one_line, sentence.about))
    return replace(s, text=one_line(s.text), subject=one_line(s.subject), kind=one_line(s.kind), about=about)
