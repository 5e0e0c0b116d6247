"""Findings of a report, ranked: what a reader must know first.

Only what is resolved in the report is a finding (`findings.families`); a report without any says so. Where no finding
compares models, what was seen of them is told apart from findings (`not_resolved`). Differences between models come
before all else, whatever the task; then kinds in the order of KINDS, each about the two tasks with most to say, then
about the other tasks. Models that were trained with several seeds are one model: a statement about single runs says
in how many of its seeds it holds.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from lcprobe.analysis.findings.cells import PanelKey
from lcprobe.analysis.findings.contrasts import ON_THESE_RUNS, Contrast
from lcprobe.analysis.findings.extrapolation import SHARE_OF_BASE
from lcprobe.analysis.findings.results import Results
from lcprobe.analysis.report.answer.headline import (
    effective_length,
    first_format,
    groups_of,
    ranked_tasks,
    reach_text,
    runs_of,
)
from lcprobe.analysis.report.answer.model_pairs import Differences, model_differences, of_all_formats
from lcprobe.analysis.report.answer.places import depth_text, position_tests
from lcprobe.analysis.report.answer.seen import seen_between_models
from lcprobe.analysis.report.charts.seed_groups import SeedGroup
from lcprobe.analysis.report.training_length import TRAINING_LENGTH, verdict_text
from lcprobe.analysis.report.wording import (
    ACQUIRED,
    DISTANCE,
    EXTENSIONS,
    FORMATS,
    LENGTH,
    MODELS,
    PLAIN_TEXT,
    POSITION,
    Sentence,
    listed,
    panel_subject,
    printable,
    signed,
    span_text,
)
from lcprobe.words import counted

MAX_FINDINGS = 8
"""Findings that are shown first; the others are behind a fold."""
TASKS_AT_ONCE = 2
MAX_PAIRS = 3
"""Pairs of models, of formats or of methods that a finding names."""
MAX_MODELS = 6
"""Models that a finding names."""


def findings(results: Results) -> list[Sentence]:
    """All findings, what matters most first; one sentence that nothing is resolved where there are none."""
    tasks = ranked_tasks(results)
    ranked: list[tuple[tuple[bool, int, int, int], Sentence]] = []
    for i, kind in enumerate(KINDS):
        for sentence in kind(results):
            task = tasks.index(sentence.task) if sentence.task in tasks else 0
            ranked.append(((kind is not _models, task // TASKS_AT_ONCE, i, task), sentence))
    found = [s for _, s in sorted(ranked, key=lambda item: item[0])]
    nothing = [Sentence(MODELS, "Nothing is resolved: no tested statement is a finding of this report.")]
    return [printable(s) for s in found or nothing]


def not_resolved(results: Results) -> list[Sentence]:
    """What was seen between models, and is no finding; nothing where a finding compares models."""
    compared = any(True for kind in BETWEEN_MODELS for _ in kind(results))
    return [] if compared else [printable(s) for s in seen_between_models(results)]


def _models(results: Results) -> Iterator[Sentence]:
    """Past the training length, with whether models differ up to it; where only that is resolved, up to it."""
    for task in ranked_tasks(results):
        zones = dict(reversed(model_differences(results, task).items()))
        if resolved := [zone for zone, own in zones.items() if own.found]:
            others = {zone: own for zone, own in zones.items() if not own.found}
            yield _of_zones(task, {resolved[0]: zones[resolved[0]], **others})


def _models_within(results: Results) -> Iterator[Sentence]:
    """The other zone, where models differ in both."""
    for task in ranked_tasks(results):
        zones = {zone: own for zone, own in reversed(model_differences(results, task).items()) if own.found}
        for zone in [*zones][1:]:
            yield _of_zones(task, {zone: zones[zone]})


def _models_over_formats(results: Results) -> Iterator[Sentence]:
    """What is tested over several formats together stands beside their picture, not that of the first one."""
    for task in ranked_tasks(results):
        zones = {zone: own for zone, own in reversed(of_all_formats(results, task).items()) if own.found}
        if zones:
            yield _of_zones(task, zones, FORMATS)


def _of_zones(task: str, zones: Mapping[str, Differences], topic: str = MODELS) -> Sentence:
    texts = [_zone_text(zone, own) for zone, own in zones.items()]
    runs = _one_seed([pair.contrast for own in zones.values() for pair in own.found])
    text = f"{task}: {'; '.join(texts)}{runs}."
    return Sentence(topic, text, subject=task, task=task)


def _zone_text(zone: str, own: Differences) -> str:
    pairs = own.found
    zone = f"{zone} ({own.over})" if own.over else zone
    if not pairs:
        return f"{zone}: {own.nothing}"
    named = [f"{d.higher} above {d.lower} by {d.text}" for d in pairs[:MAX_PAIRS]]
    rest = len(pairs) - MAX_PAIRS
    more = [f"{counted(rest, 'more difference')} in the tables"] if rest > 0 else []
    open_ = [f"{counted(own.unresolved, 'pair')} not resolved"] if own.unresolved else []
    return f"{zone}: {listed([*named, *more, *open_])}"


def _effective(results: Results) -> Iterator[Sentence]:
    for task in ranked_tasks(results):
        format = first_format(results, task)
        if len(results.data.lengths(task, format)) < 2:  # nothing that any length could be told from
            continue
        known, missing = [], []
        for group in groups_of(results):
            own = effective_length(results, runs_of(group, task, format))
            if own.longest:
                note = "; ".join(filter(None, (own.multiple, own.stopped)))
                known.append((own.longest, f"{group.name} {own.tokens} tokens" + (f" ({note})" if note else "")))
            else:
                missing.append(f"{group.name} {own.tokens}")
        if known:
            known.sort(key=lambda item: -item[0])
            text = f"{task}: effective length ({SHARE_OF_BASE:g} of the skill at training lengths, shown): "
            text += f"{_first([*(words for _, words in known), *missing])}."
            yield Sentence(LENGTH, text, subject=task, task=task)


def _breaks(results: Results) -> Iterator[Sentence]:
    """Models that fail with the needle directly before the question, or copy it whatever the question."""
    for task in ranked_tasks(results):
        gates = [g for g in results.gates if (g.where.task, g.where.format) == (task, first_format(results, task))]
        far = [(g.where.model, g.zero_far) for g in gates if g.zero_far is not None and g.holds_that("breaks down")]
        if far:
            each = _first(f"{model} at {length:,} tokens: {score}" for model, (length, score) in far)
            text = f"{task}: breaks down even with the needle directly before the question: {each}."
            yield Sentence(ACQUIRED, text, subject=task, task=task)
        if copies := [g for g in gates if g.copies]:
            each = _first(f"{g.where.model} {g.controls['wrong_key']}" for g in copies)
            text = f"{task}: copies the needle without using the key, so that an absent key gets its value: {each}."
            yield Sentence(ACQUIRED, text, subject=task, task=task)


def _positions(results: Results) -> Iterator[Sentence]:
    for task in ranked_tasks(results):
        texts = [(group.name, depth_text(results, group, task)) for group in groups_of(results)]
        if found := [f"{name}: {text}" for name, text in texts if text]:
            dips = [c for g in groups_of(results) for c in _dips(results, g, task)]
            largest = max(dips, key=lambda c: c.difference or 0.0, default=None)
            size = "" if largest is None else f". Largest: ends − middle {signed(largest.difference)} in skill "
            if largest is not None:
                size += f"({span_text(largest.low, largest.high)}), {largest.subject} at {largest.length:,} tokens"
            yield Sentence(POSITION, f"{task}: {_first(found, '; ')}{size}.", subject=task, task=task)


def _dips(results: Results, group: SeedGroup, task: str) -> list[Contrast]:
    keys = runs_of(group, task, first_format(results, task))
    tests = (c for key in keys for c in position_tests(results, key))
    return [c for c in tests if c.kind == "lost in the middle" and c.direction == "higher"]


def _distances(results: Results) -> Iterator[Sentence]:
    by_panel = {r.where: r for r in results.reaches}
    for task in ranked_tasks(results):
        found = []
        for group in groups_of(results):
            own = [by_panel[key] for key in runs_of(group, task, first_format(results, task))]
            if any(r.is_found for r in own):
                found.append(f"{group.name} {reach_text(own)}")
        if found:
            text = f"{task}: accuracy falls with distance, half-way at (tokens back): {_first(found)}."
            yield Sentence(DISTANCE, text, subject=task, task=task)


def _training_lengths(results: Results) -> Iterator[Sentence]:
    for fit in results.length_fits:
        if fit.verdict in ("ceiling", "fixed reach", "no ceiling") and fit.format == first_format(results, fit.task):
            subject = panel_subject(results.data, PanelKey(fit.architecture, fit.task, fit.format))
            yield Sentence(TRAINING_LENGTH, f"{subject}: {verdict_text(fit)}.", subject=subject, task=fit.task)


def _extensions(results: Results) -> Iterator[Sentence]:
    for task in ranked_tasks(results):
        own = [c for c in results.of("extension") if c.task == task and c.refused is None]
        if resolved := [c for c in own if c.resolved]:
            text = f"{task}: methods differ from the same model as trained in {len(resolved)} of {len(own)} tests: "
            text += f"{_largest(resolved)}{_one_seed(resolved)}."
            yield Sentence(EXTENSIONS, text, subject=task, task=task)


def _formats(results: Results) -> Iterator[Sentence]:
    reference = {(e.where.model, e.where.task): e.reference_length for e in results.extrapolations}
    for task in ranked_tasks(results):
        tests = [c for c in results.of("format") if c.task == task and c.refused is None]
        own = [c for c in tests if c.length == reference[c.subject, c.task]]
        if resolved := [c for c in own if c.resolved]:
            text = f"{task}: formats differ in {len(resolved)} of {len(own)} tests at the reference length: "
            yield Sentence(FORMATS, f"{text}{_largest(resolved)}.", subject=task, task=task)


def _largest(resolved: Sequence[Contrast]) -> str:
    """The largest differences of different models or methods."""
    ordered = sorted(resolved, key=lambda c: -abs(c.difference or 0.0))
    first = {(c.subject, c.what if c.kind == "extension" else ""): c for c in reversed(ordered)}
    kept = [c for c in ordered if c in first.values()][:MAX_PAIRS]
    return listed(_difference_at(c) for c in kept)


def _difference_at(c: Contrast) -> str:
    return f"{c.subject}, {c.what} {signed(c.difference)} ({span_text(c.low, c.high)}) at {c.length:,} tokens"


def _first(texts: Iterable[str], separator: str = ", ") -> str:
    """The first MAX_MODELS of them, and how many more there are."""
    several = list(texts)
    rest = len(several) - MAX_MODELS
    return separator.join([*several[:MAX_MODELS], *([f"{rest} more in the tables"] if rest > 0 else [])])


def _one_seed(contrasts: Sequence[Contrast]) -> str:
    return f", {ON_THESE_RUNS} (one training seed)" if any(c.seeds is None for c in contrasts) else ""


def _plain_text(results: Results) -> Iterator[Sentence]:
    rises = [f"{t.model} from {t.rises:,} tokens on" for t in results.text if t.rises is not None]
    if rises:
        yield Sentence(PLAIN_TEXT, f"Plain text: the loss rises past the training length: {_first(rises)}.")


KINDS: Sequence[Callable[[Results], Iterator[Sentence]]] = (
    _models,
    _models_within,
    _training_lengths,
    _effective,
    _positions,
    _distances,
    _models_over_formats,
    _breaks,
    _extensions,
    _formats,
    _plain_text,
)
"""Kinds of findings, the most important first."""
BETWEEN_MODELS = (_models, _models_within, _models_over_formats)
