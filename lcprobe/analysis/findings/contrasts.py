"""Declared comparisons, paired by sample: of lengths, depths, formats, models, and extensions with as trained.

Exact tests: signs of each sample's difference (McNemar's where a sample is one trial) where the two sides differ in
one factor only; for depths, where a start of one depth is compared with a middle of three, every assignment of a
sample's answers to its depths. Each has an interval of the mean difference over samples. Holm's correction inside
families that are fixed in advance:

    M on T              lengths past the reference length against it; ends, start and end - middle at every length;
                        formats that differ in one factor, at every length
    models on T         groups of runs against each other over all depths, at every format and length; groups of
                        one training length only, where an architecture has several
    training lengths on T   groups of one architecture and several training lengths, at every format and length
    cells of models, T  the same cell by cell
    extensions on T     every extended run against the same run as trained, at every format and length

At most one family in twenty has a false positive.
Lost in the middle = mean of the ends minus the middle third, with primacy (start - middle) and recency (end - middle)
beside it, and only where the slice is neither at floor nor at ceiling (Liu et al. 2023, arXiv 2307.03172).
"""

from collections.abc import Iterator
from dataclasses import astuple, dataclass, replace
from fractions import Fraction
from itertools import combinations
from typing import Literal

from lcprobe.analysis.findings.cells import Measured, PanelKey, Slice, Unavailable
from lcprobe.analysis.findings.extrapolation import floor_or_ceiling, reference_length
from lcprobe.analysis.findings.families import holm_adjusted, is_resolved
from lcprobe.analysis.findings.slice_tests import depth_permutation_p, paired_test, pooled, seed_bounds
from lcprobe.analysis.findings.tokenizers import not_paired
from lcprobe.analysis.findings.training_length.architectures import architecture_of, by_training_length
from lcprobe.analysis.inputs import RunFacts, TaskFacts
from lcprobe.analysis.stats.estimates import Proportion
from lcprobe.models.extend.config import AS_TRAINED
from lcprobe.tasks.episode import Formats

Position = Literal["lost in the middle", "primacy", "recency"]
Kind = Literal["length", Position, "format", "model", "model cell", "training length", "extension"]


@dataclass(frozen=True)
class Contrast:
    """first - second. p_holm: adjusted inside `family`. refused: why there is no test; then the numbers are None.

    seeds: 95 % bounds of the difference over training seeds (Welch), where both groups have at least two runs.
    """

    kind: Kind
    family: str
    subject: str
    task: str
    format: str
    length: int
    what: str
    samples: int = 0
    first: Proportion | None = None
    second: Proportion | None = None
    difference: float | None = None
    low: float | None = None
    high: float | None = None
    p: float | None = None
    p_holm: float | None = None
    seeds: tuple[float, float] | None = None
    refused: str | None = None

    @property
    def resolved(self) -> bool:
        """Whether the difference is significant after Holm's correction, and over seeds if there are several."""
        return is_resolved(self.p_holm, self.seeds)

    @property
    def verdict(self) -> str:
        """higher | lower | no difference resolved | the reason for no test."""
        if self.refused is not None:
            return self.refused
        if not self.resolved:
            return "no difference resolved"
        return "higher" if (self.difference or 0) > 0 else "lower"


def contrasts(data: Measured) -> list[Contrast]:
    """All declared contrasts, with Holm's correction inside each family."""
    declared: list[Contrast] = []
    for task in data.tasks:
        for run in data.study.runs:
            for format in data.formats(task.name):
                declared += _length(data, run, task, format)
                declared += _position(data, run, task, format)
            declared += _formats(data, run, task)
        declared += _models(data, task)
        declared += _training_lengths(data, task)
        declared += _extensions(data, task)
    return holm_adjusted(declared)


def _length(data: Measured, run: RunFacts, task: TaskFacts, format: Formats) -> Iterator[Contrast]:
    where, lengths = PanelKey(run.name, task.name, format), data.lengths(task.name, format)
    trained = reference_length(lengths, run.context_length)
    reference = data.slice(where, trained)
    for length in (x for x in lengths if x > trained):
        blank = _blank("length", f"{run.name} on {task.name}", where, length, f"{length} − {trained} tokens")
        yield _compared(blank, data.slice(where, length), reference, guard="second")


def _position(data: Measured, run: RunFacts, task: TaskFacts, format: Formats) -> Iterator[Contrast]:
    where = PanelKey(run.name, task.name, format)
    for length in data.lengths(task.name, format):
        whole = data.slice(where, length)
        start, end, middle = ([], [], []) if isinstance(whole, Unavailable) else whole.ends_and_middle
        kinds: list[tuple[Kind, str, list[list[float]]]] = [
            ("lost in the middle", "ends − middle", [start, end]),
            ("primacy", "start − middle", [start]),
            ("recency", "end − middle", [end]),
        ]
        for kind, what, ends in kinds:
            blank = _blank(kind, f"{run.name} on {task.name}", where, length, what)
            if isinstance(whole, Unavailable):
                yield replace(blank, refused=whole.reason)
            elif not all([middle, *ends]):
                yield replace(blank, refused="not testable (the grid has no start, middle or end)")
            elif state := floor_or_ceiling(whole):
                yield replace(blank, refused=state)
            else:
                weight = Fraction(1, len(ends))
                tested = _tested(blank, [(weight, whole.at_depths(e)) for e in ends], whole.at_depths(middle))
                if tested.refused is None:
                    tested = replace(tested, p=depth_permutation_p(whole, ends, middle))
                yield tested


def _formats(data: Measured, run: RunFacts, task: TaskFacts) -> Iterator[Contrast]:
    family = f"{run.name} on {task.name}"
    for a, b in combinations(data.formats(task.name), 2):
        if sum(x != y for x, y in zip(astuple(a), astuple(b), strict=True)) != 1:
            continue
        for length in sorted({*data.lengths(task.name, a)} & {*data.lengths(task.name, b)}):
            first, second = (data.slice(PanelKey(run.name, task.name, f), length) for f in (a, b))
            blank = _blank("format", family, PanelKey(run.name, task.name, a), length, f"{a} − {b}")
            yield _compared(blank, first, second, guard="both")


def _models(data: Measured, task: TaskFacts) -> Iterator[Contrast]:
    several = bool(by_training_length(data.study.runs))
    for (a, runs_a), (b, runs_b) in combinations(_as_trained(data).items(), 2):
        if several and _trained_at(runs_a[0]) != _trained_at(runs_b[0]):
            continue
        for blank, sides in _pairs(data, task, f"models on {task.name}", "model", (a, runs_a), (b, runs_b)):
            yield _groups(blank, sides)
            first, second = map(pooled, sides)
            if blank.refused is not None or isinstance(first, Unavailable) or isinstance(second, Unavailable):
                continue
            for depth in dict.fromkeys(first.depths):
                what, family = f"{blank.what} at depth {depth:g}", f"cells of models, {task.name}"
                cell = replace(blank, kind="model cell", family=family, what=what)
                yield _tested(cell, [(Fraction(1), first.at_depths([depth]))], second.at_depths([depth]))


def _training_lengths(data: Measured, task: TaskFacts) -> Iterator[Contrast]:
    """Groups of one architecture: the longer training length minus the shorter, at equal tokens."""
    groups = sorted(_as_trained(data).items(), key=lambda item: -item[1][0].context_length)
    for longer, shorter in combinations(groups, 2):
        a, b = longer[1][0], shorter[1][0]
        if architecture_of(a) == architecture_of(b) and a.context_length != b.context_length:
            for blank, sides in _pairs(
                data, task, f"training lengths on {task.name}", "training length", longer, shorter
            ):
                yield _groups(blank, sides)


def _trained_at(run: RunFacts) -> int:
    """Its training length in its own tokens."""
    return run.own_context_length or run.context_length


def _as_trained(data: Measured) -> dict[str, list[RunFacts]]:
    """Runs as trained by group: they differ in their seed alone."""
    groups: dict[str, list[RunFacts]] = {}
    for run in data.study.runs:
        if run.extension == AS_TRAINED:
            groups.setdefault(run.group, []).append(run)
    return groups


def _pairs(
    data: Measured,
    task: TaskFacts,
    family: str,
    kind: Kind,
    first: tuple[str, list[RunFacts]],
    second: tuple[str, list[RunFacts]],
) -> Iterator[tuple[Contrast, list[list[Slice | Unavailable]]]]:
    """Two groups at every format and length: an empty contrast, refused where their samples are no pairs, and the
    slices of both."""
    what = f"{first[0]} − {second[0]}"
    reason = not_paired(data.study, [run.name for run in (*first[1], *second[1])])
    for format in data.formats(task.name):
        for length in data.lengths(task.name, format):
            sides = [
                [data.slice(PanelKey(run.name, task.name, format), length) for run in runs]
                for runs in (first[1], second[1])
            ]
            blank = _blank(kind, family, PanelKey(what, task.name, format), length, what)
            yield replace(blank, refused=reason), sides


def _extensions(data: Measured, task: TaskFacts) -> Iterator[Contrast]:
    """Runs of one group and method against the same runs as trained, on the same samples."""
    extended: dict[tuple[str, str], list[RunFacts]] = {}
    for run in data.study.runs:
        if run.extension != AS_TRAINED:
            extended.setdefault((run.group, run.extension), []).append(run)
    for (group, label), runs in extended.items():
        names = [run.name for run in runs], [run.base for run in runs]
        for format in data.formats(task.name):
            where = PanelKey(group, task.name, format)
            for length in data.lengths(task.name, format):
                sides = [[data.slice(PanelKey(n, task.name, format), length) for n in side] for side in names]
                blank = _blank("extension", f"extensions on {task.name}", where, length, f"{label} − as trained")
                yield _groups(blank, sides)


def _groups(blank: Contrast, sides: list[list[Slice | Unavailable]]) -> Contrast:
    """One group of runs against another, over samples and over training seeds."""
    if blank.refused is not None:
        return blank
    first, second = map(pooled, sides)
    compared = _compared(blank, first, second, guard="both")
    return compared if compared.p is None else replace(compared, seeds=seed_bounds(sides))


def _compared(
    blank: Contrast, first: Slice | Unavailable, second: Slice | Unavailable, guard: Literal["second", "both"]
) -> Contrast:
    """Two slices over the depths that both have.

    Refused with guard `second` where the second is at the floor, with `both` where both are at the floor or both at
    the ceiling.
    """
    if isinstance(second, Unavailable):
        return replace(blank, refused=second.reason)
    if isinstance(first, Unavailable):
        return replace(blank, refused=first.reason)
    shared = [depth for depth in first.depths if depth in second.depths]
    if not shared:
        return replace(blank, refused="not testable (no shared depth)")
    if len(shared) < max(len({*first.depths}), len({*second.depths})):
        blank = replace(blank, what=f"{blank.what} ({len({*shared})} shared depths)")
        first, second = first.at_depths(shared), second.at_depths(shared)
    states = [floor_or_ceiling(part) or "" for part in (first, second)]
    if guard == "second" and "floor" in states[1]:
        return replace(blank, refused="not testable (reference length at the floor)")
    for limit in ("floor", "ceiling"):
        if guard == "both" and all(limit in state for state in states):
            return replace(blank, refused=f"not testable (both at {limit})")
    return _tested(blank, [(Fraction(1), first)], second)


def _tested(blank: Contrast, first: list[tuple[Fraction, Slice]], second: Slice) -> Contrast:
    """`blank` filled in with the test of sum(weight x slice) - second."""
    test = paired_test(first, second)
    if isinstance(test, Unavailable):
        return replace(blank, refused=test.reason)
    return replace(blank, **test._asdict())


def _blank(kind: Kind, family: str, where: PanelKey, length: int, what: str) -> Contrast:
    return Contrast(kind, family, where.model, where.task, str(where.format), length, what)
