"""Effective length against training length: is the training length the ceiling?

    log2(effective length) = level + slope x (log2(training length) - its mean)   over the runs of an architecture

Slope 1: the effective length is a fixed multiple of the training length, which is the ceiling, in proportion; the
level is that multiple. Slope 0: a reach in tokens that training at longer lengths does not extend. Training runs are
the unit, seeds are replicates, and runs that never fall are censored (`stats.censored_line`). The variance over
samples is added, from resampling all runs jointly, as they share their samples; and the variance due to the grid of
tested lengths, which the seeds of a training length share: where accuracy falls at once, lengths an octave apart do
not tell a slope of 0.7 from one of 1.

The verdict is one of equivalence: not that a slope of 1 is not rejected, but that the whole interval is near 1. It is
a claim of the report (`findings.families`): its p is that of both one-sided tests against the edges of that range.
"""

import math
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Literal

import numpy as np

from lcprobe.analysis.findings.cells import Measured, PanelKey, Unavailable
from lcprobe.analysis.findings.families import Claim
from lcprobe.analysis.findings.gates import Gate
from lcprobe.analysis.findings.slice_tests import pooled
from lcprobe.analysis.findings.training_length.architectures import by_training_length, continued
from lcprobe.analysis.findings.training_length.effective_lengths import EffectiveLength, effective_length
from lcprobe.analysis.stats.censored_line import Bounded, censored_line
from lcprobe.analysis.stats.student_t import Z95
from lcprobe.tasks.episode import Formats

MARGIN = 0.25
"""Largest distance of the whole interval of the slope from 1 or 0 for a verdict. At 0.25, over training lengths a
factor of 8 apart, an effective length in proportion is told from one that grows 1.7 times too slowly or too fast."""
LEAST_SD = 0.1
"""Least standard deviation of a run's log2 effective length around the line: tested lengths are half an octave apart
or more, and runs that agree within a tenth of an octave are not known to agree better."""
Verdict = Literal["ceiling", "fixed reach", "no ceiling", "not resolved", "not tested"]


@dataclass(frozen=True, kw_only=True)
class LengthFit(Claim):
    """The line of one architecture on one task and format.

    runs: the effective length of every run as trained, ascending in training length; those with `refused` are not in
    the fit. continued: of the runs that saw several lengths in training, which are not in the fit either. slope:
    of log2(effective) over log2(training), None where it cannot be estimated; bounds may be infinite. multiple:
    effective length over training length at `centre`, the geometric mean of the training lengths. longest: longest
    tested length. step: largest factor between neighbouring tested lengths, the resolution where accuracy falls at
    once. found: what its interval supports by itself; "no ceiling" is up to `longest`; "not tested" has its reason in
    `note`.
    """

    architecture: str
    task: str
    format: Formats
    runs: tuple[EffectiveLength, ...]
    longest: int
    step: float
    found: Verdict
    centre: float | None = None
    slope: Bounded | None = None
    multiple: Bounded | None = None
    note: str = ""
    continued: tuple[EffectiveLength, ...] = ()

    @property
    def verdict(self) -> Verdict:
        """What is a finding of the report."""
        return "not resolved" if self.p is not None and not self.resolved else self.found

    @property
    def one_seed(self) -> bool:
        """Whether some training length has a single run in the fit."""
        lengths = [run.context_length for run in self.fitted]
        return any(lengths.count(length) < 2 for length in lengths)

    @property
    def fitted(self) -> list[EffectiveLength]:
        """Runs in the fit."""
        return [run for run in self.runs if run.tokens is not None]

    @property
    def grows_less(self) -> bool:
        """Whether the interval of the slope excludes both 0 and 1 and is between them."""
        return self.slope is not None and self.slope.low > 0 and self.slope.high < 1

    def at(self, context_length: float) -> float | None:
        """Effective length in tokens on the line; None without a finite slope."""
        if self.slope is None or self.multiple is None or self.centre is None:
            return None
        if not math.isfinite(self.slope.value) or not math.isfinite(self.multiple.value):
            return None
        return self.multiple.value * self.centre * (context_length / self.centre) ** self.slope.value


def length_fits(data: Measured, gates: list[Gate]) -> list[LengthFit]:
    """One fit per task, format and architecture with several training lengths. gates: of the same data."""
    gate_of = {gate.where: gate for gate in gates}
    fits = []
    for task in data.tasks:
        for format in data.formats(task.name):
            for architecture, by_length in by_training_length(data.study.runs).items():
                after = continued(data.study.runs, architecture)
                own, later = (
                    [effective_length(data, run, gate_of[PanelKey(run.name, task.name, format)]) for run in runs]
                    for runs in ([run for runs in by_length.values() for run in runs], after)
                )
                fit = _fit(data, architecture, task.name, format, own)
                fits.append(replace(fit, continued=tuple(run for run, _ in later)))
    return fits


def _fit(
    data: Measured,
    architecture: str,
    task: str,
    format: Formats,
    own: list[tuple[EffectiveLength, np.ndarray | None]],
) -> LengthFit:
    runs, longest = tuple(run for run, _ in own), own[0][0].longest
    step = max((b / a for a, b in pairwise(data.lengths(task, format))), default=1.0)
    known = [(run, drawn) for run, drawn in own if drawn is not None and run.tokens is not None]
    blank = LengthFit(
        branch="training length",
        family=f"{architecture} on {task}",
        architecture=architecture, task=task, format=format, runs=runs, longest=longest, step=step,
        found="not tested",
    )  # fmt: skip
    if len({run.context_length for run, _ in known}) < 2:
        reasons = "; ".join(dict.fromkeys(run.refused for run in runs if run.refused))
        note = f"fewer than two training lengths with an effective length ({reasons})"
        return replace(blank, note=note)
    x = np.log2([run.context_length for run, _ in known])
    y = np.log2([run.tokens or 1 for run, _ in known])
    censored = np.array([run.at_least for run, _ in known])
    centre = float(2.0 ** x.mean())
    line = censored_line(x.tolist(), y.tolist(), censored.tolist(), LEAST_SD)
    slope = multiple = None
    if line is not None:
        drawn = np.array([np.clip(d, 0, math.log2(longest)) for _, d in known])
        grid = np.array([run.grid_sd for run, _ in known])
        slope, level = (
            _widened(
                bounds, math.hypot(_sample_sd(x, drawn, censored, of_slope), _grid_sd(x, grid, censored, of_slope))
            )
            for bounds, of_slope in ((line.slope, True), (line.level, False))
        )
        multiple = Bounded(*(2.0 ** (v - x.mean()) if math.isfinite(v) else v for v in level))
    verdict: Verdict = "no ceiling" if _nothing_falls(data, [run for run, _ in known]) else _verdict(slope)
    p = None if verdict == "no ceiling" else _equivalence_p(slope)
    return replace(blank, found=verdict, centre=centre, slope=slope, multiple=multiple, p=p)


def _nothing_falls(data: Measured, runs: list[EffectiveLength]) -> bool:
    """Whether every run reaches its level at the longest length, and the seeds of every training length together do
    by their lower bound."""
    by_length: dict[int, list[EffectiveLength]] = {}
    for run in runs:
        by_length.setdefault(run.context_length, []).append(run)
    for seeds in by_length.values():
        together = pooled([data.slice(run.where, run.longest) for run in seeds])
        level = float(np.mean([run.level or 0.0 for run in seeds]))
        if isinstance(together, Unavailable) or together.estimate.low <= level:
            return False
    return all(run.reaches for run in runs)


def _verdict(slope: Bounded | None) -> Verdict:
    expected: list[tuple[float, Verdict]] = [(1.0, "ceiling"), (0.0, "fixed reach")]
    for value, verdict in expected:
        if slope is not None and value - MARGIN <= slope.low and slope.high <= value + MARGIN:
            return verdict
    return "not resolved"


def _equivalence_p(slope: Bounded | None) -> float:
    """The least p with which the whole interval is near 1 or near 0: .05 where its bound touches the edge."""
    if slope is None or not all(map(math.isfinite, slope)):
        return 1.0
    p_values = []
    for value in (1.0, 0.0):
        above, below = slope.value - (value - MARGIN), (value + MARGIN) - slope.value
        sides = ((above, slope.value - slope.low), (below, slope.high - slope.value))
        if min(above, below) <= 0:
            continue
        p_values.append(max(math.erfc(Z95 * room / max(half, 1e-9) / math.sqrt(2)) for room, half in sides))
    return min(p_values, default=1.0)


def _sample_sd(x: np.ndarray, drawn: np.ndarray, censored: np.ndarray, slope: bool) -> float:
    """Standard deviation over resampled samples of the slope or level of the runs that are not censored.

    x: (n_runs,). drawn: (n_runs, n_resamples) log2 effective lengths.
    """
    x, drawn = x[~censored], drawn[~censored]
    centred = x - x.mean()
    if not slope:
        return float(drawn.mean(axis=0).std(ddof=1))
    spread = float(centred @ centred)
    return float((centred @ drawn / spread).std(ddof=1)) if spread > 0 else 0.0


def _grid_sd(x: np.ndarray, sd: np.ndarray, censored: np.ndarray, slope: bool) -> float:
    """Standard deviation of the slope or level due to the grid of tested lengths, one error per training length.

    x, sd: (n_runs,) log2 training lengths and `EffectiveLength.grid_sd`.
    """
    x, sd = x[~censored], sd[~censored]
    centred = x - x.mean()
    spread = float(centred @ centred)
    if slope and spread == 0:
        return 0.0
    weights = centred / spread if slope else np.full(len(x), 1 / len(x))
    return math.sqrt(sum(float(weights[x == one] @ sd[x == one]) ** 2 for one in np.unique(x)))


def _widened(bounds: Bounded, sd: float) -> Bounded:
    """Bounds over runs with the variance over samples and that of the grid added on each side."""
    value, low, high = bounds
    if not math.isfinite(value):
        return bounds
    return Bounded(value, value - math.hypot(value - low, Z95 * sd), value + math.hypot(high - value, Z95 * sd))
