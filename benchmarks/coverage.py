"""Coverage: how often 95 % intervals of the analysis hold the true share, over p from .02 to .98, in per cent.

Plain Wilson (cells with one question a sample) is summed exactly over all outcomes; what clusters is simulated: each sample
has a success rate of its own, beta-distributed around p with intra-class correlation ICC, and is asked several times.
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
    k = np.arange(n + 1)
    low, high = wilson(k, n)
    logs = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, n + 1)))])
    p = shares[:, None]
    chances = np.exp(logs[n] - logs - logs[::-1] + k * np.log(p) + (n - k) * np.log1p(-p))
    return (chances * ((low <= p) & (p <= high))).sum(axis=1)


def simulated(kind: str, samples: int, p: float, simulations: int) -> float:
    """Coverage for `samples` clusters of ASKED trials each. kind: clustered wilson | paired difference."""
    generator = np.random.default_rng(seed_of("coverage", kind, samples, p))
    spread, covered = 1 / ICC - 1, 0
    trials = np.full(samples, ASKED)
    for _ in range(simulations):
        rate = generator.beta(p * spread, (1 - p) * spread, samples)
        hits = generator.binomial(ASKED, rate)
        if kind == "paired difference":
            low, high = difference_bounds((hits - generator.binomial(ASKED, rate * 0.8)) / ASKED)
            covered += low <= 0.2 * p <= high
        else:
            low, high = clustered_wilson(hits, trials)
            covered += low <= p <= high
    return covered / simulations


def measure(options: dict[str, str]) -> list[dict[str, Any]]:
    """One row an interval and n. options: simulations (1000) of each cell."""
    simulations, rows = int(options.get("simulations", 1000)), []
    for n in (25, 50, 100, 250, 500, 1000, 2000):
        fine = exact_wilson(n, FINE)
        rows.append(_row("wilson (exact)", n, exact_wilson(n, np.array(SHARES)), fine))
    for kind in ("clustered wilson", "paired difference"):
        for samples in (50, 100, 250):
            rows.append(_row(kind, samples, np.array([simulated(kind, samples, p, simulations) for p in SHARES])))
    return rows


def _row(kind: str, n: int, coverage: np.ndarray, fine: np.ndarray | None = None) -> dict[str, Any]:
    whole = coverage if fine is None else fine
    row: dict[str, Any] = {"interval": kind, "samples": n, "mean": round(100 * float(whole.mean()), 1)}
    row |= {"least": round(100 * float(whole.min()), 1), "most": round(100 * float(whole.max()), 1)}
    return row | {f"p {p:g}": round(100 * float(c), 1) for p, c in zip(SHARES, coverage, strict=True)}
