"""A value with its 95 % interval, and a proportion with its counts beside it."""

from dataclasses import dataclass

import numpy as np

from lcprobe.analysis.stats.intervals import clustered_wilson, mean_of_cells


@dataclass(frozen=True)
class Estimate:
    """A mean or ratio over n clusters with its 95 % interval; bounds are infinite where the data set none.

    format_spec: how `str()` writes its three numbers.
    """

    value: float
    low: float
    high: float
    n: int
    format_spec: str = ".3g"

    def __str__(self) -> str:
        value, low, high = (format(x, self.format_spec) for x in (self.value, self.low, self.high))
        return f"{value} ({low}–{high})"


@dataclass(frozen=True)
class Proportion:
    """A proportion with its 95 % interval: k of n trials, from `samples` clusters."""

    k: int
    n: int
    samples: int
    low: float
    high: float

    @property
    def value(self) -> float:
        """k / n."""
        return self.k / self.n

    def __str__(self) -> str:
        return f"{self.value:.2f} ({self.k}/{self.n}, {self.low:.2f}–{self.high:.2f})"


def proportion_of(hits: np.ndarray, trials: np.ndarray) -> Proportion:
    """Proportion of successes with Wilson's interval for clusters. hits, trials: (n_clusters,)."""
    low, high = map(float, clustered_wilson(hits, trials))
    return Proportion(int(hits.sum()), int(trials.sum()), int((trials > 0).sum()), low, high)


def proportion_of_cells(hits: np.ndarray, trials: np.ndarray) -> Proportion:
    """Proportion of the successes of several cells with the same clusters. hits, trials: (n_cells, n_clusters)."""
    low, high = map(float, mean_of_cells(hits, trials))
    return Proportion(int(hits.sum()), int(trials.sum()), int((trials.sum(axis=0) > 0).sum()), low, high)
