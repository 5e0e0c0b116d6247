"""Plain held-out text: loss by position, the state, and remembrance, with bands over windows of text.

A window is a cluster: every mean is over windows, every difference is paired inside a window, every interval resamples windows.
Loss past the training length is held against the model's own last bin inside it. It rises where that difference is above zero in
a bin and in every longer one, each by its 95 % lower bound: one bin that stands out alone is no rise.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from lcprobe.analysis.findings.load_records import numbers, texts
from lcprobe.analysis.inputs import StudyFacts
from lcprobe.analysis.stats.intervals import percentile_bounds, resampled
from lcprobe.errors import DataError
from lcprobe.records import CONTEXT_SCHEMA


@dataclass(frozen=True)
class Mean:
    """A mean over n windows with its 95 % interval; infinite bounds with one window."""

    value: float
    low: float
    high: float
    n: int

    def __str__(self) -> str:
        return f"{self.value:.3g} ({self.low:.3g}–{self.high:.3g})"


@dataclass(frozen=True)
class Bin:
    """Mean loss, nats a token, of predictions after low .. high tokens, and its difference from the base, paired by window."""

    low: int
    high: int
    loss: Mean
    difference: Mean | None


@dataclass(frozen=True)
class TextCurves:
    """What one model does on plain text. The state is looked at after so many tokens; remembrance: (length, kept) -> distance.

    base: the bin that ends where training did, None where no bin does. rises: tokens read at the first bin from which on the
    loss stays above the base; None without one. not_finite: predictions and values of the state that were not finite.
    """

    model: str
    context_length: int
    windows: int
    bins: tuple[Bin, ...]
    base: Bin | None
    rises: int | None
    state_rms: Mapping[int, Mean]
    state_bytes: Mapping[int, float]
    remembrance: Mapping[tuple[int, int], Mean]
    not_finite: tuple[int, int]

    @property
    def longest(self) -> int:
        """Tokens of a window."""
        return max(self.state_rms, default=0)

    @property
    def lengths(self) -> list[int]:
        """Lengths with remembrance."""
        return sorted({length for length, _ in self.remembrance})


def text_curves(study: StudyFacts, records: pa.Table | None) -> list[TextCurves]:
    """Curves of every model of the study that was measured. Raises DataError for a table that lacks columns of CONTEXT_SCHEMA."""
    if records is None or not len(records):
        return []
    missing = [name for name in CONTEXT_SCHEMA.names if name not in records.column_names]
    if missing:
        raise DataError(
            f"context records: columns {', '.join(missing)} are missing; allowed: tables of records.CONTEXT_SCHEMA"
        )
    columns = {name: numbers(records, name) for name in ("step", "window", "low", "high", "kept", "value", "count")}
    measure, model = texts(records, "measure"), texts(records, "model")
    made = []
    for run in study.runs:
        own = model == run.name
        if own.any():
            own &= columns["step"] == columns["step"][own].max()
            part = {name: values[own] for name, values in columns.items()}
            made.append(_curves(run.name, run.context_length, measure[own], part))
    return made


def _curves(model: str, context_length: int, measure: np.ndarray, c: dict[str, np.ndarray]) -> TextCurves:
    def places(name: str, *keys: str) -> dict[tuple[int, ...], np.ndarray]:
        """Rows of each place, sorted by window."""
        rows = np.nonzero(measure == name)[0]
        rows = rows[np.lexsort((c["window"][rows], *(c[key][rows] for key in reversed(keys))))]
        found: dict[tuple[int, ...], list[int]] = {}
        for row in rows:
            found.setdefault(tuple(int(c[key][row]) for key in keys), []).append(int(row))
        return {place: np.array(same) for place, same in found.items()}

    losses = places("loss", "low", "high")
    base = next((place for place in losses if place[1] == context_length - 1), None)
    bins = []
    for place, rows in losses.items():
        loss = _mean(c["value"][rows])
        if loss is None:
            continue
        difference = None
        if base is not None and place[0] >= context_length:
            both = np.intersect1d(c["window"][rows], c["window"][losses[base]], return_indices=True)
            difference = _mean(c["value"][rows][both[1]] - c["value"][losses[base]][both[2]])
        bins.append(Bin(place[0], place[1], loss, difference))
    windows = {int(w) for w in c["window"]}
    bad = [int(np.nansum(c["value"][measure == name])) for name in ("not_finite_predictions", "not_finite_state")]
    norms = {place[0]: _mean(c["value"][rows]) for place, rows in places("state_rms", "high").items()}
    distances = {
        (place[0], place[1]): _mean(c["value"][rows]) for place, rows in places("remembrance", "high", "kept").items()
    }
    return TextCurves(
        model,
        context_length,
        len(windows),
        tuple(bins),
        next((one for one in bins if (one.low, one.high) == base), None),
        _rises(bins),
        {at: mean for at, mean in norms.items() if mean is not None},
        {place[0]: float(c["value"][rows[0]]) for place, rows in places("state_bytes", "high").items()},
        {at: mean for at, mean in distances.items() if mean is not None},
        (bad[0], bad[1]),
    )


def _rises(bins: Sequence[Bin]) -> int | None:
    """Tokens read at the first bin from which on every bin is above the base."""
    found = None
    for one in reversed([b for b in bins if b.difference is not None]):
        if one.difference is None or not one.difference.low > 0:
            break
        found = one.low
    return found


def _mean(values: np.ndarray) -> Mean | None:
    values = values[np.isfinite(values)]
    if not len(values):
        return None
    n, mean = len(values), float(values.mean())
    spread = values - mean  # single precision inside: resample what is small
    low, high = percentile_bounds(mean + resampled(spread) / n, n)
    return Mean(mean, low, high, n)
