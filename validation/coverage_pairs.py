"""Coverage of differences and ratios of two sides that answer the same samples, and the level of their test.

Where an interval is that of a test, the truth is covered if the test does not reject it, and so is simulated without
bounds. The level of the test is that of samples that do not differ, at 5 % (what is not covered) and at the smaller
levels that Holm's correction needs.
"""

from collections.abc import Iterator

import numpy as np

from lcprobe.analysis.stats.differences import Terms, contrast_side, ratio_side
from lcprobe.seeds import seed_of

SAMPLE_SIZES = (25, 50, 100, 250, 1000)
ASKED = (1, 5, 10)
"""Answers per sample and side."""
CORRELATIONS = ((0.0, 0.0), (0.0, 1.0), (0.5, 1.0), (1.0, 1.0))
"""Intra-class correlations of the two sides, drawn independently of each other: 1 is all or nothing."""
SHARED_ICC = 0.3
"""Intra-class correlation of sides whose samples have the same success rates, up to a factor."""
EFFECT_FACTORS = (1.0, 0.8, 0.5)
LEVELS = (0.05, 0.01, 0.001)
N_ENDS, N_MIDDLE = 2, 3
"""Depths on each side of a contrast of ends and middle."""
MAX_SAMPLES = 1 << 20
"""Samples that are simulated per cell: fewer studies where they are large."""
MIN_BASE = 0.05
"""Smallest share of the lower side of a ratio: one that may be zero has no ratio."""


def clustered_rates(generator: np.random.Generator, p: float, icc: float, shape: tuple[int, ...]) -> np.ndarray:
    """Success rates of samples with mean p and intra-class correlation `icc`: beta-distributed; at 0 all p, at 1 all
    or nothing.
    """
    if icc == 0:
        return np.full(shape, p)
    if icc == 1:
        return (generator.random(shape) < p).astype(float)
    return generator.beta(p * (1 / icc - 1), (1 - p) * (1 / icc - 1), shape)


def studies_of(n: int, studies: int) -> tuple[int, int]:
    """Shape of the samples of a cell: (studies, n)."""
    return min(studies, MAX_SAMPLES // n), n


def unequal_sides(n: int, asked: int, p: float, studies: int) -> Iterator[tuple[str, float]]:
    """Level and coverage where the sides have correlations of their own; the second has `factor` times the share."""
    for correlations in CORRELATIONS if asked > 1 else CORRELATIONS[:1]:
        generator = np.random.default_rng(seed_of("coverage", "unequal", n, asked, p, *correlations))
        shape = studies_of(n, studies)
        what = f"correlations {correlations[0]:g} and {correlations[1]:g}" if asked > 1 else "independent sides"
        for factor in EFFECT_FACTORS:
            first, second = (
                generator.binomial(asked, clustered_rates(generator, p * f, icc, shape)) / asked
                for f, icc in zip((1.0, factor), correlations, strict=True)
            )
            terms = [(1.0, first), (-1.0, second)]
            if factor == 1:
                yield from _levels(terms, what)
            else:
                inside = contrast_side(terms, p * (1 - factor)) == 0
                yield f"paired difference, {what}, factor {factor:g}", float(inside.mean())


def shared_rates(n: int, asked: int, p: float, studies: int) -> Iterator[tuple[str, float]]:
    """Coverage of differences and ratios of two sides whose samples have the same rates, up to a factor."""
    generator = np.random.default_rng(seed_of("coverage", "paired", n, asked, p))
    rate = clustered_rates(generator, p, SHARED_ICC, studies_of(n, studies))
    base = generator.binomial(asked, rate) / asked
    for factor in EFFECT_FACTORS:
        top = generator.binomial(asked, rate * factor) / asked
        inside = contrast_side([(1.0, base), (-1.0, top)], p * (1 - factor)) == 0
        yield f"paired difference, same rates, factor {factor:g}", float(inside.mean())
        if p >= MIN_BASE:
            yield f"ratio, same rates, factor {factor:g}", float((ratio_side(top, base, factor) == 0).mean())


def places(n: int, p: float, studies: int) -> Iterator[tuple[str, float]]:
    """Coverage and level of ends against middle: two depths, and one, against three."""
    generator = np.random.default_rng(seed_of("coverage", "places", n, p))
    rate = clustered_rates(generator, p, SHARED_ICC, studies_of(n, studies))
    for name, depths in (("ends", N_ENDS), ("start", 1)):
        ends = generator.binomial(depths, rate) / depths
        yield from _levels([(1.0, ends), (-1.0, generator.binomial(N_MIDDLE, rate) / N_MIDDLE)], f"{name} − middle")
        lower = generator.binomial(N_MIDDLE, rate * 0.5) / N_MIDDLE
        inside = contrast_side([(1.0, ends), (-1.0, lower)], p * 0.5) == 0
        yield f"{name} − middle, factor 0.5", float(inside.mean())


def _levels(terms: Terms, what: str) -> Iterator[tuple[str, float]]:
    for level in LEVELS:
        rejected = float((contrast_side(terms, level=level) != 0).mean())
        yield f"level of the test at {100 * level:g} %: {what}", rejected
