"""The answer in four lines, about the task with most to say: which model, up to which length, where it is lost, how
sure. Every line says only what is resolved in the report, or that it is not."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from lcprobe.analysis.findings.contrasts import Zone
from lcprobe.analysis.findings.results import Results
from lcprobe.analysis.report.answer.findings import MAX_MODELS
from lcprobe.analysis.report.answer.headline import (
    NOT_RESOLVED,
    HeadlineTable,
    closed_text,
    effective_length,
    first_format,
    groups_of,
    ranked_tasks,
    reach_text,
    runs_of,
)
from lcprobe.analysis.report.answer.model_pairs import Difference, model_differences
from lcprobe.analysis.report.answer.places import depth_text
from lcprobe.analysis.report.charts.seed_groups import SeedGroup
from lcprobe.analysis.report.wording import found_text, listed, one_line
from lcprobe.analysis.stats.estimates import Proportion
from lcprobe.analysis.stats.multiplicity import ALPHA
from lcprobe.words import counted

PAST: Zone = "past the training length"
MAX_SEEN = 4
"""Models whose scores are named where no difference is resolved."""


@dataclass(frozen=True)
class AnswerLine:
    """One of the four questions, and its answer. parts: of an answer that differs by model, who and what."""

    question: str
    text: str
    parts: tuple[tuple[str, str], ...] = ()


def answer_lines(results: Results, tables: Sequence[HeadlineTable]) -> list[AnswerLine]:
    """The four lines; nothing without a task. tables: `headline.headline_tables(results)`."""
    tasks = ranked_tasks(results)
    if not tasks:
        return []
    task = tasks[0]
    lines = [
        AnswerLine(f"Which model on {task}?", _which(results, task, tables[0])),
        _of_models(f"Up to which length on {task}?", _up_to(results, task)),
        _of_models(f"Where is it lost on {task}?", _lost(results, task)),
        AnswerLine(f"How sure on {task}?", _sure(results, tables[0])),
    ]
    return [replace(line, question=one_line(line.question), text=one_line(line.text)) for line in lines]


def _which(results: Results, task: str, table: HeadlineTable) -> str:
    groups = groups_of(results)
    if len(groups) == 1:
        return f"One model, {groups[0].name}: nothing is compared."
    zones = model_differences(results, task)
    if not zones:
        return "These models are not compared by a test."
    texts = []
    for zone, own in reversed(zones.items()):
        if own.found:
            texts.append(f"{zone}: {_above(own.found)}")
        else:
            texts.append(f"{zone}: {own.nothing}{_seen(table) if own.tested and zone == PAST else ''}")
    text = "; ".join(texts)
    return f"{text[0].upper()}{text[1:]}."


def _seen(table: HeadlineTable) -> str:
    """` (seen at 1,024 tokens: mamba2 0.63, by seed 0.18 to 0.98; hybrid 0.27)`: scores at the longest length, the
    best first; empty where that is not past the training lengths."""
    last = table.lengths[-1]
    known = [(row.model, s) for row in table.rows for s in row.scores if s.length == last and s.past]
    seen = [(name, s.estimate, s.by_seed) for name, s in known if isinstance(s.estimate, Proportion)]
    if len(seen) < 2:
        return ""
    texts = [
        f"{name} {score.value:.2f}" + (f", by seed {min(seeds):.2f} to {max(seeds):.2f}" if len(seeds) > 1 else "")
        for name, score, seeds in sorted(seen, key=lambda item: -item[1].value)
    ]
    more = [f"{counted(len(texts) - MAX_SEEN, 'more model')} in the table"] if len(texts) > MAX_SEEN else []
    return f" (seen at {last:,} tokens: {'; '.join([*texts[:MAX_SEEN], *more])})"


def _above(pairs: Sequence[Difference]) -> str:
    """`hybrid is above mamba2 and transformerpp`; of many pairs their number and the largest difference."""
    if len(pairs) > MAX_MODELS:
        return f"{len(pairs)} pairs differ, most of all {pairs[0].higher} above {pairs[0].lower}"
    lower: dict[str, list[str]] = {}
    for pair in pairs:
        lower.setdefault(pair.higher, []).append(f"{pair.lower}{pair.place}")
    ordered = sorted(lower.items(), key=lambda item: -len(item[1]))
    return listed(f"{higher} is above {' and '.join(names)}" for higher, names in ordered)


def _up_to(results: Results, task: str) -> list[tuple[str, str]]:
    known: list[tuple[int, str, str]] = []
    for group in groups_of(results):
        own = effective_length(results, runs_of(group, task, first_format(results, task)))
        note = f" tokens ({own.note})" if own.note else " tokens" if own.longest else ""
        lower = _lower_from(results, group, task)
        note += f", lower from {lower:,} tokens on" if own.longest and lower is not None else ""
        known.append((own.longest, group.name, f"{own.tokens}{note}"))
    return [(name, text) for _, name, text in sorted(known, key=lambda item: -item[0])]


def _lower_from(results: Results, group: SeedGroup, task: str) -> int | None:
    """The length from which on every seed is found to be lower than at the training length."""
    format, names = str(first_format(results, task)), {run.name for run in group.runs}
    own = [c for c in results.of("length") if c.task == task and c.format == format and c.subject in names]
    not_lower = [c.length for c in own if c.direction != "lower"]
    return min((c.length for c in own if c.length > max(not_lower, default=0)), default=None)


def _lost(results: Results, task: str) -> list[tuple[str, str]]:
    return [(group.name, _lost_by(results, group, task)) for group in groups_of(results)]


def _lost_by(results: Results, group: SeedGroup, task: str) -> str:
    """Where a model loses the needle, in a few words."""
    keys = runs_of(group, task, first_format(results, task))
    gates = [gate for gate in results.gates if gate.where in keys]
    if closed := [text for gate in gates if (text := closed_text(gate))]:
        seeds = f" ({len(closed)} of {counted(len(keys), 'seed')})" if len(closed) < len(keys) else ""
        return f"{'; '.join(dict.fromkeys(closed))}{seeds}"
    reaches = [r for r in results.reaches if r.where in keys]
    parts = []
    if broken := [g.zero_far[0] for g in gates if g.zero_far is not None and g.holds_that("breaks down")]:
        parts.append(f"with length: at {min(broken):,} tokens even the needle directly before the question")
    if any(r.is_found for r in reaches):
        parts.append(f"farther back than {reach_text(reaches)} tokens")
    if depths := depth_text(results, group, task):
        parts.append(depths)
    if parts:
        return "; ".join(parts)
    extrapolations = [e for e in results.extrapolations if e.where in keys]
    lengths = results.data.lengths(task, first_format(results, task))
    if all(e.effective == max(lengths) for e in extrapolations):
        if len(lengths) == 1:
            return f"not lost at {lengths[0]:,} tokens, the only length tested"
        return f"not lost up to {max(lengths):,} tokens, the longest tested"
    reasons = dict.fromkeys(r.refused.split(":")[0] for r in reaches if r.refused is not None)
    return "; ".join(reasons) or NOT_RESOLVED


def _sure(results: Results, table: HeadlineTable) -> str:
    seeds = sorted({row.seeds for row in table.rows})
    span = counted(seeds[0], "training seed") if len(seeds) == 1 else f"{seeds[0]} to {seeds[-1]} training seeds"
    text = f"{span[0].upper()}{span[1:]} a model"
    if len(table.rows) > 1 and seeds[0] == 1:
        text += ": what is said of models is about these runs, not about architectures"
    elif len(table.rows) > 1:
        text += ": tests of models are over seeds, too"
    tested = [claim for claim in results.claims if claim.p is not None]
    tests = found_text(sum(claim.resolved for claim in tested), len(tested))
    rate = f"; at most {ALPHA:.0%} of reports hold any false one" if tested else ""
    return f"{text}.{_spread(table)} In the whole report {tests}{rate}."


def _spread(table: HeadlineTable) -> str:
    """How far scores may be off: over samples by the longest arm of an interval, over seeds by the largest spread."""
    known = [(row.model, s, s.estimate) for row in table.rows for s in row.scores]
    arms = [max(e.value - e.low, e.high - e.value) for _, _, e in known if isinstance(e, Proportion)]
    if not arms:
        return ""
    text = f" Scores on {table.task} of these seeds are within ±{max(arms):.2f} (95 %, over samples)"
    spreads = [(max(s.by_seed) - min(s.by_seed), name, s) for name, s, _ in known if len(s.by_seed) > 1]
    if not spreads:
        return f"{text}."
    _, name, score = max(spreads, key=lambda item: item[0])
    seeds = f"{min(score.by_seed):.2f} to {max(score.by_seed):.2f}"
    return f"{text}; by seed they spread most for {name} at {score.length:,} tokens: {seeds}."


def _of_models(question: str, answers: Sequence[tuple[str, str]]) -> AnswerLine:
    """`mamba2: 256 tokens; hybrid, transformerpp: 128 tokens.`; models with the same answer share it."""
    names: dict[str, list[str]] = {}
    for name, text in answers:
        names.setdefault(text, []).append(name)
    parts = []
    for text, own in names.items():
        rest = len(own) - MAX_MODELS
        parts.append((f"{listed(own[:MAX_MODELS])}{f' and {rest} more' if rest > 0 else ''}", text))
    rest = sum(len(own) for own in list(names.values())[MAX_MODELS:])
    more = [f"{counted(rest, 'more model')} in the table"] if rest else []
    texts = [f"{who}: {text}" for who, text in parts[:MAX_MODELS]]
    shown = [(one_line(who), one_line(text)) for who, text in parts[:MAX_MODELS]] + [(text, "") for text in more]
    return AnswerLine(question, f"{'; '.join([*texts, *more])}.", tuple(shown))
