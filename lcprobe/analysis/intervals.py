"""Intervals and exact tests for successes that come in clusters: what every statement of the report rests on.

A cluster is a sample (`index`): it owns its haystack window, key and value, and is asked again in every cell and model, so
resampling and pairing are by sample. Sources: Wilson 1927; Brown, Cai & DasGupta 2001 (why Wilson and not p +- 2 se);
Korn & Graubard 1998 (effective sample size); Hesterberg 2015, arXiv 1411.5279 (expanded percentile interval); McNemar 1947;
Fisher's sign-flip randomisation; Holm 1979. numpy and math only, and no generator state: the same names give the same draws.
"""

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from lcprobe.seeds import Stream

Z95 = 1.959963984540054
RESAMPLES = 2000
LARGE = 400
"""Degrees of freedom from which Student's t is taken for normal: within half a per cent."""
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
    known = float(np.sum(squares**2) / max(squares.sum(), 1e-12) ** 2) - 1 / clusters
    freedom = min(round(2 / known), LARGE) if known > 2 / LARGE else LARGE
    return float(worth * (Z95 / t_quantile(0.975, max(freedom, 2))) ** 2)


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


def difference_bounds(difference: np.ndarray) -> Bounds:
    """Paired cluster bootstrap of a mean difference of shares; difference: (n,) per cluster, in -1 .. 1.

    Where all clusters agree the bounds are what Wilson allows for a change never seen in n clusters.
    """
    n, mean = len(difference), float(difference.mean())
    if np.all(difference == difference[0]):
        slack = float(wilson(0, n)[1])
        return max(-1.0, mean - slack), min(1.0, mean + slack)
    low, high = percentile_bounds(resampled(difference) / n, n)
    return max(-1.0, low), min(1.0, high)


def ratio_bounds(top: np.ndarray, bottom: np.ndarray) -> Bounds:
    """Paired cluster bootstrap of mean(top) / mean(bottom); both (n,) shares per cluster.

    Where one side is the same in all clusters its Wilson bound stands in, which is conservative. Unbounded above when the
    bottom may be zero.
    """
    n = len(top)
    ones = np.ones(n)
    if _constant(top, ones) or _constant(bottom, ones):
        (a, b), (c, d) = clustered_wilson(top, ones), clustered_wilson(bottom, ones)
        return a / d if d else 0.0, b / c if c else math.inf
    over, under = resampled(top), resampled(bottom)
    return percentile_bounds(np.divide(over, under, out=np.full(len(over), np.inf), where=under > 0), n)


def mcnemar(only_first: int, only_second: int) -> float:
    """Exact two-sided p of McNemar's test from the two discordant counts."""
    n, least = only_first + only_second, min(only_first, only_second)
    if n == 0:
        return 1.0
    logs = [math.lgamma(n + 1) - math.lgamma(i + 1) - math.lgamma(n - i + 1) - n * math.log(2) for i in range(least + 1)]
    return min(1.0, 2 * math.fsum(math.exp(x) for x in logs))


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


def _constant(hits: np.ndarray, trials: np.ndarray) -> bool:
    share = hits / np.where(trials > 0, trials, 1)
    return bool(np.all(share == share[0]))


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
