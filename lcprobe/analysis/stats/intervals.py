"""Intervals and exact tests for successes that come in clusters: what every statement of the report rests on.

A cluster is a sample (`index`): it owns its haystack window, key and value, and is asked again in every cell and model, so
resampling and pairing are by sample. Sources: Wilson 1927; Brown, Cai & DasGupta 2001 (why Wilson and not p +- 2 se);
Korn & Graubard 1998 (effective sample size); Hesterberg 2015, arXiv 1411.5279 (expanded percentile interval); Fisher's sign-flip
randomisation; Holm 1979. numpy and math only, and no generator state: the same names give the same draws. Intervals of
differences and ratios are in differences.py.
"""

import math
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.polynomial import Chebyshev

from lcprobe.seeds import Stream

Z95 = 1.959963984540054
RESAMPLES = 2000
LARGE = 400
"""Degrees of freedom from which Student's t is taken for normal: within half a per cent."""
ENOUGH = 250
"""Samples from which a 95 % interval of one cell covers 93 to 97 % at every share from .02 to .98 (validation/coverage.py)."""
Bounds = tuple[float, float]


def wilson(k: Any, n: Any, z: float = Z95) -> tuple[np.ndarray, np.ndarray]:
    """Lower and upper bound for k successes in n trials, arrays or numbers; n may be an effective, fractional number.

    0 of n has a lower bound of exactly 0, n of n an upper bound of exactly 1, 0 of 0 gives 0 .. 1.
    """
    k, n = np.broadcast_arrays(np.asarray(k, float), np.asarray(n, float))
    safe = np.where(n > 0, n, 1.0)
    p = k / safe
    centre = (p + z * z / (2 * safe)) / (1 + z * z / safe)
    half = z / (1 + z * z / safe) * np.sqrt(p * (1 - p) / safe + z * z / (4 * safe * safe))
    low = np.where((n > 0) & (k > 0), np.clip(centre - half, 0, 1), 0.0)
    high = np.where((n > 0) & (k < n), np.clip(centre + half, 0, 1), 1.0)
    return low, high


def effective_trials(hits: np.ndarray, trials: np.ndarray) -> Any:
    """How many independent trials clusters are worth: trials / design effect, never more than there are. (..., n) -> (...,).

    The design effect is itself an estimate, and where few clusters make up the variance (shares near 0 or 1) a poor one: by
    chance low together with the share, so that the interval misses. Student's t with the degrees of freedom of that variance
    (Satterthwaite 1946, from the kurtosis of the clusters) in place of z makes up for it. Where every trial has the same
    outcome nothing can be learnt about the correlation inside clusters, and only the clusters count.
    """
    hits, trials = np.broadcast_arrays(np.asarray(hits, float), np.asarray(trials, float))
    n, clusters = trials.sum(axis=-1), (trials > 0).sum(axis=-1)
    p = hits.sum(axis=-1) / np.maximum(n, 1)
    squares = (hits - p[..., None] * trials) ** 2
    variance = clusters / np.maximum(clusters - 1, 1) * squares.sum(axis=-1) / np.maximum(n, 1) ** 2
    worth = n / np.maximum(1.0, variance * n / np.maximum(p * (1 - p), 1e-12))
    worth = worth * (Z95 / t975(freedom(squares, clusters))) ** 2
    same = (p == 0) | (p == 1) | (clusters == 1)
    return np.where((clusters == 0) | (trials.max(axis=-1) <= 1), n, np.where(same, clusters, worth))[()]


def freedom(squares: np.ndarray, n: Any) -> np.ndarray:
    """(...,) degrees of freedom of variances made of n squared deviations (..., n): 2 mean^2 / their variance, 2 .. LARGE."""
    known = np.sum(squares**2, axis=-1) / np.maximum(squares.sum(axis=-1), 1e-12) ** 2 - 1 / np.maximum(n, 1)
    return np.where(known > 2 / LARGE, np.clip(np.rint(2 / np.maximum(known, 1e-12)), 2, LARGE), LARGE)


def t975(df: Any) -> Any:
    """97.5 % quantiles of Student's t at degrees of freedom of any shape, 1 .. infinity, to eight digits."""
    return np.exp(_log_t975()(1 / np.asarray(df, float)))


@lru_cache
def _log_t975() -> Chebyshev:
    """Over 1 / degrees of freedom, 0 .. 1."""
    return Chebyshev.interpolate(lambda us: np.array([math.log(t_quantile(0.975, 1 / u)) for u in us]), 20, [0, 1])


def clustered_wilson(hits: np.ndarray, trials: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Wilson's bounds for clusters of successes and trials, (..., n) -> two (...,); plain where each is one trial."""
    n, worth = np.sum(trials, axis=-1), effective_trials(hits, trials)
    return wilson(np.sum(hits, axis=-1) / np.maximum(n, 1) * worth, worth)


def binomial_tail(k: int, n: int, p: float) -> float:
    """P(X >= k) for X successes in n trials of probability p, exactly."""
    return 1.0 if k <= 0 else min(1.0, float(_binomial(n, p)[k:].sum()))


def binomial_range(n: int, p: float) -> Bounds:
    """The shares in which at least 95 % of the outcomes of n trials lie, with at most 2.5 % on either side."""
    below = np.cumsum(_binomial(n, p))
    low, high = int(np.searchsorted(below, 0.025, side="right")), int(np.searchsorted(below, 0.975 - 1e-12))
    return low / n, min(high, n) / n


def _binomial(n: int, p: float) -> np.ndarray:
    """(n + 1,) probabilities of 0 .. n successes."""
    if p in (0.0, 1.0):
        return np.eye(n + 1)[n if p else 0]
    factorials = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, n + 1)))])
    k = np.arange(n + 1)
    return np.exp(factorials[n] - factorials - factorials[::-1] + k * math.log(p) + (n - k) * math.log1p(-p))


@lru_cache(maxsize=8)
def resample_weights(n: int, resamples: int = RESAMPLES) -> np.ndarray:
    """(resamples, n) float32: how often each of n clusters is drawn. Equal n share their draws, so sides stay paired."""
    drawn = Stream("lcprobe", "cluster bootstrap", n).integers(n, resamples * n)
    flat = np.repeat(np.arange(resamples), n) * n + drawn
    weights = np.bincount(flat, minlength=resamples * n).reshape(resamples, n).astype(np.float32)
    weights.flags.writeable = False
    return weights


def resampled(values: np.ndarray, resamples: int = RESAMPLES) -> np.ndarray:
    """(resamples, ...) float64 sums of (n, ...) values over clusters drawn with replacement.

    Single precision inside: counts below 2^24 are exact in it, and a mixed product would copy all weights each time.
    """
    return (resample_weights(len(values), resamples) @ values.astype(np.float32)).astype(np.float64)


def percentile_bounds(replicates: np.ndarray, n: int) -> Bounds:
    """95 % bounds from (resamples,) replicates of a statistic over n clusters.

    Percentiles are widened for small n (Hesterberg 2015, eq. 12: t instead of z and n/(n-1)), without which 20 clusters
    cover 92 % instead of 95 %. Infinite replicates are allowed and give infinite bounds.
    """
    if n < 2:
        return -math.inf, math.inf
    tail = 0.5 * math.erfc(math.sqrt(n / (n - 1)) * t_quantile(0.975, n - 1) / math.sqrt(2))
    ranked = np.sort(replicates)
    last = len(ranked) - 1
    return float(ranked[math.floor(tail * last)]), float(ranked[math.ceil((1 - tail) * last)])


def sign_flip(difference: np.ndarray) -> float:
    """Exact two-sided p that paired integer differences (n,) have mean zero: each sign equally likely either way.

    The distribution of the sum has the characteristic function prod cos(|d_i| t), inverted by one FFT; no resampling and no
    normal approximation. With differences of -1, 0, 1 it is McNemar's exact test. Raises ValueError for fractions.
    """
    whole = np.rint(difference).astype(np.int64)
    if not np.allclose(whole, difference, atol=1e-6):
        raise ValueError("sign_flip: differences must be whole numbers: multiply by a common denominator")
    sizes, counts = np.unique(np.abs(whole[whole != 0]), return_counts=True)
    if len(sizes) == 0:
        return 1.0
    sizes = sizes // (unit := int(np.gcd.reduce(sizes)))
    reach, seen = int(sizes @ counts), abs(int(whole.sum())) // unit
    points = 1 << (2 * reach + 1).bit_length()
    angle = 2 * np.pi * np.arange(points // 2 + 1) / points
    spectrum = np.ones_like(angle)
    for size, count in zip(sizes, counts, strict=True):
        spectrum *= np.cos(size * angle) ** int(count)
    chances = np.clip(np.fft.irfft(spectrum, points), 0, None)
    tail = 2 * float(chances[seen : reach + 1].sum()) if seen else 1.0
    floor = math.exp((1 - int(counts.sum())) * math.log(2))  # all signs equal; the FFT's own error is 1e-16
    return min(1.0, max(tail, floor))


def permutation_test(values: np.ndarray, sides: Sequence[int], weights: Sequence[int]) -> float:
    """Exact two-sided p that the places of a sample are exchangeable, against a contrast of them.

    values: (n, m) whole numbers, of n samples at m places. sides: (m,) which group a place is in, 0 .. len(weights) - 1.
    weights: what a value counts in each group; all places together weigh nothing. The statistic is the sum of weight x value; it
    is held against every way of putting a sample's m values on its places, samples independent, convolved by one FFT. A
    sign-flip test will not do where groups differ in size: one place against the mean of three is skewed near 0 and 1, and
    raises twice the alarms that it says it does.
    """
    given = np.array([weights[side] for side in sides], np.int64)
    whole = np.rint(values).astype(np.int64)
    if given.sum() or not np.allclose(whole, values, atol=1e-6):
        raise ValueError("exchanged: values must be whole numbers, and weights sum to zero")
    ordered, counts = np.unique(np.sort(whole, axis=1), axis=0, return_counts=True)
    orders = np.array(list(_arrangements(tuple(given.tolist()))))
    outcomes = ordered @ orders.T  # (n_patterns, n_orders)
    seen, reach = abs(int((whole @ given).sum())), int(np.abs(outcomes).max(axis=1) @ counts)
    if not seen:
        return 1.0
    points = 1 << (2 * reach + 1).bit_length()
    angle = 2 * np.pi * np.arange(points // 2 + 1) / points
    spectrum = np.ones(len(angle), complex)
    for row, count in zip(outcomes, counts, strict=True):
        levels, times = np.unique(row, return_counts=True)
        spectrum *= (np.exp(-1j * np.outer(angle, levels)) @ (times / times.sum())) ** int(count)
    chances = np.clip(np.fft.irfft(spectrum, points), 0, None)
    tail = float(chances[seen : reach + 1].sum() + chances[points - reach : points - seen + 1].sum())
    return min(1.0, max(tail, 1e-15))  # the FFT's own error


def _arrangements(weights: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
    """Every different order of weights, each once: few, as there are two or three weights."""
    if not weights:
        yield ()
    for first in sorted(set(weights)):
        rest = list(weights)
        rest.remove(first)
        for more in _arrangements(tuple(rest)):
            yield (first, *more)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down adjusted p-values of one family, in the order given."""
    order = np.argsort(np.asarray(p_values, float), kind="stable")
    adjusted, running = [0.0] * len(order), 0.0
    for rank, i in enumerate(order):
        running = max(running, min(1.0, (len(order) - rank) * p_values[i]))
        adjusted[i] = running
    return adjusted


@lru_cache(maxsize=1024)
def t_quantile(p: float, df: float) -> float:
    """Quantile of Student's t for p in (0.5, 1), by bisection on its distribution function."""
    low, high = 0.0, 1.0
    while _t_cdf(high, df) < p:
        high *= 2
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (middle, high) if _t_cdf(middle, df) < p else (low, middle)
    return (low + high) / 2


@lru_cache(maxsize=4096)
def _t_cdf(x: float, df: float) -> float:
    return 1 - 0.5 * _incomplete_beta(df / 2, 0.5, df / (df + x * x))


def _incomplete_beta(a: float, b: float, x: float) -> float:
    """Regularised, by Lentz's continued fraction (Numerical Recipes 6.4)."""
    if x <= 0 or x >= 1:
        return float(x >= 1)
    if x > (a + 1) / (a + b + 2):  # the fraction converges fast on the other side
        return 1 - _incomplete_beta(b, a, 1 - x)
    front = math.exp(math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)) / a
    c, d = 1.0, 1 / (1 - (a + b) * x / (a + 1))
    total = d
    for m in range(1, 300):
        even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        for term in (even, odd):
            d, c = 1 / (1 + term * d), 1 + term / c
            total *= c * d
        if abs(c * d - 1) < 1e-15:
            break
    return front * total
