"""Coverage: how often the report's 95 % intervals contain the truth, over shares p from .02 to .98, in per cent.

Plain Wilson (cells with one question per sample) is summed exactly over all outcomes; the others are simulated:
`simulations` studies per cell (standard error 0.5 points for 2,000) where they are vectorised, fewer where samples
are many and for those that resample (`studies` in every row). A sample has a success rate of its own,
beta-distributed around p with an intra-class correlation, and one or several questions. Differences, ratios and the
level of their test are in `coverage_pairs`.

Counts are whole numbers, so coverage jumps with p, and no non-randomised interval can have 93-97 % everywhere at
small n: the row "nearest possible" is the coverage of the best choice of outcomes at each p by itself (at p = .02 and
25 samples 91 or 99 %, nothing between). Where fewer than about four changed answers are expected, nearly every study
has none or one, which any interval that can contain no difference must cover: its coverage exceeds 97 %, and the
level of its test is below 5 %.
"""

import math
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np

from lcprobe.analysis.findings.cells import Slice
from lcprobe.analysis.findings.extrapolation import SHARE_OF_BASE, extrapolations
from lcprobe.analysis.inputs import TaskFacts
from lcprobe.analysis.stats.exponential_fit import fit_decay
from lcprobe.analysis.stats.fall_fit import fit_fall
from lcprobe.analysis.stats.intervals import clustered_wilson, wilson
from lcprobe.analysis.stats.training_seeds import welch_bounds_of
from lcprobe.seeds import seed_of
from lcprobe.tasks.episode import Formats
from validation.coverage_pairs import (
    ASKED,
    N_ENDS,
    N_MIDDLE,
    SAMPLE_SIZES,
    SHARED_ICC,
    clustered_rates,
    places,
    shared_rates,
    studies_of,
    unequal_sides,
)

TITLE = "coverage of 95 % intervals and level of tests, in per cent"
OPTIONS = ("simulations", "resampled")
SHARES = (0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98)
FINE_SHARES = np.round(np.arange(0.02, 0.9801, 0.0025), 4)
CORRELATIONS = (0.0, 0.3, 1.0)
"""Intra-class correlations of the samples of a share."""
N_QUESTIONS = 5
"""Lengths of the simulated effective length have so many depths."""
SEEDS_PER_GROUP, TRIALS_PER_SEED, SEED_SPREADS = (2, 3, 5), (50, 250, 1000), (0.0, 1.0, 3.0)
"""Training seeds. A spread is the variation between seeds, in standard deviations of their trials."""
MIN_RESOLVED = 0.2
"""Lowest accuracy at short distances at which the report looks for a fall, with about a hundred samples."""


def measure(options: dict[str, str]) -> list[dict[str, Any]]:
    """One row per interval and n: mean over p, lowest and highest. options: simulations (2000) of each cell,
    resampled (60) of those whose intervals come from resampling.
    """
    studies, few = int(options.get("simulations", 2000)), int(options.get("resampled", 60))
    shares, rows = np.array(SHARES), []
    for n in (25, 50, 100, 250, 500, 1000, 2000):
        rows.append(_row("share: Wilson, exact", n, 1, None, exact_wilson(n, shares), exact_wilson(n, FINE_SHARES)))
    for n in (25, 50, 100, 250):
        nearest = nearest_coverage(n, shares), nearest_coverage(n, FINE_SHARES)
        rows.append(_row("share: nearest possible, exact", n, 1, None, *nearest))
    for asked in ASKED:
        for n in SAMPLE_SIZES:
            by_share = [
                dict([*clustered_shares(n, asked, p, studies), *shared_rates(n, asked, p, studies),
                      *unequal_sides(n, asked, p, studies)])
                for p in SHARES
            ]  # fmt: skip
            used = studies_of(n, studies)[0]
            rows += [_row(kind, n, asked, used, coverage) for kind, coverage in _by_kind(by_share).items()]
    for n in SAMPLE_SIZES:
        by_kind, used = _by_kind([dict(places(n, p, studies)) for p in SHARES]), studies_of(n, studies)[0]
        rows += [_row(kind, n, N_ENDS + N_MIDDLE, used, coverage) for kind, coverage in by_kind.items()]
    for seeds in SEEDS_PER_GROUP:
        for trials in TRIALS_PER_SEED:
            for over in SEED_SPREADS:
                coverage = np.array([groups(seeds, trials, over, p, studies) for p in SHARES])
                what = f"training seeds: Welch, seeds vary by {over:g} x their trials"
                rows.append(_row(what, trials, seeds, studies, coverage))
    for n in (50, 100):
        by_kind = _by_kind([dict(resampled_kinds(n, p, few) if p >= MIN_RESOLVED else ()) for p in SHARES])
        rows += [_row(kind, n, 1, few, coverage) for kind, coverage in by_kind.items()]
    return rows


def notes(rows: list[dict[str, Any]]) -> list[str]:
    """Notes for the reader, and every cell outside 93-97 %, for which no better interval is known."""
    lines = [
        "samples: clusters; for training seeds the trials of one seed. asked: answers per sample and side; for seeds "
        "their number.",
        "A difference or ratio counts as covered where the interval's test accepts it: equivalent to its bounds, as "
        "a test of the repository shows. Levels: how often the test rejects equal sides.",
        "Reach and half-life: of falls at 150 tokens over 14 distances of 10 to 1000 tokens, p at distance 0; a "
        "study that "
        "resolves no fall is not counted, and a cell is empty where more than half resolve none. Effective length is "
        "no "
        "interval: the cell is how often the reported length is not longer than the true one, which is promised in "
        "97.5 %.",
    ]
    for row in rows:
        if row["interval"].startswith("effective"):
            continue
        if row["interval"].startswith("level"):
            allowed = 1.2 * float(row["interval"].split("at ")[1].split(" %")[0]) + 0.1
            above = [f"{p:g}: {row[f'p {p:g}']}" for p in SHARES if row[f"p {p:g}"] > allowed]
            if above:
                lines.append(
                    f"above {allowed:g} %: {row['interval']}, {row['samples']} samples asked {row['asked']}: p "
                    f"{', '.join(above)}"
                )
            continue
        outside = [
            f"{p:g}: {row[f'p {p:g}']}"
            for p in SHARES
            if isinstance(row[f"p {p:g}"], float) and not 93 <= row[f"p {p:g}"] <= 97
        ]
        if outside:
            lines.append(
                f"outside 93-97 %: {row['interval']}, {row['samples']} samples asked {row['asked']}: p "
                f"{', '.join(outside)}"
            )
    return lines


def exact_wilson(n: int, shares: np.ndarray) -> np.ndarray:
    """(n_shares,) coverage of Wilson's interval for n independent trials, summed over all outcomes."""
    low, high = wilson(np.arange(n + 1), n)
    p = shares[:, None]
    return (_chances(n, shares) * ((low <= p) & (p <= high))).sum(axis=1)


def nearest_coverage(n: int, shares: np.ndarray) -> np.ndarray:
    """(n_shares,) probability, of all runs of neighbouring outcomes, that is closest to .95: no interval can be
    closer.
    """
    best = []
    for chances in _chances(n, shares):
        below = np.concatenate([[0.0], np.cumsum(chances)])
        sums = below[None, :] - below[:, None]
        best.append(sums.flat[np.abs(sums - 0.95).argmin()])
    return np.array(best)


def clustered_shares(n: int, asked: int, p: float, studies: int) -> Iterator[tuple[str, float]]:
    """Coverage of a share of n samples with several answers each."""
    for icc in CORRELATIONS if asked > 1 else ():
        generator = np.random.default_rng(seed_of("coverage", "share", n, asked, p, icc))
        hits = generator.binomial(asked, clustered_rates(generator, p, icc, studies_of(n, studies)))
        inside = _covers(clustered_wilson(hits, np.full(n, asked)), p)
        yield f"share: clustered Wilson, correlation {icc:g}", float(inside.mean())


def groups(seeds: int, trials: int, over: float, p: float, studies: int) -> float:
    """Coverage of the difference of two groups of training seeds with one true share; nan where seeds cannot vary so
    much.
    """
    generator = np.random.default_rng(seed_of("coverage", "seeds", seeds, trials, over, p))
    rate = np.full((2, studies, seeds), p)
    if over:
        spread = trials / over**2 - 1
        if p * spread < 1 or (1 - p) * spread < 1:
            return math.nan
        rate = generator.beta(p * spread, (1 - p) * spread, rate.shape)
    a, b = generator.binomial(trials, rate) / trials
    return float(_covers(welch_bounds_of(a, b, trials, trials), 0.0).mean())


def resampled_kinds(n: int, p: float, studies: int) -> Iterator[tuple[str, float]]:
    """Coverage of reach, half-life and effective length: p is the accuracy at distance 0, or at the base length."""
    distance, place = np.unique(np.round(np.geomspace(10, 1000, 14))), 150.0
    gentle, gone = p / (1 + (distance / place) ** 3), p * 2.0 ** (-distance / place)
    halfway = place * (1 + 2 * (distance[0] / place) ** 3) ** (1 / 3)
    trials = np.ones((n, len(distance)))
    covered: dict[str, list[bool]] = {"effective reach: cluster bootstrap": [], "half-life: cluster bootstrap": []}
    not_longer: list[bool] = []
    for study in range(studies):
        generator = np.random.default_rng(seed_of("coverage", "resampled", n, p, study))
        level = generator.beta(p * (1 / SHARED_ICC - 1), (1 - p) * (1 / SHARED_ICC - 1), (n, 1)) / p
        tokens, low, high, *_ = fit_fall(
            distance, (generator.random(trials.shape) < gentle * level).astype(float), trials, 0.0, distance
        )
        if tokens is not None and low is not None and high is not None:
            covered["effective reach: cluster bootstrap"].append(low <= halfway <= high)
        tokens, low, high, _ = fit_decay(
            distance, (generator.random(trials.shape) < gone * level).astype(float), trials, 0.0
        )
        if math.isfinite(tokens):
            covered["half-life: cluster bootstrap"].append(low <= place <= high)
        effective = _effective(generator, n, level[:, 0] * p)
        if effective is not None:
            not_longer.append(effective <= 256)
    for kind, hits in [*covered.items(), ("effective length: not longer than it is", not_longer)]:
        yield kind, float(np.mean(hits)) if len(hits) > studies / 2 else math.nan


def _effective(generator: np.random.Generator, n: int, rate: np.ndarray) -> int | None:
    """Effective length of a model that has 0.9 of its base at 256 tokens, and slightly less than required at 512."""
    shares = {128: 1.0, 256: 0.9, 512: SHARE_OF_BASE - 0.01, 1024: 0.5}
    hits = {length: generator.binomial(1, rate * share, (N_QUESTIONS, n)) for length, share in shares.items()}
    data: Any = SimpleNamespace(
        tasks=[TaskFacts("t", "t", 1.0, False, "")],
        study=SimpleNamespace(runs=[SimpleNamespace(name="m", context_length=128, training_data=None)]),
        panels={},
        planned={},
        formats=lambda _: [Formats("-", "-", "-")],
        lengths=lambda *_: list(shares),
        slice=lambda _, length: Slice(
            tuple(range(N_QUESTIONS)), np.arange(n), hits[length], np.ones_like(hits[length]), 1.0
        ),
    )
    return extrapolations(data, {}, ratios=False)[0].effective


def _covers(bounds: tuple[np.ndarray, np.ndarray], truth: float) -> np.ndarray:
    return (bounds[0] <= truth + 1e-9) & (truth - 1e-9 <= bounds[1])


def _chances(n: int, shares: np.ndarray) -> np.ndarray:
    """(n_shares, n + 1) probability of every number of successes."""
    k, p = np.arange(n + 1), shares[:, None]
    logs = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, n + 1)))])
    return np.exp(logs[n] - logs - logs[::-1] + k * np.log(p) + (n - k) * np.log1p(-p))


def _by_kind(by_share: list[dict[str, float]]) -> dict[str, np.ndarray]:
    """(n_shares,) coverage of every kind; nan where a share has none."""
    kinds = dict.fromkeys(kind for one in by_share for kind in one)
    return {kind: np.array([one.get(kind, math.nan) for one in by_share]) for kind in kinds}


def _row(
    kind: str, n: int, asked: int, studies: int | None, coverage: np.ndarray, fine: np.ndarray | None = None
) -> dict[str, Any]:
    whole = coverage[~np.isnan(coverage)] if fine is None else fine
    row: dict[str, Any] = {"interval": kind, "samples": n, "asked": asked, "studies": studies or "all outcomes"}
    for name, value in (("mean", np.mean), ("least", np.min), ("most", np.max)):
        row[name] = _per_cent(kind, float(value(whole))) if len(whole) else ""
    return row | {f"p {p:g}": _per_cent(kind, float(c)) for p, c in zip(SHARES, coverage, strict=True)}


def _per_cent(kind: str, value: float) -> float | str:
    return "" if math.isnan(value) else round(100 * value, 2 if kind.startswith("level") else 1)
