"""Bins of distance partition the trials, and the misfit is small for the curve that made them and large for another."""

import numpy as np

from lcprobe.analysis.stats.distance_bins import MIN_TRIALS_PER_BIN, distance_bins, misfit


def simulated(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Distances, samples and hits of 60 samples at 12 distances, p = 0.9 * 2 ** (-d / 120)."""
    generator, places = np.random.default_rng(seed), np.round(np.geomspace(8, 1000, 12))
    distance, sample = np.tile(places, 60), np.repeat(np.arange(60), 12)
    return distance, sample, (generator.random(720) < 0.9 * 2.0 ** (-distance / 120)).astype(float)


def test_bins_are_ascending_and_have_every_trial_once():
    distance, sample, hit = simulated(0)
    bins = distance_bins(distance, sample, hit, 60)
    assert sum(b.estimate.n for b in bins) == 720
    assert sum(b.estimate.k for b in bins) == hit.sum()
    assert all(a.high < b.low for a, b in zip(bins, bins[1:], strict=False))
    assert all(b.low <= b.distance <= b.high and b.estimate.samples <= 60 for b in bins)


def test_small_bins_are_merged_with_their_neighbour():
    distance = np.repeat([10.0, 100.0, 1000.0], [50, MIN_TRIALS_PER_BIN - 1, 50])
    bins = distance_bins(distance, np.arange(len(distance)), np.ones(len(distance)), len(distance))
    assert [(b.low, b.high) for b in bins] == [(10, 100), (1000, 1000)]


def test_the_misfit_is_a_normal_score_for_the_true_curve():
    scores = {"true": [], "flat": []}
    for seed in range(200):
        distance, sample, hit = simulated(seed)
        bins, places = distance_bins(distance, sample, hit, 60), np.unique(distance)
        for name, p in (("true", 0.9 * 2.0 ** (-places / 120)), ("flat", np.full(12, hit.mean()))):
            scores[name].append(misfit(bins, places, np.full(12, 60.0), p))
    assert np.mean(np.array(scores["true"]) > 3.09) <= 0.02
    assert min(scores["flat"]) > 3.09
