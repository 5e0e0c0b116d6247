"""Quantiles of the normal distribution and of Student's t, with numpy and math only."""

import math
from functools import lru_cache

import numpy as np
from numpy.polynomial import Chebyshev
from numpy.typing import ArrayLike

Z95 = 1.959963984540054
"""97.5 % quantile of the normal distribution: of a two-sided 95 % interval."""
MAX_DF = 400
"""Degrees of freedom of an observed variance that is known well enough: t and z agree within half a per cent."""
MAX_EXACT_DF = 100_000
"""Degrees of freedom from which p-values are those of the normal distribution."""


def t975(df: ArrayLike) -> np.ndarray:
    """97.5 % quantiles of Student's t at degrees of freedom of any shape, 1 .. infinity, to eight digits."""
    return np.exp(_log_t975()(1 / np.asarray(df, float)))


@lru_cache
def _log_t975() -> Chebyshev:
    """Interpolation over 1 / degrees of freedom, 0 .. 1."""
    return Chebyshev.interpolate(lambda us: np.array([math.log(t_quantile(0.975, 1 / u)) for u in us]), 20, [0, 1])


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


def two_sided_p(t: float, df: float) -> float:
    """P(|T| >= |t|) of Student's t; of the normal distribution for infinite degrees of freedom."""
    if df > MAX_EXACT_DF:
        return math.erfc(abs(t) / math.sqrt(2))
    return min(1.0, _incomplete_beta(df / 2, 0.5, df / (df + t * t))) if t else 1.0


@lru_cache(maxsize=4096)
def _t_cdf(x: float, df: float) -> float:
    return 1 - 0.5 * _incomplete_beta(df / 2, 0.5, df / (df + x * x))


def _incomplete_beta(a: float, b: float, x: float) -> float:
    """Regularised incomplete beta function by Lentz's continued fraction (Numerical Recipes 6.4)."""
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
