"""Do the curves of models trained at different lengths coincide over length / training length, or over tokens?

A fit of effective lengths reads one point of each curve; this compares the curves. Mean accuracy over training seeds,
for every pair of training lengths: the root mean square of its differences at equal multiples of the training length,
and at equal numbers of tokens, at the lengths that were tested for both. Runs that did not acquire the task have no
part in it, as in the fit. Bounds are a cluster bootstrap over samples.
Noise is part of a root mean square, so that small values are over-estimated: a collapse is never claimed because of
it. Flat curves collapse over both.
"""

from dataclasses import dataclass
from itertools import combinations
from typing import Literal

import numpy as np

from lcprobe.analysis.findings.cells import Measured, PanelKey, Slice
from lcprobe.analysis.findings.training_length.effective_lengths import resampled_accuracy
from lcprobe.analysis.findings.training_length.length_fits import LengthFit
from lcprobe.analysis.stats.bootstrap import percentile_bounds
from lcprobe.analysis.stats.estimates import Estimate
from lcprobe.tasks.episode import Formats

MARGIN = 0.1
"""Root mean square difference in accuracy below which, by its upper bound, curves coincide."""
CollapseVerdict = Literal["over multiples", "over tokens", "over both", "neither", "not resolved", "not tested"]


@dataclass(frozen=True)
class Collapse:
    """Root mean square differences between training lengths' curves, for one architecture, task and format.

    over_multiples, over_tokens: at equal multiples and at equal tokens, each over so many pairs of points. note: why
    there are none.
    """

    architecture: str
    task: str
    format: Formats
    verdict: CollapseVerdict
    over_multiples: Estimate | None = None
    over_tokens: Estimate | None = None
    points_multiples: int = 0
    points_tokens: int = 0
    note: str = ""


def collapses(data: Measured, fits: list[LengthFit]) -> list[Collapse]:
    """One per fit of the same data, over the same runs."""
    return [_collapse(data, fit) for fit in fits]


def _collapse(data: Measured, fit: LengthFit) -> Collapse:
    architecture, task, format = fit.architecture, fit.task, fit.format
    by_length: dict[int, list[PanelKey]] = {}
    for run in fit.fitted:
        by_length.setdefault(run.context_length, []).append(run.where)
    if len(by_length) < 2:
        return Collapse(architecture, task, format, "not tested", note=fit.note)
    lengths = data.lengths(task, format)
    curves: dict[int, np.ndarray] = {}  # (1 + n_resamples, n_lengths): the samples as they are come first
    samples = 0
    for context_length, panels in by_length.items():
        total = []
        for where in panels:  # a run in the fit has every length
            slices = [part for part in (data.slice(where, length) for length in lengths) if isinstance(part, Slice)]
            samples = len(slices[0].index)
            total.append(np.vstack([[part.value for part in slices], resampled_accuracy(slices)]))
        curves[context_length] = np.mean(total, axis=0)
    multiples, tokens = [], []
    for (a, first), (b, second) in combinations(curves.items(), 2):
        tokens += [first[:, i] - second[:, i] for i in range(len(lengths))]
        for i, length in enumerate(lengths):
            same = [j for j, other in enumerate(lengths) if other * a == length * b]
            multiples += [first[:, i] - second[:, j] for j in same]
    if not multiples:
        return Collapse(architecture, task, format, "not tested", note="no multiple is shared")
    by_multiple = np.asarray(np.sqrt(np.mean(np.square(multiples), axis=0)))
    by_token = np.asarray(np.sqrt(np.mean(np.square(tokens), axis=0)))
    first, second = _estimate(by_multiple, samples), _estimate(by_token, samples)
    verdict = _verdict(first, second, percentile_bounds((by_token - by_multiple)[1:], samples))
    return Collapse(architecture, task, format, verdict, first, second, len(multiples), len(tokens))


def _estimate(replicates: np.ndarray, samples: int) -> Estimate:
    """replicates: (1 + n_resamples,), the samples as they are first."""
    low, high = percentile_bounds(replicates[1:], samples)
    return Estimate(float(replicates[0]), low, high, samples, ".2f")


def _verdict(multiples: Estimate, tokens: Estimate, larger: tuple[float, float]) -> CollapseVerdict:
    """larger: bounds of the difference over tokens minus that over multiples."""
    if multiples.high < MARGIN and tokens.high < MARGIN:
        return "over both"
    if multiples.high < MARGIN and larger[0] > 0:
        return "over multiples"
    if tokens.high < MARGIN and larger[1] < 0:
        return "over tokens"
    return "neither" if min(multiples.low, tokens.low) > MARGIN else "not resolved"
