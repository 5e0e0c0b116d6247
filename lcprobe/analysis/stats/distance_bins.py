"""Accuracy in bins of distance, half an octave each, and how far a fitted curve is from them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lcprobe.analysis.stats.estimates import Proportion, proportion_of

MIN_TRIALS_PER_BIN = 10
"""Smaller bins are merged with their neighbour."""


@dataclass(frozen=True)
class DistanceBin:
    """Trials with a distance in [low, high]; distance: their median."""

    low: int
    high: int
    distance: float
    estimate: Proportion


def distance_bins(
    distance: np.ndarray, sample: np.ndarray, hit: np.ndarray, n_samples: int
) -> tuple[DistanceBin, ...]:
    """Bins of (n_trials,) trials in ascending distance; sample: 0 .. n_samples - 1, the clusters."""
    code = np.floor(2 * np.log2(np.maximum(distance, 1))).astype(int)
    groups: list[np.ndarray] = []
    for value in np.unique(code):
        rows = np.nonzero(code == value)[0]
        if groups and (len(rows) < MIN_TRIALS_PER_BIN or len(groups[-1]) < MIN_TRIALS_PER_BIN):
            groups[-1] = np.concatenate([groups[-1], rows])
        else:
            groups.append(rows)
    bins = []
    for rows in groups:
        near, far = int(distance[rows].min()), int(distance[rows].max())
        median = float(np.median(distance[rows]))
        bins.append(DistanceBin(near, far, median, proportion_of_rows(sample[rows], hit[rows], n_samples)))
    return tuple(bins)


def proportion_of_rows(sample: np.ndarray, hit: np.ndarray, n_samples: int) -> Proportion:
    """Proportion of (n_trials,) trials, clustered by sample."""
    return proportion_of(*(np.bincount(sample, w, minlength=n_samples) for w in (hit, np.ones(len(hit)))))


def misfit(bins: Sequence[DistanceBin], distance: np.ndarray, trials: np.ndarray, expected: np.ndarray) -> float:
    """Misfit of a two-parameter curve: the normal score of its chi-square over bins (Wilson & Hilferty 1931).

    distance, trials, expected: (n_distances,) with the number of trials and the fitted probability at each.
    """
    total, used = 0.0, 0
    for one in bins:
        inside = (distance >= one.low - 0.5) & (distance <= one.high + 0.5)
        n = trials[inside].sum()
        if n < 1:
            continue
        p = float((trials[inside] * expected[inside]).sum() / n)
        variance = max(p * (1 - p), 1 / (4 * one.estimate.n)) / one.estimate.n
        total, used = total + (one.estimate.value - p) ** 2 / variance, used + 1
    df = max(1, used - 2)
    return ((total / df) ** (1 / 3) - (1 - 2 / (9 * df))) / math.sqrt(2 / (9 * df))
