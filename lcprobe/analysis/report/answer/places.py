"""Where in the context a model loses the needle, in words: the places that are lost and kept, with their scores."""

from typing import NamedTuple

from lcprobe.analysis.findings.cells import PanelKey
from lcprobe.analysis.findings.contrasts import Contrast
from lcprobe.analysis.findings.results import Results
from lcprobe.analysis.report.answer.headline import first_format, runs_of, values_text
from lcprobe.analysis.report.charts.seed_groups import SeedGroup
from lcprobe.analysis.report.wording import listed, position_state
from lcprobe.analysis.stats.estimates import Proportion

LOST: dict[str, tuple[str, ...]] = {
    "lost in the middle": ("middle",),
    "primacy alone": ("middle", "end"),
    "recency alone": ("start", "middle"),
}
"""Effects of depth, and where the needle is lost."""
PLACES = ("start", "middle", "end")
WORDS = {"start": "at the start", "middle": "in the middle", "end": "at the end"}


class _Effect(NamedTuple):
    """A resolved effect of depth of one run: accuracy by place. level: what the effective length requires."""

    scores: dict[str, float]
    level: float | None


def depth_text(results: Results, group: SeedGroup, task: str) -> str:
    """Such as `lost in the middle (0.41), kept at the start (0.97) and at the end (0.98) at 512 tokens (2 of 3
    seeds), and so at 256 tokens`, of each effect at its longest length; empty where none is resolved."""
    parts = []
    for state, by_length in _effects(results, group, task).items():
        longest, n = max(by_length), len(group.runs)
        seeds = f" ({len(by_length[longest])} of {n} seeds)" if len(by_length[longest]) < n else ""
        shorter = listed(f"{length:,}" for length in sorted(by_length) if length < longest)
        also = f", and so at {shorter} tokens" if shorter else ""
        parts.append(f"{_scores_text(state, by_length[longest])} at {longest:,} tokens{seeds}{also}")
    return "; ".join(parts)


def position_tests(results: Results, where: PanelKey) -> list[Contrast]:
    """The contrasts of place of one panel."""
    place = where.model, where.task, str(where.format)
    tests = results.of("lost in the middle", "primacy", "recency")
    return [c for c in tests if (c.subject, c.task, c.format) == place]


def _effects(results: Results, group: SeedGroup, task: str) -> dict[str, dict[int, list[_Effect]]]:
    """By effect and length, of those runs of a model in which it is resolved."""
    found: dict[str, dict[int, list[_Effect]]] = {}
    format = first_format(results, task)
    level_of = {e.where: e.level for e in results.extrapolations}
    for where in runs_of(group, task, format):
        own = position_tests(results, where)
        for length in results.data.lengths(task, format):
            parts = [c for c in own if c.length == length]
            state = position_state(parts) if len(parts) == 3 else ""
            if state in LOST:
                effect = _Effect(_scores(parts), level_of[where])
                found.setdefault(state, {}).setdefault(length, []).append(effect)
    return found


def _scores(parts: list[Contrast]) -> dict[str, float]:
    by_kind = {c.kind: c for c in parts}
    start, end = by_kind["primacy"], by_kind["recency"]
    known = {"start": start.first, "middle": start.second, "end": end.first}
    return {place: part.value for place, part in known.items() if isinstance(part, Proportion)}


def _scores_text(state: str, effects: list[_Effect]) -> str:
    """`lost at the start and in the middle (0.56–0.68), kept at the end (0.85)`: kept is what an effective length
    requires; else the ends are only better."""
    lost, rest = LOST[state], [place for place in PLACES if place not in LOST[state]]
    below = [effect.scores[place] for effect in effects for place in lost]
    kept = all(e.level is not None and e.scores[place] >= e.level for e in effects for place in rest)
    above = [f"{WORDS[place]} ({values_text([e.scores[place] for e in effects])})" for place in rest]
    where = " and ".join(WORDS[place] for place in lost)
    return f"lost {where} ({values_text(below)}), {'kept' if kept else 'better'} {' and '.join(above)}"
