"""Coverage: how often 95 % intervals of the analysis hold the true share, over p from .02 to .98, in per cent.

Plain Wilson (cells with one question a sample) is summed exactly over all outcomes; what clusters is simulated: each sample
has a success rate of its own, beta-distributed around p with intra-class correlation ICC, and is asked several times.

Counts are whole numbers, so that coverage jumps with p, and no interval that is not drawn by lot can have 93-97 % everywhere
at small n: the row "nearest possible" has what the best choice of outcomes at each p by itself would reach (at p = .02 and 25
samples 91 or 99 %, nothing between). Wilson's stays within 93-97 % at every p from 250 samples on; below, its mean over p is 95 %
all the same, and the worst p is in the column `least`. A difference of shares near 0 or 1 is nearly always seen as none,
which its interval then holds: near the ends it covers more than 97 %, the more so the fewer samples there are.
"""

from typing import Any

import numpy as np

from lcprobe.analysis.intervals import clustered_wilson, difference_bounds, wilson
from lcprobe.seeds import seed_of

TITLE = "coverage of 95 % intervals, in per cent"
OPTIONS = ("simulations",)
SHARES = (0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98)
FINE = np.round(np.arange(0.02, 0.9801, 0.0025), 4)
ICC = 0.3
ASKED = 5
"""Questions of a sample, or depths that it is asked at."""


def exact_wilson(n: int, shares: np.ndarray) -> np.ndarray:
    """(n_shares,) coverage of Wilson's interval for n independent trials, summed over all outcomes."""
    low, high = wilson(np.arange(n + 1), n)
    p = shares[:, None]
    return (_chances(n, shares) * ((low <= p) & (p <= high))).sum(axis=1)


def _chances(n: int, shares: np.ndarray) -> np.ndarray:
    """(n_shares, n + 1) probability of every number of successes."""
    k, p = np.arange(n + 1), shares[:, None]
    logs = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, n + 1)))])
    return np.exp(logs[n] - logs - logs[::-1] + k * np.log(p) + (n - k) * np.log1p(-p))


def nearest(n: int, shares: np.ndarray) -> np.ndarray:
    """(n_shares,) probability, of all runs of neighbouring outcomes, that is nearest to .95: no interval can be nearer."""
    found = []
    for chances in _chances(n, shares):
        below = np.concatenate([[0.0], np.cumsum(chances)])
        sums = below[None, :] - below[:, None]
        found.append(sums.flat[np.abs(sums - 0.95).argmin()])
    return np.array(found)


def simulated(kind: str, samples: int, asked: int, p: float, simulations: int) -> float:
    """Coverage for `samples` clusters of `asked` trials each. kind: clustered wilson | paired difference."""
    generator = np.random.default_rng(seed_of("coverage", kind, samples, asked, p))
    spread, covered = 1 / ICC - 1, 0
    trials = np.full(samples, asked)
    for _ in range(simulations):
        rate = generator.beta(p * spread, (1 - p) * spread, samples)
        hits = generator.binomial(asked, rate)
        if kind == "paired difference":
            low, high = difference_bounds((hits - generator.binomial(asked, rate * 0.8)) / asked, 1 / asked)
            covered += low <= 0.2 * p <= high
        else:
            low, high = clustered_wilson(hits, trials)
            covered += low <= p <= high
    return covered / simulations


def measure(options: dict[str, str]) -> list[dict[str, Any]]:
    """One row an interval and n: mean over p, least and most. options: simulations (1000) of each cell."""
    simulations, rows = int(options.get("simulations", 1000)), []
    for n in (25, 50, 100, 250, 500, 1000, 2000):
        rows.append(_row("wilson (exact)", n, 1, exact_wilson(n, np.array(SHARES)), exact_wilson(n, FINE)))
    for n in (25, 50, 100, 250):
        rows.append(_row("nearest possible (exact)", n, 1, nearest(n, np.array(SHARES)), nearest(n, FINE)))
    for kind, asked in (("clustered wilson", ASKED), ("paired difference", ASKED), ("paired difference", 1)):
        for samples in (50, 100, 250, 500):
            found = [simulated(kind, samples, asked, p, simulations) for p in SHARES]
            rows.append(_row(kind, samples, asked, np.array(found)))
    return rows


def _row(kind: str, n: int, asked: int, coverage: np.ndarray, fine: np.ndarray | None = None) -> dict[str, Any]:
    whole = coverage if fine is None else fine
    row: dict[str, Any] = {"interval": kind, "samples": n, "asked": asked, "mean": round(100 * float(whole.mean()), 1)}
    row |= {"least": round(100 * float(whole.min()), 1), "most": round(100 * float(whole.max()), 1)}
    return row | {f"p {p:g}": round(100 * float(c), 1) for p, c in zip(SHARES, coverage, strict=True)}
