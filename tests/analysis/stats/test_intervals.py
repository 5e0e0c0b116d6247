"""Intervals and exact tests against scipy, against hand examples, and by simulated coverage."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from lcprobe.analysis.stats.intervals import (
    clustered_wilson,
    effective_trials,
    holm,
    permutation_test,
    resample_weights,
    sign_flip,
    t975,
    t_quantile,
    wilson,
)
from validation.coverage import FINE, exact_wilson


@given(n=st.integers(1, 3000), share=st.floats(0, 1))
def test_wilson_equals_scipy(n, share):
    k = round(share * n)
    low, high = wilson(k, n)
    exact = stats.binomtest(k, n).proportion_ci(0.95, method="wilson")
    assert (float(low), float(high)) == pytest.approx((exact.low, exact.high), abs=1e-12)


def test_wilson_at_the_ends_is_closed_there_and_open_on_the_other_side():
    low, high = wilson([0, 250, 0], [250, 250, 0])
    assert low.tolist() == pytest.approx([0, 0.98487, 0], abs=1e-5)
    assert high.tolist() == pytest.approx([0.01513, 1, 1], abs=1e-5)


def test_wilson_covers_95_percent_on_average_over_p_and_never_less_than_91():
    """Simulated: 4000 draws at n = 100 for each p in .02, .04, .. .98; the mean over p within 93-97 %, each p above 91 %."""
    generator = np.random.default_rng(1)
    ps = np.arange(0.02, 0.99, 0.02)
    low, high = wilson(generator.binomial(100, ps, (4000, len(ps))), 100)
    covered = ((low <= ps) & (ps <= high)).mean(axis=0)
    assert 0.93 <= covered.mean() <= 0.97
    assert covered.min() > 0.91


@pytest.mark.parametrize(
    ("n", "least", "most"), [(50, 0.92, 0.98), (100, 0.927, 0.976), (250, 0.94, 0.967), (1000, 0.94, 0.96)]
)
def test_wilson_covers_exactly_what_is_said_at_every_p(n, least, most):
    """Summed over all outcomes, p from .02 to .98 in steps of .0025: within 93-97 % everywhere from 250 trials on."""
    covered = exact_wilson(n, FINE)
    assert least <= covered.min()
    assert covered.max() <= most
    assert covered.mean() == pytest.approx(0.95, abs=0.003)
    k = stats.binom.ppf([1e-9, 1 - 1e-9], n, 0.3)
    own = sum(
        stats.binom.pmf(j, n, 0.3)
        for j in range(int(k[0]), int(k[1]) + 1)
        if wilson(j, n)[0] <= 0.3 <= wilson(j, n)[1]
    )
    assert exact_wilson(n, np.array([0.3]))[0] == pytest.approx(own, abs=1e-7)


@pytest.mark.parametrize("correlation", [0.001, 0.3])
def test_clustered_wilson_covers_at_every_p(correlation):
    """100 samples asked 5 times, 500 studies a share. The least is that of 92 % true coverage, two standard errors below."""
    generator = np.random.default_rng(7)
    for p in (0.02, 0.05, 0.2, 0.5, 0.8, 0.95, 0.98):
        spread = 1 / correlation - 1
        hits = generator.binomial(5, generator.beta(p * spread, (1 - p) * spread, (500, 100)))
        bounds = np.array([clustered_wilson(h, np.full(100, 5)) for h in hits])
        covered = ((bounds[:, 0] <= p) & (p <= bounds[:, 1])).mean()
        assert 0.925 <= covered <= 0.99, p


@given(b=st.integers(0, 60), c=st.integers(0, 60), ties=st.integers(0, 20))
def test_sign_flip_on_single_trials_is_mcnemars_exact_test(b, c, ties):
    exact = stats.binomtest(b, b + c).pvalue if b + c else 1.0
    difference = np.repeat([1, -1, 0], [b, c, ties])
    assert sign_flip(difference) == pytest.approx(exact, rel=1e-6, abs=1e-13)


@settings(max_examples=60)
@given(st.lists(st.integers(-6, 6), min_size=1, max_size=11))
def test_sign_flip_equals_the_enumeration_of_all_signs(values):
    d = np.array(values)
    signs = np.array(np.meshgrid(*[[-1, 1]] * len(d))).reshape(len(d), -1)
    share = (np.abs(signs.T @ d) >= abs(d.sum())).mean()
    assert sign_flip(d) == pytest.approx(share, abs=1e-12)


def test_sign_flip_refuses_fractions():
    with pytest.raises(ValueError, match="whole numbers"):
        sign_flip(np.array([0.5, 1.0]))


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(*[st.integers(0, 2)] * 4), min_size=1, max_size=4))
def test_exchanged_equals_the_enumeration_of_all_orders(rows):
    values, weights = np.array(rows), np.array([3, -1, -1, -1])
    totals = [0]
    for row in rows:
        totals = [t + int(np.dot(weights, order)) for t in totals for order in itertools.permutations(row)]
    seen = abs(int((values @ weights).sum()))
    assert permutation_test(values, [0, 1, 1, 1], [3, -1]) == pytest.approx(np.mean(np.abs(totals) >= seen), abs=1e-9)


@given(b=st.integers(0, 30), c=st.integers(0, 30))
def test_exchanged_on_two_places_is_mcnemars_test(b, c):
    values = np.array([[1, 0]] * b + [[0, 1]] * c + [[1, 1]])
    assert permutation_test(values, [0, 1], [1, -1]) == pytest.approx(
        sign_flip(values[:, 0] - values[:, 1]), abs=1e-9
    )


def test_one_place_against_three_holds_its_level_near_the_ceiling_where_signs_do_not():
    """30 samples of a flat .9, 1500 studies at .01: what a Holm family asks of its smallest p."""
    generator = np.random.default_rng(4)
    studies = (generator.uniform(size=(1500, 30, 4)) < 0.9).astype(int)
    orders = np.mean([permutation_test(x, [0, 1, 1, 1], [3, -1]) < 0.01 for x in studies])
    signs = np.mean([sign_flip(x @ [3, -1, -1, -1]) < 0.01 for x in studies])
    assert orders < 0.016
    assert signs > 0.018


def test_holm_by_hand():
    # sorted: .01 x 4, .02 x 3, .025 x 2 = .05 but never below the one before, .5 x 1
    assert holm([0.5, 0.01, 0.025, 0.02]) == pytest.approx([0.5, 0.04, 0.06, 0.06])
    assert holm([]) == []


@given(p=st.floats(0.51, 0.999), df=st.floats(1, 400))
def test_t_quantile_equals_scipy(p, df):
    assert t_quantile(p, df) == pytest.approx(stats.t.ppf(p, df), rel=1e-7)


@given(df=st.one_of(st.floats(1, 2000), st.just(math.inf)))
def test_t975_equals_scipy_at_degrees_of_freedom_whole_or_not(df):
    assert t975(df) == pytest.approx(stats.t.ppf(0.975, df), rel=1e-8)
    assert t975(np.array([[df, 3.5]])).shape == (1, 2)


def test_clustered_wilson_counts_clusters_where_every_trial_is_right():
    found = list(map(float, clustered_wilson(np.full(100, 5), np.full(100, 5))))
    assert found == pytest.approx([0.9630, 1], abs=1e-4)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 500), correlation=st.sampled_from([0.01, 0.3, 0.9]))
def test_many_studies_at_once_are_each_by_itself(seed, correlation):
    """Ragged ones too: clusters without a trial are no clusters."""
    generator, spread = np.random.default_rng(seed), 1 / correlation - 1
    trials = generator.integers(0, 6, (7, 12))
    hits = generator.binomial(trials, generator.beta(0.7 * spread, 0.3 * spread, (7, 12)))
    low, high = clustered_wilson(hits, trials)
    for i in range(7):
        asked = trials[i] > 0
        own = clustered_wilson(hits[i][asked], trials[i][asked])
        assert [low[i], high[i]] == pytest.approx(list(map(float, own)), abs=1e-12)


def test_clustered_trials_are_worth_less_than_independent_ones():
    generator = np.random.default_rng(3)
    single = generator.binomial(1, 0.6, 100)
    assert list(map(float, clustered_wilson(single, np.ones(100)))) == pytest.approx(
        [float(x) for x in wilson(single.sum(), 100)]
    )
    copied = single * 4  # four questions a sample, all answered alike: still 100 trials
    assert effective_trials(copied, np.full(100, 4)) == pytest.approx(100, rel=0.02)
    independent = generator.binomial(4, 0.6, 100)
    assert 250 < effective_trials(independent, np.full(100, 4)) <= 400


def test_draws_depend_on_nothing_but_n():
    first = resample_weights(37).copy()
    resample_weights.cache_clear()
    np.random.seed(4)
    assert np.array_equal(first, resample_weights(37))
    assert (first.sum(axis=1) == 37).all()
