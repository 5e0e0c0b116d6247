"""Wilson's interval against scipy, by exact coverage and by simulated coverage of clusters."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from lcprobe.analysis.stats.effective_samples import least_sample_size
from lcprobe.analysis.stats.intervals import clustered_wilson, mean_of_cells, wilson
from validation.coverage import FINE_SHARES, exact_wilson


@given(n=st.integers(1, 3000), proportion=st.floats(0, 1))
def test_wilson_equals_scipy(n, proportion):
    k = round(proportion * n)
    low, high = wilson(k, n)
    exact = stats.binomtest(k, n).proportion_ci(0.95, method="wilson")
    assert (float(low), float(high)) == pytest.approx((exact.low, exact.high), abs=1e-12)


def test_wilson_at_the_ends_is_closed_there_and_open_on_the_other_side():
    low, high = wilson([0, 250, 0], [250, 250, 0])
    assert low.tolist() == pytest.approx([0, 0.98487, 0], abs=1e-5)
    assert high.tolist() == pytest.approx([0.01513, 1, 1], abs=1e-5)


def test_wilson_covers_95_percent_on_average_over_p_and_never_less_than_91():
    """4000 draws at n = 100 for each p in .02, .04, .. .98: the mean over p within 93-97 %, each p above 91 %."""
    generator = np.random.default_rng(1)
    ps = np.arange(0.02, 0.99, 0.02)
    low, high = wilson(generator.binomial(100, ps, (4000, len(ps))), 100)
    covered = ((low <= ps) & (ps <= high)).mean(axis=0)
    assert 0.93 <= covered.mean() <= 0.97
    assert covered.min() > 0.91


@pytest.mark.parametrize(
    ("n", "lowest", "highest"), [(50, 0.92, 0.98), (100, 0.927, 0.976), (250, 0.94, 0.967), (1000, 0.94, 0.96)]
)
def test_wilson_has_the_stated_coverage_at_every_p(n, lowest, highest):
    """Summed over all outcomes, p from .02 to .98 in steps of .0025: within 93-97 % everywhere from 250 trials on."""
    covered = exact_wilson(n, FINE_SHARES)
    assert lowest <= covered.min()
    assert covered.max() <= highest
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
    """500 studies per p, 100 samples with 5 questions. The minimum allows two standard errors below 95 %."""
    generator = np.random.default_rng(7)
    for p in (0.02, 0.05, 0.2, 0.5, 0.8, 0.95, 0.98):
        spread = 1 / correlation - 1
        hits = generator.binomial(5, generator.beta(p * spread, (1 - p) * spread, (500, 100)))
        low, high = clustered_wilson(hits, np.full(100, 5))
        covered = ((low <= p) & (p <= high)).mean()
        assert 0.925 <= covered <= 0.99, p


def test_clustered_wilson_counts_clusters_where_every_trial_is_right():
    bounds = list(map(float, clustered_wilson(np.full(100, 5), np.full(100, 5))))
    assert bounds == pytest.approx([0.9630, 1], abs=1e-4)


def test_one_sample_that_is_wrong_is_no_weaker_evidence_than_half_of_them():
    """495 of 500 with one whole sample wrong had 0.826 - 1.000, two of a hundred samples wrong 0.894 - 0.998."""
    bounds = []
    for wrong in range(4):
        hits = np.repeat([0, 5], [wrong, 100 - wrong])
        bounds.append([float(x) for x in clustered_wilson(hits, np.full(100, 5))])
        assert bounds[-1] == pytest.approx([float(x) for x in wilson(100 - wrong, 100)], abs=1e-8)
    assert bounds == sorted(bounds, reverse=True)


TABLES = st.integers(2, 9).flatmap(
    lambda n: st.lists(st.integers(1, 6), min_size=n, max_size=n).flatmap(
        lambda trials: st.tuples(st.tuples(*[st.integers(0, m) for m in trials]), st.just(tuple(trials)))
    )
)


@settings(max_examples=150, deadline=None)
@given(table=TABLES, data=st.data())
def test_a_miss_that_becomes_a_hit_lowers_no_bound(table, data):
    """Clusters of equal and unequal sizes, any outcome."""
    hits, trials = map(np.array, table)
    missed = np.flatnonzero(hits < trials)
    if len(missed):
        more = hits.copy()
        more[data.draw(st.sampled_from(missed.tolist()))] += 1
        (low, high), (low_more, high_more) = clustered_wilson(hits, trials), clustered_wilson(more, trials)
        assert low_more >= low - 1e-8
        assert high_more >= high - 1e-8


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6), m=st.sampled_from([2, 5, 20]), p=st.sampled_from([0.02, 0.3, 0.9, 0.99]))
def test_hits_one_by_one_from_none_to_all_raise_both_bounds(seed, m, p):
    """Over samples that are all right or all wrong, and others: along a path through one study and its subsets."""
    generator = np.random.default_rng(seed)
    right = np.where(generator.random((25, 1)) < 0.3, generator.random((25, 1)) < p, generator.random((25, m)) < p)
    order = np.lexsort([generator.random(25 * m), ~right.ravel()])
    path = np.tril(np.ones((25 * m + 1, 25 * m)), -1)[:, np.argsort(order)]
    low, high = clustered_wilson(path.reshape(-1, 25, m).sum(axis=2), np.full(25, m))
    assert np.diff(low).min() >= -1e-8
    assert np.diff(high).min() >= -1e-8


@settings(max_examples=80, deadline=None)
@given(table=TABLES)
def test_a_cluster_is_worth_at_least_one_trial_and_at_most_its_trials(table):
    """The interval lies within Wilson's of (sum m)^2 / sum m^2 trials; and contains that of all trials, or of all
    clusters with the same outcome."""
    hits, trials = map(np.array, table)
    low, high = map(float, clustered_wilson(hits, trials))
    least = float(least_sample_size(trials))
    widest = [float(x) for x in wilson(hits.sum() / trials.sum() * least, least)]
    assert widest[0] - 1e-8 <= low <= hits.sum() / trials.sum() + 1e-8
    assert hits.sum() / trials.sum() - 1e-8 <= high <= widest[1] + 1e-8
    narrow = [float(x) for x in wilson(hits.sum(), trials.sum())]
    assert low <= narrow[0] + 1e-8
    assert high >= narrow[1] - 1e-8


@settings(max_examples=80, deadline=None)
@given(seed=st.integers(0, 10**6), cells=st.integers(2, 6), asked=st.sampled_from([1, 3]), shared=st.booleans())
def test_a_mean_is_not_wider_than_the_widest_of_its_cells(seed, cells, asked, shared):
    """Cells that are alike, apart, copies of each other, all right or all wrong."""
    generator = np.random.default_rng(seed)
    p = generator.choice([0.0, 0.02, 0.5, 0.9, 1.0], (cells, 1))
    hits = (generator.random((1 if shared else cells, 30)) < p) * generator.integers(1, asked + 1, (cells, 30))
    trials = np.full((cells, 30), asked)
    low, high = mean_of_cells(hits, trials)
    lows, highs = clustered_wilson(hits, trials)
    assert high - low <= (highs - lows).max() + 1e-8
    assert low - 1e-8 <= hits.sum() / trials.sum() <= high + 1e-8


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 500), correlation=st.sampled_from([0.01, 0.3, 0.9]))
def test_a_batch_of_studies_equals_each_by_itself(seed, correlation):
    """Ragged ones too: clusters without a trial do not count."""
    generator, spread = np.random.default_rng(seed), 1 / correlation - 1
    trials = generator.integers(0, 6, (7, 12))
    hits = generator.binomial(trials, generator.beta(0.7 * spread, 0.3 * spread, (7, 12)))
    low, high = clustered_wilson(hits, trials)
    for i in range(7):
        has_trials = trials[i] > 0
        own = clustered_wilson(hits[i][has_trials], trials[i][has_trials])
        assert [low[i], high[i]] == pytest.approx(list(map(float, own)), abs=1e-9)
