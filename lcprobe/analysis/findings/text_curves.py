"""Plain held-out text: loss by position, the size of the state, and remembrance, with intervals over windows of text.

A window is a cluster: every mean is over windows, every difference is paired inside a window, every interval
resamples windows. Loss past the training length is compared with the model's own last bin inside it. It rises where
that difference is above zero in a bin and in every longer one, each by its 95 % lower bound: one bin that is above
alone is no rise.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from lcprobe.analysis.findings.load_records import numbers, texts
from lcprobe.analysis.inputs import StudyFacts
from lcprobe.analysis.stats.bootstrap import bootstrap_mean
from lcprobe.analysis.stats.estimates import Estimate
from lcprobe.errors import DataError
from lcprobe.records import CONTEXT_SCHEMA


@dataclass(frozen=True)
class LossBin:
    """Mean loss after low .. high tokens, nats per token, and its difference from the base, paired by window."""

    low: int
    high: int
    loss: Estimate
    difference: Estimate | None


@dataclass(frozen=True)
class TextCurves:
    """Curves of one model on plain text.

    base: the bin that ends where training did, None where no bin does. rises: tokens read at the first bin from which
    on the loss stays above the base; None without one. state_rms, state_bytes: by the number of tokens read.
    remembrance: by (length, tokens kept). not_finite: predictions and values of the state that were not finite.
    """

    model: str
    context_length: int
    windows: int
    bins: tuple[LossBin, ...]
    base: LossBin | None
    rises: int | None
    state_rms: Mapping[int, Estimate]
    state_bytes: Mapping[int, float]
    remembrance: Mapping[tuple[int, int], Estimate]
    not_finite: tuple[int, int]

    @property
    def longest(self) -> int:
        """Number of tokens per window."""
        return max(self.state_rms, default=0)

    @property
    def lengths(self) -> list[int]:
        """Lengths at which remembrance was measured."""
        return sorted({length for length, _ in self.remembrance})


def text_curves(study: StudyFacts, records: pa.Table | None) -> list[TextCurves]:
    """Curves of every model of the study that was measured.

    Raises DataError for a table that lacks columns of CONTEXT_SCHEMA.
    """
    if records is None or not len(records):
        return []
    missing = [name for name in CONTEXT_SCHEMA.names if name not in records.column_names]
    if missing:
        raise DataError(
            f"context records: columns {', '.join(missing)} are missing; allowed: tables of records.CONTEXT_SCHEMA"
        )
    columns = {name: numbers(records, name) for name in ("step", "window", "low", "high", "kept", "value", "count")}
    measure, model = texts(records, "measure"), texts(records, "model")
    curves = []
    for run in study.runs:
        own = model == run.name
        if own.any():
            own &= columns["step"] == columns["step"][own].max()
            part = {name: values[own] for name, values in columns.items()}
            curves.append(_curves(run.name, run.context_length, measure[own], part))
    return curves


def _curves(model: str, context_length: int, measure: np.ndarray, columns: dict[str, np.ndarray]) -> TextCurves:
    value = columns["value"]
    losses = _rows_by_key(measure == "loss", columns, "low", "high")
    base = next((key for key in losses if key[1] == context_length - 1), None)
    bins = []
    for key, rows in losses.items():
        loss = bootstrap_mean(value[rows])
        if loss is None:
            continue
        difference = None
        if base is not None and key[0] >= context_length:
            own, reference = rows, losses[base]
            _, i, j = np.intersect1d(columns["window"][own], columns["window"][reference], return_indices=True)
            difference = bootstrap_mean(value[own][i] - value[reference][j])
        bins.append(LossBin(key[0], key[1], loss, difference))
    not_finite = [int(np.nansum(value[measure == f"not_finite_{what}"])) for what in ("predictions", "state")]
    norms, sizes = (_rows_by_key(measure == name, columns, "high") for name in ("state_rms", "state_bytes"))
    distances = _rows_by_key(measure == "remembrance", columns, "high", "kept")
    return TextCurves(
        model=model,
        context_length=context_length,
        windows=len({int(w) for w in columns["window"]}),
        bins=tuple(bins),
        base=next((b for b in bins if (b.low, b.high) == base), None),
        rises=_first_of_lasting_rise(bins),
        state_rms={key[0]: mean for key, rows in norms.items() if (mean := bootstrap_mean(value[rows])) is not None},
        state_bytes={key[0]: float(value[rows[0]]) for key, rows in sizes.items()},
        remembrance={
            (key[0], key[1]): mean
            for key, rows in distances.items()
            if (mean := bootstrap_mean(value[rows])) is not None
        },
        not_finite=(not_finite[0], not_finite[1]),
    )


def _rows_by_key(use: np.ndarray, columns: dict[str, np.ndarray], *keys: str) -> dict[tuple[int, ...], np.ndarray]:
    """Row numbers by the values of some columns, ascending, each sorted by window."""
    rows = np.nonzero(use)[0]
    rows = rows[np.lexsort((columns["window"][rows], *(columns[key][rows] for key in reversed(keys))))]
    grouped: dict[tuple[int, ...], list[int]] = {}
    for row in rows:
        grouped.setdefault(tuple(int(columns[key][row]) for key in keys), []).append(int(row))
    return {key: np.array(group) for key, group in grouped.items()}


def _first_of_lasting_rise(bins: Sequence[LossBin]) -> int | None:
    """Tokens read at the first bin from which on every bin is above the base."""
    first = None
    for one in reversed(bins):
        if one.difference is None:
            continue
        if not one.difference.low > 0:
            break
        first = one.low
    return first
