"""Findings of a report, ranked: what a reader must know first.

Only what is resolved in the report is a finding (`findings.families`); a report without any says so. Kinds come in
the order of KINDS, each about the two tasks with most to say, then about the other tasks. Models that were trained
with several seeds are one model: a statement about single runs says in how many of its seeds it holds.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import combinations
from typing import NamedTuple

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
    position_state,
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
DEPTH_EFFECTS = ("lost in the middle", "primacy alone", "recency alone")


class Difference(NamedTuple):
    """A resolved difference, the higher side first."""

    higher: str
    lower: str
    contrast: Contrast

    @property
    def text(self) -> str:
        """`+0.42 (+0.35 to +0.49)`."""
        c, sign = self.contrast, 1 if self.contrast.direction == "higher" else -1
        bounds = sorted((sign * (c.low or 0.0), sign * (c.high or 0.0)))
        return f"{signed(sign * (c.difference or 0.0))} ({span_text(*bounds)})"


class Differences(NamedTuple):
    """Pairs of models in one zone. span: its lengths and formats, empty where those of pairs differ. found: what is
    resolved, the largest first. tested: how many pairs were. refused: why others were not."""

    span: str
    found: list[Difference]
    tested: int
    refused: tuple[str, ...]

    @property
    def nothing(self) -> str:
        """What there is to say where nothing is resolved."""
        return "no difference resolved" if self.tested else listed(self.refused) or "not tested"


def findings(results: Results) -> list[Sentence]:
    """All findings, what matters most first; one sentence that nothing is resolved where there are none."""
    tasks = ranked_tasks(results)
    ranked: list[tuple[tuple[int, int, int], Sentence]] = []
    for i, kind in enumerate(KINDS):
        for sentence in kind(results):
            task = tasks.index(sentence.task) if sentence.task in tasks else 0
            ranked.append(((task // TASKS_AT_ONCE, i, task), sentence))
    found = [printable(s) for _, s in sorted(ranked, key=lambda item: item[0])]
    return found or [Sentence(MODELS, "Nothing is resolved: no tested statement is a finding of this report.")]


def model_differences(results: Results, task: str) -> dict[str, Differences]:
    """Differences between models on a task by zone: up to the training length, and past it."""
    names = {f"{a} − {b}": (a, b) for a, b in combinations([run.group for run in results.study.runs], 2) if a != b}
    zones: dict[str, list[Contrast]] = {}
    for c in results.of("models"):
        if c.task == task and c.subject in names:
            zones.setdefault(_zone(c)[0], []).append(c)
    found = {}
    for zone, own in zones.items():
        spans = {f"{_zone(c)[1]}, {c.format}" for c in own}
        refused = tuple(dict.fromkeys(c.refused for c in own if c.refused is not None))
        tested = [c for c in own if c.refused is None]
        pairs = [_difference(*names[c.subject], c) for c in tested if c.resolved]
        pairs.sort(key=lambda d: -abs(d.contrast.difference or 0.0))
        found[zone] = Differences(spans.pop() if len(spans) == 1 else "", pairs, len(tested), refused)
    return found


def _zone(contrast: Contrast) -> tuple[str, str]:
    """`past the training length`, `256 to 1024 tokens`: what a pooled contrast is over."""
    zone, _, span = contrast.what.removeprefix(contrast.subject).lstrip(", ").partition(" (")
    return zone, span.rstrip(")")


def depth_states(results: Results, group: SeedGroup, task: str) -> dict[str, dict[int, int]]:
    """Resolved effects of depth of a model: number of its runs by effect and length."""
    states: dict[str, dict[int, int]] = {}
    format = first_format(results, task)
    for where in runs_of(group, task, format):
        for length in results.data.lengths(task, format):
            parts = [c for c in _position_tests(results, where) if c.length == length]
            state = position_state(parts) if len(parts) == 3 else ""
            if state in DEPTH_EFFECTS:
                by_length = states.setdefault(state, {})
                by_length[length] = by_length.get(length, 0) + 1
    return states


def depth_text(results: Results, group: SeedGroup, task: str) -> str:
    """Such as `lost in the middle at 256, 512 tokens (2 of 3 seeds)`; empty where no effect of depth is resolved."""
    parts = []
    for state, runs in depth_states(results, group, task).items():
        counts, n = sorted({*runs.values()}), len(group.runs)
        span = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
        seeds = f" ({span} of {n} seeds)" if counts[0] < n else ""
        parts.append(f"{state} at {listed(f'{length:,}' for length in sorted(runs))} tokens{seeds}")
    return "; ".join(parts)


def _models(results: Results) -> Iterator[Sentence]:
    """Past the training length, with whether models differ up to it; where only that is resolved, up to it."""
    for task in ranked_tasks(results):
        zones = dict(reversed(model_differences(results, task).items()))
        if resolved := [zone for zone, own in zones.items() if own.found]:
            others = {zone: own for zone, own in zones.items() if not own.found}
            yield _of_zones(results, task, {resolved[0]: zones[resolved[0]], **others})


def _models_within(results: Results) -> Iterator[Sentence]:
    """The other zone, where models differ in both."""
    for task in ranked_tasks(results):
        zones = {zone: own for zone, own in reversed(model_differences(results, task).items()) if own.found}
        for zone in [*zones][1:]:
            yield _of_zones(results, task, {zone: zones[zone]})


def _of_zones(results: Results, task: str, zones: Mapping[str, Differences]) -> Sentence:
    texts = [_zone_text(zone, own) for zone, own in zones.items()]
    runs = _one_seed([pair.contrast for own in zones.values() for pair in own.found])
    text = f"{task}: {'; '.join(texts)}{runs}."
    return Sentence(MODELS, text, subject=task, task=task)


def _zone_text(zone: str, own: Differences) -> str:
    pairs, tested = own.found, own.tested
    zone = f"{zone} ({own.span})" if own.span else zone
    if not pairs:
        return f"{zone}: {own.nothing}"
    named = [f"{d.higher} above {d.lower} by {d.text}" for d in pairs[:MAX_PAIRS]]
    more = [f"{len(pairs) - MAX_PAIRS} more pairs differ"] if len(pairs) > MAX_PAIRS else []
    open_ = [f"{counted(tested - len(pairs), 'pair')} not resolved"] if tested > len(pairs) else []
    return f"{zone}: {listed([*named, *more, *open_])}"


def _difference(a: str, b: str, contrast: Contrast) -> Difference:
    return Difference(*((a, b) if contrast.direction == "higher" else (b, a)), contrast)


def _effective(results: Results) -> Iterator[Sentence]:
    for task in ranked_tasks(results):
        format = first_format(results, task)
        known, missing = [], []
        for group in groups_of(results):
            tokens, multiple, best = effective_length(results, runs_of(group, task, format))
            if best:
                known.append((best, f"{group.name} {tokens} tokens" + (f" ({multiple})" if multiple else "")))
            else:
                missing.append(f"{group.name} {tokens}")
        if known:
            known.sort(key=lambda item: -item[0])
            text = f"{task}: effective length ({SHARE_OF_BASE:g} of the skill at training lengths): "
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
    tests = (c for key in keys for c in _position_tests(results, key))
    return [c for c in tests if c.kind == "lost in the middle" and c.direction == "higher"]


def _position_tests(results: Results, where: PanelKey) -> list[Contrast]:
    place = where.model, where.task, str(where.format)
    tests = results.of("lost in the middle", "primacy", "recency")
    return [c for c in tests if (c.subject, c.task, c.format) == place]


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
    _training_lengths,
    _effective,
    _positions,
    _distances,
    _models_within,
    _breaks,
    _extensions,
    _formats,
    _plain_text,
)
"""Kinds of findings, the most important first."""
