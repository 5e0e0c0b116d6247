"""The fit of an exponential decay: simulated coverage of its interval."""

import numpy as np

from lcprobe.analysis.stats.exponential_fit import fit_decay


def test_the_interval_covers():
    """150 simulated models, 80 samples at 12 distances each; every sample has a strength of its own."""
    generator, distance = np.random.default_rng(3), np.geomspace(8, 1000, 12)
    covered = 0
    for _ in range(150):
        strength = generator.beta(8, 2, (80, 1))
        hits = generator.random((80, 12)) < strength * 2.0 ** (-distance / 120)
        _, low, high, _ = fit_decay(distance, hits.astype(float), np.ones((80, 12)), 0.0)
        covered += low <= 120 <= high
    assert 0.90 <= covered / 150 <= 0.99
