"""Declared comparisons, each paired by sample: length, place in the context, format, model against model.

Exact tests: signs of each sample's difference (McNemar's where a sample is one trial) where the two sides are alike but for one
factor; for places in the context, where a start of one depth stands against a middle of three, every way of putting a sample's
answers on its depths. Beside them stands an interval of the mean difference over samples. Holm's correction inside families
that are fixed before looking:

    M on T              lengths past the base against the base; ends - middle, start - middle, end - middle at every length;
                        formats that differ in one factor, at every length: one false claim about M on T in twenty such pairs
    models on T         groups of runs against each other over all depths, at every format and length
    cells of models, T  the same cell by cell
    extensions on T     every method that changes trained runs against them as trained, at every format and length

Lost in the middle = mean of the ends minus the middle third, with primacy (start - middle) and recency (end - middle) apart,
and only where the slice is neither at floor nor at ceiling (reference: Liu et al. 2023, arXiv 2307.03172).
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass, replace
from fractions import Fraction
from itertools import combinations

import numpy as np

from lcprobe.analysis.findings.cells import Estimate, Measured, PanelKey, Slice, Unavailable
from lcprobe.analysis.findings.extrapolation import base_length, floor_or_ceiling
from lcprobe.analysis.inputs import RunFacts, TaskFacts
from lcprobe.analysis.stats.differences import difference_bounds, welch_bounds
from lcprobe.analysis.stats.intervals import holm, permutation_test, sign_flip
from lcprobe.models.extend.config import AS_TRAINED
from lcprobe.tasks.episode import Formats

ALPHA = 0.05
EDGE = 0.1
"""Depths up to this from either end count as start and end."""


@dataclass(frozen=True)
class Contrast:
    """first - second. p_holm: adjusted inside `family`. refused: why there is no test; then the numbers are None.

    kind: length | lost in the middle | primacy | recency | format | model | model cell | extension. seeds: 95 % bounds of the
    difference over training seeds (Welch), where both groups have at least two runs.
    """

    kind: str
    family: str
    subject: str
    task: str
    format: str
    length: int
    what: str
    samples: int = 0
    first: Estimate | None = None
    second: Estimate | None = None
    difference: float | None = None
    low: float | None = None
    high: float | None = None
    p: float | None = None
    p_holm: float | None = None
    seeds: tuple[float, float] | None = None
    refused: str | None = None

    @property
    def resolved(self) -> bool:
        """Whether the difference stands after Holm's correction and, where there are seeds, over training seeds."""
        over_seeds = self.seeds is None or self.seeds[0] > 0 or self.seeds[1] < 0
        return self.p_holm is not None and self.p_holm < ALPHA and over_seeds

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
    made: list[Contrast] = []
    for task in data.tasks:
        for run in data.study.runs:
            for format in data.formats(task.name):
                made += _length(data, run, task, format)
                made += _position(data, run, task, format)
            made += _formats(data, run, task)
        made += _models(data, task)
        made += _extensions(data, task)
    return adjusted(made)


def adjusted(made: Sequence[Contrast]) -> list[Contrast]:
    """Contrasts with p_holm; those without a test are no members of their family."""
    found = list(made)
    for family in dict.fromkeys(c.family for c in made):
        members = [i for i, c in enumerate(made) if c.family == family and c.p is not None]
        for i, p in zip(members, holm([made[i].p or 0.0 for i in members]), strict=True):
            found[i] = replace(made[i], p_holm=p)
    return found


def middle_third(depths: Iterable[float]) -> list[float]:
    """Depths in 1/3 .. 2/3."""
    return [depth for depth in depths if 1 / 3 - 1e-6 <= depth <= 2 / 3 + 1e-6]


def tested(blank: Contrast, first: list[tuple[Fraction, Slice]], second: Slice) -> Contrast:
    """`blank` filled in with sum(weight x slice) - second over the samples that all slices hold.

    Weights add up to one. Shares of a sample are fractions of whole hits, so the exact test runs on whole numbers.
    """
    parts = [*first, (Fraction(-1), second)]
    shared = parts[0][1].index
    for _, part in parts[1:]:
        shared = np.intersect1d(shared, part.index, assume_unique=True)
    if len(shared) < 2:
        return replace(blank, refused="fewer than two shared samples")
    coefficients = [weight / int(part.trials[:, 0].sum()) for weight, part in parts]
    scale = math.lcm(*(c.denominator for c in coefficients))
    whole = np.zeros(len(shared), np.int64)
    for coefficient, (_, part) in zip(coefficients, parts, strict=True):
        hits = part.hits.sum(axis=0)[np.isin(part.index, shared, assume_unique=True)]
        whole += int(coefficient * scale) * hits
    difference = whole / scale
    low, high = difference_bounds(difference)
    return replace(
        blank,
        samples=len(shared),
        first=_joined([part for _, part in first]).estimate,
        second=second.estimate,
        difference=float(difference.mean()),
        low=float(low),
        high=float(high),
        p=sign_flip(whole),
    )


def _length(data: Measured, run: RunFacts, task: TaskFacts, format: Formats) -> list[Contrast]:
    where, lengths = PanelKey(run.name, task.name, format), data.lengths(task.name, format)
    base = base_length(lengths, run.context_length)
    reference, made = data.slice(where, base), []
    for length in (x for x in lengths if x > base):
        blank = _blank("length", f"{run.name} on {task.name}", where, length, f"{length} − {base} tokens")
        made.append(_pair(blank, data.slice(where, length), reference, task, "base"))
    return made


def _position(data: Measured, run: RunFacts, task: TaskFacts, format: Formats) -> list[Contrast]:
    where, made = PanelKey(run.name, task.name, format), []
    for length in data.lengths(task.name, format):
        whole = data.slice(where, length)
        depths = [] if isinstance(whole, Unavailable) else whole.depths
        start, end = [d for d in depths if d <= EDGE + 1e-6], [d for d in depths if d >= 1 - EDGE - 1e-6]
        middle, half = middle_third(depths), Fraction(1, 2)
        for kind, what, ends in (
            ("lost in the middle", "ends − middle", [start, end]),
            ("primacy", "start − middle", [start]),
            ("recency", "end − middle", [end]),
        ):
            blank = _blank(kind, f"{run.name} on {task.name}", where, length, what)
            if isinstance(whole, Unavailable):
                made.append(replace(blank, refused=whole.reason))
            elif not all([middle, *ends]):
                made.append(replace(blank, refused="not testable (the grid has no start, middle or end)"))
            elif state := floor_or_ceiling(whole):
                made.append(replace(blank, refused=state))
            else:
                weight = half if len(ends) == 2 else Fraction(1)
                found = tested(blank, [(weight, whole.only(e)) for e in ends], whole.only(middle))
                made.append(replace(found, p=_exchangeable(whole, ends, middle)) if found.refused is None else found)
    return made


def _exchangeable(whole: Slice, ends: list[list[float]], middle: list[float]) -> float:
    """p that a sample's answers do not depend on depth: ends and middle differ in size, so that signs are no fair coin."""
    groups = [*ends, middle]
    sides = [next((i for i, group in enumerate(groups) if depth in group), None) for depth in whole.depths]
    used = [at for at, side in enumerate(sides) if side is not None]
    shares = [Fraction(1, len(ends) * len(group)) for group in ends] + [Fraction(-1, len(middle))]
    scale = math.lcm(*(share.denominator for share in shares))
    weights = [int(share * scale) for share in shares]
    return permutation_test(whole.hits[used].T, [side for side in sides if side is not None], weights)


def _formats(data: Measured, run: RunFacts, task: TaskFacts) -> list[Contrast]:
    made = []
    for a, b in combinations(data.formats(task.name), 2):
        if sum(x != y for x, y in zip(astuple(a), astuple(b), strict=True)) != 1:
            continue
        for length in sorted({*data.lengths(task.name, a)} & {*data.lengths(task.name, b)}):
            first, second = (data.slice(PanelKey(run.name, task.name, f), length) for f in (a, b))
            blank = _blank(
                "format", f"{run.name} on {task.name}", PanelKey(run.name, task.name, a), length, f"{a} − {b}"
            )
            made.append(_pair(blank, first, second, task, "both"))
    return made


def _models(data: Measured, task: TaskFacts) -> list[Contrast]:
    groups: dict[str, list[str]] = {}
    for run in data.study.runs:
        if run.extension == AS_TRAINED:
            groups.setdefault(run.group, []).append(run.name)
    made = []
    for (a, runs_a), (b, runs_b) in combinations(groups.items(), 2):
        for format in data.formats(task.name):
            for length in data.lengths(task.name, format):
                sides = [
                    [data.slice(PanelKey(r, task.name, format), length) for r in runs] for runs in (runs_a, runs_b)
                ]
                first, second = (_pooled(side) for side in sides)
                where, what = PanelKey(f"{a} − {b}", task.name, format), f"{a} − {b}"
                blank = _blank("model", f"models on {task.name}", where, length, what)
                whole = _pair(blank, first, second, task, "both")
                made.append(replace(whole, seeds=_over_seeds(sides)) if whole.p is not None else whole)
                if isinstance(first, Unavailable) or isinstance(second, Unavailable):
                    continue
                for depth in dict.fromkeys(first.depths):
                    blank = _blank(
                        "model cell", f"cells of models, {task.name}", where, length, f"{what} at depth {depth:g}"
                    )
                    made.append(tested(blank, [(Fraction(1), first.only([depth]))], second.only([depth])))
    return made


def _extensions(data: Measured, task: TaskFacts) -> list[Contrast]:
    """Runs of one group and method against the same runs as trained, on the same samples."""
    changed: dict[tuple[str, str], list[RunFacts]] = {}
    for run in data.study.runs:
        if run.extension != AS_TRAINED:
            changed.setdefault((run.group, run.extension), []).append(run)
    made = []
    for (group, label), runs in changed.items():
        for format in data.formats(task.name):
            for length in data.lengths(task.name, format):
                names = [run.name for run in runs], [run.base for run in runs]
                sides = [[data.slice(PanelKey(n, task.name, format), length) for n in side] for side in names]
                where = PanelKey(group, task.name, format)
                blank = _blank("extension", f"extensions on {task.name}", where, length, f"{label} − as trained")
                changed_side, trained_side = map(_pooled, sides)
                whole = _pair(blank, changed_side, trained_side, task, "both")
                made.append(replace(whole, seeds=_over_seeds(sides)) if whole.p is not None else whole)
    return made


def _pair(
    blank: Contrast, first: Slice | Unavailable, second: Slice | Unavailable, task: TaskFacts, guard: str
) -> Contrast:
    """Two slices over the depths that both have; refused where the base, or both, are at the floor (or both at the ceiling)."""
    for part in (second, first):
        if isinstance(part, Unavailable):
            return replace(blank, refused=part.reason)
    assert isinstance(first, Slice)
    assert isinstance(second, Slice)
    shared = [depth for depth in first.depths if depth in second.depths]
    if not shared:
        return replace(blank, refused="not testable (no shared depth)")
    if len(shared) < max(len({*first.depths}), len({*second.depths})):
        blank = replace(blank, what=f"{blank.what} ({len({*shared})} shared depths)")
        first, second = first.only(shared), second.only(shared)
    states = [floor_or_ceiling(part) for part in (first, second)]
    if guard == "base" and states[1] is not None and "floor" in states[1]:
        return replace(blank, refused="not testable (base at floor)")
    if guard == "both" and all(states) and ("floor" in str(states[0])) == ("floor" in str(states[1])):
        return replace(blank, refused=f"not testable (both at {'floor' if 'floor' in str(states[0]) else 'ceiling'})")
    return tested(blank, [(Fraction(1), first)], second)


def _blank(kind: str, family: str, where: PanelKey, length: int, what: str) -> Contrast:
    return Contrast(kind, family, where.model, where.task, str(where.format), length, what)


def _joined(parts: list[Slice]) -> Slice:
    """Slices of equal samples, one under the other."""
    shared = parts[0].index
    for part in parts[1:]:
        shared = np.intersect1d(shared, part.index, assume_unique=True)
    keep = [np.isin(part.index, shared, assume_unique=True) for part in parts]
    hits = np.concatenate([part.hits[:, k] for part, k in zip(parts, keep, strict=True)])
    trials = np.concatenate([part.trials[:, k] for part, k in zip(parts, keep, strict=True)])
    depths = tuple(depth for part in parts for depth in part.depths)
    return Slice(depths, shared, hits, trials, sum(part.chance for part in parts) / len(parts))


def _pooled(parts: list[Slice | Unavailable]) -> Slice | Unavailable:
    """The runs of a group as one slice; refused where one run is incomplete."""
    whole = [part for part in parts if isinstance(part, Slice)]
    refused = [part for part in parts if isinstance(part, Unavailable)]
    return refused[0] if refused else _joined(whole)


def _over_seeds(sides: list[list[Slice | Unavailable]]) -> tuple[float, float] | None:
    if min(len(side) for side in sides) < 2:
        return None
    groups = [[part for part in side if isinstance(part, Slice)] for side in sides]
    a, b = ([part.value for part in group] for group in groups)
    return welch_bounds(a, b, *(float(np.mean([part.n_eff for part in group])) for group in groups))
