"""Declared comparisons, paired by sample: of lengths, places, formats, models, and extensions with as trained.

Tests of the mean difference over samples (`slice_tests.paired_test`), and of skill where guessing by order depends on
the place (`findings.place`); where models are compared and there are several training seeds, also over these
(Welch). Families that are fixed in advance:

    M on T              lengths past the reference length against it; start and end against the middle at every
                        length, and lost in the middle, which is both; formats that differ in one factor, at every
                        length. Its effective length and reach are in the family, too
    models on T         groups of runs against each other, over all formats and lengths up to the training length, and
                        over all past it; groups of one training length only, where an architecture has several
    A - B on T, up to / past the training length    the same at every format and length: behind the test above
    A - B on T at L     the same cell by cell: behind that length's
    training lengths on T   groups of one architecture and several training lengths, at every format and length
    extensions on T     every extended run against the same run as trained, at every format and length

`families.corrected` has one error rate for all claims of a report.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass, field, fields, replace
from itertools import combinations
from typing import Any, Literal

from lcprobe.analysis.findings.cells import TOO_FEW, Measured, PanelKey, Slice, Unavailable
from lcprobe.analysis.findings.extrapolation import reference_length, trained_end
from lcprobe.analysis.findings.families import Claim, gates_of
from lcprobe.analysis.findings.place import W_SHAPE, PlaceSkills, place_skills, place_tests
from lcprobe.analysis.findings.skill import SkillTest
from lcprobe.analysis.findings.slice_tests import KnownSides, PairedTest, Side, paired_tests, seed_test
from lcprobe.analysis.findings.tokenizers import not_paired
from lcprobe.analysis.findings.training_length.architectures import architecture_of, by_training_length
from lcprobe.analysis.inputs import RunFacts, TaskFacts
from lcprobe.analysis.stats.estimates import Proportion
from lcprobe.models.extend.config import AS_TRAINED
from lcprobe.tasks.episode import Formats
from lcprobe.words import span

Position = Literal["lost in the middle", "primacy", "recency"]
Kind = Literal["length", Position, "format", "models", "model", "model cell", "training length", "extension"]
OF_MODELS: tuple[Kind, ...] = ("models", "model", "model cell", "training length", "extension")
"""Kinds that compare models: what one training seed shows is about its runs alone."""
ON_THESE_RUNS = "on these runs"
Zone = Literal["up to the training length", "past the training length"]
Sides = tuple[Side, Side]
"""Two groups of runs."""


@dataclass(frozen=True, kw_only=True)
class Contrast(Claim):
    """first - second, in accuracy; of places in skill. refused: why there is no test; then the numbers are None.

    first, second: accuracy of both sides. seeds: 95 % bounds of the difference over training seeds (Welch), where
    both groups have at least two runs. zone, lengths: of two models over all lengths of a zone, which and over which
    lengths; such a contrast has the longest of them as its length.
    """

    kind: Kind
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
    seeds: tuple[float, float] | None = None
    refused: str | None = None
    zone: Zone | None = None
    lengths: tuple[int, ...] = ()

    @property
    def direction(self) -> Literal["higher", "lower", ""]:
        """The sign of a resolved difference."""
        if not self.resolved:
            return ""
        return "higher" if (self.difference or 0) > 0 else "lower"

    @property
    def verdict(self) -> str:
        """higher | lower | no difference resolved | the reason for no test; of models with one training seed, higher
        or lower on these runs."""
        if self.refused is not None:
            return self.refused
        if not self.direction:
            return "no difference resolved"
        runs_alone = self.kind in OF_MODELS and self.seeds is None
        return f"{self.direction} {ON_THESE_RUNS}" if runs_alone else self.direction


@dataclass(frozen=True, kw_only=True)
class _Open(Contrast):
    """A contrast whose test is not done yet: tests of many pairs are done together. sides: for that over seeds."""

    pair: tuple[Slice, Slice] = field(repr=False)
    sides: Sides | None = field(default=None, repr=False)


def contrasts(data: Measured, closed: Mapping[PanelKey, str]) -> list[Contrast]:
    """All declared contrasts, not yet corrected. closed: panels that are not to be interpreted, and why."""
    return [c for task in data.tasks for c in (*of_one_model(data, task, closed), *of_models(data, task))]


def of_one_model(data: Measured, task: TaskFacts, closed: Mapping[PanelKey, str]) -> list[Contrast]:
    """Lengths, places and formats of each model on a task."""
    return _tested([*_of_one_model(data, task, closed)])


def of_models(data: Measured, task: TaskFacts, cells: bool = True) -> list[Contrast]:
    """Models, training lengths and extensions against each other on a task; closed panels, too: their accuracies
    compare. cells: whether models are also compared cell by cell, behind their lengths."""
    known = KnownSides(data, task.name)
    declared = (*_models(data, task, known, cells), *_training_lengths(data, task, known), *_extensions(data, task))
    return _tested([*declared])


def _tested(declared: Sequence[Contrast]) -> list[Contrast]:
    """Contrasts with the tests that are open."""
    tests = iter(paired_tests([c.pair for c in declared if isinstance(c, _Open)]))
    return [_closed(c, next(tests)) if isinstance(c, _Open) else c for c in declared]


def _closed(c: _Open, test: PairedTest | Unavailable) -> Contrast:
    done: dict[str, Any] = {f.name: getattr(c, f.name) for f in fields(Contrast)}
    if isinstance(test, Unavailable):
        return Contrast(**{**done, "refused": test.reason})
    done |= test._asdict()
    seeds = None if c.sides is None else seed_test(c.sides)
    if seeds is not None:
        done |= {"seeds": (seeds.low, seeds.high), "p_seeds": seeds.p}
    return Contrast(**done)


def _of_one_model(data: Measured, task: TaskFacts, closed: Mapping[PanelKey, str]) -> Iterator[Contrast]:
    for run in data.study.runs:
        for format in data.formats(task.name):
            reason = closed.get(PanelKey(run.name, task.name, format))
            gated = (*_length(data, run, task, format, reason), *_position(data, run, task, format, reason))
            yield from (replace(c, given=gates_of(PanelKey(run.name, task.name, format))) for c in gated)
        yield from _formats(data, run, task)


def _length(
    data: Measured, run: RunFacts, task: TaskFacts, format: Formats, closed: str | None
) -> Iterator[Contrast]:
    where, lengths = PanelKey(run.name, task.name, format), data.lengths(task.name, format)
    trained = reference_length(lengths, trained_end(data, run, where))
    reference = data.slice(where, trained)
    for length in (x for x in lengths if x > trained):
        blank = _blank("length", f"{run.name} on {task.name}", where, length, f"{length} − {trained} tokens")
        blank = replace(blank, refused=closed)
        yield blank if closed else _compared(blank, data.slice(where, length), reference, guard="second")


def _position(
    data: Measured, run: RunFacts, task: TaskFacts, format: Formats, closed: str | None
) -> Iterator[Contrast]:
    where, family = PanelKey(run.name, task.name, format), f"{run.name} on {task.name}"
    lengths = data.lengths(task.name, format)
    of_each = [Unavailable(closed) if closed else place_skills(data, task, where, length) for length in lengths]
    tests = iter(place_tests([skills for skills in of_each if isinstance(skills, PlaceSkills)]))
    kinds: list[tuple[Kind, str]] = [
        ("primacy", "start − middle"), ("recency", "end − middle"), ("lost in the middle", "ends − middle"),
    ]  # fmt: skip
    for length, skills in zip(lengths, of_each, strict=True):
        blanks = [
            replace(_blank(kind, family, where, length, what), name=f"{kind} {where} {length}")
            for kind, what in kinds
        ]
        if isinstance(skills, Unavailable):
            yield from (replace(blank, refused=skills.reason) for blank in blanks)
            continue
        accuracies, own, tested = _accuracies(skills), next(tests), list[Contrast]()
        for blank, test in zip(blanks, (own.start, own.end, own.ends), strict=True):
            if isinstance(test, Unavailable):
                yield replace(blank, refused=test.reason)
                continue
            sides = {"first": accuracies[blank.kind], "second": accuracies["middle"]}
            tested.append(replace(blank, **sides, **_of_test(test)))
            yield _both(tested[2], tested[0], tested[1], own.w_shape) if len(tested) == len(kinds) else tested[-1]


def _accuracies(skills: PlaceSkills) -> dict[str, Proportion]:
    """Accuracy at the ends, by the contrast that they are in, and in the middle."""
    places, whole = skills.places, skills.whole
    by_name = {"primacy": places.start, "recency": places.end, "middle": places.middle}
    by_name["lost in the middle"] = [*places.start, *places.end]
    return {name: whole.at_depths(depths).estimate for name, depths in by_name.items()}


def _of_test(test: SkillTest) -> dict[str, Any]:
    """Fields of a contrast that a test has."""
    return {"samples": test.samples, "difference": test.value, "low": test.low, "high": test.high, "p": test.p}


def _both(blank: Contrast, start: Contrast, end: Contrast, w_shape: bool) -> Contrast:
    """Lost in the middle: both ends on the same side of the middle, as far as both are resolved."""
    if w_shape and (blank.difference or 0) > 0:
        return replace(blank, refused=W_SHAPE, p=None)
    same_side = (start.difference or 0) * (end.difference or 0) > 0
    p = max(start.p or 0.0, end.p or 0.0) if same_side else 1.0
    return replace(blank, p=p, needs=(start.name, end.name))


def _formats(data: Measured, run: RunFacts, task: TaskFacts) -> Iterator[Contrast]:
    family = f"{run.name} on {task.name}"
    for a, b in combinations(data.formats(task.name), 2):
        if sum(x != y for x, y in zip(astuple(a), astuple(b), strict=True)) != 1:
            continue
        for length in sorted({*data.lengths(task.name, a)} & {*data.lengths(task.name, b)}):
            first, second = (data.slice(PanelKey(run.name, task.name, f), length) for f in (a, b))
            blank = _blank("format", family, PanelKey(run.name, task.name, a), length, f"{a} − {b}")
            yield _compared(blank, first, second, guard="both")


def _models(data: Measured, task: TaskFacts, known: KnownSides, cells: bool) -> Iterator[Contrast]:
    several, formats = bool(by_training_length(data.study.runs)), data.formats(task.name)
    trained = {
        (run.name, f): trained_end(data, run, PanelKey(run.name, task.name, f))
        for runs in _as_trained(data).values()
        for run in runs
        for f in formats
    }
    for (a, runs_a), (b, runs_b) in combinations(_as_trained(data).items(), 2):
        if several and _trained_at(runs_a[0]) != _trained_at(runs_b[0]):
            continue
        pairs = list(_pairs(data, task, known, "", "model", (a, runs_a), (b, runs_b)))
        ends = {str(f): min(trained[run.name, f] for run in (*runs_a, *runs_b)) for f in formats}
        zones: dict[Zone, list[tuple[Contrast, Sides]]] = {}
        for blank, sides in pairs:
            zone: Zone = (
                "up to the training length" if blank.length <= ends[blank.format] else "past the training length"
            )
            zones.setdefault(zone, []).append((blank, sides))
        for zone, members in zones.items():
            name = f"{a} − {b} on {task.name}, {zone}"
            yield replace(_pooled_pair(zone, members, known, (a, b)), family=f"models on {task.name}", name=name)
            for blank, sides in members:
                own = f"{name}, {blank.format} at {blank.length}"
                yield replace(_groups(blank, sides), family=name, name=own, behind=name)
                if cells:
                    yield from _cells(replace(blank, kind="model cell", family=own, behind=own), sides)


def _pooled_pair(
    zone: Zone, members: Sequence[tuple[Contrast, Sides]], known: KnownSides, groups: tuple[str, str]
) -> Contrast:
    """Two groups over all formats and lengths of a zone at which all of their runs are complete."""
    lengths = sorted({blank.length for blank, _ in members})
    formats = dict.fromkeys(blank.format for blank, _ in members)
    first = members[0][0]
    blank = replace(
        first,
        kind="models",
        length=lengths[-1],
        zone=zone,
        lengths=tuple(lengths),
        format=first.format if len(formats) == 1 else f"{len(formats)} formats",
        what=f"{first.what}, {zone} ({span(lengths)} tokens)",
    )
    complete = [(blank, sides) for blank, sides in members if all(side.complete for side in sides)]
    if blank.refused is not None or not complete:
        return blank if blank.refused else replace(blank, refused="not testable (no length is complete)")
    places = [(member.format, member.length) for member, _ in complete]
    first, second = (known.joined(groups[s], places, [sides[s] for _, sides in complete]) for s in (0, 1))
    if not (first.complete and second.complete):
        return replace(blank, refused=TOO_FEW)
    return _groups(blank, (first, second))


def _cells(blank: Contrast, sides: Sides) -> Iterator[Contrast]:
    """Two groups of runs cell by cell."""
    first, second = (side.whole for side in sides)
    if blank.refused is not None or isinstance(first, Unavailable) or isinstance(second, Unavailable):
        return
    for depth in dict.fromkeys(first.depths):
        if depth not in second.depths:
            continue
        at = sides[0].at_depth(depth), sides[1].at_depth(depth)
        yield _groups(replace(blank, what=f"{blank.what} at depth {depth:g}"), at, guarded=False)


def _training_lengths(data: Measured, task: TaskFacts, known: KnownSides) -> Iterator[Contrast]:
    """Groups of one architecture: the longer training length minus the shorter, at equal tokens."""
    groups = sorted(_as_trained(data).items(), key=lambda item: -item[1][0].context_length)
    for longer, shorter in combinations(groups, 2):
        a, b = longer[1][0], shorter[1][0]
        if architecture_of(a) == architecture_of(b) and a.context_length != b.context_length:
            for blank, sides in _pairs(
                data, task, known, f"training lengths on {task.name}", "training length", longer, shorter
            ):
                yield _groups(blank, sides)


def _trained_at(run: RunFacts) -> int:
    """Its training length in its own tokens."""
    return run.own_context_length or run.context_length


def _as_trained(data: Measured) -> dict[str, list[RunFacts]]:
    """Runs as trained by group: they differ in their seed alone, and a seed that is there twice counts once."""
    groups: dict[str, dict[int, RunFacts]] = {}
    for run in data.study.runs:
        if run.extension == AS_TRAINED:
            groups.setdefault(run.group, {}).setdefault(run.seed, run)
    return {group: [*runs.values()] for group, runs in groups.items()}


def _pairs(
    data: Measured,
    task: TaskFacts,
    known: KnownSides,
    family: str,
    kind: Kind,
    first: tuple[str, list[RunFacts]],
    second: tuple[str, list[RunFacts]],
) -> Iterator[tuple[Contrast, Sides]]:
    """Two groups at every format and length: an empty contrast, refused where their samples are no pairs, and the
    slices of both."""
    what = f"{first[0]} − {second[0]}"
    reason = not_paired(data.study, [run.name for run in (*first[1], *second[1])])
    for format in data.formats(task.name):
        for length in data.lengths(task.name, format):
            sides = known.at(*first, format, length), known.at(*second, format, length)
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
                first, second = (
                    Side([data.slice(PanelKey(n, task.name, format), length) for n in side]) for side in names
                )
                blank = _blank("extension", f"extensions on {task.name}", where, length, f"{label} − as trained")
                yield _groups(blank, (first, second))


def _groups(blank: Contrast, sides: Sides, guarded: bool = True) -> Contrast:
    """One group of runs against another, over samples and over training seeds."""
    if blank.refused is not None:
        return blank
    compared = _compared(blank, sides[0].whole, sides[1].whole, guard="both" if guarded else "none")
    return replace(compared, sides=sides) if isinstance(compared, _Open) else compared


def _compared(
    blank: Contrast, first: Slice | Unavailable, second: Slice | Unavailable, guard: Literal["second", "both", "none"]
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
    states = [part.limit or "" for part in (first, second)]
    if guard == "second" and "floor" in states[1]:
        return replace(blank, refused="not testable (reference length at the floor)")
    for limit in ("floor", "ceiling"):
        if guard == "both" and all(limit in state for state in states):
            return replace(blank, refused=f"not testable (both at {limit})")
    return _Open(**{f.name: getattr(blank, f.name) for f in fields(Contrast)}, pair=(first, second))


def _blank(kind: Kind, family: str, where: PanelKey, length: int, what: str) -> Contrast:
    return Contrast(
        branch="models against each other" if kind in OF_MODELS else "each model by itself",
        kind=kind,
        family=family,
        subject=where.model,
        task=where.task,
        format=str(where.format),
        length=length,
        what=what,
    )
