"""Contrasts of position in the context: start and end against the middle, in skill, stratum by stratum.

start, end: the first and last stratum of depth. middle: strata whose centre is in .25 .. .75. centre: of the middle,
those nearest to .5, and neighbours the others. Lost in the middle is a joint claim, that both ends are above the
middle (Liu et al. 2023, arXiv 2307.03172): recency alone also raises the mean of the ends. Where the centre is above
its neighbours (W), the middle is no single low, and nothing is claimed.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from lcprobe.analysis.findings.cells import Measured, PanelKey, Slice, Unavailable
from lcprobe.analysis.findings.skill import Skill, SkillTest, guessed_at, skill_of, skill_tests
from lcprobe.analysis.inputs import TaskFacts
from lcprobe.analysis.stats.multiplicity import ALPHA

Terms = Sequence[tuple[float, Skill]]
"""Of a weighted sum of skills."""
MIDDLE = (0.25, 0.75)
W_SHAPE = "not one low: the centre is above its neighbours (W)"
NO_PLACES = "not testable (the grid has no start, middle or end)"


class Places(NamedTuple):
    """Centres of strata by place; neighbours may be empty."""

    start: list[float]
    end: list[float]
    middle: list[float]
    centre: list[float]
    neighbours: list[float]


@dataclass(frozen=True)
class PlaceSkills:
    """Skill by place at one length, and the slice that it is of. centre, neighbours: None where there is no such
    stratum, or no skill in it."""

    whole: Slice
    places: Places
    start: Skill
    end: Skill
    middle: Skill
    centre: Skill | None
    neighbours: Skill | None

    def effect(self, *ends: Skill) -> Terms:
        """The terms of the mean of some ends - middle."""
        return [*((1 / len(ends), end) for end in ends), (-1.0, self.middle)]

    @property
    def bump(self) -> Terms | None:
        """The terms of centre - neighbours, None where there is no such difference."""
        if self.centre is None or self.neighbours is None:
            return None
        return [(1.0, self.centre), (-1.0, self.neighbours)]


def places_of(depths: Sequence[float]) -> Places | None:
    """Places of a grid; None where it has no start, middle or end."""
    once = sorted(set(depths))
    middle = [d for d in once if MIDDLE[0] - 1e-6 <= d <= MIDDLE[1] + 1e-6]
    if len(once) < 3 or not middle or once[0] in middle or once[-1] in middle:
        return None
    nearest = min(abs(d - 0.5) for d in middle)
    centre = [d for d in middle if abs(d - 0.5) <= nearest + 1e-6]
    return Places(once[:1], once[-1:], middle, centre, [d for d in middle if d not in centre])


def place_skills(data: Measured, task: TaskFacts, where: PanelKey, length: int) -> PlaceSkills | Unavailable:
    """Skill by place of one panel at one length, or why there is none."""
    whole = data.slice(where, length)
    return whole if isinstance(whole, Unavailable) else skills_by_place(whole, guessed_at(data, task, where, length))


def skills_by_place(whole: Slice, guesses: Slice | float | Unavailable) -> PlaceSkills | Unavailable:
    """The same from a slice and what is guessed in it. A known rate is that of all strata alike."""
    places = places_of(whole.depths)
    if places is None:
        return Unavailable(NO_PLACES)
    if isinstance(guesses, Unavailable):
        return Unavailable(f"not testable ({guesses})")
    if state := whole.limit:
        return Unavailable(state)
    parts: list[Skill] = []
    for depths in (places.start, places.end, places.middle):
        skill = _skill_at(whole, guesses, depths)
        if isinstance(skill, Unavailable):
            return skill
        parts.append(skill)
    inner = [_skill_at(whole, guesses, depths) if depths else None for depths in (places.centre, places.neighbours)]
    return PlaceSkills(whole, places, *parts, *(skill if isinstance(skill, Skill) else None for skill in inner))


class PlaceTests(NamedTuple):
    """Start, end and both ends against the middle; and whether the centre is above its neighbours."""

    start: SkillTest | Unavailable
    end: SkillTest | Unavailable
    ends: SkillTest | Unavailable
    w_shape: bool


def place_tests(skills: Sequence[PlaceSkills]) -> list[PlaceTests]:
    """The tests of each, done together."""
    effects = [one.effect(*ends) for one in skills for ends in ((one.start,), (one.end,), (one.start, one.end))]
    bumps = {i: bump for i, one in enumerate(skills) if (bump := one.bump) is not None}
    tests = skill_tests([*effects, *bumps.values()])
    bumped = dict(zip(bumps, tests[len(effects) :], strict=True))
    return [PlaceTests(*tests[3 * i : 3 * i + 3], w_shape=_is_up(bumped.get(i))) for i in range(len(skills))]


def _is_up(test: SkillTest | Unavailable | None) -> bool:
    return isinstance(test, SkillTest) and test.p < ALPHA and test.value > 0


def _skill_at(whole: Slice, guesses: Slice | float, depths: Sequence[float]) -> Skill | Unavailable:
    part = whole.at_depths(depths)
    if not isinstance(guesses, Slice):
        return skill_of(part, guesses)
    if {*depths} - {*guesses.depths}:
        return Unavailable("not testable (wrong_key was asked at other depths)")
    return skill_of(part, guesses.at_depths(depths))
