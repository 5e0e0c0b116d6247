"""Coverage: how often the report's 95 % intervals hold the truth, over shares p from .02 to .98, in per cent.

Plain Wilson (cells with one question a sample) is summed exactly over all outcomes; the others are simulated, 10,000 studies a
cell (standard error 0.2 points) where they are vectorised, fewer for those that resample (`studies` in every row). A sample has
a success rate of its own, beta-distributed around p with intra-class correlation ICC, and is asked once or several times; the
other side of a comparison is asked the same samples and finds `factor` times as many.

Counts are whole numbers, so that coverage jumps with p, and no interval that is not drawn by lot can have 93-97 % everywhere
at small n: the row "nearest possible" has what the best choice of outcomes at each p by itself would reach (at p = .02 and 25
samples 91 or 99 %, nothing between). Where fewer than some four changed answers are expected, nearly every study sees none or
one, which an interval that is ever to hold no difference must hold: it covers more than 97 %.
"""

import math
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np

from lcprobe.analysis.findings.cells import Slice
from lcprobe.analysis.findings.extrapolation import SHARE_OF_BASE, extrapolations
from lcprobe.analysis.stats.differences import difference_bounds, ratio_side
from lcprobe.analysis.stats.exponential_fit import fit_decay
from lcprobe.analysis.stats.fall_fit import fit_fall
from lcprobe.analysis.stats.intervals import clustered_wilson, wilson
from lcprobe.analysis.stats.training_seeds import welch_bounds_of
from lcprobe.seeds import seed_of
from lcprobe.tasks.episode import Formats

TITLE = "coverage of 95 % intervals, in per cent"
OPTIONS = ("simulations", "resampled")
SHARES = (0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98)
FINE = np.round(np.arange(0.02, 0.9801, 0.0025), 4)
ICC = 0.3
ASKED = 5
"""Questions of a sample, or depths that it is asked at."""
SAMPLES = (50, 100, 250)
FACTORS = (1.0, 0.8, 0.5)
ENDS, MIDDLE = 2, 3
"""Depths of a contrast of places."""
SEEDS = ((2, 3, 5), (50, 250, 1000), (0.0, 1.0, 3.0))
"""Training seeds a group, trials a seed, and how much seeds vary beside: standard deviations of those trials."""
LOUD = 0.2
"""Least accuracy at short distances at which the report looks for a fall, with a hundred samples or so."""
AT_ONCE = 1 << 20
"""Samples simulated at a time."""


def measure(options: dict[str, str]) -> list[dict[str, Any]]:
    """One row an interval and n: mean over p, least and most. options: simulations (10000) of each cell, resampled (300) of
    those whose intervals come from resampling.
    """
    studies, few = int(options.get("simulations", 10_000)), int(options.get("resampled", 300))
    rows = []
    for n in (25, 50, 100, 250, 500, 1000, 2000):
        rows.append(
            _row("share: Wilson, exact", n, 1, None, exact_wilson(n, np.array(SHARES)), exact_wilson(n, FINE))
        )
    for n in SAMPLES:
        rows.append(
            _row("share: nearest possible, exact", n, 1, None, nearest(n, np.array(SHARES)), nearest(n, FINE))
        )
    for asked in (1, ASKED):
        for n in SAMPLES:
            by_kind = _by_kind([dict(paired(n, asked, p, studies)) for p in SHARES])
            rows += [_row(kind, n, asked, studies, found) for kind, found in by_kind.items()]
    for n in SAMPLES:
        by_kind = _by_kind([dict(places(n, p, studies)) for p in SHARES])
        rows += [_row(kind, n, ENDS + MIDDLE, studies, found) for kind, found in by_kind.items()]
    for seeds in SEEDS[0]:
        for trials in SEEDS[1]:
            for over in SEEDS[2]:
                found = np.array([groups(seeds, trials, over, p, studies) for p in SHARES])
                rows.append(
                    _row(
                        f"training seeds: Welch, seeds vary by {over:g} x their trials", trials, seeds, studies, found
                    )
                )
    for n in (50, 100):
        by_kind = _by_kind([dict(resampled_kinds(n, p, few) if p >= LOUD else ()) for p in SHARES])
        rows += [_row(kind, n, 1, few, found) for kind, found in by_kind.items()]
    return rows


def notes(rows: list[dict[str, Any]]) -> list[str]:
    """What a reader must know, and every place outside 93-97 %, which no better interval is known to mend."""
    said = [
        "samples: clusters; of training seeds the trials of one seed. asked: answers of a sample a side; of seeds their number.",
        "The ratio is held where the interval's test holds it: the same as its bounds, which a test of the repository shows.",
        "Reach and half-life: of falls at 150 tokens over 14 distances of 10 to 1000 tokens, p at no distance; a study that "
        "refuses (no fall resolved) is not counted, and no number stands where more than half do. Effective length is no "
        "interval: counted is how often the length said is not longer than the true one, where 97.5 % are promised.",
    ]
    for row in rows:
        if row["interval"].startswith("effective"):
            continue
        outside = [
            f"{p:g}: {row[f'p {p:g}']}"
            for p in SHARES
            if isinstance(row[f"p {p:g}"], float) and not 93 <= row[f"p {p:g}"] <= 97
        ]
        if outside:
            said.append(
                f"outside 93-97 %: {row['interval']}, {row['samples']} samples asked {row['asked']}: p {', '.join(outside)}"
            )
    return said


def exact_wilson(n: int, shares: np.ndarray) -> np.ndarray:
    """(n_shares,) coverage of Wilson's interval for n independent trials, summed over all outcomes."""
    low, high = wilson(np.arange(n + 1), n)
    p = shares[:, None]
    return (_chances(n, shares) * ((low <= p) & (p <= high))).sum(axis=1)


def nearest(n: int, shares: np.ndarray) -> np.ndarray:
    """(n_shares,) probability, of all runs of neighbouring outcomes, that is nearest to .95: no interval can be nearer."""
    found = []
    for chances in _chances(n, shares):
        below = np.concatenate([[0.0], np.cumsum(chances)])
        sums = below[None, :] - below[:, None]
        found.append(sums.flat[np.abs(sums - 0.95).argmin()])
    return np.array(found)


def paired(n: int, asked: int, p: float, studies: int) -> Iterator[tuple[str, float]]:
    """Coverage of a share, and of differences and ratios of two sides, for n samples of `asked` answers a side."""
    held: dict[str, list[np.ndarray]] = {}
    for generator, rate in _rates("paired", n, p, studies, asked):
        base = generator.binomial(asked, rate)
        if asked > 1:
            held.setdefault("share: clustered Wilson", []).append(
                _holds(clustered_wilson(base, np.full(n, asked)), p)
            )
        for factor in FACTORS:
            top = generator.binomial(asked, rate * factor)
            inside = _holds(difference_bounds((base - top) / asked), p * (1 - factor))
            held.setdefault(f"paired difference: clustered Tango, factor {factor:g}", []).append(inside)
            if p >= 0.05:  # a base that may be zero has no ratio
                inside = ratio_side(top / asked, base / asked, factor) == 0
                held.setdefault(f"ratio: Fieller, factor {factor:g}", []).append(inside)
    return ((kind, float(np.concatenate(parts).mean())) for kind, parts in held.items())


def places(n: int, p: float, studies: int) -> Iterator[tuple[str, float]]:
    """Coverage of ends against middle: two depths against three, whose answers weigh differently."""
    held: dict[str, list[np.ndarray]] = {}
    for generator, rate in _rates("places", n, p, studies, 1):
        ends = generator.binomial(ENDS, rate) / ENDS
        for factor in (1.0, 0.5):
            middle = generator.binomial(MIDDLE, rate * factor) / MIDDLE
            inside = _holds(difference_bounds(ends - middle), p * (1 - factor))
            held.setdefault(f"ends − middle: clustered Tango, factor {factor:g}", []).append(inside)
    return ((kind, float(np.concatenate(parts).mean())) for kind, parts in held.items())


def groups(seeds: int, trials: int, over: float, p: float, studies: int) -> float:
    """Coverage of the difference of two groups of training seeds of one true share; nan where no seeds can vary so much."""
    generator = np.random.default_rng(seed_of("coverage", "seeds", seeds, trials, over, p))
    rate = np.full((2, studies, seeds), p)
    if over:
        spread = trials / over**2 - 1
        if p * spread < 1 or (1 - p) * spread < 1:
            return math.nan
        rate = generator.beta(p * spread, (1 - p) * spread, rate.shape)
    a, b = generator.binomial(trials, rate) / trials
    return float(_holds(welch_bounds_of(a, b, trials, trials), 0.0).mean())


def resampled_kinds(n: int, p: float, studies: int) -> Iterator[tuple[str, float]]:
    """Coverage of reach, half-life and effective length: p is the accuracy at no distance, or at the base."""
    distance, place = np.unique(np.round(np.geomspace(10, 1000, 14))), 150.0
    gentle, gone = p / (1 + (distance / place) ** 3), p * 2.0 ** (-distance / place)
    halfway = place * (1 + 2 * (distance[0] / place) ** 3) ** (1 / 3)
    trials = np.ones((n, len(distance)))
    held: dict[str, list[bool]] = {"effective reach: cluster bootstrap": [], "half-life: cluster bootstrap": []}
    said: list[bool] = []
    for study in range(studies):
        generator = np.random.default_rng(seed_of("coverage", "resampled", n, p, study))
        level = generator.beta(p * (1 / ICC - 1), (1 - p) * (1 / ICC - 1), (n, 1)) / p
        tokens, low, high, *_ = fit_fall(
            distance, (generator.random(trials.shape) < gentle * level).astype(float), trials, 0.0, distance
        )
        if tokens is not None and low is not None and high is not None:
            held["effective reach: cluster bootstrap"].append(low <= halfway <= high)
        tokens, low, high, _ = fit_decay(
            distance, (generator.random(trials.shape) < gone * level).astype(float), trials, 0.0
        )
        if math.isfinite(tokens):
            held["half-life: cluster bootstrap"].append(low <= place <= high)
        effective = _effective(generator, n, level[:, 0] * p)
        if effective is not None:
            said.append(effective <= 256)
    for kind, found in [*held.items(), ("effective length: not longer than it is", said)]:
        yield kind, float(np.mean(found)) if len(found) > studies / 2 else math.nan


def _effective(generator: np.random.Generator, n: int, rate: np.ndarray) -> int | None:
    """Effective length of a model that has 0.9 of its base at 256 tokens, and a little less than is asked for at 512."""
    shares = {128: 1.0, 256: 0.9, 512: SHARE_OF_BASE - 0.01, 1024: 0.5}
    hits = {length: generator.binomial(1, rate * share, (ASKED, n)) for length, share in shares.items()}
    data: Any = SimpleNamespace(
        tasks=[SimpleNamespace(name="t")],
        study=SimpleNamespace(runs=[SimpleNamespace(name="m", context_length=128)]),
        formats=lambda _: [Formats("-", "-", "-")],
        lengths=lambda *_: list(shares),
        slice=lambda _, length: Slice(
            tuple(range(ASKED)), np.arange(n), hits[length], np.ones_like(hits[length]), 1.0
        ),
    )
    return extrapolations(data)[0].effective


def _rates(kind: str, n: int, p: float, studies: int, asked: int) -> Iterator[tuple[np.random.Generator, np.ndarray]]:
    """Generator and (some studies, n) rates of samples, until there are enough studies."""
    generator = np.random.default_rng(seed_of("coverage", kind, n, asked, p))
    spread, at_once = 1 / ICC - 1, max(1, AT_ONCE // n)
    for first in range(0, studies, at_once):
        yield generator, generator.beta(p * spread, (1 - p) * spread, (min(at_once, studies - first), n))


def _holds(bounds: tuple[np.ndarray, np.ndarray], truth: float) -> np.ndarray:
    return (bounds[0] <= truth + 1e-9) & (truth - 1e-9 <= bounds[1])


def _chances(n: int, shares: np.ndarray) -> np.ndarray:
    """(n_shares, n + 1) probability of every number of successes."""
    k, p = np.arange(n + 1), shares[:, None]
    logs = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, n + 1)))])
    return np.exp(logs[n] - logs - logs[::-1] + k * np.log(p) + (n - k) * np.log1p(-p))


def _by_kind(found: list[dict[str, float]]) -> dict[str, np.ndarray]:
    """(n_shares,) coverage of every kind; nan where a share has none."""
    kinds = dict.fromkeys(kind for one in found for kind in one)
    return {kind: np.array([one.get(kind, math.nan) for one in found]) for kind in kinds}


def _row(
    kind: str, n: int, asked: int, studies: int | None, coverage: np.ndarray, fine: np.ndarray | None = None
) -> dict[str, Any]:
    whole = coverage[~np.isnan(coverage)] if fine is None else fine
    row: dict[str, Any] = {"interval": kind, "samples": n, "asked": asked, "studies": studies or "all outcomes"}
    row |= {"mean": round(100 * float(whole.mean()), 1) if len(whole) else ""}
    row |= (
        {"least": round(100 * float(whole.min()), 1), "most": round(100 * float(whole.max()), 1)}
        if len(whole)
        else {"least": "", "most": ""}
    )
    return row | {
        f"p {p:g}": "" if math.isnan(c) else round(100 * float(c), 1) for p, c in zip(SHARES, coverage, strict=True)
    }
