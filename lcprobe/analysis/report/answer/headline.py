"""The headline of a report: one table per main task, a row per model with its training seeds together.

A score is exact match over all depths at one length, in the first format of the task. Its interval is over samples,
of these seeds; how far seeds differ is seen in `by_seed`. Effective length and reach are findings about single runs,
and are never pooled: with several seeds a row has the span of what was found, and in how many seeds.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from lcprobe.analysis.findings.cells import PanelKey, Slice, Unavailable
from lcprobe.analysis.findings.extrapolation import Extrapolation
from lcprobe.analysis.findings.gates import Gate
from lcprobe.analysis.findings.reach import Reach
from lcprobe.analysis.findings.results import Results
from lcprobe.analysis.report.charts.by_length import chance_of
from lcprobe.analysis.report.charts.seed_groups import SeedGroup, architectures, group_mean
from lcprobe.analysis.report.wording import p_text
from lcprobe.analysis.stats.estimates import Proportion
from lcprobe.tasks.episode import Formats

MAIN_TASKS = 3
"""Tasks whose tables are shown first; the others follow behind a fold."""
NOT_RESOLVED = "not resolved"


@dataclass(frozen=True)
class Score:
    """Exact match of a model at one length. estimate: None where the length was not planned; by_seed: of each seed
    that is complete; trained: whether this is the row's training length; past: whether it is longer."""

    length: int
    estimate: Proportion | Unavailable | None
    by_seed: tuple[float, ...]
    trained: bool
    past: bool


@dataclass(frozen=True)
class HeadlineRow:
    """One model. effective, reach: in tokens, such as `≥ 512`, `128 to 256 (2 of 3 seeds)`, or why there is none;
    multiple: effective length over training length, `≥ 4×`, empty where seeds differ or there is none; stopped: what
    ended it, `256 undecided: 0.95`; longest: the largest effective length of a seed, 0 where there is none; repeats:
    runs that are left out, as their seed is there already."""

    model: str
    seeds: int
    context_length: int
    scores: tuple[Score, ...]
    effective: str
    multiple: str
    stopped: str
    reach: str
    longest: int
    repeats: int = 0


@dataclass(frozen=True)
class HeadlineTable:
    """Models by lengths on one task, in its first format. n: trials of every score, None where they differ.
    context_length: of all rows, None where they differ. n_formats: how many formats the task has."""

    task: str
    format: str
    lengths: tuple[int, ...]
    rows: tuple[HeadlineRow, ...]
    chance: float | None
    n: int | None
    context_length: int | None
    n_formats: int


def headline_tables(results: Results) -> list[HeadlineTable]:
    """One table per task, those that matter first (`ranked_tasks`)."""
    return [_table(results, task) for task in ranked_tasks(results)]


def ranked_tasks(results: Results) -> list[str]:
    """Tasks by what they prove and how much there is to say: a model looks up by key, as copying the only value needs
    no use of the context's structure; then models are resolved to differ, a model acquired them, then the plan."""

    def rank(task: str) -> tuple[bool, bool, bool]:
        own = [
            gate
            for gate in results.gates
            if (gate.where.task, gate.where.format) == (task, first_format(results, task))
        ]
        looked_up = any(gate.rivals and gate.lookup in ("acquired", "partly") and not gate.copies for gate in own)
        differ = any(c.resolved for c in results.of("models", "training length", "extension") if c.task == task)
        acquired = any(gate.closed is None for gate in results.gates if gate.where.task == task)
        return not looked_up, not differ, not acquired

    return sorted((task.name for task in results.data.tasks if results.data.formats(task.name)), key=rank)


def groups_of(results: Results) -> list[SeedGroup]:
    """Models as rows: runs that differ in their seed alone, in the order of the study."""
    return [group for groups in architectures(results).values() for group in groups]


def first_format(results: Results, task: str) -> Formats:
    """The format that tables and sentences about a task are about: the first one planned."""
    return results.data.formats(task)[0]


def runs_of(group: SeedGroup, task: str, format: Formats) -> list[PanelKey]:
    """The panels of a group."""
    return [PanelKey(run.name, task, format) for run in group.runs]


def _table(results: Results, task: str) -> HeadlineTable:
    format = first_format(results, task)
    lengths = tuple(results.data.lengths(task, format))
    reaches = {r.where: r for r in results.reaches}
    rows = []
    for group in groups_of(results):
        keys = runs_of(group, task, format)
        effective, multiple, stopped, longest = effective_length(results, keys)
        scores = tuple(_score(results, group, task, format, length) for length in lengths)
        reach = reach_text([reaches[key] for key in keys])
        rows.append(
            HeadlineRow(
                group.name,
                len(keys),
                group.context_length,
                scores,
                effective,
                multiple,
                stopped,
                reach,
                longest,
                group.repeats,
            )
        )
    counts = {s.estimate.n for row in rows for s in row.scores if isinstance(s.estimate, Proportion)}
    trained = {row.context_length for row in rows}
    return HeadlineTable(
        task,
        str(format),
        lengths,
        tuple(rows),
        chance_of(results, task, format),
        counts.pop() if len(counts) == 1 else None,
        trained.pop() if len(trained) == 1 else None,
        len(results.data.formats(task)),
    )


def _score(results: Results, group: SeedGroup, task: str, format: Formats, length: int) -> Score:
    parts = [results.data.slice(key, length) for key in runs_of(group, task, format)]
    by_seed = tuple(part.value for part in parts if isinstance(part, Slice))
    own = group.context_length
    return Score(length, group_mean(results, group, task, format, length), by_seed, length == own, length > own)


class EffectiveText(NamedTuple):
    """Effective length of the seeds of a model, its multiple of the training length, what ended it, and its largest
    value, 0 where there is none: then the reason is in its place."""

    tokens: str
    multiple: str
    stopped: str
    longest: int

    @property
    def note(self) -> str:
        """`≥ 2× the training length; 512 undecided: 0.72`, empty where there is neither."""
        times = f"{self.multiple} the training length" if self.multiple else ""
        return "; ".join(filter(None, (times, self.stopped)))


def effective_length(results: Results, keys: Sequence[PanelKey]) -> EffectiveText:
    """What there is to say of the effective lengths of the seeds of a model."""
    found = [e for e in results.extrapolations if e.where in keys]
    closed = {gate.where: closed_text(gate) for gate in results.gates if gate.where in keys}
    known = [(e, e.effective) for e in found if e.effective is not None]
    if not known:
        return EffectiveText("; ".join(dict.fromkeys(closed[e.where] or _reason(e) for e in found)), "", "", 0)
    low, high = min(known, key=lambda x: x[1]), max(known, key=lambda x: x[1])
    seeds = f" ({len(known)} of {len(found)} seeds)" if len(known) < len(found) else ""
    if low[1] == high[1]:
        least = "≥ " if any(e.at_least for e, _ in known) else ""
        stopped = _stopped([e for e, _ in known])
        return EffectiveText(f"{least}{low[1]:,}{seeds}", f"{least}{low[0].multiple:g}×", stopped, low[1])
    ends = [f"{'≥ ' if e.at_least else ''}{tokens:,}" for e, tokens in (low, high)]
    return EffectiveText(f"{' to '.join(ends)}{seeds}", "", "", high[1])


def _stopped(known: Sequence[Extrapolation]) -> str:
    """`256 undecided: 0.95`, or `512 shown to fall: 0.30`: the first length that does not count, with its accuracy,
    of several seeds from the least to the largest; of one run also p, where it is below 1. Empty where the longest
    tested counts."""
    following = [
        [(n, part) for n, part, _ in e.by_length if e.effective is not None and n > e.effective][:1] for e in known
    ]
    lengths = {n for own in following for n, _ in own}
    values = sorted(part.value for own in following for _, part in own if isinstance(part, Proportion))
    if len(lengths) != 1:
        return ""
    verdict = "undecided" if any(e.at_least for e in known) else "shown to fall"
    score = f": {values_text(values)}" if values else ""
    (length,) = lengths
    p = [claim.p_report for e in known for step, claim in zip(e.steps, e.parts, strict=True) if step == length]
    tested = f", {p_text(p[0])}" if len(known) == len(p) == 1 and p[0] is not None and p[0] < 1 else ""
    return f"{length:,} {verdict}{score}{tested}"


def values_text(values: Sequence[float]) -> str:
    """`0.95`, or `0.56–0.68` of several."""
    ends = list(dict.fromkeys(f"{value:.2f}" for value in (min(values), max(values))))
    return "–".join(ends)


def closed_text(gate: Gate) -> str:
    """Why nothing can be claimed about a model's context, empty where something can: what is not a finding was not
    shown, and may yet be so."""
    return (gate.closed or "").replace("not acquired", "not shown to be acquired")


def reach_text(found: Sequence[Reach]) -> str:
    """Effective reach of the seeds of a model in tokens: `323 (293–346)`; `≥ 816`, its lower bound, where it is
    beyond the longest distance tested; `not resolved` where accuracy may fall, but that it does is no finding; `n/a`
    where distance is not what limits it or was not tested."""
    falls = [r.tokens for r in found if r.is_found and r.tokens is not None]
    if falls:
        low, high = min(falls), max(falls)
        span = f"{low:,.0f}" if round(low) == round(high) else f"{low:,.0f} to {high:,.0f}"
        only = found[0]
        if len(found) == 1 and only.low is not None and only.high is not None:
            span += f" ({only.low:,.0f}–{only.high:,.0f})"
        return span if len(falls) == len(found) else f"{span} ({len(falls)} of {len(found)} seeds)"
    if any(r.refused is not None for r in found):
        return "n/a"
    beyond = [r.longest if r.low is None else r.low for r in found if r.tokens is None]
    if not beyond:
        return NOT_RESOLVED
    seeds = f" ({len(beyond)} of {len(found)} seeds)" if len(beyond) < len(found) else ""
    return f"≥ {min(beyond):,.0f}{seeds}"


def _reason(e: Extrapolation) -> str:
    """Why there is no effective length, in a few words."""
    if isinstance(e.base, Unavailable) and "incomplete" in e.note:
        return "incomplete"
    return e.note.split(":")[0].split(" (")[0]
