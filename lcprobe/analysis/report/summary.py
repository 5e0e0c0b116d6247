"""The summary in sentences, each with the numbers of its test; what was not tested is not mentioned.

Limits come first (matched data, parameters, tuning, seeds, tasks not acquired, incomplete cells), then findings.
Where a task has several formats a sentence is about the first one planned and counts the others.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol, TypeVar

from lcprobe.analysis.findings.cells import PanelKey
from lcprobe.analysis.findings.contrasts import ON_THESE_RUNS, Contrast
from lcprobe.analysis.findings.extrapolation import SHARE_OF_BASE, Extrapolation
from lcprobe.analysis.findings.gates import Gate
from lcprobe.analysis.findings.results import Results
from lcprobe.analysis.findings.text_curves import TextCurves
from lcprobe.analysis.report.flags import flags
from lcprobe.analysis.report.training_length import TRAINING_LENGTH, training_length_sentences
from lcprobe.analysis.report.wording import (
    ACQUIRED,
    DISTANCE,
    FORMATS,
    LENGTH,
    MODELS,
    PLAIN_TEXT,
    POSITION,
    READ_FIRST,
    Sentence,
    difference_text,
    listed,
    panel_subject,
    position_state,
    printable,
    signed,
    span_text,
)
from lcprobe.analysis.stats.estimates import Proportion
from lcprobe.words import span

REACHED = 0.90
MAX_PAIRS = 20
"""Number of pairs of models above which only those that differ have a sentence each."""


class _OfPanel(Protocol):
    @property
    def where(self) -> PanelKey: ...


T = TypeVar("T", bound=_OfPanel)


def summary(results: Results) -> list[Sentence]:
    """All sentences, in the order of TOPIC_SENTENCES."""
    sentences = [sentence for topic in TOPIC_SENTENCES.values() for sentence in topic(results)]
    return [printable(s) for s in sentences]


def _acquired(results: Results) -> Iterator[Sentence]:
    for gate, others in _by_model(results, results.gates):
        subject = panel_subject(results.data, gate.where)
        if not isinstance(gate.accuracy, Proportion):
            yield Sentence(
                ACQUIRED, f"{subject}: exact match at {gate.length:,} tokens: {gate.accuracy}.", subject=subject
            )
            continue
        text = _accuracy(gate, gate.accuracy, others) if gate.lookup is None else _lookup(gate, others)
        yield Sentence(ACQUIRED, f"{subject}: {text}.", subject=subject)
        if gate.copies:
            text = "copies the needle without using the key: queried with an absent key it still prints the value in"
            yield Sentence(ACQUIRED, f"{subject} {text} {gate.controls['wrong_key']}.", subject=subject)
        if gate.zero_far is not None and gate.holds_that("breaks down"):
            text = f"breaks down at {gate.zero_far[0]:,} tokens even with the needle directly before the question"
            yield Sentence(ACQUIRED, f"{subject} {text}: {gate.zero_far[1]}.", subject=subject)


def _accuracy(gate: Gate, accuracy: Proportion, others: Sequence[Gate]) -> str:
    verdict = "reaches" if accuracy.value >= REACHED else "does not reach"
    bound = " with its lower bound too" if accuracy.low >= REACHED else ""
    reached = sum(isinstance(g.accuracy, Proportion) and g.accuracy.value >= REACHED for g in others)
    rest = f"; {REACHED:.2f} is reached in {reached} of {len(others)} other formats" if others else ""
    return f"exact match {accuracy} at {gate.length:,} tokens {verdict} {REACHED:.2f}{bound}{rest}"


def _lookup(gate: Gate, others: Sequence[Gate]) -> str:
    same = sum(g.lookup == gate.lookup for g in others)
    rest = f"; the same in {same} of {len(others)} other formats" if others else ""
    s, wrong = gate.skill, gate.controls.get("wrong_key")
    absent = f"; with an absent key the old value is printed in {wrong}" if isinstance(wrong, Proportion) else ""
    skill = "" if s is None else f", skill {s.value:.2f} ({s.low:.2f}–{s.high:.2f})"
    chance = f" against chance {gate.chance:.2f}" if gate.chance is not None else ""
    above = "what an absent key gives" if isinstance(wrong, Proportion) else "chance"
    verdict = f"partly acquired (above {above})" if gate.lookup == "partly" else gate.lookup
    return (
        f"key look-up {verdict}: exact match {gate.accuracy} at {gate.length:,} tokens{chance}{skill}{absent}{rest}"
    )


def _lengths(results: Results) -> Iterator[Sentence]:
    for e, others in _by_model(results, results.extrapolations):
        if _failed_gate(results, e.where):
            continue
        subject = panel_subject(results.data, e.where)
        text = f"{subject}: effective length {e}"
        if isinstance(e.base, Proportion):
            base = f"the base, its best up to the training length: {e.base} at {e.base_length:,} tokens"
            if e.effective is not None:
                text += f" (every length up to it is shown to have {SHARE_OF_BASE:g} of the skill of {base})"
            else:
                text += f" ({base})"
        text += "." if not others else f"; {_spread(others)}."
        tests = [c for c in results.of("length") if _is(c, e.where)]
        if tests:
            ratio = next(r for length, _, r in e.by_length if length == tests[-1].length)
            share = f"{ratio} of that at {e.reference_length:,}; difference " if ratio is not None else ""
            text += f" At {tests[-1].length:,} tokens: {share}{difference_text(tests[-1])}."
        yield Sentence(LENGTH, text, subject=subject)


def _spread(others: Sequence[Extrapolation]) -> str:
    values = sorted(e.effective for e in others if e.effective is not None)
    if not values:
        return f"none resolved in {len(others)} other formats"
    return f"{span(values)} tokens in {len(values)} of {len(others)} other formats"


def _positions(results: Results) -> Iterator[Sentence]:
    tests = results.of("lost in the middle", "primacy", "recency")
    for e, _ in _by_model(results, results.extrapolations):
        if _failed_gate(results, e.where):
            continue
        own = [c for c in tests if _is(c, e.where)]
        by_length: dict[int, list[Contrast]] = {}
        for contrast in own:
            by_length.setdefault(contrast.length, []).append(contrast)
        states: dict[str, list[int]] = {}
        for length, parts in by_length.items():
            states.setdefault(position_state(parts), []).append(length)
        text = "; ".join(
            f"{state} at {listed(f'{n:,}' for n in lengths)} tokens" for state, lengths in states.items()
        )
        dips = [c for c in own if c.kind == "lost in the middle" and c.direction == "higher"]
        if dips:
            largest = max(dips, key=lambda c: c.difference or 0)
            text += f". Largest ends − middle, in skill: {difference_text(largest)} at {largest.length:,} tokens"
        subject = panel_subject(results.data, e.where)
        yield Sentence(POSITION, f"{subject}: {text}.", subject=subject)


def _distances(results: Results) -> Iterator[Sentence]:
    half_lives = {half_life.where: half_life for half_life in results.half_lives}
    for reach, _ in _by_model(results, results.reaches):
        if not _failed_gate(results, reach.where):
            prefix = "" if reach.refused else "effective reach "
            subject, half_life = panel_subject(results.data, reach.where), half_lives[reach.where]
            decay = f"; accuracy decays exponentially, half-life {half_life}" if half_life.refused is None else ""
            yield Sentence(DISTANCE, f"{subject}: {prefix}{reach}{decay}.", subject=subject)


def _plain_text(results: Results) -> Iterator[Sentence]:
    for curves in results.text:
        for text, warning in _curve_texts(curves):
            kind = "Values not finite on plain text" if warning else ""
            about = (curves.model,) if warning else ()
            yield Sentence(
                PLAIN_TEXT, f"{curves.model}: {text}", warning, curves.model, kind=kind, about=about, unit="model"
            )


def _curve_texts(t: TextCurves) -> Iterator[tuple[str, bool]]:
    """Sentences about one model on plain text, and whether each is a warning."""
    past = [b for b in t.bins if b.difference is not None]
    if past and t.base is not None and past[-1].difference is not None:
        last, change = past[-1], past[-1].difference
        verdict = "shows no lasting rise past the training length"
        if t.rises is not None:
            verdict = f"rises from {t.rises:,} tokens on"
        size = f"{signed(change.value)} nats per token ({span_text(change.low, change.high)}, n = {change.n} windows)"
        place = f"at tokens {last.low:,} to {last.high:,} against {t.base.low:,} to {t.base.high:,}"
        yield f"loss of plain text {verdict}: {size} {place}.", False
    if any(t.not_finite):
        predictions, values = t.not_finite
        text = f"on plain text of {t.longest:,} tokens {values} values of the state and {predictions} predictions"
        yield f"{text} were not finite.", True
    first, last = t.state_rms.get(t.context_length), t.state_rms.get(t.longest)
    if first is not None and last is not None and t.longest > t.context_length:
        verdict = "no change resolved in the state"
        if t.state.resolved:
            verdict = "the state grows" if t.state.change > 0 else "the state shrinks"
        yield (
            f"{verdict}: root mean square {first} after {t.context_length:,} tokens, {last} after {t.longest:,}.",
            False,
        )
    for length in [x for x in t.lengths if x in (t.context_length, t.lengths[-1])]:
        kept = max(k for at, k in t.remembrance if at == length)
        text = (
            f"after {length:,} tokens, reading the last {kept:,} alone changes the prediction by a total variation of"
        )
        yield f"{text} {t.remembrance[length, kept]}.", False


def _formats(results: Results) -> Iterator[Sentence]:
    tests = results.of("format")
    for e, _ in _by_model(results, results.extrapolations):
        own = [
            c
            for c in tests
            if (c.subject, c.task) == e.where[:2] and c.length == e.reference_length and c.p_report is not None
        ]
        if not own or _failed_gate(results, e.where):
            continue
        resolved = [c for c in own if c.resolved]
        subject = f"{e.where.model} on {e.where.task}"
        text = f"{subject} at {e.reference_length:,} tokens: of {len(own)} testable pairs of formats"
        text += f" that differ in one factor, {len(resolved)} differ"
        if resolved:
            largest = max(resolved, key=lambda c: abs(c.difference or 0))
            text += f"; the largest: {largest.what} {difference_text(largest)}"
        yield Sentence(FORMATS, text + ".", subject=subject)


def _models(results: Results) -> Iterator[Sentence]:
    """Pairs of models: over all lengths up to the training length and past it, then the counts of single lengths."""
    tests = results.of("models")
    pairs = list(dict.fromkeys((c.task, c.subject) for c in tests))
    unresolved: Counter[str] = Counter()
    for task, subject in pairs:
        pooled = [c for c in tests if (c.task, c.subject) == (task, subject)]
        if len(pairs) > MAX_PAIRS and not any(c.resolved for c in pooled):
            unresolved[task] += 1
            continue
        own = [c for c in results.of("model") if (c.task, c.subject) == (task, subject)]
        at: dict[str, list[str]] = {}  # a reason for no test may be that of both zones
        for c in pooled:
            zone = f"{c.zone} ({span(c.lengths)} tokens)"
            at.setdefault(f"{difference_text(c)}{_seed_text(c)}", []).append(zone)
        zones = (f"{' and '.join(places)}: {words}" for words, places in at.items())
        one_seed = any(c.seeds is None for c in (*pooled, *own) if c.refused is None)
        runs = f", {ON_THESE_RUNS} (one training seed)" if one_seed else ""
        text = f"{subject} on {task}{runs}: {'; '.join(zones)}. Single formats and lengths: higher in "
        counts = {d: sum(c.direction == d for c in own) for d in ("higher", "lower")}
        open_ = sum(c.refused is None for c in own)
        text += f"{counts['higher']}, lower in {counts['lower']}, not resolved in {open_ - sum(counts.values())}, "
        text += f"not testable in {len(own) - open_} of {len(own)}."
        yield Sentence(MODELS, text, subject=f"{subject} on {task}")
    for task, n in unresolved.items():
        text = f"{task}: in {n} other pairs of models no difference is resolved"
        yield Sentence(MODELS, f"{text}; the table of contrasts lists them.", subject=task)


def _seed_text(contrast: Contrast) -> str:
    if contrast.seeds is None:
        return ""
    return f" [over training seeds {span_text(*contrast.seeds)}]"


def _by_model(results: Results, items: Sequence[T]) -> Iterator[tuple[T, Sequence[T]]]:
    """(item of the first planned format, items of the other formats) of every task and model."""
    for task in results.data.tasks:
        for run in results.study.runs:
            own = [item for item in items if item.where.model == run.name and item.where.task == task.name]
            if own:
                yield own[0], own[1:]


def _failed_gate(results: Results, where: PanelKey) -> bool:
    """Whether a gate is closed: the task, or its key look-up, is not acquired, or was not tested."""
    return next(g for g in results.gates if g.where == where).closed is not None


def _is(contrast: Contrast, where: PanelKey) -> bool:
    return (contrast.subject, contrast.task, contrast.format) == (where.model, where.task, str(where.format))


TOPIC_SENTENCES: dict[str, Callable[[Results], Iterator[Sentence]]] = {
    READ_FIRST: flags,
    ACQUIRED: _acquired,
    TRAINING_LENGTH: training_length_sentences,
    LENGTH: _lengths,
    POSITION: _positions,
    DISTANCE: _distances,
    PLAIN_TEXT: _plain_text,
    FORMATS: _formats,
    MODELS: _models,
}
"""Topics of the summary, in order, with the function that writes their sentences."""
TOPICS = tuple(TOPIC_SENTENCES)
