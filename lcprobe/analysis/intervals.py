"""Intervals and exact tests for successes that come in clusters: what every statement of the report rests on.

A cluster is a sample (`index`): it owns its haystack window, key and value, and is asked again in every cell and model, so
resampling and pairing are by sample. Sources: Wilson 1927; Brown, Cai & DasGupta 2001 (why Wilson and not p +- 2 se);
Korn & Graubard 1998 (effective sample size); Bonett & Price 2012 (paired differences); Fieller 1954 (ratios); Hesterberg 2015,
arXiv 1411.5279 (expanded percentile interval); Fisher's sign-flip randomisation; Holm 1979. numpy and math only, and no generator
state: the same names give the same draws.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from lcprobe.seeds import Stream

Z95 = 1.959963984540054
RESAMPLES = 2000
LARGE = 400
"""Degrees of freedom from which Student's t is taken for normal: within half a per cent."""
ENOUGH = 250
"""Samples from which a 95 % interval of one cell covers 93 to 97 % at every share from .02 to .98 (benchmarks/coverage.py)."""
MOST_RATIO = 1e4
"""A ratio that may be larger is said to have no upper bound."""
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


def effective_trials(hits: np.ndarray, trials: np.ndarray) -> float:
    """How many independent trials the (n,) clusters are worth: trials / design effect, never more than there are.

    The design effect is itself an estimate, and where few clusters make up the variance (shares near 0 or 1) a poor one: by
    chance low together with the share, so that the interval misses. Student's t with the degrees of freedom of that variance
    (Satterthwaite 1946, from the kurtosis of the clusters) in place of z makes up for it. Where every trial has the same
    outcome nothing can be learnt about the correlation inside clusters, and only the clusters count.
    """
    hits, trials = hits[trials > 0].astype(float), trials[trials > 0].astype(float)
    n, clusters = trials.sum(), len(trials)
    if clusters == 0 or trials.max() <= 1:
        return float(n)
    p = hits.sum() / n
    if p in (0.0, 1.0) or clusters == 1:
        return float(clusters)
    squares = (hits - p * trials) ** 2
    variance = clusters / (clusters - 1) * squares.sum() / n**2
    worth = n / max(1.0, variance / (p * (1 - p) / n))
    return float(worth * (Z95 / t_quantile(0.975, _freedom(squares))) ** 2)


def _freedom(squares: np.ndarray) -> int:
    """Degrees of freedom of a variance made of (n,) squared deviations: 2 mean^2 / variance of it, 2 .. LARGE."""
    known = float(np.sum(squares**2) / max(squares.sum(), 1e-12) ** 2) - 1 / len(squares)
    return max(2, min(round(2 / known), LARGE)) if known > 2 / LARGE else LARGE


def clustered_wilson(hits: np.ndarray, trials: np.ndarray) -> Bounds:
    """Wilson's bounds for (n,) clusters of successes and trials; the plain interval where each cluster is one trial."""
    n = trials.sum()
    worth = effective_trials(hits, trials)
    low, high = wilson(hits.sum() / n * worth if n else 0.0, worth)
    return float(low), float(high)


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


def difference_bounds(difference: np.ndarray, unit: float = 1.0) -> Bounds:
    """95 % bounds of a mean difference of shares; difference: (n,) per cluster, in -1 .. 1. unit: most that one trial changes.

    Bonett & Price's interval carried over to clusters: two are added, changed by one unit up and one down, and Student's t is
    taken with the degrees of freedom of the variance. Without them few changed clusters make a variance that is too small by
    chance: a bootstrap covers 85 % for a share of .02 in 50 clusters. Where all clusters agree the bounds are at least what
    Wilson allows for a change never seen in n clusters.
    """
    low, high = _mean_bounds(difference, unit)
    return max(-1.0, low), min(1.0, high)


def ratio_bounds(top: np.ndarray, bottom: np.ndarray, unit: float = 1.0) -> Bounds:
    """95 % bounds of mean(top) / mean(bottom); both (n,) shares per cluster. unit: as of their difference.

    Fieller's set: every r for which the bounds of top - r x bottom hold zero. So they hold 1 if and only if the bounds of the
    difference hold 0, and the two never contradict each other. Unbounded above when the bottom may be zero.
    """
    if not bottom.any():
        return 0.0, math.inf

    def side(r: float) -> int:
        low, high = _mean_bounds(top - r * bottom, unit * max(1.0, r))
        return -1 if low > 0 else 1 if high < 0 else 0  # r is too small, too large, or held

    value = float(top.mean() / bottom.mean())
    most = max(2.0, 2 * value)
    while side(most) == 0 and most < MOST_RATIO:
        most *= 2
    low = 0.0 if side(0.0) == 0 else _edge(0.0, value, lambda r: side(r) < 0)
    return low, math.inf if most >= MOST_RATIO else _edge(value, most, lambda r: side(r) <= 0)


def _edge(low: float, high: float, before: Callable[[float], bool]) -> float:
    """Where `before` ends to hold between low and high, by bisection."""
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if before(middle) else (low, middle)
    return (low + high) / 2


def _mean_bounds(values: np.ndarray, unit: float) -> Bounds:
    n = len(values)
    if n < 2:
        return -math.inf, math.inf
    more = np.concatenate([values, [unit, -unit]])
    squares = (more - more.mean()) ** 2
    half = t_quantile(0.975, _freedom(squares)) * math.sqrt(squares.sum() / (n + 2) / (n + 1))
    low, high = float(more.mean()) - half, float(more.mean()) + half
    if np.all(values == values[0]):
        slack = float(wilson(0, n)[1])
        low, high = min(low, float(values[0]) - slack), max(high, float(values[0]) + slack)
    return low, high


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


def exchanged(values: np.ndarray, sides: Sequence[int], weights: Sequence[int]) -> float:
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


def welch_bounds(a: Sequence[float], b: Sequence[float]) -> Bounds:
    """95 % bounds of mean(a) - mean(b) for two groups of at least two runs each (Welch 1947): the level of training seeds."""
    x, y = np.asarray(a, float), np.asarray(b, float)
    u, v = x.var(ddof=1) / len(x), y.var(ddof=1) / len(y)
    mean = float(x.mean() - y.mean())
    if u + v == 0:
        return mean, mean
    df = (u + v) ** 2 / (u**2 / (len(x) - 1) + v**2 / (len(y) - 1))
    half = t_quantile(0.975, float(df)) * math.sqrt(u + v)
    return mean - half, mean + half


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
