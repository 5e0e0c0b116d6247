"""Skill: no guesser by order has any, a retriever has its own, and tests of it hold their level."""

import numpy as np
import pytest

from lcprobe.analysis.findings.cells import Slice, Unavailable
from lcprobe.analysis.findings.place import PlaceSkills, places_of, skills_by_place
from lcprobe.analysis.findings.skill import Skill, SkillTest, p_above_zero, skill_of, skill_test

DEPTHS = (0.1, 0.3, 0.5, 0.7, 0.9)
SEEDS, N, KEYS = 200, 250, 4
Guess = str


def slice_of(hits: np.ndarray) -> Slice:
    """hits: (n_depths, n_samples)."""
    whole = hits.astype(np.int64)
    return Slice(DEPTHS, np.arange(hits.shape[1]), whole, np.ones_like(whole), 1 / KEYS)


def oracle(generator: np.random.Generator, p: float, guess: Guess, n: int = N) -> tuple[Slice, Slice]:
    """Answers and `wrong_key` answers of a model that finds the value with probability p and else names the first,
    the last or the middle one of KEYS values at uniform depths, of which the target's is in its stratum."""
    target = (np.arange(5)[:, None] + generator.random(n)) / 5
    others = generator.random((KEYS - 1, n))
    before = (others[:, None] < target).sum(axis=0)  # (n_depths, n_samples): the place of the target
    named = {"first": 0, "last": KEYS - 1, "second": 1}[guess]
    hits = generator.random((5, n)) < p
    return slice_of(hits | (before == named)), slice_of(before == named)


def effects(answers: Slice, guesses: Slice) -> tuple[SkillTest, SkillTest]:
    skills = skills_by_place(answers, guesses)
    assert isinstance(skills, PlaceSkills)
    tests = [skill_test(skills.effect(end)) for end in (skills.start, skills.end)]
    assert isinstance(tests[0], SkillTest)
    assert isinstance(tests[1], SkillTest)
    return tests[0], tests[1]


@pytest.mark.parametrize("guess", ["first", "last", "second"])
def test_a_retriever_that_guesses_by_order_has_no_place_effect(guess):
    """p = .5 at every depth, else the first, last or second value: 200 seeds of 250 samples, each test at its 5 %, and
    both ends above the middle (lost in the middle) in fewer. In accuracy the first two differ by .2 between depths."""
    generator = np.random.default_rng(1)
    found, both, covered, wrong = 0, 0, 0, 0
    for _ in range(SEEDS):
        answers, guesses = oracle(generator, 0.5, guess)
        start, end = effects(answers, guesses)
        found += (start.p < 0.05) + (end.p < 0.05)
        both += max(start.p, end.p) < 0.05 and min(start.value, end.value) > 0
        skill = skill_of(answers, guesses)
        assert isinstance(skill, Skill)
        test = skill_test([(1.0, skill)])
        assert isinstance(test, SkillTest)
        covered += test.low <= 0.5 <= test.high
        raw = effects(answers, slice_of(np.zeros_like(guesses.hits)))
        wrong += min(raw[0].p, raw[1].p) < 0.05
    assert found <= 0.05 * 2 * SEEDS + 2 * (0.05 * 0.95 * 2 * SEEDS) ** 0.5
    assert both <= 0.05 * SEEDS
    assert covered >= 0.91 * SEEDS
    assert wrong > 0.9 * SEEDS or guess == "second"


@pytest.mark.parametrize("p", [0.1, 0.6])
def test_few_samples_left_to_be_found_are_no_small_variance(p):
    """Where the last value is named, a quarter of the samples in the last stratum can be found at all: at p = .1 often
    none is. The test of these as if nothing could vary there claimed a recency in half of the studies."""
    generator = np.random.default_rng(7)
    ends = [effects(*oracle(generator, p, "last", 100))[1] for _ in range(SEEDS)]
    assert sum(end.p < 0.05 for end in ends) <= 0.05 * SEEDS + 2 * (0.05 * 0.95 * SEEDS) ** 0.5
    assert sum(end.p < 0.001 for end in ends) <= 2


def test_a_true_loss_in_the_middle_is_seen_through_guessing():
    generator, both = np.random.default_rng(2), 0
    for _ in range(40):
        answers, guesses = oracle(generator, 0.8, "last")
        lost, _ = oracle(generator, 0.3, "last")
        answers.hits[1:4] = guesses.hits[1:4] | (lost.hits[1:4] & (generator.random((3, N)) < 0.5))
        start, end = effects(answers, guesses)
        both += max(start.p, end.p) < 0.05 and min(start.value, end.value) > 0
    assert both >= 38


def test_few_samples_that_agree_are_no_variance_of_zero():
    sides = [skill_of(slice_of(np.full((5, 20), value)), 0.0) for value in (1, 0)]
    assert all(isinstance(side, Skill) for side in sides)
    test = skill_test([(w, side) for w, side in zip((1.0, -1.0), sides, strict=True) if isinstance(side, Skill)])
    assert isinstance(test, SkillTest)
    assert 0.1 < test.high - test.low < 0.4


def test_the_interval_and_the_p_value_agree():
    generator = np.random.default_rng(3)
    for n in (25, 100):
        for _ in range(100):
            start, _ = effects(*oracle(generator, 0.4, "second", n))
            assert (start.p < 0.05) == (start.low > 0 or start.high < 0)


def test_one_answer_is_no_skill_though_nothing_is_guessed():
    """Nor are three of 40 samples; five are."""
    for right, resolved in ((0, False), (1, False), (3, False), (5, True)):
        skill = skill_of(slice_of(np.tile(np.arange(40) < right, (5, 1))), 0.0)
        assert isinstance(skill, Skill)
        assert (p_above_zero(skill) < 0.05) == resolved


def test_where_guessing_finds_everything_nothing_is_tested():
    full = slice_of(np.ones((5, 20)))
    assert isinstance(skill_of(full, full), Unavailable)
    chance = skill_of(full, slice_of(np.zeros((5, 20))), at_least=0.25)
    assert isinstance(chance, Skill)
    assert chance.guessed == 0.25


@pytest.mark.parametrize(
    ("depths", "middle"),
    [
        ((1 / 6, 0.5, 5 / 6), [0.5]),
        ((0.125, 0.375, 0.625, 0.875), [0.375, 0.625]),
        (DEPTHS, [0.3, 0.5, 0.7]),
        ((0.25, 0.75), None),
        ((0.5,), None),
    ],
)
def test_the_middle_is_the_strata_with_their_centre_in_the_middle_half(depths, middle):
    places = places_of(depths)
    assert (None if places is None else places.middle) == middle


@pytest.mark.parametrize("measured", [False, True])
def test_more_right_answers_never_pass_with_a_larger_p(measured):
    """50 samples at five depths against 0.85 of a perfect base, from all right to 25 wrong answers, one at a time: all
    right once had .015 and one wrong answer 5e-10."""
    generator = np.random.default_rng(8)
    guesses = slice_of(generator.random((5, 50)) < 0.3) if measured else 0.25
    base = skill_of(slice_of(np.ones((5, 50))), guesses, 0.25)
    assert isinstance(base, Skill)
    for spread in (False, True):  # over samples, or sample by sample
        order = generator.permutation(250) if spread else np.arange(250).reshape(5, 50).T.ravel()
        p, hits = [], np.ones(250)
        for wrong in [None, *order[:25]]:
            hits[[] if wrong is None else wrong] = 0
            skill = skill_of(slice_of(hits.reshape(5, 50)), guesses, 0.25)
            assert isinstance(skill, Skill)
            test = skill_test([(1.0, skill), (-0.85, base)])
            assert isinstance(test, SkillTest)
            p.append(test.p_above)
        assert all(np.diff(p) >= -1e-12), (spread, p)
        assert p[0] < 0.01
