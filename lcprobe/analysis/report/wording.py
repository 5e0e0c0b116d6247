"""How tests read as text: differences, p-values, and what three depth contrasts say together."""

from collections.abc import Iterable
from dataclasses import dataclass

from lcprobe.analysis.findings.cells import Cell, Measured, PanelKey
from lcprobe.analysis.findings.contrasts import Contrast


@dataclass(frozen=True)
class Sentence:
    """One statement. warning: something that limits what the study can say. subject: the words it opens with, if set apart."""

    topic: str
    text: str
    warning: bool = False
    subject: str = ""


def difference_text(contrast: Contrast) -> str:
    """`+0.12 (+0.05 to +0.19, n = 100, p = 0.003 after Holm)`, or the reason for no test."""
    c = contrast
    if c.refused is not None or c.difference is None or c.p_holm is None:
        return c.refused or "not tested"
    bounds = f"{span_text(c.low, c.high)}, n = {c.samples} samples"
    return f"{signed(c.difference)} ({bounds}, {p_text(c.p_holm)} after Holm)"


def signed(value: float | None) -> str:
    """`+0.12` or `−0.12`, with a minus as wide as the plus."""
    return "" if value is None else f"{value:+.2f}".replace("-", "−")


def span_text(low: float | None, high: float | None) -> str:
    """Bounds of a difference."""
    return f"{signed(low)} to {signed(high)}"


def p_text(p: float) -> str:
    """`p < 0.001` or three digits."""
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"


def position_state(parts: Iterable[Contrast]) -> str:
    """What the three contrasts of one length say together; "lost in the middle" needs the middle below both ends."""
    by = {part.kind: part for part in parts}
    whole, start, end = by["lost in the middle"], by["primacy"], by["recency"]
    if whole.refused is not None:
        return whole.refused
    states = (start.verdict, end.verdict)
    if states == ("higher", "higher"):
        return "middle below both ends"
    if "lower" in states:
        ends = {"higher": "above", "lower": "below"}
        words = [f"{name} {ends[v]}" for name, v in (("start", states[0]), ("end", states[1])) if v in ends]
        return f"{' and '.join(words)} the middle"
    if "higher" in states:
        return "recency alone" if states[1] == "higher" else "primacy alone"
    return "ends above the middle on average" if whole.verdict == "higher" else "no depth effect resolved"


def who(data: Measured, where: PanelKey) -> str:
    """Model and task, and the format where the task has several."""
    format = f" ({where.format})" if len(data.formats(where.task)) > 1 else ""
    return f"{where.model}, {where.task}{format}"


AT_THE_ENDS = (
    "At depth 0 the asked needle is the first, at depth 1 the last: printing the first or the last value scores 1 there without "
    "a look at the key, whatever chance is stated."
)


def at_an_end(cell: Cell) -> bool:
    """Whether a cell is one of those that AT_THE_ENDS speaks of: its stated chance is an average over all depths."""
    chance = cell.means["chance"]
    return (
        cell.where.control in ("none", "wrong_key") and cell.depth in (0.0, 1.0) and chance is not None and chance < 1
    )


def listed(items: Iterable[str]) -> str:
    """Joined by commas."""
    return ", ".join(items)


def one_line(text: str) -> str:
    """Printable characters only: names come from configs, and the sentences go to terminals too."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())
