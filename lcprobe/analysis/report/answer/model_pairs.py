"""Resolved differences between models, on one task in its first format, or over all of its formats together.

The tests of the report are over all formats of a zone (`findings.contrasts`). Where there are several, what is said
of the first one, which tables and pictures show, comes from the tests behind these: at its single lengths.
"""

from collections.abc import Sequence
from itertools import combinations
from typing import NamedTuple

from lcprobe.analysis.findings.contrasts import Contrast
from lcprobe.analysis.findings.results import Results
from lcprobe.analysis.report.answer.headline import first_format
from lcprobe.analysis.report.wording import listed, signed, span_text
from lcprobe.words import span


class Difference(NamedTuple):
    """A resolved difference, the higher side first. at: its length, 0 for all of the zone."""

    higher: str
    lower: str
    contrast: Contrast
    at: int = 0

    @property
    def text(self) -> str:
        """`+0.42 (+0.35 to +0.49)`, and ` at 512 tokens` where it is of one length."""
        c, sign = self.contrast, 1 if self.contrast.direction == "higher" else -1
        bounds = sorted((sign * (c.low or 0.0), sign * (c.high or 0.0)))
        return f"{signed(sign * (c.difference or 0.0))} ({span_text(*bounds)}){self.place}"

    @property
    def place(self) -> str:
        return f" at {self.at:,} tokens" if self.at else ""


class Differences(NamedTuple):
    """Pairs of models in one zone. over: its lengths and formats, empty where those of pairs differ. found: what is
    resolved, the largest first. tested: how many pairs were. refused: why others were not. models: how
    many they are."""

    over: str
    found: list[Difference]
    tested: int
    refused: tuple[str, ...]
    models: int

    @property
    def nothing(self) -> str:
        """What there is to say where nothing is resolved."""
        if self.tested:
            return "no difference resolved"
        reasons = listed(self.refused)
        if len(self.refused) == 1 and self.models > 2:  # every pair is at the same limit
            reasons = reasons.replace("(both at ", f"(all {self.models} at ")
        return reasons or "not tested"

    @property
    def unresolved(self) -> int:
        """Number of tested pairs of which nothing is resolved."""
        return self.tested - len({frozenset((d.higher, d.lower)) for d in self.found})


def model_differences(results: Results, task: str) -> dict[str, Differences]:
    """Differences between models on a task in its first format by zone: up to the training length, and past it."""
    return _by_zone(results, task, str(first_format(results, task)))


def of_all_formats(results: Results, task: str) -> dict[str, Differences]:
    """The same over all formats of a zone together, where it has several."""
    return _by_zone(results, task, "")


def _by_zone(results: Results, task: str, format: str) -> dict[str, Differences]:
    """format: the one that it is about; empty: those that are tested together."""
    names = {f"{a} − {b}": (a, b) for a, b in combinations([run.group for run in results.study.runs], 2) if a != b}
    behind: dict[str, list[Contrast]] = {}
    for c in results.of("model"):
        if c.format == format:
            behind.setdefault(c.family, []).append(c)
    several = {c.name for c in results.of("models") if c.format != str(first_format(results, task))}
    zones: dict[str, list[tuple[str, list[Contrast]]]] = {}
    for c in results.of("models"):
        if c.task != task or c.subject not in names or c.zone is None:
            continue
        zone, lengths = c.zone, f"{span(c.lengths)} tokens"
        if not format and c.name in several:
            zones.setdefault(zone, []).append((f"{lengths}, {c.format} together", [c]))
        elif format and c.name not in several:
            zones.setdefault(zone, []).append((f"{lengths}, {c.format}", [c]))
        elif format and (own := behind.get(c.name, [])):
            zones.setdefault(zone, []).append((f"{span(m.length for m in own)} tokens, {format}", own))
    return {zone: _differences(pairs, names) for zone, pairs in zones.items()}


def _differences(pairs: Sequence[tuple[str, list[Contrast]]], names: dict[str, tuple[str, str]]) -> Differences:
    """pairs: of each pair of models its lengths and formats, and its tests: one, or one per length."""
    spans, found, tested = {over for over, _ in pairs}, [], 0
    for _, own in pairs:
        tested += any(c.refused is None for c in own)
        resolved = sorted((c for c in own if c.resolved), key=lambda c: -abs(c.difference or 0.0))
        by_side = {c.direction: c for c in reversed(resolved)}  # the largest of either side
        for c in by_side.values():
            a, b = names[c.subject]
            higher, lower = (a, b) if c.direction == "higher" else (b, a)
            found.append(Difference(higher, lower, c, 0 if c.kind == "models" else c.length))
    found.sort(key=lambda d: -abs(d.contrast.difference or 0.0))
    refused = tuple(dict.fromkeys(c.refused for _, own in pairs for c in own if c.refused is not None))
    models = {name for _, own in pairs for c in own for name in names[c.subject]}
    return Differences(spans.pop() if len(spans) == 1 else "", found, tested, refused, len(models))
