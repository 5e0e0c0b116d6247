"""Exact tests of paired samples, and Holm's correction for many of them.

No resampling and no normal approximation: the distribution of the statistic is the inverse of its characteristic
function by one FFT. Sources: Fisher 1935 (randomisation); McNemar 1947; Holm 1979.
"""

import math
from collections.abc import Iterator, Sequence

import numpy as np

ALPHA = 0.05
"""Significance level, two-sided, after Holm's correction."""


def sign_flip(difference: np.ndarray) -> float:
    """Exact two-sided p that paired integer differences (n,) have mean zero: each sign equally likely either way.

    The sum has the characteristic function prod cos(|d_i| t). With differences of -1, 0, 1 it is McNemar's exact
    test. Raises ValueError for fractions.
    """
    whole = np.rint(difference).astype(np.int64)
    if not np.allclose(whole, difference, atol=1e-6):
        raise ValueError("sign_flip: differences must be whole numbers: multiply by a common denominator")
    sizes, counts = np.unique(np.abs(whole[whole != 0]), return_counts=True)
    if len(sizes) == 0:
        return 1.0
    sizes = sizes // (unit := int(np.gcd.reduce(sizes)))
    reach, observed = int(sizes @ counts), abs(int(whole.sum())) // unit
    points = 1 << (2 * reach + 1).bit_length()
    angle = 2 * np.pi * np.arange(points // 2 + 1) / points
    spectrum = np.ones_like(angle)
    for size, count in zip(sizes, counts, strict=True):
        spectrum *= np.cos(size * angle) ** int(count)
    probabilities = np.clip(np.fft.irfft(spectrum, points), 0, None)
    tail = 2 * float(probabilities[observed : reach + 1].sum()) if observed else 1.0
    floor = math.exp((1 - int(counts.sum())) * math.log(2))  # all signs equal; the FFT's own error is 1e-16
    return min(1.0, max(tail, floor))


def permutation_test(values: np.ndarray, groups: Sequence[int], weights: Sequence[int]) -> float:
    """Exact two-sided p of a contrast, if a sample's values are exchangeable between its conditions.

    values: (n, m) whole numbers of n samples in m conditions. groups: (m,) the group of each condition, 0 ..
    len(weights) - 1. weights: weight of a value in each group; over all conditions they sum to zero. The statistic is
    the sum of weight x value, compared with every assignment of a sample's m values to its conditions, samples
    independent. A sign-flip test does not do where groups differ in size: one condition against the mean of three is
    skewed near 0 and 1, and its false-positive rate is twice its level.
    """
    assigned = np.array([weights[group] for group in groups], np.int64)
    whole = np.rint(values).astype(np.int64)
    if assigned.sum() or not np.allclose(whole, values, atol=1e-6):
        raise ValueError("permutation_test: values must be whole numbers, and weights sum to zero")
    patterns, counts = np.unique(np.sort(whole, axis=1), axis=0, return_counts=True)
    orders = np.array(list(_distinct_orders(tuple(assigned.tolist()))))
    outcomes = patterns @ orders.T  # (n_patterns, n_orders)
    observed, reach = abs(int((whole @ assigned).sum())), int(np.abs(outcomes).max(axis=1) @ counts)
    if not observed:
        return 1.0
    points = 1 << (2 * reach + 1).bit_length()
    angle = 2 * np.pi * np.arange(points // 2 + 1) / points
    spectrum = np.ones(len(angle), complex)
    for row, count in zip(outcomes, counts, strict=True):
        levels, times = np.unique(row, return_counts=True)
        spectrum *= (np.exp(-1j * np.outer(angle, levels)) @ (times / times.sum())) ** int(count)
    probabilities = np.clip(np.fft.irfft(spectrum, points), 0, None)
    upper, lower = probabilities[observed : reach + 1], probabilities[points - reach : points - observed + 1]
    return min(1.0, max(float(upper.sum() + lower.sum()), 1e-15))  # the FFT's own error


def _distinct_orders(weights: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
    """Every distinct order of the weights, each once: few, as there are two or three different weights."""
    if not weights:
        yield ()
    for first in sorted(set(weights)):
        rest = list(weights)
        rest.remove(first)
        for more in _distinct_orders(tuple(rest)):
            yield (first, *more)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down adjusted p-values of one family, in the order given."""
    order = np.argsort(np.asarray(p_values, float), kind="stable")
    adjusted, running = [0.0] * len(order), 0.0
    for rank, i in enumerate(order):
        running = max(running, min(1.0, (len(order) - rank) * p_values[i]))
        adjusted[i] = running
    return adjusted
