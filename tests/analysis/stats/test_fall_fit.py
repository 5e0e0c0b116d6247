"""The fit of a fall: each replicate against a fit shape by shape, and no fall that the samples do not support."""

import itertools
import math

import numpy as np
import pytest

from lcprobe.analysis.stats.fall_fit import (
    FALL_STEPS_PER_OCTAVE,
    NEAREST_TRIALS,
    STEEPNESS,
    falls_of,
    fit_fall,
)


def test_a_fall_that_the_samples_do_not_support_is_none():
    """3 of 40 samples reach the longest distance and 2 of them miss there: many resamples have no fall."""
    distance, trials = np.array([10.0, 50, 200, 400, 800]), np.ones((40, 5))
    trials[3:, 4] = 0
    hits = trials * np.where(np.arange(40)[:, None] % 5 == 4, 0, 1)
    hits[:2, 4] = 0
    tokens, low, high, between, curve = fit_fall(distance, hits, trials, 0.0, distance)
    assert (tokens, high, between) == (None, None, None)
    assert low is not None
    assert low <= 400, "accuracy may be lost from there on"
    assert curve[-1][1] < 0.5, "by the best fit"


@pytest.mark.parametrize("kind", ["window", "gentle"])
def test_the_fit_of_every_replicate_is_that_of_a_fit_by_hand(kind):
    """Least squares over the same shapes one by one, with no level below zero; 150 replicates are three blocks."""
    generator, distance = np.random.default_rng(8), np.unique(np.round(np.geomspace(10, 1000, 12)))
    p = {"window": (distance < 90) * 0.9, "gentle": 0.9 / (1 + (distance / 120) ** 2)}[kind]
    trials = generator.integers(5, 30, (150, 12)).astype(float)
    hits = generator.binomial(trials.astype(int), p).astype(float)
    fitted, _ = falls_of(distance, hits, trials, 0.0)
    shortest = distance[np.searchsorted(np.cumsum(trials[0]) / trials[0].sum(), NEAREST_TRIALS)]
    octaves = math.log2(distance[-1] * 2 / shortest)
    places = np.geomspace(shortest, distance[-1] * 2, FALL_STEPS_PER_OCTAVE * max(1, round(octaves)))
    for k, t, reached in list(zip(hits, trials, fitted, strict=True))[::7]:
        best_error, falls = math.inf, []
        for r, s in itertools.product(places, STEEPNESS):
            with np.errstate(over="ignore"):
                g = 1 / (1 + (distance / r) ** s)
            a = np.stack([np.ones(12), g]).T * np.sqrt(t)[:, None]
            b, c = np.linalg.lstsq(a, k / t * np.sqrt(t), rcond=None)[0]
            if b < 0:
                b, c = 0.0, float(k @ g / (t @ (g * g)))
            error = float((t * (k / t - b - c * g) ** 2).sum())
            level = b + c * g[0]
            if c > 1e-9:
                proportion = (level / 2 - b) / c
                at = r * (1 / proportion - 1) ** (1 / s) if 0 < proportion < 1 else math.inf
                falls.append((error, at if at <= distance[-1] else math.inf))
                best_error = min(best_error, error)
        near = [at for error, at in falls if error <= best_error + 1e-6 * t.sum()]
        assert min(near) * (1 - 1e-6) <= reached <= max(near) * (1 + 1e-6)
